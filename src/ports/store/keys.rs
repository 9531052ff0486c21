//! Stored signing keys.

use std::fmt;

use async_trait::async_trait;
use serde_json::json;

use crate::{
    domain::{
        encode_base64url,
        id::KeyId,
        keys::KeySchedule,
        sealed_key::{SealedKeyName, StoredSealedKey},
        time::Timestamp,
    },
    ports::Outage,
};

/// A signing key as it is stored: its schedule, its public JWK, and its private key encrypted.
#[derive(Clone, PartialEq, Eq)]
pub struct StoredKey {
    /// The name, algorithm and dates.
    pub schedule: KeySchedule,
    /// The public JWK, as JSON text.
    pub public_jwk: String,
    /// The private key (PKCS#8), sealed with AES-256-GCM under the key-encryption key and bound to
    /// its table, row and column.
    pub sealed_private_key: Vec<u8>,
}

impl fmt::Debug for StoredKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoredKey").field("schedule", &self.schedule).finish_non_exhaustive()
    }
}

/// The stored keys and their version, read in one snapshot.
#[derive(Debug)]
pub struct StoredKeys {
    /// The version. Every change increments it.
    pub version: u64,
    /// The keys, with those past their publication until they are deleted.
    pub keys: Vec<StoredKey>,
    /// The keys for other purposes than the signing of tokens.
    pub sealed_keys: Vec<StoredSealedKey>,
    /// The message authentication code of the version and of all keys.
    pub seal: Option<String>,
}

impl StoredKeys {
    /// Returns the text that is sealed: the version, and a line of JSON for each key, sorted.
    #[must_use]
    pub fn sealed_text(&self) -> String {
        let signing = self.keys.iter().map(|StoredKey { schedule, public_jwk, sealed_private_key }| {
            json!({
                "table": "signing_keys",
                "kid": schedule.kid,
                "algorithm": schedule.algorithm.as_str(),
                "created": schedule.created_at.unix(),
                "activates": schedule.activates_at.unix(),
                "retires": schedule.retires_at.map(Timestamp::unix),
                "gone": schedule.unpublished_at.map(Timestamp::unix),
                "public_jwk": public_jwk,
                "sealed": encode_base64url(sealed_private_key),
            })
        });
        let others = self.sealed_keys.iter().map(|key| {
            json!({
                "table": "sealed_keys",
                "purpose": key.name.purpose.as_str(),
                "epoch": key.name.epoch,
                "created": key.created_at.unix(),
                "sealed": encode_base64url(&key.sealed),
            })
        });
        let mut lines = signing.chain(others).map(|line| line.to_string()).collect::<Vec<_>>();
        lines.sort_unstable();
        format!("{}\n{}", self.version, lines.join("\n"))
    }
}

/// Reads the keys of this server.
#[async_trait]
pub trait KeyStore: Send + Sync {
    /// Returns the current keys.
    async fn load_keys(&self) -> Result<StoredKeys, Outage>;

    /// Returns whether nothing has been written to the store yet: no object, no signing key and no
    /// audit record.
    async fn is_unused(&self) -> Result<bool, Outage>;
}

/// Returns the additional authenticated data with which a private key is sealed: its table, row and
/// column.
#[must_use]
pub fn signing_key_aad(kid: &KeyId) -> String {
    format!("signing_keys|{kid}|sealed")
}

/// Returns the additional authenticated data with which another key is sealed.
#[must_use]
pub fn sealed_key_aad(name: SealedKeyName) -> String {
    format!("sealed_keys|{name}|sealed")
}
