//! Arrays in the file format of `NumPy`, version 1: what other tools write base vectors and queries in.

use std::path::Path;

use crate::Outcome;

/// A two-dimensional array read from a file.
#[derive(Debug)]
pub struct Npy {
    /// The file, at an address that suits any number.
    words: Vec<u64>,
    start: usize,
    end: usize,
    /// Rows and columns.
    pub shape: [usize; 2],
}

impl Npy {
    /// Reads a file of little-endian `type_name` (`<f4` or `<i4`) in row order.
    pub fn open(path: &Path, type_name: &str) -> Outcome<Self> {
        let refuse = |what: &str| format!("{}: {what}", path.display());
        let bytes = std::fs::read(path).map_err(|error| refuse(&error.to_string()))?;
        let header = bytes.get(..10).filter(|header| header.starts_with(b"\x93NUMPY\x01\x00"));
        let header = header.ok_or_else(|| refuse("not an array of NumPy's format 1.0"))?;
        let start = 10 + usize::from(u16::from_le_bytes([header[8], header[9]]));
        let text = bytes.get(10..start).ok_or_else(|| refuse("cut short"))?;
        let text = std::str::from_utf8(text)?;
        if !text.contains(type_name) || !text.contains("'fortran_order': False") {
            return Err(refuse(&format!("not {type_name} in row order: {text}")).into());
        }
        let shape = text.split(['(', ')']).nth(1).ok_or_else(|| refuse("no shape"))?;
        let sizes: Vec<usize> =
            shape.split(',').filter_map(|size| size.trim().parse().ok()).collect();
        let shape = <[usize; 2]>::try_from(sizes)
            .map_err(|sizes| refuse(&format!("{} dimensions, not two", sizes.len())))?;
        let wanted = shape[0].checked_mul(shape[1]).and_then(|count| count.checked_mul(4));
        if wanted != Some(bytes.len() - start) || !start.is_multiple_of(4) {
            return Err(refuse("its length is not what its shape says").into());
        }
        let mut words = vec![0; bytes.len().div_ceil(8)];
        bytemuck::cast_slice_mut::<u64, u8>(&mut words)[..bytes.len()].copy_from_slice(&bytes);
        Ok(Self { words, start, end: bytes.len(), shape })
    }

    /// All numbers, row by row.
    pub fn values<T: bytemuck::Pod>(&self) -> &[T] {
        bytemuck::cast_slice(&bytemuck::cast_slice::<u64, u8>(&self.words)[self.start..self.end])
    }
}
