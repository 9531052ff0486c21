//! The objects and secrets that the configuration file declares, applied to the store at start.

use std::collections::BTreeMap;

use serde_json::json;

use crate::{
    app::{
        ConflictError, Error, RequestContext, Service,
        commit::{
            idempotency::{Idempotent, NoResponse, Replay},
            retry::{Completion, Decision},
        },
        registry::changes::{join_inconsistencies, log_entries_for, put_changes},
        replication::follower::load_registry,
    },
    domain::{
        audit::{Event, Outcome, Record},
        id::ClientId,
        registry::{Entry, Registry, RegistryObject, Source, StoredSecretTag},
        secret::Secret,
    },
    ports::{Precondition, StateChange, WriteSet},
};

impl Service {
    /// Applies the configuration file to the store: puts the declared objects, removes objects that
    /// only an earlier file declared, and stores the tags of secrets. Returns whether anything
    /// changed.
    ///
    /// Replicas that start at the same time agree: the second one finds nothing to change.
    pub async fn apply_declared(
        &self,
        objects: &[RegistryObject],
        secrets: &[(ClientId, Secret)],
        cx: &RequestContext,
    ) -> Result<bool, Error> {
        let request = Idempotent::<NoResponse>::without_key();
        let completion = self.commit_with_retry(&request, None, |_| async {
            let registry = load_registry(self.store()).await?;
            let (changes, entries) = self.diff_declared(&registry, objects, secrets);
            if changes.is_empty() {
                return Ok(Decision::Answer(false));
            }
            if let Err(errors) = Registry::build(0, entries, BTreeMap::new()) {
                return Ok(Decision::Refuse(ConflictError::Inconsistent(join_inconsistencies(&errors))));
            }
            let descriptions = changes.iter().map(describe_change).collect::<Vec<_>>();
            let write = WriteSet {
                precondition: Some(Precondition::RegistryVersion(registry.version())),
                log_entries: log_entries_for(&changes, &registry, "file", cx.now),
                state_changes: changes,
                audit_records: vec![Record {
                    admin: Some("file".into()),
                    requested: Some(json!({"changes": descriptions})),
                    request_id: Some(cx.request_id.clone()),
                    ..Record::new(cx.now, Event::RegistryChange, Outcome::Done)
                }],
                ..WriteSet::default()
            };
            Ok(Decision::Write(Box::new(write), true))
        });
        match completion.await? {
            Completion::Done(has_changed, _) => {
                if has_changed {
                    self.clean_up_removed(cx).await;
                }
                Ok(has_changed)
            }
            Completion::Replayed(Replay { response, .. }) => match response {},
            Completion::Refused(conflict) => Err(conflict.into()),
        }
    }

    /// Returns the changes from the stored registry to the declared one, and the entries after
    /// these changes.
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
        let removed = registry.entries().iter().filter(|entry| entry.source == Source::File && !declared(entry));
        let removals = removed.clone().map(|e| StateChange::RemoveObject(e.object.kind(), e.object.id().to_owned()));
        let tags = secrets.iter().filter_map(|(client, secret)| {
            let pepper = &self.inner.ports.pepper;
            let matches = |stored: &StoredSecretTag| {
                stored.source == Source::File && pepper.matches(client.as_str(), secret, &stored.tag)
            };
            // Removing an object also removes the secret of its id, even if an object of another
            // kind takes the id.
            let is_current = registry.secret_tag(client).is_some_and(matches)
                && !removed.clone().any(|e| e.object.id() == client.as_str());
            let tag = || StoredSecretTag { tag: pepper.tag(client.as_str(), secret), source: Source::File };
            (!is_current).then(|| StateChange::PutSecret(client.clone(), tag()))
        });
        let is_undeclared = |id: &ClientId| !secrets.iter().any(|(client, _)| client == id);
        let dropped =
            registry.secret_tags().filter(|(client, stored)| stored.source == Source::File && is_undeclared(client));
        let dropped = dropped.map(|(client, _)| StateChange::RemoveSecret(client.clone()));
        let puts = changed.flat_map(|entry| put_changes(registry, entry));
        let changes = removals.chain(dropped).chain(puts).chain(tags).collect();
        let kept = registry.entries().iter().filter(|entry| entry.source == Source::Api && !declared(entry)).cloned();
        (changes, kept.chain(declares).collect())
    }
}

/// Describes a change in the audit record.
fn describe_change(change: &StateChange) -> String {
    match change {
        StateChange::PutObject(entry) => format!("put {} {}", entry.object.kind(), entry.object.id()),
        StateChange::RemoveObject(kind, id) => format!("remove {kind} {id}"),
        StateChange::PutSecret(client, _) => format!("put a secret of {client}"),
        StateChange::RemoveSecret(client) => format!("remove the secret of {client}"),
        StateChange::PutKey(key) => format!("put key {}", key.schedule.kid),
        StateChange::RemoveKey(kid) => format!("remove key {kid}"),
        StateChange::PutGrant(grant) => format!("grant to {}", grant.agent),
        StateChange::PutBreakGlass(glass) => format!("break-glass grant to {}", glass.grant.agent),
        StateChange::ReviewBreakGlass(id, _) => format!("review of the break-glass grant {id}"),
        StateChange::RemoveGrant(id) => format!("withdraw the grant {id}"),
        StateChange::PutTool(record) => format!("put tool {} of {}", record.tool, record.resource),
        StateChange::RemoveTool(resource, tool) => format!("remove tool {tool} of {resource}"),
        StateChange::ClearTools(resource) => format!("remove the tools of {resource}"),
        StateChange::Block(block) => format!("{} {} {}", block.kind, block.subject.kind(), block.subject.id()),
        StateChange::Unblock(subject) => format!("unblock {} {}", subject.kind(), subject.id()),
        StateChange::TransitionTask(id, transition) => format!("task {id} {}", transition.state),
    }
}
