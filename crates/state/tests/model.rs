//! Random histories against a plain map: S1, S3, S4, S5 and exactness of search, listing and
//! counts, now and in the past, through merges, checkpoints and restarts.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::sync::Arc;

use arrwdb_state::{
    Bm25, Chunk, ChunkId, Command, Custom, Document, DocumentId, DocumentMetadata, DocumentRecord,
    Fate, FieldSpec, FieldVector, FieldVectors, FileBytes, FileSegment, FoundByKeywords, IndexSpec,
    KeywordQuery, Keywords, Language, LibraryEntry, LibraryId, Manifest, Merge, Metric, Nearest,
    Operator, PastError, Segment, Seq, Sequential, SparseValue, Timestamp, VectorKind, VectorValue,
    View, normalized,
};
use proptest::prelude::*;

const DIMENSION: u32 = 5;

/// A file held in memory, aligned as a mapping is.
#[derive(Debug)]
struct Held(Vec<u64>, usize);

impl Held {
    fn new(bytes: &[u8]) -> Self {
        let words = bytes
            .chunks(8)
            .map(|chunk| {
                let mut word = [0; 8];
                word[..chunk.len()].copy_from_slice(chunk);
                u64::from_ne_bytes(word)
            })
            .collect();
        Self(words, bytes.len())
    }
}

impl FileBytes for Held {
    fn bytes(&self) -> &[u8] {
        &bytemuck::cast_slice(&self.0)[..self.1]
    }

    fn name(&self) -> &'static str {
        "held.seg"
    }
}

/// Fewer than there are ids, so that libraries are full now and then.
const DOCUMENTS_MAX: u64 = 16;

fn existed(document: &Document) -> Fate {
    Fate::Existed { chunks: u32::try_from(document.chunks.len()).unwrap() }
}

#[derive(Debug, Clone)]
enum Step {
    /// (id, chunks, seed) of each document.
    Put(Vec<(u8, u8, u64)>),
    Delete(Vec<u8>),
    /// Merges leave out what died in the first so many percent of the numbers given.
    MergeMemory(u64),
    Checkpoint(u64),
    MergeFiles(u64),
    /// Restart from the last checkpoint and the log after it.
    Restart,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let id = 0_u8..24;
    let forgotten = prop_oneof![Just(0_u64), 0..100_u64, Just(100)];
    let put = prop::collection::vec((id.clone(), 1_u8..5, any::<u64>()), 1..5).prop_map(Step::Put);
    let step = prop_oneof![
        6 => put,
        3 => prop::collection::vec(id, 1..4).prop_map(Step::Delete),
        2 => forgotten.clone().prop_map(Step::MergeMemory),
        2 => forgotten.clone().prop_map(Step::Checkpoint),
        1 => forgotten.prop_map(Step::MergeFiles),
        1 => Just(Step::Restart),
    ];
    prop::collection::vec(step, 1..60)
}

/// Words with frequencies of their own, so that rows differ in score.
const WORDS: [&str; 5] =
    ["apples", "apples and apples", "pears", "the pears of an apple", "apples pears"];

fn id(n: u8) -> DocumentId {
    DocumentId::from_bytes([n; 16])
}

fn document(n: u8, chunks: u8, seed: u64) -> Document {
    let mut state = seed | 1;
    let mut random = move || {
        // xorshift64: enough to make vectors that differ.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let chunks = (0..chunks)
        .map(|chunk| Chunk {
            id: ChunkId::from_bytes([chunk; 16]),
            text: format!("{n} {chunk} {seed} {} w{}", WORDS[(seed % 5) as usize], seed % 7),
            // Few values, so that equal vectors and equal distances are common.
            embedding: (0..DIMENSION).map(|_dim| (random() % 3) as f32 - 0.5).collect(),
            created_at: Timestamp::from_micros(7),
            page_number: Some(u32::from(chunk)),
            custom: Custom::new(),
        })
        .collect();
    let metadata = DocumentMetadata {
        title: format!("title {n}"),
        author: None,
        document_type: "text".into(),
        source_url: None,
        tags: vec![],
        custom: Custom::new(),
        created_at: Timestamp::from_micros(6),
    };
    Document { id: id(n), metadata, chunks }
}

/// What a document has in vector fields: of each field nothing or some vectors, by its first text.
fn fields_of(document: &Document) -> Vec<FieldVectors> {
    let seed: u32 = document.chunks[0].text.bytes().map(u32::from).sum();
    let number = |of: u32| ((seed + of) % 4) as f32 + 0.5;
    let field = |name: &str, kind, dimension, values: Vec<VectorValue>| FieldVectors {
        spec: FieldSpec {
            name: name.into(),
            kind,
            dimension,
            metric: if kind == VectorKind::Sparse { Metric::Dot } else { Metric::Cosine },
            index: IndexSpec::default(),
            model: None,
        },
        vectors: (0..)
            .zip(values)
            .map(|(n, value)| FieldVector {
                id: ChunkId::from_bytes([n; 16]),
                text: format!("{name} {n} of {seed}"),
                value,
                created_at: Timestamp::from_micros(8),
                custom: Custom::new(),
            })
            .collect(),
    };
    let images = (0..seed % 3).map(|n| VectorValue::Dense(vec![number(n), -number(n + 1)]));
    let tokens = vec![(0..3).map(number).collect(), (3..6).map(number).collect()];
    let words = SparseValue { indices: vec![seed % 5, 9], values: vec![number(1), -number(2)] };
    let mut fields = vec![
        field("image", VectorKind::Dense, 2, images.collect()),
        field("tokens", VectorKind::Late, 3, vec![VectorValue::Late(tokens)]),
        field("words", VectorKind::Sparse, 1, vec![VectorValue::Sparse(words)]),
    ];
    fields.retain(|field| {
        !field.vectors.is_empty() && !(seed + field.spec.dimension).is_multiple_of(4)
    });
    fields
}

/// A document as it is put, with what it has in vector fields.
fn record(document: &Document) -> DocumentRecord {
    let record = DocumentRecord::new(document, DIMENSION).unwrap();
    record.with_fields(&document.metadata, &fields_of(document)).unwrap()
}

/// The library as it has to be: documents by order of arrival.
#[derive(Default, Clone)]
struct Model {
    arrived: BTreeMap<u64, Document>,
    next: u64,
}

impl Model {
    fn remove(&mut self, id: DocumentId) {
        self.arrived.retain(|_arrival, document| document.id != id);
    }

    fn put(&mut self, document: Document) {
        self.arrived.insert(self.next, document);
        self.next += 1;
    }

    /// Distances in the order of an exact search, with the chunk's text.
    fn nearest(&self, query: &[f32]) -> Vec<(f64, String)> {
        let mut all: Vec<_> = self
            .arrived
            .values()
            .flat_map(|document| &document.chunks)
            .map(|chunk| {
                let dot: f64 =
                    chunk.embedding.iter().zip(query).map(|(a, b)| f64::from(a * b)).sum();
                let norm: f64 = chunk.embedding.iter().map(|a| f64::from(a * a)).sum();
                (1.0 - dot / norm.sqrt(), chunk.text.clone())
            })
            .collect();
        all.sort_by(|a, b| a.0.total_cmp(&b.0));
        all
    }
}

/// The state machine under test with what a disk would hold.
struct Subject {
    view: View,
    log: Vec<(Seq, LibraryEntry)>,
    manifest: Option<Vec<u8>>,
    files: BTreeMap<u64, Arc<Held>>,
    next_file: u64,
    seq: u64,
    /// The latest number up to which a merge was allowed to forget.
    horizon: u64,
}

impl Subject {
    fn new() -> Self {
        Self {
            view: View::empty(DIMENSION),
            log: Vec::new(),
            manifest: None,
            files: BTreeMap::new(),
            next_file: 1,
            seq: 0,
            horizon: 0,
        }
    }

    fn run(&mut self, command: Command) -> Vec<Fate> {
        let at = Timestamp::from_micros(9);
        let decision = self.view.decide(command, at, Some(DOCUMENTS_MAX)).unwrap();
        if let Some(entry) = decision.entry {
            self.seq += 3;
            let seq = Seq::new(self.seq);
            let bytes = entry.encode().concat();
            let logged = LibraryEntry::decode(&bytes.into()).unwrap();
            let before = self.view.digest();
            let next = self.view.apply(seq, &logged).unwrap();
            assert_eq!(self.view.digest(), before, "S3: apply changes nothing but its result");
            self.view = next;
            self.log.push((seq, logged));
        }
        decision.fates
    }

    /// What a merge may forget.
    fn forget(&mut self, percent: u64) -> Seq {
        let horizon = self.seq * percent / 100;
        self.horizon = self.horizon.max(horizon);
        Seq::new(horizon)
    }

    /// Writes a merge to a "file" and does it.
    fn merge(&mut self, merge: &Merge) {
        let output = (merge.rows() > 0).then(|| {
            let mut bytes = Vec::new();
            let summary = merge.write(&mut bytes).unwrap();
            bytes[..summary.header.len()].copy_from_slice(&summary.header);
            assert_eq!(bytes.len() as u64, merge.file_bytes());
            let held = Arc::new(Held::new(&bytes));
            self.files.insert(self.next_file, held.clone());
            let file = FileSegment::open(self.next_file, held).unwrap();
            file.check().unwrap();
            self.next_file += 1;
            Arc::new(Segment::File(file))
        });
        self.view = self.view.with_merge(merge, output).unwrap();
    }

    fn checkpoint(&mut self, percent: u64) {
        for part in self.view.clone().parts() {
            let memory = part.memory_segments();
            if !memory.is_empty() {
                let horizon = self.forget(percent);
                let merge = part.plan_merge(memory, horizon).unwrap();
                self.merge(&merge);
            }
        }
        let library = LibraryId::from_bytes([1; 16]);
        let manifest = Manifest::of(&self.view, library, self.next_file).unwrap();
        assert_eq!(Manifest::read(&manifest.write()).unwrap(), manifest);
        self.manifest = Some(manifest.write());
    }

    fn restart(&mut self) {
        let mut view = match &self.manifest {
            None => View::empty(DIMENSION),
            Some(bytes) => {
                let manifest = Manifest::read(bytes).unwrap();
                let files = manifest
                    .all_segments()
                    .map(|s| FileSegment::open(s.number, self.files[&s.number].clone()).unwrap())
                    .collect();
                manifest.open(files).unwrap()
            }
        };
        for (seq, entry) in &self.log {
            if *seq > view.applied() {
                let applied = view.apply(*seq, entry).unwrap();
                view = applied.with_memory_merged(Seq::START, Seq::new(self.horizon)).unwrap();
            }
        }
        self.view = view;
    }
}

/// The library as it was after each record, in order; the first is from before all of them.
type Past = Vec<(u64, Model, u128)>;

/// Every number that there was is as it was then, or refused.
fn check_past(subject: &Subject, past: &Past) -> Result<(), TestCaseError> {
    let view = &subject.view;
    let oldest = view.oldest();
    prop_assert!(
        oldest.get() <= subject.horizon,
        "S6: no more is forgotten than merges were told to"
    );
    for (at, (from, model, digest)) in past.iter().enumerate() {
        let until = past.get(at + 1).map_or(subject.seq + 2, |next| next.0);
        for seq in [*from, until - 1].map(Seq::new) {
            if seq < oldest && seq < view.applied() {
                prop_assert_eq!(view.as_of(seq).unwrap_err(), PastError::Gone { oldest });
                prop_assert_eq!(view.contained(id(1), seq), Err(PastError::Gone { oldest }));
                continue;
            }
            let then = view.as_of(seq).unwrap();
            prop_assert_eq!(then.digest(), *digest);
            check_view(&then, model)?;
            for n in 0..24 {
                let there = model.arrived.values().any(|document| document.id == id(n));
                prop_assert_eq!(view.contained(id(n), seq), Ok(there));
            }
        }
    }
    Ok(())
}

fn check(subject: &Subject, model: &Model) -> Result<(), TestCaseError> {
    let view = &subject.view;
    for file in view.all_segments().filter_map(|segment| segment.segment().file()) {
        prop_assert_eq!(file.verify(9), []);
    }
    check_view(view, model)
}

fn check_view(view: &View, model: &Model) -> Result<(), TestCaseError> {
    prop_assert_eq!(view.verify(), Ok(()));
    prop_assert_eq!(view.documents(), model.arrived.len() as u64);
    let chunks: usize = model.arrived.values().map(|document| document.chunks.len()).sum();
    prop_assert_eq!(view.chunks(), chunks as u64);
    for n in 0..24 {
        let expected = model.arrived.values().find(|document| document.id == id(n));
        let found = view.document(id(n), true).unwrap();
        prop_assert_eq!(found.as_ref(), expected);
        let vectors = expected.map(fields_of).unwrap_or_default();
        prop_assert_eq!(view.field_vectors(id(n)).unwrap(), vectors);
    }
    let mut listed = Vec::new();
    let mut cursor = None;
    loop {
        let page = view.documents_after(cursor, 3, true).unwrap();
        listed.extend(page.documents);
        cursor = page.next;
        if cursor.is_none() {
            break;
        }
    }
    let expected: Vec<_> = model.arrived.values().cloned().collect();
    prop_assert_eq!(&listed, &expected);
    let paged = view.documents_at(2, 4, true).unwrap().documents;
    prop_assert_eq!(paged, expected.iter().skip(2).take(4).cloned().collect::<Vec<_>>());
    // Where a page ends is known without reading it.
    for limit in 1..4 {
        let page = view.documents_after(None, limit, false).unwrap();
        prop_assert_eq!(view.next_after(None, limit).unwrap(), page.next);
        prop_assert_eq!(
            view.next_after(page.next, 2).unwrap(),
            view.documents_after(page.next, 2, false).unwrap().next
        );
        prop_assert_eq!(
            view.next_at(3, limit).unwrap(),
            view.documents_at(3, limit, false).unwrap().next
        );
    }
    let (query, _) = normalized(&[1.0, -0.5, 0.25, 0.0, 2.0]).unwrap();
    let (found, _effort) = view.nearest(Nearest::new(&query, 1000), &Sequential).unwrap();
    let expected = model.nearest(&query);
    prop_assert_eq!(found.len(), expected.len());
    let mut texts = Vec::new();
    for (found, (distance, _text)) in found.iter().zip(&expected) {
        prop_assert!((f64::from(found.distance) - distance).abs() < 1e-5);
        texts.push(view.chunk_of(found.place, false).unwrap().chunk.text);
    }
    let mut expected_texts: Vec<_> = expected.into_iter().map(|(_distance, text)| text).collect();
    texts.sort();
    expected_texts.sort();
    prop_assert_eq!(texts, expected_texts);
    // S8: as in a library in which nothing was ever replaced, deleted or merged.
    let mut fresh = Subject::new();
    if !model.arrived.is_empty() {
        let records = model.arrived.values().map(record);
        fresh.run(Command::Put(records.collect(), None));
    }
    // The same in any language, and with postings of another language there from before.
    for (query, language) in QUERIES.into_iter().zip(LANGUAGES) {
        let found = keywords(view, (query, language));
        prop_assert_eq!(found, keywords(&fresh.view, (query, language)), "{} {}", query, language);
    }
    Ok(())
}

const QUERIES: [&str; 5] =
    ["apples pears", "title 3", "w1 -apples", "\"pears of an apple\"", "w* +pea*"];

const LANGUAGES: [Language; 5] =
    [Language::English, Language::English, Language::English, Language::English, Language::German];

/// What keywords find, best first, with scores to the last bit.
fn keywords(view: &View, (query, language): (&str, Language)) -> Vec<(u32, String)> {
    let query = KeywordQuery::read(query, Operator::Or, language).unwrap();
    let wanted = Keywords { query: &query, k: 20, bm25: Bm25::default(), among: None };
    let (found, _effort) = view.keywords(wanted, &Sequential).unwrap();
    let text = |found: &FoundByKeywords| view.chunk_of(found.place, false).unwrap().chunk.text;
    found.iter().map(|found| (found.score.to_bits(), text(found))).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn s1_s3_s4_s5_s6_s8_any_history_equals_the_model(steps in steps()) {
        let mut subject = Subject::new();
        let mut model = Model::default();
        let mut past: Past = vec![(0, Model::default(), 0)];
        for step in steps {
            let digest = subject.view.digest();
            let found = results(&subject.view);
            match step {
                Step::Put(batch) => {
                    let documents: Vec<_> =
                        batch.iter().map(|(n, chunks, seed)| document(*n, *chunks, *seed)).collect();
                    let records = documents.iter().map(record).collect();
                    let fates = subject.run(Command::Put(records, None));
                    // The last of equal ids counts, at the place of the first.
                    let mut kept: Vec<Document> = Vec::new();
                    let mut count = model.arrived.len() as u64;
                    for (document, fate) in documents.into_iter().zip(fates) {
                        let twin = kept.iter_mut().find(|kept| kept.id == document.id);
                        let old = model.arrived.values().find(|old| old.id == document.id);
                        let gone = twin.as_deref().or(old);
                        let expected = match gone {
                            Some(gone) => existed(gone),
                            None if count == DOCUMENTS_MAX => Fate::NoRoom,
                            None => {
                                count += 1;
                                Fate::Absent
                            }
                        };
                        prop_assert_eq!(fate, expected);
                        match twin {
                            _ if fate == Fate::NoRoom => {}
                            Some(twin) => *twin = document,
                            None => kept.push(document),
                        }
                    }
                    for document in kept {
                        model.remove(document.id);
                        model.put(document);
                    }
                }
                Step::Delete(ids) => {
                    let fates = subject.run(Command::Delete(ids.iter().map(|n| id(*n)).collect(), None));
                    for (n, fate) in ids.into_iter().zip(fates) {
                        let old = model.arrived.values().find(|old| old.id == id(n));
                        prop_assert_eq!(fate, old.map_or(Fate::Absent, existed));
                        model.remove(id(n));
                    }
                }
                Step::MergeMemory(percent) => {
                    let horizon = subject.forget(percent);
                    subject.view = subject.view.with_memory_merged(Seq::START, horizon).unwrap();
                }
                Step::Checkpoint(percent) => subject.checkpoint(percent),
                Step::MergeFiles(percent) => {
                    for part in subject.view.clone().parts() {
                        let files = 0..part.memory_segments().start;
                        if !files.is_empty() {
                            let horizon = subject.forget(percent);
                            let merge = part.plan_merge(files, horizon).unwrap();
                            subject.merge(&merge);
                        }
                    }
                }
                Step::Restart => {
                    subject.restart();
                    prop_assert_eq!(subject.view.digest(), digest, "S4: restart changes nothing");
                    prop_assert_eq!(results(&subject.view), found);
                    check_past(&subject, &past)?;
                    continue;
                }
            }
            if subject.view.digest() == digest {
                prop_assert_eq!(results(&subject.view), found, "S5: layout changes no result");
            }
            check(&subject, &model)?;
            if past.last().is_some_and(|last| last.0 < subject.seq) {
                past.push((subject.seq, model.clone(), subject.view.digest()));
            }
        }
        check_past(&subject, &past)?;
    }

    #[test]
    fn s5_what_dies_while_a_merge_runs_stays_dead(
        batches in prop::collection::vec(prop::collection::vec((0_u8..24, 1_u8..4, any::<u64>()), 1..6), 2..8),
        dead in prop::collection::vec(0_u8..24, 1..8),
    ) {
        let mut subject = Subject::new();
        for batch in &batches {
            let records = batch
                .iter()
                .map(|(n, chunks, seed)| record(&document(*n, *chunks, *seed)))
                .collect();
            subject.run(Command::Put(records, None));
        }
        let view = subject.view.clone();
        let merges = view.parts().filter(|part| !part.segments().is_empty()).map(|part| {
            part.plan_merge(0..part.segments().len(), view.applied()).unwrap()
        });
        let merges: Vec<Merge> = merges.collect();
        subject.run(Command::Delete(dead.iter().map(|n| id(*n)).collect(), None));
        let expected = (subject.view.digest(), subject.view.documents(), results(&subject.view));
        for merge in &merges {
            subject.merge(merge);
        }
        let after = (subject.view.digest(), subject.view.documents(), results(&subject.view));
        prop_assert_eq!(after, expected);
        for n in dead {
            prop_assert!(!subject.view.contains(id(n)).unwrap());
            prop_assert_eq!(subject.view.field_vectors(id(n)).unwrap(), []);
        }
        prop_assert_eq!(subject.view.verify(), Ok(()));
    }
}

/// Every result of a search of each part with its order, ties included.
fn results(view: &View) -> Vec<(u32, String)> {
    view.parts().flat_map(results_of).collect()
}

fn results_of(view: &View) -> Vec<(u32, String)> {
    let query = &[0.5, 0.5, -0.5, 1.0, 0.25][..view.dimension() as usize];
    let (query, _) = normalized(query).unwrap();
    let wanted = Nearest { threshold: Some(1.2), ..Nearest::new(&query, 1000) };
    let (found, _effort) = view.nearest(wanted, &Sequential).unwrap();
    found
        .into_iter()
        .map(|found| {
            (found.distance.to_bits(), view.chunk_of(found.place, false).unwrap().chunk.text)
        })
        .collect()
}

#[test]
fn a_flipped_bit_anywhere_in_a_segment_file_is_refused_or_met() {
    let mut subject = Subject::new();
    let records = (0..20).map(|n| record(&document(n, 3, u64::from(n) + 1))).collect();
    subject.run(Command::Put(records, None));
    subject.checkpoint(100);
    let (_, held) = subject.files.first_key_value().unwrap();
    let good = held.bytes().to_vec();
    for place in 0..good.len() {
        let mut bad = good.clone();
        bad[place] ^= 1 << (place % 8);
        let opened = FileSegment::open(1, Arc::new(Held::new(&bad)));
        let refused = opened.and_then(|file| file.check());
        assert!(refused.is_err(), "byte {place} of {}", good.len());
    }
    for len in (0..good.len()).step_by(7) {
        let cut = FileSegment::open(1, Arc::new(Held::new(&good[..len])));
        assert!(cut.is_err(), "cut to {len}");
    }
}
