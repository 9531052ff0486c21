//! What a caller wants to be answered in (RFC 9110 §12.5).

use axum::http::{HeaderMap, HeaderName, header};

/// Whether `Accept` names this media type.
pub(super) fn wants(headers: &HeaderMap, media_type: &str) -> bool {
    is_named(headers, header::ACCEPT, media_type)
}

fn is_named(headers: &HeaderMap, header: HeaderName, wanted: &str) -> bool {
    let accepted = headers.get_all(header).iter().filter_map(|value| value.to_str().ok());
    accepted.flat_map(|value| value.split(',')).any(|range| {
        let mut parts = range.split(';').map(str::trim);
        let named = parts.next().is_some_and(|name| name.eq_ignore_ascii_case(wanted));
        named && !parts.any(is_refusal)
    })
}

/// Whether `Accept-Encoding` names gzip (RFC 9110 §12.5.3).
pub(super) fn takes_gzip(headers: &HeaderMap) -> bool {
    is_named(headers, header::ACCEPT_ENCODING, "gzip")
}

/// RFC 9110 §12.4.2: a weight of zero means "not this one".
fn is_refusal(parameter: &str) -> bool {
    let weight = parameter.split_once('=').filter(|(name, _)| name.trim().eq_ignore_ascii_case("q"));
    weight.is_some_and(|(_, weight)| weight.trim().parse::<f32>().is_ok_and(|weight| weight <= 0.0))
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    #[test]
    fn who_wants_it_signed() {
        for (accept, signed) in [
            ("application/token-introspection+jwt", true),
            ("application/json, Application/Token-Introspection+JWT;q=0.5", true),
            ("application/token-introspection+jwt; q=0", false),
            ("application/token-introspection+jwt;Q=0.000, application/json", false),
            ("application/json", false),
            ("*/*", false),
        ] {
            let headers = [(header::ACCEPT, HeaderValue::from_static(accept))].into_iter().collect();
            assert_eq!(wants(&headers, "application/token-introspection+jwt"), signed, "{accept}");
        }
    }

    #[test]
    fn who_takes_it_gzipped() {
        for (accept, takes) in
            [("gzip", true), ("br, GZIP;q=0.5", true), ("gzip;q=0", false), ("br", false), ("identity", false)]
        {
            let headers = [(header::ACCEPT_ENCODING, HeaderValue::from_static(accept))].into_iter().collect();
            assert_eq!(takes_gzip(&headers), takes, "{accept}");
        }
        assert!(!takes_gzip(&HeaderMap::new()));
    }
}
