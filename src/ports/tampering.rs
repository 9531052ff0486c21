//! Evidence that the store was changed outside this program.

use thiserror::Error;

use crate::domain::time::Timestamp;

/// The store holds something that no program with its keys wrote, or lacks something that one did.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum TamperingError {
    /// The tag of a row is wrong.
    #[error(
        "row `{row}` of the table `{table}` was changed, or copied from another row or store, outside this program; \
         restore it from a backup of the database"
    )]
    Row {
        /// The table.
        table: &'static str,
        /// The primary key of the row.
        row: String,
    },
    /// An entry of the revocation log is missing, although later ones or the head name it.
    #[error(
        "row `{0}` of the table `revocation_log` was removed outside this program; restore it from a backup of the \
         database"
    )]
    MissingLogEntry(u64),
    /// Entries of the revocation log whose retention ends within an hour are not the ones that
    /// were there.
    #[error(
        "rows of the table `revocation_log` whose `forget_after` lies in the hour from {0} on were removed or added \
         outside this program; restore them from a backup of the database"
    )]
    RetainedLogEntries(Timestamp),
    /// An entry of the revocation log does not follow the entry before it.
    #[error(
        "row `{0}` of the table `revocation_log` does not follow the row before it: one of the two was put back outside \
         this program; restore it from a backup of the database"
    )]
    UnlinkedLogEntry(u64),
    /// The rows of the registry do not match their seal.
    #[error(
        "a row of the table `objects`, `secrets`, `tools` or `blocks` was changed, added or removed outside this \
         program; restore the database from a backup"
    )]
    Registry,
    /// The stored keys do not match their seal.
    #[error(
        "a row of the table `signing_keys` or `sealed_keys` was changed, added or removed outside this program; \
         restore the database from a backup"
    )]
    Keys,
    /// The registry or the keys are older than the head of the revocation log.
    #[error(
        "the version `{0}` of the table `versions` is not the one that the revocation log names: an earlier state was \
         put back outside this program; restore the database from a backup"
    )]
    Version(&'static str),
}

impl TamperingError {
    /// Returns whether a message authentication code was wrong, so that the store counts the case.
    #[must_use]
    pub fn is_wrong_code(&self) -> bool {
        match self {
            Self::Row { .. } | Self::Registry | Self::Keys => true,
            Self::MissingLogEntry(_) | Self::RetainedLogEntries(_) | Self::UnlinkedLogEntry(_) | Self::Version(_) => {
                false
            }
        }
    }
}
