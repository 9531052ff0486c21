//! A signing key (ES256), for the identity provider and the planner.

use errand::domain::secret::Secret;
use josekit::{
    jwk::{Jwk, alg::ec::EcCurve},
    jws::{ES256, JwsHeader},
};
use serde_json::{Value, json};

use crate::output::BoxError;

pub(crate) struct Key(Jwk);

impl Key {
    pub(crate) fn generate(kid: &str) -> Result<Self, BoxError> {
        let mut jwk = Jwk::generate_ec_key(EcCurve::P256)?;
        jwk.set_key_id(kid);
        Ok(Self(jwk))
    }

    /// Returns the public key in a JWK set (RFC 7517).
    pub(crate) fn public(&self) -> Result<Value, BoxError> {
        let mut jwk = self.0.to_public_key()?;
        jwk.set_key_id(self.0.key_id().unwrap_or_default());
        jwk.set_algorithm("ES256");
        jwk.set_key_use("sig");
        Ok(json!({ "keys": [jwk] }))
    }

    /// Returns the private key as a JWK.
    pub(crate) fn private(&self) -> Result<Secret, BoxError> {
        Ok(Secret::new(serde_json::to_string(&self.0)?))
    }

    /// Signs claims as a JWT with this `typ`.
    pub(crate) fn sign(&self, typ: &str, claims: &Value) -> Result<String, BoxError> {
        let mut header = JwsHeader::new();
        header.set_token_type(typ);
        header.set_key_id(self.0.key_id().unwrap_or_default());
        let signer = ES256.signer_from_jwk(&self.0)?;
        Ok(josekit::jws::serialize_compact(claims.to_string().as_bytes(), &header, &signer)?)
    }
}
