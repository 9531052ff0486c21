//! Names in error texts: only what cannot break out of the text.

/// Returns the name of an argument if it can be part of an error text, else `?`.
///
/// An error never contains a value that was sent. The name of an argument is an exception, because
/// it locates the error, but only with at most 64 harmless characters.
pub(super) fn printable_name(name: &str) -> &str {
    let plain = name.len() <= 64 && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.'));
    if plain && !name.is_empty() { name } else { "?" }
}
