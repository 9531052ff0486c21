//! What has to be done from time to time: keys that are due, things that nobody can ask for any more.

use crate::{
    app::{Cx, Failure, Service},
    domain::{
        issuer::TrustedIssuer,
        jwk::{JwkSet, SigningAlgorithm},
        keys::Occasion,
        time::Timestamp,
    },
    ports::{FIND_KEY, Outage, Swept},
};

impl Service {
    /// Makes keys that are due, ends tasks past their deadline, drops what is over. Any number of replicas may do this at once.
    pub async fn sweep(&self, cx: &Cx) -> Result<Swept, Failure> {
        self.rotate_keys("age", Occasion::Age, cx).await?;
        self.0.follower.forget();
        self.0.follower.sweep_replicas().await?;
        for record in self.0.refusals.take(cx.now, false) {
            self.0.journal.note(record);
        }
        self.0.verified.forget(cx.now);
        self.expire_tasks(cx).await?;
        self.end_tasks_without_grant(cx).await?;
        self.end_tasks_of_removed(cx).await?;
        Ok(self.store().sweep(cx.now).await?)
    }

    /// Whether requests can be answered: the store is reached and has the schema, takes what is written, and there is a
    /// key to sign with.
    pub async fn ready(&self, cx: &Cx) -> Result<(), Failure> {
        self.store().ping().await?;
        if self.0.journal.is_stuck() {
            return Err(Outage::during("write to the store")("a commit has been under way for long").into());
        }
        self.0.follower.latest(cx.now).await?;
        if self.0.parts.signer.algorithms(cx.now).contains(&self.settings().algorithm) {
            Ok(())
        } else {
            Err(Outage::during(FIND_KEY)("there is no active key").into())
        }
    }

    /// The issuers that are trusted now, for whoever keeps their keys fresh.
    pub async fn trusted_issuers(&self, now: Timestamp) -> Result<Vec<TrustedIssuer>, Failure> {
        let view = self.0.follower.current(now).await?;
        Ok(view.registry.issuers().filter(|issuer| !issuer.disabled).cloned().collect())
    }

    /// The published keys (RFC 7517), as of now.
    pub async fn jwks(&self, cx: &Cx) -> Result<JwkSet, Failure> {
        self.0.follower.current(cx.now).await?;
        Ok(self.0.parts.signer.jwks(cx.now))
    }

    /// The algorithms that something is signed with now.
    #[must_use]
    pub fn signing_algorithms(&self, cx: &Cx) -> Vec<SigningAlgorithm> {
        self.0.parts.signer.algorithms(cx.now)
    }
}
