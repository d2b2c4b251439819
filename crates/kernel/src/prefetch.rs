//! A hint that memory is about to be read.

/// Bytes in a cache line on every CPU this runs fast on.
#[cfg(target_arch = "x86_64")]
const LINE_BYTES: usize = 64;
/// Lines asked for at most, 1.5 KiB and the one that it may begin in: the rest of a longer row is a stream the CPU follows by itself.
#[cfg(target_arch = "x86_64")]
const LINES_MAX: usize = 25;

/// Asks the CPU to bring the start of `values` (about 1.5 KiB at most) into its caches. Changes nothing
/// that can be observed but time; does nothing where the CPU has no such instruction.
#[inline]
pub fn prefetch<T>(values: &[T]) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        let start = values.as_ptr().cast::<i8>();
        // From the start of its first line, which may be before it.
        let before = start.addr() % LINE_BYTES;
        let lines = (before + size_of_val(values)).div_ceil(LINE_BYTES).min(LINES_MAX);
        for line in 0..lines {
            let place = start.wrapping_sub(before).wrapping_add(line * LINE_BYTES);
            // SAFETY: a prefetch reads nothing and cannot fault, whatever the address.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(place) };
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = values;
}

/// Asks for the line of `bytes` that begins `offset` bytes from its start, if it has one there.
#[cfg(target_arch = "x86_64")]
#[inline]
pub(crate) fn prefetch_line(bytes: &[u8], offset: usize) {
    use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
    let start = bytes.as_ptr().cast::<i8>();
    // SAFETY: a prefetch reads nothing and cannot fault, whatever the address.
    unsafe { _mm_prefetch::<_MM_HINT_T0>(start.wrapping_add(offset.min(bytes.len()))) };
}
