//! The signing keys: which there are, and when new ones are made.

use std::sync::Arc;

use serde_json::json;

use crate::{
    app::{ConflictError, Error, RequestContext, Service, commit::idempotency, registry::objects::MAX_COMMIT_ATTEMPTS},
    domain::{
        audit::{Event, Outcome, Record},
        id::{KeyId, Reason},
        jose::jwk::SigningAlgorithm,
        keys::{KeySchedule, KeyState, RotationReason, plan_removal, plan_rotation},
        registry::Registry,
        revocation::NewEntry,
        time::Timestamp,
    },
    ports::{IdempotentRequest, Outage, Precondition, StateChange, StoredKey, WriteOutcome, WriteSet},
};

impl Service {
    /// The signing keys with their states.
    pub async fn list_keys(&self, cx: &RequestContext) -> Result<Vec<(KeySchedule, KeyState)>, Error> {
        self.0.follower.snapshot(cx.now).await?;
        let dates = self.0.ports.signer.schedules();
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
        reason: RotationReason,
        cx: &RequestContext,
    ) -> Result<Vec<(SigningAlgorithm, KeyId)>, Error> {
        self.rotate_keys_idempotently(by, reason, None, cx).await
    }

    /// The same for a request that may come again, by its `Idempotency-Key`.
    pub async fn rotate_keys_idempotently(
        &self,
        by: &str,
        reason: RotationReason,
        key: Option<String>,
        cx: &RequestContext,
    ) -> Result<Vec<(SigningAlgorithm, KeyId)>, Error> {
        let request = idempotency::build_idempotency(by.to_owned(), key, "rotate keys".into(), cx);
        if let Some(made) = self.find_stored_response(request.as_ref()).await? {
            return Ok(made);
        }
        for _ in 0..MAX_COMMIT_ATTEMPTS {
            let snapshot = self.0.follower.snapshot(cx.now).await?;
            let signer = &self.0.ports.signer;
            let (version, dates) = (signer.version(), signer.schedules());
            let (mut made, mut changes) = (Vec::new(), Vec::new());
            for algorithm in self.algorithms_in_use(&snapshot.registry) {
                let rotation = &self.settings().rotation;
                let Some(plan) = plan_rotation(&dates, algorithm, rotation, reason, cx.now) else { continue };
                let key = self.create_key(algorithm, cx.now, plan.activates_at).await?;
                made.push((algorithm, key.schedule.kid.clone()));
                changes.push(StateChange::PutKey(key));
                changes.extend(self.reschedule_keys(plan.replaced_keys).await?);
            }
            if changes.is_empty() {
                // The same request may have made one a moment ago.
                return Ok(self.find_stored_response(request.as_ref()).await?.unwrap_or(made));
            }
            let write = WriteSet {
                precondition: Some(Precondition::KeysVersion(version)),
                idempotency: request
                    .clone()
                    .map(|request| IdempotentRequest { response: json!(made).to_string(), ..request }),
                state_changes: changes,
                log_entries: vec![NewEntry::keys_changed(by.to_owned(), cx.now)],
                audit_records: vec![Record {
                    admin: Some(by.to_owned()),
                    granted: Some(json!({"keys": made})),
                    request_id: Some(cx.request_id.clone()),
                    ..Record::new(cx.now, Event::KeyRotate, Outcome::Done)
                }],
                ..WriteSet::default()
            };
            let written = self.0.writer.commit(write).await?;
            if let Some(made) = idempotency::read_stored_response(request.as_ref(), &written)? {
                return Ok(made);
            }
            if matches!(written, WriteOutcome::Committed { .. }) {
                return Ok(made);
            }
        }
        let record = Record {
            admin: Some(by.to_owned()),
            request_id: Some(cx.request_id.clone()),
            ..Record::new(cx.now, Event::KeyRotate, Outcome::Done)
        };
        Err(self.record_refusal(record, ConflictError::ConcurrentUpdate))
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
        cx: &RequestContext,
    ) -> Result<Vec<(SigningAlgorithm, KeyId)>, Error> {
        let request = idempotency::build_idempotency(by.to_owned(), key, format!("revoke key {kid} {reason}"), cx);
        if let Some(made) = self.find_stored_response(request.as_ref()).await? {
            return Ok(made);
        }
        let record = Record {
            admin: Some(by.to_owned()),
            requested: Some(json!({"key": kid})),
            reason: Some(reason.to_string()),
            request_id: Some(cx.request_id.clone()),
            ..Record::new(cx.now, Event::KeyRevoke, Outcome::Done)
        };
        for _ in 0..MAX_COMMIT_ATTEMPTS {
            // The key may be one that somebody else has only just made.
            let snapshot = self.0.follower.committed_snapshot(cx.now).await?;
            let signer = &self.0.ports.signer;
            let (version, dates) = (signer.version(), signer.schedules());
            let removed = dates.iter().find(|key| key.kid == *kid).map(|key| key.algorithm);
            let Some((algorithm, plan)) = removed.zip(plan_removal(&dates, kid, cx.now)) else {
                // The same request may have removed it a moment ago.
                return match self.find_stored_response(request.as_ref()).await? {
                    Some(made) => Ok(made),
                    None => Err(self.record_refusal_after_barrier(record, ConflictError::NotFound("key")).await),
                };
            };
            let is_used = self.algorithms_in_use(&snapshot.registry).contains(&algorithm);
            let mut made = Vec::new();
            let mut changes = vec![StateChange::RemoveKey(kid.clone())];
            if let Some(activates) = plan.new_key_activates_at.filter(|_| is_used) {
                let key = self.create_key(algorithm, cx.now, activates).await?;
                made.push((algorithm, key.schedule.kid.clone()));
                changes.push(StateChange::PutKey(key));
            }
            changes.extend(self.reschedule_keys(plan.rescheduled_keys).await?);
            let write = WriteSet {
                precondition: Some(Precondition::KeysVersion(version)),
                idempotency: request
                    .clone()
                    .map(|request| IdempotentRequest { response: json!(made).to_string(), ..request }),
                state_changes: changes,
                log_entries: vec![NewEntry::keys_changed(by.to_owned(), cx.now)],
                audit_records: vec![Record { granted: Some(json!({"keys": made})), ..record.clone() }],
                ..WriteSet::default()
            };
            let written = self.0.writer.commit(write).await?;
            if let Some(made) = idempotency::read_stored_response(request.as_ref(), &written)? {
                return Ok(made);
            }
            if matches!(written, WriteOutcome::Committed { .. }) {
                self.0.follower.snapshot(cx.now).await?;
                return Ok(made);
            }
        }
        Err(self.record_refusal(record, ConflictError::ConcurrentUpdate))
    }

    /// An RSA key takes a good part of a second: not on a thread that serves requests.
    async fn create_key(
        &self,
        algorithm: SigningAlgorithm,
        now: Timestamp,
        activates: Timestamp,
    ) -> Result<StoredKey, Outage> {
        let signer = Arc::clone(&self.0.ports.signer);
        let made = tokio::task::spawn_blocking(move || signer.create_key(algorithm, now, activates)).await;
        made.map_err(Outage::during("make a signing key"))?
    }

    async fn reschedule_keys(&self, replaced: Vec<KeySchedule>) -> Result<Vec<StateChange>, Outage> {
        if replaced.is_empty() {
            return Ok(Vec::new());
        }
        let stored = self.store().load_keys().await?.keys;
        let renewed = replaced.into_iter().filter_map(|dates| {
            let key = stored.iter().find(|key| key.schedule.kid == dates.kid)?;
            Some(StateChange::PutKey(StoredKey { schedule: dates, ..key.clone() }))
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
