//! Verification of other parties' signatures. Wraps josekit, whose only task is `(key, message,
//! signature) -> valid or not`: it never sees a header or a claim.
//!
//! The payload validator and the date getters of josekit are not used. The validator accepts a
//! token without `aud` or `exp`, and the getters panic on `exp: 1e300`.

use std::collections::BTreeSet;

use josekit::{
    jwk::{Jwk, KeyPair, alg::rsa::RsaKeyPair},
    jws::{self, JwsVerifier},
};
use serde_json::Value;
use zeroize::Zeroizing;

use crate::{
    domain::jose::{
        jwk::{JwkSet, JwsAlgorithm, UnusedKey},
        jws::UnverifiedJws,
        public_key::PublicKey,
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

impl Verifier {
    /// Builds a verifier. josekit gets the members that make up the key, and no others.
    fn build(key: &PublicKey<'_>, algorithm: JwsAlgorithm) -> Option<Self> {
        let jwk = Jwk::from_map(key.bare_jwk()).ok()?;
        Some(Self { kid: key.kid().map(str::to_owned), algorithm, key: jws_verifier(algorithm, &jwk)? })
    }
}

impl VerifierSet {
    /// Builds verifiers for the usable keys of a set. Other keys are skipped: issuers publish keys
    /// for other purposes and of future kinds (RFC 7517 §5).
    pub(super) fn build(keys: &JwkSet, algorithms: &[JwsAlgorithm]) -> Self {
        Self::build_with_unused(keys, algorithms).0
    }

    /// As [`build`](Self::build); also returns the keys that are skipped.
    pub(super) fn build_with_unused(keys: &JwkSet, algorithms: &[JwsAlgorithm]) -> (Self, Vec<UnusedKey>) {
        let (mut verifiers, mut unused) = (Vec::new(), Vec::new());
        for (n, jwk) in keys.keys().enumerate() {
            let mut skip = |reason: String, is_expected| {
                unused.push(UnusedKey::new(n, &Value::Object(jwk.clone()), reason, is_expected));
            };
            match PublicKey::parse(jwk) {
                Ok(key) => {
                    let supported = algorithms.iter().filter(|algorithm| key.supports(**algorithm));
                    let built = supported.filter_map(|algorithm| Verifier::build(&key, *algorithm)).collect::<Vec<_>>();
                    if built.is_empty() {
                        skip("fits none of the accepted `algorithms`".to_owned(), true);
                    }
                    verifiers.extend(built);
                }
                Err(error) => skip(error.to_string(), error.is_other_purpose()),
            }
        }
        (Self(verifiers), unused)
    }

    /// Returns whether no key can be used.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Verifies the signature with the keys that have the token's `kid`, or with every key of the
    /// algorithm if the token has no `kid`. Two keys with the same `kid` are both tried.
    pub(super) fn verify(&self, algorithm: JwsAlgorithm, token: &UnverifiedJws<'_>) -> Result<(), SignatureError> {
        self.verify_without(&BTreeSet::new(), algorithm, token)
    }

    /// As [`verify`](Self::verify), without the keys of these `kid`s.
    pub(super) fn verify_without(
        &self,
        withdrawn: &BTreeSet<String>,
        algorithm: JwsAlgorithm,
        token: &UnverifiedJws<'_>,
    ) -> Result<(), SignatureError> {
        let kid = token.header().kid.as_deref();
        let is_withdrawn = |kid: &Option<String>| kid.as_ref().is_some_and(|kid| withdrawn.contains(kid));
        let mut candidates = self
            .0
            .iter()
            .filter(|one| one.algorithm == algorithm && (kid.is_none() || one.kid.as_deref() == kid))
            .filter(|one| !is_withdrawn(&one.kid))
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
