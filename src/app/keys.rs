//! The signing keys: which there are, and when new ones are made.

use std::sync::Arc;

use serde_json::json;

use crate::{
    app::{
        ConflictError, Error, RequestContext, Service,
        commit::{
            idempotency::Idempotent,
            retry::{Completion, Decision},
        },
    },
    domain::{
        audit::{Event, Outcome, Record},
        id::{KeyId, Reason},
        jose::jwk::SigningAlgorithm,
        keys::{KeySchedule, KeyState, RotationReason, plan_removal, plan_rotation},
        registry::Registry,
        revocation::NewEntry,
        time::Timestamp,
    },
    ports::{Outage, Precondition, StateChange, StoredKey, WriteSet},
};

impl Service {
    /// The signing keys with their states.
    pub async fn list_keys(&self, cx: &RequestContext) -> Result<Vec<(KeySchedule, KeyState)>, Error> {
        self.inner.follower.snapshot(cx.now).await?;
        let dates = self.inner.ports.signer.schedules();
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
        let request = Idempotent::<Vec<(SigningAlgorithm, KeyId)>>::new(by.to_owned(), key, "rotate keys".into(), cx);
        let record = Record {
            admin: Some(by.to_owned()),
            request_id: Some(cx.request_id.clone()),
            ..Record::new(cx.now, Event::KeyRotate, Outcome::Done)
        };
        let completion = self.commit_with_retry(&request, None, |_| async {
            let snapshot = self.inner.follower.snapshot(cx.now).await?;
            let signer = &self.inner.ports.signer;
            let (version, schedules) = (signer.version(), signer.schedules());
            let (mut created, mut changes) = (Vec::new(), Vec::new());
            for algorithm in self.algorithms_in_use(&snapshot.registry) {
                let rotation = &self.settings().rotation;
                let Some(plan) = plan_rotation(&schedules, algorithm, rotation, reason, cx.now) else { continue };
                let key = self.create_key(algorithm, cx.now, plan.activates_at).await?;
                created.push((algorithm, key.schedule.kid.clone()));
                changes.push(StateChange::PutKey(key));
                changes.extend(self.reschedule_keys(plan.replaced_keys).await?);
            }
            if changes.is_empty() {
                return Ok(Decision::Answer(created));
            }
            let write = WriteSet {
                precondition: Some(Precondition::KeysVersion(version)),
                idempotency: request.storing(&created)?,
                state_changes: changes,
                log_entries: vec![NewEntry::keys_changed(by.to_owned(), cx.now)],
                audit_records: vec![Record { granted: Some(json!({"keys": created})), ..record.clone() }],
                ..WriteSet::default()
            };
            Ok(Decision::Write(Box::new(write), created))
        });
        match completion.await? {
            Completion::Done(created, _) => Ok(created),
            Completion::Replayed(replay) => Ok(replay.response),
            Completion::Refused(conflict) => Err(self.record_refusal(record, conflict)),
        }
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
        let fingerprint = format!("revoke key {kid} {reason}");
        let request = Idempotent::<Vec<(SigningAlgorithm, KeyId)>>::new(by.to_owned(), key, fingerprint, cx);
        let record = Record {
            admin: Some(by.to_owned()),
            requested: Some(json!({"key": kid})),
            reason: Some(reason.to_string()),
            request_id: Some(cx.request_id.clone()),
            ..Record::new(cx.now, Event::KeyRevoke, Outcome::Done)
        };
        let completion = self.commit_with_retry(&request, None, |_| async {
            // Another replica may have created the key a moment ago.
            let snapshot = self.inner.follower.committed_snapshot(cx.now).await?;
            let signer = &self.inner.ports.signer;
            let (version, schedules) = (signer.version(), signer.schedules());
            let removed = schedules.iter().find(|key| key.kid == *kid).map(|key| key.algorithm);
            let Some((algorithm, plan)) = removed.zip(plan_removal(&schedules, kid, cx.now)) else {
                return Ok(Decision::Refuse(ConflictError::NotFound("key")));
            };
            let is_used = self.algorithms_in_use(&snapshot.registry).contains(&algorithm);
            let mut created = Vec::new();
            let mut changes = vec![StateChange::RemoveKey(kid.clone())];
            if let Some(activates) = plan.new_key_activates_at.filter(|_| is_used) {
                let key = self.create_key(algorithm, cx.now, activates).await?;
                created.push((algorithm, key.schedule.kid.clone()));
                changes.push(StateChange::PutKey(key));
            }
            changes.extend(self.reschedule_keys(plan.rescheduled_keys).await?);
            let write = WriteSet {
                precondition: Some(Precondition::KeysVersion(version)),
                idempotency: request.storing(&created)?,
                state_changes: changes,
                log_entries: vec![NewEntry::keys_changed(by.to_owned(), cx.now)],
                audit_records: vec![Record { granted: Some(json!({"keys": created})), ..record.clone() }],
                ..WriteSet::default()
            };
            Ok(Decision::Write(Box::new(write), created))
        });
        match completion.await? {
            Completion::Done(created, _) => {
                self.inner.follower.snapshot(cx.now).await?;
                Ok(created)
            }
            Completion::Replayed(replay) => Ok(replay.response),
            Completion::Refused(conflict) => Err(self.record_refusal_after_barrier(record, conflict).await),
        }
    }

    /// An RSA key takes a good part of a second: not on a thread that serves requests.
    async fn create_key(
        &self,
        algorithm: SigningAlgorithm,
        now: Timestamp,
        activates: Timestamp,
    ) -> Result<StoredKey, Outage> {
        let signer = Arc::clone(&self.inner.ports.signer);
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
