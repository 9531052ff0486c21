//! Health probes and metrics for operators.

use axum::{
    Extension,
    extract::State,
    http::header,
    response::{IntoResponse, Response},
};

use crate::{
    app::RequestContext,
    http::{AppState, error::problem::Problem},
};

const OPENMETRICS_MEDIA_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// `GET /healthz`: the process is running.
pub(super) async fn healthz() -> &'static str {
    "ok\n"
}

/// `GET /readyz`: the server can answer requests.
pub(super) async fn readyz(
    State(app): State<AppState>,
    Extension(cx): Extension<RequestContext>,
) -> Result<&'static str, Problem> {
    app.service.check_readiness(&cx).await.map_err(Problem::not_ready)?;
    Ok("ready\n")
}

/// `GET /metrics`, in the `OpenMetrics` text format.
pub(super) async fn metrics(State(app): State<AppState>, Extension(cx): Extension<RequestContext>) -> Response {
    let issuers = match app.service.check_readiness(&cx).await {
        Ok(()) => app.service.issuer_health(&cx).await.ok(),
        Err(_) => None,
    };
    match app.metrics.render(issuers) {
        Ok(text) => ([(header::CONTENT_TYPE, OPENMETRICS_MEDIA_TYPE)], text).into_response(),
        Err(_) => Problem::internal_error().into_response(),
    }
}
