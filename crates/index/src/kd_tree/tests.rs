use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;

use super::bounds::Bounds;
use super::{Config, KdTree, build, halves};
use crate::corpus::{Case, Shape, Threads, both, case};
use crate::{
    AllRows, Metric, Query, RowId, Scorer, SectionReader, SectionWriter, Sequential, TopK,
    VectorScorer,
};

fn tree(case: &Case, leaf_rows: u32) -> KdTree {
    build(case.metric, &case.corpus().block(), Config { leaf_rows }, &Sequential)
}

fn written(tree: &KdTree) -> Vec<u8> {
    let mut out = Vec::new();
    tree.write(&mut SectionWriter::new(&mut out)).unwrap();
    out
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn i1_i2_i3_a_tree_keeps_what_a_scan_keeps(
        case in case(),
        leaf_rows in 0_u32..40,
        budget in prop_oneof![Just(u64::MAX), 0_u64..1_000_000],
    ) {
        let (corpus, tree) = (case.corpus(), tree(&case, leaf_rows));
        let [found, expect] = both(&case, &corpus, |query, top| {
            let walk = tree.search_within(query, budget, top, |row| row);
            assert!(walk.scored <= u64::from(case.rows));
        });
        prop_assert_eq!(found, expect);
    }

    #[test]
    fn i3_no_row_is_scored_nearer_than_the_bounds_of_its_nodes(
        case in case(),
        leaf_rows in 1_u32..40,
    ) {
        let (corpus, tree, query) = (case.corpus(), tree(&case, leaf_rows), case.query());
        let Some(bounds) = Bounds::new(&tree, &query) else { return Ok(()) };
        let block = corpus.block();
        let scorer = VectorScorer::new(case.metric, &query, &block);
        let mut open = vec![(0, 0..tree.order.len())];
        while let Some((node, run)) = open.pop() {
            let leaf = usize::checked_sub(node, tree.first_leaf());
            let ball = leaf.map_or(f64::NEG_INFINITY, |leaf| bounds.of_ball(leaf));
            for row in &tree.order[run.clone()] {
                let mut distance = [f32::NAN];
                scorer.score(&[RowId(*row)], &mut distance);
                let distance = f64::from(distance[0]);
                prop_assert!(bounds.of_box(node) <= distance, "box of {node}: row {row}");
                prop_assert!(ball <= distance, "ball of {node}: row {row}");
            }
            if leaf.is_none() {
                open.extend([2 * node + 1, 2 * node + 2].into_iter().zip(halves(&run)));
            }
        }
    }

    #[test]
    fn i4_i5_a_tree_is_the_same_on_two_threads_and_after_reading(
        case in case(),
        leaf_rows in 1_u32..40,
    ) {
        let (corpus, one) = (case.corpus(), tree(&case, leaf_rows));
        let bytes = written(&one);
        let two = build(case.metric, &corpus.block(), Config { leaf_rows }, &Threads);
        prop_assert_eq!(&written(&two), &bytes);
        let mut reader = SectionReader::new(&bytes);
        let read = KdTree::read(&mut reader, case.metric, case.rows, case.dims).unwrap();
        prop_assert_eq!(reader.end(), Ok(()));
        prop_assert_eq!(&written(&read), &bytes);
        let [found, expect] = both(&case, &corpus, |query, top| {
            read.search(query, top, |row| row);
        });
        prop_assert_eq!(found, expect);
    }

    #[test]
    fn bytes_that_are_not_a_tree_are_refused_or_searched(
        case in case(),
        leaf_rows in 1_u32..40,
        changes in vec((any::<Index>(), any::<u8>()), 0..4),
        cut in proptest::option::of(any::<Index>()),
    ) {
        let mut bytes = written(&tree(&case, leaf_rows));
        for (at, byte) in changes {
            // The numbers in front are what decides most.
            let at = at.index(if byte % 2 == 0 { 64 } else { bytes.len() });
            bytes[at] = byte;
        }
        bytes.truncate(cut.map_or(bytes.len(), |cut| cut.index(bytes.len())));
        let read = KdTree::read(&mut SectionReader::new(&bytes), case.metric, case.rows, case.dims);
        if let Ok(tree) = read {
            both(&case, &case.corpus(), |query, top| {
                let walk = tree.search_within(query, u64::MAX, top, |row| row);
                assert!(walk.scored <= u64::from(case.rows));
            });
        }
    }
}

#[test]
fn rows_that_are_far_from_a_query_are_not_scored() {
    for (metric, dims) in [(Metric::Cosine, 3), (Metric::L2, 2), (Metric::Dot, 2), (Metric::L2, 64)]
    {
        let case = Case {
            metric,
            shape: if dims < 4 { Shape::Spread } else { Shape::Clustered },
            dims,
            rows: 20_000,
            seed: 1,
            asked: 1_000_000,
            k: 10,
            threshold: f32::INFINITY,
            sparsity: 0,
        };
        let (corpus, tree) = (case.corpus(), tree(&case, 64));
        let [found, expect] = both(&case, &corpus, |query, top| {
            let walk = tree.search(query, top, |row| row);
            assert!(!walk.fell_back && walk.scored < 3000, "{metric:?} {dims}: {walk:?}");
        });
        assert_eq!(found, expect);
    }
}

#[test]
fn rows_without_an_order_are_scanned() {
    let case = Case {
        metric: Metric::L2,
        shape: Shape::Spread,
        dims: 100,
        rows: 5000,
        seed: 1,
        asked: 1_000_000,
        k: 10,
        threshold: f32::INFINITY,
        sparsity: 3,
    };
    let (corpus, tree) = (case.corpus(), tree(&case, 64));
    let [found, expect] = both(&case, &corpus, |query, top| {
        let walk = tree.search(query, top, |row| row);
        assert!(walk.fell_back, "{walk:?}");
    });
    assert_eq!(found, expect);
}

#[test]
fn i3_ties_at_the_bound_and_numbers_at_the_ends_of_f32_are_not_lost() {
    for scale in [1e-38_f32, 1e-20, 1.0, 1e18, 1e19, 1e37] {
        for metric in Metric::ALL {
            let vectors = (0..3000_u16).flat_map(|row| {
                [f32::from(row % 7) - 3.0, f32::from(row % 5) + 0.5, f32::from(row % 3)]
            });
            let vectors = vectors.map(|value| value * scale).collect();
            let corpus = crate::corpus::Corpus::new(3, vectors);
            let block = corpus.block();
            let tree = build(metric, &block, Config { leaf_rows: 8 }, &Sequential);
            let mut vector = vec![scale, scale, -scale];
            if metric == Metric::Cosine {
                vector = crate::normalized(&vector).unwrap().0;
            }
            let scorer = VectorScorer::new(metric, &vector, &block);
            let query = Query { scorer: &scorer, vector: &vector, allowed: &AllRows };
            for k in [1, 10, 500] {
                let (mut found, mut expect) = (TopK::new(k), TopK::new(k));
                tree.search_within(query, u64::MAX, &mut found, |row| row);
                crate::brute_force::search(&scorer, 0..3000, &AllRows, &mut expect, |row| row);
                assert_eq!(found.into_sorted(), expect.into_sorted(), "{scale} {metric:?} {k}");
            }
        }
    }
}

#[test]
fn i3_ties_at_the_largest_cosine_distance_are_not_lost() {
    // Beyond it there is nothing, so a query that is too long has many rows at it.
    let corpus = Shape::Spread.corpus(1, 3, 3000);
    let block = corpus.block();
    let tree = build(Metric::Cosine, &block, Config { leaf_rows: 8 }, &Sequential);
    let vector = [3.0, -2.0, 1.0];
    let scorer = VectorScorer::new(Metric::Cosine, &vector, &block);
    let query = Query { scorer: &scorer, vector: &vector, allowed: &AllRows };
    // The rows that come first are the last by their keys.
    let key = |row: RowId| u32::MAX - row.0;
    let (mut found, mut expect) = (TopK::new(2500), TopK::new(2500));
    tree.search_within(query, u64::MAX, &mut found, key);
    crate::brute_force::search(&scorer, 0..3000, &AllRows, &mut expect, key);
    assert_eq!(expect.bound().to_bits(), 2.0_f32.to_bits());
    assert_eq!(found.into_sorted(), expect.into_sorted());
}

#[test]
fn a_tree_of_no_rows_finds_nothing() {
    let corpus = crate::corpus::Corpus::new(20, Vec::new());
    let block = corpus.block();
    let tree = build(Metric::L2, &block, Config::default(), &Sequential);
    let bytes = written(&tree);
    let read = KdTree::read(&mut SectionReader::new(&bytes), Metric::L2, 0, 20).unwrap();
    let vector = [1.0; 20];
    let scorer = VectorScorer::new(Metric::L2, &vector, &block);
    let query = Query { scorer: &scorer, vector: &vector, allowed: &AllRows };
    let mut top = TopK::<RowId>::new(3);
    read.search(query, &mut top, |row| row);
    assert!(top.is_empty() && read.depth() == 0);
}

#[test]
fn a_tree_is_balanced() {
    let case = Case {
        metric: Metric::Cosine,
        shape: Shape::Copies,
        dims: 5,
        rows: 1000,
        seed: 1,
        asked: 1_000_000,
        k: 1,
        threshold: f32::INFINITY,
        sparsity: 0,
    };
    let tree = tree(&case, 10);
    assert_eq!((tree.depth(), tree.rows()), (7, 1000));
    assert!(tree.bytes() > 1000 * 4);
}
