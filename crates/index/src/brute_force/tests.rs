use std::collections::BTreeSet;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;

use super::search;
use crate::{AllRows, Allowed, Metric, RowBlock, RowId, Scorer, TopK, VectorScorer, normalized};

/// Vectors as a segment holds them.
struct Corpus {
    dims: usize,
    vectors: Vec<f32>,
    inverse_norms: Vec<f32>,
}

impl Corpus {
    fn new(dims: usize, vectors: Vec<f32>) -> Self {
        let inverse_norms =
            vectors.chunks_exact(dims).map(|v| crate::inverse_norm(v).unwrap()).collect();
        Self { dims, vectors, inverse_norms }
    }

    fn rows(&self) -> u32 {
        u32::try_from(self.inverse_norms.len()).unwrap()
    }

    fn row(&self, row: u32) -> &[f32] {
        &self.vectors[row as usize * self.dims..][..self.dims]
    }

    fn block(&self) -> RowBlock<'_> {
        RowBlock::new(self.dims, &self.vectors, &self.inverse_norms)
    }

    /// Every distance, in f64 from the vectors alone.
    fn exact(&self, query: &[f32]) -> Vec<f64> {
        (0..self.rows()).map(|row| cosine_distance(query, self.row(row))).collect()
    }
}

fn cosine_distance(a: &[f32], b: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| -> f64 {
        a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
    };
    1.0 - dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

/// A set of rows that answers words by the trait's default.
struct Chosen(BTreeSet<u32>);

impl Allowed for Chosen {
    fn allows(&self, row: RowId) -> bool {
        self.0.contains(&row.0)
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

#[derive(Debug)]
struct Case {
    dims: usize,
    rows: u32,
    seed: u64,
    k: usize,
    threshold: f32,
    /// One row in so many is allowed; 0 for all.
    sparsity: u32,
    /// Row `i` is a copy of row `i % distinct`.
    distinct: u32,
}

fn case() -> impl Strategy<Value = Case> {
    let shape = prop_oneof![
        (1_usize..40, 1_u32..900),
        (Just(128_usize), 1_u32..600),
        (Just(384_usize), 1_u32..300),
        (1_usize..4097, 1_u32..40),
    ];
    let between = (0_u16..1000).prop_map(|share| f32::from(share) / 500.0);
    let threshold = prop_oneof![Just(f32::INFINITY), Just(2.0), Just(0.0), between];
    let sparsity = prop_oneof![Just(0_u32), Just(1), Just(2), 3_u32..100];
    (shape, any::<u64>(), 0_usize..120, threshold, sparsity, 1_u32..900).prop_map(
        |((dims, rows), seed, k, threshold, sparsity, distinct)| Case {
            dims,
            rows,
            seed,
            k,
            threshold,
            sparsity,
            distinct,
        },
    )
}

impl Case {
    fn corpus(&self) -> Corpus {
        let distinct = self.distinct.min(self.rows) as usize;
        let base = numbers(self.seed, distinct * self.dims);
        let vectors = base.iter().copied().cycle().take(self.rows as usize * self.dims).collect();
        Corpus::new(self.dims, vectors)
    }

    fn query(&self) -> Vec<f32> {
        normalized(&numbers(self.seed ^ 0x5eed, self.dims)).unwrap().0
    }

    fn allowed(&self) -> Option<Chosen> {
        (self.sparsity > 0).then(|| {
            let chosen = |row: &u32| {
                let hash = u64::from(*row).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40;
                hash % u64::from(self.sparsity) == 0
            };
            Chosen((0..self.rows).filter(chosen).collect())
        })
    }
}

fn as_dyn(allowed: Option<&Chosen>) -> &dyn Allowed {
    allowed.map_or(&AllRows, |chosen| chosen)
}

proptest! {
    #[test]
    fn i1_i2_i3_brute_force_is_the_sorted_list_of_every_allowed_row(case in case()) {
        let (corpus, query, allowed) = (case.corpus(), case.query(), case.allowed());
        let allowed = as_dyn(allowed.as_ref());
        let rows = corpus.block();
        let scorer = VectorScorer::new(Metric::Cosine, &query, &rows);
        let mut top = TopK::within(case.k, case.threshold);
        search(&scorer, 0..corpus.rows(), allowed, &mut top, |row| row);
        let found = top.into_sorted();

        // The distances are the scorer's own, one row at a time, and near the exact ones.
        let exact = corpus.exact(&query);
        let mut expect = Vec::new();
        for row in (0..corpus.rows()).map(RowId).filter(|row| allowed.allows(*row)) {
            let mut distance = [f32::NAN];
            scorer.score(&[row], &mut distance);
            let error = (f64::from(distance[0]) - exact[row.0 as usize]).abs();
            prop_assert!(error < 2e-6 * (case.dims as f64).sqrt() + 1e-6, "off by {error}");
            prop_assert!((0.0..=2.0).contains(&distance[0]));
            if distance[0] <= case.threshold {
                expect.push((distance[0], row));
            }
        }
        expect.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        expect.truncate(case.k);
        prop_assert_eq!(bits(&found), bits(&expect));
    }

    #[test]
    fn i2_ranges_searched_apart_merge_to_the_same_answer(
        case in case(),
        at in any::<(Index, Index)>(),
    ) {
        let (corpus, query, allowed) = (case.corpus(), case.query(), case.allowed());
        let allowed = as_dyn(allowed.as_ref());
        let rows = corpus.block();
        let scorer = VectorScorer::new(Metric::Cosine, &query, &rows);
        let run = |rows| {
            let mut top = TopK::within(case.k, case.threshold);
            search(&scorer, rows, allowed, &mut top, |row| row);
            top
        };
        let mut cuts = [at.0, at.1].map(|at| u32::try_from(at.index(corpus.rows() as usize)).unwrap());
        cuts.sort_unstable();
        let mut merged = run(cuts[1]..corpus.rows());
        merged.merge(run(0..cuts[0]));
        merged.merge(run(cuts[0]..cuts[1]));
        let whole = run(0..corpus.rows());
        prop_assert_eq!(bits(&merged.into_sorted()), bits(&whole.into_sorted()));
    }

    #[test]
    fn i6_a_row_has_one_distance_however_it_is_scored(
        case in case(),
        splits in vec(any::<Index>(), 0..6),
        picks in vec(any::<Index>(), 0..50),
    ) {
        let (corpus, query) = (case.corpus(), case.query());
        let block = corpus.block();
        let scorer = VectorScorer::new(Metric::Cosine, &query, &block);
        let rows = corpus.rows() as usize;
        let mut whole = vec![f32::NAN; rows];
        scorer.score_range(RowId(0), &mut whole);

        let mut ends: Vec<usize> = splits.iter().map(|split| split.index(rows)).collect();
        ends.push(rows);
        ends.sort_unstable();
        let mut parts = vec![f32::NAN; rows];
        let mut start = 0;
        for end in ends {
            scorer.score_range(RowId(u32::try_from(start).unwrap()), &mut parts[start..end]);
            start = end;
        }
        let picked: Vec<usize> = picks.iter().map(|pick| pick.index(rows)).collect();
        let ids: Vec<RowId> = picked.iter().map(|row| RowId(u32::try_from(*row).unwrap())).collect();
        let mut chosen = vec![f32::NAN; ids.len()];
        scorer.score(&ids, &mut chosen);
        for row in 0..rows {
            prop_assert_eq!(whole[row].to_bits(), parts[row].to_bits());
        }
        for (row, distance) in picked.iter().zip(&chosen) {
            prop_assert_eq!(whole[*row].to_bits(), distance.to_bits());
        }
    }
}

fn bits(found: &[(f32, RowId)]) -> Vec<(u32, RowId)> {
    found.iter().map(|(distance, row)| (distance.to_bits(), *row)).collect()
}

/// Knows its rows and fails the test if a block without an allowed row is scored.
struct Untouchable(u32);

impl Scorer for Untouchable {
    fn rows(&self) -> u32 {
        self.0
    }

    fn score_range(&self, first: RowId, _out: &mut [f32]) {
        panic!("row {} was scored", first.0);
    }

    fn score(&self, rows: &[RowId], out: &mut [f32]) {
        assert!(rows.iter().all(|row| row.0 == u32::MAX - 1));
        out.fill(0.5);
    }
}

struct LastRow;

impl Allowed for LastRow {
    fn allows(&self, row: RowId) -> bool {
        row.0 == u32::MAX - 1
    }
}

#[test]
fn i1_rows_that_are_not_allowed_are_not_read() {
    let mut top = TopK::new(3);
    search(&Untouchable(5000), 0..5000, &LastRow, &mut top, |row| row);
    assert!(top.is_empty());
}

#[test]
fn the_last_row_number_of_all_is_found() {
    let mut top = TopK::new(3);
    let rows = u32::MAX - 1000..u32::MAX;
    search(&Untouchable(u32::MAX), rows, &LastRow, &mut top, |row| row);
    assert_eq!(bits(&top.into_sorted()), [(0.5_f32.to_bits(), RowId(u32::MAX - 1))]);
}

#[test]
fn an_empty_range_finds_nothing() {
    let rows = RowBlock::new(1, &[], &[]);
    let scorer = VectorScorer::new(Metric::Cosine, &[1.0], &rows);
    assert_eq!(scorer.rows(), 0);
    let mut top = TopK::new(3);
    search(&scorer, 0..0, &AllRows, &mut top, |row| row);
    assert!(top.is_empty());
}

#[test]
#[should_panic(expected = "rows up to 1 of 0")]
fn a_range_past_the_last_row_is_refused() {
    let rows = RowBlock::new(1, &[], &[]);
    let scorer = VectorScorer::new(Metric::Cosine, &[1.0], &rows);
    search(&scorer, 0..1, &AllRows, &mut TopK::new(3), |row| row);
}
