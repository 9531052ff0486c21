//! The one writer of this process. Writes that come at the same time are committed together: the batch is whatever
//! queued up while the last commit was under way, so nothing waits for a timer. It also keeps the audit chain straight.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use tokio::sync::{mpsc, oneshot};

use crate::{
    domain::audit::{Record, Writer},
    ports::{Outage, Store, Write, Written},
};

/// How many writes one transaction takes at most.
const BATCH: usize = 256;

pub(super) struct Journal {
    queue: mpsc::Sender<Order>,
    capacity: usize,
    dropped: AtomicU64,
}

enum Order {
    /// Commit, and tell.
    Write(Box<Write>, oneshot::Sender<Result<Written, Arc<Outage>>>),
    /// Commit some time; nobody waits.
    Note(Box<Record>),
    /// Tell when everything before is done.
    Flush(oneshot::Sender<()>),
}

impl Journal {
    pub(super) fn start(store: Arc<dyn Store>, writer: Writer, capacity: usize) -> Self {
        let (queue, orders) = mpsc::channel(capacity);
        tokio::spawn(run(store, writer, orders));
        Self { queue, capacity, dropped: AtomicU64::new(0) }
    }

    /// Commits a write. A full queue is an outage: the load is shed before it costs anything.
    pub(super) async fn commit(&self, write: Write) -> Result<Written, Outage> {
        let (tell, told) = oneshot::channel();
        let full = |_| Outage::during("queue a write")("too many writes are waiting");
        self.queue.try_send(Order::Write(Box::new(write), tell)).map_err(full)?;
        match told.await {
            Ok(result) => result.map_err(|outage| Outage::during("commit")(outage)),
            Err(gone) => Err(Outage::during("commit")(gone)),
        }
    }

    /// Notes a record that nobody waits for. It never stands in the way: when the queue is more than half full, it is
    /// dropped and counted. Returns whether it was taken.
    pub(super) fn note(&self, record: Record) -> bool {
        let crowded = self.waiting() > self.capacity / 2;
        if crowded || self.queue.try_send(Order::Note(Box::new(record))).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
            return false;
        }
        true
    }

    pub(super) fn waiting(&self) -> usize {
        self.capacity.saturating_sub(self.queue.capacity())
    }

    pub(super) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    pub(super) async fn finish(&self) {
        let (tell, told) = oneshot::channel();
        if self.queue.send(Order::Flush(tell)).await.is_ok() {
            // An error means that the writer is gone, and then there is nothing left to wait for.
            let _: Result<(), oneshot::error::RecvError> = told.await;
        }
    }
}

async fn run(store: Arc<dyn Store>, writer: Writer, mut orders: mpsc::Receiver<Order>) {
    let mut batch = Vec::with_capacity(BATCH);
    while orders.recv_many(&mut batch, BATCH).await > 0 {
        let mut writes = Vec::with_capacity(batch.len());
        let (mut tells, mut notes, mut flushes) = (Vec::new(), Vec::new(), Vec::new());
        for order in batch.drain(..) {
            match order {
                Order::Write(write, tell) => {
                    writes.push(*write);
                    tells.push(tell);
                }
                Order::Note(record) => notes.push(*record),
                Order::Flush(tell) => flushes.push(tell),
            }
        }
        if !notes.is_empty() {
            writes.push(Write { audit: notes, ..Write::default() });
        }
        if !writes.is_empty() {
            answer(store.commit(writer, &writes).await, tells);
        }
        for tell in flushes {
            // Whoever asked may be gone; then nobody needs the answer.
            let _: Result<(), ()> = tell.send(());
        }
    }
}

fn answer(result: Result<Vec<Written>, Outage>, tells: Vec<oneshot::Sender<Result<Written, Arc<Outage>>>>) {
    let mut answers = match result {
        Ok(written) => written.into_iter().map(Ok).collect::<Vec<_>>().into_iter(),
        Err(outage) => {
            let outage = Arc::new(outage);
            tracing::error!(error = %outage, cause = %outage.source, writes = tells.len(), "commit failed");
            tells.iter().map(|_| Err(Arc::clone(&outage))).collect::<Vec<_>>().into_iter()
        }
    };
    for tell in tells {
        let short = || Err(Arc::new(Outage::during("commit")("the store answered fewer writes than it was given")));
        // A caller that went away does not hear it; what was committed stays committed.
        let _: Result<(), _> = tell.send(answers.next().unwrap_or_else(short));
    }
}
