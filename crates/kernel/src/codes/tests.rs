use proptest::collection::vec;
use proptest::prelude::*;

use crate::Kernels;

/// The sums in 64 bits, straight from the definitions.
fn bytes(codes: &[u8], query: &[i8]) -> i64 {
    codes.iter().zip(query).map(|(code, query)| i64::from(*code) * i64::from(*query)).sum()
}

fn nibbles(codes: &[u8], query: &[i8]) -> i64 {
    let unpacked: Vec<u8> =
        codes.iter().map(|code| code % 16).chain(codes.iter().map(|code| code / 16)).collect();
    bytes(&unpacked, query)
}

fn bits(codes: &[u8], query: &[i8]) -> i64 {
    let is_set = |place: usize| codes[place / 8] >> (place % 8) & 1 == 1;
    let set = query.iter().enumerate().filter(|(place, _)| is_set(*place));
    set.map(|(_, query)| i64::from(*query)).sum()
}

fn assert_exact(codes: &[u8], query: &[i8]) {
    for table in Kernels::supported() {
        let got = i64::from(table.dot_bytes(codes, &query[..codes.len()]));
        assert_eq!(got, bytes(codes, query), "{} of {} bytes", table.name(), codes.len());
        let quarter = codes.len() / 4;
        let four = [0, 1, 2, 3].map(|part| &codes[part * quarter..][..quarter]);
        let got = table.dot_bytes_of_four(four, &query[..quarter]).map(i64::from);
        let expect = four.map(|codes| bytes(codes, query));
        assert_eq!(got, expect, "{} of four times {quarter} bytes", table.name());
        let other: Vec<u8> = query[..codes.len()].iter().map(|code| code.cast_unsigned()).collect();
        let expect: i64 = codes
            .iter()
            .zip(&other)
            .map(|(a, b)| (i64::from(*a) - 128) * (i64::from(*b) - 128))
            .sum();
        let got = i64::from(table.dot_codes(codes, &other));
        assert_eq!(got, expect, "{} of two rows of {}", table.name(), codes.len());
        let eighth = codes.len() / 8;
        let (set, chosen) = (&codes[..eighth], &query[..8 * eighth]);
        let got = i64::from(table.dot_bits(set, chosen));
        assert_eq!(got, bits(set, chosen), "{} of {eighth} bytes of bits", table.name());
        let got = i64::from(table.dot_nibbles(codes, query));
        assert_eq!(got, nibbles(codes, query), "{} of {} halves", table.name(), query.len());
    }
}

#[test]
fn k5_products_of_codes_are_exact_at_every_length_and_at_the_extremes() {
    for length in (0..300).chain([384, 768, 1023, 4095, 4096]) {
        for (code, query) in [(255, 127), (255, -128), (0, 127), (1, -1), (0x1f, 5), (0xaa, -128)] {
            assert_exact(&vec![code; length], &vec![query; 2 * length]);
        }
    }
}

proptest! {
    #[test]
    fn k5_products_of_codes_are_exact_for_any_codes(
        pairs in vec((any::<u8>(), any::<i8>(), any::<i8>()), 0..4097),
        offset in 0_usize..64,
    ) {
        let offset = offset.min(pairs.len());
        let codes: Vec<u8> = pairs.iter().map(|(code, _, _)| *code).collect();
        let low = pairs[offset..].iter().map(|(_, low, _)| *low);
        let high = pairs[offset..].iter().map(|(_, _, high)| *high);
        assert_exact(&codes[offset..], &low.chain(high).collect::<Vec<i8>>());
    }
}
