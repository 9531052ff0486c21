//! `[keys]`: signing algorithm, key-encryption key and rotation.

use crate::{
    config::{
        node::Section,
        sections::secrets::{self, EncryptionKey},
    },
    domain::{
        jose::jwk::SigningAlgorithm,
        keys::{JWKS_MAX_AGE_SECONDS, RotationSettings},
        settings::{TOKEN_LIFETIME_CAP, TokenLimits},
    },
};

/// `[keys]`
#[derive(Clone, Debug)]
pub struct Keys {
    /// Signing algorithm of the tokens.
    pub algorithm: SigningAlgorithm,
    /// Key-encryption key of the other keys in the store.
    pub encryption_key: EncryptionKey,
    /// Previous key-encryption keys, under which keys in the store may still be sealed.
    pub previous_encryption_keys: Vec<EncryptionKey>,
    /// Rotation schedule.
    pub rotation: RotationSettings,
}

pub(in crate::config) fn read_keys(root: &mut Section<'_>, tokens: &TokenLimits) -> Option<Keys> {
    const SECONDS_PER_DAY: u32 = 24 * 3600;
    let mut section = root.section("keys");
    let algorithm = section.optional("algorithm", |node| node.parse_keyword()).unwrap_or_default();
    let file = section.get("encryption_key_file");
    let encryption_key = secrets::read_encryption_key(&section.location, file.as_ref());
    let previous = section.optional("previous_encryption_key_files", |node| {
        node.elements(|file| secrets::read_encryption_key_file(&file))
    });
    let mut section = section.section("rotation");
    let default = RotationSettings::default();
    let publish_ahead = section.lifetime(
        "publish_ahead",
        default.publish_ahead,
        JWKS_MAX_AGE_SECONDS + 60..=7 * SECONDS_PER_DAY,
        "seconds; longer than resources cache the JWKS, so that they know a key before it signs",
    );
    let min = TOKEN_LIFETIME_CAP.saturating_add(tokens.leeway).as_seconds() + 1;
    let keep_retired = section.lifetime(
        "keep_retired",
        default.keep_retired,
        min..=90 * SECONDS_PER_DAY,
        "seconds; longer than the maximum token lifetime (15 minutes) plus the leeway",
    );
    let min = publish_ahead.as_seconds().max(3599) + 1;
    let every = section.lifetime(
        "every",
        default.every,
        min..=400 * SECONDS_PER_DAY,
        "seconds; longer than `publish_ahead`, and at least an hour",
    );
    Some(Keys {
        algorithm,
        encryption_key: encryption_key?,
        previous_encryption_keys: previous.unwrap_or_default(),
        rotation: RotationSettings { every, publish_ahead, keep_retired },
    })
}
