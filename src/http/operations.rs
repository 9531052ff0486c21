//! For who runs it: health, metrics, the description of the API, and a page to read it on.

use axum::{
    Extension,
    extract::{Path, State},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};

use crate::{
    app::{BadRequest, Conflict, Cx},
    http::{App, problem::Problem},
};

/// The description of the API, part of the program.
const OPENAPI: &str = include_str!("../../openapi/errand.yaml");
/// The page that shows it, and what it needs; nothing from anywhere else.
const DOCS: &str = include_str!("docs/index.html");
const DOCS_SCRIPT: &str = include_str!("docs/docs.js");
const DOCS_STYLE: &str = include_str!("docs/docs.css");

/// `GET /healthz`: the process runs.
pub(super) async fn healthz() -> &'static str {
    "ok\n"
}

/// `GET /readyz`: requests can be answered.
pub(super) async fn readyz(State(app): State<App>, Extension(cx): Extension<Cx>) -> Result<&'static str, Problem> {
    app.service.ready(&cx).await?;
    Ok("ready\n")
}

/// `GET /metrics`, in the `OpenMetrics` text format.
pub(super) async fn metrics(State(app): State<App>, Extension(cx): Extension<Cx>) -> Response {
    let up = app.service.ready(&cx).await.is_ok();
    match app.metrics.render(&app.service, up) {
        Ok(text) => {
            let media = "application/openmetrics-text; version=1.0.0; charset=utf-8";
            ([(header::CONTENT_TYPE, media)], text).into_response()
        }
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

/// `GET /openapi.yaml`
pub(super) async fn openapi() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/yaml")], OPENAPI)
}

/// `GET /docs`. The policy lets it load its own two files and the description, and nothing else.
pub(super) async fn docs() -> impl IntoResponse {
    let policy = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; frame-ancestors 'none'";
    ([(header::CONTENT_TYPE, "text/html; charset=utf-8"), (header::CONTENT_SECURITY_POLICY, policy)], DOCS)
}

/// `GET /docs/{file}`
pub(super) async fn docs_file(Path(file): Path<String>) -> Response {
    match file.as_str() {
        "docs.js" => ([(header::CONTENT_TYPE, "text/javascript; charset=utf-8")], DOCS_SCRIPT).into_response(),
        "docs.css" => ([(header::CONTENT_TYPE, "text/css; charset=utf-8")], DOCS_STYLE).into_response(),
        _ => not_found().await.into_response(),
    }
}

/// No such path.
pub(super) async fn not_found() -> Problem {
    Conflict::NotFound("path").into()
}

/// The path is there, the method is not.
pub(super) async fn method_not_allowed() -> Response {
    let mut response = Problem::from(BadRequest::Invalid("method", "is not served at this path")).into_response();
    *response.status_mut() = StatusCode::METHOD_NOT_ALLOWED;
    response
}
