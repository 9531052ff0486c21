//! One read for many: who asks while a read is under way shares the next one with everybody else who does.
//!
//! It is exact all the same: nobody gets the answer of a read that began before they asked. Under load there are two
//! reads for any number of requests, the one under way and the next.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use tokio::sync::Mutex;

use crate::ports::Outage;

pub(in crate::app) struct CoalescedRead<T> {
    operation: &'static str,
    /// How many reads have begun.
    started: AtomicU64,
    /// The last read that ended. Held by the one that reads.
    last: Mutex<Option<CompletedRead<T>>>,
}

struct CompletedRead<T> {
    /// The how manieth it was to begin, from 1.
    generation: u64,
    result: Result<T, Arc<Outage>>,
}

impl<T: Clone> CoalescedRead<T> {
    pub(in crate::app) fn new(operation: &'static str) -> Self {
        Self { operation, started: AtomicU64::new(0), last: Mutex::default() }
    }

    /// The answer of a read that begins after this was called: of `read`, or of somebody else's.
    pub(in crate::app) async fn read<F>(&self, read: impl FnOnce() -> F) -> Result<T, Outage>
    where
        F: Future<Output = Result<T, Outage>>,
    {
        let started_before = self.started.load(Ordering::SeqCst);
        let mut last = self.last.lock().await;
        let answer = match &*last {
            Some(shared) if shared.generation > started_before => shared.result.clone(),
            _ => {
                // Who goes away while reading leaves the last answer as it was, and the next one reads.
                let number = self.started.fetch_add(1, Ordering::SeqCst) + 1;
                let answer = read().await.map_err(Arc::new);
                *last = Some(CompletedRead { generation: number, result: answer.clone() });
                answer
            }
        };
        answer.map_err(Outage::during(self.operation))
    }
}

#[cfg(test)]
mod tests {
    use std::{future::pending, time::Duration};

    use tokio::{
        sync::oneshot,
        task::{JoinSet, yield_now},
        time::timeout,
    };

    use super::*;

    fn coalesced_read() -> Arc<CoalescedRead<u32>> {
        Arc::new(CoalescedRead::new("read"))
    }

    /// Starts a read that is under way, and ends with what is sent.
    async fn start_read(shared: &Arc<CoalescedRead<u32>>) -> (JoinSet<u32>, oneshot::Sender<u32>) {
        let (reply, response) = oneshot::channel();
        let (began, begins) = oneshot::channel();
        let (mut tasks, reader) = (JoinSet::new(), Arc::clone(shared));
        tasks.spawn(async move {
            let read = async || {
                began.send(()).unwrap();
                Ok(response.await.unwrap())
            };
            reader.read(read).await.unwrap()
        });
        begins.await.unwrap();
        (tasks, reply)
    }

    #[tokio::test]
    async fn caller_during_a_read_waits_for_the_next_read() {
        let shared = coalesced_read();
        let reads = Arc::new(AtomicU64::new(0));
        let (first, tell) = start_read(&shared).await;
        let mut later = JoinSet::new();
        for _ in 0..50 {
            let (shared, reads) = (Arc::clone(&shared), Arc::clone(&reads));
            later.spawn(async move {
                let read = async || {
                    reads.fetch_add(1, Ordering::SeqCst);
                    Ok(2)
                };
                shared.read(read).await.unwrap()
            });
        }
        // All of them ask before the read ends whose answer they must not get.
        for _ in 0..100 {
            yield_now().await;
        }
        tell.send(1).unwrap();
        assert_eq!(first.join_all().await, [1]);
        assert!(later.join_all().await.iter().all(|answer| *answer == 2));
        assert_eq!(reads.load(Ordering::SeqCst), 1);
        assert_eq!(shared.read(async || Ok(3)).await.unwrap(), 3, "a read that is over is nobody's answer any more");
    }

    #[tokio::test]
    async fn failure_is_shared_but_not_cached() {
        let shared = coalesced_read();
        let (first, tell) = start_read(&shared).await;
        let failing = || async { Err(Outage::during("read")("no store")) };
        let reads = async { tokio::join!(shared.read(failing), shared.read(async || Ok(9))) };
        let release = async {
            yield_now().await;
            tell.send(1).unwrap();
        };
        let ((failed, shared_failure), ()) = tokio::join!(reads, release);
        assert!(failed.is_err() && shared_failure.is_err());
        assert_eq!(first.join_all().await, [1]);
        assert_eq!(shared.read(async || Ok(2)).await.unwrap(), 2);
    }

    #[tokio::test]
    async fn cancelled_read_does_not_block_the_next_one() {
        let shared = coalesced_read();
        let gone = timeout(Duration::from_millis(10), shared.read(pending)).await;
        assert!(gone.is_err());
        assert_eq!(shared.read(async || Ok(1)).await.unwrap(), 1);
    }
}
