//! Algorithm names and public key sets as documents. Adapters interpret the keys.

use std::fmt;

use ring::digest;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use thiserror::Error;

use crate::domain::{decode_base64url, encode_base64url, encoding::jcs};

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
    /// The document is not `{"keys": […]}` with 1 to [`MAX_KEYS`] objects.
    #[error("not a JWK set; provide an object with 1 to {MAX_KEYS} keys in `keys` (RFC 7517 section 5)")]
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

/// The maximum number of keys in a set.
pub const MAX_KEYS: usize = 256;

/// The members with the private parts of EC, RSA, OKP and symmetric keys (RFC 7518 §6).
const SECRET_MEMBERS: [&str; 8] = ["d", "p", "q", "dp", "dq", "qi", "oth", "k"];

/// A key of a published set that is not used.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UnusedKey {
    /// Its `kid`, cut at 128 characters; its position in the set if it has none.
    pub name: String,
    /// Why it is not used.
    pub reason: String,
    /// Whether that is to be expected: the key is for another purpose or algorithm.
    pub is_expected: bool,
}

impl UnusedKey {
    /// Describes a key that is not used.
    #[must_use]
    pub fn new(position: usize, key: &Value, reason: impl Into<String>, is_expected: bool) -> Self {
        let kid = key.get("kid").and_then(Value::as_str).map(|kid| kid.chars().take(128).collect());
        Self { name: kid.unwrap_or_else(|| format!("keys[{position}]")), reason: reason.into(), is_expected }
    }
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

    /// Reads a set that an issuer publishes. One bad key does not make the others unusable: it is
    /// left out. A key with secret material is left out too, since it is public.
    pub fn from_published(document: &Value) -> Result<(Self, Vec<UnusedKey>), JwkSetError> {
        let keys = document.get("keys").and_then(Value::as_array).ok_or(JwkSetError::Malformed)?;
        if keys.len() > MAX_KEYS {
            return Err(JwkSetError::Malformed);
        }
        let (mut kept, mut unused) = (Vec::new(), Vec::new());
        for (n, key) in keys.iter().enumerate() {
            match key.as_object() {
                None => unused.push(UnusedKey::new(n, key, "is not an object", false)),
                Some(_) if is_secret(key) => {
                    let reason = "contains private or symmetric key material; treat it as leaked";
                    unused.push(UnusedKey::new(n, key, reason, false));
                }
                Some(members) => kept.push(with_canonical_numbers(members)),
            }
        }
        if kept.is_empty() {
            let has_secret = keys.iter().any(is_secret);
            return Err(if has_secret { JwkSetError::ContainsSecretKey } else { JwkSetError::Malformed });
        }
        Ok((kept.into_iter().collect(), unused))
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
        if document.get("keys").is_none() && document.get("kty").is_some() {
            return Err(if is_secret(&document) { JwkSetError::SingleSecretKey } else { JwkSetError::SingleKey });
        }
        let keys = document.get("keys").and_then(Value::as_array).ok_or(JwkSetError::Malformed)?;
        if keys.is_empty() || keys.len() > MAX_KEYS || !keys.iter().all(Value::is_object) {
            return Err(JwkSetError::Malformed);
        }
        if keys.iter().any(is_secret) {
            return Err(JwkSetError::ContainsSecretKey);
        }
        Ok(Self::from_document(document))
    }
}

/// Returns a key whose numbers have the form of RFC 7518 §6: some issuers pad the text, use the
/// standard alphabet of base64, or leave out or add leading zeros.
fn with_canonical_numbers(key: &serde_json::Map<String, Value>) -> serde_json::Map<String, Value> {
    let text = |name: &str| key.get(name).and_then(Value::as_str);
    let coordinate_bytes = match text("crv") {
        Some("P-256") => 32,
        Some("P-384") => 48,
        Some("P-521") => 66,
        _ => 0,
    };
    let names: &[&str] = match text("kty") {
        Some("RSA") => &["n", "e"],
        Some("EC") => &["x", "y"],
        Some("OKP") => &["x"],
        _ => &[],
    };
    let mut canonical = key.clone();
    for name in names {
        let base64url = text(name).map(|text| text.trim_end_matches('=').replace('+', "-").replace('/', "_"));
        let Some(bytes) = base64url.and_then(|text| decode_base64url(&text)) else { continue };
        let bytes = if text("kty") == Some("OKP") { bytes } else { with_length(&bytes, coordinate_bytes) };
        canonical.insert((*name).to_owned(), Value::String(encode_base64url(&bytes)));
    }
    canonical
}

/// Returns a number without leading zeros, except for those that make up a length.
fn with_length(number: &[u8], length: usize) -> Vec<u8> {
    let digits = number.iter().copied().skip_while(|byte| *byte == 0).collect::<Vec<_>>();
    let zeros = length.saturating_sub(digits.len());
    [vec![0; zeros], digits].concat()
}

fn is_secret(key: &Value) -> bool {
    SECRET_MEMBERS.iter().any(|member| key.get(member).is_some_and(|value| !value.is_null()))
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
    fn bad_keys_of_a_published_set_are_left_out() {
        let good = |n: usize| json!({"kty": "EC", "kid": n.to_string()});
        let secret = json!({"kty": "oct", "kid": "s", "k": "x"});
        let read = |keys: Value| JwkSet::from_published(&json!({ "keys": keys }));
        let (set, unused) = read(json!([secret, good(1), 7, {"kty": "RSA", "d": "x"}, good(2)])).unwrap();
        assert_eq!(set.keys().filter_map(|key| key["kid"].as_str()).collect::<Vec<_>>(), ["1", "2"]);
        assert_eq!(unused.iter().map(|key| key.name.as_str()).collect::<Vec<_>>(), ["s", "keys[2]", "keys[3]"]);
        assert!(unused.iter().all(|key| !key.is_expected));
        assert_eq!(read((0..MAX_KEYS).map(good).collect()).unwrap().0.keys().count(), MAX_KEYS);
        assert_eq!(read((0..=MAX_KEYS).map(good).collect()), Err(JwkSetError::Malformed));
        assert_eq!(read(json!([])), Err(JwkSetError::Malformed));
        assert_eq!(read(json!([7])), Err(JwkSetError::Malformed));
        assert_eq!(read(json!([secret])), Err(JwkSetError::ContainsSecretKey));
        assert_eq!(read(json!({})), Err(JwkSetError::Malformed));
        assert_eq!(JwkSet::from_published(&json!([])), Err(JwkSetError::Malformed));
    }

    #[test]
    fn none_and_symmetric_algorithms_do_not_parse() {
        for alg in ["none", "None", "HS256", "es256", "", "ES256K", "RS1"] {
            assert_eq!(JwsAlgorithm::parse(alg), None, "{alg}");
        }
        assert!(JwsAlgorithm::ALL.into_iter().all(|a| JwsAlgorithm::parse(a.as_str()) == Some(a)));
    }
}
