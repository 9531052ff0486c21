//! The keys for other purposes than the signing of tokens: generated, sealed and opened.

use std::{collections::BTreeMap, fmt};

use ring::{hmac, rand::SecureRandom};
use zeroize::Zeroizing;

use super::{KekId, KekSet, KeyringError, own_key::OwnKey};
use crate::{
    adapters::system,
    domain::{
        audit::Seal,
        decode_base64url, encode_base64url,
        jose::jwk::SigningAlgorithm,
        sealed_key::{KeyPurpose, SealedKeyName, StoredSealedKey},
        secret::Pepper,
        time::Timestamp,
    },
    ports::{StoredKeys, TamperingError, sealed_key_aad},
};

/// The opened keys, by name.
#[derive(Default)]
pub(super) struct SealedKeys {
    client_secrets: BTreeMap<u64, Zeroizing<Vec<u8>>>,
    audit_records: BTreeMap<u64, hmac::Key>,
    row_tags: BTreeMap<u64, hmac::Key>,
    checkpoints: BTreeMap<u64, OwnKey>,
}

impl SealedKeys {
    pub(super) fn open(keks: &KekSet, stored: &[StoredSealedKey]) -> Result<Self, KeyringError> {
        let mut opened = Self::default();
        for key in stored {
            let SealedKeyName { purpose, epoch } = key.name;
            let name = error_name(key.name);
            let bytes = keks.open(&name, &sealed_key_aad(key.name), &key.sealed)?;
            let malformed = || KeyringError::MalformedSealedKey { name: name.clone() };
            if purpose != KeyPurpose::AuditCheckpoints && bytes.len() != 32 {
                return Err(malformed());
            }
            match purpose {
                KeyPurpose::ClientSecrets => drop(opened.client_secrets.insert(epoch, bytes)),
                KeyPurpose::AuditRecords => {
                    opened.audit_records.insert(epoch, hmac::Key::new(hmac::HMAC_SHA256, &bytes));
                }
                KeyPurpose::RowTags => {
                    opened.row_tags.insert(epoch, hmac::Key::new(hmac::HMAC_SHA256, &bytes));
                }
                KeyPurpose::AuditCheckpoints => {
                    let key = OwnKey::parse(SigningAlgorithm::EdDSA, &bytes).ok_or_else(malformed)?;
                    drop(opened.checkpoints.insert(epoch, key));
                }
            }
        }
        Ok(opened)
    }

    /// Returns the key of the tags of client secrets.
    pub(super) fn pepper(&self) -> Option<Pepper> {
        let (_, key) = self.client_secrets.last_key_value()?;
        key.first_chunk().map(Pepper::new)
    }

    /// Computes the message authentication code of an audit record with the current key.
    pub(super) fn seal(&self, hash: &str) -> Result<Seal, KeyringError> {
        let (epoch, key) =
            self.audit_records.last_key_value().ok_or(KeyringError::MissingSealedKey(KeyPurpose::AuditRecords))?;
        let mac = hmac::sign(key, audit_mac_message(hash).as_bytes());
        Ok(Seal { epoch: *epoch, mac: encode_base64url(mac.as_ref()) })
    }

    /// Computes the message authentication code of the registry.
    pub(super) fn seal_registry(&self, version: u64, digest: &str) -> Result<String, KeyringError> {
        self.authenticate(&registry_mac_message(version, digest))
    }

    pub(super) fn is_registry_authentic(&self, version: u64, digest: &str, seal: &str) -> Result<bool, KeyringError> {
        self.is_message_authentic(&registry_mac_message(version, digest), seal)
    }

    /// Computes the message authentication code of the stored keys.
    pub(super) fn seal_keys(&self, keys: &StoredKeys) -> Result<String, KeyringError> {
        self.authenticate(&keys_mac_message(keys))
    }

    pub(super) fn verify_keys(&self, keys: &StoredKeys) -> Result<(), KeyringError> {
        let is_authentic = match &keys.seal {
            Some(seal) => self.is_message_authentic(&keys_mac_message(keys), seal)?,
            None => false,
        };
        if is_authentic { Ok(()) } else { Err(TamperingError::Keys.into()) }
    }

    /// Computes the tag of a row.
    pub(super) fn tag_row(&self, row: &str) -> Result<String, KeyringError> {
        self.authenticate(&row_mac_message(row))
    }

    pub(super) fn is_row_authentic(&self, row: &str, tag: &str) -> Result<bool, KeyringError> {
        self.is_message_authentic(&row_mac_message(row), tag)
    }

    fn authenticate(&self, message: &str) -> Result<String, KeyringError> {
        Ok(encode_base64url(hmac::sign(self.row_key()?, message.as_bytes()).as_ref()))
    }

    fn is_message_authentic(&self, message: &str, mac: &str) -> Result<bool, KeyringError> {
        let (key, mac) = (self.row_key()?, decode_base64url(mac));
        Ok(mac.is_some_and(|mac| hmac::verify(key, message.as_bytes(), &mac).is_ok()))
    }

    fn row_key(&self) -> Result<&hmac::Key, KeyringError> {
        let key = self.row_tags.last_key_value().map(|(_, key)| key);
        key.ok_or(KeyringError::MissingSealedKey(KeyPurpose::RowTags))
    }

    /// Returns the number of the next key of audit records.
    pub(super) fn next_audit_epoch(&self) -> u64 {
        self.audit_records.last_key_value().map_or(1, |(epoch, _)| epoch.saturating_add(1))
    }

    pub(super) fn is_authentic(&self, hash: &str, seal: &Seal) -> bool {
        let key = self.audit_records.get(&seal.epoch);
        key.zip(decode_base64url(&seal.mac))
            .is_some_and(|(key, mac)| hmac::verify(key, audit_mac_message(hash).as_bytes(), &mac).is_ok())
    }

    /// Returns the keys of checkpoints, the current one last.
    pub(super) fn checkpoint_keys(&self) -> impl DoubleEndedIterator<Item = &OwnKey> {
        self.checkpoints.values()
    }
}

fn registry_mac_message(version: u64, digest: &str) -> String {
    format!("errand registry\n{version}\n{digest}")
}

fn keys_mac_message(keys: &StoredKeys) -> String {
    format!("errand keys\n{}", keys.sealed_text())
}

fn row_mac_message(row: &str) -> String {
    format!("errand row\n{row}")
}

fn audit_mac_message(hash: &str) -> String {
    format!("errand audit record\n{hash}")
}

impl fmt::Debug for SealedKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SealedKeys(..)")
    }
}

fn error_name(name: SealedKeyName) -> String {
    format!("sealed key `{name}`")
}

/// Generates a key, sealed under the key-encryption key with the identifier `under`, or else the
/// current one.
pub(super) fn generate(
    keks: &KekSet,
    under: Option<KekId>,
    name: SealedKeyName,
    now: Timestamp,
) -> Result<StoredSealedKey, KeyringError> {
    let key = match name.purpose {
        KeyPurpose::AuditCheckpoints => OwnKey::generate(SigningAlgorithm::EdDSA)?,
        KeyPurpose::ClientSecrets | KeyPurpose::AuditRecords | KeyPurpose::RowTags => {
            let mut key = Zeroizing::new(vec![0; 32]);
            system::os_random().fill(&mut key).map_err(|_| system::entropy_unavailable())?;
            key
        }
    };
    Ok(StoredSealedKey { name, created_at: now, sealed: keks.seal(under, &sealed_key_aad(name), &key)? })
}

/// Seals a key under the current key-encryption key, unless it is already.
pub(super) fn reseal(keks: &KekSet, stored: &StoredSealedKey) -> Result<StoredSealedKey, KeyringError> {
    let aad = sealed_key_aad(stored.name);
    let sealed = keks.reseal(&error_name(stored.name), &aad, &stored.sealed)?;
    Ok(StoredSealedKey { sealed, ..stored.clone() })
}
