//! JOSE values: compact JWS (RFC 7515) and JSON Web Keys (RFC 7517).

pub mod jwk;
pub mod jws;
mod natural;
pub mod public_key;
