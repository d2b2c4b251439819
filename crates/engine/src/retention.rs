//! How much of the log is kept for those who follow it, beyond what a restart needs.

use std::time::Duration;

use arrwdb_log::{Log, LogFile};
use arrwdb_state::Timestamp;

use crate::config::EngineConfig;
use crate::error::EngineError;
use crate::history::made_at;

/// The number up to which the log is older or larger than the feed's retention: whichever is
/// reached first. Reads one record of each of the oldest files.
pub(crate) fn expired(
    log: &dyn Log,
    config: &EngineConfig,
    now: Timestamp,
) -> Result<u64, EngineError> {
    let files = log.files();
    let mut bytes: u64 = files.iter().map(|file| file.bytes).sum();
    let mut expired = 0;
    for file in files.iter().filter(|file| file.sealed) {
        let too_large = bytes > config.feed_retention_bytes;
        if !too_large && !too_old(log, file, now, config.feed_retention)? {
            break;
        }
        bytes -= file.bytes;
        expired = file.last;
    }
    Ok(expired)
}

/// Whether a file's last record was made longer ago than `age`.
fn too_old(
    log: &dyn Log,
    file: &LogFile,
    now: Timestamp,
    age: Duration,
) -> Result<bool, EngineError> {
    let Some(record) = log.read(file.last.saturating_sub(1))?.next().transpose()? else {
        return Ok(false);
    };
    let made = made_at(&record)?;
    let age = i64::try_from(age.as_micros()).unwrap_or(i64::MAX);
    Ok(now.micros().saturating_sub(made.micros()) > age)
}
