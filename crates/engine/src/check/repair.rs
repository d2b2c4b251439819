//! Doing what a check proposed.

use std::path::{Path, PathBuf};

use arrwdb_log::{Rescue, cut_torn_tail};
use arrwdb_state::LibraryId;

use super::finding::{Action, Remedy, Report};
use super::log::lost_numbers;
use super::{CheckError, Silent, directory};
use crate::error::EngineError;
use crate::store::{Store, failed};

/// Whether acknowledged records of the log may be given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loss {
    /// They may not: nothing is done about damage.
    Refused,
    /// They may, where they cannot be read any more.
    Accepted,
}

/// What a repair did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Done {
    /// To which file or directory.
    pub path: PathBuf,
    /// What.
    pub what: String,
}

impl Done {
    fn new(path: &Path, what: impl Into<String>) -> Self {
        Self { path: path.to_owned(), what: what.into() }
    }
}

pub(super) fn repair(
    store: &Store,
    report: &Report,
    loss: Loss,
    salt: u64,
) -> Result<Vec<Done>, CheckError> {
    let mut done = Vec::new();
    let actions = report.actions(loss);
    let salvaged = actions.contains(&Action::Salvage);
    for action in actions {
        match action {
            Action::Salvage => salvage(store, report, salt, &mut done)?,
            Action::CutTail(_) => done.extend(cut(store)?),
            Action::Remove(path) => {
                remove(store, &path)?;
                done.push(Done::new(&path, "removed"));
            }
            Action::RemoveLibrary(id, path) => {
                if salvaged && !report.deleted.contains(&id) {
                    continue;
                }
                store.remove_library(id)?;
                done.push(Done::new(&path, "removed"));
            }
        }
    }
    if salvaged {
        keep_unknown_libraries(store, &mut done)?;
    }
    Ok(done)
}

fn remove(store: &Store, path: &Path) -> Result<(), EngineError> {
    store.remove(path)?;
    let dir = path.parent().unwrap_or(&store.root);
    store.disk.sync_dir(dir).map_err(failed("sync", dir))
}

fn cut(store: &Store) -> Result<Option<Done>, CheckError> {
    let cut = cut_torn_tail(&*store.disk, &store.log_dir())?;
    Ok(cut.map(|(torn, aside)| {
        let (offset, bytes, kept) = (torn.offset, torn.bytes_cut, aside.display());
        Done::new(&torn.file, format!("cut at byte {offset}; the {bytes} bytes are in {kept}"))
    }))
}

fn salvage(
    store: &Store,
    report: &Report,
    salt: u64,
    done: &mut Vec<Done>,
) -> Result<(), CheckError> {
    let (covered, highest) = (report.covered.get(), report.highest.get());
    let rescue = Rescue { covered, highest, salt };
    let dir = store.log_dir();
    let repaired = arrwdb_log::repair(&*store.disk, &dir, rescue)?;
    for file in repaired.repaired {
        let records = file.records;
        let what = match file.set_aside {
            Some(aside) => format!(
                "written anew with its {records} whole records; the original is {}",
                aside.display()
            ),
            None => "made: there was no log".to_owned(),
        };
        done.push(Done::new(&file.file, what));
    }
    let lost = match repaired.lost.as_slice() {
        [] => "no record is lost".to_owned(),
        lost => format!("these sequence numbers are lost: {}", lost_numbers(lost)),
    };
    let on = repaired.continues_after;
    done.push(Done::new(&dir, format!("{lost}; numbers go on after {on}")));
    Ok(())
}

/// A library that the log no longer knows may have been created by a record that is lost: its
/// files would be removed by the next start as those of a deleted one.
fn keep_unknown_libraries(store: &Store, done: &mut Vec<Done>) -> Result<(), CheckError> {
    let after = directory::check(store, &Silent)?;
    for finding in &after.findings.kept {
        let Remedy::RemoveLibrary(id) = finding.remedy else { continue };
        if !after.deleted.contains(&id) {
            let aside = set_aside(store, id)?;
            let what = format!(
                "no whole record says that this library was created; its files are in {}",
                aside.display()
            );
            done.push(Done::new(&finding.path, what));
        }
    }
    Ok(())
}

/// Moves a library's files to where no start looks for them.
fn set_aside(store: &Store, id: LibraryId) -> Result<PathBuf, EngineError> {
    let from = store.library_dir(id);
    let to = store.libraries_dir().join(format!("{id}.set-aside"));
    store.make_dir(&to)?;
    for part in ["segments", ""] {
        let (from, to) = (from.join(part), to.join(part));
        store.make_dir(&to)?;
        for name in store.names(&from)? {
            if name != "segments" {
                let path = from.join(&name);
                store.disk.rename(&path, &to.join(&name)).map_err(failed("move", &path))?;
            }
        }
        store.disk.sync_dir(&to).map_err(failed("sync", &to))?;
    }
    store.remove_library(id)?;
    Ok(to)
}
