//! The key-encryption key, which an operator keeps apart from the database, so that neither alone
//! exposes the secrets. It encrypts the other keys and nothing else, so that it can be replaced.

use std::fmt;

use ring::{
    aead::{AES_256_GCM, Aad, LessSafeKey, MAX_TAG_LEN, NONCE_LEN, Nonce, UnboundKey},
    hkdf,
    rand::SecureRandom,
};
use zeroize::Zeroizing;

use super::KeyringError;
use crate::{adapters::system, domain::encode_base64url};

/// The length of the identifier of a key-encryption key in bytes.
const ID_LEN: usize = 8;

/// The identifier of a key-encryption key. It is derived from the key, and reveals nothing of it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct KekId([u8; ID_LEN]);

impl fmt::Display for KekId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&encode_base64url(&self.0))
    }
}

impl fmt::Debug for KekId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KekId({self})")
    }
}

/// A key-encryption key, as two values derived from it by HKDF-SHA-256 (RFC 5869): the key that
/// seals other keys, and its identifier. The key itself is not kept.
pub struct Kek {
    id: KekId,
    sealing_key: Zeroizing<[u8; 32]>,
}

impl Kek {
    /// Derives the two values. The caller wipes the key that it passed.
    pub fn new(key: &[u8; 32]) -> Result<Self, KeyringError> {
        let root = hkdf::Salt::new(hkdf::HKDF_SHA256, b"errand key-encryption key").extract(key);
        let derive = |purpose: &[u8]| {
            let mut derived = Zeroizing::new([0; 32]);
            let info = [purpose];
            let expanded = root.expand(&info, hkdf::HKDF_SHA256).and_then(|okm| okm.fill(&mut derived[..]));
            expanded.map(|()| derived).map_err(|_| KeyringError::Crypto("the derivation from the key-encryption key"))
        };
        let id = derive(b"errand key-encryption key id v1")?;
        let id = KekId(id.first_chunk().copied().unwrap_or_default());
        Ok(Self { id, sealing_key: derive(b"errand sealed keys v1")? })
    }

    /// Returns the identifier.
    #[must_use]
    pub fn id(&self) -> KekId {
        self.id
    }

    /// Encrypts a key as `id || nonce || ciphertext || tag`, bound to its table, row and column.
    fn seal(&self, aad: &str, key: &[u8]) -> Result<Vec<u8>, KeyringError> {
        let mut nonce = [0; NONCE_LEN];
        system::os_random().fill(&mut nonce).map_err(|_| system::entropy_unavailable())?;
        let mut text = Zeroizing::new(key.to_vec());
        let tag = self
            .aead_key()?
            .seal_in_place_separate_tag(Nonce::assume_unique_for_key(nonce), Aad::from(aad), &mut text)
            .map_err(|_| KeyringError::Crypto("the sealing of a key"))?;
        Ok([&self.id.0[..], &nonce[..], &text, tag.as_ref()].concat())
    }

    fn open(&self, aad: &str, sealed: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        let (nonce, rest) = sealed.split_first_chunk::<NONCE_LEN>()?;
        let mut text = Zeroizing::new(rest.to_vec());
        self.aead_key().ok()?.open_in_place(Nonce::assume_unique_for_key(*nonce), Aad::from(aad), &mut text).ok()?;
        text.truncate(rest.len().saturating_sub(MAX_TAG_LEN));
        Some(text)
    }

    fn aead_key(&self) -> Result<LessSafeKey, KeyringError> {
        let key = UnboundKey::new(&AES_256_GCM, &self.sealing_key[..]);
        key.map(LessSafeKey::new).map_err(|_| KeyringError::Crypto("the loading of the key-encryption key"))
    }
}

impl fmt::Debug for Kek {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kek").field("id", &self.id).finish_non_exhaustive()
    }
}

/// The configured key-encryption keys: the current one, and previous ones while the stored keys
/// change from one to the other.
#[derive(Debug)]
pub struct KekSet {
    current: Kek,
    previous: Vec<Kek>,
}

impl From<Kek> for KekSet {
    fn from(current: Kek) -> Self {
        Self { current, previous: Vec::new() }
    }
}

impl KekSet {
    /// Creates the set. A previous key that equals the current one is left out.
    #[must_use]
    pub fn new(current: Kek, mut previous: Vec<Kek>) -> Self {
        previous.retain(|key| key.id != current.id);
        Self { current, previous }
    }

    /// Returns the identifier of the current key.
    #[must_use]
    pub fn current_id(&self) -> KekId {
        self.current.id
    }

    /// Returns whether previous keys are configured.
    #[must_use]
    pub fn has_previous(&self) -> bool {
        !self.previous.is_empty()
    }

    /// Returns the identifier of the key-encryption key with which a key is sealed.
    #[must_use]
    pub fn id_of(sealed: &[u8]) -> Option<KekId> {
        sealed.first_chunk().map(|id| KekId(*id))
    }

    /// Encrypts a key under the key-encryption key with this identifier, or else the current one.
    pub(super) fn seal(&self, under: Option<KekId>, aad: &str, key: &[u8]) -> Result<Vec<u8>, KeyringError> {
        let kek = under.and_then(|id| self.find(id)).unwrap_or(&self.current);
        kek.seal(aad, key)
    }

    /// Decrypts a key that was sealed with the same additional data. `name` is for errors.
    pub(super) fn open(&self, name: &str, aad: &str, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, KeyringError> {
        let unseal_failed = || KeyringError::UnsealFailed { name: name.to_owned() };
        let (id, rest) = sealed.split_first_chunk::<ID_LEN>().ok_or_else(unseal_failed)?;
        let id = KekId(*id);
        let kek = self.find(id).ok_or_else(|| KeyringError::UnknownKek { name: name.to_owned(), kek: id })?;
        kek.open(aad, rest).ok_or_else(unseal_failed)
    }

    /// Decrypts a key and encrypts it under the current key-encryption key. A key that is already
    /// sealed under it is returned as it is.
    pub(super) fn reseal(&self, name: &str, aad: &str, sealed: &[u8]) -> Result<Vec<u8>, KeyringError> {
        let key = self.open(name, aad, sealed)?;
        if Self::id_of(sealed) == Some(self.current.id) { Ok(sealed.to_vec()) } else { self.current.seal(aad, &key) }
    }

    fn find(&self, id: KekId) -> Option<&Kek> {
        std::iter::once(&self.current).chain(&self.previous).find(|kek| kek.id == id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kek(byte: u8) -> Kek {
        Kek::new(&[byte; 32]).unwrap()
    }

    #[test]
    fn sealed_data_opens_with_its_own_name_and_key_only() {
        let (keks, other) = (KekSet::from(kek(7)), KekSet::from(kek(8)));
        let sealed = keks.seal(None, "a", b"private").unwrap();
        assert_eq!(keks.open("x", "a", &sealed).unwrap().as_slice(), b"private");
        assert_ne!(keks.seal(None, "a", b"private").unwrap(), sealed, "each ciphertext has its own nonce");
        assert!(!sealed.windows(7).any(|part| part == b"private"));
        assert!(matches!(keks.open("x", "b", &sealed), Err(KeyringError::UnsealFailed { .. })), "moved to another row");
        assert!(matches!(other.open("x", "a", &sealed), Err(KeyringError::UnknownKek { .. })), "another key");
        let mut claimed = sealed.clone();
        claimed[..ID_LEN].copy_from_slice(&kek(8).id.0);
        assert!(matches!(other.open("x", "a", &claimed), Err(KeyringError::UnsealFailed { .. })), "a false identifier");
        for at in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[at] ^= 1;
            assert!(keks.open("x", "a", &changed).is_err(), "byte {at} changed");
            assert!(keks.open("x", "a", &sealed[..at]).is_err(), "truncated at {at}");
        }
    }

    #[test]
    fn previous_key_opens_and_seals_what_is_sealed_under_it() {
        let old = KekSet::from(kek(7)).seal(None, "a", b"private").unwrap();
        let both = KekSet::new(kek(8), vec![kek(7)]);
        assert_eq!(both.open("x", "a", &old).unwrap().as_slice(), b"private");
        assert_eq!(KekSet::id_of(&old), Some(kek(7).id));
        let under_old = both.seal(KekSet::id_of(&old), "b", b"another").unwrap();
        assert!(KekSet::from(kek(7)).open("x", "b", &under_old).is_ok(), "replicas with the old key alone read it");
        let under_new = both.seal(None, "b", b"another").unwrap();
        assert_eq!(KekSet::id_of(&under_new), Some(both.current_id()));
        assert!(!KekSet::new(kek(7), vec![kek(7)]).has_previous());
    }

    #[test]
    fn identifier_is_stable_and_not_part_of_the_key() {
        assert_eq!(kek(7).id, kek(7).id);
        assert_ne!(kek(7).id, kek(8).id);
        assert_ne!(kek(7).id.0[..], kek(7).sealing_key[..ID_LEN]);
        assert_ne!(kek(7).id.0, [7; ID_LEN]);
        assert_eq!(format!("{:?}", kek(7)), format!("Kek {{ id: KekId({}), .. }}", kek(7).id()));
    }
}
