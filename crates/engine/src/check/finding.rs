//! What a check found, and what can be done about it.

use std::path::{Path, PathBuf};

use arrwdb_log::Lost;
use arrwdb_state::{Damage, LibraryId, Seq};

use super::repair::Loss;

/// Findings kept at most; more are counted only.
const FINDINGS_MAX: usize = 10_000;

/// What can be done about a finding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Remedy {
    /// Damage: the file is needed and nothing else holds what was in it.
    Restore,
    /// Damage to the log: what is whole of it can be saved, and the rest given up.
    AcceptLoss,
    /// The unfinished end of the log, never acknowledged: a start cuts it, and so does a repair.
    CutTail,
    /// A derived file: without it, it is made anew.
    Remake,
    /// A left-over that nothing names any more.
    Remove,
    /// The directory of a library that was deleted.
    RemoveLibrary(LibraryId),
    /// Nothing need be done.
    Leave,
}

impl Remedy {
    /// Whether it is damage: something that was acknowledged cannot be read.
    pub fn is_damage(self) -> bool {
        matches!(self, Self::Restore | Self::AcceptLoss)
    }

    /// Whether a repair puts it right without losing anything.
    pub fn is_repairable(self) -> bool {
        matches!(self, Self::CutTail | Self::Remake | Self::Remove | Self::RemoveLibrary(_))
    }

    /// What to do, as a sentence.
    pub fn advice(self) -> &'static str {
        match self {
            Self::Restore => "restore it, or the whole directory, from a backup",
            Self::AcceptLoss => {
                "restore the log or the whole directory from a backup; without one, `arrwdb check \
                 --repair --accept-loss` saves what is whole"
            }
            Self::CutTail => {
                "no need to act; it was never acknowledged, and the next start cuts it"
            }
            Self::Remake => "no need to act; it is derived and made anew when it is needed",
            Self::Remove => {
                "no need to act; nothing uses it, and `arrwdb check --repair` removes it"
            }
            Self::RemoveLibrary(_) => "no need to act; the next start removes it",
            Self::Leave => "no need to act",
        }
    }

    /// One word for it, for programs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Restore => "restore",
            Self::AcceptLoss => "accept_loss",
            Self::CutTail => "cut_tail",
            Self::Remake => "remake",
            Self::Remove => "remove",
            Self::RemoveLibrary(_) => "remove_library",
            Self::Leave => "leave",
        }
    }
}

/// Something that a check found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What can be done about it.
    pub remedy: Remedy,
    /// In which file or directory.
    pub path: PathBuf,
    /// At which byte, where that can be said.
    pub offset: Option<u64>,
    /// What does not hold.
    pub what: String,
}

/// All findings; the first of each remedy are kept, whatever there is of others.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Findings {
    /// The findings, in the order in which they were met.
    pub kept: Vec<Finding>,
    /// Damage, counted.
    pub damage: u64,
    /// What a repair puts right, counted.
    pub repairable: u64,
    /// The rest, counted.
    pub notes: u64,
    /// The remedies of what is kept, each once.
    met: Vec<&'static str>,
}

impl Findings {
    pub(super) fn add(&mut self, finding: Finding) {
        let count = if finding.remedy.is_damage() {
            &mut self.damage
        } else if finding.remedy.is_repairable() {
            &mut self.repairable
        } else {
            &mut self.notes
        };
        *count += 1;
        let name = finding.remedy.name();
        let is_first = !self.met.contains(&name);
        if is_first {
            self.met.push(name);
        }
        // The first of each remedy always has a place: what is found a thousand times must not hide
        // what else can be done, such as saving what is whole of a damaged log.
        if is_first || self.kept.len() < FINDINGS_MAX {
            self.kept.push(finding);
        }
    }

    /// Adds a finding about a whole file.
    pub(super) fn of(&mut self, remedy: Remedy, path: &Path, what: impl Into<String>) {
        self.add(Finding { remedy, path: path.to_owned(), offset: None, what: what.into() });
    }

    /// Adds a finding about a byte of a file.
    pub(super) fn at(&mut self, remedy: Remedy, path: &Path, offset: u64, what: impl Into<String>) {
        let offset = Some(offset);
        self.add(Finding { remedy, path: path.to_owned(), offset, what: what.into() });
    }

    /// Adds damage of a segment.
    pub(super) fn damage(&mut self, damage: &Damage) {
        self.at(Remedy::Restore, Path::new(&damage.file), damage.offset, damage.what);
    }
}

/// A library that was folded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LibraryFigures {
    /// Its id.
    pub id: LibraryId,
    /// Its name.
    pub name: String,
    /// The sequence number it is at.
    pub seq: Seq,
    /// Live documents.
    pub documents: u64,
    /// Live chunks.
    pub chunks: u64,
    /// Segment files.
    pub segments: u64,
    /// Records of the log after its manifest.
    pub replayed: u64,
    /// 128-bit digest of its logical state.
    pub digest: u128,
}

/// What a check found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// Files read.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Whole records of the log.
    pub records: u64,
    /// The highest number of the log.
    pub last: Seq,
    /// Libraries that could be folded, ascending by id, and how.
    pub libraries: Vec<LibraryFigures>,
    /// What was found.
    pub findings: Findings,
    /// Numbers whose records may be lost, as the log's files tell.
    pub lost: Vec<Lost>,
    /// Up to which number the log is not needed.
    pub(super) covered: Seq,
    /// The highest number seen in any snapshot or manifest.
    pub(super) highest: Seq,
    /// Libraries of which the log says that they were deleted.
    pub(super) deleted: Vec<LibraryId>,
}

/// Something that a repair does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Write the log anew from its whole records; the originals are set aside.
    Salvage,
    /// Cut the torn tail off this file; the bytes are set aside.
    CutTail(PathBuf),
    /// Remove this file.
    Remove(PathBuf),
    /// Remove the directory of this deleted library.
    RemoveLibrary(LibraryId, PathBuf),
}

impl Report {
    /// Whether nothing is damaged.
    pub fn is_sound(&self) -> bool {
        self.findings.damage == 0
    }

    /// What a repair would do, in that order.
    pub fn actions(&self, loss: Loss) -> Vec<Action> {
        let mut actions = Vec::new();
        let findings = &self.findings.kept;
        if loss == Loss::Accepted
            && findings.iter().any(|finding| finding.remedy == Remedy::AcceptLoss)
        {
            actions.push(Action::Salvage);
        }
        for finding in findings {
            let path = finding.path.clone();
            match finding.remedy {
                Remedy::CutTail => actions.push(Action::CutTail(path)),
                Remedy::Remake | Remedy::Remove => actions.push(Action::Remove(path)),
                Remedy::RemoveLibrary(id) => actions.push(Action::RemoveLibrary(id, path)),
                Remedy::Restore | Remedy::AcceptLoss | Remedy::Leave => {}
            }
        }
        actions
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_number_of_findings_hides_another_remedy() {
        let path = Path::new("log");
        let mut report = Report::default();
        for remedy in [Remedy::Remove, Remedy::Restore] {
            for _file in 0..FINDINGS_MAX {
                report.findings.of(remedy, path, "one of many");
            }
        }
        for remedy in [Remedy::AcceptLoss, Remedy::CutTail, Remedy::Leave] {
            for _file in 0..2 {
                report.findings.of(remedy, path, "one of few");
            }
        }
        let findings = &report.findings;
        assert_eq!(findings.damage, FINDINGS_MAX as u64 + 2);
        assert!(findings.kept.len() < FINDINGS_MAX + 10, "it stays bounded");
        let actions = report.actions(Loss::Accepted);
        assert_eq!(actions.first(), Some(&Action::Salvage));
        assert!(actions.contains(&Action::CutTail(path.to_owned())));
        assert!(findings.kept.iter().any(|finding| finding.remedy == Remedy::Leave));
    }
}
