//! What the signatures of a request cost by themselves: the same libraries, the same keys, messages of the same length,
//! and nothing around them.

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

/// Microseconds for one of each.
#[derive(Clone, Copy, Default, serde::Serialize)]
pub struct RawSignatureCosts {
    /// What identity providers and agents signed with ES256, verified by josekit.
    pub verify_es256: f64,
    /// What identity providers signed with RS256, verified by josekit.
    pub verify_rs256: f64,
    /// A token of ours, verified by ring.
    pub verify_issued: f64,
    /// A token of ours, signed by ring.
    pub sign: f64,
}

impl RawSignatureCosts {
    /// The assertion, the user token, the new token.
    pub fn exchange(&self, user: UserTokens) -> f64 {
        let user = match user {
            UserTokens::Es256 => self.verify_es256,
            UserTokens::Rs256 => self.verify_rs256,
        };
        self.verify_es256 + user + self.sign
    }

    /// The token.
    pub fn introspection(&self) -> f64 {
        self.verify_issued
    }
}

/// Measures each for a while. `own` is a token that the server issued: ours are as long, and with a key as good.
pub fn measure(cast: &Fixtures, own: &str) -> RawSignatureCosts {
    let es256 = cast.user_token(UserTokens::Es256, 0);
    let rs256 = cast.user_token(UserTokens::Rs256, 0);
    let key = &cast.planner;
    let (message, _) = split(own);
    let signature = key.sign(message.as_bytes());
    let public = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, key.public());
    RawSignatureCosts {
        verify_es256: verify(&cast.idp.verifier(), &es256),
        verify_rs256: verify(&cast.idp_rsa.verifier(), &rs256),
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

/// Microseconds of CPU time for one. What others do on the machine does not count, no more than it does for the server.
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
