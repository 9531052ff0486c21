//! This server's signing keys. The store holds them with sealed private keys. The keyring opens and
//! parses each once, and uses them by their schedule.

mod kek;
mod own_key;

use std::{borrow::Cow, sync::Arc};

use parking_lot::RwLock;
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

/// A reason why signing keys can't be used or generated.
#[derive(Debug, Error)]
pub enum KeyringError {
    /// The private key can't be decrypted.
    #[error(
        "signing key `{kid}` can't be decrypted with this key-encryption key, or the stored key was altered; restore the \
         original key-encryption key, which is the same on every replica"
    )]
    UnsealFailed {
        /// The key.
        kid: KeyId,
    },
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
    /// Entropy is unavailable.
    #[error(transparent)]
    Outage(#[from] Outage),
}

/// The decrypted signing keys.
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
    /// Decrypts the stored keys. All of them must decrypt: a replica without some of the keys would
    /// reject valid tokens.
    pub fn open(kek: Kek, stored: &StoredKeys) -> Result<Self, KeyringError> {
        let keys = RwLock::new(Arc::new(OpenKeys::open(&kek, stored)?));
        Ok(Self { kek, keys })
    }

    /// Replaces the keys by the stored ones. On an error the previous keys stay in use.
    pub fn replace(&self, stored: &StoredKeys) -> Result<(), KeyringError> {
        let keys = Arc::new(OpenKeys::open(&self.kek, stored)?);
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

/// Generates a key to be stored. An RSA key takes a large part of a second, so not on a thread that
/// serves requests.
pub fn generate_key(
    kek: &Kek,
    algorithm: SigningAlgorithm,
    created: Timestamp,
    activates: Timestamp,
) -> Result<StoredKey, KeyringError> {
    let private = OwnKey::generate(algorithm)?;
    let key = OwnKey::parse(algorithm, &private).ok_or(KeyringError::Crypto("the parsing of a new signing key"))?;
    let public_jwk = serde_json::Value::Object(key.public_jwk()).to_string();
    let sealed = kek.seal(&key.kid, &private)?;
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
        let keys = OpenKeys::open(&self.kek, &stored).map_err(Outage::during("open the signing keys"))?;
        *self.keys.write() = Arc::new(keys);
        Ok(())
    }

    fn create_key(
        &self,
        algorithm: SigningAlgorithm,
        now: Timestamp,
        activates: Timestamp,
    ) -> Result<StoredKey, Outage> {
        generate_key(&self.kek, algorithm, now, activates).map_err(Outage::during("generate a signing key"))
    }
}
