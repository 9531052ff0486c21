//! Replication: the log follower, the lease and its renewal, and propagation of writes to all
//! replicas.
//!
//! `docs/reference/revocation-protocol.md` explains the protocol as a whole.

pub(super) mod coalesce;
pub(super) mod follower;
pub(super) mod lease;
pub(super) mod peers;
pub(super) mod propagation;
pub(super) mod renewal;
pub(super) mod snapshot;
pub(super) mod status;
