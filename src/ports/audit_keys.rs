//! The keys that authenticate the audit trail.

use super::Outage;
use crate::domain::{audit::Seal, jose::jwk::JwkSet};

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
