//! Inverted lists: rows are grouped by the nearest of some centroids, and a search scores the rows
//! of the lists whose centroids are nearest to the query (Sivic and Zisserman, "Video Google",
//! 2003; Jegou, Douze and Schmid, "Product quantization for nearest neighbor search", 2011).
//!
//! Everything happens in one space: rows less their mean, rotated at random, unit vectors for
//! cosine. Euclidean distances there order rows as cosine and L2 do. For [`Metric::Dot`] rows are
//! grouped by Euclidean distance as well, and the lists searched are those whose centroids have the
//! largest products with the query.
//!
//! A list's rows can be scanned by codes of 4 bits for each part of their difference from the
//! centroid (a residual), some tables of the query giving an estimate of each distance, and the
//! best candidates are scored in full. The tables belong to the query alone: with `c` the centroid
//! and `r` what a row's codes say of its residual, `|q - c - r|^2` is `|q - c|^2` (of the list),
//! `|r|^2 + 2 c . r` (of the row) and `-2 q . r` (of the tables). A row's codes are scaled so that
//! its product with its own residual is right (Gao and Long, "RaBitQ", 2024), which leaves
//! estimates without bias. Centroids have codes too: which lists are near is seen in the same way.
//!
//! Invariants: a search scores at least `k` allowed rows if there are so many, and every one if all
//! lists are probed and all rows scored in full. A build depends on the rows, the configuration and
//! the seed alone (I4).

pub(crate) mod blocks;
pub(crate) mod book;
mod build;
mod cluster;
mod codec;
pub(crate) mod reservoir;
mod search;
mod space;

use crate::Metric;
use crate::pages::Pages;

use blocks::Blocks;
use book::Book;
use space::Space;

pub use build::build;
pub(crate) use build::sample;
pub use search::{Probes, Query, Scratch, Walk};

/// Lists at most: their centroids are held in full.
pub const CLUSTERS_MAX: u32 = 1 << 16;
/// Dimensions at most: as many parts as a row's codes can have.
pub const DIMS_MAX: u32 = 1 << 14;
const _: () = assert!(DIMS_MAX as usize <= arrwdb_kernel::PARTS_MAX);

/// How lists are built.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Config {
    /// How many lists, 1 to [`CLUSTERS_MAX`]; about `4 * sqrt(rows)` if not said. Fewer where fewer
    /// rows are apart.
    pub n_clusters: Option<u32>,
    /// Whether rows have codes, which a search scans instead of the rows themselves.
    pub use_pq: bool,
    /// Parts of a row that have a code of 4 bits each, 1 to the dimension; half of the dimension
    /// if not said. More cost memory and time and make estimates nearer.
    pub pq_subvectors: Option<u32>,
}

/// Why a configuration cannot be built.
#[derive(Copy, Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// The number of lists.
    #[error("n_clusters is 1 to {CLUSTERS_MAX}, not {0}")]
    Clusters(u32),
    /// The number of parts.
    #[error("pq_subvectors is 1 to the dimension {dims}, not {subvectors}")]
    Subvectors {
        /// The dimension.
        dims: usize,
        /// What was asked for.
        subvectors: u32,
    },
    /// The dimension of the rows.
    #[error("lists are of vectors of 1 to {DIMS_MAX} dimensions, not {0}")]
    Dims(usize),
}

impl Config {
    /// Whether rows of `dims` numbers can be built into lists so.
    pub fn check(&self, dims: usize) -> Result<(), ConfigError> {
        if dims == 0 || dims > DIMS_MAX as usize {
            return Err(ConfigError::Dims(dims));
        }
        match (self.n_clusters, self.pq_subvectors) {
            (Some(clusters), _) if clusters == 0 || clusters > CLUSTERS_MAX => {
                Err(ConfigError::Clusters(clusters))
            }
            (_, Some(subvectors)) if subvectors == 0 || subvectors as usize > dims => {
                Err(ConfigError::Subvectors { dims, subvectors })
            }
            _ => Ok(()),
        }
    }
}

/// Inverted lists over rows `0..rows`.
#[derive(Debug)]
pub struct Ivf {
    rows: u32,
    space: Space,
    /// What codes stand for, of rows and of centroids.
    book: Book,
    /// In the space of the lists, one after the other.
    centroids: Vec<f32>,
    /// Codes of the centroids; none if the book is too coarse to tell them apart.
    coarse: Option<Blocks>,
    /// Where each list begins in `members`, and the end of the last.
    starts: Vec<u32>,
    /// Rows, list after list, ascending within each.
    members: Pages<u32>,
    codes: Option<RowCodes>,
}

/// The codes of the rows.
#[derive(Debug)]
struct RowCodes {
    blocks: Blocks,
    /// The first block of each list, and the end of the last: lists do not share blocks.
    starts: Vec<u32>,
}

/// How many rows lists have.
#[derive(Copy, Clone, Debug, PartialEq)]
pub struct ListSizes {
    /// The shortest.
    pub min: u32,
    /// The mean.
    pub avg: f64,
    /// The longest.
    pub max: u32,
}

impl Ivf {
    /// Numbers of a vector.
    pub fn dims(&self) -> usize {
        self.space.dims()
    }

    /// How many rows there are.
    pub fn rows(&self) -> u32 {
        self.rows
    }

    /// What is near.
    pub fn metric(&self) -> Metric {
        self.space.metric()
    }

    /// How many lists there are.
    pub fn lists(&self) -> u32 {
        u32::try_from(self.starts.len() - 1).unwrap_or(u32::MAX)
    }

    /// Parts of a row's codes, where rows have codes.
    pub fn subvectors(&self) -> Option<u32> {
        self.codes.as_ref().map(|_codes| u32::try_from(self.book.parts()).unwrap_or(u32::MAX))
    }

    /// How many rows lists have; zeros if there is none.
    pub fn list_sizes(&self) -> ListSizes {
        let sizes = || self.starts.windows(2).map(|ends| ends[1] - ends[0]);
        ListSizes {
            min: sizes().min().unwrap_or(0),
            avg: f64::from(self.rows) / f64::from(self.lists().max(1)),
            max: sizes().max().unwrap_or(0),
        }
    }

    /// Bytes of a full vector for each byte of its codes; `None` if rows have no codes.
    pub fn compression_ratio(&self) -> Option<f64> {
        self.codes.as_ref()?;
        let full = self.space.dims() * size_of::<f32>();
        Some(full as f64 / self.book.row_bytes())
    }

    /// Bytes of memory.
    pub fn bytes(&self) -> usize {
        self.members.bytes()
            + size_of_val(self.starts.as_slice())
            + size_of_val(self.centroids.as_slice())
            + self.coarse.as_ref().map_or(0, Blocks::bytes)
            + self.book.bytes()
            + self.space.bytes()
            + self.code_bytes()
    }

    /// Bytes of these that are codes of rows.
    pub fn code_bytes(&self) -> usize {
        let codes = self.codes.as_ref();
        codes.map_or(0, |codes| codes.blocks.bytes() + size_of_val(codes.starts.as_slice()))
    }

    fn centroid(&self, list: u32) -> &[f32] {
        &self.centroids[list as usize * self.space.dims()..][..self.space.dims()]
    }

    fn list(&self, list: u32) -> &[u32] {
        let list = list as usize;
        &self.members[self.starts[list] as usize..self.starts[list + 1] as usize]
    }
}

#[cfg(test)]
mod tests;
