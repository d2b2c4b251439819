//! An entry of the catalog: what decodes is written back as it was.
#![no_main]

use arrwdb_state::{Catalog, CatalogEntry, Seq};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(entry) = CatalogEntry::decode(bytes) {
        assert_eq!(entry.encode(), bytes);
        drop(Catalog::default().apply(Seq::new(1), &entry));
    }
});
