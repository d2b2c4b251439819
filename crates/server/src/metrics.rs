//! Prometheus metrics: the names that dashboards know, and `arrwdb_*` in base units.
//!
//! Labels of unbounded cardinality (library ids) are kept for the first
//! `LIBRARY_LABELS_MAX` libraries seen; later ones share `other`.

use std::collections::HashSet;
use std::time::Duration;

use arrwdb_engine::state::LibraryId;
use arrwdb_engine::{CostFigures, Histogram, LibraryOverview, ModelCost, PutReceipt};
use axum::extract::{MatchedPath, Request};
use axum::response::Response;
use http::{HeaderMap, Method, header};
use metrics::{Label, SharedString};
use metrics_exporter_prometheus::{
    BuildError, Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder,
};
use parking_lot::Mutex;

use crate::app::App;
use crate::limits::LIBRARY_LABELS_MAX;

const SEARCH_SECONDS: &[f64] = &[0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0];
const RESULT_COUNTS: &[f64] = &[1.0, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1000.0];
const REBUILD_SECONDS: &[f64] = &[0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0];
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
            ("vectordb_index_rebuild_duration_seconds", REBUILD_SECONDS),
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
    pub(crate) fn searched(
        &self,
        library: LibraryId,
        index: &'static str,
        taken: Duration,
        hits: usize,
    ) {
        let labels = vec![
            Label::new("library_id", self.library_label(library)),
            Label::new("index_type", index),
        ];
        self.within(|| {
            metrics::counter!("vectordb_searches_total", labels.clone()).increment(1);
            metrics::histogram!("vectordb_search_duration_seconds", labels).record(taken);
            metrics::histogram!("vectordb_search_results_count").record(hits as f64);
        });
    }

    /// Documents were written.
    pub(crate) fn added(&self, library: LibraryId, index: &'static str, added: Added) {
        let id = self.library_label(library);
        self.within(|| {
            metrics::counter!("vectordb_documents_added_total", "library_id" => id.clone())
                .increment(added.documents);
            metrics::counter!("vectordb_vectors_added_total", "library_id" => id.clone(),
                "index_type" => index)
            .increment(added.chunks as u64);
            metrics::counter!("vectordb_vectors_deleted_total", "library_id" => id)
                .increment(added.chunks_replaced);
        });
    }

    /// Documents with so many chunks in all were deleted.
    pub(crate) fn deleted(&self, library: LibraryId, documents: usize, chunks: u64) {
        let id = self.library_label(library);
        self.within(|| {
            metrics::counter!("vectordb_documents_deleted_total").increment(documents as u64);
            metrics::counter!("vectordb_vectors_deleted_total", "library_id" => id)
                .increment(chunks);
        });
    }

    /// A library's index was rebuilt, from one type to another or the same.
    pub(crate) fn index_rebuilt(
        &self,
        library: LibraryId,
        (old, new): (&'static str, &'static str),
        taken: Duration,
    ) {
        let id = self.library_label(library);
        self.within(|| {
            metrics::counter!("vectordb_index_rebuilds_total", "library_id" => id.clone(),
                "old_type" => old, "new_type" => new)
            .increment(1);
            metrics::histogram!("vectordb_index_rebuild_duration_seconds", "library_id" => id,
                "index_type" => new)
            .record(taken);
        });
    }

    /// A library's index was optimised.
    pub(crate) fn index_optimized(&self, library: LibraryId, index: &'static str) {
        let id = self.library_label(library);
        self.within(|| {
            metrics::counter!("vectordb_index_optimizations_total", "library_id" => id,
                "index_type" => index)
            .increment(1);
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
            event_gauges(app);
            matching_gauges(app);
            socket_gauges(app);
            job_gauges(app);
            webhook_gauges(app);
            embedding_gauges(app);
            reranking_gauges(app);
            cost_gauges(app);
            for overview in libraries.iter().take(LIBRARY_LABELS_MAX) {
                library_gauges(overview);
            }
            process_gauges();
        });
        self.handle.run_upkeep();
        let mut text = self.handle.render();
        write_embedding_times(&mut text, &app.engine().embedding_times().histograms());
        text
    }
}

/// What was written, summed up.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Added {
    pub(crate) documents: u64,
    pub(crate) chunks: usize,
    /// Chunks that died with the documents that were replaced.
    pub(crate) chunks_replaced: u64,
}

impl Added {
    pub(crate) fn of(receipt: &PutReceipt) -> Self {
        let mut added = Self::default();
        added.count(receipt);
        added
    }

    pub(crate) fn count(&mut self, receipt: &PutReceipt) {
        self.documents += 1;
        self.chunks += receipt.chunks;
        self.chunks_replaced += u64::from(receipt.chunks_replaced);
    }
}

/// The engine counts these by itself, since the start: they are written out as they are.
fn write_embedding_times(text: &mut String, histograms: &[Histogram]) {
    const NAME: &str = "vectordb_embedding_duration_seconds";
    let mut line = |line: std::fmt::Arguments<'_>| {
        text.push_str(&line.to_string());
        text.push('\n');
    };
    line(format_args!("# TYPE {NAME} histogram"));
    for Histogram { size, buckets, count, seconds } in histograms {
        let label = format!("batch_size_bucket=\"{size}\"");
        for (bound, calls) in buckets {
            line(format_args!("{NAME}_bucket{{{label},le=\"{bound}\"}} {calls}"));
        }
        line(format_args!("{NAME}_bucket{{{label},le=\"+Inf\"}} {count}"));
        line(format_args!("{NAME}_sum{{{label}}} {seconds}"));
        line(format_args!("{NAME}_count{{{label}}} {count}"));
    }
}

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
        ("arrwdb_libraries_open", health.libraries_open),
        ("arrwdb_memory_bytes", health.memory_bytes),
        ("arrwdb_memory_budget_bytes", health.memory_budget_bytes),
        ("arrwdb_index_bytes", health.index_bytes),
        ("arrwdb_scrub_damaged", health.scrub.damaged),
        ("arrwdb_log_files", health.log_stats.files),
        ("arrwdb_log_bytes", health.log_stats.bytes),
        ("arrwdb_log_queued_records", health.log_stats.queued_records),
        ("arrwdb_log_queued_bytes", health.log_stats.queued_bytes),
        ("arrwdb_uptime_seconds", app.uptime().as_secs()),
    ] {
        gauge(name, value);
    }
    metrics::counter!("arrwdb_scrub_passes_total").absolute(health.scrub.passes);
    metrics::counter!("arrwdb_scrub_files_total").absolute(health.scrub.files);
    metrics::counter!("arrwdb_scrub_bytes_total").absolute(health.scrub.bytes);
    metrics::counter!("arrwdb_log_syncs_total").absolute(health.log_stats.syncs);
    metrics::counter!("arrwdb_log_records_total").absolute(health.log_stats.records);
    metrics::gauge!("arrwdb_log_sync_seconds_total").set(health.log_stats.sync_total.as_secs_f64());
    metrics::gauge!("arrwdb_log_sync_seconds_max").set(health.log_stats.sync_max.as_secs_f64());
}

/// What the change feed does.
fn event_gauges(app: &App) {
    let stats = app.feed().stats();
    for (event, count) in &stats.published {
        metrics::counter!("arrwdb_events_published_total", "type" => event.name()).absolute(*count);
    }
    metrics::counter!("arrwdb_events_delivered_total").absolute(stats.delivered);
    metrics::counter!("arrwdb_event_errors_total").absolute(stats.errors);
    metrics::counter!("arrwdb_event_disk_reads_total").absolute(stats.disk_reads);
    metrics::gauge!("arrwdb_event_latency_seconds_mean").set(stats.latency.as_secs_f64());
    for (name, value) in [
        ("arrwdb_event_subscribers", stats.subscribers),
        ("arrwdb_events_pending_records", stats.pending),
        ("arrwdb_events_buffered", stats.buffered_events),
        ("arrwdb_events_buffered_bytes", stats.buffered_bytes),
        ("arrwdb_events_oldest_seq", app.feed().oldest().get()),
        ("arrwdb_event_feed_ok", u64::from(stats.running)),
    ] {
        gauge(name, value);
    }
}

/// What the matcher of standing queries does.
fn matching_gauges(app: &App) {
    let matching = app.matching();
    let stats = matching.stats;
    let behind = app.engine().durable().get().saturating_sub(stats.position.get());
    for (name, value) in [
        ("arrwdb_standing_query_matcher_ok", u64::from(matching.running)),
        ("arrwdb_standing_query_pending_records", behind),
        ("arrwdb_standing_queries_in_memory", stats.queries),
        ("arrwdb_standing_queries_bytes", stats.query_bytes),
    ] {
        gauge(name, value);
    }
    metrics::counter!("arrwdb_standing_query_passages_total").absolute(stats.passages);
    metrics::counter!("arrwdb_standing_query_matches_total").absolute(stats.matches);
    metrics::counter!("arrwdb_standing_query_lost_total").absolute(stats.lost);
}

/// What background jobs do.
fn job_gauges(app: &App) {
    let counts = app.engine().job_counts();
    for (status, count) in [
        ("pending", counts.pending),
        ("running", counts.running),
        ("completed", counts.completed),
        ("failed", counts.failed),
        ("cancelled", counts.cancelled),
    ] {
        metrics::gauge!("arrwdb_jobs", vec![Label::new("status", status)]).set(count as f64);
    }
    gauge("arrwdb_jobs_put_off", app.engine().put_off_jobs(0).0 as u64);
    let Some(stats) = app.jobs().map(arrwdb_feed::Jobs::stats) else { return };
    gauge("arrwdb_job_queue_ok", u64::from(stats.running));
    metrics::counter!("arrwdb_jobs_taken_total").absolute(stats.taken);
    metrics::counter!("arrwdb_jobs_retried_total").absolute(stats.retried);
}

/// What webhooks do.
fn webhook_gauges(app: &App) {
    let stats = app.webhooks().stats();
    gauge("arrwdb_webhook_couriers", stats.couriers);
    gauge("arrwdb_webhook_events_retrying", stats.retrying);
    gauge("arrwdb_webhooks_in_trouble", stats.in_trouble);
    gauge("arrwdb_webhooks_disabled_by_receiver", stats.disabled_by_receiver);
    gauge("arrwdb_webhook_dead_letters", stats.dead_letters);
    gauge("arrwdb_webhooks_ok", u64::from(stats.running));
    for (outcome, count) in [("success", stats.delivered), ("failed", stats.failed)] {
        let labels = vec![Label::new("outcome", outcome)];
        metrics::counter!("arrwdb_webhook_deliveries_total", labels).absolute(count);
    }
}

/// What WebSockets do.
fn socket_gauges(app: &App) {
    let sockets = app.sockets();
    gauge("arrwdb_websocket_connections", sockets.count() as u64);
    gauge("arrwdb_websocket_live_queries", sockets.watches());
    for (name, count) in sockets.counted() {
        metrics::counter!(name).absolute(count);
    }
}

/// What embedding cost, per model.
fn embedding_gauges(app: &App) {
    let stats = app.engine().embedder().stats();
    gauge("arrwdb_embedding_queue_texts", stats.queue_texts);
    gauge("arrwdb_embedding_cache_memory_bytes", stats.cache_memory_bytes);
    gauge("arrwdb_embedding_cache_disk_bytes", stats.cache_disk_bytes);
    for (model, stats) in stats.models {
        let (provider, name) = match model {
            Some(model) => (model.provider.name(), model.model),
            None => ("other", "other".to_owned()),
        };
        let labels = vec![Label::new("provider", provider), Label::new("model", name)];
        for (name, value) in [
            ("arrwdb_embedding_calls_total", stats.calls),
            ("arrwdb_embedding_texts_total", stats.texts),
            ("arrwdb_embedding_tokens_total", stats.tokens),
            ("arrwdb_embedding_failures_total", stats.failures),
            ("arrwdb_embedding_cache_hits_total", stats.cache_hits),
            ("arrwdb_embedding_cache_misses_total", stats.cache_misses),
        ] {
            metrics::counter!(name, labels.clone()).absolute(value);
        }
        metrics::gauge!("arrwdb_embedding_call_seconds_total", labels)
            .set(stats.time.as_secs_f64());
    }
}

/// What the model did that ranks passages, where there is one.
fn reranking_gauges(app: &App) {
    let Some(reranker) = app.engine().reranker() else { return };
    let stats = reranker.stats();
    gauge("arrwdb_reranking_waiting_bytes", stats.waiting_bytes);
    let (provider, model) = (reranker.kind().name(), reranker.model().to_owned());
    let labels = vec![Label::new("provider", provider), Label::new("model", model)];
    for (name, value) in [
        ("arrwdb_reranking_calls_total", stats.calls),
        ("arrwdb_reranking_passages_total", stats.passages),
        ("arrwdb_reranking_failures_total", stats.failures),
        ("arrwdb_reranking_retries_total", stats.retries),
    ] {
        metrics::counter!(name, labels.clone()).absolute(value);
    }
    metrics::gauge!("arrwdb_reranking_call_seconds_total", labels).set(stats.time.as_secs_f64());
}

/// What embedding and reranking cost since the start, in dollars.
fn cost_gauges(app: &App) {
    let CostFigures { models, refusals, unrecorded } = app.engine().costs_since_start();
    gauge("arrwdb_costs_unrecorded_rows", unrecorded);
    for ModelCost { provider, model, used } in models {
        let labels = vec![Label::new("provider", provider), Label::new("model", model)];
        // Counters of this exporter are whole numbers.
        metrics::gauge!("arrwdb_embedding_cost_usd_total", labels.clone()).set(used.cost.dollars());
        metrics::gauge!("arrwdb_embedding_saved_usd_total", labels).set(used.saved.dollars());
    }
    metrics::counter!("arrwdb_budget_refusals_total").absolute(refusals);
}

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

/// One HTTP request on its way; dropping it, as a client that leaves does, counts too.
#[derive(Debug)]
pub(crate) struct HttpCall {
    app: App,
    method: SharedString,
    template: SharedString,
    request_bytes: Option<f64>,
}

impl HttpCall {
    pub(crate) fn begin(app: App, request: &Request) -> Self {
        let template = request.extensions().get::<MatchedPath>();
        let template = template.map_or_else(|| "none".into(), |path| path.as_str().to_owned());
        let call = Self {
            app,
            method: known(request.method()).into(),
            template: template.into(),
            request_bytes: content_length(request.headers()),
        };
        call.app.metrics().within(|| call.in_progress().increment(1.0));
        call
    }

    fn in_progress(&self) -> metrics::Gauge {
        metrics::gauge!("http_requests_inprogress", "handler" => self.template.clone(),
            "method" => self.method.clone())
    }

    pub(crate) fn end(self, response: &Response, elapsed: Duration) {
        let (method, template, request_bytes) =
            (self.method.clone(), self.template.clone(), self.request_bytes);
        let metrics = self.app.metrics();
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

impl Drop for HttpCall {
    fn drop(&mut self) {
        self.app.metrics().within(|| self.in_progress().decrement(1.0));
    }
}

/// Methods are made up freely by clients; labels must not be.
fn known(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        Method::HEAD => "HEAD",
        Method::OPTIONS => "OPTIONS",
        _ => "other",
    }
}

fn content_length(headers: &HeaderMap) -> Option<f64> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}
