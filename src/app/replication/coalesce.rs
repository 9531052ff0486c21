//! Coalescing of concurrent reads.
//!
//! Callers that arrive while a read is in flight all share the *next* read. A caller therefore
//! never gets the result of a read that started before the call. Under load there are at most two
//! reads for any number of callers: the one in flight and the next.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use tokio::sync::Mutex;

use crate::{app::shared_outage::unshare, ports::Outage};

/// A read whose result is shared by the callers that waited for it to start.
pub(in crate::app) struct CoalescedRead<T> {
    /// The number of reads that have started.
    started: AtomicU64,
    /// The last completed read. Locked while a read is in flight.
    last: Mutex<Option<CompletedRead<T>>>,
}

struct CompletedRead<T> {
    /// Generation number, starting at 1: the position of this read in the order in which reads
    /// started.
    generation: u64,
    result: Result<T, Arc<Outage>>,
}

impl<T> Default for CoalescedRead<T> {
    fn default() -> Self {
        Self { started: AtomicU64::new(0), last: Mutex::default() }
    }
}

impl<T: Clone> CoalescedRead<T> {
    /// Returns the result of a read that starts after this call: of `read`, or of the `read` of a
    /// concurrent caller.
    pub(in crate::app) async fn read<F>(&self, read: impl FnOnce() -> F) -> Result<T, Outage>
    where
        F: Future<Output = Result<T, Outage>>,
    {
        let started_before = self.started.load(Ordering::SeqCst);
        let mut last = self.last.lock().await;
        let result = match &*last {
            Some(completed) if completed.generation > started_before => completed.result.clone(),
            _ => {
                // A cancelled read leaves `last` unchanged, and the next caller reads.
                let generation = self.started.fetch_add(1, Ordering::SeqCst) + 1;
                let result = read().await.map_err(Arc::new);
                *last = Some(CompletedRead { generation, result: result.clone() });
                result
            }
        };
        result.map_err(unshare)
    }
}

#[cfg(test)]
mod tests {
    use std::{future::pending, io, time::Duration};

    use tokio::{
        sync::oneshot,
        task::{JoinSet, yield_now},
        time::timeout,
    };

    use super::*;
    use crate::ports::ErrorChain;

    fn coalesced_read() -> Arc<CoalescedRead<u32>> {
        Arc::default()
    }

    /// Starts a read and leaves it in flight until its result is sent.
    async fn start_read(coalesced: &Arc<CoalescedRead<u32>>) -> (JoinSet<u32>, oneshot::Sender<u32>) {
        let (complete, result) = oneshot::channel();
        let (started, has_started) = oneshot::channel();
        let (mut tasks, reader) = (JoinSet::new(), Arc::clone(coalesced));
        tasks.spawn(async move {
            let read = async || {
                started.send(()).unwrap();
                Ok(result.await.unwrap())
            };
            reader.read(read).await.unwrap()
        });
        has_started.await.unwrap();
        (tasks, complete)
    }

    #[tokio::test]
    async fn caller_during_a_read_waits_for_the_next_read() {
        let coalesced = coalesced_read();
        let reads = Arc::new(AtomicU64::new(0));
        let (first, complete) = start_read(&coalesced).await;
        let mut later = JoinSet::new();
        for _ in 0..50 {
            let (coalesced, reads) = (Arc::clone(&coalesced), Arc::clone(&reads));
            later.spawn(async move {
                let read = async || {
                    reads.fetch_add(1, Ordering::SeqCst);
                    Ok(2)
                };
                coalesced.read(read).await.unwrap()
            });
        }
        // Let every caller arrive before the first read completes: none of them may get its result.
        for _ in 0..100 {
            yield_now().await;
        }
        complete.send(1).unwrap();
        assert_eq!(first.join_all().await, [1]);
        assert!(later.join_all().await.iter().all(|result| *result == 2));
        assert_eq!(reads.load(Ordering::SeqCst), 1);
        assert_eq!(coalesced.read(async || Ok(3)).await.unwrap(), 3, "a completed read is not reused");
    }

    #[tokio::test]
    async fn failure_is_shared_but_not_cached() {
        let coalesced = coalesced_read();
        let (first, complete) = start_read(&coalesced).await;
        let failing = || async { Err(Outage::during("read")("no store")) };
        let reads = async { tokio::join!(coalesced.read(failing), coalesced.read(async || Ok(9))) };
        let release = async {
            yield_now().await;
            complete.send(1).unwrap();
        };
        let ((failed, shared_failure), ()) = tokio::join!(reads, release);
        assert!(failed.is_err() && shared_failure.is_err());
        assert_eq!(first.join_all().await, [1]);
        assert_eq!(coalesced.read(async || Ok(2)).await.unwrap(), 2);
    }

    #[tokio::test]
    async fn shared_failure_has_the_root_cause_once() {
        let coalesced = coalesced_read();
        let (_first, complete) = start_read(&coalesced).await;
        let failing = || async {
            let connect = Outage::during("connect")(io::Error::other("connection refused"));
            Err(Outage::during("read the log head")(connect))
        };
        let reads = async { tokio::join!(coalesced.read(failing), coalesced.read(failing)) };
        let release = async {
            yield_now().await;
            complete.send(1).unwrap();
        };
        let ((one, other), ()) = tokio::join!(reads, release);
        for outage in [one.unwrap_err(), other.unwrap_err()] {
            let chain = ErrorChain(&outage).to_string();
            assert_eq!(chain, "read the log head failed: connect failed: connection refused");
        }
    }

    #[tokio::test]
    async fn cancelled_read_does_not_block_the_next_one() {
        let coalesced = coalesced_read();
        let cancelled = timeout(Duration::from_millis(10), coalesced.read(pending)).await;
        assert!(cancelled.is_err());
        assert_eq!(coalesced.read(async || Ok(1)).await.unwrap(), 1);
    }
}
