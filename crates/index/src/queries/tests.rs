use proptest::prelude::*;

use super::{Queries, QueryMatch};
use crate::{Metric, RowBlock, RowId, Scorer, VectorScorer, inverse_norm, normalized};

/// Numbers that look random.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> f32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888);
        let high = i16::try_from(self.0 >> 49).unwrap_or(0);
        f32::from(high) / 16_384.0 - 1.0
    }

    fn vector(&mut self, dims: usize, scale: f32, offset: f32) -> Vec<f32> {
        (0..dims).map(|_| self.next() * scale + offset).collect()
    }
}

struct Query {
    vector: Vec<f32>,
    threshold: f32,
    place: u32,
}

/// What a scan finds.
fn expected(metric: Metric, queries: &[Query], rows: &RowBlock<'_>, count: u32) -> Vec<QueryMatch> {
    let mut expect = Vec::new();
    for query in queries {
        let scorer = VectorScorer::new(metric, &query.vector, rows);
        for row in 0..count {
            let mut distance = [0.0];
            scorer.score_range(RowId(row), &mut distance);
            if distance[0] <= metric.scored(query.threshold) {
                let distance = metric.reported(distance[0]);
                expect.push(QueryMatch { row: RowId(row), query: query.place, distance });
            }
        }
    }
    expect.sort_by_key(|found| (found.row, found.query));
    expect
}

fn check(metric: Metric, queries: &Queries, all: &[Query], (dims, rows): (usize, &[f32])) -> usize {
    let norms: Vec<f32> = rows.chunks_exact(dims).map(|row| inverse_norm(row).unwrap()).collect();
    let block = RowBlock::new(dims, rows, &norms);
    let mut found = Vec::new();
    queries.matches(&block, &mut |matched| found.push(matched));
    found.sort_by_key(|found| (found.row, found.query));
    let expect = expected(metric, all, &block, u32::try_from(norms.len()).unwrap());
    assert_eq!(found, expect, "{metric:?} {dims}");
    found.len()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]
    #[test]
    fn i3_every_row_within_a_threshold_is_found_and_no_other(
        metric in prop_oneof![Just(Metric::Cosine), Just(Metric::Dot), Just(Metric::L2)],
        dims in prop_oneof![1_usize..20, Just(96), Just(384)],
        (count, rows) in (0_usize..120, 1_usize..70),
        scale in prop_oneof![Just(1.0_f32), Just(1e-30), Just(1e-3), Just(1e3), Just(1e17), Just(1e30)],
        offset in prop_oneof![Just(0.0_f32), Just(0.9), Just(30.0)],
        centred in any::<bool>(),
        seed in any::<u64>(),
    ) {
        let mut numbers = Numbers(seed);
        let center = if centred { vec![offset * scale; dims] } else { vec![0.0; dims] };
        let mut queries = Queries::new(metric, &center);
        let mut all: Vec<Query> = Vec::new();
        let rows: Vec<Vec<f32>> = (0..rows)
            .map(|_| numbers.vector(dims, scale, offset * scale))
            .filter(|row| inverse_norm(row).is_ok())
            .collect();
        for n in 0..count {
            if n % 5 == 4 && !all.is_empty() {
                let gone = all.swap_remove(n % all.len());
                queries.remove(gone.place);
            }
            // Half of them are rows, or nearly.
            let near = rows.get(n * 2).cloned();
            let vector = near.unwrap_or_else(|| numbers.vector(dims, scale, offset * scale));
            let Ok((unit, _)) = normalized(&vector) else { continue };
            let vector = if metric == Metric::Cosine { unit } else { vector };
            // At, or a little beside, the distance of some row.
            let of = rows.get(n % rows.len().max(1)).map_or(&vector, |row| row);
            let Ok(norm) = inverse_norm(of) else { continue };
            let norms = [norm];
            let block = RowBlock::new(dims, of, &norms);
            let mut distance = [0.0];
            VectorScorer::new(metric, &vector, &block).score_range(RowId(0), &mut distance);
            let at = metric.reported(distance[0]);
            let threshold = match n % 3 {
                0 => at,
                1 => at * (1.0 - 1e-6),
                _ => at * (1.0 + 1e-6),
            };
            if !threshold.is_finite() {
                continue;
            }
            let place = queries.insert(&vector, threshold);
            all.push(Query { vector, threshold, place });
        }
        prop_assert_eq!(queries.len(), all.len());
        check(metric, &queries, &all, (dims, &rows.concat()));
    }
}

#[test]
fn few_pairs_are_scored_where_few_match() {
    let (dims, mut numbers) = (384, Numbers(7));
    let mut queries = Queries::new(Metric::Cosine, &vec![0.0; dims]);
    let mut all = Vec::new();
    for _query in 0..1000 {
        let vector = normalized(&numbers.vector(dims, 1.0, 0.0)).unwrap().0;
        let place = queries.insert(&vector, 0.4);
        all.push(Query { vector, threshold: 0.4, place });
    }
    let mut rows = numbers.vector(dims * 60, 1.0, 0.0);
    for query in [3, 900] {
        rows.extend_from_slice(&all[query].vector);
    }
    assert_eq!(check(Metric::Cosine, &queries, &all, (dims, &rows)), 2);
    assert!(queries.bytes() < 1100 * dims * 5 + 65_536, "{}", queries.bytes());
}

#[test]
fn a_place_is_taken_again() {
    let mut queries = Queries::new(Metric::L2, &[0.0; 2]);
    let first = queries.insert(&[1.0, 0.0], 0.5);
    let second = queries.insert(&[5.0, 0.0], 0.5);
    queries.remove(first);
    assert_eq!(queries.insert(&[9.0, 0.0], 0.5), first);
    let all = [
        Query { vector: vec![5.0, 0.0], threshold: 0.5, place: second },
        Query { vector: vec![9.0, 0.0], threshold: 0.5, place: first },
    ];
    let rows = [1.0, 0.0, 5.0, 0.25, 9.0, 0.5];
    assert_eq!(check(Metric::L2, &queries, &all, (2, &rows)), 2);
}
