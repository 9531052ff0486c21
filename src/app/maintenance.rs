//! Periodic maintenance: key rotation by age, expiry of tasks, and garbage collection.

use crate::{
    app::{Error, RequestContext, Service, tasks::expiry::MAX_EXPIRY_ROUNDS},
    domain::{
        keys::RotationReason,
        settings::{MAX_CLOCK_SKEW, TOKEN_LIFETIME_CAP},
    },
    ports::{GcStats, LiveCounts},
};

/// The largest number of live tasks, and of live tokens, that is counted.
const MAX_COUNTED: u32 = 100_000;

impl Service {
    /// Returns the number of live tasks and tokens, as of the last maintenance.
    #[must_use]
    pub fn live_counts(&self) -> Option<LiveCounts> {
        *self.inner.live.lock()
    }

    /// Rotates keys that are due, ends tasks that have passed their deadline or lost their grant or
    /// a party, and removes expired data from memory and from the store. Any number of replicas may
    /// run this concurrently.
    pub async fn collect_garbage(&self, cx: &RequestContext) -> Result<GcStats, Error> {
        self.inner.follower.check_compatibility()?;
        self.rotate_keys("age", RotationReason::Age, cx).await?;
        self.inner.follower.evict_expired();
        self.inner.peers.reap_dead_replicas().await?;
        for record in self.inner.refusals.drain(cx.now, false) {
            self.inner.writer.enqueue_audit(record);
        }
        self.inner.token_cache.evict_expired(cx.now);
        self.expire_tasks(cx).await?;
        self.end_tasks_without_grant(cx).await?;
        self.end_orphaned_tasks(cx).await?;
        self.end_tasks_of_revoked_parties(MAX_EXPIRY_ROUNDS, cx).await?;
        let stats = self.store().collect_garbage(cx.now, &self.settings().retention.cutoffs(cx.now)).await?;
        // None replaces an old value, also if the rest fails.
        *self.inner.live.lock() = None;
        self.inner.follower.advance_anchor(cx.now).await?;
        // Last: a metric must not keep anything from being removed.
        let since = cx.now.saturating_sub(TOKEN_LIFETIME_CAP).saturating_sub(MAX_CLOCK_SKEW);
        *self.inner.live.lock() = Some(self.store().count_live(cx.now, since, MAX_COUNTED).await?);
        Ok(stats)
    }
}
