//! Content negotiation (RFC 9110 §12.5).

use axum::http::{HeaderMap, HeaderName, header};

/// A weight in thousandths (RFC 9110 §12.4.2). Zero means "not acceptable".
type Weight = u16;

/// Returns whether the client prefers `media_type` to JSON, which is the default: `Accept` names
/// it, with a weight that is not lower than that of JSON.
pub(super) fn prefers(headers: &HeaderMap, media_type: &str) -> bool {
    let Some(weight) = named_weight(headers, header::ACCEPT, media_type).filter(|weight| *weight > 0) else {
        return false;
    };
    weight >= named_weight(headers, header::ACCEPT, "application/json").unwrap_or_default()
}

/// Returns whether `Accept` gives `preferred` a higher weight than `other` (RFC 9110 §12.5.1).
/// Without the header, or with equal weights, it does not.
pub(super) fn prefers_over(headers: &HeaderMap, preferred: &str, other: &str) -> bool {
    weight(headers, preferred) > weight(headers, other)
}

/// Returns the weight of a media type in thousandths: that of the most specific range that matches.
fn weight(headers: &HeaderMap, media_type: &str) -> Weight {
    let group = media_type.split_once('/').map_or(media_type, |(group, _)| group);
    let accepted = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let ranges = accepted.flat_map(|value| value.split(',')).filter_map(|range| {
        let mut parts = range.split(';').map(str::trim);
        let name = parts.next()?.to_ascii_lowercase();
        let specificity = match name.split_once('/')? {
            ("*", "*") => 0,
            (range_group, "*") if range_group == group => 1,
            _ if name == media_type => 2,
            _ => return None,
        };
        let weight = parts.find_map(parse_weight);
        Some((specificity, weight.unwrap_or(1000)))
    });
    ranges.max().map_or(0, |(_, weight)| weight)
}

/// Returns whether the client prefers gzip to no encoding: `Accept-Encoding` names it, with a
/// weight that is not lower than that of `identity` (RFC 9110 §12.5.3).
pub(super) fn prefers_gzip(headers: &HeaderMap) -> bool {
    let weight = named_weight(headers, header::ACCEPT_ENCODING, "gzip").unwrap_or_default();
    weight > 0 && weight >= named_weight(headers, header::ACCEPT_ENCODING, "identity").unwrap_or_default()
}

/// Returns the weight with which a header names a media type or an encoding. A range such as `*/*`
/// does not name one. Of several weights, the highest counts.
fn named_weight(headers: &HeaderMap, header: HeaderName, name: &str) -> Option<Weight> {
    let values = headers.get_all(header).iter().filter_map(|value| value.to_str().ok());
    let weights = values.flat_map(|value| value.split(',')).filter_map(|range| {
        let mut parts = range.split(';').map(str::trim);
        let is_named = parts.next().is_some_and(|part| part.eq_ignore_ascii_case(name));
        is_named.then(|| parts.find_map(parse_weight).unwrap_or(1000))
    });
    weights.max()
}

/// Parses a parameter that is a weight: `q=` and a number from 0 to 1 with at most three decimals.
/// A malformed weight is zero. Returns `None` for another parameter.
fn parse_weight(parameter: &str) -> Option<Weight> {
    let (_, value) = parameter.split_once('=').filter(|(name, _)| name.trim().eq_ignore_ascii_case("q"))?;
    let (whole, decimals) = value.trim().split_once('.').unwrap_or((value.trim(), ""));
    let has_form = matches!(whole, "0" | "1") && decimals.len() <= 3 && decimals.bytes().all(|b| b.is_ascii_digit());
    let thousandths = has_form.then(|| format!("{whole}{decimals:0<3}").parse().ok()).flatten();
    Some(thousandths.filter(|weight| *weight <= 1000).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn headers(name: &HeaderName, values: &[&'static str]) -> HeaderMap {
        values.iter().map(|value| (name.clone(), HeaderValue::from_static(value))).collect()
    }

    #[test]
    fn accept_header_selects_signed_response() {
        for (accept, is_signed) in [
            (&["application/token-introspection+jwt"][..], true),
            (&["application/json, application/token-introspection+jwt"], true),
            (&["application/json;q=0.5, Application/Token-Introspection+JWT;q=0.5"], true),
            (&["application/json;q=0.4, application/token-introspection+jwt;q=0.5"], true),
            (&["application/json; q=0.999", "application/token-introspection+jwt; q=1.000"], true),
            (&["application/token-introspection+jwt;q=0.1, */*"], true),
            (&["application/json, Application/Token-Introspection+JWT;q=0.5"], false),
            (&["application/token-introspection+jwt;q=0.1", "application/json;q=0.2"], false),
            (&["application/token-introspection+jwt; q=0"], false),
            (&["application/token-introspection+jwt;Q=0.000, application/json"], false),
            (&["application/token-introspection+jwt;q=0, application/json;q=0"], false),
            (&["application/token-introspection+jwt;q=x, application/json"], false),
            (&["application/token-introspection+jwt;q=2"], false),
            (&["application/token-introspection+jwt;q=1.001"], false),
            (&["application/token-introspection+jwt;q=-1"], false),
            (&["application/token-introspection+jwt;q="], false),
            (&["application/token-introspection+jwt;q=0.1234"], false),
            (&["application/token-introspection+jwt;v=1;q=0.5"], true),
            (&["application/json"], false),
            (&["application/*"], false),
            (&["*/*"], false),
            (&[], false),
        ] {
            let headers = headers(&header::ACCEPT, accept);
            assert_eq!(prefers(&headers, "application/token-introspection+jwt"), is_signed, "{accept:?}");
        }
    }

    #[test]
    fn accept_weights_decide_between_media_types() {
        let prometheus = "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3,*/*;q=0.1";
        for (accept, is_preferred) in [
            (prometheus, true),
            ("application/openmetrics-text", true),
            ("application/openmetrics-text;q=0.3, text/plain;q=0.5", false),
            ("text/plain", false),
            ("*/*", false),
            ("*/*;q=0.5, application/openmetrics-text;q=0.6", true),
            ("application/*", true),
            ("application/openmetrics-text;q=0, */*", false),
            ("application/openmetrics-text;q=2", false),
            ("Application/OpenMetrics-Text; Q=0.001", true),
            ("application/openmetrics-text;q=0.0001", false),
            ("", false),
        ] {
            let headers = [(header::ACCEPT, axum::http::HeaderValue::from_static(accept))].into_iter().collect();
            assert_eq!(prefers_over(&headers, "application/openmetrics-text", "text/plain"), is_preferred, "{accept}");
        }
        assert!(!prefers_over(&HeaderMap::new(), "application/openmetrics-text", "text/plain"));
    }

    #[test]
    fn accept_encoding_header_selects_gzip() {
        for (accept, is_accepted) in [
            ("gzip", true),
            ("br, GZIP;q=0.5", true),
            ("gzip, identity", true),
            ("gzip;q=0.5, identity", false),
            ("gzip;q=0", false),
            ("br", false),
            ("identity", false),
        ] {
            assert_eq!(prefers_gzip(&headers(&header::ACCEPT_ENCODING, &[accept])), is_accepted, "{accept}");
        }
        assert!(!prefers_gzip(&HeaderMap::new()));
    }
}
