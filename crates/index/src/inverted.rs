//! An inverted index: of each term the rows that have it, each with a number, and the best rows by
//! sums over a query's terms.
//!
//! What terms are, what the numbers say and how they become scores is for who builds on it:
//! [`crate::keyword`] and [`crate::sparse`].
//!
//! - `list`: the rows of a term, and how they are laid out
//! - `dictionary`: the terms in order
//! - `build`: how lists grow, row by row
//! - `layout`: all of it as bytes, which are read in place
//! - `search`: the best rows

mod build;
mod dictionary;
mod layout;
mod list;
mod search;

pub(crate) use build::{Growing, Lists};
pub(crate) use dictionary::{Dictionary, DictionaryWriter};
pub(crate) use layout::{Head, Layout, Listed, within};
pub(crate) use list::{BLOCK, Bounds, Bytes, Cursor, short, varint};
pub use list::{List, OwnedList};
pub use search::Visited;
pub(crate) use search::{Ranking, Walk, search};
