//! Making a data directory out of a backup.

use std::path::{Path, PathBuf};

use arrwdb_log::Record;
use arrwdb_log::outside::{Carried, file_name, read_carried};
use arrwdb_state::{LibraryId, Manifest, Timestamp};

use crate::history::made_at;
use sha2::{Digest, Sha256};

use super::Progress;
use super::error::BackupError;
use super::plan::{End, Plan, Stock};
use super::point::{LibraryPart, LogName, Object, hex};
use super::source::Site;
use super::target::{self, Target};
use super::workers::each;

/// Numbers left out after a restore. Some above the last one in the backup may have been given
/// out by a machine that is gone, and must never mean something else.
pub const SEQS_SKIPPED: u64 = 1_000_000_000;

/// Bytes asked of the target at a time.
const READ_BYTES: u64 = 8 << 20;

/// Which state to restore.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RestoreTo {
    /// The newest restore point.
    Newest,
    /// The newest restore point of this number.
    Point(u64),
    /// After the last record up to this number.
    Seq(u64),
    /// Before the first record that was made after this time.
    Time(Timestamp),
}

/// A directory that was restored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Restored {
    /// The state is the one after this number.
    pub seq: u64,
    /// The restore point that it was made from.
    pub point: super::Point,
    /// New records get numbers above this.
    pub goes_on_after: u64,
    /// Bytes written.
    pub bytes: u64,
}

/// Makes the data directory `site.dir`, which must be absent or empty, out of a backup. Every object
/// is compared with its SHA-256. Until it is done no server opens the directory. Blocks.
pub fn restore(
    target: &dyn Target,
    site: &Site,
    to: RestoreTo,
    progress: &dyn Progress,
) -> Result<Restored, BackupError> {
    let stock = Stock::open(target)?;
    let plan = match to {
        RestoreTo::Newest => stock.newest()?,
        RestoreTo::Point(seq) => stock.point(seq)?,
        RestoreTo::Seq(seq) => stock.seq(seq)?,
        RestoreTo::Time(time) => stock.time(time)?,
    };
    if site.disk.list(&site.dir).is_ok_and(|names| !names.is_empty()) {
        return Err(BackupError::NotEmpty { dir: site.dir.clone() });
    }
    let objects = plan.base.bytes() - plan.base.log.iter().map(|it| it.object.bytes).sum::<u64>();
    let bytes = objects + plan.parts.iter().map(|(_, bytes)| bytes).sum::<u64>();
    progress.expect(bytes);
    Work { target, site, progress }.run(plan, bytes)
}

struct Work<'a> {
    target: &'a dyn Target,
    site: &'a Site,
    progress: &'a dyn Progress,
}

impl Work<'_> {
    fn run(&self, plan: Plan, bytes: u64) -> Result<Restored, BackupError> {
        let dir = &self.site.dir;
        for dir in [dir.clone(), dir.join("catalog"), dir.join("libraries"), dir.join("log")] {
            self.make_dir(&dir)?;
        }
        if let Some(catalog) = &plan.base.catalog {
            let name = format!("catalog-{:020}", plan.base.covered);
            self.fetch(catalog, &dir.join("catalog").join(name))?;
        }
        each(plan.base.libraries.iter().collect(), |library| self.library(library))?;
        let (seq, goes_on_after) = self.log(&plan)?;
        for dir in ["catalog", "libraries", "log"] {
            self.sync_dir(&dir_of(&self.site.dir, dir))?;
        }
        // Last: without it no server takes the directory for its own.
        self.write(&dir.join("VERSION"), plan.base.version.as_bytes())?;
        self.sync_dir(dir)?;
        Ok(Restored { seq, point: plan.base, goes_on_after, bytes })
    }

    fn library(&self, part: &LibraryPart) -> Result<(), BackupError> {
        let wrong = || BackupError::Damaged {
            detail: format!("{} does not belong to its restore point", part.manifest.key),
        };
        let id: LibraryId = part.id.parse().map_err(|_error| wrong())?;
        let dir = dir_of(&self.site.dir, "libraries").join(id.to_string());
        let segments = dir.join("segments");
        self.make_dir(&dir)?;
        self.make_dir(&segments)?;
        let path = dir.join(format!("manifest-{:020}", part.applied));
        let bytes = self.get(&part.manifest)?;
        let manifest = Manifest::read(&bytes).map_err(|_error| wrong())?;
        let listed = manifest.all_segments().map(|it| (it.number, it.file_bytes));
        let kept = part.segments.iter().map(|it| (it.number, it.object.bytes));
        if manifest.library != id || manifest.applied.get() != part.applied || !listed.eq(kept) {
            return Err(wrong());
        }
        for segment in &part.segments {
            self.fetch(&segment.object, &segments.join(format!("{:010}.seg", segment.number)))?;
        }
        self.sync_dir(&segments)?;
        self.write(&path, &bytes)?;
        self.sync_dir(&dir)
    }

    /// Puts the parts of the log back as files, up to the end that is wanted, and a mark behind
    /// them (B5). Returns the number of the state and of the mark.
    fn log(&self, plan: &Plan) -> Result<(u64, u64), BackupError> {
        let mark = plan.last_given + SEQS_SKIPPED;
        let dir = self.site.log_dir();
        let mut last = plan.base.covered;
        let mut close = None;
        for (name, bytes) in &plan.parts {
            let object = Object { key: name.key(), bytes: *bytes, sha256: name.hash.clone() };
            let file = self.get(&object)?;
            let records = read_carried(Path::new(&object.key), file.clone())?;
            if !fits(name, &records) {
                let detail = format!("{} does not hold what its name says", object.key);
                return Err(BackupError::Damaged { detail });
            }
            let count = records.iter().take_while(|record| !is_beyond(plan.end, record)).count();
            if count < records.len() {
                let mut cut = Carried::after(name.after, self.salt());
                records.into_iter().take(count).for_each(|record| cut.add(record));
                close = Some(cut);
                break;
            }
            self.write(&dir.join(file_name(name.first)), &file)?;
            last = name.last;
        }
        let close = close.unwrap_or_else(|| Carried::after(last, self.salt()));
        let end = match plan.end {
            End::Seq(seq) => seq,
            End::Time { behind, .. } => close.last().max(behind),
        };
        let (name, bytes) = close.finish_marked(mark);
        self.write(&dir.join(name), &bytes)?;
        Ok((end, mark))
    }

    fn salt(&self) -> u64 {
        let mut salt = [0; 8];
        self.site.random.fill(&mut salt);
        u64::from_le_bytes(salt)
    }

    /// An object's bytes, compared with what is known of its SHA-256.
    fn get(&self, object: &Object) -> Result<Vec<u8>, BackupError> {
        let bytes = target::get_all(self.target, &object.key, object.bytes)?;
        self.progress.advance(object.bytes);
        if super::point::sha256(&bytes).starts_with(&object.sha256) {
            Ok(bytes)
        } else {
            Err(self.not_as_stored(object))
        }
    }

    /// Copies an object into a file, piece by piece, and compares it with its SHA-256.
    fn fetch(&self, object: &Object, path: &Path) -> Result<(), BackupError> {
        let write = |error| BackupError::disk("write", path)(error);
        let file = self.site.disk.create(path).map_err(BackupError::disk("create", path))?;
        file.allocate(0, object.bytes).map_err(write)?;
        let mut hash = Sha256::new();
        let mut at = 0;
        while at < object.bytes {
            let end = object.bytes.min(at + READ_BYTES);
            let piece = self.target.get(&object.key, at..end).map_err(target::of(self.target))?;
            hash.update(&piece);
            file.write_all_at(&piece, at).map_err(write)?;
            self.progress.advance(end - at);
            at = end;
        }
        if hex(&hash.finalize()) != object.sha256 {
            return Err(self.not_as_stored(object));
        }
        file.sync_data().map_err(BackupError::disk("sync", path))
    }

    fn not_as_stored(&self, object: &Object) -> BackupError {
        let detail = format!(
            "{} in {} is damaged: its SHA-256 is not the one it was stored with; restore from \
             another restore point, and delete the object so that the next backup sends it again",
            object.key,
            self.target.name()
        );
        BackupError::Damaged { detail }
    }

    fn write(&self, path: &Path, bytes: &[u8]) -> Result<(), BackupError> {
        let write = || {
            let file = self.site.disk.create(path)?;
            file.write_all_at(bytes, 0)?;
            file.sync_data()
        };
        write().map_err(BackupError::disk("write", path))
    }

    fn make_dir(&self, dir: &Path) -> Result<(), BackupError> {
        self.site.disk.create_dir_all(dir).map_err(BackupError::disk("create", dir))?;
        dir.parent().map_or(Ok(()), |above| self.sync_dir(above))
    }

    fn sync_dir(&self, dir: &Path) -> Result<(), BackupError> {
        self.site.disk.sync_dir(dir).map_err(BackupError::disk("sync", dir))
    }
}

fn dir_of(root: &Path, name: &str) -> PathBuf {
    root.join(name)
}

fn fits(name: &LogName, records: &[Record]) -> bool {
    let first = records.first().map(|record| record.seq);
    let last = records.last().map(|record| record.seq);
    (first, last) == (Some(name.first), Some(name.last)) && name.after < name.first
}

/// Whether a record lies behind the end that is wanted.
fn is_beyond(end: End, record: &Record) -> bool {
    match end {
        End::Seq(seq) => record.seq > seq,
        End::Time { behind, time } => {
            record.seq > behind && made(record).is_some_and(|made| made > time)
        }
    }
}

/// When a record was made; `None` if that cannot be told.
fn made(record: &Record) -> Option<Timestamp> {
    made_at(record).ok()
}
