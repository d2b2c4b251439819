//! Files that are damaged or gone while nobody has them open.

use std::path::Path;

use arrwdb_engine::log::disk::Disk;
use arrwdb_engine::log::memory::MemoryDisk;
use arrwdb_engine::state::Seq;
use arrwdb_engine::{Engine, EngineError, FollowError};

use crate::check::{Failure, compare, differs};
use crate::model::Model;
use crate::run::files;
use crate::world::{Seeded, World};

/// Damages one file of a closed data directory; what was done to which.
pub(crate) fn damage(disk: &MemoryDisk, seed: u64) -> Option<String> {
    let random = Seeded::new(seed);
    let found = files(disk, Path::new("/data"));
    let path = found.get(usize::try_from(random.below(found.len().max(1) as u64)).ok()?)?;
    let kind = random.below(4);
    if kind == 0 {
        disk.remove(path).ok()?;
        return Some(format!("{} was removed", path.display()));
    }
    let mut what = String::new();
    let altered = disk.alter(path, |bytes| {
        if bytes.is_empty() {
            return;
        }
        let place = |end: usize| usize::try_from(random.below(end as u64)).unwrap_or(0);
        let at = place(bytes.len());
        what = if kind == 1 {
            let end = bytes.len().min(at + 512);
            bytes[at..end].fill(0);
            format!("512 zeros at {at}")
        } else {
            bytes[at] ^= 1 << place(8);
            format!("a bit flipped at {at}")
        };
    });
    altered.ok().map(|()| format!("{what} of {}", path.display()))
}

/// Opens a damaged data directory: it, or whatever reads the damage, is refused; or there is no
/// difference. Whether it was refused.
pub(crate) async fn is_refused(
    world: &World,
    disk: &MemoryDisk,
    (model, feed_before): (&Model, Option<&[u64]>),
) -> Result<bool, Failure> {
    let engine = match world.open(disk).await {
        Err(EngineError::Damaged { .. }) => return Ok(true),
        other => other?,
    };
    let outcome = match compare(&engine, model).await {
        Ok(_digests) => feed(&engine).await,
        Err(failure) => Err(failure),
    };
    drop(engine.close().await);
    match outcome {
        Ok((first, found)) => {
            let Some(before) = feed_before else { return Ok(false) };
            let kept: Vec<u64> = before.iter().copied().filter(|seq| *seq >= first).collect();
            if found != kept {
                return differs(format!("the feed from {first} on is {found:?}, not {kept:?}"));
            }
            Ok(false)
        }
        Err(Failure::Engine(EngineError::Damaged { .. })) => Ok(true),
        Err(failure) => Err(failure),
    }
}

/// The first number that the feed still has, and all its numbers.
pub(crate) async fn feed(engine: &Engine) -> Result<(u64, Vec<u64>), Failure> {
    let mut first = 1;
    loop {
        match engine.changes_after(Seq::new(first - 1), usize::MAX).await {
            Ok(changes) => return Ok((first, changes.iter().map(|one| one.seq.get()).collect())),
            Err(FollowError::Trimmed { first: kept }) if kept.get() > first => first = kept.get(),
            Err(FollowError::Trimmed { first }) => {
                return differs(format!("the feed begins at {first}, which it does not have"));
            }
            Err(FollowError::Engine(error)) => return Err(error.into()),
        }
    }
}
