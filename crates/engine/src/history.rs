//! How far back the past is kept: the number that was the last one some time ago.
//!
//! Merges leave out what died at or before the horizon, and nothing else. It comes from samples of
//! (time, number); those of before a start are read from the log, whose records say when they were
//! made, so that a restart neither forgets the past nor keeps it longer than is asked for. Where
//! the log does not go back so far, the past is kept for longer.

use std::collections::VecDeque;

use arrwdb_log::{Log, Record, Stream};
use arrwdb_state::{CatalogEntry, LibraryEntry, Seq, Timestamp, WorkEntry};

use crate::config::EngineConfig;
use crate::error::EngineError;

/// Samples that are kept, at most.
const SAMPLES_MAX: usize = 4096;
/// Samples that a start reads from the log, at most: one in as many parts of the history.
const LOG_SAMPLES: u64 = 32;

/// (time, number) now and then, ascending: what is numbered up to it was made by that time.
#[derive(Debug, Default)]
pub(crate) struct Samples(VecDeque<(Timestamp, u64)>);

impl Samples {
    /// The horizon at a start, and the samples after it, as the log tells them. A log that cannot be
    /// read here is no reason not to start: nothing is forgotten then.
    pub(crate) fn of_log(log: &dyn Log, config: &EngineConfig, now: Timestamp) -> (Seq, Self) {
        Self::read(log, history_begin(config, now)).unwrap_or_else(|error| {
            tracing::warn!(%error, "cannot tell from the log how old it is; the past is kept longer");
            (Seq::START, Self::default())
        })
    }

    fn read(log: &dyn Log, begin: Timestamp) -> Result<(Seq, Self), EngineError> {
        let durable = log.durable();
        let horizon = last_by(log, begin, durable)?;
        let mut samples = Self::default();
        let step = ((durable.saturating_sub(horizon)) / LOG_SAMPLES).max(1);
        let mut after = horizon.max(log.first().saturating_sub(1));
        while let Some((number, made)) = next_after(log, after)? {
            samples.push(made, number);
            after = number.max(after.saturating_add(step).min(durable - 1));
        }
        Ok((Seq::new(horizon), samples))
    }

    /// Notes what is durable now; the horizon, if that is known by what was noted before.
    pub(crate) fn take(
        &mut self,
        config: &EngineConfig,
        now: Timestamp,
        durable: u64,
    ) -> Option<u64> {
        self.push(now, durable);
        let begin = history_begin(config, now);
        let mut horizon = None;
        while let Some((_time, number)) = self.0.pop_front_if(|(time, _number)| *time <= begin) {
            horizon = Some(number);
        }
        horizon
    }

    fn push(&mut self, time: Timestamp, number: u64) {
        self.0.push_back((time, number));
        if self.0.len() > SAMPLES_MAX {
            // Fewer samples only keep rows a little longer.
            let mut nth = 0;
            self.0.retain(|_sample| {
                nth += 1;
                nth % 2 == 0
            });
        }
    }
}

/// What died by this time is beyond the history that is kept.
fn history_begin(config: &EngineConfig, now: Timestamp) -> Timestamp {
    let history = i64::try_from(config.history.as_micros()).unwrap_or(i64::MAX);
    Timestamp::from_micros(now.micros().saturating_sub(history))
}

/// The last record made by `time`; 0 if the log does not go back so far. O(log records) reads.
fn last_by(log: &dyn Log, time: Timestamp, durable: u64) -> Result<u64, EngineError> {
    let before = log.first().saturating_sub(1);
    let Some((mut last, _made)) = next_after(log, before)?.filter(|(_n, made)| *made <= time)
    else {
        return Ok(0);
    };
    // `last` was made by then, and nothing from `end` on.
    let mut end = durable.saturating_add(1);
    while end - last > 1 {
        let middle = last + (end - last) / 2;
        match next_after(log, middle - 1)? {
            Some((number, made)) if made <= time => last = number,
            _ => end = middle,
        }
    }
    Ok(last)
}

/// The first record after `after`: its number, and when it was made.
fn next_after(log: &dyn Log, after: u64) -> Result<Option<(u64, Timestamp)>, EngineError> {
    let record = log.read(after)?.next().transpose()?;
    record.map(|record| Ok((record.seq, made_at(&record)?))).transpose()
}

/// When a record was made.
pub(crate) fn made_at(record: &Record) -> Result<Timestamp, EngineError> {
    let made = if record.stream == Stream::CATALOG {
        CatalogEntry::decode(&record.payload).map(|entry| entry.at())
    } else if record.stream == Stream::WORK {
        WorkEntry::decode(&record.payload).map(|entry| entry.at())
    } else {
        LibraryEntry::decode(&record.payload).map(|entry| entry.at())
    };
    made.map_err(|error| EngineError::Damaged {
        detail: format!("record {} of the log does not decode: {error}", record.seq),
    })
}
