//! Bare cost of the signatures of a request: same libraries, same keys, same message lengths.

use std::{
    hint::black_box,
    time::{Duration, Instant},
};

use josekit::jws::JwsVerifier;
use ring::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};

use crate::{
    fixtures::{Fixtures, UserTokens},
    machine,
};

/// Microseconds per operation.
#[derive(Clone, Copy, Default, serde::Serialize)]
pub struct RawSignatureCosts {
    /// Verification of an ES256 signature of an identity provider or agent (josekit).
    pub verify_es256: f64,
    /// Verification of an RS256 signature of an identity provider (josekit).
    pub verify_rs256: f64,
    /// Verification of a token of Errand (ring).
    pub verify_issued: f64,
    /// Signing of a token of Errand (ring).
    pub sign: f64,
}

impl RawSignatureCosts {
    /// Signatures of an exchange: assertion, user token, new token.
    pub fn exchange(&self, user: UserTokens) -> f64 {
        let user = match user {
            UserTokens::Es256 => self.verify_es256,
            UserTokens::Rs256 => self.verify_rs256,
        };
        self.verify_es256 + user + self.sign
    }

    /// Signature of an introspection: the token.
    pub fn introspection(&self) -> f64 {
        self.verify_issued
    }
}

/// Measures each operation. `own` is a token that the server issued; the measured tokens have the
/// same length and the same kind of key.
pub fn measure(fixtures: &Fixtures, own: &str) -> RawSignatureCosts {
    let es256 = fixtures.user_token(UserTokens::Es256, 0);
    let rs256 = fixtures.user_token(UserTokens::Rs256, 0);
    let key = &fixtures.planner;
    let (message, _) = split(own);
    let signature = key.sign(message.as_bytes());
    let public = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, key.public());
    RawSignatureCosts {
        verify_es256: verify(&fixtures.idp.verifier(), &es256),
        verify_rs256: verify(&fixtures.idp_rsa.verifier(), &rs256),
        verify_issued: measure_us(|| public.verify(message.as_bytes(), &signature).unwrap()),
        sign: measure_us(|| drop(black_box(key.sign(message.as_bytes())))),
    }
}

fn verify(verifier: &impl JwsVerifier, token: &str) -> f64 {
    let (message, signature) = split(token);
    measure_us(|| verifier.verify(message.as_bytes(), &signature).unwrap())
}

fn split(token: &str) -> (&str, Vec<u8>) {
    let (message, signature) = token.rsplit_once('.').unwrap();
    (message, errand::domain::decode_base64url(signature).unwrap())
}

/// Measures microseconds of CPU time per operation, so that other load does not count, as for the
/// server.
fn measure_us(mut one: impl FnMut()) -> f64 {
    let mut count = 0_u32;
    let (start, cpu) = (Instant::now(), machine::thread_cpu_time());
    while start.elapsed() < Duration::from_millis(200) {
        for _ in 0..16 {
            one();
        }
        count += 16;
    }
    let used = cpu.zip(machine::thread_cpu_time()).map(|(before, after)| after - before);
    used.unwrap_or_else(|| start.elapsed().as_secs_f64() * 1e6) / f64::from(count)
}
