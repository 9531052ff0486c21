//! Acknowledgement of a log entry by the replicas.

use std::{collections::BTreeSet, time::Duration};

use super::{Heartbeat, PeerObservations, ReplicaId};
use crate::domain::revocation::LogPosition;

/// The state of waiting for the replicas to acknowledge a revocation.
#[derive(Debug)]
pub struct AckRound {
    seq: LogPosition,
    pending: BTreeSet<ReplicaId>,
    longest_lease: Duration,
    acknowledged: usize,
    lapsed: usize,
}

impl AckRound {
    /// Begins with the heartbeats that the store had **after** the entry was in the log. `origin`
    /// has applied the entry already. A replica without a heartbeat read the log later, or will
    /// read it before it answers from memory.
    #[must_use]
    pub fn begin(
        seq: LogPosition,
        origin: ReplicaId,
        heartbeats: &[Heartbeat],
        peers: &PeerObservations,
        at: Duration,
    ) -> Self {
        let others = || heartbeats.iter().filter(|heartbeat| heartbeat.replica.id != origin);
        let mut round = Self {
            seq,
            pending: others().map(|heartbeat| heartbeat.replica.id).collect(),
            longest_lease: Duration::ZERO,
            acknowledged: heartbeats.len() - others().count(),
            lapsed: 0,
        };
        round.observe(heartbeats, peers, at);
        let pending = others().filter(|heartbeat| round.pending.contains(&heartbeat.replica.id));
        round.longest_lease = pending.map(|heartbeat| heartbeat.lease).max().unwrap_or_default();
        round
    }

    /// Processes the current heartbeats in the store.
    pub fn observe(&mut self, heartbeats: &[Heartbeat], peers: &PeerObservations, at: Duration) {
        let pending_before = self.pending.len();
        // A replica that is gone from the store has deregistered, or was removed long after its
        // lease.
        self.pending.retain(|id| heartbeats.iter().any(|heartbeat| heartbeat.replica.id == *id));
        self.lapsed += pending_before - self.pending.len();
        for heartbeat in heartbeats {
            if heartbeat.applied >= self.seq {
                self.acknowledged += usize::from(self.pending.remove(&heartbeat.replica.id));
            } else if peers.has_lapsed(heartbeat, at) {
                self.lapsed += usize::from(self.pending.remove(&heartbeat.replica.id));
            }
        }
    }

    /// Returns the time from the start after which every lease observed at the start has lapsed,
    /// whatever else is known of the replicas. A replica that renewed since has read the entry
    /// before using the new lease.
    #[must_use]
    pub fn longest_lease(&self) -> Duration {
        self.longest_lease
    }

    /// Marks all pending replicas as lapsed, after [`longest_lease`](Self::longest_lease) has
    /// passed.
    pub fn mark_lapsed(&mut self) {
        self.lapsed += self.pending.len();
        self.pending.clear();
    }

    /// Returns whether no replica is pending.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.pending.is_empty()
    }

    /// Returns the outcome so far, after the given time.
    #[must_use]
    pub fn outcome(&self, elapsed: Duration) -> Propagation {
        let (acknowledged, lapsed, pending) = (self.acknowledged, self.lapsed, self.pending.len());
        Propagation { seq: self.seq, acknowledged, lapsed, pending, elapsed }
    }
}

/// The propagation of a log entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Propagation {
    /// The position of the entry.
    pub seq: LogPosition,
    /// The number of replicas that have applied the entry.
    pub acknowledged: usize,
    /// The number of replicas that have not applied it and can no longer answer from memory.
    pub lapsed: usize,
    /// The number of pending replicas. While it is above zero, the entry is durable but not yet
    /// applied everywhere.
    pub pending: usize,
    /// The time since the commit.
    pub elapsed: Duration,
}

impl Propagation {
    /// Returns whether no replica answers from a state older than the entry.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.pending == 0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::domain::replication::heartbeat::tests::{LEASE, heartbeat, id, ms};

    fn counts(round: &AckRound) -> (usize, usize, usize) {
        let outcome = round.outcome(Duration::ZERO);
        (outcome.acknowledged, outcome.lapsed, outcome.pending)
    }

    #[test]
    fn round_waits_only_for_live_unacknowledged_replicas() {
        let mut peers = PeerObservations::default();
        peers.observe(&[heartbeat(4, 1, 0)], ms(0));
        let now = ms(5000);
        // The origin, a replica that applied the entry, one that did not, and one with a lapsed
        // lease.
        let heartbeats = [heartbeat(1, 5, 0), heartbeat(2, 5, 7), heartbeat(3, 5, 6), heartbeat(4, 1, 6)];
        peers.observe(&heartbeats, now);
        let mut round = AckRound::begin(LogPosition::new(7), id(1), &heartbeats, &peers, now);
        assert_eq!((counts(&round), round.longest_lease(), round.is_complete()), ((2, 1, 1), LEASE, false));
        // A renewal without the entry and a new replica change nothing.
        let heartbeats = [heartbeat(1, 6, 7), heartbeat(2, 6, 7), heartbeat(3, 6, 6), heartbeat(5, 1, 0)];
        round.observe(&heartbeats, &peers, now);
        assert_eq!(counts(&round), (2, 1, 1));
        let mut left = AckRound::begin(LogPosition::new(7), id(1), &[heartbeat(3, 5, 6)], &peers, now);
        left.observe(&[], &peers, now);
        assert_eq!((counts(&left), left.is_complete()), ((0, 1, 0), true), "a deregistered replica counts as lapsed");
        round.observe(&[heartbeat(3, 7, 7)], &peers, now);
        assert_eq!((counts(&round), round.is_complete()), ((3, 1, 0), true));
        let mut late = AckRound::begin(LogPosition::new(7), id(1), &[heartbeat(3, 5, 6)], &peers, now);
        late.mark_lapsed();
        assert_eq!((counts(&late), late.is_complete()), ((0, 1, 0), true));
        let empty = AckRound::begin(LogPosition::new(7), id(1), &[], &peers, now);
        assert_eq!((counts(&empty), empty.longest_lease(), empty.is_complete()), ((0, 0, 0), Duration::ZERO, true));
    }

    proptest! {
        /// Every replica that was present at the start is counted once. It is pending until it
        /// applies the entry, its lease lapses or it is removed.
        #[test]
        fn round_accounts_for_every_replica_once(
            start in prop::collection::btree_map(1_u8..6, (1_u64..4, 0_u64..4), 0..5),
            steps in prop::collection::vec(
                (prop::collection::btree_map(1_u8..6, (1_u64..4, 0_u64..4), 0..5), 0_u64..3000), 0..5),
        ) {
            let seq = LogPosition::new(2);
            let heartbeats = |of: &std::collections::BTreeMap<u8, (u64, u64)>| {
                of.iter().map(|(n, (number, applied))| heartbeat(*n, *number, *applied)).collect::<Vec<_>>()
            };
            let mut peers = PeerObservations::default();
            let mut now = Duration::ZERO;
            peers.observe(&heartbeats(&start), now);
            let mut round = AckRound::begin(seq, id(1), &heartbeats(&start), &peers, now);
            let mut still = start.iter().filter(|(n, (_, applied))| **n != 1 && *applied < 2);
            prop_assert_eq!(counts(&round).2, still.clone().count());
            prop_assert!(still.all(|(n, _)| round.pending.contains(&id(*n))));
            for (step, later) in &steps {
                now += ms(*later);
                let (heartbeats, before) = (heartbeats(step), round.pending.clone());
                peers.observe(&heartbeats, now);
                round.observe(&heartbeats, &peers, now);
                for gone in before.difference(&round.pending) {
                    let heartbeat = heartbeats.iter().find(|heartbeat| heartbeat.replica.id == *gone);
                    prop_assert!(heartbeat.is_none_or(|heartbeat| heartbeat.applied >= seq || peers.has_lapsed(heartbeat, now)));
                }
                for pending in &round.pending {
                    let heartbeat = heartbeats.iter().find(|heartbeat| heartbeat.replica.id == *pending).unwrap();
                    prop_assert!(heartbeat.applied < seq && !peers.has_lapsed(heartbeat, now));
                }
                let (acknowledged, lapsed, pending) = counts(&round);
                prop_assert_eq!(acknowledged + lapsed + pending, start.len());
            }
        }
    }
}
