//! Writing, and waiting until what was written is known everywhere: an entry of the log is acknowledged when no replica
//! answers any more from a memory that is older.

use std::{sync::Arc, time::Duration};

use tokio::time::timeout;

use crate::{
    app::{commit::queue::CommitQueue, replication::follower::Follower},
    domain::{
        audit::Record,
        replication::{AckRound, Propagation},
        revocation::LogPosition,
    },
    ports::{IdempotentRequest, Outage, Precondition, StateChange, WriteOutcome, WriteSet},
};

/// How often the acknowledgements are looked at when nothing is heard of them.
const ACK_POLL_INTERVAL: Duration = Duration::from_millis(25);

/// What is written beside the log, and has no entry in it: something is made, or has ended by itself. No token is worth less
/// by it, so no replica has to know of it before whoever asked is answered.
pub(in crate::app) struct UnloggedWrite {
    /// What it builds on.
    pub(in crate::app) expected: Precondition,
    /// The request that it is for, if that may come again.
    pub(in crate::app) idempotency: Option<IdempotentRequest>,
    /// What happens.
    pub(in crate::app) change: StateChange,
    /// What is recorded of it.
    pub(in crate::app) record: Record,
}

/// The journal, for everybody who writes.
pub(in crate::app) struct PropagatingWriter {
    queue: CommitQueue,
    follower: Arc<Follower>,
}

impl PropagatingWriter {
    pub(in crate::app) fn new(queue: CommitQueue, follower: Arc<Follower>) -> Self {
        Self { queue, follower }
    }

    /// Commits a write. If it has entries of the log, now or when it was done before, they are known everywhere when this
    /// returns; an outage may mean that they are durable, and not known to be everywhere: the same again waits again. If it
    /// builds on something, and found nothing left to write of it, so is what it found.
    pub(in crate::app) async fn commit(&self, write: WriteSet) -> Result<WriteOutcome, Outage> {
        self.commit_and_propagate(write, None).await.map(|(written, _)| written)
    }

    /// Commits what has no entry of the log. Nothing is waited for but the commit.
    pub(in crate::app) async fn commit_unlogged(&self, unlogged: UnloggedWrite) -> Result<WriteOutcome, Outage> {
        let UnloggedWrite { expected, idempotency, change, record } = unlogged;
        let (expected, changes, audit) = (Some(expected), vec![change], vec![record]);
        self.write(WriteSet {
            precondition: expected,
            idempotency,
            state_changes: changes,
            audit_records: audit,
            ..WriteSet::default()
        })
        .await
    }

    /// The same as [`commit`](Self::commit), but waits no longer than that, and says how far the last entry got.
    pub(in crate::app) async fn commit_and_propagate(
        &self,
        write: WriteSet,
        max_wait: Option<Duration>,
    ) -> Result<(WriteOutcome, Option<Propagation>), Outage> {
        let builds_on_something = write.precondition.is_some();
        let written = self.write(write).await?;
        let propagation = match &written {
            WriteOutcome::Committed { seq: Some(seq) } | WriteOutcome::AlreadyApplied { seq: Some(seq), .. } => {
                Some(self.await_propagation(*seq, max_wait).await?)
            }
            WriteOutcome::Committed { seq: None } | WriteOutcome::AlreadyApplied { seq: None, .. }
                if builds_on_something =>
            {
                // All is so already: somebody may have made it so a moment ago, and may not have been acknowledged yet.
                Some(self.await_head_propagation(max_wait).await?)
            }
            WriteOutcome::Committed { seq: None }
            | WriteOutcome::AlreadyApplied { seq: None, .. }
            | WriteOutcome::Conflict
            | WriteOutcome::Replayed => None,
        };
        Ok((written, propagation))
    }

    async fn write(&self, write: WriteSet) -> Result<WriteOutcome, Outage> {
        let written = self.queue.commit(write).await?;
        if written == WriteOutcome::Conflict {
            // Somebody was quicker, and may not have been acknowledged yet: what is tried next builds on it.
            self.follower.committed_snapshot(self.follower.clock.now()).await?;
        }
        Ok(written)
    }

    /// Waits until everything that is in the log now is known everywhere: for who is told that something is so already.
    pub(in crate::app) async fn await_barrier(&self) -> Result<(), Outage> {
        self.await_head_propagation(None).await.map(|_| ())
    }

    /// The same, but waits no longer than that, and says how far the last entry got.
    pub(in crate::app) async fn await_head_propagation(
        &self,
        max_wait: Option<Duration>,
    ) -> Result<Propagation, Outage> {
        let seq = self.follower.committed_snapshot(self.follower.clock.now()).await?.seq;
        self.await_propagation(seq, max_wait).await
    }

    /// Waits until an entry that is in the log is known everywhere, or until patience is over. Each replica is waited for
    /// until it has acknowledged, and no longer than its lease.
    pub(in crate::app) async fn await_propagation(
        &self,
        seq: LogPosition,
        max_wait: Option<Duration>,
    ) -> Result<Propagation, Outage> {
        let (follower, lease) = (&self.follower, &self.follower.lease);
        let clock = &follower.clock;
        let began = clock.monotonic();
        let mut acks = lease.subscribe_acks();
        follower.snapshot_through(seq, clock.now()).await?;
        lease.request_ack();
        let heartbeats = follower.read_heartbeats().await?;
        let mut round =
            lease.with_peers(|peers| AckRound::begin(seq, lease.id(), &heartbeats, peers, clock.monotonic()));
        let longest = round.longest_lease();
        let limit = max_wait.map_or(longest, |patience| patience.min(longest));
        let waited = timeout(limit, async {
            while !round.is_complete() {
                // Whatever ends the wait, the next look tells.
                let _: Result<_, _> = timeout(ACK_POLL_INTERVAL, acks.changed()).await;
                // If the store can't be asked meanwhile, what ends it all is that the leases are over.
                if let Ok(beats) = follower.read_heartbeats().await {
                    lease.with_peers(|peers| round.observe(&beats, peers, clock.monotonic()));
                }
            }
        });
        if waited.await.is_err() && limit == longest {
            round.mark_lapsed();
        }
        Ok(round.outcome(clock.monotonic().saturating_sub(began)))
    }

    /// As [`Journal::note`].
    pub(in crate::app) fn enqueue_audit(&self, record: Record) -> bool {
        self.queue.enqueue_audit(record)
    }

    /// As [`Journal::waiting`].
    pub(in crate::app) fn queue_depth(&self) -> usize {
        self.queue.queue_depth()
    }

    /// As [`Journal::is_stuck`].
    pub(in crate::app) fn is_stalled(&self) -> bool {
        self.queue.is_stalled()
    }

    /// As [`Journal::dropped`].
    pub(in crate::app) fn dropped_audit_records(&self) -> u64 {
        self.queue.dropped_audit_records()
    }

    /// As [`Journal::finish`].
    pub(in crate::app) async fn flush(&self) {
        self.queue.flush().await;
    }
}
