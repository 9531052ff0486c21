//! A position in the revocation log.

use serde::{Deserialize, Serialize};

/// A position in the revocation log. Gap-free, in commit order; 0 is before the first entry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct LogPosition(u64);

impl LogPosition {
    /// Takes a position.
    #[must_use]
    pub const fn new(seq: u64) -> Self {
        Self(seq)
    }

    /// The position as a number.
    #[must_use]
    pub const fn number(self) -> u64 {
        self.0
    }
}
