//! Where a backup is kept.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::io::Read;
use std::ops::Range;

use super::error::BackupError;
use super::folder::UNFINISHED;

/// The object that says what a target is.
pub(super) const MARKER: &str = "FORMAT";
/// What it says.
const FORMAT: &str = "arrwdb backup, format 1\n";

/// Objects by key. A key is one or more parts of `A-Z a-z 0-9 . _ -`, joined by `/`.
///
/// All methods may block, and may be called from several threads.
pub trait Target: Send + Sync + Debug {
    /// What its user calls it.
    fn name(&self) -> String;
    /// Every object with its size.
    fn list(&self) -> Result<BTreeMap<String, u64>, TargetError>;
    /// Some bytes of an object, exactly so many.
    fn get(&self, key: &str, range: Range<u64>) -> Result<Vec<u8>, TargetError>;
    /// Stores an object of so many bytes, which it has wholly or not at all, and durably when this
    /// returns. Replaces one of the same key.
    fn put(&self, key: &str, bytes: u64, source: &mut dyn Read) -> Result<(), TargetError>;
    /// Removes objects; one that is not there is no error.
    fn delete(&self, keys: &[String]) -> Result<(), TargetError>;
}

/// Why a target did not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    /// There is no such object.
    #[error("{key} is missing")]
    Missing {
        /// Its key.
        key: String,
    },
    /// There is no room for more.
    #[error("there is no space left for {key}")]
    Full {
        /// The object that did not fit.
        key: String,
    },
    /// It refused, or cannot be reached.
    #[error("cannot {operation} {key}: {detail}")]
    Failed {
        /// What it was asked.
        operation: &'static str,
        /// Of which object.
        key: String,
        /// What it said.
        detail: String,
    },
}

/// For `map_err`: of which target.
pub(super) fn of(target: &dyn Target) -> impl Fn(TargetError) -> BackupError + '_ {
    |error| BackupError::Target { target: target.name(), error }
}

/// Reads a small object whole.
pub(super) fn get_all(target: &dyn Target, key: &str, bytes: u64) -> Result<Vec<u8>, BackupError> {
    target.get(key, 0..bytes).map_err(of(target))
}

/// Stores bytes that are at hand.
pub(super) fn put_all(target: &dyn Target, key: &str, bytes: &[u8]) -> Result<(), BackupError> {
    target.put(key, bytes.len() as u64, &mut &*bytes).map_err(of(target))
}

/// Lists a target that is a backup; an empty one where `empty` says so.
pub(super) fn list(target: &dyn Target) -> Result<BTreeMap<String, u64>, BackupError> {
    let objects = target.list().map_err(of(target))?;
    match objects.get(MARKER) {
        Some(&bytes) => {
            let found = get_all(target, MARKER, bytes.min(FORMAT.len() as u64 * 2))?;
            if found != FORMAT.as_bytes() {
                let what = format!("{} in {}", MARKER, target.name());
                return Err(BackupError::Newer { what });
            }
            Ok(objects)
        }
        // A first backup that was stopped leaves nothing but an unfinished file.
        None if objects.keys().all(|key| key.ends_with(UNFINISHED)) => Ok(BTreeMap::new()),
        None => Err(BackupError::Foreign { target: target.name() }),
    }
}

/// Makes an empty target a backup.
pub(super) fn mark(target: &dyn Target) -> Result<(), BackupError> {
    put_all(target, MARKER, FORMAT.as_bytes())
}

/// Whether a key is one that this crate makes, so that none leads out of a folder.
pub(super) fn is_key(key: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    key.split('/').all(|part| !part.is_empty() && !part.starts_with('.') && part.bytes().all(plain))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_that_lead_elsewhere_are_none() {
        for good in ["FORMAT", "points/1-2-ab.json", "libraries/0-a/1.seg"] {
            assert!(is_key(good), "{good}");
        }
        for bad in ["", "/etc/passwd", "a//b", "../x", "a/../b", "a/.", "a b", "a\\b"] {
            assert!(!is_key(bad), "{bad:?}");
        }
    }
}
