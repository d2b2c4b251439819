//! The oracle: plain Rust.

use super::CodeTable;

pub(crate) static TABLE: CodeTable = CodeTable { bytes, four_bytes, nibbles, bits, pair };

pub(super) fn bytes(codes: &[u8], query: &[i8]) -> i32 {
    codes.iter().zip(query).map(|(code, query)| i32::from(*code) * i32::from(*query)).sum()
}

fn four_bytes(codes: [&[u8]; 4], query: &[i8]) -> [i32; 4] {
    codes.map(|codes| bytes(codes, query))
}

pub(super) fn nibbles(codes: &[u8], query: &[i8]) -> i32 {
    let (low, high) = query.split_at(codes.len());
    let product = |((code, low), high): ((&u8, &i8), &i8)| {
        i32::from(code & 15) * i32::from(*low) + i32::from(code >> 4) * i32::from(*high)
    };
    codes.iter().zip(low).zip(high).map(product).sum()
}

pub(super) fn bits(codes: &[u8], query: &[i8]) -> i32 {
    let (eights, _) = query.as_chunks::<8>();
    let of_byte = |(code, eight): (&u8, &[i8; 8])| -> i32 {
        let each = (0..8).zip(eight);
        each.map(|(bit, query)| i32::from(code >> bit & 1) * i32::from(*query)).sum()
    };
    codes.iter().zip(eights).map(of_byte).sum()
}

pub(super) fn pair(a: &[u8], b: &[u8]) -> i32 {
    a.iter().zip(b).map(|(a, b)| (i32::from(*a) - 128) * (i32::from(*b) - 128)).sum()
}
