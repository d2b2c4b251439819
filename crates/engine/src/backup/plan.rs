//! Which restore point and which records lead to a number or a time.

use std::collections::{BTreeMap, BTreeSet};

use arrwdb_state::Timestamp;

use super::error::BackupError;
use super::point::{LogName, Point, PointName};
use super::take::{names, read_point};
use super::target::{self, Target};

/// Where the records end that are restored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// After the last record up to this number.
    Seq(u64),
    /// Before the first record behind this number that was made after this time.
    Time { behind: u64, time: Timestamp },
}

/// A way to a state.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) base: Point,
    /// Parts of the log, each following the one before it.
    pub(super) parts: Vec<(LogName, u64)>,
    pub(super) end: End,
    /// No number above this was ever seen in the target.
    pub(super) last_given: u64,
}

/// What a target has, by the names of its objects.
pub(super) struct Stock<'a> {
    target: &'a dyn Target,
    objects: BTreeMap<String, u64>,
    /// Oldest first.
    names: Vec<PointName>,
    /// By history and the number before the first record; the longest wins.
    logs: BTreeMap<(String, u64), LogName>,
}

impl<'a> Stock<'a> {
    pub(super) fn open(target: &'a dyn Target) -> Result<Self, BackupError> {
        let objects = target::list(target)?;
        let names = names(&objects);
        let mut logs: BTreeMap<(String, u64), LogName> = BTreeMap::new();
        for log in objects.keys().filter_map(|key| LogName::parse(key)) {
            let place = logs.entry((log.history.clone(), log.after));
            let longest = place.or_insert_with(|| log.clone());
            if log.last > longest.last {
                *longest = log;
            }
        }
        if names.is_empty() {
            return Err(BackupError::NoPoint { target: target.name(), seq: None });
        }
        Ok(Self { target, objects, names, logs })
    }

    /// The newest restore point as it is.
    pub(super) fn newest(&self) -> Result<Plan, BackupError> {
        match self.names.last() {
            Some(name) => self.exactly(self.read(name)?),
            None => Err(BackupError::NoPoint { target: self.target.name(), seq: None }),
        }
    }

    /// The newest restore point of this number, as it is.
    pub(super) fn point(&self, seq: u64) -> Result<Plan, BackupError> {
        match self.names.iter().rfind(|name| name.seq == seq) {
            Some(name) => self.exactly(self.read(name)?),
            None => Err(BackupError::NoPoint { target: self.target.name(), seq: Some(seq) }),
        }
    }

    fn exactly(&self, base: Point) -> Result<Plan, BackupError> {
        let end = End::Seq(base.seq);
        let (parts, reached) = self.chain(&base, base.seq);
        if reached < base.seq {
            return Err(self.missing(&base, reached));
        }
        Ok(self.plan(base, parts, end))
    }

    /// The state at a number.
    pub(super) fn seq(&self, wanted: u64) -> Result<Plan, BackupError> {
        for history in self.histories(wanted) {
            for name in self.bases(&history, |name| name.seq < wanted) {
                let base = self.read(name)?;
                if base.floor > wanted {
                    continue;
                }
                let (parts, reached) = self.chain(&base, wanted);
                if reached >= wanted {
                    return Ok(self.plan(base, parts, End::Seq(wanted)));
                }
                break;
            }
        }
        Err(BackupError::SeqUnreachable { wanted, reachable: self.reachable()? })
    }

    /// The state at a time.
    pub(super) fn time(&self, time: Timestamp) -> Result<Plan, BackupError> {
        let micros = time.micros();
        let later = self.names.partition_point(|name| name.time <= micros);
        let mut base = None;
        // Nothing was written since `since`, which may be long before the restore point itself.
        if let Some(name) = self.names.get(later) {
            base = Some(self.read(name)?).filter(|point| point.since <= micros);
        }
        let before = later.checked_sub(1).and_then(|place| self.names.get(place));
        let base = match (base, before) {
            (Some(point), _) => point,
            (None, Some(name)) => self.read(name)?,
            (None, None) => {
                let to = self.names.first().map(|name| Timestamp::from_micros(name.time));
                return Err(BackupError::TimeUnreachable { from: None, to });
            }
        };
        // Only a restore point that is taken later says that nothing else was written until then.
        let same = |name: &&PointName| name.history == base.history && name.time >= micros;
        let Some(until) = self.names.iter().find(same) else {
            let to = self.names.get(later).map(|name| Timestamp::from_micros(name.time));
            return Err(BackupError::TimeUnreachable { from: Some(base.taken()), to });
        };
        let (parts, reached) = self.chain(&base, until.seq);
        if reached < until.seq {
            return Err(self.missing(&base, reached));
        }
        let end = End::Time { behind: base.seq, time };
        Ok(self.plan(base, parts, end))
    }

    fn plan(&self, base: Point, parts: Vec<LogName>, end: End) -> Plan {
        let points = self.names.iter().map(|name| name.seq);
        let last_given = points.chain(self.logs.values().map(|log| log.last)).max().unwrap_or(0);
        let size = |log: &LogName| self.objects.get(&log.key()).copied().unwrap_or_default();
        let parts = parts.into_iter().map(|log| (size(&log), log));
        Plan { base, parts: parts.map(|(bytes, log)| (log, bytes)).collect(), end, last_given }
    }

    fn read(&self, name: &PointName) -> Result<Point, BackupError> {
        read_point(self.target, &self.objects, name)
    }

    /// Histories in the order in which they are tried: first one that has given the number to a
    /// record, the newest before the older ones.
    fn histories(&self, wanted: u64) -> Vec<String> {
        let mut seen = BTreeSet::new();
        let newest_first = self.names.iter().rev().map(|name| &name.history);
        let mut histories: Vec<String> =
            newest_first.filter(|history| seen.insert(*history)).cloned().collect();
        histories.sort_by_key(|history| {
            let logs = self.logs.values().filter(|log| log.history == *history);
            !logs.into_iter().any(|log| (log.first..=log.last).contains(&wanted))
        });
        histories
    }

    /// Restore points of a history from the first on that is not `too_early`, or the last one,
    /// back to the oldest.
    fn bases(
        &self,
        history: &str,
        too_early: impl Fn(&PointName) -> bool,
    ) -> impl Iterator<Item = &PointName> {
        let mut names: Vec<&PointName> =
            self.names.iter().filter(|name| name.history == history).collect();
        let end = names.iter().position(|name| !too_early(name)).map_or(names.len(), |at| at + 1);
        names.truncate(end);
        names.into_iter().rev()
    }

    /// Parts of the log from a restore point on, up to the one that holds `wanted`; and the number
    /// up to which nothing is missing.
    fn chain(&self, base: &Point, wanted: u64) -> (Vec<LogName>, u64) {
        let history = &base.history;
        let mut parts: Vec<LogName> =
            base.log.iter().filter_map(|part| LogName::parse(&part.object.key)).collect();
        let start = base.last_record.as_ref().map_or(0, |record| record.seq);
        let mut at = parts.last().map_or(start, |part| part.last);
        while let Some(next) = self.logs.get(&(history.clone(), at)).filter(|_| at < wanted) {
            at = next.last;
            parts.push(next.clone());
        }
        while parts.len() > 1 && parts.last().is_some_and(|part| part.first > wanted) {
            parts.pop();
        }
        let broken = self.logs.values().any(|log| log.history == *history && log.last > at);
        let taken = self.names.iter().filter(|name| name.history == *history);
        let last = taken.map(|name| name.seq).max().unwrap_or(0);
        (parts, if broken { at.max(base.seq) } else { at.max(last) })
    }

    fn missing(&self, base: &Point, reached: u64) -> BackupError {
        let detail = format!(
            "records after {reached} of the history {} are missing in {}",
            base.history,
            self.target.name()
        );
        BackupError::Damaged { detail }
    }

    /// From where to where each history reaches.
    fn reachable(&self) -> Result<Vec<(u64, u64)>, BackupError> {
        let mut seen = BTreeSet::new();
        let mut reachable = Vec::new();
        for name in &self.names {
            if seen.insert(&name.history) {
                let base = self.read(name)?;
                let (_, reached) = self.chain(&base, u64::MAX);
                reachable.push((base.floor, reached));
            }
        }
        reachable.sort_unstable();
        Ok(reachable)
    }
}
