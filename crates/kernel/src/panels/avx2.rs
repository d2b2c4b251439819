//! AVX2: products of bytes added in pairs to 16 bits, which none leaves, and those to 32.

use std::arch::x86_64::{
    __m256i, _mm256_add_epi32, _mm256_loadu_si256, _mm256_madd_epi16, _mm256_maddubs_epi16,
    _mm256_set1_epi16, _mm256_set1_epi32, _mm256_setzero_si256, _mm256_storeu_si256,
};

use super::{
    BoundRows, NearestPoint, PANEL_NUMBERS, PANEL_POINTS, POINT_CODE_MAX, POINT_ZERO, Panel,
    PanelRows, Panels, run, run_within,
};

/// Rows at a time: their sums fill half of the registers.
const ROWS: usize = 2;
/// Points in a register.
const LANES: usize = 8;

const _: () = {
    let most = 2 * (POINT_CODE_MAX as i32 + POINT_ZERO as i32) * 128;
    assert!(most <= 1 << 15, "only a sum of two products of -128 reaches -32512");
};

#[target_feature(enable = "avx2,fma")]
pub(crate) fn nearest(rows: PanelRows<'_>, panels: &Panels, out: &mut [NearestPoint]) {
    run::<ROWS>(rows, panels, out, |rows, panel| products(rows, panel));
}

#[target_feature(enable = "avx2,fma")]
pub(crate) fn within(rows: BoundRows<'_>, panels: &Panels, found: &mut dyn FnMut(u32, u32)) {
    run_within::<ROWS>(rows, panels, found, |rows, panel| products(rows, panel));
}

#[inline]
#[target_feature(enable = "avx2,fma")]
fn products(rows: [&[i8]; ROWS], panel: Panel<'_>) -> [[i32; PANEL_POINTS]; ROWS] {
    let mut steps: [&[[i8; PANEL_NUMBERS]]; ROWS] = [&[]; ROWS];
    for (steps, row) in steps.iter_mut().zip(rows) {
        *steps = &row.as_chunks().0[..panel.codes.len()];
    }
    let ones = _mm256_set1_epi16(1);
    let mut sums = [[_mm256_setzero_si256(); 4]; ROWS];
    for (step, codes) in panel.codes.iter().enumerate() {
        let (codes, _) = codes.as_chunks::<32>();
        for (sums, row) in sums.iter_mut().zip(steps) {
            let [a, b, c, d] = row[step];
            let [a, b] = [a.cast_unsigned(), b.cast_unsigned()];
            let numbers = [a, b, c.cast_unsigned(), d.cast_unsigned()];
            let numbers = _mm256_set1_epi32(i32::from_le_bytes(numbers));
            for (sum, points) in sums.iter_mut().zip(codes) {
                let pairs = _mm256_maddubs_epi16(load(points), numbers);
                *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(pairs, ones));
            }
        }
    }
    let mut out = [[0; PANEL_POINTS]; ROWS];
    for (out, sums) in out.iter_mut().zip(sums) {
        let (quarters, _) = out.as_chunks_mut::<LANES>();
        for (quarter, sums) in quarters.iter_mut().zip(sums) {
            // SAFETY: the reference covers the 32 bytes written; `storeu` asks for no alignment.
            unsafe { _mm256_storeu_si256(quarter.as_mut_ptr().cast(), sums) };
        }
    }
    out
}

#[inline]
#[target_feature(enable = "avx2,fma")]
fn load(lanes: &[u8; 32]) -> __m256i {
    // SAFETY: the reference covers the 32 bytes read; `loadu` asks for no alignment.
    unsafe { _mm256_loadu_si256(lanes.as_ptr().cast()) }
}
