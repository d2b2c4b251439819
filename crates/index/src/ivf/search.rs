//! Searching lists.

use std::fmt;

use arrwdb_kernel::{BLOCK_ROWS, Line, QueryTables, kernels};

use super::blocks::{each_bit, low_bits};
use super::reservoir::Reservoir;
use super::{Ivf, RowCodes};
use crate::allowed::NEARLY_ALL;
use crate::{Allowed, Metric, RowId, Scorer, TopK};

/// Rows scored at a time.
const BATCH_ROWS: usize = 256;

/// Rows are allowed or not by chance: so small a part of what is expected is not by chance.
const STARVED_BELOW: f64 = 0.8;
/// Nor are so many standard deviations.
const DEVIATIONS: f64 = 3.0;
/// Where nearly all rows are allowed, one in so many of the lists' rows is looked at.
const SAMPLED_ONE_IN: usize = 8;
/// Of the nearest rows, a part that is smaller by less is as good as that of all rows.
const SCARCE_BELOW: f64 = 0.95;
/// So many of the nearest rows say in how many lists the nearest allowed ones are: one in so many of the
/// rows of the usual lists, and at least so many.
const LISTED_ONE_IN: usize = 8;
const LISTED_ROWS_MIN: usize = 256;
/// And so many, how far down among all rows they are.
const RANKED_ROWS: usize = 64;
/// Lists are never more than so many times the usual ones, and estimates scored in full, where more than
/// so many are not asked for.
const LISTS_TIMES_MAX: f64 = 4.0;
const RERANKED_TIMES_MAX: f64 = 16.0;
const RERANKED_MAX: u32 = 1000;

/// How much is searched.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash)]
pub struct Probes {
    /// How many of the nearest lists: at least 1 is searched.
    pub nprobe: u32,
    /// Where rows have codes, how many of the best estimates are scored in full; at least as many
    /// as are asked for.
    pub rerank: u32,
}

/// What lists are asked.
#[derive(Copy, Clone)]
pub struct Query<'a> {
    /// Scores the rows against `vector`.
    pub scorer: &'a dyn Scorer,
    /// The query; for [`Metric::Cosine`] a unit vector: see [`crate::normalized`].
    pub vector: &'a [f32],
    /// The rows that may be answered.
    pub allowed: &'a dyn Allowed,
    /// How many those are.
    pub allowed_rows: u32,
    /// How much is searched.
    pub probes: Probes,
}

impl fmt::Debug for Query<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Query").field("probes", &self.probes).finish_non_exhaustive()
    }
}

/// What a search did.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub struct Walk {
    /// Rows scored in full.
    pub scored: u64,
    /// Rows whose codes were scanned.
    pub codes_scanned: u64,
    /// Lists searched.
    pub lists: u32,
}

/// Memory of a search, to be used again.
#[derive(Debug, Default)]
pub struct Scratch {
    /// The query in the space of the lists.
    vector: Vec<f32>,
    room: Vec<f32>,
    tables: QueryTables,
    nearest_lists: Reservoir,
    /// Lists to search, nearest first, and their distances.
    order: Vec<(f32, u32)>,
    candidates: Reservoir,
    rows: Vec<RowId>,
    distances: Vec<f32>,
    walk: Walk,
}

/// Where a list's codes are.
#[derive(Copy, Clone)]
struct Span<'a> {
    /// Its rows.
    rows: &'a [u32],
    /// Its first block.
    first: usize,
    /// The first block of the list that is scanned after it.
    next: usize,
    /// How far its centroid is.
    base: f32,
}

/// `count` times `factor`, rounded up.
fn times(count: u32, factor: f64) -> u32 {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "neither is negative, and the cast saturates"
    )]
    let product = (f64::from(count) * factor).ceil() as u32;
    product
}

/// Rows that were looked at, and how many of them are allowed.
struct Looks {
    rows: usize,
    found: usize,
}

impl Looks {
    fn note(&mut self, allowed: bool) {
        self.rows += 1;
        self.found += usize::from(allowed);
    }

    /// How many times as many are expected to be allowed, where a part `share` of all rows is; 1 where
    /// it may be by chance.
    fn scarcity(&self, share: f64) -> f64 {
        let (expected, found) = (self.rows as f64 * share, self.found as f64);
        let deviation = (expected * (1.0 - share)).sqrt();
        let least = (expected - DEVIATIONS * deviation).min(expected * SCARCE_BELOW);
        if found >= least { 1.0 } else { expected / found.max(1.0) }
    }
}

impl Ivf {
    /// Offers allowed rows near to the query to `top`: of the `nprobe` nearest lists those that
    /// are best, and of further lists while fewer than `top` keeps were seen. Where rows near to the
    /// query are allowed less often than others, so many more of the lists are searched.
    ///
    /// `None`, and nothing is offered, where in all of the nearest lists clearly fewer rows are allowed
    /// than elsewhere: what is allowed is not where the query is, and lists near to it are not those
    /// that have the nearest of it.
    ///
    /// # Panics
    /// If the scorer has other rows or the query another dimension.
    pub fn search<T: Ord + Copy>(
        &self,
        query: Query<'_>,
        scratch: &mut Scratch,
        top: &mut TopK<T>,
        key: impl Fn(RowId) -> T,
    ) -> Option<Walk> {
        assert_eq!(self.rows, query.scorer.rows(), "lists of the rows that are scored");
        assert_eq!(self.space.dims(), query.vector.len(), "dimension of the query");
        scratch.walk = Walk::default();
        let wanted = top.k().min(self.rows as usize);
        if wanted == 0 {
            return Some(scratch.walk);
        }
        self.space.query(query.vector, &mut scratch.vector, &mut scratch.room);
        self.fill_tables(scratch);
        let Probes { nprobe, rerank } = query.probes;
        self.order_nearest(nprobe, scratch);
        if self.is_starved(query, &scratch.order) {
            return None;
        }
        let (among_lists, among_rows) = self.scarcity(query, wanted, &scratch.order);
        let rerank =
            times(rerank, among_rows.min(RERANKED_TIMES_MAX)).min(rerank.max(RERANKED_MAX));
        if among_lists > 1.0 {
            self.order_nearest(times(nprobe, among_lists.min(LISTS_TIMES_MAX)), scratch);
        }
        scratch.candidates.reset((rerank as usize).clamp(wanted, self.rows as usize));
        let mut seen = self.visit(query, scratch, top, &key);
        if seen < wanted as u64 && scratch.walk.lists < self.lists() {
            self.order_rest(scratch);
            for list in std::mem::take(&mut scratch.order) {
                scratch.order.clear();
                scratch.order.push(list);
                seen += self.visit(query, scratch, top, &key);
                if seen >= wanted as u64 {
                    break;
                }
            }
        }
        if self.codes.is_some() {
            scratch.rows.clear();
            scratch.rows.extend(scratch.candidates.numbers().map(RowId));
            offer(query.scorer, scratch, top, &key);
            scratch.walk.scored += scratch.rows.len() as u64;
        }
        Some(scratch.walk)
    }

    fn rows_in(&self, lists: &[(f32, u32)]) -> usize {
        lists.iter().map(|(_distance, list)| self.list(*list).len()).sum()
    }

    /// Whether these lists, the nearest, have clearly fewer allowed rows than their part of all that
    /// are allowed.
    fn is_starved(&self, query: Query<'_>, nearest: &[(f32, u32)]) -> bool {
        if nearest.len() >= self.lists() as usize {
            return false;
        }
        let Query { allowed, allowed_rows, .. } = query;
        let rows = self.rows_in(nearest);
        let share = f64::from(allowed_rows) / f64::from(self.rows.max(1));
        let least = |rows: usize| {
            let expected = rows as f64 * share;
            expected * STARVED_BELOW - DEVIATIONS * expected.sqrt()
        };
        // Were all that are not allowed in these lists: a few rows that have died need no look.
        if rows as f64 - f64::from(self.rows - allowed_rows.min(self.rows)) >= least(rows) {
            return false;
        }
        // Where rows have died and nobody filters, a part of the rows says enough.
        let step = if share < NEARLY_ALL { 1 } else { SAMPLED_ONE_IN };
        let rows_of = nearest.iter().flat_map(|(_distance, list)| self.list(*list));
        let found = rows_of.step_by(step).filter(|row| allowed.allows(RowId(**row))).count();
        (found as f64) < least(rows.div_ceil(step))
    }

    /// How many times as many of the rows of the nearest lists are expected to be allowed as are, and of
    /// the rows nearest of all; at least 1. What is allowed is farther away than usual where that is
    /// more: in more lists, and among more rows that are about as far. At most one look for each eighth
    /// row of the lists, and one for each of `wanted` and of [`RANKED_ROWS`].
    fn scarcity(&self, query: Query<'_>, wanted: usize, nearest: &[(f32, u32)]) -> (f64, f64) {
        let gone = self.rows - query.allowed_rows.min(self.rows);
        let share = f64::from(query.allowed_rows) / f64::from(self.rows.max(1));
        let ranked = RANKED_ROWS.max(wanted);
        let listed = (self.rows_in(nearest) / LISTED_ONE_IN).max(LISTED_ROWS_MIN).max(wanted);
        // Were all that are not allowed among these.
        if f64::from(gone) <= ranked as f64 * (1.0 - SCARCE_BELOW) {
            return (1.0, 1.0);
        }
        let mut rows = nearest.iter().flat_map(|(_distance, list)| self.list(*list));
        let is_allowed = |row: &&u32| query.allowed.allows(RowId(**row));
        let mut first = Looks { rows: 0, found: 0 };
        rows.by_ref().take(ranked).for_each(|row| first.note(is_allowed(&row)));
        let among_rows = if self.codes.is_some() { first.scarcity(share) } else { 1.0 };
        if nearest.len() >= self.lists() as usize {
            return (1.0, among_rows);
        }
        // Where rows have died and nobody filters, a part of the others says enough.
        let step = if share < NEARLY_ALL { 1 } else { SAMPLED_ONE_IN };
        let rest = rows.take(listed.saturating_sub(ranked)).step_by(step);
        let mut others = Looks { rows: 0, found: 0 };
        rest.for_each(|row| others.note(is_allowed(&row)));
        let all = Looks {
            rows: first.rows + others.rows * step,
            found: first.found + others.found * step,
        };
        let among_lists = all.scarcity(share);
        (among_lists, among_rows.max(if self.codes.is_some() { among_lists } else { 1.0 }))
    }

    /// The query's tables, if anything is looked up in them.
    fn fill_tables(&self, scratch: &mut Scratch) {
        if self.codes.is_none() && self.coarse.is_none() {
            return;
        }
        self.book.pad(&scratch.vector, &mut scratch.room);
        let points = self.book.points();
        kernels().fill_tables(&scratch.room, points, self.book.parts(), &mut scratch.tables);
    }

    /// Brings the `nprobe` nearest lists into order: of those that seem nearest by their
    /// centroids' codes, if there are any, the distances are exact.
    fn order_nearest(&self, nprobe: u32, scratch: &mut Scratch) {
        let (lists, nprobe) = (self.lists(), nprobe.clamp(1, self.lists()) as usize);
        scratch.order.clear();
        // A quarter more, for those whose codes make them seem farther than they are.
        let seeming = nprobe + nprobe / 4 + 8;
        match &self.coarse {
            Some(coarse) if seeming < lists as usize => {
                scratch.nearest_lists.reset(seeming);
                let Scratch { nearest_lists, tables, .. } = scratch;
                let mut estimates = [0.0; BLOCK_ROWS];
                for first in (0..lists).step_by(BLOCK_ROWS) {
                    let line = Line {
                        step: tables.step,
                        offset: tables.offset,
                        base: 0.0,
                        bound: nearest_lists.bound(),
                    };
                    let block = first as usize / BLOCK_ROWS;
                    let block = coarse.block(block, block + 1);
                    let near = kernels().estimate(&tables.entries, block, line, &mut estimates);
                    each_bit(near & low_bits(lists - first), |place| {
                        nearest_lists.push(estimates[place as usize], first + place);
                    });
                }
                let Scratch { nearest_lists, order, .. } = scratch;
                order.extend(nearest_lists.numbers().map(|list| (0.0, list)));
            }
            _ => scratch.order.extend((0..lists).map(|list| (0.0, list))),
        }
        self.measure(scratch);
        if nprobe < scratch.order.len() {
            scratch.order.select_nth_unstable_by(nprobe - 1, |a, b| by_distance(*a, *b));
            scratch.order.truncate(nprobe);
        }
        scratch.order.sort_unstable_by(|a, b| by_distance(*a, *b));
    }

    /// Brings all lists that were not searched into order.
    fn order_rest(&self, scratch: &mut Scratch) {
        let mut searched: Vec<u32> = scratch.order.iter().map(|(_, list)| *list).collect();
        searched.sort_unstable();
        scratch.order.clear();
        let rest = (0..self.lists()).filter(|list| searched.binary_search(list).is_err());
        scratch.order.extend(rest.map(|list| (0.0, list)));
        self.measure(scratch);
        scratch.order.sort_unstable_by(|a, b| by_distance(*a, *b));
    }

    /// The distances of the centroids of the lists in `order`.
    fn measure(&self, scratch: &mut Scratch) {
        let kernels = kernels();
        for (distance, list) in &mut scratch.order {
            let centroid = self.centroid(*list);
            *distance = match self.space.metric() {
                Metric::Cosine | Metric::L2 => kernels.l2_squared(&scratch.vector, centroid),
                Metric::Dot => -kernels.dot(&scratch.vector, centroid),
            };
        }
    }

    /// Searches the lists in `order`. Returns how many allowed rows were seen, or as many as can
    /// be candidates.
    fn visit<T: Ord + Copy>(
        &self,
        query: Query<'_>,
        scratch: &mut Scratch,
        top: &mut TopK<T>,
        key: &impl Fn(RowId) -> T,
    ) -> u64 {
        scratch.walk.lists += u32::try_from(scratch.order.len()).unwrap_or(u32::MAX);
        if let Some(codes) = &self.codes {
            let before = scratch.candidates.len() as u64;
            for place in 0..scratch.order.len() {
                let (base, list) = scratch.order[place];
                let next = scratch.order.get(place + 1).map_or(list, |(_, next)| *next);
                let span = Span {
                    rows: self.list(list),
                    first: codes.starts[list as usize] as usize,
                    next: codes.starts[next as usize] as usize,
                    base,
                };
                codes.scan(span, query.allowed, scratch);
            }
            return scratch.candidates.len() as u64 - before;
        }
        let mut seen = 0;
        scratch.rows.clear();
        for place in 0..scratch.order.len() {
            for row in self.list(scratch.order[place].1) {
                if query.allowed.allows(RowId(*row)) {
                    scratch.rows.push(RowId(*row));
                    if scratch.rows.len() == BATCH_ROWS {
                        seen += offer(query.scorer, scratch, top, key);
                        scratch.rows.clear();
                    }
                }
            }
        }
        seen += offer(query.scorer, scratch, top, key);
        scratch.walk.scored += seen;
        seen
    }
}

impl RowCodes {
    /// Scans the codes of a list.
    fn scan(&self, span: Span<'_>, allowed: &dyn Allowed, scratch: &mut Scratch) {
        let Scratch { tables, candidates, walk, .. } = scratch;
        let kernels = kernels();
        let (step, offset) = (tables.step, tables.offset);
        let mut estimates = [0.0; BLOCK_ROWS];
        let mut chunks = (span.first..).zip(span.rows.chunks(BLOCK_ROWS)).peekable();
        while let Some((block, rows)) = chunks.next() {
            let line = Line { step, offset, base: span.base, bound: candidates.bound() };
            let following = chunks.peek().map_or(span.next, |(block, _)| *block);
            let block = self.blocks.block(block, following);
            let near = kernels.estimate(&tables.entries, block, line, &mut estimates);
            let count = u32::try_from(rows.len()).unwrap_or(u32::MAX);
            each_bit(near & low_bits(count), |place| {
                let row = rows[place as usize];
                if allowed.allows(RowId(row)) {
                    candidates.push(estimates[place as usize], row);
                }
            });
        }
        walk.codes_scanned += span.rows.len() as u64;
    }
}

/// Scores the scratch's rows and offers them to `top`. Returns how many.
fn offer<T: Ord + Copy>(
    scorer: &dyn Scorer,
    scratch: &mut Scratch,
    top: &mut TopK<T>,
    key: impl Fn(RowId) -> T,
) -> u64 {
    scratch.distances.resize(scratch.rows.len(), 0.0);
    scorer.score(&scratch.rows, &mut scratch.distances);
    for (row, distance) in scratch.rows.iter().zip(&scratch.distances) {
        if *distance <= top.bound() {
            top.push(*distance, key(*row));
        }
    }
    scratch.rows.len() as u64
}

fn by_distance(a: (f32, u32), b: (f32, u32)) -> std::cmp::Ordering {
    a.0.total_cmp(&b.0).then(a.1.cmp(&b.1))
}
