//! Blocks and suspensions of parties. They take precedence over the configuration file.
//!
//! One write has the log entries that end or suspend what the party has, the change of the
//! registry, and the audit record.

use serde_json::json;

use crate::{
    app::{
        ApiCaller, ConflictError, Error, RequestContext, RequestError, RevocationTarget,
        revocation::plan::RevocationPlan,
    },
    domain::{
        audit::{Event, Outcome, Record},
        id::Reason,
        registry::{Block, BlockAction, BlockKind, BlockSubject, ObjectKind, Registry},
        revocation::{LogAction, NewEntry, SharedState, Target, latest_possible_expiry},
        time::Timestamp,
    },
    ports::{Precondition, StateChange},
};

/// Plans what a block action on a party writes.
pub(super) fn plan_block(
    admin: &ApiCaller,
    registry: &Registry,
    target: &RevocationTarget,
    action: BlockAction,
    reason: &Reason,
    cx: &RequestContext,
) -> Result<RevocationPlan, Error> {
    let subject = block_subject(registry, target, action)?;
    let block = registry.find_block(&subject);
    let current = block.map(|block| block.kind);
    let next = action.apply(current).map_err(ConflictError::Block)?;
    let by = admin.identity();
    let entry = |verb, target, forget_after| NewEntry {
        verb,
        target,
        reason: reason.to_string(),
        by: by.clone(),
        at: cx.now,
        forget_after,
    };
    let mut log_entries = Vec::new();
    if subject == BlockSubject::AllAgents {
        // One entry for all: it also makes every replica read the registry again. It is kept for
        // good, as those about one agent.
        let verb = if next.is_some() { LogAction::Suspend } else { LogAction::Resume };
        log_entries.push(entry(verb, Target::AllAgents, Timestamp::MAX));
    }
    if let BlockSubject::Object(ObjectKind::Agent, id) = &subject {
        let agent = Target::Agent(id.parse().map_err(|_| ConflictError::NotFound("agent"))?);
        // Both entries are kept for good: a replica that starts much later must know which of them
        // is the last one.
        match (current, next) {
            (_, Some(BlockKind::Suspended)) => log_entries.push(entry(LogAction::Suspend, agent, Timestamp::MAX)),
            (Some(BlockKind::Suspended), _) => log_entries.push(entry(LogAction::Resume, agent, Timestamp::MAX)),
            (None | Some(BlockKind::Blocked), None | Some(BlockKind::Blocked)) => {}
        }
    }
    if next == Some(BlockKind::Blocked) {
        let targets = registry.revocation_targets(&subject).into_iter();
        log_entries.extend(targets.map(|target| entry(LogAction::Revoke, target, latest_possible_expiry(cx.now))));
    }
    if !log_entries.iter().any(|entry| entry.target.changed_state() == Some(SharedState::Registry)) {
        log_entries.push(NewEntry::registry_changed(by.clone(), cx.now));
    }
    let change = match next {
        Some(kind) => {
            StateChange::Block(Block { subject: subject.clone(), kind, reason: reason.clone(), by, at: cx.now })
        }
        None => StateChange::Unblock(subject.clone()),
    };
    Ok(RevocationPlan {
        target: revocation_target(registry, target),
        log_entries,
        precondition: Some(Precondition::RegistryVersion(registry.version())),
        state_changes: vec![change],
        lifted: block.filter(|_| next.is_none()).map(|block| Box::new(block.clone())),
        audit_record: Box::new(audit_record(&subject, next, cx)),
    })
}

/// Resolves the party. A party to block must be registered, since a mistyped name would be
/// acknowledged and block nothing. A block can also be lifted from a party that is no longer
/// registered.
fn block_subject(registry: &Registry, target: &RevocationTarget, action: BlockAction) -> Result<BlockSubject, Error> {
    let is_one_agent =
        matches!(target, RevocationTarget::Agent(id) if registry.client(id).is_none() || registry.agent(id).is_some());
    let is_agent = is_one_agent || matches!(target, RevocationTarget::AllAgents);
    if matches!(action, BlockAction::Suspend | BlockAction::Resume) && !is_agent {
        return Err(RequestError::InvalidParameter("verb", "only tasks and agents can be suspended or resumed").into());
    }
    let resolve = |subject: BlockSubject, is_registered: bool| {
        let is_lifted =
            matches!(action, BlockAction::Resume | BlockAction::Unblock) && registry.find_block(&subject).is_some();
        (is_registered || is_lifted).then_some(subject)
    };
    let object = |kind: ObjectKind, id: &str| {
        resolve(BlockSubject::Object(kind, id.to_owned()), registry.entry(kind, id).is_some())
    };
    match target {
        RevocationTarget::Token(_) | RevocationTarget::Task(_) => {
            Err(RequestError::InvalidParameter("verb", "tokens and tasks can't be blocked or unblocked; revoke them")
                .into())
        }
        RevocationTarget::Requester(requester) => {
            // Errand does not know the users of an identity provider, but it knows the providers.
            let is_registered = registry.issuer(requester.issuer.as_str()).is_some();
            let subject = resolve(BlockSubject::Requester(requester.clone()), is_registered);
            Ok(subject.ok_or(ConflictError::NotFound("issuer"))?)
        }
        RevocationTarget::AllAgents if matches!(action, BlockAction::Block | BlockAction::Unblock) => {
            let text = "all agents can be suspended and resumed only; block agents one by one";
            Err(RequestError::InvalidParameter("verb", text).into())
        }
        RevocationTarget::AllAgents => Ok(BlockSubject::AllAgents),
        RevocationTarget::Agent(id) => {
            if registry.resource(id).is_some() {
                return Err(RequestError::InvalidParameter("kind", "the id names a resource; use `resource`").into());
            }
            let subject = object(ObjectKind::Agent, id.as_str()).or_else(|| object(ObjectKind::Admin, id.as_str()));
            Ok(subject.ok_or(ConflictError::NotFound("agent"))?)
        }
        RevocationTarget::Resource(id) => {
            Ok(object(ObjectKind::Resource, id.as_str()).ok_or(ConflictError::NotFound("resource"))?)
        }
        RevocationTarget::ResourceAt(uri) => {
            let resource = registry.find_resource(uri).ok_or(ConflictError::NotFound("resource"))?;
            Ok(BlockSubject::Object(ObjectKind::Resource, resource.id.to_string()))
        }
        RevocationTarget::Issuer(url) => {
            Ok(object(ObjectKind::Issuer, url.as_str()).ok_or(ConflictError::NotFound("issuer"))?)
        }
    }
}

/// Returns the target that the response names: a resource by its URI while it is registered,
/// otherwise as requested.
fn revocation_target(registry: &Registry, target: &RevocationTarget) -> Target {
    match target {
        RevocationTarget::Token(id) => Target::Token(*id),
        RevocationTarget::Task(id) => Target::Task(*id),
        RevocationTarget::Requester(requester) => Target::for_requester(requester),
        RevocationTarget::Agent(id) => Target::Agent(id.clone()),
        RevocationTarget::AllAgents => Target::AllAgents,
        RevocationTarget::Resource(id) => match registry.resource(id) {
            Some(resource) => Target::Resource(resource.uri.clone()),
            None => Target::Agent(id.clone()),
        },
        RevocationTarget::ResourceAt(uri) => Target::Resource(registry.canonical_uri(uri)),
        RevocationTarget::Issuer(url) => Target::Issuer(url.clone()),
    }
}

fn audit_record(subject: &BlockSubject, kind: Option<BlockKind>, cx: &RequestContext) -> Record {
    let record =
        Record { granted: Some(json!({"block": kind})), ..Record::new(cx.now, Event::Revocation, Outcome::Done) };
    match subject {
        BlockSubject::Object(ObjectKind::Agent | ObjectKind::Admin, id) => {
            Record { agents: vec![id.clone()], ..record }
        }
        BlockSubject::Object(kind @ (ObjectKind::Issuer | ObjectKind::Resource), id) => {
            Record { resource: Some(format!("{kind} {id}")), ..record }
        }
        BlockSubject::AllAgents => record,
        BlockSubject::Requester(requester) => Record { requester: Some(requester.clone()), ..record },
    }
}
