//! This server's keys: sealing, opening, and use by their schedule.

use std::slice::from_ref;

use errand::{
    adapters::keyring::{Kek, Keyring, KeyringError, generate_key},
    domain::{
        id::KeyId,
        jose::{
            jwk::{JwkSet, JwsAlgorithm, SigningAlgorithm},
            jws::CompactJws,
        },
        time::{Lifetime, Timestamp},
    },
    ports::{Signer, StoredKey, StoredKeys},
};
use josekit::{jwk::Jwk, jws::JwsSigner as _};
use ring::{
    aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey},
    hkdf,
};
use serde_json::{Value, json};

use crate::support::{KeyPair, NOW, VerifierFixture, sign_jws};

const ALGORITHMS: [SigningAlgorithm; 3] = [SigningAlgorithm::ES256, SigningAlgorithm::EdDSA, SigningAlgorithm::RS256];
const CLAIMS: &[u8] = br#"{"iss":"https://sts.example.com","sub":"alice","aud":"https://files.example.com/mcp"}"#;

fn kek() -> Kek {
    Kek::new(&[7; 32]).unwrap()
}

fn key(algorithm: SigningAlgorithm) -> StoredKey {
    generate_key(&kek(), algorithm, NOW, NOW).unwrap()
}

fn stored(keys: &[StoredKey]) -> StoredKeys {
    StoredKeys { version: 1, keys: keys.to_vec() }
}

fn keyring(keys: &[StoredKey]) -> Keyring {
    Keyring::open(kek(), &stored(keys)).unwrap()
}

fn verifies(keyring: &Keyring, token: &str, now: Timestamp) -> bool {
    keyring.verify(CompactJws::parse(token).unwrap(), now).is_some()
}

/// Both ring and josekit verify the signatures of ring with the published key.
#[test]
fn issued_tokens_verify_with_published_keys() {
    let keyring = keyring(&ALGORITHMS.map(key));
    assert_eq!(keyring.active_algorithms(NOW), ALGORITHMS);
    for algorithm in ALGORITHMS {
        for typ in ["at+jwt", "txntoken+jwt", "token-introspection+jwt"] {
            let token = keyring.sign(algorithm, typ, CLAIMS, NOW).unwrap();
            let jws = CompactJws::parse(&token).unwrap();
            let header = jws.decode_header().unwrap();
            assert_eq!((header.alg.as_str(), header.typ.as_deref()), (algorithm.as_str(), Some(typ)));
            let own = keyring.verify(jws, NOW).unwrap();
            assert_eq!(header.kid.as_deref(), Some(own.key.as_str()));
            assert_eq!((&*own.typ, own.payload.as_slice()), (typ, CLAIMS), "{algorithm}");
            let allowed = [JwsAlgorithm::parse(algorithm.as_str()).unwrap()];
            assert_eq!(VerifierFixture::new().verify_with(&keyring.jwks(NOW), &allowed, &token), None, "{algorithm}");
        }
    }
}

/// ring verifies a signature by josekit with the same key. The test decrypts the key as the
/// documentation describes.
#[test]
fn externally_signed_tokens_verify() {
    for algorithm in ALGORITHMS {
        let stored = key(algorithm);
        let pkcs8 = unseal(&stored);
        let public: Value = serde_json::from_str(&stored.public_jwk).unwrap();
        let private = match algorithm {
            // The offset of the 32 bytes in ring's PKCS#8 templates.
            SigningAlgorithm::ES256 => jwk_with_private_part(&public, &pkcs8[36..68]),
            SigningAlgorithm::EdDSA => jwk_with_private_part(&public, &pkcs8[16..48]),
            SigningAlgorithm::RS256 => {
                let pair = josekit::jwk::alg::rsa::RsaKeyPair::from_der(&pkcs8).unwrap();
                josekit::jwk::KeyPair::to_jwk_key_pair(&pair)
            }
        };
        let party = KeyPair(private);
        let foreign = JwsAlgorithm::parse(algorithm.as_str()).unwrap();
        let token = party.token(foreign, json!({"kid": public["kid"], "typ": "at+jwt"}));
        assert!(verifies(&keyring(from_ref(&stored)), &token, NOW), "{algorithm}");
        assert!(!verifies(&keyring(&[key(algorithm)]), &token, NOW), "{algorithm}: another key");
    }
}

fn jwk_with_private_part(public: &Value, d: &[u8]) -> Jwk {
    let mut key = public.as_object().unwrap().clone();
    key.insert("d".into(), errand::domain::encode_base64url(d).into());
    Jwk::from_map(key).unwrap()
}

/// HKDF-SHA-256 of the key-encryption key, then AES-256-GCM with the nonce first and the name of
/// the row as additional data.
fn unseal(key: &StoredKey) -> Vec<u8> {
    let root = hkdf::Salt::new(hkdf::HKDF_SHA256, b"errand key-encryption key").extract(&[7; 32]);
    let info = [&b"errand signing keys v1"[..]];
    let sealing = LessSafeKey::new(UnboundKey::from(root.expand(&info, &AES_256_GCM).unwrap()));
    let (nonce, rest) = key.sealed_private_key.split_at(12);
    let mut text = rest.to_vec();
    let nonce = Nonce::try_assume_unique_for_key(nonce).unwrap();
    let name = Aad::from(format!("signing_keys|{}|sealed", key.schedule.kid));
    sealing.open_in_place(nonce, name, &mut text).unwrap().to_vec()
}

/// The `kid` must be that of a published key, and `alg` must be the key's algorithm.
#[test]
fn unknown_kid_is_rejected() {
    let keyring = keyring(&ALGORITHMS.map(key));
    let names: Vec<String> = keyring.jwks(NOW).keys().map(|key| key["kid"].as_str().unwrap().to_owned()).collect();
    for (n, algorithm) in ALGORITHMS.into_iter().enumerate() {
        let token = keyring.sign(algorithm, "at+jwt", CLAIMS, NOW).unwrap();
        let signature = token.rsplit_once('.').unwrap().1;
        let signature = errand::domain::decode_base64url(signature).unwrap();
        for (m, kid) in names.iter().map(String::as_str).chain(["../../x", "' OR 1=1 --", ""]).enumerate() {
            for alg in ["ES256", "EdDSA", "RS256", "Ed25519", "PS256", "HS256", "none"] {
                let forged = sign_jws(alg, json!({"kid": kid, "typ": "at+jwt"}), |_| signature.clone());
                assert!(!verifies(&keyring, &forged, NOW), "{algorithm} signature under {kid} ({m}, {n}) and {alg}");
            }
        }
        let without_kid = sign_jws(algorithm.as_str(), json!({"typ": "at+jwt"}), |_| signature.clone());
        assert!(!verifies(&keyring, &without_kid, NOW));
    }
    let zeros = sign_jws("ES256", json!({"kid": names[0], "typ": "at+jwt"}), |_| vec![0; 64]);
    assert!(!verifies(&keyring, &zeros, NOW), "r = s = 0");
    assert!(!verifies(&self::keyring(&[]), &zeros, NOW), "an empty keyring");
}

/// Valid signatures of the own key over headers that this server does not write.
#[test]
fn valid_signature_with_wrong_header_is_rejected() {
    let stored = key(SigningAlgorithm::EdDSA);
    let public: Value = serde_json::from_str(&stored.public_jwk).unwrap();
    let signer =
        josekit::jws::EdDSA.signer_from_jwk(&jwk_with_private_part(&public, &unseal(&stored)[16..48])).unwrap();
    let keyring = keyring(&[stored]);
    for (alg, header, want) in [
        ("EdDSA", json!({"kid": public["kid"], "typ": "at+jwt"}), true),
        ("EdDSA", json!({"kid": public["kid"]}), false),
        ("EdDSA", json!({"typ": "at+jwt"}), false),
        ("EdDSA", json!({"kid": "", "typ": "at+jwt"}), false),
        ("Ed25519", json!({"kid": public["kid"], "typ": "at+jwt"}), false),
        ("ES256", json!({"kid": public["kid"], "typ": "at+jwt"}), false),
        ("none", json!({"kid": public["kid"], "typ": "at+jwt"}), false),
    ] {
        let token = sign_jws(alg, header.clone(), |message| signer.sign(message).unwrap());
        assert_eq!(verifies(&keyring, &token, NOW), want, "{alg} {header}");
    }
}

#[test]
fn flipped_bit_is_rejected() {
    let keyring = keyring(&ALGORITHMS.map(key));
    for algorithm in ALGORITHMS {
        let token = keyring.sign(algorithm, "at+jwt", CLAIMS, NOW).unwrap();
        assert!(verifies(&keyring, &token, NOW));
        let mut parsed = 0;
        for at in 0..token.len() {
            for bit in 0..7 {
                let mut changed = token.clone().into_bytes();
                changed[at] ^= 1 << bit;
                let changed = String::from_utf8(changed).unwrap();
                if CompactJws::parse(&changed).is_ok() {
                    parsed += 1;
                    assert!(!verifies(&keyring, &changed, NOW), "{algorithm}: bit {bit} of byte {at}");
                }
            }
        }
        assert!(parsed > 100, "too few variants reached the signature check: {parsed}");
    }
}

/// Publication, signing, retirement and removal follow the schedule, regardless of what the replica
/// did before.
#[test]
fn key_use_follows_its_schedule() {
    let at = |seconds| NOW.saturating_add(Lifetime::seconds(seconds));
    let mut old = key(SigningAlgorithm::ES256);
    old.schedule.retires_at = Some(at(100));
    old.schedule.unpublished_at = Some(at(200));
    let new = generate_key(&kek(), SigningAlgorithm::ES256, NOW, at(100)).unwrap();
    let keyring = keyring(&[old.clone(), new.clone()]);
    let kid = |token: &str| CompactJws::parse(token).unwrap().decode_header().unwrap().kid.unwrap();
    let by_old = keyring.sign(SigningAlgorithm::ES256, "at+jwt", CLAIMS, at(99)).unwrap();
    let by_new = keyring.sign(SigningAlgorithm::ES256, "at+jwt", CLAIMS, at(100)).unwrap();
    assert_eq!((kid(&by_old), kid(&by_new)), (old.schedule.kid.to_string(), new.schedule.kid.to_string()));
    for (now, published) in [(0, 2), (99, 2), (199, 2), (200, 1)] {
        assert_eq!(keyring.jwks(at(now)).keys().count(), published, "{now}");
        assert_eq!(verifies(&keyring, &by_old, at(now)), published == 2, "{now}");
        assert!(verifies(&keyring, &by_new, at(now)), "{now}: the clock of another replica may be ahead");
    }
    assert!(keyring.sign(SigningAlgorithm::RS256, "at+jwt", CLAIMS, NOW).is_err(), "no key of this algorithm");
    let none = self::keyring(&[]);
    assert_eq!((none.active_algorithms(NOW), none.jwks(NOW).keys().count()), (vec![], 0));
}

#[test]
fn key_replacement_is_atomic() {
    let (first, second) = (key(SigningAlgorithm::ES256), key(SigningAlgorithm::EdDSA));
    let keyring = keyring(from_ref(&first));
    let token = keyring.sign(SigningAlgorithm::ES256, "at+jwt", CLAIMS, NOW).unwrap();
    let mut broken = second.clone();
    broken.sealed_private_key[20] ^= 1;
    let error = keyring.replace(&StoredKeys { version: 2, keys: vec![second.clone(), broken] }).unwrap_err();
    assert!(matches!(error, KeyringError::UnsealFailed { .. }));
    assert_eq!((keyring.version(), verifies(&keyring, &token, NOW)), (1, true));
    keyring.replace(&StoredKeys { version: 3, keys: vec![second] }).unwrap();
    assert_eq!((keyring.version(), verifies(&keyring, &token, NOW)), (3, false));
    assert_eq!(keyring.active_algorithms(NOW), [SigningAlgorithm::EdDSA]);
}

/// Write access to the database does not suffice to make the server use or publish a foreign key.
#[test]
fn stored_keys_are_validated() {
    let (a, b) = (key(SigningAlgorithm::ES256), key(SigningAlgorithm::ES256));
    let error = |key: StoredKey| Keyring::open(kek(), &stored(&[key])).unwrap_err();
    let moved = StoredKey { schedule: b.schedule.clone(), ..a.clone() };
    assert!(matches!(error(moved), KeyringError::UnsealFailed { .. }), "a private key under another name");
    let swapped = StoredKey { public_jwk: b.public_jwk.clone(), ..a.clone() };
    assert!(matches!(error(swapped), KeyringError::PublicPartMismatch { .. }), "another public key");
    let garbled = StoredKey { public_jwk: "{".into(), ..a.clone() };
    assert!(matches!(error(garbled), KeyringError::PublicPartMismatch { .. }));
    let mut relabeled = a.clone();
    relabeled.schedule.algorithm = SigningAlgorithm::EdDSA;
    assert!(matches!(error(relabeled), KeyringError::Malformed { .. }), "another algorithm");
    let truncated = StoredKey { sealed_private_key: vec![1; 5], ..a };
    assert!(matches!(error(truncated), KeyringError::UnsealFailed { .. }));
}

#[test]
fn wrong_encryption_key_is_reported() {
    let key = key(SigningAlgorithm::ES256);
    let error = Keyring::open(Kek::new(&[8; 32]).unwrap(), &stored(from_ref(&key))).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!(
            "signing key `{}` can't be decrypted with this key-encryption key, or the stored key was altered; restore the \
             original key-encryption key, which is the same on every replica",
            key.schedule.kid
        )
    );
}

#[test]
fn published_jwks_has_public_members_only() {
    for algorithm in ALGORITHMS {
        let key = key(algorithm);
        let keys = keyring(from_ref(&key)).jwks(NOW);
        let published = keys.keys().next().unwrap();
        assert_eq!(published["kid"], key.schedule.kid.as_str());
        assert_eq!((&published["alg"], &published["use"]), (&json!(algorithm.as_str()), &json!("sig")));
        let mut members: Vec<_> = published.keys().map(String::as_str).collect();
        members.sort_unstable();
        let want: &[&str] = match algorithm {
            SigningAlgorithm::ES256 => &["alg", "crv", "kid", "kty", "use", "x", "y"],
            SigningAlgorithm::EdDSA => &["alg", "crv", "kid", "kty", "use", "x"],
            SigningAlgorithm::RS256 => &["alg", "e", "kid", "kty", "n", "use"],
        };
        assert_eq!(members, want, "{algorithm}");
        assert!(JwkSet::try_from(Value::from(keys.clone())).is_ok(), "a valid key set");
        assert!(published["kid"].as_str().unwrap().parse::<KeyId>().is_ok());
    }
}

/// No output contains private key bytes, in any encoding.
#[test]
fn debug_output_hides_private_keys() {
    for algorithm in ALGORITHMS {
        let key = key(algorithm);
        let private = unseal(&key);
        let keyring = keyring(from_ref(&key));
        let error = Keyring::open(Kek::new(&[8; 32]).unwrap(), &stored(from_ref(&key))).unwrap_err();
        let jwks = Value::from(keyring.jwks(NOW));
        let printed =
            format!("{keyring:?} {keyring:#?} {key:?} {:?} {error:?} {error} {jwks} {}", kek(), key.public_jwk);
        let encodings = |bytes: &[u8]| {
            let hex: String = bytes
                .iter()
                .flat_map(|byte| [byte >> 4, byte & 15])
                .filter_map(|n| char::from_digit(n.into(), 16))
                .collect();
            let list: Vec<String> = bytes.iter().map(ToString::to_string).collect();
            [errand::domain::encode_base64url(bytes), hex, list.join(", ")]
        };
        // The secret part of the PKCS#8: the ES256 scalar, the Ed25519 seed, the RSA private
        // exponent and primes.
        let secret = match algorithm {
            SigningAlgorithm::ES256 => &private[36..68],
            SigningAlgorithm::EdDSA => &private[16..48],
            SigningAlgorithm::RS256 => &private[320..],
        };
        for part in secret.chunks_exact(6) {
            for encoding in encodings(part) {
                assert!(!printed.contains(&encoding), "{algorithm}: {encoding}");
            }
        }
        for encoding in encodings(&[7; 6]) {
            assert!(!printed.contains(&encoding), "the key-encryption key: {encoding}");
        }
    }
}
