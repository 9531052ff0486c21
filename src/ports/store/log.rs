//! The revocation log.

use async_trait::async_trait;

use super::{ListError, Page, PageRequest};
use crate::{
    domain::{
        revocation::{LinkedEntry, LogAnchor, LogEntry, LogPosition},
        time::Timestamp,
    },
    ports::Outage,
};

/// Reads the revocation log.
#[async_trait]
pub trait LogStore: Send + Sync {
    /// Returns the position of the last entry.
    async fn read_log_head(&self) -> Result<LogPosition, Outage>;

    /// Returns the entries after `seq` that can still revoke something at `now`, in order, at most
    /// `limit`. With `now` at the epoch these are all entries.
    ///
    /// Entries past their retention cost nothing to skip, except those that ended within the hour
    /// of `now`.
    async fn read_log_after(&self, seq: LogPosition, now: Timestamp, limit: u32) -> Result<Vec<LogEntry>, Outage>;

    /// Returns what [`read_log_after`](Self::read_log_after) returns, with the tags.
    async fn read_linked_log(&self, seq: LogPosition, now: Timestamp, limit: u32) -> Result<Vec<LinkedEntry>, Outage>;

    /// Returns the last anchor; that of an empty log if there is none.
    async fn load_log_anchor(&self) -> Result<LogAnchor, Outage>;

    /// Stores an anchor, unless the stored one is of a later position.
    async fn store_log_anchor(&self, anchor: &LogAnchor) -> Result<(), Outage>;

    /// Lists revocations for an admin, newest first. The list includes entries past their
    /// retention, and leaves out changes of the registry and of the keys, and the ends of user
    /// tokens, which follow from the end of a task or a requester.
    async fn list_revocations(&self, page: &PageRequest) -> Result<Page<LogEntry>, ListError>;
}
