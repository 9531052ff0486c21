//! Authentication of what a store holds, with keys that the store holds only sealed.

use super::{Outage, StoredKeys};
use crate::domain::audit::{SALT_LEN, Seal};

/// Seals what is written to the store, and verifies what is read from it.
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

    /// Computes the message authentication code of the stored keys at their version.
    fn seal_keys(&self, keys: &StoredKeys) -> Result<String, Outage>;

    /// Returns an outage if the seal of the stored keys is not theirs.
    fn verify_keys(&self, keys: &StoredKeys) -> Result<(), Outage>;

    /// Computes the tag of a row: the message authentication code of its table and its values.
    fn tag_row(&self, row: &str) -> Result<String, Outage>;

    /// Returns whether the tag is that of the row.
    fn is_row_authentic(&self, row: &str, tag: &str) -> Result<bool, Outage>;
}
