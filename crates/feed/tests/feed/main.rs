//! The change feed on the real engine with its files.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod following;
mod histories;
mod support;
