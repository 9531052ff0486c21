//! Shutting out and letting in again, whatever the configuration file says: one write with the end, or the hold, of what
//! somebody has, the change of the registry, and the audit record.

use serde_json::json;

use crate::{
    app::{
        ApiCaller, BadRequest, Conflict, Cx, Failure, Wanted,
        admin::changed,
        revoke::{Planned, all_gone},
    },
    domain::{
        audit::{Event, Outcome, Record},
        id::Reason,
        registry::{Door, How, Kind, Registry, ShutOut, Who},
        revocation::{NewEntry, Target, Verb},
        time::Timestamp,
    },
    ports::{Change, Expected},
};

/// What is written when an admin shuts somebody out or lets them in.
pub(super) fn plan(
    admin: &ApiCaller,
    registry: &Registry,
    wanted: &Wanted,
    door: Door,
    reason: &Reason,
    cx: &Cx,
) -> Result<Planned, Failure> {
    let who = who(registry, wanted, door)?;
    let now = registry.shut_out_of(&who).map(|one| one.how);
    let then = door.after(now).map_err(Conflict::Door)?;
    let by = admin.name();
    let entry = |verb, target, forget_after| NewEntry {
        verb,
        target,
        reason: reason.to_string(),
        by: by.clone(),
        at: cx.now,
        forget_after,
    };
    let mut log = Vec::new();
    if let Who::Object(Kind::Agent, id) = &who {
        let agent = Target::Agent(id.parse().map_err(|_| Conflict::NotFound("agent"))?);
        // Both are never forgotten: whoever starts much later must know which of them is the last word.
        match (now, then) {
            (_, Some(How::Suspended)) => log.push(entry(Verb::Suspend, agent, Timestamp::MAX)),
            (Some(How::Suspended), _) => log.push(entry(Verb::Resume, agent, Timestamp::MAX)),
            (None | Some(How::Disabled), None | Some(How::Disabled)) => {}
        }
    }
    if then == Some(How::Disabled) {
        let ended = registry.targets_of(&who).into_iter();
        log.extend(ended.map(|target| entry(Verb::Revoke, target, all_gone(cx.now))));
    }
    log.push(changed(Target::Registry, by.clone(), cx.now));
    let change = match then {
        Some(how) => Change::ShutOut(ShutOut { who: who.clone(), how, reason: reason.clone(), by, at: cx.now }),
        None => Change::LetIn(who.clone()),
    };
    Ok(Planned {
        target: target(registry, wanted),
        log,
        expected: Some(Expected::Registry(registry.version())),
        changes: vec![change],
        about: Box::new(about(&who, then, cx)),
    })
}

/// Who is meant. Whoever is shut out must be there: a slip in a name would be acknowledged, and nobody shut out. Whoever is
/// let in need not be.
fn who(registry: &Registry, wanted: &Wanted, door: Door) -> Result<Who, Failure> {
    let is_agent = matches!(wanted, Wanted::Agent(id) if registry.client(id).is_none() || registry.agent(id).is_some());
    if matches!(door, Door::Suspend | Door::Resume) && !is_agent {
        return Err(BadRequest::Invalid("verb", "only tasks and agents are suspended and resumed").into());
    }
    let known = |who: Who, is_there: bool| {
        let is_lifted = matches!(door, Door::Resume | Door::Enable) && registry.shut_out_of(&who).is_some();
        if is_there || is_lifted { Some(who) } else { None }
    };
    let object = |kind: Kind, id: &str| known(Who::Object(kind, id.to_owned()), registry.entry(kind, id).is_some());
    match wanted {
        Wanted::Token(_) | Wanted::Task(_) => {
            Err(BadRequest::Invalid("kind", "tokens and tasks are not disabled or enabled: revoke them").into())
        }
        Wanted::Requester(requester) => {
            // Whom the provider knows is not known here; that there is such a provider is.
            let is_there = registry.issuer(requester.issuer.as_str()).is_some();
            Ok(known(Who::Requester(requester.clone()), is_there).ok_or(Conflict::NotFound("issuer"))?)
        }
        Wanted::Agent(id) => {
            if registry.resource(id).is_some() {
                return Err(BadRequest::Invalid("kind", "it is a resource: name it by that kind").into());
            }
            let found = object(Kind::Agent, id.as_str()).or_else(|| object(Kind::Admin, id.as_str()));
            Ok(found.ok_or(Conflict::NotFound("agent"))?)
        }
        Wanted::Resource(id) => Ok(object(Kind::Resource, id.as_str()).ok_or(Conflict::NotFound("resource"))?),
        Wanted::ResourceAt(uri) => {
            let resource = registry.resource_at(uri).ok_or(Conflict::NotFound("resource"))?;
            Ok(Who::Object(Kind::Resource, resource.id.to_string()))
        }
        Wanted::Issuer(url) => Ok(object(Kind::Issuer, url.as_str()).ok_or(Conflict::NotFound("issuer"))?),
    }
}

/// What the answer names: what was asked for, as far as it is still known where it is.
fn target(registry: &Registry, wanted: &Wanted) -> Target {
    match wanted {
        Wanted::Token(id) => Target::Token(*id),
        Wanted::Task(id) => Target::Task(*id),
        Wanted::Requester(requester) => Target::requester(requester),
        Wanted::Agent(id) => Target::Agent(id.clone()),
        Wanted::Resource(id) => match registry.resource(id) {
            Some(resource) => Target::Resource(resource.uri.clone()),
            None => Target::Agent(id.clone()),
        },
        Wanted::ResourceAt(uri) => Target::Resource(uri.clone()),
        Wanted::Issuer(url) => Target::Issuer(url.clone()),
    }
}

fn about(who: &Who, then: Option<How>, cx: &Cx) -> Record {
    let record =
        Record { granted: Some(json!({"shut_out": then})), ..Record::new(cx.now, Event::Revocation, Outcome::Done) };
    match who {
        Who::Object(Kind::Agent | Kind::Admin, id) => Record { agents: vec![id.clone()], ..record },
        Who::Object(kind @ (Kind::Issuer | Kind::Resource), id) => {
            Record { resource: Some(format!("{kind} {id}")), ..record }
        }
        Who::Requester(requester) => Record { requester: Some(requester.clone()), ..record },
    }
}
