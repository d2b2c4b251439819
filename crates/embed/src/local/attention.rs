//! Self-attention of one sequence: softmax(Q K^T) V per head, a few query rows at a time, so
//! that scores never leave the nearest cache. No masks: a sequence holds no padding.
//!
//! The factors `1 / sqrt(head size)` and `log2(e)` are part of the query weights (see
//! [`super::encoder`]), so scores arrive in units of log2.
#![expect(
    clippy::inline_always,
    reason = "vector code must be inlined into the function that enables the instructions"
)]

use fearless_simd::prelude::*;

use super::encoder::{HEAD_SIZE, HIDDEN, TOKENS_MAX};
use super::product::Element;
use super::tile::{Output, Panel, Rows, multiply_panel, panel_columns};
use super::vector_math::{LANES_MAX, scale, softmax_base2};

/// Query rows whose scores are held at once.
const QUERY_ROWS: usize = 12;

/// Keys of a sequence, rounded up to whole panels of any CPU.
const KEYS_MAX: usize = TOKENS_MAX.next_multiple_of(2 * LANES_MAX);

/// Buffers of one attention head, reused from head to head.
#[derive(Debug)]
pub(super) struct AttentionScratch {
    /// Transposed keys in panels: `panels * HEAD_SIZE * panel columns`.
    keys: Vec<f32>,
    /// Scores, then weights: `QUERY_ROWS` rows of whole panels.
    scores: Vec<f32>,
    /// `QUERY_ROWS * HEAD_SIZE` results.
    results: Vec<f32>,
}

impl AttentionScratch {
    pub(super) fn new() -> AttentionScratch {
        AttentionScratch {
            keys: vec![0.0; KEYS_MAX * HEAD_SIZE],
            scores: vec![0.0; QUERY_ROWS * KEYS_MAX],
            results: vec![0.0; QUERY_ROWS * HEAD_SIZE],
        }
    }
}

/// One head of one sequence: `tokens * HEAD_SIZE` each.
#[derive(Copy, Clone)]
pub(super) struct Head<'a> {
    pub(super) queries: &'a [f32],
    pub(super) keys: &'a [f32],
    pub(super) values: &'a [f32],
}

/// Attends over one head and writes `HEAD_SIZE` values per token to `context[token * HIDDEN ..]`.
#[inline(always)]
pub(super) fn attend<S: Simd, E: Element>(
    simd: S,
    head: Head<'_>,
    scratch: &mut AttentionScratch,
    context: &mut [E],
) {
    let tokens = head.keys.len() / HEAD_SIZE;
    let columns = panel_columns::<S>();
    let width = tokens.next_multiple_of(columns);
    let AttentionScratch { keys, scores, results } = scratch;
    let keys = &mut keys[..width * HEAD_SIZE];
    transpose_keys::<S>(head.keys, keys);
    for (block, queries) in head.queries.chunks(QUERY_ROWS * HEAD_SIZE).enumerate() {
        let count = queries.len() / HEAD_SIZE;
        let rows = Rows { values: queries, stride: HEAD_SIZE, count };
        for (position, values) in keys.chunks_exact(columns * HEAD_SIZE).enumerate() {
            let panel = Panel { values, stride: columns, offset: 0 };
            let offset = position * columns;
            let mut output = Output { values: scores, stride: width, offset };
            multiply_panel(simd, rows, panel, &mut output);
        }
        let mut sums = [0.0; QUERY_ROWS];
        for (row, sum) in scores.chunks_exact_mut(width).zip(&mut sums).take(count) {
            row[tokens..].fill(f32::MIN);
            *sum = softmax_base2(simd, row);
        }
        let weights = Rows { values: scores, stride: width, count };
        weigh_values(simd, head.values, weights, results);
        for row in 0..count {
            let result = &mut results[row * HEAD_SIZE..][..HEAD_SIZE];
            scale(simd, sums[row].recip(), result);
            let token = block * QUERY_ROWS + row;
            E::round_into(result, &mut context[token * HIDDEN..][..HEAD_SIZE]);
        }
    }
}

/// `results[row] = sum over keys of weights[row][key] * values[key]`.
#[inline(always)]
fn weigh_values<S: Simd>(simd: S, values: &[f32], weights: Rows<'_>, results: &mut [f32]) {
    for offset in (0..HEAD_SIZE).step_by(panel_columns::<S>()) {
        let panel = Panel { values, stride: HEAD_SIZE, offset };
        let mut output = Output { values: &mut *results, stride: HEAD_SIZE, offset };
        multiply_panel(simd, weights, panel, &mut output);
    }
}

/// Regroups `tokens * HEAD_SIZE` keys into panels of columns; columns beyond the last key keep
/// what they held, finite numbers whose scores are overwritten.
#[inline(always)]
fn transpose_keys<S: Simd>(keys: &[f32], panels: &mut [f32]) {
    let columns = panel_columns::<S>();
    for (panel, keys) in
        panels.chunks_exact_mut(columns * HEAD_SIZE).zip(keys.chunks(columns * HEAD_SIZE))
    {
        for (column, key) in keys.chunks_exact(HEAD_SIZE).enumerate() {
            for (target, value) in panel.iter_mut().skip(column).step_by(columns).zip(key) {
                *target = *value;
            }
        }
    }
}
