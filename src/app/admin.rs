//! What admins see and change: the registry, secrets, grants; tokens, tasks, revocations and the trail to read.
//!
//! A change of the registry builds on the version it read: if somebody was quicker, it is made anew on what they left.

use std::collections::BTreeMap;

use serde_json::json;

use crate::{
    app::{ApiCaller, Conflict, Cx, Failure, Service, again, follow::load},
    domain::{
        audit::{Event, Outcome, Record},
        client::Authentication,
        encode,
        id::{ClientId, TaskId, TokenId},
        registry::{Entry, Inconsistency, Kind, Object, Owner, Registry, taken_for_us},
        revocation::{LogEntry, NewEntry, Target},
        secret::Secret,
        task::{Requester, Task},
        time::Timestamp,
    },
    ports::{
        AuditFilter, AuditRow, Change, Expected, Grant, Idempotency, Page, Paged, TaskFilter, TokenFilter, TokenRecord,
        Write, Written,
    },
};

/// How often a change is made anew when others are quicker.
pub(super) const ATTEMPTS: usize = 5;

/// An object as an admin puts it.
pub type PutObject = Object;
/// One page of the audit trail.
pub type AuditPage = Paged<AuditRow>;

/// A grant as an admin records it.
#[derive(Debug)]
pub struct GrantRequest {
    /// For whom.
    pub requester: Requester,
    /// Who.
    pub agent: ClientId,
    /// Until when.
    pub until: Timestamp,
    /// The caller's `Idempotency-Key`: the same request again gets the same answer.
    pub idempotency_key: Option<String>,
}

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
    pub async fn put_object(&self, admin: &ApiCaller, object: &PutObject, cx: &Cx) -> Result<bool, Failure> {
        let (kind, id) = (object.kind(), object.id().to_owned());
        let settings = self.settings();
        if let Some(fault) = taken_for_us(object, &settings.issuer, &settings.trust_domain) {
            return Err(Conflict::Inconsistent(fault.to_string()).into());
        }
        let entry = Entry { object: object.clone(), owner: Owner::Api };
        self.change_registry(admin, None, cx, |registry| {
            let old = registry.entry(kind, &id);
            if old.is_some_and(|old| old.owner == Owner::File) {
                return Err(Conflict::OwnedByFile);
            }
            let others = registry.entries().iter().filter(|e| !(e.object.kind() == kind && e.object.id() == id));
            consistent(others.cloned().chain([entry.clone()]).collect(), (kind, &id))?;
            let record = Record {
                asked: Some(json!({"put": entry.object})),
                resource: Some(format!("{kind} {id}")),
                ..Record::new(cx.now, Event::RegistryChange, Outcome::Done)
            };
            Ok((vec![Change::PutObject(Box::new(entry.clone()))], record, old.is_none()))
        })
        .await
    }

    /// Removes an object of the registry, and its secret. Tokens that it takes part in are dead from then on.
    pub async fn remove_object(&self, admin: &ApiCaller, kind: Kind, id: &str, cx: &Cx) -> Result<(), Failure> {
        self.change_registry(admin, None, cx, |registry| {
            let old = registry.entry(kind, id).ok_or(Conflict::NotFound(kind.as_str()))?;
            if old.owner == Owner::File {
                return Err(Conflict::OwnedByFile);
            }
            let others = registry.entries().iter().filter(|e| !(e.object.kind() == kind && e.object.id() == id));
            consistent(others.cloned().collect(), (kind, id))?;
            let record = Record {
                asked: Some(json!({"remove": {"kind": kind, "id": id}})),
                resource: Some(format!("{kind} {id}")),
                ..Record::new(cx.now, Event::RegistryChange, Outcome::Done)
            };
            Ok((vec![Change::RemoveObject(kind, id.to_owned())], record, ()))
        })
        .await
    }

    /// Makes a secret for a client that authenticates by one; the old secret is dead from then on. A request that comes
    /// again makes no other one.
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
        self.change_registry(admin, request, cx, |registry| {
            let known = registry.client(client).ok_or(Conflict::NotFound("client"))?;
            if !matches!(known.authentication(), Authentication::ClientSecretBasic {}) {
                return Err(Conflict::Inconsistent("the client does not authenticate by a secret".into()));
            }
            let record = Record {
                resource: Some(format!("client {client}")),
                ..Record::new(cx.now, Event::SecretChange, Outcome::Done)
            };
            Ok((vec![Change::PutSecret(client.clone(), tag.clone())], record, ()))
        })
        .await?;
        Ok(NewSecret { client: client.clone(), secret })
    }

    async fn change_registry<T>(
        &self,
        admin: &ApiCaller,
        request: Option<Idempotency>,
        cx: &Cx,
        plan: impl Fn(&Registry) -> Result<(Vec<Change>, Record, T), Conflict>,
    ) -> Result<T, Failure> {
        let before = |done: Option<bool>| done.map_or(Ok(()), |_| Err(Failure::from(Conflict::ShownOnce)));
        before(self.answered(request.as_ref()).await?)?;
        for _ in 0..ATTEMPTS {
            let view = self.0.follower.current(cx.now).await?;
            let (changes, record, result) = plan(&view.registry)?;
            let write = Write {
                expected: Some(Expected::Registry(view.registry.version())),
                idempotency: request.clone(),
                changes,
                log: vec![changed(Target::Registry, admin.name(), cx.now)],
                audit: vec![Record { admin: Some(admin.name()), request_id: Some(cx.request_id.clone()), ..record }],
                ..Write::default()
            };
            let written = self.0.journal.commit(write).await?;
            before(again::first_answer(request.as_ref(), &written)?)?;
            if matches!(written, Written::Done { .. }) {
                return Ok(result);
            }
        }
        Err(Conflict::Contended.into())
    }

    /// Brings the store to what the configuration file declares: its objects are put, those that an earlier file
    /// declared and this one does not are removed, secrets from files get their tags. Returns whether anything changed.
    /// Two replicas that start at once agree: whoever is second finds nothing to change.
    pub async fn apply_file(
        &self,
        objects: &[Object],
        secrets: &[(ClientId, Secret)],
        cx: &Cx,
    ) -> Result<bool, Failure> {
        for _ in 0..ATTEMPTS {
            let registry = load(self.store()).await?;
            let (changes, entries) = self.file_changes(&registry, objects, secrets);
            if changes.is_empty() {
                return Ok(false);
            }
            Registry::build(0, entries, BTreeMap::new()).map_err(|faults| Conflict::Inconsistent(listed(&faults)))?;
            let names = changes.iter().map(named).collect::<Vec<_>>();
            let write = Write {
                expected: Some(Expected::Registry(registry.version())),
                changes,
                log: vec![changed(Target::Registry, "file".into(), cx.now)],
                audit: vec![Record {
                    admin: Some("file".into()),
                    asked: Some(json!({"changes": names})),
                    request_id: Some(cx.request_id.clone()),
                    ..Record::new(cx.now, Event::RegistryChange, Outcome::Done)
                }],
                ..Write::default()
            };
            if matches!(self.0.journal.commit(write).await?, Written::Done { .. }) {
                return Ok(true);
            }
        }
        Err(Conflict::Contended.into())
    }

    fn file_changes(
        &self,
        registry: &Registry,
        objects: &[Object],
        secrets: &[(ClientId, Secret)],
    ) -> (Vec<Change>, Vec<Entry>) {
        let declared =
            |entry: &Entry| objects.iter().any(|o| o.kind() == entry.object.kind() && o.id() == entry.object.id());
        let put = objects.iter().map(|object| Entry { object: object.clone(), owner: Owner::File });
        let changed = put.clone().filter(|entry| registry.entry(entry.object.kind(), entry.object.id()) != Some(entry));
        let gone = registry.entries().iter().filter(|entry| entry.owner == Owner::File && !declared(entry));
        let removals = gone.map(|e| Change::RemoveObject(e.object.kind(), e.object.id().to_owned()));
        let tags = secrets.iter().filter_map(|(client, secret)| {
            let pepper = &self.0.parts.pepper;
            let known = registry.tag(client).is_some_and(|tag| pepper.matches(client.as_str(), secret, tag));
            (!known).then(|| Change::PutSecret(client.clone(), pepper.tag(client.as_str(), secret)))
        });
        let changes = removals.chain(changed.map(|e| Change::PutObject(Box::new(e)))).chain(tags).collect();
        let kept = registry.entries().iter().filter(|entry| entry.owner == Owner::Api && !declared(entry)).cloned();
        (changes, kept.chain(put).collect())
    }

    /// Records that an agent may act for a requester.
    pub async fn put_grant(&self, admin: &ApiCaller, request: GrantRequest, cx: &Cx) -> Result<Grant, Failure> {
        admin.client().view().registry.agent(&request.agent).ok_or(Conflict::NotFound("agent"))?;
        let GrantRequest { requester, agent, until, idempotency_key } = request;
        let fingerprint = format!("grant {} {} {agent} {}", requester.issuer, requester.subject, until.unix());
        let request = again::request(admin.name(), idempotency_key, fingerprint, cx);
        let idempotency = request.map(|request| Idempotency { answer: cx.now.unix().to_string(), ..request });
        let grant = Grant { requester, agent, until, by: admin.name(), at: cx.now };
        let record = Record {
            granted: Some(json!({"until": grant.until})),
            ..grant_record(admin, &grant.requester, &grant.agent, cx)
        };
        let changes = vec![Change::PutGrant(grant.clone())];
        let write = Write { idempotency: idempotency.clone(), changes, audit: vec![record], ..Write::default() };
        let written = self.0.journal.commit(write).await?;
        let at = again::first_answer(idempotency.as_ref(), &written)?.map_or(grant.at, Timestamp::from_unix);
        Ok(Grant { at, ..grant })
    }

    /// Withdraws a grant. Tokens that rest on it live out their minutes; ending those is a revocation.
    pub async fn remove_grant(
        &self,
        admin: &ApiCaller,
        requester: &Requester,
        agent: &ClientId,
        cx: &Cx,
    ) -> Result<(), Failure> {
        self.store().grant(requester, agent).await?.ok_or(Conflict::NotFound("grant"))?;
        let record = Record { asked: Some(json!("withdraw")), ..grant_record(admin, requester, agent, cx) };
        let changes = vec![Change::RemoveGrant(requester.clone(), agent.clone())];
        self.0.journal.commit(Write { changes, audit: vec![record], ..Write::default() }).await?;
        Ok(())
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

    /// Grants.
    pub async fn list_grants(&self, page: &Page) -> Result<Paged<Grant>, Failure> {
        Ok(self.store().grants(page).await?)
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
fn consistent(entries: Vec<Entry>, about: (Kind, &str)) -> Result<(), Conflict> {
    let Err(faults) = Registry::build(0, entries, BTreeMap::new()) else {
        return Ok(());
    };
    let (own, others): (Vec<_>, Vec<_>) = faults.into_iter().partition(|f| (f.kind, f.id.as_str()) == about);
    Err(Conflict::Inconsistent(listed(if own.is_empty() { &others } else { &own })))
}

fn listed(faults: &[Inconsistency]) -> String {
    faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

/// The entry that makes every replica read the registry or the keys again. Never forgotten: a replica may be away for long.
pub(super) fn changed(target: Target, by: String, at: Timestamp) -> NewEntry {
    NewEntry { target, reason: "changed".into(), by, at, forget_after: Timestamp::MAX }
}

fn named(change: &Change) -> String {
    match change {
        Change::PutObject(entry) => format!("put {} {}", entry.object.kind(), entry.object.id()),
        Change::RemoveObject(kind, id) => format!("remove {kind} {id}"),
        Change::PutSecret(client, _) => format!("secret of {client}"),
        Change::PutKey(key) => format!("key {}", key.dates.kid),
        Change::PutGrant(grant) => format!("grant to {}", grant.agent),
        Change::RemoveGrant(_, agent) => format!("withdraw the grant to {agent}"),
        Change::SetTask(id, state) => format!("task {id} {}", state.as_str()),
    }
}

fn grant_record(admin: &ApiCaller, requester: &Requester, agent: &ClientId, cx: &Cx) -> Record {
    Record {
        admin: Some(admin.name()),
        requester: Some(requester.clone()),
        agents: vec![agent.to_string()],
        request_id: Some(cx.request_id.clone()),
        ..Record::new(cx.now, Event::GrantChange, Outcome::Done)
    }
}
