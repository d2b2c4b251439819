//! Tables of a query: plain loops, compiled for each instruction set.
//!
//! Every operation is a single rounding in a fixed order, so tables have the same bits everywhere.
#![expect(clippy::inline_always, reason = "compiled anew inside each instruction set's function")]

use super::{LOOKUP_SUM_MAX, PART_BYTES, PARTS_MULTIPLE, QueryTables};

/// The largest code.
const CODE_MAX: u8 = 15;
/// The largest entry.
const ENTRY_MAX: f32 = 255.0;

/// [`crate::Kernels::fill_tables`], whose checks were made.
#[inline(always)]
pub(super) fn fill(query: &[f32], book: &[f32], tables: &mut QueryTables) {
    let (products, _) = tables.products.as_chunks_mut::<PART_BYTES>();
    let width = query.len() / products.len().max(1);
    let (columns, _) = book.as_chunks::<PART_BYTES>();
    let mut spans = Spans::default();
    for (part, products) in products.iter_mut().enumerate() {
        let columns = &columns[part * width..][..width];
        for (number, column) in query[part * width..][..width].iter().zip(columns) {
            for (product, value) in products.iter_mut().zip(column) {
                *product += number * value;
            }
        }
        let [least, most] = ends(products);
        spans.add(least, most);
        for product in products {
            *product -= least;
        }
    }
    let scale = spans.scale(products.len());
    for (quad, products) in tables.entries.iter_mut().zip(products.chunks(PARTS_MULTIPLE)) {
        for (entry, product) in quad.0.iter_mut().zip(products.as_flattened()) {
            *entry = round(product * scale);
        }
    }
    (tables.step, tables.offset) = spans.line(scale);
}

/// What the products of all parts reach from and to.
#[derive(Default)]
pub(super) struct Spans {
    total: f32,
    widest: f32,
    offset: f32,
}

impl Spans {
    #[inline(always)]
    pub(super) fn add(&mut self, least: f32, most: f32) {
        let span = most - least;
        self.total += span;
        self.widest = self.widest.max(span);
        self.offset += least;
    }

    /// What makes entries of products.
    #[inline(always)]
    pub(super) fn scale(&self, parts: usize) -> f32 {
        // Half a step for each part is what rounding up can add.
        let room = f32::from(LOOKUP_SUM_MAX) - parts as f32;
        let scale = (ENTRY_MAX / self.widest).min(room * 0.999 / self.total);
        // A query of zeros has no span: every entry is 0 then.
        if scale.is_finite() { scale } else { 0.0 }
    }

    /// The step and the offset of the tables.
    #[inline(always)]
    pub(super) fn line(&self, scale: f32) -> (f32, f32) {
        (if scale > 0.0 { 1.0 / scale } else { 0.0 }, self.offset)
    }
}

/// [`crate::Kernels::encode_parts`], whose checks were made.
#[inline(always)]
pub(super) fn encode(values: &[f32], book: &[f32], terms: &[f32], out: &mut [u8]) {
    let width = values.len() / out.len().max(1);
    let (columns, _) = book.as_chunks::<PART_BYTES>();
    let (terms, _) = terms.as_chunks::<PART_BYTES>();
    for (part, (code, terms)) in out.iter_mut().zip(terms).enumerate() {
        let mut products = terms.map(|term| -term);
        let columns = &columns[part * width..][..width];
        for (number, column) in values[part * width..][..width].iter().zip(columns) {
            for (product, value) in products.iter_mut().zip(column) {
                *product += number * value;
            }
        }
        *code = first_of_most(&products);
    }
}

/// The first of the largest; the last if there is no number.
#[inline(always)]
fn first_of_most(products: &[f32; PART_BYTES]) -> u8 {
    // By halves, which registers of any width do side by side.
    let mut most = *products;
    for half in [8, 4, 2, 1] {
        for place in 0..half {
            let (a, b) = (most[place], most[place + half]);
            most[place] = if a > b { a } else { b };
        }
    }
    let mut first = CODE_MAX;
    for (code, product) in (0..=CODE_MAX).zip(products).rev() {
        first = if *product >= most[0] { code } else { first };
    }
    first
}

/// The least and the most.
#[inline(always)]
fn ends(products: &[f32; PART_BYTES]) -> [f32; 2] {
    let (mut least, mut most) = (products[0], products[0]);
    for product in products {
        least = if *product < least { *product } else { least };
        most = if *product > most { *product } else { most };
    }
    [least, most]
}

#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "at most 255.5, and what is above saturates")]
#[expect(clippy::cast_sign_loss, reason = "the least was subtracted: nothing is below zero")]
fn round(value: f32) -> u8 {
    (value + 0.5) as u8
}
