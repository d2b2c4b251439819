//! The bytes of every format, pinned: a released version's bytes never change.
//!
//! `UPDATE=1 cargo nextest run -p arrwdb-state golden` writes the files anew, which is right only
//! for a version that was never released.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;
use std::sync::Arc;

use arrwdb_state::{
    BatchEnd, BatchId, BatchNote, BatchOperation, BatchOutcome, BudgetCrossed, BudgetPeriod,
    BudgetScope, BudgetTerms, Catalog, CatalogEntry, Chunk, ChunkId, Command, Custom, Day,
    DeletedDocument, DeletedLibrary, Document, DocumentId, DocumentMetadata, DocumentRecord,
    FieldSpec, FieldVector, FieldVectors, FileBytes, FileSegment, IndexBuilt, IndexSpec, IndexWork,
    JobChange, JobEnd, JobHead, JobId, JobInput, JobKind, JobOutcome, JobPriority, JobProgress,
    JobSpec, JobUnit, Language, LibraryEntry, LibraryId, LibrarySpec, Manifest, MatchPosition,
    MatchedPassage, MatchedQuery, Metric, ModelName, Money, Quantization, QueriesMatched, QueryId,
    Replaced, Schedule, ScheduleId, SealedSecret, Segment, Seq, Snapshot, SparseValue, Structure,
    TenantId, Timestamp, UsageKey, UsageRow, Used, VectorKind, VectorValue, View, Webhook,
    WebhookId, WebhookStatus, Work, WorkEntry,
};

fn check(name: &str, bytes: &[u8]) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, bytes).unwrap();
    }
    let golden = std::fs::read(&path).unwrap();
    assert!(golden == bytes, "{name}: {} bytes are not the {} pinned", bytes.len(), golden.len());
}

fn spec() -> LibrarySpec {
    LibrarySpec {
        id: LibraryId::from_bytes([1; 16]),
        tenant: TenantId::new(2),
        name: "a library".into(),
        description: Some("of books".into()),
        created_at: Timestamp::from_micros(1_700_000_000_000_001),
        index: IndexSpec::default(),
        metric: Metric::Dot,
        model: ModelName { provider: "local".into(), model: "all-MiniLM-L6-v2".into() },
        dimension: 3,
        companion_of: None,
        generation_of: None,
        language: Language::English,
    }
}

fn record() -> DocumentRecord {
    let mut custom = Custom::new();
    custom.insert("year".into(), serde_json::json!(1998));
    let chunk = |n: u8| Chunk {
        id: ChunkId::from_bytes([n; 16]),
        text: format!("passage {n}"),
        embedding: vec![f32::from(n), -0.5, 1e-3],
        created_at: Timestamp::from_micros(3),
        page_number: (n == 5).then_some(12),
        custom: if n == 5 { custom.clone() } else { Custom::new() },
    };
    let document = Document {
        id: DocumentId::from_bytes([4; 16]),
        metadata: DocumentMetadata {
            title: "A title".into(),
            author: Some("an author".into()),
            document_type: "text".into(),
            source_url: Some("file:///a".into()),
            tags: vec!["one".into(), "two".into()],
            custom: custom.clone(),
            created_at: Timestamp::from_micros(2),
        },
        chunks: vec![chunk(5), chunk(6)],
    };
    DocumentRecord::new(&document, 3).unwrap()
}

fn metadata() -> DocumentMetadata {
    record().document().unwrap().metadata
}

/// A vector of every kind.
fn fields() -> Vec<FieldVectors> {
    let field = |name: &str, kind, dimension, metric, value| FieldVectors {
        spec: FieldSpec {
            name: name.into(),
            kind,
            dimension,
            metric,
            index: IndexSpec::default(),
            model: (kind == VectorKind::Dense).then(|| spec().model),
        },
        vectors: vec![FieldVector {
            id: ChunkId::from_bytes([7; 16]),
            text: format!("what {name} is of"),
            value,
            created_at: Timestamp::from_micros(4),
            custom: metadata().custom,
        }],
    };
    let sparse = SparseValue { indices: vec![3, 70_000], values: vec![0.5, -1.25] };
    let late = VectorValue::Late(vec![vec![0.5, 0.0], vec![-1.0, 2.0]]);
    let dense = VectorValue::Dense(vec![1.0, -0.5, 0.25, 0.125]);
    vec![
        field("title", VectorKind::Dense, 4, Metric::L2, dense),
        field("tokens", VectorKind::Late, 2, Metric::Cosine, late),
        field("words", VectorKind::Sparse, 1, Metric::Dot, VectorValue::Sparse(sparse)),
    ]
}

fn matched(at: Timestamp) -> QueriesMatched {
    let query = |n: u8, distance: f32| MatchedQuery {
        id: QueryId::from_bytes([n; 16]),
        name: format!("query {n}").into(),
        distance,
    };
    let passage = |n: u8, queries| MatchedPassage {
        seq: Seq::new(10),
        document: DocumentId::from_bytes([4; 16]),
        chunk: ChunkId::from_bytes([n; 16]),
        chunk_index: u32::from(n) - 5,
        passage: format!("passage {n}"),
        queries,
    };
    let through =
        MatchPosition { seq: Seq::new(10), chunk: 1, query: QueryId::from_bytes([9; 16]) };
    QueriesMatched {
        at,
        library: spec().id,
        through,
        passages: vec![
            passage(5, vec![query(8, 0.25), query(9, -0.5)]),
            passage(6, vec![query(9, f32::INFINITY)]),
        ],
    }
}

#[test]
fn matches_read_as_they_were_written() {
    let matched = matched(Timestamp::from_micros(9));
    let bytes = LibraryEntry::QueriesMatched(matched.clone()).encode().concat();
    let LibraryEntry::QueriesMatched(read) = LibraryEntry::decode(&bytes.into()).unwrap() else {
        panic!("another kind");
    };
    assert_eq!(read, matched);
    assert_eq!(read.matches(), 3);
}

#[test]
fn golden_catalog_entries() {
    let id = spec().id;
    let at = Timestamp::from_micros(9);
    let created = CatalogEntry::LibraryCreated(spec());
    check("library-created-3.bin", &created.encode());
    let companion = LibrarySpec { id: id.companion(), companion_of: Some(id), ..spec() };
    let companion = CatalogEntry::LibraryCreated(companion);
    check("companion-created-3.bin", &companion.encode());
    let name = "renamed".to_owned();
    let updated = CatalogEntry::LibraryUpdated { id, at, name, description: None, language: None };
    check("library-updated-1.bin", &updated.encode());
    check("library-deleted-1.bin", &CatalogEntry::LibraryDeleted { id, at, was: None }.encode());
    let was = Some(DeletedLibrary {
        tenant: TenantId::new(2),
        name: "a library".into(),
        generations: vec![],
    });
    check("library-deleted-2.bin", &CatalogEntry::LibraryDeleted { id, at, was }.encode());
    let index = IndexSpec {
        structure: Structure::new("hnsw", &[]).unwrap(),
        quantization: Quantization::new("hybrid", &[]).unwrap(),
    };
    check("index-changed-1.bin", &CatalogEntry::IndexChanged { id, at, index }.encode());
    let built = IndexBuilt {
        work: IndexWork::Optimize,
        old: IndexSpec::default(),
        new: index,
        vectors: 1000,
        compacted: 24,
        freed_bytes: 4096,
    };
    check("index-built-1.bin", &CatalogEntry::IndexBuilt { id, at, built }.encode());
    check("purged-1.bin", &CatalogEntry::Purged { at }.encode());
    let catalog = Catalog::default().apply(Seq::new(7), &created);
    let catalog = catalog.apply(Seq::new(8), &companion);
    let mut work = Work::default();
    for (seq, entry) in (9..).zip(work_entries()) {
        work.apply(Seq::new(seq), &entry);
    }
    for (seq, entry) in (40..).zip(cost_entries()) {
        work.apply(Seq::new(seq), &entry);
    }
    check("catalog-5.bin", &catalog.write(&work, |_id| Seq::new(5)));
}

#[test]
fn golden_generations() {
    let (id, at) = (spec().id, Timestamp::from_micros(9));
    let generation = LibraryId::from_bytes([2; 16]);
    let model = ModelName { provider: "cohere".into(), model: "embed-v4.0".into() };
    let of = LibrarySpec {
        id: generation,
        model: model.clone(),
        dimension: 256,
        generation_of: Some(id),
        ..spec()
    };
    let created = CatalogEntry::LibraryCreated(of);
    check("generation-created-4.bin", &created.encode());
    let prepared = CatalogEntry::GenerationPrepared { id, at, generation };
    check("generation-prepared-1.bin", &prepared.encode());
    let activated = CatalogEntry::GenerationActivated { id, at, generation, model, dimension: 256 };
    check("generation-activated-1.bin", &activated.encode());
    let discarded = CatalogEntry::GenerationDiscarded { id, at, generation: id };
    check("generation-discarded-1.bin", &discarded.encode());
    let generations = vec![(Seq::START, id), (Seq::new(9), generation)];
    let was = DeletedLibrary { tenant: TenantId::new(2), name: "a library".into(), generations };
    let deleted = CatalogEntry::LibraryDeleted { id, at, was: Some(was) };
    check("library-deleted-3.bin", &deleted.encode());
    let mut catalog = Catalog::default();
    for (seq, entry) in
        (6..).zip([CatalogEntry::LibraryCreated(spec()), created, prepared, activated])
    {
        assert_eq!(CatalogEntry::decode(&entry.encode()).unwrap(), entry);
        catalog = catalog.apply(Seq::new(seq), &entry);
    }
    check("catalog-generations-5.bin", &catalog.write(&Work::default(), |_id| Seq::new(5)));
    // The library is there, though what it began with is not any more.
    let catalog = catalog.apply(Seq::new(10), &discarded);
    check("catalog-generations-alone-5.bin", &catalog.write(&Work::default(), |_id| Seq::new(5)));
}

#[test]
fn golden_languages() {
    let (id, at) = (spec().id, Timestamp::from_micros(9));
    let generation = LibraryId::from_bytes([2; 16]);
    let french = LibrarySpec { language: Language::French, ..spec() };
    let created = CatalogEntry::LibraryCreated(french.clone());
    check("library-created-5.bin", &created.encode());
    let model = ModelName { provider: "cohere".into(), model: "embed-v4.0".into() };
    let of = LibrarySpec { id: generation, model, generation_of: Some(id), ..french.clone() };
    let of = CatalogEntry::LibraryCreated(of);
    check("generation-created-5.bin", &of.encode());
    let updated = CatalogEntry::LibraryUpdated {
        id,
        at,
        name: "renamed".into(),
        description: None,
        language: Some(Language::None),
    };
    check("library-updated-2.bin", &updated.encode());
    let mut catalog = Catalog::default();
    for (seq, entry) in (6..).zip([created, updated.clone()]) {
        assert_eq!(CatalogEntry::decode(&entry.encode()).unwrap(), entry);
        catalog = catalog.apply(Seq::new(seq), &entry);
    }
    check("catalog-6.bin", &catalog.write(&Work::default(), |_id| Seq::new(5)));
    let catalog = catalog.apply(Seq::new(8), &of);
    check("catalog-generations-6.bin", &catalog.write(&Work::default(), |_id| Seq::new(5)));
    // What another build wrote is read here.
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let read = Snapshot::read(&std::fs::read(dir.join("catalog-generations-6.bin")).unwrap());
    assert_eq!(read.unwrap().catalog, catalog);
    // English needs nothing that earlier releases do not know.
    let english = CatalogEntry::LibraryUpdated {
        id,
        at,
        name: "renamed".into(),
        description: None,
        language: Some(Language::English),
    };
    let only = Catalog::default().apply(Seq::new(6), &CatalogEntry::LibraryCreated(french));
    let only = only.apply(Seq::new(7), &english);
    let first = Catalog::default().apply(Seq::new(6), &CatalogEntry::LibraryCreated(spec()));
    let first = first.apply(
        Seq::new(7),
        &CatalogEntry::LibraryUpdated {
            id,
            at,
            name: "renamed".into(),
            description: None,
            language: None,
        },
    );
    let written = |catalog: &Catalog| catalog.write(&Work::default(), |_id| Seq::new(5));
    assert_eq!(written(&only), written(&first));
}

fn webhook(n: u8) -> Webhook {
    let at = Timestamp::from_micros;
    Webhook {
        id: WebhookId::from_bytes([n; 16]),
        tenant: TenantId::new(2),
        url: "https://example.com/hook".into(),
        events: vec!["document.*".into()],
        description: Some("of documents".into()),
        status: WebhookStatus::Paused,
        max_retries: 3,
        retry_delay_seconds: 60,
        timeout_seconds: 30,
        parallel: false,
        secrets: vec![SealedSecret { sealed: vec![9; 40].into(), until: Some(at(70)) }],
        created_at: at(9),
        updated_at: at(11),
        after: Seq::new(3),
    }
}

fn work_entries() -> Vec<WorkEntry> {
    let at = Timestamp::from_micros;
    let head = |n| JobHead {
        id: JobId::from_bytes([n; 16]),
        tenant: TenantId::new(2),
        library: (n == 1).then(|| spec().id),
        kind: if n == 1 { JobKind::BatchImport } else { JobKind::Purge },
    };
    let submitted = |n| {
        WorkEntry::JobSubmitted(JobSpec {
            head: head(n),
            priority: JobPriority::High,
            parameters: "{}".into(),
            input: (n == 1).then_some(JobInput { bytes: 900, crc: 5, units: 7 }),
            retries_max: 3,
            // A schedule's own jobs have a time; those without one were asked for by hand.
            run_at: (n == 2 || n == 4).then(|| at(100)),
            submitted_at: at(9),
            schedule: (n == 4).then(|| ScheduleId::from_bytes([4; 16])),
        })
    };
    let changed = |n, change| WorkEntry::JobChanged { at: at(10), head: head(n), change };
    let progress =
        JobProgress { current: 4, total: Some(7), failed: 1, chunks: 11, through: Seq::new(8) };
    let end = JobEnd {
        outcome: JobOutcome::Completed,
        started_at: Some(at(10)),
        progress,
        result: Some("{\"imported\":6}".into()),
        error: None,
    };
    vec![
        submitted(1),
        changed(1, JobChange::Started),
        changed(1, JobChange::Progressed(progress)),
        changed(
            1,
            JobChange::Retried { not_before: at(20), error: "it rains".into(), counted: true },
        ),
        changed(1, JobChange::CancelRequested),
        changed(1, JobChange::Finished(end)),
        submitted(2),
        submitted(3),
        WorkEntry::JobsForgotten { at: at(12), jobs: vec![head(3).id] },
        WorkEntry::WebhookPut(webhook(1)),
        WorkEntry::WebhookPut(webhook(2)),
        WorkEntry::WebhookDeleted {
            at: at(13),
            id: WebhookId::from_bytes([2; 16]),
            tenant: TenantId::new(2),
        },
        WorkEntry::SchedulePut(schedule(4)),
        submitted(4),
        WorkEntry::SchedulePut(schedule(5)),
        WorkEntry::ScheduleDeleted {
            at: at(14),
            id: ScheduleId::from_bytes([5; 16]),
            tenant: TenantId::new(2),
        },
    ]
}

fn cost_entries() -> Vec<WorkEntry> {
    let at = Day::new(20_779).start();
    let scope = BudgetScope { tenant: TenantId::new(2), library: Some(spec().id) };
    let terms = BudgetTerms {
        scope,
        amount: Money::from_micros(2_500_000),
        period: BudgetPeriod::Month,
        thresholds: vec![50, 80, 100],
        refuse: true,
    };
    let key = UsageKey {
        day: Day::new(20_779),
        tenant: scope.tenant,
        library: scope.library,
        provider: "openai".into(),
        model: "text-embedding-3-small".into(),
    };
    let used = Used {
        texts: 3,
        tokens: 90,
        cost: Money::from_micros(2_100_000),
        unpriced_tokens: 7,
        cached_texts: 2,
        cached_tokens: 60,
        saved: Money::from_pico(1_200_000),
    };
    let of_tenant = BudgetScope { library: None, ..scope };
    let day = BudgetTerms { scope: of_tenant, period: BudgetPeriod::Day, ..terms.clone() };
    vec![
        WorkEntry::UsageRecorded {
            at,
            keep_since: Day::new(20_379),
            rows: vec![UsageRow { key, used }],
        },
        WorkEntry::BudgetSet { at, terms: day },
        WorkEntry::BudgetSet { at, terms: terms.clone() },
        WorkEntry::BudgetCrossed(BudgetCrossed {
            at,
            terms,
            since: Day::new(20_779).month(),
            spent: used.cost,
            percents: vec![50, 80],
            exceeded: false,
        }),
        WorkEntry::BudgetDeleted { at, scope: of_tenant },
    ]
}

const COST_ENTRIES: [&str; 5] = [
    "usage-recorded-1.bin",
    "budget-set-day-1.bin",
    "budget-set-1.bin",
    "budget-crossed-1.bin",
    "budget-deleted-1.bin",
];

fn schedule(n: u8) -> Schedule {
    Schedule {
        id: ScheduleId::from_bytes([n; 16]),
        tenant: TenantId::new(2),
        name: "nightly".into(),
        cron: "0 3 * * *".into(),
        time_zone: "Europe/Berlin".into(),
        library: (n == 4).then(|| spec().id),
        kind: JobKind::IndexOptimize,
        priority: JobPriority::Low,
        parameters: "{}".into(),
        retries_max: 3,
        enabled: n == 4,
        note: (n == 5).then(|| "its library is gone".into()),
        created_at: Timestamp::from_micros(9),
        updated_at: Timestamp::from_micros(12),
    }
}

const WORK_ENTRIES: [&str; 16] = [
    "job-submitted-1.bin",
    "job-started-1.bin",
    "job-progressed-1.bin",
    "job-retried-1.bin",
    "job-cancel-requested-1.bin",
    "job-finished-1.bin",
    "job-submitted-later-1.bin",
    "job-submitted-last-1.bin",
    "jobs-forgotten-1.bin",
    "webhook-put-1.bin",
    "webhook-put-other-1.bin",
    "webhook-deleted-1.bin",
    "schedule-put-1.bin",
    "job-submitted-2.bin",
    "schedule-put-other-1.bin",
    "schedule-deleted-1.bin",
];

#[test]
fn golden_work_entries() {
    for (name, entry) in WORK_ENTRIES.into_iter().zip(work_entries()) {
        check(name, &entry.encode());
        assert_eq!(WorkEntry::decode(&entry.encode()).unwrap(), entry);
    }
    for (name, entry) in COST_ENTRIES.into_iter().zip(cost_entries()) {
        check(name, &entry.encode());
        assert_eq!(WorkEntry::decode(&entry.encode()).unwrap(), entry);
    }
}

#[test]
fn files_of_earlier_versions_still_open() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let first = LibrarySpec { index: IndexSpec::default(), metric: Metric::Cosine, ..spec() };
    let created = std::fs::read(dir.join("library-created-1.bin")).unwrap();
    assert_eq!(
        CatalogEntry::decode(&created).unwrap(),
        CatalogEntry::LibraryCreated(first.clone())
    );
    let catalog = std::fs::read(dir.join("catalog-1.bin")).unwrap();
    let catalog = Snapshot::read(&catalog).unwrap().catalog;
    assert_eq!(**catalog.get(first.id).unwrap(), first);
    let manifest = Manifest::read(&std::fs::read(dir.join("manifest-1.bin")).unwrap()).unwrap();
    let now = Manifest::read(&std::fs::read(dir.join("manifest-2.bin")).unwrap()).unwrap();
    assert_eq!(manifest.segments, now.segments);
    assert_eq!((manifest.applied, manifest.oldest()), (Seq::new(12), Seq::new(12)));
    assert_eq!((now.applied, now.oldest()), (Seq::new(12), Seq::START));
    let created = std::fs::read(dir.join("library-created-2.bin")).unwrap();
    assert_eq!(CatalogEntry::decode(&created).unwrap(), CatalogEntry::LibraryCreated(spec()));
    for name in ["catalog-2.bin", "catalog-3.bin"] {
        let read = Snapshot::read(&std::fs::read(dir.join(name)).unwrap()).unwrap();
        assert_eq!(**read.catalog.get(spec().id).unwrap(), spec());
        assert_eq!(read.work, Work::default());
    }
    let jobs = Snapshot::read(&std::fs::read(dir.join("catalog-4.bin")).unwrap()).unwrap().work;
    assert_eq!((jobs.jobs().count(), jobs.webhooks().count(), jobs.schedules().count()), (2, 1, 0));
    assert_eq!(manifest.matched, MatchPosition::START);
    // Before there were languages.
    for name in ["catalog-5.bin", "catalog-generations-5.bin"] {
        let read = Snapshot::read(&std::fs::read(dir.join(name)).unwrap()).unwrap();
        let libraries: Vec<_> = read.catalog.owners_libraries().collect();
        assert!(libraries.iter().all(|spec| spec.language == Language::English));
        assert_eq!(libraries.len(), 1);
    }
}

#[test]
fn entries_of_the_first_version_still_mean_what_they_said() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let read =
        |name: &str| LibraryEntry::decode(&std::fs::read(dir.join(name)).unwrap().into()).unwrap();
    let LibraryEntry::DocumentsPut { documents, replaced, .. } = read("documents-put-1.bin") else {
        panic!("a put");
    };
    assert_eq!((documents[0].id(), documents[0].chunks()), (record().id(), 2));
    assert_eq!(replaced, []);
    let LibraryEntry::DocumentsDeleted { documents, .. } = read("documents-deleted-1.bin") else {
        panic!("a deletion");
    };
    let ids: Vec<_> = documents.iter().map(|document| document.id.to_bytes()[0]).collect();
    assert_eq!(ids, [4, 7]);
    assert!(documents.iter().all(|gone| gone.title.is_none() && gone.chunks.is_empty()));
    let deleted = std::fs::read(dir.join("library-deleted-1.bin")).unwrap();
    assert!(matches!(
        CatalogEntry::decode(&deleted).unwrap(),
        CatalogEntry::LibraryDeleted { was: None, .. }
    ));
}

#[test]
fn golden_library_entries_and_segment() {
    let at = Timestamp::from_micros(9);
    let chunks = vec![ChunkId::from_bytes([8; 16]), ChunkId::from_bytes([9; 16])];
    let replaced = vec![Replaced { document: 0, chunks: chunks.clone() }];
    let unit = Some(JobUnit { job: JobId::from_bytes([6; 16]), unit: 70 });
    let put = LibraryEntry::DocumentsPut { at, unit, documents: vec![record()], replaced };
    check("documents-put-3.bin", &put.encode().concat());
    let known = DeletedDocument {
        id: DocumentId::from_bytes([4; 16]),
        title: Some("A title".into()),
        chunks,
    };
    let unknown =
        DeletedDocument { id: DocumentId::from_bytes([7; 16]), title: None, chunks: Vec::new() };
    let deleted = LibraryEntry::DocumentsDeleted { at, unit, documents: vec![known, unknown] };
    check("documents-deleted-3.bin", &deleted.encode().concat());
    let id = BatchId::from_bytes([3; 16]);
    let operation = BatchOperation::Import;
    let start = BatchNote { id, operation, total: None, end: None };
    check("batch-started-1.bin", &LibraryEntry::Batch { at, note: start }.encode().concat());
    let end = BatchEnd { successful: 7, failed: 1, outcome: BatchOutcome::Failed };
    let end = BatchNote { total: Some(8), end: Some(end), ..start };
    check("batch-finished-1.bin", &LibraryEntry::Batch { at, note: end }.encode().concat());
    let matched = LibraryEntry::QueriesMatched(matched(at));
    check("queries-matched-1.bin", &matched.encode().concat());
    let none = View::empty(3).apply(Seq::new(11), &matched).unwrap();
    let manifest = Manifest::of(&none, spec().id.companion(), 1).unwrap();
    check("manifest-2-companion.bin", &manifest.write());
    assert_eq!(Manifest::read(&manifest.write()).unwrap(), manifest);
    let view = View::empty(3);
    let entry = view.decide(Command::Put(vec![record()], None), at, None).unwrap().entry.unwrap();
    let view = view.apply(Seq::new(11), &entry).unwrap();
    let merge = view.plan_merge(view.memory_segments(), Seq::START).unwrap();
    let mut bytes = Vec::new();
    let summary = merge.write(&mut bytes).unwrap();
    bytes[..summary.header.len()].copy_from_slice(&summary.header);
    check("segment-1.seg", &bytes);
    let file = FileSegment::open(3, Arc::new(Held(bytes))).unwrap();
    let view = view.with_merge(&merge, Some(Arc::new(Segment::File(file)))).unwrap();
    let view = view.apply(Seq::new(12), &put).unwrap();
    let merge = view.plan_merge(view.memory_segments(), Seq::new(12)).unwrap();
    let mut bytes = Vec::new();
    let summary = merge.write(&mut bytes).unwrap();
    bytes[..summary.header.len()].copy_from_slice(&summary.header);
    let file = FileSegment::open(4, Arc::new(Held(bytes))).unwrap();
    let view = view.with_merge(&merge, Some(Arc::new(Segment::File(file)))).unwrap();
    let manifest = Manifest::of(&view, LibraryId::from_bytes([1; 16]), 5).unwrap();
    check("manifest-2.bin", &manifest.write());
}

#[test]
fn golden_vector_fields() {
    let at = Timestamp::from_micros(9);
    let fields = fields();
    let field = LibraryEntry::FieldChanged { at, field: fields[2].spec.clone() };
    check("field-changed-1.bin", &field.encode().concat());
    let with_fields = record().with_fields(&metadata(), &fields).unwrap();
    let documents = vec![record(), with_fields];
    let put_fields = LibraryEntry::DocumentsPut { at, unit: None, documents, replaced: Vec::new() };
    check("documents-put-4.bin", &put_fields.encode().concat());
    let mut view = View::empty(3).apply(Seq::new(11), &put_fields).unwrap();
    for (number, part) in (6..).zip(view.clone().parts()) {
        let merge = part.plan_merge(part.memory_segments(), Seq::START).unwrap();
        let mut bytes = Vec::new();
        let summary = merge.write(&mut bytes).unwrap();
        bytes[..summary.header.len()].copy_from_slice(&summary.header);
        if number > 6 {
            check(&format!("segment-1-field-{}.seg", number - 6), &bytes);
        }
        let file = FileSegment::open(number, Arc::new(Held(bytes))).unwrap();
        view = view.with_merge(&merge, Some(Arc::new(Segment::File(file)))).unwrap();
    }
    let manifest = Manifest::of(&view, LibraryId::from_bytes([1; 16]), 10).unwrap();
    check("manifest-3.bin", &manifest.write());
    assert_eq!(Manifest::read(&manifest.write()).unwrap(), manifest);
}

/// The bytes of a file whose vectors nobody reads, so that they need not be aligned.
#[derive(Debug)]
struct Held(Vec<u8>);

impl FileBytes for Held {
    fn bytes(&self) -> &[u8] {
        &self.0
    }

    fn name(&self) -> &'static str {
        "held.seg"
    }
}
