//! This server's keys: sealing, opening, and use by their schedule.

use std::slice::from_ref;

use errand::{
    adapters::keyring::{
        Kek, KekSet, Keyring, KeyringError, generate_key, generate_sealed_keys, seal_keys, verify_checkpoint,
    },
    domain::{
        audit::Seal,
        id::KeyId,
        jose::{
            jwk::{JwkSet, JwsAlgorithm, SigningAlgorithm},
            jws::CompactJws,
        },
        sealed_key::{KeyPurpose, StoredSealedKey},
        secret::Secret,
        time::{Lifetime, Timestamp},
    },
    ports::{AuditKeys, Signer, StoreSealer, StoredKey, StoredKeys, TamperingError},
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
    generate_key(&kek().into(), None, algorithm, NOW, NOW).unwrap()
}

fn stored(keys: &[StoredKey]) -> StoredKeys {
    stored_with(keys, sealed_keys(&kek().into()))
}

/// Returns stored keys with their seal.
fn stored_with(keys: &[StoredKey], sealed_keys: Vec<StoredSealedKey>) -> StoredKeys {
    sealed(StoredKeys { version: 1, keys: keys.to_vec(), sealed_keys, seal: None })
}

/// Seals the keys, if they have a key to seal with.
fn sealed(stored: StoredKeys) -> StoredKeys {
    StoredKeys { seal: seal_keys(&kek().into(), &stored).ok(), ..stored }
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

/// HKDF-SHA-256 of the key-encryption key, then AES-256-GCM with the identifier of that key and the
/// nonce first, and the name of the row as additional data.
fn unseal(key: &StoredKey) -> Vec<u8> {
    let root = hkdf::Salt::new(hkdf::HKDF_SHA256, b"errand key-encryption key").extract(&[7; 32]);
    let info = [&b"errand sealed keys v1"[..]];
    let sealing = LessSafeKey::new(UnboundKey::from(root.expand(&info, &AES_256_GCM).unwrap()));
    let (_, rest) = key.sealed_private_key.split_at(8);
    let (nonce, rest) = rest.split_at(12);
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
    let new = generate_key(&kek().into(), None, SigningAlgorithm::ES256, NOW, at(100)).unwrap();
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
    let error = keyring.replace(&sealed(StoredKeys { version: 2, ..stored(&[second.clone(), broken]) })).unwrap_err();
    assert!(matches!(error, KeyringError::UnsealFailed { .. }));
    assert_eq!((keyring.version(), verifies(&keyring, &token, NOW)), (1, true));
    keyring.replace(&sealed(StoredKeys { version: 3, ..stored(&[second]) })).unwrap();
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
    let stored = stored_with(from_ref(&key), Vec::new());
    let error = Keyring::open(Kek::new(&[8; 32]).unwrap(), &stored).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!(
            "signing key `{}` is sealed under key-encryption key `{}`, which is not configured; name its file in \
             `encryption_key_file`, or in `previous_encryption_key_files` until `errand keys rekey` has run",
            key.schedule.kid,
            kek().id()
        )
    );
}

fn sealed_keys(keks: &KekSet) -> Vec<StoredSealedKey> {
    generate_sealed_keys(keks, &KeyPurpose::ALL, NOW).unwrap()
}

/// A replica that has both key-encryption keys reads what either has sealed, and writes what the
/// replicas with the old one alone can read. After the change, the old one is not needed.
#[test]
fn rekey_changes_the_sealing_and_nothing_else() {
    let (old, new) = ([7; 32], [8; 32]);
    let set = |current: &[u8; 32], previous: &[[u8; 32]]| {
        let previous = previous.iter().map(|key| Kek::new(key).unwrap()).collect();
        KekSet::new(Kek::new(current).unwrap(), previous)
    };
    let before = stored(&[key(SigningAlgorithm::ES256)]);
    let tag = |keyring: &Keyring| keyring.pepper().unwrap().tag("files", &Secret::new("s3cret".into()));
    let first = Keyring::open(set(&old, &[]), &before).unwrap();
    let token = first.sign(SigningAlgorithm::ES256, "at+jwt", CLAIMS, NOW).unwrap();
    let both = Keyring::open(set(&new, &[old]), &before).unwrap();
    assert!(first.is_rekeyed() && !both.is_rekeyed());
    let created = both.create_key(SigningAlgorithm::EdDSA, NOW, NOW).unwrap();
    assert!(Keyring::open(set(&old, &[]), &stored(from_ref(&created))).is_ok(), "sealed under the key in use");

    let same = StoredKeys {
        version: 1,
        keys: before.keys.clone(),
        sealed_keys: before.sealed_keys.clone(),
        seal: before.seal.clone(),
    };
    let unchanged = first.reseal_keys(same).unwrap();
    assert_eq!((&unchanged.keys, &unchanged.sealed_keys), (&before.keys, &before.sealed_keys));

    let after = both.reseal_keys(before).unwrap();
    assert!(matches!(Keyring::open(set(&old, &[]), &after), Err(KeyringError::UnknownKek { .. })));
    let rekeyed = Keyring::open(set(&new, &[]), &after).unwrap();
    assert!(rekeyed.is_rekeyed() && verifies(&rekeyed, &token, NOW));
    assert_eq!(tag(&rekeyed).as_bytes(), tag(&first).as_bytes(), "client secrets stay valid");
    both.replace(&after).unwrap();
    let created = both.create_key(SigningAlgorithm::EdDSA, NOW, NOW).unwrap();
    let stored = StoredKeys { keys: vec![created], ..after };
    let stored = StoredKeys { seal: seal_keys(&set(&new, &[]), &stored).ok(), ..stored };
    assert!(Keyring::open(set(&new, &[]), &stored).is_ok());
}

#[test]
fn sealed_keys_are_bound_to_their_row() {
    let keys = sealed_keys(&kek().into());
    let open = |sealed_keys: Vec<StoredSealedKey>| Keyring::open(kek(), &stored_with(&[], sealed_keys));
    open(keys.clone()).unwrap().pepper().unwrap();
    for (n, key) in keys.iter().enumerate() {
        let other = keys[(n + 1) % keys.len()].name;
        let moved = open(vec![StoredSealedKey { name: other, ..key.clone() }]).unwrap_err();
        assert_eq!(
            moved.to_string(),
            format!(
                "sealed key `{other}` can't be decrypted; the stored key was altered: restore it from a backup of the database"
            )
        );
        assert!(!format!("{key:?}").contains("sealed: "));
    }
    assert!(matches!(open(Vec::new()).unwrap_err(), KeyringError::Tampering(TamperingError::Keys)));
    let without = Keyring::open_new(kek(), Vec::new()).unwrap();
    let missing = without.pepper().err().unwrap().to_string();
    assert!(missing.starts_with("no sealed key `client_secrets` is stored; restore"), "{missing}");
}

/// Records of an earlier key stay authentic after its replacement.
#[test]
fn audit_key_is_replaced_and_kept() {
    let keks = KekSet::from(kek());
    let mut keys = sealed_keys(&keks);
    let open = |keys: &[StoredSealedKey]| Keyring::open(kek(), &stored_with(&[], keys.to_vec())).unwrap();
    let first = open(&keys);
    let seal = first.seal("hash").unwrap();
    assert!(seal.epoch == 1 && first.is_authentic("hash", &seal) && !first.is_authentic("other", &seal));
    keys.push(first.create_audit_key(NOW).unwrap());
    let both = open(&keys);
    let next = both.seal("hash").unwrap();
    assert!(next.epoch == 2 && next.mac != seal.mac);
    assert!(both.is_authentic("hash", &seal) && both.is_authentic("hash", &next));
    assert!(!first.is_authentic("hash", &next), "a key that is not known authenticates nothing");
    assert!(!both.is_authentic("hash", &Seal { epoch: 2, ..seal }));
    assert_ne!(both.new_salt(), both.new_salt());
    assert_ne!(both.new_salt(), open(&keys).new_salt(), "each process has its own salts");
}

#[test]
fn checkpoint_signatures_verify_with_their_public_key_only() {
    let keys = sealed_keys(&kek().into());
    let open = |sealed_keys: Vec<StoredSealedKey>| {
        Keyring::open(kek(), &stored_with(&[key(SigningAlgorithm::EdDSA)], sealed_keys)).unwrap()
    };
    let (one, other) = (open(keys), open(sealed_keys(&kek().into())));
    let text = one.sign_checkpoint(b"{}").unwrap();
    assert_eq!(one.verify_checkpoint(&text).as_deref(), Some(&b"{}"[..]));
    assert_eq!(verify_checkpoint(&one.checkpoint_jwks(), &text).as_deref(), Some(&b"{}"[..]));
    assert_eq!(other.verify_checkpoint(&text), None, "the key of another server");
    assert_eq!(verify_checkpoint(&one.jwks(NOW), &text), None, "a key of tokens");
    assert!(!verifies(&one, &text, NOW), "a checkpoint is not a token");
    let token = one.sign(SigningAlgorithm::EdDSA, "errand-audit-checkpoint+jwt", b"{}", NOW).unwrap();
    assert_eq!(one.verify_checkpoint(&token), None, "a token-signing key signs no checkpoint");
    for at in 0..text.len() {
        let mut changed = text.clone().into_bytes();
        changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
        assert_eq!(one.verify_checkpoint(&String::from_utf8(changed).unwrap()), None, "character {at}");
        assert_eq!(one.verify_checkpoint(text.get(..at).unwrap()), None, "truncated at {at}");
    }
}

#[test]
fn generated_keys_differ() {
    let (a, b) = (sealed_keys(&kek().into()), sealed_keys(&kek().into()));
    let open = |sealed_keys: Vec<StoredSealedKey>| {
        Keyring::open(kek(), &stored_with(&[], sealed_keys)).unwrap().pepper().unwrap()
    };
    let secret = Secret::new("s3cret".into());
    let tag = open(a.clone()).tag("files", &secret);
    assert!(open(a).matches("files", &secret, &tag) && !open(b).matches("files", &secret, &tag));
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
        let stored = stored_with(from_ref(&key), Vec::new());
        let error = Keyring::open(Kek::new(&[8; 32]).unwrap(), &stored).unwrap_err();
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
