//! An entry of the stream of work: whatever decodes is written back as it was, and applies.
#![no_main]

use arrwdb_state::{Seq, Work, WorkEntry};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(entry) = WorkEntry::decode(bytes) {
        assert_eq!(entry.encode(), bytes);
        Work::default().apply(Seq::new(1), &entry);
    }
});
