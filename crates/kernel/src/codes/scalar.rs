//! The oracle: plain Rust.

use super::CodeTable;

pub(crate) static TABLE: CodeTable = CodeTable { bytes, nibbles, pair };

pub(super) fn bytes(codes: &[u8], query: &[i8]) -> i32 {
    codes.iter().zip(query).map(|(code, query)| i32::from(*code) * i32::from(*query)).sum()
}

pub(super) fn nibbles(codes: &[u8], query: &[i8]) -> i32 {
    let (low, high) = query.split_at(codes.len());
    let product = |((code, low), high): ((&u8, &i8), &i8)| {
        i32::from(code & 15) * i32::from(*low) + i32::from(code >> 4) * i32::from(*high)
    };
    codes.iter().zip(low).zip(high).map(product).sum()
}

pub(super) fn pair(a: &[u8], b: &[u8]) -> i32 {
    a.iter().zip(b).map(|(a, b)| (i32::from(*a) - 128) * (i32::from(*b) - 128)).sum()
}
