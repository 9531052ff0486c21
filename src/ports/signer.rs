//! This server's own signing keys.

use std::borrow::Cow;

use super::{Outage, StoredKey, StoredKeys};
use crate::domain::{
    id::KeyId,
    jose::{
        jwk::{JwkSet, SigningAlgorithm},
        jws::CompactJws,
    },
    keys::KeySchedule,
    sealed_key::StoredSealedKey,
    time::Timestamp,
};

/// A token that this server issued, with a verified signature.
#[derive(Clone, Debug)]
pub struct VerifiedToken {
    /// The key that signed the token.
    pub key: KeyId,
    /// The `typ` header parameter.
    pub typ: Cow<'static, str>,
    /// The payload, byte for byte as it was signed.
    pub payload: Vec<u8>,
}

/// This server's signing keys. They sign and verify every token that the server issues.
pub trait Signer: Send + Sync {
    /// Signs `claims` (a JSON object) as a compact JWS of type `typ`, with the active key of the
    /// algorithm.
    fn sign(&self, algorithm: SigningAlgorithm, typ: &str, claims: &[u8], now: Timestamp) -> Result<String, Outage>;

    /// Returns the token if one of the published keys signed it. A foreign token takes as long to
    /// verify as an own one.
    fn verify(&self, token: CompactJws<'_>, now: Timestamp) -> Option<VerifiedToken>;

    /// Returns whether the key is published at `now`. Its signatures are accepted as long as it is.
    fn is_published(&self, key: &KeyId, now: Timestamp) -> bool;

    /// Returns the published keys as a JWK set (RFC 7517): pending, active and retired.
    fn jwks(&self, now: Timestamp) -> JwkSet;

    /// Returns the algorithms that have an active key.
    fn active_algorithms(&self, now: Timestamp) -> Vec<SigningAlgorithm>;

    /// Returns the schedules of all keys.
    fn schedules(&self) -> Vec<KeySchedule>;

    /// Returns the version of the stored keys in use.
    fn version(&self) -> u64;

    /// Replaces all keys in use by the stored ones at once. On an error the previous keys stay in
    /// use.
    fn replace_keys(&self, keys: StoredKeys) -> Result<(), Outage>;

    /// Creates a key, sealed and ready to be stored. The key is not in use before it comes back
    /// through [`replace_keys`](Self::replace_keys).
    fn create_key(
        &self,
        algorithm: SigningAlgorithm,
        now: Timestamp,
        activates: Timestamp,
    ) -> Result<StoredKey, Outage>;

    /// Creates the next key of audit records, sealed and ready to be stored.
    fn create_audit_key(&self, now: Timestamp) -> Result<StoredSealedKey, Outage>;

    /// Returns the keys sealed under the current key-encryption key. A key that is already sealed
    /// under it is returned unchanged.
    fn reseal_keys(&self, keys: StoredKeys) -> Result<StoredKeys, Outage>;
}
