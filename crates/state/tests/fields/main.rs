//! What is asked of the fields of a library's documents, over random histories.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod facets;
mod history;
mod ordering;
