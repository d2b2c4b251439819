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
const STARVED_DEVIATIONS: f64 = 3.0;
/// Where nearly all rows are allowed, one in so many of the lists' rows is looked at.
const SAMPLED_ONE_IN: usize = 8;

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

impl Ivf {
    /// Offers allowed rows near to the query to `top`: of the `nprobe` nearest lists those that
    /// are best, and of further lists while fewer than `top` keeps were seen.
    ///
    /// # Panics
    /// If the scorer has other rows or the query another dimension.
    pub fn search<T: Ord + Copy>(
        &self,
        query: Query<'_>,
        scratch: &mut Scratch,
        top: &mut TopK<T>,
        key: impl Fn(RowId) -> T,
    ) -> Walk {
        assert_eq!(self.rows, query.scorer.rows(), "lists of the rows that are scored");
        assert_eq!(self.space.dims(), query.vector.len(), "dimension of the query");
        scratch.walk = Walk::default();
        let wanted = top.k().min(self.rows as usize);
        if wanted == 0 {
            return scratch.walk;
        }
        self.space.query(query.vector, &mut scratch.vector, &mut scratch.room);
        self.fill_tables(scratch);
        self.order_nearest(query.probes.nprobe, scratch);
        let rerank = (query.probes.rerank as usize).clamp(wanted, self.rows as usize);
        scratch.candidates.reset(rerank);
        let mut seen = self.visit(query, scratch, top, &key);
        if seen < wanted as u64 && scratch.walk.lists < self.lists() {
            let first = scratch.order.clone();
            self.order_rest(scratch);
            for list in std::mem::take(&mut scratch.order) {
                scratch.order.clear();
                scratch.order.push(list);
                seen += self.visit(query, scratch, top, &key);
                if seen >= wanted as u64 {
                    break;
                }
            }
            scratch.order = first;
        }
        if self.codes.is_some() {
            scratch.rows.clear();
            scratch.rows.extend(scratch.candidates.numbers().map(RowId));
            offer(query.scorer, scratch, top, &key);
            scratch.walk.scored += scratch.rows.len() as u64;
        }
        scratch.walk
    }

    /// Whether the nearest lists of the search before, without those further ones that were searched
    /// because they had too few rows, had clearly fewer allowed rows than their part of the
    /// `allowed_rows` of all rows: what is allowed is not where the query is, and lists near to it
    /// are not those that have the nearest of it.
    pub fn is_starved(&self, allowed: &dyn Allowed, allowed_rows: u32, scratch: &Scratch) -> bool {
        if scratch.walk.lists >= self.lists() {
            return false;
        }
        let lists = || scratch.order.iter().map(|(_distance, list)| self.list(*list));
        let rows: usize = lists().map(<[u32]>::len).sum();
        let share = f64::from(allowed_rows) / f64::from(self.rows.max(1));
        let least = |rows: usize| {
            let expected = rows as f64 * share;
            expected * STARVED_BELOW - STARVED_DEVIATIONS * expected.sqrt()
        };
        // Were all that are not allowed in these lists: a few rows that have died need no look.
        if rows as f64 - f64::from(self.rows - allowed_rows.min(self.rows)) >= least(rows) {
            return false;
        }
        // Where rows have died and nobody filters, a part of the rows says enough.
        let step = if share < NEARLY_ALL { 1 } else { SAMPLED_ONE_IN };
        let looked_at = lists().flatten().step_by(step);
        let found = looked_at.filter(|row| allowed.allows(RowId(**row))).count();
        (found as f64) < least(rows.div_ceil(step))
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
