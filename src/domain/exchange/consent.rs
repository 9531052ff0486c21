//! Consent of the requester, where required, and the grant that a token depends on.

use super::{Denial, Evidence, ExchangeInput, TaskSelector};
use crate::domain::{
    authority::{Authority, Permission},
    grants::{ConsentPolicy, Grant, break_glass},
    id::GrantId,
    registry::{client::Effect, issuer::TrustedIssuer},
};

/// The grant that a token depends on.
#[derive(Clone, Copy)]
pub(super) enum GrantBasis<'a> {
    /// No grant.
    None,
    /// The grant of the subject token. The subject token does not outlive it, so neither does the
    /// new token.
    Inherited {
        /// The id of the grant.
        id: GrantId,
        /// Whether it is a break-glass grant.
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

/// Returns the grants of this requester to this agent that have not expired. If the task depends on
/// a grant, only that one counts.
pub(super) fn live_grants<'a>(input: &ExchangeInput<'a>) -> impl Iterator<Item = &'a Grant> {
    let (now, agent) = (input.now, input.presenter.id());
    let requester = super::resolve_requester(input.subject);
    let task_grant = task_grant(input);
    input.grants.iter().filter(move |grant| {
        grant.requester == requester
            && grant.agent == *agent
            && !grant.expires.has_passed(now)
            && task_grant.is_none_or(|id| id == grant.id)
    })
}

/// Returns the grant that the token depends on. `is_only_basis`: only a grant names the agent.
///
/// A token that is derived from a token of this server depends on the grant of that one. Where
/// consent is required, a grant without an authority is not enough, also if the requirement is
/// newer than the subject token.
pub(super) fn grant_basis<'a>(
    input: &ExchangeInput<'a>,
    is_only_basis: bool,
    requested: &Authority,
) -> Result<GrantBasis<'a>, Denial> {
    let is_required = is_consent_required(input, requested);
    let is_accepted = || break_glass::is_accepted(input.registry, requested);
    let fits = |grant: &&Grant| {
        grant.covers(requested) && (grant.authority.is_some() || !is_required) && (!grant.break_glass || is_accepted())
    };
    if let Evidence::Own(own, _) = input.subject {
        let consents = |id| input.grants.iter().filter(|grant| grant.id == id).any(|grant| fits(&grant));
        return match own.grant {
            Some(id) if !is_required || consents(id) => Ok(GrantBasis::Inherited { id, break_glass: own.break_glass }),
            None if !is_required => Ok(GrantBasis::None),
            Some(_) | None => Err(Denial::ConsentRequired),
        };
    }
    if !is_required && !is_only_basis && task_grant(input).is_none() {
        return Ok(GrantBasis::None);
    }
    // A break-glass grant is used only if no other grant is enough.
    let longest = live_grants(input).filter(fits).max_by_key(|grant| (!grant.break_glass, grant.expires, grant.id));
    longest.map(GrantBasis::Recorded).ok_or(Denial::ConsentRequired)
}

fn task_grant(input: &ExchangeInput<'_>) -> Option<GrantId> {
    match input.task {
        TaskSelector::Named(_, task) => task.and_then(|task| task.grant),
        TaskSelector::Unnamed { .. } => None,
    }
}

/// Returns whether the requester's issuer or a resource requires consent to a part of the
/// authority.
fn is_consent_required(input: &ExchangeInput<'_>, requested: &Authority) -> bool {
    let of_issuer = match input.subject {
        Evidence::User(_, issuer) => issuer.consent,
        Evidence::Own(own, _) => {
            let issuer = input.registry.issuer(own.sub_iss.as_str());
            issuer.map_or(ConsentPolicy::None, |issuer: &std::sync::Arc<TrustedIssuer>| issuer.consent)
        }
    };
    requested.iter().any(|permission| {
        let (of_resource, effect) = policy_and_effect(input, permission);
        of_issuer.is_required_for(effect) || of_resource.is_required_for(effect)
    })
}

/// Returns the resource's policy and the tool's effect. Unknown ones count as the strictest.
fn policy_and_effect(input: &ExchangeInput<'_>, permission: &Permission) -> (ConsentPolicy, Effect) {
    let Some(resource) = input.registry.resource_at(&permission.resource) else {
        return (ConsentPolicy::Required, Effect::Destructive);
    };
    // A list action calls no tool.
    let Some(name) = permission.tool() else { return (resource.consent, Effect::Read) };
    let tool = resource.tools.iter().find(|tool| tool.name == *name);
    (resource.consent, tool.map_or(Effect::Destructive, |tool| tool.effect))
}
