//! What must not be seen: secrets from files and from the environment, strong enough and kept from other people's eyes.

use std::{collections::BTreeSet, fmt, fs, io::Read, path::Path};

use base64::{Engine, engine::general_purpose::STANDARD_NO_PAD};
use zeroize::Zeroizing;

use crate::config::node::{Document, Location, Node};
use crate::domain::secret::Secret;

/// The key that our signing keys are encrypted with in the store, and that the tags of client secrets are made with.
#[derive(Clone)]
pub struct EncryptionKey(Zeroizing<[u8; 32]>);

impl EncryptionKey {
    /// Takes 32 bytes; they are wiped when this is dropped.
    #[must_use]
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// The key itself. Every caller of this is a place to look at in a review.
    #[must_use]
    pub fn expose(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for EncryptionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("EncryptionKey(..)")
    }
}

const MAX_FILE_BYTES: u64 = 1024 * 1024;

/// Reads a file that the configuration names.
pub(in crate::config) fn read_file(at: &Node<'_>) -> Option<Zeroizing<Vec<u8>>> {
    let path = at.path()?;
    read_contents(&path)
        .map_err(|fault| {
            let remedy = "name a file that exists and that Errand may read; relative paths start at this file's folder";
            at.error(format_args!("cannot read {}: {fault}", path.display()), remedy);
        })
        .ok()
}

/// Reads a text file that holds a secret, if nobody else can read it. Blanks around the secret don't count.
pub(in crate::config) fn read_secret(at: &Node<'_>) -> Option<Zeroizing<String>> {
    check_permissions(at);
    let fault = |fault| {
        // Not the path: somebody may have written the secret itself here.
        let remedy = "name a file that exists and that Errand may read; relative paths start at this file's folder";
        at.error(format_args!("cannot read the file that is named here: {fault}"), remedy);
    };
    let bytes = read_contents(&at.path()?).map_err(fault).ok()?;
    let Ok(text) = std::str::from_utf8(&bytes) else {
        at.error("the file is no text", "write the secret as text, such as base64");
        return None;
    };
    Some(Zeroizing::new(text.trim().to_owned()))
}

/// Complains about a file that others than its owner can read.
#[cfg_attr(not(unix), expect(unused_variables, reason = "only unix has modes"))]
pub(in crate::config) fn check_permissions(at: &Node<'_>) {
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;

        let Some(path) = at.path() else { return };
        let Ok(metadata) = fs::metadata(&path) else { return };
        let mode = metadata.mode() & 0o777;
        if has_loose_permissions(mode, metadata.uid()) {
            let reason = format!("{} has mode {mode:04o}: others than its owner can read it", path.display());
            at.error(reason, format_args!("chmod 600 {}, and take what is in it for leaked", path.display()));
        }
    }
}

/// As PostgreSQL has it for its TLS key: nobody but the owner; or, when root owns it, a group may read it, which is how
/// Kubernetes hands a secret to a process that is not root.
#[cfg(unix)]
fn has_loose_permissions(mode: u32, owner: u32) -> bool {
    let forbidden = if owner == 0 { 0o037 } else { 0o077 };
    mode & forbidden != 0
}

fn read_contents(path: &Path) -> std::io::Result<Zeroizing<Vec<u8>>> {
    let mut bytes = Zeroizing::new(Vec::new());
    fs::File::open(path)?.take(MAX_FILE_BYTES).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// A variable of the environment that is set and not empty.
pub(in crate::config) fn read_variable(document: &Document<'_>, name: &str) -> Option<Zeroizing<String>> {
    (document.environment)(name).map(Zeroizing::new).filter(|value| !value.trim().is_empty())
}

/// The key-encryption key: `ERRAND_ENCRYPTION_KEY`, else the file.
pub(in crate::config) fn read_encryption_key(keys: &Location<'_>, file: Option<&Node<'_>>) -> Option<EncryptionKey> {
    let name = "ERRAND_ENCRYPTION_KEY";
    if let Some(text) = read_variable(keys.document, name) {
        let wrong = |reason| keys.document.add_environment_error(name, reason, NEW_KEY_HINT.to_owned());
        return parse_encryption_key(&text).map_err(wrong).ok();
    }
    let Some(at) = file else {
        keys.error(
            "there is no key to encrypt the signing keys with",
            format_args!("name a file with `encryption_key_file` or set {name}; {NEW_KEY_HINT}"),
        );
        return None;
    };
    let text = read_secret(at)?;
    parse_encryption_key(&text).map_err(|reason| at.error(reason, NEW_KEY_HINT)).ok()
}

const NEW_KEY_HINT: &str = "make one with `openssl rand -base64 32`";

fn parse_encryption_key(text: &str) -> Result<EncryptionKey, String> {
    let standard = text.trim().trim_end_matches('=').replace('-', "+").replace('_', "/");
    let bytes = STANDARD_NO_PAD.decode(Zeroizing::new(standard).as_bytes()).map(Zeroizing::new);
    let bytes = bytes.map_err(|_| "the key is not base64".to_owned())?;
    let key = <[u8; 32]>::try_from(&bytes[..]);
    let key = key.map_err(|_| format!("the key has {} bytes; 32 are needed", bytes.len()))?;
    if bytes.iter().collect::<BTreeSet<_>>().len() < 8 {
        return Err("the key is not random".to_owned());
    }
    Ok(EncryptionKey::new(key))
}

/// A client secret with at least 256 bits.
pub(in crate::config) fn parse_client_secret(text: &str) -> Result<Secret, &'static str> {
    let text = text.trim();
    let ours = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'+' | b'/');
    let digits = text.trim_end_matches('=');
    if !digits.bytes().all(ours) {
        return Err("the secret has characters that are not base64, base64url or hexadecimal");
    }
    let is_hex = digits.bytes().all(|b| b.is_ascii_hexdigit());
    if digits.len() < if is_hex { 64 } else { 43 } {
        return Err(
            "the secret is too short: 256 bits are needed, 43 characters of base64url or 64 hexadecimal digits",
        );
    }
    if digits.bytes().collect::<BTreeSet<_>>().len() < 8 {
        return Err("the secret is not random");
    }
    Ok(Secret::new(text.to_owned()))
}

/// A bearer token (RFC 6750 §2.1) that somebody else gave us.
pub(in crate::config) fn read_bearer_file(at: &Node<'_>) -> Option<Secret> {
    let text = read_secret(at)?;
    parse_bearer(&text).map_err(|reason| at.error(reason, BEARER_HINT)).ok()
}

/// The same, in a variable of the environment.
pub(in crate::config) fn read_bearer_variable(at: &Node<'_>) -> Option<Secret> {
    let name = read_variable_name(at)?;
    let Some(text) = read_variable(at.location.document, &name) else {
        at.error(format_args!("the variable `{name}` is not set"), "set it to the token");
        return None;
    };
    parse_bearer(&text).map_err(|reason| at.error(format_args!("`{name}`: {reason}"), BEARER_HINT)).ok()
}

const BEARER_HINT: &str = "write the token alone, as the MCP server takes it after `Bearer`";

fn parse_bearer(text: &str) -> Result<Secret, &'static str> {
    let text = text.trim();
    let fits = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b'~' | b'+' | b'/' | b'=');
    if (1..=8192).contains(&text.len()) && text.bytes().all(fits) {
        Ok(Secret::new(text.to_owned()))
    } else {
        Err("is no bearer token: 1 to 8192 characters of A-Z a-z 0-9 - . _ ~ + / = are")
    }
}

/// The name of a variable that holds a secret. Who writes the secret itself here shall not read it in a log.
pub(in crate::config) fn read_variable_name(at: &Node<'_>) -> Option<String> {
    let name = at.non_empty_string()?;
    if !name.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_') || name.len() > 64 {
        at.error("is not the name of a variable", "name a variable of A-Z, 0-9 and _ that holds the secret");
        return None;
    }
    Some(name)
}

/// What to do about a bad client secret. Hexadecimal digits need no escaping in HTTP Basic (RFC 6749 §2.3.1).
pub(in crate::config) const NEW_SECRET_HINT: &str = "make one with `openssl rand -hex 32`";

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(unix)]
    #[test]
    fn loose_file_permissions_are_rejected() {
        for (mode, owner, open) in [
            (0o600, 1000, false),
            (0o400, 1000, false),
            (0o640, 1000, true),
            (0o604, 1000, true),
            (0o644, 0, true),
            (0o440, 0, false),
            (0o660, 0, true),
        ] {
            assert_eq!(has_loose_permissions(mode, owner), open, "{mode:o} {owner}");
        }
    }

    #[test]
    fn weak_secrets_are_rejected() {
        let hex = "0123456789abcdef".repeat(4);
        let base64 = "Zm9vYmFyYmF6cXV4MTIzNDU2Nzg5MGFiY2RlZmdoaWo";
        for good in [hex.as_str(), base64, &format!("{base64}=\n")] {
            assert!(parse_client_secret(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "s3cret",
            &hex.replacen('0', "", 1),
            &base64.replacen('Z', "", 1),
            &"ab".repeat(40),
            &format!("{base64} {base64}"),
        ] {
            assert!(parse_client_secret(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn encryption_key_must_have_32_bytes() {
        let bytes = std::array::from_fn(|n| u8::try_from(n * 7 + 1).unwrap());
        let standard = base64::engine::general_purpose::STANDARD.encode(bytes);
        for text in [standard.clone(), format!(" {standard}\n"), crate::domain::encode_base64url(&bytes)] {
            assert_eq!(parse_encryption_key(&text).unwrap().expose(), &bytes);
        }
        for (text, want) in [
            ("", "the key has 0 bytes; 32 are needed"),
            ("AAAA", "the key has 3 bytes; 32 are needed"),
            ("not a key", "the key is not base64"),
            (&"A".repeat(43), "the key is not random"),
        ] {
            assert_eq!(parse_encryption_key(text).unwrap_err(), want);
        }
        assert_eq!(format!("{:?}", EncryptionKey::new(bytes)), "EncryptionKey(..)");
    }
}
