use arrwdb_kernel::kernels;
use proptest::prelude::*;

use super::{LateItems, LateQuery, LateScope, Similarity, bits};
use crate::random::hash;
use crate::{AllRows, Allowed, RowBlock, RowId, RowSet, TopK, inverse_norm, normalized};

/// Items and a query, drawn from a seed.
struct Case {
    similarity: Similarity,
    dims: usize,
    starts: Vec<u32>,
    rows: Vec<f32>,
    inverse_norms: Vec<f32>,
    query: Vec<f32>,
    items: RowSet,
    allowed: RowSet,
}

impl Case {
    fn drawn(
        seed: u64,
        dims: usize,
        (items, vectors): (u32, usize),
        similarity: Similarity,
    ) -> Self {
        let mut drawn = 0;
        let mut below = |bound: u64| {
            drawn += 1;
            hash(seed, drawn) % bound
        };
        // Few distinct numbers, so that scores are equal now and then.
        let vector = |spread: u64, below: &mut dyn FnMut(u64) -> u64| -> Vec<f32> {
            let number = |_| f32::from(i16::try_from(below(spread)).unwrap()) - 3.0;
            let mut vector: Vec<f32> = (0..dims).map(number).collect();
            vector[0] += 0.5;
            vector
        };
        let spread = 2 + below(40);
        let mut starts = vec![0];
        for _item in 0..items {
            let rows = match below(12) {
                0 => 0,
                1 => 60 + below(150),
                _ => 1 + below(20),
            };
            starts.push(starts[starts.len() - 1] + u32::try_from(rows).unwrap());
        }
        let count = starts[starts.len() - 1];
        let rows: Vec<f32> = (0..count).flat_map(|_row| vector(spread, &mut below)).collect();
        let inverse_norms = rows.chunks_exact(dims).map(|row| inverse_norm(row).unwrap()).collect();
        let query = (0..vectors).flat_map(|_vector| {
            let vector = vector(spread, &mut below);
            match similarity {
                Similarity::Cosine => normalized(&vector).unwrap().0,
                Similarity::Dot => vector,
            }
        });
        let query = query.collect();
        let set = |rows: u32, below: &mut dyn FnMut(u64) -> u64| {
            let mut set = RowSet::full(rows);
            // All, most, or few; and now and then a run of none.
            let one_in = [u64::MAX, 7, 2][usize::try_from(below(3)).unwrap()];
            let few = below(4) == 0;
            let run = below(u64::from(rows) + 1)..u64::from(rows) / 2 + below(u64::from(rows) + 1);
            for row in 0..rows {
                let hit = below(one_in) == 0;
                if (one_in < u64::MAX && hit != few) || run.contains(&u64::from(row)) {
                    set.remove(row);
                }
            }
            set
        };
        let (items, allowed) = (set(items, &mut below), set(count, &mut below));
        Self { similarity, dims, starts, rows, inverse_norms, query, items, allowed }
    }

    fn query(&self) -> LateQuery<'_> {
        LateQuery::new(self.similarity, self.dims, &self.query)
    }

    fn block(&self) -> RowBlock<'_> {
        RowBlock::new(self.dims, &self.rows, &self.inverse_norms)
    }

    /// Every item scored pair by pair, best first.
    fn naive(&self) -> Vec<(f32, u32)> {
        let mut best = Vec::new();
        for (item, ends) in (0..).zip(self.starts.windows(2)) {
            let rows: Vec<u32> =
                (ends[0]..ends[1]).filter(|row| self.allowed.contains(*row)).collect();
            if rows.is_empty() || self.query.is_empty() || !self.items.contains(item) {
                continue;
            }
            let mut sum = 0.0_f64;
            for vector in self.query.chunks_exact(self.dims) {
                let alike = |row: &u32| {
                    let place = *row as usize;
                    let product =
                        kernels().dot(vector, &self.rows[place * self.dims..][..self.dims]);
                    match self.similarity {
                        Similarity::Cosine => {
                            (product * self.inverse_norms[place]).clamp(-1.0, 1.0)
                        }
                        Similarity::Dot => product,
                    }
                };
                sum += f64::from(rows.iter().map(alike).fold(f32::NEG_INFINITY, f32::max));
            }
            #[expect(clippy::cast_possible_truncation, reason = "scores are f32")]
            best.push((sum as f32 + 0.0, item));
        }
        best.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        best
    }

    fn found(&self, k: usize, cuts: &[u32]) -> Vec<(f32, u32)> {
        let block = self.block();
        let items = LateItems::new(&block, &self.starts).unwrap();
        let mut top = TopK::new(k);
        // The last first.
        for range in cuts.windows(2).rev() {
            let range = range[0]..range[1];
            let scope = LateScope { range, items: &self.items, rows: &self.allowed };
            let mut part = TopK::new(k);
            items.search(self.query(), &scope, &mut part, |item| item);
            top.merge(part);
        }
        top.into_scores()
    }
}

fn bits_of(best: &[(f32, u32)]) -> Vec<(u32, u32)> {
    best.iter().map(|(score, item)| (score.to_bits(), *item)).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn i3_the_best_items_are_those_that_every_pair_of_vectors_gives(
        seed in any::<u64>(),
        dims in prop_oneof![8 => 1_usize..20, 4 => Just(128), 2 => Just(200), 1 => Just(700)],
        shape in (0_u32..120, 0_usize..9),
        (k, cuts) in (0_usize..40, prop::collection::vec(0_u32..140, 0..4)),
        cosine in any::<bool>(),
    ) {
        let similarity = if cosine { Similarity::Cosine } else { Similarity::Dot };
        let case = Case::drawn(seed, dims, shape, similarity);
        let expected = case.naive();
        let mut cuts: Vec<u32> = cuts.into_iter().chain([0, u32::MAX]).collect();
        cuts.sort_unstable();
        // I6: whatever the ranges.
        let found = case.found(k, &cuts);
        prop_assert_eq!(bits_of(&found), bits_of(&expected[..k.min(expected.len())]));
        let block = case.block();
        let items = LateItems::new(&block, &case.starts).unwrap();
        prop_assert_eq!(items.len(), shape.0);
        for (score, item) in expected.iter().take(20) {
            let alone = items.score(case.query(), *item, &case.allowed).unwrap();
            prop_assert_eq!(alone.to_bits(), score.to_bits());
        }
    }

    #[test]
    fn the_bits_of_rows_are_what_is_allowed_of_them(
        removed in prop::collection::vec(0_u32..300, 0..200),
        first in 0_u32..230,
        count in 1_u32..65,
    ) {
        let mut set = RowSet::full(300);
        for row in removed {
            set.remove(row);
        }
        let expected = (0..count).filter(|place| set.allows(RowId(first + place)));
        let expected = expected.fold(0, |bits, place| bits | 1_u64 << place);
        prop_assert_eq!(bits(&set, first..first + count), expected);
    }
}

#[test]
fn every_row_of_the_items_is_scored_once() {
    let case = Case::drawn(5, 128, (300, 4), Similarity::Cosine);
    let block = case.block();
    let items = LateItems::new(&block, &case.starts).unwrap();
    let scope = LateScope { range: 0..300, items: &AllRows, rows: &AllRows };
    let mut top = TopK::new(3);
    let rows = items.search(case.query(), &scope, &mut top, |item| item);
    assert_eq!(rows, u64::from(case.starts[300]));
    assert_eq!(top.len(), 3);
    let none = LateScope { range: 0..300, items: &RowSet::empty(300), rows: &AllRows };
    assert_eq!(items.search(case.query(), &none, &mut top, |item| item), 0);
    let none = LateScope { range: 0..300, items: &AllRows, rows: &RowSet::empty(case.starts[300]) };
    assert_eq!(items.search(case.query(), &none, &mut top, |item| item), 0);
}

#[test]
fn scores_are_sums_of_the_most_alike() {
    let rows = [1.0, 0.0, 0.0, 2.0, 3.0, 4.0, -1.0, 0.0];
    let inverse_norms: Vec<f32> =
        rows.chunks_exact(2).map(|row| inverse_norm(row).unwrap()).collect();
    let block = RowBlock::new(2, &rows, &inverse_norms);
    let items = LateItems::new(&block, &[0, 2, 2, 3, 4]).unwrap();
    let query = [1.0, 0.0, 0.0, 1.0];
    for (similarity, expected) in [
        (Similarity::Cosine, [(2.0, 0), (1.4, 2), (-1.0, 3)]),
        (Similarity::Dot, [(7.0, 2), (3.0, 0), (-1.0, 3)]),
    ] {
        let query = LateQuery::new(similarity, 2, &query);
        let mut top = TopK::new(9);
        let scope = LateScope { range: 0..u32::MAX, items: &AllRows, rows: &AllRows };
        items.search(query, &scope, &mut top, |item| item);
        let found = top.into_scores();
        assert_eq!(found.len(), 3, "{found:?}");
        for ((score, item), (wanted, place)) in found.into_iter().zip(expected) {
            assert!((score - wanted).abs() < 1e-6 && item == place, "{score} of {item}");
        }
        assert_eq!(items.score(query, 1, &AllRows), None);
        assert_eq!(items.score(query, 4, &AllRows), None);
    }
    assert_eq!(items.score(LateQuery::new(Similarity::Dot, 2, &[]), 0, &AllRows), None);
}

#[test]
fn products_beyond_f32_are_finite_scores() {
    let rows = [f32::MAX, f32::MAX, -f32::MAX, f32::MAX, -f32::MAX, -f32::MAX];
    let block = RowBlock::new(2, &rows, &[1.0; 3]);
    let items = LateItems::new(&block, &[0, 1, 2, 3]).unwrap();
    let query = LateQuery::new(Similarity::Dot, 2, &[f32::MAX, f32::MAX, f32::MAX, 1.0]);
    let scores: Vec<f32> = (0..3).map(|item| items.score(query, item, &AllRows).unwrap()).collect();
    assert_eq!(scores[0].to_bits(), f32::MAX.to_bits());
    assert!(scores.iter().all(|score| score.is_finite()), "{scores:?}");
    assert_eq!(scores[2].to_bits(), f32::MIN.to_bits());
    // What is no number is the least of all, and no less.
    let query = LateQuery::new(Similarity::Dot, 2, &[f32::MAX, f32::MAX, -1.0, 0.0]);
    assert_eq!(items.score(query, 1, &AllRows), Some(0.0));
}

#[test]
fn starts_that_are_no_items_are_refused() {
    let block = RowBlock::new(1, &[1.0; 4], &[1.0; 4]);
    for (starts, items) in [(&[][..], Some(0)), (&[3], Some(0)), (&[0, 4], Some(1))] {
        assert_eq!(LateItems::new(&block, starts).map(|items| items.len()), items);
    }
    for starts in [&[0, 5][..], &[0, 3, 2], &[5]] {
        assert!(LateItems::new(&block, starts).is_none(), "{starts:?}");
    }
}
