//! What this machine has.

use std::fs;

/// What is assumed where the system does not say how much memory there is.
const MEMORY_BYTES_UNKNOWN: u64 = 2 << 30;

/// Bytes of memory that this process may use: the machine's, or its control group's limit (a
/// container's) where that is less.
pub(crate) fn memory_bytes() -> u64 {
    let machine = fs::read_to_string("/proc/meminfo").ok().and_then(|text| mem_total(&text));
    let group = fs::read_to_string("/sys/fs/cgroup/memory.max").ok();
    let group = group.and_then(|text| text.trim().parse::<u64>().ok());
    machine.into_iter().chain(group).min().unwrap_or(MEMORY_BYTES_UNKNOWN)
}

/// `MemTotal` of `/proc/meminfo`, in bytes.
fn mem_total(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_total_is_read_in_kib() {
        let text = "MemTotal:       24655944 kB\nMemFree:         1000 kB\n";
        assert_eq!(mem_total(text), Some(24_655_944 * 1024));
        assert_eq!(mem_total("MemFree: 1000 kB\n"), None);
        assert_eq!(mem_total("MemTotal: much\n"), None);
    }

    #[test]
    fn there_is_some_memory() {
        assert!(memory_bytes() > 1 << 20);
    }
}
