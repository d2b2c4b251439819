//! Which libraries are open. A library is opened on first use and closed when it is idle or when
//! the memory is needed, after a checkpoint: a closed one is its files and a few counts.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use arrwdb_state::{Command, LibraryId, View};
use tokio::sync::OwnedSemaphorePermit;

use crate::engine::Inner;
use crate::error::{EngineError, RETRY_AFTER};
use crate::handle::{Answer, Author, Counts, Handle, NotSent, Open, Room, WriteDone};
use crate::writer::Writer;

/// Libraries that may be opening at the same time; the disk does not get faster with more.
pub(crate) const OPENING_MAX: u32 = 8;

/// Libraries that may be open. Each maps up to some tens of files, and Linux allows a process
/// 65,530 mappings unless told otherwise.
pub(crate) const OPEN_LIBRARIES_MAX: u64 = 4096;

impl Inner {
    /// The library, opened if it is not.
    pub(crate) async fn opened(
        self: &Arc<Self>,
        handle: &Arc<Handle>,
    ) -> Result<Arc<Open>, EngineError> {
        handle.last_used.store(self.upkeep.now(), Ordering::Relaxed);
        if let Ok(open) = handle.residence() {
            return Ok(open);
        }
        let permit = self.permit_to_open().await?;
        let (engine, handle) = (self.clone(), handle.clone());
        let opened = tokio::task::spawn_blocking(move || {
            // Kept here, whether or not the caller waits.
            let _permit = permit;
            engine.open_now(&handle)
        });
        opened.await.map_err(|error| EngineError::Storage { detail: error.to_string() })?
    }

    /// Lets few read the files of closed libraries at the same time, and nobody once the engine is
    /// closing.
    pub(crate) async fn permit_to_open(&self) -> Result<OwnedSemaphorePermit, EngineError> {
        let permit = self.opening.clone().acquire_owned().await;
        permit.map_err(|_closed| EngineError::Closed)
    }

    /// Waits for those who read the files of closed libraries, and lets nobody do so any more.
    pub(crate) async fn end_opening(&self) {
        // Already closed, where the engine is closed twice.
        drop(self.opening.acquire_many(OPENING_MAX).await);
        self.opening.close();
    }

    /// Opens a closed library; blocks on the disk.
    fn open_now(&self, handle: &Arc<Handle>) -> Result<Arc<Open>, EngineError> {
        let _once = handle.opening.lock();
        let counts = match handle.residence() {
            Ok(open) => return Ok(open),
            Err(counts) => counts,
        };
        handle.check()?;
        if self.gauges.open.total() >= OPEN_LIBRARIES_MAX {
            self.upkeep.want_relief();
            let what = "the number of open libraries";
            return Err(EngineError::Busy { what, retry_after: RETRY_AFTER });
        }
        let view = match self.view_of_files(handle.id, counts) {
            // Its files go with it.
            Err(error) => return Err(handle.check().err().unwrap_or(error)),
            Ok(view) => view,
        };
        let written = || handle.files.lock().written().clone();
        if let Err(error) = self.store.sweep_library(handle.id, written) {
            tracing::warn!(library = %handle.id, %error, "cannot remove what a stopped checkpoint left");
        }
        let open = self.start_writer(handle, self.with_indexes(handle.id, view));
        self.want_indexes(handle);
        Ok(open)
    }

    /// A closed library as its files have it.
    pub(crate) fn view_of_files(&self, id: LibraryId, counts: Counts) -> Result<View, EngineError> {
        let catalog = self.catalog.load();
        let spec = catalog.get(id).ok_or(EngineError::LibraryNotFound(id))?;
        let view = self.store.open_library(id, spec.dimension)?;
        if view.applied() < counts.applied {
            return Err(self.store.no_manifest(id, counts.applied));
        }
        Ok(view)
    }

    /// Makes a closed library open with this view, and starts its writer.
    pub(crate) fn start_writer(&self, handle: &Arc<Handle>, view: View) -> Arc<Open> {
        let (open, requests) = handle.open(view);
        let documents_max = if handle.id.is_companion() {
            Some(self.config.standing_queries_per_library_max)
        } else {
            self.config.documents_per_library_max
        };
        let writer = Writer {
            handle: handle.clone(),
            open: open.clone(),
            log: self.log.clone(),
            clock: self.parts.clock.clone(),
            upkeep: self.upkeep.clone(),
            memory: self.gauges.memory.clone(),
            indexes: self.gauges.indexes.clone(),
            checkpoint_bytes: self.config.checkpoint_bytes,
            documents_max,
            memory_bytes_max: self.config.memory_budget_bytes,
        };
        self.writers.spawn(writer.run(requests));
        open
    }

    /// Hands commands to the library's writer, in order, and waits until each is durable and
    /// published, or refused.
    pub(crate) async fn write(
        self: &Arc<Self>,
        handle: &Arc<Handle>,
        commands: Vec<Command>,
        room: Option<Room>,
    ) -> Vec<Result<WriteDone, EngineError>> {
        self.write_as(Author::Caller, handle, commands, room).await
    }

    /// As [`Inner::write`], for this author.
    pub(crate) async fn write_as(
        self: &Arc<Self>,
        by: Author,
        handle: &Arc<Handle>,
        commands: Vec<Command>,
        room: Option<Room>,
    ) -> Vec<Result<WriteDone, EngineError>> {
        let mut sent: Vec<Result<Answer, EngineError>> = Vec::with_capacity(commands.len());
        for command in commands {
            let answer = self.send(handle, command, room.clone(), by).await;
            sent.push(answer);
        }
        let mut answers = Vec::with_capacity(sent.len());
        for answer in sent {
            answers.push(match answer {
                Ok(answer) => handle.answer(answer).await,
                Err(error) => Err(error),
            });
        }
        answers
    }

    async fn send(
        self: &Arc<Self>,
        handle: &Arc<Handle>,
        mut command: Command,
        room: Option<Room>,
        by: Author,
    ) -> Result<Answer, EngineError> {
        loop {
            // Registered before looking, so that no opening or closing in between is missed.
            let progress = handle.progress.notified();
            handle.check()?;
            let open = self.opened(handle).await?;
            match open.send(command, room.clone(), by) {
                Ok(answer) => return Ok(answer),
                Err(NotSent::Refused(error)) => return Err(error),
                Err(NotSent::Closing(again)) => command = *again,
            }
            progress.await;
        }
    }
}
