//! Forgetting old restore points, and what only they needed.

use std::collections::BTreeSet;

use super::error::BackupError;
use super::take::{names, read_point};
use super::target::{self, Target};

/// The folders whose objects are removed when no restore point needs them.
const FOLDERS: [&str; 4] = ["points/", "catalog/", "libraries/", "log/"];

/// What was removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Forgotten {
    /// Restore points.
    pub points: u64,
    /// Objects that no restore point needs any more, those of interrupted backups included.
    pub objects: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// Keeps the newest `keep` restore points (at least one) and removes the others, then every object
/// that none of the kept ones needs. Not to be run beside a backup to the same target.
///
/// A restore point that cannot be read stops it before anything is removed.
pub fn forget(target: &dyn Target, keep: usize) -> Result<Forgotten, BackupError> {
    let objects = target::list(target)?;
    let mut names = names(&objects);
    let kept = names.split_off(names.len().saturating_sub(keep.max(1)));
    let mut needed: BTreeSet<String> = BTreeSet::new();
    for name in &kept {
        let point = read_point(target, &objects, name)?;
        needed.insert(name.key());
        needed.extend(point.objects().map(|object| object.key.clone()));
    }
    let dropped: Vec<String> = names.iter().map(super::point::PointName::key).collect();
    // First what names them, so that no restore point is ever left without its objects.
    target.delete(&dropped).map_err(target::of(target))?;
    let unneeded: Vec<String> = objects
        .keys()
        .filter(|key| FOLDERS.iter().any(|folder| key.starts_with(folder)))
        .filter(|key| !needed.contains(*key) && !dropped.contains(key))
        .cloned()
        .collect();
    target.delete(&unneeded).map_err(target::of(target))?;
    let removed = dropped.iter().chain(&unneeded);
    let bytes = removed.filter_map(|key| objects.get(key)).sum();
    Ok(Forgotten { points: dropped.len() as u64, objects: unneeded.len() as u64, bytes })
}
