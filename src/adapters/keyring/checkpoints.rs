//! Signatures of audit checkpoints: compact JWS with Ed25519 and a `typ` of their own.

use ring::signature::{ED25519, UnparsedPublicKey};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::{KeyringError, own_key::OwnKey};
use crate::domain::{audit::checkpoint::TYP_AUDIT_CHECKPOINT, decode_base64url, encode_base64url, jose::jwk::JwkSet};

const ALGORITHM: &str = "EdDSA";

pub(super) fn sign(key: &OwnKey, payload: &[u8]) -> Result<String, KeyringError> {
    let header =
        key.encoded_header(TYP_AUDIT_CHECKPOINT).map_err(|_| KeyringError::Crypto("the header of a checkpoint"))?;
    let mut text = format!("{header}.{}", encode_base64url(payload));
    let signature = key.sign(text.as_bytes())?;
    text.push('.');
    text.push_str(&encode_base64url(&signature));
    Ok(text)
}

/// The header of a checkpoint. Other members are not accepted.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CheckpointHeader {
    alg: String,
    typ: String,
    kid: String,
}

/// Verifies a checkpoint with a set of public keys, without access to a store. Returns the payload
/// if the key that the checkpoint names is in the set and signed it.
///
/// A checkpoint may be longer than the limit for tokens, because it names every writer.
#[must_use]
pub fn verify_checkpoint(keys: &JwkSet, text: &str) -> Option<Vec<u8>> {
    let (signed, signature) = text.rsplit_once('.')?;
    let (header, payload) = signed.split_once('.')?;
    let header = serde_json::from_slice::<CheckpointHeader>(&decode_base64url(header)?).ok()?;
    if header.typ != TYP_AUDIT_CHECKPOINT || header.alg != ALGORITHM {
        return None;
    }
    let has = |key: &Map<String, Value>, name: &str, value: &str| key.get(name).and_then(Value::as_str) == Some(value);
    let key = keys.keys().find(|key| has(key, "kid", &header.kid))?;
    if !has(key, "kty", "OKP") || !has(key, "crv", "Ed25519") {
        return None;
    }
    let (public, signature) = (decode_base64url(key.get("x")?.as_str()?)?, decode_base64url(signature)?);
    UnparsedPublicKey::new(&ED25519, public).verify(signed.as_bytes(), &signature).ok()?;
    decode_base64url(payload)
}
