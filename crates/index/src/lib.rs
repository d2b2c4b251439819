//! Immutable search structures over dense rows.
//!
//! A structure sees vectors only through a [`Scorer`], which scores blocks of rows, and says which
//! rows may be answered only through [`Allowed`]; what it finds goes into a [`TopK`]. Metric,
//! storage and structure stay three separate axes.
//!
//! Invariants:
//! - I1: a search never returns a row outside `allowed`.
//! - I2: results are in the total order (distance, key), so ties never depend on the path taken.
//! - I3: [`brute_force`] and [`kd_tree`] are exact, but for a scan by codes that only estimate
//!   distances, and so are [`keyword`], [`sparse`] and [`LateItems`]; the others have a recall floor in
//!   their tests, and never give fewer than k rows where there are k.
//! - I4: a build is deterministic in (inputs, spec, seed), whatever the number of threads.
//! - I5: reading what was written gives the same structure, and reading anything else an error.
//! - I6: a row's distance is a function of the query and the row alone: the same bits from
//!   [`Scorer::score_range`] in any split and from [`Scorer::score`]. So is a score of [`sparse`] and of
//!   [`LateItems`].

mod allowed;
pub mod analysis;
pub mod brute_force;
mod built;
mod calibration;
pub mod codes;
mod columns;
#[cfg(test)]
mod corpus;
mod estimate;
mod executor;
mod full_space;
pub mod hnsw;
mod inverted;
pub mod ivf;
pub mod kd_tree;
pub mod keyword;
mod late_interaction;
pub mod lsh;
mod metric;
mod norm;
mod pages;
mod queries;
mod random;
mod rotation;
mod row;
mod row_set;
mod scorer;
mod sections;
mod sketch;
pub mod sparse;
mod spec;
mod telling;
mod top_k;
mod vectors;
mod walk;

pub use allowed::{AllRows, Allowed};
pub use built::{Effort, Figure, Joined, Request, SegmentIndex, Tuning};
pub use calibration::{
    CALIBRATED_KS, Calibration, Choice, Curve, FoundRows, Point, SegmentRows, Subject, USUAL_K,
    calibrate,
};
pub use columns::{Column, Columns, ColumnsBuilder, Field, FieldValue, Number};
pub use executor::{Executor, Sequential};
pub use late_interaction::{LateItems, LateQuery, LateScope, Similarity};
pub use metric::Metric;
pub use norm::{VectorError, check_norm, inverse_norm, normalized};
pub use queries::{Queries, QueryMatch};
pub use row::{Neighbor, RowId};
pub use row_set::RowSet;
pub use scorer::{Scorer, VectorScorer};
pub use sections::{Malformed, SectionReader, SectionWriter};
pub use spec::{IndexSpec, ParameterError, Quantization, Structure};
pub use top_k::TopK;
pub use vectors::{RowBlock, Vectors};
pub use walk::{Query, Walk};
