//! Replication: the log follower, the lease and its renewal, propagation to all replicas.

pub(super) mod coalesce;
pub(super) mod follower;
pub(super) mod lease;
pub(super) mod propagation;
