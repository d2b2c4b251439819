//! Codes in a file.
//!
//! ```text
//! number bits | the frame: number metric | number seed | array f32 centre
//! array u8 records: each a row's codes | f32 scale | f32 square
//! array f32 errors, two for each 256 rows, or none
//! ```

use std::io;

use super::frame::Frame;
use super::{Bits, ERROR_ROWS, Errors, ScalarCodes, TERMS_BYTES};
use crate::pages::Pages;
use crate::{Malformed, Metric, SectionReader, SectionWriter};

impl ScalarCodes {
    /// Writes the codes.
    pub fn write(&self, out: &mut SectionWriter<'_>) -> io::Result<()> {
        out.number(self.bits.count())?;
        self.frame.write(out)?;
        out.array(&self.records)?;
        out.array(self.errors.as_flattened())
    }

    /// Reads codes of `rows` rows.
    pub fn read(
        from: &mut SectionReader<'_>,
        metric: Metric,
        kept: Errors,
        dims: usize,
        rows: u32,
    ) -> Result<Self, Malformed> {
        let Records { frame, bits, stride, bytes, errors } =
            Records::read(from, metric, kept, dims, rows)?;
        Ok(Self { frame, bits, rows, stride, records: Pages::of(bytes), errors })
    }
}

/// Codes as they lie in a file.
pub(super) struct Records<'a> {
    pub(super) frame: Frame,
    pub(super) bits: Bits,
    pub(super) stride: usize,
    pub(super) bytes: &'a [u8],
    pub(super) errors: Vec<[f32; 2]>,
}

impl<'a> Records<'a> {
    /// `kept` says whether the errors must be there.
    pub(super) fn read(
        from: &mut SectionReader<'a>,
        metric: Metric,
        kept: Errors,
        dims: usize,
        rows: u32,
    ) -> Result<Self, Malformed> {
        let wrong = from.malformed("8 or 4 bits");
        let bits = Bits::of(from.small("bits", 8)?).ok_or(wrong)?;
        let frame = Frame::read(from, metric, dims)?;
        let stride = bits.code_bytes(dims) + TERMS_BYTES;
        let bytes = from.array_of("codes", rows as usize * stride)?;
        let wrong = from.malformed("two errors for each block of rows");
        let errors: &[f32] = from.array("errors")?;
        let blocks = (rows as usize).div_ceil(ERROR_ROWS);
        let are_omitted = kept == Errors::Omitted && errors.is_empty();
        if errors.len() != 2 * blocks && !are_omitted {
            return Err(wrong);
        }
        Ok(Self { frame, bits, stride, bytes, errors: errors.as_chunks().0.to_vec() })
    }
}
