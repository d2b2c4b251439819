//! Tables of hashes that near rows share: locality-sensitive hashing by random hyperplanes
//! (Charikar, "Similarity estimation techniques from rounding algorithms", 2002), with buckets
//! visited in the order in which they are likely to hold what is near (Lv et al., "Multi-probe LSH:
//! efficient indexing for high-dimensional similarity search", 2007).
//!
//! A bit of a hash is the side of a hyperplane that a row is on, so hashes are about angles. What
//! is hashed is therefore not the row itself:
//!
//! - by cosine the row made a unit vector, from the mean of those;
//! - by Euclidean distance the row, from the mean of rows: around it, what is near is in the same
//!   direction;
//! - by inner product the row divided by the largest length, with one number more that makes it a
//!   unit vector (Neyshabur and Srebro, "On symmetric and asymmetric LSHs for inner product search",
//!   2015), from the mean of those. The query is made a unit vector, with 0 for that number.
//!
//! It is rounded to whole numbers and so are the hyperplanes: hashes have the same bits on every
//! machine (I4). The hyperplanes follow from the seed and are not stored.

mod build;
mod file;
mod hashing;
mod probing;
mod search;

use hashing::Hashing;

pub use build::build;

/// How the tables are made.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash)]
pub struct Config {
    num_tables: u32,
    hash_size: u32,
}

/// Tables at most.
const TABLES_MAX: u32 = 64;
/// Bits of a hash at most.
const BITS_MAX: u32 = 24;

impl Config {
    /// `num_tables` tables (1 to 64) of hashes of `hash_size` bits (1 to 24); `None` outside of
    /// that. More tables cost memory, 4 bytes a row each, and give recall. With more bits buckets
    /// have fewer rows: about as many bits as the logarithm of the rows serve best.
    pub fn new(num_tables: u32, hash_size: u32) -> Option<Self> {
        let fits = (1..=TABLES_MAX).contains(&num_tables) && (1..=BITS_MAX).contains(&hash_size);
        fits.then_some(Self { num_tables, hash_size })
    }

    /// How many tables there are.
    pub fn num_tables(self) -> u32 {
        self.num_tables
    }

    /// Bits of a hash.
    pub fn hash_size(self) -> u32 {
        self.hash_size
    }
}

impl Default for Config {
    fn default() -> Self {
        Self { num_tables: 10, hash_size: 10 }
    }
}

/// How much a search looks at.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash)]
pub struct Probes {
    /// Allowed rows that are scored before it is enough. At least as many as are wanted: so many
    /// are found where there are so many, but for those beyond the threshold.
    pub candidates: usize,
    /// How many rows are allowed. Where that is not nearly all, and clearly fewer of the rows that are met
    /// are allowed than of all, what is allowed is not where the query is, and the buckets that seem
    /// promising are not: the rest is then scanned.
    pub allowed_rows: Option<u32>,
}

/// Candidates for each row wanted, at least, and at least one row in so many: buckets grow with the
/// rows, and so does what must be looked at to see the promising ones of every table.
const CANDIDATES_PER_K: usize = 20;
const CANDIDATES_MIN: usize = 1000;
const ROWS_PER_CANDIDATE: usize = 25;

impl Probes {
    /// What serves well to find `k` of `rows` rows.
    pub fn of_k(k: usize, rows: u32) -> Self {
        let part = rows as usize / ROWS_PER_CANDIDATE;
        let candidates = k.saturating_mul(CANDIDATES_PER_K).max(CANDIDATES_MIN).max(part);
        Self { candidates, allowed_rows: None }
    }

    /// So many candidates, and at least `k`.
    pub fn new(k: usize, candidates: usize) -> Self {
        Self { candidates: candidates.max(k), allowed_rows: None }
    }

    /// The same, where so many rows are allowed.
    #[must_use]
    pub fn among(self, allowed_rows: u32) -> Self {
        Self { allowed_rows: Some(allowed_rows), ..self }
    }
}

/// Tables over rows `0..rows`.
#[derive(Clone, Debug, PartialEq)]
pub struct Lsh {
    rows: u32,
    config: Config,
    seed: u64,
    hashing: Hashing,
    tables: Vec<Table>,
}

/// The rows by their hashes.
#[derive(Clone, Debug, PartialEq)]
struct Table {
    /// The hashes there are, ascending.
    codes: Vec<u32>,
    /// Where each one's rows begin, and the number of rows.
    starts: Vec<u32>,
    rows: Vec<u32>,
}

impl Table {
    /// The rows with a hash.
    fn bucket(&self, code: u32) -> &[u32] {
        let Ok(place) = self.codes.binary_search(&code) else { return &[] };
        &self.rows[self.starts[place] as usize..self.starts[place + 1] as usize]
    }
}

impl Lsh {
    /// How many rows it is over.
    pub fn rows(&self) -> u32 {
        self.rows
    }

    /// How the tables were made.
    pub fn config(&self) -> Config {
        self.config
    }

    /// Buckets that have rows, of all tables. Each table has every row in one of its own.
    pub fn buckets(&self) -> usize {
        self.tables.iter().map(|table| table.codes.len()).sum()
    }

    /// Bytes of memory.
    pub fn bytes(&self) -> usize {
        let of_table = |table: &Table| 2 * table.codes.len() + 1 + table.rows.len();
        4 * self.tables.iter().map(of_table).sum::<usize>() + self.hashing.bytes()
    }
}

#[cfg(test)]
mod tests;
