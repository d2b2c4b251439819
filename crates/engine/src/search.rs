//! The read path: embed the query, load the view once, search on the CPU pool, read the hits.

use std::sync::Arc;
use std::time::Instant;

use arrwdb_embed::{InputType, ModelSpec};
use arrwdb_state::limits::K_STREAM_MAX;
use arrwdb_state::normalized;
use arrwdb_state::{Executor, LibraryId, LibrarySpec, Nearest, Seq, Sequential, TenantId, View};

use crate::engine::Inner;
use crate::error::{EngineError, RETRY_AFTER};
use crate::request::{Hit, Query, SearchAnswer, SearchRequest};
use crate::snapshot::Snapshot;

/// Libraries of fewer bytes of vectors are searched on the calling thread: handing the work over
/// would take longer than the work.
const INLINE_BYTES_MAX: u64 = 512 << 10;

impl Inner {
    pub(crate) async fn search(
        self: &Arc<Self>,
        tenant: TenantId,
        library: LibraryId,
        request: SearchRequest,
        min_seq: Option<Seq>,
    ) -> Result<SearchAnswer, EngineError> {
        check(&request)?;
        let spec = self.spec(tenant, library, min_seq).await?;
        let query = self.query_vector(&spec, request.query).await?;
        let _permit = self.search_permits.try_acquire().map_err(|_full| EngineError::Busy {
            what: "the search queue",
            retry_after: RETRY_AFTER,
        })?;
        // The view is loaded after the query is embedded, so that it is as fresh as can be.
        let Snapshot { spec, view, seq } = self.snapshot(tenant, library, min_seq).await?;
        let (k, threshold) = (request.k, request.distance_threshold);
        let vectors = request.include_embeddings;
        let bytes = view.rows().saturating_mul(u64::from(view.dimension()) * 4);
        let hits = if bytes <= INLINE_BYTES_MAX && k <= arrwdb_state::limits::K_MAX {
            find(&view, Nearest { query: &query, k, threshold }, vectors, &Sequential)
        } else {
            let pool = self.pool.clone();
            self.pool
                .run(move || find(&view, Nearest { query: &query, k, threshold }, vectors, &pool))
                .await?
        };
        Ok(SearchAnswer { hits: hits?, seq, index: spec.index })
    }

    /// The query as a unit vector of the library's dimension.
    async fn query_vector(
        &self,
        spec: &Arc<LibrarySpec>,
        query: Query,
    ) -> Result<Vec<f32>, EngineError> {
        let (vector, field) = match query {
            Query::Vector(vector) => (vector, "/embedding"),
            Query::Text(text) => {
                let chars = text.chars().count();
                if chars > self.config.query_chars_max {
                    return Err(EngineError::Invalid {
                        field: "/query".into(),
                        detail: format!(
                            "the query has {chars} characters; the limit is {}",
                            self.config.query_chars_max
                        ),
                    });
                }
                if text.trim().is_empty() {
                    return Err(EngineError::Blank {
                        field: "/query".into(),
                        detail: "the query is blank".into(),
                    });
                }
                let model = model_of(spec, "/query")?;
                let deadline = self.config.embed_deadline;
                let embedder = &self.parts.embedder;
                let started = Instant::now();
                let vector = embedder.embed(&model, InputType::Query, vec![text], deadline).await?;
                self.embedding_times.took(1, started.elapsed());
                (vector, "/query")
            }
        };
        if vector.len() != spec.dimension as usize {
            return Err(EngineError::Vector {
                field: field.into(),
                detail: format!(
                    "Query embedding invalid: Vector dimension mismatch: expected {}, got {}",
                    spec.dimension,
                    vector.len()
                ),
            });
        }
        let (unit, _inverse_norm) = normalized(&vector).map_err(|error| EngineError::Vector {
            field: field.into(),
            detail: format!("Query embedding invalid: {error}"),
        })?;
        Ok(unit)
    }
}

/// The model that embeds a library's texts; an error naming `field` if there is none.
pub(crate) fn model_of(spec: &LibrarySpec, field: &str) -> Result<ModelSpec, EngineError> {
    let provider = spec.model.provider.parse().map_err(|_none| EngineError::Invalid {
        field: field.into(),
        detail: format!(
            "library {} takes vectors only: no embedding model has its {} dimensions",
            spec.id, spec.dimension
        ),
    })?;
    Ok(ModelSpec { provider, model: spec.model.model.clone(), dimension: spec.dimension })
}

fn check(request: &SearchRequest) -> Result<(), EngineError> {
    if !(1..=K_STREAM_MAX).contains(&request.k) {
        return Err(EngineError::Invalid {
            field: "/k".into(),
            detail: format!("k is {}; it has to be 1 to {K_STREAM_MAX}", request.k),
        });
    }
    match request.distance_threshold {
        Some(threshold) if !(0.0..=2.0).contains(&threshold) => Err(EngineError::Invalid {
            field: "/distance_threshold".into(),
            detail: format!("the distance threshold is {threshold}; it has to be 0 to 2"),
        }),
        _ => Ok(()),
    }
}

fn find(
    view: &View,
    wanted: Nearest<'_>,
    vectors: bool,
    executor: &dyn Executor,
) -> Result<Vec<Hit>, EngineError> {
    let found = view.nearest(wanted, executor)?;
    found
        .into_iter()
        .map(|found| {
            let read = view.chunk_of(found, vectors)?;
            Ok(Hit {
                document_id: read.document_id,
                document_title: read.title,
                chunk: read.chunk,
                chunk_index: read.index,
                distance: found.distance,
            })
        })
        .collect()
}
