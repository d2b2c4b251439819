//! A file of settings: read, or refused with its place.
#![no_main]

use arrwdb_server::config::{Config, Sources};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("arrwdb.toml");
    std::fs::write(&path, text).expect("written");
    let sources = Sources { toml: Some(path), ..Sources::default() };
    if let Err(errors) = Config::load(&sources) {
        assert!(!errors.to_string().is_empty());
    }
});
