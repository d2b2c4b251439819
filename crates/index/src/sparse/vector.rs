//! Sparse vectors, checked, and what the product of two is.

use std::cmp::Reverse;

use crate::scorer::score_of_sum;

/// Entries that a sparse vector may have. Learned ones of passages have some hundreds.
pub const ENTRIES_MAX: usize = 4096;

/// Why numbers are no sparse vector. Entries are counted from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SparseError {
    /// There is not one value for each index.
    #[error("{indices} indices and {values} values; each index has one value")]
    Lengths {
        /// How many indices there are.
        indices: usize,
        /// How many values there are.
        values: usize,
    },
    /// There are too many entries.
    #[error("{entries} entries; a sparse vector has at most {ENTRIES_MAX}")]
    TooMany {
        /// How many there are.
        entries: usize,
    },
    /// An index is the one before again.
    #[error("entry {entry}: the index {index} is there twice")]
    Duplicate {
        /// The second entry that has it.
        entry: usize,
        /// The index.
        index: u32,
    },
    /// An index is below the one before.
    #[error("entry {entry}: the index {index} comes after a greater one; indices ascend")]
    NotAscending {
        /// The first such entry.
        entry: usize,
        /// Its index.
        index: u32,
    },
    /// A value is NaN or infinite.
    #[error("entry {entry}: the value is not a finite number")]
    NotFinite {
        /// The first such entry.
        entry: usize,
    },
    /// A value is zero, which is what an index has that is left out.
    #[error("entry {entry}: the value is zero; leave its index out")]
    Zero {
        /// The first such entry.
        entry: usize,
    },
}

/// A sparse vector: indices, ascending, each with a value that is finite and not zero. It may have no
/// entry.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct SparseVector<'a> {
    indices: &'a [u32],
    values: &'a [f32],
}

impl<'a> SparseVector<'a> {
    /// The vector that has `values[i]` at `indices[i]`, and zeros elsewhere; or what is wrong with the
    /// first entry that is not as it has to be. O(entries).
    pub fn new(indices: &'a [u32], values: &'a [f32]) -> Result<Self, SparseError> {
        if indices.len() != values.len() {
            let (indices, values) = (indices.len(), values.len());
            return Err(SparseError::Lengths { indices, values });
        }
        if indices.len() > ENTRIES_MAX {
            return Err(SparseError::TooMany { entries: indices.len() });
        }
        let mut before = None;
        for (entry, (index, value)) in indices.iter().copied().zip(values).enumerate() {
            if before == Some(index) {
                return Err(SparseError::Duplicate { entry, index });
            }
            if before > Some(index) {
                return Err(SparseError::NotAscending { entry, index });
            }
            if !value.is_finite() {
                return Err(SparseError::NotFinite { entry });
            }
            if value.abs() <= 0.0 {
                return Err(SparseError::Zero { entry });
            }
            before = Some(index);
        }
        Ok(Self { indices, values })
    }

    /// The indices, ascending.
    pub fn indices(self) -> &'a [u32] {
        self.indices
    }

    /// The value at each of them.
    pub fn values(self) -> &'a [f32] {
        self.values
    }

    /// How many entries there are.
    pub fn len(self) -> usize {
        self.indices.len()
    }

    /// Whether there are none.
    pub fn is_empty(self) -> bool {
        self.indices.is_empty()
    }

    /// (index, value), ascending.
    pub(super) fn entries(self) -> impl Iterator<Item = (u32, f32)> {
        self.indices.iter().copied().zip(self.values.iter().copied())
    }
}

/// A sparse vector to find the rows of the greatest products with.
#[derive(Debug, Clone, Default)]
pub struct SparseQuery {
    /// (index, value) in the order in which products are added up.
    entries: Vec<(u32, f32)>,
}

impl SparseQuery {
    /// The query for rows like `vector`. O(entries log entries).
    pub fn new(vector: SparseVector<'_>) -> Self {
        let mut entries: Vec<(u32, f32)> = vector.entries().collect();
        // The bits of numbers that are not negative are in their order.
        entries.sort_unstable_by_key(|(index, value)| (Reverse(value.abs().to_bits()), *index));
        Self { entries }
    }

    /// What a row scores, a finite number, the same bits as a search finds it with; `None` if it has no index of the
    /// query's. O(entries of the query * log of those of the row).
    pub fn score(&self, row: SparseVector<'_>) -> Option<f32> {
        let mut sum = None;
        for (index, weight) in &self.entries {
            if let Ok(place) = row.indices.binary_search(index) {
                sum = Some(sum.unwrap_or(0.0) + product(*weight, row.values[place]));
            }
        }
        sum.map(score_of_sum)
    }

    /// (index, value) in the order in which products are added up.
    pub(super) fn entries(&self) -> impl DoubleEndedIterator<Item = (u32, f32)> {
        self.entries.iter().copied()
    }
}

/// The product of two values, exact.
#[inline]
pub(super) fn product(weight: f32, value: f32) -> f64 {
    f64::from(weight) * f64::from(value)
}
