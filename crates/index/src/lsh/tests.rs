use std::collections::BTreeSet;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;

use super::{Config, Lsh, Probes, build};
use crate::corpus::{Case, Corpus, Shape, Threads, both, case};
use crate::{
    AllRows, Metric, Query, RowId, SectionReader, SectionWriter, Sequential, TopK, VectorScorer,
};

fn tables(case: &Case, corpus: &Corpus, config: Config) -> Lsh {
    build(case.metric, &corpus.block(), config, case.seed, &Sequential)
}

fn written(tables: &Lsh) -> Vec<u8> {
    let mut out = Vec::new();
    tables.write(&mut SectionWriter::new(&mut out)).unwrap();
    out
}

fn config() -> impl Strategy<Value = Config> {
    let tables = prop_oneof![8 => 1_u32..8, 1 => Just(64)];
    let bits = prop_oneof![8 => 1_u32..12, 1 => Just(24)];
    (tables, bits).prop_map(|(tables, bits)| Config::new(tables, bits).unwrap())
}

proptest! {
    #[test]
    fn i1_i2_tables_keep_allowed_rows_once_in_order_with_the_distances_of_the_scorer(
        case in case(),
        config in config(),
        candidates in 0_usize..300,
    ) {
        let corpus = case.corpus();
        let tables = tables(&case, &corpus, config);
        let probes = Probes::new(case.k, candidates);
        let [found, expect] = both(&case, &corpus, |query, top| {
            let rows = (0..case.rows).filter(|row| query.allowed.allows(RowId(*row)));
            let allowed = rows.count() as u64;
            let walk = tables.search(query, probes, top, |row| row);
            // So many rows are scored as are wanted, or all there are.
            let wanted = (probes.candidates as u64).min(allowed);
            assert!(walk.scored >= wanted && walk.scored <= allowed, "{walk:?} of {allowed}");
            assert!(walk.fell_back || walk.scored == wanted);
            for (distance, row) in top.clone().into_sorted() {
                let mut scored = [f32::NAN];
                query.scorer.score(&[row], &mut scored);
                assert_eq!((scored[0] + 0.0).to_bits(), distance.to_bits());
                assert!(query.allowed.allows(row));
            }
            assert!(!walk.fell_back || walk.scored == allowed);
        });
        let rows: BTreeSet<RowId> = found.iter().map(|(_, row)| *row).collect();
        prop_assert_eq!(rows.len(), found.len());
        prop_assert!(found.iter().map(|(bits, row)| (f32::from_bits(*bits), *row)).is_sorted());
        if case.threshold.is_infinite() {
            // As many as there are.
            prop_assert_eq!(found.len(), expect.len());
        }
        let (nearer, exact) = (found.iter(), expect.iter());
        let no_nearer =
            nearer.zip(exact).all(|(a, b)| f32::from_bits(a.0) >= f32::from_bits(b.0));
        prop_assert!(no_nearer);
        if candidates >= case.rows as usize || case.k >= case.rows as usize {
            prop_assert_eq!(found, expect);
        }
    }

    #[test]
    fn i4_i5_tables_are_the_same_on_two_threads_and_after_reading(
        case in case(),
        config in config(),
    ) {
        let corpus = case.corpus();
        let one = tables(&case, &corpus, config);
        let bytes = written(&one);
        let two = build(case.metric, &corpus.block(), config, case.seed, &Threads);
        prop_assert_eq!(&written(&two), &bytes);
        let mut reader = SectionReader::new(&bytes);
        let read = Lsh::read(&mut reader, case.metric, case.rows, case.dims).unwrap();
        prop_assert_eq!(reader.end(), Ok(()));
        prop_assert_eq!(&read, &one);
        let search = |tables: &Lsh| {
            both(&case, &corpus, |query, top| {
                tables.search(query, Probes::new(case.k, 50), top, |row| row);
            })
        };
        prop_assert_eq!(search(&read), search(&one));
    }

    #[test]
    fn bytes_that_are_not_tables_are_refused_or_searched(
        case in case(),
        config in config(),
        changes in vec((any::<Index>(), any::<u8>()), 0..4),
        cut in proptest::option::of(any::<Index>()),
    ) {
        let corpus = case.corpus();
        let mut bytes = written(&tables(&case, &corpus, config));
        for (at, byte) in changes {
            // The numbers in front are what decides most.
            let at = at.index(if byte % 2 == 0 { 32 } else { bytes.len() });
            bytes[at] = byte;
        }
        bytes.truncate(cut.map_or(bytes.len(), |cut| cut.index(bytes.len())));
        let read = Lsh::read(&mut SectionReader::new(&bytes), case.metric, case.rows, case.dims);
        if let Ok(tables) = read {
            both(&case, &corpus, |query, top| {
                let walk = tables.search(query, Probes::of_k(3, case.rows), top, |row| row);
                assert!(walk.scored <= u64::from(case.rows));
            });
        }
    }
}

/// The part of the 10 nearest that is found, over queries.
fn recall(metric: Metric, candidates: usize) -> f64 {
    const K: usize = 10;
    const ROWS: u32 = 20_000;
    let corpus = Shape::Clustered.corpus(1, 32, ROWS);
    let case = |asked| Case {
        metric,
        shape: Shape::Clustered,
        dims: 32,
        rows: ROWS,
        seed: 1,
        asked,
        k: K,
        threshold: f32::INFINITY,
        sparsity: 0,
    };
    let tables = tables(&case(0), &corpus, Config::default());
    let queries = 50;
    let hits: usize = (ROWS..ROWS + queries)
        .map(|query| {
            let [found, expect] = both(&case(query), &corpus, |query, top| {
                let walk = tables.search(query, Probes::new(K, candidates), top, |row| row);
                assert_eq!(walk.scored, candidates as u64);
            });
            expect.iter().filter(|row| found.contains(row)).count()
        })
        .sum();
    hits as f64 / (queries as usize * K) as f64
}

#[test]
fn i3_near_rows_are_found_among_few_candidates() {
    for (metric, floor) in [(Metric::Cosine, 0.95), (Metric::L2, 0.95), (Metric::Dot, 0.9)] {
        let recall = recall(metric, 1000);
        assert!(recall >= floor, "{metric:?}: {recall}");
    }
}

#[test]
fn i3_more_candidates_find_more() {
    for metric in Metric::ALL {
        let recalls = [50, 400, 5000].map(|candidates| recall(metric, candidates));
        assert!(recalls.is_sorted() && recalls[2] > 0.99, "{metric:?}: {recalls:?}");
    }
}

#[test]
fn tables_of_no_rows_find_nothing() {
    let corpus = Corpus::new(20, Vec::new());
    let block = corpus.block();
    let tables = build(Metric::Dot, &block, Config::default(), 1, &Sequential);
    let bytes = written(&tables);
    let read = Lsh::read(&mut SectionReader::new(&bytes), Metric::Dot, 0, 20).unwrap();
    let vector = [1.0; 20];
    let scorer = VectorScorer::new(Metric::Dot, &vector, &block);
    let query = Query { scorer: &scorer, vector: &vector, allowed: &AllRows };
    let mut top = TopK::<RowId>::new(3);
    read.search(query, Probes::of_k(3, 0), &mut top, |row| row);
    assert!(top.is_empty() && read.buckets() == 0);
}

#[test]
fn numbers_out_of_range_are_no_configuration() {
    for (num_tables, hash_size) in [(0, 10), (65, 10), (10, 0), (10, 25)] {
        assert_eq!(Config::new(num_tables, hash_size), None);
    }
    let most = Config::new(64, 24).unwrap();
    assert_eq!((most.num_tables(), most.hash_size()), (64, 24));
}
