//! What a library is searched by: built anew, put in order, and its figures.

use std::time::Duration;

use arrwdb_engine::state::{Calibration, Curve, LibrarySpec, Standing, Structure};
use arrwdb_engine::{
    EngineError, GraphStats, IndexOptimized, IndexRebuilt, Snapshot, StorageStats,
};
use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::{Map, Value, json};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::answers::{QuantizationInfo, index_config, milliseconds, parameters, percent};
use super::index_settings::IndexSettings;
use super::seq_header;
use crate::app::App;
use crate::extract::{LibraryPath, WholeBody};
use crate::moment::At;
use crate::openapi::{ReadErrors, WriteErrors};
use crate::principal::Principal;
use crate::problem::{self, Problem};

/// Routes that answer soon.
pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(statistics))
}

/// Routes that take as long as the index does.
pub(super) fn long_routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(rebuild)).routes(routes!(optimize))
}

/// What a library is to be searched by from now on; nothing builds what is missing.
#[derive(Debug, ToSchema)]
#[schema(example = json!({"index_type": "hnsw", "index_config": {"M": 16, "ef_construction": 200, "ef_search": 50}}))]
#[expect(dead_code, reason = "describes the body; it is read field by field")]
struct RebuildBody {
    /// `brute_force`, `hnsw` or another type that this version has; the one that it has, if absent.
    index_type: Option<String>,
    /// Whole numbers by name; true and false count as 1 and 0. What is not named stays as it is
    /// where the type stays, and has its usual number where it changes.
    #[schema(value_type = Option<Object>)]
    index_config: Option<Value>,
    /// `strategy` (`none`, `scalar`, `hybrid`, `binary`, `product`) and its numbers (`bits`,
    /// `pq_subvectors`, `rerank_top_k`), likewise.
    #[schema(value_type = Option<Object>)]
    quantization_config: Option<Value>,
}

/// A library whose segments are all searched as it asks for.
#[derive(Debug, Serialize, ToSchema)]
struct RebuildAnswer {
    #[schema(format = "uuid")]
    library_id: String,
    old_index_type: &'static str,
    new_index_type: &'static str,
    /// Every parameter with its number.
    #[schema(value_type = Object)]
    index_config: Map<String, Value>,
    /// `none`, `scalar`, `hybrid`, `binary` or `product`.
    quantization: &'static str,
    /// Live vectors of the library, all of which are searched so from now on.
    total_vectors_reindexed: u64,
    /// Segments that have a structure of their own now; those of few rows are scanned.
    segments_indexed: usize,
    /// Rows of these, dead ones included.
    rows_indexed: u64,
    /// Milliseconds, two decimals.
    rebuild_time_ms: f64,
    message: String,
}

/// A library whose files were merged.
#[derive(Debug, Serialize, ToSchema)]
struct OptimizeAnswer {
    #[schema(format = "uuid")]
    library_id: String,
    index_type: &'static str,
    /// Rows of what was deleted or replaced that are in no file any more.
    vectors_compacted: u64,
    /// Bytes of files and memory that are free now.
    memory_freed_bytes: u64,
    /// Milliseconds, two decimals.
    optimization_time_ms: f64,
    message: String,
}

/// Changes what a library is searched by, and answers when that is built, however long it takes.
/// Reads and writes go on meanwhile, by what was there before. A client that leaves changes
/// nothing: it is built all the same.
#[utoipa::path(post, operation_id = "rebuild_index", path = "/libraries/{library_id}/index/rebuild", tag = "index",
    params(("library_id" = String, Path, format = "uuid", description = "The library")),
    request_body(content = Option<RebuildBody>),
    responses((status = 200, description = "Built, durable", body = RebuildAnswer), WriteErrors))]
async fn rebuild(
    principal: Principal,
    State(app): State<App>,
    LibraryPath(library): LibraryPath,
    WholeBody(body, room): WholeBody,
) -> Result<Response, Problem> {
    let tenant = principal.tenant;
    let current = app.engine().library(tenant, library, None).await?.spec().index;
    let body = if body.trim_ascii().is_empty() { &b"{}"[..] } else { &body };
    let change = IndexSettings::change(body, current)?;
    drop(room);
    let work = long(&app, {
        let app = app.clone();
        async move { app.engine().rebuild_index(tenant, library, change).await }
    });
    let written = work.await?;
    let IndexRebuilt { old, new, chunks, took } = written.value;
    let after = app.engine().library(tenant, library, Some(written.seq)).await?;
    let indexed = after.stats().index;
    app.metrics().index_rebuilt(library, (old.name(), new.name()), took);
    let answer = RebuildAnswer {
        library_id: library.to_string(),
        old_index_type: old.name(),
        new_index_type: new.name(),
        index_config: index_config(new),
        quantization: new.quantization.strategy(),
        total_vectors_reindexed: chunks,
        segments_indexed: indexed.segments,
        rows_indexed: indexed.rows,
        rebuild_time_ms: milliseconds(took),
        message: format!("Index rebuilt successfully ({} \u{2192} {})", old.name(), new.name()),
    };
    Ok((seq_header(written.seq), Json(answer)).into_response())
}

/// Merges a library's files into one without what was deleted or replaced, however lately, and builds
/// what it is searched by. Its settings stay; its past (`as_of`) ends. Answers when that is done,
/// however long it takes; reads and writes go on meanwhile. Any body is ignored.
#[utoipa::path(post, operation_id = "optimize_index", path = "/libraries/{library_id}/index/optimize", tag = "index",
    params(("library_id" = String, Path, format = "uuid", description = "The library")),
    responses((status = 200, description = "Merged, durable", body = OptimizeAnswer), WriteErrors))]
async fn optimize(
    principal: Principal,
    State(app): State<App>,
    LibraryPath(library): LibraryPath,
) -> Result<Response, Problem> {
    let work = long(&app, {
        let app = app.clone();
        async move { app.engine().optimize_index(principal.tenant, library).await }
    });
    let IndexOptimized { index, rows_dropped, bytes_freed, took } = work.await?;
    let seq = app.engine().library(principal.tenant, library, None).await?.seq();
    app.metrics().index_optimized(library, index.name());
    let answer = OptimizeAnswer {
        library_id: library.to_string(),
        index_type: index.name(),
        vectors_compacted: rows_dropped,
        memory_freed_bytes: bytes_freed,
        optimization_time_ms: milliseconds(took),
        message: "Index optimized successfully".to_owned(),
    };
    Ok((seq_header(seq), Json(answer)).into_response())
}

/// Waits for work that may take minutes. It goes on if the client leaves; a server that is about to
/// stop does not wait for it: what is not built by then is built after the next start.
async fn long<T: Send + 'static>(
    app: &App,
    work: impl Future<Output = Result<T, EngineError>> + Send + 'static,
) -> Result<T, Problem> {
    let work = tokio::spawn(work);
    let done = tokio::select! {
        done = work => done,
        () = app.stopping() => {
            let detail = "the server is stopping; it goes on after the next start";
            let wait = Duration::from_secs(5);
            return Err(Problem::new(&problem::SHUTTING_DOWN, detail).retry_after(wait));
        }
    };
    let done = done.map_err(|ended| Problem::hidden(&problem::INTERNAL, ended.to_string()))?;
    Ok(done?)
}

/// Figures of what a library is searched by.
#[utoipa::path(get, operation_id = "get_index_statistics", path = "/libraries/{library_id}/index/statistics", tag = "index",
    params(
        ("library_id" = String, Path, format = "uuid", description = "The library"),
        ("min_seq" = Option<u64>, Query, description = "Wait until this write is seen"),
        ("as_of" = Option<u64>, Query, description = "Read what was there after this write, as far back as history is kept"),
    ),
    responses((status = 200, description = "Figures, all measured", body = Object,
        example = json!({"library_name": "papers", "index_type": "hnsw", "total_vectors": 5000, "index_stats": {"type": "hnsw", "size": 5000, "segments": 1, "segments_indexed": 1}})), ReadErrors))]
async fn statistics(
    principal: Principal,
    State(app): State<App>,
    LibraryPath(library): LibraryPath,
    At(at): At,
) -> Result<Response, Problem> {
    let snapshot = app.engine().library(principal.tenant, library, at).await?;
    // What is not measured yet is told the next time.
    app.engine().want_calibration(principal.tenant, library);
    let (spec, stats) = (snapshot.spec(), snapshot.stats());
    let answer = json!({
        "library_id": spec.id.to_string(),
        "library_name": spec.name,
        "index_type": spec.index.name(),
        "index_config": index_config(spec.index),
        "metric": spec.metric.name(),
        "quantization": QuantizationInfo::of(spec, Some(&stats.index)),
        "total_vectors": stats.chunks,
        "seq": snapshot.seq().get(),
        "index_stats": index_stats(&snapshot, &stats).await?,
        "vector_store_stats": vector_store_stats(spec, &stats),
    });
    Ok((seq_header(snapshot.seq()), Json(answer)).into_response())
}

/// `index_stats` of a library. Names that clients know, and the parameters by theirs.
pub(super) async fn index_stats(
    snapshot: &Snapshot,
    stats: &StorageStats,
) -> Result<Value, Problem> {
    let spec = snapshot.spec();
    let mut all = index_config(spec.index);
    let mut add = |name: &str, value: Value| {
        all.insert(name.to_owned(), value);
    };
    for (name, value) in [
        ("type", json!(spec.index.name())),
        ("size", json!(stats.chunks)),
        ("vector_store_dim", json!(spec.dimension)),
        // What is written is found at once: it is scanned until it has a structure.
        ("supports_incremental", json!(true)),
        ("segments", json!(stats.segments)),
        ("segments_indexed", json!(stats.index.segments)),
        ("rows_indexed", json!(stats.index.rows)),
        ("bytes", json!(stats.index.bytes)),
        ("code_bytes", json!(stats.index.code_bytes)),
        ("estimated_accuracy_percent", json!(stats.index.recall.map(percent))),
        ("calibration", json!(snapshot.calibration().map(calibration))),
    ] {
        add(name, value);
    }
    let counted = snapshot.clone();
    // Every link is looked at: not on a thread that answers others.
    let of_structures = move || (counted.graph_stats(), counted.figures());
    let counted = tokio::task::spawn_blocking(of_structures).await;
    let (graph, figures) =
        counted.map_err(|ended| Problem::hidden(&problem::INTERNAL, ended.to_string()))?;
    for figure in figures {
        add(figure.name, figure_value(figure.value));
    }
    match spec.index.structure {
        Structure::KdTree { .. } => {
            // Trees are built and never changed: what was written since is scanned beside them.
            let since = stats.rows.saturating_sub(stats.index.rows);
            add("modifications_since_rebuild", json!(since));
        }
        Structure::Ivf { .. } => {
            add("index_type", json!(spec.index.name()));
            add("built", json!(stats.index.segments > 0));
            add("total_vectors", json!(stats.chunks));
        }
        Structure::BruteForce | Structure::Lsh { .. } | Structure::Hnsw { .. } => {}
    }
    if let Some(GraphStats { level_counts, average_degree }) = graph {
        let counts = level_counts.iter().enumerate();
        let counts = counts.map(|(level, count)| (level.to_string(), json!(count)));
        add("num_levels", json!(level_counts.len()));
        add("level_counts", Value::Object(counts.collect()));
        add("avg_connections", figure_value(average_degree));
    }
    Ok(Value::Object(all))
}

/// A count as a whole number, anything else with two decimals.
fn figure_value(value: f64) -> Value {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "the range is checked"
    )]
    let whole = value.clamp(0.0, 1e15) as u64;
    if (value - whole as f64).abs() < f64::EPSILON {
        return json!(whole);
    }
    json!((value * 100.0).round() / 100.0)
}

/// What searches at several efforts were measured to find.
fn calibration((measured, standing): (&Calibration, Standing)) -> Value {
    let four = |part: f64| (part * 10_000.0).floor() / 10_000.0;
    let curve = |curve: &Curve| {
        let points = curve.points.iter().map(|point| {
            json!({
                "parameters": parameters(point.tuning),
                "recall": four(point.recall),
                "recall_min": four(point.recall_min),
                // A row scored by its vector is one; by its codes a part of one.
                "rows_scored": (point.rows_scored() * 100.0).round() / 100.0,
            })
        });
        json!({ "k": curve.k, "points": points.collect::<Vec<_>>() })
    };
    json!({
        "current": standing == Standing::Current,
        "queries": measured.queries,
        "curves": measured.curves.iter().map(curve).collect::<Vec<_>>(),
    })
}

/// `vector_store_stats` of a library.
pub(super) fn vector_store_stats(spec: &LibrarySpec, stats: &StorageStats) -> Value {
    let utilization = match stats.rows {
        0 => 0.0,
        rows => (stats.chunks as f64 / rows as f64 * 10_000.0).round() / 100.0,
    };
    json!({
        // Equal vectors are stored once per chunk: none are shared.
        "unique_vectors": stats.chunks,
        "total_references": stats.chunks,
        "capacity": stats.rows,
        "utilization": utilization,
        "free_indices": stats.rows.saturating_sub(stats.chunks),
        "dimension": spec.dimension,
        "storage_type": if stats.segments_mapped > 0 { "memory-mapped" } else { "in-memory" },
        "segments": stats.segments,
        "segments_mapped": stats.segments_mapped,
        "memory_bytes": stats.memory_bytes,
        "file_bytes": stats.file_bytes,
        "digest": format!("{:032x}", stats.digest),
    })
}
