//! The catalog and library state machines: `decide`, `apply`, views, search, and the formats of
//! segments and manifests.
//!
//! A library is a fold over the log: `View_n = entries[..n].fold(View::empty, apply)`.
//!
//! Invariants:
//! - **S1** `apply` is total and deterministic.
//! - **S2** No clock, randomness, I/O or async in this crate.
//! - **S3** Views are immutable.
//! - **S4** Checkpoint plus suffix equals replay.
//! - **S5** Merges keep the digest and every exact result.
//! - **S6** A view as of an earlier number is the fold up to it, or refused.
//! - **S7** What a filter selects from columns is what passes when passages are asked one by one.
//! - **S8** What keywords find, and its scores, is what counting the words of live passages gives,
//!   whatever the layout.

mod batch;
mod body;
mod calibrating;
mod catalog;
mod codec;
mod document;
mod entry;
mod facets;
mod field;
mod field_search;
mod filter;
mod generations;
mod grouping;
mod ids;
mod keyword;
mod layout;
mod library;
pub mod limits;
mod listing;
mod liveness;
mod manifest;
mod matched;
mod ordering;
mod past;
mod query_set;
mod record;
mod recount;
mod rows;
mod search;
mod segment;
mod selection;
mod standing;
mod transition;
mod verify;
mod view;
mod work;

pub use arrwdb_index::analysis::Language;
pub use arrwdb_index::keyword::{
    Bm25, Highlight, KeywordQuery, Operator, QueryError, fragments, highlights,
};
pub use arrwdb_index::sparse::SparseQuery;
pub use arrwdb_index::{
    Calibration, Choice, Curve, Effort, Executor, FieldValue, Figure, IndexSpec, Metric, Number,
    ParameterError, Point, Quantization, SegmentIndex, Sequential, Structure, Tuning, VectorError,
    check_norm, normalized,
};
pub use batch::{BatchEnd, BatchId, BatchNote, BatchOperation, BatchOutcome};
pub use calibrating::{Calibrated, Standing};
pub use catalog::{Catalog, CatalogCommand, CatalogRejection, GenerationChange, Snapshot};
pub use codec::DecodeError;
pub use document::{Chunk, Custom, Document, DocumentMetadata};
pub use entry::{
    CatalogEntry, DeletedDocument, DeletedLibrary, IndexBuilt, IndexWork, LibraryEntry,
    LibraryOutline, OutlineChange, PutOutline, Replaced,
};
pub use facets::{Facet, FacetCounts, FacetFault, FacetValue};
pub use field::{
    FieldNameFault, FieldSpec, FieldVector, FieldVectors, SparseValue, TEXT_FIELD, VectorFault,
    VectorKind, VectorValue, check_field_name,
};
pub use field_search::{FieldQuery, NearestInField};
pub use filter::{FieldValues, Filter, FilterFault, Passage, QueryWords};
pub use generations::{Generations, OtherGeneration, Stage};
pub use grouping::DocumentRows;
pub use ids::{
    ChunkId, DocumentId, JobId, LibraryId, ParseIdError, QueryId, ScheduleId, Seq, TenantId,
    Timestamp, WebhookId,
};
pub use keyword::{FoundByKeywords, KeywordEffort, Keywords};
pub use layout::MemoryMerge;
pub use library::{LibrarySpec, ModelName, NameFault, check_library_name};
pub use listing::{Cursor, IdPage, Page};
pub use manifest::{Manifest, ManifestError, ManifestSegment};
pub use matched::{MatchPosition, MatchedPassage, MatchedQuery, QueriesMatched};
pub use ordering::{OrderBy, OrderedCursor, OrderedPage};
pub use past::PastError;
pub use query_set::{Near, Passages, QuerySet};
pub use record::{DocumentRecord, RecordError};
pub use recount::Totals;
pub use search::{Found, FoundChunk, FoundPassage, Nearest, RowPlace};
pub use segment::{
    BesideState, BesideSummary, Damage, FileBytes, FileSegment, IndexFile, Merge, PostingsFile,
    PostingsPlace, Segment, SegmentChecksums, SegmentOutline, SegmentSummary, SegmentWriteError,
};
pub use selection::Selection;
pub use standing::StandingQuery;
pub use transition::{Command, Decision, Fate, Rejection};
pub use verify::Inconsistency;
pub use view::{Field, SegmentView, View};
pub use work::{
    Budget, BudgetCrossed, BudgetPeriod, BudgetScope, BudgetTerms, Costs, Day, Job, JobChange,
    JobCounts, JobEnd, JobHead, JobInput, JobKind, JobOutcome, JobPriority, JobProgress, JobSpec,
    JobState, JobUnit, LastRun, Money, Schedule, Scheduled, SealedSecret, Spending, UsageKey,
    UsageRow, Used, Webhook, WebhookStatus, Work, WorkCommand, WorkEntry, WorkRejection,
};
