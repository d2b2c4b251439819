//! Hierarchical navigable small worlds: a graph in layers that is walked towards a query (Malkov and
//! Yashunin, "Efficient and robust approximate nearest neighbor search using hierarchical navigable
//! small world graphs", 2018).
//!
//! A graph is built once over a segment's rows and never changed, so a walk takes no lock. Rows are
//! put in by batches that all see the same graph, each batch at most a fiftieth of what is there
//! (Dobson et al., "Scaling graph-based ANNS algorithms to billion-size datasets", 2023): the
//! graph does not depend on how many threads build it (I4).

mod beam;
mod build;
mod codec;
mod reach;
mod search;
mod twins;
mod visited;

use crate::pages::Pages;
use crate::sketch::{Aim, Sketch};
use crate::{Executor, Metric, Vectors};

pub use build::build;
pub(crate) use search::SKETCH_GAIN;
pub use search::{Scratch, Toward, Wanted};
pub use twins::Twins;

/// No node: what is after a node's last link.
const NONE: u32 = u32::MAX;
/// Links of a node in an upper layer, at most.
pub const M_MAX: u32 = 128;

/// How a graph is built.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash)]
pub struct Config {
    /// Links of a node in each layer but the lowest, which has twice as many: 2 to 128. More cost
    /// memory and time and give recall, above all where vectors have many dimensions.
    pub m: u32,
    /// How many of the nearest nodes a new one chooses its links from: at least `m`. More cost
    /// time to build and give recall.
    pub ef_construction: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self { m: 16, ef_construction: 200 }
    }
}

/// A graph over rows `0..rows`.
#[derive(Debug)]
pub struct Hnsw {
    rows: u32,
    /// Links of a row in the lowest layer: `base_stride` of them a row, [`NONE`] after the last.
    base: Pages<u32>,
    base_stride: usize,
    /// The rows of the nodes of the upper layers. Layer 1 has all of them, each layer above has a
    /// part from the front; node 0 is in all, and where every walk begins.
    upper_rows: Vec<u32>,
    /// Layer 1 and those above.
    upper: Vec<Layer>,
    /// The row that a walk begins at where there are no upper layers.
    first: u32,
    /// Rows that are found with others like them.
    twins: Twins,
    /// What is known of rows before they are read; see [`crate::sketch`].
    sketch: Option<Sketch>,
}

/// A layer above the lowest. Its nodes are numbered, its links are such numbers.
#[derive(Debug)]
struct Layer {
    stride: usize,
    links: Vec<u32>,
}

impl Layer {
    fn links(&self, node: u32) -> &[u32] {
        &self.links[node as usize * self.stride..][..self.stride]
    }
}

impl Hnsw {
    /// How many rows it is over.
    pub fn rows(&self) -> u32 {
        self.rows
    }

    /// Sketches the rows, so that walks that read their vectors read fewer of them. Nothing changes
    /// where rows are too short for that.
    #[must_use]
    pub fn sketched<V: Vectors + ?Sized>(
        self,
        metric: Metric,
        vectors: &V,
        executor: &dyn Executor,
    ) -> Self {
        Self { sketch: Sketch::encode(metric, vectors, executor), ..self }
    }

    /// Whether it has sketches of its rows.
    pub(crate) fn is_sketched(&self) -> bool {
        self.sketch.is_some()
    }

    /// What a walk that reads vectors compares sketches with, where there are any.
    pub(crate) fn aim(&self, query: &[f32]) -> Option<Aim<'_>> {
        self.sketch.as_ref().map(|sketch| sketch.aim(query))
    }

    /// Bytes of memory.
    pub fn bytes(&self) -> usize {
        let upper: usize = self.upper.iter().map(|layer| layer.links.len()).sum();
        let sketch = self.sketch.as_ref().map_or(0, Sketch::bytes);
        self.base.bytes() + 4 * (upper + self.upper_rows.len()) + self.twins.bytes() + sketch
    }

    /// Links of a node in the lowest layer, on average.
    pub fn average_degree(&self) -> f64 {
        let links = self.base.iter().filter(|link| **link != NONE).count();
        links as f64 / f64::from(self.rows.max(1))
    }

    /// Nodes of each layer, the lowest first. Rows that are equal are one node.
    pub fn level_counts(&self) -> Vec<u32> {
        let upper = self
            .upper
            .iter()
            .map(|layer| u32::try_from(layer.links.len() / layer.stride).unwrap_or(u32::MAX));
        let others = u32::try_from(self.twins.others().len()).unwrap_or(self.rows);
        std::iter::once(self.rows - others).chain(upper).collect()
    }

    fn base_links(&self, row: u32) -> &[u32] {
        &self.base[row as usize * self.base_stride..][..self.base_stride]
    }
}
