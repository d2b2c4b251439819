//! Searching one segment by its structure.

use std::cell::RefCell;
use std::mem::discriminant;

use super::{Effort, Kind, SegmentIndex, Tuning};
use crate::allowed::NEARLY_ALL;
use crate::codes::CodesScorer;
use crate::lsh::Probes;
use crate::walk::Walk;
use crate::{
    Allowed, IndexSpec, Quantization, Query, RowId, Scorer, Structure, TopK, VectorScorer, Vectors,
    hnsw, ivf,
};

/// A walk among few allowed rows may score one row in so many of them before all of them are
/// scored instead: a scan takes rows in order, which is quicker by about this factor.
const SCAN_GAIN: u64 = 2;
/// A walk scores so many rows for each that it keeps, so that with fewer rows a scan is quicker.
const SCORED_PER_KEPT: usize = 8;
/// A walk by codes among some of the rows may score so many of them for each row that it keeps and
/// each link of a row. One that needs more goes through rows that are near and not allowed: of what
/// lies behind them too many are about as far as the nearest for codes to tell them apart.
const SCORED_PER_LINK: f64 = 3.0;
/// And so many more on its way down.
const DESCENT_SCORED: u64 = 1000;
/// Fewer allowed rows are scanned: finding the lists would take longer.
const LISTED_ROWS_MIN: usize = 1024;
/// Rows whose vectors decide, for each result, where lists have codes; and at least.
const RERANKED_PER_RESULT: usize = 4;
const RERANKED_MIN: usize = 20;
/// A wider walk spends its time on keeping its rows in order, and a scan is quicker.
const WIDTH_MAX: usize = 4096;
/// Candidates whose vectors are read at a time: what the nearest of them tell rules out many of the
/// others.
const DECIDED_ROWS: usize = 16;
/// Candidates that scalar codes give for each result: the codes err a little, so the last of the
/// nearest are decided by the vectors.
const SCALAR_CANDIDATES: usize = 2;

thread_local! {
    /// A walk's memory, kept by each thread that searches: a bit for each row of the largest
    /// segment it has searched, and some kilobytes.
    static SCRATCH: RefCell<hnsw::Scratch> = RefCell::default();
    /// The same for inverted lists: some numbers for each list.
    static LISTS: RefCell<ivf::Scratch> = RefCell::default();
}

/// A search of one segment.
pub struct Request<'a, V: ?Sized> {
    /// The segment's vectors.
    pub vectors: &'a V,
    /// The rows to be searched, from the first to before the second: all, unless
    /// [`SegmentIndex::is_scan`].
    pub rows: (u32, u32),
    /// For [`crate::Metric::Cosine`] a unit vector.
    pub query: &'a [f32],
    /// How many of the nearest.
    pub k: usize,
    /// What the library asks for at present; how it is searched counts.
    pub spec: IndexSpec,
    /// What this search asks for.
    pub tuning: Tuning,
    /// Rows that may be answered.
    pub allowed: &'a dyn Allowed,
    /// How many those are of all rows.
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

impl SegmentIndex {
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
        let whole = request.rows == (0, self.rows) && request.allowed_rows > 0;
        if whole && !self.is_every_row_asked(&request) && !self.is_scan() {
            if let Kind::KdTree(tree) = &self.kind {
                let walk = tree.search(query(&full, request), top, key);
                effort.walked = 1;
                effort.vectors += walk.scored;
                effort.fell_back = u32::from(walk.fell_back);
                return effort;
            }
            if let Some(found) = self.nearest(&full, request, &mut effort) {
                effort.walked = 1;
                for (distance, row) in found {
                    top.push(distance, key(row));
                }
                return effort;
            }
        }
        // What a walk did that was given up is work all the same.
        effort.add(self.scan(&full, request, top, key));
        effort
    }

    /// Whether what may miss rows must not be used: this search says so, or the library asks for a
    /// structure that misses none, which this one is about to be replaced by.
    pub(super) fn is_every_row_asked<V: ?Sized>(&self, request: &Request<'_, V>) -> bool {
        request.tuning.exact || (request.spec.is_exact() && !self.spec.is_exact())
    }

    /// The nearest rows that the structure finds, with their distances; `None` where scoring every
    /// allowed row is quicker, or needed to find enough.
    fn nearest<V: Vectors + ?Sized>(
        &self,
        full: &VectorScorer<'_, V>,
        request: Request<'_, V>,
        effort: &mut Effort,
    ) -> Option<Vec<(f32, RowId)>> {
        let codes = self.codes.as_ref().map(|codes| codes.scorer(request.query));
        let scorer = codes.as_ref().and_then(CodesScorer::scorer).unwrap_or(full);
        let mut nearest = TopK::new(self.candidates(request));
        let (ended, walk) = match &self.kind {
            Kind::Scan | Kind::KdTree(_) => (false, Walk::default()),
            Kind::Lsh(tables) => {
                let usual = Probes::of_k(request.k, self.rows);
                let asked = request.tuning.candidates;
                let probes = asked.map_or(usual, |rows| Probes::new(request.k, rows as usize));
                let probes = probes.among(request.allowed_rows);
                let walk = tables.search(query(scorer, request), probes, &mut nearest, |row| row);
                // What is left of the rows was scanned by codes. Where those near to the query are
                // not allowed, too many of the others are about as near for codes to tell apart.
                let some = self.share(request) < NEARLY_ALL;
                (!(walk.fell_back && some && codes.is_some()), walk)
            }
            Kind::Hnsw(graph) => {
                // Codes are read as quickly as sketches.
                let aim = if codes.is_some() { None } else { graph.aim(request.query) };
                let toward = hnsw::Toward { scorer, aim: aim.as_ref() };
                let (ended, walk, sketches) = self.walk(graph, toward, request, &mut nearest);
                effort.codes += sketches;
                (ended, walk)
            }
            Kind::Ivf(lists) => {
                let asked = (request, self.nprobe(request));
                let (ended, walk, codes) = probe(lists, scorer, asked, &mut nearest);
                effort.codes += codes;
                (ended, walk)
            }
        };
        effort.fell_back = u32::from(walk.fell_back);
        let spent = if codes.is_some() { &mut effort.codes } else { &mut effort.vectors };
        *spent += walk.scored;
        if !ended || nearest.len() < request.k.min(request.allowed_rows as usize) {
            return None;
        }
        let nearest = nearest.into_sorted();
        Some(match &codes {
            Some(codes) => decide(codes, full, &nearest, request.k, effort),
            None => nearest,
        })
    }

    /// Walks the graph: whether it came to an end, and what that took, with the sketches that it
    /// looked at. Where a scan is better it does not begin.
    fn walk<V: ?Sized>(
        &self,
        graph: &hnsw::Hnsw,
        toward: hnsw::Toward<'_>,
        request: Request<'_, V>,
        nearest: &mut TopK<RowId>,
    ) -> (bool, Walk, u64) {
        let ef = self.width(request);
        // What a scan of the rows takes, in rows scored.
        let some = request.allowed_rows < self.rows;
        let gain = if some && self.is_scouted(&request) { hnsw::SKETCH_GAIN } else { 1 };
        let scan = u64::from(request.allowed_rows) / gain;
        let few = ef.saturating_mul(SCORED_PER_KEPT) as u64 >= scan;
        if few || ef > WIDTH_MAX {
            return (false, Walk::default(), 0);
        }
        SCRATCH.with_borrow_mut(|scratch| {
            let ended = if some {
                let scored_max = scan / SCAN_GAIN;
                let scored_max = match (self.spec.structure, &self.codes) {
                    (Structure::Hnsw { build, .. }, Some(_codes)) => {
                        let links = SCORED_PER_LINK * f64::from(build.m);
                        let usual = ef as f64 * links / self.share(request);
                        #[expect(
                            clippy::cast_possible_truncation,
                            clippy::cast_sign_loss,
                            reason = "saturates"
                        )]
                        scored_max.min(DESCENT_SCORED + usual as u64)
                    }
                    _ => scored_max,
                };
                let wanted = hnsw::Wanted { ef, allowed: request.allowed, scored_max };
                graph.walk_allowed(toward, wanted, scratch)
            } else {
                graph.walk(toward, ef, scratch);
                true
            };
            if ended {
                graph.offer(scratch, request.allowed, nearest);
            }
            let walk = Walk { scored: scratch.scored(), fell_back: false };
            (ended, walk, scratch.sketched())
        })
    }

    /// The structure, with the numbers that the library asks for at present: those it was built with
    /// where the library asks for another structure, that is not there yet.
    fn structure<V: ?Sized>(&self, request: Request<'_, V>) -> Structure {
        let (own, asked) = (self.spec.structure, request.spec.structure);
        if discriminant(&own) == discriminant(&asked) { asked } else { own }
    }

    /// How many of the nearest rows a walk keeps, at least k.
    fn ef<V: ?Sized>(&self, request: Request<'_, V>) -> usize {
        let asked = match self.structure(request) {
            Structure::Hnsw { ef_search, .. } => request.tuning.ef_search.unwrap_or(ef_search),
            Structure::BruteForce
            | Structure::KdTree { .. }
            | Structure::Lsh { .. }
            | Structure::Ivf { .. } => 0,
        };
        (asked as usize).max(request.k)
    }

    /// How many of the nearest lists are searched.
    fn nprobe<V: ?Sized>(&self, request: Request<'_, V>) -> u32 {
        let usual = match self.structure(request) {
            Structure::Ivf { nprobe, .. } => nprobe,
            Structure::BruteForce
            | Structure::KdTree { .. }
            | Structure::Lsh { .. }
            | Structure::Hnsw { .. } => 1,
        };
        request.tuning.nprobe.unwrap_or(usual)
    }

    /// What rows are scored by, with the numbers that the library asks for at present.
    fn quantization<V: ?Sized>(&self, request: Request<'_, V>) -> Quantization {
        let (own, asked) = (self.spec.quantization, request.spec.quantization);
        if own.scheme() == asked.scheme() { asked } else { own }
    }

    /// The part of the rows that is allowed.
    fn share<V: ?Sized>(&self, request: Request<'_, V>) -> f64 {
        f64::from(request.allowed_rows) / f64::from(self.rows.max(1))
    }

    /// How many rows the structure has to give for the results to be chosen from.
    fn candidates<V: ?Sized>(&self, request: Request<'_, V>) -> usize {
        let k = request.k;
        // A walk that keeps fewer has no more to give.
        let kept = if let Kind::Hnsw(_) = self.kind { self.ef(request) } else { usize::MAX };
        let among = |rows: u32| k.max(kept.min(rows as usize));
        match (self.quantization(request), request.tuning.rerank) {
            (Quantization::None, _) => k,
            (Quantization::Binary { .. } | Quantization::Product { .. }, _) => self.width(request),
            (Quantization::Scalar { .. } | Quantization::Hybrid { .. }, Some(asked)) => {
                among(asked)
            }
            (Quantization::Scalar { .. }, None) => k.saturating_mul(SCALAR_CANDIDATES),
            (Quantization::Hybrid { rerank_top_k, .. }, None) => among(rerank_top_k),
        }
    }

    /// How many of the nearest rows a walk keeps. By codes that only estimate distances those are
    /// the candidates.
    pub(super) fn width<V: ?Sized>(&self, request: Request<'_, V>) -> usize {
        match self.quantization(request) {
            Quantization::None | Quantization::Scalar { .. } | Quantization::Hybrid { .. } => {
                self.ef(request)
            }
            Quantization::Binary { rerank_top_k } | Quantization::Product { rerank_top_k, .. } => {
                let kept = request.k.saturating_mul(RERANKED_PER_RESULT);
                let rerank = request.tuning.rerank.unwrap_or(rerank_top_k);
                self.ef(request).max(kept).max(rerank as usize)
            }
        }
    }
}

/// Of candidates with the scores of their codes, nearest first, the `k` nearest by their vectors.
/// Those that are likely too far for that by their codes are not read.
fn decide<V: Vectors + ?Sized>(
    codes: &CodesScorer<'_>,
    full: &VectorScorer<'_, V>,
    candidates: &[(f32, RowId)],
    k: usize,
    effort: &mut Effort,
) -> Vec<(f32, RowId)> {
    let mut nearest = TopK::new(k);
    let (mut rows, mut distances) = (Vec::new(), [0.0; DECIDED_ROWS]);
    for candidates in candidates.chunks(DECIDED_ROWS) {
        rows.clear();
        let far = |score, row| is_far(codes.lower_bound(row, score), nearest.bound());
        rows.extend(
            candidates.iter().filter(|(score, row)| !far(*score, *row)).map(|(_, row)| *row),
        );
        let distances = &mut distances[..rows.len()];
        full.score(&rows, distances);
        effort.vectors += rows.len() as u64;
        for (row, distance) in rows.iter().zip(distances) {
            nearest.push(*distance, *row);
        }
    }
    nearest.into_sorted()
}

/// Whether a row is beyond the bound of those that are kept. What overflowed, or is not a number,
/// rules nothing out.
pub(super) fn is_far(lower_bound: f32, bound: f32) -> bool {
    lower_bound > bound && lower_bound.is_finite()
}

/// Searches inverted lists: whether that is better than a scan, and what it took, with the codes of
/// the lists' own that it scanned.
fn probe<V: ?Sized>(
    lists: &ivf::Ivf,
    scorer: &dyn Scorer,
    (request, nprobe): (Request<'_, V>, u32),
    nearest: &mut TopK<RowId>,
) -> (bool, Walk, u64) {
    let allowed_rows = u64::from(request.allowed_rows);
    if allowed_rows <= LISTED_ROWS_MIN.max(request.k.saturating_mul(SCORED_PER_KEPT)) as u64 {
        return (false, Walk::default(), 0);
    }
    // Of the rows in a list only a part is allowed: as many of those are looked at as usual.
    let wider = (u64::from(nprobe) * u64::from(lists.rows())).div_ceil(allowed_rows);
    let rerank = request.k.saturating_mul(RERANKED_PER_RESULT).max(RERANKED_MIN);
    let rerank = request.tuning.rerank.map_or(rerank, |rows| rows as usize);
    let query = ivf::Query {
        scorer,
        vector: request.query,
        allowed: request.allowed,
        allowed_rows: request.allowed_rows,
        probes: ivf::Probes {
            nprobe: u32::try_from(wider).unwrap_or(u32::MAX),
            rerank: u32::try_from(rerank).unwrap_or(u32::MAX),
        },
    };
    let walk = LISTS.with_borrow_mut(|scratch| lists.search(query, scratch, nearest, |row| row));
    let ended = walk.is_some();
    let walk = walk.unwrap_or_default();
    (ended, Walk { scored: walk.scored, fell_back: false }, walk.codes_scanned)
}

fn query<'a, V: ?Sized>(scorer: &'a dyn Scorer, request: Request<'a, V>) -> Query<'a> {
    Query { scorer, vector: request.query, allowed: request.allowed }
}
