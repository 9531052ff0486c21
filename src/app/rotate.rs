//! The signing keys: which there are, and when new ones are made.

use std::sync::Arc;

use serde_json::json;

use crate::{
    app::{
        Conflict, Cx, Failure, Service,
        admin::{ATTEMPTS, changed},
        again,
    },
    domain::{
        audit::{Event, Outcome, Record},
        id::{KeyId, Reason},
        jwk::SigningAlgorithm,
        keys::{KeyDates, KeyState, Occasion, plan_removal, plan_rotation},
        registry::Registry,
        revocation::Target,
        time::Timestamp,
    },
    ports::{Change, Expected, Idempotency, Outage, StoredKey, Write, Written},
};

impl Service {
    /// The signing keys with their states.
    pub async fn list_keys(&self, cx: &Cx) -> Result<Vec<(KeyDates, KeyState)>, Failure> {
        self.0.follower.current(cx.now).await?;
        let dates = self.0.parts.signer.dates();
        Ok(dates
            .into_iter()
            .map(|key| {
                let state = key.state(cx.now);
                (key, state)
            })
            .collect())
    }

    /// Makes the keys that are needed: on command one for each algorithm in use, by age only where one is due. Returns
    /// what was made. Two replicas that rotate at once make one key: the second finds the first one's.
    pub async fn rotate_keys(
        &self,
        by: &str,
        occasion: Occasion,
        cx: &Cx,
    ) -> Result<Vec<(SigningAlgorithm, KeyId)>, Failure> {
        self.rotate_keys_once(by, occasion, None, cx).await
    }

    /// The same for a request that may come again, by its `Idempotency-Key`.
    pub async fn rotate_keys_once(
        &self,
        by: &str,
        occasion: Occasion,
        key: Option<String>,
        cx: &Cx,
    ) -> Result<Vec<(SigningAlgorithm, KeyId)>, Failure> {
        let request = again::request(by.to_owned(), key, "rotate keys".into(), cx);
        if let Some(made) = self.answered(request.as_ref()).await? {
            return Ok(made);
        }
        for _ in 0..ATTEMPTS {
            let view = self.0.follower.current(cx.now).await?;
            let signer = &self.0.parts.signer;
            let (version, dates) = (signer.version(), signer.dates());
            let (mut made, mut changes) = (Vec::new(), Vec::new());
            for algorithm in self.algorithms_in_use(&view.registry) {
                let rotation = &self.settings().rotation;
                let Some(plan) = plan_rotation(&dates, algorithm, rotation, occasion, cx.now) else { continue };
                let key = self.make_key(algorithm, cx.now, plan.activates).await?;
                made.push((algorithm, key.dates.kid.clone()));
                changes.push(Change::PutKey(key));
                changes.extend(self.with_new_dates(plan.replaced).await?);
            }
            if changes.is_empty() {
                // The same request may have made one a moment ago.
                return Ok(self.answered(request.as_ref()).await?.unwrap_or(made));
            }
            let write = Write {
                expected: Some(Expected::Keys(version)),
                idempotency: request.clone().map(|request| Idempotency { answer: json!(made).to_string(), ..request }),
                changes,
                log: vec![changed(Target::Keys, by.to_owned(), cx.now)],
                audit: vec![Record {
                    admin: Some(by.to_owned()),
                    granted: Some(json!({"keys": made})),
                    request_id: Some(cx.request_id.clone()),
                    ..Record::new(cx.now, Event::KeyRotate, Outcome::Done)
                }],
                ..Write::default()
            };
            let written = self.0.journal.commit(write).await?;
            if let Some(made) = again::first_answer(request.as_ref(), &written)? {
                return Ok(made);
            }
            if matches!(written, Written::Done { .. }) {
                return Ok(made);
            }
        }
        let record = Record {
            admin: Some(by.to_owned()),
            request_id: Some(cx.request_id.clone()),
            ..Record::new(cx.now, Event::KeyRotate, Outcome::Done)
        };
        Err(self.refused(record, Conflict::Contended))
    }

    /// Removes a key that leaked. It is in the JWKS no more and what it signed is inactive, at every replica, from the commit
    /// on. Where it was the one that signs, another one takes over at once: one that waits, or a new one, which is
    /// returned and which nobody had the time to fetch. What the leak needs goes before what a cache wants.
    pub async fn revoke_key(
        &self,
        by: &str,
        kid: &KeyId,
        reason: &Reason,
        key: Option<String>,
        cx: &Cx,
    ) -> Result<Vec<(SigningAlgorithm, KeyId)>, Failure> {
        let request = again::request(by.to_owned(), key, format!("revoke key {kid} {reason}"), cx);
        if let Some(made) = self.answered(request.as_ref()).await? {
            return Ok(made);
        }
        let record = Record {
            admin: Some(by.to_owned()),
            asked: Some(json!({"key": kid})),
            reason: Some(reason.to_string()),
            request_id: Some(cx.request_id.clone()),
            ..Record::new(cx.now, Event::KeyRevoke, Outcome::Done)
        };
        for _ in 0..ATTEMPTS {
            // The key may be one that somebody else has only just made.
            let view = self.0.follower.latest(cx.now).await?;
            let signer = &self.0.parts.signer;
            let (version, dates) = (signer.version(), signer.dates());
            let removed = dates.iter().find(|key| key.kid == *kid).map(|key| key.algorithm);
            let Some((algorithm, plan)) = removed.zip(plan_removal(&dates, kid, cx.now)) else {
                // The same request may have removed it a moment ago.
                return match self.answered(request.as_ref()).await? {
                    Some(made) => Ok(made),
                    None => Err(self.refused_as_it_is(record, Conflict::NotFound("key")).await),
                };
            };
            let is_used = self.algorithms_in_use(&view.registry).contains(&algorithm);
            let mut made = Vec::new();
            let mut changes = vec![Change::RemoveKey(kid.clone())];
            if let Some(activates) = plan.makes.filter(|_| is_used) {
                let key = self.make_key(algorithm, cx.now, activates).await?;
                made.push((algorithm, key.dates.kid.clone()));
                changes.push(Change::PutKey(key));
            }
            changes.extend(self.with_new_dates(plan.renewed).await?);
            let write = Write {
                expected: Some(Expected::Keys(version)),
                idempotency: request.clone().map(|request| Idempotency { answer: json!(made).to_string(), ..request }),
                changes,
                log: vec![changed(Target::Keys, by.to_owned(), cx.now)],
                audit: vec![Record { granted: Some(json!({"keys": made})), ..record.clone() }],
                ..Write::default()
            };
            let written = self.0.journal.commit(write).await?;
            if let Some(made) = again::first_answer(request.as_ref(), &written)? {
                return Ok(made);
            }
            if matches!(written, Written::Done { .. }) {
                self.0.follower.current(cx.now).await?;
                return Ok(made);
            }
        }
        Err(self.refused(record, Conflict::Contended))
    }

    /// An RSA key takes a good part of a second: not on a thread that serves requests.
    async fn make_key(
        &self,
        algorithm: SigningAlgorithm,
        now: Timestamp,
        activates: Timestamp,
    ) -> Result<StoredKey, Outage> {
        let signer = Arc::clone(&self.0.parts.signer);
        let made = tokio::task::spawn_blocking(move || signer.make(algorithm, now, activates)).await;
        made.map_err(Outage::during("make a signing key"))?
    }

    async fn with_new_dates(&self, replaced: Vec<KeyDates>) -> Result<Vec<Change>, Outage> {
        if replaced.is_empty() {
            return Ok(Vec::new());
        }
        let stored = self.store().keys().await?.keys;
        let renewed = replaced.into_iter().filter_map(|dates| {
            let key = stored.iter().find(|key| key.dates.kid == dates.kid)?;
            Some(Change::PutKey(StoredKey { dates, ..key.clone() }))
        });
        Ok(renewed.collect())
    }

    fn algorithms_in_use(&self, registry: &Registry) -> Vec<SigningAlgorithm> {
        let special = registry.resources().filter_map(|resource| resource.signing_algorithm);
        let mut all = special.chain([self.settings().algorithm]).collect::<Vec<_>>();
        all.sort_unstable();
        all.dedup();
        all
    }
}
