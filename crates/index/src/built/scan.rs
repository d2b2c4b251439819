//! Taking a segment's rows one after the other.

use super::search::{Request, is_far};
use super::{Effort, Kind, SegmentIndex};
use crate::codes::product::ProductBlockScorer;
use crate::codes::{BoundedScorer, CodeScorer, Codes, CodesScorer, HalvedScorer};
use crate::ivf::reservoir::Reservoir;
use crate::sketch::{Aim, Guess, MARGIN_AMONG_SOME};
use crate::{RowId, Scorer, TopK, VectorScorer, Vectors, brute_force};

/// Rows of which a scan of codes rules some out at a time.
const SCAN_ROWS: u32 = 256;
/// Fewer allowed rows are scored as they are: preparing a query for codes would take longer.
const SCOUTED_ROWS_MIN: u32 = 256;

/// Allowed rows that are looked at together: the nearest of them by what is known of them say early
/// what is near.
const SCOUTED_ROWS: usize = 16 << 10;
/// So many rows for each result are read first of those.
const READ_FIRST: usize = 2;
/// Vectors that are read between one look at the bound and the next.
const READ_ROWS: usize = 64;
/// Sketches that are asked for ahead.
const AHEAD_ROWS: usize = 16;

/// What rules rows of a structure out before their vectors are read, where some of them are scanned.
enum Scout<'a> {
    /// Likely.
    Sketches(Aim<'a>),
    /// For certain.
    Codes(CodeScorer<'a>),
}

/// What a scout says of a row: about how far it is, and for codes what it is not nearer than.
#[derive(Copy, Clone)]
enum Seen {
    Sketch(Guess),
    Code { row: RowId, score: f32, least: f32 },
}

impl Seen {
    fn row(&self) -> RowId {
        match self {
            Self::Sketch(guess) => guess.row,
            Self::Code { row, .. } => *row,
        }
    }

    fn distance(&self) -> f32 {
        match self {
            Self::Sketch(guess) => guess.distance,
            Self::Code { score, .. } => *score,
        }
    }
}

impl Scout<'_> {
    /// Looks at rows.
    fn look(&self, rows: &[RowId], seen: &mut Vec<Seen>) {
        seen.clear();
        match self {
            Self::Sketches(aim) => {
                for (at, row) in rows.iter().enumerate() {
                    if let Some(ahead) = rows.get(at + AHEAD_ROWS) {
                        aim.prefetch(*ahead);
                    }
                    seen.push(Seen::Sketch(aim.guess(*row)));
                }
            }
            Self::Codes(codes) => {
                let mut scores = vec![0.0; rows.len()];
                codes.score(rows, &mut scores);
                seen.extend(rows.iter().zip(scores).map(|(row, score)| {
                    let least = codes.lower_bound(*row, score);
                    Seen::Code { row: *row, score, least }
                }));
            }
        }
    }

    /// What tells rows that are beyond the bound.
    fn far(&self, bound: f32) -> impl Fn(&Seen) -> bool + use<> {
        let limit = match self {
            Self::Sketches(aim) if bound < f32::INFINITY => {
                Some(aim.limit(bound, MARGIN_AMONG_SOME))
            }
            Self::Sketches(_) | Self::Codes(_) => None,
        };
        move |seen| match (seen, limit) {
            (Seen::Sketch(guess), Some(limit)) => guess.is_far(limit),
            (Seen::Sketch(_), None) => false,
            (Seen::Code { least, .. }, _) => is_far(*least, bound),
        }
    }

    /// What a search of a segment by it counts as.
    fn effort(&self) -> Effort {
        match self {
            // What it leaves out is likely, not certain, to be too far.
            Self::Sketches(_) => Effort { walked: 1, ..Effort::default() },
            Self::Codes(_) => Effort { scanned: 1, ..Effort::default() },
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
            return scan_scouted(&scout, full, request, top, key);
        }
        let (first, end) = request.rows;
        let vectors = brute_force::search(full, first..end, request.allowed, top, key);
        Effort { vectors, ..effort }
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
            Some(Codes::Scalar(codes)) => Some(Scout::Codes(codes.scorer(request.query))),
            Some(Codes::Halved(_) | Codes::Binary(_) | Codes::Product(_)) => None,
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

/// Offers the allowed rows to `top` but those that the scout leaves out.
fn scan_scouted<V: Vectors + ?Sized, T: Ord + Copy>(
    scout: &Scout<'_>,
    full: &VectorScorer<'_, V>,
    request: Request<'_, V>,
    top: &mut TopK<T>,
    key: impl Fn(RowId) -> T,
) -> Effort {
    let mut effort = scout.effort();
    let (mut rows, mut seen, mut distances) = (Vec::new(), Vec::new(), Vec::new());
    let mut read = |rows: &[RowId], top: &mut TopK<T>| {
        distances.resize(rows.len(), 0.0);
        full.score(rows, &mut distances);
        for (row, distance) in rows.iter().zip(&distances) {
            top.push(*distance, key(*row));
        }
        rows.len() as u64
    };
    let mut near: Vec<RowId> = Vec::with_capacity(READ_ROWS);
    let mut offer = |rows: &mut Vec<RowId>, effort: &mut Effort| {
        scout.look(rows, &mut seen);
        effort.codes += seen.len() as u64;
        rows.clear();
        let first = request.k.saturating_mul(READ_FIRST).min(seen.len());
        if (1..seen.len()).contains(&first) {
            seen.select_nth_unstable_by(first, |a, b| a.distance().total_cmp(&b.distance()));
        }
        let (first, others) = seen.split_at(first);
        near.clear();
        near.extend(first.iter().map(Seen::row));
        effort.vectors += read(&near, top);
        for others in others.chunks(READ_ROWS) {
            let far = scout.far(top.bound());
            near.clear();
            near.extend(others.iter().filter(|seen| !far(seen)).map(Seen::row));
            effort.vectors += read(&near, top);
        }
    };
    let (first, end) = request.rows;
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
            offer(&mut rows, &mut effort);
        }
    }
    offer(&mut rows, &mut effort);
    effort
}
