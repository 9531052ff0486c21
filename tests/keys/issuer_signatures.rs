//! Signatures of other parties: the use of keys and algorithms.

use errand::domain::{
    decode_base64url, encode_base64url,
    jose::{
        jwk::{
            JwkSet,
            JwsAlgorithm::{self, ES256, ES384, ES512, EdDSA, PS256, RS256},
        },
        jws::{JwsError, UnverifiedJws},
    },
};
use josekit::{
    jwk::{Jwk, alg::ed::EdCurve},
    jws::{EdDSA as JosekitEdDSA, HS256, JwsSigner as _},
};
use serde_json::{Value, json};

use crate::support::{FailureKind, KeyPair, VerifierFixture, jwk_set, sign_jws};

/// Every algorithm verifies. A key that is bound to one, by its own `alg` or by the signer's entry,
/// verifies no other.
#[test]
fn key_is_used_for_its_bound_algorithm_only() {
    let all = JwsAlgorithm::ALL;
    let verifier = VerifierFixture::new();
    let mut accepted = 0;
    for signed in all {
        let party = KeyPair::new(signed);
        let token = party.token(signed, json!({"kid": "a"}));
        for other in all {
            let want = |error| (signed != other).then_some(error);
            let free = jwk_set(&[party.public(json!({"kid": "a"}))]);
            let verdict = verifier.verify_with(&free, &[other], &token);
            assert_eq!(verdict, want(FailureKind::Algorithm), "{signed} token, entry with {other}");
            let bound = jwk_set(&[party.public(json!({"kid": "a", "alg": other.as_str()}))]);
            let verdict = verifier.verify_with(&bound, &all, &token);
            assert_eq!(verdict, want(FailureKind::UnknownKey), "{signed} token, key with {other}");
            accepted += usize::from(verdict.is_none());
        }
    }
    assert_eq!(accepted, all.len());
}

#[test]
fn foreign_or_mismatched_key_is_rejected() {
    let verifier = VerifierFixture::new();
    for algorithm in [ES256, EdDSA] {
        let token = KeyPair::new(algorithm).token(algorithm, json!({"kid": "a"}));
        let wrong = jwk_set(&[KeyPair::new(algorithm).public(json!({"kid": "a"}))]);
        assert_eq!(
            verifier.verify_with(&wrong, &JwsAlgorithm::ALL, &token),
            Some(FailureKind::Signature),
            "{algorithm}"
        );
        let other_kind = jwk_set(&[KeyPair::new(RS256).public(json!({"kid": "a"}))]);
        let verdict = verifier.verify_with(&other_kind, &JwsAlgorithm::ALL, &token);
        assert_eq!(verdict, Some(FailureKind::UnknownKey), "{algorithm}");
    }
}

/// RFC 9864 names `EdDSA` with this curve `Ed25519`, in the header and in the key. Ed448 is another
/// curve.
#[test]
fn ed25519_is_accepted_under_both_names() {
    let verifier = VerifierFixture::new();
    let party = KeyPair::new(EdDSA);
    let signer = JosekitEdDSA.signer_from_jwk(&party.0).unwrap();
    for alg in ["EdDSA", "Ed25519"] {
        let token = sign_jws(alg, json!({"kid": "a"}), |message| signer.sign(message).unwrap());
        for key_alg in ["EdDSA", "Ed25519"] {
            let keys = jwk_set(&[party.public(json!({"kid": "a", "alg": key_alg}))]);
            assert_eq!(verifier.verify_with(&keys, &[EdDSA], &token), None, "{alg} {key_alg}");
        }
    }
    let ed448 = KeyPair(Jwk::generate_ed_key(EdCurve::Ed448).unwrap());
    let signer = JosekitEdDSA.signer_from_jwk(&ed448.0).unwrap();
    let token = sign_jws("EdDSA", json!({"kid": "a"}), |message| signer.sign(message).unwrap());
    let keys = jwk_set(&[ed448.public(json!({"kid": "a"}))]);
    assert_eq!(verifier.verify_with(&keys, &[EdDSA], &token), Some(FailureKind::UnknownKey));
}

#[test]
fn key_with_other_use_does_not_verify() {
    let party = KeyPair::new(ES256);
    let token = party.token(ES256, json!({"kid": "a"}));
    for (members, want) in [
        (json!({"use": "sig"}), None),
        (json!({"use": "enc"}), Some(FailureKind::UnknownKey)),
        (json!({"use": 1}), Some(FailureKind::UnknownKey)),
        (json!({"key_ops": ["verify"]}), None),
        (json!({"key_ops": ["sign", "verify"]}), None),
        (json!({"key_ops": ["encrypt"]}), Some(FailureKind::UnknownKey)),
        (json!({"key_ops": []}), Some(FailureKind::UnknownKey)),
        (json!({"key_ops": "verify"}), Some(FailureKind::UnknownKey)),
        (json!({"alg": "ES256"}), None),
        (json!({"alg": "ES256K"}), Some(FailureKind::UnknownKey)),
        (json!({"alg": "none"}), Some(FailureKind::UnknownKey)),
        (json!({"kid": 7}), Some(FailureKind::UnknownKey)),
        (json!({"crv": "P-384"}), Some(FailureKind::UnknownKey)),
        (json!({"crv": "secp256k1"}), Some(FailureKind::UnknownKey)),
        (json!({"kty": "OKP"}), Some(FailureKind::UnknownKey)),
        (json!({"kty": "RSA"}), Some(FailureKind::UnknownKey)),
        (json!({"x": "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"}), Some(FailureKind::UnknownKey)),
        (json!({"x": "", "y": ""}), Some(FailureKind::UnknownKey)),
        (json!({"x": null}), Some(FailureKind::UnknownKey)),
        (json!({"x5c": ["nonsense"], "unknown": {"x": 1}}), None),
    ] {
        let mut all = json!({"kid": "a"});
        all.as_object_mut().unwrap().extend(members.as_object().unwrap().clone());
        let verdict = VerifierFixture::new().verify_with(&jwk_set(&[party.public(all)]), &JwsAlgorithm::ALL, &token);
        assert_eq!(verdict, want, "{members}");
    }
}

/// Some issuers drop leading zeros of coordinates, or add zeros or padding to numbers.
#[test]
fn numbers_in_unusual_forms_are_read() {
    let decode = |key: &Value, name: &str| decode_base64url(key[name].as_str().unwrap()).unwrap();
    let with = |key: &Value, name: &str, value: String| {
        let mut key = key.clone();
        key[name] = json!(value);
        key
    };
    let verify = |key: Value, algorithm, token: &str| {
        let (keys, _) = JwkSet::from_published(&json!({ "keys": [key] })).unwrap();
        VerifierFixture::new().verify_with(&keys, &[algorithm], token)
    };
    for algorithm in [ES256, ES384, ES512] {
        // One key in 256 has a coordinate that begins with a zero; in P-521, one in two.
        let (party, key) = (0..4096)
            .map(|_| KeyPair::new(algorithm))
            .map(|party| {
                let key = party.public(json!({"kid": "a"}));
                (party, key)
            })
            .find(|(_, key)| decode(key, "x")[0] == 0)
            .unwrap();
        let token = party.token(algorithm, json!({"kid": "a"}));
        let x = decode(&key, "x");
        let short = x.iter().copied().skip_while(|byte| *byte == 0).collect::<Vec<_>>();
        assert_eq!(verify(key.clone(), algorithm, &token), None, "{algorithm}");
        assert_eq!(verify(with(&key, "x", encode_base64url(&short)), algorithm, &token), None, "{algorithm} short");
        let long = [&[0, 0][..], &x].concat();
        assert_eq!(verify(with(&key, "x", encode_base64url(&long)), algorithm, &token), None, "{algorithm} long");
        let padded = format!("{}==", key["y"].as_str().unwrap());
        assert_eq!(verify(with(&key, "y", padded), algorithm, &token), None, "{algorithm} padded");
        let other = [&[1][..], &x].concat();
        let verdict = verify(with(&key, "x", encode_base64url(&other)), algorithm, &token);
        assert_eq!(verdict, Some(FailureKind::UnknownKey), "{algorithm} too long");
    }
    let party = KeyPair::new(RS256);
    let (key, token) = (party.public(json!({"kid": "a"})), party.token(RS256, json!({"kid": "a"})));
    let n = decode(&key, "n");
    let standard = key["n"].as_str().unwrap().replace('-', "+").replace('_', "/");
    for n in
        [encode_base64url(&[&[0][..], &n].concat()), format!("{}==", encode_base64url(&n)), format!("{standard}==")]
    {
        assert_eq!(verify(with(&key, "n", n), RS256, &token), None);
    }
    for n in [format!(" {standard}"), format!("{standard}\n"), "not base64!".to_owned()] {
        assert_eq!(verify(with(&key, "n", n.clone()), RS256, &token), Some(FailureKind::UnknownKey), "{n:?}");
    }
}

/// With an exponent of 1 the signature of a message is its padded hash, so it is forgeable.
#[test]
fn weak_rsa_keys_are_rejected() {
    let strong = KeyPair::new(RS256);
    let weak = KeyPair(Jwk::generate_rsa_key(2040).unwrap());
    let token = sign_jws("RS256", json!({}), |_| vec![1; 255]);
    let verify = |key: Value| VerifierFixture::new().verify_with(&jwk_set(&[key]), &[RS256, PS256], &token);
    assert_eq!(verify(weak.public(json!({}))), Some(FailureKind::UnknownKey), "2040 bits");
    assert_eq!(verify(strong.public(json!({}))), Some(FailureKind::Signature), "2048 bits: the key is accepted");
    for exponent in ["AQ", "Ag", "AA", "", "AQAA", "AQABAQABAQAB"] {
        assert_eq!(
            verify(strong.public(json!({"e": exponent}))),
            Some(FailureKind::UnknownKey),
            "exponent {exponent:?}"
        );
    }
    for modulus in ["", "AA", "_".repeat(1400).as_str()] {
        assert_eq!(
            verify(strong.public(json!({"n": modulus}))),
            Some(FailureKind::UnknownKey),
            "{} digits",
            modulus.len()
        );
    }
}

/// Boundary values such as `r = s = 0`, and signatures of other lengths and encodings.
#[test]
fn forged_signatures_are_rejected() {
    let verifier = VerifierFixture::new();
    for algorithm in [ES256, EdDSA, RS256, PS256] {
        let keys = jwk_set(&[KeyPair::new(algorithm).public(json!({"kid": "a"}))]);
        let order = b"\xff\xff\xff\xff\0\0\0\0\xff\xff\xff\xff\xff\xff\xff\xff\xbc\xe6\xfa\xad\xa7\x17\x9e\x84\xf3\xb9\xca\xc2\xfc\x63\x25\x51";
        for signature in [
            vec![0; 64],
            [[0; 32], [1; 32]].concat(),
            [[1; 32], [0; 32]].concat(),
            [&order[..], &order[..]].concat(),
            [&order[..], &[1; 32]].concat(),
            vec![0xff; 64],
            vec![0; 63],
            vec![0; 65],
            vec![0; 256],
            vec![0; 1],
            vec![1; 8000],
            // The DER form of (1, 1), which is not the form of JWS.
            vec![0x30, 6, 2, 1, 1, 2, 1, 1],
        ] {
            let token = sign_jws(algorithm.as_str(), json!({"kid": "a"}), |_| signature.clone());
            let verdict = verifier.verify_with(&keys, &JwsAlgorithm::ALL, &token);
            assert_eq!(verdict, Some(FailureKind::Signature), "{algorithm} {signature:?}");
        }
    }
}

/// RFC 8725 §2.1: the public key, in any encoding, is not an HMAC secret.
#[test]
fn public_key_as_hmac_secret_is_rejected() {
    let party = KeyPair::new(RS256);
    let public = party.0.to_public_key().unwrap();
    let keys = jwk_set(&[party.public(json!({"kid": "a"}))]);
    let pair = josekit::jwk::alg::rsa::RsaKeyPair::from_jwk(&party.0).unwrap();
    let forms = [
        public.to_string().into_bytes(),
        josekit::jwk::KeyPair::to_pem_public_key(&pair),
        josekit::jwk::KeyPair::to_der_public_key(&pair),
        public.parameter("n").unwrap().as_str().unwrap().as_bytes().to_vec(),
    ];
    let verifier = VerifierFixture::new();
    for secret in forms {
        let signer = HS256.signer_from_bytes(&secret).unwrap();
        for (alg, want) in
            [("HS256", FailureKind::Algorithm), ("RS256", FailureKind::Signature), ("none", FailureKind::Algorithm)]
        {
            let token = sign_jws(alg, json!({"kid": "a"}), |message| signer.sign(message).unwrap());
            assert_eq!(verifier.verify_with(&keys, &JwsAlgorithm::ALL, &token), Some(want), "{alg}");
        }
    }
}

#[test]
fn alg_none_is_rejected() {
    let keys = jwk_set(&[KeyPair::new(ES256).public(json!({}))]);
    for alg in ["none", "None", "NONE", "", "HS256", "hs256", "es256", "ES256K", "RSA1_5", "dir"] {
        let token = sign_jws(alg, json!({}), |_| vec![0; 64]);
        let verdict = VerifierFixture::new().verify_with(&keys, &JwsAlgorithm::ALL, &token);
        assert_eq!(verdict, Some(FailureKind::Algorithm), "{alg:?}");
        let unsigned = sign_jws(alg, json!({}), |_| Vec::new());
        assert_eq!(UnverifiedJws::parse(&unsigned).unwrap_err(), JwsError::Unsigned);
    }
}

/// `kid` is only compared.
#[test]
fn kid_is_treated_as_opaque_string() {
    let (party, other_party) = (KeyPair::new(ES256), KeyPair::new(ES256));
    let verifier = VerifierFixture::new();
    let odd = ["../../../../dev/null", "' OR 1=1 --", "a\0b", "https://evil.example/jwks", "", "{}", "ключ"];
    let named: Vec<_> = odd.iter().map(|kid| party.public(json!({"kid": kid}))).collect();
    for kid in odd {
        let token = party.token(ES256, json!({"kid": kid}));
        assert_eq!(verifier.verify_with(&jwk_set(&named), &[ES256], &token), None, "{kid:?} is an ordinary `kid`");
        let verdict = verifier.verify_with(&jwk_set(&[party.public(json!({"kid": "a"}))]), &[ES256], &token);
        assert_eq!(verdict, Some(FailureKind::UnknownKey), "{kid:?}");
        let verdict = verifier.verify_with(&jwk_set(&[party.public(json!({}))]), &[ES256], &token);
        assert_eq!(verdict, Some(FailureKind::UnknownKey), "{kid:?} against a key without `kid`");
        let token = other_party.token(ES256, json!({"kid": kid}));
        assert_eq!(verifier.verify_with(&jwk_set(&named), &[ES256], &token), Some(FailureKind::Signature), "{kid:?}");
    }
}

#[test]
fn keys_are_selected_by_kid_or_tried_in_order() {
    let (a, b, c) = (KeyPair::new(ES256), KeyPair::new(ES256), KeyPair::new(ES256));
    let verifier = VerifierFixture::new();
    let keys = jwk_set(&[
        json!({"kty": "PQC", "kid": "a", "alg": "ML-DSA-65", "pub": "AAAA"}),
        json!({"kid": "a"}),
        KeyPair::new(RS256).public(json!({"kid": "a"})),
        a.public(json!({"kid": "a"})),
        b.public(json!({"kid": "a"})),
        c.public(json!({"kid": "c"})),
    ]);
    for (party, kid, want) in [
        (&a, Some("a"), None),
        (&b, Some("a"), None),
        (&c, Some("a"), Some(FailureKind::Signature)),
        (&c, Some("c"), None),
        (&a, Some("c"), Some(FailureKind::Signature)),
        (&a, Some("A"), Some(FailureKind::UnknownKey)),
        (&a, None, None),
        (&b, None, None),
        (&c, None, None),
        (&KeyPair::new(ES256), None, Some(FailureKind::Signature)),
    ] {
        let token = party.token(ES256, kid.map_or(json!({}), |kid| json!({ "kid": kid })));
        assert_eq!(verifier.verify_with(&keys, &JwsAlgorithm::ALL, &token), want, "kid {kid:?}");
    }
}

/// A token with any bit flipped is rejected.
#[test]
fn flipped_bit_is_rejected() {
    let verifier = VerifierFixture::new();
    for algorithm in [ES256, EdDSA, RS256, PS256] {
        let party = KeyPair::new(algorithm);
        let keys = jwk_set(&[party.public(json!({"kid": "a"}))]);
        let token = party.token(algorithm, json!({"kid": "a"}));
        assert_eq!(verifier.verify_with(&keys, &JwsAlgorithm::ALL, &token), None);
        let mut parsed = 0;
        for at in 0..token.len() {
            for bit in 0..7 {
                let mut changed = token.clone().into_bytes();
                changed[at] ^= 1 << bit;
                let changed = String::from_utf8(changed).unwrap();
                if UnverifiedJws::parse(&changed).is_ok() {
                    parsed += 1;
                    let verdict = verifier.verify_with(&keys, &JwsAlgorithm::ALL, &changed);
                    assert!(verdict.is_some(), "{algorithm}: bit {bit} of byte {at}");
                }
            }
        }
        assert!(parsed > 100, "too few variants reached the signature check: {parsed}");
    }
}
