//! Transforms of one vector on its way to a code: plain loops, compiled for each instruction set.
//!
//! Every operation is a single rounding in a fixed order, so results have the same bits everywhere.

/// The functions of one instruction set.
pub(crate) struct SpreadTable {
    pub(crate) hadamard: Hadamard,
    pub(crate) quantize: Quantize,
    pub(crate) largest: Largest,
}

/// Values to their Walsh-Hadamard transform; the second slice is room for as many.
///
/// # Safety
/// The CPU has the instruction set of the table that holds the function.
type Hadamard = unsafe fn(&mut [f32], &mut [f32]);

/// `out[i]` becomes `values[i] * inverse`, rounded to the nearest whole number, ties to even.
///
/// # Safety
/// As for [`Hadamard`].
type Quantize = unsafe fn(&[f32], f32, &mut [i8]);

/// The largest magnitude.
///
/// # Safety
/// As for [`Hadamard`].
type Largest = unsafe fn(&[f32]) -> f32;

macro_rules! table {
    ($module:ident, $features:literal, $arch:literal) => {
        #[cfg(target_arch = $arch)]
        pub(crate) mod $module {
            use super::SpreadTable;

            pub(crate) static TABLE: SpreadTable = SpreadTable { hadamard, quantize, largest };

            #[target_feature(enable = $features)]
            fn hadamard(values: &mut [f32], room: &mut [f32]) {
                super::hadamard(values, room);
            }

            #[target_feature(enable = $features)]
            fn quantize(values: &[f32], inverse: f32, out: &mut [i8]) {
                super::quantize(values, inverse, out);
            }

            #[target_feature(enable = $features)]
            fn largest(values: &[f32]) -> f32 {
                super::largest(values)
            }
        }
    };
}

table!(avx512, "avx512f,avx512bw,avx512vl,avx512dq", "x86_64");
table!(avx2, "avx2,fma", "x86_64");
table!(neon, "neon", "aarch64");

pub(crate) static SCALAR: SpreadTable = SpreadTable {
    hadamard: |values, room| hadamard(values, room),
    quantize: |values, inverse, out| quantize(values, inverse, out),
    largest: |values| largest(values),
};

/// In the constant-geometry order of Pease ("An adaptation of the fast Fourier transform for
/// parallel processing", 1968): every step reads two runs and writes them interleaved, which suits
/// registers of any width.
#[inline(always)]
#[expect(clippy::inline_always, reason = "compiled anew inside each instruction set's function")]
fn hadamard(values: &mut [f32], room: &mut [f32]) {
    let half = values.len() / 2;
    let (mut from, mut to) = (values, room);
    let mut steps = from.len().trailing_zeros();
    let odd = steps % 2 == 1;
    while steps > 0 {
        let (low, high) = from.split_at(half);
        let (pairs, _) = to.as_chunks_mut::<2>();
        for ((pair, low), high) in pairs.iter_mut().zip(low).zip(high) {
            *pair = [low + high, low - high];
        }
        (from, to) = (to, from);
        steps -= 1;
    }
    if odd {
        to.copy_from_slice(from);
    }
}

#[inline(always)]
#[expect(clippy::inline_always, reason = "compiled anew inside each instruction set's function")]
#[expect(clippy::cast_possible_truncation, reason = "what is outside the range of i8 saturates")]
fn quantize(values: &[f32], inverse: f32, out: &mut [i8]) {
    for (out, value) in out.iter_mut().zip(values) {
        *out = (value * inverse).round_ties_even() as i8;
    }
}

/// Magnitudes order as the bits of their numbers do.
#[inline(always)]
#[expect(clippy::inline_always, reason = "compiled anew inside each instruction set's function")]
fn largest(values: &[f32]) -> f32 {
    let magnitude = |value: &f32| value.to_bits() & (u32::MAX >> 1);
    f32::from_bits(values.iter().map(magnitude).max().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use crate::Kernels;

    proptest! {
        #[test]
        fn k5_every_table_has_the_bits_of_the_oracle(
            values in vec(-100.0_f32..100.0, 1..1100),
            inverse in 0.01_f32..3.0,
        ) {
            let power = 1 << values.len().ilog2();
            for table in Kernels::supported() {
                let mut transformed = [values[..power].to_vec(), values[..power].to_vec()];
                let mut room = vec![0.0; power];
                table.hadamard(&mut transformed[0], &mut room);
                Kernels::scalar().hadamard(&mut transformed[1], &mut room);
                let bits = |values: &[f32]| values.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
                prop_assert_eq!(bits(&transformed[0]), bits(&transformed[1]));
                let mut codes = [vec![0; values.len()], vec![0; values.len()]];
                table.quantize(&values, inverse, &mut codes[0]);
                Kernels::scalar().quantize(&values, inverse, &mut codes[1]);
                prop_assert_eq!(&codes[0], &codes[1]);
                let largest = values.iter().fold(0.0_f32, |most, value| most.max(value.abs()));
                prop_assert_eq!(table.largest(&values).to_bits(), largest.to_bits());
            }
        }
    }

    #[test]
    fn the_transform_is_its_matrix() {
        for power in 0..8 {
            let count = 1_usize << power;
            let values: Vec<f32> = (0..count).map(|i| (i % 5) as f32 - 1.0).collect();
            let mut transformed = values.clone();
            Kernels::scalar().hadamard(&mut transformed, &mut vec![0.0; count]);
            for (row, got) in transformed.iter().enumerate() {
                let sign = |column: usize| {
                    if (row & column).count_ones().is_multiple_of(2) { 1.0 } else { -1.0 }
                };
                let expect: f32 = values.iter().enumerate().map(|(i, x)| sign(i) * x).sum();
                assert_eq!(got.to_bits(), (expect + 0.0).to_bits(), "{count}: {row}");
            }
        }
    }
}
