//! What a caller wants to be answered in (RFC 9110 §12.5).

use axum::http::{HeaderMap, HeaderName, header};

/// Whether `Accept` names this media type.
pub(super) fn accepts(headers: &HeaderMap, media_type: &str) -> bool {
    is_listed(headers, header::ACCEPT, media_type)
}

fn is_listed(headers: &HeaderMap, header: HeaderName, wanted: &str) -> bool {
    let accepted = headers.get_all(header).iter().filter_map(|value| value.to_str().ok());
    accepted.flat_map(|value| value.split(',')).any(|range| {
        let mut parts = range.split(';').map(str::trim);
        let named = parts.next().is_some_and(|name| name.eq_ignore_ascii_case(wanted));
        named && !parts.any(is_rejected)
    })
}

/// Whether `Accept-Encoding` names gzip (RFC 9110 §12.5.3).
pub(super) fn accepts_gzip(headers: &HeaderMap) -> bool {
    is_listed(headers, header::ACCEPT_ENCODING, "gzip")
}

/// RFC 9110 §12.4.2: a weight of zero means "not this one".
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
        for (accept, signed) in [
            ("application/token-introspection+jwt", true),
            ("application/json, Application/Token-Introspection+JWT;q=0.5", true),
            ("application/token-introspection+jwt; q=0", false),
            ("application/token-introspection+jwt;Q=0.000, application/json", false),
            ("application/json", false),
            ("*/*", false),
        ] {
            let headers = [(header::ACCEPT, HeaderValue::from_static(accept))].into_iter().collect();
            assert_eq!(accepts(&headers, "application/token-introspection+jwt"), signed, "{accept}");
        }
    }

    #[test]
    fn accept_encoding_header_selects_gzip() {
        for (accept, takes) in
            [("gzip", true), ("br, GZIP;q=0.5", true), ("gzip;q=0", false), ("br", false), ("identity", false)]
        {
            let headers = [(header::ACCEPT_ENCODING, HeaderValue::from_static(accept))].into_iter().collect();
            assert_eq!(accepts_gzip(&headers), takes, "{accept}");
        }
        assert!(!accepts_gzip(&HeaderMap::new()));
    }
}
