//! The digest of a token.

use ring::digest::{SHA256, digest};

use crate::domain::settings::MAX_JWT_BYTES;

/// The SHA-256 of a token's whole text, by which it is known again. Nobody gets the token back from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TokenDigest([u8; 32]);

impl TokenDigest {
    /// The digest of a text that may be a token; one that is too long for that has none.
    #[must_use]
    pub fn of(token: &str) -> Option<Self> {
        let fits = token.len() <= MAX_JWT_BYTES;
        fits.then(|| digest(&SHA256, token.as_bytes()).as_ref().try_into().ok().map(Self)).flatten()
    }
}
