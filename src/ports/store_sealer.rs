//! Authentication of what a store holds, with keys that the store holds only sealed.

use super::Outage;
use crate::domain::audit::{SALT_LEN, Seal};

/// Seals audit records and the registry as they are written, and verifies the registry as it is
/// read.
pub trait StoreSealer: Send + Sync {
    /// Returns a salt for a personal value: unpredictable, and never returned again.
    fn new_salt(&self) -> [u8; SALT_LEN];

    /// Computes the message authentication code of a record from its hash, with the current key.
    fn seal(&self, hash: &str) -> Result<Seal, Outage>;

    /// Computes the message authentication code of the registry at a version, from the digest of
    /// its rows.
    fn seal_registry(&self, version: u64, digest: &str) -> Result<String, Outage>;

    /// Returns whether the message authentication code is that of the registry with this version
    /// and digest.
    fn is_registry_authentic(&self, version: u64, digest: &str, seal: &str) -> Result<bool, Outage>;
}
