//! The arrwdb binary: HTTP, configuration, command line, OpenAPI.
//!
//! - **V1** This crate has the only HTTP server and the only parser of requests.
//! - **V2** Every error maps to one kind of problem, exhaustively ([`problem`]).
//! - **V3** The OpenAPI document is a committed golden ([`openapi`]).
//!
//! A request passes [`app`]'s layers to a handler in `routes/<noun>.rs`, which reads it
//! (`extract`, `json`), makes one call of the engine and writes the answer.

mod admission;
pub mod app;
pub mod cli;
pub mod config;
mod connections;
mod embedding;
mod envelope;
mod extract;
mod json;
pub mod logging;
pub mod metrics;
pub mod model;
mod ndjson;
pub mod openapi;
mod principal;
pub mod problem;
mod rate_limit;
mod routes;
pub mod serve;
mod spool;

pub use principal::Principal;
