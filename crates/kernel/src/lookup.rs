//! Sums of table entries: estimates of many distances at a byte a pair of numbers or less.
//!
//! A row is a code of 4 bits for each of its parts, a query a table of 16 bytes for each part, and
//! an estimate the sum of what the row's codes name (Andre, Kermarrec and Le Scouarnec, "Quicker
//! ADC", 2019: the tables stay in registers, where an instruction looks up many codes at once).
//!
//! ```text
//! block of 32 rows: for each part 16 bytes, byte i = code of row i | code of row 16 + i << 4
//! ```
//!
//! A block has a multiple of four parts, the tables of those that pad it being zero, so that
//! registers of 16, 32 and 64 bytes all read it as it lies.

#[cfg(target_arch = "x86_64")]
pub(crate) mod avx2;
#[cfg(target_arch = "x86_64")]
pub(crate) mod avx512;
#[cfg(target_arch = "aarch64")]
pub(crate) mod neon;
pub(crate) mod scalar;
mod tables;

use crate::Kernels;

/// Rows of a block.
pub const BLOCK_ROWS: usize = 32;
/// Bytes of a part in a block, entries of its table.
pub const PART_BYTES: usize = 16;
/// Parts of a block are a multiple of this.
pub const PARTS_MULTIPLE: usize = 4;
/// A sum of table entries is at most this: it is kept in 16 bits.
pub const LOOKUP_SUM_MAX: u16 = u16::MAX;

/// The lookups of one instruction set.
pub(crate) struct LookupTable {
    pub(crate) estimate: Estimate,
    pub(crate) fill: Fill,
    pub(crate) encode: Encode,
}

/// Tables, a block, what is common to it and the estimates: [`Kernels::estimate`].
///
/// # Safety
/// The CPU has the instruction set of the table that holds the function.
type Estimate = unsafe fn(&[TableQuad], CodeBlock<'_>, Line, &mut [f32; BLOCK_ROWS]) -> u32;

/// A query, a book and the tables: [`Kernels::fill_tables`].
///
/// # Safety
/// As for [`Estimate`].
type Fill = unsafe fn(&[f32], &[f32], &mut QueryTables);

/// Numbers, a book, its terms and the codes: [`Kernels::encode_parts`].
///
/// # Safety
/// As for [`Estimate`].
type Encode = unsafe fn(&[f32], &[f32], &[f32], &mut [u8]);

/// The tables of four parts, aligned as registers of 64 bytes are.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
#[repr(align(64))]
pub struct TableQuad(pub [u8; QUAD_BYTES]);

/// Bytes of four parts.
const QUAD_BYTES: usize = PARTS_MULTIPLE * PART_BYTES;

/// The codes of 32 rows and what their estimates are made with.
#[derive(Copy, Clone, Debug)]
pub struct CodeBlock<'a> {
    /// [`PART_BYTES`] for each part.
    pub codes: &'a [u8],
    /// What is added to each row's estimate.
    pub own: &'a [f32; BLOCK_ROWS],
    /// What each row's sum is multiplied with.
    pub factor: &'a [f32; BLOCK_ROWS],
    /// What is to be read next: asked for meanwhile, or there would be a wait at each new list.
    pub next: &'a [u8],
}

/// What the estimates of a block have in common.
#[derive(Copy, Clone, Debug)]
pub struct Line {
    /// What one step of a table is worth.
    pub step: f32,
    /// The sum where all entries are 0.
    pub offset: f32,
    /// What is added to all.
    pub base: f32,
    /// Estimates above this are of no interest.
    pub bound: f32,
}

/// The tables of a query in bytes.
#[derive(Clone, Debug, Default)]
pub struct QueryTables {
    /// [`PART_BYTES`] for each part.
    pub entries: Vec<TableQuad>,
    /// What one step is worth.
    pub step: f32,
    /// The sum where all entries are 0.
    pub offset: f32,
    /// The entries as they were before rounding.
    products: Vec<f32>,
}

impl Kernels {
    /// `out[i]` becomes `(own[i] + base) + factor[i] * (sum * step + offset)`, where `sum` is that
    /// of the table entries which row `i`'s codes name. Bit `i` of the answer is set unless
    /// `out[i] > bound`, so a NaN counts as of interest. The same bits on every CPU.
    ///
    /// Sums above [`LOOKUP_SUM_MAX`] wrap.
    ///
    /// # Panics
    /// If the tables and the codes have other lengths.
    #[inline]
    pub fn estimate(
        &self,
        tables: &[TableQuad],
        block: CodeBlock<'_>,
        line: Line,
        out: &mut [f32; BLOCK_ROWS],
    ) -> u32 {
        assert_eq!(size_of_val(tables), block.codes.len(), "a table for each part");
        // SAFETY: a table is handed out only by `detect` (or is scalar), so the CPU has the ISA.
        unsafe { (self.lookup.estimate)(tables, block, line, out) }
    }

    /// The tables of `query` for `book`: entry `c` of part `p` is near to the product of the part's
    /// numbers and those of code `c`, `sum(query[p * w + i] * book[(p * w + i) * 16 + c])` where
    /// `w` is the width of all parts. The same bits on every CPU if they are finite; no sum of one entry of each part
    /// is above [`LOOKUP_SUM_MAX`].
    ///
    /// # Panics
    /// If the shapes do not fit.
    pub fn fill_tables(&self, query: &[f32], book: &[f32], parts: usize, tables: &mut QueryTables) {
        assert!(query.len().is_multiple_of(parts.max(1)), "parts of one width");
        assert_eq!(Some(book.len()), query.len().checked_mul(PART_BYTES), "a book of that shape");
        assert!(parts <= PARTS_MAX, "so many parts cannot be summed in 16 bits");
        tables.products.clear();
        tables.products.resize(parts * PART_BYTES, 0.0);
        tables.entries.clear();
        tables.entries.resize(parts.div_ceil(PARTS_MULTIPLE), TableQuad([0; QUAD_BYTES]));
        // SAFETY: a table is handed out only by `detect` (or is scalar), so the CPU has the ISA.
        unsafe { (self.lookup.fill)(query, book, tables) }
    }

    /// `out[p]` becomes the code of part `p` of `values`: the first `c` with the largest product
    /// with the part less `terms[p * 16 + c]`, so the nearest if that is half of its square. The
    /// shapes and the products are those of [`Kernels::fill_tables`]. The same on every CPU.
    ///
    /// # Panics
    /// If the shapes do not fit.
    pub fn encode_parts(&self, values: &[f32], book: &[f32], terms: &[f32], out: &mut [u8]) {
        assert!(values.len().is_multiple_of(out.len().max(1)), "parts of one width");
        assert_eq!(Some(book.len()), values.len().checked_mul(PART_BYTES), "a book of that shape");
        assert_eq!(Some(terms.len()), out.len().checked_mul(PART_BYTES), "a term for each code");
        // SAFETY: a table is handed out only by `detect` (or is scalar), so the CPU has the ISA.
        unsafe { (self.lookup.encode)(values, book, terms, out) }
    }
}

/// Parts that tables can have: entries of some more than one bit each remain.
pub const PARTS_MAX: usize = 1 << 14;

#[cfg(test)]
mod tests;
