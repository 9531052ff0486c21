//! Verification of other parties' signatures. Wraps josekit, whose only task is `(key, message,
//! signature) -> valid or not`: it never sees a header or a claim.
//!
//! The payload validator and the date getters of josekit are not used. The validator accepts a
//! token without `aud` or `exp`, and the getters panic on `exp: 1e300`.

use josekit::{
    jwk::{Jwk, KeyPair, alg::rsa::RsaKeyPair},
    jws::{self, JwsVerifier},
};
use serde_json::{Map, Value};
use zeroize::Zeroizing;

use crate::{
    domain::{
        decode_base64url,
        jose::{
            jwk::{JwkSet, JwsAlgorithm},
            jws::UnverifiedJws,
        },
    },
    ports::{Outage, SignatureError},
};

/// The keys of one signer, each bound to the algorithms that fit the key and that the signer may
/// use. A key takes about a hundred microseconds to build, so a set is built once and kept.
#[derive(Debug)]
pub(super) struct VerifierSet(Vec<Verifier>);

#[derive(Debug)]
struct Verifier {
    kid: Option<String>,
    algorithm: JwsAlgorithm,
    key: Box<dyn JwsVerifier>,
}

impl VerifierSet {
    /// Builds verifiers for the usable keys of a set. Other keys are skipped: issuers publish keys
    /// for other purposes and of future kinds (RFC 7517 §5).
    pub(super) fn build(keys: &JwkSet, algorithms: &[JwsAlgorithm]) -> Self {
        let verifiers = keys.keys().flat_map(|key| {
            let usable = UsableKey::parse(key);
            let usable = usable.into_iter();
            usable.flat_map(|key| algorithms.iter().filter_map(move |algorithm| key.build_verifier(*algorithm)))
        });
        Self(verifiers.collect())
    }

    /// Verifies the signature with the keys that have the token's `kid`, or with every key of the
    /// algorithm if the token has no `kid`. Two keys with the same `kid` are both tried.
    pub(super) fn verify(&self, algorithm: JwsAlgorithm, token: &UnverifiedJws<'_>) -> Result<(), SignatureError> {
        let kid = token.header().kid.as_deref();
        let mut candidates = self
            .0
            .iter()
            .filter(|one| one.algorithm == algorithm && (kid.is_none() || one.kid.as_deref() == kid))
            .peekable();
        if candidates.peek().is_none() {
            return Err(SignatureError::UnknownKey);
        }
        if algorithm == JwsAlgorithm::ES256 && token.signature().len() != 64 {
            // josekit would reject it at no cost. An unknown client's token costs a verification,
            // and the timing must not differ.
            self.verify_dummy(token);
            return Err(SignatureError::InvalidSignature);
        }
        let is_valid = candidates.any(|one| one.key.verify(token.signing_input(), token.signature()).is_ok());
        if is_valid { Ok(()) } else { Err(SignatureError::InvalidSignature) }
    }

    /// Verifies an ES256 signature and discards the result. The signature is a well-formed
    /// constant, because a malformed one would cost no time.
    pub(super) fn verify_dummy(&self, token: &UnverifiedJws<'_>) {
        for one in &self.0 {
            let _ = std::hint::black_box(one.key.verify(token.signing_input(), &[1; 64]).is_ok());
        }
    }
}

/// Returns the token's algorithm if it is allowed. `none` and symmetric algorithms do not exist
/// here.
pub(super) fn check_algorithm(
    token: &UnverifiedJws<'_>,
    allowed: &[JwsAlgorithm],
) -> Result<JwsAlgorithm, SignatureError> {
    JwsAlgorithm::parse(&token.header().alg)
        .filter(|algorithm| allowed.contains(algorithm))
        .ok_or(SignatureError::AlgorithmNotAllowed)
}

/// Generates an RSA key of 2048 bits as PKCS#8, which ring can't do.
pub(super) fn generate_rsa() -> Result<Zeroizing<Vec<u8>>, Outage> {
    let pair = RsaKeyPair::generate(2048).map_err(Outage::during("generate an RSA key"))?;
    Ok(Zeroizing::new(pair.to_der_private_key()))
}

/// A public key for signatures whose use has been checked.
struct UsableKey<'a> {
    key: &'a Map<String, Value>,
    kid: Option<String>,
    alg: Option<JwsAlgorithm>,
}

impl<'a> UsableKey<'a> {
    /// Checks the use of a key. `use`, `key_ops` and `alg` (RFC 7517 §4.2 to §4.4) are binding when
    /// present, and so is their type.
    fn parse(key: &'a Map<String, Value>) -> Option<Self> {
        let text = |name: &str| match key.get(name) {
            None => Some(None),
            Some(value) => value.as_str().map(Some),
        };
        let for_signatures = text("use")?.is_none_or(|purpose| purpose == "sig");
        let for_verifying = match key.get("key_ops") {
            None => true,
            Some(operations) => operations.as_array()?.iter().any(|operation| operation == "verify"),
        };
        let alg = match text("alg")? {
            None => None,
            Some(alg) => Some(JwsAlgorithm::parse(alg)?),
        };
        let kid = text("kid")?.map(str::to_owned);
        (for_signatures && for_verifying).then_some(Self { key, kid, alg })
    }

    fn build_verifier(&self, algorithm: JwsAlgorithm) -> Option<Verifier> {
        if self.alg.is_some_and(|alg| alg != algorithm) {
            return None;
        }
        let material = self.bare_jwk(algorithm)?;
        Some(Verifier { kid: self.kid.clone(), algorithm, key: jws_verifier(algorithm, &material)? })
    }

    /// Returns the bare public key if it fits the algorithm. josekit gets these members and no
    /// others.
    fn bare_jwk(&self, algorithm: JwsAlgorithm) -> Option<Jwk> {
        use JwsAlgorithm::{ES256, ES384, ES512, EdDSA, PS256, PS384, PS512, RS256, RS384, RS512};
        let members: &[&str] = match algorithm {
            RS256 | RS384 | RS512 | PS256 | PS384 | PS512 => {
                let is_valid =
                    self.has_member("kty", "RSA") && self.has_valid_modulus()? && self.has_valid_exponent()?;
                is_valid.then_some(&["kty", "n", "e"])?
            }
            ES256 => self.is_on_curve("P-256", 32).then_some(&["kty", "crv", "x", "y"])?,
            ES384 => self.is_on_curve("P-384", 48).then_some(&["kty", "crv", "x", "y"])?,
            ES512 => self.is_on_curve("P-521", 66).then_some(&["kty", "crv", "x", "y"])?,
            // josekit would accept Ed448 as well.
            EdDSA => {
                let is_valid =
                    self.has_member("kty", "OKP") && self.has_member("crv", "Ed25519") && self.has_member_len("x", 32);
                is_valid.then_some(&["kty", "crv", "x"])?
            }
        };
        let bare = members.iter().filter_map(|name| Some(((*name).to_owned(), self.key.get(*name)?.clone())));
        Jwk::from_map(bare.collect::<Map<_, _>>()).ok()
    }

    fn has_member(&self, name: &str, value: &str) -> bool {
        self.key.get(name).and_then(Value::as_str) == Some(value)
    }

    fn decode_member(&self, name: &str) -> Option<Vec<u8>> {
        decode_base64url(self.key.get(name)?.as_str()?)
    }

    fn has_member_len(&self, name: &str, len: usize) -> bool {
        self.decode_member(name).is_some_and(|bytes| bytes.len() == len)
    }

    fn is_on_curve(&self, curve: &str, len: usize) -> bool {
        self.has_member("kty", "EC")
            && self.has_member("crv", curve)
            && self.has_member_len("x", len)
            && self.has_member_len("y", len)
    }

    /// Checks for 2048 bits (RFC 7518 §3.3, counted in bits, because josekit rounds up to bytes) to
    /// 8192 bits, because larger keys take too long.
    fn has_valid_modulus(&self) -> Option<bool> {
        let modulus = self.decode_member("n")?;
        let zeros = modulus.iter().take_while(|byte| **byte == 0).count();
        let first = modulus.get(zeros)?;
        let bits = (modulus.len() - zeros) * 8 - first.leading_zeros() as usize;
        Some((2048..=8192).contains(&bits))
    }

    /// Checks for an odd exponent from 3 up to 5 bytes. An exponent of 1 makes signatures
    /// forgeable, and a long one takes too long.
    fn has_valid_exponent(&self) -> Option<bool> {
        let exponent = self.decode_member("e")?;
        let value = exponent.iter().try_fold(0_u64, |sum, byte| Some(sum.checked_mul(256)? | u64::from(*byte)))?;
        Some(value % 2 == 1 && (3..1 << 40).contains(&value))
    }
}

fn jws_verifier(algorithm: JwsAlgorithm, key: &Jwk) -> Option<Box<dyn JwsVerifier>> {
    fn boxed<V: JwsVerifier + 'static, E>(built: Result<V, E>) -> Option<Box<dyn JwsVerifier>> {
        built.ok().map(|verifier| Box::new(verifier) as Box<dyn JwsVerifier>)
    }
    match algorithm {
        JwsAlgorithm::RS256 => boxed(jws::RS256.verifier_from_jwk(key)),
        JwsAlgorithm::RS384 => boxed(jws::RS384.verifier_from_jwk(key)),
        JwsAlgorithm::RS512 => boxed(jws::RS512.verifier_from_jwk(key)),
        JwsAlgorithm::PS256 => boxed(jws::PS256.verifier_from_jwk(key)),
        JwsAlgorithm::PS384 => boxed(jws::PS384.verifier_from_jwk(key)),
        JwsAlgorithm::PS512 => boxed(jws::PS512.verifier_from_jwk(key)),
        JwsAlgorithm::ES256 => boxed(jws::ES256.verifier_from_jwk(key)),
        JwsAlgorithm::ES384 => boxed(jws::ES384.verifier_from_jwk(key)),
        JwsAlgorithm::ES512 => boxed(jws::ES512.verifier_from_jwk(key)),
        JwsAlgorithm::EdDSA => boxed(jws::EdDSA.verifier_from_jwk(key)),
    }
}
