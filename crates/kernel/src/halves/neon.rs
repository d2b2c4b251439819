//! NEON: the plain loops, compiled for it.

use super::{BLOCK_ROWS, interesting, scalar};
use crate::{CodeBlock, Line};

#[target_feature(enable = "neon")]
pub(crate) fn dot_block(
    query: &[i8],
    block: CodeBlock<'_>,
    line: Line,
    sums: &mut [i32; BLOCK_ROWS],
) -> u32 {
    scalar::sum(query, block.codes, sums);
    interesting(sums, block, line)
}
