//! Periodic maintenance: key rotation by age, expiry of tasks, and garbage collection.

use crate::{
    app::{Error, RequestContext, Service, tasks::expiry::MAX_EXPIRY_ROUNDS},
    domain::keys::RotationReason,
    ports::GcStats,
};

impl Service {
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
        Ok(self.store().collect_garbage(cx.now).await?)
    }
}
