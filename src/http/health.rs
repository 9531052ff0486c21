//! Health probes and metrics for operators.

use axum::{
    Extension,
    extract::State,
    http::{HeaderMap, header},
    response::{IntoResponse, Response},
};

use crate::{
    app::RequestContext,
    http::{
        AppState,
        error::problem::Problem,
        negotiation::prefers_over,
        prometheus_text::{PROMETHEUS_MEDIA_TYPE, from_openmetrics},
    },
};

const OPENMETRICS: &str = "application/openmetrics-text";
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

/// `GET /metrics`, as `OpenMetrics` or in the text format of Prometheus.
pub(super) async fn metrics(
    State(app): State<AppState>,
    Extension(cx): Extension<RequestContext>,
    headers: HeaderMap,
) -> Response {
    let issuers = match app.service.check_readiness(&cx).await {
        Ok(()) => app.service.issuer_health(&cx).await.ok(),
        Err(_) => None,
    };
    let process = app.process_usage.and_then(|read| read());
    let varies = (header::VARY, "accept");
    match app.metrics.render(issuers, process.as_ref()) {
        Ok(text) if prefers_over(&headers, OPENMETRICS, "text/plain") => {
            ([(header::CONTENT_TYPE, OPENMETRICS_MEDIA_TYPE), varies], text).into_response()
        }
        Ok(text) => ([(header::CONTENT_TYPE, PROMETHEUS_MEDIA_TYPE), varies], from_openmetrics(&text)).into_response(),
        Err(_) => Problem::internal_error().into_response(),
    }
}
