//! Standing queries: documents of a library's companion, which is a library like any other but for
//! that nobody reaches it by its id.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use arrwdb_state::limits::LIBRARY_NAME_CHARS_MAX;
use arrwdb_state::{
    CatalogCommand, Command, DocumentRecord, Fate, Filter, IndexSpec, LibraryId, LibrarySpec,
    MatchPosition, QueriesMatched, QueryId, RecordError, Seq, StandingQuery, TenantId, View,
    check_library_name,
};

use crate::engine::{Engine, Inner};
use crate::error::{EngineError, RETRY_AFTER};
use crate::generations::switching;
use crate::handle::{Author, Counts, Handle};
use crate::maintenance::blocking;
use crate::request::{Cursor, Query, Written};
use crate::search::check_threshold;
use crate::system::new_uuid;
use crate::turns::Adds;

/// How often a change of a query is decided anew because somebody else changed it meanwhile.
const ATTEMPTS_MAX: usize = 8;
/// Queries that are read from a companion at a time.
const PAGE: usize = 1000;

/// A standing query to register.
#[derive(Debug, Clone)]
pub struct NewStandingQuery {
    /// Its name, 1 to 255 characters.
    pub name: String,
    /// What to look for.
    pub query: Query,
    /// New passages with `distance <= this` match: as [`crate::SearchRequest::distance_threshold`].
    pub distance_threshold: f32,
    /// Which passages it is about.
    pub filter: Filter,
}

/// Changes to a standing query; `None` leaves a field as it is.
#[derive(Debug, Clone, Default)]
pub struct StandingQueryPatch {
    /// Its name.
    pub name: Option<String>,
    /// What to look for.
    pub query: Option<Query>,
    /// How near.
    pub distance_threshold: Option<f32>,
    /// Which passages it is about.
    pub filter: Option<Filter>,
}

/// A page of standing queries, those changed longest ago first.
#[derive(Debug, Clone)]
pub struct StandingQueryPage {
    /// The queries, without their vectors.
    pub queries: Vec<StandingQuery>,
    /// Where the next page begins; `None` at the end.
    pub next: Option<Cursor>,
    /// Queries in all.
    pub total: u64,
    /// What the page is true at.
    pub seq: Seq,
}

/// A library that had a standing query at some time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Watched {
    /// The library.
    pub library: LibraryId,
    /// How far its passages are matched, as it is noted in the log.
    pub matched: MatchPosition,
    /// Its last record.
    pub applied: Seq,
}

/// The standing queries of one library at one moment.
#[derive(Debug, Clone)]
pub struct StandingQueries {
    library: Arc<LibrarySpec>,
    view: Arc<View>,
}

impl StandingQueries {
    /// The library.
    pub fn library(&self) -> &LibrarySpec {
        &self.library
    }

    /// The last record that changed them: records of the companion up to it are in here.
    pub fn seq(&self) -> Seq {
        self.view.applied()
    }

    /// How far passages are matched.
    pub fn matched(&self) -> MatchPosition {
        self.view.matched()
    }

    /// How many there are.
    pub fn len(&self) -> u64 {
        self.view.documents()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Gives every query to `each`, with its vector and the record that wrote it. Reads the disk.
    pub fn for_each(&self, mut each: impl FnMut(StandingQuery, Seq)) -> Result<(), EngineError> {
        let mut cursor = None;
        loop {
            let page = self.view.documents_after(cursor, PAGE, true)?;
            for document in page.documents {
                let born = self.view.born(document.id)?.unwrap_or(Seq::START);
                each(read(&self.library, document)?, born);
            }
            cursor = page.next;
            if cursor.is_none() {
                return Ok(());
            }
        }
    }
}

impl Engine {
    /// Registers a query: passages written from here on are matched against it.
    pub async fn add_standing_query(
        &self,
        tenant: TenantId,
        library: LibraryId,
        new: NewStandingQuery,
    ) -> Result<Written<StandingQuery>, EngineError> {
        self.0.add_standing_query(tenant, library, new).await
    }

    /// One standing query, with its vector.
    pub async fn standing_query(
        &self,
        tenant: TenantId,
        library: LibraryId,
        id: QueryId,
        min_seq: Option<Seq>,
    ) -> Result<(StandingQuery, Seq), EngineError> {
        let found = self.0.find_query(tenant, library, id, min_seq).await?;
        Ok((found.query, found.seq))
    }

    /// At most `limit` standing queries after `cursor` (from the first, without one).
    pub async fn standing_queries(
        &self,
        tenant: TenantId,
        library: LibraryId,
        page: (Option<Cursor>, usize),
        min_seq: Option<Seq>,
    ) -> Result<StandingQueryPage, EngineError> {
        let (cursor, limit) = page;
        let spec = self.0.generation(tenant, library, min_seq).await?;
        self.0.wait_for_catalog(min_seq).await?;
        // Looked at before the companion is: had it had queries by then, it would be there.
        let seq = Seq::new(self.0.log.durable().min(self.0.catalog_unapplied.published_to()));
        let Some((view, seq)) = self.0.companion_view(&spec, min_seq).await? else {
            return Ok(StandingQueryPage { queries: Vec::new(), next: None, total: 0, seq });
        };
        blocking(move || {
            let page = view.documents_after(cursor, limit, false)?;
            let queries = page.documents.into_iter().map(|document| read(&spec, document));
            let queries = queries.collect::<Result<_, _>>()?;
            Ok(StandingQueryPage { queries, next: page.next, total: view.documents(), seq })
        })
        .await
    }

    /// Changes a standing query. Passages that were written before and are not matched yet may be
    /// matched as it was or as it is.
    pub async fn update_standing_query(
        &self,
        tenant: TenantId,
        library: LibraryId,
        id: QueryId,
        patch: StandingQueryPatch,
    ) -> Result<Written<StandingQuery>, EngineError> {
        self.0.update_standing_query(tenant, library, (id, patch)).await
    }

    /// Removes a standing query: nothing that it matches is noted from here on.
    pub async fn delete_standing_query(
        &self,
        tenant: TenantId,
        library: LibraryId,
        id: QueryId,
    ) -> Result<Written<()>, EngineError> {
        let inner = &self.0;
        let spec = inner.generation(tenant, library, None).await?;
        inner.check_disk()?;
        let handle = inner.companion(&spec).ok_or(EngineError::StandingQueryNotFound(id))?;
        let done = inner
            .write_companion(&handle, library, Command::Delete(vec![id.document()], None))
            .await?;
        match done {
            (seq, Fate::Existed { .. }) => Ok(Written { seq, value: () }),
            (_seq, Fate::Absent | Fate::NoRoom) => Err(EngineError::StandingQueryNotFound(id)),
        }
    }

    /// The libraries that have, or had, standing queries, and how far they are matched; true once
    /// every record up to `seq` is in them.
    pub async fn watched_libraries(&self, seq: Seq) -> Result<Vec<Watched>, EngineError> {
        let inner = &self.0;
        inner.wait_for_published_catalog(seq).await?;
        let catalog = inner.catalog.load_full();
        let mut watched = Vec::new();
        for library in catalog.iter().filter_map(|spec| spec.companion_of) {
            // One that is deleted meanwhile is not watched any more.
            let handles = (inner.handle(library), inner.handle(library.companion()));
            let (Ok(handle), Ok(companion)) = handles else { continue };
            for handle in [&handle, &companion] {
                // One whose files are damaged comes no further: it is as it is.
                if !handle.stopped.load(Ordering::SeqCst) {
                    inner.wait_for(handle, seq).await?;
                }
            }
            let Counts { applied, .. } = handle.counts();
            watched.push(Watched { library, matched: companion.counts().matched, applied });
        }
        Ok(watched)
    }

    /// A library's standing queries; `None` if it has none and never had, or is deleted.
    pub async fn standing_queries_of(
        &self,
        library: LibraryId,
    ) -> Result<Option<StandingQueries>, EngineError> {
        let inner = &self.0;
        let Some(spec) = inner.catalog.load().get(library).cloned() else { return Ok(None) };
        let Some(companion) = inner.companion(&spec) else { return Ok(None) };
        match inner.opened(&companion).await {
            Ok(open) => Ok(Some(StandingQueries { library: spec, view: open.view() })),
            Err(EngineError::LibraryNotFound(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Notes in the log what was matched, and how far, unless that is noted already or the library
    /// is gone; durable when this returns. What queries matched that are deleted by then is left
    /// out.
    pub async fn note_matches(&self, matched: QueriesMatched) -> Result<(), EngineError> {
        let inner = &self.0;
        inner.check_disk()?;
        let Ok(companion) = inner.handle(matched.library.companion()) else { return Ok(()) };
        let done = inner.write(&companion, vec![Command::Match(matched)], None).await;
        match done.into_iter().next().unwrap_or(Err(EngineError::Closed)) {
            Ok(_done) => Ok(()),
            Err(EngineError::LibraryNotFound(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Runs the matcher's work on a thread of its own, of low priority.
    pub async fn run_matching<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, EngineError> {
        self.0.match_pool.run(work).await
    }

    /// Bytes that the standing queries of all libraries may take in memory to be matched: a part of
    /// the memory budget.
    pub fn matching_bytes_max(&self) -> u64 {
        self.0.config.memory_budget_bytes / 4
    }
}

/// A query as it was found.
struct FoundQuery {
    query: StandingQuery,
    /// The record that wrote it.
    born: Seq,
    /// What this is true at.
    seq: Seq,
}

impl Inner {
    /// Waits, for a bounded time, until every record of the catalog up to `seq`, which is durable,
    /// is published with all that follows from it.
    async fn wait_for_published_catalog(&self, seq: Seq) -> Result<(), EngineError> {
        let published = async {
            loop {
                // Registered before looking, so that no progress in between is missed.
                let progressed = self.catalog_progress.notified();
                if self.catalog_unapplied.published_to() >= seq.get() {
                    return;
                }
                progressed.await;
            }
        };
        let in_time = tokio::time::timeout(self.config.min_seq_wait_max, published).await;
        let current = Seq::new(self.log.durable());
        in_time.map_err(|_late| EngineError::SeqNotReached { wanted: seq, current })
    }

    /// A library's companion, once there was a standing query.
    fn companion(&self, spec: &LibrarySpec) -> Option<Arc<Handle>> {
        let companion = self.catalog.load().companion(spec.id)?.id;
        self.handle(companion).ok()
    }

    /// A library's companion, made if there is none.
    async fn companion_or_new(&self, spec: &LibrarySpec) -> Result<Arc<Handle>, EngineError> {
        loop {
            if let Some(handle) = self.companion(spec) {
                // Looked at once the companion is there: a switch that began before is met here, and
                // one that begins later finds the companion.
                if self.handle(spec.id)?.turns.refuse(Author::Caller, Adds::Documents) {
                    return Err(switching());
                }
                return Ok(handle);
            }
            let companion = LibrarySpec {
                id: spec.id.companion(),
                tenant: spec.tenant,
                name: "standing queries".into(),
                description: None,
                created_at: self.parts.clock.now(),
                index: IndexSpec::default(),
                metric: spec.metric,
                model: spec.model.clone(),
                dimension: spec.dimension,
                companion_of: Some(spec.id),
                generation_of: None,
                language: spec.language,
            };
            match self.change_catalog(CatalogCommand::Create(companion)).await {
                // Made by another request: its handle comes right after its record.
                Err(EngineError::LibraryExists(_)) => tokio::task::yield_now().await,
                other => drop(other?),
            }
            if self.catalog.load().get(spec.id).is_none() {
                return Err(EngineError::LibraryNotFound(spec.id));
            }
        }
    }

    /// As what a library is read and written now: what its standing queries are matched against.
    async fn generation(
        &self,
        tenant: TenantId,
        library: LibraryId,
        min_seq: Option<Seq>,
    ) -> Result<Arc<LibrarySpec>, EngineError> {
        let (_spec, handle, _since) = self.placed(tenant, library, min_seq).await?;
        let spec = self.catalog.load().get(handle.id).cloned();
        spec.ok_or(EngineError::LibraryNotFound(library))
    }

    /// What is published of a library's companion, as of at least `min_seq`.
    async fn companion_view(
        self: &Arc<Self>,
        spec: &LibrarySpec,
        min_seq: Option<Seq>,
    ) -> Result<Option<(Arc<View>, Seq)>, EngineError> {
        let Some(handle) = self.companion(spec) else { return Ok(None) };
        if let Some(wanted) = min_seq {
            self.wait_for(&handle, wanted).await?;
        }
        // Looked at before the view is, as for a snapshot.
        let quiet = handle.published_to(self.log.durable());
        let view = self
            .opened(&handle)
            .await
            .map_err(|error| of_library(spec.generation_of.unwrap_or(spec.id), error))?;
        let view = view.view();
        let seq = view.applied().max(quiet);
        Ok(Some((view, seq)))
    }

    async fn find_query(
        self: &Arc<Self>,
        tenant: TenantId,
        library: LibraryId,
        id: QueryId,
        min_seq: Option<Seq>,
    ) -> Result<FoundQuery, EngineError> {
        let spec = self.generation(tenant, library, min_seq).await?;
        self.wait_for_catalog(min_seq).await?;
        let absent = move || EngineError::StandingQueryNotFound(id);
        let (view, seq) = self.companion_view(&spec, min_seq).await?.ok_or_else(absent)?;
        blocking(move || {
            let document = view.document(id.document(), true)?.ok_or_else(absent)?;
            let born = view.born(id.document())?.ok_or_else(absent)?;
            Ok(FoundQuery { query: read(&spec, document)?, born, seq })
        })
        .await
    }

    async fn add_standing_query(
        self: &Arc<Self>,
        tenant: TenantId,
        library: LibraryId,
        new: NewStandingQuery,
    ) -> Result<Written<StandingQuery>, EngineError> {
        let spec = self.generation(tenant, library, None).await?;
        self.check_disk()?;
        check_name(&new.name)?;
        check_threshold(new.distance_threshold, spec.metric)?;
        check_filter(&new.filter)?;
        let (text, vector) = self.standing_vector(&spec, new.query).await?;
        let at = self.parts.clock.now();
        let query = StandingQuery {
            id: QueryId::new(new_uuid(at, &*self.parts.random)),
            name: new.name,
            text,
            vector,
            distance_threshold: new.distance_threshold,
            filter: new.filter,
            created_at: at,
            updated_at: at,
            since: None,
        };
        let record = record(&spec, &query)?;
        let handle = self.companion_or_new(&spec).await;
        let handle = handle.map_err(|error| of_library(library, error))?;
        let (seq, fate) =
            self.write_companion(&handle, library, Command::Put(vec![record], None)).await?;
        match fate {
            Fate::Absent | Fate::Existed { .. } => Ok(Written { seq, value: query }),
            Fate::NoRoom => {
                let max = self.config.standing_queries_per_library_max;
                Err(EngineError::TooManyStandingQueries(max))
            }
        }
    }

    async fn update_standing_query(
        self: &Arc<Self>,
        tenant: TenantId,
        library: LibraryId,
        (id, patch): (QueryId, StandingQueryPatch),
    ) -> Result<Written<StandingQuery>, EngineError> {
        let spec = self.generation(tenant, library, None).await?;
        self.check_disk()?;
        if let Some(name) = &patch.name {
            check_name(name)?;
        }
        if let Some(threshold) = patch.distance_threshold {
            check_threshold(threshold, spec.metric)?;
        }
        // Before its text costs anything.
        let mut found = self.find_query(tenant, library, id, None).await?;
        let vector = match patch.query {
            Some(query) => Some(self.standing_vector(&spec, query).await?),
            None => None,
        };
        for _attempt in 0..ATTEMPTS_MAX {
            let FoundQuery { mut query, born, seq: _ } = found;
            query.since = query.since.or(Some(born));
            query.updated_at = self.parts.clock.now();
            if let Some(name) = &patch.name {
                query.name.clone_from(name);
            }
            if let Some((text, vector)) = &vector {
                query.text.clone_from(text);
                query.vector.clone_from(vector);
            }
            query.distance_threshold = patch.distance_threshold.unwrap_or(query.distance_threshold);
            if let Some(filter) = &patch.filter {
                query.filter.clone_from(filter);
            }
            let record = record(&spec, &query)?;
            let absent = EngineError::StandingQueryNotFound(id);
            let handle = self.companion(&spec).ok_or(absent)?;
            let done =
                self.write_companion(&handle, library, Command::Replace(record, born)).await?;
            if let (seq, Fate::Existed { .. }) = done {
                return Ok(Written { seq, value: query });
            }
            // Changed or deleted meanwhile.
            found = self.find_query(tenant, library, id, None).await?;
        }
        Err(EngineError::Busy { what: "the standing query", retry_after: RETRY_AFTER })
    }

    /// The text of a query, if it has one, and its vector as it is kept: the caller's own, or that
    /// of the text as a search uses it.
    async fn standing_vector(
        self: &Arc<Self>,
        spec: &Arc<LibrarySpec>,
        query: Query,
    ) -> Result<(Option<String>, Vec<f32>), EngineError> {
        let (text, given) = match &query {
            Query::Text(text) => (Some(text.clone()), None),
            Query::Vector(vector) => (None, Some(vector.clone())),
        };
        let vector = self.query_numbers(spec, query).await.map_err(in_body)?;
        Ok((text, given.unwrap_or(vector)))
    }

    async fn write_companion(
        self: &Arc<Self>,
        handle: &Arc<Handle>,
        library: LibraryId,
        command: Command,
    ) -> Result<(Seq, Fate), EngineError> {
        let room = self.room_of(&command)?;
        let done = self.write(handle, vec![command], room).await;
        let done = done.into_iter().next().unwrap_or(Err(EngineError::Closed));
        let done = done.map_err(|error| of_library(library, error))?;
        Ok((done.seq, done.fates.first().copied().unwrap_or(Fate::Absent)))
    }
}

/// A document of a companion as a query.
fn read(
    library: &LibrarySpec,
    document: arrwdb_state::Document,
) -> Result<StandingQuery, EngineError> {
    let id = document.id;
    StandingQuery::of_document(document).ok_or_else(|| EngineError::Damaged {
        detail: format!(
            "document {id} of the companion of library {} is no standing query; it was written by \
             a newer release",
            library.id
        ),
    })
}

fn record(spec: &LibrarySpec, query: &StandingQuery) -> Result<DocumentRecord, EngineError> {
    DocumentRecord::new(&query.document(), spec.dimension).map_err(|error| match error {
        RecordError::Dimension { .. } | RecordError::Vector { .. } => {
            EngineError::Vector { field: "/embedding".into(), detail: error.to_string() }
        }
        RecordError::Chunks { .. }
        | RecordError::FieldVectors { .. }
        | RecordError::FieldVector { .. }
        | RecordError::TooLarge { .. } => {
            EngineError::Invalid { field: String::new(), detail: error.to_string() }
        }
    })
}

fn check_filter(filter: &Filter) -> Result<(), EngineError> {
    filter.check_standing().map_err(|fault| EngineError::Invalid {
        field: "/metadata_filter".into(),
        detail: fault.to_string(),
    })
}

fn check_name(name: &str) -> Result<(), EngineError> {
    const { assert!(LIBRARY_NAME_CHARS_MAX == 255, "as it is documented") };
    check_library_name(name)
        .map_err(|fault| EngineError::Invalid { field: "/name".into(), detail: fault.to_string() })
}

/// An error of a text, which is in the field `text` of these bodies.
fn in_body(mut error: EngineError) -> EngineError {
    if let EngineError::Invalid { field, .. }
    | EngineError::Blank { field, .. }
    | EngineError::Vector { field, .. } = &mut error
        && field == "/query"
    {
        *field = "/text".into();
    }
    error
}

/// An error that names the library and not its companion, or a generation of it.
pub(crate) fn of_library(library: LibraryId, error: EngineError) -> EngineError {
    if let EngineError::LibraryNotFound(_) = error {
        return EngineError::LibraryNotFound(library);
    }
    error
}
