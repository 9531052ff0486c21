//! The `Idempotency-Key` header (draft-ietf-httpapi-idempotency-key-header).

use axum::{
    extract::FromRequestParts,
    http::{HeaderMap, request::Parts},
};

use crate::{app::RequestError, http::error::problem::Problem};

/// The idempotency key of a request, if it has one.
#[derive(Debug)]
pub(in crate::http) struct IdempotencyKey(pub Option<String>);

impl<S: Send + Sync> FromRequestParts<S> for IdempotencyKey {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        Ok(Self(parse_key(&parts.headers)?))
    }
}

fn parse_key(headers: &HeaderMap) -> Result<Option<String>, RequestError> {
    let mut keys = headers.get_all("idempotency-key").iter();
    let (Some(key), duplicate) = (keys.next(), keys.next()) else { return Ok(None) };
    // `to_str` accepts tabs.
    let is_printable = |text: &&str| text.bytes().all(|b| matches!(b, b' '..=b'~'));
    let text = key.to_str().ok().filter(is_printable);
    let text = text.filter(|text| (1..=255).contains(&text.len()) && duplicate.is_none());
    let rule = "must be one key of 1 to 255 printable ASCII characters";
    text.map(|text| Some(text.to_owned())).ok_or(RequestError::InvalidParameter("idempotency-key", rule))
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    #[test]
    fn keys_are_validated() {
        let (longest, too_long) = ("x".repeat(255), "x".repeat(256));
        for (keys, expected) in [
            (&[][..], Ok(None)),
            (&["2b1f"], Ok(Some("2b1f"))),
            (&[&longest], Ok(Some(&longest))),
            (&[""], Err(())),
            (&[&too_long], Err(())),
            (&["a", "a"], Err(())),
            (&["a b~!"], Ok(Some("a b~!"))),
            (&["a\tb"], Err(())),
        ] {
            let headers = keys.iter().map(|key| ("idempotency-key".parse().unwrap(), key.parse().unwrap()));
            let parsed = parse_key(&headers.collect()).map_err(|_| ());
            assert_eq!(parsed, expected.map(|key| key.map(str::to_owned)), "{keys:?}");
        }
        // Every byte that a header may contain.
        for byte in (0..=255).filter(|byte| !matches!(byte, b'\0' | b'\n' | b'\r')) {
            let Ok(value) = HeaderValue::from_bytes(&[b'a', byte, b'b']) else { continue };
            let headers = [("idempotency-key".parse().unwrap(), value)].into_iter().collect();
            assert_eq!(parse_key(&headers).is_ok(), (0x20..0x7f).contains(&byte), "{byte:#x}");
        }
    }
}
