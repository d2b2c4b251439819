//! Prometheus metrics: the names that dashboards know, and `arrwdb_*` in base units.
//!
//! Labels of unbounded cardinality (library ids) are kept for the first
//! [`LIBRARY_LABELS_MAX`] libraries seen; later ones share `other`.

use std::collections::HashSet;
use std::time::Duration;

use arrwdb_engine::LibraryOverview;
use arrwdb_engine::state::LibraryId;
use axum::response::Response;
use http::{HeaderMap, Method, header};
use metrics::{Label, SharedString};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder};
use parking_lot::Mutex;

use crate::app::App;

/// Libraries that have labels of their own.
const LIBRARY_LABELS_MAX: usize = 200;

const SEARCH_SECONDS: &[f64] = &[0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0];
const RESULT_COUNTS: &[f64] = &[1.0, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1000.0];
const EMBEDDING_SECONDS: &[f64] = &[0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
const HTTP_SECONDS: &[f64] = &[0.1, 0.5, 1.0];
const HTTP_SECONDS_FINE: &[f64] = &[
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 2.5, 3.0,
    5.0, 7.5, 10.0, 30.0, 60.0,
];
const BYTES: &[f64] = &[256.0, 1024.0, 16_384.0, 262_144.0, 4_194_304.0, 67_108_864.0];

/// Where measurements go. There is no global recorder: two servers in one process stay apart.
pub struct Metrics {
    recorder: PrometheusRecorder,
    handle: PrometheusHandle,
    labelled: Mutex<HashSet<LibraryId>>,
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

impl Metrics {
    /// A recorder with the buckets of every histogram.
    pub fn new() -> Result<Self, BuildError> {
        let mut builder = PrometheusBuilder::new();
        for (name, buckets) in [
            ("vectordb_search_duration_seconds", SEARCH_SECONDS),
            ("vectordb_search_results_count", RESULT_COUNTS),
            ("vectordb_embedding_duration_seconds", EMBEDDING_SECONDS),
            ("http_request_duration_seconds", HTTP_SECONDS),
            ("http_request_duration_highr_seconds", HTTP_SECONDS_FINE),
            ("http_request_size_bytes", BYTES),
            ("http_response_size_bytes", BYTES),
        ] {
            builder = builder.set_buckets_for_metric(Matcher::Full(name.to_owned()), buckets)?;
        }
        let recorder = builder.build_recorder();
        let handle = recorder.handle();
        Ok(Self { recorder, handle, labelled: Mutex::new(HashSet::new()) })
    }

    fn within<T>(&self, measure: impl FnOnce() -> T) -> T {
        metrics::with_local_recorder(&self.recorder, measure)
    }

    fn library_label(&self, id: LibraryId) -> SharedString {
        let mut labelled = self.labelled.lock();
        if labelled.contains(&id) {
            return id.to_string().into();
        }
        if labelled.len() < LIBRARY_LABELS_MAX {
            labelled.insert(id);
            return id.to_string().into();
        }
        "other".into()
    }

    /// One search was answered.
    pub(crate) fn searched(&self, library: LibraryId, index: &'static str, taken: Duration, hits: usize) {
        let labels = vec![
            Label::new("library_id", self.library_label(library)),
            Label::new("index_type", index),
        ];
        self.within(|| {
            metrics::counter!("vectordb_searches_total", labels.clone()).increment(1);
            metrics::histogram!("vectordb_search_duration_seconds", labels).record(taken);
            #[expect(clippy::cast_precision_loss, reason = "at most 10,000")]
            metrics::histogram!("vectordb_search_results_count").record(hits as f64);
        });
    }

    /// Documents with so many chunks in all were written.
    pub(crate) fn added(&self, library: LibraryId, index: &'static str, documents: usize, chunks: usize) {
        let id = self.library_label(library);
        self.within(|| {
            metrics::counter!("vectordb_documents_added_total", "library_id" => id.clone())
                .increment(documents as u64);
            metrics::counter!("vectordb_vectors_added_total", "library_id" => id, "index_type" => index)
                .increment(chunks as u64);
        });
    }

    /// Documents were deleted.
    pub(crate) fn deleted(&self, documents: usize) {
        self.within(|| {
            metrics::counter!("vectordb_documents_deleted_total").increment(documents as u64);
        });
    }

    /// A batch of so many documents was worked on.
    pub(crate) fn batch(&self, operation: &'static str, successful: usize, failed: usize) {
        let status = match (successful, failed) {
            (_, 0) => "success",
            (0, _) => "failure",
            _ => "partial",
        };
        self.within(|| {
            metrics::counter!("vectordb_batch_operations_total", "operation_type" => operation, "status" => status)
                .increment(1);
            metrics::counter!("vectordb_batch_documents_processed_total", "operation_type" => operation)
                .increment(successful as u64);
        });
    }

    /// Everything in Prometheus' text form. Gauges are read at this moment.
    pub(crate) fn render(&self, app: &App, libraries: &[LibraryOverview]) -> String {
        self.within(|| {
            engine_gauges(app);
            for overview in libraries.iter().take(LIBRARY_LABELS_MAX) {
                library_gauges(overview);
            }
            process_gauges();
        });
        self.handle.run_upkeep();
        self.handle.render()
    }
}

#[expect(clippy::cast_precision_loss, reason = "gauges are f64; counts stay far below 2^53")]
fn gauge(name: &'static str, value: u64) {
    metrics::gauge!(name).set(value as f64);
}

fn engine_gauges(app: &App) {
    let health = app.engine().health();
    for (name, value) in [
        ("vectordb_libraries_total", health.libraries),
        ("vectordb_documents_total", health.documents),
        ("vectordb_vectors_total", health.chunks),
        ("arrwdb_libraries", health.libraries),
        ("arrwdb_documents", health.documents),
        ("arrwdb_chunks", health.chunks),
        ("arrwdb_disk_free_bytes", health.disk_free_bytes),
        ("arrwdb_log_durable_seq", health.durable.get()),
        ("arrwdb_log_ok", u64::from(health.log.is_ok())),
        ("arrwdb_data_dir_ok", u64::from(health.data_dir.is_ok())),
        ("arrwdb_embedding_ready", u64::from(health.embedding.ready)),
        ("arrwdb_uptime_seconds", app.uptime().as_secs()),
    ] {
        gauge(name, value);
    }
}

#[expect(clippy::cast_precision_loss, reason = "gauges are f64; counts stay far below 2^53")]
fn library_gauges(overview: &LibraryOverview) {
    let labels = vec![
        Label::new("library_id", overview.spec.id.to_string()),
        Label::new("library_name", overview.spec.name.clone()),
    ];
    metrics::gauge!("vectordb_library_size_vectors", labels.clone()).set(overview.chunks as f64);
    metrics::gauge!("vectordb_library_size_documents", labels).set(overview.documents as f64);
}

/// What Linux says about this process; nothing elsewhere.
fn process_gauges() {
    let Ok(stat) = std::fs::read_to_string("/proc/self/stat") else { return };
    let Some((_, fields)) = stat.rsplit_once(')') else { return };
    let field = |at: usize| fields.split_whitespace().nth(at).and_then(|f| f.parse::<u64>().ok());
    // Fields 14, 15, 23 and 24 of proc(5), counted from the one after the name, the third.
    // Linux reports ticks of a hundredth of a second and pages of 4 KiB to all of user space here.
    if let (Some(user), Some(system)) = (field(11), field(12)) {
        #[expect(clippy::cast_precision_loss, reason = "ticks of years stay below 2^53")]
        metrics::gauge!("process_cpu_seconds_total").set((user + system) as f64 / 100.0);
    }
    if let Some(bytes) = field(20) {
        gauge("process_virtual_memory_bytes", bytes);
    }
    if let Some(pages) = field(21) {
        gauge("process_resident_memory_bytes", pages * 4096);
    }
    if let Ok(entries) = std::fs::read_dir("/proc/self/fd") {
        gauge("process_open_fds", entries.count() as u64);
    }
}

/// One HTTP request on its way.
#[derive(Debug)]
pub(crate) struct HttpCall {
    method: Method,
    template: SharedString,
    request_bytes: Option<f64>,
}

impl HttpCall {
    pub(crate) fn begin(method: Method, template: Option<String>, headers: &HeaderMap) -> Self {
        let template = template.map_or_else(|| "none".into(), SharedString::from);
        Self { method: known(method), template, request_bytes: content_length(headers) }
    }

    pub(crate) fn end(self, metrics: &Metrics, response: &Response, elapsed: Duration) {
        let Self { method, template, request_bytes } = self;
        let method: SharedString = method.as_str().to_owned().into();
        let status = format!("{}xx", response.status().as_u16() / 100);
        let response_bytes = content_length(response.headers());
        metrics.within(|| {
            metrics::counter!("http_requests_total", "handler" => template.clone(),
                "method" => method.clone(), "status" => status)
            .increment(1);
            metrics::histogram!("http_request_duration_seconds", "handler" => template.clone(),
                "method" => method)
            .record(elapsed);
            metrics::histogram!("http_request_duration_highr_seconds").record(elapsed);
            if let Some(bytes) = request_bytes {
                metrics::histogram!("http_request_size_bytes", "handler" => template.clone())
                    .record(bytes);
            }
            if let Some(bytes) = response_bytes {
                metrics::histogram!("http_response_size_bytes", "handler" => template)
                    .record(bytes);
            }
        });
    }
}

/// Methods are made up freely by clients; labels must not be.
fn known(method: Method) -> Method {
    match method {
        Method::GET
        | Method::POST
        | Method::PUT
        | Method::PATCH
        | Method::DELETE
        | Method::HEAD
        | Method::OPTIONS => method,
        _ => Method::TRACE,
    }
}

fn content_length(headers: &HeaderMap) -> Option<f64> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}
