use std::ops::Range;

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

/// Lengths around every boundary of a loop, and those that have loops of their own.
const LENGTHS: Range<usize> = 0..301;
const LENGTHS_SPECIAL: [usize; 8] = [384, 512, 768, 1024, 1536, 3072, 4095, 4096];
const OFFSETS: Range<usize> = 0..16;

type PairOf = fn(&Kernels, &[f32], &[f32]) -> f32;
type RowsOf = fn(&Kernels, &[f32], &[f32], &mut [f32]);
const METRICS: [(PairOf, RowsOf); 2] =
    [(Kernels::dot, Kernels::dot_rows), (Kernels::l2_squared, Kernels::l2_squared_rows)];

/// Numbers in `-1..1`, the same for a seed.
fn numbers(seed: u64, count: usize) -> Vec<f32> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963);
        (state >> 40) as f32 / (1_u64 << 23) as f32 - 1.0
    };
    (0..count).map(|_| next()).collect()
}

/// How far a table may be from the oracle: K1.
fn tolerances(a: &[f32], b: &[f32]) -> [f64; 2] {
    let pairs = || a.iter().zip(b).map(|(a, b)| (f64::from(*a), f64::from(*b)));
    let epsilon = (a.len() + 1) as f64 * f64::from(f32::EPSILON);
    // Terms below the smallest normal number lose digits that the sum of magnitudes has not.
    let denormal = a.len() as f64 * f64::from(f32::MIN_POSITIVE);
    let dot: f64 = pairs().map(|(a, b)| (a * b).abs()).sum();
    let l2: f64 = pairs().map(|(a, b)| (a - b) * (a - b)).sum();
    [dot * epsilon + denormal, l2 * epsilon + denormal]
}

fn assert_near_oracle(a: &[f32], b: &[f32]) {
    for table in Kernels::supported() {
        for ((pair, _), tolerance) in METRICS.iter().zip(tolerances(a, b)) {
            let (fast, oracle) = (pair(table, a, b), pair(Kernels::scalar(), a, b));
            let error = (f64::from(fast) - f64::from(oracle)).abs();
            let length = a.len();
            assert!(error <= tolerance, "{} of {length}: {fast}, not {oracle}", table.name());
        }
    }
}

#[test]
fn k1_fast_is_scalar_for_every_length_and_offset() {
    let (a, b) = (numbers(1, 5000), numbers(2, 5000));
    for length in LENGTHS.chain(LENGTHS_SPECIAL) {
        for offset in OFFSETS {
            let other = (offset * 7 + 3) % 16;
            assert_near_oracle(&a[offset..offset + length], &b[other..other + length]);
        }
    }
}

#[test]
fn k1_the_oracle_is_right() {
    let scalar = Kernels::scalar();
    let (a, b) = ([1.0, 2.0, 3.0], [4.0, -5.0, 6.0]);
    assert_eq!(scalar.dot(&a, &b).to_bits(), 12.0_f32.to_bits());
    assert_eq!(scalar.l2_squared(&a, &b).to_bits(), 67.0_f32.to_bits());
    assert_eq!(scalar.sum(&a).to_bits(), 6.0_f32.to_bits());
    for length in LENGTHS.chain(LENGTHS_SPECIAL) {
        // Small whole numbers: every order of summation is exact, in f32 as well.
        let a: Vec<f32> = (0..length).map(|i| (i % 7) as f32).collect();
        let b: Vec<f32> = (0..length).map(|i| (i % 5) as f32 - 2.0).collect();
        let dot: f32 = a.iter().zip(&b).map(|(a, b)| a * b).sum();
        let l2: f32 = a.iter().zip(&b).map(|(a, b)| (a - b) * (a - b)).sum();
        for table in Kernels::supported() {
            assert_eq!(table.dot(&a, &b).to_bits(), (dot + 0.0).to_bits());
            assert_eq!(table.l2_squared(&a, &b).to_bits(), (l2 + 0.0).to_bits());
            assert_eq!(table.sum(&a).to_bits(), (a.iter().sum::<f32>() + 0.0).to_bits());
        }
    }
}

/// Of any sign and of magnitudes that cover most of the range whose squares are finite.
fn number() -> impl Strategy<Value = f32> {
    (any::<i16>(), -60_i16..40)
        .prop_map(|(digits, scale)| f32::from(digits) * f32::from(scale).exp2())
}

proptest! {
    #[test]
    fn k1_fast_is_scalar_for_any_numbers(
        pairs in vec((number(), number()), 0..4100),
    ) {
        let (a, b): (Vec<f32>, Vec<f32>) = pairs.into_iter().unzip();
        assert_near_oracle(&a, &b);
    }

    #[test]
    fn k4_rows_give_the_bits_of_single_rows_in_any_grouping(
        dims in prop_oneof![Just(128), Just(256), Just(384), 1_usize..420, 1_usize..4097],
        count in 0_usize..12,
        offset in OFFSETS,
        cut in 0_usize..12,
        seed in any::<u64>(),
    ) {
        let buffer = numbers(seed, offset + dims * (count + 1));
        let (query, rows) = buffer[offset..].split_at(dims);
        for table in Kernels::supported() {
            for (pair, many) in METRICS {
                let single: Vec<u32> =
                    rows.chunks_exact(dims).map(|row| pair(table, query, row).to_bits()).collect();
                let mut whole = vec![f32::NAN; count];
                many(table, query, rows, &mut whole);
                prop_assert_eq!(&bits(&whole), &single);
                let mut parts = vec![f32::NAN; count];
                let cut = cut.min(count);
                let (out_low, out_high) = parts.split_at_mut(cut);
                many(table, query, &rows[..cut * dims], out_low);
                many(table, query, &rows[cut * dims..], out_high);
                prop_assert_eq!(&bits(&parts), &single);
            }
        }
    }
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

#[test]
fn k4_a_row_gives_the_same_bits_wherever_it_lies() {
    for length in LENGTHS.chain(LENGTHS_SPECIAL) {
        let (a, b) = (numbers(3, length), numbers(4, length));
        for table in Kernels::supported() {
            for (pair, _) in METRICS {
                let expect = pair(table, &a, &b).to_bits();
                for offset in OFFSETS {
                    let mut moved = vec![0.0; offset];
                    moved.extend_from_slice(&b);
                    assert_eq!(pair(table, &a, &moved[offset..]).to_bits(), expect);
                }
            }
        }
    }
}

/// What lies around the slices is NaN, so that any use of it would show; and the slices end where
/// their allocations end, so that a sanitizer sees any read past them.
#[test]
fn k2_nothing_outside_the_slices_is_used() {
    for length in LENGTHS.chain(LENGTHS_SPECIAL) {
        for offset in OFFSETS {
            let fenced = |fence: usize| {
                let mut fenced = vec![f32::NAN; offset];
                fenced.resize(offset + length, 1.0);
                fenced.resize(offset + length + fence, f32::NAN);
                fenced.into_boxed_slice()
            };
            for (a, b) in [(fenced(17), fenced(17)), (fenced(0), fenced(0))] {
                let (a, b) = (&a[offset..offset + length], &b[offset..offset + length]);
                for table in Kernels::supported() {
                    let count = length as f32;
                    assert_eq!(table.dot(a, b).to_bits(), count.to_bits());
                    assert_eq!(table.l2_squared(a, b).to_bits(), 0.0_f32.to_bits());
                    assert_eq!(table.sum(a).to_bits(), count.to_bits());
                    let mut out = [f32::NAN; 1];
                    table.dot_rows(a, b, &mut out);
                    assert_eq!(out[0].to_bits(), count.to_bits());
                }
            }
        }
    }
}

#[test]
fn k3_the_first_supported_table_is_chosen_and_stays() {
    let names: Vec<&str> = Kernels::supported().iter().map(|table| table.name()).collect();
    assert_eq!(names.first(), Some(&kernels().name()));
    assert_eq!(names.last(), Some(&"scalar"));
    assert!(std::ptr::eq(kernels(), kernels()));
}

#[test]
fn a_nan_anywhere_gives_nan_and_infinities_follow_ieee_754() {
    for length in 1..200 {
        for place in 0..length {
            for table in Kernels::supported() {
                let ones = vec![1.0; length];
                let mut odd = vec![1.0; length];
                odd[place] = f32::NAN;
                assert!(table.dot(&odd, &ones).is_nan() && table.dot(&ones, &odd).is_nan());
                assert!(table.l2_squared(&odd, &ones).is_nan() && table.sum(&odd).is_nan());
                odd[place] = f32::NEG_INFINITY;
                assert_eq!(table.dot(&odd, &ones).to_bits(), f32::NEG_INFINITY.to_bits());
                assert_eq!(table.l2_squared(&odd, &ones).to_bits(), f32::INFINITY.to_bits());
                assert!(table.l2_squared(&odd, &odd).is_nan(), "the difference of infinities");
                assert!(table.dot(&odd, &vec![0.0; length]).is_nan(), "zero times infinity");
            }
        }
    }
}

#[test]
fn empty_queries_have_empty_rows() {
    for table in Kernels::supported() {
        for (_, many) in METRICS {
            let mut out = [f32::NAN; 3];
            many(table, &[], &[], &mut out);
            assert_eq!(bits(&out), bits(&[0.0; 3]));
            many(table, &[1.0], &[], &mut []);
        }
    }
}

#[test]
#[should_panic(expected = "one length")]
fn slices_of_two_lengths_are_refused() {
    kernels().dot(&[1.0], &[1.0, 2.0]);
}

#[test]
#[should_panic(expected = "row-major")]
fn rows_that_do_not_fit_are_refused() {
    kernels().dot_rows(&[1.0, 2.0], &[1.0, 2.0, 3.0], &mut [0.0]);
}

#[test]
fn a_prefetch_takes_any_slice() {
    for length in [0, 1, 15, 16, 17, 128, 1000] {
        prefetch(&vec![0.0; length]);
    }
}
