//! What admins see and change: the registry, secrets, grants; tokens, tasks, revocations and the trail to read.
//!
//! A change of the registry builds on the version it read: if somebody was quicker, it is made anew on what they left.

use std::collections::BTreeMap;

use serde_json::json;

use crate::{
    app::{ApiCaller, ConflictError, Error, RequestContext, Service, commit::idempotency},
    domain::{
        audit::{Event, Outcome, Record},
        encode_base64url,
        id::{ClientId, TaskId, TokenId},
        keys::RotationReason,
        registry::{
            Entry, ObjectKind, Registry, RegistryError, RegistryObject, Source, StoredSecretTag,
            client::{Authentication, Resource},
            collides_with_issuer,
        },
        revocation::{LogAction, LogEntry, NewEntry, Target, latest_possible_expiry},
        secret::Secret,
        task::Task,
        time::Timestamp,
    },
    ports::{
        AuditFilter, AuditRow, IdempotentRequest, Page, PageRequest, Precondition, StateChange, TaskFilter,
        TokenFilter, TokenRecord, WriteOutcome, WriteSet,
    },
};

/// How often a change is made anew when others are quicker.
pub(in crate::app) const MAX_COMMIT_ATTEMPTS: usize = 5;

/// One page of the audit trail.
pub type AuditPage = Page<AuditRow>;

/// A fresh client secret. It is shown once; only its tag is kept.
#[derive(Debug)]
pub struct NewSecret {
    /// The client.
    pub client: ClientId,
    /// 256 bits, base64url.
    pub secret: Secret,
}

impl Service {
    /// Puts an object of the registry, new or in place of the old one. Returns whether it is new.
    pub async fn put_object(
        &self,
        admin: &ApiCaller,
        object: &RegistryObject,
        cx: &RequestContext,
    ) -> Result<bool, Error> {
        let (kind, id) = (object.kind(), object.id().to_owned());
        let entry = Entry { object: object.clone(), source: Source::Api };
        let record = Record {
            requested: Some(json!({"put": object})),
            resource: Some(format!("{kind} {id}")),
            ..Record::new(cx.now, Event::RegistryChange, Outcome::Done)
        };
        let change = self.change_registry(admin, record, None, cx, |registry| {
            let settings = self.settings();
            if let Some(fault) = collides_with_issuer(object, &settings.issuer, &settings.trust_domain) {
                return Err(ConflictError::Inconsistent(fault.to_string()));
            }
            let old = registry.entry(kind, &id);
            if old.is_some_and(|old| old.source == Source::File) {
                return Err(ConflictError::ManagedByFile);
            }
            let others = registry.entries().iter().filter(|e| !(e.object.kind() == kind && e.object.id() == id));
            validate_registry(others.cloned().chain([entry.clone()]).collect(), (kind, &id))?;
            Ok((put_changes(registry, entry.clone()), old.is_none()))
        });
        let is_new = change.await?;
        if let RegistryObject::Resource(Resource { signing_algorithm: Some(_), .. }) = object {
            // It may be the first with this algorithm: its key is there before anybody asks for a token.
            self.rotate_keys(&admin.identity(), RotationReason::Age, cx).await?;
        }
        Ok(is_new)
    }

    /// Removes an object of the registry, its secret, and the grants that name it. Tokens that it takes part in are dead from
    /// then on, and its tasks are over.
    pub async fn remove_object(
        &self,
        admin: &ApiCaller,
        kind: ObjectKind,
        id: &str,
        cx: &RequestContext,
    ) -> Result<(), Error> {
        let record = Record {
            requested: Some(json!({"remove": {"kind": kind, "id": id}})),
            resource: Some(format!("{kind} {id}")),
            ..Record::new(cx.now, Event::RegistryChange, Outcome::Done)
        };
        self.change_registry(admin, record, None, cx, |registry| {
            let old = registry.entry(kind, id).ok_or(ConflictError::NotFound(kind.as_str()))?;
            if old.source == Source::File {
                return Err(ConflictError::ManagedByFile);
            }
            let others = registry.entries().iter().filter(|e| !(e.object.kind() == kind && e.object.id() == id));
            validate_registry(others.cloned().collect(), (kind, id))?;
            Ok((vec![StateChange::RemoveObject(kind, id.to_owned())], ()))
        })
        .await?;
        self.clean_up_removed(cx).await;
        Ok(())
    }

    /// What was removed is dead. That its tasks say so can wait for the sweeper, if it must.
    pub(in crate::app) async fn clean_up_removed(&self, cx: &RequestContext) {
        if let Err(failure) = self.end_orphaned_tasks(cx).await {
            tracing::warn!(error = %failure, "tasks of what was removed are left to the sweeper");
        }
    }

    /// Makes a secret for a client that authenticates by one; the old secret is dead from then on. A request that comes
    /// again makes no other one. One that the file gives is the file's: the next start would bring it back.
    pub async fn create_secret(
        &self,
        admin: &ApiCaller,
        client: &ClientId,
        key: Option<String>,
        cx: &RequestContext,
    ) -> Result<NewSecret, Error> {
        let request = idempotency::build_idempotency(admin.identity(), key, format!("secret of {client}"), cx);
        let request = request.map(|request| IdempotentRequest { response: "true".into(), ..request });
        let secret = Secret::new(encode_base64url(&self.0.ports.entropy.random_bytes32()?));
        let tag = self.0.ports.pepper.tag(client.as_str(), &secret);
        let record = Record {
            resource: Some(format!("client {client}")),
            ..Record::new(cx.now, Event::SecretChange, Outcome::Done)
        };
        self.change_registry(admin, record, request, cx, |registry| {
            let known = registry.client(client).ok_or(ConflictError::NotFound("client"))?;
            if !matches!(known.authentication(), Authentication::ClientSecretBasic {}) {
                return Err(ConflictError::Inconsistent("the client does not authenticate by a secret".into()));
            }
            if registry.secret_tag(client).is_some_and(|known| known.source == Source::File) {
                return Err(ConflictError::ManagedByFile);
            }
            Ok((
                vec![StateChange::PutSecret(client.clone(), StoredSecretTag { tag: tag.clone(), source: Source::Api })],
                (),
            ))
        })
        .await?;
        Ok(NewSecret { client: client.clone(), secret })
    }

    async fn change_registry<T>(
        &self,
        admin: &ApiCaller,
        record: Record,
        request: Option<IdempotentRequest>,
        cx: &RequestContext,
        plan: impl Fn(&Registry) -> Result<(Vec<StateChange>, T), ConflictError>,
    ) -> Result<T, Error> {
        let record = Record { admin: Some(admin.identity()), request_id: Some(cx.request_id.clone()), ..record };
        let before = |done: Option<bool>| done.map_or(Ok(()), |_| Err(Error::from(ConflictError::SecretAlreadyShown)));
        before(self.find_stored_response(request.as_ref()).await?)?;
        for _ in 0..MAX_COMMIT_ATTEMPTS {
            let snapshot = self.0.follower.snapshot(cx.now).await?;
            let (changes, result) = match plan(&snapshot.registry) {
                Ok(planned) => planned,
                Err(conflict) => return Err(self.record_refusal_after_barrier(record, conflict).await),
            };
            let write = WriteSet {
                precondition: Some(Precondition::RegistryVersion(snapshot.registry.version())),
                log_entries: log_entries_for(&changes, &snapshot.registry, &admin.identity(), cx.now),
                idempotency: request.clone(),
                state_changes: changes,
                audit_records: vec![record.clone()],
                ..WriteSet::default()
            };
            let written = self.0.writer.commit(write).await?;
            before(idempotency::read_stored_response(request.as_ref(), &written)?)?;
            if matches!(written, WriteOutcome::Committed { .. }) {
                return Ok(result);
            }
        }
        Err(self.record_refusal(record, ConflictError::ConcurrentUpdate))
    }

    /// Notes that an admin was refused what `record` says.
    pub(in crate::app) fn record_refusal(&self, record: Record, conflict: ConflictError) -> Error {
        let reason = Some(conflict.to_string());
        self.0.writer.enqueue_audit(Record { outcome: Outcome::Refused, reason, ..record });
        conflict.into()
    }

    /// The same where the answer says how things are. Somebody may have made them so a moment ago, so that is what
    /// everybody goes by when it is said.
    pub(in crate::app) async fn record_refusal_after_barrier(&self, record: Record, conflict: ConflictError) -> Error {
        let refusal = self.record_refusal(record, conflict);
        match self.0.writer.await_barrier().await {
            Ok(()) => refusal,
            Err(outage) => outage.into(),
        }
    }

    /// One task.
    pub async fn read_task(&self, id: TaskId) -> Result<Task, Error> {
        Ok(self.store().find_task(id).await?.ok_or(ConflictError::NotFound("task"))?)
    }

    /// Tasks, newest first.
    pub async fn list_tasks(&self, filter: &TaskFilter, page: &PageRequest) -> Result<Page<Task>, Error> {
        Ok(self.store().list_tasks(filter, page).await?)
    }

    /// One token's record.
    pub async fn read_token(&self, id: TokenId) -> Result<TokenRecord, Error> {
        Ok(self.store().find_token(id).await?.ok_or(ConflictError::NotFound("token"))?)
    }

    /// Tokens, newest first.
    pub async fn list_tokens(&self, filter: &TokenFilter, page: &PageRequest) -> Result<Page<TokenRecord>, Error> {
        Ok(self.store().list_tokens(filter, page).await?)
    }

    /// Revocations, newest first.
    pub async fn list_revocations(&self, page: &PageRequest) -> Result<Page<LogEntry>, Error> {
        Ok(self.store().list_revocations(page).await?)
    }

    /// The audit trail, newest first.
    pub async fn list_audit(&self, filter: &AuditFilter, page: &PageRequest) -> Result<AuditPage, Error> {
        Ok(self.store().list_audit_records(filter, page).await?)
    }
}

/// Whether the objects fit together; otherwise what is wrong, with the object itself first.
pub(in crate::app) fn validate_registry(entries: Vec<Entry>, about: (ObjectKind, &str)) -> Result<(), ConflictError> {
    let Err(faults) = Registry::build(0, entries, BTreeMap::new()) else {
        return Ok(());
    };
    let (own, others): (Vec<_>, Vec<_>) = faults.into_iter().partition(|f| (f.kind, f.id.as_str()) == about);
    Err(ConflictError::Inconsistent(join_inconsistencies(if own.is_empty() { &others } else { &own })))
}

pub(in crate::app) fn join_inconsistencies(faults: &[RegistryError]) -> String {
    faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

/// What puts an object into the registry. At another URI is another server: what was accepted of the tools of the one before
/// says nothing of it.
pub(in crate::app) fn put_changes(registry: &Registry, entry: Entry) -> Vec<StateChange> {
    let forgotten = relocated_resource(registry, &entry.object).map(|old| StateChange::ClearTools(old.id.clone()));
    forgotten.into_iter().chain([StateChange::PutObject(Box::new(entry))]).collect()
}

/// The resource as it was, where it is put at another URI.
fn relocated_resource<'a>(registry: &'a Registry, object: &RegistryObject) -> Option<&'a Resource> {
    let RegistryObject::Resource(resource) = object else { return None };
    registry.resource(&resource.id).filter(|old| old.uri != resource.uri)
}

/// What goes into the log with a change of the registry: that it changed, and the end of what is removed or has moved, and of
/// what was got with credentials that are replaced.
pub(in crate::app) fn log_entries_for(
    changes: &[StateChange],
    registry: &Registry,
    by: &str,
    at: Timestamp,
) -> Vec<NewEntry> {
    let removed = changes.iter().filter_map(|change| match change {
        StateChange::RemoveObject(kind, id) => registry.entry(*kind, id),
        _ => None,
    });
    let removed =
        removed.flat_map(|entry| entry.object.revocation_targets()).map(|target| (target, "removed from the registry"));
    let moved = changes.iter().filter_map(|change| match change {
        StateChange::PutObject(entry) => relocated_resource(registry, &entry.object),
        _ => None,
    });
    let moved = moved.map(|old| (Target::Resource(old.uri.clone()), "the resource is at another URI"));
    let renewed = changes.iter().filter_map(|change| client_with_new_credentials(change, registry));
    let renewed = renewed.map(|id| (Target::Credentials(id.clone()), "the client has other credentials"));
    let ended = removed.chain(moved).chain(renewed).map(|(target, reason)| NewEntry {
        verb: LogAction::Revoke,
        target,
        reason: reason.into(),
        by: by.to_owned(),
        at,
        forget_after: latest_possible_expiry(at),
    });
    ended.chain([NewEntry::registry_changed(by.to_owned(), at)]).collect()
}

/// The client whose credentials of before are good no more, if a change makes it so: neither is what it got with them. Its
/// task tokens are its requesters', and live on; whoever doubts them revokes the agent.
fn client_with_new_credentials<'a>(change: &'a StateChange, registry: &Registry) -> Option<&'a ClientId> {
    match change {
        StateChange::PutSecret(client, _) | StateChange::RemoveSecret(client) => {
            registry.secret_tag(client).map(|_| client)
        }
        StateChange::PutObject(entry) => {
            let client = entry.object.client_id()?;
            let before = registry.client(client)?;
            (Some(before.authentication()) != entry.object.authentication()).then_some(client)
        }
        StateChange::RemoveObject(..)
        | StateChange::PutKey(_)
        | StateChange::RemoveKey(_)
        | StateChange::PutGrant(_)
        | StateChange::RemoveGrant(..)
        | StateChange::PutBreakGlass(_)
        | StateChange::ReviewBreakGlass(..)
        | StateChange::Block(_)
        | StateChange::Unblock(_)
        | StateChange::PutTool(_)
        | StateChange::RemoveTool(..)
        | StateChange::ClearTools(_)
        | StateChange::TransitionTask(..) => None,
    }
}
