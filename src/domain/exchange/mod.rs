//! The decision about a token exchange: whether a token may be issued, and what it contains.
//!
//! [`decide`] is a pure function from an [`ExchangeInput`] to a [`TokenPlan`] or a [`Denial`].
//! Nothing outside the input can influence the decision.
//!
//! The checks run in a fixed order, and the first violated rule determines the denial: the
//! requested token, the presenter, the chain of agents, the task, the authority, the grant, the
//! lifetime.
//!
//! # Example
//!
//! An agent presents a user token that was issued to it, and requests a scope at a resource:
//!
//! ```
//! # use std::collections::BTreeMap;
//! use errand::domain::{
//!     exchange::{
//!         Basis, CeilingOwner, Denial, Evidence, ExchangeInput, Presenter, RequestedToken,
//!         TaskSelector, decide, presenter_binding::AgentMatch,
//!     },
//!     scope::ScopeList,
//!     time::{Lifetime, Timestamp},
//! };
//! # use errand::domain::{
//! #     registry::{Entry, Registry, RegistryObject, Source},
//! #     settings::{TaskLimits, TokenLimits},
//! #     task::Requester,
//! #     token::foreign_claims::{AuthenticationContext, UserClaims},
//! # };
//! # use serde_json::{Map, json};
//! # let objects = [
//! #     json!({"kind": "issuer", "body": {"issuer": "https://login.example.com",
//! #         "audiences": ["https://sts.example.com"], "algorithms": ["RS256"],
//! #         "keys": "discovery", "token_types": ["access_token"]}}),
//! #     json!({"kind": "agent", "body": {"id": "planner",
//! #         "authentication": {"method": "client_secret_basic"},
//! #         "known_as": {"https://login.example.com": ["planner-app"]},
//! #         "access": [{"resource": "files", "scopes": ["files:read"]}]}}),
//! #     json!({"kind": "resource", "body": {"id": "files", "uri": "https://files.example.com/mcp",
//! #         "authentication": {"method": "client_secret_basic"}, "tools": [
//! #             {"name": "read_file", "scope": "files:read", "effect": "read"},
//! #             {"name": "write_file", "scope": "files:write", "effect": "write"}]}}),
//! # ];
//! # let entries = objects.into_iter().map(|object| {
//! #     let object: RegistryObject = serde_json::from_value(object).unwrap();
//! #     Entry { object, source: Source::File }
//! # });
//! # let registry = Registry::build(1, entries.collect(), BTreeMap::new()).unwrap();
//! # let now = Timestamp::from_unix(1_795_200_000);
//! # let issuer = "https://sts.example.com".parse()?;
//! # let user = UserClaims {
//! #     requester: Requester {
//! #         issuer: "https://login.example.com".parse()?,
//! #         subject: "alice".parse()?,
//! #     },
//! #     audiences: vec!["https://sts.example.com".to_owned()],
//! #     issued: Some(now),
//! #     expires: now.saturating_add(Lifetime::hours(1)),
//! #     client: Some("planner-app".to_owned()),
//! #     may_act: None,
//! #     is_key_bound: false,
//! #     scope: Some("files:read files:write".parse()?),
//! #     chain: None,
//! #     auth_context: AuthenticationContext { auth_time: None, acr: None, amr: None },
//! #     raw_claims: Map::new(),
//! #     ignored_claims: Vec::new(),
//! # };
//! # let purpose = "quarterly report".parse()?;
//! let scope: ScopeList = "files:read".parse()?;
//! let input = ExchangeInput {
//!     now,
//!     issuer: &issuer,
//!     trust_domain: "example.com",
//!     registry: &registry,
//!     token_limits: &TokenLimits::default(),
//!     task_limits: &TaskLimits::default(),
//!     presenter: Presenter::Agent(registry.agent(&"planner".parse()?).unwrap()),
//!     subject: Evidence::User(&user, registry.issuer("https://login.example.com").unwrap()),
//!     actor_match: AgentMatch::Absent,
//!     grants: &[],
//!     requested_token: RequestedToken::Access(registry.resource(&"files".parse()?).unwrap()),
//!     scope: Some(&scope),
//!     details: None,
//!     expires_in: None,
//!     task: TaskSelector::Unnamed { purpose: Some(&purpose), deadline: None },
//! };
//!
//! let plan = decide(&input)?;
//! assert_eq!(plan.basis, Basis::Client);
//! assert_eq!(plan.audience, "https://files.example.com/mcp");
//! assert_eq!(plan.scope.to_string(), "files:read");
//! assert_eq!(plan.expires, now.saturating_add(Lifetime::minutes(5)));
//!
//! // The user may write, but the agent may not.
//! let scope: ScopeList = "files:read files:write".parse()?;
//! let denial = decide(&ExchangeInput { scope: Some(&scope), ..input }).unwrap_err();
//! let Denial::ScopeExceedsCeiling(excess) = &denial else { panic!("{denial}") };
//! assert_eq!(excess.owner, CeilingOwner::Agent);
//! assert_eq!(denial.to_string(), "scope[1]: exceeds what the agent may have");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod basis;
mod ceilings;
mod consent;
mod denial;
mod input;
mod plan;
mod presenter;
pub mod presenter_binding;
#[cfg(test)]
mod tests;

pub use basis::Basis;
pub use denial::{CeilingExceeded, CeilingOwner, Denial};
pub use input::{Evidence, ExchangeInput, Presenter, RequestedToken, TaskSelector};
pub use plan::{PlannedTask, TokenPlan};
pub use presenter::check_holder;

use ceilings::resolve_authority;
use consent::{GrantBasis, grant_basis};
use presenter::{check_presenter, check_requested_token};

use crate::domain::{
    authority::Authority,
    id::TokenId,
    registry::{
        Registry,
        client::{Agent, AgentKind, Edge},
    },
    settings::{TASK_LIFETIME_CAP, TOKEN_LIFETIME_CAP},
    task::{JoinError, Requester},
    time::Timestamp,
    token::{
        NextActor, TaskContext, TokenKind,
        actor_chain::{Actor, ActorChain, ActorChainError},
        foreign_claims::AuthenticationContext,
    },
};

/// Maximum length of a token's lineage. It bounds how often an agent can exchange its own token.
pub const MAX_LINEAGE: usize = 16;

/// Decides about an exchange: returns the token to issue, or the first violated rule.
///
/// # Errors
///
/// Returns the [`Denial`] of the first rule that the request violates.
pub fn decide(input: &ExchangeInput<'_>) -> Result<TokenPlan, Denial> {
    let input = &hide_foreign_task(input);
    check_requested_token(input)?;
    let basis = check_presenter(input)?;
    let chain = resolve_chain(input)?;
    let edges = resolve_edges(input, &chain)?;
    let lineage = resolve_lineage(input)?;
    check_task(input)?;
    let requested = resolve_authority(input, &edges)?;
    let grant = grant_basis(input, basis == Basis::Grant, &requested)?;
    let (task, deadline) = resolve_task(input, &requested, grant)?;
    let resource = input.requested_token.resource();
    let authority = resource.map_or(requested.clone(), |resource| requested.restrict_to(&resource.uri));
    if authority.is_empty() {
        return Err(Denial::NoAuthorityAtTarget);
    }
    let expires = resolve_expiry(input, &authority, deadline, grant)?;
    Ok(TokenPlan {
        kind: token_kind(input.requested_token),
        audience: match input.requested_token {
            RequestedToken::Access(resource) => resource.uri.to_string(),
            RequestedToken::HandOver(..) => input.issuer.to_string(),
            RequestedToken::Txn => input.trust_domain.to_owned(),
        },
        algorithm: match input.requested_token {
            RequestedToken::Access(resource) => resource.signing_algorithm,
            RequestedToken::HandOver(..) | RequestedToken::Txn => None,
        },
        requester: resolve_requester(input.subject),
        chain,
        client: input.presenter.id().clone(),
        task,
        lineage,
        scope: input.registry.covered_scopes(&authority, resource.map(|resource| &resource.uri)),
        authority,
        expires,
        auth_context: match input.subject {
            Evidence::User(user, _) => user.auth_context.clone(),
            Evidence::Own(own, _) => {
                AuthenticationContext { auth_time: own.auth_time, acr: own.acr.clone(), amr: own.amr.clone() }
            }
        },
        req_wl: matches!(input.requested_token, RequestedToken::Txn).then(|| input.presenter.id().clone()),
        may_act: match input.requested_token {
            RequestedToken::HandOver(to, _) => Some(NextActor { iss: input.issuer.clone(), sub: to.id.clone() }),
            RequestedToken::Access(_) | RequestedToken::Txn => None,
        },
        grant: grant.id(),
        break_glass: grant.is_break_glass(),
        basis,
    })
}

fn token_kind(requested: RequestedToken<'_>) -> TokenKind {
    match requested {
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

fn resolve_chain(input: &ExchangeInput<'_>) -> Result<ActorChain, Denial> {
    let actor = |agent: &Agent| Actor {
        iss: input.issuer.to_string(),
        sub: agent.id.to_string(),
        sub_profile: Some(agent.kind.profile().to_owned()),
    };
    let max = input.token_limits.max_chain;
    let chain = match (input.subject, input.presenter) {
        (Evidence::User(user, _), Presenter::Agent(agent)) => match &user.chain {
            None => Ok(ActorChain::from_actor(actor(agent))),
            // Another issuer can't state that an agent of this server acted: no edge was checked
            // for it.
            Some(chain) if chain.actors().any(|actor| input.issuer.is_same_location(&actor.iss)) => {
                Err(ActorChainError::OwnAgentNamedByForeignIssuer)
            }
            Some(chain) => chain.with_actor(actor(agent), max),
        },
        (Evidence::Own(own, TokenKind::HandOver), Presenter::Agent(agent)) => own.act.with_actor(actor(agent), max),
        // The holder continues, or the resource that was called: no new actor.
        (Evidence::Own(own, _), _) => Ok(own.act.clone()),
        (Evidence::User(..), Presenter::Resource(_)) => return Err(Denial::PresenterMismatch),
    };
    let chain = chain.map_err(Denial::Chain)?;
    // A hand-over token is useless if its agent can't join the chain. Deny it now, not when it is
    // presented.
    if let RequestedToken::HandOver(to, _) = input.requested_token {
        chain.with_actor(actor(to), max).map_err(Denial::Chain)?;
    }
    Ok(chain)
}

/// An edge along the chain, or from the chain to the requested actor.
#[derive(Clone, Copy, Debug)]
pub(super) struct EdgeUse<'a> {
    pub(super) edge: &'a Edge,
    /// Whether the edge starts at the presenter, which may then know what the edge allows.
    pub(super) is_own: bool,
}

/// Returns the edges along the chain, oldest first, and to the requested actor.
///
/// Each edge must still be in the registry, and its depth must allow the agents that follow. The
/// first agent must not be a broker: a broker works for an agent behind it.
pub(super) fn resolve_edges<'a>(input: &ExchangeInput<'a>, chain: &ActorChain) -> Result<Vec<EdgeUse<'a>>, Denial> {
    let registry: &'a Registry = input.registry;
    let is_own = |actor: &&Actor| actor.iss == input.issuer.as_str();
    let find = |actor: &Actor| actor.sub.parse().ok().and_then(|id| registry.agent(&id)).ok_or(Denial::PartyBlocked);
    let mut agents = chain.actors().rev().filter(is_own).map(find).collect::<Result<Vec<&Agent>, _>>()?;
    if let RequestedToken::HandOver(to, _) = input.requested_token {
        agents.push(to);
    }
    if agents.first().is_some_and(|root| root.kind == AgentKind::Broker) {
        return Err(Denial::BrokerWithoutPrincipal);
    }
    let mut edges = Vec::new();
    for (n, (from, to)) in agents.iter().zip(agents.iter().skip(1)).enumerate() {
        let edge = from.edge_to(&to.id).ok_or(Denial::DelegationNotAllowed)?;
        let followers = agents.len() - n - 1;
        if edge.depth.is_some_and(|depth| followers > usize::from(depth)) {
            return Err(Denial::DelegationDepthExceeded);
        }
        let is_own = matches!(input.presenter, Presenter::Agent(agent) if agent.id == from.id);
        edges.push(EdgeUse { edge, is_own });
    }
    Ok(edges)
}

fn resolve_lineage(input: &ExchangeInput<'_>) -> Result<Vec<TokenId>, Denial> {
    match input.subject {
        Evidence::User(..) => Ok(Vec::new()),
        Evidence::Own(own, _) if own.lineage.len() >= MAX_LINEAGE => Err(Denial::LineageTooLong),
        Evidence::Own(own, _) => Ok(own.lineage.iter().copied().chain([own.jti]).collect()),
    }
}

/// Returns the input without a task of another party, so that no answer depends on it.
fn hide_foreign_task<'a>(input: &ExchangeInput<'a>) -> ExchangeInput<'a> {
    let task = match (input.task, input.subject) {
        (TaskSelector::Named(id, task), Evidence::User(user, _)) => {
            TaskSelector::Named(id, task.filter(|task| task.belongs_to(&user.requester, input.presenter.id())))
        }
        // With a token of this server, only the task of that token can be named.
        (TaskSelector::Named(id, _), Evidence::Own(..)) => TaskSelector::Named(id, None),
        (unnamed @ TaskSelector::Unnamed { .. }, _) => unnamed,
    };
    ExchangeInput { task, ..*input }
}

/// Checks that the named task can be joined, before its authority is used as a ceiling.
fn check_task(input: &ExchangeInput<'_>) -> Result<(), Denial> {
    match (input.subject, input.task) {
        (Evidence::Own(own, _), TaskSelector::Named(id, _)) if id != own.txn => Err(Denial::TaskMismatch),
        (_, TaskSelector::Unnamed { .. }) | (Evidence::Own(..), TaskSelector::Named(..)) => Ok(()),
        (Evidence::User(..), TaskSelector::Named(_, None)) => Err(Denial::TaskNotJoinable(JoinError::UnknownTask)),
        (Evidence::User(user, _), TaskSelector::Named(_, Some(task))) => {
            task.check_joinable(&user.requester, input.presenter.id(), input.now).map_err(Denial::TaskNotJoinable)
        }
    }
}

fn resolve_task(
    input: &ExchangeInput<'_>,
    requested: &Authority,
    grant: GrantBasis<'_>,
) -> Result<(PlannedTask, Timestamp), Denial> {
    match (input.subject, input.task) {
        (Evidence::Own(own, _), _) => {
            let existing = PlannedTask::Existing {
                id: own.txn,
                authority_hash: own.task.authority_hash.clone(),
                context: own.tctx.clone(),
            };
            // The parent expires no later than the task's deadline, and the new token no later than
            // the parent.
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
            let max = input.task_limits.max_lifetime.min(TASK_LIFETIME_CAP);
            let life = deadline.unwrap_or(input.task_limits.lifetime.min(max));
            if life > max {
                return Err(Denial::DeadlineTooLong);
            }
            let deadline = cap_at_grant(input.now.saturating_add(life), grant);
            Ok((PlannedTask::Open { purpose, authority: requested.clone(), deadline }, deadline))
        }
    }
}

/// Limits an expiry to that of a recorded grant. With an inherited grant, the parent's expiry is
/// the limit already.
fn cap_at_grant(end: Timestamp, grant: GrantBasis<'_>) -> Timestamp {
    match grant {
        GrantBasis::Recorded(grant) => end.min(grant.expires),
        GrantBasis::None | GrantBasis::Inherited { .. } => end,
    }
}

/// Returns the authority that the requester would have to consent to: the requested one, if it is
/// within all ceilings.
#[must_use]
pub fn authority_requiring_consent(input: &ExchangeInput<'_>) -> Option<Authority> {
    let edges = resolve_edges(input, &resolve_chain(input).ok()?).ok()?;
    resolve_authority(input, &edges).ok()
}

/// Returns the earliest of the requested expiry, the configured lifetime, the caps of agents and of
/// every resource in the authority, the expiry of subject token and grant, and the task's deadline.
fn resolve_expiry(
    input: &ExchangeInput<'_>,
    authority: &Authority,
    deadline: Timestamp,
    grant: GrantBasis<'_>,
) -> Result<Timestamp, Denial> {
    let agent_cap = |agent: &Agent| agent.max_token_lifetime;
    let resources = authority.iter().filter_map(|permission| input.registry.resource_at(&permission.resource));
    let caps = [
        // A hard cap: a revocation is forgotten when no token that it could end is still alive.
        Some(TOKEN_LIFETIME_CAP),
        Some(input.token_limits.lifetime),
        input.expires_in,
        resources.filter_map(|resource| resource.max_token_lifetime).min(),
        match input.presenter {
            Presenter::Agent(agent) => agent_cap(agent),
            Presenter::Resource(_) => None,
        },
        match input.requested_token {
            RequestedToken::HandOver(to, _) => agent_cap(to),
            RequestedToken::Access(_) | RequestedToken::Txn => None,
        },
    ];
    let life = caps.into_iter().flatten().min().unwrap_or(TOKEN_LIFETIME_CAP);
    let subject = match input.subject {
        Evidence::User(user, _) => user.expires,
        Evidence::Own(own, _) => own.exp,
    };
    let expires = cap_at_grant(input.now.saturating_add(life).min(subject).min(deadline), grant);
    if expires.has_passed(input.now) { Err(Denial::AlreadyExpired) } else { Ok(expires) }
}
