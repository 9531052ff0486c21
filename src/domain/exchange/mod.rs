//! The rule of the house: may this token be issued, and what stands in it? A pure function from an [`Ask`] to a [`Plan`]
//! or a [`Denial`]. If it is not in the `Ask`, it can't matter.
//!
//! The order of the checks is the order of the answers: who presents it, the chain, the task, the authority, the life.

mod ceilings;
mod consent;
mod denial;
mod edges;
mod input;
mod plan;
mod presenter;
pub mod presenter_binding;
#[cfg(test)]
mod tests;

pub use crate::domain::registry::parties_are_active;
pub use denial::{CeilingExceeded, CeilingOwner, Denial};
pub use input::{Evidence, ExchangeInput, Presenter, RequestedToken, TaskSelector};
pub use plan::{PlannedTask, TokenPlan};

use ceilings::resolve_authority;
use consent::{GrantBasis, grant_basis};
use edges::resolve_edges;
use presenter::{check_presenter, check_requested_token};

use crate::domain::{
    authority::Authority,
    exchange::presenter_binding::DelegationBasis,
    id::TokenId,
    registry::client::Agent,
    settings::{TASK_LIFETIME_CAP, TOKEN_LIFETIME_CAP},
    task::{JoinError, Requester},
    time::Timestamp,
    token::{
        NextActor, TaskContext, TokenKind,
        actor_chain::{Actor, ActorChain, ActorChainError},
        foreign_claims::AuthenticationContext,
    },
};

/// How many tokens one can be derived from: an agent that trades its own token again and again comes to an end.
pub const MAX_LINEAGE: usize = 16;

/// Decides.
pub fn decide(ask: &ExchangeInput<'_>) -> Result<TokenPlan, Denial> {
    let ask = &hide_foreign_task(ask);
    check_requested_token(ask)?;
    let basis = check_presenter(ask)?;
    let chain = resolve_chain(ask)?;
    let along = resolve_edges(ask, &chain)?;
    let lineage = resolve_lineage(ask)?;
    check_task(ask)?;
    let wanted = resolve_authority(ask, &along)?;
    let ground = grant_basis(ask, basis == DelegationBasis::Grant.as_str(), &wanted)?;
    let (task, deadline) = resolve_task(ask, &wanted, ground)?;
    let authority = ask.requested_token.resource().map_or(wanted.clone(), |resource| wanted.restrict_to(&resource.uri));
    if authority.is_empty() {
        return Err(Denial::NoAuthorityAtTarget);
    }
    let expires = resolve_expiry(ask, deadline, ground)?;
    Ok(TokenPlan {
        kind: token_kind(ask.requested_token),
        audience: match ask.requested_token {
            RequestedToken::Access(resource) => resource.uri.to_string(),
            RequestedToken::HandOver(..) => ask.issuer.to_string(),
            RequestedToken::Txn => ask.trust_domain.to_owned(),
        },
        algorithm: match ask.requested_token {
            RequestedToken::Access(resource) => resource.signing_algorithm,
            RequestedToken::HandOver(..) | RequestedToken::Txn => None,
        },
        requester: resolve_requester(ask.subject),
        chain,
        client: ask.presenter.id().clone(),
        task,
        lineage,
        scope: ask.registry.covered_scopes(&authority, ask.requested_token.resource().map(|resource| &resource.uri)),
        authority,
        expires,
        auth_context: match ask.subject {
            Evidence::User(user, _) => user.auth_context.clone(),
            Evidence::Own(own, _) => {
                AuthenticationContext { auth_time: own.auth_time, acr: own.acr.clone(), amr: own.amr.clone() }
            }
        },
        req_wl: matches!(ask.requested_token, RequestedToken::Txn).then(|| ask.presenter.id().clone()),
        may_act: match ask.requested_token {
            RequestedToken::HandOver(to, _) => Some(NextActor { iss: ask.issuer.clone(), sub: to.id.clone() }),
            RequestedToken::Access(_) | RequestedToken::Txn => None,
        },
        grant: ground.id(),
        break_glass: ground.is_break_glass(),
        basis,
    })
}

fn token_kind(output: RequestedToken<'_>) -> TokenKind {
    match output {
        RequestedToken::Access(_) => TokenKind::Access,
        RequestedToken::HandOver(..) => TokenKind::HandOver,
        RequestedToken::Txn => TokenKind::Txn,
    }
}

fn resolve_requester(subject: Evidence<'_>) -> Requester {
    match subject {
        Evidence::User(user, _) => user.requester.clone(),
        Evidence::Own(own, _) => own.requester(),
    }
}

fn resolve_chain(ask: &ExchangeInput<'_>) -> Result<ActorChain, Denial> {
    let hop = |agent: &Agent| Actor {
        iss: ask.issuer.to_string(),
        sub: agent.id.to_string(),
        sub_profile: Some(agent.kind.profile().to_owned()),
    };
    let max = ask.token_limits.max_chain;
    let chain = match (ask.subject, ask.presenter) {
        (Evidence::User(user, _), Presenter::Agent(agent)) => match &user.chain {
            None => Ok(ActorChain::from_actor(hop(agent))),
            // Only we say which agents of ours acted: no edge of the registry was looked at for that hop.
            Some(before) if before.actors().any(|hop| hop.iss == ask.issuer.as_str()) => {
                Err(ActorChainError::OwnAgentNamedByForeignIssuer)
            }
            Some(before) => before.with_actor(hop(agent), max),
        },
        (Evidence::Own(own, TokenKind::HandOver), Presenter::Agent(agent)) => own.act.with_actor(hop(agent), max),
        // The holder goes on, or the resource that it called: nobody new acts.
        (Evidence::Own(own, _), _) => Ok(own.act.clone()),
        (Evidence::User(..), Presenter::Resource(_)) => return Err(Denial::PresenterMismatch),
    };
    let chain = chain.map_err(Denial::Chain)?;
    // A token for an agent that can't join is good for nothing: say so now, and not when it is presented.
    if let RequestedToken::HandOver(to, _) = ask.requested_token {
        chain.with_actor(hop(to), max).map_err(Denial::Chain)?;
    }
    Ok(chain)
}

fn resolve_lineage(ask: &ExchangeInput<'_>) -> Result<Vec<TokenId>, Denial> {
    match ask.subject {
        Evidence::User(..) => Ok(Vec::new()),
        Evidence::Own(own, _) if own.lineage.len() >= MAX_LINEAGE => Err(Denial::LineageTooLong),
        Evidence::Own(own, _) => Ok(own.lineage.iter().copied().chain([own.jti]).collect()),
    }
}

/// The same question, where a task that is somebody else's is none: nothing of it may show in an answer, whatever it says.
fn hide_foreign_task<'a>(ask: &ExchangeInput<'a>) -> ExchangeInput<'a> {
    let task = match (ask.task, ask.subject) {
        (TaskSelector::Named(id, task), Evidence::User(user, _)) => {
            TaskSelector::Named(id, task.filter(|task| task.belongs_to(&user.requester, ask.presenter.id())))
        }
        // Who brings a token of ours names the task of that token, or none.
        (TaskSelector::Named(id, _), Evidence::Own(..)) => TaskSelector::Named(id, None),
        (unnamed @ TaskSelector::Unnamed { .. }, _) => unnamed,
    };
    ExchangeInput { task, ..*ask }
}

/// Whether the named task can be gone on with: before anything is measured by what was approved for it.
fn check_task(ask: &ExchangeInput<'_>) -> Result<(), Denial> {
    match (ask.subject, ask.task) {
        (Evidence::Own(own, _), TaskSelector::Named(id, _)) if id != own.txn => Err(Denial::TaskMismatch),
        (_, TaskSelector::Unnamed { .. }) | (Evidence::Own(..), TaskSelector::Named(..)) => Ok(()),
        (Evidence::User(..), TaskSelector::Named(_, None)) => Err(Denial::TaskNotJoinable(JoinError::UnknownTask)),
        (Evidence::User(user, _), TaskSelector::Named(_, Some(task))) => {
            task.check_joinable(&user.requester, ask.presenter.id(), ask.now).map_err(Denial::TaskNotJoinable)
        }
    }
}

fn resolve_task(
    ask: &ExchangeInput<'_>,
    wanted: &Authority,
    ground: GrantBasis<'_>,
) -> Result<(PlannedTask, Timestamp), Denial> {
    match (ask.subject, ask.task) {
        (Evidence::Own(own, _), _) => {
            let existing = PlannedTask::Existing {
                id: own.txn,
                authority_hash: own.task.authority_hash.clone(),
                context: own.tctx.clone(),
            };
            // The parent's expiry is never later than the task's deadline, and ours is never later than the parent's.
            Ok((existing, own.exp))
        }
        (Evidence::User(..), TaskSelector::Named(_, task)) => {
            let task = task.ok_or(Denial::TaskNotJoinable(JoinError::UnknownTask))?;
            let existing = PlannedTask::Existing {
                id: task.id,
                authority_hash: task.authority.hash(),
                context: TaskContext { purpose: task.purpose.clone(), details: None },
            };
            Ok((existing, task.deadline))
        }
        (Evidence::User(..), TaskSelector::Unnamed { purpose, deadline }) => {
            let purpose = purpose.ok_or(Denial::PurposeRequired)?.clone();
            let longest = ask.task_limits.max_lifetime.min(TASK_LIFETIME_CAP);
            let life = deadline.unwrap_or(ask.task_limits.lifetime.min(longest));
            if life > longest {
                return Err(Denial::DeadlineTooLong);
            }
            let deadline = cap_at_grant(ask.now.saturating_add(life), ground);
            Ok((PlannedTask::Open { purpose, authority: wanted.clone(), deadline }, deadline))
        }
    }
}

/// Nothing outlives the grant that it rests on. What is derived ends with its parent, which does not.
fn cap_at_grant(end: Timestamp, ground: GrantBasis<'_>) -> Timestamp {
    match ground {
        GrantBasis::Recorded(grant) => end.min(grant.expires),
        GrantBasis::None | GrantBasis::Inherited { .. } => end,
    }
}

/// What the requester would have to consent to: all that is asked for, as far as it can be had.
#[must_use]
pub fn authority_requiring_consent(ask: &ExchangeInput<'_>) -> Option<Authority> {
    let along = resolve_edges(ask, &resolve_chain(ask).ok()?).ok()?;
    resolve_authority(ask, &along).ok()
}

/// `min(asked, ours, the resource's cap, the agent's cap, the subject token's own expiry, the grant's, the task's deadline)`.
fn resolve_expiry(ask: &ExchangeInput<'_>, deadline: Timestamp, ground: GrantBasis<'_>) -> Result<Timestamp, Denial> {
    let agent_cap = |agent: &Agent| agent.max_token_lifetime;
    let caps = [
        // Whatever is configured: a revocation is forgotten when nothing that it could end lives any more.
        Some(TOKEN_LIFETIME_CAP),
        Some(ask.token_limits.lifetime),
        ask.expires_in,
        ask.requested_token.resource().and_then(|resource| resource.max_token_lifetime),
        match ask.presenter {
            Presenter::Agent(agent) => agent_cap(agent),
            Presenter::Resource(_) => None,
        },
        match ask.requested_token {
            RequestedToken::HandOver(to, _) => agent_cap(to),
            RequestedToken::Access(_) | RequestedToken::Txn => None,
        },
    ];
    let life = caps.into_iter().flatten().min().unwrap_or(TOKEN_LIFETIME_CAP);
    let subject = match ask.subject {
        Evidence::User(user, _) => user.expires,
        Evidence::Own(own, _) => own.exp,
    };
    let expires = cap_at_grant(ask.now.saturating_add(life).min(subject).min(deadline), ground);
    if expires.has_passed(ask.now) { Err(Denial::AlreadyExpired) } else { Ok(expires) }
}
