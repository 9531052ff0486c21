//! Changes of the registry: one write with the state changes, the log entries that follow from
//! them, and the audit record.
//!
//! A change builds on the registry version that it read. If another writer was faster, it is
//! decided again.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::{
    app::{
        ApiCaller, ConflictError, Error, RequestContext, Service,
        commit::{
            approval::apply_approval,
            idempotency::Idempotent,
            retry::{Completion, Decision},
        },
        four_eyes::act_of,
    },
    domain::{
        audit::Record,
        id::{ClientId, ToolName},
        registry::{
            Entry, ObjectKind, Registry, RegistryError, RegistryObject,
            client::Resource,
            targets_ended_by_replacement,
            tool::{KnownTool, ToolState},
        },
        revocation::{LogAction, NewEntry, Target, latest_possible_expiry},
        time::Timestamp,
    },
    ports::{ErrorChain, Precondition, StateChange, WriteSet},
};

/// How many pages of tasks a request ends before it leaves the rest to the periodic maintenance.
const MAX_INLINE_PAGES: usize = 4;

/// The stored response of a request whose result is shown once: that it was carried out.
pub(super) type ShownOnce = bool;

/// A change that needs a second person.
pub(super) struct Protected {
    /// The object as it is before the change; `None` if there is none.
    pub(super) current: Option<Value>,
}

impl Protected {
    /// Describes a change of an object.
    pub(super) fn new(current: Option<&RegistryObject>) -> Self {
        Self { current: current.map(|object| json!(object)) }
    }
}

impl Service {
    /// Changes the registry as `plan` decides on its current version.
    ///
    /// If the change needs a second person, `plan` also returns the state that it changes.
    ///
    /// A request with an idempotency key creates something that is shown once, so a repeated
    /// request is refused.
    pub(super) async fn change_registry<T>(
        &self,
        admin: &ApiCaller,
        record: Record,
        request: &Idempotent<ShownOnce>,
        cx: &RequestContext,
        plan: impl Fn(&Registry) -> Result<(Vec<StateChange>, T, Option<Protected>), ConflictError>,
    ) -> Result<T, Error> {
        let record = Record {
            admin: Some(admin.identity()),
            request_id: Some(cx.request_id.clone()),
            source: cx.source_text(),
            ..record
        };
        let completion = self.commit_with_retry(request, None, |_| async {
            let snapshot = self.inner.follower.snapshot(cx.now).await?;
            let registry = &snapshot.registry;
            let (changes, result, protected) = plan(registry)?;
            let approval = match protected {
                Some(Protected { current }) => {
                    self.find_approval(admin, registry, &act_of(&record, current.as_ref())?, cx)?
                }
                None => None,
            };
            let mut write = WriteSet {
                precondition: Some(Precondition::RegistryVersion(registry.version())),
                idempotency: request.storing(&true)?,
                log_entries: log_entries_for(&changes, registry, &admin.identity(), cx.now),
                state_changes: changes,
                audit_records: vec![record.clone()],
                ..WriteSet::default()
            };
            apply_approval(&mut write, approval);
            Ok(Decision::Write(Box::new(write), result))
        });
        match completion.await? {
            Completion::Done(result, _) => Ok(result),
            Completion::Replayed(_) => Err(ConflictError::SecretAlreadyShown.into()),
            Completion::Refused(conflict) => Err(self.record_refusal_after_barrier(record, conflict).await),
        }
    }

    /// Ends the tasks of removed and disabled objects. Their tokens are already revoked, so a
    /// failure is left to the periodic maintenance.
    pub(super) async fn clean_up_removed(&self, cx: &RequestContext) {
        if let Err(error) = self.end_orphaned_tasks(cx).await {
            tracing::warn!(error = %ErrorChain(&error), "tasks of removed objects are left to the maintenance job");
        }
        self.clean_up_revoked(cx).await;
    }

    /// Ends tasks of revoked parties. Nothing can join them, so a failure is left to the periodic
    /// maintenance, and so are tasks beyond the first ones.
    pub(in crate::app) async fn clean_up_revoked(&self, cx: &RequestContext) {
        if let Err(error) = self.end_tasks_of_revoked_parties(MAX_INLINE_PAGES, cx).await {
            tracing::warn!(error = %ErrorChain(&error), "tasks of revoked parties are left to the maintenance job");
        }
    }
}

/// Checks that the entries are consistent. The error lists the faults of the changed object, or
/// else of the others.
pub(super) fn validate_registry(entries: Vec<Entry>, changed: (ObjectKind, &str)) -> Result<(), ConflictError> {
    let Err(errors) = Registry::build(0, entries, BTreeMap::new()) else {
        return Ok(());
    };
    let (own, others): (Vec<_>, Vec<_>) = errors.into_iter().partition(|e| (e.kind, e.id.as_str()) == changed);
    Err(ConflictError::Inconsistent(join_inconsistencies(if own.is_empty() { &others } else { &own })))
}

pub(super) fn join_inconsistencies(errors: &[RegistryError]) -> String {
    errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

/// Returns the changes that put an object. A new URI means another server, so accepted tool
/// definitions are dropped.
pub(super) fn put_changes(registry: &Registry, entry: Entry) -> Vec<StateChange> {
    let cleared = relocated_resource(registry, &entry.object).map(|old| StateChange::ClearTools(old.id.clone()));
    cleared.into_iter().chain([StateChange::PutObject(Box::new(entry))]).collect()
}

/// Returns the registered resource if the object puts it at another URI.
fn relocated_resource<'a>(registry: &'a Registry, object: &RegistryObject) -> Option<&'a Resource> {
    let RegistryObject::Resource(resource) = object else { return None };
    registry.resource(&resource.id).filter(|old| old.uri != resource.uri)
}

/// Returns the log entries of a change of the registry: the change itself, and the end of whatever
/// it takes away. See [`targets_ended_by_replacement`].
pub(super) fn log_entries_for(changes: &[StateChange], registry: &Registry, by: &str, at: Timestamp) -> Vec<NewEntry> {
    let removed = changes.iter().filter_map(|change| match change {
        StateChange::RemoveObject(kind, id) => registry.entry(*kind, id),
        _ => None,
    });
    let removed =
        removed.flat_map(|entry| entry.object.revocation_targets()).map(|target| (target, "removed from the registry"));
    let replaced = changes.iter().filter_map(|change| match change {
        StateChange::PutObject(new) => Some((registry.entry(new.object.kind(), new.object.id())?, new)),
        _ => None,
    });
    let replaced = replaced.flat_map(|(old, new)| targets_ended_by_replacement(&old.object, &new.object));
    let renewed = changes.iter().filter_map(|change| client_with_new_secret(change, registry));
    let renewed = renewed.map(|id| (Target::Credentials(id.clone()), "the credentials of the client changed"));
    let entry = |verb, target, reason: &str, forget_after| NewEntry {
        verb,
        target,
        reason: reason.into(),
        by: by.to_owned(),
        at,
        forget_after,
    };
    let ended = removed.chain(replaced).chain(renewed);
    let ended = ended.map(|(target, reason)| entry(LogAction::Revoke, target, reason, latest_possible_expiry(at)));
    let listed = tool_changes(changes, registry).into_iter().map(|(verb, target, reason)| match verb {
        LogAction::Revoke => entry(verb, target, reason, latest_possible_expiry(at)),
        // Kept for good, as for agents: the last one counts, whenever a replica starts.
        LogAction::Suspend | LogAction::Resume => entry(verb, target, reason, Timestamp::MAX),
    });
    ended.chain(listed).chain([NewEntry::registry_changed(by.to_owned(), at)]).collect()
}

/// Returns the entries about tools whose observed or accepted definition changes. Tokens are
/// suspended while the server lists another definition than the accepted one, or none. Tokens that
/// were issued for a definition end when an admin accepts another one.
fn tool_changes(changes: &[StateChange], registry: &Registry) -> Vec<(LogAction, Target, &'static str)> {
    let mut after = BTreeMap::<(&ClientId, &ToolName), Option<KnownTool>>::new();
    for change in changes {
        let cleared = match change {
            StateChange::PutTool(record) => {
                after.insert((&record.resource, &record.tool), Some(record.known_tool()));
                continue;
            }
            StateChange::RemoveTool(resource, tool) => {
                after.insert((resource, tool), None);
                continue;
            }
            StateChange::ClearTools(resource) => Some(resource),
            StateChange::RemoveObject(ObjectKind::Resource, id) => {
                registry.entry(ObjectKind::Resource, id).and_then(|entry| entry.object.client_id())
            }
            _ => None,
        };
        let Some(resource) = cleared else { continue };
        after.extend(registry.known_tools_of(resource).map(|(tool, _)| ((resource, tool), None)));
    }
    let mut entries = Vec::new();
    for ((id, tool), after) in &after {
        let Some(resource) = registry.resource(id) else { continue };
        let before = registry.known_tools_of(id).find(|(name, _)| name == tool).map(|(_, known)| known);
        let target = || Target::Tool(resource.uri.clone(), (*tool).clone());
        let is_offered = resource.tools.iter().any(|offered| offered.name == **tool);
        match (is_usable(before), is_usable(after.as_ref())) {
            (true, false) if is_offered => {
                entries.push((LogAction::Suspend, target(), "the server changed or removed the tool"));
            }
            (false, true) => entries.push((LogAction::Resume, target(), "the tool has its accepted definition")),
            (true | false, _) => {}
        }
        let accepted =
            (before.and_then(|known| known.accepted.as_ref()), after.as_ref().and_then(|k| k.accepted.as_ref()));
        if let (Some(old), Some(new)) = accepted
            && old != new
        {
            entries.push((LogAction::Revoke, target(), "another definition of the tool was accepted"));
        }
    }
    entries
}

/// Returns whether a tool with these definitions is usable, if its resource offers it.
fn is_usable(known: Option<&KnownTool>) -> bool {
    known.is_none_or(|known| known.state() == ToolState::Known)
}

/// Returns the client whose old secret becomes invalid by the change. Its API tokens end with it.
/// Its task tokens act for requesters and stay valid; revoking the agent ends them too.
fn client_with_new_secret<'a>(change: &'a StateChange, registry: &Registry) -> Option<&'a ClientId> {
    match change {
        StateChange::PutSecret(client, _) | StateChange::RemoveSecret(client) => {
            registry.secret_tag(client).map(|_| client)
        }
        StateChange::PutObject(_)
        | StateChange::RemoveObject(..)
        | StateChange::PutKey(_)
        | StateChange::RemoveKey(_)
        | StateChange::PutSealedKey(_)
        | StateChange::SealNewStore
        | StateChange::PutCheckpoint(_)
        | StateChange::PutGrant(_)
        | StateChange::RemoveGrant(..)
        | StateChange::PutBreakGlass(_)
        | StateChange::ReviewBreakGlass(..)
        | StateChange::Block(_)
        | StateChange::Unblock(_)
        | StateChange::PutTool(_)
        | StateChange::RemoveTool(..)
        | StateChange::ClearTools(_)
        | StateChange::RecordIssuer(_)
        | StateChange::RecordFile(_)
        | StateChange::TransitionTask(..) => None,
    }
}
