//! The renewals of all replicas, as this replica has observed them.

use std::{sync::Arc, time::Duration};

use parking_lot::Mutex;

use crate::{
    app::{commit::timeout::with_store_timeout, replication::coalesce::CoalescedRead},
    domain::replication::{Heartbeat, PeerObservations},
    ports::{Clock, Outage, ReplicaStore},
};

/// The number of leases without a renewal after which a replica is removed; at least
/// [`MIN_REAP_AGE`].
const REAP_AFTER_LEASES: u32 = 30;
/// The minimum age of the last renewal of a replica that is removed.
const MIN_REAP_AGE: Duration = Duration::from_mins(1);

/// The replicas in the store, and when each renewal was first seen.
pub(in crate::app) struct Peers {
    replicas: Arc<dyn ReplicaStore>,
    clock: Arc<dyn Clock>,
    heartbeats: CoalescedRead<Arc<Vec<Heartbeat>>>,
    observations: Mutex<PeerObservations>,
}

impl Peers {
    pub(in crate::app) fn new(replicas: Arc<dyn ReplicaStore>, clock: Arc<dyn Clock>) -> Self {
        Self { replicas, clock, heartbeats: CoalescedRead::default(), observations: Mutex::default() }
    }

    /// Returns the last renewal of every replica, from a read that starts after this call.
    pub(in crate::app) async fn read_heartbeats(&self) -> Result<Arc<Vec<Heartbeat>>, Outage> {
        let read = async || {
            let heartbeats = with_store_timeout("read the replicas", self.replicas.list_replicas()).await?;
            self.observations.lock().observe(&heartbeats, self.clock.monotonic());
            Ok(Arc::new(heartbeats))
        };
        self.heartbeats.read(read).await
    }

    /// Calls `inspect` with the observations so far.
    pub(in crate::app) fn with_observations<T>(&self, inspect: impl FnOnce(&PeerObservations) -> T) -> T {
        inspect(&self.observations.lock())
    }

    /// Removes replicas that have not renewed their lease for a long time: every process that
    /// revokes something would wait for each of them once.
    pub(in crate::app) async fn reap_dead_replicas(&self) -> Result<(), Outage> {
        let now = self.clock.monotonic();
        for heartbeat in self.read_heartbeats().await?.iter() {
            let reap_age = (heartbeat.lease * REAP_AFTER_LEASES).max(MIN_REAP_AGE);
            let age = self.with_observations(|peers| peers.age(heartbeat, now));
            let replica = &heartbeat.replica;
            if age >= reap_age && self.replicas.deregister_replica(replica.id, heartbeat.number).await? {
                tracing::info!(replica.id = %replica.id.0, replica.name = replica.name, "dead replica removed");
            }
        }
        Ok(())
    }
}
