//! Every decoder on bytes that nobody wrote: random ones, and valid ones that were changed, their
//! checksums made right again. None panics or takes memory for what a length only claims, and what
//! decodes is written back as it was.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{self, Write};
use std::ops::Range;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use arrwdb_state::{
    BesideState, BesideSummary, Bm25, Catalog, CatalogEntry, Chunk, ChunkId, Command, Custom,
    Damage, Document, DocumentId, DocumentMetadata, DocumentRecord, Field, FieldQuery, FileBytes,
    FileSegment, IndexFile, IndexSpec, KeywordQuery, Keywords, Language, LibraryEntry, LibraryId,
    LibraryOutline, Manifest, Metric, Nearest, NearestInField, Operator, PostingsPlace, Segment,
    Seq, Sequential, Snapshot, SparseValue, Structure, Timestamp, Tuning, VectorKind, View, Work,
    WorkEntry,
};
use bytes::Bytes;
use proptest::prelude::*;

const DIMENSION: u32 = 3;

/// The golden entries of the catalog's stream in the versions that are written.
const LIBRARY_ENTRIES: [&str; 7] = [
    "documents-put-3.bin",
    "documents-put-4.bin",
    "field-changed-1.bin",
    "documents-deleted-3.bin",
    "batch-started-1.bin",
    "batch-finished-1.bin",
    "queries-matched-1.bin",
];
const CATALOG_ENTRIES: [&str; 16] = [
    "library-created-3.bin",
    "companion-created-3.bin",
    "library-updated-1.bin",
    "library-deleted-1.bin",
    "library-deleted-2.bin",
    "index-changed-1.bin",
    "index-built-1.bin",
    "purged-1.bin",
    "generation-created-4.bin",
    "generation-prepared-1.bin",
    "generation-activated-1.bin",
    "generation-discarded-1.bin",
    "library-deleted-3.bin",
    "library-created-5.bin",
    "generation-created-5.bin",
    "library-updated-2.bin",
];

const SNAPSHOTS: [&str; 5] = [
    "catalog-5.bin",
    "catalog-generations-5.bin",
    "catalog-generations-alone-5.bin",
    "catalog-6.bin",
    "catalog-generations-6.bin",
];

const WORK_ENTRIES: [&str; 13] = [
    "job-submitted-1.bin",
    "job-started-1.bin",
    "job-progressed-1.bin",
    "job-retried-1.bin",
    "job-cancel-requested-1.bin",
    "job-finished-1.bin",
    "jobs-forgotten-1.bin",
    "webhook-put-1.bin",
    "webhook-deleted-1.bin",
    "usage-recorded-1.bin",
    "budget-set-1.bin",
    "budget-crossed-1.bin",
    "budget-deleted-1.bin",
];

fn golden(name: &str) -> Vec<u8> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    std::fs::read(dir.join(name)).unwrap()
}

/// A change of some bytes.
#[derive(Debug, Clone)]
enum Change {
    Set(prop::sample::Index, u8),
    /// A little-endian number, such as a length, replaced.
    Number(prop::sample::Index, u32),
    Cut(prop::sample::Index),
    Insert(prop::sample::Index, Vec<u8>),
    /// A part written over another.
    Copy(prop::sample::Index, prop::sample::Index, u8),
}

fn changes() -> impl Strategy<Value = Vec<Change>> {
    let at = any::<prop::sample::Index>;
    let number = prop_oneof![0_u32..70, Just(u32::MAX), Just(1 << 31), any::<u32>()];
    let noise = prop::collection::vec(any::<u8>(), 1..40);
    let change = prop_oneof![
        4 => (at(), any::<u8>()).prop_map(|(at, byte)| Change::Set(at, byte)),
        4 => (at(), number).prop_map(|(at, number)| Change::Number(at, number)),
        1 => at().prop_map(Change::Cut),
        1 => (at(), noise).prop_map(|(at, noise)| Change::Insert(at, noise)),
        1 => (at(), at(), any::<u8>()).prop_map(|(from, to, len)| Change::Copy(from, to, len)),
    ];
    prop::collection::vec(change, 1..4)
}

fn changed(mut bytes: Vec<u8>, changes: &[Change]) -> Vec<u8> {
    for change in changes {
        let length = bytes.len();
        if length == 0 {
            return bytes;
        }
        let overwrite = |bytes: &mut Vec<u8>, at: usize, new: &[u8]| {
            for (place, byte) in bytes[at..].iter_mut().zip(new) {
                *place = *byte;
            }
        };
        match change {
            Change::Set(at, byte) => bytes[at.index(length)] = *byte,
            Change::Number(at, number) => {
                overwrite(&mut bytes, at.index(length), &number.to_le_bytes());
            }
            Change::Cut(at) => bytes.truncate(at.index(length)),
            Change::Insert(at, noise) => {
                let at = at.index(length);
                bytes.splice(at..at, noise.iter().copied());
            }
            Change::Copy(from, to, count) => {
                let from = from.index(length);
                let part = bytes[from..length.min(from + usize::from(*count))].to_vec();
                overwrite(&mut bytes, to.index(length), &part);
            }
        }
    }
    bytes
}

/// With the CRC-32C of everything behind it.
fn sealed(mut body: Vec<u8>) -> Vec<u8> {
    body.extend_from_slice(&crc32c::crc32c(&body).to_le_bytes());
    body
}

fn unsealed(mut bytes: Vec<u8>) -> Vec<u8> {
    bytes.truncate(bytes.len() - 4);
    bytes
}

fn field(bytes: &[u8], at: usize) -> usize {
    let mut field = [0; 8];
    field.copy_from_slice(&bytes[at..at + 8]);
    usize::try_from(u64::from_le_bytes(field)).unwrap()
}

/// Makes every checksum of a segment file right for its bytes, where its shape allows it.
fn resealed(bytes: Vec<u8>) -> Vec<u8> {
    resealed_at(bytes, 64)
}

/// As `resealed`, of a file whose header has the place of the checksums there.
fn resealed_at(mut bytes: Vec<u8>, place: usize) -> Vec<u8> {
    if bytes.len() < 256 {
        return bytes;
    }
    let (checksums, end) = (field(&bytes, place), bytes.len());
    if (256..=end).contains(&checksums) {
        let blocks: Vec<u8> = bytes[256..checksums]
            .chunks(64 << 10)
            .flat_map(|block| crc32c::crc32c(block).to_le_bytes())
            .collect();
        let room = blocks.len().min(end - checksums);
        bytes[checksums..checksums + room].copy_from_slice(&blocks[..room]);
        let table = crc32c::crc32c(&bytes[checksums..]);
        bytes[248..252].copy_from_slice(&table.to_le_bytes());
    }
    let header = crc32c::crc32c(&bytes[..252]);
    bytes[252..256].copy_from_slice(&header.to_le_bytes());
    bytes
}

/// A file held in memory, aligned as a mapping is.
#[derive(Debug)]
struct Held(Vec<u64>, usize);

impl Held {
    fn new(bytes: &[u8]) -> Arc<Self> {
        let word = |chunk: &[u8]| {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            u64::from_ne_bytes(word)
        };
        Arc::new(Self(bytes.chunks(8).map(word).collect(), bytes.len()))
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

fn document(n: u8, chunks: u8) -> DocumentRecord {
    let chunk = |part: u8| Chunk {
        id: ChunkId::from_bytes([part; 16]),
        text: format!("passage {part}"),
        embedding: vec![f32::from(n) + 1.0, -0.5, f32::from(part)],
        created_at: Timestamp::from_micros(3),
        page_number: (part == 1).then_some(12),
        custom: Custom::new(),
    };
    let document = Document {
        id: DocumentId::from_bytes([n; 16]),
        metadata: DocumentMetadata {
            title: format!("document {n}"),
            author: None,
            document_type: "text".into(),
            source_url: None,
            tags: vec!["one".into()],
            custom: Custom::new(),
            created_at: Timestamp::from_micros(2),
        },
        chunks: (0..chunks).map(chunk).collect(),
    };
    DocumentRecord::new(&document, DIMENSION).unwrap()
}

/// A library of one file with some dead rows: its manifest's and its segment's bytes.
fn library() -> (Vec<u8>, Vec<u8>) {
    let at = Timestamp::from_micros(9);
    let documents = (0..6).map(|n| document(n, n % 3 + 1)).collect();
    let view = View::empty(DIMENSION);
    let entry = view.decide(Command::Put(documents, None), at, None).unwrap().entry.unwrap();
    let view = view.apply(Seq::new(4), &entry).unwrap();
    let merge = view.plan_merge(view.memory_segments(), Seq::START).unwrap();
    let mut bytes = Vec::new();
    let summary = merge.write(&mut bytes).unwrap();
    bytes[..summary.header.len()].copy_from_slice(&summary.header);
    let file = FileSegment::open(1, Held::new(&bytes)).unwrap();
    let view = view.with_merge(&merge, Some(Arc::new(Segment::File(file)))).unwrap();
    let gone = Command::Delete(vec![DocumentId::from_bytes([2; 16])], None);
    let entry = view.decide(gone, at, None).unwrap().entry.unwrap();
    let view = view.apply(Seq::new(7), &entry).unwrap();
    assert_eq!(view.verify(), Ok(()));
    let manifest = Manifest::of(&view, LibraryId::from_bytes([1; 16]), 2).unwrap();
    (manifest.write(), bytes)
}

/// A place for postings that counts what is done with it.
#[derive(Debug, Default)]
struct Place {
    kept: Mutex<Option<Vec<u8>>>,
    keeps: AtomicU32,
    refusals: AtomicU32,
}

impl Place {
    fn with(kept: Vec<u8>) -> Arc<Self> {
        Arc::new(Self { kept: Mutex::new(Some(kept)), ..Self::default() })
    }

    fn counts(&self) -> (u32, u32) {
        (self.keeps.load(Ordering::Relaxed), self.refusals.load(Ordering::Relaxed))
    }
}

impl PostingsPlace for Place {
    fn read(&self) -> Option<Vec<u8>> {
        self.kept.lock().unwrap().clone()
    }

    fn refuse(&self, _damage: &Damage) {
        self.refusals.fetch_add(1, Ordering::Relaxed);
    }

    fn keep(&self, _bytes: u64, write: &dyn Fn(&mut dyn Write) -> io::Result<BesideSummary>) {
        let mut bytes = Vec::new();
        let summary = write(&mut bytes).unwrap();
        assert_eq!(bytes.len() as u64, summary.bytes);
        bytes[..summary.header.len()].copy_from_slice(&summary.header);
        *self.kept.lock().unwrap() = Some(bytes);
        self.keeps.fetch_add(1, Ordering::Relaxed);
    }
}

/// The library, opened anew, with postings kept at this place, and what is found there by words.
fn by_words(place: &Arc<Place>, language: Language) -> Vec<(u32, String)> {
    let (manifest, segment) = library();
    let file = FileSegment::open(1, Held::new(&segment)).unwrap();
    let view = Manifest::read(&manifest).unwrap().open(vec![file.with_postings_at(place.clone())]);
    let query = KeywordQuery::read("passage 1 d*", Operator::Or, language).unwrap();
    let wanted = Keywords { query: &query, k: 20, bm25: Bm25::default(), among: None };
    let (found, _effort) = view.unwrap().keywords(wanted, &Sequential).unwrap();
    found.iter().map(|found| (found.score.to_bits(), format!("{:?}", found.place))).collect()
}

/// Reads all that can be read of a view; damage is an answer.
fn read_all(view: &View) {
    let query = [0.6, 0.0, 0.8];
    let wanted = Nearest::new(&query, 5);
    if view.dimension() == DIMENSION
        && let Ok((found, _effort)) = view.nearest(wanted, &Sequential)
    {
        for found in found {
            view.chunk_of(found.place, true).map(drop).unwrap_or_default();
        }
    }
    let query =
        KeywordQuery::read("document passage +d* -5", Operator::Or, Language::English).unwrap();
    let wanted = Keywords { query: &query, k: 5, bm25: Bm25::default(), among: None };
    if let Ok((found, _effort)) = view.keywords(wanted, &Sequential) {
        for found in found {
            view.chunk_of(found.place, false).map(drop).unwrap_or_default();
        }
    }
    view.documents_after(None, 100, true).map(drop).unwrap_or_default();
    for n in 0..8 {
        view.document(DocumentId::from_bytes([n; 16]), true).map(drop).unwrap_or_default();
    }
    view.verify().unwrap_or_default();
    for field in view.fields().values() {
        read_field(field);
    }
    for n in 0..8 {
        view.field_vectors(DocumentId::from_bytes([n; 16])).map(drop).unwrap_or_default();
    }
}

/// Searches what there is in a field by every kind of query; damage is an answer.
fn read_field(field: &Field) {
    let numbers = vec![0.5; field.spec().dimension as usize];
    let sparse = SparseValue { indices: vec![3, 9], values: vec![0.5, 1.0] }.query().unwrap();
    let queries = match field.spec().kind {
        VectorKind::Dense => FieldQuery::Dense(&numbers),
        VectorKind::Late => FieldQuery::Late(&numbers),
        VectorKind::Sparse => FieldQuery::Sparse(&sparse),
    };
    let wanted = NearestInField {
        query: queries,
        metric: field.spec().metric,
        index: IndexSpec::default(),
        tuning: Tuning::default(),
        k: 3,
        threshold: None,
        among: None,
    };
    if let Ok((found, _effort)) = field.view().nearest_in_field(wanted, &Sequential) {
        for found in found {
            field.view().passage_of(found.place, true).map(drop).unwrap_or_default();
        }
    }
}

fn library_entry(bytes: Vec<u8>) {
    let bytes = Bytes::from(bytes);
    let Ok(entry) = LibraryEntry::decode(&bytes) else { return };
    // The outline is a second reader of the same bytes; it reads the bodies, too.
    LibraryOutline::read(std::slice::from_ref(&bytes)).map(drop).unwrap_or_default();
    if entry.dimension().is_some() && (bytes[0], bytes[1]) != (17, 1) && bytes[1] >= 3 {
        assert_eq!(entry.encode().concat(), bytes, "it is written back as it was");
    }
    if entry.dimension().is_none_or(|dimension| dimension == DIMENSION) {
        read_all(&View::empty(DIMENSION).apply(Seq::new(3), &entry).unwrap());
    }
}

fn catalog_entry(bytes: &[u8]) {
    if let Ok(entry) = CatalogEntry::decode(bytes) {
        let written = entry.encode();
        if written[1] == bytes[1] {
            assert_eq!(written, bytes, "it is written back as it was");
        } else {
            // In the earliest version that says all of it.
            assert!(written[1] < bytes[1]);
            assert_eq!(CatalogEntry::decode(&written).as_ref(), Ok(&entry));
        }
        assert!(Catalog::default().apply(Seq::new(1), &entry).len() <= 1);
    }
}

fn work_entry(bytes: &[u8]) {
    if let Ok(entry) = WorkEntry::decode(bytes) {
        assert_eq!(entry.encode(), bytes, "it is written back as it was");
        Work::default().apply(Seq::new(1), &entry);
    }
}

/// A snapshot's bytes, written again.
fn written(snapshot: &Snapshot) -> Vec<u8> {
    snapshot.catalog.write(&snapshot.work, |id| snapshot.checkpointed[&id])
}

fn manifest(bytes: &[u8]) {
    if let Ok(manifest) = Manifest::read(bytes) {
        assert_eq!(Manifest::read(&manifest.write()).unwrap(), manifest);
        manifest.contradiction();
    }
}

fn segment(bytes: &[u8]) {
    if let Ok(segment) = FileSegment::open(1, Held::new(bytes)) {
        assert!(segment.verify(20).len() <= 20);
    }
}

/// A view of one file that says of itself what it is; a manifest made to fit it.
fn open_together(manifest_bytes: &[u8], segment_bytes: &[u8]) {
    let Ok(manifest) = Manifest::read(manifest_bytes) else { return };
    let files: Vec<FileSegment> = (manifest.all_segments())
        .filter_map(|listed| FileSegment::open(listed.number, Held::new(segment_bytes)).ok())
        .collect();
    if files.len() == manifest.all_segments().count()
        && let Ok(view) = manifest.open(files)
    {
        read_all(&view);
    }
}

/// The manifest with the header checksum that the segment has.
fn refitted(manifest: &[u8], before: &[u8], after: &[u8]) -> Vec<u8> {
    if after.len() < 256 {
        return manifest.to_vec();
    }
    let place: Range<usize> = {
        let at = manifest.windows(4).position(|window| window == &before[252..256]).unwrap();
        at..at + 4
    };
    let mut body = unsealed(manifest.to_vec());
    body[place].copy_from_slice(&after[252..256]);
    sealed(body)
}

#[test]
fn what_was_written_decodes_and_is_written_back_as_it_was() {
    for name in LIBRARY_ENTRIES {
        let bytes = Bytes::from(golden(name));
        assert_eq!(LibraryEntry::decode(&bytes).unwrap().encode().concat(), bytes);
    }
    for name in CATALOG_ENTRIES {
        let bytes = golden(name);
        assert_eq!(CatalogEntry::decode(&bytes).unwrap().encode(), bytes);
    }
    for name in WORK_ENTRIES {
        let bytes = golden(name);
        assert_eq!(WorkEntry::decode(&bytes).unwrap().encode(), bytes);
    }
    for name in SNAPSHOTS {
        let bytes = golden(name);
        assert_eq!(written(&Snapshot::read(&bytes).unwrap()), bytes);
    }
    let (bytes, file) = library();
    assert_eq!(Manifest::read(&bytes).unwrap().write(), bytes);
    assert_eq!(FileSegment::open(1, Held::new(&file)).unwrap().verify(9), []);
    assert_eq!(resealed(file.clone()), file);
    open_together(&bytes, &file);
}

#[test]
fn a_changed_byte_behind_right_checksums_is_refused_or_verified_as_wrong() {
    let (_, good) = library();
    let (documents, rows) = (6, 12);
    let [norms, records, ids, bodies, checksums] = [32, 40, 48, 56, 64].map(|at| field(&good, at));
    let mut content: Vec<usize> = (256..256 + rows * DIMENSION as usize * 4).collect();
    content.extend(norms..norms + rows * 4);
    // The last field of a document but its digest is a zero that nobody reads.
    let is_read = |at: &usize| !(44..48).contains(&((at - records) % 64));
    content.extend((records..records + documents * 64).filter(is_read));
    content.extend(ids..ids + documents * 4);
    let last = records + (documents - 1) * 64;
    let bodies_end = field(&good, last + 32) + field(&good, last + 40);
    assert!(bodies < bodies_end && bodies_end <= checksums);
    content.extend(bodies..bodies_end);
    for at in content {
        let mut bytes = good.clone();
        bytes[at] ^= 1;
        let opened = FileSegment::open(1, Held::new(&resealed(bytes)));
        assert!(opened.is_err() || !opened.unwrap().verify(9).is_empty(), "{at}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    #[test]
    fn random_bytes_are_refused_and_nothing_panics(
        bytes in prop::collection::vec(any::<u8>(), 0..600),
        kind in prop::sample::select(vec![1_u8, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21]),
        version in 1_u8..6,
    ) {
        let with_kind: Vec<u8> = [kind, version].into_iter().chain(bytes.iter().copied()).collect();
        for bytes in [bytes, with_kind] {
            library_entry(bytes.clone());
            catalog_entry(&bytes);
            work_entry(&bytes);
            manifest(&bytes);
            manifest(&sealed(bytes.clone()));
            segment(&bytes);
            segment(&resealed(bytes.clone()));
            prop_assert!(Snapshot::read(&bytes).is_err());
            Snapshot::read(&sealed(bytes)).map(drop).unwrap_or_default();
        }
    }

    #[test]
    fn changed_entries_are_refused_or_applied(changes in changes()) {
        for name in LIBRARY_ENTRIES.into_iter().chain(["documents-put-1.bin", "documents-put-2.bin", "documents-deleted-1.bin", "documents-deleted-2.bin"]) {
            library_entry(changed(golden(name), &changes));
        }
        for name in CATALOG_ENTRIES {
            catalog_entry(&changed(golden(name), &changes));
        }
        for name in WORK_ENTRIES {
            work_entry(&changed(golden(name), &changes));
        }
    }

    #[test]
    fn changed_snapshots_are_refused_or_read(changes in changes()) {
        manifest(&sealed(changed(unsealed(golden("manifest-3.bin")), &changes)));
        for name in ["catalog-5.bin", "catalog-generations-6.bin"] {
            let bytes = changed(unsealed(golden(name)), &changes);
            if let Ok(snapshot) = Snapshot::read(&sealed(bytes)) {
                prop_assert_eq!(Snapshot::read(&written(&snapshot)).unwrap(), snapshot);
            }
        }
    }

    #[test]
    fn changed_postings_are_refused_or_read(changes in changes()) {
        let place = Arc::new(Place::default());
        by_words(&place, Language::English);
        let bytes = changed(place.read().unwrap(), &changes);
        by_words(&Place::with(resealed_at(bytes, 32)), Language::English);
    }

    #[test]
    fn changed_libraries_are_refused_or_read(
        of_manifest in changes(),
        of_segment in changes(),
        both in 0_u8..3,
    ) {
        let (good_manifest, good_segment) = library();
        let mut bytes = good_segment.clone();
        if both != 0 {
            bytes = resealed(changed(bytes, &of_segment));
            segment(&bytes);
        }
        let mut listed = refitted(&good_manifest, &good_segment, &bytes);
        if both != 1 {
            listed = sealed(changed(unsealed(listed), &of_manifest));
            manifest(&listed);
        }
        open_together(&listed, &bytes);
    }
}

#[test]
fn postings_are_made_once_and_read_by_who_opens_their_segment_next() {
    let place = Arc::new(Place::default());
    let found = by_words(&place, Language::English);
    assert!(found.len() > 5, "{found:?}");
    assert_eq!(place.counts(), (1, 0));
    for _opened in 0..2 {
        assert_eq!(by_words(&place, Language::English), found);
        assert_eq!(place.counts(), (1, 0), "they are read");
    }
    by_words(&place, Language::German);
    assert_eq!(place.counts(), (2, 0), "others for another language");
    assert_eq!(by_words(&place, Language::English), found);
    assert_eq!(place.counts(), (3, 0), "those of one language are kept");
}

#[test]
fn postings_with_any_flipped_byte_are_made_again() {
    let place = Arc::new(Place::default());
    let found = by_words(&place, Language::English);
    let whole = place.read().unwrap();
    for at in 0..whole.len() {
        let mut bytes = whole.clone();
        bytes[at] ^= 1 << (at % 8);
        let place = Place::with(bytes);
        assert_eq!(by_words(&place, Language::English), found, "byte {at}");
        assert_eq!(place.counts(), (1, 1), "byte {at}");
        assert_eq!(place.read().unwrap(), whole, "byte {at}");
    }
    for length in 0..whole.len() {
        let place = Place::with(whole[..length].to_vec());
        assert_eq!(by_words(&place, Language::English), found, "{length} bytes");
        assert_eq!(place.counts(), (1, 1), "{length} bytes");
    }
}

#[test]
fn postings_of_another_segment_are_not_used() {
    let place = Arc::new(Place::default());
    let found = by_words(&place, Language::English);
    let mut bytes = place.read().unwrap();
    bytes[12] ^= 1;
    let place = Place::with(resealed_at(bytes, 32));
    assert_eq!(by_words(&place, Language::English), found);
    assert_eq!(place.counts(), (1, 0), "no damage, but none of ours");
}

#[test]
fn an_index_file_of_an_earlier_version_is_as_good_as_none_and_no_damage() {
    let (_manifest, segment) = library();
    let file = FileSegment::open(1, Held::new(&segment)).unwrap();
    let segment = Segment::File(FileSegment::open(1, Held::new(&segment)).unwrap());
    let structure = Structure::new("hnsw", &[]).unwrap();
    let spec = IndexSpec { structure, ..IndexSpec::default() };
    let index = IndexFile::build(&segment, DIMENSION, spec, Metric::Cosine, &Sequential);
    let mut bytes = Vec::new();
    let index = index.unwrap().unwrap();
    let summary = IndexFile::write(&index, &file, Metric::Cosine, &mut bytes).unwrap();
    bytes[..summary.header.len()].copy_from_slice(&summary.header);
    let mut of_version = |version: u32| {
        bytes[8..12].copy_from_slice(&version.to_le_bytes());
        let end = summary.header.len() - 4;
        let crc = crc32c::crc32c(&bytes[..end]);
        bytes[end..end + 4].copy_from_slice(&crc.to_le_bytes());
        let held = Held::new(&bytes);
        let read = IndexFile::read(held.bytes(), "1.idx", &file, Metric::Cosine);
        let state = IndexFile::verify(held.bytes(), "1.idx", &file);
        (read.map(|index| index.is_some()).ok(), state.ok())
    };
    assert_eq!(of_version(2), (Some(true), Some(BesideState::Whole)));
    assert_eq!(of_version(1), (Some(false), Some(BesideState::Earlier)));
    for unknown in [0, 3, u32::MAX] {
        assert_eq!(of_version(unknown), (None, None), "{unknown}");
    }
}
