//! Immutable search structures over dense rows.
//!
//! A structure sees vectors only through a [`Scorer`], which scores blocks of rows, and says which
//! rows may be answered only through [`Allowed`]; what it finds goes into a [`TopK`]. Metric,
//! storage and structure stay three separate axes.
//!
//! Invariants:
//! - I1: a search never returns a row outside `allowed`.
//! - I2: results are in the total order (distance, key), so ties never depend on the path taken.
//! - I3: [`brute_force`] is exact.
//! - I4: a build is deterministic in (inputs, spec, seed), whatever the number of threads.
//! - I5: reading what was written gives the same structure.
//! - I6: a row's distance is a function of the query and the row alone: the same bits from
//!   [`Scorer::score_range`] in any split and from [`Scorer::score`].

mod allowed;
pub mod brute_force;
pub mod codes;
mod executor;
pub mod hnsw;
pub mod ivf;
mod metric;
mod norm;
mod pages;
mod random;
mod rotation;
mod row;
mod scorer;
mod sections;
mod top_k;
mod vectors;

pub use allowed::{AllRows, Allowed};
pub use executor::{Executor, Sequential};
pub use metric::Metric;
pub use norm::{VectorError, inverse_norm, normalized};
pub use row::{Neighbor, RowId};
pub use scorer::{Scorer, VectorScorer};
pub use sections::{Malformed, SectionReader, SectionWriter};
pub use top_k::TopK;
pub use vectors::{RowBlock, Vectors};
