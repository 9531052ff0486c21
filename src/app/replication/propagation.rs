//! Propagation: committing a write, and waiting until every replica has applied its log entries.
//!
//! An entry is acknowledged when no replica answers any more from a memory that lacks it.

use std::{sync::Arc, time::Duration};

use tokio::time::timeout;

use crate::{
    app::{
        commit::{
            approval::{Approval, apply_approval},
            queue::CommitQueue,
        },
        replication::{follower::Follower, peers::Peers, renewal::LeaseRenewal},
    },
    domain::{
        audit::Record,
        replication::{AckRound, Propagation},
        revocation::LogPosition,
    },
    ports::{Clock, IdempotentRequest, Outage, Precondition, StateChange, WriteOutcome, WriteSet},
};

/// The interval at which acknowledgements are read when no notification arrives.
const ACK_POLL_INTERVAL: Duration = Duration::from_millis(25);

/// A write without a log entry: it creates something, or records something that ended without a
/// revocation. It takes nothing away from any token, so the response does not wait for other
/// replicas.
pub(in crate::app) struct UnloggedWrite(WriteSet);

impl UnloggedWrite {
    /// Builds the write of one change. It always has a precondition: the state that the change
    /// depends on.
    pub(in crate::app) fn new(
        precondition: Precondition,
        idempotency: Option<IdempotentRequest>,
        change: StateChange,
        record: Record,
    ) -> Self {
        Self(WriteSet {
            precondition: Some(precondition),
            idempotency,
            state_changes: vec![change],
            audit_records: vec![record],
            ..WriteSet::default()
        })
    }

    /// Adds the approval of a second person.
    pub(in crate::app) fn with_approval(self, approval: Option<Approval>) -> Self {
        let Self(mut write) = self;
        apply_approval(&mut write, approval);
        Self(write)
    }

    /// Returns the write for inspection.
    pub(in crate::app) fn as_write_set(&self) -> &WriteSet {
        let Self(write) = self;
        write
    }
}

/// Commits writes through the commit queue and waits for their propagation.
pub(in crate::app) struct PropagatingWriter {
    queue: CommitQueue,
    follower: Arc<Follower>,
    peers: Arc<Peers>,
    renewal: Arc<LeaseRenewal>,
    clock: Arc<dyn Clock>,
}

impl PropagatingWriter {
    pub(in crate::app) fn new(
        queue: CommitQueue,
        follower: Arc<Follower>,
        peers: Arc<Peers>,
        renewal: Arc<LeaseRenewal>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Self { queue, follower, peers, renewal, clock }
    }

    /// Commits the write, then waits until every replica has applied its log entries, those of an
    /// earlier identical request included. On an error, entries may already be durable; retrying
    /// waits again.
    ///
    /// A write with a precondition that has nothing left to append waits for the log as it is:
    /// another caller may have made the same change a moment ago.
    pub(in crate::app) async fn commit(&self, write: WriteSet) -> Result<WriteOutcome, Outage> {
        self.commit_and_propagate(write, None).await.map(|(outcome, _)| outcome)
    }

    /// Commits a write without a log entry, and waits for the commit only.
    pub(in crate::app) async fn commit_unlogged(
        &self,
        UnloggedWrite(write): UnloggedWrite,
    ) -> Result<WriteOutcome, Outage> {
        self.write(write).await
    }

    /// Commits like [`commit`](Self::commit), but waits for `max_wait` at most. Also returns how
    /// far the last entry has propagated, if the write waited for one.
    pub(in crate::app) async fn commit_and_propagate(
        &self,
        write: WriteSet,
        max_wait: Option<Duration>,
    ) -> Result<(WriteOutcome, Option<Propagation>), Outage> {
        let has_precondition = write.precondition.is_some();
        let outcome = self.write(write).await?;
        let propagation = match &outcome {
            WriteOutcome::Committed { seq: Some(seq) } | WriteOutcome::AlreadyApplied { seq: Some(seq), .. } => {
                Some(self.await_propagation(*seq, max_wait).await?)
            }
            WriteOutcome::Committed { seq: None } | WriteOutcome::AlreadyApplied { seq: None, .. }
                if has_precondition =>
            {
                // The state is already the requested one. Another caller may have brought it about
                // a moment ago, and that change may not have been acknowledged yet.
                Some(self.await_head_propagation(max_wait).await?)
            }
            WriteOutcome::Committed { seq: None }
            | WriteOutcome::AlreadyApplied { seq: None, .. }
            | WriteOutcome::Conflict
            | WriteOutcome::Replayed => None,
        };
        Ok((outcome, propagation))
    }

    #[tracing::instrument(target = "errand::trace", level = "trace", name = "commit", skip_all)]
    async fn write(&self, write: WriteSet) -> Result<WriteOutcome, Outage> {
        let outcome = self.queue.commit(write).await?;
        if outcome == WriteOutcome::Conflict {
            // A concurrent write came first, and may not have been acknowledged yet. The next
            // attempt must see it.
            self.follower.committed_snapshot(self.clock.now()).await?;
        }
        Ok(outcome)
    }

    /// Waits until everything in the log has propagated. A response that reports an existing state
    /// waits for this.
    pub(in crate::app) async fn await_barrier(&self) -> Result<(), Outage> {
        self.await_head_propagation(None).await.map(|_| ())
    }

    /// Waits like [`await_barrier`](Self::await_barrier), but for `max_wait` at most. Returns how
    /// far the last entry has propagated.
    pub(in crate::app) async fn await_head_propagation(
        &self,
        max_wait: Option<Duration>,
    ) -> Result<Propagation, Outage> {
        let seq = self.follower.committed_snapshot(self.clock.now()).await?.seq;
        self.await_propagation(seq, max_wait).await
    }

    /// Waits until an entry of the log has propagated, for `max_wait` at most. Waits for each
    /// replica until it has acknowledged the entry, and no longer than its lease.
    #[tracing::instrument(target = "errand::trace", level = "trace", name = "propagate", skip_all)]
    pub(in crate::app) async fn await_propagation(
        &self,
        seq: LogPosition,
        max_wait: Option<Duration>,
    ) -> Result<Propagation, Outage> {
        let (clock, peers) = (&self.clock, &self.peers);
        let started = clock.monotonic();
        let mut acks = self.renewal.subscribe_acks();
        self.follower.snapshot_through(seq, clock.now()).await?;
        self.renewal.request_ack();
        let heartbeats = peers.read_heartbeats().await?;
        let own_id = self.renewal.replica_id();
        let mut round =
            peers.with_observations(|observed| AckRound::begin(seq, own_id, &heartbeats, observed, clock.monotonic()));
        let longest_lease = round.longest_lease();
        let limit = max_wait.map_or(longest_lease, |max_wait| max_wait.min(longest_lease));
        let wait = timeout(limit, async {
            while !round.is_complete() {
                // Notification, timeout or closed channel: the next read shows what has happened.
                let _: Result<_, _> = timeout(ACK_POLL_INTERVAL, acks.changed()).await;
                // If the store can't be read meanwhile, the wait ends when the leases are over.
                if let Ok(heartbeats) = peers.read_heartbeats().await {
                    peers.with_observations(|observed| round.observe(&heartbeats, observed, clock.monotonic()));
                }
            }
        });
        if wait.await.is_err() && limit == longest_lease {
            round.mark_lapsed();
        }
        Ok(round.outcome(clock.monotonic().saturating_sub(started)))
    }

    /// See [`CommitQueue::commit_record`].
    pub(in crate::app) async fn commit_record(&self, record: Record) -> Result<(), Outage> {
        self.queue.commit_record(record).await
    }

    /// See [`CommitQueue::enqueue_audit`].
    pub(in crate::app) fn enqueue_audit(&self, record: Record) -> bool {
        self.queue.enqueue_audit(record)
    }

    /// See [`CommitQueue::queue_depth`].
    pub(in crate::app) fn queue_depth(&self) -> usize {
        self.queue.queue_depth()
    }

    /// See [`CommitQueue::is_stalled`].
    pub(in crate::app) fn is_stalled(&self) -> bool {
        self.queue.is_stalled()
    }

    /// See [`CommitQueue::is_failing`].
    pub(in crate::app) fn is_failing(&self) -> bool {
        self.queue.is_failing()
    }

    /// See [`CommitQueue::dropped_audit_records`].
    pub(in crate::app) fn dropped_audit_records(&self) -> u64 {
        self.queue.dropped_audit_records()
    }

    /// See [`CommitQueue::flush`].
    pub(in crate::app) async fn flush(&self) {
        self.queue.flush().await;
    }
}
