//! Readiness of this replica.

use crate::{
    app::{Error, RequestContext, Service},
    ports::{OP_FIND_SIGNING_KEY, Outage},
};

impl Service {
    /// Checks that requests can be answered: the store is reachable, has the expected schema and
    /// accepts writes, and there is an active signing key.
    pub async fn check_readiness(&self, cx: &RequestContext) -> Result<(), Error> {
        self.store().ping().await?;
        if self.inner.writer.is_stalled() {
            return Err(Outage::during("write to the store")("a commit has stalled").into());
        }
        self.inner.follower.committed_snapshot(cx.now).await?;
        if self.signing_algorithms(cx).contains(&self.settings().algorithm) {
            Ok(())
        } else {
            Err(Outage::during(OP_FIND_SIGNING_KEY)("no key of the configured algorithm is active").into())
        }
    }
}
