//! A hint that memory is about to be read.

/// Bytes in a cache line on every CPU this runs fast on, in f32.
#[cfg(target_arch = "x86_64")]
const LINE: usize = 16;
/// Lines asked for at most: the rest of a longer row is a stream the CPU follows by itself.
#[cfg(target_arch = "x86_64")]
const LINES_MAX: usize = 8;

/// Asks the CPU to bring the start of `values` (up to 512 bytes) into its caches. Changes nothing
/// that can be observed but time; does nothing where the CPU has no such instruction.
#[inline]
pub fn prefetch(values: &[f32]) {
    #[cfg(target_arch = "x86_64")]
    for line in values.chunks(LINE).take(LINES_MAX) {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a prefetch reads nothing and cannot fault; the pointer is inside the slice.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(line.as_ptr().cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = values;
}
