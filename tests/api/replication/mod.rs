//! Replication over HTTP.

pub(super) mod clock_skew;
pub(super) mod failing_writes;
pub(super) mod group_commit;
pub(super) mod half_open_connections;
pub(super) mod list_lanes;
pub(super) mod log_rollback;
pub(super) mod replica_lag;
pub(super) mod replicas;
pub(super) mod store_outage;
pub(super) mod tampered_log;
pub(super) mod unknown_entries;
pub(super) mod unlogged_writes;
