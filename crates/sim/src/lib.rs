//! Seeded simulation: the real engine on a disk, a clock, randomness and an embedder that come from
//! one seed, in a runtime of one thread whose time passes only when told.
//!
//! A history is a run of random operations, restarts, ends of the process and of the power, and
//! disk faults, compared after each start with plain maps of what was acknowledged. A failure is
//! told by its seed and by the shortest history that was found to fail.
//!
//! The log's own thread and the upkeep's file work run as they please. A seed fixes what is asked in
//! which order, which faults strike at which call of a place, and what a power loss keeps; it does
//! not fix how the threads interleave, so a repeat runs the same history several times.
#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "most errors, and most steps, are treated alike"
)]

mod check;
mod doubt;
mod follower;
mod history;
mod model;
mod moments;
mod past;
mod places;
mod rot;
mod run;
mod shrink;
mod world;
mod writes;

pub use check::Failure;
pub use history::{History, Step};
pub use moments::{Moments, every_sync};
pub use places::{Cell, cells, table};
pub use run::{Broken, Outcome, Seen};
pub use shrink::{run_alone, shorten};
