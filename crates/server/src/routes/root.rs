//! The front page and the explanation of errors.

use axum::Json;
use axum::extract::Path;
use axum::extract::rejection::PathRejection;
use axum::response::Html;
use serde_json::{Value, json};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::app::App;
use crate::principal::Principal;
use crate::problem::{self, KINDS, Problem};

/// Version of the API, which clients read; the build's own version is `server_version`.
pub(crate) const API_VERSION: &str = "1.0.0";

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(root)).routes(routes!(error_kind))
}

/// What this server is.
#[utoipa::path(get, path = "/", tag = "root", responses(
    (status = 200, description = "Name, version and where to go on", body = Object,
     example = json!({"name": "Vector Database API", "version": "1.0.0", "documentation": "/docs", "health_check": "/health"}))
))]
async fn root(_principal: Principal) -> Json<Value> {
    Json(json!({
        "name": "Vector Database API",
        "version": API_VERSION,
        "description": "arrwDB: a real-time vector database",
        "documentation": "/docs",
        "openapi": "/openapi.json",
        "health_check": "/health",
        "api_versions": {
            "v1": {
                "prefix": "/v1",
                "status": "stable",
                "endpoints": {
                    "libraries": "/v1/libraries",
                    "documents": "/v1/libraries/{library_id}/documents",
                    "search": "/v1/libraries/{library_id}/search"
                }
            }
        }
    }))
}

/// What an error type means.
#[utoipa::path(get, path = "/errors/{slug}", tag = "root",
    params(("slug" = String, Path, description = "Last part of a problem's type", example = "library-not-found")),
    responses(
        (status = 200, description = "A page about this error", body = String, content_type = "text/html"),
        (status = 404, description = "No such error"),
    ))]
async fn error_kind(
    _principal: Principal,
    slug: Result<Path<String>, PathRejection>,
) -> Result<Html<String>, Problem> {
    // What is not even text is no name.
    let slug = slug.map(|path| path.0).unwrap_or_default();
    let kind = KINDS
        .iter()
        .find(|kind| kind.slug == slug)
        .ok_or_else(|| Problem::new(&problem::NOT_FOUND, "there is no error of this name"))?;
    Ok(Html(format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>{title}</title>\
         <h1>{status} {title}</h1><p>{about}</p><p><code>{error_type}</code></p>",
        title = kind.title,
        status = kind.status,
        about = kind.about,
        error_type = kind.error_type,
    )))
}
