//! Prometheus.

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::header;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::app::App;
use crate::principal::Principal;
use crate::problem::Problem;

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(metrics))
}

/// Measurements in Prometheus' text form.
#[utoipa::path(get, path = "/metrics", tag = "health", responses(
    (status = 200, description = "Measurements", body = String, content_type = "text/plain")
))]
async fn metrics(principal: Principal, State(app): State<App>) -> Result<Response, Problem> {
    let libraries = app.engine().libraries(principal.tenant, None).await?;
    let text = app.metrics().render(&app, &libraries);
    let headers = [(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")];
    Ok((headers, text).into_response())
}
