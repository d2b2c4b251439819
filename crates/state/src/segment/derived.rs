//! What is made of a segment's documents when it is first asked for: columns for filters, postings
//! for keywords, an inverted index of sparse vectors.

use std::sync::{Mutex, OnceLock, PoisonError};

use arrwdb_index::Columns;
use arrwdb_index::keyword::Postings;
use arrwdb_index::sparse::SparseIndex;

use super::{Damage, Segment};
use crate::field_search::sparse_of;
use crate::filter::columns_of;
use crate::keyword::postings_of;

/// What the first searches that need it make.
#[derive(Debug, Default)]
pub(super) struct Derived {
    columns: Lazy<Columns>,
    postings: Lazy<Postings>,
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

impl Segment {
    /// The values of its fields. The first who asks makes them, which takes as long as reading all
    /// documents; who asks meanwhile waits.
    pub(crate) fn columns(&self) -> Result<&Columns, Damage> {
        self.derived().columns.get_or_make(|| columns_of(self))
    }

    /// The terms of its rows. Made as [`Segment::columns`] are.
    pub(crate) fn postings(&self) -> Result<&Postings, Damage> {
        self.derived().postings.get_or_make(|| postings_of(self))
    }

    /// The sparse vectors of its rows, of a field that holds such. Made as [`Segment::columns`] are.
    pub(crate) fn sparse(&self) -> Result<&SparseIndex, Damage> {
        self.derived().sparse.get_or_make(|| sparse_of(self))
    }

    /// Bytes that all this takes in memory, as far as it is made.
    pub(crate) fn derived_bytes(&self) -> u64 {
        let Derived { columns, postings, sparse } = self.derived();
        let postings = postings.made.get().map_or(0, |postings| postings.as_bytes().len() as u64);
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
        if postings.made.get().is_some() {
            self.postings()?;
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
