//! Products of a query with rows of one or two bits for each number: exact, so the same on every
//! machine.
//!
//! A byte holds one bit pair (or bit) of each of four (or eight) planes: the numbers of a row are
//! cut into as many equal parts, and part `g` is what the bytes' `g`-th lowest bits hold.

#[cfg(target_arch = "x86_64")]
pub(crate) mod avx512;

/// Products of one instruction set.
pub(crate) struct PlaneTable {
    /// `n` bytes of four numbers each and a query of `4 * n`.
    pub(crate) quarters: Product,
    /// `n` bytes of eight numbers each and a query of `8 * n`.
    pub(crate) eighths: Product,
}

/// Codes and a query to the sum of their products.
///
/// # Safety
/// The CPU has the instruction set of the table that holds the function.
type Product = unsafe fn(&[u8], &[i8]) -> i32;

macro_rules! table {
    ($module:ident, $features:literal, $arch:literal) => {
        #[cfg(target_arch = $arch)]
        pub(crate) mod $module {
            use super::PlaneTable;

            pub(crate) static TABLE: PlaneTable = PlaneTable { quarters, eighths };

            #[target_feature(enable = $features)]
            fn quarters(codes: &[u8], query: &[i8]) -> i32 {
                super::product::<2>(codes, query)
            }

            #[target_feature(enable = $features)]
            fn eighths(codes: &[u8], query: &[i8]) -> i32 {
                super::product::<1>(codes, query)
            }
        }
    };
}

table!(avx2, "avx2", "x86_64");
table!(neon, "neon", "aarch64");

pub(crate) static SCALAR: PlaneTable =
    PlaneTable { quarters: |a, b| product::<2>(a, b), eighths: |a, b| product::<1>(a, b) };

/// Plane by plane, in plain loops that are compiled for each instruction set.
#[inline(always)]
#[expect(clippy::inline_always, reason = "compiled anew inside each instruction set's function")]
fn product<const BITS: usize>(codes: &[u8], query: &[i8]) -> i32 {
    let planes = query.chunks_exact(codes.len().max(1)).zip((0..8).step_by(BITS));
    let products = planes.map(|(query, shift)| -> i32 {
        let product = |(code, query): (&u8, &i8)| {
            let code = code >> shift & (u8::MAX >> (8 - BITS));
            i32::from(i16::from(code) * i16::from(*query))
        };
        codes.iter().zip(query).map(product).sum()
    });
    products.sum()
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use crate::Kernels;

    /// The sum in 64 bits, straight from the definition.
    fn product(bits: usize, codes: &[u8], query: &[i8]) -> i64 {
        let number = |at: usize| {
            let (plane, byte) = (at / codes.len(), at % codes.len());
            i64::from(codes[byte]) / (1 << (plane * bits)) % (1 << bits)
        };
        (0..query.len()).map(|at| number(at) * i64::from(query[at])).sum()
    }

    fn assert_exact(codes: &[u8], query: &[i8]) {
        let (four, eight) = (&query[..4 * codes.len()], &query[..8 * codes.len()]);
        for table in Kernels::supported() {
            let got = i64::from(table.dot_quarters(codes, four));
            assert_eq!(got, product(2, codes, four), "{}: {} bytes", table.name(), codes.len());
            let got = i64::from(table.dot_eighths(codes, eight));
            assert_eq!(got, product(1, codes, eight), "{}: {} bytes", table.name(), codes.len());
        }
    }

    #[test]
    fn k5_products_of_planes_are_exact_at_every_length_and_at_the_extremes() {
        for length in (0..200).chain([511, 512]) {
            for (code, query) in [(255, 127), (255, -128), (0, 127), (0x1b, -1), (0x81, 5)] {
                assert_exact(&vec![code; length], &vec![query; 8 * length]);
            }
        }
    }

    proptest! {
        #[test]
        fn k5_products_of_planes_are_exact_for_any_codes(
            rows in vec((any::<u8>(), any::<[i8; 8]>()), 0..513),
        ) {
            let codes: Vec<u8> = rows.iter().map(|(code, _)| *code).collect();
            let query: Vec<i8> =
                (0..8).flat_map(|g| rows.iter().map(move |(_, query)| query[g])).collect();
            assert_exact(&codes, &query);
        }
    }
}
