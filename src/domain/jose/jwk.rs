//! Algorithm names and public key sets as documents. Adapters interpret the keys.

use std::fmt;

use ring::digest;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use thiserror::Error;

use crate::domain::encoding::jcs;

/// The JWS algorithms (RFC 7518 §3.1, RFC 8037) that other parties may sign with. `none` and
/// symmetric algorithms are not representable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum JwsAlgorithm {
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    RS256,
    /// RSASSA-PKCS1-v1_5 with SHA-384.
    RS384,
    /// RSASSA-PKCS1-v1_5 with SHA-512.
    RS512,
    /// RSASSA-PSS with SHA-256.
    PS256,
    /// RSASSA-PSS with SHA-384.
    PS384,
    /// RSASSA-PSS with SHA-512.
    PS512,
    /// ECDSA on P-256 with SHA-256.
    ES256,
    /// ECDSA on P-384 with SHA-384.
    ES384,
    /// ECDSA on P-521 with SHA-512.
    ES512,
    /// Ed25519.
    EdDSA,
}

impl JwsAlgorithm {
    /// All algorithms, in order of preference.
    pub const ALL: [Self; 10] = [
        Self::ES256,
        Self::EdDSA,
        Self::RS256,
        Self::PS256,
        Self::ES384,
        Self::ES512,
        Self::RS384,
        Self::RS512,
        Self::PS384,
        Self::PS512,
    ];

    /// Parses the `alg` value. RFC 9864's `Ed25519` is read as `EdDSA`, because Ed25519 is the only
    /// supported curve.
    #[must_use]
    pub fn parse(alg: &str) -> Option<Self> {
        match alg {
            "Ed25519" => Some(Self::EdDSA),
            alg => Self::ALL.into_iter().find(|a| a.as_str() == alg),
        }
    }

    /// Returns the `alg` value.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::RS256 => "RS256",
            Self::RS384 => "RS384",
            Self::RS512 => "RS512",
            Self::PS256 => "PS256",
            Self::PS384 => "PS384",
            Self::PS512 => "PS512",
            Self::ES256 => "ES256",
            Self::ES384 => "ES384",
            Self::ES512 => "ES512",
            Self::EdDSA => "EdDSA",
        }
    }
}

impl fmt::Display for JwsAlgorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The algorithms with which this server signs its tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum SigningAlgorithm {
    /// ECDSA on P-256 with SHA-256.
    #[default]
    ES256,
    /// Ed25519.
    EdDSA,
    /// RSASSA-PKCS1-v1_5 with SHA-256, 2048 bits.
    RS256,
}

impl SigningAlgorithm {
    /// Returns the `alg` value.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ES256 => "ES256",
            Self::EdDSA => "EdDSA",
            Self::RS256 => "RS256",
        }
    }

    /// Parses the `alg` value.
    #[must_use]
    pub fn parse(alg: &str) -> Option<Self> {
        [Self::ES256, Self::EdDSA, Self::RS256].into_iter().find(|a| a.as_str() == alg)
    }
}

impl fmt::Display for SigningAlgorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why a document is not a set of public keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum JwkSetError {
    /// The document is not `{"keys": […]}` with 1 to 64 objects.
    #[error("not a JWK set; provide an object with 1 to 64 keys in `keys` (RFC 7517 section 5)")]
    Malformed,
    /// The document is one public key.
    #[error("a single key (JWK), not a JWK set; wrap the key as `{{\"keys\": [ … ]}}` (RFC 7517 section 5)")]
    SingleKey,
    /// The document is one private or symmetric key.
    #[error(
        "a single private or symmetric key (JWK), not a set of public keys; provide only its public part, as `{{\"keys\": [ … ]}}`, and keep the key itself with its owner"
    )]
    SingleSecretKey,
    /// The document contains secret key material.
    #[error("the JWK set contains a private or symmetric key; publish public keys only, and treat that key as leaked")]
    ContainsSecretKey,
}

/// A set of public keys (RFC 7517 §5), kept as the original document.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Value", into = "Value")]
pub struct JwkSet {
    document: Value,
    digest: [u8; 32],
}

impl JwkSet {
    fn from_document(document: Value) -> Self {
        let text = jcs::to_string(&document).unwrap_or_default();
        let mut digest = [0; 32];
        digest.copy_from_slice(digest::digest(&digest::SHA256, text.as_bytes()).as_ref());
        Self { document, digest }
    }

    /// Returns the keys, each a JSON object.
    pub fn keys(&self) -> impl Iterator<Item = &serde_json::Map<String, Value>> {
        self.document.get("keys").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_object)
    }

    /// Returns the SHA-256 of the canonical text. Equal digests mean equal content.
    #[must_use]
    pub fn digest(&self) -> &[u8; 32] {
        &self.digest
    }
}

impl TryFrom<Value> for JwkSet {
    type Error = JwkSetError;

    fn try_from(document: Value) -> Result<Self, JwkSetError> {
        // RFC 7518 §6: the members with the private parts of EC, RSA, OKP and symmetric keys.
        let secret = ["d", "p", "q", "dp", "dq", "qi", "oth", "k"];
        let is_secret = |key: &Value| secret.iter().any(|member| key.get(member).is_some());
        if document.get("keys").is_none() && document.get("kty").is_some() {
            return Err(if is_secret(&document) { JwkSetError::SingleSecretKey } else { JwkSetError::SingleKey });
        }
        let keys = document.get("keys").and_then(Value::as_array).ok_or(JwkSetError::Malformed)?;
        if keys.is_empty() || keys.len() > 64 || !keys.iter().all(Value::is_object) {
            return Err(JwkSetError::Malformed);
        }
        if keys.iter().any(is_secret) {
            return Err(JwkSetError::ContainsSecretKey);
        }
        Ok(Self::from_document(document))
    }
}

/// Builds the key set that this server publishes. The caller provides public members only; the set
/// may be empty at first.
impl FromIterator<serde_json::Map<String, Value>> for JwkSet {
    fn from_iter<I: IntoIterator<Item = serde_json::Map<String, Value>>>(keys: I) -> Self {
        Self::from_document(serde_json::json!({ "keys": keys.into_iter().collect::<Vec<_>>() }))
    }
}

impl From<JwkSet> for Value {
    fn from(set: JwkSet) -> Self {
        set.document
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn private_or_symmetric_key_is_rejected() {
        assert_eq!(JwkSet::try_from(json!({"keys":[{"kty":"EC","d":"x"}]})), Err(JwkSetError::ContainsSecretKey));
        assert_eq!(JwkSet::try_from(json!({"keys":[{"kty":"oct","k":"x"}]})), Err(JwkSetError::ContainsSecretKey));
        assert_eq!(JwkSet::try_from(json!({"keys":[]})), Err(JwkSetError::Malformed));
        assert_eq!(JwkSet::try_from(json!([])), Err(JwkSetError::Malformed));
        assert_eq!(JwkSet::try_from(json!({"kty":"EC","crv":"P-256"})), Err(JwkSetError::SingleKey));
        for secret in [json!({"kty":"EC","d":"x"}), json!({"kty":"oct","k":"x"}), json!({"kty":"RSA","p":"x"})] {
            assert_eq!(JwkSet::try_from(secret), Err(JwkSetError::SingleSecretKey));
        }
        assert!(JwkSet::try_from(json!({"keys":[{"kty":"EC"}]})).is_ok());
    }

    #[test]
    fn none_and_symmetric_algorithms_do_not_parse() {
        for alg in ["none", "None", "HS256", "es256", "", "ES256K", "RS1"] {
            assert_eq!(JwsAlgorithm::parse(alg), None, "{alg}");
        }
        assert!(JwsAlgorithm::ALL.into_iter().all(|a| JwsAlgorithm::parse(a.as_str()) == Some(a)));
    }
}
