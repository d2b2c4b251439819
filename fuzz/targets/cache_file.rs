//! A file of the embedding cache.
#![no_main]

use arrwdb_embed::check_cache_file;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    for bytes in [bytes.to_vec(), [b"ARRWEMB1", bytes].concat()] {
        let found = check_cache_file(&mut bytes.as_slice()).expect("memory can be read");
        assert!(found.damaged_at.is_none_or(|at| at <= bytes.len() as u64));
    }
});
