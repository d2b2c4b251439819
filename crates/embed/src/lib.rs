//! Text to vectors: splitter, local model, remote providers, batching, cache and cost.

pub mod http;
