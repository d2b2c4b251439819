use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};

use proptest::collection::vec;
use proptest::prelude::*;

use super::{Config, ConfigError, Ivf, ListSizes, Probes, Query, Scratch, Walk, build};
use crate::random::hash;
use crate::{
    AllRows, Allowed, Executor, Metric, RowBlock, RowId, SectionReader, SectionWriter, Sequential,
    TopK, VectorScorer, brute_force, inverse_norm, normalized,
};

/// Vectors as a segment holds them.
struct Corpus {
    metric: Metric,
    dims: usize,
    vectors: Vec<f32>,
    inverse_norms: Vec<f32>,
}

impl Corpus {
    /// Rows around some centers; from row `distinct` on, copies of those before.
    fn new(metric: Metric, dims: usize, rows: usize, distinct: usize, seed: u64) -> Self {
        let mut vectors = Vec::with_capacity(rows * dims);
        for row in 0..rows {
            vectors.extend(clustered(dims, (row % distinct.max(1)) as u64, seed));
        }
        let inverse_norms =
            vectors.chunks_exact(dims).map(|vector| inverse_norm(vector).unwrap()).collect();
        Self { metric, dims, vectors, inverse_norms }
    }

    fn block(&self) -> RowBlock<'_> {
        RowBlock::new(self.dims, &self.vectors, &self.inverse_norms)
    }

    fn rows(&self) -> u32 {
        u32::try_from(self.inverse_norms.len()).unwrap()
    }

    fn query(&self, seed: u64) -> Vec<f32> {
        let query = clustered(self.dims, u64::MAX, seed);
        if self.metric == Metric::Cosine { normalized(&query).unwrap().0 } else { query }
    }

    fn build(&self, config: Config) -> Ivf {
        build(self.metric, &self.block(), config, 7, &Sequential)
    }

    fn exact(&self, query: &[f32], k: usize, allowed: &dyn Allowed) -> Vec<(u32, RowId)> {
        let block = self.block();
        let scorer = VectorScorer::new(self.metric, query, &block);
        let mut top = TopK::new(k);
        brute_force::search(&scorer, 0..self.rows(), allowed, &mut top, |row| row);
        bits(top)
    }

    fn search(
        &self,
        ivf: &Ivf,
        query: &[f32],
        (k, probes): (usize, Probes),
        allowed: &dyn Allowed,
    ) -> (Vec<(u32, RowId)>, Walk) {
        let block = self.block();
        let scorer = VectorScorer::new(self.metric, query, &block);
        let mut top = TopK::new(k);
        let allowed_rows = (0..self.rows()).filter(|row| allowed.allows(RowId(*row))).count();
        let allowed_rows = u32::try_from(allowed_rows).unwrap();
        let query = Query { scorer: &scorer, vector: query, allowed, allowed_rows, probes };
        let walk = ivf.search(query, &mut Scratch::default(), &mut top, |row| row);
        // Where lists say nothing every row is scored.
        let walk = walk.unwrap_or_else(|| {
            brute_force::search(&scorer, 0..self.rows(), allowed, &mut top, |row| row);
            Walk { scored: allowed_rows.into(), ..Walk::default() }
        });
        (bits(top), walk)
    }
}

fn bits(top: TopK<RowId>) -> Vec<(u32, RowId)> {
    top.into_sorted().into_iter().map(|(distance, row)| (distance.to_bits(), row)).collect()
}

/// A vector near to one of 20 centers.
fn clustered(dims: usize, number: u64, seed: u64) -> Vec<f32> {
    let center = hash(seed, number) % 20;
    let around = |seed: u64, place: usize| {
        let numbers = (0..4).map(|part| hash(seed, place as u64 * 4 + part) >> 40);
        numbers.map(|number| number as f32 / (1_u64 << 24) as f32 - 0.5).sum::<f32>()
    };
    let spread = hash(seed, !number);
    (0..dims)
        .map(|place| 0.3 + around(center, place) + 0.5 * around(spread, place) + 1e-4)
        .collect()
}

struct Chosen(BTreeSet<u32>);

impl Allowed for Chosen {
    fn allows(&self, row: RowId) -> bool {
        self.0.contains(&row.0)
    }
}

/// Runs tasks on threads, so that they end in any order.
struct Threads(usize);

impl Executor for Threads {
    fn width(&self) -> usize {
        self.0
    }

    fn run(&self, tasks: usize, task: &(dyn Fn(usize) + Sync)) {
        let next = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _thread in 0..self.0 {
                scope.spawn(|| {
                    loop {
                        let number = next.fetch_add(1, Ordering::Relaxed);
                        if number >= tasks {
                            break;
                        }
                        task(number);
                    }
                });
            }
        });
    }
}

fn written(ivf: &Ivf) -> Vec<u8> {
    let mut out = Vec::new();
    ivf.write(&mut SectionWriter::new(&mut out)).unwrap();
    out
}

/// Bytes at an address that is a multiple of 8, as a reader wants them.
fn aligned(bytes: &[u8]) -> Vec<u64> {
    let mut words = vec![0_u64; bytes.len().div_ceil(8)];
    bytemuck::cast_slice_mut::<u64, u8>(&mut words)[..bytes.len()].copy_from_slice(bytes);
    words
}

fn read(bytes: &[u8], rows: u32) -> Result<Ivf, crate::Malformed> {
    let words = aligned(bytes);
    let mut reader = SectionReader::new(&bytemuck::cast_slice(&words)[..bytes.len()]);
    let ivf = Ivf::read(&mut reader, rows)?;
    reader.end().map(|()| ivf)
}

const ALL: Probes = Probes { nprobe: u32::MAX, rerank: u32::MAX };

#[derive(Debug)]
struct Case {
    metric: Metric,
    dims: usize,
    rows: usize,
    distinct: usize,
    config: Config,
    k: usize,
    /// One row in so many is allowed; 0 for all.
    sparsity: u32,
    seed: u64,
}

impl Case {
    fn corpus(&self) -> Corpus {
        Corpus::new(self.metric, self.dims, self.rows, self.distinct, self.seed)
    }

    fn allowed(&self) -> Chosen {
        let rows = u32::try_from(self.rows).unwrap();
        let chosen = |row: &u32| {
            self.sparsity == 0
                || hash(self.seed, u64::from(*row)).is_multiple_of(u64::from(self.sparsity))
        };
        Chosen((0..rows).filter(chosen).collect())
    }
}

fn case() -> impl Strategy<Value = Case> {
    let shape = prop_oneof![
        (1_usize..40, 0_usize..700),
        (Just(128_usize), 1_usize..400),
        (1_usize..1025, 1_usize..60),
    ];
    let metric = prop_oneof![Just(Metric::Cosine), Just(Metric::Dot), Just(Metric::L2)];
    let clusters = prop_oneof![Just(None), (1_u32..80).prop_map(Some)];
    let config = (clusters, any::<bool>(), proptest::option::of(0_usize..1000));
    (shape, metric, config, 1_usize..700, 1_usize..30, 0_u32..40, any::<u64>()).prop_map(
        |((dims, rows), metric, (n_clusters, use_pq, share), distinct, k, sparsity, seed)| {
            let part = |share: usize| u32::try_from(1 + share * dims / 1000).unwrap();
            let pq_subvectors = share.map(part);
            let config = Config { n_clusters, use_pq, pq_subvectors };
            Case { metric, dims, rows, distinct, config, k, sparsity, seed }
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(120))]
    #[test]
    fn i1_i2_all_lists_scored_in_full_are_every_allowed_row(case in case()) {
        let (corpus, allowed) = (case.corpus(), case.allowed());
        let ivf = corpus.build(case.config);
        let query = corpus.query(case.seed);
        let expect = corpus.exact(&query, case.k, &allowed);
        let (found, walk) = corpus.search(&ivf, &query, (case.k, ALL), &allowed);
        prop_assert_eq!(found, expect);
        prop_assert_eq!(walk.lists, ivf.lists());
        prop_assert_eq!(walk.scored, allowed.0.len() as u64);
        let sizes = ivf.list_sizes();
        prop_assert!(sizes.min <= sizes.max && sizes.avg <= f64::from(sizes.max));
    }

    #[test]
    fn i1_as_many_rows_as_are_asked_for_are_found_if_there_are(
        case in case(),
        nprobe in 0_u32..4,
        rerank in 0_u32..20,
    ) {
        let (corpus, allowed) = (case.corpus(), case.allowed());
        let ivf = corpus.build(case.config);
        let query = corpus.query(case.seed);
        let probes = Probes { nprobe, rerank };
        let (found, walk) = corpus.search(&ivf, &query, (case.k, probes), &allowed);
        prop_assert_eq!(found.len(), case.k.min(allowed.0.len()));
        let exact = corpus.exact(&query, case.rows, &allowed);
        let rows: BTreeSet<RowId> = found.iter().map(|(_, row)| *row).collect();
        prop_assert_eq!(rows.len(), found.len(), "no row twice");
        prop_assert!(found.iter().all(|found| exact.contains(found)), "allowed, its own distance");
        let key = |(distance, row): &(u32, RowId)| (f32::from_bits(*distance), *row);
        prop_assert!(found.is_sorted_by(|a, b| key(a) < key(b)), "in order");
        prop_assert!(walk.scored >= found.len() as u64);
    }

    #[test]
    fn i4_i5_lists_are_the_same_from_any_number_of_threads_and_from_a_file(case in case()) {
        let corpus = case.corpus();
        let ivf = corpus.build(case.config);
        let bytes = written(&ivf);
        let again = build(case.metric, &corpus.block(), case.config, 7, &Threads(3));
        prop_assert_eq!(&written(&again), &bytes);
        let read = read(&bytes, corpus.rows()).unwrap();
        prop_assert_eq!(&written(&read), &bytes);
        prop_assert_eq!(read.list_sizes(), ivf.list_sizes());
        prop_assert_eq!(read.compression_ratio(), ivf.compression_ratio());
        prop_assert_eq!(read.bytes(), ivf.bytes());
        let query = corpus.query(case.seed);
        let asked = (case.k, Probes { nprobe: 2, rerank: 20 });
        let [found, expect] =
            [&read, &ivf].map(|ivf| corpus.search(ivf, &query, asked, &AllRows));
        prop_assert_eq!(found, expect);
    }

    #[test]
    fn i5_changed_bytes_are_refused_or_searched_without_harm(
        case in case(),
        changes in vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        cut in proptest::option::of(any::<prop::sample::Index>()),
        in_front in any::<bool>(),
    ) {
        let corpus = case.corpus();
        let mut bytes = written(&corpus.build(case.config));
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
            prop_assert!(read(&bytes, corpus.rows()).is_err(), "cut short");
        }
        for (place, value) in changes {
            // What the numbers in front mean is checked most.
            let among = if in_front { bytes.len().min(64) } else { bytes.len() };
            if among > 0 {
                bytes[place.index(among)] = value;
            }
        }
        if let Ok(ivf) = read(&bytes, corpus.rows())
            && ivf.space.dims() == case.dims
        {
            let query = corpus.query(case.seed);
            for probes in [ALL, Probes { nprobe: 1, rerank: 1 }] {
                let (found, _) = corpus.search(&ivf, &query, (case.k, probes), &AllRows);
                prop_assert_eq!(found.len(), case.k.min(case.rows));
            }
        }
    }
}

#[test]
fn i5_what_cannot_be_lists_is_refused() {
    let corpus = Corpus::new(Metric::L2, 8, 100, 100, 4);
    let built =
        || corpus.build(Config { n_clusters: Some(4), use_pq: true, pq_subvectors: Some(3) });
    let changed: [fn(&mut Ivf); 9] = [
        |ivf| ivf.rows += 1,
        |ivf| ivf.members[1] = ivf.members[0],
        |ivf| ivf.members[99] = 100,
        |ivf| ivf.members.swap(0, 1),
        |ivf| ivf.starts[2] = 101,
        |ivf| ivf.starts.swap(1, 2),
        |ivf| ivf.starts[0] = 1,
        |ivf| ivf.centroids.truncate(24),
        |ivf| ivf.starts[4] = 99,
    ];
    assert!(read(&written(&built()), 100).is_ok());
    assert!(read(&written(&built()), 99).is_err(), "lists of other rows");
    for (number, change) in changed.into_iter().enumerate() {
        let mut ivf = built();
        change(&mut ivf);
        let rows = ivf.rows.min(100);
        assert!(read(&written(&ivf), rows).is_err(), "change {number}");
    }
    let mut codes = built();
    if let Some(codes) = &mut codes.codes {
        let words = codes.blocks.words();
        codes.blocks = super::Blocks::of(1, &words[1..]);
    }
    assert!(read(&written(&codes), 100).is_err(), "a word less of codes");
}

/// The share of the true ten nearest that is found, over 60 queries.
fn recall(corpus: &Corpus, ivf: &Ivf, probes: Probes) -> f64 {
    recall_among(corpus, ivf, probes, |_query| Box::new(AllRows))
}

/// The same among the rows that are allowed for each query.
fn recall_among(
    corpus: &Corpus,
    ivf: &Ivf,
    probes: Probes,
    allowed: impl Fn(&[f32]) -> Box<dyn Allowed>,
) -> f64 {
    let found: usize = (0..60)
        .map(|seed| {
            let query = corpus.query(1000 + seed);
            let allowed = allowed(&query);
            let exact = corpus.exact(&query, 10, &*allowed);
            let (found, _) = corpus.search(ivf, &query, (10, probes), &*allowed);
            found.iter().filter(|found| exact.contains(found)).count()
        })
        .sum();
    found as f64 / 600.0
}

#[test]
fn i3_recall_is_at_its_floor_with_few_of_the_lists() {
    for metric in [Metric::Cosine, Metric::L2, Metric::Dot] {
        for dims in [32, 96, 101] {
            let corpus = Corpus::new(metric, dims, 6000, 6000, 5);
            let plain = corpus.build(Config::default());
            let codes = corpus.build(Config { use_pq: true, ..Config::default() });
            let lists = plain.lists();
            assert!((250..=320).contains(&lists), "{lists} lists of 6000 rows");
            let probes = Probes { nprobe: lists / 4, rerank: 40 };
            let floor = if metric == Metric::Dot { 0.85 } else { 0.9 };
            let (with, without) =
                (recall(&corpus, &codes, probes), recall(&corpus, &plain, probes));
            assert!(without >= floor, "{metric:?} {dims}: {without}");
            assert!(with >= without - 0.05, "{metric:?} {dims}: {with}, {without} in full");
        }
    }
}

#[test]
fn i3_recall_is_kept_where_most_of_the_nearest_rows_are_not_allowed() {
    for metric in [Metric::Cosine, Metric::L2] {
        let corpus = Corpus::new(metric, 48, 6000, 6000, 5);
        for use_pq in [false, true] {
            let lists = corpus.build(Config { use_pq, ..Config::default() });
            assert_eq!(lists.code_bytes() > 0, use_pq);
            assert!(lists.bytes() > lists.code_bytes());
            let probes = Probes { nprobe: lists.lists() / 6, rerank: 40 };
            let all = recall(&corpus, &lists, probes);
            for gone in [60, 300, 600] {
                let found = recall_among(&corpus, &lists, probes, |query| {
                    let nearest = corpus.exact(query, gone, &AllRows);
                    let near: BTreeSet<u32> = nearest.iter().map(|(_, row)| row.0).collect();
                    let is_gone =
                        |row: u32| near.contains(&row) && !hash(3, row.into()).is_multiple_of(8);
                    Box::new(Chosen((0..6000).filter(|row| !is_gone(*row)).collect()))
                });
                assert!(found >= all - 0.02, "{metric:?} {use_pq} {gone}: {found}, {all} of all");
            }
        }
    }
}

#[test]
fn i3_estimates_alone_lead_to_the_nearest_rows() {
    // All lists: what is missed is missed by the codes.
    for (subvectors, floor) in [(None, 0.99), (Some(24), 0.93), (Some(8), 0.6)] {
        let corpus = Corpus::new(Metric::L2, 96, 4000, 4000, 9);
        let config = Config { use_pq: true, pq_subvectors: subvectors, n_clusters: Some(50) };
        let found = recall(&corpus, &corpus.build(config), Probes { nprobe: 50, rerank: 60 });
        assert!(found >= floor, "{subvectors:?}: {found}");
    }
}

#[test]
fn lists_are_of_similar_lengths_and_hold_every_row_once() {
    let corpus = Corpus::new(Metric::Cosine, 24, 8000, 8000, 3);
    let ivf = corpus.build(Config { n_clusters: Some(100), ..Config::default() });
    let ListSizes { min, avg, max } = ivf.list_sizes();
    assert!(f64::from(max) < 5.0 * avg && min > 0, "{min} {avg} {max}");
    let mut members: Vec<u32> = ivf.members.to_vec();
    members.sort_unstable();
    assert!(members.into_iter().eq(0..8000));
}

#[test]
fn one_row_many_copies_and_none_are_lists_too() {
    for use_pq in [false, true] {
        for (rows, distinct) in [(0, 1), (1, 1), (1000, 1), (33, 2)] {
            let corpus = Corpus::new(Metric::Cosine, 5, rows, distinct, 1);
            let ivf = corpus.build(Config { use_pq, n_clusters: Some(40), pq_subvectors: None });
            assert!(ivf.lists() as usize <= rows.min(40));
            assert!(rows == 0 || ivf.list_sizes().min > 0, "an empty list would be probed");
            let query = corpus.query(2);
            let (found, _) = corpus.search(&ivf, &query, (50, ALL), &AllRows);
            assert_eq!(found, corpus.exact(&query, 50, &AllRows), "{rows} rows");
        }
    }
}

#[test]
fn rows_too_long_or_too_short_for_f32_are_still_found() {
    for metric in [Metric::Dot, Metric::L2] {
        for scale in [1e-37, 1e19, 1.5e37] {
            let mut corpus = Corpus::new(metric, 6, 300, 300, 4);
            corpus.vectors.iter_mut().for_each(|value| *value *= scale);
            let ivf = corpus.build(Config { use_pq: true, ..Config::default() });
            let query = corpus.query(5);
            let (found, _) = corpus.search(&ivf, &query, (10, ALL), &AllRows);
            assert_eq!(found, corpus.exact(&query, 10, &AllRows), "{metric:?} {scale}");
        }
    }
}

#[test]
fn nothing_is_asked_for_and_nothing_is_searched() {
    let corpus = Corpus::new(Metric::L2, 6, 300, 300, 4);
    let ivf = corpus.build(Config::default());
    let (found, walk) = corpus.search(&ivf, &corpus.query(1), (0, ALL), &AllRows);
    assert!(found.is_empty());
    assert_eq!(walk, Walk::default());
}

#[test]
fn a_configuration_out_of_bounds_is_refused() {
    let check = |n_clusters, pq_subvectors, dims| {
        Config { n_clusters, use_pq: true, pq_subvectors }.check(dims)
    };
    assert_eq!(check(None, None, 1), Ok(()));
    assert_eq!(check(Some(65_536), Some(384), 384), Ok(()));
    assert_eq!(check(Some(0), None, 8), Err(ConfigError::Clusters(0)));
    assert_eq!(check(Some(65_537), None, 8), Err(ConfigError::Clusters(65_537)));
    let refused = ConfigError::Subvectors { dims: 8, subvectors: 9 };
    assert_eq!(check(None, Some(9), 8), Err(refused));
    assert!(check(None, Some(0), 8).is_err());
    assert_eq!(check(None, None, 0), Err(ConfigError::Dims(0)));
    assert_eq!(check(None, None, 16_385), Err(ConfigError::Dims(16_385)));
}
