//! Replicas, their leases and acknowledgements.

use async_trait::async_trait;

use super::ChangeListener;
use crate::{
    domain::replication::{Heartbeat, ReplicaId},
    ports::Outage,
};

/// Records and reads the heartbeats of replicas.
#[async_trait]
pub trait ReplicaStore: Send + Sync {
    /// Records a heartbeat, durable before this returns. `is_news` means that it acknowledges more
    /// of the log than the previous one; listeners are then notified.
    ///
    /// A heartbeat that arrives after a later one of the same replica changes nothing and is an
    /// outage, because other replicas do not wait for it.
    async fn record_heartbeat(&self, beat: &Heartbeat, is_news: bool) -> Result<(), Outage>;

    /// Returns the last heartbeat of every registered replica, longest running first.
    async fn list_replicas(&self) -> Result<Vec<Heartbeat>, Outage>;

    /// Removes a replica, unless it has sent a heartbeat after the one with this number. Returns
    /// whether it was removed.
    async fn deregister_replica(&self, id: ReplicaId, number: u64) -> Result<bool, Outage>;

    /// Subscribes to the changes that others commit from now on.
    async fn listen(&self) -> Result<Box<dyn ChangeListener>, Outage>;
}
