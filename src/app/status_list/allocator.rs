//! Places in the status lists for tokens that are issued: out of blocks of numbers that nobody else has, kept in memory,
//! so that a token costs no question to the store. What is left of a block when the process ends is lost, and nobody's.

use std::{
    collections::BTreeMap,
    sync::{Mutex as StdMutex, PoisonError},
};

use tokio::sync::Mutex;

use crate::{
    app::Service,
    domain::{
        status_list::{Shard, StatusIndex, shuffle_block},
        time::Timestamp,
        token::TokenKind,
    },
    ports::Outage,
};

/// When so few numbers of a shard are left, half a block, the next one is taken.
const LOW_WATER_MARK: usize = 512;
const OP_RESERVE_BLOCK: &str = "take a block of a status list";

/// The numbers that are ours to give, by shard.
#[derive(Default)]
pub(in crate::app) struct IndexAllocator {
    remaining: StdMutex<BTreeMap<Shard, Vec<u64>>>,
    /// Held while taking a block.
    reserve_lock: Mutex<()>,
}

impl IndexAllocator {
    /// The next number, and how many are left.
    fn next(&self, shard: Shard) -> (Option<u64>, usize) {
        let mut left = self.remaining.lock().unwrap_or_else(PoisonError::into_inner);
        match left.get_mut(&shard) {
            Some(numbers) => (numbers.pop(), numbers.len()),
            None => (None, 0),
        }
    }

    fn remaining(&self, shard: Shard) -> usize {
        let left = self.remaining.lock().unwrap_or_else(PoisonError::into_inner);
        left.get(&shard).map_or(0, Vec::len)
    }

    fn refill(&self, shard: Shard, block: Vec<u64>, now: Timestamp) {
        let mut left = self.remaining.lock().unwrap_or_else(PoisonError::into_inner);
        left.retain(|shard, _| !shard.is_expired(now));
        // What is there is given first: it stands at the end.
        let numbers = left.entry(shard).or_default();
        numbers.splice(..0, block);
    }
}

impl Service {
    /// The place of a token that is about to be issued, if it is of a kind that has one: those that somebody may check who
    /// does not ask us. A number that is not used after all is lost.
    pub(in crate::app) async fn allocate_status_index(
        &self,
        kind: TokenKind,
        expires: Timestamp,
    ) -> Result<Option<StatusIndex>, Outage> {
        match kind {
            TokenKind::Access | TokenKind::Txn if self.settings().status_list.enabled => {}
            TokenKind::Access | TokenKind::Txn | TokenKind::HandOver | TokenKind::Api => return Ok(None),
        }
        let (shard, numbers) = (Shard::for_expiry(expires), &self.inner.index_allocator);
        loop {
            let (number, left) = numbers.next(shard);
            if let Some(number) = number {
                // Ahead of time, and nobody waits for it.
                let next = Shard::following_shard(expires).filter(|next| numbers.remaining(*next) == 0);
                if let Some(short) = Some(shard).filter(|_| left < LOW_WATER_MARK).or(next)
                    && numbers.reserve_lock.try_lock().is_ok()
                {
                    let service = self.clone();
                    tokio::spawn(async move { service.reserve_block(short, LOW_WATER_MARK).await });
                }
                return Ok(Some(StatusIndex { shard, number }));
            }
            // A task of its own: what was taken is kept, even if whoever asked goes away meanwhile.
            let service = self.clone();
            let taken = tokio::spawn(async move { service.reserve_block(shard, 1).await });
            taken.await.map_err(Outage::during(OP_RESERVE_BLOCK))??;
        }
    }

    /// Takes a block of a shard, unless there are so many numbers left.
    async fn reserve_block(&self, shard: Shard, min_remaining: usize) -> Result<(), Outage> {
        let numbers = &self.inner.index_allocator;
        let _guard = numbers.reserve_lock.lock().await;
        if numbers.remaining(shard) >= min_remaining {
            return Ok(());
        }
        let seed = self.inner.ports.entropy.random_bytes32()?;
        let block = self.store().allocate_status_block(shard).await?;
        numbers.refill(shard, shuffle_block(block, &seed), self.clock().now());
        Ok(())
    }
}
