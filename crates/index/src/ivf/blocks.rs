//! Codes of rows in blocks of 32, as the kernels scan them.

use arrwdb_kernel::{BLOCK_ROWS, CodeBlock, PART_BYTES};

use crate::pages::Pages;

/// Blocks one after the other, each its codes and then what is added to each row's estimate and
/// what its sum is multiplied with.
#[derive(Debug)]
pub(crate) struct Blocks {
    /// Words of a block.
    stride: usize,
    words: Pages<u32>,
}

impl Blocks {
    pub(crate) fn of(stride: usize, words: &[u32]) -> Self {
        Self { stride, words: Pages::of(words) }
    }

    /// Room for `count` blocks.
    pub(crate) fn zeroed(stride: usize, count: usize) -> Self {
        Self { stride, words: Pages::zeroed(stride * count) }
    }

    pub(crate) fn words(&self) -> &[u32] {
        &self.words
    }

    /// The words of `count` blocks from `first`.
    pub(crate) fn words_mut(&mut self, first: usize, count: usize) -> &mut [u32] {
        &mut self.words[first * self.stride..][..count * self.stride]
    }

    pub(crate) fn bytes(&self) -> usize {
        self.words.bytes()
    }

    #[inline]
    fn block_words(&self, block: usize) -> &[u32] {
        &self.words[block * self.stride..][..self.stride]
    }

    /// A block, of which `next` will be asked for after it, if it is there.
    #[inline]
    pub(crate) fn block(&self, block: usize, next: usize) -> CodeBlock<'_> {
        let (codes, terms) = self.block_words(block).split_at(self.stride - 2 * BLOCK_ROWS);
        let (terms, _) = bytemuck::cast_slice(terms).as_chunks();
        let next = self.words.get(next * self.stride..).unwrap_or_default();
        CodeBlock {
            codes: bytemuck::cast_slice(codes),
            own: &terms[0],
            factor: &terms[1],
            next: bytemuck::cast_slice(next),
        }
    }
}

/// Writes row `place` of a block: its codes, what is added and what the sum is multiplied with.
pub(crate) fn set_row(block: &mut [u32], place: usize, row: &[u8], [own, factor]: [f32; 2]) {
    let (codes, terms) = block.split_at_mut(block.len() - 2 * BLOCK_ROWS);
    let (parts, _) = bytemuck::cast_slice_mut::<u32, u8>(codes).as_chunks_mut::<PART_BYTES>();
    for (part, code) in parts.iter_mut().zip(row) {
        let shift = if place < PART_BYTES { 0 } else { 4 };
        part[place % PART_BYTES] |= code << shift;
    }
    terms[place] = own.to_bits();
    terms[BLOCK_ROWS + place] = factor.to_bits();
}

/// Calls `visit` with the place of each set bit.
#[inline]
pub(crate) fn each_bit(mut bits: u32, mut visit: impl FnMut(u32)) {
    while bits != 0 {
        visit(bits.trailing_zeros());
        bits &= bits - 1;
    }
}

/// The `count` lowest bits, all of them from 32 on.
#[inline]
pub(crate) fn low_bits(count: u32) -> u32 {
    if count < u32::BITS { (1 << count) - 1 } else { u32::MAX }
}
