//! Secrets that can't be printed, compared or stored by accident.

use std::fmt;

use ring::hmac;
use zeroize::Zeroizing;

/// A client secret in plain text, on its way in from a request or out in a response.
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// Wraps a secret, which is wiped from memory on drop.
    #[must_use]
    pub fn new(text: String) -> Self {
        Self(Zeroizing::new(text))
    }

    /// Returns the secret itself. Review every caller of this.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// The stored form of a client secret: `HMAC-SHA-256(pepper, client id, secret)`.
///
/// It does not implement `PartialEq`: [`Pepper::matches`] is the only comparison, and takes
/// constant time.
#[derive(Clone)]
pub struct SecretTag(Vec<u8>);

impl SecretTag {
    /// Wraps a tag as stored.
    #[must_use]
    pub fn from_bytes(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    /// Returns the bytes of the tag, for the store.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for SecretTag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretTag(..)")
    }
}

/// The key of the tags. The store holds it only sealed, so a copy of the database alone does not
/// permit guessing of secrets.
pub struct Pepper(hmac::Key);

impl Pepper {
    /// Wraps a 32-byte key.
    #[must_use]
    pub fn new(key: &[u8; 32]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, key))
    }

    /// Returns the tag of a client's secret.
    #[must_use]
    pub fn tag(&self, client: &str, secret: &Secret) -> SecretTag {
        SecretTag(hmac::sign(&self.0, tag_message(client, secret).as_bytes()).as_ref().to_vec())
    }

    /// Returns whether `tag` belongs to this secret of this client. Takes constant time in the tag,
    /// because `hmac::verify` does.
    #[must_use]
    pub fn matches(&self, client: &str, secret: &Secret, tag: &SecretTag) -> bool {
        hmac::verify(&self.0, tag_message(client, secret).as_bytes(), &tag.0).is_ok()
    }

    /// Returns a MAC of a text, for values that this server issues and later verifies.
    #[must_use]
    pub fn mac(&self, text: &str) -> Vec<u8> {
        hmac::sign(&self.0, mac_message(text).as_bytes()).as_ref().to_vec()
    }

    /// Returns whether the MAC belongs to this text. Takes constant time in the MAC.
    #[must_use]
    pub fn verify_mac(&self, text: &str, mac: &[u8]) -> bool {
        hmac::verify(&self.0, mac_message(text).as_bytes(), mac).is_ok()
    }
}

/// The message of a secret's tag can't begin with NUL, because a client id is not empty.
fn mac_message(text: &str) -> String {
    format!("\0{text}")
}

impl fmt::Debug for Pepper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pepper(..)")
    }
}

/// The client id is part of the message, so a tag can't be moved to another client's row. A client
/// id contains no NUL.
fn tag_message(client: &str, secret: &Secret) -> Zeroizing<String> {
    Zeroizing::new(format!("{client}\0{}", secret.expose()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secret_tag_matches_only_its_client_and_secret() {
        let pepper = Pepper::new(&[7; 32]);
        let tag = pepper.tag("files", &Secret::new("s3cret".into()));
        assert!(pepper.matches("files", &Secret::new("s3cret".into()), &tag));
        assert!(!pepper.matches("files", &Secret::new("s3creT".into()), &tag));
        assert!(!pepper.matches("notes", &Secret::new("s3cret".into()), &tag));
        assert!(!Pepper::new(&[8; 32]).matches("files", &Secret::new("s3cret".into()), &tag));
        // A MAC does not verify as a tag, nor a tag as a MAC.
        assert!(pepper.verify_mac("files\0s3cret", &pepper.mac("files\0s3cret")));
        assert!(!pepper.verify_mac("files\0s3cret", tag.as_bytes()));
        assert!(!pepper.verify_mac("files", &pepper.mac("notes")) && !pepper.verify_mac("files", &[]));
        assert!(!format!("{:?} {tag:?} {pepper:?}", Secret::new("s3cret".into())).contains("s3cret"));
    }
}
