//! The scrub: every file that is written once is read through now and then, at a paced rate, so
//! that damage is found while a backup that has the file whole still exists.
//!
//! Checked are manifests, segment files (every block's checksum) and sealed log files (every frame's
//! checksum). Pages that the system holds in memory are not read from the disk again, so damage
//! behind them shows when they have been evicted.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use arrwdb_log::disk::Access;
use arrwdb_state::{LibraryId, Manifest, SegmentOutline, Seq, Timestamp};

use crate::engine::Inner;
use crate::error::EngineError;
use crate::handle::Handle;
use crate::segment_file::{Listed, SegmentFault, SegmentFile};
use crate::store::{damaged, failed};

/// Damaged files that are remembered by name; more are only counted.
const DAMAGED_MAX: usize = 100;
/// What looking at a small file is taken to cost, so that thousands of them are paced as well.
const FILE_COST_BYTES: u64 = 64 << 10;
/// A new pass begins at the earliest so long after the last one began.
const PASS_INTERVAL: Duration = Duration::from_hours(24);

/// What the scrub has found since the start.
#[derive(Debug, Clone, Default)]
pub struct ScrubReport {
    /// Passes over everything that were completed.
    pub passes: u64,
    /// When the last one was completed.
    pub completed_at: Option<Timestamp>,
    /// Files read through.
    pub files: u64,
    /// Bytes read through.
    pub bytes: u64,
    /// Damaged files found, each time they are found.
    pub damaged: u64,
    /// What is wrong with the first of them, by file and offset.
    pub findings: Vec<String>,
}

/// One thing to read through.
#[derive(Debug)]
enum Item {
    Library(LibraryId),
    Segment(LibraryId, Listed),
    /// A sealed log file: its records are after the first number, up to the second.
    Log(u64, u64),
}

/// Where the scrub is.
#[derive(Debug, Default)]
pub(crate) struct Scrub {
    items: VecDeque<Item>,
    begun: Option<Timestamp>,
    is_under_way: bool,
    /// Bytes that may be read now; below zero after a large file.
    allowance: i64,
}

impl Scrub {
    /// Reads what may be read in one tick.
    pub(crate) async fn step(&mut self, engine: &Arc<Inner>, tick: Duration) {
        let rate = engine.config.scrub_bytes_per_second;
        if rate == 0 || !self.begin(engine) {
            return;
        }
        let share = i64::try_from(rate.saturating_mul(tick.as_secs())).unwrap_or(i64::MAX);
        self.allowance = self.allowance.saturating_add(share).min(share);
        while self.allowance > 0 && !engine.upkeep.is_closing() {
            let Some(item) = self.items.pop_front() else {
                self.is_under_way = false;
                end(engine);
                return;
            };
            let shared = engine.clone();
            let checked = tokio::task::spawn_blocking(move || shared.scrub_item(&item)).await;
            let Ok(Checked { bytes, more, finding }) = checked else { return };
            let cost = i64::try_from(bytes.saturating_add(FILE_COST_BYTES)).unwrap_or(i64::MAX);
            self.allowance = self.allowance.saturating_sub(cost);
            for item in more.into_iter().rev() {
                self.items.push_front(item);
            }
            engine.note_scrubbed(bytes, finding);
        }
    }

    /// Begins a pass if it is time; whether one is under way.
    fn begin(&mut self, engine: &Inner) -> bool {
        if self.is_under_way {
            return true;
        }
        let now = engine.parts.clock.now();
        let pause = i64::try_from(PASS_INTERVAL.as_micros()).unwrap_or(i64::MAX);
        if self.begun.is_some_and(|begun| now.micros().saturating_sub(begun.micros()) < pause) {
            return false;
        }
        self.begun = Some(now);
        self.is_under_way = true;
        self.items = engine.handles.load().keys().copied().map(Item::Library).collect();
        let mut after = engine.log.first().saturating_sub(1);
        for file in engine.log.files().into_iter().filter(|file| file.sealed) {
            self.items.push_back(Item::Log(after, file.last));
            after = file.last;
        }
        true
    }
}

/// A pass is complete.
fn end(engine: &Inner) {
    let mut report = engine.scrubbed.lock();
    report.passes += 1;
    report.completed_at = Some(engine.parts.clock.now());
    let (files, bytes, damaged) = (report.files, report.bytes, report.damaged);
    tracing::debug!(files, bytes, damaged, "read through everything that is on disk");
}

/// What came of one item.
#[derive(Default)]
struct Checked {
    bytes: u64,
    /// What it leads to.
    more: Vec<Item>,
    finding: Option<EngineError>,
}

impl Inner {
    fn note_scrubbed(&self, bytes: u64, finding: Option<EngineError>) {
        let mut report = self.scrubbed.lock();
        report.files += u64::from(bytes > 0);
        report.bytes += bytes;
        if let Some(error) = finding {
            tracing::error!(%error, "a file is damaged");
            report.damaged += 1;
            if report.findings.len() < DAMAGED_MAX {
                report.findings.push(error.to_string());
            }
        }
    }

    fn scrub_item(&self, item: &Item) -> Checked {
        let outcome = match item {
            Item::Library(id) => self.scrub_manifest(*id),
            Item::Segment(id, listed) => self.scrub_segment(*id, *listed),
            Item::Log(after, last) => self.scrub_log(*after, *last),
        };
        match outcome {
            Ok(checked) => checked,
            Err(_) if self.is_superseded(item) => Checked::default(),
            Err(error) => Checked { finding: Some(error), ..Checked::default() },
        }
    }

    fn scrub_manifest(&self, id: LibraryId) -> Result<Checked, EngineError> {
        let least = self.handles.load().get(&id).map_or(Seq::START, |handle| handle.checkpointed());
        let manifest = self.store.read_manifest(id)?;
        let found = manifest.as_ref().map_or(Seq::START, |manifest| manifest.applied);
        if found < least {
            return Err(self.store.no_manifest(id, least));
        }
        let Some(manifest) = manifest else { return Ok(Checked::default()) };
        let listed = manifest.all_segments().map(Listed::of);
        let more = listed.map(|listed| Item::Segment(id, listed)).collect();
        Ok(Checked { bytes: manifest.write().len() as u64, more, finding: None })
    }

    fn scrub_segment(&self, id: LibraryId, listed: Listed) -> Result<Checked, EngineError> {
        let path = self.store.segment_path(id, listed.number);
        let read = |error| failed("read", &path)(error);
        let file = self.store.disk.open(&path, Access::Read).map_err(read)?;
        let fault = |fault| match fault {
            SegmentFault::Read(error) => read(error),
            SegmentFault::Damaged(error) => damaged(&path, &error),
            SegmentFault::Another => EngineError::Damaged {
                detail: format!(
                    "{} is not the file that its manifest names; restore it or a backup",
                    path.display()
                ),
            },
        };
        let file = SegmentFile::read(file, &listed).map_err(fault)?;
        let checksums = file.checksums().map_err(fault)?;
        let (mut at, mut blocks) = (SegmentOutline::HEADER_BYTES as u64, Vec::new());
        while at < file.outline.table {
            if self.upkeep.is_closing() {
                return Ok(Checked::default());
            }
            file.read_blocks(&checksums, at, &mut blocks).map_err(fault)?;
            at += blocks.len() as u64;
        }
        Ok(Checked { bytes: file.outline.file_bytes, ..Checked::default() })
    }

    fn scrub_log(&self, after: u64, last: u64) -> Result<Checked, EngineError> {
        let mut bytes = 0;
        for record in self.log.read(after)? {
            let record = record?;
            if record.seq > last {
                break;
            }
            bytes += record.payload.len() as u64;
        }
        Ok(Checked { bytes, ..Checked::default() })
    }

    /// Whether an item that could not be read is no longer needed: merged away, deleted, trimmed.
    fn is_superseded(&self, item: &Item) -> bool {
        match item {
            Item::Library(id) => self.deleted(*id),
            Item::Segment(id, listed) => {
                let merged = |m: Manifest| m.all_segments().all(|s| s.number != listed.number);
                self.deleted(*id)
                    || self.store.read_manifest(*id).is_ok_and(|found| found.is_some_and(merged))
            }
            Item::Log(after, _last) => self.log.first() > after.saturating_add(1),
        }
    }

    fn deleted(&self, id: LibraryId) -> bool {
        self.handles.load().get(&id).is_none_or(|handle: &Arc<Handle>| handle.check().is_err())
    }
}
