//! Changes of the registry: one write with the state changes, the log entries that follow from
//! them, and the audit record.
//!
//! A change builds on the registry version that it read. If another writer was faster, it is
//! decided again.

use std::collections::BTreeMap;

use crate::{
    app::{
        ApiCaller, ConflictError, Error, RequestContext, Service,
        commit::{
            idempotency::Idempotent,
            retry::{Completion, Decision},
        },
    },
    domain::{
        audit::Record,
        id::ClientId,
        registry::{Entry, ObjectKind, Registry, RegistryError, RegistryObject, client::Resource},
        revocation::{LogAction, NewEntry, Target, latest_possible_expiry},
        time::Timestamp,
    },
    ports::{ErrorChain, Precondition, StateChange, WriteSet},
};

/// The stored response of a request whose result is shown once: that it was carried out.
pub(super) type ShownOnce = bool;

impl Service {
    /// Changes the registry as `plan` decides on its current version.
    ///
    /// A request with an idempotency key creates something that is shown once, so a repeated
    /// request is refused.
    pub(super) async fn change_registry<T>(
        &self,
        admin: &ApiCaller,
        record: Record,
        request: &Idempotent<ShownOnce>,
        cx: &RequestContext,
        plan: impl Fn(&Registry) -> Result<(Vec<StateChange>, T), ConflictError>,
    ) -> Result<T, Error> {
        let record = Record { admin: Some(admin.identity()), request_id: Some(cx.request_id.clone()), ..record };
        let completion = self.commit_with_retry(request, None, |_| async {
            let snapshot = self.inner.follower.snapshot(cx.now).await?;
            let registry = &snapshot.registry;
            let (changes, result) = plan(registry)?;
            let write = WriteSet {
                precondition: Some(Precondition::RegistryVersion(registry.version())),
                idempotency: request.storing(&true)?,
                log_entries: log_entries_for(&changes, registry, &admin.identity(), cx.now),
                state_changes: changes,
                audit_records: vec![record.clone()],
                ..WriteSet::default()
            };
            Ok(Decision::Write(Box::new(write), result))
        });
        match completion.await? {
            Completion::Done(result, _) => Ok(result),
            Completion::Replayed(_) => Err(ConflictError::SecretAlreadyShown.into()),
            Completion::Refused(conflict) => Err(self.record_refusal_after_barrier(record, conflict).await),
        }
    }

    /// Ends the tasks of removed objects. Their tokens are already revoked, so a failure is left to
    /// the periodic maintenance.
    pub(super) async fn clean_up_removed(&self, cx: &RequestContext) {
        if let Err(error) = self.end_orphaned_tasks(cx).await {
            tracing::warn!(error = %ErrorChain(&error), "tasks of removed objects are left to the maintenance job");
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

/// Returns the log entries of a change of the registry: the change itself, the end of removed and
/// relocated objects, and the end of API tokens that were issued to replaced credentials.
pub(super) fn log_entries_for(changes: &[StateChange], registry: &Registry, by: &str, at: Timestamp) -> Vec<NewEntry> {
    let removed = changes.iter().filter_map(|change| match change {
        StateChange::RemoveObject(kind, id) => registry.entry(*kind, id),
        _ => None,
    });
    let removed =
        removed.flat_map(|entry| entry.object.revocation_targets()).map(|target| (target, "removed from the registry"));
    let relocated = changes.iter().filter_map(|change| match change {
        StateChange::PutObject(entry) => relocated_resource(registry, &entry.object),
        _ => None,
    });
    let relocated = relocated.map(|old| (Target::Resource(old.uri.clone()), "the URI of the resource changed"));
    let renewed = changes.iter().filter_map(|change| client_with_new_credentials(change, registry));
    let renewed = renewed.map(|id| (Target::Credentials(id.clone()), "the credentials of the client changed"));
    let ended = removed.chain(relocated).chain(renewed).map(|(target, reason)| NewEntry {
        verb: LogAction::Revoke,
        target,
        reason: reason.into(),
        by: by.to_owned(),
        at,
        forget_after: latest_possible_expiry(at),
    });
    ended.chain([NewEntry::registry_changed(by.to_owned(), at)]).collect()
}

/// Returns the client whose old credentials become invalid by the change. Its API tokens end with
/// them. Its task tokens act for requesters and stay valid; revoking the agent ends them too.
fn client_with_new_credentials<'a>(change: &'a StateChange, registry: &Registry) -> Option<&'a ClientId> {
    match change {
        StateChange::PutSecret(client, _) | StateChange::RemoveSecret(client) => {
            registry.secret_tag(client).map(|_| client)
        }
        StateChange::PutObject(entry) => {
            let client = entry.object.client_id()?;
            let current = registry.client(client)?;
            (Some(current.authentication()) != entry.object.authentication()).then_some(client)
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
