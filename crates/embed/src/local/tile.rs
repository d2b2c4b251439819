//! The f32 matrix product's innermost loop: a few rows of one matrix times a panel two vectors
//! wide of another, held in registers from the first term to the last.
#![expect(
    clippy::inline_always,
    reason = "vector code must be inlined into the function that enables the instructions"
)]

use fearless_simd::prelude::*;

/// Columns of a panel: two vectors of the CPU.
#[inline(always)]
pub(super) const fn panel_columns<S: Simd>() -> usize {
    2 * S::f32s::LEN
}

/// Rows that are computed together: as many accumulators as the register file has room for.
#[inline(always)]
const fn rows_together_max<S: Simd>() -> usize {
    if S::f32s::LEN >= 16 || cfg!(target_arch = "aarch64") { 12 } else { 6 }
}

/// Right operand: `panel[term * stride + offset ..][.. panel_columns]` are the columns' values
/// of one term of the sums.
#[derive(Copy, Clone)]
pub(super) struct Panel<'a> {
    pub(super) values: &'a [f32],
    pub(super) stride: usize,
    pub(super) offset: usize,
}

/// Left operand: row `r` is `values[r * stride ..]`, of which as many terms are used as the panel
/// has.
#[derive(Copy, Clone)]
pub(super) struct Rows<'a> {
    pub(super) values: &'a [f32],
    pub(super) stride: usize,
    pub(super) count: usize,
}

/// Output: row `r` goes to `values[r * stride + offset ..][.. panel_columns]`.
pub(super) struct Output<'a> {
    pub(super) values: &'a mut [f32],
    pub(super) stride: usize,
    pub(super) offset: usize,
}

/// `output[r][c] = sum over t of rows[r][t] * panel[t][c]`, for all rows.
#[inline(always)]
pub(super) fn multiply_panel<S: Simd>(
    simd: S,
    rows: Rows<'_>,
    panel: Panel<'_>,
    output: &mut Output<'_>,
) {
    let mut row = 0;
    while row < rows.count {
        row += match (rows.count - row, rows_together_max::<S>()) {
            (12.., 12) => multiply_rows::<S, 12>(simd, rows, row, panel, output),
            (8.., 12) => multiply_rows::<S, 8>(simd, rows, row, panel, output),
            (6.., 6) => multiply_rows::<S, 6>(simd, rows, row, panel, output),
            (4.., _) => multiply_rows::<S, 4>(simd, rows, row, panel, output),
            (2.., _) => multiply_rows::<S, 2>(simd, rows, row, panel, output),
            _ => multiply_rows::<S, 1>(simd, rows, row, panel, output),
        };
    }
}

/// `ROWS` rows from `first` on; returns `ROWS`.
#[inline(always)]
fn multiply_rows<S: Simd, const ROWS: usize>(
    simd: S,
    rows: Rows<'_>,
    first: usize,
    panel: Panel<'_>,
    output: &mut Output<'_>,
) -> usize {
    let lanes = S::f32s::LEN;
    let terms = panel.values.len() / panel.stride;
    let left: [&[f32]; ROWS] =
        core::array::from_fn(|row| &rows.values[(first + row) * rows.stride..][..terms]);
    let zero = S::f32s::splat(simd, 0.0);
    let mut low = [zero; ROWS];
    let mut high = [zero; ROWS];
    for (term, right) in panel.values.chunks_exact(panel.stride).enumerate() {
        let right = &right[panel.offset..][..2 * lanes];
        let right_low = S::f32s::from_slice(simd, &right[..lanes]);
        let right_high = S::f32s::from_slice(simd, &right[lanes..]);
        for row in 0..ROWS {
            let value = S::f32s::splat(simd, left[row][term]);
            low[row] = value.mul_add(right_low, low[row]);
            high[row] = value.mul_add(right_high, high[row]);
        }
    }
    for row in 0..ROWS {
        let output = &mut output.values[(first + row) * output.stride + output.offset..];
        low[row].store_slice(&mut output[..lanes]);
        high[row].store_slice(&mut output[lanes..2 * lanes]);
    }
    ROWS
}
