//! Numbers that look random and are the same for a seed on every machine.

/// The finalizer of `SplitMix64` (Steele, Lea and Flood, "Fast splittable pseudorandom number
/// generators", 2014): every bit of `value` decides every bit of the answer.
pub(crate) fn mix(value: u64) -> u64 {
    let value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

/// Independent numbers for a seed and a counter.
pub(crate) fn hash(seed: u64, counter: u64) -> u64 {
    mix(mix(seed) ^ counter)
}
