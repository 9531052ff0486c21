//! SHA-256 digests as text: of a tool's definition, of a call's arguments, of an authority.
//!
//! Each is `sha-256:` and the digest in base64url without padding. The input is canonical JSON
//! ([RFC 8785](https://www.rfc-editor.org/rfc/rfc8785)), so that equal values have equal digests.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::{
    authority::Arg,
    encoding::{decode_base64url, encode_base64url, jcs},
    id::NameError,
    text_name,
};

const PREFIX: &str = "sha-256:";

text_name!(
    /// The digest of a tool's definition: SHA-256 over its canonical JSON (RFC 8785).
    ToolDigest,
    "tool digest",
    "`sha-256:` and 43 characters of base64url",
    |text| text.strip_prefix(PREFIX).is_some_and(|digest| {
        digest.len() == 43 && digest.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'))
    })
);

impl ToolDigest {
    /// Computes the digest of a definition in canonical form.
    #[must_use]
    pub fn of_canonical(definition: &str) -> Self {
        Self(sha256_text(definition.as_bytes()).into())
    }
}

/// The digest of a call's arguments: SHA-256 over their canonical JSON (RFC 8785).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ArgumentsDigest(String);

impl ArgumentsDigest {
    /// Computes the digest of a call's arguments. Returns `None` if one of them contains a number
    /// without a canonical form.
    #[must_use]
    pub fn of(arguments: &BTreeMap<String, Arg>) -> Option<Self> {
        let canonical = Arg::Object(arguments.clone()).to_canonical()?;
        Some(Self(sha256_text(jcs::to_string(&canonical)?.as_bytes())))
    }

    /// Returns the digest as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for ArgumentsDigest {
    type Error = NameError;

    fn try_from(text: String) -> Result<Self, NameError> {
        let digest = text.strip_prefix(PREFIX).and_then(decode_base64url);
        let rule = "`sha-256:` and the digest, base64url without padding";
        if digest.is_some_and(|digest| digest.len() == 32) {
            Ok(Self(text))
        } else {
            Err(NameError { kind: "digest", rule })
        }
    }
}

impl From<ArgumentsDigest> for String {
    fn from(digest: ArgumentsDigest) -> Self {
        digest.0
    }
}

/// Returns `sha-256:` and the SHA-256 digest of `bytes` in base64url.
pub(crate) fn sha256_text(bytes: &[u8]) -> String {
    format!("{PREFIX}{}", encode_base64url(&Sha256::digest(bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn malformed_arguments_digest_is_rejected() {
        let digest = |text: &str| ArgumentsDigest::try_from(text.to_owned()).is_ok();
        assert!(digest(&format!("sha-256:{}", "A".repeat(43))));
        for bad in ["", "sha-256:", "sha-256:AAAA", "AAAA", "sha-512:AAAA"] {
            assert!(!digest(bad), "{bad}");
        }
        for bad in ["A".repeat(43), format!("sha-256:{}", "A".repeat(42)), format!("sha-256:{}=", "A".repeat(43))] {
            assert!(!digest(&bad), "{bad}");
        }
    }

    #[test]
    fn arguments_digest_is_of_canonical_form() {
        let digest = |text: &str| match Arg::parse(text, 8).unwrap() {
            Arg::Object(arguments) => ArgumentsDigest::of(&arguments),
            other => panic!("{other:?} is not an object"),
        };
        // Computed with: printf '%s' '{"a":1,"b":["x"]}' | openssl dgst -sha256 -binary | basenc
        // --base64url
        let want = "sha-256:_V6SutviRyb1W4gTLdX6HO7A79lgs7zUT1J7S8yErzQ";
        assert_eq!(digest(r#"{"b":["x"],"a":1.0}"#).unwrap().as_str(), want);
        assert_eq!(digest(r#"{"a":1,"b":["x"]}"#).unwrap().as_str(), want);
        assert_eq!(digest(r#"{"a":9007199254740993}"#), None, "a double loses it");
    }
}
