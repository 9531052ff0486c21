//! Headers that every response has: they keep browsers from caching, guessing, framing and leaking.

use axum::http::{HeaderMap, HeaderName, HeaderValue, header};

use crate::http::cors::allow_any_origin;

/// A year, as browsers' lists of HTTPS sites require (RFC 6797 §6.1.1).
const HSTS: HeaderValue = HeaderValue::from_static("max-age=31536000");
/// Nothing may be loaded by a response or frame it. A page sets its own policy.
const CONTENT_SECURITY_POLICY: HeaderValue = HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'");

/// Which headers every response has.
#[derive(Clone, Copy, Debug)]
pub(super) struct ResponseHeaders {
    /// Whether clients reach the server by HTTPS.
    pub(super) is_https: bool,
}

impl ResponseHeaders {
    /// Adds the headers that a handler did not set. `is_public` is whether scripts of any origin
    /// may read the response.
    pub(super) fn apply(self, is_public: bool, headers: &mut HeaderMap) {
        let mut add = |name: HeaderName, value: HeaderValue| {
            headers.entry(name).or_insert(value);
        };
        add(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        add(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        add(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
        add(header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
        add(header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY);
        if self.is_https {
            add(header::STRICT_TRANSPORT_SECURITY, HSTS);
        }
        if is_public {
            allow_any_origin(headers);
        }
    }
}
