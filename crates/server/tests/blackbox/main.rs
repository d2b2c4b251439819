//! The real binary, asked over HTTP and on its command line as its users do.

#![expect(clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

#[path = "../harness/mod.rs"]
mod harness;

mod backup;
mod bad_input;
mod check;
mod commands;
mod costs;
mod document_patch;
mod documents;
mod embeddings;
mod errors;
mod event_limits;
mod event_snapshots;
mod events;
mod filters;
mod full_disk;
mod grouping;
mod index;
mod jobs;
mod jobs_import;
mod jobs_trouble;
mod keywords;
mod languages;
mod lifecycle;
mod lists;
mod local_model;
mod multi_vector;
mod openapi;
mod overload;
mod pages;
mod past;
mod pictures;
mod recall;
mod reranking;
mod rescoring;
mod schedules;
mod search;
mod standing;
mod streams;
mod surface;
mod webhooks;
mod websocket;
mod websocket_examples;
mod websocket_limits;
