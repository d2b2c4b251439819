//! A segment's columns, made when they are first asked for.

use std::sync::{Mutex, OnceLock, PoisonError};

use arrwdb_index::Columns;

use super::{Damage, Segment};
use crate::filter::columns_of;

/// Columns that somebody makes at the first filter that meets the segment.
#[derive(Debug, Default)]
pub(super) struct LazyColumns {
    made: OnceLock<Columns>,
    making: Mutex<()>,
}

impl Segment {
    /// The values of its fields. The first who asks makes them, which takes as long as reading all
    /// documents; who asks meanwhile waits.
    pub(crate) fn columns(&self) -> Result<&Columns, Damage> {
        let lazy = self.lazy_columns();
        if let Some(columns) = lazy.made.get() {
            return Ok(columns);
        }
        // Nothing is left half done by who fails here.
        let _alone = lazy.making.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(columns) = lazy.made.get() {
            return Ok(columns);
        }
        let columns = columns_of(self)?;
        Ok(lazy.made.get_or_init(|| columns))
    }

    /// Bytes that its columns take in memory, once they are made.
    pub(crate) fn column_bytes(&self) -> u64 {
        self.lazy_columns().made.get().map_or(0, Columns::bytes)
    }

    /// Whether somebody has filtered here.
    pub(super) fn has_columns(&self) -> bool {
        self.lazy_columns().made.get().is_some()
    }

    fn lazy_columns(&self) -> &LazyColumns {
        match self {
            Self::Memory(segment) => segment.columns(),
            Self::File(segment) => &segment.columns,
        }
    }
}
