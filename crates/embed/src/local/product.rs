//! Matrix products of the model's linear layers, with weights packed once at load: bf16 over
//! `numkong` (AMX, AVX-512-BF16, NEON) and f32 over our own tiles.
//!
//! Results come in tiles of [`TILE_COLUMNS`] columns for all rows of a block, small enough to be
//! still in the nearest cache when they are consumed.

use fearless_simd::prelude::*;
use numkong::{PackedMatrix, StorageElement, Tensor, bf16};

use super::LocalError;
use super::tile::{Output, Panel, Rows, multiply_panel, panel_columns};

/// Columns of a tile of results. It divides the width of every layer, holds whole attention
/// heads, and is below twice [`BLOCK_ROWS`](super::encoder::BLOCK_ROWS), which is what makes
/// `numkong` choose its faster register tiling.
pub(super) const TILE_COLUMNS: usize = 192;

/// The number format of a linear layer's input.
pub(super) trait Element: StorageElement + Copy + Default + Send + Sync {
    /// Rounds `source` into `target` of the same length.
    fn round_into(source: &[f32], target: &mut [Self]);
}

impl Element for f32 {
    #[expect(clippy::inline_always, reason = "inlined into a caller with the instructions enabled")]
    #[inline(always)]
    fn round_into(source: &[f32], target: &mut [f32]) {
        target.copy_from_slice(source);
    }
}

impl Element for bf16 {
    #[expect(clippy::inline_always, reason = "inlined into a caller with the instructions enabled")]
    #[inline(always)]
    fn round_into(source: &[f32], target: &mut [bf16]) {
        for (source, target) in source.iter().zip(target) {
            let bits = source.to_bits();
            let rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
            *target = bf16((rounded & 0xffff) as u16);
        }
    }
}

/// One linear layer without its bias: `y = x * transpose(weights)`.
pub(super) trait Product: Sized + Send + Sync {
    /// The number format of `x`.
    type Element: Element;

    /// Packs `weights`, row-major `outputs * inputs`, for the vector width of `simd`.
    fn pack<S: Simd>(simd: S, weights: &[f32], inputs: usize) -> Result<Self, LocalError>;

    /// Calls `consume(first column, tile)` for each tile of results, left to right. `input` is
    /// `rows * inputs`; `tile`, `rows * TILE_COLUMNS`, is overwritten for each call.
    fn multiply<S: Simd>(
        &self,
        simd: S,
        input: &Tensor<Self::Element>,
        tile: &mut Tensor<f32>,
        consume: impl FnMut(usize, &[f32]),
    ) -> Result<(), LocalError>;
}

/// Weights rounded to bf16; products are exact and summed in f32.
pub(super) struct Bf16Product {
    tiles: Vec<PackedMatrix<bf16>>,
}

impl Product for Bf16Product {
    type Element = bf16;

    fn pack<S: Simd>(_: S, weights: &[f32], inputs: usize) -> Result<Self, LocalError> {
        let mut rounded = vec![bf16::default(); weights.len()];
        bf16::round_into(weights, &mut rounded);
        let mut tiles = Vec::new();
        for tile in rounded.chunks_exact(TILE_COLUMNS * inputs) {
            let tile = Tensor::<bf16>::try_from_slice(tile, &[TILE_COLUMNS, inputs])?;
            tiles.push(PackedMatrix::try_pack(&tile)?);
        }
        Ok(Bf16Product { tiles })
    }

    fn multiply<S: Simd>(
        &self,
        _: S,
        input: &Tensor<bf16>,
        tile: &mut Tensor<f32>,
        mut consume: impl FnMut(usize, &[f32]),
    ) -> Result<(), LocalError> {
        for (number, weights) in self.tiles.iter().enumerate() {
            input.try_dots_packed_into(weights, tile)?;
            consume(number * TILE_COLUMNS, tile.as_slice());
        }
        Ok(())
    }
}

/// Weights as they are, regrouped into panels as wide as two vectors of the CPU.
pub(super) struct F32Product {
    /// Panel after panel; in a panel, term after term of the sums, a value per column each.
    panels: Vec<f32>,
    inputs: usize,
}

impl Product for F32Product {
    type Element = f32;

    fn pack<S: Simd>(_: S, weights: &[f32], inputs: usize) -> Result<Self, LocalError> {
        let columns = panel_columns::<S>();
        let mut panels = Vec::with_capacity(weights.len());
        for panel in weights.chunks_exact(columns * inputs) {
            for term in 0..inputs {
                panels.extend(panel.iter().skip(term).step_by(inputs));
            }
        }
        assert_eq!(panels.len(), weights.len(), "layers are whole panels wide");
        Ok(F32Product { panels, inputs })
    }

    fn multiply<S: Simd>(
        &self,
        simd: S,
        input: &Tensor<f32>,
        tile: &mut Tensor<f32>,
        mut consume: impl FnMut(usize, &[f32]),
    ) -> Result<(), LocalError> {
        let inputs = self.inputs;
        let values = input.as_slice();
        let rows = Rows { values, stride: inputs, count: values.len() / inputs };
        for (number, panels) in self.panels.chunks_exact(TILE_COLUMNS * inputs).enumerate() {
            let columns = panel_columns::<S>();
            for (position, values) in panels.chunks_exact(columns * inputs).enumerate() {
                let panel = Panel { values, stride: columns, offset: 0 };
                let offset = position * columns;
                let mut output =
                    Output { values: tile.as_mut_slice(), stride: TILE_COLUMNS, offset };
                simd.vectorize(
                    #[inline(always)]
                    || multiply_panel(simd, rows, panel, &mut output),
                );
            }
            consume(number * TILE_COLUMNS, tile.as_slice());
        }
        Ok(())
    }
}
