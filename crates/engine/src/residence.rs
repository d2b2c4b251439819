//! Which libraries are open. A library is opened on first use and closed when it is idle or when
//! the memory is needed, after a checkpoint: a closed one is its files and a few counts.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use arrwdb_state::{Command, DocumentId, LibraryId, Seq, View};

use crate::engine::Inner;
use crate::error::{EngineError, RETRY_AFTER};
use crate::handle::{Answer, Counts, Handle, NotSent, Open, Room, WriteDone};
use crate::writer::Writer;

/// Libraries that may be opening at the same time; the disk does not get faster with more.
pub(crate) const OPENING_MAX: usize = 8;

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
        let _permit = self.opening.acquire().await.map_err(|_closed| EngineError::Closed)?;
        let (engine, handle) = (self.clone(), handle.clone());
        tokio::task::spawn_blocking(move || engine.open_now(&handle))
            .await
            .map_err(|error| EngineError::Storage { detail: error.to_string() })?
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
        if let Err(error) = self.store.sweep_library(handle.id) {
            tracing::warn!(library = %handle.id, %error, "cannot remove what a stopped checkpoint left");
        }
        Ok(self.start_writer(handle, view))
    }

    /// A closed library as its files have it.
    fn view_of_files(&self, id: LibraryId, counts: Counts) -> Result<View, EngineError> {
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
        let writer = Writer {
            handle: handle.clone(),
            open: open.clone(),
            log: self.log.clone(),
            clock: self.parts.clock.clone(),
            upkeep: self.upkeep.clone(),
            memory: self.gauges.memory.clone(),
            checkpoint_bytes: self.config.checkpoint_bytes,
            documents_max: self.config.documents_per_library_max,
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
        let mut sent: Vec<Result<Answer, EngineError>> = Vec::with_capacity(commands.len());
        for command in commands {
            let answer = self.send(handle, command, room.clone()).await;
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
    ) -> Result<Answer, EngineError> {
        loop {
            // Registered before looking, so that no opening or closing in between is missed.
            let progress = handle.progress.notified();
            handle.check()?;
            let open = self.opened(handle).await?;
            match open.send(command, room.clone()) {
                Ok(answer) => return Ok(answer),
                Err(NotSent::Refused(error)) => return Err(error),
                Err(NotSent::Closing(again)) => command = again,
            }
            progress.await;
        }
    }

    /// Which of these libraries holds each document: the first of them, if several do. Closed
    /// libraries are looked into without opening them for everybody. O(libraries * segments).
    pub(crate) async fn locate(
        self: &Arc<Self>,
        libraries: Vec<LibraryId>,
        ids: Vec<DocumentId>,
        min_seq: Option<Seq>,
    ) -> Result<Vec<Option<LibraryId>>, EngineError> {
        let mut handles = Vec::with_capacity(libraries.len());
        for id in libraries {
            // One that is deleted since it was listed holds nothing.
            let Ok(handle) = self.handle(id) else { continue };
            if let Some(wanted) = min_seq {
                self.wait_for(&handle, wanted).await?;
            }
            handles.push(handle);
        }
        let engine = self.clone();
        tokio::task::spawn_blocking(move || engine.locate_in(&handles, &ids))
            .await
            .map_err(|error| EngineError::Storage { detail: error.to_string() })?
    }

    fn locate_in(
        &self,
        handles: &[Arc<Handle>],
        ids: &[DocumentId],
    ) -> Result<Vec<Option<LibraryId>>, EngineError> {
        let mut found = vec![None; ids.len()];
        for handle in handles {
            if found.iter().all(Option::is_some) {
                break;
            }
            let Some(view) = self.look_into(handle)? else { continue };
            for (id, place) in ids.iter().zip(&mut found) {
                if place.is_none() && view.contains(*id)? {
                    *place = Some(handle.id);
                }
            }
        }
        Ok(found)
    }

    /// The library as it is, without opening it for everybody; `None` if it has nothing, or is
    /// deleted.
    fn look_into(&self, handle: &Handle) -> Result<Option<Arc<View>>, EngineError> {
        loop {
            let counts = match handle.residence() {
                Ok(open) => return Ok(Some(open.view())),
                Err(Counts { documents: 0, .. }) => return Ok(None),
                Err(counts) => counts,
            };
            match self.view_of_files(handle.id, counts) {
                Ok(view) => return Ok(Some(Arc::new(view))),
                Err(_) if handle.check().is_err() => return Ok(None),
                // Opened and written to meanwhile, so that these files were swept.
                Err(_) if handle.residence().err() != Some(counts) => {}
                Err(error) => return Err(error),
            }
        }
    }
}
