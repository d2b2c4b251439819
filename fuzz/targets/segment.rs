//! A segment file, behind right checksums: everything in it is read.
#![no_main]

use arrwdb_fuzz::{Held, segment};
use arrwdb_state::FileSegment;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    for bytes in [bytes.to_vec(), segment(bytes)] {
        if let Ok(segment) = FileSegment::open(1, Held::new(&bytes)) {
            segment.verify(100);
        }
    }
});
