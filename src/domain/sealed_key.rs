//! Keys of this server other than its token-signing keys: random, and stored only sealed under the
//! key-encryption key.

use std::fmt;

use crate::domain::time::Timestamp;

/// What a sealed key is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum KeyPurpose {
    /// Tags of client secrets (HMAC-SHA-256).
    ClientSecrets,
    /// Message authentication codes of audit records (HMAC-SHA-256).
    AuditRecords,
    /// Signatures of audit checkpoints (Ed25519).
    AuditCheckpoints,
    /// Tags of stored rows (HMAC-SHA-256).
    RowTags,
}

impl KeyPurpose {
    /// All purposes. A store has at least one key for each.
    pub const ALL: [Self; 4] = [Self::ClientSecrets, Self::AuditRecords, Self::AuditCheckpoints, Self::RowTags];

    /// Returns the stored name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ClientSecrets => "client_secrets",
            Self::AuditRecords => "audit_records",
            Self::AuditCheckpoints => "audit_checkpoints",
            Self::RowTags => "row_tags",
        }
    }

    /// Parses a stored name.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|purpose| purpose.as_str() == text)
    }
}

/// The name of a sealed key: its purpose, and the number of the key among those of that purpose,
/// from 1. The key with the highest number is in use; earlier ones verify what they authenticated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SealedKeyName {
    /// The purpose.
    pub purpose: KeyPurpose,
    /// The number.
    pub epoch: u64,
}

impl fmt::Display for SealedKeyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.purpose.as_str(), self.epoch)
    }
}

/// A key as it is stored.
#[derive(Clone, PartialEq, Eq)]
pub struct StoredSealedKey {
    /// The name.
    pub name: SealedKeyName,
    /// The time of creation.
    pub created_at: Timestamp,
    /// The key, sealed under the key-encryption key and bound to its table, row and column.
    pub sealed: Vec<u8>,
}

impl fmt::Debug for StoredSealedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoredSealedKey").field("name", &self.name).finish_non_exhaustive()
    }
}

/// Returns the purposes for which no key is stored.
#[must_use]
pub fn missing_purposes(keys: &[StoredSealedKey]) -> Vec<KeyPurpose> {
    let is_missing = |purpose: &KeyPurpose| !keys.iter().any(|key| key.name.purpose == *purpose);
    KeyPurpose::ALL.into_iter().filter(is_missing).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn purposes_have_distinct_names_that_parse() {
        for purpose in KeyPurpose::ALL {
            assert_eq!(KeyPurpose::parse(purpose.as_str()), Some(purpose));
        }
        assert_eq!(KeyPurpose::parse("sessions"), None);
    }

    #[test]
    fn missing_purposes_are_those_without_a_key() {
        let key = |purpose, epoch| StoredSealedKey {
            name: SealedKeyName { purpose, epoch },
            created_at: Timestamp::EPOCH,
            sealed: Vec::new(),
        };
        assert_eq!(missing_purposes(&[]), KeyPurpose::ALL);
        let keys = KeyPurpose::ALL.map(|purpose| key(purpose, 3));
        assert_eq!(missing_purposes(&keys), []);
        assert_eq!(missing_purposes(&keys[1..]), [KeyPurpose::ClientSecrets]);
    }
}
