//! The embedder from outside: stand-in servers that speak the providers' real formats, and
//! providers that do what a test tells them.

mod cache;
mod failures;
mod formats;
mod queue;
mod resolve;
mod support;
