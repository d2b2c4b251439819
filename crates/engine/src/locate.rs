//! Finding documents of which the library is not known: one library after the other is looked into,
//! closed ones without opening them for everybody.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use arrwdb_state::{DocumentId, Generations, LibraryId, Seq, View};

use crate::engine::Inner;
use crate::error::EngineError;
use crate::handle::Handle;
use crate::moment::{Moment, not_kept};

/// Documents that are being looked for.
struct Hunt {
    ids: Vec<DocumentId>,
    found: Vec<Owners>,
    /// Whether a second library that has one is looked for, too.
    thorough: bool,
    /// When they have to have lived, if not now.
    as_of: Option<Seq>,
    /// Libraries not looked into yet, in their order.
    left: VecDeque<(LibraryId, Arc<Handle>)>,
    /// What kept the first library from being looked into that could not be.
    unread: Option<EngineError>,
}

/// The first library that has a document, and another one, where that was looked for.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Owners {
    pub(crate) first: Option<LibraryId>,
    pub(crate) second: Option<LibraryId>,
}

impl Owners {
    /// The one library that has the document, where all were looked into.
    pub(crate) fn only(self, id: DocumentId) -> Result<LibraryId, EngineError> {
        match (self.first, self.second) {
            (None, _) => Err(EngineError::DocumentNotFound(id)),
            (Some(library), None) => Ok(library),
            (Some(first), Some(second)) => {
                Err(EngineError::AmbiguousDocument { id, libraries: [first, second] })
            }
        }
    }
}

impl Inner {
    /// Which of these libraries holds each document: the first of them, if several do, and if
    /// `thorough`, another one. A library that cannot be read hides nothing that another one has; it
    /// is an error where a document is found nowhere else. O(libraries * segments).
    pub(crate) async fn locate(
        self: &Arc<Self>,
        libraries: Vec<LibraryId>,
        (ids, thorough): (Vec<DocumentId>, bool),
        at: Moment,
    ) -> Result<Vec<Owners>, EngineError> {
        let mut left = VecDeque::with_capacity(libraries.len());
        let mut unread = None;
        for id in libraries {
            // One that is deleted since it was listed holds nothing.
            let Ok(handle) = self.active(id) else { continue };
            if let Some(wanted) = at.as_of {
                let catalog = self.catalog.load();
                let since = catalog.generations(id).map_or(Seq::START, Generations::since);
                if wanted < since {
                    unread = unread.or(Some(EngineError::HistoryGone { wanted, oldest: since }));
                    continue;
                }
            }
            if let Some(wanted) = at.reached() {
                self.wait_for(&handle, wanted).await?;
            }
            left.push_back((id, handle));
        }
        let found = vec![Owners::default(); ids.len()];
        let mut hunt = Hunt { ids, found, thorough, as_of: at.as_of, left, unread };
        while let Some(next) = hunt.next() {
            let permit = match next.1.residence() {
                Ok(_open) => None,
                Err(_closed) => Some(self.permit_to_open().await?),
            };
            let engine = self.clone();
            let looked = tokio::task::spawn_blocking(move || {
                // Kept here, whether or not the caller waits.
                let _permit = permit;
                hunt.go_on(&engine);
                hunt
            });
            hunt =
                looked.await.map_err(|error| EngineError::Storage { detail: error.to_string() })?;
        }
        match hunt.unread {
            Some(error) if hunt.found.iter().any(|found| found.first.is_none()) => Err(error),
            _ => Ok(hunt.found),
        }
    }

    /// The library as it is, without opening it for everybody; `None` if it is deleted.
    fn look_into(&self, handle: &Handle) -> Result<Option<Arc<View>>, EngineError> {
        loop {
            let counts = match handle.residence() {
                Ok(open) => return Ok(Some(open.view())),
                Err(counts) => counts,
            };
            match self.view_of_files(handle.id, counts) {
                Ok(view) => return Ok(Some(Arc::new(view))),
                Err(_) if handle.deleted.load(Ordering::SeqCst) => return Ok(None),
                // Opened and written to meanwhile, so that these files were swept.
                Err(_) if handle.residence().err() != Some(counts) => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// An error with the name of the library that it is of.
    fn named(&self, id: LibraryId, mut error: EngineError) -> EngineError {
        if let EngineError::Damaged { detail } | EngineError::Storage { detail } = &mut error {
            let catalog = self.catalog.load();
            let name = catalog.library(id).map_or("", |spec| spec.name.as_str());
            *detail = format!("the library {name:?} ({id}) cannot be looked into: {detail}");
        }
        error
    }
}

impl Hunt {
    /// The next library to be looked into, while there is something to be found.
    fn next(&mut self) -> Option<(LibraryId, Arc<Handle>)> {
        let thorough = self.thorough;
        let done = |found: &Owners| if thorough { found.second } else { found.first }.is_some();
        if self.found.iter().all(done) {
            return None;
        }
        let now = self.as_of.is_none();
        let nothing = |(_id, handle): &(LibraryId, Arc<Handle>)| match handle.residence() {
            // One that is empty may have held something before.
            Err(counts) => counts.applied == Seq::START || (now && counts.documents == 0),
            Ok(_open) => false,
        };
        while self.left.front().is_some_and(nothing) {
            self.left.pop_front();
        }
        self.left.front().cloned()
    }

    /// Looks into the next library, which may be closed, and into those behind it that are open.
    fn go_on(&mut self, engine: &Inner) {
        let mut may_open = true;
        while let Some((id, handle)) = self.next() {
            if !std::mem::take(&mut may_open) && handle.residence().is_err() {
                return;
            }
            self.left.pop_front();
            if let Err(error) = self.look_for(engine, (id, &handle)) {
                self.unread.get_or_insert_with(|| engine.named(id, error));
            }
        }
    }

    fn look_for(
        &mut self,
        engine: &Inner,
        (library, handle): (LibraryId, &Handle),
    ) -> Result<(), EngineError> {
        let view = match engine.look_into(handle)? {
            // A generation that was left, or discarded, meanwhile: the library has another one.
            _view if engine.is_moved(library, handle) => {
                let now = engine.active(library)?;
                return self.look_for(engine, (library, &now));
            }
            view => view,
        };
        let Some(view) = view else { return Ok(()) };
        for (id, found) in self.ids.iter().zip(&mut self.found) {
            let lives = || match self.as_of {
                None => Ok(view.contains(*id)?),
                Some(seq) => view.contained(*id, seq).map_err(|error| not_kept(seq, error)),
            };
            let wanted = found.first.is_none() || (self.thorough && found.second.is_none());
            if !wanted || !lives()? {
                continue;
            }
            match found.first {
                None => found.first = Some(library),
                Some(first) if first != library => found.second = Some(library),
                Some(_) => {}
            }
        }
        Ok(())
    }
}
