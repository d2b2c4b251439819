//! A snapshot of the catalog, behind a right checksum.
#![no_main]

use arrwdb_fuzz::sealed;
use arrwdb_state::Catalog;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|body: &[u8]| {
    if let Ok((catalog, checkpointed)) = Catalog::read(&sealed(body)) {
        let again = catalog.write(|id| checkpointed[&id]);
        assert_eq!(Catalog::read(&again), Ok((catalog, checkpointed)));
    }
});
