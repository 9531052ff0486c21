//! Garbage collection and readiness.

use async_trait::async_trait;

use crate::{
    domain::{requester::Requester, settings::RetentionCutoffs, time::Timestamp},
    ports::Outage,
};

/// The number of rows that a garbage collection deleted, by kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GcStats {
    /// Replay guards.
    pub replay_guards: u64,
    /// Idempotency keys.
    pub idempotency_records: u64,
    /// Signing keys that are no longer published.
    pub signing_keys: u64,
    /// Shards of status lists.
    pub status_shards: u64,
    /// Records of tokens.
    pub tokens: u64,
    /// Tasks.
    pub tasks: u64,
}

/// How many rows there are about a requester, by kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RequesterRows {
    /// Records of tokens.
    pub tokens: u64,
    /// Tasks.
    pub tasks: u64,
    /// Grants.
    pub grants: u64,
    /// Break-glass grants with their reviews.
    pub break_glass: u64,
}

/// Maintains the store.
#[async_trait]
pub trait MaintenanceStore: Send + Sync {
    /// Deletes rows that can't affect any answer from `now` on and whose retention is over, in
    /// small batches. A call deletes a limited number of tokens and tasks.
    async fn collect_garbage(&self, now: Timestamp, cutoffs: &RetentionCutoffs) -> Result<GcStats, Outage>;

    /// Deletes what is stored about a requester and ended by `cutoff`: records of tokens, ended
    /// tasks, expired grants, and reviewed break-glass grants.
    async fn delete_requester_rows(&self, requester: &Requester, cutoff: Timestamp) -> Result<RequesterRows, Outage>;

    /// Counts what is stored about a requester.
    async fn count_requester_rows(&self, requester: &Requester) -> Result<RequesterRows, Outage>;

    /// Checks that the store is reachable and has the schema that this program needs.
    async fn ping(&self) -> Result<(), Outage>;

    /// Returns how often a row, the registry or the keys turned out to have been changed outside
    /// the program, since the store was opened.
    fn tampering_count(&self) -> u64;
}
