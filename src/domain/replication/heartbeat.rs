//! Heartbeats and leases of replicas.

use std::{collections::HashMap, time::Duration};

use serde::Serialize;
use uuid::Uuid;

use crate::domain::{configuration::FileVersion, revocation::LogPosition, time::Timestamp};

/// The id of a replica: one start of one process that follows the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct ReplicaId(pub Uuid);

/// A replica, as it describes itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replica {
    /// The id.
    pub id: ReplicaId,
    /// The name that the operator configured.
    pub name: String,
    /// The version of the program.
    pub version: String,
    /// The start time by its own wall clock.
    pub started_at: Timestamp,
    /// What its configuration file declares. A command has no file.
    pub file: Option<FileVersion>,
    /// The keys of its file that have changed since its start and need a restart.
    pub pending_restart: Vec<String>,
}

/// A lease renewal of a replica, which is also its acknowledgement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heartbeat {
    /// The replica.
    pub replica: Replica,
    /// The sequence number of the renewal, from 1. A replica never reuses a number.
    pub number: u64,
    /// The position up to which the replica has applied the log.
    pub applied: LogPosition,
    /// How long the replica may answer from memory after sending this.
    pub lease: Duration,
    /// The time by its own wall clock, for display only.
    pub at: Timestamp,
}

/// Returns when the lease ends on the replica's own monotonic clock, which read `sent` before the
/// renewal was sent. A tenth is subtracted, so that clock rates may differ by as much.
#[must_use]
pub fn lease_deadline(sent: Duration, lease: Duration) -> Duration {
    sent.saturating_add(lease.saturating_sub(lease / 10))
}

/// The heartbeats that one replica has observed, each with the time of its first observation on the
/// observer's monotonic clock.
#[derive(Debug, Default)]
pub struct PeerObservations {
    observations: HashMap<ReplicaId, Observation>,
}

#[derive(Clone, Copy, Debug)]
struct Observation {
    number: u64,
    first_observed_at: Duration,
}

impl PeerObservations {
    /// Processes the current heartbeats in the store. `at` is the time when the response arrived.
    pub fn observe(&mut self, heartbeats: &[Heartbeat], at: Duration) {
        let observed = heartbeats.iter().map(|heartbeat| {
            let known = self.observations.get(&heartbeat.replica.id).filter(|known| known.number >= heartbeat.number);
            (
                heartbeat.replica.id,
                known.copied().unwrap_or(Observation { number: heartbeat.number, first_observed_at: at }),
            )
        });
        self.observations = observed.collect();
    }

    /// Returns how long this renewal has been the latest one observed of its replica.
    #[must_use]
    pub fn age(&self, heartbeat: &Heartbeat, at: Duration) -> Duration {
        let observed =
            self.observations.get(&heartbeat.replica.id).filter(|observed| observed.number == heartbeat.number);
        observed.map_or(Duration::ZERO, |observed| at.saturating_sub(observed.first_observed_at))
    }

    /// Returns whether the lease has certainly lapsed. The renewal was sent before it was observed,
    /// so this errs on the late side.
    #[must_use]
    pub fn has_lapsed(&self, heartbeat: &Heartbeat, at: Duration) -> bool {
        self.age(heartbeat, at) >= heartbeat.lease
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::domain::replication) const LEASE: Duration = Duration::from_secs(2);

    pub(in crate::domain::replication) fn id(n: u8) -> ReplicaId {
        ReplicaId(Uuid::from_bytes([n; 16]))
    }

    pub(in crate::domain::replication) fn heartbeat(n: u8, number: u64, applied: u64) -> Heartbeat {
        let replica = Replica {
            id: id(n),
            name: format!("r{n}"),
            version: "1".into(),
            started_at: Timestamp::from_unix(0),
            file: None,
            pending_restart: Vec::new(),
        };
        Heartbeat { replica, number, applied: LogPosition::new(applied), lease: LEASE, at: Timestamp::from_unix(0) }
    }

    pub(in crate::domain::replication) fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    #[test]
    fn lease_deadline_counts_from_send_time_less_a_tenth() {
        for (sent, lease, until) in [(0, 2000, 1800), (700, 2000, 2500), (5, 0, 5), (0, 9, 9)] {
            let deadline = lease_deadline(ms(sent), ms(lease));
            assert!(deadline <= ms(until) && deadline + ms(1) > ms(until), "{sent} {lease}: {deadline:?}");
        }
        assert_eq!(lease_deadline(Duration::MAX, LEASE), Duration::MAX);
    }

    #[test]
    fn lease_lapses_on_the_observers_clock() {
        let mut peers = PeerObservations::default();
        let lapsed = |peers: &PeerObservations, heartbeat: &Heartbeat, at| peers.has_lapsed(heartbeat, ms(at));
        assert!(!lapsed(&peers, &heartbeat(1, 1, 0), 9_999_999), "a heartbeat that was never observed has no age");
        peers.observe(&[heartbeat(1, 1, 0), heartbeat(2, 7, 0)], ms(1000));
        peers.observe(&[heartbeat(1, 1, 3), heartbeat(2, 8, 0)], ms(2000));
        assert!(!lapsed(&peers, &heartbeat(1, 1, 0), 2999));
        assert!(lapsed(&peers, &heartbeat(1, 1, 0), 3000), "the age counts from the first observation of this renewal");
        assert!(!lapsed(&peers, &heartbeat(2, 8, 0), 3999));
        assert!(!lapsed(&peers, &heartbeat(1, 2, 0), 9000), "a newer renewal was not observed yet");
        peers.observe(&[heartbeat(2, 7, 0)], ms(9000));
        assert!(lapsed(&peers, &heartbeat(2, 8, 0), 4000), "a delayed older response changes nothing");
        // A replica that was removed and returns has a higher number.
        peers.observe(&[heartbeat(1, 2, 0)], ms(10_000));
        assert!(!lapsed(&peers, &heartbeat(1, 2, 0), 11_999));
        assert!(lapsed(&peers, &heartbeat(1, 2, 0), 12_000));
    }
}
