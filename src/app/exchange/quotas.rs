//! Quotas: how much of the store one agent, one requester and one task may use.
//!
//! The store counts, and a replica does not ask it for every request: it also knows how many it
//! added itself. It counts again after a sixteenth of the quota, and before it refuses a request. A
//! quota can therefore be exceeded by a sixteenth for each other replica, and no request
//! is refused because of what has ended meanwhile.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

use quick_cache::sync::Cache;

use crate::{
    app::{Error, RequestContext, Service, exchange::ExchangeContext},
    domain::{
        exchange::{PlannedTask, TokenPlan},
        quota::{QuotaExceeded, QuotaKey},
    },
};

/// The number of parties whose use is remembered. The use of a forgotten party is counted again.
const MAX_PARTIES: usize = 65_536;
/// The part of a quota after which the store counts again.
const RECOUNT_FRACTION: u32 = 16;

/// What each party uses, as far as this replica knows.
pub(in crate::app) struct QuotaUsage {
    parties: Cache<QuotaKey, Arc<Usage>>,
}

struct Usage {
    /// The count of the store.
    counted: AtomicU32,
    /// How much this replica added since the count.
    added: AtomicU32,
    /// How much of it may not be committed yet.
    pending: AtomicU32,
}

impl Default for Usage {
    /// The use of a party that has not been counted, so that the first reservation counts it.
    fn default() -> Self {
        Self { counted: AtomicU32::new(u32::MAX), added: AtomicU32::default(), pending: AtomicU32::default() }
    }
}

/// A place under a quota. Held until the commit, so that concurrent requests see each other.
pub(super) struct Reservation(Arc<Usage>);

impl Drop for Reservation {
    fn drop(&mut self) {
        self.0.pending.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Default for QuotaUsage {
    fn default() -> Self {
        Self { parties: Cache::new(MAX_PARTIES) }
    }
}

impl QuotaUsage {
    fn reserve(&self, key: &QuotaKey) -> Reservation {
        let usage = match self.parties.get(key) {
            Some(usage) => usage,
            None => {
                let usage = Arc::<Usage>::default();
                let insert = || Ok::<_, std::convert::Infallible>(Arc::clone(&usage));
                self.parties.get_or_insert_with(key, insert).unwrap_or(usage)
            }
        };
        // In this order, so that a concurrent recount misses neither.
        usage.pending.fetch_add(1, Ordering::AcqRel);
        usage.added.fetch_add(1, Ordering::AcqRel);
        Reservation(usage)
    }
}

impl Usage {
    /// Returns whether another one is surely within the limit without counting again.
    fn is_surely_within(&self, limit: u32) -> bool {
        let added = self.added.load(Ordering::Acquire);
        let known = self.counted.load(Ordering::Acquire).saturating_add(added);
        added <= limit / RECOUNT_FRACTION && known <= limit
    }

    /// Takes a count of the store, and returns whether all pending ones fit beside it. The count
    /// may lack what was pending before it, although that has been committed since.
    fn recount(&self, counted: u32, pending_before: u32, limit: u32) -> bool {
        let pending = pending_before.max(self.pending.load(Ordering::Acquire));
        self.counted.store(counted, Ordering::Release);
        self.added.store(pending, Ordering::Release);
        counted.saturating_add(pending) <= limit
    }
}

impl Service {
    /// Checks the quotas that the token counts towards, and reserves its places.
    pub(super) async fn reserve_quotas(
        &self,
        exchange: ExchangeContext<'_>,
        plan: &TokenPlan,
    ) -> Result<Vec<Reservation>, Error> {
        let quotas = self.settings().quotas;
        let keys = match &plan.task {
            PlannedTask::Open { .. } => vec![
                (QuotaKey::OpenTasksOfAgent(plan.client.clone()), quotas.open_tasks_per_agent),
                (QuotaKey::OpenTasksOfRequester(plan.requester.clone()), quotas.open_tasks_per_requester),
            ],
            PlannedTask::Existing { id, .. } => vec![(QuotaKey::LiveTokensOfTask(*id), quotas.live_tokens_per_task)],
        };
        let mut reservations = Vec::with_capacity(keys.len());
        for (key, limit) in keys {
            reservations.push(self.reserve_quota(key, limit, exchange.cx).await?);
        }
        Ok(reservations)
    }

    async fn reserve_quota(&self, key: QuotaKey, limit: u32, cx: &RequestContext) -> Result<Reservation, Error> {
        let reservation = self.inner.quota_usage.reserve(&key);
        if reservation.0.is_surely_within(limit) {
            return Ok(reservation);
        }
        let pending = reservation.0.pending.load(Ordering::Acquire);
        let counted = self.store().count_usage(&key, cx.now, limit).await?;
        if reservation.0.recount(counted, pending, limit) {
            return Ok(reservation);
        }
        Err(QuotaExceeded::new(&key, limit).into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> QuotaKey {
        QuotaKey::OpenTasksOfAgent("planner".parse().unwrap())
    }

    #[test]
    fn store_counts_again_after_a_sixteenth() {
        let usage = QuotaUsage::default();
        let mut counts = 0;
        for _ in 0..160 {
            let reservation = usage.reserve(&key());
            if !reservation.0.is_surely_within(160) {
                counts += 1;
                assert!(reservation.0.recount(0, 0, 160));
            }
        }
        assert!((10..=16).contains(&counts), "{counts}");
    }

    #[test]
    fn small_quota_is_counted_each_time() {
        let usage = QuotaUsage::default();
        for counted in 0..3 {
            let reservation = usage.reserve(&key());
            assert!(!reservation.0.is_surely_within(3));
            assert!(reservation.0.recount(counted, 0, 3));
        }
        let fourth = usage.reserve(&key());
        assert!(!fourth.0.recount(3, 0, 3));
        drop(fourth);
        // One has ended.
        assert!(usage.reserve(&key()).0.recount(2, 0, 3));
    }

    #[test]
    fn first_reservation_counts() {
        assert!(!QuotaUsage::default().reserve(&key()).0.is_surely_within(10_000));
    }

    #[test]
    fn commit_during_the_count_is_not_lost() {
        let usage = QuotaUsage::default();
        let (first, second) = (usage.reserve(&key()), usage.reserve(&key()));
        // The store counts before the first one is committed, and the first one ends meanwhile.
        drop(first);
        assert!(!second.0.recount(1, 2, 2));
    }

    #[test]
    fn concurrent_requests_see_each_other() {
        let usage = QuotaUsage::default();
        let (first, second) = (usage.reserve(&key()), usage.reserve(&key()));
        // The store has committed neither of them.
        assert!(second.0.recount(0, 0, 2));
        let third = usage.reserve(&key());
        assert!(!third.0.recount(0, 0, 2));
        drop(third);
        drop(first);
        assert!(second.0.recount(1, 0, 2));
    }
}
