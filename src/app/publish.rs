//! Writing, and waiting until what was written is known everywhere: an entry of the log is acknowledged when no replica
//! answers any more from a memory that is older.

use std::{sync::Arc, time::Duration};

use tokio::time::timeout;

use crate::{
    app::{follow::Follower, journal::Journal},
    domain::{
        audit::Record,
        replica::{Round, Spread},
        revocation::Seq,
    },
    ports::{Change, Expected, Idempotency, Outage, Write, Written},
};

/// How often the acknowledgements are looked at when nothing is heard of them.
const LOOK_AGAIN: Duration = Duration::from_millis(25);

/// What is written beside the log, and has no entry in it: something is made, or has ended by itself. No token is worth less
/// by it, so no replica has to know of it before whoever asked is answered.
pub(super) struct Aside {
    /// What it builds on.
    pub(super) expected: Expected,
    /// The request that it is for, if that may come again.
    pub(super) idempotency: Option<Idempotency>,
    /// What happens.
    pub(super) change: Change,
    /// What is recorded of it.
    pub(super) record: Record,
}

/// The journal, for everybody who writes.
pub(super) struct Publisher {
    journal: Journal,
    follower: Arc<Follower>,
}

impl Publisher {
    pub(super) fn new(journal: Journal, follower: Arc<Follower>) -> Self {
        Self { journal, follower }
    }

    /// Commits a write. If it has entries of the log, now or when it was done before, they are known everywhere when this
    /// returns; an outage may mean that they are durable, and not known to be everywhere: the same again waits again. If it
    /// builds on something, and found nothing left to write of it, so is what it found.
    pub(super) async fn commit(&self, write: Write) -> Result<Written, Outage> {
        self.publish(write, None).await.map(|(written, _)| written)
    }

    /// Commits what has no entry of the log. Nothing is waited for but the commit.
    pub(super) async fn commit_aside(&self, aside: Aside) -> Result<Written, Outage> {
        let Aside { expected, idempotency, change, record } = aside;
        let (expected, changes, audit) = (Some(expected), vec![change], vec![record]);
        self.write(Write { expected, idempotency, changes, audit, ..Write::default() }).await
    }

    /// The same as [`commit`](Self::commit), but waits no longer than that, and says how far the last entry got.
    pub(super) async fn publish(
        &self,
        write: Write,
        patience: Option<Duration>,
    ) -> Result<(Written, Option<Spread>), Outage> {
        let builds_on_something = write.expected.is_some();
        let written = self.write(write).await?;
        let spread = match &written {
            Written::Done { seq: Some(seq) } | Written::Before { seq: Some(seq), .. } => {
                Some(self.spread(*seq, patience).await?)
            }
            Written::Done { seq: None } | Written::Before { seq: None, .. } if builds_on_something => {
                // All is so already: somebody may have made it so a moment ago, and may not have been acknowledged yet.
                Some(self.spread_all(patience).await?)
            }
            Written::Done { seq: None } | Written::Before { seq: None, .. } | Written::Moved | Written::Replayed => {
                None
            }
        };
        Ok((written, spread))
    }

    async fn write(&self, write: Write) -> Result<Written, Outage> {
        let written = self.journal.commit(write).await?;
        if written == Written::Moved {
            // Somebody was quicker, and may not have been acknowledged yet: what is tried next builds on it.
            self.follower.latest(self.follower.clock.now()).await?;
        }
        Ok(written)
    }

    /// Waits until everything that is in the log now is known everywhere: for who is told that something is so already.
    pub(super) async fn settle(&self) -> Result<(), Outage> {
        self.spread_all(None).await.map(|_| ())
    }

    /// The same, but waits no longer than that, and says how far the last entry got.
    pub(super) async fn spread_all(&self, patience: Option<Duration>) -> Result<Spread, Outage> {
        let seq = self.follower.latest(self.follower.clock.now()).await?.seq;
        self.spread(seq, patience).await
    }

    /// Waits until an entry that is in the log is known everywhere, or until patience is over. Each replica is waited for
    /// until it has acknowledged, and no longer than its lease.
    pub(super) async fn spread(&self, seq: Seq, patience: Option<Duration>) -> Result<Spread, Outage> {
        let (follower, lease) = (&self.follower, &self.follower.lease);
        let clock = &follower.clock;
        let began = clock.monotonic();
        let mut acknowledgements = lease.acknowledgements();
        follower.reach(seq, clock.now()).await?;
        lease.acknowledge_soon();
        let beats = follower.beats().await?;
        let mut round = lease.with_peers(|peers| Round::start(seq, lease.id(), &beats, peers, clock.monotonic()));
        let longest = round.longest_lease();
        let limit = patience.map_or(longest, |patience| patience.min(longest));
        let waited = timeout(limit, async {
            while !round.is_over() {
                // Whatever ends the wait, the next look tells.
                let _: Result<_, _> = timeout(LOOK_AGAIN, acknowledgements.changed()).await;
                // If the store can't be asked meanwhile, what ends it all is that the leases are over.
                if let Ok(beats) = follower.beats().await {
                    lease.with_peers(|peers| round.hear(&beats, peers, clock.monotonic()));
                }
            }
        });
        if waited.await.is_err() && limit == longest {
            round.leases_are_over();
        }
        Ok(round.spread(clock.monotonic().saturating_sub(began)))
    }

    /// As [`Journal::note`].
    pub(super) fn note(&self, record: Record) -> bool {
        self.journal.note(record)
    }

    /// As [`Journal::waiting`].
    pub(super) fn waiting(&self) -> usize {
        self.journal.waiting()
    }

    /// As [`Journal::is_stuck`].
    pub(super) fn is_stuck(&self) -> bool {
        self.journal.is_stuck()
    }

    /// As [`Journal::dropped`].
    pub(super) fn dropped(&self) -> u64 {
        self.journal.dropped()
    }

    /// As [`Journal::finish`].
    pub(super) async fn finish(&self) {
        self.journal.finish().await;
    }
}
