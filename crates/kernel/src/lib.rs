//! Distances over slices of f32: one function table per CPU, with a scalar oracle.
//!
//! Everything above this crate asks [`kernels`] for the table once and calls through it; which
//! instructions run is decided by the CPU, never by the caller.
//!
//! Invariants:
//! - K1: every table agrees with the scalar one, which accumulates in f64, within the rounding
//!   of f32: they differ by at most `(len + 1) * f32::EPSILON` times the sum of the terms'
//!   magnitudes, plus `len * f32::MIN_POSITIVE`, as long as that sum is finite in f32.
//! - K2: this crate holds the only `unsafe` arithmetic, and no load leaves the slices it is given.
//! - K3: the CPU is looked at once per process, in `detect` and nowhere else.
//! - K4: within one table a row's result depends on the query and that row alone. The single-row
//!   and many-row forms give the same bits, however the rows are grouped or aligned.
//!
//! - K5: products of codes are whole numbers, exact on every CPU, and what codes are made from has
//!   the same bits on every CPU.
//!
//! K4 holds because each file has one summation order, a function of the length only: four
//! accumulators of one register each take turns, then fold in a fixed tree.
#![expect(unsafe_code, reason = "the one crate for vector instructions; see K2")]

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod codes;
mod halves;
mod lookup;
#[cfg(target_arch = "aarch64")]
mod neon;
mod panels;
mod planes;
mod prefetch;
mod scalar;
mod spread;

use std::fmt;
use std::sync::OnceLock;

pub use halves::HALVES_GROUP_BYTES;
pub use lookup::{
    BLOCK_ROWS, CodeBlock, LOOKUP_SUM_MAX, Line, PART_BYTES, PARTS_MAX, PARTS_MULTIPLE,
    QueryTables, TableQuad,
};
pub use panels::{
    BoundRows, NearestPoint, PANEL_NUMBERS, PANEL_POINTS, POINT_CODE_MAX, PanelRows, Panels,
};
pub use prefetch::prefetch;

/// A pair of slices of one length to one number.
///
/// # Safety
/// The CPU has the instruction set of the table that holds the function.
type Pair = unsafe fn(&[f32], &[f32]) -> f32;

/// A query of `d` numbers and `n * d` row-major numbers to `n` numbers.
///
/// # Safety
/// As for [`Pair`].
type Rows = unsafe fn(&[f32], &[f32], &mut [f32]);

/// A slice to one number.
///
/// # Safety
/// As for [`Pair`].
type Fold = unsafe fn(&[f32]) -> f32;

/// The function table of one instruction set.
///
/// A table can only be had from [`kernels`], [`Kernels::scalar`] or [`Kernels::supported`], so
/// whoever holds one is on a CPU that runs it. Slices may be of any length, zero included, and of
/// any alignment. NaN and infinities follow IEEE 754: a NaN in either input gives NaN.
pub struct Kernels {
    name: &'static str,
    dot: Pair,
    l2_squared: Pair,
    dot_rows: Rows,
    l2_squared_rows: Rows,
    sum: Fold,
    codes: &'static codes::CodeTable,
    planes: &'static planes::PlaneTable,
    spread: &'static spread::SpreadTable,
    lookup: &'static lookup::LookupTable,
    nearest: panels::Nearest,
    dot_block: halves::DotBlock,
    within: panels::Within,
}

/// The fastest table this CPU runs, detected at the first call.
pub fn kernels() -> &'static Kernels {
    static CHOSEN: OnceLock<&'static Kernels> = OnceLock::new();
    CHOSEN.get_or_init(|| detect().first().copied().unwrap_or(&scalar::TABLE))
}

/// Every table this CPU runs, fastest first; the scalar one is always last.
fn detect() -> Vec<&'static Kernels> {
    let mut tables: Vec<&'static Kernels> = Vec::with_capacity(4);
    #[cfg(target_arch = "x86_64")]
    {
        let fma = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
        if fma && is_x86_feature_detected!("avx512f") {
            let vnni =
                is_x86_feature_detected!("avx512bw") && is_x86_feature_detected!("avx512vnni");
            if vnni && is_x86_feature_detected!("avx512vl") && is_x86_feature_detected!("avx512dq")
            {
                tables.push(&avx512::TABLE);
            }
            tables.push(&avx512::TABLE_WITHOUT_VNNI);
        }
        if fma {
            tables.push(&avx2::TABLE);
        }
    }
    #[cfg(target_arch = "aarch64")]
    if std::arch::is_aarch64_feature_detected!("neon") {
        tables.push(&neon::TABLE);
    }
    tables.push(&scalar::TABLE);
    tables
}

impl Kernels {
    /// `"avx512"` (with VNNI), `"avx512f"` (without), `"avx2"`, `"neon"` or `"scalar"`.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// The oracle: plain Rust that accumulates in f64 and rounds once. Runs everywhere.
    pub fn scalar() -> &'static Kernels {
        &scalar::TABLE
    }

    /// Every table this CPU runs, fastest first and the scalar one last, for tests and benches.
    pub fn supported() -> Vec<&'static Kernels> {
        detect()
    }

    /// `sum(a[i] * b[i])`; 0 for empty slices.
    ///
    /// # Panics
    /// If the lengths differ.
    pub fn dot(&self, a: &[f32], b: &[f32]) -> f32 {
        assert_eq!(a.len(), b.len(), "a dot product takes two slices of one length");
        // SAFETY: a table is handed out only by `detect` (or is scalar), so the CPU has the ISA.
        unsafe { (self.dot)(a, b) }
    }

    /// `sum((a[i] - b[i])^2)`; 0 for empty slices.
    ///
    /// # Panics
    /// If the lengths differ.
    pub fn l2_squared(&self, a: &[f32], b: &[f32]) -> f32 {
        assert_eq!(a.len(), b.len(), "a distance takes two slices of one length");
        // SAFETY: a table is handed out only by `detect` (or is scalar), so the CPU has the ISA.
        unsafe { (self.l2_squared)(a, b) }
    }

    /// `out[i]` becomes the dot product of `query` and row `i` of `rows`, bit for bit what
    /// [`Kernels::dot`] gives. `rows` is row-major, `out.len() * query.len()` long.
    ///
    /// # Panics
    /// If the shapes do not fit.
    pub fn dot_rows(&self, query: &[f32], rows: &[f32], out: &mut [f32]) {
        assert_shape(query, rows, out);
        // SAFETY: a table is handed out only by `detect` (or is scalar), so the CPU has the ISA.
        unsafe { (self.dot_rows)(query, rows, out) }
    }

    /// `out[i]` becomes the squared Euclidean distance of `query` and row `i` of `rows`, bit for
    /// bit what [`Kernels::l2_squared`] gives. Shapes as for [`Kernels::dot_rows`].
    ///
    /// # Panics
    /// If the shapes do not fit.
    pub fn l2_squared_rows(&self, query: &[f32], rows: &[f32], out: &mut [f32]) {
        assert_shape(query, rows, out);
        // SAFETY: a table is handed out only by `detect` (or is scalar), so the CPU has the ISA.
        unsafe { (self.l2_squared_rows)(query, rows, out) }
    }

    /// `sum(values[i])`: the least work that reads every byte, so the speed of memory that a scan
    /// is measured against.
    pub fn sum(&self, values: &[f32]) -> f32 {
        // SAFETY: a table is handed out only by `detect` (or is scalar), so the CPU has the ISA.
        unsafe { (self.sum)(values) }
    }
}

impl Kernels {
    /// `sum(codes[i] * query[i])`, exact.
    ///
    /// # Panics
    /// If the lengths differ or are above [`CODES_MAX`].
    #[inline]
    pub fn dot_bytes(&self, codes: &[u8], query: &[i8]) -> i32 {
        assert!(codes.len() == query.len() && codes.len() <= CODES_MAX, "codes and their query");
        // SAFETY: a table is handed out only by `detect` (or is scalar), so the CPU has the ISA.
        unsafe { (self.codes.bytes)(codes, query) }
    }

    /// [`Kernels::dot_bytes`] of four rows, which costs less than four times one.
    ///
    /// # Panics
    /// If the lengths differ or are above [`CODES_MAX`].
    #[inline]
    pub fn dot_bytes_of_four(&self, codes: [&[u8]; 4], query: &[i8]) -> [i32; 4] {
        let fit = codes.iter().all(|codes| codes.len() == query.len());
        assert!(fit && query.len() <= CODES_MAX, "codes and their query");
        // SAFETY: a table is handed out only by `detect` (or is scalar), so the CPU has the ISA.
        unsafe { (self.codes.four_bytes)(codes, query) }
    }

    /// `sum(low[i] * query[i] + high[i] * query[n + i])`, exact, where `low` and `high` are the
    /// halves of the `n` bytes `codes`.
    ///
    /// # Panics
    /// If the query is not `2 * n` long or `n` is above [`CODES_MAX`].
    #[inline]
    pub fn dot_nibbles(&self, codes: &[u8], query: &[i8]) -> i32 {
        assert!(2 * codes.len() == query.len() && codes.len() <= CODES_MAX, "halves and a query");
        // SAFETY: a table is handed out only by `detect` (or is scalar), so the CPU has the ISA.
        unsafe { (self.codes.nibbles)(codes, query) }
    }

    /// The sum of the products of `4 * n` numbers of 0 to 3 with a query, exact: number `g * n + i`
    /// is the `g`-th lowest pair of bits of byte `i` of the `n` bytes `codes`.
    ///
    /// # Panics
    /// If the query is not `4 * n` long or `n` is above [`CODES_MAX`].
    #[inline]
    pub fn dot_quarters(&self, codes: &[u8], query: &[i8]) -> i32 {
        assert!(4 * codes.len() == query.len() && codes.len() <= CODES_MAX, "quarters and a query");
        // SAFETY: a table is handed out only by `detect` (or is scalar), so the CPU has the ISA.
        unsafe { (self.planes.quarters)(codes, query) }
    }

    /// As [`Self::dot_quarters`], of `8 * n` numbers of 0 and 1.
    ///
    /// # Panics
    /// If the query is not `8 * n` long or `n` is above [`CODES_MAX`].
    #[inline]
    pub fn dot_eighths(&self, codes: &[u8], query: &[i8]) -> i32 {
        assert!(8 * codes.len() == query.len() && codes.len() <= CODES_MAX, "eighths and a query");
        // SAFETY: a table is handed out only by `detect` (or is scalar), so the CPU has the ISA.
        unsafe { (self.planes.eighths)(codes, query) }
    }

    /// The sum of those `query[8 * i + j]` for which bit `j` of `codes[i]` is set, exact.
    ///
    /// # Panics
    /// If the query is not eight times as long or longer than [`CODES_MAX`].
    #[inline]
    pub fn dot_bits(&self, codes: &[u8], query: &[i8]) -> i32 {
        assert!(8 * codes.len() == query.len() && query.len() <= CODES_MAX, "bits and a query");
        // SAFETY: a table is handed out only by `detect` (or is scalar), so the CPU has the ISA.
        unsafe { (self.codes.bits)(codes, query) }
    }

    /// `sum((a[i] - 128) * (b[i] - 128))`, exact.
    ///
    /// # Panics
    /// If the lengths differ or are above [`CODES_MAX`].
    #[inline]
    pub fn dot_codes(&self, a: &[u8], b: &[u8]) -> i32 {
        assert!(a.len() == b.len() && a.len() <= CODES_MAX, "codes of two rows");
        // SAFETY: a table is handed out only by `detect` (or is scalar), so the CPU has the ISA.
        unsafe { (self.codes.pair)(a, b) }
    }

    /// The Walsh-Hadamard transform of `values`, in place: `sum((-1)^popcount(i & j) values[j])`.
    /// Not scaled. O(n log n).
    ///
    /// # Panics
    /// If the length is not a power of two, or `room` has another.
    pub fn hadamard(&self, values: &mut [f32], room: &mut [f32]) {
        assert!(values.len().is_power_of_two() && room.len() == values.len(), "a power of two");
        // SAFETY: a table is handed out only by `detect` (or is scalar), so the CPU has the ISA.
        unsafe { (self.spread.hadamard)(values, room) }
    }

    /// `out[i]` becomes `values[i] * inverse` rounded to the nearest whole number, ties to even,
    /// at most 127 and at least -128; NaN becomes 0.
    ///
    /// # Panics
    /// If the lengths differ.
    pub fn quantize(&self, values: &[f32], inverse: f32, out: &mut [i8]) {
        assert_eq!(values.len(), out.len(), "a code for each number");
        // SAFETY: a table is handed out only by `detect` (or is scalar), so the CPU has the ISA.
        unsafe { (self.spread.quantize)(values, inverse, out) }
    }

    /// The largest of `|values[i]|`; 0 for none. NaN is larger than all.
    pub fn largest(&self, values: &[f32]) -> f32 {
        // SAFETY: a table is handed out only by `detect` (or is scalar), so the CPU has the ISA.
        unsafe { (self.spread.largest)(values) }
    }
}

/// Codes of one row at most: no sum of so many products leaves 32 bits.
pub const CODES_MAX: usize = 1 << 16;
const _: () = assert!(CODES_MAX as u64 * 255 * 128 < i32::MAX as u64 + 1);

impl fmt::Debug for Kernels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kernels").field("name", &self.name).finish_non_exhaustive()
    }
}

fn assert_shape(query: &[f32], rows: &[f32], out: &[f32]) {
    let floats = query.len().checked_mul(out.len());
    assert_eq!(Some(rows.len()), floats, "rows are row-major, one query length for each output");
}

/// What a term of the sum is. A type and not a value, so that each loop is compiled once for each.
trait Term {
    /// `(a - b)^2` where true, `a * b` where false.
    const SQUARED_DIFFERENCE: bool;
}

/// `a * b`.
struct Product;

impl Term for Product {
    const SQUARED_DIFFERENCE: bool = false;
}

/// `(a - b)^2`.
struct SquaredDifference;

impl Term for SquaredDifference {
    const SQUARED_DIFFERENCE: bool = true;
}

#[cfg(test)]
mod tests;
