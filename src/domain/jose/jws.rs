//! A JWS in compact form (RFC 7515 §3.1), taken apart strictly and not yet believed.

use std::collections::BTreeSet;

use serde_json::{Map, Value};
use thiserror::Error;

use crate::domain::{decode_base64url, encoding::strict_json, settings::MAX_JWT_BYTES};

const MAX_HEADER_DEPTH: usize = 4;
/// How deep a payload may nest.
pub(in crate::domain) const MAX_PAYLOAD_DEPTH: usize = 32;

/// Why a text is no JWS that we look at further.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum JwsError {
    /// Longer than 16 KiB.
    #[error("longer than 16384 bytes")]
    TooLong,
    /// Not three parts of canonical base64url.
    #[error("not three parts of base64url")]
    InvalidEncoding,
    /// The header is no strict JSON object, or has no `alg`.
    #[error("the header is not a JSON object with `alg`")]
    InvalidHeader,
    /// The header has a parameter that changes how the rest is to be read, or brings its own key.
    #[error("the header has a parameter that is not taken (crit, b64, zip, jwk, jku, x5u)")]
    UnsupportedHeaderParameter,
    /// The payload is no strict JSON object.
    #[error("the payload is not a JSON object, or a member stands in it twice")]
    InvalidPayload,
}

/// A compact JWS, taken apart, and what stands in the parts not looked at yet. Nothing in it is believed: see who verifies
/// it.
#[derive(Clone, Debug)]
pub struct CompactJws<'a> {
    text: &'a str,
    signing_input: &'a str,
    encoded_header: &'a str,
    payload: Vec<u8>,
    signature: Vec<u8>,
}

/// The same, and header and payload read.
#[derive(Clone, Debug)]
pub struct UnverifiedJws<'a> {
    compact: CompactJws<'a>,
    header: JwsHeader,
    payload: Map<String, Value>,
}

/// The header parameters that we read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JwsHeader {
    /// `alg`, as it stands there.
    pub alg: String,
    /// `typ`, lower-cased and without `application/` (RFC 7515 §4.1.9: media type names have no case).
    pub typ: Option<String>,
    /// `kid`. An opaque string: it is compared, never looked up anywhere else.
    pub kid: Option<String>,
}

impl<'a> CompactJws<'a> {
    /// Takes a compact JWS apart.
    pub fn parse(text: &'a str) -> Result<Self, JwsError> {
        if text.len() > MAX_JWT_BYTES {
            return Err(JwsError::TooLong);
        }
        let (signed, signature) = text.rsplit_once('.').ok_or(JwsError::InvalidEncoding)?;
        // A fourth part would show here: a dot is none of the characters.
        let (head, payload) = signed.split_once('.').ok_or(JwsError::InvalidEncoding)?;
        Ok(Self {
            text,
            signing_input: signed,
            encoded_header: head,
            payload: decode_part(payload)?,
            signature: decode_part(signature)?,
        })
    }

    /// Reads header and payload.
    pub fn read(self) -> Result<UnverifiedJws<'a>, JwsError> {
        let header = self.decode_header()?;
        match strict_json::parse(&self.payload, MAX_PAYLOAD_DEPTH) {
            Ok(Value::Object(payload)) => Ok(UnverifiedJws { compact: self, header, payload }),
            _ => Err(JwsError::InvalidPayload),
        }
    }

    /// The header as it was sent, in base64url.
    #[must_use]
    pub fn encoded_header(&self) -> &'a str {
        self.encoded_header
    }

    /// Reads the header.
    pub fn decode_header(&self) -> Result<JwsHeader, JwsError> {
        parse_header(&decode_part(self.encoded_header)?)
    }

    /// What the signature is over (RFC 7515 §5.1): header and payload as they stand there.
    #[must_use]
    pub fn signing_input(&self) -> &'a [u8] {
        self.signing_input.as_bytes()
    }

    /// The signature.
    #[must_use]
    pub fn signature(&self) -> &[u8] {
        &self.signature
    }

    /// The payload as it was sent. To be called by who has just verified the signature, and by nobody else.
    #[must_use]
    pub fn into_payload(self) -> Vec<u8> {
        self.payload
    }
}

fn decode_part(part: &str) -> Result<Vec<u8>, JwsError> {
    decode_base64url(part).filter(|bytes| !bytes.is_empty()).ok_or(JwsError::InvalidEncoding)
}

impl<'a> UnverifiedJws<'a> {
    /// Takes a compact JWS apart.
    pub fn parse(text: &'a str) -> Result<Self, JwsError> {
        CompactJws::parse(text)?.read()
    }

    /// The header.
    #[must_use]
    pub fn header(&self) -> &JwsHeader {
        &self.header
    }

    /// The compact form itself.
    #[must_use]
    pub fn text(&self) -> &'a str {
        self.compact.text
    }

    /// What the signature is over (RFC 7515 §5.1): header and payload as they stand there.
    #[must_use]
    pub fn signing_input(&self) -> &'a [u8] {
        self.compact.signing_input()
    }

    /// The signature.
    #[must_use]
    pub fn signature(&self) -> &[u8] {
        self.compact.signature()
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

/// Whoever verifies tokens of ours reads them in another way.
impl<'a> From<UnverifiedJws<'a>> for CompactJws<'a> {
    fn from(jws: UnverifiedJws<'a>) -> Self {
        jws.compact
    }
}

fn parse_header(bytes: &[u8]) -> Result<JwsHeader, JwsError> {
    let mut read = HeaderParameters::default();
    strict_json::for_each_member(bytes, MAX_HEADER_DEPTH, |name, value| read.insert(name, value))
        .map_err(|_| JwsError::InvalidHeader)?;
    if read.has_unsupported {
        return Err(JwsError::UnsupportedHeaderParameter);
    }
    let text = |value| match value {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(JwsError::InvalidHeader),
    };
    let typ = text(read.typ)?.map(|mut typ| {
        typ.make_ascii_lowercase();
        typ.strip_prefix("application/").map(str::to_owned).unwrap_or(typ)
    });
    Ok(JwsHeader { alg: text(read.alg)?.ok_or(JwsError::InvalidHeader)?, typ, kid: text(read.kid)? })
}

/// The header parameters, as far as they are of interest.
#[derive(Default)]
struct HeaderParameters {
    alg: Option<Value>,
    typ: Option<Value>,
    kid: Option<Value>,
    has_unsupported: bool,
    others: BTreeSet<String>,
}

impl HeaderParameters {
    /// Takes one; says whether it is the first one of its name.
    fn insert(&mut self, name: &str, value: Value) -> bool {
        match name {
            "alg" => self.alg.replace(value).is_none(),
            "typ" => self.typ.replace(value).is_none(),
            "kid" => self.kid.replace(value).is_none(),
            _ => {
                self.has_unsupported |= matches!(name, "crit" | "b64" | "zip" | "jwk" | "jku" | "x5u");
                self.others.insert(name.to_owned())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::domain::encode_base64url;

    fn parse_with_header(header: &str, payload: &str) -> Result<JwsHeader, JwsError> {
        let text = format!(
            "{}.{}.{}",
            encode_base64url(header.as_bytes()),
            encode_base64url(payload.as_bytes()),
            encode_base64url(b"sig")
        );
        UnverifiedJws::parse(&text).map(|jws| jws.header().clone())
    }

    #[test]
    fn header_and_payload_are_strict() {
        let header = parse_with_header(r#"{"alg":"ES256","typ":"application/AT+JWT","kid":"../x"}"#, "{}").unwrap();
        assert_eq!((header.typ.as_deref(), header.kid.as_deref()), (Some("at+jwt"), Some("../x")));
        for (header, payload, want) in [
            (r#"{"typ":"JWT"}"#, "{}", JwsError::InvalidHeader),
            (r#"{"alg":7}"#, "{}", JwsError::InvalidHeader),
            (r#"{"alg":"ES256","alg":"none"}"#, "{}", JwsError::InvalidHeader),
            (r#"{"alg":"ES256","typ":1}"#, "{}", JwsError::InvalidHeader),
            ("[]", "{}", JwsError::InvalidHeader),
            (r#"{"alg":"ES256","crit":[]}"#, "{}", JwsError::UnsupportedHeaderParameter),
            (r#"{"alg":"ES256","b64":false}"#, "{}", JwsError::UnsupportedHeaderParameter),
            (r#"{"alg":"ES256","jwk":{"kty":"EC"}}"#, "{}", JwsError::UnsupportedHeaderParameter),
            (r#"{"alg":"ES256","jku":"https://evil.example"}"#, "{}", JwsError::UnsupportedHeaderParameter),
            (r#"{"alg":"ES256"}"#, "[]", JwsError::InvalidPayload),
            (r#"{"alg":"ES256"}"#, r#"{"sub":"a","sub":"b"}"#, JwsError::InvalidPayload),
        ] {
            assert_eq!(parse_with_header(header, payload), Err(want), "{header} {payload}");
        }
    }

    /// The same by way of a tree of values.
    fn reference_header(bytes: &[u8]) -> Result<JwsHeader, JwsError> {
        let Ok(Value::Object(header)) = strict_json::parse(bytes, MAX_HEADER_DEPTH) else {
            return Err(JwsError::InvalidHeader);
        };
        if ["crit", "b64", "zip", "jwk", "jku", "x5u"].iter().any(|name| header.contains_key(*name)) {
            return Err(JwsError::UnsupportedHeaderParameter);
        }
        let text = |name: &str| match header.get(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.clone())),
            Some(_) => Err(JwsError::InvalidHeader),
        };
        let typ = text("typ")?.map(|typ| typ.to_ascii_lowercase());
        let typ = typ.map(|typ| typ.strip_prefix("application/").map(str::to_owned).unwrap_or(typ));
        Ok(JwsHeader { alg: text("alg")?.ok_or(JwsError::InvalidHeader)?, typ, kid: text("kid")? })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2048))]

        #[test]
        fn parse_header_agrees_with_value_tree_reference(
            members in proptest::collection::vec(
                (
                    "(alg|typ|kid|crit|b64|jwk|x5t|x|\\\\u0061lg|k\\\\u0069d)",
                    "(\"(ES256|JWT|APPLICATION/at.jwt|\\\\u00e9|\\\\ud800)\"|1|null|1e400|\\{\"a\":1(,\"a\":1)?\\}|\\[{1,4}1\\]{1,4}|\\[{4}\\]{4}|(\\{\"a\":){2,4}\\{\\}\\}{2,4})",
                ),
                0..5,
            ),
            tail in "( |\\{|x)?",
        ) {
            let members = members.iter().map(|(name, value)| format!("\"{name}\":{value}")).collect::<Vec<_>>();
            let text = format!("{{\"alg\":\"ES256\"{}{}}}{tail}", if members.is_empty() { "" } else { "," }, members.join(","));
            prop_assert_eq!(parse_header(text.as_bytes()), reference_header(text.as_bytes()), "{}", text);
            let text = text.replacen("\"alg\":\"ES256\",", "", 1);
            prop_assert_eq!(parse_header(text.as_bytes()), reference_header(text.as_bytes()), "{}", text);
        }
    }

    #[test]
    fn jws_in_non_canonical_form_is_rejected() {
        let good = format!(
            "{}.{}.{}",
            encode_base64url(br#"{"alg":"ES256"}"#),
            encode_base64url(b"{}"),
            encode_base64url(b"sigs")
        );
        assert!(UnverifiedJws::parse(&good).is_ok());
        for bad in [
            format!("{good}="),
            format!("{good}.{good}"),
            good.replace('.', ""),
            format!("{}.{}", encode_base64url(br#"{"alg":"ES256"}"#), encode_base64url(b"{}")),
            format!("{}.{}.", encode_base64url(br#"{"alg":"ES256"}"#), encode_base64url(b"{}")),
            format!("{}.e31.c2lnc", encode_base64url(br#"{"alg":"ES256"}"#)),
            format!("{}.e30.c2lncx", encode_base64url(br#"{"alg":"ES256"}"#)),
            good.replace('J', "+"),
            format!(" {good}"),
        ] {
            assert!(UnverifiedJws::parse(&bad).is_err(), "{bad}");
        }
        assert!(matches!(UnverifiedJws::parse(&"a".repeat(MAX_JWT_BYTES + 1)), Err(JwsError::TooLong)));
    }
}
