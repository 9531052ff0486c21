//! Group commit from a single task, with lanes.
//!
//! A batch is everything that was queued while the previous batch was being committed, so no write
//! waits for a timer. One writer per process also serializes the appends to its audit hash chain.
//!
//! Writes wait in lanes. The reserved lane is for writes that take something away on behalf of an
//! admin, an operator or a requester: it has a capacity of its own and goes first, so that no
//! client can keep an admin from stopping it. Only a few writes that need no lock are committed
//! before it: they are quick, and must not fail with a write that times out waiting for a lock.

use std::{
    iter::repeat_n,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::{mpsc, oneshot},
    time::timeout,
};

use crate::{
    app::{commit::timeout::with_store_timeout, nanos::saturating_nanos, shared_outage::unshare},
    domain::audit::{Record, WriterId},
    ports::{Clock, CommitError, ErrorChain, Outage, ThreadSpawner, WriteOutcome, WriteSet, WriteStore},
};

/// The duration of a commit above which this replica reports that it is not ready.
const STALL_THRESHOLD: Duration = Duration::from_secs(5);

/// The interval at which a store that failed the last commit is probed while nothing is queued.
const WRITE_PROBE_INTERVAL: Duration = Duration::from_secs(1);

/// The sizes of the queues in front of the store.
#[derive(Clone, Copy, Debug)]
pub struct CommitQueueLimits {
    /// The number of writes that may wait in the standard lane.
    pub standard: usize,
    /// The number of writes that may wait in the reserved lane.
    pub reserved: usize,
    /// The number of audit records that may wait and that no caller waits for.
    pub audit: usize,
    /// The largest number of writes in one commit.
    pub max_batch: usize,
}

/// Returns whether a write, although it was queued, must not be committed any more, because a party
/// to it was blocked in the meantime.
pub(in crate::app) type IsObsolete = Box<dyn Fn(&WriteSet) -> bool + Send + Sync>;

/// The bounded lanes in front of the writer.
pub(in crate::app) struct CommitQueue {
    reserved: Lane,
    standard: Lane,
    audit: Lane,
    dropped: Arc<AtomicU64>,
    clock: Arc<dyn Clock>,
    /// The start of the commit in flight, in nanoseconds of the monotonic clock; 0 if there is
    /// none.
    commit_started: Arc<AtomicU64>,
    /// Whether the last commit or the last probe after it failed.
    is_failing: Arc<AtomicBool>,
}

/// One lane: a bounded queue.
struct Lane {
    sender: mpsc::Sender<WriteCommand>,
    capacity: usize,
}

impl Lane {
    fn new(capacity: usize) -> (Self, mpsc::Receiver<WriteCommand>) {
        let capacity = capacity.max(1);
        let (sender, receiver) = mpsc::channel(capacity);
        (Self { sender, capacity }, receiver)
    }

    fn depth(&self) -> usize {
        self.capacity.saturating_sub(self.sender.capacity())
    }
}

type Reply = oneshot::Sender<Result<WriteOutcome, Arc<Outage>>>;

enum WriteCommand {
    /// Commit, and report the outcome. An audit record has no caller that waits.
    Write(Box<WriteSet>, Option<Reply>),
    /// Report when everything queued earlier in this lane has been committed.
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
        is_obsolete: IsObsolete,
    ) -> Self {
        let CommitQueueLimits { standard, reserved, audit, max_batch } = limits;
        let (reserved, reserved_commands) = Lane::new(reserved);
        let (standard, standard_commands) = Lane::new(standard);
        let (audit, audit_commands) = Lane::new(audit);
        let (dropped, commit_started) = (Arc::<AtomicU64>::default(), Arc::<AtomicU64>::default());
        let lanes = Lanes { reserved: reserved_commands, standard: standard_commands, audit: audit_commands };
        let is_failing = Arc::<AtomicBool>::default();
        let committer = Committer {
            store,
            clock: Arc::clone(&clock),
            writer,
            is_obsolete,
            dropped: Arc::clone(&dropped),
            commit_started: Arc::clone(&commit_started),
            is_failing: Arc::clone(&is_failing),
        };
        if let Err(outage) = threads.spawn("commit-queue", Box::pin(committer.run(lanes, max_batch.max(1)))) {
            tracing::error!(error = %ErrorChain(&outage), "can't start the writer thread; every write will fail");
        }
        Self { reserved, standard, audit, dropped, clock, commit_started, is_failing }
    }

    /// Returns whether the commit in flight has taken longer than [`STALL_THRESHOLD`].
    pub(in crate::app) fn is_stalled(&self) -> bool {
        let started = self.commit_started.load(Ordering::Relaxed);
        let now = saturating_nanos(self.clock.monotonic());
        started > 0 && now.saturating_sub(started) > saturating_nanos(STALL_THRESHOLD)
    }

    /// Returns whether writes fail. A store that fails a commit counts as failing until a later
    /// commit succeeds, or a probe if nothing is queued.
    pub(in crate::app) fn is_failing(&self) -> bool {
        self.is_failing.load(Ordering::Relaxed)
    }

    /// Commits a write. A full lane is an outage (back-pressure): the write is rejected before it
    /// costs anything.
    pub(in crate::app) async fn commit(&self, write: WriteSet) -> Result<WriteOutcome, Outage> {
        let (reply, outcome) = oneshot::channel();
        let full = |_| Outage::during("queue a write")("the write queue is full");
        let lane = self.lane_of(&write);
        lane.sender.try_send(WriteCommand::Write(Box::new(write), Some(reply))).map_err(full)?;
        match outcome.await {
            Ok(result) => result.map_err(unshare),
            Err(closed) => Err(Outage::during("commit")(closed)),
        }
    }

    /// Commits an audit record that must not be lost. Waits for room in its lane.
    pub(in crate::app) async fn commit_record(&self, record: Record) -> Result<(), Outage> {
        let write = WriteSet { audit_records: vec![record], ..WriteSet::default() };
        let (reply, outcome) = oneshot::channel();
        let command = |write| WriteCommand::Write(Box::new(write), Some(reply));
        let lane = self.lane_of(&write);
        lane.sender.send(command(write)).await.map_err(Outage::during("queue an audit record"))?;
        outcome.await.map_err(Outage::during("commit"))?.map_err(unshare)?;
        Ok(())
    }

    fn lane_of(&self, write: &WriteSet) -> &Lane {
        if write.is_urgent() { &self.reserved } else { &self.standard }
    }

    /// Queues an audit record without waiting for its commit, and returns whether it was queued.
    /// If the lane is full, the record is dropped and counted. A record that must not be lost goes
    /// to [`commit_record`](Self::commit_record) instead.
    pub(in crate::app) fn enqueue_audit(&self, record: Record) -> bool {
        let write = Box::new(WriteSet { audit_records: vec![record], ..WriteSet::default() });
        let is_queued = self.audit.sender.try_send(WriteCommand::Write(write, None)).is_ok();
        if !is_queued {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
        is_queued
    }

    /// Returns the number of queued writes in all lanes.
    pub(in crate::app) fn queue_depth(&self) -> usize {
        self.reserved.depth() + self.standard.depth() + self.audit.depth()
    }

    /// Returns the number of audit records that were dropped since the start.
    pub(in crate::app) fn dropped_audit_records(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Waits until everything queued so far has been committed or has failed.
    pub(in crate::app) async fn flush(&self) {
        for lane in [&self.reserved, &self.standard, &self.audit] {
            let (reply, flushed) = oneshot::channel();
            if lane.sender.send(WriteCommand::Flush(reply)).await.is_ok() {
                // An error means that the writer has ended; then nothing is left to wait for.
                let _: Result<(), oneshot::error::RecvError> = flushed.await;
            }
        }
    }
}

/// The receiving ends of the lanes.
struct Lanes {
    reserved: mpsc::Receiver<WriteCommand>,
    standard: mpsc::Receiver<WriteCommand>,
    audit: mpsc::Receiver<WriteCommand>,
}

/// The commands of one batch, by lane.
#[derive(Default)]
struct Received {
    reserved: Vec<WriteCommand>,
    others: Vec<WriteCommand>,
}

impl Lanes {
    /// Waits for a command, and takes what is queued by then: at most `max_batch` writes of the
    /// reserved lane, and at most `max_batch` others, or a quarter of that if the reserved lane is
    /// in use. A quarter of the others is left to audit records, so that a flood of writes does not
    /// crowd them out. Returns `None` when all senders are gone.
    async fn receive(&mut self, max_batch: usize) -> Option<Received> {
        let mut received = Received::default();
        tokio::select! {
            biased;
            Some(command) = self.reserved.recv() => received.reserved.push(command),
            Some(command) = self.standard.recv() => received.others.push(command),
            Some(command) = self.audit.recv() => received.others.push(command),
            else => return None,
        }
        take(&mut self.reserved, &mut received.reserved, max_batch);
        let limit = if received.reserved.is_empty() { max_batch } else { (max_batch / 4).max(1) };
        let audit_share = limit / 4;
        take(&mut self.standard, &mut received.others, limit - audit_share.min(self.audit.len()));
        take(&mut self.audit, &mut received.others, limit);
        Some(received)
    }
}

/// Moves commands until `commands` has `limit` of them or the lane is empty.
fn take(lane: &mut mpsc::Receiver<WriteCommand>, commands: &mut Vec<WriteCommand>, limit: usize) {
    while commands.len() < limit
        && let Ok(command) = lane.try_recv()
    {
        commands.push(command);
    }
}

/// The writer: takes commands from the lanes and commits them in batches.
struct Committer {
    store: Arc<dyn WriteStore>,
    clock: Arc<dyn Clock>,
    writer: WriterId,
    is_obsolete: IsObsolete,
    dropped: Arc<AtomicU64>,
    commit_started: Arc<AtomicU64>,
    is_failing: Arc<AtomicBool>,
}

impl Committer {
    async fn run(self, mut lanes: Lanes, max_batch: usize) {
        while let Some(Received { reserved, others }) = self.receive(&mut lanes, max_batch).await {
            let (mut urgent, mut independent, mut contending) = (Vec::new(), Vec::new(), Vec::new());
            let mut flushes = Vec::new();
            for command in reserved {
                match command {
                    WriteCommand::Write(write, reply) => urgent.push((*write, reply)),
                    WriteCommand::Flush(reply) => flushes.push(reply),
                }
            }
            for command in others {
                match command {
                    WriteCommand::Write(write, reply) if (self.is_obsolete)(&write) => {
                        // The caller decides again, on the state in which the party is blocked.
                        if let Some(reply) = reply {
                            // The caller may have gone away.
                            let _: Result<(), _> = reply.send(Ok(WriteOutcome::Conflict));
                        }
                    }
                    WriteCommand::Write(write, reply) if write.may_contend() => contending.push((*write, reply)),
                    WriteCommand::Write(write, reply) => independent.push((*write, reply)),
                    WriteCommand::Flush(reply) => flushes.push(reply),
                }
            }
            let (count, urgent_count) = (independent.len(), urgent.len());
            let (writes, replies): (Vec<_>, Vec<_>) = independent.into_iter().chain(urgent).chain(contending).unzip();
            // A write that times out waiting for a lock must not fail the writes that need no lock.
            let (independent, rest) = writes.split_at_checked(count).unwrap_or((&writes, &[]));
            let (urgent, contending) = rest.split_at_checked(urgent_count).unwrap_or((rest, &[]));
            let (mut batch, mut replies) = (Batch::new([independent, urgent, contending]), replies.into_iter());
            while let Some(part) = batch.next() {
                batch.record_result(part, self.commit(part.writes).await);
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

    /// Waits for the commands of the next batch. Probes a failing store meanwhile: a replica that
    /// reports that it is not ready may receive no writes that would find out.
    async fn receive(&self, lanes: &mut Lanes, max_batch: usize) -> Option<Received> {
        for number in 1.. {
            if !self.is_failing.load(Ordering::Relaxed) {
                break;
            }
            match timeout(WRITE_PROBE_INTERVAL, lanes.receive(max_batch)).await {
                Ok(received) => return received,
                Err(_) => {
                    let probe = with_store_timeout("probe a write", self.store.probe_write(number)).await;
                    self.record_health(probe.is_ok());
                }
            }
        }
        lanes.receive(max_batch).await
    }

    fn record_health(&self, is_healthy: bool) {
        if self.is_failing.swap(!is_healthy, Ordering::Relaxed) && is_healthy {
            tracing::info!("the store accepts writes again");
        }
    }

    /// Commits a part of a batch, with a timeout: on a silent connection every later write would
    /// wait as well.
    async fn commit(&self, part: &[WriteSet]) -> Result<Vec<WriteOutcome>, CommitError> {
        self.commit_started.store(saturating_nanos(self.clock.monotonic()).max(1), Ordering::Relaxed);
        let result = with_store_timeout("commit", self.store.commit(self.writer, part)).await;
        self.commit_started.store(0, Ordering::Relaxed);
        match &result {
            Ok(_) => self.record_health(true),
            Err(CommitError::Outage(_)) => self.record_health(false),
            Err(CommitError::RolledBack(_)) => {}
        }
        result
    }
}

/// A batch on its way into the store.
///
/// Each part is committed as a whole if possible. If the store rejects something in a part, and so
/// wrote nothing of it, the two halves are tried one after the other, in order: in the end only the
/// rejected writes have failed. If the outcome of a part is unknown, it is not retried, because it
/// may have been committed.
///
/// An outage may be due to the writes of one part, so it does not fail the other parts. A second
/// outage does: they would wait for the same store.
struct Batch<'a> {
    /// The parts that are still to be tried; the next one is last.
    pending: Vec<Part<'a>>,
    /// The known outcomes, in the order of the writes.
    results: Vec<Result<WriteOutcome, Arc<Outage>>>,
    had_outage: bool,
}

/// A part of a batch, or what is left of it.
#[derive(Clone, Copy)]
struct Part<'a> {
    number: usize,
    writes: &'a [WriteSet],
}

impl<'a> Batch<'a> {
    /// Creates a batch of parts that are committed separately, in this order.
    fn new<const N: usize>(parts: [&'a [WriteSet]; N]) -> Self {
        let count = parts.iter().map(|part| part.len()).sum();
        let parts = parts.into_iter().enumerate().map(|(number, writes)| Part { number, writes });
        let mut pending = parts.filter(|part| !part.writes.is_empty()).collect::<Vec<_>>();
        pending.reverse();
        Self { pending, results: Vec::with_capacity(count), had_outage: false }
    }

    /// Returns the next part to commit.
    fn next(&mut self) -> Option<Part<'a>> {
        self.pending.pop()
    }

    /// Takes the result of a part: records its outcomes, splits it, or fails it.
    fn record_result(&mut self, part: Part<'a>, result: Result<Vec<WriteOutcome>, CommitError>) {
        let Part { number, writes } = part;
        match result {
            Ok(outcomes) if outcomes.len() == writes.len() => self.results.extend(outcomes.into_iter().map(Ok)),
            Ok(_) => {
                let mismatch = "the number of outcomes differs from the number of writes";
                self.fail(Outage::during("commit")(mismatch), writes.len());
            }
            Err(CommitError::RolledBack(_)) if writes.len() > 1 => {
                let (first, rest) = writes.split_at(writes.len() / 2);
                self.pending.extend([rest, first].map(|writes| Part { number, writes }));
            }
            Err(CommitError::RolledBack(outage)) => self.fail(outage, writes.len()),
            Err(CommitError::Outage(outage)) => {
                let is_last = std::mem::replace(&mut self.had_outage, true);
                let mut failed = writes.len();
                self.pending.retain(|part| {
                    let stays = !is_last && part.number != number;
                    failed += if stays { 0 } else { part.writes.len() };
                    stays
                });
                self.fail(outage, failed);
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
    use std::{collections::BTreeSet, pin::Pin};

    use async_trait::async_trait;
    use parking_lot::Mutex;
    use proptest::prelude::*;
    use tokio::sync::Semaphore;

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
            let (mut batch, mut done, mut commits) = (Batch::new(<[&[WriteSet]; 2]>::from(writes.split_at(cut.min(count)))), Vec::<usize>::new(), 0);
            while let Some(part) = batch.next() {
                commits += 1;
                let numbers = part.writes.iter().map(number).collect::<Vec<_>>();
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
            let (mut batch, mut done, mut commits) = (Batch::new([writes.as_slice()]), 0, 0);
            let mut is_over = false;
            while let Some(part) = batch.next() {
                prop_assert!(!is_over, "a commit after the connection broke");
                commits += 1;
                let result = if commits == at {
                    is_over = true;
                    Err(CommitError::Outage(outage()))
                } else if part.writes.iter().any(|write| number(write) == bad % count) {
                    Err(CommitError::RolledBack(outage()))
                } else {
                    done += part.writes.len();
                    Ok(part.writes.iter().map(|_| WriteOutcome::Committed { seq: None }).collect())
                };
                batch.record_result(part, result);
            }
            prop_assert_eq!(batch.results.len(), count);
            prop_assert_eq!(batch.results.iter().filter(|result| result.is_ok()).count(), done);
        }
    }

    #[test]
    fn outage_fails_the_rest_of_its_part_and_a_second_one_everything() {
        let writes = (0..6).map(write).collect::<Vec<_>>();
        let committed = |part: Part<'_>| Ok(vec![WriteOutcome::Committed { seq: None }; part.writes.len()]);
        let run = |failing: &[usize]| {
            let mut batch = Batch::new([&writes[..2], &writes[2..4], &writes[4..]]);
            let mut commits = 0;
            while let Some(part) = batch.next() {
                commits += 1;
                let is_failing = failing.contains(&number(&part.writes[0]));
                let outage = || Err(CommitError::Outage(outage()));
                batch.record_result(part, if is_failing { outage() } else { committed(part) });
            }
            (batch.results.iter().map(Result::is_ok).collect::<Vec<_>>(), commits)
        };
        assert_eq!(run(&[]), (vec![true; 6], 3));
        assert_eq!(run(&[0]), (vec![false, false, true, true, true, true], 3));
        assert_eq!(run(&[2]), (vec![true, true, false, false, true, true], 3));
        assert_eq!(run(&[0, 2]), (vec![false; 6], 2));
        assert_eq!(run(&[0, 4]), (vec![false, false, true, true, false, false], 3));
        // A part that is being split fails as a whole, each write once.
        let mut batch = Batch::new([&writes[..4], &writes[4..]]);
        let part = batch.next().unwrap();
        batch.record_result(part, Err(CommitError::RolledBack(outage())));
        let half = batch.next().unwrap();
        batch.record_result(half, Err(CommitError::Outage(outage())));
        let rest = batch.next().unwrap();
        assert_eq!((batch.results.len(), number(&rest.writes[0])), (4, 4));
        batch.record_result(rest, committed(rest));
        assert!(batch.next().is_none() && batch.results[4..].iter().all(Result::is_ok));
    }

    #[test]
    fn result_count_mismatch_fails_the_batch() {
        let writes = [write(0), write(1)];
        let mut batch = Batch::new([writes.as_slice()]);
        let part = batch.next().unwrap();
        batch.record_result(part, Ok(vec![WriteOutcome::Replayed]));
        assert!(batch.next().is_none());
        assert!(batch.results.len() == 2 && batch.results.iter().all(Result::is_err));
    }

    /// A store whose commits wait for a permit, and that remembers the request ids of each commit.
    struct GatedStore {
        gate: Semaphore,
        commits: Mutex<Vec<Vec<usize>>>,
    }

    #[async_trait]
    impl WriteStore for GatedStore {
        async fn commit(&self, _: WriterId, batch: &[WriteSet]) -> Result<Vec<WriteOutcome>, CommitError> {
            self.gate.acquire().await.unwrap().forget();
            self.commits.lock().push(batch.iter().map(number).collect());
            Ok(batch.iter().map(|_| WriteOutcome::Committed { seq: None }).collect())
        }

        async fn find_idempotent_response(&self, _: &str, _: &str) -> Result<Option<WriteOutcome>, Outage> {
            Ok(None)
        }

        async fn probe_write(&self, _: u64) -> Result<(), Outage> {
            Ok(())
        }
    }

    struct Runtime;

    impl ThreadSpawner for Runtime {
        fn spawn(&self, _: &'static str, task: Pin<Box<dyn Future<Output = ()> + Send>>) -> Result<(), Outage> {
            drop(tokio::spawn(task));
            Ok(())
        }
    }

    impl Clock for Runtime {
        fn now(&self) -> Timestamp {
            Timestamp::EPOCH
        }

        fn monotonic(&self) -> Duration {
            Duration::ZERO
        }
    }

    fn urgent(n: usize) -> WriteSet {
        let mut write = write(n);
        write.audit_records[0].admin = Some("admin:ops".into());
        write
    }

    /// Starts a queue for writes up to 99. The write with the number 66 is obsolete.
    fn gated_queue(limits: CommitQueueLimits) -> (Arc<CommitQueue>, Arc<GatedStore>) {
        let store = Arc::new(GatedStore { gate: Semaphore::new(0), commits: Mutex::default() });
        let is_obsolete = Box::new(|write: &WriteSet| number(write) == 66);
        let writer = WriterId(uuid::Uuid::nil());
        let queue =
            CommitQueue::start(&Runtime, Arc::clone(&store) as _, Arc::new(Runtime), writer, limits, is_obsolete);
        (Arc::new(queue), store)
    }

    fn commit(queue: &Arc<CommitQueue>, write: WriteSet) -> tokio::task::JoinHandle<Result<WriteOutcome, Outage>> {
        let queue = Arc::clone(queue);
        tokio::spawn(async move { queue.commit(write).await })
    }

    async fn until(mut condition: impl FnMut() -> bool) {
        for _ in 0..100_000 {
            if condition() {
                return;
            }
            tokio::task::yield_now().await;
        }
        panic!("the condition is never met");
    }

    const LIMITS: CommitQueueLimits = CommitQueueLimits { standard: 4, reserved: 4, audit: 2, max_batch: 8 };

    #[tokio::test]
    async fn urgent_writes_go_first_and_have_room_of_their_own() {
        let (queue, store) = gated_queue(LIMITS);
        let first = commit(&queue, write(0));
        until(|| queue.commit_started.load(Ordering::Relaxed) > 0 && queue.queue_depth() == 0).await;
        let waiting = (1..5).map(|n| commit(&queue, write(n))).collect::<Vec<_>>();
        until(|| queue.queue_depth() == 4).await;
        assert!(queue.commit(write(5)).await.is_err(), "the standard lane is full");
        assert!(queue.enqueue_audit(write(20).audit_records.remove(0)));
        let urgent = (10..14).map(|n| commit(&queue, urgent(n))).collect::<Vec<_>>();
        until(|| queue.queue_depth() == 9).await;
        assert!(queue.commit(self::urgent(14)).await.is_err(), "the reserved lane is full");
        store.gate.add_permits(100);
        for write in urgent.into_iter().chain(waiting).chain([first]) {
            assert_eq!(write.await.unwrap().unwrap(), WriteOutcome::Committed { seq: None });
        }
        queue.flush().await;
        assert_eq!(*store.commits.lock(), [vec![0], vec![1, 2], vec![10, 11, 12, 13], vec![3, 4, 20]]);
    }

    #[tokio::test]
    async fn obsolete_write_is_not_committed() {
        let (queue, store) = gated_queue(LIMITS);
        let first = commit(&queue, write(0));
        until(|| queue.commit_started.load(Ordering::Relaxed) > 0 && queue.queue_depth() == 0).await;
        let (obsolete, other) = (commit(&queue, write(66)), commit(&queue, write(1)));
        until(|| queue.queue_depth() == 2).await;
        store.gate.add_permits(100);
        assert_eq!(obsolete.await.unwrap().unwrap(), WriteOutcome::Conflict);
        assert_eq!(other.await.unwrap().unwrap(), WriteOutcome::Committed { seq: None });
        assert!(first.await.unwrap().is_ok());
        assert_eq!(*store.commits.lock(), [vec![0], vec![1]]);
    }

    #[tokio::test]
    async fn full_audit_lane_drops_and_counts_what_may_be_lost() {
        let (queue, store) = gated_queue(LIMITS);
        let record = |n| write(n).audit_records.remove(0);
        let first = commit(&queue, write(0));
        until(|| queue.commit_started.load(Ordering::Relaxed) > 0 && queue.queue_depth() == 0).await;
        assert!(queue.enqueue_audit(record(1)) && queue.enqueue_audit(record(2)));
        assert!(!queue.enqueue_audit(record(3)));
        assert_eq!(queue.dropped_audit_records(), 1);
        // Clients fill the standard lane; a record that must not be lost waits for room.
        let waiting = (4..8).map(|n| commit(&queue, write(n))).collect::<Vec<_>>();
        until(|| queue.queue_depth() == 6).await;
        let required = tokio::spawn({
            let queue = Arc::clone(&queue);
            async move { queue.commit_record(record(9)).await }
        });
        store.gate.add_permits(100);
        required.await.unwrap().unwrap();
        for write in waiting.into_iter().chain([first]) {
            assert!(write.await.unwrap().is_ok());
        }
        let committed = store.commits.lock().concat();
        assert_eq!(committed.iter().collect::<BTreeSet<_>>(), [0, 1, 2, 4, 5, 6, 7, 9].iter().collect());
    }

    #[tokio::test]
    async fn audit_records_get_a_share_of_each_batch() {
        let (queue, store) = gated_queue(CommitQueueLimits { standard: 64, reserved: 4, audit: 16, max_batch: 8 });
        let first = commit(&queue, write(0));
        until(|| queue.commit_started.load(Ordering::Relaxed) > 0 && queue.queue_depth() == 0).await;
        let waiting = (1..17).map(|n| commit(&queue, write(n))).collect::<Vec<_>>();
        for n in 20..24 {
            assert!(queue.enqueue_audit(write(n).audit_records.remove(0)));
        }
        until(|| queue.queue_depth() == 20).await;
        store.gate.add_permits(100);
        for write in waiting.into_iter().chain([first]) {
            assert!(write.await.unwrap().is_ok());
        }
        queue.flush().await;
        assert_eq!(store.commits.lock()[1], [1, 2, 3, 4, 5, 6, 20, 21]);
    }
}
