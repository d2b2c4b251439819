//! The machine's own clock and randomness, and ids made from them.

use std::time::{SystemTime, UNIX_EPOCH};

use arrwdb_state::Timestamp;
use uuid::{Builder, Uuid};

use crate::config::{Clock, Random};

/// The machine's wall clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        // A clock before 1970 is a broken clock: times read 1970 until it is set.
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Timestamp::from_micros(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
    }
}

/// The operating system's randomness.
#[derive(Debug, Clone, Copy, Default)]
pub struct OsRandom;

impl Random for OsRandom {
    fn fill(&self, bytes: &mut [u8]) {
        if let Err(error) = getrandom::fill(bytes) {
            // Linux has it from boot on. Ids must stay unique even where it does not.
            tracing::error!(%error, "no randomness from the operating system; using the clock");
            let mut word = u64::from_ne_bytes(SystemClock.now().micros().to_ne_bytes());
            for byte in bytes {
                word = word.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                *byte = word.to_be_bytes()[0];
            }
        }
    }
}

/// A new UUID version 7 (RFC 9562): time first, so that new ids sort after old ones.
pub(crate) fn new_uuid(at: Timestamp, random: &dyn Random) -> Uuid {
    let mut bytes = [0; 10];
    random.fill(&mut bytes);
    let millis = u64::try_from(at.micros() / 1000).unwrap_or(0);
    Builder::from_unix_timestamp_millis(millis, &bytes).into_uuid()
}
