//! Acknowledgements of a log entry by the replicas.

use std::{collections::BTreeSet, time::Duration};

use super::{Heartbeat, PeerObservations, ReplicaId};
use crate::domain::revocation::LogPosition;

/// A revocation on its way to the replicas.
#[derive(Debug)]
pub struct AckRound {
    seq: LogPosition,
    pending: BTreeSet<ReplicaId>,
    longest_lease: Duration,
    acknowledged: usize,
    lapsed: usize,
}

impl AckRound {
    /// Begins with what the store had at a moment **after** the entry was in the log. `home` has applied it already. A
    /// replica that is not here read the log later, or will before it answers from memory.
    #[must_use]
    pub fn begin(
        seq: LogPosition,
        home: ReplicaId,
        beats: &[Heartbeat],
        peers: &PeerObservations,
        at: Duration,
    ) -> Self {
        let others = || beats.iter().filter(|beat| beat.replica.id != home);
        let mut round = Self {
            seq,
            pending: others().map(|beat| beat.replica.id).collect(),
            longest_lease: Duration::ZERO,
            acknowledged: beats.len() - others().count(),
            lapsed: 0,
        };
        round.observe(beats, peers, at);
        let waiting = others().filter(|beat| round.pending.contains(&beat.replica.id));
        round.longest_lease = waiting.map(|beat| beat.lease).max().unwrap_or_default();
        round
    }

    /// Takes in what the store has now.
    pub fn observe(&mut self, beats: &[Heartbeat], peers: &PeerObservations, at: Duration) {
        let waited_for = self.pending.len();
        // One that is gone from the store has left, or was swept long after its lease.
        self.pending.retain(|id| beats.iter().any(|beat| beat.replica.id == *id));
        self.lapsed += waited_for - self.pending.len();
        for beat in beats {
            if beat.applied >= self.seq {
                self.acknowledged += usize::from(self.pending.remove(&beat.replica.id));
            } else if peers.has_lapsed(beat, at) {
                self.lapsed += usize::from(self.pending.remove(&beat.replica.id));
            }
        }
    }

    /// How long after the start every lease that was seen then is over, whatever is heard of the replicas: who has renewed
    /// since has read the entry before it used the new lease.
    #[must_use]
    pub fn longest_lease(&self) -> Duration {
        self.longest_lease
    }

    /// Says that this long has passed.
    pub fn mark_lapsed(&mut self) {
        self.lapsed += self.pending.len();
        self.pending.clear();
    }

    /// Whether nobody is waited for any more.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.pending.is_empty()
    }

    /// Where it stands, after so long.
    #[must_use]
    pub fn outcome(&self, took: Duration) -> Propagation {
        let (acknowledged, lapsed, pending) = (self.acknowledged, self.lapsed, self.pending.len());
        Propagation { seq: self.seq, acknowledged, lapsed, pending, elapsed: took }
    }
}

/// How far an entry of the log got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Propagation {
    /// The entry's place.
    pub seq: LogPosition,
    /// How many replicas have applied it.
    pub acknowledged: usize,
    /// How many have not, and can't answer from memory any more.
    pub lapsed: usize,
    /// How many are still waited for: while there is one, the entry is durable but not yet everywhere.
    pub pending: usize,
    /// How long it took, from the commit.
    pub elapsed: Duration,
}

impl Propagation {
    /// Whether no replica answers from a memory that is older than the entry.
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
        let spread = round.outcome(Duration::ZERO);
        (spread.acknowledged, spread.lapsed, spread.pending)
    }

    #[test]
    fn round_waits_only_for_live_unacknowledged_replicas() {
        let mut peers = PeerObservations::default();
        peers.observe(&[heartbeat(4, 1, 0)], ms(0));
        let now = ms(5000);
        // Home, one that has it, one that does not, one that has been silent for long.
        let beats = [heartbeat(1, 5, 0), heartbeat(2, 5, 7), heartbeat(3, 5, 6), heartbeat(4, 1, 6)];
        peers.observe(&beats, now);
        let mut round = AckRound::begin(LogPosition::new(7), id(1), &beats, &peers, now);
        assert_eq!((counts(&round), round.longest_lease(), round.is_complete()), ((2, 1, 1), LEASE, false));
        // It renews without having applied; another one starts. Neither changes for whom it waits.
        let beats = [heartbeat(1, 6, 7), heartbeat(2, 6, 7), heartbeat(3, 6, 6), heartbeat(5, 1, 0)];
        round.observe(&beats, &peers, now);
        assert_eq!(counts(&round), (2, 1, 1));
        let mut left = AckRound::begin(LogPosition::new(7), id(1), &[heartbeat(3, 5, 6)], &peers, now);
        left.observe(&[], &peers, now);
        assert_eq!((counts(&left), left.is_complete()), ((0, 1, 0), true), "it has left");
        round.observe(&[heartbeat(3, 7, 7)], &peers, now);
        assert_eq!((counts(&round), round.is_complete()), ((3, 1, 0), true));
        let mut late = AckRound::begin(LogPosition::new(7), id(1), &[heartbeat(3, 5, 6)], &peers, now);
        late.mark_lapsed();
        assert_eq!((counts(&late), late.is_complete()), ((0, 1, 0), true));
        let nobody = AckRound::begin(LogPosition::new(7), id(1), &[], &peers, now);
        assert_eq!((counts(&nobody), nobody.longest_lease(), nobody.is_complete()), ((0, 0, 0), Duration::ZERO, true));
    }

    proptest! {
        /// Every replica that was there at the start is counted once, and is waited for as long as it has neither
        /// applied the entry nor been silent for its lease nor gone.
        #[test]
        fn round_accounts_for_every_replica_once(
            start in prop::collection::btree_map(1_u8..6, (1_u64..4, 0_u64..4), 0..5),
            steps in prop::collection::vec(
                (prop::collection::btree_map(1_u8..6, (1_u64..4, 0_u64..4), 0..5), 0_u64..3000), 0..5),
        ) {
            let seq = LogPosition::new(2);
            let beats = |of: &std::collections::BTreeMap<u8, (u64, u64)>| {
                of.iter().map(|(n, (number, applied))| heartbeat(*n, *number, *applied)).collect::<Vec<_>>()
            };
            let mut peers = PeerObservations::default();
            let mut now = Duration::ZERO;
            peers.observe(&beats(&start), now);
            let mut round = AckRound::begin(seq, id(1), &beats(&start), &peers, now);
            let mut still = start.iter().filter(|(n, (_, applied))| **n != 1 && *applied < 2);
            prop_assert_eq!(counts(&round).2, still.clone().count());
            prop_assert!(still.all(|(n, _)| round.pending.contains(&id(*n))));
            for (step, later) in &steps {
                now += ms(*later);
                let (beats, before) = (beats(step), round.pending.clone());
                peers.observe(&beats, now);
                round.observe(&beats, &peers, now);
                for gone in before.difference(&round.pending) {
                    let beat = beats.iter().find(|beat| beat.replica.id == *gone);
                    prop_assert!(beat.is_none_or(|beat| beat.applied >= seq || peers.has_lapsed(beat, now)));
                }
                for waiting in &round.pending {
                    let beat = beats.iter().find(|beat| beat.replica.id == *waiting).unwrap();
                    prop_assert!(beat.applied < seq && !peers.has_lapsed(beat, now));
                }
                let (acknowledged, lapsed, pending) = counts(&round);
                prop_assert_eq!(acknowledged + lapsed + pending, start.len());
            }
        }
    }
}
