//! A JWS in compact form (RFC 7515 §3.1), taken apart strictly and not yet believed.

use serde_json::{Map, Value};
use thiserror::Error;

use crate::domain::{decode, json, limits::MAX_JWT};

const MAX_HEADER_DEPTH: usize = 4;
const MAX_PAYLOAD_DEPTH: usize = 32;

/// Why a text is no JWS that we look at further.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Malformed {
    /// Longer than 16 KiB.
    #[error("longer than 16384 bytes")]
    TooLong,
    /// Not three parts of canonical base64url.
    #[error("not three parts of base64url")]
    Parts,
    /// The header is no strict JSON object, or has no `alg`.
    #[error("the header is not a JSON object with `alg`")]
    Header,
    /// The header has a parameter that changes how the rest is to be read, or brings its own key.
    #[error("the header has a parameter that is not taken (crit, b64, zip, jwk, jku, x5u)")]
    HeaderParameter,
    /// The payload is no strict JSON object.
    #[error("the payload is not a JSON object, or a member stands in it twice")]
    Payload,
}

/// A compact JWS, taken apart. Nothing in it is believed: see who verifies it.
#[derive(Clone, Debug)]
pub struct Unverified<'a> {
    text: &'a str,
    header: Header,
    payload: Map<String, Value>,
    signature: Vec<u8>,
}

/// The header parameters that we read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// `alg`, as it stands there.
    pub alg: String,
    /// `typ`, lower-cased and without `application/` (RFC 7515 §4.1.9: media type names have no case).
    pub typ: Option<String>,
    /// `kid`. An opaque string: it is compared, never looked up anywhere else.
    pub kid: Option<String>,
}

impl<'a> Unverified<'a> {
    /// Takes a compact JWS apart.
    pub fn parse(text: &'a str) -> Result<Self, Malformed> {
        if text.len() > MAX_JWT {
            return Err(Malformed::TooLong);
        }
        let mut parts = text.split('.');
        let (Some(header), Some(payload), Some(signature), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(Malformed::Parts);
        };
        let bytes = |part: &str| decode(part).filter(|bytes| !bytes.is_empty()).ok_or(Malformed::Parts);
        let (header, payload, signature) = (bytes(header)?, bytes(payload)?, bytes(signature)?);
        let header = parse_header(&header)?;
        let Ok(Value::Object(payload)) = json::parse(&payload, MAX_PAYLOAD_DEPTH) else {
            return Err(Malformed::Payload);
        };
        Ok(Self { text, header, payload, signature })
    }

    /// The header.
    #[must_use]
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The compact form itself.
    #[must_use]
    pub fn text(&self) -> &'a str {
        self.text
    }

    /// What the signature is over (RFC 7515 §5.1): header and payload as they stand there.
    #[must_use]
    pub fn signing_input(&self) -> &'a [u8] {
        self.text.rsplit_once('.').map(|(input, _)| input).unwrap_or_default().as_bytes()
    }

    /// The signature.
    #[must_use]
    pub fn signature(&self) -> &[u8] {
        &self.signature
    }

    /// `iss`, which says whose keys to try and nothing else.
    #[must_use]
    pub fn claimed_issuer(&self) -> Option<&str> {
        self.payload.get("iss").and_then(Value::as_str)
    }

    /// `sub` of a client assertion, which says whose keys to try and nothing else.
    #[must_use]
    pub fn claimed_subject(&self) -> Option<&str> {
        self.payload.get("sub").and_then(Value::as_str)
    }

    /// The payload. To be called by who has just verified the signature, and by nobody else.
    #[must_use]
    pub fn into_payload(self) -> Map<String, Value> {
        self.payload
    }
}

fn parse_header(bytes: &[u8]) -> Result<Header, Malformed> {
    let Ok(Value::Object(header)) = json::parse(bytes, MAX_HEADER_DEPTH) else {
        return Err(Malformed::Header);
    };
    if ["crit", "b64", "zip", "jwk", "jku", "x5u"].iter().any(|name| header.contains_key(*name)) {
        return Err(Malformed::HeaderParameter);
    }
    let text = |name: &str| match header.get(name) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(_) => Err(Malformed::Header),
    };
    let typ = text("typ")?.map(|typ| {
        let typ = typ.to_ascii_lowercase();
        typ.strip_prefix("application/").map(str::to_owned).unwrap_or(typ)
    });
    Ok(Header { alg: text("alg")?.ok_or(Malformed::Header)?, typ, kid: text("kid")? })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::encode;

    fn parsed(header: &str, payload: &str) -> Result<Header, Malformed> {
        let text = format!("{}.{}.{}", encode(header.as_bytes()), encode(payload.as_bytes()), encode(b"sig"));
        Unverified::parse(&text).map(|jws| jws.header().clone())
    }

    #[test]
    fn header_and_payload_are_strict() {
        let header = parsed(r#"{"alg":"ES256","typ":"application/AT+JWT","kid":"../x"}"#, "{}").unwrap();
        assert_eq!((header.typ.as_deref(), header.kid.as_deref()), (Some("at+jwt"), Some("../x")));
        for (header, payload, want) in [
            (r#"{"typ":"JWT"}"#, "{}", Malformed::Header),
            (r#"{"alg":7}"#, "{}", Malformed::Header),
            (r#"{"alg":"ES256","alg":"none"}"#, "{}", Malformed::Header),
            (r#"{"alg":"ES256","typ":1}"#, "{}", Malformed::Header),
            ("[]", "{}", Malformed::Header),
            (r#"{"alg":"ES256","crit":[]}"#, "{}", Malformed::HeaderParameter),
            (r#"{"alg":"ES256","b64":false}"#, "{}", Malformed::HeaderParameter),
            (r#"{"alg":"ES256","jwk":{"kty":"EC"}}"#, "{}", Malformed::HeaderParameter),
            (r#"{"alg":"ES256","jku":"https://evil.example"}"#, "{}", Malformed::HeaderParameter),
            (r#"{"alg":"ES256"}"#, "[]", Malformed::Payload),
            (r#"{"alg":"ES256"}"#, r#"{"sub":"a","sub":"b"}"#, Malformed::Payload),
        ] {
            assert_eq!(parsed(header, payload), Err(want), "{header} {payload}");
        }
    }

    #[test]
    fn one_value_has_one_text() {
        let good = format!("{}.{}.{}", encode(br#"{"alg":"ES256"}"#), encode(b"{}"), encode(b"sigs"));
        assert!(Unverified::parse(&good).is_ok());
        for bad in [
            format!("{good}="),
            format!("{good}.{good}"),
            good.replace('.', ""),
            format!("{}.{}", encode(br#"{"alg":"ES256"}"#), encode(b"{}")),
            format!("{}.{}.", encode(br#"{"alg":"ES256"}"#), encode(b"{}")),
            format!("{}.e31.c2lnc", encode(br#"{"alg":"ES256"}"#)),
            format!("{}.e30.c2lncx", encode(br#"{"alg":"ES256"}"#)),
            good.replace('J', "+"),
            format!(" {good}"),
        ] {
            assert!(Unverified::parse(&bad).is_err(), "{bad}");
        }
        assert!(matches!(Unverified::parse(&"a".repeat(MAX_JWT + 1)), Err(Malformed::TooLong)));
    }
}
