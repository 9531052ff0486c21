//! Status lists (draft-ietf-oauth-status-list §8): public, and cacheable for their `ttl`.

use axum::{
    Extension, Json,
    extract::{RawQuery, State},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;
use url::form_urlencoded;

use crate::{
    app::{ConflictError, RequestContext},
    http::{
        AppState, conditional::document_or_304, error::problem::Problem, extract::path::PathId,
        negotiation::prefers_gzip, oauth::metadata::cacheable,
    },
};

/// The media type of a status list (§8.1).
const STATUS_LIST_MEDIA_TYPE: &str = "application/statuslist+jwt";

/// The list of status lists (§9.3).
#[derive(Serialize)]
struct Aggregation {
    status_lists: Vec<String>,
}

/// `GET /status-lists`
pub(super) async fn aggregation(
    State(app): State<AppState>,
    Extension(cx): Extension<RequestContext>,
) -> Result<Response, Problem> {
    let status_lists = app.service.list_status_lists(&cx).await?;
    let ttl = app.service.settings().status_list.ttl;
    Ok((cacheable(ttl.as_seconds()), Json(Aggregation { status_lists })).into_response())
}

/// `GET /status-lists/{id}`
pub(super) async fn status_list(
    State(app): State<AppState>,
    Extension(cx): Extension<RequestContext>,
    PathId(id): PathId,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    // A client that requests a historical list must not receive the current one (§8.4).
    if form_urlencoded::parse(query.unwrap_or_default().as_bytes()).any(|(name, _)| name == "time") {
        return Err(ConflictError::HistoryUnsupported.into());
    }
    let id = id.parse().map_err(|_| ConflictError::NotFound("status list"))?;
    let list = app.service.read_status_list(id, &cx).await?;
    // The two encodings have different entity tags (RFC 9110 §8.8.3.3).
    let (body, tag, encoding) = match list.gzipped.clone().filter(|_| prefers_gzip(&headers)) {
        Some(gzipped) => (gzipped, format!("\"{}-gzip\"", list.etag), Some("gzip")),
        None => (list.token.clone(), format!("\"{}\"", list.etag), None),
    };
    let document = document_or_304(&headers, &tag, STATUS_LIST_MEDIA_TYPE, body);
    let is_whole = document.status() == StatusCode::OK;
    let varies = [(header::VARY, header::ACCEPT_ENCODING.as_str())];
    let mut response = (cacheable(list.ttl.as_seconds()), varies, document).into_response();
    if let Some(encoding) = encoding.filter(|_| is_whole) {
        response.headers_mut().insert(header::CONTENT_ENCODING, HeaderValue::from_static(encoding));
    }
    Ok(response)
}
