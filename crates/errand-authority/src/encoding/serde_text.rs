//! Deserialization of validated text, without an intermediate copy.

use std::{fmt, marker::PhantomData, str::FromStr};

use serde::de::{Deserializer, Error, Visitor};

/// Deserializes a string with the type's `FromStr`.
///
/// # Errors
///
/// Returns an error if the input is not a string, or `FromStr` rejects it.
pub fn read<'de, T, D>(input: D) -> Result<T, D::Error>
where
    T: FromStr<Err: fmt::Display>,
    D: Deserializer<'de>,
{
    read_with(input, str::parse)
}

/// Deserializes a string with a function.
///
/// # Errors
///
/// Returns an error if the input is not a string, or the function rejects it.
pub fn read_with<'de, T, E, D>(input: D, rule: impl FnOnce(&str) -> Result<T, E>) -> Result<T, D::Error>
where
    E: fmt::Display,
    D: Deserializer<'de>,
{
    input.deserialize_str(TextVisitor(rule, PhantomData))
}

struct TextVisitor<F, T>(F, PhantomData<T>);

impl<T, E: fmt::Display, F: FnOnce(&str) -> Result<T, E>> Visitor<'_> for TextVisitor<F, (T, E)> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }

    fn visit_str<X: Error>(self, text: &str) -> Result<T, X> {
        self.0(text).map_err(X::custom)
    }
}

#[cfg(test)]
mod tests {
    use serde::de::value::{Error as ValueError, U64Deserializer};

    #[test]
    fn error_says_what_is_expected() {
        let error = super::read::<u8, _>(U64Deserializer::<ValueError>::new(1)).unwrap_err();
        assert_eq!(error.to_string(), "invalid type: integer `1`, expected a string");
    }
}
