//! One corpus of cases, run against every structure, metric and quantisation.

mod died;
mod huge;
mod narrow;
mod replaced;
mod sketched;

use proptest::collection::vec;
use proptest::prelude::*;

use super::{Request, SegmentIndex, Tuning};
use crate::{
    AllRows, Allowed, Executor, IndexSpec, Metric, Quantization, RowBlock, RowId, Scorer,
    SectionReader, SectionWriter, Sequential, Structure, TopK, VectorScorer, Vectors, inverse_norm,
    normalized,
};

/// Every structure with every quantisation, at settings that small corpora can be told apart by.
fn specs() -> Vec<IndexSpec> {
    let quantizations = [
        Quantization::new("none", &[]),
        Quantization::new("scalar", &[("bits", 8)]),
        Quantization::new("hybrid", &[("bits", 8)]),
        Quantization::new("hybrid", &[("bits", 4)]),
        Quantization::new("binary", &[]),
        Quantization::new("product", &[]),
    ];
    let structures = Structure::TYPES.map(|name| Structure::new(name, &[]));
    let mut specs = Vec::new();
    for structure in structures {
        for quantization in &quantizations {
            let (structure, quantization) =
                (structure.clone().unwrap(), quantization.clone().unwrap());
            specs.extend(IndexSpec::new(structure, quantization));
        }
    }
    specs
}

struct Corpus {
    dims: usize,
    vectors: Vec<f32>,
    inverse_norms: Vec<f32>,
}

impl Corpus {
    fn new(dims: usize, vectors: Vec<f32>) -> Self {
        let inverse_norms = vectors.chunks_exact(dims).map(|v| inverse_norm(v).unwrap()).collect();
        Self { dims, vectors, inverse_norms }
    }

    fn block(&self) -> RowBlock<'_> {
        RowBlock::new(self.dims, &self.vectors, &self.inverse_norms)
    }

    /// Points around `clusters` centres of unit length, each off by about `spread`.
    fn clustered(seed: u64, rows: usize, dims: usize, clusters: usize, spread: f32) -> Self {
        let centres = numbers(seed, clusters * dims);
        let noise = numbers(seed ^ 1, rows * dims);
        let vectors = (0..rows * dims).map(|at| {
            let (row, dim) = (at / dims, at % dims);
            centres[row * 7919 % clusters * dims + dim] + spread * noise[at]
        });
        Self::new(dims, vectors.collect())
    }
}

/// Numbers in `-1..1` without a zero vector, the same for a seed.
fn numbers(seed: u64, count: usize) -> Vec<f32> {
    let mut state = seed | 1;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963);
        (state >> 40) as f32 / (1_u64 << 23) as f32 - 1.0 + 1e-3
    };
    (0..count).map(|_| next()).collect()
}

/// The rows whose hash is below a share, of a thousand.
struct Share(u32);

impl Allowed for Share {
    fn allows(&self, row: RowId) -> bool {
        row.0.wrapping_mul(2_654_435_769) >> 16 < self.0 * 65_536 / 1000
    }
}

fn query_of(metric: Metric, vector: &[f32]) -> Vec<f32> {
    if metric == Metric::Cosine { normalized(vector).unwrap().0 } else { vector.to_vec() }
}

type Found = Vec<(f32, RowId)>;

/// How many rows a search asks for, and how hard it tries.
#[derive(Copy, Clone)]
struct Asked {
    k: usize,
    tuning: Tuning,
}

fn search(
    index: &SegmentIndex,
    rows: &RowBlock<'_>,
    query: &[f32],
    Asked { k, tuning }: Asked,
    allowed: &dyn Allowed,
) -> Found {
    let allowed_rows = (0..rows.rows()).filter(|row| allowed.allows(RowId(*row))).count();
    let request = Request {
        vectors: rows,
        rows: (0, rows.rows()),
        query,
        k,
        spec: index.spec(),
        tuning,
        allowed,
        allowed_rows: u32::try_from(allowed_rows).unwrap(),
    };
    let mut top = TopK::new(k);
    index.search(request, &mut top, |row| row);
    top.into_sorted()
}

fn exact(
    metric: Metric,
    rows: &RowBlock<'_>,
    query: &[f32],
    k: usize,
    allowed: &dyn Allowed,
) -> Found {
    let scorer = VectorScorer::new(metric, query, rows);
    let mut top = TopK::new(k);
    for row in (0..rows.rows()).map(RowId).filter(|row| allowed.allows(*row)) {
        let mut distance = [f32::NAN];
        scorer.score(&[row], &mut distance);
        top.push(distance[0], row);
    }
    top.into_sorted()
}

fn bits(found: &Found) -> Vec<(u32, RowId)> {
    found.iter().map(|(distance, row)| (distance.to_bits(), *row)).collect()
}

/// Checks whatever holds for every structure: I1, I2, as many rows as there are, each with its
/// true distance, and exact answers where they are asked for.
fn check_found(
    index: &SegmentIndex,
    rows: &RowBlock<'_>,
    query: &[f32],
    asked: Asked,
    allowed: &dyn Allowed,
) {
    let metric = index.metric();
    let name = format!("{} by {metric:?}", index.spec());
    let k = asked.k;
    let expect = exact(metric, rows, query, k, allowed);
    let found = search(index, rows, query, asked, allowed);
    assert_eq!(found.len(), expect.len(), "{name}: as many as there are, up to k");
    let scorer = VectorScorer::new(metric, query, rows);
    for ((distance, row), best) in found.iter().zip(&expect) {
        assert!(allowed.allows(*row), "I1: {name}");
        let mut own = [f32::NAN];
        scorer.score(&[*row], &mut own);
        assert_eq!((own[0] + 0.0).to_bits(), distance.to_bits(), "{name}: the row's own distance");
        assert!(*distance >= best.0, "{name}: nothing is nearer than the nearest");
    }
    assert!(
        found.is_sorted_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)).is_lt()),
        "I2: {name}"
    );
    if index.spec().is_exact() {
        assert_eq!(bits(&found), bits(&expect), "I3: {name}: no row that is near is ruled out");
    }
    let exactly = Tuning { exact: true, ..Tuning::default() };
    assert_eq!(
        bits(&search(index, rows, query, Asked { k, tuning: exactly }, allowed)),
        bits(&expect),
        "{name}"
    );
}

/// Rows of every kind: spread, equal, collinear, one.
fn rows_of(kind: u8, seed: u64, dims: usize, count: usize) -> Vec<f32> {
    let spread = numbers(seed, dims * count);
    match kind {
        0 => spread,
        // Three different vectors at most.
        1 => spread[..dims * count.min(3)].iter().copied().cycle().take(dims * count).collect(),
        // On one line through the origin, both ways.
        2 => (0..count)
            .flat_map(|row| {
                let factor = row as f32 - count as f32 / 2.0 + 0.25;
                spread[..dims].iter().map(move |value| value * factor).collect::<Vec<_>>()
            })
            .collect(),
        // Tiny and huge.
        _ => spread
            .iter()
            .enumerate()
            .map(|(at, v)| v * 10.0_f32.powi(i32::try_from(at / dims % 9).unwrap() * 2 - 8))
            .collect(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn i1_i2_every_structure_gives_as_many_true_rows_as_there_are(
        (dims, count) in prop_oneof![
            (1_usize..40, 1_usize..700),
            (Just(384_usize), 1_usize..120),
            (1_usize..4097, 1_usize..12),
        ],
        kind in 0_u8..4,
        metric in prop::sample::select(Metric::ALL.to_vec()),
        spec in prop::sample::select(specs()),
        seed in any::<u64>(),
        k in 1_usize..60,
        share in prop_oneof![Just(1000_u32), Just(0), 1_u32..1000],
        // Small enough that a walk is chosen over a scan, or as usual.
        ef in prop_oneof![Just(None), (1_u32..20).prop_map(Some)],
    ) {
        let k = if ef.is_some() { k % 8 + 1 } else { k };
        let asked = Asked { k, tuning: Tuning { ef_search: ef, nprobe: ef, ..Tuning::default() } };
        let corpus = Corpus::new(dims, rows_of(kind, seed, dims, count));
        let rows = corpus.block();
        let index = SegmentIndex::build(spec, metric, &rows, &Sequential);
        let query = query_of(metric, &numbers(seed ^ 0x5eed, dims));
        check_found(&index, &rows, &query, asked, &Share(share));
        check_found(&index, &rows, &query, asked, &AllRows);
        // Of itself: the row or one that is as near.
        let own = query_of(metric, &corpus.vectors[..dims]);
        check_found(&index, &rows, &own, asked, &AllRows);
    }

    #[test]
    fn i5_what_is_written_is_read_and_what_is_damaged_is_an_error_or_searches_within_the_rows(
        spec in prop::sample::select(specs()),
        metric in prop::sample::select(Metric::ALL.to_vec()),
        seed in any::<u64>(),
        changes in vec((any::<prop::sample::Index>(), 1_u8..=255), 1..4),
    ) {
        let corpus = Corpus::clustered(seed, 400, 12, 9, 0.3);
        let rows = corpus.block();
        let index = SegmentIndex::build(spec, metric, &rows, &Sequential);
        let bytes = written(&index);
        let read = SegmentIndex::read(&mut reader(&bytes), spec, metric, 12, 400).unwrap();
        let again = written(&read);
        prop_assert_eq!(again.bytes(), bytes.bytes());
        let query = query_of(metric, &numbers(seed, 12));
        for allowed in [&AllRows as &dyn Allowed, &Share(700)] {
            let found = |index| search(index, &rows, &query, Asked { k: 3, tuning: Tuning::default() }, allowed);
            prop_assert_eq!(bits(&found(&read)), bits(&found(&index)));
        }
        let mut damaged = bytes;
        if !damaged.bytes().is_empty() {
            for (place, change) in changes {
                let place = place.index(damaged.bytes().len());
                damaged.bytes_mut()[place] ^= change;
            }
        }
        if let Ok(read) = SegmentIndex::read(&mut reader(&damaged), spec, metric, 12, 400) {
            let asked = Asked { k: 3, tuning: Tuning::default() };
            search(&read, &rows, &query, asked, &AllRows);
            search(&read, &rows, &query, asked, &Share(700));
        }
    }
}

/// Bytes at an address that is aligned as a file's mapping is.
#[derive(Clone)]
struct Aligned(Vec<u64>, usize);

impl Aligned {
    fn bytes(&self) -> &[u8] {
        &bytemuck::cast_slice(&self.0)[..self.1]
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        &mut bytemuck::cast_slice_mut(&mut self.0)[..self.1]
    }
}

fn written(index: &SegmentIndex) -> Aligned {
    let mut bytes = Vec::new();
    index.write(&mut SectionWriter::new(&mut bytes)).unwrap();
    let mut aligned = Aligned(vec![0; bytes.len().div_ceil(8)], bytes.len());
    aligned.bytes_mut().copy_from_slice(&bytes);
    aligned
}

fn reader(bytes: &Aligned) -> SectionReader<'_> {
    SectionReader::new(bytes.bytes())
}

/// Runs tasks on two threads, the odd ones first.
struct Two;

impl Executor for Two {
    fn width(&self) -> usize {
        2
    }

    fn run(&self, tasks: usize, task: &(dyn Fn(usize) + Sync)) {
        std::thread::scope(|scope| {
            scope.spawn(|| (0..tasks).rev().filter(|n| n % 2 == 1).for_each(task));
            (0..tasks).filter(|n| n % 2 == 0).for_each(task);
        });
    }
}

#[test]
fn i4_a_build_has_the_same_bytes_on_any_number_of_threads() {
    let corpus = Corpus::clustered(3, 2500, 24, 40, 0.4);
    for spec in specs() {
        for metric in Metric::ALL {
            let [one, again, two] =
                [&Sequential as &dyn Executor, &Sequential, &Two].map(|threads| {
                    written(&SegmentIndex::build(spec, metric, &corpus.block(), threads))
                });
            assert!(one.bytes() == again.bytes(), "{spec}, {metric:?}: twice on one thread");
            assert!(one.bytes() == two.bytes(), "{spec}, {metric:?}: on two threads");
        }
    }
}

/// Of the true `k` nearest, how many are found, over `queries` queries near to rows.
fn recall(
    index: &SegmentIndex,
    corpus: &Corpus,
    ef: u32,
    allowed: impl Fn(usize) -> Box<dyn Allowed>,
) -> f64 {
    let (k, queries, metric) = (10, 60, index.metric());
    let rows = corpus.block();
    let tuning = Tuning { ef_search: Some(ef), ..Tuning::default() };
    let mut hits = 0;
    let mut wanted = 0;
    for n in 0..queries {
        let near = rows.row(RowId(u32::try_from(n * 97 % rows.rows() as usize).unwrap())).0;
        let off = numbers(n as u64 + 77, corpus.dims);
        let vector: Vec<f32> = near.iter().zip(off).map(|(a, b)| a + 0.2 * b).collect();
        let query = query_of(metric, &vector);
        let allowed = allowed(n);
        let expect = exact(metric, &rows, &query, k, &*allowed);
        let found = search(index, &rows, &query, Asked { k, tuning }, &*allowed);
        assert_eq!(found.len(), expect.len(), "never fewer than there are");
        let farthest = expect.last().map_or(f32::NEG_INFINITY, |last| last.0);
        // One as near as the farthest of the nearest is as good as that.
        hits += found.iter().filter(|(distance, _)| *distance <= farthest).count();
        wanted += expect.len();
    }
    f64::from(u32::try_from(hits).unwrap()) / f64::from(u32::try_from(wanted.max(1)).unwrap())
}

#[test]
fn i3_a_walk_finds_nearly_all_of_the_nearest() {
    let corpus = Corpus::clustered(11, 8000, 32, 60, 0.6);
    for spec in specs() {
        for metric in Metric::ALL {
            let index = SegmentIndex::build(spec, metric, &corpus.block(), &Two);
            let found = recall(&index, &corpus, 100, |_| Box::new(AllRows));
            // Hyperplanes know nothing of lengths, which decide the inner product.
            let floor = if metric == Metric::Dot && spec.name() == "lsh" { 0.85 } else { 0.95 };
            assert!(found >= floor, "{spec} by {metric:?}: {found}");
        }
    }
}

/// Rows farther (or nearer) than a bound from a point.
struct Ball {
    inside: bool,
    rows: Vec<bool>,
}

impl Allowed for Ball {
    fn allows(&self, row: RowId) -> bool {
        self.rows.get(row.0 as usize).is_some_and(|within| *within == self.inside)
    }
}

#[test]
fn i3_filters_do_not_cost_recall_however_they_are_correlated() {
    let corpus = Corpus::clustered(13, 12_000, 16, 80, 0.5);
    let structure = Structure::new("hnsw", &[]).unwrap();
    for quantization in ["none", "hybrid", "binary", "product"] {
        let quantization = Quantization::new(quantization, &[]).unwrap();
        let spec = IndexSpec { structure, quantization };
        let index = SegmentIndex::build(spec, Metric::L2, &corpus.block(), &Two);
        for per_mille in [500, 100, 10, 1] {
            let found = recall(&index, &corpus, 80, |_| Box::new(Share(per_mille)));
            assert!(found >= 0.95, "{spec}, {per_mille} of 1000: {found}");
        }
        // Few bits do not tell rows apart that are all about equally far.
        let few = ["binary", "product"].contains(&quantization.strategy());
        let sides = if few { &[true][..] } else { &[true, false] };
        for inside in sides.iter().copied() {
            let found = recall(&index, &corpus, 80, |n| {
                // The query's own neighbourhood, or all but that.
                let at = n * 97 % 12_000;
                let rows = corpus.block();
                let centre = rows.row(RowId(u32::try_from(at).unwrap())).0;
                let scorer = VectorScorer::new(Metric::L2, centre, &rows);
                let mut distances = vec![0.0; 12_000];
                scorer.score_range(RowId(0), &mut distances);
                let mut sorted = distances.clone();
                sorted.sort_by(f32::total_cmp);
                let bound = sorted[1200];
                Box::new(Ball { inside, rows: distances.iter().map(|d| *d <= bound).collect() })
            });
            assert!(found >= 0.95, "{spec}, inside {inside}: {found}");
        }
    }
}

#[test]
fn figures_of_several_structures_are_joined_each_in_its_way() {
    let corpus = Corpus::clustered(17, 3000, 8, 20, 0.4);
    let figures = |name, rows: usize| {
        let inverse_norms = &corpus.inverse_norms[..rows];
        let block = RowBlock::new(8, &corpus.vectors[..rows * 8], inverse_norms);
        let structure = Structure::new(name, &[]).unwrap();
        let spec = IndexSpec { structure, ..IndexSpec::default() };
        SegmentIndex::build(spec, Metric::L2, &block, &Sequential).figures()
    };
    let near = |found: f64, expected: f64| assert!((found - expected).abs() < 1e-6, "{found}");
    for (name, names) in [
        ("kd_tree", &["tree_depth"][..]),
        ("lsh", &["total_buckets", "avg_bucket_size"]),
        ("ivf", &["lists", "min_list_size", "avg_list_size", "max_list_size"]),
        (
            "ivf_pq",
            &["lists", "min_list_size", "avg_list_size", "max_list_size", "compression_ratio"],
        ),
    ] {
        let (one, other) = (figures(name, 3000), figures(name, 1000));
        assert_eq!(one.iter().map(|figure| figure.name).collect::<Vec<_>>(), names);
        for (a, b) in one.iter().zip(&other) {
            let both = a.with(*b).value;
            match a.name {
                "tree_depth" | "max_list_size" => near(both, a.value.max(b.value)),
                "min_list_size" => near(both, a.value.min(b.value)),
                "lists" | "total_buckets" => near(both, a.value + b.value),
                "avg_list_size" => near(both, 4000.0 / one[0].with(other[0]).value),
                "avg_bucket_size" => near(both, 40_000.0 / one[0].with(other[0]).value),
                _ => assert!((a.value.min(b.value)..=a.value.max(b.value)).contains(&both)),
            }
        }
    }
    assert!(figures("brute_force", 1000).is_empty() && figures("hnsw", 1000).is_empty());
}
