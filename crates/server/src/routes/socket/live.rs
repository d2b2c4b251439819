//! Live top-k: the nearest passages of a query, and how they change.
//!
//! - **V7** Whoever applies the changes that are pushed has, at the `seq` of each push, exactly what
//!   an exact search of the library at that `seq` finds, in the same order.
//!
//! ```text
//! feed: document.* ----> due ----> exact search of the published view ----> difference ----> push
//!                         ^                                                     |
//!                         +-- more changes while it runs: once more afterwards -+
//! ```
//! A query is embedded once. However many changes come, a query has one search at a time, and one
//! after the last change; it rests for a multiple of what its search took, and all live queries of
//! the server together have as many searches at a time as there are threads for them.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use arrwdb_engine::state::{self, ChunkId, LibraryId, ModelName, Seq, TenantId, Tuning};
use arrwdb_engine::{Engine, EngineError, Query, SearchAnswer, SearchRequest};
use arrwdb_feed::{EventTypes, Feed, FeedError, Filter, Position, Subscription};
use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt};
use serde::Serialize;
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};
use tokio::time::Instant;

use super::registry::Sockets;
use crate::limits::{SOCKET_WATCHES_MAX, WATCH_INTERVAL, WATCH_REST, WATCH_RETRY};
use crate::problem::{self, Problem};
use crate::routes::answers::Passage;

/// The live queries of one socket.
pub(super) struct LiveQueries {
    feed: Feed,
    engine: Engine,
    tenant: TenantId,
    library: LibraryId,
    /// What makes searches due; only while there are queries.
    changes: Option<Subscription>,
    /// How often `changes` delivered.
    deliveries: u64,
    queries: BTreeMap<String, LiveQuery>,
    /// Queries whose first search is under way.
    beginning: usize,
    searches: FuturesUnordered<BoxFuture<'static, Searched>>,
    /// Searches that are done, while there is no room for a push.
    searched: VecDeque<Searched>,
    begun: u64,
    sockets: Arc<Sockets>,
}

/// What a live query is for.
#[derive(Debug, Clone)]
pub(super) struct Wanted {
    pub(super) vector: Vec<f32>,
    /// Whose vector it is: it is not compared with those of another.
    pub(super) model: ModelName,
    pub(super) k: usize,
    pub(super) threshold: Option<f32>,
    pub(super) filter: state::Filter,
}

impl Wanted {
    fn request(&self) -> SearchRequest {
        SearchRequest {
            distance_threshold: self.threshold,
            filter: self.filter.clone(),
            // Differences of what is only nearly right would tell of changes that are none.
            tuning: Tuning { exact: true, ..Tuning::default() },
            ..SearchRequest::new(Query::Vector(self.vector.clone()), self.k)
        }
    }

    /// Searches now.
    pub(super) async fn search(
        &self,
        engine: &Engine,
        (tenant, library): (TenantId, LibraryId),
        min_seq: Option<Seq>,
    ) -> Result<SearchAnswer, EngineError> {
        let answer = engine.search(tenant, library, self.request(), min_seq).await?;
        if answer.model == self.model {
            return Ok(answer);
        }
        let detail = "the library's embedding model was changed: watch again";
        Err(EngineError::Generation(detail.to_owned()))
    }
}

#[derive(Debug)]
struct LiveQuery {
    wanted: Wanted,
    shown: Vec<Shown>,
    /// What is shown is true at this.
    seq: Seq,
    /// Tells a query from an earlier one of its name.
    number: u64,
    due: bool,
    running: bool,
    not_before: Instant,
}

struct Searched {
    id: String,
    number: u64,
    outcome: Result<SearchAnswer, EngineError>,
    taken: Duration,
}

/// A passage that the client has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Shown {
    chunk: ChunkId,
    /// Of everything that is said of it.
    digest: [u8; 32],
}

/// A passage with its JSON.
#[derive(Debug)]
pub(super) struct Rendered {
    shown: Shown,
    json: Box<RawValue>,
}

/// Where a live query begins: how much was known of the library's changes then.
#[derive(Debug, Clone, Copy)]
pub(super) struct Beginning(u64);

/// What is pushed.
#[derive(Debug, Serialize)]
pub(super) struct Push {
    r#type: &'static str,
    pub(super) watch_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) seq: Option<u64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) changes: Vec<Change>,
    /// Set with the last push of a query.
    #[serde(skip_serializing_if = "Option::is_none")]
    ended: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

/// One difference. To apply those of a push: take away what is at every `from`, places counted
/// before anything is taken away; then put in the `result`s, each at its `rank`, in order.
#[derive(Debug, Serialize)]
pub(super) struct Change {
    #[serde(rename = "change")]
    pub(super) kind: Kind,
    /// The place it had, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) from: Option<usize>,
    /// The place it has, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) rank: Option<usize>,
    /// The passage's id.
    id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) result: Option<Box<RawValue>>,
}

/// What became of a passage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Kind {
    Leave,
    Enter,
    /// It has another place, or says something else.
    Move,
}

/// The passages of an answer as they are sent.
pub(super) fn render(answer: SearchAnswer) -> Result<Vec<Rendered>, Problem> {
    let rendered = answer.hits.into_iter().map(|hit| {
        let passage = Passage::of(hit);
        let json = serde_json::value::to_raw_value(&passage).map_err(unwritable)?;
        let digest = Sha256::digest(json.get().as_bytes()).into();
        Ok(Rendered { shown: Shown { chunk: passage.chunk_id(), digest }, json })
    });
    rendered.collect()
}

#[expect(clippy::needless_pass_by_value, reason = "the shape of map_err")]
pub(super) fn unwritable(error: serde_json::Error) -> Problem {
    Problem::hidden(&problem::INTERNAL, format!("an answer cannot be written as JSON: {error}"))
}

/// The JSON of the passages, as an array.
pub(super) fn array(rendered: &[Rendered]) -> String {
    let texts: Vec<&str> = rendered.iter().map(|it| it.json.get()).collect();
    format!("[{}]", texts.join(","))
}

impl LiveQueries {
    pub(super) fn new(
        feed: Feed,
        engine: Engine,
        (tenant, library): (TenantId, LibraryId),
        sockets: Arc<Sockets>,
    ) -> Self {
        Self {
            feed,
            engine,
            tenant,
            library,
            changes: None,
            deliveries: 0,
            queries: BTreeMap::new(),
            beginning: 0,
            searches: FuturesUnordered::new(),
            searched: VecDeque::new(),
            begun: 0,
            sockets,
        }
    }

    /// Whether nothing can come of [`LiveQueries::next`].
    pub(super) fn is_idle(&self) -> bool {
        self.changes.is_none() && self.searches.is_empty() && self.searched.is_empty()
    }

    /// A query is about to be searched for the first time. What changes from here on is noticed.
    pub(super) fn begin(&mut self) -> Result<Beginning, Problem> {
        if self.queries.len() + self.beginning >= SOCKET_WATCHES_MAX {
            let detail = format!(
                "a connection may have {SOCKET_WATCHES_MAX} live queries; unwatch one of them first"
            );
            return Err(Problem::new(&problem::INVALID_REQUEST, detail));
        }
        if self.changes.is_none() {
            let types = EventTypes::parse("document.*,library.updated,library.deleted")
                .map_err(|error| Problem::hidden(&problem::INTERNAL, error.to_string()))?;
            let mut filter = Filter::of(self.tenant);
            (filter.library, filter.types) = (Some(self.library), types);
            self.changes = Some(self.feed.subscribe(filter, None)?);
        }
        self.beginning += 1;
        Ok(Beginning(self.deliveries))
    }

    /// The first search of a query failed.
    pub(super) fn give_up(&mut self) {
        self.beginning -= 1;
        self.rest();
    }

    /// The first search of a query is answered. A query of the same id is replaced.
    pub(super) fn add(
        &mut self,
        id: String,
        wanted: Wanted,
        (beginning, seq, rendered): (Beginning, Seq, &[Rendered]),
    ) {
        self.beginning -= 1;
        self.begun += 1;
        let query = LiveQuery {
            wanted,
            shown: rendered.iter().map(|it| it.shown).collect(),
            seq,
            number: self.begun,
            // Something may have come between the search and now.
            due: beginning.0 != self.deliveries,
            running: false,
            not_before: Instant::now(),
        };
        if self.queries.insert(id, query).is_none() {
            self.sockets.counters.watches.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Ends a query. False if there is none of this id.
    pub(super) fn remove(&mut self, id: &str) -> bool {
        let removed = self.queries.remove(id).is_some();
        if removed {
            self.sockets.counters.watches.fetch_sub(1, Ordering::Relaxed);
            self.rest();
        }
        removed
    }

    /// Without queries, nothing has to be followed.
    fn rest(&mut self) {
        if self.queries.is_empty() && self.beginning == 0 {
            self.changes = None;
        }
    }

    /// The next push, once there is room for one. Searches that are under way go on without: they
    /// hold turns that others wait for. Nothing is lost if the wait is given up.
    pub(super) async fn next(&mut self, room: bool) -> Push {
        if !room {
            // Until the wait is given up.
            loop {
                match self.searches.next().await {
                    Some(searched) => self.searched.push_back(searched),
                    None => std::future::pending().await,
                }
            }
        }
        loop {
            while let Some(searched) = self.searched.pop_front() {
                if let Some(push) = self.take(searched) {
                    return push;
                }
            }
            let wake = self.start_due();
            let Self { changes, searches, .. } = self;
            let changed = async {
                match changes {
                    Some(changes) => changes.next().await.map(drop),
                    None => std::future::pending().await,
                }
            };
            let sleep = async {
                match wake {
                    Some(wake) => tokio::time::sleep_until(wake).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                Some(searched) = searches.next(), if !searches.is_empty() => {
                    self.searched.push_back(searched);
                }
                changed = changed => self.changed(&changed),
                () = sleep => {}
            }
        }
    }

    /// Something of the library changed.
    fn changed(&mut self, changed: &Result<(), FeedError>) {
        match changed {
            Ok(()) => {}
            // What happened meanwhile is in the view, whatever it was.
            Err(FeedError::Trimmed { .. }) => {
                let now = Position::after(self.engine.durable());
                if let Some(changes) = &mut self.changes {
                    changes.seek(now);
                }
            }
            // The socket hears of it, too.
            Err(FeedError::Closed | FeedError::LibraryNotFound(_) | FeedError::Engine(_)) => {
                self.changes = None;
            }
        }
        self.deliveries += 1;
        self.queries.values_mut().for_each(|query| query.due = true);
    }

    /// Begins the searches that are due; when the next one is.
    fn start_due(&mut self) -> Option<Instant> {
        let now = Instant::now();
        let mut wake: Option<Instant> = None;
        for (id, query) in &mut self.queries {
            if !query.due || query.running {
                continue;
            }
            if query.not_before > now {
                wake = Some(wake.map_or(query.not_before, |wake| wake.min(query.not_before)));
                continue;
            }
            (query.due, query.running) = (false, true);
            let (id, number, wanted) = (id.clone(), query.number, query.wanted.clone());
            let (engine, place) = (self.engine.clone(), (self.tenant, self.library));
            let turns = self.sockets.watching.clone();
            self.searches.push(Box::pin(async move {
                // Live queries of all sockets share a few turns: they are to leave room for those
                // who wait for an answer.
                let _turn = turns.acquire_owned().await;
                let began = Instant::now();
                let outcome = wanted.search(&engine, place, None).await;
                Searched { id, number, outcome, taken: began.elapsed() }
            }));
        }
        wake
    }

    /// The differences that a search found, if there are any.
    fn take(&mut self, searched: Searched) -> Option<Push> {
        let Searched { id, number, outcome, taken } = searched;
        let query = self.queries.get_mut(&id).filter(|query| query.number == number)?;
        query.running = false;
        query.not_before = Instant::now() + WATCH_INTERVAL.max(taken * WATCH_REST);
        let answer = match outcome {
            Ok(answer) => answer,
            Err(error) if is_passing(&error) => {
                query.due = true;
                query.not_before = Instant::now() + WATCH_RETRY;
                return None;
            }
            Err(error) => return Some(self.end(id, &error.into())),
        };
        let seq = answer.seq;
        let rendered = match render(answer) {
            Ok(rendered) => rendered,
            Err(problem) => return Some(self.end(id, &problem)),
        };
        query.seq = query.seq.max(seq);
        let changes = differences(&query.shown, &rendered);
        query.shown = rendered.iter().map(|it| it.shown).collect();
        if changes.is_empty() {
            return None;
        }
        let seq = Some(seq.get());
        Some(Push { r#type: "watch", watch_id: id, seq, changes, ended: None, error: None })
    }

    /// A query that cannot go on.
    fn end(&mut self, id: String, problem: &Problem) -> Push {
        if let Some(log) = problem.log() {
            tracing::error!("a live query ends: {log}");
        }
        self.remove(&id);
        let error = Some(super::frame::error_text(problem));
        let (ended, changes) = (Some(true), Vec::new());
        Push { r#type: "watch", watch_id: id, seq: None, changes, ended, error }
    }
}

impl Drop for LiveQueries {
    fn drop(&mut self) {
        self.sockets.counters.watches.fetch_sub(self.queries.len() as u64, Ordering::Relaxed);
    }
}

/// Whether the same search may succeed a little later.
fn is_passing(error: &EngineError) -> bool {
    matches!(error, EngineError::Busy { .. } | EngineError::SeqNotReached { .. })
}

/// How to get from what is shown to what was found.
pub(super) fn differences(old: &[Shown], new: &[Rendered]) -> Vec<Change> {
    // The old place of each new passage: of those that say the same, and of others with its id.
    let mut places: BTreeMap<ChunkId, Vec<usize>> = BTreeMap::new();
    for (at, shown) in old.iter().enumerate().rev() {
        places.entry(shown.chunk).or_default().push(at);
    }
    let from: Vec<Option<usize>> =
        new.iter().map(|it| places.get_mut(&it.shown.chunk).and_then(Vec::pop)).collect();
    let same: Vec<Option<usize>> = new
        .iter()
        .zip(&from)
        .map(|(it, from)| from.filter(|&from| old[from] == it.shown))
        .collect();
    let stays = longest_rising(&same);
    let mut changes: Vec<Change> = Vec::new();
    for at in places.into_values().flatten() {
        let id = old[at].chunk.to_string();
        changes.push(Change {
            kind: Kind::Leave,
            from: Some(at + 1),
            rank: None,
            id,
            result: None,
        });
    }
    changes.sort_by_key(|change| change.from);
    for (at, (it, from)) in new.iter().zip(from).enumerate().filter(|(at, _)| !stays[*at]) {
        changes.push(Change {
            kind: if from.is_some() { Kind::Move } else { Kind::Enter },
            from: from.map(|from| from + 1),
            rank: Some(at + 1),
            id: it.shown.chunk.to_string(),
            result: Some(it.json.clone()),
        });
    }
    changes
}

/// Which of the numbers belong to a longest sequence that rises. O(n^2), and n is at most a k.
fn longest_rising(numbers: &[Option<usize>]) -> Vec<bool> {
    // The length of the longest that ends here, and what comes before in it.
    let mut best: Vec<(usize, Option<usize>)> = Vec::with_capacity(numbers.len());
    for (at, number) in numbers.iter().enumerate() {
        let before = (0..at)
            .filter(|&before| number.is_some() && numbers[before].is_some())
            .filter(|&before| numbers[before] < *number)
            .max_by_key(|&before| best[before].0);
        let length = usize::from(number.is_some()) + before.map_or(0, |before| best[before].0);
        best.push((length, before));
    }
    let mut rising = vec![false; numbers.len()];
    let mut last =
        (0..numbers.len()).filter(|&at| numbers[at].is_some()).max_by_key(|&at| best[at].0);
    while let Some(at) = last {
        rising[at] = true;
        last = best[at].1;
    }
    rising
}

#[cfg(test)]
mod tests;
