//! Positions in the revocation log.

use serde::{Deserialize, Serialize};

/// A position in the revocation log. Positions are gap-free and in commit order; 0 is before the
/// first entry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct LogPosition(u64);

impl LogPosition {
    /// Returns the position with this number.
    #[must_use]
    pub const fn new(seq: u64) -> Self {
        Self(seq)
    }

    /// Returns the number of the position.
    #[must_use]
    pub const fn number(self) -> u64 {
        self.0
    }
}
