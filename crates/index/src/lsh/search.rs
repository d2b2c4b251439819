//! Visiting buckets until enough rows are scored.

use super::probing::Probing;
use super::{Lsh, Probes};
use crate::allowed::NEARLY_ALL;
use crate::walk::{Batch, RowSet, scan_rest};
use crate::{Query, RowId, TopK, Walk};

/// After one row in so many is met without enough of them allowed, few are left to score and finding
/// them by a scan is cheaper.
const MET_PART_MAX: usize = 4;
/// Buckets visited at most: so many, and one for so many rows. If hashes are so long that most
/// buckets are empty, a scan is cheaper than looking for one that is not.
const VISITS_MAX: usize = 1024;
const ROWS_PER_VISIT: usize = 16;

/// Fewer rows met say nothing of how many there are.
const JUDGED_ROWS_MIN: usize = 64;
/// Rows are allowed or not by chance: a smaller part of what is expected is not by chance.
const STARVED_BELOW: f64 = 0.9;
/// Nor are so many standard deviations.
const STARVED_DEVIATIONS: f64 = 4.0;

/// Whether of the rows met clearly fewer are allowed than the part of all rows that is.
fn is_starved(met: usize, allowed: usize, part: f64) -> bool {
    let expected = met as f64 * part;
    let deviation = (expected * (1.0 - part)).sqrt();
    let least = (expected * STARVED_BELOW).min(expected - STARVED_DEVIATIONS * deviation);
    (allowed as f64) < least
}

impl Lsh {
    /// Offers rows that are likely near to `top` under `key(row)`, until `probes` are met; each row
    /// once. If the buckets run out before that, or it is cheaper, every allowed row that is left
    /// is offered.
    ///
    /// # Panics
    /// If the query has another dimension, or the scorer another number of rows.
    pub fn search<T: Ord + Copy>(
        &self,
        query: Query<'_>,
        probes: Probes,
        top: &mut TopK<T>,
        key: impl Fn(RowId) -> T,
    ) -> Walk {
        assert_eq!(self.rows, query.scorer.rows(), "tables are over the rows that are scored");
        let rows = self.rows as usize;
        let (met_max, visits_max) = (rows / MET_PART_MAX, VISITS_MAX + rows / ROWS_PER_VISIT);
        let part = |allowed: u32| f64::from(allowed) / f64::from(self.rows);
        let part = probes.allowed_rows.map(part).filter(|part| *part < NEARLY_ALL);
        let mut probing = Probing::new(&self.hashing.query_products(query.vector), self.config);
        let (mut seen, mut batch) = (RowSet::new(self.rows), Batch::new());
        let (mut met, mut candidates, mut scored) = (0, 0, 0);
        'visits: for (table, code) in probing.by_ref().take(visits_max) {
            for row in self.tables[table].bucket(code) {
                if candidates == probes.candidates || !seen.insert(*row) {
                    continue;
                }
                met += 1;
                if query.allowed.allows(RowId(*row)) {
                    if batch.is_full() {
                        scored += batch.offer(query.scorer, top, &key);
                    }
                    batch.add(RowId(*row));
                    candidates += 1;
                }
                let judged = met >= JUDGED_ROWS_MIN && met.is_power_of_two();
                if judged && part.is_some_and(|part| is_starved(met, candidates, part)) {
                    break 'visits;
                }
            }
            if candidates == probes.candidates || met > met_max {
                break;
            }
        }
        scored += batch.offer(query.scorer, top, &key);
        let fell_back = candidates < probes.candidates;
        if fell_back {
            scored += scan_rest(query, &seen, top, &key);
        }
        Walk { scored, fell_back }
    }
}
