//! AVX-512 with VNNI: four products of sixteen points in one instruction.

use std::arch::x86_64::{
    __m512i, _mm512_dpbusd_epi32, _mm512_loadu_si512, _mm512_set1_epi32, _mm512_setzero_si512,
    _mm512_storeu_si512,
};

use super::{
    BoundRows, NearestPoint, PANEL_NUMBERS, PANEL_POINTS, Panel, PanelRows, Panels, run, run_within,
};

/// Rows at a time: their sums fill half of the registers.
const ROWS: usize = 8;
/// Points in a register.
const LANES: usize = 16;

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
pub(crate) fn nearest(rows: PanelRows<'_>, panels: &Panels, out: &mut [NearestPoint]) {
    run::<ROWS>(rows, panels, out, |rows, panel| products(rows, panel));
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
pub(crate) fn within(rows: BoundRows<'_>, panels: &Panels, found: &mut dyn FnMut(u32, u32)) {
    run_within::<ROWS>(rows, panels, found, |rows, panel| products(rows, panel));
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
fn products(rows: [&[i8]; ROWS], panel: Panel<'_>) -> [[i32; PANEL_POINTS]; ROWS] {
    let mut steps: [&[[i8; PANEL_NUMBERS]]; ROWS] = [&[]; ROWS];
    for (steps, row) in steps.iter_mut().zip(rows) {
        *steps = &row.as_chunks().0[..panel.codes.len()];
    }
    let mut sums = [[_mm512_setzero_si512(); 2]; ROWS];
    for (step, codes) in panel.codes.iter().enumerate() {
        let (codes, _) = codes.as_chunks::<64>();
        let points = [load(&codes[0]), load(&codes[1])];
        for (sums, row) in sums.iter_mut().zip(steps) {
            let [a, b, c, d] = row[step];
            let [a, b] = [a.cast_unsigned(), b.cast_unsigned()];
            let numbers = [a, b, c.cast_unsigned(), d.cast_unsigned()];
            let numbers = _mm512_set1_epi32(i32::from_le_bytes(numbers));
            *sums = [
                _mm512_dpbusd_epi32(sums[0], points[0], numbers),
                _mm512_dpbusd_epi32(sums[1], points[1], numbers),
            ];
        }
    }
    let mut out = [[0; PANEL_POINTS]; ROWS];
    for (out, sums) in out.iter_mut().zip(sums) {
        let (halves, _) = out.as_chunks_mut::<LANES>();
        for (half, sums) in halves.iter_mut().zip(sums) {
            // SAFETY: the reference covers the 64 bytes written; `storeu` asks for no alignment.
            unsafe { _mm512_storeu_si512(half.as_mut_ptr().cast(), sums) };
        }
    }
    out
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
fn load(lanes: &[u8; 64]) -> __m512i {
    // SAFETY: the reference covers the 64 bytes read; `loadu` asks for no alignment.
    unsafe { _mm512_loadu_si512(lanes.as_ptr().cast()) }
}
