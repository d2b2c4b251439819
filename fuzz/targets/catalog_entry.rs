//! An entry of the catalog: what decodes is written back as it was.
#![no_main]

use arrwdb_state::{Catalog, CatalogEntry, Seq};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(entry) = CatalogEntry::decode(bytes) {
        // What an earlier version wrote is written back in the newest.
        let written = entry.encode();
        assert_eq!(CatalogEntry::decode(&written), Ok(entry.clone()));
        assert!(written == bytes || bytes[1] < written[1]);
        drop(Catalog::default().apply(Seq::new(1), &entry));
    }
});
