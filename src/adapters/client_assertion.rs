//! Client assertions (RFC 7523) for `errand token`: the client side of client authentication.

use josekit::{
    jwk::Jwk,
    jws::{ES256, EdDSA, JwsHeader, JwsSigner, RS256},
};
use serde::Serialize;
use thiserror::Error;
use uuid::Uuid;

use crate::{
    domain::{
        secret::Secret,
        time::{Lifetime, Timestamp},
    },
    ports::Outage,
};

/// The lifetime of an assertion: long enough for a slow network, and no longer.
const ASSERTION_LIFETIME: Lifetime = Lifetime::seconds(60);

/// A private key that can't sign an assertion.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the key file does not contain a private JWK for ES256, EdDSA (Ed25519) or RS256")]
pub struct UnusableKeyError;

#[derive(Serialize)]
struct ClientAssertionClaims<'a> {
    iss: &'a str,
    sub: &'a str,
    aud: &'a str,
    iat: Timestamp,
    exp: Timestamp,
    jti: Uuid,
}

/// Creates an assertion of `client` for the server with this issuer, signed with a private JWK.
pub fn sign(jwk: &Secret, client: &str, server: &str, now: Timestamp, jti: Uuid) -> Result<Secret, Outage> {
    let operation = "sign a client assertion";
    let jwk = Jwk::from_bytes(jwk.expose()).map_err(|_| Outage { operation, source: UnusableKeyError.into() })?;
    let signer = load_signer(&jwk).ok_or(Outage { operation, source: UnusableKeyError.into() })?;
    let mut header = JwsHeader::new();
    header.set_token_type("client-authentication+jwt");
    if let Some(kid) = jwk.key_id() {
        header.set_key_id(kid);
    }
    let claims = ClientAssertionClaims {
        iss: client,
        sub: client,
        aud: server,
        iat: now,
        exp: now.saturating_add(ASSERTION_LIFETIME),
        jti,
    };
    let payload = serde_json::to_vec(&claims).map_err(Outage::during(operation))?;
    let signed = josekit::jws::serialize_compact(&payload, &header, &*signer).map_err(Outage::during(operation))?;
    Ok(Secret::new(signed))
}

fn load_signer(jwk: &Jwk) -> Option<Box<dyn JwsSigner>> {
    match jwk.key_type() {
        "EC" => Some(Box::new(ES256.signer_from_jwk(jwk).ok()?)),
        "OKP" => Some(Box::new(EdDSA.signer_from_jwk(jwk).ok()?)),
        "RSA" => Some(Box::new(RS256.signer_from_jwk(jwk).ok()?)),
        _ => None,
    }
}
