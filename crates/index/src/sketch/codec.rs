//! Sketches in a file.
//!
//! ```text
//! number bits, 0 where there are none: then nothing follows
//! number layout of a row's codes = 1 | number seed of the rotation
//! number metric | number f32 error, its bits
//! array f32 centre | array u8 records: each f32 factor | f32 length | a row's codes
//! ```

use std::io;

use super::{Bits, SEED, Sketch, TERMS_BYTES};
use crate::codes::metric_number;
use crate::pages::Pages;
use crate::rotation::Rotation;
use crate::{Malformed, Metric, SectionReader, SectionWriter};

/// How a row's codes lie in their bytes: number after number from the lowest bits of all bytes, then
/// from the next.
const LAYOUT: u64 = 1;

impl Sketch {
    /// Writes sketches, or that there are none.
    pub(crate) fn write(sketch: Option<&Self>, out: &mut SectionWriter<'_>) -> io::Result<()> {
        let Some(sketch) = sketch else { return out.number(0) };
        out.number(sketch.bits.count() as u64)?;
        out.number(LAYOUT)?;
        out.number(SEED)?;
        out.number(metric_number(sketch.metric))?;
        out.number(u64::from(sketch.error.to_bits()))?;
        out.array(&sketch.center)?;
        out.array(&sketch.records)
    }

    /// Reads the sketches of `rows` rows, where there are any.
    pub(crate) fn read(
        from: &mut SectionReader<'_>,
        metric: Metric,
        dims: usize,
        rows: u32,
    ) -> Result<Option<Self>, Malformed> {
        let bits = match from.small("bits of a sketch", 4)? {
            0 => return Ok(None),
            1 => Bits::One,
            2 => Bits::Two,
            4 => Bits::Four,
            _ => return Err(from.malformed("1, 2 or 4 bits of a sketch")),
        };
        let wrong = from.malformed("a layout of sketches that this build knows");
        if (from.number("layout")?, from.number("seed")?) != (LAYOUT, SEED) {
            return Err(wrong);
        }
        let wrong = from.malformed("sketches for another metric");
        if from.number("metric")? != metric_number(metric) {
            return Err(wrong);
        }
        let wrong = from.malformed("an error that is not negative");
        let error = f32::from_bits(from.small("error", u32::MAX)?);
        let center: &[f32] = from.array_of("centre", dims)?;
        if !(error >= 0.0 && error.is_finite() && center.iter().all(|value| value.is_finite())) {
            return Err(wrong);
        }
        let stride = TERMS_BYTES + bits.code_bytes(dims);
        let records = from.array_of("sketches", rows as usize * stride)?;
        Ok(Some(Self {
            metric,
            bits,
            dims,
            center: center.to_vec(),
            rotation: Rotation::new(dims, SEED),
            error,
            stride,
            records: Pages::of(records),
        }))
    }
}
