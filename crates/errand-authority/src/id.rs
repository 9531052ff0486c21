//! Names that are validated when they are parsed. A value of such a type is well-formed.

use thiserror::Error;

/// A text that is not a name of the expected kind. Contains the kind and its rule, never the text.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("not a valid {kind}: {rule}")]
pub struct NameError {
    /// The expected kind of name, in an operator's words.
    pub kind: &'static str,
    /// The rule of that kind.
    pub rule: &'static str,
}

/// Defines a type for a kind of name: immutable text that is checked when it is parsed, and that
/// serde reads and writes as a string.
#[doc(hidden)]
#[macro_export]
macro_rules! text_name {
    ($(#[$doc:meta])* $name:ident, $kind:literal, $rule:literal, $check:expr) => {
        $(#[$doc])*
        // Shared: a name is copied to many places and never changes.
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(::std::sync::Arc<str>);

        impl $name {
            /// Returns the name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl ::std::str::FromStr for $name {
            type Err = $crate::id::NameError;

            fn from_str(text: &str) -> Result<Self, $crate::id::NameError> {
                let check: fn(&str) -> bool = $check;
                check(text).then(|| Self(text.into())).ok_or($crate::id::NameError { kind: $kind, rule: $rule })
            }
        }

        impl ::serde::Serialize for $name {
            fn serialize<S: ::serde::Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
                out.serialize_str(&self.0)
            }
        }

        impl<'de> ::serde::Deserialize<'de> for $name {
            fn deserialize<D: ::serde::Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
                $crate::encoding::serde_text::read(input)
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.0.as_ref().to_owned()
            }
        }

        impl ::std::fmt::Display for $name {
            fn fmt(&self, f: &mut ::std::fmt::Formatter<'_>) -> ::std::fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

text_name!(
    /// A tool's name in its MCP server's `tools/list`.
    ToolName,
    "tool name",
    "1 to 128 characters of A-Z a-z 0-9 . _ / -",
    |text| (1..=128).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-' | b'/'))
);
