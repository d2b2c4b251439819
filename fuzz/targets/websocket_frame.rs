//! A message of a WebSocket: read as a request, or refused in one frame.
#![no_main]

use std::sync::LazyLock;

use arrwdb_server::config::{Config, RequestLimits, Sources};
use arrwdb_server::message_problem;
use libfuzzer_sys::fuzz_target;

static LIMITS: LazyLock<RequestLimits> =
    LazyLock::new(|| Config::load(&Sources::default()).expect("the defaults").limits);

fuzz_target!(|message: &[u8]| {
    if let Some(frame) = message_problem(message, &LIMITS) {
        assert!(frame.starts_with('{') && frame.contains("\"success\":false"), "{frame}");
    }
});
