//! Secrets can't be printed, compared or stored by accident.

use std::fmt;

use ring::hmac;
use zeroize::Zeroizing;

/// A client secret in clear, on its way in from a request or out to its one reader.
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// Takes hold of a secret; the text is wiped when this is dropped.
    #[must_use]
    pub fn new(text: String) -> Self {
        Self(Zeroizing::new(text))
    }

    /// The secret itself. Every caller of this is a place to look at in a review.
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

/// What is kept instead of a client secret: `HMAC-SHA-256(pepper, client id, secret)`.
/// Has no `PartialEq`: [`Pepper::matches`] is the only comparison, and it takes constant time.
#[derive(Clone)]
pub struct SecretTag(Vec<u8>);

impl SecretTag {
    /// Takes a tag as it was stored.
    #[must_use]
    pub fn from_bytes(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    /// The tag's bytes, for the store.
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

/// The key of the tags. It comes from the key-encryption key, so a copy of the database alone can't be used to try secrets.
pub struct Pepper(hmac::Key);

impl Pepper {
    /// Takes 32 bytes of key.
    #[must_use]
    pub fn new(key: &[u8; 32]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, key))
    }

    /// The tag of a client's secret.
    #[must_use]
    pub fn tag(&self, client: &str, secret: &Secret) -> SecretTag {
        SecretTag(hmac::sign(&self.0, tag_message(client, secret).as_bytes()).as_ref().to_vec())
    }

    /// Whether `tag` was made of this secret for this client. Constant time in the tag, because `hmac::verify` is.
    #[must_use]
    pub fn matches(&self, client: &str, secret: &Secret, tag: &SecretTag) -> bool {
        hmac::verify(&self.0, tag_message(client, secret).as_bytes(), &tag.0).is_ok()
    }

    /// A mark that only we can make on a text, for what we give out and want back as it was.
    #[must_use]
    pub fn mac(&self, text: &str) -> Vec<u8> {
        hmac::sign(&self.0, mac_message(text).as_bytes()).as_ref().to_vec()
    }

    /// Whether the mark is ours, and of this text. Constant time in the mark.
    #[must_use]
    pub fn verify_mac(&self, text: &str, mark: &[u8]) -> bool {
        hmac::verify(&self.0, mac_message(text).as_bytes(), mark).is_ok()
    }
}

/// No secret's message begins so: a client id is not empty.
fn mac_message(text: &str) -> String {
    format!("\0{text}")
}

impl fmt::Debug for Pepper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pepper(..)")
    }
}

/// The client is part of what is tagged, so a tag can't be moved to another client's row. A client id has no NUL.
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
        // A mark is no tag, and a tag is no mark.
        assert!(pepper.verify_mac("files\0s3cret", &pepper.mac("files\0s3cret")));
        assert!(!pepper.verify_mac("files\0s3cret", tag.as_bytes()));
        assert!(!pepper.verify_mac("files", &pepper.mac("notes")) && !pepper.verify_mac("files", &[]));
        assert!(!format!("{:?} {tag:?} {pepper:?}", Secret::new("s3cret".into())).contains("s3cret"));
    }
}
