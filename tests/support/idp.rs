//! An identity provider for tests: keys, and signatures over any token, including invalid ones that
//! a real provider would not issue. The interop suite has a real provider.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use josekit::{
    jwk::{Jwk, alg::ec::EcCurve},
    jws::{ES256, JwsSigner},
};
use serde_json::{Value, json};

/// Encodes as base64url without padding.
pub fn b64(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// An ES256 key with its `kid`.
#[derive(Clone)]
pub struct Key {
    pub kid: String,
    jwk: Jwk,
}

impl Key {
    pub fn new(kid: &str) -> Self {
        let mut jwk = Jwk::generate_ec_key(EcCurve::P256).unwrap();
        jwk.set_key_id(kid);
        jwk.set_algorithm("ES256");
        jwk.set_key_use("sig");
        Self { kid: kid.to_owned(), jwk }
    }

    /// Returns the public key as a JWK.
    pub fn public(&self) -> Value {
        // josekit omits these members.
        let mut public = serde_json::to_value(self.jwk.to_public_key().unwrap()).unwrap();
        public["kid"] = json!(self.kid);
        public["alg"] = json!("ES256");
        public
    }

    /// Returns the public key in a JWK set.
    pub fn jwks(&self) -> Value {
        json!({ "keys": [self.public()] })
    }

    /// Returns the private key as the text of a JWK.
    pub fn private(&self) -> String {
        serde_json::to_string(&self.jwk).unwrap()
    }

    /// Signs a compact JWS of this `typ` (without one if empty) over these claims.
    pub fn sign(&self, typ: &str, claims: &Value) -> String {
        let mut header = json!({ "alg": "ES256", "kid": self.kid });
        if !typ.is_empty() {
            header["typ"] = json!(typ);
        }
        self.sign_raw(&header.to_string(), &claims.to_string())
    }

    /// Signs a compact JWS over exactly these texts.
    pub fn sign_raw(&self, header: &str, payload: &str) -> String {
        let input = format!("{}.{}", b64(header), b64(payload));
        let signature = ES256.signer_from_jwk(&self.jwk).unwrap().sign(input.as_bytes()).unwrap();
        format!("{input}.{}", b64(signature))
    }
}
