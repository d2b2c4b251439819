//! Rows whose vectors are the same, bit for bit.
//!
//! A graph whose nodes are all at distance 0 from each other leads nowhere: their links would all
//! be to one another. So only the first of them is a node, and the others are found with it.

use std::io;

use crate::executor::map_runs;
use crate::random::mix;
use crate::{Allowed, Executor, Malformed, RowId, SectionReader, SectionWriter, Vectors};

/// Rows hashed by one task.
const HASH_ROWS: usize = 4096;

/// For rows that have others like them: which.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Twins {
    /// The first row of each group, ascending.
    firsts: Vec<u32>,
    /// Where the group's other rows end in `others`; they begin where the group before ends.
    ends: Vec<u32>,
    /// Ascending within a group.
    others: Vec<u32>,
}

impl Twins {
    /// Finds rows with equal vectors. O(rows * dims + rows * log rows).
    pub fn find<V: Vectors + ?Sized>(vectors: &V, executor: &dyn Executor) -> Self {
        let rows = vectors.rows() as usize;
        let hashes = map_runs(executor, rows, HASH_ROWS, &|run| {
            let row = |row| RowId(u32::try_from(row).unwrap_or(u32::MAX));
            run.map(|place| hash(vectors.row(row(place)).0)).collect::<Vec<u64>>()
        });
        let mut hashed: Vec<(u64, u32)> = hashes.into_iter().flatten().zip(0..).collect();
        hashed.sort_unstable();
        let same = |a: u32, b: u32| {
            let (a, b) = (vectors.row(RowId(a)).0, vectors.row(RowId(b)).0);
            a.iter().zip(b).all(|(a, b)| a.to_bits() == b.to_bits())
        };
        let mut groups: Vec<(u32, Vec<u32>)> = Vec::new();
        for like in hashed.chunk_by(|a, b| a.0 == b.0).filter(|like| like.len() > 1) {
            let first = like[0].1;
            // Rows that only share a hash stay nodes of their own.
            let others: Vec<u32> =
                like[1..].iter().map(|(_, row)| *row).filter(|row| same(first, *row)).collect();
            if !others.is_empty() {
                groups.push((first, others));
            }
        }
        groups.sort_unstable();
        let mut twins = Self::default();
        for (first, others) in groups {
            twins.firsts.push(first);
            twins.others.extend(others);
            twins.ends.push(u32::try_from(twins.others.len()).unwrap_or(u32::MAX));
        }
        twins
    }

    pub(super) fn is_empty(&self) -> bool {
        self.firsts.is_empty()
    }

    /// The rows that are like `first`, which is the first of them.
    pub(super) fn of(&self, first: u32) -> &[u32] {
        let Ok(group) = self.firsts.binary_search(&first) else { return &[] };
        let start = group.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.others[start as usize..self.ends[group] as usize]
    }

    /// Rows that are no nodes.
    pub(super) fn others(&self) -> &[u32] {
        &self.others
    }

    pub(super) fn bytes(&self) -> usize {
        4 * (self.firsts.len() + self.ends.len() + self.others.len())
    }

    pub(super) fn write(&self, out: &mut SectionWriter<'_>) -> io::Result<()> {
        out.array(&self.firsts)?;
        out.array(&self.ends)?;
        out.array(&self.others)
    }

    pub(super) fn read(from: &mut SectionReader<'_>, rows: u32) -> Result<Self, Malformed> {
        let firsts: &[u32] = from.array("first rows")?;
        let ends: &[u32] = from.array_of("ends of groups", firsts.len())?;
        let others: &[u32] = from.array("other rows")?;
        let ordered = firsts.is_sorted_by(|a, b| a < b) && ends.is_sorted();
        let complete = ends.last().map_or(0, |end| *end as usize) == others.len();
        let within = firsts.iter().chain(others).all(|row| *row < rows);
        if !(ordered && complete && within) {
            return Err(from.malformed("groups of equal rows"));
        }
        Ok(Self { firsts: firsts.to_vec(), ends: ends.to_vec(), others: others.to_vec() })
    }
}

/// Rows that are allowed, or stand for one that is.
pub(super) struct WithTwins<'a> {
    pub(super) twins: &'a Twins,
    pub(super) allowed: &'a dyn Allowed,
}

impl Allowed for WithTwins<'_> {
    fn allows(&self, row: RowId) -> bool {
        self.allowed.allows(row)
            || self.twins.of(row.0).iter().any(|twin| self.allowed.allows(RowId(*twin)))
    }
}

fn hash(vector: &[f32]) -> u64 {
    let (pairs, rest) = vector.as_chunks::<2>();
    let pair = |[a, b]: &[f32; 2]| u64::from(a.to_bits()) << 32 | u64::from(b.to_bits());
    let hash = pairs.iter().fold(0, |hash, values| mix(hash ^ pair(values)));
    rest.iter().fold(hash, |hash, value| mix(hash ^ u64::from(value.to_bits())))
}
