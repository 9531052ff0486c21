//! Replicas that answer from memory: how long each of them may, and for whom a revocation waits.
//!
//! A replica sends a renewal, reads the head of the log after the renewal is durable, applies up to it, and may then answer
//! from memory for the length of its lease, counted from before the renewal was sent. So a replica that is still to be
//! waited for is one whose renewal could be seen when the entry was already in the log; whoever renews later reads the
//! entry first. No clock is ever compared with another one's: each side counts a length of time on its own.

use std::{
    collections::{BTreeSet, HashMap},
    time::Duration,
};

use serde::Serialize;
use uuid::Uuid;

use crate::domain::{revocation::Seq, time::Timestamp};

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
    pub started: Timestamp,
}

/// A renewal of a replica's lease, which is its acknowledgement too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Beat {
    /// Whose.
    pub replica: Replica,
    /// The how manieth it is, by the replica's own count from 1: it never has the same number twice.
    pub number: u64,
    /// Up to where it has applied the log.
    pub applied: Seq,
    /// How long it may answer from memory after it sent this.
    pub lease: Duration,
    /// When, by its own wall clock: to be shown, never judged by.
    pub at: Timestamp,
}

/// Until when a replica answers from memory, on its own monotonic clock: `sent` is what that showed before the renewal was
/// sent. A tenth is left out, so that clocks may run at rates that differ by as much.
#[must_use]
pub fn held_until(sent: Duration, lease: Duration) -> Duration {
    sent.saturating_add(lease.saturating_sub(lease / 10))
}

/// What one replica has seen of all replicas, and since when on its own monotonic clock.
#[derive(Debug, Default)]
pub struct Peers {
    seen: HashMap<ReplicaId, Seen>,
}

#[derive(Clone, Copy, Debug)]
struct Seen {
    number: u64,
    since: Duration,
}

impl Peers {
    /// Takes in what the store has now; `at` is the time when the answer was here.
    pub fn observe(&mut self, beats: &[Beat], at: Duration) {
        let seen = beats.iter().map(|beat| {
            let known = self.seen.get(&beat.replica.id).filter(|known| known.number >= beat.number);
            (beat.replica.id, known.copied().unwrap_or(Seen { number: beat.number, since: at }))
        });
        self.seen = seen.collect();
    }

    /// For how long this renewal has been the last one that was seen of its replica.
    #[must_use]
    pub fn age(&self, beat: &Beat, at: Duration) -> Duration {
        let seen = self.seen.get(&beat.replica.id).filter(|seen| seen.number == beat.number);
        seen.map_or(Duration::ZERO, |seen| at.saturating_sub(seen.since))
    }

    /// Whether the lease is over for sure: it was sent before it was seen.
    #[must_use]
    pub fn has_lapsed(&self, beat: &Beat, at: Duration) -> bool {
        self.age(beat, at) >= beat.lease
    }
}

/// A revocation on its way to the replicas.
#[derive(Debug)]
pub struct Round {
    seq: Seq,
    waiting: BTreeSet<ReplicaId>,
    longest: Duration,
    acknowledged: usize,
    lapsed: usize,
}

impl Round {
    /// Begins with what the store had at a moment **after** the entry was in the log. `home` has applied it already. A
    /// replica that is not here read the log later, or will before it answers from memory.
    #[must_use]
    pub fn start(seq: Seq, home: ReplicaId, beats: &[Beat], peers: &Peers, at: Duration) -> Self {
        let others = || beats.iter().filter(|beat| beat.replica.id != home);
        let mut round = Self {
            seq,
            waiting: others().map(|beat| beat.replica.id).collect(),
            longest: Duration::ZERO,
            acknowledged: beats.len() - others().count(),
            lapsed: 0,
        };
        round.hear(beats, peers, at);
        let waiting = others().filter(|beat| round.waiting.contains(&beat.replica.id));
        round.longest = waiting.map(|beat| beat.lease).max().unwrap_or_default();
        round
    }

    /// Takes in what the store has now.
    pub fn hear(&mut self, beats: &[Beat], peers: &Peers, at: Duration) {
        let waited_for = self.waiting.len();
        // One that is gone from the store has left, or was swept long after its lease.
        self.waiting.retain(|id| beats.iter().any(|beat| beat.replica.id == *id));
        self.lapsed += waited_for - self.waiting.len();
        for beat in beats {
            if beat.applied >= self.seq {
                self.acknowledged += usize::from(self.waiting.remove(&beat.replica.id));
            } else if peers.has_lapsed(beat, at) {
                self.lapsed += usize::from(self.waiting.remove(&beat.replica.id));
            }
        }
    }

    /// How long after the start every lease that was seen then is over, whatever is heard of the replicas: who has renewed
    /// since has read the entry before it used the new lease.
    #[must_use]
    pub fn longest_lease(&self) -> Duration {
        self.longest
    }

    /// Says that this long has passed.
    pub fn leases_are_over(&mut self) {
        self.lapsed += self.waiting.len();
        self.waiting.clear();
    }

    /// Whether nobody is waited for any more.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Where it stands, after so long.
    #[must_use]
    pub fn spread(&self, took: Duration) -> Spread {
        let (acknowledged, lapsed, pending) = (self.acknowledged, self.lapsed, self.waiting.len());
        Spread { seq: self.seq, acknowledged, lapsed, pending, took }
    }
}

/// How far an entry of the log got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spread {
    /// The entry's place.
    pub seq: Seq,
    /// How many replicas have applied it.
    pub acknowledged: usize,
    /// How many have not, and can't answer from memory any more.
    pub lapsed: usize,
    /// How many are still waited for: while there is one, the entry is durable but not yet everywhere.
    pub pending: usize,
    /// How long it took, from the commit.
    pub took: Duration,
}

impl Spread {
    /// Whether no replica answers from a memory that is older than the entry.
    #[must_use]
    pub fn is_everywhere(&self) -> bool {
        self.pending == 0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LEASE: Duration = Duration::from_secs(2);

    fn id(n: u8) -> ReplicaId {
        ReplicaId(Uuid::from_bytes([n; 16]))
    }

    fn beat(n: u8, number: u64, applied: u64) -> Beat {
        let replica =
            Replica { id: id(n), name: format!("r{n}"), version: "1".into(), started: Timestamp::from_unix(0) };
        Beat { replica, number, applied: Seq::new(applied), lease: LEASE, at: Timestamp::from_unix(0) }
    }

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    #[test]
    fn a_lease_is_counted_from_before_it_was_sent_and_less_a_tenth() {
        for (sent, lease, until) in [(0, 2000, 1800), (700, 2000, 2500), (5, 0, 5), (0, 9, 9)] {
            let held = held_until(ms(sent), ms(lease));
            assert!(held <= ms(until) && held + ms(1) > ms(until), "{sent} {lease}: {held:?}");
        }
        assert_eq!(held_until(Duration::MAX, LEASE), Duration::MAX);
    }

    #[test]
    fn a_lease_lapses_by_the_watch_of_who_looks() {
        let mut peers = Peers::default();
        let lapsed = |peers: &Peers, beat: &Beat, at| peers.has_lapsed(beat, ms(at));
        assert!(!lapsed(&peers, &beat(1, 1, 0), 9_999_999), "never seen before: nothing is known of it");
        peers.observe(&[beat(1, 1, 0), beat(2, 7, 0)], ms(1000));
        peers.observe(&[beat(1, 1, 3), beat(2, 8, 0)], ms(2000));
        assert!(!lapsed(&peers, &beat(1, 1, 0), 2999));
        assert!(lapsed(&peers, &beat(1, 1, 0), 3000), "what counts is when this renewal was first seen");
        assert!(!lapsed(&peers, &beat(2, 8, 0), 3999));
        assert!(!lapsed(&peers, &beat(1, 2, 0), 9000), "a newer renewal is not the one that was seen");
        peers.observe(&[beat(2, 7, 0)], ms(9000));
        assert!(lapsed(&peers, &beat(2, 8, 0), 4000), "an older answer that came late changes nothing");
        // One that was swept and comes again has a higher number.
        peers.observe(&[beat(1, 2, 0)], ms(10_000));
        assert!(!lapsed(&peers, &beat(1, 2, 0), 11_999));
        assert!(lapsed(&peers, &beat(1, 2, 0), 12_000));
    }

    fn counts(round: &Round) -> (usize, usize, usize) {
        let spread = round.spread(Duration::ZERO);
        (spread.acknowledged, spread.lapsed, spread.pending)
    }

    #[test]
    fn who_is_waited_for() {
        let mut peers = Peers::default();
        peers.observe(&[beat(4, 1, 0)], ms(0));
        let now = ms(5000);
        // Home, one that has it, one that does not, one that has been silent for long.
        let beats = [beat(1, 5, 0), beat(2, 5, 7), beat(3, 5, 6), beat(4, 1, 6)];
        peers.observe(&beats, now);
        let mut round = Round::start(Seq::new(7), id(1), &beats, &peers, now);
        assert_eq!((counts(&round), round.longest_lease(), round.is_over()), ((2, 1, 1), LEASE, false));
        // It renews without having applied; another one starts. Neither changes for whom it waits.
        let beats = [beat(1, 6, 7), beat(2, 6, 7), beat(3, 6, 6), beat(5, 1, 0)];
        round.hear(&beats, &peers, now);
        assert_eq!(counts(&round), (2, 1, 1));
        let mut left = Round::start(Seq::new(7), id(1), &[beat(3, 5, 6)], &peers, now);
        left.hear(&[], &peers, now);
        assert_eq!((counts(&left), left.is_over()), ((0, 1, 0), true), "it has left");
        round.hear(&[beat(3, 7, 7)], &peers, now);
        assert_eq!((counts(&round), round.is_over()), ((3, 1, 0), true));
        let mut late = Round::start(Seq::new(7), id(1), &[beat(3, 5, 6)], &peers, now);
        late.leases_are_over();
        assert_eq!((counts(&late), late.is_over()), ((0, 1, 0), true));
        let nobody = Round::start(Seq::new(7), id(1), &[], &peers, now);
        assert_eq!((counts(&nobody), nobody.longest_lease(), nobody.is_over()), ((0, 0, 0), Duration::ZERO, true));
    }

    proptest! {
        /// Every replica that was there at the start is counted once, and is waited for as long as it has neither
        /// applied the entry nor been silent for its lease nor gone.
        #[test]
        fn nobody_is_forgotten(
            start in prop::collection::btree_map(1_u8..6, (1_u64..4, 0_u64..4), 0..5),
            steps in prop::collection::vec(
                (prop::collection::btree_map(1_u8..6, (1_u64..4, 0_u64..4), 0..5), 0_u64..3000), 0..5),
        ) {
            let seq = Seq::new(2);
            let beats = |of: &std::collections::BTreeMap<u8, (u64, u64)>| {
                of.iter().map(|(n, (number, applied))| beat(*n, *number, *applied)).collect::<Vec<_>>()
            };
            let mut peers = Peers::default();
            let mut now = Duration::ZERO;
            peers.observe(&beats(&start), now);
            let mut round = Round::start(seq, id(1), &beats(&start), &peers, now);
            let mut still = start.iter().filter(|(n, (_, applied))| **n != 1 && *applied < 2);
            prop_assert_eq!(counts(&round).2, still.clone().count());
            prop_assert!(still.all(|(n, _)| round.waiting.contains(&id(*n))));
            for (step, later) in &steps {
                now += ms(*later);
                let (beats, before) = (beats(step), round.waiting.clone());
                peers.observe(&beats, now);
                round.hear(&beats, &peers, now);
                for gone in before.difference(&round.waiting) {
                    let beat = beats.iter().find(|beat| beat.replica.id == *gone);
                    prop_assert!(beat.is_none_or(|beat| beat.applied >= seq || peers.has_lapsed(beat, now)));
                }
                for waiting in &round.waiting {
                    let beat = beats.iter().find(|beat| beat.replica.id == *waiting).unwrap();
                    prop_assert!(beat.applied < seq && !peers.has_lapsed(beat, now));
                }
                let (acknowledged, lapsed, pending) = counts(&round);
                prop_assert_eq!(acknowledged + lapsed + pending, start.len());
            }
        }
    }
}
