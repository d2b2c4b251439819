//! Every bound of the server in one place, with its reason and its relation to the others.
//!
//! Bounds of the data model are in `arrwdb_engine::state::limits`; those that operators set are in
//! [`crate::config`]. What is full answers 429 or 503 with `Retry-After`; what is slow is cut off.

use std::time::Duration;

use arrwdb_engine::state::limits::{BATCH_DOCUMENTS_MAX, RECORD_BYTES_MAX, TITLE_CHARS_MAX};

use crate::config::Rate;

// Connections.

/// Requests of one HTTP/2 connection at the same time: as many as are worked on at all by default.
pub(crate) const HTTP2_STREAMS_MAX: u32 = 100;
/// Bytes of all headers of one request. hyper answers 431 beyond, and to more than 100 headers.
pub(crate) const HEADER_BYTES_MAX: u32 = 64 << 10;
/// Bytes that HTTP/1 reads ahead for one connection, the head of a request included.
pub(crate) const READ_BUFFER_BYTES_MAX: usize = 128 << 10;
/// Pause after a failed accept: it fails for want of file descriptors, which others must free.
pub(crate) const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Bytes of an answer that are handed to a connection at once: the rest waits until the client has
/// taken these, so that one who reads nothing costs a few of these and not the whole answer.
pub(crate) const ANSWER_PIECE_BYTES: usize = 64 << 10;

// Requests.

/// How long a request may wait for its turn. Clients give up after about this.
pub(crate) const ADMISSION_WAIT_MAX: Duration = Duration::from_secs(10);
/// When to come back to a server whose every slot is taken: requests take milliseconds.
pub(crate) const ADMISSION_RETRY_AFTER: Duration = Duration::from_secs(1);
/// Bytes of bodies in memory, of all requests together. A single request may always have the
/// largest body that the settings allow.
pub(crate) const BODIES_BYTES_MAX: usize = 512 << 20;
/// Time in which a body need not have a speed: connections start slowly.
pub(crate) const BODY_GRACE: Duration = Duration::from_secs(10);
/// Bytes per second that a body has to arrive with after that, on average. A modem is faster; one
/// byte every few seconds, which would hold a slot for nothing, is not.
pub(crate) const BODY_BYTES_PER_SECOND_MIN: u64 = 1024;
/// What is read and thrown away of a body that is refused, at most, and for how long: a client that
/// is still sending when the connection is closed gets a reset in place of the answer.
pub(crate) const DISCARD_BYTES_MAX: usize = 16 << 20;
/// See [`DISCARD_BYTES_MAX`].
pub(crate) const DISCARD_TIME_MAX: Duration = Duration::from_secs(2);
/// Characters of a request id that a client may choose; it is in every line of the log.
pub(crate) const REQUEST_ID_CHARS_MAX: usize = 128;
/// Characters of a path that an answer repeats.
pub(crate) const PATH_CHARS_SHOWN: usize = 200;
/// Faults of one body that are noted; a body may have millions.
pub(crate) const FAULTS_MAX: usize = 100;

// Streams.

/// Bytes of one line of NDJSON. A document at every limit of the data model may need more and then
/// goes by one of the other routes.
pub(crate) const LINE_BYTES_MAX: usize = 16 << 20;
/// Documents of an import that are written together: large enough that a sync of the log costs
/// little, small enough that a line is answered soon.
pub(crate) const IMPORT_BATCH_DOCUMENTS: usize = 256;
/// Bytes of lines after which a batch of an import is sent.
pub(crate) const IMPORT_BATCH_BYTES: usize = 4 << 20;
/// Batches of one import that are made ready at the same time.
pub(crate) const IMPORT_BATCHES_IN_FLIGHT: usize = 4;
/// How long a batch is offered to a full queue before its lines fail.
pub(crate) const IMPORT_BUSY_WAIT_MAX: Duration = Duration::from_mins(2);
/// Characters of a bad line that are quoted.
pub(crate) const QUOTE_CHARS: usize = 100;
/// Bytes of the last line of an export, at most; a longer one is a document.
pub(crate) const EXPORT_END_BYTES_MAX: usize = 512;
/// Bytes of an answer that wait in memory for a client that sends before it reads.
pub(crate) const SPOOL_MEMORY_BYTES_MAX: usize = 256 << 10;
/// Bytes of such an answer that wait in a file: the results of millions of lines.
pub(crate) const SPOOL_FILE_BYTES_MAX: u64 = 1 << 30;
/// The same of all answers together.
pub(crate) const SPOOL_FILES_BYTES_MAX: u64 = 4 << 30;
/// Bytes of one read of such a file.
pub(crate) const SPOOL_READ_BYTES: u64 = 64 << 10;
/// Bytes of documents that one read of an export or list aims at.
pub(crate) const PAGE_BYTES: usize = 1 << 20;
/// Documents of one read.
pub(crate) const PAGE_DOCUMENTS_MAX: usize = 256;
/// Documents of one page of a list.
pub(crate) const LIST_PAGE_MAX: u64 = 1000;
/// The same where none is asked for.
pub(crate) const LIST_PAGE_DEFAULT: u64 = 50;
/// Documents that `GET` of a library carries; the rest are paged.
pub(crate) const LIBRARY_DOCUMENTS_MAX: u64 = 100;
/// Passages of a search that does not say how many.
pub(crate) const K_DEFAULT: usize = 10;
/// Rows that a walk through a graph keeps at most, where a search says how many: as many as a
/// library may ask for.
pub(crate) const EF_SEARCH_MAX: u32 = 10_000;
/// Inverted lists that a search may look into: as many as a library may have.
pub(crate) const NPROBE_MAX: u32 = 65_536;
/// Settings of an index that one body may name: more than any type has, so that each that is unknown
/// can be named.
pub(crate) const INDEX_SETTINGS_MAX: usize = 32;

// The change feed.

/// Events of one page.
pub(crate) const EVENT_PAGE_MAX: u64 = 1000;
/// The same where none is asked for.
pub(crate) const EVENT_PAGE_DEFAULT: u64 = 100;
/// Bytes of a page after which it ends.
pub(crate) const EVENT_PAGE_BYTES_MAX: usize = 1 << 20;
/// How long a page looks for events that are wanted among those that are not, unless it may wait
/// longer for the first one: what comes next then begins where it ended.
pub(crate) const EVENT_SCAN_TIME_MAX: Duration = Duration::from_secs(5);
/// Seconds that a page may wait for its first event: proxies give up after about this.
pub(crate) const EVENT_WAIT_SECONDS_MAX: u64 = 60;
/// Members of the payload that a client may filter by: more than any event has.
pub(crate) const EVENT_FILTER_MEMBERS_MAX: usize = 8;
/// Bytes of the value of such a member: the longest title.
pub(crate) const EVENT_FILTER_VALUE_BYTES_MAX: usize = 4 * TITLE_CHARS_MAX;

// WebSockets.

/// Bytes that a socket reads ahead. It is allocated at once, and most sockets are quiet.
pub(crate) const SOCKET_BUFFER_BYTES: usize = 4 << 10;
/// Bytes of answers and pushes that wait for a client to read them; one more may pass it. Until
/// there is room, nothing more is read from the client.
pub(crate) const SOCKET_PENDING_BYTES: usize = 1 << 20;
/// Bytes of messages of all sockets together of which a part has come; the largest message has room
/// in any case. Whoever sends the part that has none is closed with 1013.
pub(crate) const SOCKET_MESSAGES_BYTES_MAX: usize = 256 << 20;
/// Time from the first part of a message to its last; the idle timeout of streams, if that is less.
pub(crate) const SOCKET_MESSAGE_TIME_MAX: Duration = Duration::from_secs(30);
/// How long a client has to answer a goodbye, and to take what was sent before it.
pub(crate) const SOCKET_CLOSE_WAIT: Duration = Duration::from_secs(2);
/// What sockets get on shutdown after the time of open requests: a goodbye, and a moment for those
/// who used all of that time.
pub(crate) const SOCKETS_CLOSED_WAIT: Duration =
    SOCKET_CLOSE_WAIT.saturating_add(Duration::from_secs(1));
/// Bytes of the reason of a close, by RFC 6455.
pub(crate) const SOCKET_REASON_BYTES_MAX: usize = 123;
/// Characters of a name that a client chooses: of a request, a session, a live query.
pub(crate) const SOCKET_NAME_CHARS_MAX: usize = 200;
/// Characters of the name of an action or an event.
pub(crate) const SOCKET_ACTION_CHARS_MAX: usize = 64;
/// Sessions that one socket may share in: each costs an entry for every socket in it.
pub(crate) const SOCKET_SESSIONS_MAX: usize = 8;
/// Live queries of one socket: each is a search whenever the library changes.
pub(crate) const SOCKET_WATCHES_MAX: usize = 16;
/// Pings without an answer after which a client counts as gone.
pub(crate) const SOCKET_PINGS_MISSED_MAX: u32 = 2;
/// Time from one search of a live query to its next: what changes meanwhile is told together.
pub(crate) const WATCH_INTERVAL: Duration = Duration::from_millis(20);
/// The same in searches: a query rests for so many times what its last search took, so that one has
/// at most a fifth of a thread.
pub(crate) const WATCH_REST: u32 = 4;
/// Pause after a search of a live query for which there was no room.
pub(crate) const WATCH_RETRY: Duration = Duration::from_millis(250);

// Clients and metrics.

/// Windows of rate limits that are kept; beyond it all begin anew.
pub(crate) const RATE_WINDOWS_MAX: usize = 100_000;
/// Batches of one client: each costs the server many times a single write.
pub(crate) const RATE_BATCH: Rate = Rate { count: 10, window: Duration::from_mins(1) };
/// Libraries that have labels of their own in metrics; others share one.
pub(crate) const LIBRARY_LABELS_MAX: usize = 200;

const _: () = {
    assert!(IMPORT_BATCH_DOCUMENTS <= BATCH_DOCUMENTS_MAX, "a batch is one request of the engine");
    assert!(PAGE_DOCUMENTS_MAX <= BATCH_DOCUMENTS_MAX, "an export's page can be imported");
    assert!(LINE_BYTES_MAX <= RECORD_BYTES_MAX, "a line fits a record of the log");
    assert!(SPOOL_FILE_BYTES_MAX <= SPOOL_FILES_BYTES_MAX, "one answer may have its own bound");
    assert!(
        SOCKET_NAME_CHARS_MAX >= SOCKET_ACTION_CHARS_MAX,
        "what is repeated is bounded by both"
    );
    assert!(ANSWER_PIECE_BYTES as u64 >= SPOOL_READ_BYTES, "a read is one piece");
    assert!(HEADER_BYTES_MAX as usize <= READ_BUFFER_BYTES_MAX, "a head fits the buffer");
};

// Jobs.

/// Jobs of one list.
pub(crate) const JOB_PAGE_MAX: u64 = 1000;
/// Jobs of a list unless asked otherwise.
pub(crate) const JOB_PAGE_DEFAULT: u64 = 100;
/// How long a request may wait for a job to be over.
pub(crate) const JOB_WAIT_SECONDS_MAX: u64 = 60;
/// Queries by which a job compares embedding models.
pub(crate) const COMPARED_QUERIES_MAX: usize = 100;
/// Units that a job refused, one by one: as many as somebody may want to mend and send again.
pub(crate) const JOB_ERRORS_KEPT_MAX: u64 = 100_000;
/// Bytes of a job's file of them.
pub(crate) const JOB_ERRORS_BYTES_MAX: u64 = 32 << 20;
/// Bytes of all such files of jobs that are over, at the times at which is looked.
pub(crate) const JOBS_ERRORS_BYTES_MAX: u64 = 1 << 30;
/// Refused units of one page.
pub(crate) const JOB_ERROR_PAGE_MAX: u64 = 1000;
/// The same where none is asked for.
pub(crate) const JOB_ERROR_PAGE_DEFAULT: u64 = 100;
/// How often a job may ask to be tried again.
pub(crate) const JOB_RETRIES_MAX: u32 = 10;
/// How often exports that have expired are looked for.
pub(crate) const EXPORTS_LOOK: Duration = Duration::from_mins(10);

/// Rows of costs of one page.
pub(crate) const COST_PAGE_MAX: u64 = 1000;
/// The same where none is asked for.
pub(crate) const COST_PAGE_DEFAULT: u64 = 100;

/// Webhooks, deliveries or dead letters of one page.
pub(crate) const WEBHOOK_PAGE_MAX: u64 = 100;
/// The same where none is asked for.
pub(crate) const WEBHOOK_PAGE_DEFAULT: u64 = 50;
/// Characters of the name of a schedule.
pub(crate) const SCHEDULE_NAME_CHARS_MAX: usize = 255;
/// Requests that wait for a receiver of a webhook at the same time: they have slots of their own.
pub(crate) const WEBHOOK_CALLS_MAX: usize = 16;
/// Names of events that one webhook may list.
pub(crate) const WEBHOOK_EVENTS_MAX: usize = 64;
/// Characters of the description of a webhook.
pub(crate) const WEBHOOK_DESCRIPTION_CHARS_MAX: usize = 500;
/// Attempts that a webhook may ask for.
pub(crate) const WEBHOOK_RETRIES_MAX: u64 = 10;
/// The longest first delay of a webhook, in seconds.
pub(crate) const WEBHOOK_DELAY_SECONDS_MAX: u64 = 3600;
/// The longest that a webhook may wait for its receiver, in seconds.
pub(crate) const WEBHOOK_TIMEOUT_SECONDS_MAX: u64 = 120;
/// How long a secret that was rotated out may stay valid, in seconds.
pub(crate) const WEBHOOK_GRACE_SECONDS_MAX: u64 = 30 * 24 * 3600;
/// The same where nothing else is asked for.
pub(crate) const WEBHOOK_GRACE_SECONDS: u64 = 24 * 3600;
/// Secrets of one webhook that are valid at the same time.
pub(crate) const WEBHOOK_SECRETS_MAX: usize = 4;
