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
mod backups;
pub mod cli;
pub mod config;
mod connections;
mod embedding;
mod envelope;
mod extract;
mod jobs;
mod json;
mod limits;
pub mod logging;
mod machine;
pub mod metrics;
pub mod model;
mod moment;
mod ndjson;
pub mod openapi;
mod principal;
pub mod problem;
mod progress;
mod rate_limit;
mod reranker;
mod routes;
pub mod serve;
mod spool;

pub use principal::Principal;
pub use routes::{document_problems, message_problem};

#[cfg(test)]
mod tests {
    use std::path::Path;

    #[test]
    fn v1_no_other_crate_serves_http() {
        let crates = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        for entry in std::fs::read_dir(crates).unwrap() {
            let manifest = entry.unwrap().path().join("Cargo.toml");
            let Ok(text) = std::fs::read_to_string(&manifest) else { continue };
            let shipped = text.split("[dev-dependencies]").next().unwrap_or_default();
            let serves = ["axum", "hyper"].iter().any(|name| shipped.contains(name));
            assert_eq!(serves, text.contains("name = \"arrwdb-server\""), "{}", manifest.display());
        }
    }
}
