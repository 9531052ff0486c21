//! The API description and the page that displays it.

use axum::{
    http::header,
    response::{IntoResponse, Response},
};

use crate::{
    app::ConflictError,
    http::{error::problem::Problem, extract::path::PathId},
};

/// The API description, embedded in the program. The JSON is generated from the YAML
/// (`tests/openapi.rs`).
const OPENAPI_YAML: &str = include_str!("../../../openapi/errand.yaml");
const OPENAPI_JSON: &str = include_str!("../../../openapi/errand.json");
/// The page that displays the description. It loads nothing from other origins.
const DOCS_HTML: &str = include_str!("docs/index.html");
const DOCS_SCRIPT: &str = include_str!("docs/docs.js");
const DOCS_STYLE: &str = include_str!("docs/docs.css");

/// Allows the page to load its script, its style and the description, and nothing else.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
                                       base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// `GET /openapi.yaml`
pub(super) async fn yaml() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/yaml")], OPENAPI_YAML)
}

/// `GET /openapi.json`
pub(super) async fn json() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/json")], OPENAPI_JSON)
}

/// `GET /docs`
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
