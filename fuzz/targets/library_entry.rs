//! An entry of a library: what decodes is written back as it was, applies, and can be read.
#![no_main]

use arrwdb_state::{LibraryEntry, LibraryOutline, Seq, View};
use bytes::Bytes;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let bytes = Bytes::copy_from_slice(bytes);
    let Ok(entry) = LibraryEntry::decode(&bytes) else { return };
    let Some(dimension) = entry.dimension() else { return };
    if bytes[1] > 1 {
        assert_eq!(entry.encode().concat(), bytes);
    }
    drop(LibraryOutline::read(&[bytes]));
    if let Ok(view) = View::empty(dimension).apply(Seq::new(1), &entry) {
        drop(view.documents_after(None, 100, true));
        drop(view.verify());
    }
});
