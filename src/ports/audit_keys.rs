//! The keys that authenticate the audit trail.

use super::Outage;
use crate::domain::{
    audit::{SALT_LEN, Seal},
    jose::jwk::JwkSet,
};

/// Seals audit records as they are written.
pub trait RecordSealer: Send + Sync {
    /// Returns a salt for a personal value: unpredictable, and never returned again.
    fn new_salt(&self) -> [u8; SALT_LEN];

    /// Computes the message authentication code of a record from its hash, with the current key.
    fn seal(&self, hash: &str) -> Result<Seal, Outage>;
}

/// Verifies audit records, and signs and verifies checkpoints.
pub trait AuditKeys: Send + Sync {
    /// Returns whether the message authentication code is that of the record with this hash. A key
    /// that does not exist authenticates nothing.
    fn is_authentic(&self, hash: &str, seal: &Seal) -> bool;

    /// Signs a checkpoint as a compact JWS.
    fn sign_checkpoint(&self, payload: &[u8]) -> Result<String, Outage>;

    /// Returns the payload of a checkpoint if one of the keys signed it.
    fn verify_checkpoint(&self, text: &str) -> Option<Vec<u8>>;

    /// Returns the public keys of checkpoints.
    fn checkpoint_jwks(&self) -> JwkSet;
}
