//! A snapshot of the catalog, behind a right checksum.
#![no_main]

use arrwdb_fuzz::sealed;
use arrwdb_state::Snapshot;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|body: &[u8]| {
    if let Ok(snapshot) = Snapshot::read(&sealed(body)) {
        let again = snapshot.catalog.write(&snapshot.work, |id| snapshot.checkpointed[&id]);
        assert_eq!(Snapshot::read(&again), Ok(snapshot));
    }
});
