//! Shutting out and letting in again, whatever the configuration file says: one write with the end, or the hold, of what
//! somebody has, the change of the registry, and the audit record.

use serde_json::json;

use crate::{
    app::{
        ApiCaller, ConflictError, Error, RequestContext, RequestError, RevocationTarget,
        revocation::admin::RevocationPlan,
    },
    domain::{
        audit::{Event, Outcome, Record},
        id::Reason,
        registry::{Block, BlockAction, BlockKind, BlockSubject, ObjectKind, Registry},
        revocation::{LogAction, NewEntry, Target, latest_possible_expiry},
        time::Timestamp,
    },
    ports::{Precondition, StateChange},
};

/// What is written when an admin shuts somebody out or lets them in.
pub(in crate::app) fn plan_block(
    admin: &ApiCaller,
    registry: &Registry,
    requested_target: &RevocationTarget,
    action: BlockAction,
    reason: &Reason,
    cx: &RequestContext,
) -> Result<RevocationPlan, Error> {
    let subject = block_subject(registry, requested_target, action)?;
    let now = registry.find_block(&subject).map(|one| one.kind);
    let then = action.apply(now).map_err(ConflictError::Block)?;
    let by = admin.identity();
    let entry = |verb, target, forget_after| NewEntry {
        verb,
        target,
        reason: reason.to_string(),
        by: by.clone(),
        at: cx.now,
        forget_after,
    };
    let mut log = Vec::new();
    if let BlockSubject::Object(ObjectKind::Agent, id) = &subject {
        let agent = Target::Agent(id.parse().map_err(|_| ConflictError::NotFound("agent"))?);
        // Both are never forgotten: whoever starts much later must know which of them is the last word.
        match (now, then) {
            (_, Some(BlockKind::Suspended)) => log.push(entry(LogAction::Suspend, agent, Timestamp::MAX)),
            (Some(BlockKind::Suspended), _) => log.push(entry(LogAction::Resume, agent, Timestamp::MAX)),
            (None | Some(BlockKind::Disabled), None | Some(BlockKind::Disabled)) => {}
        }
    }
    if then == Some(BlockKind::Disabled) {
        let ended = registry.revocation_targets(&subject).into_iter();
        log.extend(ended.map(|target| entry(LogAction::Revoke, target, latest_possible_expiry(cx.now))));
    }
    log.push(NewEntry::registry_changed(by.clone(), cx.now));
    let change = match then {
        Some(how) => {
            StateChange::Block(Block { subject: subject.clone(), kind: how, reason: reason.clone(), by, at: cx.now })
        }
        None => StateChange::Unblock(subject.clone()),
    };
    Ok(RevocationPlan {
        target: revocation_target(registry, requested_target),
        log,
        expected: Some(Precondition::RegistryVersion(registry.version())),
        changes: vec![change],
        audit_record: Box::new(audit_record(&subject, then, cx)),
    })
}

/// Who is meant. Whoever is shut out must be there: a slip in a name would be acknowledged, and nobody shut out. Whoever is
/// let in need not be.
fn block_subject(
    registry: &Registry,
    requested_target: &RevocationTarget,
    action: BlockAction,
) -> Result<BlockSubject, Error> {
    let is_agent = matches!(requested_target, RevocationTarget::Agent(id) if registry.client(id).is_none() || registry.agent(id).is_some());
    if matches!(action, BlockAction::Suspend | BlockAction::Resume) && !is_agent {
        return Err(RequestError::InvalidParameter("verb", "only tasks and agents are suspended and resumed").into());
    }
    let known = |who: BlockSubject, is_there: bool| {
        let is_lifted =
            matches!(action, BlockAction::Resume | BlockAction::Unblock) && registry.find_block(&who).is_some();
        if is_there || is_lifted { Some(who) } else { None }
    };
    let object = |kind: ObjectKind, id: &str| {
        known(BlockSubject::Object(kind, id.to_owned()), registry.entry(kind, id).is_some())
    };
    match requested_target {
        RevocationTarget::Token(_) | RevocationTarget::Task(_) => {
            Err(RequestError::InvalidParameter("kind", "tokens and tasks are not disabled or enabled: revoke them")
                .into())
        }
        RevocationTarget::Requester(requester) => {
            // Whom the provider knows is not known here; that there is such a provider is.
            let is_there = registry.issuer(requester.issuer.as_str()).is_some();
            Ok(known(BlockSubject::Requester(requester.clone()), is_there).ok_or(ConflictError::NotFound("issuer"))?)
        }
        RevocationTarget::Agent(id) => {
            if registry.resource(id).is_some() {
                return Err(RequestError::InvalidParameter("kind", "it is a resource: name it by that kind").into());
            }
            let found = object(ObjectKind::Agent, id.as_str()).or_else(|| object(ObjectKind::Admin, id.as_str()));
            Ok(found.ok_or(ConflictError::NotFound("agent"))?)
        }
        RevocationTarget::Resource(id) => {
            Ok(object(ObjectKind::Resource, id.as_str()).ok_or(ConflictError::NotFound("resource"))?)
        }
        RevocationTarget::ResourceAt(uri) => {
            let resource = registry.resource_at(uri).ok_or(ConflictError::NotFound("resource"))?;
            Ok(BlockSubject::Object(ObjectKind::Resource, resource.id.to_string()))
        }
        RevocationTarget::Issuer(url) => {
            Ok(object(ObjectKind::Issuer, url.as_str()).ok_or(ConflictError::NotFound("issuer"))?)
        }
    }
}

/// What the answer names: what was asked for, as far as it is still known where it is.
fn revocation_target(registry: &Registry, requested_target: &RevocationTarget) -> Target {
    match requested_target {
        RevocationTarget::Token(id) => Target::Token(*id),
        RevocationTarget::Task(id) => Target::Task(*id),
        RevocationTarget::Requester(requester) => Target::for_requester(requester),
        RevocationTarget::Agent(id) => Target::Agent(id.clone()),
        RevocationTarget::Resource(id) => match registry.resource(id) {
            Some(resource) => Target::Resource(resource.uri.clone()),
            None => Target::Agent(id.clone()),
        },
        RevocationTarget::ResourceAt(uri) => Target::Resource(uri.clone()),
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
        BlockSubject::Requester(requester) => Record { requester: Some(requester.clone()), ..record },
    }
}
