//! The engine: everything a vector database does, without any server around it.
//!
//! ```text
//! write: put (split, embed, id, time) -> bounded queue of the library's only writer -> decide
//!        -> log.append (group commit, one fdatasync) -> apply -> publish -> acknowledge
//! read:  load the published view once -> CPU pool: search -> hydrate -> answer
//! ```
//!
//! Invariants:
//! - **N1** Append, then apply, then publish, then acknowledge; nothing is answered, a refusal
//!   included, before what it saw is durable.
//! - **N2** What is published only advances.
//! - **N3** Every queue is bounded; a full one answers [`EngineError::Busy`].
//! - **N4** No lock is held across an await, and none on the read path of an open library (opening a
//!   closed one waits on a thread for blocking work). But for one that no request waits for: the
//!   builder and the upkeep keep each other from a library's files.
//! - **N5** What is acknowledged is in the active generation, whenever a library's embedding model is
//!   changed.

mod apart;
pub mod backup;
mod budgets;
mod building;
mod calibrating;
mod carry;
mod catalog;
pub mod check;
mod checkpoint;
mod closing;
mod config;
mod costs;
mod counting;
mod diversity;
mod embedding_times;
mod engine;
mod error;
mod expression;
mod facets;
mod fields;
mod files;
mod follow;
mod fusion;
mod generations;
mod grouping;
mod handle;
mod held;
mod history;
mod indexing;
mod jobs;
mod locate;
mod maintenance;
mod map;
mod memory;
mod moment;
mod multi_vector;
mod open;
mod owed;
mod paging;
mod patch;
mod pictures;
mod pool;
mod purge;
mod put;
mod ranking;
mod records;
mod request;
mod reranking;
mod rescoring;
mod residence;
mod retention;
mod schedules;
mod scoring;
mod scrub;
mod search;
mod segment_file;
mod selected;
mod snapshot;
mod standing;
mod store;
mod system;
mod turns;
mod unapplied;
mod weighted_sum;
mod work;
mod writer;

pub use arrwdb_embed as embed;
pub use arrwdb_log as log;
pub use arrwdb_state as state;
pub use arrwdb_state::JobCounts;
pub use budgets::{BudgetRefusal, BudgetStatus, CostGroup, CostQuery, CostReport, NewBudget};
pub use carry::{Carried, Comparison, Load, Uncarried};
pub use config::{Clock, EngineConfig, EngineParts, Random};
pub use costs::{CostFigures, ModelCost, Tally};
pub use embedding_times::{EmbeddingTimes, Histogram};
pub use engine::{Engine, Health};
pub use error::EngineError;
pub use expression::{
    EXPRESSION_CHARS_MAX, EXPRESSION_DEPTH_MAX, EXPRESSION_NAMES_MAX, Expression,
};
pub use facets::Faceted;
pub use fields::{NewVector, WELL_KNOWN_FIELDS};
pub use follow::{BATCH_BYTES_MAX, Change, ChangeEntry, FollowError};
pub use fusion::{ByKeywords, Fusion};
pub use generations::{CarryPair, LibraryEmbeddings, ModelVectors, NewGeneration, OtherVectors};
pub use grouping::{GROUP_SIZE, GROUP_SIZE_MAX, GROUPS_MAX, Grouping};
pub use jobs::{JobFilter, NewJob};
pub use moment::Moment;
pub use multi_vector::{
    DocumentHit, FIELD_QUERIES_MAX, FieldFusion, FieldPlan, FieldValue, FieldWanted, MatchedVector,
    MultiVectorAnswer, MultiVectorPlan, MultiVectorRequest,
};
pub use owed::Owing;
pub use paging::{HYBRID_ROWS_MAX, PAGED_ROWS_MAX, SearchPage};
pub use patch::{DocumentPatch, merge_patch};
pub use pictures::note_picture;
pub use purge::PurgeReceipt;
pub use records::{RawRecord, Subject, WantedRecords};
pub use request::{
    Content, Cursor, DeletedByFilter, DocumentPage, FieldModel, Filtered, Highlight, Hit,
    IndexChange, IndexOptimized, IndexRebuilt, KeywordPlan, LibraryOverview, LibraryPatch, Matches,
    Mode, NewField, NewLibrary, Operator, Plan, PutChunk, PutDocument, PutReceipt, PutVector,
    Query, RecallBasis, RecallPlan, RerankPlan, Rescored, SearchAnswer, SearchRequest, Signals,
    Written,
};
pub use scoring::{
    Breakdown, CANDIDATES_MAX, Evidence, FIELD_BOOSTS_MAX, HybridScoring, Rescoring, Scorer,
    Scoring, similarity, weights_sum,
};
pub use scrub::ScrubReport;
pub use selected::Selected;
pub use snapshot::{Embeddings, GraphStats, IndexStats, Snapshot, StorageStats};
pub use standing::{
    NewStandingQuery, StandingQueries, StandingQueryPage, StandingQueryPatch, Watched,
};
pub use system::{OsRandom, SystemClock};
pub use weighted_sum::{Preferences, WeightedSum};
