//! Strict parsing of compact JWS (RFC 7515 §3.1) before verification.

use std::collections::BTreeSet;

use serde_json::{Map, Value};
use thiserror::Error;

use crate::domain::{decode_base64url, encoding::strict_json, settings::MAX_JWT_BYTES};

const MAX_HEADER_DEPTH: usize = 4;
/// Maximum nesting depth of a payload.
pub(in crate::domain) const MAX_PAYLOAD_DEPTH: usize = 32;

/// Why a text is not an acceptable JWS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum JwsError {
    /// The text is longer than 16 KiB.
    #[error("the token is longer than 16384 bytes")]
    TooLong,
    /// The text is not three parts of canonical base64url.
    #[error("the token is not three base64url parts")]
    InvalidEncoding,
    /// The text has no parts.
    #[error("the token is not a JWT but an opaque text; have its issuer give out a JWT for this server")]
    Opaque,
    /// The text has the five parts of a compact JWE (RFC 7516 §3.1).
    #[error("the token is encrypted (JWE); have its issuer give out a JWT that is only signed")]
    Encrypted,
    /// The signature is empty (RFC 7515 appendix A.5).
    #[error("the token is not signed; the algorithm `none` is not accepted")]
    Unsigned,
    /// The header is not a strict JSON object with `alg`.
    #[error("the JOSE header is not a JSON object with `alg`")]
    InvalidHeader,
    /// The header has a parameter that changes the interpretation of the rest.
    #[error("unsupported JOSE header parameter (crit, b64, zip)")]
    UnsupportedHeaderParameter,
    /// The payload is not a strict JSON object.
    #[error("the payload is not a JSON object, or has a duplicate member")]
    InvalidPayload,
}

/// A compact JWS split into its parts, which are not parsed yet. Nothing in it is trusted before
/// the signature is verified.
#[derive(Clone, Debug)]
pub struct CompactJws<'a> {
    text: &'a str,
    signing_input: &'a str,
    encoded_header: &'a str,
    payload: Vec<u8>,
    signature: Vec<u8>,
}

/// A compact JWS with parsed header and payload, not yet verified.
#[derive(Clone, Debug)]
pub struct UnverifiedJws<'a> {
    compact: CompactJws<'a>,
    header: JwsHeader,
    payload: Map<String, Value>,
}

/// The header parameters that are evaluated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JwsHeader {
    /// `alg`, verbatim.
    pub alg: String,
    /// `typ`, in lower case and without `application/` (RFC 7515 §4.1.9: media type names are
    /// case-insensitive).
    pub typ: Option<String>,
    /// `kid`. An opaque string that is compared and never used for any other look-up.
    pub kid: Option<String>,
}

impl<'a> CompactJws<'a> {
    /// Splits a compact JWS into its parts.
    pub fn parse(text: &'a str) -> Result<Self, JwsError> {
        if text.len() > MAX_JWT_BYTES {
            return Err(JwsError::TooLong);
        }
        let (signed, signature) = text.rsplit_once('.').ok_or(JwsError::Opaque)?;
        if text.bytes().filter(|byte| *byte == b'.').count() == 4 {
            return Err(JwsError::Encrypted);
        }
        // A fourth part is detected here, because a dot is not a base64url character.
        let (head, payload) = signed.split_once('.').ok_or(JwsError::InvalidEncoding)?;
        if signature.is_empty() {
            return Err(JwsError::Unsigned);
        }
        Ok(Self {
            text,
            signing_input: signed,
            encoded_header: head,
            payload: decode_part(payload)?,
            signature: decode_part(signature)?,
        })
    }

    /// Parses header and payload.
    pub fn read(self) -> Result<UnverifiedJws<'a>, JwsError> {
        let header = self.decode_header()?;
        match strict_json::parse(&self.payload, MAX_PAYLOAD_DEPTH) {
            Ok(Value::Object(payload)) => Ok(UnverifiedJws { compact: self, header, payload }),
            _ => Err(JwsError::InvalidPayload),
        }
    }

    /// Returns the header as sent, in base64url.
    #[must_use]
    pub fn encoded_header(&self) -> &'a str {
        self.encoded_header
    }

    /// Parses the header.
    pub fn decode_header(&self) -> Result<JwsHeader, JwsError> {
        parse_header(&decode_part(self.encoded_header)?)
    }

    /// Returns the signing input (RFC 7515 §5.1): header and payload as sent.
    #[must_use]
    pub fn signing_input(&self) -> &'a [u8] {
        self.signing_input.as_bytes()
    }

    /// Returns the signature.
    #[must_use]
    pub fn signature(&self) -> &[u8] {
        &self.signature
    }

    /// Returns the payload as sent. Call this only right after verifying the signature.
    #[must_use]
    pub fn into_payload(self) -> Vec<u8> {
        self.payload
    }
}

fn decode_part(part: &str) -> Result<Vec<u8>, JwsError> {
    decode_base64url(part).filter(|bytes| !bytes.is_empty()).ok_or(JwsError::InvalidEncoding)
}

impl<'a> UnverifiedJws<'a> {
    /// Splits a compact JWS and parses header and payload.
    pub fn parse(text: &'a str) -> Result<Self, JwsError> {
        CompactJws::parse(text)?.read()
    }

    /// Returns the header.
    #[must_use]
    pub fn header(&self) -> &JwsHeader {
        &self.header
    }

    /// Returns the compact form.
    #[must_use]
    pub fn text(&self) -> &'a str {
        self.compact.text
    }

    /// Returns the signing input (RFC 7515 §5.1): header and payload as sent.
    #[must_use]
    pub fn signing_input(&self) -> &'a [u8] {
        self.compact.signing_input()
    }

    /// Returns the signature.
    #[must_use]
    pub fn signature(&self) -> &[u8] {
        self.compact.signature()
    }

    /// Returns `iss`. Use it only to select the keys to try.
    #[must_use]
    pub fn claimed_issuer(&self) -> Option<&str> {
        self.payload.get("iss").and_then(Value::as_str)
    }

    /// Returns `sub` of a client assertion. Use it only to select the keys to try.
    #[must_use]
    pub fn claimed_subject(&self) -> Option<&str> {
        self.payload.get("sub").and_then(Value::as_str)
    }

    /// Returns the payload. Call this only right after verifying the signature.
    #[must_use]
    pub fn into_payload(self) -> Map<String, Value> {
        self.payload
    }
}

/// The verifier of this server's own tokens has a reader of its own.
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
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(JwsError::InvalidHeader),
    };
    let typ = text(read.typ)?.map(|mut typ| {
        typ.make_ascii_lowercase();
        typ.strip_prefix("application/").map(str::to_owned).unwrap_or(typ)
    });
    Ok(JwsHeader { alg: text(read.alg)?.ok_or(JwsError::InvalidHeader)?, typ, kid: text(read.kid)? })
}

/// The header members that are evaluated or rejected.
#[derive(Default)]
struct HeaderParameters {
    alg: Option<Value>,
    typ: Option<Value>,
    kid: Option<Value>,
    has_unsupported: bool,
    others: BTreeSet<String>,
}

impl HeaderParameters {
    /// Sets a member once; returns false for a duplicate.
    fn insert(&mut self, name: &str, value: Value) -> bool {
        match name {
            "alg" => self.alg.replace(value).is_none(),
            "typ" => self.typ.replace(value).is_none(),
            "kid" => self.kid.replace(value).is_none(),
            _ => {
                // A key in the token, or a place of one (`jwk`, `jku`, `x5c`, `x5u`, `x5t`), is
                // ignored: keys come from the configured place only.
                self.has_unsupported |= matches!(name, "crit" | "b64" | "zip");
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
            (r#"{"alg":"ES256","zip":"DEF"}"#, "{}", JwsError::UnsupportedHeaderParameter),
            (r#"{"alg":"ES256"}"#, "[]", JwsError::InvalidPayload),
            (r#"{"alg":"ES256"}"#, r#"{"sub":"a","sub":"b"}"#, JwsError::InvalidPayload),
        ] {
            assert_eq!(parse_with_header(header, payload), Err(want), "{header} {payload}");
        }
    }

    #[test]
    fn keys_in_the_header_are_ignored() {
        let want = JwsHeader { alg: "ES256".into(), typ: None, kid: None };
        for parameter in [
            r#""jwk":{"kty":"EC"}"#,
            r#""jku":"https://evil.example""#,
            r#""x5u":"https://evil.example""#,
            r#""x5c":["MIIB"]"#,
            r#""x5t":"AA""#,
            r#""x5t#S256":"AA""#,
            r#""jku":7"#,
            r#""kid":null,"typ":null"#,
        ] {
            let header = format!(r#"{{"alg":"ES256",{parameter}}}"#);
            assert_eq!(parse_with_header(&header, "{}").as_ref(), Ok(&want), "{header}");
        }
    }

    /// Reads the header by way of a tree of values, for comparison.
    fn reference_header(bytes: &[u8]) -> Result<JwsHeader, JwsError> {
        let Ok(Value::Object(header)) = strict_json::parse(bytes, MAX_HEADER_DEPTH) else {
            return Err(JwsError::InvalidHeader);
        };
        if ["crit", "b64", "zip"].iter().any(|name| header.contains_key(*name)) {
            return Err(JwsError::UnsupportedHeaderParameter);
        }
        let text = |name: &str| match header.get(name) {
            None | Some(Value::Null) => Ok(None),
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
