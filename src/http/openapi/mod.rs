//! The API description and the page that displays it.

use std::sync::LazyLock;

use axum::{
    http::{HeaderMap, HeaderValue, header},
    response::{IntoResponse, Response},
};
use bytes::Bytes;

use crate::{
    app::ConflictError,
    domain::status_list::entity_tag,
    http::{conditional::document_or_304, error::problem::Problem, extract::path::PathId},
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

/// Seconds for which a client may use its copy of a document.
const MAX_AGE: &str = "public, max-age=300";

/// A document that is embedded in the program, with its entity tag.
struct StaticDocument {
    media_type: &'static str,
    text: &'static str,
    tag: LazyLock<String>,
}

impl StaticDocument {
    const fn new(media_type: &'static str, text: &'static str, tag: fn() -> String) -> Self {
        Self { media_type, text, tag: LazyLock::new(tag) }
    }

    fn respond(&self, headers: &HeaderMap) -> Response {
        let document = Bytes::from_static(self.text.as_bytes());
        let mut response = document_or_304(headers, &self.tag, self.media_type, document);
        response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static(MAX_AGE));
        response
    }
}

static YAML: StaticDocument = StaticDocument::new("application/yaml", OPENAPI_YAML, || quoted_tag(OPENAPI_YAML));
static JSON: StaticDocument = StaticDocument::new("application/json", OPENAPI_JSON, || quoted_tag(OPENAPI_JSON));
static PAGE: StaticDocument = StaticDocument::new("text/html; charset=utf-8", DOCS_HTML, || quoted_tag(DOCS_HTML));
static SCRIPT: StaticDocument =
    StaticDocument::new("text/javascript; charset=utf-8", DOCS_SCRIPT, || quoted_tag(DOCS_SCRIPT));
static STYLE: StaticDocument = StaticDocument::new("text/css; charset=utf-8", DOCS_STYLE, || quoted_tag(DOCS_STYLE));

fn quoted_tag(text: &str) -> String {
    format!("\"{}\"", entity_tag(text))
}

/// `GET /openapi.yaml`
pub(super) async fn yaml(headers: HeaderMap) -> Response {
    YAML.respond(&headers)
}

/// `GET /openapi.json`
pub(super) async fn json(headers: HeaderMap) -> Response {
    JSON.respond(&headers)
}

/// `GET /docs`
pub(super) async fn docs(headers: HeaderMap) -> Response {
    let policy = [(header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY)];
    (policy, PAGE.respond(&headers)).into_response()
}

/// `GET /docs/{file}`
pub(super) async fn docs_file(PathId(file): PathId, headers: HeaderMap) -> Response {
    match file.as_str() {
        "docs.js" => SCRIPT.respond(&headers),
        "docs.css" => STYLE.respond(&headers),
        _ => Problem::from(ConflictError::NotFound("file")).into_response(),
    }
}
