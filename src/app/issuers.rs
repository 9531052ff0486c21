//! The trusted issuers and the state of their keys.

use crate::{
    app::{Error, RequestContext, Service},
    domain::{registry::issuer::TrustedIssuer, time::Timestamp},
};

impl Service {
    /// Returns the trusted issuers that are enabled, for the refresh of their keys.
    pub async fn list_trusted_issuers(&self, now: Timestamp) -> Result<Vec<TrustedIssuer>, Error> {
        let snapshot = self.inner.follower.snapshot(now).await?;
        Ok(snapshot.registry.issuers().filter(|issuer| !issuer.disabled).cloned().collect())
    }

    /// Returns each trusted issuer, and whether the last fetch of its keys succeeded.
    pub async fn issuer_health(&self, cx: &RequestContext) -> Result<Vec<(String, bool)>, Error> {
        let snapshot = self.inner.follower.snapshot(cx.now).await?;
        let unreachable = self.inner.ports.trusted_keys.unreachable_issuers();
        let issuers = snapshot.registry.issuers().map(|issuer| issuer.issuer.to_string());
        Ok(issuers
            .map(|issuer| {
                let is_reachable = !unreachable.contains(&issuer);
                (issuer, is_reachable)
            })
            .collect())
    }
}
