//! Content negotiation (RFC 9110 §12.5).

use axum::http::{HeaderMap, HeaderName, header};

/// Returns whether `Accept` names this media type.
pub(super) fn accepts(headers: &HeaderMap, media_type: &str) -> bool {
    is_listed(headers, header::ACCEPT, media_type)
}

fn is_listed(headers: &HeaderMap, header: HeaderName, name: &str) -> bool {
    let accepted = headers.get_all(header).iter().filter_map(|value| value.to_str().ok());
    accepted.flat_map(|value| value.split(',')).any(|range| {
        let mut parts = range.split(';').map(str::trim);
        let is_named = parts.next().is_some_and(|part| part.eq_ignore_ascii_case(name));
        is_named && !parts.any(is_rejected)
    })
}

/// Returns whether `Accept-Encoding` names gzip (RFC 9110 §12.5.3).
pub(super) fn accepts_gzip(headers: &HeaderMap) -> bool {
    is_listed(headers, header::ACCEPT_ENCODING, "gzip")
}

/// Returns whether this is a weight of zero, which means "not acceptable" (RFC 9110 §12.4.2).
fn is_rejected(parameter: &str) -> bool {
    let weight = parameter.split_once('=').filter(|(name, _)| name.trim().eq_ignore_ascii_case("q"));
    weight.is_some_and(|(_, weight)| weight.trim().parse::<f32>().is_ok_and(|weight| weight <= 0.0))
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    #[test]
    fn accept_header_selects_signed_response() {
        for (accept, is_signed) in [
            ("application/token-introspection+jwt", true),
            ("application/json, Application/Token-Introspection+JWT;q=0.5", true),
            ("application/token-introspection+jwt; q=0", false),
            ("application/token-introspection+jwt;Q=0.000, application/json", false),
            ("application/json", false),
            ("*/*", false),
        ] {
            let headers = [(header::ACCEPT, HeaderValue::from_static(accept))].into_iter().collect();
            assert_eq!(accepts(&headers, "application/token-introspection+jwt"), is_signed, "{accept}");
        }
    }

    #[test]
    fn accept_encoding_header_selects_gzip() {
        for (accept, is_accepted) in
            [("gzip", true), ("br, GZIP;q=0.5", true), ("gzip;q=0", false), ("br", false), ("identity", false)]
        {
            let headers = [(header::ACCEPT_ENCODING, HeaderValue::from_static(accept))].into_iter().collect();
            assert_eq!(accepts_gzip(&headers), is_accepted, "{accept}");
        }
        assert!(!accepts_gzip(&HeaderMap::new()));
    }
}
