//! For who runs it: health, metrics, the description of the API, and a page to read it on.

use axum::{
    Extension,
    extract::State,
    http::header,
    response::{IntoResponse, Response},
};

use crate::{
    app::{ConflictError, RequestContext},
    http::{AppState, error::problem::Problem, extract::path::PathId},
};

/// The description of the API, part of the program: as it is written, and the same for who reads no YAML.
const OPENAPI_YAML: &str = include_str!("../../openapi/errand.yaml");
const OPENAPI_JSON: &str = include_str!("../../openapi/errand.json");
/// The page that shows it, and what it needs; nothing from anywhere else.
const DOCS_HTML: &str = include_str!("docs/index.html");
const DOCS_SCRIPT: &str = include_str!("docs/docs.js");
const DOCS_STYLE: &str = include_str!("docs/docs.css");

/// `GET /healthz`: the process runs.
pub(super) async fn healthz() -> &'static str {
    "ok\n"
}

/// `GET /readyz`: requests can be answered.
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
    match app.metrics.render(&app.service, issuers) {
        Ok(text) => {
            let media = "application/openmetrics-text; version=1.0.0; charset=utf-8";
            ([(header::CONTENT_TYPE, media)], text).into_response()
        }
        Err(_) => Problem::internal_error().into_response(),
    }
}

/// `GET /openapi.yaml`
pub(super) async fn openapi_yaml() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/yaml")], OPENAPI_YAML)
}

/// `GET /openapi.json`
pub(super) async fn openapi_json() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/json")], OPENAPI_JSON)
}

const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// `GET /docs`. The policy lets it load its own two files and the description, and nothing else.
pub(super) async fn docs() -> impl IntoResponse {
    (
        [
            (header::CONTENT_TYPE, "text/html; charset=utf-8"),
            (header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY),
        ],
        DOCS_HTML,
    )
}

/// `GET /docs/{file}`
pub(super) async fn docs_file(PathId(file): PathId) -> Response {
    match file.as_str() {
        "docs.js" => ([(header::CONTENT_TYPE, "text/javascript; charset=utf-8")], DOCS_SCRIPT).into_response(),
        "docs.css" => ([(header::CONTENT_TYPE, "text/css; charset=utf-8")], DOCS_STYLE).into_response(),
        _ => Problem::from(ConflictError::NotFound("file")).into_response(),
    }
}
