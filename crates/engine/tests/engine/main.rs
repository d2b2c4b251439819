//! The engine as its users see it, on a disk in memory that fails as told.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod backup;
mod crash;
mod faults;
mod subject;
mod writes;
