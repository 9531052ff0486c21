//! Domain rules as pure functions over plain data: no `await`, I/O, clock, randomness, logging or
//! panics.

pub mod audit;
pub mod authority;
pub mod encoding;
pub mod exchange;
pub mod grants;
pub mod jose;
pub mod replication;
pub mod settings;

pub mod id;
pub mod keys;
pub mod registry;
pub mod requester;
pub mod revocation;
pub mod scope;
pub mod secret;
pub mod status_list;
pub mod task;
pub mod time;
pub mod token;
pub mod uri;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};

/// Encodes bytes as base64url without padding (RFC 7515 §2).
#[must_use]
pub fn encode_base64url(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// Decodes base64url without padding. Rejects padding and stray trailing bits, so that each value
/// has exactly one encoding.
#[must_use]
pub fn decode_base64url(text: &str) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(text).ok()
}
