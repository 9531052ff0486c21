//! Garbage collection and readiness.

use async_trait::async_trait;

use crate::{domain::time::Timestamp, ports::Outage};

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
}

/// Maintains the store.
#[async_trait]
pub trait MaintenanceStore: Send + Sync {
    /// Deletes rows that can't affect any answer from `now` on.
    async fn collect_garbage(&self, now: Timestamp) -> Result<GcStats, Outage>;

    /// Checks that the store is reachable and has the schema that this program needs.
    async fn ping(&self) -> Result<(), Outage>;

    /// Returns how often a row, the registry or the keys turned out to have been changed outside
    /// the program, since the store was opened.
    fn tampering_count(&self) -> u64;
}
