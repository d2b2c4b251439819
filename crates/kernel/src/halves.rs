//! Products of a query with many rows of half a byte for each number, 32 rows at a time: exact, so
//! the same on every machine.
//!
//! Rows lie side by side, so that each lane of a register sums up a row of its own and nothing is
//! added across lanes:
//!
//! ```text
//! block of 32 rows of 8 * g numbers: for each of g groups 128 bytes, 4 for each row; byte j of
//! group i = number 4 * i + j | number 4 * (g + i) + j << 4
//! ```

#[cfg(target_arch = "x86_64")]
pub(crate) mod avx2;
#[cfg(target_arch = "x86_64")]
pub(crate) mod avx512;
#[cfg(target_arch = "aarch64")]
pub(crate) mod neon;
pub(crate) mod scalar;

use crate::{BLOCK_ROWS, CODES_MAX, CodeBlock, Kernels, Line};

/// Bytes of a group of a row: two numbers each.
pub const HALVES_GROUP_BYTES: usize = 4;
/// Bytes of a group of all rows of a block.
const GROUP_BYTES: usize = BLOCK_ROWS * HALVES_GROUP_BYTES;

/// A query, a block, what is common to it, and the sums: [`Kernels::dot_block`].
///
/// # Safety
/// The CPU has the instruction set of the table that holds the function.
pub(crate) type DotBlock = unsafe fn(&[i8], CodeBlock<'_>, Line, &mut [i32; BLOCK_ROWS]) -> u32;

impl Kernels {
    /// `sums[i]` becomes the sum of the products of row `i` of the block with `query`, exact. Bit `i`
    /// of the answer is set unless `(own[i] + base) + factor[i] * (sums[i] * step + offset) > bound`,
    /// so a NaN counts as of interest. The same bits on every CPU.
    ///
    /// # Panics
    /// If the query has not two numbers for each byte of a row, in whole groups, or more than
    /// [`CODES_MAX`].
    #[inline]
    pub fn dot_block(
        &self,
        query: &[i8],
        block: CodeBlock<'_>,
        line: Line,
        sums: &mut [i32; BLOCK_ROWS],
    ) -> u32 {
        assert!(block.codes.len().is_multiple_of(GROUP_BYTES), "whole groups of a block");
        assert!(2 * block.codes.len() == query.len() * BLOCK_ROWS, "halves and their query");
        assert!(query.len() <= CODES_MAX, "sums of 32 bits");
        // SAFETY: a table is handed out only by `detect` (or is scalar), so the CPU has the ISA.
        unsafe { (self.dot_block)(query, block, line, sums) }
    }
}

/// Which rows are of interest.
#[inline(always)]
#[expect(clippy::inline_always, reason = "compiled anew inside each instruction set's function")]
fn interesting(sums: &[i32; BLOCK_ROWS], block: CodeBlock<'_>, line: Line) -> u32 {
    let mut interesting = 0;
    for (row, (sum, (own, factor))) in
        sums.iter().zip(block.own.iter().zip(block.factor)).enumerate()
    {
        let estimate = (own + line.base) + factor * (*sum as f32 * line.step + line.offset);
        let beyond = estimate > line.bound;
        interesting |= u32::from(!beyond) << row;
    }
    interesting
}

#[cfg(test)]
mod tests;
