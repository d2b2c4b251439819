//! The body of a request: read as documents, or refused as what its client did wrong.
#![no_main]

use std::sync::LazyLock;

use arrwdb_server::config::{Config, RequestLimits, Sources};
use arrwdb_server::document_problems;
use libfuzzer_sys::fuzz_target;

static LIMITS: LazyLock<RequestLimits> =
    LazyLock::new(|| Config::load(&Sources::default()).expect("the defaults").limits);

fuzz_target!(|body: &[u8]| {
    for problem in document_problems(body, &LIMITS) {
        assert!((400..500).contains(&problem.kind().status), "{problem:?}");
        assert!(!problem.detail().is_empty(), "{problem:?}");
    }
});
