//! Sparse vectors: few numbers at some of 2^32 indices, such as learned weights of words (Formal,
//! Piwowarski and Clinchant, "SPLADE: Sparse Lexical and Expansion Model for First Stage Ranking",
//! 2021), and the rows of the greatest products with one.
//!
//! Exact, as [`crate::brute_force`] is (I3). A row's score is the sum of the products of what it and
//! the query have at the same index, in f64, in an order that the query alone gives (its greatest
//! magnitudes first, of equal ones the least index), rounded to f32 once. So it is a function of the
//! query and the row, bit for bit (I6): how rows are divided into segments, and which of them are
//! passed over, changes nothing. A row without a common index has no score and is never a result.
//!
//! It is the inverted index that keywords have, an index for a term and the bits of its value for a
//! number. What bounds a block's rows is its greatest and its least value, in 16 bits, rounded
//! outwards. The order of the sum is also that in which terms are dropped from the walk, the least
//! magnitude first, so that a sum never has to be made anew in another order.
//!
//! - `vector`: sparse vectors, checked, and what a product is
//! - `index`: the structure, how it is made and searched

mod index;
#[cfg(test)]
mod tests;
mod vector;

pub use index::{SparseBuilder, SparseIndex};
pub use vector::{ENTRIES_MAX, SparseError, SparseQuery, SparseVector};

pub use crate::inverted::Visited;
