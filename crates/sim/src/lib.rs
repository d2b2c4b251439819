//! Seeded simulation: the real engine on a disk, a clock and randomness that come from one seed.
//!
//! A history is a run of random operations with power failures in between, compared after each
//! restart with a plain map of what was acknowledged. A failure is told by its seed.
//!
//! Operations run one after the other; the log's own thread and the upkeep run as they please, so
//! a seed fixes what is asked and when the power fails between operations, not how threads
//! interleave.

mod history;
mod world;

pub use history::{Failure, Outcome, run};
