//! Status lists (draft-ietf-oauth-status-list §8): public, and cacheable for their `ttl`.

use axum::{
    Extension, Json,
    extract::{RawQuery, State},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use serde::Serialize;
use url::form_urlencoded;

use crate::{
    app::{ConflictError, RequestContext},
    http::{
        AppState, error::problem::Problem, extract::path::PathId, negotiation::prefers_gzip, oauth::metadata::cacheable,
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
    let is_current = has_current_version(&headers, &tag);
    let (status, body) = if is_current { (StatusCode::NOT_MODIFIED, Bytes::new()) } else { (StatusCode::OK, body) };
    let caching = [(header::ETAG, tag), (header::VARY, header::ACCEPT_ENCODING.to_string())];
    let mut response = (status, cacheable(list.ttl.as_seconds()), caching, body).into_response();
    let headers = response.headers_mut();
    headers.remove(header::CONTENT_TYPE);
    if !is_current {
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(STATUS_LIST_MEDIA_TYPE));
        if let Some(encoding) = encoding {
            headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static(encoding));
        }
    }
    Ok(response)
}

/// Returns whether the client already has the version with this tag (RFC 9110 §13.1.2, weak
/// comparison).
fn has_current_version(headers: &HeaderMap, tag: &str) -> bool {
    let values = headers.get_all(header::IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    let mut tags = values.flat_map(|value| value.split(',')).map(str::trim);
    tags.any(|sent| sent == "*" || sent.strip_prefix("W/").unwrap_or(sent) == tag)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn if_none_match_matches_current_tag() {
        for (sent, is_current) in [
            ("\"abc\"", true),
            ("W/\"abc\"", true),
            ("\"x\", \"abc\"", true),
            ("\"x\" ,W/\"abc\" , \"y\"", true),
            ("*", true),
            ("\"x\"", false),
            ("abc", false),
            ("\"abc-gzip\"", false),
            ("w/\"abc\"", false),
            ("", false),
        ] {
            let headers = [(header::IF_NONE_MATCH, HeaderValue::from_static(sent))].into_iter().collect();
            assert_eq!(has_current_version(&headers, "\"abc\""), is_current, "{sent}");
        }
        assert!(!has_current_version(&HeaderMap::new(), "\"abc\""));
    }
}
