//! What admins see and change: the registry, secrets, grants; tokens, tasks, revocations and the trail to read.
//!
//! A change of the registry builds on the version it read: if somebody was quicker, it is made anew on what they left.

use std::collections::BTreeMap;

use serde_json::json;

use crate::{
    app::{ApiCaller, Conflict, Cx, Failure, Service, again, revoke::all_gone},
    domain::{
        audit::{Event, Outcome, Record},
        client::{Authentication, Resource},
        encode,
        id::{ClientId, TaskId, TokenId},
        keys::Occasion,
        registry::{Entry, Inconsistency, Kind, Object, OwnedTag, Owner, Registry, taken_for_us},
        revocation::{LogEntry, NewEntry, Target, Verb},
        secret::Secret,
        task::Task,
        time::Timestamp,
    },
    ports::{
        AuditFilter, AuditRow, Change, Expected, Idempotency, Page, Paged, TaskFilter, TokenFilter, TokenRecord, Write,
        Written,
    },
};

/// How often a change is made anew when others are quicker.
pub(super) const ATTEMPTS: usize = 5;

/// One page of the audit trail.
pub type AuditPage = Paged<AuditRow>;

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
    pub async fn put_object(&self, admin: &ApiCaller, object: &Object, cx: &Cx) -> Result<bool, Failure> {
        let (kind, id) = (object.kind(), object.id().to_owned());
        let entry = Entry { object: object.clone(), owner: Owner::Api };
        let record = Record {
            asked: Some(json!({"put": object})),
            resource: Some(format!("{kind} {id}")),
            ..Record::new(cx.now, Event::RegistryChange, Outcome::Done)
        };
        let change = self.change_registry(admin, record, None, cx, |registry| {
            let settings = self.settings();
            if let Some(fault) = taken_for_us(object, &settings.issuer, &settings.trust_domain) {
                return Err(Conflict::Inconsistent(fault.to_string()));
            }
            let old = registry.entry(kind, &id);
            if old.is_some_and(|old| old.owner == Owner::File) {
                return Err(Conflict::OwnedByFile);
            }
            let others = registry.entries().iter().filter(|e| !(e.object.kind() == kind && e.object.id() == id));
            consistent(others.cloned().chain([entry.clone()]).collect(), (kind, &id))?;
            Ok((put(registry, entry.clone()), old.is_none()))
        });
        let is_new = change.await?;
        if let Object::Resource(Resource { signing_algorithm: Some(_), .. }) = object {
            // It may be the first with this algorithm: its key is there before anybody asks for a token.
            self.rotate_keys(&admin.name(), Occasion::Age, cx).await?;
        }
        Ok(is_new)
    }

    /// Removes an object of the registry, its secret, and the grants that name it. Tokens that it takes part in are dead from
    /// then on, and its tasks are over.
    pub async fn remove_object(&self, admin: &ApiCaller, kind: Kind, id: &str, cx: &Cx) -> Result<(), Failure> {
        let record = Record {
            asked: Some(json!({"remove": {"kind": kind, "id": id}})),
            resource: Some(format!("{kind} {id}")),
            ..Record::new(cx.now, Event::RegistryChange, Outcome::Done)
        };
        self.change_registry(admin, record, None, cx, |registry| {
            let old = registry.entry(kind, id).ok_or(Conflict::NotFound(kind.as_str()))?;
            if old.owner == Owner::File {
                return Err(Conflict::OwnedByFile);
            }
            let others = registry.entries().iter().filter(|e| !(e.object.kind() == kind && e.object.id() == id));
            consistent(others.cloned().collect(), (kind, id))?;
            Ok((vec![Change::RemoveObject(kind, id.to_owned())], ()))
        })
        .await?;
        self.after_removals(cx).await;
        Ok(())
    }

    /// What was removed is dead. That its tasks say so can wait for the sweeper, if it must.
    pub(super) async fn after_removals(&self, cx: &Cx) {
        if let Err(failure) = self.end_tasks_of_removed(cx).await {
            tracing::warn!(error = %failure, "tasks of what was removed are left to the sweeper");
        }
    }

    /// Makes a secret for a client that authenticates by one; the old secret is dead from then on. A request that comes
    /// again makes no other one. One that the file gives is the file's: the next start would bring it back.
    pub async fn make_secret(
        &self,
        admin: &ApiCaller,
        client: &ClientId,
        key: Option<String>,
        cx: &Cx,
    ) -> Result<NewSecret, Failure> {
        let request = again::request(admin.name(), key, format!("secret of {client}"), cx);
        let request = request.map(|request| Idempotency { answer: "true".into(), ..request });
        let secret = Secret::new(encode(&self.0.parts.entropy.bytes32()?));
        let tag = self.0.parts.pepper.tag(client.as_str(), &secret);
        let record = Record {
            resource: Some(format!("client {client}")),
            ..Record::new(cx.now, Event::SecretChange, Outcome::Done)
        };
        self.change_registry(admin, record, request, cx, |registry| {
            let known = registry.client(client).ok_or(Conflict::NotFound("client"))?;
            if !matches!(known.authentication(), Authentication::ClientSecretBasic {}) {
                return Err(Conflict::Inconsistent("the client does not authenticate by a secret".into()));
            }
            if registry.tag(client).is_some_and(|known| known.owner == Owner::File) {
                return Err(Conflict::OwnedByFile);
            }
            Ok((vec![Change::PutSecret(client.clone(), OwnedTag { tag: tag.clone(), owner: Owner::Api })], ()))
        })
        .await?;
        Ok(NewSecret { client: client.clone(), secret })
    }

    async fn change_registry<T>(
        &self,
        admin: &ApiCaller,
        record: Record,
        request: Option<Idempotency>,
        cx: &Cx,
        plan: impl Fn(&Registry) -> Result<(Vec<Change>, T), Conflict>,
    ) -> Result<T, Failure> {
        let record = Record { admin: Some(admin.name()), request_id: Some(cx.request_id.clone()), ..record };
        let before = |done: Option<bool>| done.map_or(Ok(()), |_| Err(Failure::from(Conflict::ShownOnce)));
        before(self.answered(request.as_ref()).await?)?;
        for _ in 0..ATTEMPTS {
            let view = self.0.follower.current(cx.now).await?;
            let (changes, result) = match plan(&view.registry) {
                Ok(planned) => planned,
                Err(conflict) => return Err(self.refused_as_it_is(record, conflict).await),
            };
            let write = Write {
                expected: Some(Expected::Registry(view.registry.version())),
                log: log_of(&changes, &view.registry, &admin.name(), cx.now),
                idempotency: request.clone(),
                changes,
                audit: vec![record.clone()],
                ..Write::default()
            };
            let written = self.0.journal.commit(write).await?;
            before(again::first_answer(request.as_ref(), &written)?)?;
            if matches!(written, Written::Done { .. }) {
                return Ok(result);
            }
        }
        Err(self.refused(record, Conflict::Contended))
    }

    /// Notes that an admin was refused what `record` says.
    pub(super) fn refused(&self, record: Record, conflict: Conflict) -> Failure {
        let reason = Some(conflict.to_string());
        self.0.journal.note(Record { outcome: Outcome::Refused, reason, ..record });
        conflict.into()
    }

    /// The same where the answer says how things are. Somebody may have made them so a moment ago, so that is what
    /// everybody goes by when it is said.
    pub(super) async fn refused_as_it_is(&self, record: Record, conflict: Conflict) -> Failure {
        let refusal = self.refused(record, conflict);
        match self.0.journal.settle().await {
            Ok(()) => refusal,
            Err(outage) => outage.into(),
        }
    }

    /// One task.
    pub async fn read_task(&self, id: TaskId) -> Result<Task, Failure> {
        Ok(self.store().task(id).await?.ok_or(Conflict::NotFound("task"))?)
    }

    /// Tasks, newest first.
    pub async fn list_tasks(&self, filter: &TaskFilter, page: &Page) -> Result<Paged<Task>, Failure> {
        Ok(self.store().tasks(filter, page).await?)
    }

    /// One token's record.
    pub async fn read_token(&self, id: TokenId) -> Result<TokenRecord, Failure> {
        Ok(self.store().token(id).await?.ok_or(Conflict::NotFound("token"))?)
    }

    /// Tokens, newest first.
    pub async fn list_tokens(&self, filter: &TokenFilter, page: &Page) -> Result<Paged<TokenRecord>, Failure> {
        Ok(self.store().tokens(filter, page).await?)
    }

    /// Revocations, newest first.
    pub async fn list_revocations(&self, page: &Page) -> Result<Paged<LogEntry>, Failure> {
        Ok(self.store().revocations(page).await?)
    }

    /// The audit trail, newest first.
    pub async fn list_audit(&self, filter: &AuditFilter, page: &Page) -> Result<AuditPage, Failure> {
        Ok(self.store().audit(filter, page).await?)
    }
}

/// Whether the objects fit together; otherwise what is wrong, with the object itself first.
pub(super) fn consistent(entries: Vec<Entry>, about: (Kind, &str)) -> Result<(), Conflict> {
    let Err(faults) = Registry::build(0, entries, BTreeMap::new()) else {
        return Ok(());
    };
    let (own, others): (Vec<_>, Vec<_>) = faults.into_iter().partition(|f| (f.kind, f.id.as_str()) == about);
    Err(Conflict::Inconsistent(listed(if own.is_empty() { &others } else { &own })))
}

pub(super) fn listed(faults: &[Inconsistency]) -> String {
    faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

/// The entry that makes every replica read the registry or the keys again. Never forgotten: a replica may be away for long.
pub(super) fn changed(target: Target, by: String, at: Timestamp) -> NewEntry {
    NewEntry { verb: Verb::Revoke, target, reason: "changed".into(), by, at, forget_after: Timestamp::MAX }
}

/// What puts an object into the registry. At another URI is another server: what was accepted of the tools of the one before
/// says nothing of it.
pub(super) fn put(registry: &Registry, entry: Entry) -> Vec<Change> {
    let forgotten = moved(registry, &entry.object).map(|old| Change::ForgetTools(old.id.clone()));
    forgotten.into_iter().chain([Change::PutObject(Box::new(entry))]).collect()
}

/// The resource as it was, where it is put at another URI.
fn moved<'a>(registry: &'a Registry, object: &Object) -> Option<&'a Resource> {
    let Object::Resource(resource) = object else { return None };
    registry.resource(&resource.id).filter(|old| old.uri != resource.uri)
}

/// What goes into the log with a change of the registry: that it changed, and the end of what is removed or has moved, and of
/// what was got with credentials that are replaced.
pub(super) fn log_of(changes: &[Change], registry: &Registry, by: &str, at: Timestamp) -> Vec<NewEntry> {
    let removed = changes.iter().filter_map(|change| match change {
        Change::RemoveObject(kind, id) => registry.entry(*kind, id),
        _ => None,
    });
    let removed = removed.flat_map(|entry| entry.object.ends()).map(|target| (target, "removed from the registry"));
    let moved = changes.iter().filter_map(|change| match change {
        Change::PutObject(entry) => moved(registry, &entry.object),
        _ => None,
    });
    let moved = moved.map(|old| (Target::Resource(old.uri.clone()), "the resource is at another URI"));
    let renewed = changes.iter().filter_map(|change| new_credentials_of(change, registry));
    let renewed = renewed.map(|id| (Target::Credentials(id.clone()), "the client has other credentials"));
    let ended = removed.chain(moved).chain(renewed).map(|(target, reason)| NewEntry {
        verb: Verb::Revoke,
        target,
        reason: reason.into(),
        by: by.to_owned(),
        at,
        forget_after: all_gone(at),
    });
    ended.chain([changed(Target::Registry, by.to_owned(), at)]).collect()
}

/// The client whose credentials of before are good no more, if a change makes it so: neither is what it got with them. Its
/// task tokens are its requesters', and live on; whoever doubts them revokes the agent.
fn new_credentials_of<'a>(change: &'a Change, registry: &Registry) -> Option<&'a ClientId> {
    match change {
        Change::PutSecret(client, _) | Change::RemoveSecret(client) => registry.tag(client).map(|_| client),
        Change::PutObject(entry) => {
            let client = entry.object.client_id()?;
            let before = registry.client(client)?;
            (Some(before.authentication()) != entry.object.authentication()).then_some(client)
        }
        Change::RemoveObject(..)
        | Change::PutKey(_)
        | Change::RemoveKey(_)
        | Change::PutGrant(_)
        | Change::RemoveGrant(..)
        | Change::PutBreakGlass(_)
        | Change::Review(..)
        | Change::ShutOut(_)
        | Change::LetIn(_)
        | Change::PutTool(_)
        | Change::RemoveTool(..)
        | Change::ForgetTools(_)
        | Change::TurnTask(..) => None,
    }
}
