//! Whether the requester has consented, where somebody demands that they do; and which grant a token rests on.

use super::{Denial, Evidence, ExchangeInput, TaskSelector};
use crate::domain::{
    authority::{Authority, Permission},
    grants::Grant,
    id::GrantId,
    registry::{
        issuer::TrustedIssuer,
        policy::{ConsentPolicy, Effect},
    },
};

/// What a token rests on.
#[derive(Clone, Copy)]
pub(super) enum GrantBasis<'a> {
    /// No grant.
    None,
    /// The grant that the subject token rests on: that one outlives no grant, so ours does not.
    Inherited {
        /// Its id.
        id: GrantId,
        /// Whether it is for an emergency.
        break_glass: bool,
    },
    /// A recorded grant.
    Recorded(&'a Grant),
}

impl GrantBasis<'_> {
    pub(super) fn id(self) -> Option<GrantId> {
        match self {
            Self::None => None,
            Self::Inherited { id, .. } => Some(id),
            Self::Recorded(grant) => Some(grant.id),
        }
    }

    pub(super) fn is_break_glass(self) -> bool {
        match self {
            Self::None => false,
            Self::Inherited { break_glass, .. } => break_glass,
            Self::Recorded(grant) => grant.break_glass,
        }
    }
}

/// The grants that count now: of this requester to this agent, not over; where a task rests on one, that one alone.
pub(super) fn live_grants<'a>(ask: &ExchangeInput<'a>) -> impl Iterator<Item = &'a Grant> {
    let (now, agent) = (ask.now, ask.presenter.id());
    let requester = super::resolve_requester(ask.subject);
    let of_task = task_grant(ask);
    ask.grants.iter().filter(move |grant| {
        grant.requester == requester
            && grant.agent == *agent
            && !grant.expires.has_passed(now)
            && of_task.is_none_or(|id| id == grant.id)
    })
}

/// What the token will rest on. `pointed` says that a grant is the only thing that points at the agent.
///
/// A token that is derived from one of ours rests on the grant of that one. Consent is to something: where it is demanded,
/// a grant that names no authority is not enough, also when the demand came after the parent.
pub(super) fn grant_basis<'a>(
    ask: &ExchangeInput<'a>,
    pointed: bool,
    wanted: &Authority,
) -> Result<GrantBasis<'a>, Denial> {
    let demanded = is_consent_required(ask, wanted);
    let is_accepted = || ask.registry.accepts_break_glass(wanted);
    let fits = |grant: &&Grant| {
        grant.covers(wanted) && (grant.authority.is_some() || !demanded) && (!grant.break_glass || is_accepted())
    };
    if let Evidence::Own(own, _) = ask.subject {
        let consents = |id| ask.grants.iter().filter(|grant| grant.id == id).any(|grant| fits(&grant));
        return match own.grant {
            Some(id) if !demanded || consents(id) => Ok(GrantBasis::Inherited { id, break_glass: own.break_glass }),
            None if !demanded => Ok(GrantBasis::None),
            Some(_) | None => Err(Denial::ConsentRequired),
        };
    }
    if !demanded && !pointed && task_grant(ask).is_none() {
        return Ok(GrantBasis::None);
    }
    // One for an emergency only where no other is enough.
    let longest = live_grants(ask).filter(fits).max_by_key(|grant| (!grant.break_glass, grant.expires, grant.id));
    longest.map(GrantBasis::Recorded).ok_or(Denial::ConsentRequired)
}

fn task_grant(ask: &ExchangeInput<'_>) -> Option<GrantId> {
    match ask.task {
        TaskSelector::Named(_, task) => task.and_then(|task| task.grant),
        TaskSelector::Unnamed { .. } => None,
    }
}

/// Whether the requester's issuer, or a resource that it is about, demands consent to any of this.
fn is_consent_required(ask: &ExchangeInput<'_>, wanted: &Authority) -> bool {
    let of_issuer = match ask.subject {
        Evidence::User(_, issuer) => issuer.consent,
        Evidence::Own(own, _) => {
            let issuer = ask.registry.issuer(own.sub_iss.as_str());
            issuer.map_or(ConsentPolicy::None, |issuer: &std::sync::Arc<TrustedIssuer>| issuer.consent)
        }
    };
    wanted.iter().any(|permission| {
        let (of_resource, effect) = policy_and_effect(ask, permission);
        of_issuer.is_required_for(effect) || of_resource.is_required_for(effect)
    })
}

/// What the resource demands, and what the tool does. What is not known there is taken for the worst.
fn policy_and_effect(ask: &ExchangeInput<'_>, permission: &Permission) -> (ConsentPolicy, Effect) {
    let Some(resource) = ask.registry.resource_at(&permission.resource) else {
        return (ConsentPolicy::Required, Effect::Destructive);
    };
    // Seeing what there is calls nothing.
    let Some(name) = permission.tool() else { return (resource.consent, Effect::Read) };
    let tool = resource.tools.iter().find(|tool| tool.name == *name);
    (resource.consent, tool.map_or(Effect::Destructive, |tool| tool.effect))
}
