//! The nearest of many points to each of many rows, by products of codes.
//!
//! Points lie in panels of 32, four numbers of each point together, so that one instruction
//! multiplies four numbers of sixteen points with those of a row and adds them up.
//!
//! ```text
//! panel: for each four numbers 128 bytes, byte 4 * point + i = code i of the four, plus 64
//! ```
//!
//! Codes of points are -63 to 63: two products of a byte and such a code fit in 16 bits, which is
//! what CPUs without sums of four add in.

#![expect(clippy::inline_always, reason = "compiled anew inside each instruction set's function")]

#[cfg(target_arch = "x86_64")]
pub(crate) mod avx2;
#[cfg(target_arch = "x86_64")]
pub(crate) mod avx512;
pub(crate) mod plain;

use crate::Kernels;

/// Points of a panel.
pub const PANEL_POINTS: usize = 32;
const PANEL_STEP: u32 = 32;
const _: () = assert!(PANEL_STEP as usize == PANEL_POINTS);
/// Numbers that are multiplied together; rows are padded to a multiple.
pub const PANEL_NUMBERS: usize = 4;
/// The largest magnitude of a point's code.
pub const POINT_CODE_MAX: i8 = 63;
/// What a point's code of 0 is in a panel.
const POINT_ZERO: i8 = 64;
/// Bytes of four numbers of a panel's points.
const STEP_BYTES: usize = PANEL_POINTS * PANEL_NUMBERS;
/// Rows that go through all panels together.
const RUN_ROWS: usize = 32;

/// Points to be near to. A point past the last has a term of infinity.
#[derive(Clone, Debug)]
pub struct Panels {
    /// Numbers of a row, padded.
    stride: usize,
    codes: Vec<u8>,
    /// For each point what a product is worth, negative.
    scales: Vec<f32>,
    /// For each point what is added.
    terms: Vec<f32>,
    /// For each panel the most of what its points count for in a row's limit.
    reaches: Vec<[f32; 2]>,
}

impl Panels {
    /// Panels for `count` points of `dims` numbers, all of which are infinitely far.
    pub fn new(dims: usize, count: usize) -> Self {
        let stride = dims.next_multiple_of(PANEL_NUMBERS);
        let points = count.next_multiple_of(PANEL_POINTS);
        Self {
            stride,
            codes: vec![POINT_ZERO.cast_unsigned(); points * stride],
            scales: vec![0.0; points],
            terms: vec![f32::INFINITY; points],
            reaches: vec![[0.0; 2]; points / PANEL_POINTS],
        }
    }

    /// How many points there is room for, a multiple of [`PANEL_POINTS`].
    pub fn points(&self) -> usize {
        self.terms.len()
    }

    /// Bytes of memory.
    pub fn bytes(&self) -> usize {
        self.codes.capacity()
            + 4 * (self.scales.capacity() + self.terms.capacity())
            + 8 * self.reaches.capacity()
    }

    /// One panel more, whose points are infinitely far.
    pub fn grow(&mut self) {
        self.codes
            .resize(self.codes.len() + PANEL_POINTS * self.stride, POINT_ZERO.cast_unsigned());
        self.scales.resize(self.scales.len() + PANEL_POINTS, 0.0);
        self.terms.resize(self.terms.len() + PANEL_POINTS, f32::INFINITY);
        self.reaches.push([0.0; 2]);
    }

    /// Makes a point infinitely far.
    ///
    /// # Panics
    /// If there is no such point.
    pub fn clear(&mut self, point: usize) {
        self.scales[point] = 0.0;
        self.terms[point] = f32::INFINITY;
    }

    /// Has the limits of rows take this into account for every point of the panel that has `point`.
    ///
    /// # Panics
    /// If there is no such point.
    pub fn reach(&mut self, point: usize, reach: [f32; 2]) {
        let most = &mut self.reaches[point / PANEL_POINTS];
        for (most, reach) in most.iter_mut().zip(reach) {
            *most = most.max(reach);
        }
    }

    /// Sets a point: its codes, what a product with them is worth and what is added.
    ///
    /// # Panics
    /// If there is no such point or it has more numbers.
    pub fn set(&mut self, point: usize, codes: &[i8], scale: f32, term: f32) {
        assert!(codes.len() <= self.stride, "numbers of a point");
        let panel = &mut self.codes[point / PANEL_POINTS * PANEL_POINTS * self.stride..];
        for (place, code) in codes.iter().enumerate() {
            let code = (*code).clamp(-POINT_CODE_MAX, POINT_CODE_MAX) + POINT_ZERO;
            let step = place / PANEL_NUMBERS * STEP_BYTES;
            let within = point % PANEL_POINTS * PANEL_NUMBERS + place % PANEL_NUMBERS;
            panel[step + within] = code.cast_unsigned();
        }
        self.scales[point] = scale;
        self.terms[point] = term;
    }

    fn iter(&self) -> impl Iterator<Item = Panel<'_>> {
        let steps = self.stride / PANEL_NUMBERS;
        let (scales, _) = self.scales.as_chunks();
        let (terms, _) = self.terms.as_chunks();
        let (codes, _) = self.codes.as_chunks();
        let panel = move |(panel, (scales, terms))| {
            let first: usize = panel * steps;
            Panel { codes: &codes[first..first + steps], scales, terms }
        };
        scales.iter().zip(terms).enumerate().map(panel)
    }

    fn reach_of(&self, panel: u32) -> [f32; 2] {
        self.reaches.get(panel as usize).copied().unwrap_or([f32::INFINITY; 2])
    }
}

/// One of the panels.
#[derive(Copy, Clone)]
pub(crate) struct Panel<'a> {
    codes: &'a [[u8; STEP_BYTES]],
    scales: &'a [f32; PANEL_POINTS],
    terms: &'a [f32; PANEL_POINTS],
}

/// Rows to find the nearest points of.
#[derive(Copy, Clone, Debug)]
pub struct PanelRows<'a> {
    /// Codes of the rows, each padded with zeros to a multiple of [`PANEL_NUMBERS`].
    pub codes: &'a [i8],
    /// What each row's terms are multiplied with.
    pub weights: &'a [f32],
}

/// Rows to find the points within reach of.
#[derive(Copy, Clone, Debug)]
pub struct BoundRows<'a> {
    /// As those of [`PanelRows`].
    pub codes: &'a [i8],
    /// What each row's products are worth.
    pub weights: &'a [f32],
    /// What each row's products have to reach, less what `reaches` give.
    pub limits: &'a [f32],
    /// What a panel's reach counts for.
    pub reaches: &'a [[f32; 2]],
}

/// A row's nearest point.
#[derive(Copy, Clone, Debug, PartialEq)]
pub struct NearestPoint {
    /// `weight * term + scale * product`, the least of all points.
    pub key: f32,
    /// The first point that has it; 0 if none has a number.
    pub point: u32,
}

/// Rows and panels to the nearest points: [`Kernels::nearest_points`].
///
/// # Safety
/// The CPU has the instruction set of the table that holds the function.
pub(crate) type Nearest = unsafe fn(PanelRows<'_>, &Panels, &mut [NearestPoint]);

/// Rows and panels to pairs of them: [`Kernels::points_within`].
///
/// # Safety
/// The CPU has the instruction set of the table that holds the function.
pub(crate) type Within = unsafe fn(BoundRows<'_>, &Panels, &mut dyn FnMut(u32, u32));

impl Kernels {
    /// Calls `found(row, point)` for every pair of which it cannot be ruled out that
    /// `weight * scale * sum(row codes * point codes) >= limit - reach . panel's reach + term`,
    /// the sum exact; a term that is not below infinity rules out all but what is not a number.
    ///
    /// # Panics
    /// If the shapes do not fit.
    pub fn points_within(
        &self,
        rows: BoundRows<'_>,
        panels: &Panels,
        found: &mut dyn FnMut(u32, u32),
    ) {
        let count = rows.weights.len();
        assert_eq!((count, count), (rows.limits.len(), rows.reaches.len()), "all of each row");
        assert_eq!(rows.codes.len(), count * panels.stride, "rows of as many numbers");
        assert!(panels.stride <= crate::CODES_MAX, "codes of a row");
        assert!(u32::try_from(count.max(panels.points())).is_ok(), "counted in 32 bits");
        // SAFETY: a table is handed out only by `detect` (or is scalar), so the CPU has the ISA.
        unsafe { (self.within)(rows, panels, found) }
    }

    /// `out[i]` becomes the point that is nearest to row `i`: the least of
    /// `weight * term + scale * sum(row codes * point codes)`, the sum exact. The same on every CPU.
    ///
    /// # Panics
    /// If the shapes do not fit.
    pub fn nearest_points(&self, rows: PanelRows<'_>, panels: &Panels, out: &mut [NearestPoint]) {
        assert_eq!(rows.weights.len(), out.len(), "an answer for each row");
        assert_eq!(rows.codes.len(), out.len() * panels.stride, "rows of as many numbers");
        assert!(panels.stride <= crate::CODES_MAX, "codes of a row");
        // SAFETY: a table is handed out only by `detect` (or is scalar), so the CPU has the ISA.
        unsafe { (self.nearest)(rows, panels, out) }
    }
}

/// The nearest so far, for each place in a panel.
#[derive(Copy, Clone)]
struct Best {
    keys: [f32; PANEL_POINTS],
    panels: [u32; PANEL_POINTS],
}

impl Best {
    const NONE: Self = Self { keys: [f32::INFINITY; PANEL_POINTS], panels: [0; PANEL_POINTS] };

    /// Takes a panel's products into account.
    #[inline(always)]
    fn take(&mut self, number: u32, panel: Panel<'_>, weight: f32, products: &[i32; PANEL_POINTS]) {
        let terms = panel.terms.iter().zip(panel.scales).zip(products);
        let best = self.keys.iter_mut().zip(&mut self.panels);
        for (((term, scale), product), (least, nearest)) in terms.zip(best) {
            let key = weight * term + scale * *product as f32;
            let nearer = key < *least;
            *least = if nearer { key } else { *least };
            *nearest = if nearer { number } else { *nearest };
        }
    }

    fn nearest(&self) -> NearestPoint {
        let mut nearest = NearestPoint { key: f32::INFINITY, point: 0 };
        for (place, (key, panel)) in (0_u32..).zip(self.keys.iter().zip(self.panels)) {
            let point = panel * PANEL_STEP + place;
            let before = *key < nearest.key || (*key <= nearest.key && point < nearest.point);
            if before && *key < f32::INFINITY {
                nearest = NearestPoint { key: *key, point };
            }
        }
        nearest
    }
}

/// [`Kernels::nearest_points`] with the products of `R` rows at a time as `products` makes them.
#[inline(always)]
fn run<const R: usize>(
    rows: PanelRows<'_>,
    panels: &Panels,
    out: &mut [NearestPoint],
    products: impl Fn([&[i8]; R], Panel<'_>) -> [[i32; PANEL_POINTS]; R],
) {
    let runs = rows.codes.chunks(RUN_ROWS * panels.stride.max(1));
    for ((codes, weights), out) in
        runs.zip(rows.weights.chunks(RUN_ROWS)).zip(out.chunks_mut(RUN_ROWS))
    {
        let row = |row: usize| &codes[row.min(out.len() - 1) * panels.stride..][..panels.stride];
        let mut best = [Best::NONE; RUN_ROWS];
        let mut zeros = [0_i32; RUN_ROWS];
        for (place, zero) in zeros.iter_mut().enumerate().take(out.len()) {
            *zero = row(place).iter().map(|code| i32::from(*code)).sum();
            *zero *= i32::from(POINT_ZERO);
        }
        for (number, panel) in (0..).zip(panels.iter()) {
            for first in (0..out.len()).step_by(R) {
                // Past the last row the last is taken again.
                let group = products(std::array::from_fn(|place| row(first + place)), panel);
                for (place, mut products) in (first..out.len()).zip(group) {
                    for product in &mut products {
                        *product -= zeros[place];
                    }
                    best[place].take(number, panel, weights[place], &products);
                }
            }
        }
        for (out, best) in out.iter_mut().zip(&best) {
            *out = best.nearest();
        }
    }
}

/// What a row of codes adds to every product with a panel.
#[inline(always)]
fn zero_of(row: &[i8]) -> i32 {
    row.iter().map(|code| i32::from(*code)).sum::<i32>() * i32::from(POINT_ZERO)
}

/// [`Kernels::points_within`] with the products of `R` rows at a time as `products` makes them.
#[inline(always)]
fn run_within<const R: usize>(
    rows: BoundRows<'_>,
    panels: &Panels,
    found: &mut dyn FnMut(u32, u32),
    products: impl Fn([&[i8]; R], Panel<'_>) -> [[i32; PANEL_POINTS]; R],
) {
    let row = |row: usize| {
        let row = row.min(rows.weights.len() - 1);
        &rows.codes[row * panels.stride..][..panels.stride]
    };
    for first in (0..rows.weights.len()).step_by(RUN_ROWS) {
        let end = (first + RUN_ROWS).min(rows.weights.len());
        let mut zeros = [0_i32; RUN_ROWS];
        for (place, zero) in (first..end).zip(&mut zeros) {
            *zero = zero_of(row(place));
        }
        for (number, panel) in (0..).zip(panels.iter()) {
            let reach = panels.reach_of(number);
            for group in (first..end).step_by(R) {
                // Past the last row the last is taken again.
                let sums = products(std::array::from_fn(|place| row(group + place)), panel);
                for (place, sums) in (group..end).zip(&sums) {
                    let [length, error] = rows.reaches[place];
                    let limit = rows.limits[place] - (length * reach[0] + error * reach[1]);
                    let (zero, weight) = (zeros[place - first], rows.weights[place]);
                    if reaches(panel, (sums, zero), (weight, limit)) {
                        report(panel, (sums, zero), (weight, limit), &mut |point| {
                            found(
                                u32::try_from(place).unwrap_or(u32::MAX),
                                number * PANEL_STEP + point,
                            );
                        });
                    }
                }
            }
        }
    }
}

/// Whether a point's product is within reach; also where that cannot be said.
#[inline(always)]
fn is_within(scale: f32, term: f32, product: i32, (weight, limit): (f32, f32)) -> bool {
    let short = weight * (scale * product as f32) < limit + term;
    !short
}

/// Whether any point of a panel is within reach of a row.
#[inline(always)]
fn reaches(panel: Panel<'_>, (sums, zero): (&[i32; PANEL_POINTS], i32), row: (f32, f32)) -> bool {
    let mut any = false;
    for ((sum, scale), term) in sums.iter().zip(panel.scales).zip(panel.terms) {
        any |= is_within(*scale, *term, *sum - zero, row);
    }
    any
}

/// Calls `found` with each point of a panel that is within reach of a row.
#[cold]
fn report(
    panel: Panel<'_>,
    (sums, zero): (&[i32; PANEL_POINTS], i32),
    row: (f32, f32),
    found: &mut dyn FnMut(u32),
) {
    for (point, ((sum, scale), term)) in (0..).zip(sums.iter().zip(panel.scales).zip(panel.terms)) {
        if is_within(*scale, *term, *sum - zero, row) {
            found(point);
        }
    }
}

#[cfg(test)]
mod tests;
