//! What the configuration file declares, brought into the store at the start.

use std::collections::BTreeMap;

use serde_json::json;

use crate::{
    app::{
        ConflictError, Error, RequestContext, Service,
        registry::objects::{MAX_COMMIT_ATTEMPTS, join_inconsistencies, log_entries_for, put_changes},
        replication::follower::load_registry,
    },
    domain::{
        audit::{Event, Outcome, Record},
        id::ClientId,
        registry::{Entry, Registry, RegistryObject, Source, StoredSecretTag},
        secret::Secret,
    },
    ports::{Precondition, StateChange, WriteOutcome, WriteSet},
};

impl Service {
    /// Brings the store to what the configuration file declares: its objects are put, those that an earlier file
    /// declared and this one does not are removed, secrets from files get their tags. Returns whether anything changed.
    /// Two replicas that start at once agree: whoever is second finds nothing to change.
    pub async fn apply_declared(
        &self,
        objects: &[RegistryObject],
        secrets: &[(ClientId, Secret)],
        cx: &RequestContext,
    ) -> Result<bool, Error> {
        for _ in 0..MAX_COMMIT_ATTEMPTS {
            let registry = load_registry(self.store()).await?;
            let (changes, entries) = self.diff_declared(&registry, objects, secrets);
            if changes.is_empty() {
                return Ok(false);
            }
            Registry::build(0, entries, BTreeMap::new())
                .map_err(|faults| ConflictError::Inconsistent(join_inconsistencies(&faults)))?;
            let log = log_entries_for(&changes, &registry, "file", cx.now);
            let names = changes.iter().map(describe_change).collect::<Vec<_>>();
            let write = WriteSet {
                precondition: Some(Precondition::RegistryVersion(registry.version())),
                state_changes: changes,
                log_entries: log,
                audit_records: vec![Record {
                    admin: Some("file".into()),
                    requested: Some(json!({"changes": names})),
                    request_id: Some(cx.request_id.clone()),
                    ..Record::new(cx.now, Event::RegistryChange, Outcome::Done)
                }],
                ..WriteSet::default()
            };
            if matches!(self.inner.writer.commit(write).await?, WriteOutcome::Committed { .. }) {
                self.clean_up_removed(cx).await;
                return Ok(true);
            }
        }
        Err(ConflictError::ConcurrentUpdate.into())
    }

    fn diff_declared(
        &self,
        registry: &Registry,
        objects: &[RegistryObject],
        secrets: &[(ClientId, Secret)],
    ) -> (Vec<StateChange>, Vec<Entry>) {
        let declared =
            |entry: &Entry| objects.iter().any(|o| o.kind() == entry.object.kind() && o.id() == entry.object.id());
        let declares = objects.iter().map(|object| Entry { object: object.clone(), source: Source::File });
        let changed =
            declares.clone().filter(|entry| registry.entry(entry.object.kind(), entry.object.id()) != Some(entry));
        let gone = registry.entries().iter().filter(|entry| entry.source == Source::File && !declared(entry));
        let removals = gone.clone().map(|e| StateChange::RemoveObject(e.object.kind(), e.object.id().to_owned()));
        let tags = secrets.iter().filter_map(|(client, secret)| {
            let pepper = &self.inner.ports.pepper;
            let fits = |owned: &StoredSecretTag| {
                owned.source == Source::File && pepper.matches(client.as_str(), secret, &owned.tag)
            };
            // An object takes the secret of its name with it, also where another kind of object comes in its place.
            let known = registry.secret_tag(client).is_some_and(fits)
                && !gone.clone().any(|e| e.object.id() == client.as_str());
            let tag = || StoredSecretTag { tag: pepper.tag(client.as_str(), secret), source: Source::File };
            (!known).then(|| StateChange::PutSecret(client.clone(), tag()))
        });
        let not_given = |id: &ClientId| !secrets.iter().any(|(client, _)| client == id);
        let taken = registry.secret_tags().filter(|(client, owned)| owned.source == Source::File && not_given(client));
        let taken = taken.map(|(client, _)| StateChange::RemoveSecret(client.clone()));
        let puts = changed.flat_map(|entry| put_changes(registry, entry));
        let changes = removals.chain(taken).chain(puts).chain(tags).collect();
        let kept = registry.entries().iter().filter(|entry| entry.source == Source::Api && !declared(entry)).cloned();
        (changes, kept.chain(declares).collect())
    }
}

fn describe_change(change: &StateChange) -> String {
    match change {
        StateChange::PutObject(entry) => format!("put {} {}", entry.object.kind(), entry.object.id()),
        StateChange::RemoveObject(kind, id) => format!("remove {kind} {id}"),
        StateChange::PutSecret(client, _) => format!("secret of {client}"),
        StateChange::RemoveSecret(client) => format!("no secret of {client}"),
        StateChange::PutKey(key) => format!("key {}", key.schedule.kid),
        StateChange::RemoveKey(kid) => format!("no key {kid}"),
        StateChange::PutGrant(grant) => format!("grant to {}", grant.agent),
        StateChange::PutBreakGlass(glass) => format!("break-glass grant to {}", glass.grant.agent),
        StateChange::ReviewBreakGlass(id, _) => format!("review of the break-glass grant {id}"),
        StateChange::RemoveGrant(id) => format!("withdraw the grant {id}"),
        StateChange::PutTool(record) => format!("tool {} of {}", record.tool, record.resource),
        StateChange::RemoveTool(resource, tool) => format!("no tool {tool} of {resource}"),
        StateChange::ClearTools(resource) => format!("no tools of {resource}"),
        StateChange::Block(one) => format!("{} {} {}", one.kind, one.subject.kind(), one.subject.id()),
        StateChange::Unblock(who) => format!("let in {} {}", who.kind(), who.id()),
        StateChange::TransitionTask(id, turn) => format!("task {id} {}", turn.state),
    }
}
