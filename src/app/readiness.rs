//! Readiness of this replica.

use crate::{
    app::{Error, RequestContext, Service, commit::timeout::with_store_timeout},
    ports::{OP_FIND_SIGNING_KEY, Outage},
};

impl Service {
    /// Checks that requests can be answered: the store is reachable, has the expected schema and
    /// accepts writes, and there is an active signing key.
    pub async fn check_readiness(&self, cx: &RequestContext) -> Result<(), Error> {
        // Any number of probes cost one query at a time.
        let ping = async || with_store_timeout("reach the store", self.reserved_store().ping()).await;
        self.inner.store_check.read(ping).await?;
        // A replica that does not know a log entry also fails to renew its lease. The entry is the
        // cause.
        self.inner.follower.check_compatibility()?;
        let failing_write = if self.inner.writer.is_stalled() {
            Some("a commit has stalled")
        } else if self.inner.writer.is_failing() {
            Some("the last commit failed")
        } else if self.inner.renewal.is_failing() {
            // If the log, the registry or the keys were tampered with, that is the cause.
            self.inner.follower.committed_snapshot(cx.now).await?;
            Some("the last renewal of the lease failed")
        } else {
            None
        };
        if let Some(cause) = failing_write {
            return Err(Outage::during("write to the store")(cause).into());
        }
        self.inner.follower.committed_snapshot(cx.now).await?;
        match self.find_signing_problem(cx) {
            None => Ok(()),
            Some(problem) => Err(Outage::during(OP_FIND_SIGNING_KEY)(problem).into()),
        }
    }
}
