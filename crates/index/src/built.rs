//! The structure of one segment: built, searched, written and read.

mod scan;
mod search;

use std::io;

pub use search::Request;

use crate::codes::{Access, Bits, Codes, Errors, ScalarCodes, Space};
use crate::full_space::FullSpace;
use crate::hnsw::{self, Hnsw, Twins};
use crate::ivf::{self, Ivf};
use crate::kd_tree::{self, KdTree};
use crate::lsh::{self, Lsh};
use crate::telling::tells_apart;
use crate::{
    Executor, IndexSpec, Malformed, Metric, SectionReader, SectionWriter, Structure, Vectors,
};

/// The seed of every build: a structure depends on its rows and what was asked for alone.
const SEED: u64 = 0x5eed;
/// How hard one search tries, where it says so itself.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub struct Tuning {
    /// In place of the library's `ef_search`.
    pub ef_search: Option<u32>,
    /// In place of the library's `nprobe`.
    pub nprobe: Option<u32>,
    /// In place of what suits k: how many rows tables of hashes give to be scored.
    pub candidates: Option<u32>,
    /// In place of what suits k and the codes: among how many rows the vectors decide, where a
    /// structure finds them by codes.
    pub rerank: Option<u32>,
    /// Every row is scored.
    pub exact: bool,
}

/// What a search did.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub struct Effort {
    /// Rows scored by their vectors.
    pub vectors: u64,
    /// Rows scored by their codes.
    pub codes: u64,
    /// Segments searched through their structure.
    pub walked: u32,
    /// Segments whose allowed rows were all scored, or ruled out by what is known of them.
    pub scanned: u32,
    /// Segments whose structure was of no use for this query, so that the rest of their rows was
    /// scanned.
    pub fell_back: u32,
}

impl Effort {
    /// Adds what another search, or another part of this one, did.
    pub fn add(&mut self, other: Self) {
        self.vectors += other.vectors;
        self.codes += other.codes;
        self.walked += other.walked;
        self.scanned += other.scanned;
        self.fell_back += other.fell_back;
    }
}

/// A figure of a structure, and what it is of several structures together.
#[derive(Copy, Clone, Debug, PartialEq)]
pub struct Figure {
    /// Its name in statistics.
    pub name: &'static str,
    /// Of one structure.
    pub value: f64,
    /// How it is joined with others.
    pub joined: Joined,
}

/// What a figure is of several structures together.
#[derive(Copy, Clone, Debug, PartialEq)]
pub enum Joined {
    /// The least of all.
    Least,
    /// The greatest of all.
    Greatest,
    /// All together.
    Sum,
    /// The mean, in which each counts by its weight.
    Mean {
        /// That of this structure.
        weight: f64,
    },
}

impl Figure {
    fn new(name: &'static str, value: f64, joined: Joined) -> Self {
        Self { name, value, joined }
    }

    /// Of this structure and another together.
    #[must_use]
    pub fn with(self, other: Self) -> Self {
        let (value, joined) = match (self.joined, other.joined) {
            (Joined::Least, _) => (self.value.min(other.value), self.joined),
            (Joined::Greatest, _) => (self.value.max(other.value), self.joined),
            (Joined::Mean { weight: own }, Joined::Mean { weight }) => {
                let sum = self.value * own + other.value * weight;
                (sum / (own + weight).max(f64::MIN_POSITIVE), Joined::Mean { weight: own + weight })
            }
            (Joined::Sum | Joined::Mean { .. }, _) => (self.value + other.value, self.joined),
        };
        Self { name: self.name, value, joined }
    }
}

/// What a segment is searched by, beside its vectors.
#[derive(Debug)]
pub struct SegmentIndex {
    metric: Metric,
    spec: IndexSpec,
    rows: u32,
    kind: Kind,
    codes: Option<Codes>,
}

/// The structure itself.
#[derive(Debug)]
enum Kind {
    /// None: rows are taken one after the other.
    Scan,
    KdTree(KdTree),
    Lsh(Lsh),
    Hnsw(Hnsw),
    Ivf(Ivf),
}

impl SegmentIndex {
    /// Builds what `spec` asks for over the rows. The same for the same rows and spec, on any
    /// number of threads (I4).
    pub fn build<V: Vectors + ?Sized>(
        spec: IndexSpec,
        metric: Metric,
        vectors: &V,
        executor: &dyn Executor,
    ) -> Self {
        let codes = spec
            .quantization
            .scheme()
            .map(|scheme| Codes::encode(scheme, metric, access_of(spec), vectors, executor));
        let kind = match spec.structure {
            Structure::BruteForce => Kind::Scan,
            Structure::KdTree { .. } => {
                Kind::KdTree(kd_tree::build(metric, vectors, kd_tree::Config::default(), executor))
            }
            Structure::Lsh { build } => {
                Kind::Lsh(lsh::build(metric, vectors, build, SEED, executor))
            }
            Structure::Ivf { build, .. } => {
                Kind::Ivf(ivf::build(metric, vectors, build, SEED, executor))
            }
            Structure::Hnsw { build, .. } => {
                let full = FullSpace::new(metric, vectors);
                let temporary;
                let coded: Option<&dyn Space> = match codes.as_ref().and_then(Codes::comparable) {
                    _ if metric == Metric::Dot => None,
                    Some(codes) => Some(codes),
                    None => {
                        let (bits, errors) = (Bits::Eight, Errors::Omitted);
                        temporary = ScalarCodes::encode(metric, bits, errors, vectors, executor);
                        Some(&temporary)
                    }
                };
                // A graph over codes is as good where they tell near rows apart, and its build reads a
                // quarter of the bytes.
                let coded = coded.filter(|codes| tells_apart(*codes, &full, executor));
                let space: &dyn Space = coded.unwrap_or(&full);
                let twins = Twins::find(vectors, executor);
                let graph = hnsw::build(space, twins, build, SEED, executor);
                // A walk over codes reads no vectors.
                let reads_vectors = codes.is_none() && !executor.stopped();
                Kind::Hnsw(if reads_vectors {
                    graph.sketched(metric, vectors, executor)
                } else {
                    graph
                })
            }
        };
        Self { metric, spec, rows: vectors.rows(), kind, codes }
    }

    /// Whether a search takes the rows one after the other, so that parts of them can be searched
    /// apart.
    pub fn is_scan(&self) -> bool {
        matches!(self.kind, Kind::Scan)
    }

    /// The metric that it was built for.
    pub fn metric(&self) -> Metric {
        self.metric
    }

    /// What it was built as.
    pub fn spec(&self) -> IndexSpec {
        self.spec
    }

    /// Bytes of memory.
    pub fn bytes(&self) -> usize {
        let structure = match &self.kind {
            Kind::Scan => 0,
            Kind::KdTree(tree) => tree.bytes(),
            Kind::Lsh(tables) => tables.bytes(),
            Kind::Hnsw(graph) => graph.bytes(),
            Kind::Ivf(lists) => lists.bytes(),
        };
        structure + self.codes.as_ref().map_or(0, Codes::bytes)
    }

    /// Bytes of these that rows are scored by in place of their vectors; 0 without codes.
    pub fn code_bytes(&self) -> usize {
        // Lists may have codes of their own.
        let listed = if let Kind::Ivf(lists) = &self.kind { lists.code_bytes() } else { 0 };
        listed + self.codes.as_ref().map_or(0, Codes::bytes)
    }

    /// The graph, where it has one.
    pub fn graph(&self) -> Option<&Hnsw> {
        if let Kind::Hnsw(graph) = &self.kind { Some(graph) } else { None }
    }

    /// Figures of the structure, as statistics report them; those of its graph are
    /// [`SegmentIndex::graph`]'s.
    pub fn figures(&self) -> Vec<Figure> {
        let rows = f64::from(self.rows);
        match &self.kind {
            Kind::Scan | Kind::Hnsw(_) => Vec::new(),
            Kind::KdTree(tree) => {
                vec![Figure::new("tree_depth", f64::from(tree.depth()), Joined::Greatest)]
            }
            Kind::Lsh(tables) => {
                let buckets = tables.buckets() as f64;
                let average = rows * f64::from(tables.config().num_tables()) / buckets.max(1.0);
                vec![
                    Figure::new("total_buckets", buckets, Joined::Sum),
                    Figure::new("avg_bucket_size", average, Joined::Mean { weight: buckets }),
                ]
            }
            Kind::Ivf(lists) => {
                let (count, sizes) = (f64::from(lists.lists()), lists.list_sizes());
                let average = Joined::Mean { weight: count };
                let mut figures = vec![
                    Figure::new("lists", count, Joined::Sum),
                    Figure::new("min_list_size", f64::from(sizes.min), Joined::Least),
                    Figure::new("avg_list_size", sizes.avg, average),
                    Figure::new("max_list_size", f64::from(sizes.max), Joined::Greatest),
                ];
                // Of all codes together: each segment's ratio counts by the bytes of its codes.
                figures.extend(lists.compression_ratio().map(|ratio| {
                    Figure::new("compression_ratio", ratio, Joined::Mean { weight: rows / ratio })
                }));
                figures
            }
        }
    }

    /// Writes the structure.
    pub fn write(&self, out: &mut SectionWriter<'_>) -> io::Result<()> {
        if let Some(codes) = &self.codes {
            codes.write(out)?;
        }
        match &self.kind {
            Kind::Scan => Ok(()),
            Kind::KdTree(tree) => tree.write(out),
            Kind::Lsh(tables) => tables.write(out),
            Kind::Hnsw(graph) => graph.write(out),
            Kind::Ivf(lists) => lists.write(out),
        }
    }

    /// Reads the structure that was built as `spec` says over so many rows.
    pub fn read(
        from: &mut SectionReader<'_>,
        spec: IndexSpec,
        metric: Metric,
        dims: usize,
        rows: u32,
    ) -> Result<Self, Malformed> {
        let codes = spec
            .quantization
            .scheme()
            .map(|scheme| Codes::read(from, (scheme, access_of(spec)), metric, dims, rows))
            .transpose()?;
        let kind = match spec.structure {
            Structure::BruteForce => Kind::Scan,
            Structure::KdTree { .. } => Kind::KdTree(KdTree::read(from, metric, rows, dims)?),
            Structure::Lsh { .. } => Kind::Lsh(Lsh::read(from, metric, rows, dims)?),
            Structure::Hnsw { .. } => Kind::Hnsw(Hnsw::read(from, metric, dims, rows)?),
            Structure::Ivf { .. } => {
                let lists = Ivf::read(from, rows)?;
                if (lists.metric(), lists.dims()) != (metric, dims) {
                    return Err(from.malformed("lists of other vectors"));
                }
                Kind::Ivf(lists)
            }
        };
        from.end()?;
        Ok(Self { metric, spec, rows, kind, codes })
    }
}

/// How the codes of a structure's rows are read.
fn access_of(spec: IndexSpec) -> Access {
    match spec.structure {
        Structure::BruteForce => Access::Scanned,
        Structure::KdTree { .. }
        | Structure::Lsh { .. }
        | Structure::Hnsw { .. }
        | Structure::Ivf { .. } => Access::Picked,
    }
}

#[cfg(test)]
mod tests;
