//! The key-encryption key, which an operator keeps apart from the database, so that neither alone
//! exposes the secrets.

use std::fmt;

use ring::{
    aead::{AES_256_GCM, Aad, LessSafeKey, MAX_TAG_LEN, NONCE_LEN, Nonce, UnboundKey},
    hkdf,
    rand::SecureRandom,
};
use zeroize::Zeroizing;

use super::KeyringError;
use crate::{
    adapters::system,
    domain::{id::KeyId, secret::Pepper},
    ports::signing_key_aad,
};

/// The key-encryption key, as two keys derived from it by HKDF-SHA-256 (RFC 5869). One seals the
/// private keys, the other computes the tags of client secrets. The key itself is not kept.
pub struct Kek {
    sealing_key: Zeroizing<[u8; 32]>,
    pepper_key: Zeroizing<[u8; 32]>,
}

impl Kek {
    /// Derives the two keys. The caller wipes the key that it passed.
    pub fn new(key: &[u8; 32]) -> Result<Self, KeyringError> {
        let root = hkdf::Salt::new(hkdf::HKDF_SHA256, b"errand key-encryption key").extract(key);
        let derive = |purpose: &[u8]| {
            let mut derived = Zeroizing::new([0; 32]);
            let info = [purpose];
            let expanded = root.expand(&info, hkdf::HKDF_SHA256).and_then(|okm| okm.fill(&mut derived[..]));
            expanded.map(|()| derived).map_err(|_| KeyringError::Crypto("the derivation from the key-encryption key"))
        };
        Ok(Self { sealing_key: derive(b"errand signing keys v1")?, pepper_key: derive(b"errand client secrets v1")? })
    }

    /// Returns the key for the tags of client secrets.
    #[must_use]
    pub fn pepper(&self) -> Pepper {
        Pepper::new(&self.pepper_key)
    }

    /// Encrypts a private key as `nonce || ciphertext || tag`, bound to its table, row and column.
    pub(super) fn seal(&self, kid: &KeyId, private: &[u8]) -> Result<Vec<u8>, KeyringError> {
        let mut nonce = [0; NONCE_LEN];
        system::os_random().fill(&mut nonce).map_err(|_| system::entropy_unavailable())?;
        let mut text = Zeroizing::new(private.to_vec());
        let tag = self
            .aead_key()?
            .seal_in_place_separate_tag(Nonce::assume_unique_for_key(nonce), Aad::from(signing_key_aad(kid)), &mut text)
            .map_err(|_| KeyringError::Crypto("the sealing of a signing key"))?;
        Ok([&nonce[..], &text, tag.as_ref()].concat())
    }

    /// Decrypts a private key that [`Kek::seal`] encrypted for the same `kid` with the same key.
    pub(super) fn open(&self, kid: &KeyId, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, KeyringError> {
        let cannot_open = || KeyringError::UnsealFailed { kid: kid.clone() };
        let (nonce, rest) = sealed.split_first_chunk::<NONCE_LEN>().ok_or_else(cannot_open)?;
        let mut text = Zeroizing::new(rest.to_vec());
        self.aead_key()?
            .open_in_place(Nonce::assume_unique_for_key(*nonce), Aad::from(signing_key_aad(kid)), &mut text)
            .map_err(|_| cannot_open())?;
        text.truncate(rest.len().saturating_sub(MAX_TAG_LEN));
        Ok(text)
    }

    fn aead_key(&self) -> Result<LessSafeKey, KeyringError> {
        let key = UnboundKey::new(&AES_256_GCM, &self.sealing_key[..]);
        key.map(LessSafeKey::new).map_err(|_| KeyringError::Crypto("the loading of the key-encryption key"))
    }
}

impl fmt::Debug for Kek {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Kek(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::secret::Secret;

    #[test]
    fn sealed_data_opens_with_its_own_name_and_key_only() {
        let (kek, other) = (Kek::new(&[7; 32]).unwrap(), Kek::new(&[8; 32]).unwrap());
        let (a, b) = ("a".parse::<KeyId>().unwrap(), "b".parse::<KeyId>().unwrap());
        let sealed = kek.seal(&a, b"private").unwrap();
        assert_eq!(kek.open(&a, &sealed).unwrap().as_slice(), b"private");
        assert_ne!(kek.seal(&a, b"private").unwrap(), sealed, "each ciphertext has its own nonce");
        assert!(!sealed.windows(7).any(|part| part == b"private"));
        assert!(matches!(kek.open(&b, &sealed), Err(KeyringError::UnsealFailed { .. })), "moved to another row");
        assert!(matches!(other.open(&a, &sealed), Err(KeyringError::UnsealFailed { .. })), "another key");
        for at in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[at] ^= 1;
            assert!(kek.open(&a, &changed).is_err(), "byte {at} changed");
            assert!(kek.open(&a, &sealed[..at]).is_err(), "truncated at {at}");
        }
    }

    #[test]
    fn pepper_is_a_separate_key() {
        let (kek, other) = (Kek::new(&[7; 32]).unwrap(), Kek::new(&[8; 32]).unwrap());
        let secret = || Secret::new("s3cret".into());
        let tag = kek.pepper().tag("files", &secret());
        assert!(Kek::new(&[7; 32]).unwrap().pepper().matches("files", &secret(), &tag), "the same after a restart");
        assert!(!other.pepper().matches("files", &secret(), &tag));
        assert_ne!(kek.pepper_key, kek.sealing_key);
        assert!(!Pepper::new(&[7; 32]).matches("files", &secret(), &tag), "not the key-encryption key itself");
        assert_eq!(format!("{kek:?}"), "Kek(..)");
    }
}
