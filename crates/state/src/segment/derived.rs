//! What is made of a segment's documents when it is first asked for: columns for filters, postings
//! for keywords, an inverted index of sparse vectors.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use arc_swap::ArcSwapOption;
use arrwdb_index::Columns;
use arrwdb_index::analysis::Language;
use arrwdb_index::keyword::Postings;
use arrwdb_index::sparse::SparseIndex;

use super::{Damage, FileSegment, Segment};
use crate::field_search::sparse_of;
use crate::filter::columns_of;
use crate::keyword::postings_of;

/// What the first searches that need it make.
#[derive(Debug, Default)]
pub(super) struct Derived {
    columns: Lazy<Columns>,
    postings: InLanguage,
    sparse: Lazy<SparseIndex>,
}

/// Something that one makes and others wait for.
#[derive(Debug)]
struct Lazy<T> {
    made: OnceLock<T>,
    making: Mutex<()>,
}

impl<T> Default for Lazy<T> {
    fn default() -> Self {
        Self { made: OnceLock::new(), making: Mutex::default() }
    }
}

impl<T> Lazy<T> {
    fn get_or_make(&self, make: impl FnOnce() -> Result<T, Damage>) -> Result<&T, Damage> {
        if let Some(made) = self.made.get() {
            return Ok(made);
        }
        // Nothing is left half done by who fails here.
        let _alone = self.making.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(made) = self.made.get() {
            return Ok(made);
        }
        let made = make()?;
        Ok(self.made.get_or_init(|| made))
    }
}

/// Postings of one language: of the last one that was asked for, which is that of the library but
/// for searches that began before it changed. Those have theirs as long as they take.
#[derive(Debug, Default)]
struct InLanguage {
    made: ArcSwapOption<(Language, Arc<Postings>)>,
    making: Mutex<()>,
}

impl InLanguage {
    fn made(&self) -> Option<(Language, Arc<Postings>)> {
        self.made.load().as_deref().cloned()
    }

    fn get_or_make(
        &self,
        language: Language,
        make: impl FnOnce() -> Result<Postings, Damage>,
    ) -> Result<Arc<Postings>, Damage> {
        let kept = || self.made().filter(|(made, _postings)| *made == language);
        if let Some((_language, postings)) = kept() {
            return Ok(postings);
        }
        let _alone = self.making.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_language, postings)) = kept() {
            return Ok(postings);
        }
        let postings = Arc::new(make()?);
        self.made.store(Some(Arc::new((language, postings.clone()))));
        Ok(postings)
    }
}

impl Segment {
    /// The values of its fields. The first who asks makes them, which takes as long as reading all
    /// documents; who asks meanwhile waits.
    pub(crate) fn columns(&self) -> Result<&Columns, Damage> {
        self.derived().columns.get_or_make(|| columns_of(self))
    }

    /// The terms of its rows, as of texts of this language: those that are kept beside its file, or
    /// made as [`Segment::columns`] are, and anew for another language.
    pub(crate) fn postings(&self, language: Language) -> Result<Arc<Postings>, Damage> {
        self.derived().postings.get_or_make(language, || {
            let kept = self.file().and_then(FileSegment::kept_postings);
            if let Some((_language, postings)) = kept.filter(|(kept, _)| *kept == language) {
                return Ok(postings);
            }
            let postings = postings_of(self, language)?;
            if let Some(file) = self.file() {
                file.keep_postings(language, &postings);
            }
            Ok(postings)
        })
    }

    /// The sparse vectors of its rows, of a field that holds such. Made as [`Segment::columns`] are.
    pub(crate) fn sparse(&self) -> Result<&SparseIndex, Damage> {
        self.derived().sparse.get_or_make(|| sparse_of(self))
    }

    /// Bytes that all this takes in memory, as far as it is made.
    pub(crate) fn derived_bytes(&self) -> u64 {
        let Derived { columns, postings, sparse } = self.derived();
        let postings = postings.made();
        let postings = postings.map_or(0, |(_language, it)| it.as_bytes().len() as u64);
        let sparse = sparse.made.get().map_or(0, |sparse| sparse.as_bytes().len() as u64);
        columns.made.get().map_or(0, Columns::bytes) + postings + sparse
    }

    /// Makes what `input` has: who searched there will search here, and shall not wait for it.
    pub(super) fn derive_as(&self, input: &Self) -> Result<(), Damage> {
        let Derived { columns, postings, sparse } = input.derived();
        if sparse.made.get().is_some() {
            self.sparse()?;
        }
        if columns.made.get().is_some() {
            self.columns()?;
        }
        if let Some((language, _postings)) = postings.made() {
            self.postings(language)?;
        }
        Ok(())
    }

    fn derived(&self) -> &Derived {
        match self {
            Self::Memory(segment) => segment.derived(),
            Self::File(segment) => &segment.derived,
        }
    }
}
