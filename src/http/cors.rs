//! Cross-origin reads of public documents: metadata, JWKS, status lists, the API description (Fetch
//! standard §3.2). No other response is readable from another origin.

use axum::{
    http::{HeaderMap, HeaderValue, Method, StatusCode, header},
    response::{IntoResponse, Response},
};

/// Seconds for which a browser may remember the answer to a preflight request.
const PREFLIGHT_MAX_AGE: &str = "86400";

/// Returns whether the document at this path is public, so that scripts of any origin may read it.
pub(super) fn is_public_document(path: &str) -> bool {
    matches!(
        path,
        "/.well-known/oauth-authorization-server"
            | "/.well-known/authzen-configuration"
            | "/oauth2/jwks"
            | "/status-lists"
            | "/openapi.yaml"
            | "/openapi.json"
    ) || path.starts_with("/status-lists/")
}

/// Makes a response readable from any origin, with the headers that a verifier needs.
pub(super) fn allow_any_origin(headers: &mut HeaderMap) {
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static("etag, retry-after, x-request-id"));
}

/// Returns the answer to a preflight request for a public document: it may be read with any header
/// but without credentials.
pub(super) fn answer_preflight(method: &Method, path: &str, headers: &HeaderMap) -> Option<Response> {
    let is_preflight = *method == Method::OPTIONS
        && headers.contains_key(header::ORIGIN)
        && headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
    (is_preflight && is_public_document(path)).then(|| {
        let allowed = [
            (header::ACCESS_CONTROL_ALLOW_METHODS, "GET, HEAD"),
            (header::ACCESS_CONTROL_ALLOW_HEADERS, "*"),
            (header::ACCESS_CONTROL_MAX_AGE, PREFLIGHT_MAX_AGE),
        ];
        (StatusCode::NO_CONTENT, allowed).into_response()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn preflight_is_answered_for_public_documents_only() {
        let preflight = [(header::ORIGIN, "https://app.example.com"), (header::ACCESS_CONTROL_REQUEST_METHOD, "GET")];
        let headers = |pairs: &[(header::HeaderName, &'static str)]| {
            pairs.iter().map(|(name, value)| (name.clone(), HeaderValue::from_static(value))).collect::<HeaderMap>()
        };
        for (method, path, sent, is_answered) in [
            (Method::OPTIONS, "/oauth2/jwks", &preflight[..], true),
            (Method::OPTIONS, "/.well-known/oauth-authorization-server", &preflight, true),
            (Method::OPTIONS, "/.well-known/authzen-configuration", &preflight, true),
            (Method::OPTIONS, "/access/v1/evaluation", &preflight, false),
            (Method::OPTIONS, "/status-lists", &preflight, true),
            (Method::OPTIONS, "/status-lists/1", &preflight, true),
            (Method::OPTIONS, "/oauth2/token", &preflight, false),
            (Method::OPTIONS, "/oauth2/introspect", &preflight, false),
            (Method::OPTIONS, "/v1/admin/revocations", &preflight, false),
            (Method::OPTIONS, "/revocations", &preflight, false),
            (Method::OPTIONS, "/status-lists-of-others", &preflight, false),
            (Method::OPTIONS, "/oauth2/jwks", &preflight[..1], false),
            (Method::OPTIONS, "/oauth2/jwks", &[], false),
            (Method::POST, "/oauth2/jwks", &preflight, false),
        ] {
            let answer = answer_preflight(&method, path, &headers(sent));
            assert_eq!(answer.is_some(), is_answered, "{method} {path} {sent:?}");
        }
    }
}
