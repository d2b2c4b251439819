//! The embedder from outside: stand-in servers that speak the providers' real formats, and
//! providers that do what a test tells them.

#![expect(clippy::expect_used, reason = "a test ends where its stage cannot be set")]

mod cache;
mod failures;
mod formats;
mod meter;
mod pictures;
mod queue;
mod rerank;
mod resolve;
mod support;
