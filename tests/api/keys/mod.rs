//! Keys over HTTP.

pub(super) mod issuer_jwks_outage;
pub(super) mod key_rotation;
