//! Identifiers and other validated texts. A value of such a type is well-formed, and one kind can't
//! be used in place of another.

use std::{fmt, str::FromStr};

use errand_authority::text_name;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

pub use errand_authority::{
    digest::{ArgumentsDigest, ToolDigest},
    id::{NameError, ToolName},
};

macro_rules! uuid_name {
    ($(#[$doc:meta])* $name:ident, $kind:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(Uuid);

        impl $name {
            /// Wraps a UUID that the caller generated.
            #[must_use]
            pub const fn new(id: Uuid) -> Self {
                Self(id)
            }

            /// Returns the UUID.
            #[must_use]
            pub const fn uuid(self) -> Uuid {
                self.0
            }
        }

        impl FromStr for $name {
            type Err = NameError;

            /// Accepts only the hyphenated lower-case form, so that an object has one id.
            fn from_str(text: &str) -> Result<Self, NameError> {
                let invalid = NameError { kind: $kind, rule: "a hyphenated lower-case UUID" };
                let id = Uuid::try_parse(text).map_err(|_| invalid.clone())?;
                let canonical = id.hyphenated().encode_lower(&mut Uuid::encode_buffer()) == text;
                canonical.then_some(Self(id)).ok_or(invalid)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.hyphenated().fmt(f)
            }
        }
    };
}

uuid_name!(
    /// A decision about a call.
    EvaluationId,
    "evaluation id"
);
uuid_name!(
    /// The `jti` of a token (RFC 7519 §4.1.7).
    TokenId,
    "token id"
);
uuid_name!(
    /// The id of a task: the `txn` claim of every token issued for it.
    TaskId,
    "task id"
);
uuid_name!(
    /// The id of a recorded grant, which every token that depends on the grant carries.
    GrantId,
    "grant id"
);

text_name!(
    /// The id of an OAuth client of this server: an agent, a resource or an admin, in one
    /// namespace.
    ClientId,
    "client id",
    "1 to 128 characters of A-Z a-z 0-9 . _ ~ -",
    |text| (1..=128).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'~' | b'-'))
);
impl ClientId {
    /// Returns whether the id is reserved for Errand itself, so that its own tokens and actions
    /// can't be mistaken for those of a client.
    #[must_use]
    pub fn is_reserved(&self) -> bool {
        self.0.to_ascii_lowercase().starts_with("errand")
    }
}

/// The maximum length of a requester's `sub`, with the `subject_prefix` of its issuer (bytes).
pub const MAX_SUBJECT_BYTES: usize = 512;

text_name!(
    /// The `sub` of a requester as in tokens of this server, with its issuer's `subject_prefix`.
    Subject,
    "subject",
    "1 to 512 bytes without control characters",
    |text| (1..=MAX_SUBJECT_BYTES).contains(&text.len()) && !text.chars().any(char::is_control)
);
text_name!(
    /// The id of a signing key of this server in the JWKS (`kid`, RFC 7517 §4.5).
    KeyId,
    "key id",
    "1 to 64 characters of A-Z a-z 0-9 _ -",
    |text| (1..=64).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'))
);
text_name!(
    /// The id that connects the log lines, the response and the audit records of a request
    /// (`X-Request-Id`).
    RequestId,
    "request id",
    "1 to 64 characters of A-Z a-z 0-9 . _ -",
    |text| (1..=64).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
);
text_name!(
    /// The purpose of a task, as the requester or the agent states it.
    Purpose,
    "purpose",
    "1 to 500 characters without control characters",
    is_free_text
);
text_name!(
    /// The reason for a revocation or another action, kept in the revocation log and the audit
    /// trail.
    Reason,
    "reason",
    "1 to 500 characters without control characters",
    is_free_text
);
text_name!(
    /// The outcome of a task, as the party that ended it states it.
    OutcomeText,
    "outcome",
    "1 to 500 characters without control characters",
    is_free_text
);
text_name!(
    /// A resource's id for a call that was made with a token.
    CallId,
    "call id",
    "1 to 128 characters of A-Z a-z 0-9 . _ ~ -",
    |text| (1..=128).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'~' | b'-'))
);
text_name!(
    /// A class of data, such as `personal` or `public`.
    DataClass,
    "data class",
    "1 to 64 characters of A-Z a-z 0-9 . _ -",
    |text| (1..=64).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
);

/// Returns whether a text is 1 to 500 characters, not blank, and without control characters.
fn is_free_text(text: &str) -> bool {
    let length = text.chars().count();
    (1..=500).contains(&length) && !text.trim().is_empty() && !text.chars().any(char::is_control)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_with_control_character_or_excess_length_is_rejected() {
        for bad in ["", "a b", "a\0b", "a\nb", "é", &"x".repeat(129)] {
            assert!(bad.parse::<ClientId>().is_err(), "{bad:?}");
        }
        for bad in ["", "a\0b", "a\u{7f}", "a\u{85}", &"x".repeat(513)] {
            assert!(bad.parse::<Subject>().is_err(), "{bad:?}");
        }
        assert!("auth0|5f7c8ec7c33c6c004bbafe82".parse::<Subject>().is_ok());
        assert!("zoë".parse::<Subject>().is_ok());
        assert!(" ".parse::<Purpose>().is_err());
        assert!("ö".repeat(500).parse::<Purpose>().is_ok());
        assert!("ö".repeat(501).parse::<Purpose>().is_err());
    }

    const LETTERS_AND_DIGITS: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";

    /// Characters of every class that a name might contain, and those around the ASCII ones.
    fn sample_chars() -> impl Iterator<Item = char> {
        let others = "\u{2d0}\u{430}\u{661}\u{200b}\u{200f}\u{2028}\u{202e}\u{2066}\u{3000}\u{4e00}\u{feff}\u{ff0e}\u{ff21}\u{e0041}\u{1f980}";
        ('\0'..='\u{17f}').chain(others.chars())
    }

    /// Checks that a kind of name has letters, digits, these other characters, and at most this
    /// length.
    fn check_name<T: FromStr>(others: &str, longest: usize) {
        for c in sample_chars() {
            let is_allowed = LETTERS_AND_DIGITS.contains(c) || others.contains(c);
            for name in [format!("a{c}b"), format!("{c}a"), c.to_string()] {
                assert_eq!(name.parse::<T>().is_ok(), is_allowed, "{}", name.escape_debug());
            }
        }
        for (length, is_allowed) in [(0, false), (1, true), (longest, true), (longest + 1, false)] {
            assert_eq!("a".repeat(length).parse::<T>().is_ok(), is_allowed, "{length} characters");
        }
    }

    #[test]
    fn names_have_the_listed_characters_and_lengths() {
        check_name::<ClientId>("._~-", 128);
        check_name::<KeyId>("_-", 64);
        check_name::<RequestId>("._-", 64);
        check_name::<CallId>("._~-", 128);
        check_name::<DataClass>("._-", 64);
        check_name::<ToolName>("._-/", 128);
    }

    /// Checks that a kind of text excludes the control characters of C0 and C1 alone.
    fn check_text<T: FromStr>(longest: usize) {
        for c in sample_chars() {
            let is_control = matches!(c, '\0'..='\u{1f}' | '\u{7f}'..='\u{9f}');
            assert_eq!(format!("a{c}b").parse::<T>().is_ok(), !is_control, "{}", c.escape_unicode());
        }
        for (length, is_allowed) in [(0, false), (1, true), (longest, true), (longest + 1, false)] {
            assert_eq!("a".repeat(length).parse::<T>().is_ok(), is_allowed, "{length} characters");
        }
    }

    #[test]
    fn texts_exclude_control_characters() {
        check_text::<Subject>(512);
        check_text::<Purpose>(500);
        check_text::<Reason>(500);
        check_text::<OutcomeText>(500);
    }

    #[test]
    fn task_id_not_in_canonical_form_is_rejected() {
        let id = "01970000-0000-7000-8000-00000000abcd";
        assert_eq!(id.parse::<TaskId>().map(|id| id.to_string()).as_deref(), Ok(id));
        for other in [id.to_uppercase().as_str(), &id.replace('-', ""), &format!("{{{id}}}"), &format!("urn:uuid:{id}")]
        {
            assert!(other.parse::<TaskId>().is_err(), "{other}");
        }
    }
}
