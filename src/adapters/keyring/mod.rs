//! Our own signing keys. They lie in the store with their private parts sealed; here they are open, parsed once, and
//! used by their dates.

mod kek;
mod own_key;

use std::{
    borrow::Cow,
    sync::{Arc, PoisonError, RwLock},
};

use thiserror::Error;

pub use kek::Kek;
use own_key::OwnKey;

use crate::{
    domain::{
        encode_base64url,
        id::KeyId,
        jose::{
            jwk::{JwkSet, SigningAlgorithm},
            jws::CompactJws,
        },
        keys::{KeySchedule, KeyState, signing_key},
        time::Timestamp,
    },
    ports::{Outage, Signer, StoredKey, StoredKeys, VerifiedToken},
};

/// Why our keys can't be used or made.
#[derive(Debug, Error)]
pub enum KeyringError {
    /// The seal does not open.
    #[error(
        "signing key `{kid}` can't be opened: the file with the key-encryption key is not the one that the stored keys \
         were sealed with (or the stored key was altered); put the right file back, every replica needs the same one"
    )]
    UnsealFailed {
        /// The key.
        kid: KeyId,
    },
    /// The seal opens, and there is no such key in it.
    #[error("signing key `{kid}` is no private key of its algorithm: the stored key was altered")]
    Malformed {
        /// The key.
        kid: KeyId,
    },
    /// Name or public part do not belong to the private part.
    #[error(
        "the name or the public part of signing key `{kid}` is not that of its private part: the stored key was altered"
    )]
    PublicPartMismatch {
        /// The key.
        kid: KeyId,
    },
    /// ring refused, which it does not do with keys that are as they should be.
    #[error("{0} failed")]
    Crypto(&'static str),
    /// No dice.
    #[error(transparent)]
    Outage(#[from] Outage),
}

/// Our keys, open.
#[derive(Debug)]
pub struct Keyring {
    kek: Kek,
    keys: RwLock<Arc<OpenKeys>>,
}

#[derive(Debug)]
struct OpenKeys {
    version: u64,
    schedules: Vec<KeySchedule>,
    keys: Vec<OwnKey>,
}

impl Keyring {
    /// Opens the stored keys. All of them must open: a replica with half of the keys would call good tokens bad.
    pub fn open(kek: Kek, stored: &StoredKeys) -> Result<Self, KeyringError> {
        let keys = RwLock::new(Arc::new(OpenKeys::open(&kek, stored)?));
        Ok(Self { kek, keys })
    }

    /// Takes what is stored now instead. On a fault the keys stay as they were.
    pub fn replace(&self, stored: &StoredKeys) -> Result<(), KeyringError> {
        let keys = Arc::new(OpenKeys::open(&self.kek, stored)?);
        *self.keys.write().unwrap_or_else(PoisonError::into_inner) = keys;
        Ok(())
    }

    /// The version of the stored keys that are open here.
    pub fn version(&self) -> u64 {
        self.keys().version
    }

    fn keys(&self) -> Arc<OpenKeys> {
        self.keys.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// A new key, to be stored. An RSA key takes a good part of a second: not on a thread that serves requests.
pub fn generate_key(
    kek: &Kek,
    algorithm: SigningAlgorithm,
    created: Timestamp,
    activates: Timestamp,
) -> Result<StoredKey, KeyringError> {
    let private = OwnKey::generate(algorithm)?;
    let key = OwnKey::parse(algorithm, &private).ok_or(KeyringError::Crypto("reading a new signing key"))?;
    let public_jwk = serde_json::Value::Object(key.public_jwk()).to_string();
    let sealed = kek.seal(&key.kid, &private)?;
    let dates = KeySchedule {
        kid: key.kid,
        algorithm,
        created_at: created,
        activates_at: activates,
        retires_at: None,
        unpublished_at: None,
    };
    Ok(StoredKey { schedule: dates, public_jwk, sealed_private_key: sealed })
}

impl OpenKeys {
    fn open(kek: &Kek, stored: &StoredKeys) -> Result<Self, KeyringError> {
        let open = |key: &StoredKey| OwnKey::parse_checked(key, &kek.open(&key.schedule.kid, &key.sealed_private_key)?);
        Ok(Self {
            version: stored.version,
            schedules: stored.keys.iter().map(|key| key.schedule.clone()).collect(),
            keys: stored.keys.iter().map(open).collect::<Result<_, _>>()?,
        })
    }

    fn published_keys(&self, now: Timestamp) -> impl Iterator<Item = &OwnKey> {
        self.schedules
            .iter()
            .zip(&self.keys)
            .filter(move |(dates, _)| dates.state(now) != KeyState::Gone)
            .map(|(_, key)| key)
    }

    fn active_key(&self, algorithm: SigningAlgorithm, now: Timestamp) -> Option<&OwnKey> {
        let dates = signing_key(&self.schedules, algorithm, now)?;
        self.keys.iter().find(|key| key.kid == dates.kid)
    }
}

impl Signer for Keyring {
    fn sign(&self, algorithm: SigningAlgorithm, typ: &str, claims: &[u8], now: Timestamp) -> Result<String, Outage> {
        let keys = self.keys();
        let key = keys
            .active_key(algorithm, now)
            .ok_or_else(|| Outage::during("signing")(format!("there is no active {algorithm} key")))?;
        let head = key.encoded_header(typ).map_err(Outage::during("signing"))?;
        let mut token = format!("{head}.{}", encode_base64url(claims));
        let signature = key.sign(token.as_bytes()).map_err(Outage::during("signing"))?;
        token.push('.');
        token.push_str(&encode_base64url(&signature));
        Ok(token)
    }

    fn verify(&self, token: CompactJws<'_>, now: Timestamp) -> Option<VerifiedToken> {
        let keys = self.keys();
        // The signature first, whatever else there is to say: all tokens cost the same.
        let own = |key: &OwnKey, typ: Option<Cow<'static, str>>, token: CompactJws<'_>| {
            let is_good = key.is_valid_signature(token.signing_input(), token.signature());
            typ.filter(|_| is_good).map(|typ| VerifiedToken {
                key: key.kid.clone(),
                typ,
                payload: token.into_payload(),
            })
        };
        // Nearly every token begins as we write it, and that need not be read again.
        if let Some((key, typ)) =
            keys.published_keys(now).find_map(|key| Some((key, key.typ_of_header(token.encoded_header())?)))
        {
            return own(key, Some(Cow::Borrowed(typ)), token);
        }
        let header = token.decode_header().ok()?;
        let named =
            |key: &&OwnKey| header.kid.as_deref() == Some(key.kid.as_str()) && header.alg == key.algorithm.as_str();
        let Some(key) = keys.published_keys(now).find(named) else {
            // A stranger's token costs what a forged one of ours costs: the work is done and thrown away.
            let alike = keys.published_keys(now).find(|key| header.alg == key.algorithm.as_str());
            if let Some(key) = alike.or_else(|| keys.published_keys(now).next()) {
                let _ = std::hint::black_box(key.is_valid_signature(token.signing_input(), token.signature()));
            }
            return None;
        };
        own(key, header.typ.map(Cow::Owned), token)
    }

    /// A key is named by its thumbprint, so one of this name is this one.
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

    /// All of the stored keys must open: a replica with half of the keys would call good tokens bad.
    fn replace_keys(&self, stored: StoredKeys) -> Result<(), Outage> {
        let keys = OpenKeys::open(&self.kek, &stored).map_err(Outage::during("open the signing keys"))?;
        *self.keys.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(keys);
        Ok(())
    }

    fn create_key(
        &self,
        algorithm: SigningAlgorithm,
        now: Timestamp,
        activates: Timestamp,
    ) -> Result<StoredKey, Outage> {
        generate_key(&self.kek, algorithm, now, activates).map_err(Outage::during("make a signing key"))
    }
}
