//! The structure of one segment: built, searched, written and read.

use std::cell::RefCell;
use std::io;

use crate::codes::{Bits, ScalarCodes, Space};
use crate::full_space::FullSpace;
use crate::hnsw::{self, Hnsw};
use crate::{
    Allowed, Executor, IndexSpec, Malformed, Metric, Quantization, RowId, Scorer, SectionReader,
    SectionWriter, Structure, TopK, VectorScorer, Vectors, brute_force,
};

/// The seed of every build: a structure depends on its rows and what was asked for alone.
const SEED: u64 = 0x5eed;
/// A walk among few allowed rows may score one row in so many of them before all of them are
/// scored instead: a scan takes rows in order, which is quicker by about this factor.
const SCAN_GAIN: u64 = 2;
/// Candidates that scalar codes give for each result: the codes err a little, so the last of the
/// nearest are decided by the vectors.
const SCALAR_CANDIDATES: usize = 2;

/// How hard one search tries, where it says so itself.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub struct Tuning {
    /// In place of the library's `ef_search`.
    pub ef_search: Option<u32>,
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
    /// Segments whose allowed rows were all scored.
    pub scanned: u32,
}

impl Effort {
    /// Adds what another search, or another part of this one, did.
    pub fn add(&mut self, other: Self) {
        self.vectors += other.vectors;
        self.codes += other.codes;
        self.walked += other.walked;
        self.scanned += other.scanned;
    }
}

/// What a segment is searched by, beside its vectors.
#[derive(Debug)]
pub struct SegmentIndex {
    metric: Metric,
    spec: IndexSpec,
    rows: u32,
    graph: Option<Hnsw>,
    codes: Option<ScalarCodes>,
}

thread_local! {
    /// A walk's memory, kept by each thread that searches: a bit for each row of the largest
    /// segment it has searched, and some kilobytes.
    static SCRATCH: RefCell<hnsw::Scratch> = RefCell::default();
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
        let encode = |bits| ScalarCodes::encode(metric, bits, vectors, SEED, executor);
        let codes = spec.quantization.bits().map(encode);
        let graph = match spec.structure {
            Structure::BruteForce => None,
            Structure::Hnsw { build, .. } => {
                let comparable = |codes: &&ScalarCodes| codes.bits() == Bits::Eight;
                let full = FullSpace::new(metric, vectors);
                let temporary;
                // A graph over codes is as good, and its build reads a quarter of the bytes.
                let space: &dyn Space = match codes.as_ref().filter(comparable) {
                    _ if metric == Metric::Dot => &full,
                    Some(codes) => codes,
                    None => {
                        temporary = encode(Bits::Eight);
                        &temporary
                    }
                };
                Some(hnsw::build(space, build, SEED, executor))
            }
        };
        Self { metric, spec, rows: vectors.rows(), graph, codes }
    }

    /// What it was built as.
    pub fn spec(&self) -> IndexSpec {
        self.spec
    }

    /// Bytes of memory.
    pub fn bytes(&self) -> usize {
        let graph = self.graph.as_ref().map_or(0, Hnsw::bytes);
        graph + self.code_bytes()
    }

    /// Bytes of these that rows are scored by in place of their vectors; 0 without codes.
    pub fn code_bytes(&self) -> usize {
        self.codes.as_ref().map_or(0, ScalarCodes::bytes)
    }

    /// The graph, where it has one.
    pub fn graph(&self) -> Option<&Hnsw> {
        self.graph.as_ref()
    }

    /// Offers the nearest of the `allowed_rows` rows that `allowed` has to `top`, under the key
    /// `key(row)`: at least `k` of them, where there are so many. The distances are those of the
    /// full vectors, as a [`VectorScorer`] gives them.
    pub fn search<V: Vectors + ?Sized, T: Ord + Copy>(
        &self,
        request: Request<'_, V>,
        top: &mut TopK<T>,
        key: impl Fn(RowId) -> T,
    ) -> Effort {
        let full = VectorScorer::new(self.metric, request.query, request.vectors);
        let mut effort = Effort::default();
        let found = match self.graph.as_ref().filter(|_graph| !request.tuning.exact) {
            Some(graph) if request.allowed_rows > 0 => SCRATCH
                .with_borrow_mut(|scratch| self.walk(graph, &full, request, scratch, &mut effort)),
            _ => None,
        };
        match found {
            Some(found) => {
                effort.walked = 1;
                for (distance, row) in found {
                    top.push(distance, key(row));
                }
            }
            None => {
                effort.scanned = 1;
                effort.vectors += u64::from(request.allowed_rows);
                brute_force::search(&full, 0..self.rows, request.allowed, top, key);
            }
        }
        effort
    }

    /// The nearest rows that a walk finds; `None` where scoring every allowed row is quicker, or
    /// needed to find enough.
    fn walk<V: Vectors + ?Sized>(
        &self,
        graph: &Hnsw,
        full: &VectorScorer<'_, V>,
        request: Request<'_, V>,
        scratch: &mut hnsw::Scratch,
        effort: &mut Effort,
    ) -> Option<Vec<(f32, RowId)>> {
        let k = request.k.min(request.allowed_rows as usize);
        let candidates = self.candidates(request.k);
        let ef = self.ef(request).max(candidates);
        // A walk scores some ten rows for each that it keeps: with fewer rows a scan is quicker.
        if ef.saturating_mul(8) >= request.allowed_rows as usize {
            return None;
        }
        let code_scorer = self.codes.as_ref().map(|codes| codes.scorer(request.query));
        let scorer: &dyn Scorer = code_scorer.as_ref().map_or(full, |scorer| scorer);
        let mut nearest = TopK::new(candidates);
        let scored = if request.allowed_rows == self.rows {
            Some(graph.search(scorer, ef, scratch, &mut nearest, |row| row))
        } else {
            let scored_max = u64::from(request.allowed_rows) / SCAN_GAIN;
            let wanted = hnsw::Wanted { ef, allowed: request.allowed, scored_max };
            graph.search_allowed(scorer, wanted, scratch, &mut nearest, |row| row)
        };
        let spent = if code_scorer.is_some() { &mut effort.codes } else { &mut effort.vectors };
        *spent += scratch.scored();
        scored?;
        if nearest.len() < k {
            return None;
        }
        let nearest = nearest.into_sorted();
        if code_scorer.is_none() {
            return Some(nearest);
        }
        let rows: Vec<RowId> = nearest.into_iter().map(|(_distance, row)| row).collect();
        let mut distances = vec![0.0; rows.len()];
        full.score(&rows, &mut distances);
        effort.vectors += rows.len() as u64;
        Some(distances.into_iter().zip(rows).collect())
    }

    fn ef<V: ?Sized>(&self, request: Request<'_, V>) -> usize {
        let usual = match request.spec.structure {
            Structure::Hnsw { ef_search, .. } => ef_search,
            Structure::BruteForce => 0,
        };
        request.tuning.ef_search.unwrap_or(usual) as usize
    }

    /// How many rows a walk has to give for `k` results.
    fn candidates(&self, k: usize) -> usize {
        match self.spec.quantization {
            Quantization::None => k,
            Quantization::Scalar { .. } => k.saturating_mul(SCALAR_CANDIDATES),
            Quantization::Hybrid { rerank_top_k, .. } => k.max(rerank_top_k as usize),
        }
    }

    /// Writes the structure.
    pub fn write(&self, out: &mut SectionWriter<'_>) -> io::Result<()> {
        if let Some(codes) = &self.codes {
            codes.write(out)?;
        }
        match &self.graph {
            Some(graph) => graph.write(out),
            None => Ok(()),
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
        let bits = spec.quantization.bits();
        let codes = bits.map(|_bits| ScalarCodes::read(from, metric, dims, rows)).transpose()?;
        if codes.as_ref().map(ScalarCodes::bits) != bits {
            return Err(from.malformed("codes of other bits"));
        }
        let graph = match spec.structure {
            Structure::BruteForce => None,
            Structure::Hnsw { .. } => Some(Hnsw::read(from, rows)?),
        };
        from.end()?;
        Ok(Self { metric, spec, rows, graph, codes })
    }
}

/// A search of one segment.
pub struct Request<'a, V: ?Sized> {
    /// The segment's vectors.
    pub vectors: &'a V,
    /// For [`Metric::Cosine`] a unit vector.
    pub query: &'a [f32],
    /// How many of the nearest.
    pub k: usize,
    /// What the library asks for now; how it is searched counts.
    pub spec: IndexSpec,
    /// What this search asks for.
    pub tuning: Tuning,
    /// Rows that may be answered.
    pub allowed: &'a dyn Allowed,
    /// How many those are.
    pub allowed_rows: u32,
}

impl<V: ?Sized> Clone for Request<'_, V> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<V: ?Sized> Copy for Request<'_, V> {}

impl<V: ?Sized> std::fmt::Debug for Request<'_, V> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Request").field("k", &self.k).finish_non_exhaustive()
    }
}
