//! Responses to requests without a route: an unknown path, an unsupported method.

use axum::{
    http::{HeaderMap, Method, Uri},
    response::Response,
};

use crate::http::{cors::answer_preflight, error::ErrorFormat};

/// Answers a request for an unknown path.
pub(super) async fn not_found(uri: Uri) -> Response {
    ErrorFormat::for_uri(&uri).not_found()
}

/// Answers a request with a method that the path does not support. The router adds `Allow`.
pub(super) async fn method_not_allowed(method: Method, uri: Uri, headers: HeaderMap) -> Response {
    answer_preflight(&method, uri.path(), &headers).unwrap_or_else(|| ErrorFormat::for_uri(&uri).method_not_allowed())
}
