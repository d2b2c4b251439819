//! Every bound of the data model in one place, with its reason and its relation to the others.

/// Dimensions of a vector: 1 to this. The largest embedding models in use give 4,096.
pub const DIMENSIONS_MAX: u32 = 4096;
/// Chunks of one document. A document is replaced as a whole, so it is one record of the log.
pub const CHUNKS_PER_DOCUMENT_MAX: usize = 1000;
/// Characters (Unicode scalar values) of one chunk's text.
pub const CHUNK_CHARS_MAX: usize = 10_000;
/// Vector fields of one library beside its own vectors: each is a set of segments of its own.
pub const VECTOR_FIELDS_MAX: usize = 32;
/// Bytes of a vector field's name.
pub const VECTOR_FIELD_NAME_BYTES_MAX: usize = 64;
/// Vectors that one document has in one field; as many as it may have chunks.
pub const VECTORS_PER_FIELD_MAX: usize = CHUNKS_PER_DOCUMENT_MAX;
/// Small vectors of one vector of a field for late interaction: those of a text of some thousand
/// tokens.
pub const LATE_ROWS_MAX: usize = 4096;
/// Small vectors that a query for late interaction has at most: each is compared with each of a stored
/// one's.
pub const LATE_QUERY_ROWS_MAX: usize = 256;
/// Entries of one sparse vector; learned ones have some hundred.
pub const SPARSE_ENTRIES_MAX: usize = arrwdb_index::sparse::ENTRIES_MAX;
/// Bytes of all of a document's metadata (title, author, tags, custom, ...), as JSON.
pub const METADATA_BYTES_MAX: usize = 64 << 10;
/// Characters of a title.
pub const TITLE_CHARS_MAX: usize = 1000;
/// Characters of a library's name.
pub const LIBRARY_NAME_CHARS_MAX: usize = 255;
/// Characters of a library's description.
pub const LIBRARY_DESCRIPTION_CHARS_MAX: usize = 10_000;
/// Documents of one batch request.
pub const BATCH_DOCUMENTS_MAX: usize = 1000;
/// Bytes of one record of the log: one document at every limit above fits with room to spare.
pub const RECORD_BYTES_MAX: usize = 64 << 20;
/// Nearest chunks of one plain search.
pub const K_MAX: usize = 100;
/// Nearest chunks of one streamed search.
pub const K_STREAM_MAX: usize = 10_000;
/// Characters of a query.
pub const QUERY_CHARS_MAX: usize = 1000;
/// Libraries of one tenant. A library costs a few hundred bytes in the catalog at rest.
pub const LIBRARIES_MAX: usize = 100_000;
/// Nesting of custom metadata: deeper JSON has no use and costs stack.
pub const METADATA_DEPTH_MAX: usize = 32;
/// Conditions of a filter.
pub const FILTER_CONDITIONS_MAX: usize = 256;
/// Conditions of a standing query's filter: each is looked up for every passage that is near enough.
pub const STANDING_FILTER_CONDITIONS_MAX: usize = 16;
/// Bytes of such a filter as JSON: it is kept in memory with its query.
pub const STANDING_FILTER_BYTES_MAX: usize = 16 << 10;
/// Filters within filters.
pub const FILTER_DEPTH_MAX: usize = 16;
/// Values in all lists of a filter.
pub const FILTER_VALUES_MAX: usize = 10_000;
/// Characters of the name of a field in a filter.
pub const FILTER_KEY_CHARS_MAX: usize = 255;
/// Fields of custom metadata whose values have columns, in one segment. Filters by others read the
/// passages; others are not counted and order nothing.
pub const COLUMNS_PER_SEGMENT_MAX: usize = 4096;
/// Characters of a value in a filter.
pub const FILTER_VALUE_CHARS_MAX: usize = 1000;
/// Fields whose values are counted at a time: each is gone through by itself.
pub const FACETS_MAX: usize = 20;
/// Values of a field that are answered with their counts.
pub const FACET_VALUES_MAX: usize = 1000;
/// Standing queries of one library, unless the settings say otherwise: each costs five bytes of
/// memory for each dimension while passages are matched.
pub const STANDING_QUERIES_MAX: u64 = 100_000;
/// Characters of a passage that a match carries.
pub const MATCHED_PASSAGE_CHARS_MAX: usize = 1000;
/// Matches of one record; more are in the next one.
pub const MATCHES_PER_RECORD_MAX: usize = 16_384;
/// Jobs that wait or are worked on, of all tenants: each costs a few hundred bytes of memory.
pub const JOBS_UNFINISHED_MAX: usize = 100_000;
/// Bytes of their parameters.
pub const JOBS_UNFINISHED_BYTES_MAX: u64 = 64 << 20;
/// Jobs that are over and remembered, of all tenants.
pub const JOBS_FINISHED_MAX: usize = 10_000;
/// Bytes of what they said.
pub const JOBS_FINISHED_BYTES_MAX: u64 = 32 << 20;
/// Bytes of one job's parameters; what is larger lies in a file beside the log.
pub const JOB_PARAMETERS_BYTES_MAX: usize = 64 << 10;
/// Bytes of what one job has to say when it is over.
pub const JOB_RESULT_BYTES_MAX: usize = 16 << 10;
/// Webhooks of all tenants: each is a cursor with a connection of its own.
pub const WEBHOOKS_MAX: usize = 1000;
/// Changes of a library's embedding model that are remembered, so that followers are told what was
/// written before them: each takes 24 bytes of the catalog.
pub const GENERATION_SWITCHES_MAX: usize = 64;
/// Rows of what embedding cost, of all tenants: beyond, the libraries of the oldest days are summed
/// up, those of the newest last, then the oldest days. Each takes about 250 bytes of memory, twice.
pub const COST_ROWS_MAX: usize = 50_000;
/// Such rows that one record adds.
pub const USAGE_ROWS_PER_RECORD_MAX: usize = 16_384;
/// Budgets of all tenants: all are looked at when something was spent.
pub const BUDGETS_MAX: usize = 10_000;
/// Percentages of one budget at which somebody is told.
pub const BUDGET_THRESHOLDS_MAX: usize = 10;
/// The largest budget, in dollars: sums of money stop at 18 million.
pub const BUDGET_DOLLARS_MAX: u64 = 10_000_000;
/// Schedules of all tenants: each has a job that waits.
pub const SCHEDULES_MAX: usize = 1000;
/// Rows of one segment: positions are 32 bits, and merges stop well before.
pub const SEGMENT_ROWS_MAX: u32 = 1 << 30;

const UTF8_BYTES_PER_CHAR_MAX: usize = 4;
const _: () = assert!(
    // Text, vector, ids and per-chunk metadata of the largest document, plus its own metadata.
    CHUNKS_PER_DOCUMENT_MAX
        * (CHUNK_CHARS_MAX * UTF8_BYTES_PER_CHAR_MAX + DIMENSIONS_MAX as usize * 4 + 1024)
        + 2 * METADATA_BYTES_MAX
        <= RECORD_BYTES_MAX
);
const _: () = assert!(
    // The deletion of a batch names every document, its title and its chunks.
    BATCH_DOCUMENTS_MAX
        * (TITLE_CHARS_MAX * UTF8_BYTES_PER_CHAR_MAX + CHUNKS_PER_DOCUMENT_MAX * 16 + 64)
        <= RECORD_BYTES_MAX
);
const _: () = assert!(
    // Every match of another query. Passages are counted in bytes as they come.
    MATCHES_PER_RECORD_MAX * (32 + LIBRARY_NAME_CHARS_MAX * UTF8_BYTES_PER_CHAR_MAX)
        <= RECORD_BYTES_MAX / 2
);
