//! What the benches share: the real binary on a directory of its own, and figures.
//!
//! Benches are binaries, run with `cargo xtask bench NAME -- ARGUMENTS`; what they measured is in
//! `docs/BENCHMARKS.md`.

pub mod exact;
pub mod figures;
pub mod filters;
pub mod npy;
pub mod server;

/// A bench stops at whatever goes wrong.
pub type Outcome<T> = Result<T, Box<dyn std::error::Error>>;
