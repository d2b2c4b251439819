//! The matcher: every new passage of a library against its standing queries.
//!
//! It follows the whole log. Records of a library's companion change its queries, which are kept in
//! memory ready to be matched ([`QuerySet`]); records that put documents into a library that is
//! watched are gathered and matched together. What matched, and how far the library is matched, is
//! one entry of the companion's stream, which is decided by the companion's only writer: a position
//! that is not ahead of the one noted is refused, so that nothing is noted twice, and what a query
//! matched that is deleted by then is left out. Where nothing matches the position is written now
//! and then, and the log is held until it is.
//!
//! It keeps F7.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arrwdb_engine::state::limits::MATCHES_PER_RECORD_MAX;
use arrwdb_engine::state::{
    CatalogEntry, DocumentRecord, LibraryEntry, LibraryId, MatchPosition, MatchedPassage, Passages,
    QueriesMatched, QuerySet, Seq, StandingQuery, Timestamp,
};
use arrwdb_engine::{
    Change, ChangeEntry, Engine, EngineError, FollowError, StandingQueries, Watched,
};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::cursor::Cursor;

/// Records of one library that are matched again after a crash, at most about.
const UNSAVED_RECORDS_MAX: u64 = 1000;
/// How long it is not noted that a library is matched further, where nothing matches.
const UNSAVED_TIME_MAX: Duration = Duration::from_secs(10);
/// Bytes of passages in one entry, about.
const ENTRY_BYTES: usize = 1 << 20;
/// How long is waited after a refusal that says nothing of it.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// Queries whose mean the others are thought to lie about.
const SAMPLE: usize = 1000;

/// A running matcher. It ends when it is closed, or its engine is.
#[derive(Debug)]
pub struct Matcher {
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
    figures: Arc<Figures>,
}

/// What a matcher has done since it was started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MatcherStats {
    /// Everything up to this record is matched.
    pub position: Seq,
    /// Passages matched against at least one query.
    pub passages: u64,
    /// Matches noted.
    pub matches: u64,
    /// Times that records were gone before they were matched.
    pub lost: u64,
    /// Queries in memory.
    pub queries: u64,
    /// Bytes that they take.
    pub query_bytes: u64,
}

#[derive(Debug, Default)]
struct Figures {
    position: watch::Sender<u64>,
    passages: AtomicU64,
    matches: AtomicU64,
    lost: AtomicU64,
    queries: AtomicU64,
    query_bytes: AtomicU64,
}

impl Matcher {
    /// Starts where the last one has stopped. An engine has one matcher at most.
    pub async fn start(engine: Engine) -> Result<Self, FollowError> {
        let figures = Arc::new(Figures::default());
        let (stop, stopped) = watch::channel(false);
        let mut work = Work::begin(engine, figures.clone(), stopped, Seq::START).await?;
        let task = tokio::spawn(async move { work.run().await });
        Ok(Self { stop, task, figures })
    }

    /// What it has done.
    pub fn stats(&self) -> MatcherStats {
        let read = |figure: &AtomicU64| figure.load(Ordering::Relaxed);
        MatcherStats {
            position: Seq::new(*self.figures.position.borrow()),
            passages: read(&self.figures.passages),
            matches: read(&self.figures.matches),
            lost: read(&self.figures.lost),
            queries: read(&self.figures.queries),
            query_bytes: read(&self.figures.query_bytes),
        }
    }

    /// Waits until everything up to `seq` is matched, and what matched is noted; whether it is, which
    /// it never will be once the matcher has ended.
    pub async fn reached(&self, seq: Seq) -> bool {
        let mut position = self.figures.position.subscribe();
        let ended = async {
            while !self.task.is_finished() {
                tokio::time::sleep(RETRY_AFTER).await;
            }
        };
        tokio::select! {
            reached = position.wait_for(|position| *position >= seq.get()) => reached.is_ok(),
            () = ended => *self.figures.position.borrow() >= seq.get(),
        }
    }

    /// Has it note how far it is and end, and does not wait for that.
    pub fn stop(&self) {
        self.stop.send_replace(true);
    }

    /// Notes how far it is and ends.
    pub async fn close(self) {
        self.stop.send_replace(true);
        if let Err(error) = self.task.await {
            tracing::error!(%error, "the matcher of standing queries stopped before its time");
        }
    }
}

/// A library with standing queries.
#[derive(Debug)]
struct Watch {
    library: LibraryId,
    /// How far it is matched, and noted.
    saved: MatchPosition,
    done: MatchPosition,
    /// Records since `saved`.
    unsaved: u64,
    /// When the first of them came, and the number before it.
    unsaved_since: Option<(Instant, Seq)>,
    loaded: Option<Loaded>,
    /// What is to be matched, with the record of each.
    gathered: Vec<(Seq, Vec<Arc<DocumentRecord>>)>,
    passages: usize,
    /// Why nothing of it is matched any more, until the next start.
    broken: bool,
    /// When it was last matched, in batches.
    used: u64,
}

#[derive(Debug)]
struct Loaded {
    set: Arc<QuerySet>,
    /// Records of the companion up to this one are in the set.
    seq: Seq,
}

impl Watch {
    fn new(library: LibraryId, matched: MatchPosition) -> Self {
        Self {
            library,
            saved: matched,
            done: matched,
            unsaved: 0,
            unsaved_since: None,
            loaded: None,
            gathered: Vec::new(),
            passages: 0,
            broken: false,
            used: 0,
        }
    }

    /// Notes that `done` is ahead of `saved`.
    fn advance(&mut self, first: Seq, done: MatchPosition, records: u64) {
        self.done = self.done.max(done);
        self.need(first);
        self.unsaved += records;
    }

    /// Has the log held from the record `first` on.
    fn need(&mut self, first: Seq) {
        let before = Seq::new(first.get().saturating_sub(1));
        self.unsaved_since.get_or_insert_with(|| (Instant::now(), before));
    }

    fn is_saved(&self) -> bool {
        self.unsaved_since.is_none()
    }

    fn saved(&mut self, through: MatchPosition) {
        self.saved = self.saved.max(through);
        if self.saved >= self.done {
            (self.unsaved, self.unsaved_since) = (0, None);
        }
    }

    /// When its position has to be noted; `None` if it is.
    fn due(&self) -> Option<Instant> {
        let (since, _before) = self.unsaved_since.filter(|_since| !self.broken)?;
        let now = self.unsaved >= UNSAVED_RECORDS_MAX;
        Some(if now { since } else { since + UNSAVED_TIME_MAX })
    }
}

/// Why the matcher goes no further.
enum End {
    /// It shall stop, or the engine is closed or takes no more writes.
    Stopped,
    /// Records that it needs are gone.
    Trimmed(Seq),
}

struct Work {
    engine: Engine,
    cursor: Cursor,
    /// By their companions.
    watched: BTreeMap<LibraryId, Watch>,
    figures: Arc<Figures>,
    stopped: watch::Receiver<bool>,
    batches: u64,
}

impl Work {
    /// Looks at what is watched, and where to begin: at `least` or later.
    async fn begin(
        engine: Engine,
        figures: Arc<Figures>,
        stopped: watch::Receiver<bool>,
        least: Seq,
    ) -> Result<Self, FollowError> {
        // Read first: whatever comes later is read from the log.
        let durable = engine.durable();
        let watched = engine.watched_libraries(durable).await?;
        let behind = |watched: &&Watched| watched.applied > watched.matched.whole();
        let from = watched.iter().filter(behind).map(|watched| watched.matched.whole());
        // The log is held from the first record that is not matched: what is gone had no passages.
        let least = least.max(engine.kept_after());
        let after = from.fold(durable, Seq::min).max(least);
        let watched = watched.into_iter().map(|watched| {
            (watched.library.companion(), Watch::new(watched.library, watched.matched))
        });
        let cursor = Cursor::new(engine.clone(), after);
        let watched = watched.collect();
        figures.position.send_replace(after.get());
        let work = Self { engine, cursor, watched, figures, stopped, batches: 0 };
        work.hold();
        Ok(work)
    }

    async fn run(&mut self) {
        loop {
            match self.follow().await {
                Ok(()) | Err(End::Stopped) => break,
                Err(End::Trimmed(first)) => {
                    self.figures.lost.fetch_add(1, Ordering::Relaxed);
                    tracing::error!(
                        matched = %self.cursor.position(), %first,
                        "records were gone before they were matched against standing queries: \
                         keep more of the log (the feed's retention), or write less at a time"
                    );
                    let least = Seq::new(first.get().saturating_sub(1));
                    let (engine, figures) = (self.engine.clone(), self.figures.clone());
                    let stopped = self.stopped.clone();
                    match Self::begin(engine, figures, stopped, least).await {
                        Ok(work) => *self = work,
                        Err(error) => {
                            tracing::error!(%error, "standing queries are not matched any more");
                            break;
                        }
                    }
                }
            }
        }
        self.engine.hold_log_after(None);
    }

    /// Matches until it shall stop.
    async fn follow(&mut self) -> Result<(), End> {
        let mut stopped = self.stopped.clone();
        loop {
            let due = self.watched.values().filter_map(Watch::due).min();
            let idle = Instant::now() + UNSAVED_TIME_MAX;
            let mut wanted = false;
            // A batch that is read and not returned is read again: the cursor has not moved.
            let changes = tokio::select! {
                biased;
                () = async { drop(stopped.wait_for(|stopped| *stopped).await) } => {
                    return self.save(|_watch| true).await;
                }
                changes = self.cursor.next() => match changes {
                    Ok(changes) => changes,
                    Err(FollowError::Trimmed { first }) => return Err(End::Trimmed(first)),
                    Err(FollowError::Engine(EngineError::Closed)) => return Err(End::Stopped),
                    Err(FollowError::Engine(error)) => {
                        tracing::error!(%error, "cannot read the log to match standing queries");
                        tokio::time::sleep(RETRY_AFTER).await;
                        Vec::new()
                    }
                },
                () = self.engine.held_log_wanted() => {
                    wanted = true;
                    Vec::new()
                }
                () = tokio::time::sleep_until(due.unwrap_or(idle)) => Vec::new(),
            };
            if !changes.is_empty() {
                self.take(changes).await?;
            }
            let now = Instant::now();
            self.save(|watch| wanted || watch.due().is_some_and(|due| due <= now)).await?;
            self.evict();
            self.hold();
        }
    }

    /// Matches a batch of records.
    async fn take(&mut self, changes: Vec<Change>) -> Result<(), End> {
        self.batches += 1;
        for Change { seq, entry } in changes {
            match entry {
                ChangeEntry::Catalog(CatalogEntry::LibraryCreated(spec)) => {
                    if let Some(library) = spec.companion_of {
                        // Nothing before can match.
                        let place = self.watched.entry(spec.id);
                        let matched = MatchPosition::after(seq);
                        let start = MatchPosition::START;
                        place
                            .or_insert_with(|| Watch::new(library, start))
                            .advance(seq, matched, 0);
                    }
                }
                ChangeEntry::Catalog(CatalogEntry::LibraryDeleted { id, .. }) => {
                    self.watched.remove(&id.companion());
                }
                ChangeEntry::Catalog(_) => {}
                ChangeEntry::Library(id, entry) if id.is_companion() => {
                    self.take_of_companion(id, seq, entry).await?;
                }
                ChangeEntry::Library(id, LibraryEntry::DocumentsPut { documents, .. }) => {
                    self.gather(id, seq, documents).await?;
                }
                ChangeEntry::Library(..) => {}
            }
        }
        let full: Vec<LibraryId> = self.watched.keys().copied().collect();
        for companion in full {
            self.match_gathered(companion).await?;
        }
        self.figures.position.send_replace(self.cursor.position().get());
        Ok(())
    }

    /// A change of a library's queries, or what was noted of them.
    async fn take_of_companion(
        &mut self,
        companion: LibraryId,
        seq: Seq,
        entry: LibraryEntry,
    ) -> Result<(), End> {
        if let LibraryEntry::QueriesMatched(matched) = entry {
            if let Some(watch) = self.watched.get_mut(&companion) {
                watch.saved(matched.through);
            }
            return Ok(());
        }
        // What was written before is matched by the queries that were there before.
        self.match_gathered(companion).await?;
        let Some(watch) = self.watched.get_mut(&companion) else { return Ok(()) };
        let Some(loaded) = watch.loaded.as_mut().filter(|loaded| loaded.seq < seq) else {
            return Ok(());
        };
        let Some(set) = Arc::get_mut(&mut loaded.set) else {
            watch.loaded = None;
            return Ok(());
        };
        loaded.seq = seq;
        match entry {
            LibraryEntry::DocumentsPut { documents, .. } => {
                for document in documents {
                    let read = document.document_with_vectors().ok();
                    if let Some(query) = read.and_then(StandingQuery::of_document) {
                        register(set, query, seq);
                    }
                }
            }
            LibraryEntry::DocumentsDeleted { documents, .. } => {
                for document in documents {
                    set.remove(document.id.into());
                }
            }
            LibraryEntry::Batch { .. } | LibraryEntry::QueriesMatched(_) => {}
        }
        Ok(())
    }

    /// Keeps documents that are to be matched.
    async fn gather(
        &mut self,
        library: LibraryId,
        seq: Seq,
        documents: Vec<DocumentRecord>,
    ) -> Result<(), End> {
        let companion = library.companion();
        let Some(watch) = self.watched.get_mut(&companion) else { return Ok(()) };
        if watch.broken || watch.library != library || seq <= watch.done.whole() {
            return Ok(());
        }
        watch.passages += documents.iter().map(DocumentRecord::chunks).sum::<usize>();
        watch.gathered.push((seq, documents.into_iter().map(Arc::new).collect()));
        let enough = watch.loaded.as_ref().map_or(1, |loaded| loaded.set.passages_max());
        if watch.passages >= enough { self.match_gathered(companion).await } else { Ok(()) }
    }

    /// Matches what was gathered of a library.
    async fn match_gathered(&mut self, companion: LibraryId) -> Result<(), End> {
        let Some(watch) = self.watched.get_mut(&companion) else { return Ok(()) };
        let gathered = std::mem::take(&mut watch.gathered);
        watch.passages = 0;
        let (Some((first, _)), Some((last, _))) = (gathered.first(), gathered.last()) else {
            return Ok(());
        };
        let (first, through) = (*first, MatchPosition::after(*last));
        watch.need(first);
        let records = gathered.len() as u64;
        watch.used = self.batches;
        if watch.loaded.is_none() {
            match load(&self.engine, watch.library).await {
                Ok(Some(loaded)) => watch.loaded = Some(loaded),
                // Deleted: its record is further on in the log.
                Ok(None) => return Ok(()),
                Err(EngineError::Closed) => return Err(End::Stopped),
                Err(error) => return self.give_up(companion, &error),
            }
        }
        let Some(loaded) = &watch.loaded else { return Ok(()) };
        let set = loaded.set.clone();
        let mut pending =
            Pending { library: watch.library, after: watch.done, passages: Vec::new() };
        if !set.is_empty() {
            let batches = Batches { gathered, max: set.passages_max() };
            for batch in batches.into_passages() {
                if let Err(error) = self.match_batch(&set, batch, &mut pending).await {
                    drop(set);
                    return match error {
                        EngineError::Closed => Err(End::Stopped),
                        error => self.give_up(companion, &error),
                    };
                }
            }
        }
        drop(set);
        pending.after = through;
        let matched = !pending.passages.is_empty();
        if matched && let Err(error) = self.note(&mut pending).await {
            return match error {
                EngineError::Closed => Err(End::Stopped),
                error => self.give_up(companion, &error),
            };
        }
        if let Some(watch) = self.watched.get_mut(&companion) {
            watch.advance(first, through, records);
            if matched {
                watch.saved(through);
            }
        }
        Ok(())
    }

    async fn match_batch(
        &self,
        set: &Arc<QuerySet>,
        batch: Passages,
        pending: &mut Pending,
    ) -> Result<(), EngineError> {
        let passages = batch.len() as u64;
        let (batch, after) = (Arc::new(batch), pending.after);
        let (shared, queries) = (batch.clone(), set.clone());
        let pairs = self.engine.run_matching(move || queries.near(&shared, after)).await?;
        let pairs = Arc::new(pairs);
        for first in (0..pairs.len()).step_by(MATCHES_PER_RECORD_MAX) {
            let part = first..(first + MATCHES_PER_RECORD_MAX).min(pairs.len());
            let (shared, queries, all) = (batch.clone(), set.clone(), pairs.clone());
            let read = part.clone();
            let matched =
                self.engine.run_matching(move || queries.matched(&shared, &all[read])).await?;
            let matched = matched.map_err(|error| EngineError::Damaged {
                detail: format!("a document of the log does not decode: {error}"),
            })?;
            pending.passages.extend(matched);
            if let Some(last) = part.last().and_then(|last| pairs.get(last)) {
                pending.after = batch.position(*last);
            }
            if pending.is_full() {
                self.note(pending).await?;
            }
        }
        self.figures.passages.fetch_add(passages, Ordering::Relaxed);
        Ok(())
    }

    /// Notes what matched; waits where that is not possible at the moment.
    async fn note(&self, pending: &mut Pending) -> Result<(), EngineError> {
        let matched = QueriesMatched {
            // Given by the writer.
            at: Timestamp::from_micros(0),
            library: pending.library,
            through: pending.after,
            passages: std::mem::take(&mut pending.passages),
        };
        let matches = matched.matches() as u64;
        note(&self.engine, &self.stopped, matched).await?;
        self.figures.matches.fetch_add(matches, Ordering::Relaxed);
        Ok(())
    }

    /// Matches nothing of a library any more: what is matched already stands, and the log is kept.
    fn give_up(&mut self, companion: LibraryId, error: &EngineError) -> Result<(), End> {
        if matches!(error, EngineError::LogFailed { .. }) {
            return Err(End::Stopped);
        }
        if let Some(watch) = self.watched.get_mut(&companion) {
            tracing::error!(
                library = %watch.library, %error,
                "its standing queries are not matched until the next start"
            );
            watch.broken = true;
            watch.loaded = None;
        }
        Ok(())
    }

    /// Notes how far libraries are matched, of those that `which` says.
    async fn save(&mut self, which: impl Fn(&Watch) -> bool) -> Result<(), End> {
        for watch in self.watched.values_mut() {
            if watch.is_saved() || watch.broken || !which(watch) {
                continue;
            }
            let through = watch.done;
            let matched = QueriesMatched {
                at: Timestamp::from_micros(0),
                library: watch.library,
                through,
                passages: Vec::new(),
            };
            match note(&self.engine, &self.stopped, matched).await {
                Ok(()) => watch.saved(through),
                Err(EngineError::Closed | EngineError::LogFailed { .. }) => {
                    return Err(End::Stopped);
                }
                Err(error) => {
                    tracing::error!(library = %watch.library, %error, "cannot note how far it is matched");
                    watch.broken = true;
                }
            }
        }
        Ok(())
    }

    /// Lets the queries go that were not matched for the longest time, until they fit their memory.
    fn evict(&mut self) {
        let max = self.engine.matching_bytes_max();
        let bytes = |watched: &BTreeMap<LibraryId, Watch>| -> u64 {
            watched.values().filter_map(|watch| Some(watch.loaded.as_ref()?.set.bytes())).sum()
        };
        while bytes(&self.watched) > max {
            let loaded = self.watched.values_mut().filter(|watch| watch.loaded.is_some());
            let mut loaded: Vec<&mut Watch> = loaded.collect();
            if loaded.len() < 2 {
                break;
            }
            if let Some(oldest) = loaded.iter_mut().min_by_key(|watch| watch.used) {
                oldest.loaded = None;
            }
        }
        let queries = self.watched.values().filter_map(|watch| watch.loaded.as_ref());
        let queries: usize = queries.map(|loaded| loaded.set.len()).sum();
        self.figures.queries.store(queries as u64, Ordering::Relaxed);
        self.figures.query_bytes.store(bytes(&self.watched), Ordering::Relaxed);
    }

    /// Says what of the log is needed after a crash.
    fn hold(&self) {
        let unsaved = self.watched.values().filter_map(|watch| watch.unsaved_since);
        let needed = unsaved.map(|(_since, before)| before);
        self.engine.hold_log_after(Some(needed.fold(self.cursor.position(), Seq::min)));
    }
}

/// What matched and is not noted yet.
struct Pending {
    library: LibraryId,
    /// How far it is matched.
    after: MatchPosition,
    passages: Vec<MatchedPassage>,
}

impl Pending {
    fn is_full(&self) -> bool {
        let matches: usize = self.passages.iter().map(|passage| passage.queries.len()).sum();
        let bytes: usize = self.passages.iter().map(|passage| passage.passage.len() + 64).sum();
        2 * matches >= MATCHES_PER_RECORD_MAX || bytes >= ENTRY_BYTES
    }
}

/// Documents of some records, to be matched in parts.
struct Batches {
    gathered: Vec<(Seq, Vec<Arc<DocumentRecord>>)>,
    max: usize,
}

impl Batches {
    fn into_passages(self) -> Vec<Passages> {
        let mut batches = vec![Passages::default()];
        for (seq, documents) in &self.gathered {
            let mut first = 0;
            for document in documents {
                let chunks = u32::try_from(document.chunks()).unwrap_or(u32::MAX);
                let mut next = 0;
                while next < chunks {
                    if batches.last().is_none_or(|last| last.len() >= self.max) {
                        batches.push(Passages::default());
                    }
                    if let Some(last) = batches.last_mut() {
                        let room = u32::try_from(self.max - last.len()).unwrap_or(u32::MAX);
                        let end = chunks.min(next.saturating_add(room));
                        last.add(*seq, first, document, next..end);
                        next = end;
                    }
                }
                first += chunks;
            }
        }
        batches
    }
}

/// Notes what matched, as soon as that is possible; closed where the matcher shall stop before.
async fn note(
    engine: &Engine,
    stopped: &watch::Receiver<bool>,
    matched: QueriesMatched,
) -> Result<(), EngineError> {
    let mut stopped = stopped.clone();
    loop {
        let wait = match engine.note_matches(matched.clone()).await {
            Err(EngineError::Busy { retry_after, .. }) => retry_after,
            Err(EngineError::DiskFull { .. }) => RETRY_AFTER,
            other => return other,
        };
        let stopped = stopped.wait_for(|stopped| *stopped);
        if tokio::time::timeout(wait, stopped).await.is_ok() {
            return Err(EngineError::Closed);
        }
    }
}

async fn load(engine: &Engine, library: LibraryId) -> Result<Option<Loaded>, EngineError> {
    let Some(queries) = engine.standing_queries_of(library).await? else { return Ok(None) };
    let seq = queries.seq();
    let set = engine.run_matching(move || read(&queries)).await??;
    Ok(Some(Loaded { set: Arc::new(set), seq }))
}

fn read(queries: &StandingQueries) -> Result<QuerySet, EngineError> {
    let spec = queries.library();
    let mut sample: Vec<(StandingQuery, Seq)> = Vec::new();
    let mut set: Option<QuerySet> = None;
    let begin = |sample: Vec<(StandingQuery, Seq)>| {
        let about = sample.iter().map(|(query, _born)| &*query.vector);
        let mut set = QuerySet::about(spec.id, spec.metric, spec.dimension, about);
        for (query, born) in sample {
            register(&mut set, query, born);
        }
        set
    };
    queries.for_each(|query, born| match &mut set {
        Some(set) => register(set, query, born),
        None => {
            sample.push((query, born));
            if sample.len() == SAMPLE {
                set = Some(begin(std::mem::take(&mut sample)));
            }
        }
    })?;
    Ok(set.unwrap_or_else(|| begin(sample)))
}

fn register(set: &mut QuerySet, query: StandingQuery, born: Seq) {
    let id = query.id;
    if let Err(error) = set.insert(query, born) {
        tracing::error!(library = %set.library(), query = %id, %error, "it matches nothing");
    }
}
