//! Some rows of a segment, as one bit each.

use std::ops::Range;

use crate::{Allowed, RowId};

/// A set of rows of a segment. Operations are linear in its rows, 64 at a time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowSet {
    rows: u32,
    /// Bits past the last row are 0.
    words: Vec<u64>,
}

impl RowSet {
    /// No row of so many.
    pub fn empty(rows: u32) -> Self {
        Self { rows, words: vec![0; rows.div_ceil(u64::BITS) as usize] }
    }

    /// Every row of so many.
    pub fn full(rows: u32) -> Self {
        let mut all = Self { rows, words: vec![u64::MAX; rows.div_ceil(u64::BITS) as usize] };
        all.trim();
        all
    }

    /// How many rows the segment has.
    pub fn rows(&self) -> u32 {
        self.rows
    }

    /// How many of them are in the set.
    pub fn count(&self) -> u32 {
        self.words.iter().map(|word| word.count_ones()).sum()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.words.iter().all(|word| *word == 0)
    }

    /// Whether `row` is in the set.
    pub fn contains(&self, row: u32) -> bool {
        let word = self.words.get((row / u64::BITS) as usize);
        word.is_some_and(|word| word >> (row % u64::BITS) & 1 == 1)
    }

    /// Whether one of these rows is in the set.
    pub fn intersects(&self, rows: Range<u32>) -> bool {
        let mut row = rows.start;
        while row < rows.end.min(self.rows) {
            let word = self.words[(row / u64::BITS) as usize] >> (row % u64::BITS);
            if word != 0 {
                return word.trailing_zeros() < rows.end - row;
            }
            row = (row / u64::BITS + 1).saturating_mul(u64::BITS);
        }
        false
    }

    /// How many of these rows are in the set.
    pub fn count_within(&self, rows: Range<u32>) -> u32 {
        let end = rows.end.min(self.rows);
        if rows.start >= end {
            return 0;
        }
        let (first, last) = ((rows.start / u64::BITS) as usize, ((end - 1) / u64::BITS) as usize);
        let from = u64::MAX << (rows.start % u64::BITS);
        let to = u64::MAX >> (u64::BITS - 1 - (end - 1) % u64::BITS);
        if first == last {
            return (self.words[first] & from & to).count_ones();
        }
        let within = self.words[first + 1..last].iter().map(|word| word.count_ones());
        let ends = (self.words[first] & from).count_ones() + (self.words[last] & to).count_ones();
        ends + within.sum::<u32>()
    }

    /// Adds rows; those past the last are left out.
    pub fn insert(&mut self, rows: Range<u32>) {
        let end = rows.end.min(self.rows);
        if rows.start >= end {
            return;
        }
        let (first, last) = ((rows.start / u64::BITS) as usize, ((end - 1) / u64::BITS) as usize);
        let from = u64::MAX << (rows.start % u64::BITS);
        let to = u64::MAX >> (u64::BITS - 1 - (end - 1) % u64::BITS);
        if first == last {
            self.words[first] |= from & to;
            return;
        }
        self.words[first] |= from;
        self.words[first + 1..last].fill(u64::MAX);
        self.words[last] |= to;
    }

    /// Takes one row out.
    pub fn remove(&mut self, row: u32) {
        if let Some(word) = self.words.get_mut((row / u64::BITS) as usize) {
            *word &= !(1 << (row % u64::BITS));
        }
    }

    /// Keeps those that are in `other` too, which is of the same segment.
    pub fn intersect(&mut self, other: &Self) {
        assert_eq!(self.rows, other.rows, "sets of one segment");
        self.words.iter_mut().zip(&other.words).for_each(|(word, other)| *word &= other);
    }

    /// Adds those of `other`, which is of the same segment.
    pub fn unite(&mut self, other: &Self) {
        assert_eq!(self.rows, other.rows, "sets of one segment");
        self.words.iter_mut().zip(&other.words).for_each(|(word, other)| *word |= other);
    }

    /// Becomes the set of the other rows.
    pub fn invert(&mut self) {
        self.words.iter_mut().for_each(|word| *word = !*word);
        self.trim();
    }

    /// Keeps those that are allowed.
    pub fn retain(&mut self, allowed: &dyn Allowed) {
        for (first, word) in (0..self.rows).step_by(u64::BITS as usize).zip(&mut self.words) {
            if *word != 0 {
                *word &= allowed.word(RowId(first));
            }
        }
    }

    /// The rows of the set, ascending.
    pub fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        (0..).step_by(u64::BITS as usize).zip(&self.words).flat_map(|(first, word)| {
            let mut left = *word;
            std::iter::from_fn(move || {
                let bit = (left != 0).then(|| left.trailing_zeros())?;
                left &= left - 1;
                Some(first + bit)
            })
        })
    }

    /// Zeros past the last row.
    fn trim(&mut self) {
        let over = self.rows % u64::BITS;
        if let (Some(last), 1..) = (self.words.last_mut(), over) {
            *last &= u64::MAX >> (u64::BITS - over);
        }
    }
}

impl Allowed for RowSet {
    fn allows(&self, row: RowId) -> bool {
        self.contains(row.0)
    }

    fn word(&self, first: RowId) -> u64 {
        self.words.get((first.0 / u64::BITS) as usize).copied().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn of(rows: u32, ranges: &[(u32, u32)]) -> (RowSet, BTreeSet<u32>) {
        let (mut set, mut model) = (RowSet::empty(rows), BTreeSet::new());
        for (first, len) in ranges {
            set.insert(*first..first.saturating_add(*len));
            model.extend(*first..(first + len).min(rows).max(*first));
        }
        model.retain(|row| *row < rows);
        (set, model)
    }

    fn ranges() -> impl Strategy<Value = Vec<(u32, u32)>> {
        prop::collection::vec((0_u32..300, 0_u32..150), 0..6)
    }

    proptest! {
        #[test]
        fn a_set_of_rows_is_a_set(rows in 0_u32..300, a in ranges(), b in ranges()) {
            let ((mut set, mut model), (other, others)) = (of(rows, &a), of(rows, &b));
            let same = |set: &RowSet, model: &BTreeSet<u32>| {
                let all = RowId(0).0..rows + 70;
                set.iter().eq(model.iter().copied())
                    && set.count() as usize == model.len()
                    && set.is_empty() == model.is_empty()
                    && all.clone().all(|row| set.contains(row) == model.contains(&row))
                    && all.step_by(64).all(|row| {
                        let word = (0..64).map(|bit| u64::from(set.allows(RowId(row + bit))) << bit);
                        word.sum::<u64>() == set.word(RowId(row))
                    })
            };
            prop_assert!(same(&set, &model));
            let (mut both, mut kept) = (set.clone(), set.clone());
            both.intersect(&other);
            kept.retain(&other);
            prop_assert_eq!(&both, &kept);
            prop_assert!(same(&both, &(&model & &others)));
            set.unite(&other);
            model.extend(&others);
            prop_assert!(same(&set, &model));
            set.invert();
            model = (0..rows).filter(|row| !model.contains(row)).collect();
            prop_assert!(same(&set, &model));
            for row in model.iter().copied().step_by(2).collect::<Vec<_>>() {
                set.remove(row);
                model.remove(&row);
            }
            set.remove(rows + 100);
            prop_assert!(same(&set, &model));
            for (first, len) in &b {
                let within = model.range(*first..first + len).next().is_some();
                prop_assert_eq!(set.intersects(*first..first + len), within);
                let count = model.range(*first..first + len).count();
                prop_assert_eq!(set.count_within(*first..first + len) as usize, count);
            }
            prop_assert!(same(&RowSet::full(rows), &(0..rows).collect()));
        }
    }
}
