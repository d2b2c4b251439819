//! The engine as its users see it, on a disk in memory that fails as told.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod crash;
mod faults;
mod purge;
mod residence;
mod scrub;
mod subject;
mod writes;
