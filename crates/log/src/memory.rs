//! The log on a disk in memory, for tests and the simulator. Fault injection is a backend: the code
//! under test is the real one. What can go wrong is said in the [`plan`].

mod disk;
pub mod plan;
mod volume;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

pub use self::disk::MemoryDisk;
pub use self::plan::{Fault, FaultPlan, Rule, Strike, When};
pub use self::volume::NameOrder;
use crate::disk::Disk;
use crate::{
    FileLog, Log, LogError, LogFile, LogOptions, LogStats, OnAdvance, OnDurable, Recent, Records,
    Recovery, Stream, TrimReport,
};

/// The log on a [`MemoryDisk`], for tests: the file log's own code, so whatever holds for it holds
/// here. Durability can be held back, fail, and be lost in a crash.
#[derive(Debug)]
pub struct MemoryLog {
    disk: MemoryDisk,
    options: LogOptions,
    log: FileLog,
}

impl MemoryLog {
    const DIR: &str = "/log";

    /// An empty log.
    pub fn new() -> Result<Self, LogError> {
        Ok(Self::open(MemoryDisk::new(), LogOptions { ahead_bytes: 0, ..LogOptions::default() })?.0)
    }

    /// An empty log whose records do not become durable before [`MemoryLog::release`].
    pub fn paused() -> Result<Self, LogError> {
        let log = Self::new()?;
        log.pause();
        Ok(log)
    }

    /// The log on this disk.
    pub fn open(disk: MemoryDisk, options: LogOptions) -> Result<(Self, Recovery), LogError> {
        let shared: Arc<dyn Disk> = Arc::new(disk.clone());
        let (log, recovery) = FileLog::open(shared, Path::new(Self::DIR), options.clone())?;
        Ok((Self { disk, options, log }, recovery))
    }

    /// Its disk, for faults.
    pub fn disk(&self) -> &MemoryDisk {
        &self.disk
    }

    /// Nothing becomes durable from now on.
    pub fn pause(&self) {
        self.disk.hold_syncs();
    }

    /// What is queued becomes durable.
    pub fn release(&self) {
        self.disk.release_syncs();
    }

    /// The next sync fails (L5).
    pub fn fail_next_sync(&self) {
        self.disk.fail_sync_after(0);
    }

    /// The power fails: the log as it is found afterwards, with only what was synced. This one
    /// lives on, on its own disk.
    pub fn crash(&self) -> Result<(Self, Recovery), LogError> {
        Self::open(self.disk.crash(|| false), self.options.clone())
    }
}

impl Drop for MemoryLog {
    fn drop(&mut self) {
        // The log waits for what is queued when it is dropped.
        self.release();
    }
}

impl Log for MemoryLog {
    fn append_after(
        &self,
        depends: u64,
        stream: Stream,
        payload: Vec<Bytes>,
        done: OnDurable,
    ) -> Result<u64, LogError> {
        self.log.append_after(depends, stream, payload, done)
    }

    fn last_assigned(&self) -> u64 {
        self.log.last_assigned()
    }

    fn durable(&self) -> u64 {
        self.log.durable()
    }

    fn wait(&self, after: u64, timeout: Duration) -> u64 {
        self.log.wait(after, timeout)
    }

    fn on_advance(&self, advanced: OnAdvance) {
        self.log.on_advance(advanced);
    }

    fn read(&self, after: u64) -> Result<Records, LogError> {
        self.log.read(after)
    }

    fn read_stream(&self, stream: Stream, after: u64) -> Result<Records, LogError> {
        self.log.read_stream(stream, after)
    }

    fn recent(&self, after: u64, limit: usize) -> Option<Vec<Recent>> {
        self.log.recent(after, limit)
    }

    fn first(&self) -> u64 {
        self.log.first()
    }

    fn trim(&self, keep_after: u64) -> Result<TrimReport, LogError> {
        self.log.trim(keep_after)
    }

    fn begin_file(&self) {
        self.log.begin_file();
    }

    fn files(&self) -> Vec<LogFile> {
        self.log.files()
    }

    fn stats(&self) -> LogStats {
        self.log.stats()
    }

    fn close(&self) -> Result<(), LogError> {
        self.log.close()
    }
}
