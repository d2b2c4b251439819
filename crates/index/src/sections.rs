//! How structures are kept in files: numbers and arrays one after the other.
//!
//! ```text
//! number: u64
//! array:  u64 count | zeros up to a multiple of 64 | count * element
//! ```
//!
//! Little-endian. A file around them has the checksums; a reader nevertheless believes nothing: a
//! count that does not fit is an error, and what the numbers mean is checked by who reads them.

use std::fmt;
use std::io::{self, Write};

use bytemuck::Pod;

/// Arrays begin at multiples of this.
pub(crate) const ALIGNMENT: usize = 64;

/// Bytes that are not a structure of this kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a search structure at byte {offset}: {what}")]
pub struct Malformed {
    /// Where, from the start of the structure.
    pub offset: usize,
    /// What does not hold.
    pub what: &'static str,
}

/// Writes numbers and arrays. What it writes to begins at a multiple of 64.
pub struct SectionWriter<'a> {
    out: &'a mut dyn Write,
    at: usize,
}

impl<'a> SectionWriter<'a> {
    /// A writer to `out`.
    pub fn new(out: &'a mut dyn Write) -> Self {
        Self { out, at: 0 }
    }

    /// Bytes written.
    pub fn written(&self) -> usize {
        self.at
    }

    /// Writes a number.
    pub fn number(&mut self, value: u64) -> io::Result<()> {
        self.write(&value.to_le_bytes())
    }

    /// Writes an array of numbers or bytes.
    pub fn array<T: Pod>(&mut self, values: &[T]) -> io::Result<()> {
        self.begin_array(values.len())?;
        self.write(bytemuck::cast_slice(values))
    }

    /// Writes an array of `count` bytes that is made part by part.
    ///
    /// # Panics
    /// If the parts are not `count` bytes together.
    pub(crate) fn array_of_parts(
        &mut self,
        count: usize,
        parts: impl Iterator<Item = Vec<u8>>,
    ) -> io::Result<()> {
        self.begin_array(count)?;
        let end = self.at + count;
        for part in parts {
            self.write(&part)?;
        }
        assert_eq!(self.at, end, "all bytes of an array");
        Ok(())
    }

    fn begin_array(&mut self, count: usize) -> io::Result<()> {
        self.number(count as u64)?;
        let padding = self.at.next_multiple_of(ALIGNMENT) - self.at;
        self.write(&[0; ALIGNMENT][..padding])
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.at += bytes.len();
        self.out.write_all(bytes)
    }
}

impl fmt::Debug for SectionWriter<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SectionWriter").field("at", &self.at).finish_non_exhaustive()
    }
}

/// Reads what a [`SectionWriter`] wrote.
#[derive(Debug, Clone)]
pub struct SectionReader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> SectionReader<'a> {
    /// A reader of `bytes`, which begin at an address that is a multiple of 8 at least.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// The error that `what` does not hold here.
    pub fn malformed(&self, what: &'static str) -> Malformed {
        Malformed { offset: self.at, what }
    }

    /// Reads a number.
    pub fn number(&mut self, what: &'static str) -> Result<u64, Malformed> {
        let (number, _) = self.rest().split_first_chunk().ok_or_else(|| self.malformed(what))?;
        self.at += 8;
        Ok(u64::from_le_bytes(*number))
    }

    /// Reads a number that is at most `max`.
    pub fn small(&mut self, what: &'static str, max: u32) -> Result<u32, Malformed> {
        let malformed = self.malformed(what);
        let number = u32::try_from(self.number(what)?).ok().filter(|number| *number <= max);
        number.ok_or(malformed)
    }

    /// Reads an array.
    pub fn array<T: Pod>(&mut self, what: &'static str) -> Result<&'a [T], Malformed> {
        let malformed = self.malformed(what);
        let count = usize::try_from(self.number(what)?).ok();
        let length = count.and_then(|count| count.checked_mul(size_of::<T>()));
        let start = self.at.next_multiple_of(ALIGNMENT);
        let end = length.and_then(|length| start.checked_add(length));
        let bytes = end.and_then(|end| self.bytes.get(start..end));
        let values = bytes.and_then(|bytes| bytemuck::try_cast_slice(bytes).ok());
        self.at = end.unwrap_or(self.at);
        values.ok_or(malformed)
    }

    /// Reads an array of exactly `count` elements.
    pub fn array_of<T: Pod>(
        &mut self,
        what: &'static str,
        count: usize,
    ) -> Result<&'a [T], Malformed> {
        let malformed = self.malformed(what);
        let values = self.array(what)?;
        if values.len() == count { Ok(values) } else { Err(malformed) }
    }

    /// Whether everything is read.
    pub fn end(&self) -> Result<(), Malformed> {
        if self.rest().is_empty() { Ok(()) } else { Err(self.malformed("bytes after the end")) }
    }

    fn rest(&self) -> &'a [u8] {
        self.bytes.get(self.at..).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::{SectionReader, SectionWriter};

    fn written() -> Vec<u8> {
        let mut out = Vec::new();
        let mut writer = SectionWriter::new(&mut out);
        writer.number(7).unwrap();
        writer.array(&[1.5_f32, -2.0]).unwrap();
        writer.array::<u32>(&[]).unwrap();
        writer.array(&[3_u8; 5]).unwrap();
        assert_eq!(writer.written(), out.len());
        out
    }

    #[test]
    fn i5_what_is_written_is_read() {
        let bytes = written();
        let mut reader = SectionReader::new(&bytes);
        assert_eq!(reader.number("seven"), Ok(7));
        assert_eq!(reader.array_of("floats", 2), Ok([1.5_f32, -2.0].as_slice()));
        assert_eq!(reader.array::<u32>("none"), Ok([].as_slice()));
        assert!(reader.end().is_err());
        assert_eq!(reader.array("bytes"), Ok([3_u8; 5].as_slice()));
        assert_eq!(reader.end(), Ok(()));
    }

    #[test]
    fn what_is_cut_short_or_too_large_is_refused() {
        let bytes = written();
        for end in 0..bytes.len() {
            let mut reader = SectionReader::new(&bytes[..end]);
            let whole = reader
                .number("seven")
                .and_then(|_| reader.array::<f32>("floats"))
                .and_then(|_| reader.array::<u32>("none"))
                .and_then(|_| reader.array::<u8>("bytes"));
            assert!(whole.is_err(), "{end} of {} bytes", bytes.len());
        }
        let endless = u64::MAX.to_le_bytes();
        assert!(SectionReader::new(&endless).array::<f32>("floats").is_err());
        assert!(SectionReader::new(&endless).small("small", u32::MAX).is_err());
        assert!(SectionReader::new(&bytes).array_of::<f32>("floats", 3).is_err());
    }
}
