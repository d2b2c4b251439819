//! Mapping segment files: the one place outside the kernels with `unsafe`.
//!
//! A file is allocated, written and synced before it is mapped, never written or truncated
//! afterwards, and removed only by name, which leaves mappings whole. The data directory is locked
//! against other processes of ours; someone who truncates files in it by hand takes the process
//! down, as with every database that maps its files.
#![expect(unsafe_code, reason = "memory mapping has no safe form")]

use std::io;
use std::path::Path;
use std::sync::Arc;

use arrwdb_log::disk::{Access, Disk, read_exact_at};
use arrwdb_state::FileBytes;
use memmap2::Mmap;

/// A file's bytes: mapped, or read where the disk has no files to map.
#[derive(Debug)]
struct Mapped {
    name: String,
    bytes: Bytes,
}

enum Bytes {
    Mapped(Mmap),
    /// Words, so that vectors in it are aligned; and how many bytes of them count.
    Held(Vec<u64>, usize),
}

impl std::fmt::Debug for Bytes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Mapped(map) => write!(f, "Mapped({} bytes)", map.len()),
            Self::Held(_, len) => write!(f, "Held({len} bytes)"),
        }
    }
}

impl FileBytes for Mapped {
    fn bytes(&self) -> &[u8] {
        match &self.bytes {
            Bytes::Mapped(map) => map,
            Bytes::Held(words, len) => &bytemuck::cast_slice(words)[..*len],
        }
    }

    fn name(&self) -> &str {
        &self.name
    }
}

/// Maps a finished file.
pub(crate) fn map(disk: &dyn Disk, path: &Path) -> io::Result<Arc<dyn FileBytes>> {
    let file = disk.open(path, Access::Read)?;
    let bytes = if let Some(file) = file.os_file() {
        // SAFETY: the file is finished (see above): its bytes and length do not change while the
        // mapping lives.
        Bytes::Mapped(unsafe { Mmap::map(file) }?)
    } else {
        let len = usize::try_from(file.length()?).map_err(io::Error::other)?;
        let mut words = vec![0_u64; len.div_ceil(8)];
        read_exact_at(&*file, &mut bytemuck::cast_slice_mut(&mut words)[..len], 0)?;
        Bytes::Held(words, len)
    };
    Ok(Arc::new(Mapped { name: path.display().to_string(), bytes }))
}
