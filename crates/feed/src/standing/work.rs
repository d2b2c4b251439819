//! The matcher's work: following the log, matching, and noting what matched.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use arrwdb_engine::state::limits::MATCHES_PER_RECORD_MAX;
use arrwdb_engine::state::{
    CatalogEntry, DecodeError, DocumentRecord, LibraryEntry, LibraryId, MatchPosition, Passages,
    QueriesMatched, QuerySet, Seq, StandingQuery, Timestamp,
};
use arrwdb_engine::{Engine, EngineError, FollowError, RawRecord, Subject, Watched};
use bytes::Bytes;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::Figures;
use super::again::{RETRY_AFTER, note, pause};
use super::load::{load, register};
use super::matches::{Batches, Pending};
use super::watched::{UNSAVED_TIME_MAX, Watch, watch_of};
use crate::cursor::Cursor;
use crate::error::undecodable;

/// Libraries whose positions are noted at the same time: each waits for the disk.
const SAVES_MAX: usize = 64;
/// Pairs that are looked at together: with as many that are not noted yet they fit one entry.
const PAIRS_MAX: usize = MATCHES_PER_RECORD_MAX / 2;

/// Why the matcher goes no further.
enum End {
    /// It shall stop, or the engine is closed or takes no more writes.
    Stopped,
    /// Records that it needs are gone.
    Trimmed(Seq),
}

pub(super) struct Work {
    engine: Engine,
    cursor: Cursor,
    /// Everything up to this record is matched, or gathered.
    taken: Seq,
    /// Somebody waits until everything up to this record is matched, and noted.
    wanted: Seq,
    /// By their companions.
    watched: BTreeMap<LibraryId, Watch>,
    figures: Arc<Figures>,
    stopped: watch::Receiver<bool>,
    batches: u64,
}

impl Work {
    /// Looks at what is watched, and where to begin: at `least` or later.
    pub(super) async fn begin(
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
        let watched = watched
            .into_iter()
            .map(|watched| (watched.library.companion(), watch_of(&watched, least, &figures)));
        let cursor = Cursor::new(engine.clone(), after);
        let watched = watched.collect();
        figures.position.send_replace(after.get());
        let (taken, wanted) = (after, Seq::START);
        let work = Self { engine, cursor, taken, wanted, watched, figures, stopped, batches: 0 };
        work.hold();
        Ok(work)
    }

    pub(super) async fn run(&mut self) {
        loop {
            match self.follow().await {
                Ok(()) | Err(End::Stopped) => break,
                Err(End::Trimmed(first)) => {
                    tracing::error!(
                        matched = %self.cursor.position(), %first,
                        "records were gone before they were matched against standing queries: \
                         keep more of the log (the feed's retention), or write less at a time"
                    );
                    let least = Seq::new(first.get().saturating_sub(1));
                    match self.begin_anew(least).await {
                        Ok(work) => *self = work,
                        Err(EngineError::Closed) => break,
                        Err(error) => {
                            tracing::error!(%error, "standing queries are not matched any more");
                            break;
                        }
                    }
                }
            }
        }
        // Before positions are noted: of a library that was not matched to the end, what is left
        // is needed.
        self.hold();
        drop(self.save(|_watch| true).await);
    }

    async fn begin_anew(&self, least: Seq) -> Result<Self, EngineError> {
        loop {
            let (engine, figures) = (self.engine.clone(), self.figures.clone());
            let error = match Self::begin(engine, figures, self.stopped.clone(), least).await {
                Ok(work) => return Ok(work),
                // It begins with what there is.
                Err(FollowError::Trimmed { .. }) => EngineError::Closed,
                Err(FollowError::Engine(error)) => error,
            };
            let EngineError::SeqNotReached { .. } = error else { return Err(error) };
            tracing::warn!(%error, "standing queries are matched once the libraries have come so far");
            pause(&self.stopped, RETRY_AFTER).await?;
        }
    }

    /// Matches until it shall stop.
    async fn follow(&mut self) -> Result<(), End> {
        let mut stopped = self.stopped.clone();
        loop {
            let due = self.watched.values().filter_map(Watch::due).min();
            let idle = Instant::now() + UNSAVED_TIME_MAX;
            // A batch that is read and not returned is read again: the cursor has not moved.
            let records = tokio::select! {
                biased;
                () = async { drop(stopped.wait_for(|stopped| *stopped).await) } => return Ok(()),
                // Before the log, which may never come to an end.
                () = self.engine.held_log_wanted() => {
                    self.wanted = self.engine.durable();
                    Vec::new()
                }
                records = self.cursor.next_records() => match records {
                    Ok(records) => records,
                    Err(FollowError::Trimmed { first }) => return Err(End::Trimmed(first)),
                    Err(FollowError::Engine(EngineError::Closed)) => return Err(End::Stopped),
                    Err(FollowError::Engine(error)) => {
                        tracing::error!(%error, "cannot read the log to match standing queries");
                        tokio::time::sleep(RETRY_AFTER).await;
                        Vec::new()
                    }
                },
                () = tokio::time::sleep_until(due.unwrap_or(idle)) => Vec::new(),
            };
            if !records.is_empty() {
                self.take(records).await?;
            }
            let now = Instant::now();
            let wanted = self.wanted > Seq::START;
            if self.taken >= self.wanted {
                self.wanted = Seq::START;
            }
            self.save(|watch| wanted || watch.due().is_some_and(|due| due <= now)).await?;
            self.evict();
            self.hold();
        }
    }

    /// Matches a batch of records. Only those that matter are decoded.
    async fn take(&mut self, records: Vec<RawRecord>) -> Result<(), End> {
        self.batches += 1;
        for record in &records {
            match record.subject {
                Subject::Work => {}
                Subject::Catalog => self.take_of_catalog(record),
                Subject::Library(id) if id.is_companion() => {
                    self.take_of_companion(id, record).await?;
                }
                Subject::Library(id) => self.gather(id, record).await?,
            }
        }
        self.taken = self.cursor.position();
        let gathered = self.watched.iter().filter(|(_id, watch)| !watch.gathered.is_empty());
        let gathered: Vec<LibraryId> = gathered.map(|(companion, _watch)| *companion).collect();
        for companion in gathered {
            self.match_gathered(companion).await?;
            self.hold();
        }
        self.figures.position.send_replace(self.taken.get());
        Ok(())
    }

    /// What is watched from here on, or no more.
    fn take_of_catalog(&mut self, record: &RawRecord) {
        let seq = record.seq;
        match decode(record, |bytes| CatalogEntry::decode(bytes)) {
            Ok(CatalogEntry::LibraryCreated(spec)) => {
                if let Some(library) = spec.companion_of {
                    let start = MatchPosition::START;
                    let watch =
                        self.watched.entry(spec.id).or_insert_with(|| Watch::new(library, start));
                    watch.created = seq;
                    // Nothing before can match.
                    watch.advance(seq, MatchPosition::after(seq), 0);
                }
            }
            Ok(CatalogEntry::LibraryDeleted { id, was, .. }) => {
                self.watched.remove(&id.companion());
                let generations = was.map(|was| was.generations).unwrap_or_default();
                for (_seq, generation) in generations {
                    self.watched.remove(&generation.companion());
                }
            }
            Ok(CatalogEntry::GenerationDiscarded { generation, .. }) => {
                self.watched.remove(&generation.companion());
            }
            Ok(_) => {}
            Err(error) => {
                tracing::error!(%error, "it is not known whether there are new standing queries");
            }
        }
    }

    /// A change of a library's queries, or what was noted of them.
    async fn take_of_companion(
        &mut self,
        companion: LibraryId,
        record: &RawRecord,
    ) -> Result<(), End> {
        let seq = record.seq;
        if self.watched.get(&companion).is_none_or(|watch| watch.broken) {
            return Ok(());
        }
        let entry = match decode(record, LibraryEntry::decode) {
            Ok(entry) => entry,
            Err(error) => return self.give_up(companion, &error),
        };
        if let LibraryEntry::QueriesMatched(matched) = entry {
            if let Some(watch) = self.watched.get_mut(&companion) {
                watch.saved(matched.through);
            }
            return Ok(());
        }
        // What was written before is matched by the queries that were there before.
        self.match_gathered(companion).await?;
        let Some(watch) = self.watched.get_mut(&companion) else { return Ok(()) };
        watch.heard = watch.heard.max(seq);
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
                    let id = document.id();
                    let read = document.document_with_vectors().map(StandingQuery::of_document);
                    match read {
                        Ok(Some(query)) => register(set, query, seq),
                        Ok(None) => {
                            tracing::error!(document = %id, %seq, "it is no standing query, and matches nothing");
                        }
                        Err(error) => {
                            tracing::error!(document = %id, %seq, %error, "it matches nothing");
                        }
                    }
                }
            }
            LibraryEntry::DocumentsDeleted { documents, .. } => {
                for document in documents {
                    set.remove(document.id.into());
                }
            }
            LibraryEntry::Batch { .. }
            | LibraryEntry::FieldChanged { .. }
            | LibraryEntry::QueriesMatched(_) => {}
        }
        Ok(())
    }

    /// Keeps documents that are to be matched. A record that puts none is matched as it is: else
    /// the library would look as if it were not, and hold the log.
    async fn gather(&mut self, library: LibraryId, record: &RawRecord) -> Result<(), End> {
        let (companion, seq) = (library.companion(), record.seq);
        let Some(watch) = self.watched.get_mut(&companion) else { return Ok(()) };
        if watch.broken || watch.library != library || seq <= watch.done.whole() {
            return Ok(());
        }
        watch.need(seq);
        let documents = match decode(record, LibraryEntry::decode) {
            Ok(LibraryEntry::DocumentsPut { documents, .. }) => documents,
            Ok(_) => Vec::new(),
            Err(error) => return self.give_up(companion, &error),
        };
        watch.passages += documents.iter().map(DocumentRecord::chunks).sum::<usize>();
        watch.gathered.push((seq, documents.into_iter().map(Arc::new).collect()));
        let enough = watch.loaded.as_ref().map_or(1, |loaded| loaded.set.passages_max());
        if watch.passages >= enough { self.match_gathered(companion).await } else { Ok(()) }
    }

    /// Matches what was gathered of a library.
    async fn match_gathered(&mut self, companion: LibraryId) -> Result<(), End> {
        let Some(watch) = self.watched.get_mut(&companion) else { return Ok(()) };
        let gathered = std::mem::take(&mut watch.gathered);
        let passages = std::mem::take(&mut watch.passages);
        let (Some((first, _)), Some((last, _))) = (gathered.first(), gathered.last()) else {
            return Ok(());
        };
        let (first, through) = (*first, MatchPosition::after(*last));
        watch.need(first);
        let records = gathered.len() as u64;
        if passages == 0 {
            watch.advance(first, through, records);
            return Ok(());
        }
        watch.used = self.batches;
        if watch.loaded.is_none() {
            let heard = (watch.created, watch.heard);
            match load(&self.engine, &self.stopped, watch.library, heard).await {
                Ok(Some(loaded)) => watch.loaded = Some(loaded),
                // Deleted: its record is further on in the log.
                Ok(None) => return Ok(()),
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
                    return self.give_up(companion, &error);
                }
            }
        }
        drop(set);
        pending.after = through;
        let matched = !pending.passages.is_empty();
        if matched && let Err(error) = self.note(&mut pending).await {
            return self.give_up(companion, &error);
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
        self.check_running()?;
        let passages = batch.len() as u64;
        let (batch, after) = (Arc::new(batch), pending.after);
        let (shared, queries) = (batch.clone(), set.clone());
        let pairs = self.engine.run_matching(move || queries.near(&shared, after)).await?;
        let pairs = Arc::new(pairs);
        for first in (0..pairs.len()).step_by(PAIRS_MAX) {
            self.check_running()?;
            let part = first..(first + PAIRS_MAX).min(pairs.len());
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

    /// Closed where it shall stop: what is not matched by then is matched by the next one.
    fn check_running(&self) -> Result<(), EngineError> {
        if *self.stopped.borrow() { Err(EngineError::Closed) } else { Ok(()) }
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

    /// Matches nothing of a library any more: what is matched already stands, and the log is kept,
    /// but for a purge.
    fn give_up(&mut self, companion: LibraryId, error: &EngineError) -> Result<(), End> {
        if matches!(error, EngineError::Closed | EngineError::LogFailed { .. }) {
            return Err(End::Stopped);
        }
        if let Some(watch) = self.watched.get_mut(&companion) {
            tracing::error!(
                library = %watch.library, %error,
                "its standing queries are not matched until the next start"
            );
            watch.broken = true;
            watch.loaded = None;
            (watch.gathered, watch.passages) = (Vec::new(), 0);
        }
        Ok(())
    }

    /// Notes how far libraries are matched, of those that `which` says.
    async fn save(&mut self, which: impl Fn(&Watch) -> bool) -> Result<(), End> {
        let retry_at = Some(Instant::now() + RETRY_AFTER);
        let due = self.watched.iter_mut();
        let due = due.filter(|(_id, watch)| !watch.is_saved() && !watch.broken && which(watch));
        let due: Vec<(LibraryId, QueriesMatched)> = due
            .map(|(companion, watch)| {
                // Taken back once it is noted.
                watch.retry_at = retry_at;
                let matched = QueriesMatched {
                    at: Timestamp::from_micros(0),
                    library: watch.library,
                    through: watch.done,
                    passages: Vec::new(),
                };
                (*companion, matched)
            })
            .collect();
        let (mut due, mut noting, mut end) = (due.into_iter(), JoinSet::new(), Ok(()));
        loop {
            while noting.len() < SAVES_MAX
                && let Some((companion, matched)) = due.next()
            {
                let engine = self.engine.clone();
                noting.spawn(async move {
                    let through = matched.through;
                    (companion, through, engine.note_matches(matched).await)
                });
            }
            let Some(noted) = noting.join_next().await else { return end };
            let (companion, through, outcome) = match noted {
                Ok(noted) => noted,
                Err(error) => {
                    tracing::error!(%error, "cannot note how far a library is matched");
                    continue;
                }
            };
            let Some(watch) = self.watched.get_mut(&companion) else { continue };
            match outcome {
                Ok(()) => watch.saved(through),
                Err(EngineError::Closed | EngineError::LogFailed { .. }) => {
                    end = Err(End::Stopped);
                }
                // Sooner or later does no harm.
                Err(EngineError::Busy { .. } | EngineError::DiskFull { .. }) => {}
                Err(error @ (EngineError::Storage { .. } | EngineError::Panicked)) => {
                    tracing::warn!(library = %watch.library, %error, "it is noted later how far it is matched");
                }
                Err(error) => {
                    tracing::error!(library = %watch.library, %error, "cannot note how far it is matched");
                    watch.broken = true;
                }
            }
        }
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
        let (mut needed, mut worked) = (self.taken, self.taken);
        for watch in self.watched.values() {
            let Some((_since, before)) = watch.unsaved_since else { continue };
            needed = needed.min(before);
            if !watch.broken {
                worked = worked.min(before);
            }
        }
        self.engine.hold_log_after(needed, worked);
    }
}

/// What a record says.
fn decode<T>(
    record: &RawRecord,
    decode: impl FnOnce(&Bytes) -> Result<T, DecodeError>,
) -> Result<T, EngineError> {
    let whole: Bytes = match &*record.parts {
        [whole] => whole.clone(),
        parts => parts.concat().into(),
    };
    decode(&whole).map_err(|error| EngineError::Damaged {
        detail: undecodable(record.seq, &error).to_string(),
    })
}
