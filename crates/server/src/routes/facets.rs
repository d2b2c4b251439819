//! The values of fields, each with how many have it: by themselves, and beside what a search finds.

use std::borrow::Cow;
use std::time::Instant;

use arrwdb_engine::Moment;
use arrwdb_engine::state::limits::{FACET_VALUES_MAX, FACETS_MAX};
use arrwdb_engine::state::{Facet, FacetCounts, FacetFault, FacetValue, Filter};
use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::{Value, json};
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::{ObjectBuilder, Schema, SchemaType, Type};
use utoipa::{PartialSchema, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::answers::milliseconds;
use super::search_requests::{FilterShape, is_filter, read_filter_once};
use super::seq_header;
use crate::app::App;
use crate::extract::{LibraryPath, WholeBody, read_json};
use crate::json::{Read, Reader};
use crate::moment::{At, read_moment};
use crate::openapi::ReadErrors;
use crate::principal::Principal;
use crate::problem::Problem;

/// Values of a field, unless more or fewer are asked for.
const VALUES_DEFAULT: usize = 10;

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(facets))
}

/// A field whose values are counted, as it is described.
#[derive(Debug)]
pub(super) struct FacetShape;

impl PartialSchema for FacetShape {
    fn schema() -> RefOr<Schema> {
        let description = format!(
            "A field, as filters name it (`tags`, `author.name`), or `{{\"field\", \"limit\"}}`: of at \
             most how many values, 1 to {FACET_VALUES_MAX} [{VALUES_DEFAULT}]."
        );
        ObjectBuilder::new()
            .schema_type(SchemaType::from_iter([Type::String, Type::Object]))
            .description(Some(description))
            .examples([json!("tags"), json!({"field": "year", "limit": 20})])
            .into()
    }
}

impl ToSchema for FacetShape {
    fn name() -> Cow<'static, str> {
        "Facet".into()
    }
}

/// Which fields, and of which passages.
#[derive(Debug, ToSchema)]
#[schema(example = json!({"fields": ["tags", {"field": "year", "limit": 20}], "filter": {"author": "Ada"}}))]
#[expect(dead_code, reason = "describes the body; it is read field by field")]
struct FacetsBody {
    #[schema(value_type = Vec<FacetShape>, min_items = 1, max_items = 20)]
    fields: Vec<Value>,
    /// Only passages that pass; all without one. See `docs/filters.md`.
    #[schema(value_type = Option<FilterShape>)]
    filter: Option<Value>,
    /// As in the query string.
    as_of: Option<u64>,
    /// As in the query string.
    min_seq: Option<u64>,
}

/// The values of some fields.
#[derive(Debug, Serialize, ToSchema)]
struct FacetsAnswer {
    /// In the order in which the fields were given.
    facets: Vec<FacetAnswer>,
    /// Documents that have a passage that passes.
    documents: u64,
    /// Passages that pass.
    chunks: u64,
    query_time_ms: f64,
}

/// The values of a field: texts, numbers, times, true and false, also as members of lists.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct FacetAnswer {
    #[schema(example = "tags")]
    field: String,
    /// Those that most documents have, of these those that most passages have, then the least.
    values: Vec<FacetValueAnswer>,
    /// How many other values there are.
    other_values: u64,
    /// Always `exact`.
    #[schema(example = "exact")]
    relation: &'static str,
}

/// A value, and how many of what passes have it.
#[derive(Debug, Serialize, ToSchema)]
struct FacetValueAnswer {
    /// A text, a number, true or false; a time as RFC 3339.
    #[schema(value_type = Value, example = "storage")]
    value: Value,
    /// Documents that have a passage that passes and has it.
    documents: u64,
    /// Passages that pass and have it, or whose document has it.
    chunks: u64,
}

impl FacetAnswer {
    /// What was counted of the fields that were asked for.
    pub(super) fn all(wanted: &[Facet], counted: Vec<FacetCounts>) -> Vec<Self> {
        let of = |(facet, counts): (&Facet, FacetCounts)| {
            let values = counts.values.into_iter();
            let value = |FacetValue { value, documents, chunks }| FacetValueAnswer {
                value,
                documents,
                chunks,
            };
            Self {
                field: facet.field().to_owned(),
                values: values.map(value).collect(),
                other_values: counts.others,
                relation: "exact",
            }
        };
        wanted.iter().zip(counted).map(of).collect()
    }
}

/// Fields whose values are to be counted; `None` for null.
pub(super) fn read_facets(r: &mut Reader<'_>) -> Read<Option<Vec<Facet>>> {
    let (mut facets, mut count) = (Vec::new(), 0);
    let read = r.array(|r, _index| {
        count += 1;
        let value = r.any()?;
        if count <= FACETS_MAX {
            facets.extend(read_facet(r, value));
        }
        Ok(())
    })?;
    if read.is_some() && !(1..=FACETS_MAX).contains(&count) {
        r.fault(format!("must have 1 to {FACETS_MAX} elements; it has {count}"));
    }
    Ok(read.map(|()| facets))
}

fn read_facet(r: &mut Reader<'_>, value: Value) -> Option<Facet> {
    let (field, limit, within) = match value {
        Value::String(field) => (Some(field), None, false),
        Value::Object(mut fields) => {
            let limit = fields.remove("limit").filter(|limit| !limit.is_null());
            let field = fields.get("field").and_then(Value::as_str).map(str::to_owned);
            (field, limit, true)
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) => {
            r.fault("must be the name of a field, or {\"field\", \"limit\"}");
            return None;
        }
    };
    let place = |name: &'static str| if within { name } else { "" };
    let Some(field) = field else {
        r.fault_beneath("/field", "must be the name of a field");
        return None;
    };
    let limit = limit.map_or(Some(VALUES_DEFAULT), |limit| {
        usize::try_from(limit.as_u64()?).ok().filter(|limit| *limit <= FACET_VALUES_MAX)
    });
    // What is no number is as little as none.
    match Facet::new(field, limit.unwrap_or(0)) {
        Ok(facet) => Some(facet),
        Err(FacetFault::Field(detail)) => {
            r.fault_beneath(place("/field"), detail);
            None
        }
        Err(FacetFault::Limit(detail)) => {
            r.fault_beneath("/limit", detail);
            None
        }
    }
}

/// Counts the values of fields over the passages that pass a filter: what there is to filter by. Counts
/// are exact.
#[utoipa::path(post, operation_id = "count_facets", path = "/libraries/{library_id}/facets", tag = "search",
    params(
        ("library_id" = String, Path, format = "uuid", description = "The library"),
        ("min_seq" = Option<u64>, Query, description = "Wait until this write is seen"),
        ("as_of" = Option<u64>, Query, description = "Read what was there after this write, as far back as history is kept"),
    ),
    request_body = FacetsBody,
    responses((status = 200, description = "Values with their counts", body = FacetsAnswer), ReadErrors))]
async fn facets(
    principal: Principal,
    State(app): State<App>,
    LibraryPath(library): LibraryPath,
    at: At,
    WholeBody(body, _room): WholeBody,
) -> Result<Response, Problem> {
    let started = Instant::now();
    let ((filter, wanted), moment) = read_json(&body, |r| {
        let (mut filter, mut wanted): (Option<Filter>, Option<Vec<Facet>>) = (None, None);
        let mut moment = Moment::default();
        r.object(|r, key| {
            match key {
                "fields" => wanted = read_facets(r)?,
                key if is_filter(key) => read_filter_once(r, &mut filter)?,
                key if read_moment(r, key, &mut moment)? => {}
                _ignored => {}
            }
            Ok(())
        })?;
        r.require("fields", wanted.is_some() || r.has_fault_at("fields"));
        Ok(((filter.unwrap_or_default(), wanted.unwrap_or_default()), moment))
    })?;
    let at = at.with_body(moment)?;
    let asked = (filter, wanted.clone());
    let counted = app.engine().facets(principal.tenant, library, asked, at).await?;
    let answer = FacetsAnswer {
        facets: FacetAnswer::all(&wanted, counted.facets),
        documents: counted.documents,
        chunks: counted.chunks,
        query_time_ms: milliseconds(started.elapsed()),
    };
    Ok((seq_header(counted.seq), Json(answer)).into_response())
}
