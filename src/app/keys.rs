//! The signing keys: publication, rotation and revocation.

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
        jose::jwk::{JwkSet, SigningAlgorithm},
        keys::{KeySchedule, KeyState, RotationReason, RotationSettings, plan_removal, plan_rotation},
        registry::Registry,
        revocation::NewEntry,
        time::Timestamp,
    },
    ports::{KeyStore, Outage, Precondition, Signer, StateChange, StoredKey, WriteSet},
};

/// The keys that a rotation or a revocation created.
type CreatedKeys = Vec<(SigningAlgorithm, KeyId)>;

/// Works out which keys a rotation or a revocation creates, reschedules and removes.
pub(super) struct KeyRotation {
    keys: Arc<dyn KeyStore>,
    signer: Arc<dyn Signer>,
    settings: RotationSettings,
    /// The algorithm of tokens whose resource prefers no other.
    default_algorithm: SigningAlgorithm,
}

/// A change of the stored keys.
struct KeyChange {
    /// The version of the keys that the change depends on.
    version: u64,
    created: CreatedKeys,
    changes: Vec<StateChange>,
}

impl Service {
    /// Returns the published keys (RFC 7517).
    pub async fn jwks(&self, cx: &RequestContext) -> Result<JwkSet, Error> {
        self.inner.follower.snapshot(cx.now).await?;
        Ok(self.inner.ports.signer.jwks(cx.now))
    }

    /// Returns why no key of the configured algorithm signs now, with the remedy. `None`: one
    /// signs.
    #[must_use]
    pub fn find_signing_problem(&self, cx: &RequestContext) -> Option<String> {
        let algorithm = self.settings().algorithm;
        if self.signing_algorithms(cx).contains(&algorithm) {
            return None;
        }
        let is_pending = |key: &KeySchedule| key.algorithm == algorithm && key.state(cx.now) == KeyState::Pending;
        let pending = self.inner.ports.signer.schedules().into_iter().filter(is_pending);
        Some(match pending.map(|key| key.activates_at).min() {
            Some(from) => format!(
                "no {algorithm} key signs before {from}; if the clock was ahead when the key was created, correct the clock and run `errand keys rotate --now`"
            ),
            None => format!("no {algorithm} key is active; run `errand keys rotate --now`"),
        })
    }

    /// Returns the algorithms with an active key.
    #[must_use]
    pub fn signing_algorithms(&self, cx: &RequestContext) -> Vec<SigningAlgorithm> {
        self.inner.ports.signer.active_algorithms(cx.now)
    }

    /// Returns the algorithm to sign with: the one that the resource prefers, once a key of it is
    /// active, and the configured one until then.
    pub(super) fn select_signing_algorithm(
        &self,
        preferred: Option<SigningAlgorithm>,
        cx: &RequestContext,
    ) -> SigningAlgorithm {
        let is_active = |algorithm: &SigningAlgorithm| self.signing_algorithms(cx).contains(algorithm);
        preferred.filter(is_active).unwrap_or(self.settings().algorithm)
    }

    /// Returns the signing keys with their states.
    pub async fn list_keys(&self, cx: &RequestContext) -> Result<Vec<(KeySchedule, KeyState)>, Error> {
        self.inner.follower.snapshot(cx.now).await?;
        let with_state = |key: KeySchedule| {
            let state = key.state(cx.now);
            (key, state)
        };
        Ok(self.inner.ports.signer.schedules().into_iter().map(with_state).collect())
    }

    /// Creates the keys that are needed: one for each algorithm in use if requested, or only where
    /// one is due by age. Returns the new keys; for a rotation at once, the keys that sign now,
    /// which may have been pending. Two replicas that rotate at the same time create
    /// one key: the second finds that of the first.
    pub async fn rotate_keys(
        &self,
        by: &str,
        reason: RotationReason,
        cx: &RequestContext,
    ) -> Result<Vec<(SigningAlgorithm, KeyId)>, Error> {
        self.rotate_keys_idempotently(by, reason, None, cx).await
    }

    /// Rotates the keys like [`rotate_keys`](Self::rotate_keys), at most once for each
    /// `Idempotency-Key`.
    pub async fn rotate_keys_idempotently(
        &self,
        by: &str,
        reason: RotationReason,
        key: Option<String>,
        cx: &RequestContext,
    ) -> Result<Vec<(SigningAlgorithm, KeyId)>, Error> {
        let request = Idempotent::<CreatedKeys>::new(by.to_owned(), key, "rotate keys".into(), cx);
        let record = Record {
            admin: Some(by.to_owned()),
            request_id: Some(cx.request_id.clone()),
            source: cx.source_text(),
            ..Record::new(cx.now, Event::KeyRotate, Outcome::Done)
        };
        let completion = self.commit_with_retry(&request, None, |_| async {
            let snapshot = self.inner.follower.snapshot(cx.now).await?;
            let change = self.inner.key_rotation.rotate(&snapshot.registry, reason, cx.now).await?;
            if change.changes.is_empty() {
                return Ok(Decision::Answer(change.created));
            }
            let created = change.created.clone();
            Ok(Decision::Write(Box::new(change.into_write(by, &request, &record)?), created))
        });
        match completion.await? {
            Completion::Done(created, _) => Ok(created),
            Completion::Replayed(replay) => Ok(replay.response),
            Completion::Refused(conflict) => Err(self.record_refusal(record, conflict).await),
        }
    }

    /// Revokes a key that leaked: from the commit on, it is not in the JWKS and its tokens are
    /// inactive, at every replica. If it was the key that signs, another one takes over at once: a
    /// pending key, or a new one, which is returned. Recipients had no time to fetch the new key;
    /// revoking a leaked key takes precedence over their caches.
    pub async fn revoke_key(
        &self,
        by: &str,
        kid: &KeyId,
        reason: &Reason,
        key: Option<String>,
        cx: &RequestContext,
    ) -> Result<Vec<(SigningAlgorithm, KeyId)>, Error> {
        let fingerprint = format!("revoke key {kid} {reason}");
        let request = Idempotent::<CreatedKeys>::new(by.to_owned(), key, fingerprint, cx);
        let record = Record {
            admin: Some(by.to_owned()),
            requested: Some(json!({"key": kid})),
            reason: Some(reason.to_string()),
            request_id: Some(cx.request_id.clone()),
            source: cx.source_text(),
            ..Record::new(cx.now, Event::KeyRevoke, Outcome::Done)
        };
        let completion = self.commit_with_retry(&request, None, |_| async {
            // Another replica may have created the key a moment ago.
            let snapshot = self.inner.follower.committed_snapshot(cx.now).await?;
            let Some(change) = self.inner.key_rotation.revoke(&snapshot.registry, kid, cx.now).await? else {
                return Ok(Decision::Refuse(ConflictError::NotFound("key")));
            };
            let created = change.created.clone();
            Ok(Decision::Write(Box::new(change.into_write(by, &request, &record)?), created))
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

    /// Seals all stored keys under the current key-encryption key. The keys themselves do not
    /// change, so tokens, client secrets and tags stay valid. Returns the number of keys that were
    /// sealed under another one.
    ///
    /// Every replica must have the current key-encryption key before: a replica that lacks it can't
    /// open the keys, and answers 503.
    pub async fn rekey(&self, by: &str, cx: &RequestContext) -> Result<usize, Error> {
        let request = Idempotent::<usize>::without_key();
        let record = Record {
            admin: Some(by.to_owned()),
            request_id: Some(cx.request_id.clone()),
            source: cx.source_text(),
            ..Record::new(cx.now, Event::KeyRekey, Outcome::Done)
        };
        let completion = self.commit_with_retry(&request, None, |_| async {
            let change = self.inner.key_rotation.rekey().await?;
            if change.changes.is_empty() {
                return Ok(Decision::Answer(0));
            }
            let count = change.changes.len();
            let record = Record { granted: Some(json!({"resealed": count})), ..record.clone() };
            Ok(Decision::Write(Box::new(change.into_rekey(by, record)), count))
        });
        match completion.await? {
            Completion::Done(count, _) => Ok(count),
            Completion::Replayed(replay) => Ok(replay.response),
            Completion::Refused(conflict) => Err(self.record_refusal(record, conflict).await),
        }
    }
}

impl KeyRotation {
    pub(super) fn new(
        keys: Arc<dyn KeyStore>,
        signer: Arc<dyn Signer>,
        settings: RotationSettings,
        default_algorithm: SigningAlgorithm,
    ) -> Self {
        Self { keys, signer, settings, default_algorithm }
    }

    /// Plans a rotation, and creates its keys without storing them.
    async fn rotate(&self, registry: &Registry, reason: RotationReason, now: Timestamp) -> Result<KeyChange, Outage> {
        let (version, schedules) = (self.signer.version(), self.signer.schedules());
        let mut change = KeyChange { version, created: Vec::new(), changes: Vec::new() };
        for algorithm in self.algorithms_in_use(registry) {
            let plan = plan_rotation(&schedules, algorithm, &self.settings, reason, now);
            let Some(plan) = plan else { continue };
            let mut rescheduled = plan.replaced_keys;
            match plan.promoted {
                Some(pending) => {
                    change.created.push((algorithm, pending.kid.clone()));
                    rescheduled.push(pending);
                }
                None => change.add_key(algorithm, self.create_key(algorithm, now, plan.activates_at).await?),
            }
            change.changes.extend(self.reschedule_keys(rescheduled).await?);
        }
        // The key of audit records changes with the signing keys. The very first one is stored
        // already.
        if !change.changes.is_empty() && !schedules.is_empty() {
            change.changes.push(StateChange::PutSealedKey(self.signer.create_audit_key(now)?));
        }
        Ok(change)
    }

    /// Plans the revocation of a key, and creates its successor without storing it if one is
    /// needed. Returns `None` if the key does not exist.
    async fn revoke(&self, registry: &Registry, kid: &KeyId, now: Timestamp) -> Result<Option<KeyChange>, Outage> {
        let (version, schedules) = (self.signer.version(), self.signer.schedules());
        let algorithm = schedules.iter().find(|key| key.kid == *kid).map(|key| key.algorithm);
        let Some((algorithm, plan)) = algorithm.zip(plan_removal(&schedules, kid, now)) else { return Ok(None) };
        let changes = vec![StateChange::RemoveKey(kid.clone())];
        let mut change = KeyChange { version, created: Vec::new(), changes };
        let is_used = self.algorithms_in_use(registry).contains(&algorithm);
        if let Some(activates_at) = plan.new_key_activates_at.filter(|_| is_used) {
            change.add_key(algorithm, self.create_key(algorithm, now, activates_at).await?);
        }
        change.changes.extend(self.reschedule_keys(plan.rescheduled_keys).await?);
        Ok(Some(change))
    }

    /// Plans the sealing of all keys under the current key-encryption key.
    async fn rekey(&self) -> Result<KeyChange, Outage> {
        let stored = self.keys.load_keys().await?;
        let (version, keys, sealed_keys) = (stored.version, stored.keys.clone(), stored.sealed_keys.clone());
        let resealed = self.signer.reseal_keys(stored)?;
        let signing = resealed.keys.into_iter().filter(|key| !keys.contains(key)).map(StateChange::PutKey);
        let others = resealed.sealed_keys.into_iter().filter(|key| !sealed_keys.contains(key));
        let changes = signing.chain(others.map(StateChange::PutSealedKey)).collect();
        Ok(KeyChange { version, created: Vec::new(), changes })
    }

    /// Creates a key on a blocking thread: an RSA key takes a good part of a second.
    async fn create_key(
        &self,
        algorithm: SigningAlgorithm,
        now: Timestamp,
        activates_at: Timestamp,
    ) -> Result<StoredKey, Outage> {
        let signer = Arc::clone(&self.signer);
        let key = tokio::task::spawn_blocking(move || signer.create_key(algorithm, now, activates_at)).await;
        key.map_err(Outage::during("create a signing key"))?
    }

    async fn reschedule_keys(&self, schedules: Vec<KeySchedule>) -> Result<Vec<StateChange>, Outage> {
        if schedules.is_empty() {
            return Ok(Vec::new());
        }
        let stored = self.keys.load_keys().await?.keys;
        let rescheduled = schedules.into_iter().filter_map(|schedule| {
            let key = stored.iter().find(|key| key.schedule.kid == schedule.kid)?;
            Some(StateChange::PutKey(StoredKey { schedule, ..key.clone() }))
        });
        Ok(rescheduled.collect())
    }

    /// Returns the configured algorithm, and those that resources prefer.
    fn algorithms_in_use(&self, registry: &Registry) -> Vec<SigningAlgorithm> {
        let preferred = registry.resources().filter_map(|resource| resource.signing_algorithm);
        let mut algorithms = preferred.chain([self.default_algorithm]).collect::<Vec<_>>();
        algorithms.sort_unstable();
        algorithms.dedup();
        algorithms
    }
}

impl KeyChange {
    fn add_key(&mut self, algorithm: SigningAlgorithm, key: StoredKey) {
        self.created.push((algorithm, key.schedule.kid.clone()));
        self.changes.push(StateChange::PutKey(key));
    }

    fn into_rekey(self, by: &str, record: Record) -> WriteSet {
        WriteSet {
            precondition: Some(Precondition::KeysVersion(self.version)),
            state_changes: self.changes,
            log_entries: vec![NewEntry::keys_changed(by.to_owned(), record.at)],
            audit_records: vec![record],
            ..WriteSet::default()
        }
    }

    fn into_write(self, by: &str, request: &Idempotent<CreatedKeys>, record: &Record) -> Result<WriteSet, Outage> {
        let Self { version, created, changes } = self;
        Ok(WriteSet {
            precondition: Some(Precondition::KeysVersion(version)),
            idempotency: request.storing(&created)?,
            state_changes: changes,
            log_entries: vec![NewEntry::keys_changed(by.to_owned(), record.at)],
            audit_records: vec![Record { granted: Some(json!({"keys": created})), ..record.clone() }],
            ..WriteSet::default()
        })
    }
}
