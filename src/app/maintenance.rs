//! What has to be done from time to time: keys that are due, things that nobody can ask for any more.

use crate::{
    app::{Error, RequestContext, Service},
    domain::{
        jose::jwk::{JwkSet, SigningAlgorithm},
        keys::RotationReason,
        registry::issuer::TrustedIssuer,
        time::Timestamp,
    },
    ports::{GcStats, OP_FIND_SIGNING_KEY, Outage},
};

impl Service {
    /// Makes keys that are due, ends tasks past their deadline, drops what is over. Any number of replicas may do this at once.
    pub async fn collect_garbage(&self, cx: &RequestContext) -> Result<GcStats, Error> {
        self.rotate_keys("age", RotationReason::Age, cx).await?;
        self.inner.follower.evict_expired();
        self.inner.follower.reap_dead_replicas().await?;
        for record in self.inner.auth_failures.drain(cx.now, false) {
            self.inner.writer.enqueue_audit(record);
        }
        self.inner.token_cache.evict_expired(cx.now);
        self.expire_tasks(cx).await?;
        self.end_tasks_without_grant(cx).await?;
        self.end_orphaned_tasks(cx).await?;
        Ok(self.store().collect_garbage(cx.now).await?)
    }

    /// Whether requests can be answered: the store is reached and has the schema, takes what is written, and there is a
    /// key to sign with.
    pub async fn check_readiness(&self, cx: &RequestContext) -> Result<(), Error> {
        self.store().ping().await?;
        if self.inner.writer.is_stalled() {
            return Err(Outage::during("write to the store")("a commit has been under way for long").into());
        }
        self.inner.follower.committed_snapshot(cx.now).await?;
        if self.inner.ports.signer.active_algorithms(cx.now).contains(&self.settings().algorithm) {
            Ok(())
        } else {
            Err(Outage::during(OP_FIND_SIGNING_KEY)("there is no active key").into())
        }
    }

    /// The issuers that are trusted now, for whoever keeps their keys fresh.
    pub async fn list_trusted_issuers(&self, now: Timestamp) -> Result<Vec<TrustedIssuer>, Error> {
        let snapshot = self.inner.follower.snapshot(now).await?;
        Ok(snapshot.registry.issuers().filter(|issuer| !issuer.disabled).cloned().collect())
    }

    /// The published keys (RFC 7517), as of now.
    pub async fn jwks(&self, cx: &RequestContext) -> Result<JwkSet, Error> {
        self.inner.follower.snapshot(cx.now).await?;
        Ok(self.inner.ports.signer.jwks(cx.now))
    }

    /// The algorithms that something is signed with now.
    #[must_use]
    pub fn signing_algorithms(&self, cx: &RequestContext) -> Vec<SigningAlgorithm> {
        self.inner.ports.signer.active_algorithms(cx.now)
    }
}
