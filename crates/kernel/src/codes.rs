//! Integer products of a query with compressed rows: exact, so the same on every machine.

#[cfg(target_arch = "x86_64")]
pub(crate) mod avx2;
#[cfg(target_arch = "x86_64")]
pub(crate) mod avx512;
#[cfg(target_arch = "aarch64")]
pub(crate) mod neon;
pub(crate) mod scalar;

/// Products of one instruction set.
pub(crate) struct CodeTable {
    /// Codes of a byte and a query of one length to `sum(codes[i] * query[i])`.
    pub(crate) bytes: Product,
    /// The same of four rows of codes, which costs less than four times one.
    pub(crate) four_bytes: FourProducts,
    /// `n` codes of half a byte each, two in a byte, and a query of `2 * n` numbers.
    pub(crate) nibbles: Product,
    /// `n` bytes of bits, the lowest of each first, and a query of `8 * n` numbers to the sum of
    /// those whose bit is set.
    pub(crate) bits: Product,
    /// Two rows of codes of a byte, of one length, to `sum((a[i] - 128) * (b[i] - 128))`.
    pub(crate) pair: Pair,
}

/// Two rows of codes to the sum of their products.
///
/// # Safety
/// The CPU has the instruction set of the table that holds the function.
pub(crate) type Pair = unsafe fn(&[u8], &[u8]) -> i32;

/// Codes and a query to the sum of their products.
///
/// # Safety
/// The CPU has the instruction set of the table that holds the function.
pub(crate) type Product = unsafe fn(&[u8], &[i8]) -> i32;

/// Four rows of codes, of one length, and a query to the sums of their products.
///
/// # Safety
/// The CPU has the instruction set of the table that holds the function.
pub(crate) type FourProducts = unsafe fn([&[u8]; 4], &[i8]) -> [i32; 4];

#[cfg(test)]
mod tests;
