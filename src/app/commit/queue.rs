//! The one writer of this process. Writes that come at the same time are committed together: the batch is whatever
//! queued up while the last commit was under way, so nothing waits for a timer. It also keeps the audit chain straight.

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
    app::commit::timeout::with_store_timeout,
    domain::audit::{Record, WriterId},
    ports::{Clock, CommitError, Outage, Store, ThreadSpawner, WriteOutcome, WriteSet},
};

/// How long a commit may be under way before this replica can't be said to be ready.
const STALL_THRESHOLD: Duration = Duration::from_secs(5);

pub(in crate::app) struct CommitQueue {
    queue: mpsc::Sender<WriteCommand>,
    capacity: usize,
    dropped: Arc<AtomicU64>,
    clock: Arc<dyn Clock>,
    /// When the commit began that is under way, in nanoseconds of our monotonic clock; 0 when none is.
    commit_started: Arc<AtomicU64>,
}

enum WriteCommand {
    /// Commit, and tell.
    Write(Box<WriteSet>, oneshot::Sender<Result<WriteOutcome, Arc<Outage>>>),
    /// Commit some time; nobody waits.
    Audit(Box<Record>),
    /// Tell when everything before is done.
    Flush(oneshot::Sender<()>),
}

impl CommitQueue {
    /// Starts the writer: so many writes may wait for it, and so many share a transaction. It has a thread of its own: a
    /// commit is several answers of the store, one after the other, and each would wait for its turn behind all requests
    /// that are being worked on.
    pub(in crate::app) fn start(
        threads: &dyn ThreadSpawner,
        store: Arc<dyn Store>,
        clock: Arc<dyn Clock>,
        writer: WriterId,
        capacity: usize,
        max_batch: usize,
    ) -> Self {
        let (queue, commands) = mpsc::channel(capacity);
        let (dropped, began) = (Arc::<AtomicU64>::default(), Arc::<AtomicU64>::default());
        let committer = Committer {
            store,
            clock: Arc::clone(&clock),
            writer,
            dropped: Arc::clone(&dropped),
            commit_started: Arc::clone(&began),
        };
        if let Err(outage) = threads.spawn("journal", Box::pin(committer.run(commands, max_batch.max(1)))) {
            tracing::error!(error = %outage, cause = %outage.source, "there is no thread for the writer: nothing can be written");
        }
        Self { queue, capacity, dropped, clock, commit_started: began }
    }

    /// Whether the commit that is under way takes so long that nothing can be written now.
    pub(in crate::app) fn is_stalled(&self) -> bool {
        let began = self.commit_started.load(Ordering::Relaxed);
        began > 0 && saturating_nanos(self.clock.monotonic()).saturating_sub(began) > saturating_nanos(STALL_THRESHOLD)
    }

    /// Commits a write. A full queue is an outage: the load is shed before it costs anything.
    pub(in crate::app) async fn commit(&self, write: WriteSet) -> Result<WriteOutcome, Outage> {
        let (reply, response) = oneshot::channel();
        let full = |_| Outage::during("queue a write")("too many writes are waiting");
        self.queue.try_send(WriteCommand::Write(Box::new(write), reply)).map_err(full)?;
        match response.await {
            Ok(result) => result.map_err(|outage| Outage::during("commit")(outage)),
            Err(gone) => Err(Outage::during("commit")(gone)),
        }
    }

    /// Notes a record that nobody waits for. It never stands in the way: when the queue is more than half full, it is
    /// dropped and counted. Returns whether it was taken.
    pub(in crate::app) fn enqueue_audit(&self, record: Record) -> bool {
        let crowded = self.queue_depth() > self.capacity / 2;
        if crowded || self.queue.try_send(WriteCommand::Audit(Box::new(record))).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
            return false;
        }
        true
    }

    pub(in crate::app) fn queue_depth(&self) -> usize {
        self.capacity.saturating_sub(self.queue.capacity())
    }

    pub(in crate::app) fn dropped_audit_records(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    pub(in crate::app) async fn flush(&self) {
        let (reply, response) = oneshot::channel();
        if self.queue.send(WriteCommand::Flush(reply)).await.is_ok() {
            // An error means that the writer is gone, and then there is nothing left to wait for.
            let _: Result<(), oneshot::error::RecvError> = response.await;
        }
    }
}

/// Who writes.
struct Committer {
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    writer: WriterId,
    dropped: Arc<AtomicU64>,
    commit_started: Arc<AtomicU64>,
}

impl Committer {
    async fn run(self, mut commands: mpsc::Receiver<WriteCommand>, max_batch: usize) {
        let mut taken = Vec::with_capacity(max_batch);
        while commands.recv_many(&mut taken, max_batch).await > 0 {
            let (mut quick, mut waiting, mut flushes) = (Vec::with_capacity(taken.len()), Vec::new(), Vec::new());
            for order in taken.drain(..) {
                match order {
                    WriteCommand::Write(write, tell) if write.may_contend() => waiting.push((*write, Some(tell))),
                    WriteCommand::Write(write, tell) => quick.push((*write, Some(tell))),
                    WriteCommand::Audit(record) => {
                        quick.push((WriteSet { audit_records: vec![*record], ..WriteSet::default() }, None))
                    }
                    WriteCommand::Flush(tell) => flushes.push(tell),
                }
            }
            let count = quick.len();
            let (writes, tells): (Vec<_>, Vec<_>) = quick.into_iter().chain(waiting).unzip();
            // Who waits for others, and in vain, takes nobody along who need not.
            let (quick, waiting) = writes.split_at_checked(count).unwrap_or((&writes, &[]));
            let (mut batch, mut tells) = (Batch::new([quick, waiting]), tells.into_iter());
            while let Some(part) = batch.next() {
                batch.record_result(part, self.commit(part).await);
                // At once: nobody waits for the rest.
                for (result, tell) in batch.results.drain(..).zip(&mut tells) {
                    match (result, tell) {
                        // A caller that went away does not hear it; what was committed stays committed.
                        (result, Some(tell)) => drop(tell.send(result)),
                        (Ok(_), None) => {}
                        (Err(_), None) => drop(self.dropped.fetch_add(1, Ordering::Relaxed)),
                    }
                }
            }
            for tell in flushes {
                // Whoever asked may be gone; then nobody needs the answer.
                let _: Result<(), ()> = tell.send(());
            }
        }
    }

    /// Commits. A connection that has gone silent is given up: one write after the other would wait for it.
    async fn commit(&self, part: &[WriteSet]) -> Result<Vec<WriteOutcome>, CommitError> {
        self.commit_started.store(saturating_nanos(self.clock.monotonic()).max(1), Ordering::Relaxed);
        let done = with_store_timeout("commit", self.store.commit(self.writer, part)).await;
        self.commit_started.store(0, Ordering::Relaxed);
        done
    }
}

fn saturating_nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// A batch on its way into the store: together, if that goes. Where the store refuses something in it, and so did
/// nothing, the halves are tried one after the other, in their order: in the end only what is refused by itself has
/// failed. Where nothing is known, nothing is tried again, for it may have happened.
struct Batch<'a> {
    /// What is yet to be tried; what comes first stands last.
    pending: Vec<&'a [WriteSet]>,
    /// In their order, those that are known.
    results: Vec<Result<WriteOutcome, Arc<Outage>>>,
}

impl<'a> Batch<'a> {
    /// Two parts, each committed by itself.
    fn new([first, second]: [&'a [WriteSet]; 2]) -> Self {
        let parts = [second, first].into_iter().filter(|part| !part.is_empty()).collect();
        Self { pending: parts, results: Vec::with_capacity(first.len() + second.len()) }
    }

    /// What to commit next.
    fn next(&mut self) -> Option<&'a [WriteSet]> {
        self.pending.pop()
    }

    /// What became of a part.
    fn record_result(&mut self, part: &'a [WriteSet], result: Result<Vec<WriteOutcome>, CommitError>) {
        match result {
            Ok(written) if written.len() == part.len() => self.results.extend(written.into_iter().map(Ok)),
            Ok(_) => self.fail(Outage::during("commit")("the store answered another number of writes"), part.len()),
            Err(CommitError::RolledBack(_)) if part.len() > 1 => {
                let (first, rest) = part.split_at(part.len() / 2);
                self.pending.extend([rest, first]);
            }
            Err(CommitError::RolledBack(outage)) => self.fail(outage, part.len()),
            Err(CommitError::Outage(outage)) => {
                // What comes after it would wait for the same store.
                let left = self.pending.drain(..).map(<[WriteSet]>::len).sum::<usize>();
                self.fail(outage, part.len() + left);
            }
        }
    }

    fn fail(&mut self, outage: Outage, writes: usize) {
        tracing::error!(error = %outage, cause = %outage.source, writes, "commit failed");
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

    /// A write that is known by its number.
    fn write(n: usize) -> WriteSet {
        let request_id = n.to_string().parse().ok();
        let record = Record { request_id, ..Record::new(Timestamp::EPOCH, Event::TokenIssue, Outcome::Done) };
        WriteSet { audit_records: vec![record], ..WriteSet::default() }
    }

    fn number(write: &WriteSet) -> usize {
        write.audit_records[0].request_id.as_ref().unwrap().as_str().parse().unwrap()
    }

    fn outage() -> Outage {
        Outage::during("commit")("the test says so")
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
            prop_assert_eq!(done, good, "each once, in their order");
            let failed = batch.results.iter().map(Result::is_err).collect::<Vec<_>>();
            prop_assert_eq!(failed, (0..count).map(|n| bad.contains(&n)).collect::<Vec<_>>());
            let parts = usize::from(cut > 0) + usize::from(cut < count);
            prop_assert!(commits <= parts + 2 * 9 * bad.len(), "{} commits for {} bad ones", commits, bad.len());
        }

        /// When the connection breaks at the k-th commit, what was told before stays told, and nothing is tried after.
        #[test]
        fn unknown_outcome_is_not_retried(count in 2_usize..100, bad in 0_usize..100, at in 1_usize..12) {
            let writes = (0..count).map(write).collect::<Vec<_>>();
            let (mut batch, mut done, mut commits) = (Batch::new([&writes, &[]]), 0, 0);
            let mut is_over = false;
            while let Some(part) = batch.next() {
                prop_assert!(!is_over, "it is over");
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
