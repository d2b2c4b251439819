//! Taking a segment's rows one after the other.

use super::search::{Request, is_far};
use super::{Effort, Kind, SegmentIndex};
use crate::codes::product::ProductBlockScorer;
use crate::codes::{BoundedScorer, Codes, CodesScorer, HalvedScorer};
use crate::ivf::reservoir::Reservoir;
use crate::sketch::{Aim, MARGIN_AMONG_SOME};
use crate::{RowId, Scorer, TopK, VectorScorer, Vectors, brute_force};

/// Rows of which a scan of codes rules some out at a time.
const SCAN_ROWS: u32 = 256;
/// Fewer allowed rows are scored as they are: preparing a query for codes would take longer.
const SCOUTED_ROWS_MIN: u32 = 256;

/// Rows of which a scout leaves some out at a time: soon after the first of them what is near is known.
const SCOUTED_ROWS: usize = 64;

/// What rules rows of a structure out before their vectors are read, where some of them are scanned.
pub(super) enum Scout<'a> {
    /// Likely.
    Sketches(Aim<'a>),
    /// For certain.
    Codes(CodesScorer<'a>),
}

impl Scout<'_> {
    /// Takes out of `rows` what is beyond the bound.
    fn leave_out_far(&self, rows: &mut Vec<RowId>, scores: &mut Vec<f32>, bound: f32) {
        match self {
            Self::Sketches(aim) => {
                for row in rows.iter() {
                    aim.prefetch(*row);
                }
                let limit = aim.limit(bound, MARGIN_AMONG_SOME);
                rows.retain(|row| !aim.is_far(*row, limit));
            }
            Self::Codes(codes) => {
                let Some(scorer) = codes.scorer() else { return };
                scores.resize(rows.len(), 0.0);
                scorer.score(rows, scores);
                let mut scores = scores.iter();
                rows.retain(|row| {
                    let score = scores.next().copied().unwrap_or(f32::NEG_INFINITY);
                    !is_far(codes.lower_bound(*row, score), bound)
                });
            }
        }
    }
}

impl SegmentIndex {
    /// Offers the nearest of the request's rows, one after the other, by their codes where those do
    /// not miss more than is asked for.
    pub(super) fn scan<V: Vectors + ?Sized, T: Ord + Copy>(
        &self,
        full: &VectorScorer<'_, V>,
        request: Request<'_, V>,
        top: &mut TopK<T>,
        key: impl Fn(RowId) -> T,
    ) -> Effort {
        let certain = self.spec.is_exact();
        let every_row = self.is_every_row_asked(&request);
        let codes = self.codes.as_ref().filter(|_codes| certain || !every_row);
        let codes = codes.filter(|_codes| self.is_scan()).map(|codes| codes.scorer(request.query));
        // Of a segment that is scanned in parts, the first counts for it.
        let counted = u32::from(request.rows.0 == 0);
        let effort = if codes.is_some() && !certain {
            Effort { walked: counted, ..Effort::default() }
        } else {
            Effort { scanned: counted, ..Effort::default() }
        };
        if let Some(CodesScorer::ProductBlocks(blocks)) = &codes {
            let found = scan_blocks(blocks, full, request, self.width(request));
            for (distance, row) in &found {
                top.push(*distance, key(*row));
            }
            let (first, end) = request.rows;
            return Effort { codes: u64::from(end - first), vectors: found.len() as u64, ..effort };
        }
        if let Some(CodesScorer::Halved(codes)) = &codes {
            let Effort { vectors, codes, .. } = scan_halved(codes, full, request, top, key);
            return Effort { vectors, codes, ..effort };
        }
        if let Some(codes) = codes.as_ref().and_then(CodesScorer::bounded) {
            let Effort { vectors, codes, .. } = scan_codes(codes, full, request, top, key);
            return Effort { vectors, codes, ..effort };
        }
        if let Some(scout) = self.scout(&request) {
            let Effort { vectors, codes, .. } = scan_scouted(&scout, full, request, top, key);
            return Effort { vectors, codes, ..effort };
        }
        let (first, end) = request.rows;
        brute_force::search(full, first..end, request.allowed, top, key);
        Effort { vectors: u64::from(request.allowed_rows), ..effort }
    }

    /// Whether a search that takes some of the rows one after the other reads the vectors of few.
    pub(super) fn is_scouted<V: ?Sized>(&self, request: &Request<'_, V>) -> bool {
        let known = match (&self.kind, &self.codes) {
            (Kind::Hnsw(graph), None) => graph.is_sketched(),
            (Kind::Hnsw(_graph), Some(Codes::Scalar(codes))) => codes.has_errors(),
            (Kind::Hnsw(_), Some(Codes::Halved(_) | Codes::Binary(_) | Codes::Product(_)))
            | (Kind::Scan | Kind::KdTree(_) | Kind::Lsh(_) | Kind::Ivf(_), _) => false,
        };
        known && request.allowed_rows >= SCOUTED_ROWS_MIN && !self.is_every_row_asked(request)
    }

    /// What rules rows out before their vectors are read.
    fn scout<V: ?Sized>(&self, request: &Request<'_, V>) -> Option<Scout<'_>> {
        let Kind::Hnsw(graph) = &self.kind else { return None };
        if !self.is_scouted(request) {
            return None;
        }
        match &self.codes {
            Some(codes) => Some(Scout::Codes(codes.scorer(request.query))),
            None => graph.aim(request.query).map(Scout::Sketches),
        }
    }
}

/// The `keep` allowed rows that are nearest by their codes, with the distances of their vectors.
fn scan_blocks<V: Vectors + ?Sized>(
    blocks: &ProductBlockScorer<'_>,
    full: &VectorScorer<'_, V>,
    request: Request<'_, V>,
    keep: usize,
) -> Vec<(f32, RowId)> {
    let mut candidates = Reservoir::default();
    candidates.reset(keep);
    let (first, end) = request.rows;
    blocks.scan(first..end, request.allowed, &mut candidates);
    let mut rows: Vec<RowId> = candidates.numbers().map(RowId).collect();
    // As they lie in the file.
    rows.sort_unstable();
    let mut distances = vec![0.0; rows.len()];
    full.score(&rows, &mut distances);
    distances.into_iter().zip(rows).collect()
}

/// Offers the nearest allowed rows to `top`: those that may be among them by their codes are decided
/// by their vectors.
fn scan_halved<V: Vectors + ?Sized, T: Ord + Copy>(
    codes: &HalvedScorer<'_>,
    full: &VectorScorer<'_, V>,
    request: Request<'_, V>,
    top: &mut TopK<T>,
    key: impl Fn(RowId) -> T,
) -> Effort {
    let (mut vectors, mut distances) = (0, Vec::new());
    let (first, end) = request.rows;
    let codes = codes.scan(first..end, request.allowed, |near| {
        distances.resize(near.len(), 0.0);
        full.score(near, &mut distances);
        vectors += near.len() as u64;
        for (row, distance) in near.iter().zip(&distances) {
            top.push(*distance, key(*row));
        }
        top.bound()
    });
    Effort { vectors, codes, ..Effort::default() }
}

/// Offers the nearest allowed rows to `top`: rows that are too far by their codes are ruled out, and
/// the vectors decide among the others. As exact as the codes' bounds are.
fn scan_codes<V: Vectors + ?Sized, T: Ord + Copy>(
    codes: &dyn BoundedScorer,
    full: &VectorScorer<'_, V>,
    request: Request<'_, V>,
    top: &mut TopK<T>,
    key: impl Fn(RowId) -> T,
) -> Effort {
    let mut effort = Effort::default();
    let mut bounds = [0.0; SCAN_ROWS as usize];
    let mut distances = [0.0; SCAN_ROWS as usize];
    let mut near = Vec::with_capacity(SCAN_ROWS as usize);
    let (mut first, rows_end) = request.rows;
    while first < rows_end {
        let end = rows_end.min(first.saturating_add(SCAN_ROWS));
        let bounds = &mut bounds[..(end - first) as usize];
        codes.lower_bounds(RowId(first), bounds);
        effort.codes += bounds.len() as u64;
        near.clear();
        for (row, bound) in (first..end).map(RowId).zip(bounds) {
            if !is_far(*bound, top.bound()) && request.allowed.allows(row) {
                near.push(row);
            }
        }
        let distances = &mut distances[..near.len()];
        full.score(&near, distances);
        effort.vectors += near.len() as u64;
        for (row, distance) in near.iter().zip(distances) {
            top.push(*distance, key(*row));
        }
        first = end;
    }
    effort
}

/// Offers the allowed rows to `top`, nearest or not, but those that the scout leaves out.
fn scan_scouted<V: Vectors + ?Sized, T: Ord + Copy>(
    scout: &Scout<'_>,
    full: &VectorScorer<'_, V>,
    request: Request<'_, V>,
    top: &mut TopK<T>,
    key: impl Fn(RowId) -> T,
) -> Effort {
    let mut effort = Effort::default();
    let (mut rows, mut scores) = (Vec::new(), Vec::new());
    let (first, end) = request.rows;
    let mut offer = |rows: &mut Vec<RowId>| {
        if top.bound() < f32::INFINITY {
            effort.codes += rows.len() as u64;
            scout.leave_out_far(rows, &mut scores, top.bound());
        }
        scores.resize(rows.len(), 0.0);
        full.score(rows, &mut scores);
        effort.vectors += rows.len() as u64;
        for (row, distance) in rows.iter().zip(&scores) {
            top.push(*distance, key(*row));
        }
        rows.clear();
    };
    for word_first in (first - first % u64::BITS..end).step_by(u64::BITS as usize) {
        let mut word = request.allowed.word(RowId(word_first));
        while word != 0 {
            let row = word_first + word.trailing_zeros();
            word &= word - 1;
            if row >= first && row < end {
                rows.push(RowId(row));
            }
        }
        if rows.len() >= SCOUTED_ROWS {
            offer(&mut rows);
        }
    }
    offer(&mut rows);
    effort
}
