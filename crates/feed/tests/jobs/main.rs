//! Jobs and schedules on the real engine, on a disk in memory that loses its power: every job that was
//! acknowledged ends, and what its units do is done once.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod running;
mod schedules;
mod support;
