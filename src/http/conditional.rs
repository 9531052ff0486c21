//! Conditional requests (RFC 9110 §13): a client that has the current version of a document
//! receives no second copy.

use axum::{
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use bytes::Bytes;

/// Returns whether the client already has the version with this tag (RFC 9110 §13.1.2, weak
/// comparison).
pub(super) fn has_current_version(headers: &HeaderMap, tag: &str) -> bool {
    let values = headers.get_all(header::IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    let mut tags = values.flat_map(|value| value.split(',')).map(str::trim);
    tags.any(|sent| sent == "*" || sent.strip_prefix("W/").unwrap_or(sent) == tag)
}

/// Returns the response with a document whose entity tag is `tag`, in quotes: the document, or 304
/// if the client has it. The caller adds the headers that both responses have.
pub(super) fn document_or_304(headers: &HeaderMap, tag: &str, media_type: &'static str, document: Bytes) -> Response {
    let is_current = has_current_version(headers, tag);
    let mut response = if is_current { StatusCode::NOT_MODIFIED.into_response() } else { document.into_response() };
    let headers = response.headers_mut();
    headers.remove(header::CONTENT_TYPE);
    if !is_current {
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
    }
    if let Ok(tag) = HeaderValue::from_str(tag) {
        headers.insert(header::ETAG, tag);
    }
    response
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
