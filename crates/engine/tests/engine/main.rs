//! The engine as its users see it, on a disk in memory that fails as told.

mod crash;
mod faults;
mod subject;
mod writes;
