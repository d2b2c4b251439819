//! Memory for large arrays that are read at random.

use std::fmt;
use std::ops::{Deref, DerefMut};

use bytemuck::Pod;
use memmap2::MmapMut;

/// Smaller arrays gain nothing from pages of their own.
const MAPPED_BYTES_MIN: usize = 4 << 20;

/// A fixed number of zeroed `T`s, in huge pages where the system gives them: a walk over a graph
/// touches a different page at nearly every step, and with pages of 4 KiB it spends much of its
/// time looking up where they are.
pub(crate) struct Pages<T> {
    memory: Memory<T>,
    len: usize,
}

enum Memory<T> {
    Heap(Vec<T>),
    Mapped(MmapMut),
}

impl<T: Pod> Pages<T> {
    pub(crate) fn zeroed(len: usize) -> Self {
        let bytes = len * size_of::<T>();
        let mapped = (bytes >= MAPPED_BYTES_MIN).then(|| map(bytes)).flatten();
        let memory = mapped.map_or_else(|| Memory::Heap(vec![T::zeroed(); len]), Memory::Mapped);
        Self { memory, len }
    }

    pub(crate) fn of(values: &[T]) -> Self {
        let mut pages = Self::zeroed(values.len());
        pages.copy_from_slice(values);
        pages
    }

    /// Bytes of memory.
    pub(crate) fn bytes(&self) -> usize {
        self.len * size_of::<T>()
    }
}

/// Anonymous memory; `None` where the system refuses, so that the allocator says what it has to.
fn map(bytes: usize) -> Option<MmapMut> {
    let map = MmapMut::map_anon(bytes).ok()?;
    #[cfg(target_os = "linux")]
    if map.advise(memmap2::Advice::HugePage).is_err() {
        // Small pages are slower and nothing else.
    }
    Some(map)
}

impl<T: Pod> Deref for Pages<T> {
    type Target = [T];

    #[inline]
    fn deref(&self) -> &[T] {
        match &self.memory {
            Memory::Heap(values) => values,
            Memory::Mapped(map) => bytemuck::cast_slice(map),
        }
    }
}

impl<T: Pod> DerefMut for Pages<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        match &mut self.memory {
            Memory::Heap(values) => values,
            Memory::Mapped(map) => bytemuck::cast_slice_mut(map),
        }
    }
}

impl<T> fmt::Debug for Pages<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pages").field("len", &self.len).finish_non_exhaustive()
    }
}
