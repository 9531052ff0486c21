//! Versions of the program, which replicas compare during an upgrade.

use std::{fmt, str::FromStr};

/// A released version: major, minor and patch number (Semantic Versioning 2.0.0 §2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProgramVersion {
    major: u32,
    minor: u32,
    patch: u32,
}

impl ProgramVersion {
    /// Creates a version from its numbers.
    #[must_use]
    pub const fn new(major: u32, minor: u32, patch: u32) -> Self {
        Self { major, minor, patch }
    }

    /// Returns the version of this program.
    #[must_use]
    pub fn current() -> Self {
        // Cargo checks the version, so that it always parses.
        env!("CARGO_PKG_VERSION").parse().unwrap_or(Self::new(0, 0, 0))
    }
}

/// A text that is not a version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("is not a version: three numbers separated by dots")]
pub struct InvalidVersionError;

impl FromStr for ProgramVersion {
    type Err = InvalidVersionError;

    /// Parses a version. A pre-release counts as the release that it precedes, and build metadata
    /// is ignored.
    fn from_str(text: &str) -> Result<Self, InvalidVersionError> {
        let release = text.split(['-', '+']).next().unwrap_or_default();
        let number = |part: &str| {
            let is_number = !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
            is_number.then(|| part.parse().ok()).flatten().ok_or(InvalidVersionError)
        };
        match *release.split('.').collect::<Vec<_>>().as_slice() {
            [major, minor, patch] => Ok(Self::new(number(major)?, number(minor)?, number(patch)?)),
            _ => Err(InvalidVersionError),
        }
    }
}

impl fmt::Display for ProgramVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_ordered_by_their_numbers() {
        let parse = |text: &str| text.parse::<ProgramVersion>();
        let ordered = ["0.1.0", "0.1.2", "0.1.10", "0.2.0", "1.0.0", "10.0.0"].map(|text| parse(text).unwrap());
        assert!(ordered.is_sorted());
        for (text, want) in [
            ("0.1.0", Ok(ProgramVersion::new(0, 1, 0))),
            ("1.2.3-rc.1+build.5", Ok(ProgramVersion::new(1, 2, 3))),
            ("1.2", Err(InvalidVersionError)),
            ("1.2.3.4", Err(InvalidVersionError)),
            ("1.2.x", Err(InvalidVersionError)),
            ("1.+2.3", Err(InvalidVersionError)),
            ("", Err(InvalidVersionError)),
            ("99999999999.0.0", Err(InvalidVersionError)),
        ] {
            assert_eq!(parse(text), want, "{text}");
        }
        assert_eq!(ProgramVersion::current().to_string(), env!("CARGO_PKG_VERSION"));
    }
}
