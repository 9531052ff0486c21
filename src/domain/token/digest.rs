//! Digest of a token, for look-ups without the token itself.

use ring::digest::{SHA256, digest};

use crate::domain::settings::MAX_JWT_BYTES;

/// The SHA-256 of a token's complete text. It identifies the token and does not reveal it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TokenDigest([u8; 32]);

impl TokenDigest {
    /// Returns the digest of a text, or `None` if the text is too long to be a token.
    #[must_use]
    pub fn of(token: &str) -> Option<Self> {
        let fits = token.len() <= MAX_JWT_BYTES;
        fits.then(|| digest(&SHA256, token.as_bytes()).as_ref().try_into().ok().map(Self)).flatten()
    }
}
