//! Allocation of status list indexes to tokens that are being issued.
//!
//! A replica reserves blocks of indexes in the store and assigns them from memory, so a token costs
//! no query. What remains of a block when the process ends stays unassigned.

use std::{collections::BTreeMap, sync::Arc};

use parking_lot::Mutex as SyncMutex;
use tokio::sync::Mutex;

use crate::{
    domain::{
        status_list::{Shard, StatusIndex, shuffle_block},
        time::Timestamp,
    },
    ports::{Clock, Entropy, Outage, StatusListStore},
};

/// The number of remaining indexes of a shard, half a block, below which the next block is
/// reserved.
const LOW_WATER_MARK: usize = 512;
const OP_RESERVE_BLOCK: &str = "reserve a block of status list indexes";

/// Assigns indexes from reserved blocks.
pub(in crate::app) struct IndexAllocator {
    status_lists: Arc<dyn StatusListStore>,
    entropy: Arc<dyn Entropy>,
    clock: Arc<dyn Clock>,
    /// The reserved indexes that are not assigned yet, by shard.
    remaining: SyncMutex<BTreeMap<Shard, Vec<u64>>>,
    /// Locked while a block is being reserved.
    reserve_lock: Mutex<()>,
}

impl IndexAllocator {
    pub(in crate::app) fn new(
        status_lists: Arc<dyn StatusListStore>,
        entropy: Arc<dyn Entropy>,
        clock: Arc<dyn Clock>,
    ) -> Arc<Self> {
        let (remaining, reserve_lock) = (SyncMutex::default(), Mutex::default());
        Arc::new(Self { status_lists, entropy, clock, remaining, reserve_lock })
    }

    /// Allocates the index of a token that expires at this time. An index that is not used in the
    /// end stays unassigned.
    pub(in crate::app) async fn allocate(self: &Arc<Self>, expires: Timestamp) -> Result<StatusIndex, Outage> {
        let shard = Shard::for_expiry(expires);
        loop {
            let (number, remaining) = self.next(shard);
            if let Some(number) = number {
                // Reserve ahead of time, without waiting.
                let next = Shard::following_shard(expires).filter(|next| self.remaining(*next) == 0);
                if let Some(short) = Some(shard).filter(|_| remaining < LOW_WATER_MARK).or(next)
                    && self.reserve_lock.try_lock().is_ok()
                {
                    let allocator = Arc::clone(self);
                    tokio::spawn(async move { allocator.reserve_block(short, LOW_WATER_MARK).await });
                }
                return Ok(StatusIndex { shard, number });
            }
            // In a task of its own: a reserved block is kept even if the caller goes away
            // meanwhile.
            let allocator = Arc::clone(self);
            let reservation = tokio::spawn(async move { allocator.reserve_block(shard, 1).await });
            reservation.await.map_err(Outage::during(OP_RESERVE_BLOCK))??;
        }
    }

    /// Takes the next index of a shard, and returns how many remain.
    fn next(&self, shard: Shard) -> (Option<u64>, usize) {
        match self.remaining.lock().get_mut(&shard) {
            Some(numbers) => (numbers.pop(), numbers.len()),
            None => (None, 0),
        }
    }

    fn remaining(&self, shard: Shard) -> usize {
        self.remaining.lock().get(&shard).map_or(0, Vec::len)
    }

    fn refill(&self, shard: Shard, block: Vec<u64>, now: Timestamp) {
        let mut remaining = self.remaining.lock();
        remaining.retain(|shard, _| !shard.is_expired(now));
        // Indexes are taken from the end, so those of the previous block come first.
        remaining.entry(shard).or_default().splice(..0, block);
    }

    /// Reserves a block of a shard, unless at least `min_remaining` indexes remain.
    async fn reserve_block(&self, shard: Shard, min_remaining: usize) -> Result<(), Outage> {
        let _guard = self.reserve_lock.lock().await;
        if self.remaining(shard) >= min_remaining {
            return Ok(());
        }
        let seed = self.entropy.random_bytes32()?;
        let block = self.status_lists.allocate_status_block(shard).await?;
        self.refill(shard, shuffle_block(block, &seed), self.clock.now());
        Ok(())
    }
}
