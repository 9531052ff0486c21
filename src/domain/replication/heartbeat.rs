//! Heartbeats and leases of replicas.

use std::{collections::HashMap, time::Duration};

use serde::Serialize;
use uuid::Uuid;

use crate::domain::{revocation::LogPosition, time::Timestamp};

/// One start of one process that follows the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct ReplicaId(pub Uuid);

/// A replica, as it names itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replica {
    /// Which start of which process.
    pub id: ReplicaId,
    /// What its operator calls it.
    pub name: String,
    /// The version of the program.
    pub version: String,
    /// When it started, by its own wall clock.
    pub started_at: Timestamp,
}

/// A renewal of a replica's lease, which is its acknowledgement too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heartbeat {
    /// Whose.
    pub replica: Replica,
    /// The how manieth it is, by the replica's own count from 1: it never has the same number twice.
    pub number: u64,
    /// Up to where it has applied the log.
    pub applied: LogPosition,
    /// How long it may answer from memory after it sent this.
    pub lease: Duration,
    /// When, by its own wall clock: to be shown, never judged by.
    pub at: Timestamp,
}

/// Until when a replica answers from memory, on its own monotonic clock: `sent` is what that showed before the renewal was
/// sent. A tenth is left out, so that clocks may run at rates that differ by as much.
#[must_use]
pub fn lease_deadline(sent: Duration, lease: Duration) -> Duration {
    sent.saturating_add(lease.saturating_sub(lease / 10))
}

/// What one replica has seen of all replicas, and since when on its own monotonic clock.
#[derive(Debug, Default)]
pub struct PeerObservations {
    observations: HashMap<ReplicaId, Observation>,
}

#[derive(Clone, Copy, Debug)]
struct Observation {
    number: u64,
    first_seen_at: Duration,
}

impl PeerObservations {
    /// Takes in what the store has now; `at` is the time when the answer was here.
    pub fn observe(&mut self, beats: &[Heartbeat], at: Duration) {
        let seen = beats.iter().map(|beat| {
            let known = self.observations.get(&beat.replica.id).filter(|known| known.number >= beat.number);
            (beat.replica.id, known.copied().unwrap_or(Observation { number: beat.number, first_seen_at: at }))
        });
        self.observations = seen.collect();
    }

    /// For how long this renewal has been the last one that was seen of its replica.
    #[must_use]
    pub fn age(&self, beat: &Heartbeat, at: Duration) -> Duration {
        let seen = self.observations.get(&beat.replica.id).filter(|seen| seen.number == beat.number);
        seen.map_or(Duration::ZERO, |seen| at.saturating_sub(seen.first_seen_at))
    }

    /// Whether the lease is over for sure: it was sent before it was seen.
    #[must_use]
    pub fn has_lapsed(&self, beat: &Heartbeat, at: Duration) -> bool {
        self.age(beat, at) >= beat.lease
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
        let replica =
            Replica { id: id(n), name: format!("r{n}"), version: "1".into(), started_at: Timestamp::from_unix(0) };
        Heartbeat { replica, number, applied: LogPosition::new(applied), lease: LEASE, at: Timestamp::from_unix(0) }
    }

    pub(in crate::domain::replication) fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    #[test]
    fn lease_deadline_counts_from_send_time_less_a_tenth() {
        for (sent, lease, until) in [(0, 2000, 1800), (700, 2000, 2500), (5, 0, 5), (0, 9, 9)] {
            let held = lease_deadline(ms(sent), ms(lease));
            assert!(held <= ms(until) && held + ms(1) > ms(until), "{sent} {lease}: {held:?}");
        }
        assert_eq!(lease_deadline(Duration::MAX, LEASE), Duration::MAX);
    }

    #[test]
    fn lease_lapses_on_the_observers_clock() {
        let mut peers = PeerObservations::default();
        let lapsed = |peers: &PeerObservations, beat: &Heartbeat, at| peers.has_lapsed(beat, ms(at));
        assert!(!lapsed(&peers, &heartbeat(1, 1, 0), 9_999_999), "never seen before: nothing is known of it");
        peers.observe(&[heartbeat(1, 1, 0), heartbeat(2, 7, 0)], ms(1000));
        peers.observe(&[heartbeat(1, 1, 3), heartbeat(2, 8, 0)], ms(2000));
        assert!(!lapsed(&peers, &heartbeat(1, 1, 0), 2999));
        assert!(lapsed(&peers, &heartbeat(1, 1, 0), 3000), "what counts is when this renewal was first seen");
        assert!(!lapsed(&peers, &heartbeat(2, 8, 0), 3999));
        assert!(!lapsed(&peers, &heartbeat(1, 2, 0), 9000), "a newer renewal is not the one that was seen");
        peers.observe(&[heartbeat(2, 7, 0)], ms(9000));
        assert!(lapsed(&peers, &heartbeat(2, 8, 0), 4000), "an older answer that came late changes nothing");
        // One that was swept and comes again has a higher number.
        peers.observe(&[heartbeat(1, 2, 0)], ms(10_000));
        assert!(!lapsed(&peers, &heartbeat(1, 2, 0), 11_999));
        assert!(lapsed(&peers, &heartbeat(1, 2, 0), 12_000));
    }
}
