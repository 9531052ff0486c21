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
        status_list::{Shard, StatusPlace, shuffled},
        time::Timestamp,
        token::TokenKind,
    },
    ports::Outage,
};

/// When so few numbers of a shard are left, half a block, the next one is taken.
const FEW: usize = 512;
const DURING: &str = "take a block of a status list";

/// The numbers that are ours to give, by shard.
#[derive(Default)]
pub(super) struct Numbers {
    left: StdMutex<BTreeMap<Shard, Vec<u64>>>,
    /// Held while taking a block.
    taking: Mutex<()>,
}

impl Numbers {
    /// The next number, and how many are left.
    fn next(&self, shard: Shard) -> (Option<u64>, usize) {
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        match left.get_mut(&shard) {
            Some(numbers) => (numbers.pop(), numbers.len()),
            None => (None, 0),
        }
    }

    fn left(&self, shard: Shard) -> usize {
        let left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        left.get(&shard).map_or(0, Vec::len)
    }

    fn put(&self, shard: Shard, block: Vec<u64>, now: Timestamp) {
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        left.retain(|shard, _| !shard.is_over(now));
        // What is there is given first: it stands at the end.
        let numbers = left.entry(shard).or_default();
        numbers.splice(..0, block);
    }
}

impl Service {
    /// The place of a token that is about to be issued, if it is of a kind that has one: those that somebody may check who
    /// does not ask us. A number that is not used after all is lost.
    pub(super) async fn status_place(
        &self,
        kind: TokenKind,
        expires: Timestamp,
    ) -> Result<Option<StatusPlace>, Outage> {
        match kind {
            TokenKind::Access | TokenKind::Txn if self.settings().status_list.enabled => {}
            TokenKind::Access | TokenKind::Txn | TokenKind::HandOver | TokenKind::Api => return Ok(None),
        }
        let (shard, numbers) = (Shard::of(expires), &self.0.numbers);
        loop {
            let (number, left) = numbers.next(shard);
            if let Some(number) = number {
                // Ahead of time, and nobody waits for it.
                let next = Shard::soon_after(expires).filter(|next| numbers.left(*next) == 0);
                if let Some(short) = Some(shard).filter(|_| left < FEW).or(next)
                    && numbers.taking.try_lock().is_ok()
                {
                    let service = self.clone();
                    tokio::spawn(async move { service.take_block(short, FEW).await });
                }
                return Ok(Some(StatusPlace { shard, number }));
            }
            // A task of its own: what was taken is kept, even if whoever asked goes away meanwhile.
            let service = self.clone();
            let taken = tokio::spawn(async move { service.take_block(shard, 1).await });
            taken.await.map_err(Outage::during(DURING))??;
        }
    }

    /// Takes a block of a shard, unless there are so many numbers left.
    async fn take_block(&self, shard: Shard, enough: usize) -> Result<(), Outage> {
        let numbers = &self.0.numbers;
        let _one_at_a_time = numbers.taking.lock().await;
        if numbers.left(shard) >= enough {
            return Ok(());
        }
        let seed = self.0.parts.entropy.bytes32()?;
        let block = self.store().take_status_block(shard).await?;
        numbers.put(shard, shuffled(block, &seed), self.clock().now());
        Ok(())
    }
}
