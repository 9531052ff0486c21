//! A JWS in compact form (RFC 7515 §3.1), taken apart strictly and not yet believed.

use std::collections::BTreeSet;

use serde_json::{Map, Value};
use thiserror::Error;

use crate::domain::{decode, json, limits::MAX_JWT};

const MAX_HEADER_DEPTH: usize = 4;
/// How deep a payload may nest.
pub(super) const MAX_PAYLOAD_DEPTH: usize = 32;

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

/// A compact JWS, taken apart, and what stands in the parts not looked at yet. Nothing in it is believed: see who verifies
/// it.
#[derive(Clone, Debug)]
pub struct Unread<'a> {
    text: &'a str,
    signed: &'a str,
    head: &'a str,
    payload: Vec<u8>,
    signature: Vec<u8>,
}

/// The same, and header and payload read.
#[derive(Clone, Debug)]
pub struct Unverified<'a> {
    unread: Unread<'a>,
    header: Header,
    payload: Map<String, Value>,
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

impl<'a> Unread<'a> {
    /// Takes a compact JWS apart.
    pub fn parse(text: &'a str) -> Result<Self, Malformed> {
        if text.len() > MAX_JWT {
            return Err(Malformed::TooLong);
        }
        let (signed, signature) = text.rsplit_once('.').ok_or(Malformed::Parts)?;
        // A fourth part would show here: a dot is none of the characters.
        let (head, payload) = signed.split_once('.').ok_or(Malformed::Parts)?;
        Ok(Self { text, signed, head, payload: bytes(payload)?, signature: bytes(signature)? })
    }

    /// Reads header and payload.
    pub fn read(self) -> Result<Unverified<'a>, Malformed> {
        let header = self.header()?;
        match json::parse(&self.payload, MAX_PAYLOAD_DEPTH) {
            Ok(Value::Object(payload)) => Ok(Unverified { unread: self, header, payload }),
            _ => Err(Malformed::Payload),
        }
    }

    /// The header as it was sent, in base64url.
    #[must_use]
    pub fn head(&self) -> &'a str {
        self.head
    }

    /// Reads the header.
    pub fn header(&self) -> Result<Header, Malformed> {
        parse_header(&bytes(self.head)?)
    }

    /// What the signature is over (RFC 7515 §5.1): header and payload as they stand there.
    #[must_use]
    pub fn signing_input(&self) -> &'a [u8] {
        self.signed.as_bytes()
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

fn bytes(part: &str) -> Result<Vec<u8>, Malformed> {
    decode(part).filter(|bytes| !bytes.is_empty()).ok_or(Malformed::Parts)
}

impl<'a> Unverified<'a> {
    /// Takes a compact JWS apart.
    pub fn parse(text: &'a str) -> Result<Self, Malformed> {
        Unread::parse(text)?.read()
    }

    /// The header.
    #[must_use]
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The compact form itself.
    #[must_use]
    pub fn text(&self) -> &'a str {
        self.unread.text
    }

    /// What the signature is over (RFC 7515 §5.1): header and payload as they stand there.
    #[must_use]
    pub fn signing_input(&self) -> &'a [u8] {
        self.unread.signing_input()
    }

    /// The signature.
    #[must_use]
    pub fn signature(&self) -> &[u8] {
        self.unread.signature()
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
impl<'a> From<Unverified<'a>> for Unread<'a> {
    fn from(jws: Unverified<'a>) -> Self {
        jws.unread
    }
}

fn parse_header(bytes: &[u8]) -> Result<Header, Malformed> {
    let mut read = Parameters::default();
    json::each_member(bytes, MAX_HEADER_DEPTH, |name, value| read.take(name, value)).map_err(|_| Malformed::Header)?;
    if read.changes_the_rest {
        return Err(Malformed::HeaderParameter);
    }
    let text = |value| match value {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(Malformed::Header),
    };
    let typ = text(read.typ)?.map(|mut typ| {
        typ.make_ascii_lowercase();
        typ.strip_prefix("application/").map(str::to_owned).unwrap_or(typ)
    });
    Ok(Header { alg: text(read.alg)?.ok_or(Malformed::Header)?, typ, kid: text(read.kid)? })
}

/// The header parameters, as far as they are of interest.
#[derive(Default)]
struct Parameters {
    alg: Option<Value>,
    typ: Option<Value>,
    kid: Option<Value>,
    changes_the_rest: bool,
    others: BTreeSet<String>,
}

impl Parameters {
    /// Takes one; says whether it is the first one of its name.
    fn take(&mut self, name: &str, value: Value) -> bool {
        match name {
            "alg" => self.alg.replace(value).is_none(),
            "typ" => self.typ.replace(value).is_none(),
            "kid" => self.kid.replace(value).is_none(),
            _ => {
                self.changes_the_rest |= matches!(name, "crit" | "b64" | "zip" | "jwk" | "jku" | "x5u");
                self.others.insert(name.to_owned())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

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

    /// The same by way of a tree of values.
    fn header_of_values(bytes: &[u8]) -> Result<Header, Malformed> {
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
        let typ = text("typ")?.map(|typ| typ.to_ascii_lowercase());
        let typ = typ.map(|typ| typ.strip_prefix("application/").map(str::to_owned).unwrap_or(typ));
        Ok(Header { alg: text("alg")?.ok_or(Malformed::Header)?, typ, kid: text("kid")? })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2048))]

        #[test]
        fn a_header_is_strict_without_a_tree_of_it(
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
            prop_assert_eq!(parse_header(text.as_bytes()), header_of_values(text.as_bytes()), "{}", text);
            let text = text.replacen("\"alg\":\"ES256\",", "", 1);
            prop_assert_eq!(parse_header(text.as_bytes()), header_of_values(text.as_bytes()), "{}", text);
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
