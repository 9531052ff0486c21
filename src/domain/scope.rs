//! OAuth scopes (RFC 6749 §3.3), each of which stands for a set of tools.

use std::{fmt, str::FromStr, sync::Arc};

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use thiserror::Error;

use crate::domain::encoding::serde_text;

/// Maximum number of scopes in a request or token.
pub const MAX_SCOPES: usize = 64;
/// The maximum length of a scope token (bytes).
pub const MAX_SCOPE_LEN: usize = 128;

/// A text that does not match the grammar of RFC 6749 §3.3, or is too long.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("not a scope list: 1 to {MAX_SCOPES} scope tokens, one space between them (RFC 6749 section 3.3)")]
pub struct ScopeError;

/// One scope token, such as `files:read`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ScopeToken(Arc<str>);

impl ScopeToken {
    /// Returns the scope as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ScopeToken {
    type Err = ScopeError;

    /// `scope-token = 1*( %x21 / %x23-5B / %x5D-7E )`
    fn from_str(text: &str) -> Result<Self, ScopeError> {
        let ok = (1..=MAX_SCOPE_LEN).contains(&text.len())
            && text.bytes().all(|b| matches!(b, 0x21 | 0x23..=0x5b | 0x5d..=0x7e));
        ok.then(|| Self(text.into())).ok_or(ScopeError)
    }
}

impl Serialize for ScopeToken {
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        out.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for ScopeToken {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        serde_text::read(input)
    }
}

impl fmt::Display for ScopeToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A set of scopes, sorted. On the wire, a list separated by single spaces.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ScopeSet(Vec<ScopeToken>);

impl ScopeSet {
    /// Returns whether `scope` is in the set.
    #[must_use]
    pub fn contains(&self, scope: &ScopeToken) -> bool {
        self.0.binary_search(scope).is_ok()
    }

    /// Returns whether the set is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns whether `other` contains all scopes of this set.
    #[must_use]
    pub fn is_subset_of(&self, other: &Self) -> bool {
        self.iter().all(|scope| other.contains(scope))
    }

    /// Iterates over the scopes in order.
    pub fn iter(&self) -> impl Iterator<Item = &ScopeToken> {
        self.0.iter()
    }
}

impl FromIterator<ScopeToken> for ScopeSet {
    fn from_iter<I: IntoIterator<Item = ScopeToken>>(scopes: I) -> Self {
        let mut sorted = scopes.into_iter().collect::<Vec<_>>();
        sorted.sort_unstable();
        sorted.dedup();
        Self(sorted)
    }
}

impl FromStr for ScopeSet {
    type Err = ScopeError;

    fn from_str(text: &str) -> Result<Self, ScopeError> {
        Ok(text.parse::<ScopeList>()?.0.into_iter().collect())
    }
}

/// The scopes of a request in the order sent, so that an error can refer to one by its position.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScopeList(Vec<ScopeToken>);

impl ScopeList {
    /// Returns the set of these scopes.
    #[must_use]
    pub fn to_set(&self) -> ScopeSet {
        self.iter().cloned().collect()
    }

    /// Iterates over the scopes in the order sent.
    pub fn iter(&self) -> impl Iterator<Item = &ScopeToken> {
        self.0.iter()
    }
}

impl FromIterator<ScopeToken> for ScopeList {
    fn from_iter<I: IntoIterator<Item = ScopeToken>>(scopes: I) -> Self {
        Self(scopes.into_iter().collect())
    }
}

impl FromStr for ScopeList {
    type Err = ScopeError;

    /// `scope = scope-token *( SP scope-token )`
    fn from_str(text: &str) -> Result<Self, ScopeError> {
        let mut scopes = Vec::new();
        for (n, token) in text.split(' ').enumerate() {
            if n >= MAX_SCOPES {
                return Err(ScopeError);
            }
            scopes.push(token.parse()?);
        }
        Ok(Self(scopes))
    }
}

impl fmt::Display for ScopeSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, scope) in self.0.iter().enumerate() {
            let space = if n == 0 { "" } else { " " };
            write!(f, "{space}{scope}")?;
        }
        Ok(())
    }
}

impl Serialize for ScopeSet {
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        out.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ScopeSet {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        serde_text::read_with(input, |text| if text.is_empty() { Ok(Self::default()) } else { text.parse() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 6749 §3.3: visible ASCII without quotation mark and backslash.
    #[test]
    fn scope_token_has_the_characters_of_the_grammar() {
        let visible = "!#$%&'()*+,-./0123456789:;<=>?@ABCDEFGHIJKLMNOPQRSTUVWXYZ[]^_`abcdefghijklmnopqrstuvwxyz{|}~";
        for c in ('\0'..='\u{17f}').chain("\u{200b}\u{202e}\u{3000}\u{ff21}\u{1f980}".chars()) {
            assert_eq!(c.to_string().parse::<ScopeToken>().is_ok(), visible.contains(c), "{}", c.escape_unicode());
        }
        for (length, is_allowed) in [(0, false), (1, true), (128, true), (129, false)] {
            assert_eq!("a".repeat(length).parse::<ScopeToken>().is_ok(), is_allowed, "{length} characters");
        }
    }

    #[test]
    fn scope_list_outside_the_grammar_is_rejected() {
        for bad in ["", " ", "a  b", " a", "a ", "a\tb", "a\"b", "a\\b", "é", "a\0", &"a ".repeat(65), &"x".repeat(129)]
        {
            assert_eq!(bad.parse::<ScopeSet>(), Err(ScopeError), "{bad:?}");
        }
        let set = "files:write files:read files:read".parse::<ScopeSet>().unwrap();
        assert_eq!(set.to_string(), "files:read files:write");
        assert!("files:read".parse::<ScopeSet>().unwrap().is_subset_of(&set));
        assert!(!set.is_subset_of(&"files:read".parse().unwrap()));
    }
}
