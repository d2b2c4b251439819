use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::random::hash;
use crate::{AllRows, Allowed, RowId, RowSet, TopK};

/// A row or a query, not checked.
type Entries = BTreeMap<u32, f32>;

/// What a search finds: the bits of the scores, and the rows.
type Found = Vec<(u32, u32)>;

fn parts(entries: &Entries) -> (Vec<u32>, Vec<f32>) {
    entries.iter().map(|(index, value)| (*index, *value)).unzip()
}

fn index_of(rows: &[Entries]) -> SparseIndex {
    let mut builder = SparseBuilder::default();
    for row in rows {
        let (indices, values) = parts(row);
        builder.push(SparseVector::new(&indices, &values).unwrap());
    }
    builder.finish()
}

fn query_of(entries: &Entries) -> SparseQuery {
    let (indices, values) = parts(entries);
    SparseQuery::new(SparseVector::new(&indices, &values).unwrap())
}

fn scores(top: TopK<u32>) -> Found {
    bits(&top.into_scores())
}

fn found(index: &SparseIndex, query: &SparseQuery, k: usize, allowed: &dyn Allowed) -> Found {
    let mut top = TopK::new(k);
    index.search(query, allowed, &mut top, |row| row.0);
    scores(top)
}

/// Every row scored by looking up its entries one by one.
fn naive(rows: &[Entries], query: &Entries, allowed: &dyn Allowed) -> Vec<(f32, u32)> {
    let mut order: Vec<(u32, f32)> = query.iter().map(|(index, value)| (*index, *value)).collect();
    order.sort_by(|a, b| b.1.abs().total_cmp(&a.1.abs()).then(a.0.cmp(&b.0)));
    let mut best = Vec::new();
    for (row, entries) in (0..).zip(rows).filter(|(row, _)| allowed.allows(RowId(*row))) {
        let common = order.iter().filter(|(index, _)| entries.contains_key(index));
        let products: Vec<f64> =
            common.map(|(index, weight)| f64::from(*weight) * f64::from(entries[index])).collect();
        if !products.is_empty() {
            let sum: f64 = products.into_iter().fold(0.0, |sum, product| sum + product);
            #[expect(clippy::cast_possible_truncation, reason = "scores are f32")]
            let score = (sum as f32).clamp(f32::MIN, f32::MAX);
            // The two zeros are one score.
            best.push((score + 0.0, row));
        }
    }
    best.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
    best
}

fn bits(best: &[(f32, u32)]) -> Found {
    best.iter().map(|(score, row)| (score.to_bits(), *row)).collect()
}

/// What values are like.
#[derive(Debug, Clone, Copy)]
enum Values {
    /// As learned ones: above zero, most of them small.
    Positive,
    /// Of both signs, few distinct ones, so that many scores are equal.
    Signed,
    /// All that f32 has.
    Wide,
    /// Large ones that cancel out and small ones that are lost beside them: a sum is another one in
    /// every order.
    Cancelling,
}

/// Numbers drawn from a seed.
struct Drawn(u64, u64);

impl Drawn {
    fn below(&mut self, bound: u64) -> u64 {
        self.1 += 1;
        hash(self.0, self.1) % bound
    }

    fn value(&mut self, values: Values) -> f32 {
        let unit = f32::from(u16::try_from(self.below(65_535) + 1).unwrap()) / 65_536.0;
        let sign = if self.below(3) == 0 { -1.0 } else { 1.0 };
        match values {
            Values::Positive => 0.05 + 3.0 * unit * unit * unit,
            Values::Signed => sign * f32::from(u8::try_from(1 + self.below(3)).unwrap()),
            Values::Cancelling if self.below(2) == 0 => sign * (1.0 + unit),
            Values::Cancelling => sign * 2.0_f32.powi(40),
            Values::Wide => {
                let exponent = i32::try_from(self.below(276)).unwrap() - 149;
                let wide = f64::from(0.5 + 0.5 * unit) * 2.0_f64.powi(exponent + 1);
                #[expect(clippy::cast_possible_truncation, reason = "values are f32")]
                let wide = sign * wide as f32;
                if wide.abs() > 0.0 && wide.is_finite() { wide } else { sign }
            }
        }
    }

    /// Entries whose small indices are frequent.
    fn entries(&mut self, count: u64, values: Values) -> Entries {
        (0..count)
            .map(|_| {
                let index = u32::try_from(2000 / (self.below(1000) + 1)).unwrap();
                // The greatest index there is among them.
                (if index == 2 { u32::MAX } else { index }, self.value(values))
            })
            .collect()
    }
}

fn values() -> impl Strategy<Value = Values> {
    prop_oneof![
        Just(Values::Positive),
        Just(Values::Signed),
        Just(Values::Wide),
        Just(Values::Cancelling),
    ]
}

/// Rows, some of them empty and some long, and a query.
fn case(rows: std::ops::Range<usize>) -> impl Strategy<Value = (Vec<Entries>, Entries)> {
    (rows, values(), any::<u64>()).prop_map(|(rows, values, seed)| {
        let mut drawn = Drawn(seed, 0);
        let row = |_row| {
            let count = if drawn.below(40) == 0 { 60 } else { drawn.below(12) };
            drawn.entries(count, values)
        };
        let rows = (0..rows).map(row).collect();
        let count = 1 + drawn.below(16);
        (rows, drawn.entries(count, values))
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn i3_the_best_rows_are_those_that_scoring_every_row_finds(
        (rows, query) in prop_oneof![case(0..40), case(300..1200), case(5000..9000)],
        k in prop_oneof![Just(0_usize), 1_usize..30, Just(20_000)],
        skipped in (0_u32..9000, 0_u32..5000),
    ) {
        let index = index_of(&rows);
        prop_assert_eq!(index.rows() as usize, rows.len());
        let entries = rows.iter().map(|row| row.len() as u64).sum::<u64>();
        prop_assert_eq!(index.entries(), entries);
        let mut allowed = RowSet::full(index.rows());
        (skipped.0..skipped.0.saturating_add(skipped.1)).for_each(|row| allowed.remove(row));
        let expected = naive(&rows, &query, &allowed);
        let query = query_of(&query);
        prop_assert_eq!(
            found(&index, &query, k, &allowed),
            bits(&expected[..k.min(expected.len())]),
        );
        for (score, row) in expected.iter().take(20) {
            let (indices, values) = parts(&rows[*row as usize]);
            let alone = query.score(SparseVector::new(&indices, &values).unwrap()).unwrap();
            prop_assert_eq!(alone.to_bits(), score.to_bits());
        }
        // Only rows that score at least as much as the middle one.
        if let Some((least, _row)) = expected.get(expected.len() / 2) {
            let mut top = TopK::reaching(k, *least);
            index.search(&query, &allowed, &mut top, |row| row.0);
            let enough: Vec<_> =
                expected.iter().copied().take_while(|(score, _)| score >= least).take(k).collect();
            prop_assert_eq!(scores(top), bits(&enough));
        }
    }

    #[test]
    fn i6_what_is_found_does_not_depend_on_how_rows_are_divided(
        (rows, query) in prop_oneof![case(1..40), case(300..1200), case(5000..9000)],
        k in 1_usize..30,
        cuts in prop::collection::vec(0_usize..9000, 0..6),
    ) {
        let query = query_of(&query);
        let whole = found(&index_of(&rows), &query, k, &AllRows);
        let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut % rows.len()).collect();
        cuts.extend([0, rows.len()]);
        cuts.sort_unstable();
        let mut merged = TopK::new(k);
        // The last first.
        for part in cuts.windows(2).rev() {
            let first = u32::try_from(part[0]).unwrap();
            let mut top = TopK::new(k);
            let index = index_of(&rows[part[0]..part[1]]);
            index.search(&query, &AllRows, &mut top, |row| first + row.0);
            merged.merge(top);
        }
        prop_assert_eq!(scores(merged), whole);
    }
}

#[test]
fn a_row_without_a_common_index_is_no_result_and_one_that_scores_below_zero_is() {
    let rows = [vec![(1, 2.0)], vec![], vec![(2, 5.0)], vec![(1, -3.0), (2, 1.0)], vec![(1, 1.0)]];
    let rows = rows.map(|row| row.into_iter().collect::<Entries>());
    let index = index_of(&rows);
    let ask = |entries: &[(u32, f32)], k| -> Vec<(f32, u32)> {
        let query = query_of(&entries.iter().copied().collect());
        let found = found(&index, &query, k, &AllRows);
        found.into_iter().map(|(score, row)| (f32::from_bits(score), row)).collect()
    };
    assert_eq!(ask(&[(1, 1.0)], 9), [(2.0, 0), (1.0, 4), (-3.0, 3)]);
    assert_eq!(ask(&[(1, -1.0)], 9), [(3.0, 3), (-1.0, 4), (-2.0, 0)]);
    assert_eq!(ask(&[(1, -1.0)], 2), [(3.0, 3), (-1.0, 4)]);
    assert_eq!(ask(&[(1, 1.0), (2, 3.0)], 9), [(15.0, 2), (2.0, 0), (1.0, 4), (0.0, 3)]);
    assert_eq!(ask(&[(3, 1.0)], 9), []);
    assert_eq!(ask(&[], 9), []);
    assert_eq!(ask(&[(1, 1.0)], 0), []);
    assert_eq!(query_of(&rows[0]).score(SparseVector::default()), None);
}

#[test]
fn rows_that_cannot_be_among_the_best_are_not_scored() {
    // What all rows have is worth little, and few have what is worth much.
    let row = |row: u32| {
        let mut entries =
            Entries::from([(1, 0.5 + 0.4 * f32::from(u8::try_from(row % 7).unwrap()))]);
        if row.is_multiple_of(997) {
            entries.insert(2, 3.0);
        }
        entries
    };
    let rows: Vec<Entries> = (0..60_000).map(row).collect();
    let index = index_of(&rows);
    let query = Entries::from([(1, 0.1), (2, 1.0)]);
    let mut top = TopK::new(10);
    let visited = index.search(&query_of(&query), &AllRows, &mut top, |row| row.0);
    let expected = naive(&rows, &query, &AllRows);
    assert_eq!(scores(top), bits(&expected[..10]));
    assert!(visited.rows < 20_000, "{visited:?}");
    assert!(visited.postings < 20_000, "{visited:?}");
}

#[test]
fn what_is_no_sparse_vector_is_refused_with_the_entry_that_is_wrong() {
    let check = |indices: &[u32], values: &[f32], expected: SparseError| {
        assert_eq!(SparseVector::new(indices, values), Err(expected));
    };
    check(&[1, 2], &[1.0], SparseError::Lengths { indices: 2, values: 1 });
    check(&[1, 2, 2], &[1.0; 3], SparseError::Duplicate { entry: 2, index: 2 });
    check(&[1, 3, 2], &[1.0; 3], SparseError::NotAscending { entry: 2, index: 2 });
    check(&[1, 3, 9], &[1.0, f32::NAN, 1.0], SparseError::NotFinite { entry: 1 });
    check(&[1, 3], &[1.0, f32::NEG_INFINITY], SparseError::NotFinite { entry: 1 });
    check(&[0, 3], &[-0.0, 1.0], SparseError::Zero { entry: 0 });
    let indices: Vec<u32> = (0..).take(ENTRIES_MAX + 1).collect();
    let values = vec![1.0; ENTRIES_MAX + 1];
    check(&indices, &values, SparseError::TooMany { entries: ENTRIES_MAX + 1 });
    let most = SparseVector::new(&indices[1..], &values[1..]).unwrap();
    assert_eq!((most.len(), most.indices()[0], most.is_empty()), (ENTRIES_MAX, 1, false));
    assert!(SparseVector::new(&[], &[]).unwrap().is_empty());
    let least = [f32::from_bits(1)];
    assert_eq!(SparseVector::new(&[u32::MAX], &least).unwrap().values(), least);
    let message = SparseError::Duplicate { entry: 2, index: 7 }.to_string();
    assert_eq!(message, "entry 2: the index 7 is there twice");
}

#[test]
fn i5_what_is_written_is_read() {
    let rows: Vec<Entries> =
        (0..500).map(|row| Drawn(7, row << 20).entries(9, Values::Wide)).collect();
    let index = index_of(&rows);
    let query = query_of(&rows[3]);
    let read = SparseIndex::open(Arc::new(index.as_bytes().to_vec())).unwrap();
    assert_eq!((read.rows(), read.entries()), (index.rows(), index.entries()));
    assert_eq!(found(&read, &query, 50, &AllRows), found(&index, &query, 50, &AllRows));
    assert_eq!(index_of(&rows).as_bytes(), index.as_bytes());
    let none = index_of(&[]);
    assert_eq!(found(&none, &query, 50, &AllRows), []);
    assert!(SparseIndex::open(Arc::new(none.as_bytes().to_vec())).is_some());
}

#[test]
fn bytes_that_are_no_index_do_not_panic() {
    let small: Vec<Entries> = [[(1, 1.0), (2, -2.0)], [(2, 3.0), (700, 1.0)], [(1, 0.5), (9, 9.0)]]
        .map(Entries::from)
        .into();
    // Full blocks, and a rest.
    let row = |row: u32| Entries::from([(1, row as f32 + 1.0), (row % 5 + 2, -1.5), (9, 0.1)]);
    let large: Vec<Entries> = (0..300).map(row).collect();
    let query = query_of(&[(1, 1.0), (2, -2.0), (3, 1.0), (9, 0.5), (700, 1.0)].into());
    for (rows, every) in [(small, 1), (large, 3)] {
        let index = index_of(&rows);
        let whole = index.as_bytes();
        for at in (0..whole.len()).step_by(every) {
            for flip in [1, 0x80, 0xff] {
                let mut bytes = whole.to_vec();
                bytes[at] ^= flip;
                let Some(index) = SparseIndex::open(Arc::new(bytes)) else { continue };
                let rows = index.rows();
                let mut allowed = RowSet::full(rows.min(4096));
                allowed.remove(1);
                for (_score, row) in found(&index, &query, 5, &allowed) {
                    assert!(row < rows && allowed.allows(RowId(row)), "byte {at}");
                }
            }
            assert!(SparseIndex::open(Arc::new(whole[..at].to_vec())).is_none());
        }
    }
}

#[test]
fn bounds_hold_whatever_the_values_are() {
    let mut drawn = Drawn(3, 0);
    for _round in 0..300 {
        let rows: Vec<Entries> =
            (0..128).map(|_row| Entries::from([(0, drawn.value(Values::Wide))])).collect();
        let index = index_of(&rows);
        // Those that are bounded too low are not found among the best.
        for weight in [1.0, -1.0, 1e-30, -3e38] {
            let query = Entries::from([(0, weight)]);
            let best = naive(&rows, &query, &AllRows)[0];
            let mut top = TopK::reaching(1, best.0);
            index.search(&query_of(&query), &AllRows, &mut top, |row| row.0);
            assert_eq!(scores(top), bits(&[best]), "{weight}");
        }
    }
}
