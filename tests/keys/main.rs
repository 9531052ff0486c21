//! Tests of the key adapters: keys of other parties and of this server. A faulty token, key set or
//! issuer response leads to a rejection, and an unreachable issuer leads to an outage and never to
//! a rejection.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    unreachable_pub,
    reason = "a failed assumption fails the test"
)]

mod issuer_signatures;
mod issuers;
mod jwks_fetch;
mod keyring;
#[path = "../support/port.rs"]
mod port;
mod support;
mod tls;
