//! The engine as its users see it, on a disk in memory that fails as told.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod backup;
mod backup_log;
mod check;
mod closing;
mod costs;
mod crash;
mod directory;
mod faults;
mod fields;
mod flips;
mod generations;
mod grouping;
mod indexes;
mod keywords;
mod merges;
mod paging;
mod past;
mod purge;
mod rescoring;
mod residence;
mod scrub;
mod subject;
mod writes;
