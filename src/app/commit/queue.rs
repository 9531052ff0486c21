//! Group commit from a single task.
//!
//! A batch is everything that was queued while the previous batch was being committed, so no write
//! waits for a timer. One writer per process also serializes the appends to its audit hash chain.

use std::{
    iter::repeat_n,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::sync::{mpsc, oneshot};

use crate::{
    app::{commit::timeout::with_store_timeout, nanos::saturating_nanos, shared_outage::unshare},
    domain::audit::{Record, WriterId},
    ports::{Clock, CommitError, ErrorChain, Outage, ThreadSpawner, WriteOutcome, WriteSet, WriteStore},
};

/// The duration of a commit above which this replica reports that it is not ready.
const STALL_THRESHOLD: Duration = Duration::from_secs(5);

/// The sizes of a [`CommitQueue`].
#[derive(Clone, Copy, Debug)]
pub(in crate::app) struct CommitQueueLimits {
    /// The number of writes that may be queued.
    pub(in crate::app) capacity: usize,
    /// The largest number of writes in one batch.
    pub(in crate::app) max_batch: usize,
}

/// The bounded queue in front of the writer.
pub(in crate::app) struct CommitQueue {
    queue: mpsc::Sender<WriteCommand>,
    capacity: usize,
    dropped: Arc<AtomicU64>,
    clock: Arc<dyn Clock>,
    /// The start of the commit in flight, in nanoseconds of the monotonic clock; 0 if there is
    /// none.
    commit_started: Arc<AtomicU64>,
}

enum WriteCommand {
    /// Commit, and report the outcome.
    Write(Box<WriteSet>, oneshot::Sender<Result<WriteOutcome, Arc<Outage>>>),
    /// Commit; no caller waits for the outcome.
    Audit(Box<Record>),
    /// Report when everything queued earlier has been committed.
    Flush(oneshot::Sender<()>),
}

impl CommitQueue {
    /// Starts the writer on a thread of its own. A commit is several round trips to the store, and
    /// on the threads that serve requests each response would wait behind every request that is
    /// ready to run.
    pub(in crate::app) fn start(
        threads: &dyn ThreadSpawner,
        store: Arc<dyn WriteStore>,
        clock: Arc<dyn Clock>,
        writer: WriterId,
        limits: CommitQueueLimits,
    ) -> Self {
        let CommitQueueLimits { capacity, max_batch } = limits;
        let (queue, commands) = mpsc::channel(capacity);
        let (dropped, commit_started) = (Arc::<AtomicU64>::default(), Arc::<AtomicU64>::default());
        let committer = Committer {
            store,
            clock: Arc::clone(&clock),
            writer,
            dropped: Arc::clone(&dropped),
            commit_started: Arc::clone(&commit_started),
        };
        if let Err(outage) = threads.spawn("commit-queue", Box::pin(committer.run(commands, max_batch.max(1)))) {
            tracing::error!(error = %ErrorChain(&outage), "can't start the writer thread; every write will fail");
        }
        Self { queue, capacity, dropped, clock, commit_started }
    }

    /// Returns whether the commit in flight has taken longer than [`STALL_THRESHOLD`].
    pub(in crate::app) fn is_stalled(&self) -> bool {
        let started = self.commit_started.load(Ordering::Relaxed);
        let now = saturating_nanos(self.clock.monotonic());
        started > 0 && now.saturating_sub(started) > saturating_nanos(STALL_THRESHOLD)
    }

    /// Commits a write. A full queue is an outage (back-pressure): the write is rejected before it
    /// costs anything.
    pub(in crate::app) async fn commit(&self, write: WriteSet) -> Result<WriteOutcome, Outage> {
        let (reply, outcome) = oneshot::channel();
        let full = |_| Outage::during("queue a write")("the write queue is full");
        self.queue.try_send(WriteCommand::Write(Box::new(write), reply)).map_err(full)?;
        match outcome.await {
            Ok(result) => result.map_err(unshare),
            Err(closed) => Err(Outage::during("commit")(closed)),
        }
    }

    /// Queues an audit record without waiting for its commit, and returns whether it was queued. A
    /// record never delays other writes: if the queue is more than half full, the record is dropped
    /// and counted.
    pub(in crate::app) fn enqueue_audit(&self, record: Record) -> bool {
        let is_busy = self.queue_depth() > self.capacity / 2;
        if is_busy || self.queue.try_send(WriteCommand::Audit(Box::new(record))).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
            return false;
        }
        true
    }

    /// Returns the number of queued writes.
    pub(in crate::app) fn queue_depth(&self) -> usize {
        self.capacity.saturating_sub(self.queue.capacity())
    }

    /// Returns the number of audit records that were dropped since the start.
    pub(in crate::app) fn dropped_audit_records(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Waits until everything queued so far has been committed or has failed.
    pub(in crate::app) async fn flush(&self) {
        let (reply, flushed) = oneshot::channel();
        if self.queue.send(WriteCommand::Flush(reply)).await.is_ok() {
            // An error means that the writer has ended; then nothing is left to wait for.
            let _: Result<(), oneshot::error::RecvError> = flushed.await;
        }
    }
}

/// The writer: takes commands from the queue and commits them in batches.
struct Committer {
    store: Arc<dyn WriteStore>,
    clock: Arc<dyn Clock>,
    writer: WriterId,
    dropped: Arc<AtomicU64>,
    commit_started: Arc<AtomicU64>,
}

impl Committer {
    async fn run(self, mut commands: mpsc::Receiver<WriteCommand>, max_batch: usize) {
        let mut received = Vec::with_capacity(max_batch);
        while commands.recv_many(&mut received, max_batch).await > 0 {
            let (mut independent, mut contending) = (Vec::with_capacity(received.len()), Vec::new());
            let mut flushes = Vec::new();
            for command in received.drain(..) {
                match command {
                    WriteCommand::Write(write, reply) if write.may_contend() => contending.push((*write, Some(reply))),
                    WriteCommand::Write(write, reply) => independent.push((*write, Some(reply))),
                    WriteCommand::Audit(record) => {
                        independent.push((WriteSet { audit_records: vec![*record], ..WriteSet::default() }, None));
                    }
                    WriteCommand::Flush(reply) => flushes.push(reply),
                }
            }
            let count = independent.len();
            let (writes, replies): (Vec<_>, Vec<_>) = independent.into_iter().chain(contending).unzip();
            // A write that times out waiting for a lock must not fail the writes that need no lock.
            let (independent, contending) = writes.split_at_checked(count).unwrap_or((&writes, &[]));
            let (mut batch, mut replies) = (Batch::new([independent, contending]), replies.into_iter());
            while let Some(part) = batch.next() {
                batch.record_result(part, self.commit(part).await);
                // Report each part as soon as it is known, without waiting for the rest.
                for (result, reply) in batch.results.drain(..).zip(&mut replies) {
                    match (result, reply) {
                        // The caller may have gone away; what was committed stays committed.
                        (result, Some(reply)) => drop(reply.send(result)),
                        (Ok(_), None) => {}
                        (Err(_), None) => drop(self.dropped.fetch_add(1, Ordering::Relaxed)),
                    }
                }
            }
            for reply in flushes {
                // The caller may have gone away.
                let _: Result<(), ()> = reply.send(());
            }
        }
    }

    /// Commits a part of a batch, with a timeout: on a silent connection every later write would
    /// wait as well.
    async fn commit(&self, part: &[WriteSet]) -> Result<Vec<WriteOutcome>, CommitError> {
        self.commit_started.store(saturating_nanos(self.clock.monotonic()).max(1), Ordering::Relaxed);
        let result = with_store_timeout("commit", self.store.commit(self.writer, part)).await;
        self.commit_started.store(0, Ordering::Relaxed);
        result
    }
}

/// A batch on its way into the store.
///
/// Each part is committed as a whole if possible. If the store rejects something in a part, and so
/// wrote nothing of it, the two halves are tried one after the other, in order: in the end only the
/// rejected writes have failed. If the outcome of a part is unknown, it is not retried, because it
/// may have been committed.
struct Batch<'a> {
    /// The parts that are still to be tried; the next one is last.
    pending: Vec<&'a [WriteSet]>,
    /// The known outcomes, in the order of the writes.
    results: Vec<Result<WriteOutcome, Arc<Outage>>>,
}

impl<'a> Batch<'a> {
    /// Creates a batch of two parts that are committed separately.
    fn new([first, second]: [&'a [WriteSet]; 2]) -> Self {
        let pending = [second, first].into_iter().filter(|part| !part.is_empty()).collect();
        Self { pending, results: Vec::with_capacity(first.len() + second.len()) }
    }

    /// Returns the next part to commit.
    fn next(&mut self) -> Option<&'a [WriteSet]> {
        self.pending.pop()
    }

    /// Takes the result of a part: records its outcomes, splits it, or fails it.
    fn record_result(&mut self, part: &'a [WriteSet], result: Result<Vec<WriteOutcome>, CommitError>) {
        match result {
            Ok(outcomes) if outcomes.len() == part.len() => self.results.extend(outcomes.into_iter().map(Ok)),
            Ok(_) => {
                let mismatch = "the number of outcomes differs from the number of writes";
                self.fail(Outage::during("commit")(mismatch), part.len());
            }
            Err(CommitError::RolledBack(_)) if part.len() > 1 => {
                let (first, rest) = part.split_at(part.len() / 2);
                self.pending.extend([rest, first]);
            }
            Err(CommitError::RolledBack(outage)) => self.fail(outage, part.len()),
            Err(CommitError::Outage(outage)) => {
                // The remaining parts would wait for the same store.
                let remaining = self.pending.drain(..).map(<[WriteSet]>::len).sum::<usize>();
                self.fail(outage, part.len() + remaining);
            }
        }
    }

    fn fail(&mut self, outage: Outage, writes: usize) {
        tracing::error!(error = %ErrorChain(&outage), writes, "commit failed");
        self.results.extend(repeat_n(Arc::new(outage), writes).map(Err));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;
    use crate::domain::{
        audit::{Event, Outcome},
        time::Timestamp,
    };

    /// A write that is identified by its number.
    fn write(n: usize) -> WriteSet {
        let request_id = n.to_string().parse().ok();
        let record = Record { request_id, ..Record::new(Timestamp::EPOCH, Event::TokenIssue, Outcome::Done) };
        WriteSet { audit_records: vec![record], ..WriteSet::default() }
    }

    fn number(write: &WriteSet) -> usize {
        write.audit_records[0].request_id.as_ref().unwrap().as_str().parse().unwrap()
    }

    fn outage() -> Outage {
        Outage::during("commit")("in a test")
    }

    proptest! {
        #[test]
        fn refused_write_fails_alone(count in 1_usize..257, cut in 0_usize..257, bad in proptest::collection::btree_set(0_usize..257, 0..6)) {
            let writes = (0..count).map(write).collect::<Vec<_>>();
            let bad = bad.into_iter().filter(|n| *n < count).collect::<BTreeSet<_>>();
            let (mut batch, mut done, mut commits) = (Batch::new(writes.split_at(cut.min(count)).into()), Vec::<usize>::new(), 0);
            while let Some(part) = batch.next() {
                commits += 1;
                let numbers = part.iter().map(number).collect::<Vec<_>>();
                let result = if numbers.iter().any(|n| bad.contains(n)) {
                    Err(CommitError::RolledBack(outage()))
                } else {
                    done.extend(&numbers);
                    Ok(numbers.iter().map(|_| WriteOutcome::Committed { seq: None }).collect())
                };
                batch.record_result(part, result);
            }
            let good = (0..count).filter(|n| !bad.contains(n)).collect::<Vec<_>>();
            prop_assert_eq!(done, good, "each write once, in order");
            let failed = batch.results.iter().map(Result::is_err).collect::<Vec<_>>();
            prop_assert_eq!(failed, (0..count).map(|n| bad.contains(&n)).collect::<Vec<_>>());
            let parts = usize::from(cut > 0) + usize::from(cut < count);
            prop_assert!(commits <= parts + 2 * 9 * bad.len(), "{} commits for {} rejected writes", commits, bad.len());
        }

        /// If the connection breaks at commit number `at`, earlier outcomes stand and nothing is
        /// tried afterwards.
        #[test]
        fn unknown_outcome_is_not_retried(count in 2_usize..100, bad in 0_usize..100, at in 1_usize..12) {
            let writes = (0..count).map(write).collect::<Vec<_>>();
            let (mut batch, mut done, mut commits) = (Batch::new([&writes, &[]]), 0, 0);
            let mut is_over = false;
            while let Some(part) = batch.next() {
                prop_assert!(!is_over, "a commit after the connection broke");
                commits += 1;
                let result = if commits == at {
                    is_over = true;
                    Err(CommitError::Outage(outage()))
                } else if part.iter().any(|write| number(write) == bad % count) {
                    Err(CommitError::RolledBack(outage()))
                } else {
                    done += part.len();
                    Ok(part.iter().map(|_| WriteOutcome::Committed { seq: None }).collect())
                };
                batch.record_result(part, result);
            }
            prop_assert_eq!(batch.results.len(), count);
            prop_assert_eq!(batch.results.iter().filter(|result| result.is_ok()).count(), done);
        }
    }

    #[test]
    fn result_count_mismatch_fails_the_batch() {
        let writes = [write(0), write(1)];
        let mut batch = Batch::new([&writes, &[]]);
        let part = batch.next().unwrap();
        batch.record_result(part, Ok(vec![WriteOutcome::Replayed]));
        assert!(batch.next().is_none());
        assert!(batch.results.len() == 2 && batch.results.iter().all(Result::is_err));
    }
}
