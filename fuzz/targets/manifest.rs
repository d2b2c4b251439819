//! A manifest, behind a right checksum: what reads is written back as it means.
#![no_main]

use arrwdb_fuzz::sealed;
use arrwdb_state::Manifest;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|body: &[u8]| {
    if let Ok(manifest) = Manifest::read(&sealed(body)) {
        assert_eq!(Manifest::read(&manifest.write()).as_ref(), Ok(&manifest));
        manifest.contradiction();
    }
});
