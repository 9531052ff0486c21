//! The state of replication, as the service reports it.

use std::time::Duration;

use crate::{
    app::{Error, RequestContext, Service},
    domain::{replication::Heartbeat, revocation::LogPosition},
};

/// The status of a replica, as an admin sees it.
#[derive(Debug)]
pub struct ReplicaStatus {
    /// The replica's last renewal.
    pub heartbeat: Heartbeat,
    /// The number of log entries that the replica had not applied at its last renewal.
    pub lag: u64,
    /// How long the responding replica has seen no newer renewal.
    pub since_last_renewal: Duration,
    /// Whether the replica's lease may still be valid.
    pub may_hold_lease: bool,
    /// Whether this is the responding replica.
    pub is_self: bool,
}

impl Service {
    /// Follows the log and renews the lease until the service is [shut down](Service::shutdown).
    /// Without it, responses are just as exact, but every request reads the log's head from the
    /// store.
    pub async fn follow_log(&self) {
        self.inner.renewal.run().await;
    }

    /// Returns whether requests are answered from memory now.
    #[must_use]
    pub fn holds_lease(&self) -> bool {
        self.inner.follower.holds_lease()
    }

    /// Returns the log position that this replica has applied.
    #[must_use]
    pub fn applied_seq(&self) -> LogPosition {
        self.inner.follower.applied_seq()
    }

    /// Returns the status of every replica in the store.
    pub async fn list_replicas(&self, cx: &RequestContext) -> Result<Vec<ReplicaStatus>, Error> {
        let head = self.inner.follower.committed_snapshot(cx.now).await?.seq;
        let heartbeats = self.inner.peers.read_heartbeats().await?;
        let (now, own_id) = (self.clock().monotonic(), self.inner.renewal.replica_id());
        Ok(self.inner.peers.with_observations(|peers| {
            let status = |heartbeat: &Heartbeat| ReplicaStatus {
                lag: head.number().saturating_sub(heartbeat.applied.number()),
                since_last_renewal: peers.age(heartbeat, now),
                may_hold_lease: !peers.has_lapsed(heartbeat, now),
                is_self: heartbeat.replica.id == own_id,
                heartbeat: heartbeat.clone(),
            };
            heartbeats.iter().map(status).collect()
        }))
    }
}
