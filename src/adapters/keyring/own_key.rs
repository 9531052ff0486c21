//! One signing key of this server: generated, parsed and used. Signatures are computed by ring.

use std::{borrow::Cow, fmt};

use ring::{
    digest,
    rsa::PublicKeyComponents,
    signature::{
        ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, ED25519, EcdsaKeyPair, Ed25519KeyPair, KeyPair,
        RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_SHA256, RsaKeyPair, UnparsedPublicKey,
    },
};
use serde::Serialize;
use serde_json::{Map, Value};
use zeroize::Zeroizing;

use super::KeyringError;
use crate::{
    adapters::{jose, system},
    domain::{
        encode_base64url,
        id::KeyId,
        jose::jwk::SigningAlgorithm,
        keys::KeySchedule,
        token::{TYP_ACCESS_TOKEN, TYP_TXN_TOKEN},
    },
    ports::StoredKey,
};

/// A signing key, ready for use.
pub(super) struct OwnKey {
    pub(super) algorithm: SigningAlgorithm,
    pub(super) kid: KeyId,
    private_key: PrivateKey,
    public_key: PublicKey,
    /// The encoded headers of its tokens, by `typ`.
    encoded_headers: [(&'static str, String); 2],
}

#[derive(Serialize)]
struct TokenHeader<'a> {
    alg: &'a str,
    typ: &'a str,
    kid: &'a str,
}

fn encode_header(algorithm: SigningAlgorithm, typ: &str, kid: &KeyId) -> serde_json::Result<String> {
    let header = serde_json::to_vec(&TokenHeader { alg: algorithm.as_str(), typ, kid: kid.as_str() })?;
    Ok(encode_base64url(&header))
}

enum PrivateKey {
    Es256(EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
    Rs256(RsaKeyPair),
}

impl OwnKey {
    /// Generates a private key (PKCS#8).
    pub(super) fn generate(algorithm: SigningAlgorithm) -> Result<Zeroizing<Vec<u8>>, KeyringError> {
        let failed = |_| KeyringError::Crypto("the generation of a signing key");
        let rng = system::os_random();
        let pkcs8 = match algorithm {
            SigningAlgorithm::ES256 => {
                EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &rng).map_err(failed)?
            }
            SigningAlgorithm::EdDSA => Ed25519KeyPair::generate_pkcs8(&rng).map_err(failed)?,
            SigningAlgorithm::RS256 => return Ok(jose::generate_rsa()?),
        };
        Ok(Zeroizing::new(pkcs8.as_ref().to_vec()))
    }

    /// Parses a private key. The public key and the name are derived from it and from nothing else.
    pub(super) fn parse(algorithm: SigningAlgorithm, pkcs8: &[u8]) -> Option<Self> {
        let pair = match algorithm {
            SigningAlgorithm::ES256 => PrivateKey::Es256(
                EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8, &system::os_random()).ok()?,
            ),
            SigningAlgorithm::EdDSA => PrivateKey::Ed25519(Ed25519KeyPair::from_pkcs8(pkcs8).ok()?),
            SigningAlgorithm::RS256 => PrivateKey::Rs256(RsaKeyPair::from_pkcs8(pkcs8).ok()?),
        };
        let public = PublicKey::from_private(&pair)?;
        let kid = public.thumbprint()?;
        let ready = |typ| Some((typ, encode_header(algorithm, typ, &kid).ok()?));
        let encoded_headers = [ready(TYP_ACCESS_TOKEN)?, ready(TYP_TXN_TOKEN)?];
        Some(Self { algorithm, kid, private_key: pair, public_key: public, encoded_headers })
    }

    /// Returns the header of a token of this `typ`, in base64url.
    pub(super) fn encoded_header(&self, typ: &str) -> serde_json::Result<Cow<'_, str>> {
        match self.encoded_headers.iter().find(|(known, _)| *known == typ) {
            Some((_, ready)) => Ok(ready.into()),
            None => encode_header(self.algorithm, typ, &self.kid).map(Cow::Owned),
        }
    }

    /// Returns the `typ` of an encoded header if it is one of this key's.
    pub(super) fn typ_of_header(&self, header: &str) -> Option<&'static str> {
        self.encoded_headers.iter().find(|(_, known)| known == header).map(|(typ, _)| *typ)
    }

    /// Parses a stored key, and checks the stored name and public key against the private key. The
    /// stored public JWK is only compared: an attacker who can change it could otherwise publish a
    /// foreign key.
    pub(super) fn parse_checked(stored: &StoredKey, pkcs8: &[u8]) -> Result<Self, KeyringError> {
        let KeySchedule { kid, algorithm, .. } = &stored.schedule;
        let key = Self::parse(*algorithm, pkcs8).ok_or_else(|| KeyringError::Malformed { kid: kid.clone() })?;
        let public = serde_json::from_str::<Map<String, Value>>(&stored.public_jwk).ok();
        if key.kid != *kid || public != Some(key.public_jwk()) {
            return Err(KeyringError::PublicPartMismatch { kid: kid.clone() });
        }
        Ok(key)
    }

    pub(super) fn sign(&self, message: &[u8]) -> Result<Vec<u8>, KeyringError> {
        let failed = |_| KeyringError::Crypto("a signature");
        match &self.private_key {
            PrivateKey::Es256(pair) => {
                pair.sign(&system::os_random(), message).map(|signature| signature.as_ref().to_vec()).map_err(failed)
            }
            PrivateKey::Ed25519(pair) => Ok(pair.sign(message).as_ref().to_vec()),
            PrivateKey::Rs256(pair) => {
                let mut signature = vec![0; pair.public().modulus_len()];
                pair.sign(&RSA_PKCS1_SHA256, &system::os_random(), message, &mut signature).map_err(failed)?;
                Ok(signature)
            }
        }
    }

    pub(super) fn is_valid_signature(&self, message: &[u8], signature: &[u8]) -> bool {
        let result = match &self.private_key {
            PrivateKey::Es256(pair) => {
                UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, pair.public_key()).verify(message, signature)
            }
            PrivateKey::Ed25519(pair) => UnparsedPublicKey::new(&ED25519, pair.public_key()).verify(message, signature),
            PrivateKey::Rs256(pair) => {
                UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, pair.public()).verify(message, signature)
            }
        };
        result.is_ok()
    }

    /// Returns the published JWK: the public key, its name and its use.
    pub(super) fn public_jwk(&self) -> Map<String, Value> {
        let published = PublishedJwk {
            kid: self.kid.as_str(),
            alg: self.algorithm.as_str(),
            purpose: "sig",
            key: &self.public_key,
        };
        match serde_json::to_value(published) {
            Ok(Value::Object(jwk)) => jwk,
            _ => Map::new(),
        }
    }
}

impl fmt::Debug for OwnKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OwnKey").field("kid", &self.kid).field("algorithm", &self.algorithm).finish_non_exhaustive()
    }
}

#[derive(Serialize)]
struct PublishedJwk<'a> {
    kid: &'a str,
    alg: &'a str,
    #[serde(rename = "use")]
    purpose: &'a str,
    #[serde(flatten)]
    key: &'a PublicKey,
}

/// The members of the public key (RFC 7518 §6, RFC 8037 §2), in the order of a thumbprint.
#[derive(Serialize)]
#[serde(untagged)]
enum PublicKey {
    Ec { crv: &'static str, kty: &'static str, x: String, y: String },
    Okp { crv: &'static str, kty: &'static str, x: String },
    Rsa { e: String, kty: &'static str, n: String },
}

impl PublicKey {
    fn from_private(pair: &PrivateKey) -> Option<Self> {
        Some(match pair {
            PrivateKey::Es256(pair) => {
                // SEC 1 §2.3.3: 4, x, y.
                let point = pair.public_key().as_ref().strip_prefix(&[4])?;
                let (x, y) = point.split_at_checked(32)?;
                Self::Ec { crv: "P-256", kty: "EC", x: encode_base64url(x), y: encode_base64url(y) }
            }
            PrivateKey::Ed25519(pair) => {
                Self::Okp { crv: "Ed25519", kty: "OKP", x: encode_base64url(pair.public_key().as_ref()) }
            }
            PrivateKey::Rs256(pair) => {
                let parts = PublicKeyComponents::<Vec<u8>>::from(pair.public());
                Self::Rsa { e: encode_base64url(&parts.e), kty: "RSA", n: encode_base64url(&parts.n) }
            }
        })
    }

    /// Returns the thumbprint (RFC 7638 §3): the hash of the required members in lexicographic
    /// order, without spaces.
    fn thumbprint(&self) -> Option<KeyId> {
        let text = serde_json::to_vec(self).ok()?;
        encode_base64url(digest::digest(&digest::SHA256, &text).as_ref()).parse().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn key_ids_are_thumbprints() {
        // RFC 7638 §3.1 and RFC 8037 appendix A.3.
        let rsa = PublicKey::Rsa {
            e: "AQAB".into(),
            kty: "RSA",
            n: concat!(
                "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiF",
                "V4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9",
                "c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1",
                "jF44-csFCur-kEgU8awapJzKnqDKgw"
            )
            .into(),
        };
        assert_eq!(rsa.thumbprint().unwrap().as_str(), "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs");
        let ed25519 =
            PublicKey::Okp { crv: "Ed25519", kty: "OKP", x: "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo".into() };
        assert_eq!(ed25519.thumbprint().unwrap().as_str(), "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k");
    }

    #[test]
    fn private_key_matches_its_algorithm() {
        for made in [SigningAlgorithm::ES256, SigningAlgorithm::EdDSA, SigningAlgorithm::RS256] {
            let pkcs8 = OwnKey::generate(made).unwrap();
            for read in [SigningAlgorithm::ES256, SigningAlgorithm::EdDSA, SigningAlgorithm::RS256] {
                assert_eq!(OwnKey::parse(read, &pkcs8).is_some(), made == read, "{made} read as {read}");
            }
        }
    }
}
