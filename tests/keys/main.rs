//! Keys: those of others and our own, from the outside. Nothing that is wrong in a token, a key set or an issuer's answer
//! may lead to anything but a refusal, and an issuer that can't be asked is never a refusal.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that can't go on is to say so"
)]

mod issuer_signatures;
mod issuers;
mod jwks_fetch;
mod keyring;
mod support;
mod tls;
