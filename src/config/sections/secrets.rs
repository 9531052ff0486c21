//! Secrets from files and from the environment, with checks of their strength and file permissions.

use std::{collections::BTreeSet, fmt, fs, io::Read, path::Path};

use base64::{Engine, engine::general_purpose::STANDARD_NO_PAD};
use zeroize::Zeroizing;

use crate::config::{
    document::{Document, Location},
    node::Node,
};
use crate::domain::secret::Secret;

/// A key-encryption key: encrypts the other keys of the server in the store.
#[derive(Clone)]
pub struct EncryptionKey(Zeroizing<[u8; 32]>);

impl EncryptionKey {
    /// Creates a key from 32 bytes, which are wiped on drop.
    #[must_use]
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// Returns the key itself. Review every caller.
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

const NAME_FILE_HINT: &str =
    "name an existing file that Errand may read; relative paths start at the directory of this file";

/// Reads a file that is not a secret. Errors show its path.
pub(in crate::config) fn read_file(node: &Node<'_>) -> Option<Zeroizing<Vec<u8>>> {
    let path = node.path()?;
    read_contents(&path)
        .map_err(|error| node.error(format_args!("can't read {}: {error}", path.display()), NAME_FILE_HINT))
        .ok()
}

/// Reads a text file with a secret that only its owner can read. Surrounding white space is
/// removed.
pub(in crate::config) fn read_secret(node: &Node<'_>) -> Option<Zeroizing<String>> {
    check_permissions(node);
    // The path is not shown: it may be the secret itself, written here by mistake.
    let bytes = read_contents(&node.path()?)
        .map_err(|error| node.error(format_args!("can't read the named file: {error}"), NAME_FILE_HINT))
        .ok()?;
    let Ok(text) = std::str::from_utf8(&bytes) else {
        node.error("the file is not UTF-8 text", "write the secret as text, such as base64");
        return None;
    };
    Some(Zeroizing::new(text.trim().to_owned()))
}

/// Reports a file that users other than its owner can read.
#[cfg_attr(not(unix), expect(unused_variables, reason = "file modes exist on Unix only"))]
pub(in crate::config) fn check_permissions(node: &Node<'_>) {
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;

        let Some(path) = node.path() else { return };
        let Ok(metadata) = fs::metadata(&path) else { return };
        let mode = metadata.mode() & 0o777;
        if has_loose_permissions(mode, metadata.uid()) {
            let reason = format!("{} has mode {mode:04o}: users other than its owner can read it", path.display());
            node.error(reason, format_args!("run `chmod 600 {}`, and treat its content as leaked", path.display()));
        }
    }
}

/// Returns whether a mode grants too much, by the rule of PostgreSQL for its TLS key: only the
/// owner has access. If root owns the file, its group may read it: Kubernetes mounts secrets like
/// this for processes that do not run as root.
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

/// Returns an environment variable that is set and not blank.
pub(in crate::config) fn read_variable(document: &Document<'_>, name: &str) -> Option<Zeroizing<String>> {
    (document.environment)(name).map(Zeroizing::new).filter(|value| !value.trim().is_empty())
}

/// Reads the key-encryption key from `ERRAND_ENCRYPTION_KEY`, or else from the file.
pub(in crate::config) fn read_encryption_key(keys: &Location<'_>, file: Option<&Node<'_>>) -> Option<EncryptionKey> {
    let name = "ERRAND_ENCRYPTION_KEY";
    if let Some(text) = read_variable(keys.document, name) {
        let record = |reason| keys.document.add_environment_error(name, reason, NEW_KEY_HINT.to_owned());
        return parse_encryption_key(&text).map_err(record).ok();
    }
    let Some(node) = file else {
        keys.error(
            "the key-encryption key is missing",
            format_args!("name a file with `encryption_key_file` or set {name}; {NEW_KEY_HINT}"),
        );
        return None;
    };
    read_encryption_key_file(node)
}

/// Reads a key-encryption key from the file that the node names.
pub(in crate::config) fn read_encryption_key_file(node: &Node<'_>) -> Option<EncryptionKey> {
    let text = read_secret(node)?;
    parse_encryption_key(&text).map_err(|reason| node.error(reason, NEW_KEY_HINT)).ok()
}

const NEW_KEY_HINT: &str = "generate one with `openssl rand -base64 32`";

fn parse_encryption_key(text: &str) -> Result<EncryptionKey, String> {
    let standard = text.trim().trim_end_matches('=').replace('-', "+").replace('_', "/");
    let bytes = STANDARD_NO_PAD.decode(Zeroizing::new(standard).as_bytes()).map(Zeroizing::new);
    let bytes = bytes.map_err(|_| "the key is not base64".to_owned())?;
    let key = <[u8; 32]>::try_from(&bytes[..]);
    let key = key.map_err(|_| format!("the key has {} bytes instead of 32", bytes.len()))?;
    if bytes.iter().collect::<BTreeSet<_>>().len() < 8 {
        return Err("the key is not random".to_owned());
    }
    Ok(EncryptionKey::new(key))
}

/// Parses a client secret of at least 256 bits.
pub(in crate::config) fn parse_client_secret(text: &str) -> Result<Secret, &'static str> {
    let text = text.trim();
    let is_allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'+' | b'/');
    let digits = text.trim_end_matches('=');
    if !digits.bytes().all(is_allowed) {
        return Err("the secret contains characters other than base64, base64url or hexadecimal digits");
    }
    let is_hex = digits.bytes().all(|b| b.is_ascii_hexdigit());
    if digits.len() < if is_hex { 64 } else { 43 } {
        return Err("the secret has less than 256 bits: 43 characters of base64url, or 64 hexadecimal digits");
    }
    if digits.bytes().collect::<BTreeSet<_>>().len() < 8 {
        return Err("the secret is not random");
    }
    Ok(Secret::new(text.to_owned()))
}

/// Reads a bearer token (RFC 6750 §2.1) of another server from a file.
pub(in crate::config) fn read_bearer_file(node: &Node<'_>) -> Option<Secret> {
    let text = read_secret(node)?;
    parse_bearer(&text).map_err(|reason| node.error(reason, BEARER_HINT)).ok()
}

/// Reads a bearer token of another server from an environment variable.
pub(in crate::config) fn read_bearer_variable(node: &Node<'_>) -> Option<Secret> {
    let name = read_variable_name(node)?;
    let Some(text) = read_variable(node.location.document, &name) else {
        node.error(format_args!("the environment variable `{name}` is not set"), "set the variable to the token");
        return None;
    };
    parse_bearer(&text).map_err(|reason| node.error(format_args!("`{name}`: {reason}"), BEARER_HINT)).ok()
}

const BEARER_HINT: &str = "write only the token, without `Bearer`";

fn parse_bearer(text: &str) -> Result<Secret, &'static str> {
    let text = text.trim();
    let is_allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b'~' | b'+' | b'/' | b'=');
    if (1..=8192).contains(&text.len()) && text.bytes().all(is_allowed) {
        Ok(Secret::new(text.to_owned()))
    } else {
        Err("not a valid bearer token (1 to 8192 characters of A-Z a-z 0-9 - . _ ~ + / =)")
    }
}

/// Reads the name of a variable that holds a secret. Errors do not show the value: it may be the
/// secret itself, and errors are logged.
pub(in crate::config) fn read_variable_name(node: &Node<'_>) -> Option<String> {
    let name = node.non_empty_string()?;
    if !name.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_') || name.len() > 64 {
        node.error(
            "is not the name of an environment variable",
            "name a variable of A-Z, 0-9 and _ that holds the secret",
        );
        return None;
    }
    Some(name)
}

/// Remedy for an invalid client secret. Hexadecimal digits need no escaping in HTTP Basic (RFC 6749
/// §2.3.1).
pub(in crate::config) const NEW_SECRET_HINT: &str = "generate one with `openssl rand -hex 32`";

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(unix)]
    #[test]
    fn loose_file_permissions_are_rejected() {
        for (mode, owner, is_loose) in [
            (0o600, 1000, false),
            (0o400, 1000, false),
            (0o640, 1000, true),
            (0o604, 1000, true),
            (0o644, 0, true),
            (0o440, 0, false),
            (0o660, 0, true),
        ] {
            assert_eq!(has_loose_permissions(mode, owner), is_loose, "{mode:o} {owner}");
        }
    }

    #[test]
    fn weak_secrets_are_rejected() {
        let hex = "0123456789abcdef".repeat(4);
        let base64 = "Zm9vYmFyYmF6cXV4MTIzNDU2Nzg5MGFiY2RlZmdoaWo";
        for valid in [hex.as_str(), base64, &format!("{base64}=\n")] {
            assert!(parse_client_secret(valid).is_ok(), "{valid}");
        }
        for weak in [
            "",
            "s3cret",
            &hex.replacen('0', "", 1),
            &base64.replacen('Z', "", 1),
            &"ab".repeat(40),
            &format!("{base64} {base64}"),
        ] {
            assert!(parse_client_secret(weak).is_err(), "{weak}");
        }
    }

    #[test]
    fn encryption_key_must_have_32_bytes() {
        let bytes = std::array::from_fn(|n| u8::try_from(n * 7 + 1).unwrap());
        let standard = base64::engine::general_purpose::STANDARD.encode(bytes);
        for text in [standard.clone(), format!(" {standard}\n"), crate::domain::encode_base64url(&bytes)] {
            assert_eq!(parse_encryption_key(&text).unwrap().expose(), &bytes);
        }
        for (text, reason) in [
            ("", "the key has 0 bytes instead of 32"),
            ("AAAA", "the key has 3 bytes instead of 32"),
            ("not a key", "the key is not base64"),
            (&"A".repeat(43), "the key is not random"),
        ] {
            assert_eq!(parse_encryption_key(text).unwrap_err(), reason);
        }
        assert_eq!(format!("{:?}", EncryptionKey::new(bytes)), "EncryptionKey(..)");
    }
}
