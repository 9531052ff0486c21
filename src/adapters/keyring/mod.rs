//! This server's signing keys. The store holds them with sealed private keys. The keyring opens and
//! parses each once, and uses them by their schedule.

mod checkpoints;
mod kek;
mod own_key;
mod sealed_keys;

use std::{
    borrow::Cow,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use parking_lot::RwLock;
use ring::hmac;
use thiserror::Error;

pub use checkpoints::verify_checkpoint;
pub use kek::{Kek, KekId, KekSet};
use own_key::OwnKey;
use sealed_keys::SealedKeys;

use crate::{
    adapters::system,
    domain::{
        audit::{SALT_LEN, Seal},
        encode_base64url,
        id::KeyId,
        jose::{
            jwk::{JwkSet, SigningAlgorithm},
            jws::CompactJws,
        },
        keys::{KeySchedule, KeyState, signing_key},
        sealed_key::{KeyPurpose, SealedKeyName, StoredSealedKey},
        secret::Pepper,
        time::Timestamp,
    },
    ports::{
        AuditKeys, Outage, Signer, StoreSealer, StoredKey, StoredKeys, TamperingError, VerifiedToken, signing_key_aad,
    },
};

/// A reason why signing keys can't be used or generated.
#[derive(Debug, Error)]
pub enum KeyringError {
    /// The key is sealed under a key-encryption key that is not configured.
    #[error(
        "{name} is sealed under key-encryption key `{kek}`, which is not configured; name its file in \
         `encryption_key_file`, or in `previous_encryption_key_files` until `errand keys rekey` has run"
    )]
    UnknownKek {
        /// The key.
        name: String,
        /// The identifier of the key-encryption key.
        kek: KekId,
    },
    /// The key can't be decrypted.
    #[error("{name} can't be decrypted; the stored key was altered: restore it from a backup of the database")]
    UnsealFailed {
        /// The key.
        name: String,
    },
    /// The decrypted data is not a key for its purpose.
    #[error("{name} is not a key for its purpose; the stored key was altered")]
    MalformedSealedKey {
        /// The key.
        name: String,
    },
    /// No key is stored for a purpose.
    #[error("no sealed key `{}` is stored; restore the table `sealed_keys` from a backup of the database", .0.as_str())]
    MissingSealedKey(KeyPurpose),
    /// The decrypted data is not a private key of the algorithm.
    #[error("signing key `{kid}` is not a private key of its algorithm; the stored key was altered")]
    Malformed {
        /// The key.
        kid: KeyId,
    },
    /// The name or the public key does not match the private key.
    #[error(
        "the name or the public key of signing key `{kid}` does not match its private key; the stored key was altered"
    )]
    PublicPartMismatch {
        /// The key.
        kid: KeyId,
    },
    /// ring rejected an operation, which does not happen with valid keys.
    #[error("{0} failed")]
    Crypto(&'static str),
    /// The stored keys were changed outside the program.
    #[error("{0}")]
    Tampering(#[from] TamperingError),
    /// Entropy is unavailable.
    #[error(transparent)]
    Outage(#[from] Outage),
}

/// The decrypted signing keys.
#[derive(Debug)]
pub struct Keyring {
    keks: KekSet,
    keys: RwLock<Arc<OpenKeys>>,
    salt_key: hmac::Key,
    salt_count: AtomicU64,
}

#[derive(Debug)]
struct OpenKeys {
    version: u64,
    schedules: Vec<KeySchedule>,
    keys: Vec<OwnKey>,
    sealed_keys: SealedKeys,
    /// The key-encryption key under which the stored keys are sealed. A new key is sealed under the
    /// same one, so that a replica that has only this one can open it.
    kek_in_use: Option<KekId>,
}

impl Keyring {
    /// Decrypts the stored keys. All of them must decrypt: a replica without some of the keys would
    /// reject valid tokens.
    pub fn open(keks: impl Into<KekSet>, stored: &StoredKeys) -> Result<Self, KeyringError> {
        let keks = keks.into();
        let keys = OpenKeys::open(&keks, stored)?;
        Self::with_keys(keks, keys)
    }

    /// Decrypts the first keys of a store that is to be sealed with them.
    pub fn open_new(keks: impl Into<KekSet>, sealed_keys: Vec<StoredSealedKey>) -> Result<Self, KeyringError> {
        let keks = keks.into();
        let new = StoredKeys { version: 0, keys: Vec::new(), sealed_keys, seal: None };
        let keys = OpenKeys::open_unverified(&keks, &new)?;
        Self::with_keys(keks, keys)
    }

    fn with_keys(keks: KekSet, keys: OpenKeys) -> Result<Self, KeyringError> {
        let keys = RwLock::new(Arc::new(keys));
        let salt_key = hmac::Key::generate(hmac::HMAC_SHA256, &system::os_random());
        let salt_key = salt_key.map_err(|_| system::entropy_unavailable())?;
        Ok(Self { keks, keys, salt_key, salt_count: AtomicU64::new(0) })
    }

    /// Returns the key of the tags of client secrets.
    pub fn pepper(&self) -> Result<Pepper, KeyringError> {
        self.keys().sealed_keys.pepper().ok_or(KeyringError::MissingSealedKey(KeyPurpose::ClientSecrets))
    }

    /// Returns whether all stored keys are sealed under the current key-encryption key.
    pub fn is_rekeyed(&self) -> bool {
        self.keys().kek_in_use.is_none_or(|id| id == self.keks.current_id())
    }

    /// Replaces the keys by the stored ones. On an error the previous keys stay in use.
    pub fn replace(&self, stored: &StoredKeys) -> Result<(), KeyringError> {
        let keys = Arc::new(OpenKeys::open(&self.keks, stored)?);
        *self.keys.write() = keys;
        Ok(())
    }

    /// Returns the version of the stored keys in use.
    pub fn version(&self) -> u64 {
        self.keys().version
    }

    fn keys(&self) -> Arc<OpenKeys> {
        self.keys.read().clone()
    }
}

/// Generates a key for each of the purposes, to be stored as the first of its purpose.
pub fn generate_sealed_keys(
    keks: &KekSet,
    purposes: &[KeyPurpose],
    now: Timestamp,
) -> Result<Vec<StoredSealedKey>, KeyringError> {
    let first =
        |purpose: &KeyPurpose| sealed_keys::generate(keks, None, SealedKeyName { purpose: *purpose, epoch: 1 }, now);
    purposes.iter().map(first).collect()
}

/// Returns the seal of keys that are to be stored together.
pub fn seal_keys(keks: &KekSet, keys: &StoredKeys) -> Result<String, KeyringError> {
    SealedKeys::open(keks, &keys.sealed_keys)?.seal_keys(keys)
}

/// Generates a signing key to be stored, sealed under the key-encryption key with the identifier
/// `under`, or else the current one. An RSA key takes a large part of a second, so not on a thread
/// that serves requests.
pub fn generate_key(
    keks: &KekSet,
    under: Option<KekId>,
    algorithm: SigningAlgorithm,
    created: Timestamp,
    activates: Timestamp,
) -> Result<StoredKey, KeyringError> {
    let private = OwnKey::generate(algorithm)?;
    let key = OwnKey::parse(algorithm, &private).ok_or(KeyringError::Crypto("the parsing of a new signing key"))?;
    let public_jwk = serde_json::Value::Object(key.public_jwk()).to_string();
    let sealed = keks.seal(under, &signing_key_aad(&key.kid), &private)?;
    let schedule = KeySchedule {
        kid: key.kid,
        algorithm,
        created_at: created,
        activates_at: activates,
        retires_at: None,
        unpublished_at: None,
    };
    Ok(StoredKey { schedule, public_jwk, sealed_private_key: sealed })
}

impl OpenKeys {
    fn open(keks: &KekSet, stored: &StoredKeys) -> Result<Self, KeyringError> {
        let opened = Self::open_unverified(keks, stored)?;
        opened.sealed_keys.verify_keys(stored)?;
        Ok(opened)
    }

    fn open_unverified(keks: &KekSet, stored: &StoredKeys) -> Result<Self, KeyringError> {
        let open = |key: &StoredKey| {
            let kid = &key.schedule.kid;
            let private = keks.open(&error_name(kid), &signing_key_aad(kid), &key.sealed_private_key)?;
            OwnKey::parse_checked(key, &private)
        };
        let sealed = stored.keys.iter().map(|key| &key.sealed_private_key[..]);
        let sealed = sealed.chain(stored.sealed_keys.iter().map(|key| &key.sealed[..]));
        // After an interrupted change of the database by hand, the previous key is still needed.
        let ids = sealed.filter_map(KekSet::id_of).collect::<Vec<_>>();
        let other = ids.iter().find(|id| **id != keks.current_id());
        Ok(Self {
            sealed_keys: SealedKeys::open(keks, &stored.sealed_keys)?,
            kek_in_use: other.or(ids.first()).copied(),
            version: stored.version,
            schedules: stored.keys.iter().map(|key| key.schedule.clone()).collect(),
            keys: stored.keys.iter().map(open).collect::<Result<_, _>>()?,
        })
    }

    fn published_keys(&self, now: Timestamp) -> impl Iterator<Item = &OwnKey> {
        self.schedules
            .iter()
            .zip(&self.keys)
            .filter(move |(schedule, _)| schedule.state(now) != KeyState::Gone)
            .map(|(_, key)| key)
    }

    fn active_key(&self, algorithm: SigningAlgorithm, now: Timestamp) -> Option<&OwnKey> {
        let schedule = signing_key(&self.schedules, algorithm, now)?;
        self.keys.iter().find(|key| key.kid == schedule.kid)
    }
}

impl Signer for Keyring {
    fn sign(&self, algorithm: SigningAlgorithm, typ: &str, claims: &[u8], now: Timestamp) -> Result<String, Outage> {
        let keys = self.keys();
        let key = keys
            .active_key(algorithm, now)
            .ok_or_else(|| Outage::during("sign a token")(format!("no {algorithm} key is active")))?;
        let header = key.encoded_header(typ).map_err(Outage::during("sign a token"))?;
        let mut token = format!("{header}.{}", encode_base64url(claims));
        let signature = key.sign(token.as_bytes()).map_err(Outage::during("sign a token"))?;
        token.push('.');
        token.push_str(&encode_base64url(&signature));
        Ok(token)
    }

    fn verify(&self, token: CompactJws<'_>, now: Timestamp) -> Option<VerifiedToken> {
        let keys = self.keys();
        // The signature is verified first, so that all tokens take the same time.
        let own = |key: &OwnKey, typ: Option<Cow<'static, str>>, token: CompactJws<'_>| {
            let is_valid = key.is_valid_signature(token.signing_input(), token.signature());
            typ.filter(|_| is_valid).map(|typ| VerifiedToken {
                key: key.kid.clone(),
                typ,
                payload: token.into_payload(),
            })
        };
        // Nearly every token begins with a known encoded header, which need not be parsed again.
        if let Some((key, typ)) =
            keys.published_keys(now).find_map(|key| Some((key, key.typ_of_header(token.encoded_header())?)))
        {
            return own(key, Some(Cow::Borrowed(typ)), token);
        }
        let header = token.decode_header().ok()?;
        let named =
            |key: &&OwnKey| header.kid.as_deref() == Some(key.kid.as_str()) && header.alg == key.algorithm.as_str();
        let Some(key) = keys.published_keys(now).find(named) else {
            // A foreign token takes as long as a forged own one: a signature is verified and the
            // result discarded.
            let same_algorithm = keys.published_keys(now).find(|key| header.alg == key.algorithm.as_str());
            if let Some(key) = same_algorithm.or_else(|| keys.published_keys(now).next()) {
                let _ = std::hint::black_box(key.is_valid_signature(token.signing_input(), token.signature()));
            }
            return None;
        };
        own(key, header.typ.map(Cow::Owned), token)
    }

    /// The name of a key is its thumbprint, so a key with the same name is the same key.
    fn is_published(&self, key: &KeyId, now: Timestamp) -> bool {
        self.keys().published_keys(now).any(|published| published.kid == *key)
    }

    fn jwks(&self, now: Timestamp) -> JwkSet {
        self.keys().published_keys(now).map(OwnKey::public_jwk).collect()
    }

    fn active_algorithms(&self, now: Timestamp) -> Vec<SigningAlgorithm> {
        let keys = self.keys();
        [SigningAlgorithm::ES256, SigningAlgorithm::EdDSA, SigningAlgorithm::RS256]
            .into_iter()
            .filter(|algorithm| keys.active_key(*algorithm, now).is_some())
            .collect()
    }

    fn schedules(&self) -> Vec<KeySchedule> {
        self.keys().schedules.clone()
    }

    fn version(&self) -> u64 {
        self.keys().version
    }

    /// All stored keys must decrypt: a replica without some of the keys would reject valid tokens.
    fn replace_keys(&self, stored: StoredKeys) -> Result<(), Outage> {
        let keys = OpenKeys::open(&self.keks, &stored).map_err(Outage::during("open the signing keys"))?;
        *self.keys.write() = Arc::new(keys);
        Ok(())
    }

    fn create_key(
        &self,
        algorithm: SigningAlgorithm,
        now: Timestamp,
        activates: Timestamp,
    ) -> Result<StoredKey, Outage> {
        let under = self.keys().kek_in_use;
        generate_key(&self.keks, under, algorithm, now, activates).map_err(Outage::during("generate a signing key"))
    }

    fn create_audit_key(&self, now: Timestamp) -> Result<StoredSealedKey, Outage> {
        let keys = self.keys();
        let name = SealedKeyName { purpose: KeyPurpose::AuditRecords, epoch: keys.sealed_keys.next_audit_epoch() };
        sealed_keys::generate(&self.keks, keys.kek_in_use, name, now)
            .map_err(Outage::during("generate a key of audit records"))
    }

    fn reseal_keys(&self, stored: StoredKeys) -> Result<StoredKeys, Outage> {
        let reseal = |key: &StoredKey| {
            let kid = &key.schedule.kid;
            let sealed = self.keks.reseal(&error_name(kid), &signing_key_aad(kid), &key.sealed_private_key)?;
            Ok(StoredKey { sealed_private_key: sealed, ..key.clone() })
        };
        let failed = Outage::during::<KeyringError>("seal the keys under the current key-encryption key");
        let resealed = || {
            let resealed = StoredKeys {
                version: stored.version,
                keys: stored.keys.iter().map(reseal).collect::<Result<_, KeyringError>>()?,
                sealed_keys: stored
                    .sealed_keys
                    .iter()
                    .map(|key| sealed_keys::reseal(&self.keks, key))
                    .collect::<Result<_, KeyringError>>()?,
                seal: None,
            };
            Ok(StoredKeys { seal: Some(self.keys().sealed_keys.seal_keys(&resealed)?), ..resealed })
        };
        resealed().map_err(failed)
    }
}

impl StoreSealer for Keyring {
    /// Computes the salt as `HMAC-SHA-256(key, count)` with a random key of this process.
    fn new_salt(&self) -> [u8; SALT_LEN] {
        let count = self.salt_count.fetch_add(1, Ordering::Relaxed);
        let tag = hmac::sign(&self.salt_key, &count.to_be_bytes());
        tag.as_ref().first_chunk().copied().unwrap_or_default()
    }

    fn seal(&self, hash: &str) -> Result<Seal, Outage> {
        self.keys().sealed_keys.seal(hash).map_err(Outage::during("seal an audit record"))
    }

    fn seal_registry(&self, version: u64, digest: &str) -> Result<String, Outage> {
        self.keys().sealed_keys.seal_registry(version, digest).map_err(Outage::during("seal the registry"))
    }

    fn is_registry_authentic(&self, version: u64, digest: &str, seal: &str) -> Result<bool, Outage> {
        let keys = self.keys();
        keys.sealed_keys.is_registry_authentic(version, digest, seal).map_err(Outage::during("verify the registry"))
    }

    fn seal_keys(&self, keys: &StoredKeys) -> Result<String, Outage> {
        self.keys().sealed_keys.seal_keys(keys).map_err(Outage::during("seal the keys"))
    }

    fn verify_keys(&self, keys: &StoredKeys) -> Result<(), Outage> {
        self.keys().sealed_keys.verify_keys(keys).map_err(Outage::during("verify the keys"))
    }

    fn tag_row(&self, row: &str) -> Result<String, Outage> {
        self.keys().sealed_keys.tag_row(row).map_err(Outage::during("compute the tag of a row"))
    }

    fn is_row_authentic(&self, row: &str, tag: &str) -> Result<bool, Outage> {
        self.keys().sealed_keys.is_row_authentic(row, tag).map_err(Outage::during("verify the tag of a row"))
    }
}

impl AuditKeys for Keyring {
    fn is_authentic(&self, hash: &str, seal: &Seal) -> bool {
        self.keys().sealed_keys.is_authentic(hash, seal)
    }

    fn sign_checkpoint(&self, payload: &[u8]) -> Result<String, Outage> {
        let keys = self.keys();
        let key = keys.sealed_keys.checkpoint_keys().next_back();
        let key = key.ok_or(KeyringError::MissingSealedKey(KeyPurpose::AuditCheckpoints));
        key.and_then(|key| checkpoints::sign(key, payload)).map_err(Outage::during("sign an audit checkpoint"))
    }

    fn verify_checkpoint(&self, text: &str) -> Option<Vec<u8>> {
        verify_checkpoint(&self.checkpoint_jwks(), text)
    }

    fn checkpoint_jwks(&self) -> JwkSet {
        self.keys().sealed_keys.checkpoint_keys().map(OwnKey::public_jwk).collect()
    }
}

fn error_name(kid: &KeyId) -> String {
    format!("signing key `{kid}`")
}
