//! Arrays in NumPy's file format, version 1: what other tools write base vectors and queries in.

use std::fs::File;
use std::path::Path;

use memmap2::Mmap;

use crate::Outcome;

/// A two-dimensional array in a file, mapped.
#[derive(Debug)]
pub struct Npy {
    map: Mmap,
    start: usize,
    /// Rows and columns.
    pub shape: [usize; 2],
}

impl Npy {
    /// Opens a file of little-endian `type_name` (`<f4` or `<i4`) in row order.
    pub fn open(path: &Path, type_name: &str) -> Outcome<Self> {
        let refuse = |what: &str| format!("{}: {what}", path.display());
        let file = File::open(path).map_err(|error| refuse(&error.to_string()))?;
        let map = map(&file)?;
        let header = map.get(..10).filter(|header| header.starts_with(b"\x93NUMPY\x01\x00"));
        let header = header.ok_or_else(|| refuse("not an array of NumPy's format 1.0"))?;
        let start = 10 + usize::from(u16::from_le_bytes([header[8], header[9]]));
        let text = map.get(10..start).ok_or_else(|| refuse("cut short"))?;
        let text = std::str::from_utf8(text)?;
        if !text.contains(type_name) || !text.contains("'fortran_order': False") {
            return Err(refuse(&format!("not {type_name} in row order: {text}")).into());
        }
        let shape = text.split(['(', ')']).nth(1).ok_or_else(|| refuse("no shape"))?;
        let sizes: Vec<usize> =
            shape.split(',').filter_map(|size| size.trim().parse().ok()).collect();
        let shape = <[usize; 2]>::try_from(sizes).map_err(|_| refuse("not two-dimensional"))?;
        if map.len() - start != shape[0] * shape[1] * 4 {
            return Err(refuse("its length is not what its shape says").into());
        }
        Ok(Self { map, start, shape })
    }

    /// All numbers, row by row.
    pub fn values<T: bytemuck::Pod>(&self) -> &[T] {
        bytemuck::cast_slice(&self.map[self.start..])
    }
}

#[expect(unsafe_code, reason = "a mapped file; nobody writes to a benchmark's data meanwhile")]
fn map(file: &File) -> Outcome<Mmap> {
    // SAFETY: the file is only read, and not changed while a benchmark runs.
    Ok(unsafe { Mmap::map(file)? })
}
