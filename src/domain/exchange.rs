//! The rule of the house: may this token be issued, and what stands in it? A pure function from an [`Ask`] to a [`Plan`]
//! or a [`Denial`]. If it is not in the `Ask`, it can't matter.
//!
//! The order of the checks is the order of the answers: who presents it, the chain, the task, the authority, the life.

mod denial;

pub use denial::{Denial, Holding};

use crate::domain::{
    authority::Authority,
    chain::{Chain, Hop},
    claims::{MayAct, SignIn, UserClaims},
    client::{Agent, Resource},
    id::{ClientId, Purpose, TaskId, TokenId},
    issuer::{SubjectScopes, TrustedIssuer},
    jwk::SigningAlgorithm,
    limits::{TaskLimits, TokenLimits},
    registry::Registry,
    scope::ScopeSet,
    splice::{self, Pointers, Says},
    task::{Requester, Task},
    time::{Lifetime, Timestamp},
    token::{NextActor, TaskContext, TaskTokenClaims, TokenKind},
    uri::IssuerUrl,
};

/// How many tokens one can be derived from: an agent that trades its own token again and again comes to an end.
pub const MAX_LINEAGE: usize = 16;

/// What our agents are, in `sub_profile` of their hop (actor profile draft).
const SUB_PROFILE: &str = "ai_agent";

/// Everything that the decision depends on.
#[derive(Clone, Copy, Debug)]
pub struct Ask<'a> {
    /// When.
    pub now: Timestamp,
    /// Us.
    pub issuer: &'a IssuerUrl,
    /// The `aud` of transaction tokens.
    pub trust_domain: &'a str,
    /// Whom and what we know.
    pub registry: &'a Registry,
    /// Lives and depths of tokens.
    pub tokens: &'a TokenLimits,
    /// Lives of tasks.
    pub tasks: &'a TaskLimits,
    /// The authenticated client.
    pub presenter: Presenter<'a>,
    /// What it presents.
    pub subject: Evidence<'a>,
    /// What its actor token, if it has one, says.
    pub actor: Says,
    /// Whether a grant of the requester to this agent is on record, and not over.
    pub grant: bool,
    /// What it wants.
    pub output: Output<'a>,
    /// The scopes it asks for.
    pub scope: Option<&'a ScopeSet>,
    /// The details it asks for.
    pub details: Option<&'a Authority>,
    /// The life it asks for.
    pub expires_in: Option<Lifetime>,
    /// The task it asks for.
    pub task: TaskWanted<'a>,
}

/// Who presents a token.
#[derive(Clone, Copy, Debug)]
pub enum Presenter<'a> {
    /// An agent.
    Agent(&'a Agent),
    /// A resource: it may turn a token that was meant for it into a transaction token.
    Resource(&'a Resource),
}

impl<'a> Presenter<'a> {
    /// Its client id.
    #[must_use]
    pub fn id(self) -> &'a ClientId {
        match self {
            Self::Agent(agent) => &agent.id,
            Self::Resource(resource) => &resource.id,
        }
    }
}

/// A presented token after every check on it.
#[derive(Clone, Copy, Debug)]
pub enum Evidence<'a> {
    /// A user token of a trusted issuer.
    User(&'a UserClaims, &'a TrustedIssuer),
    /// A token of ours, live.
    Own(&'a TaskTokenClaims, TokenKind),
}

/// What kind of token is wanted.
#[derive(Clone, Copy, Debug)]
pub enum Output<'a> {
    /// For one resource.
    Access(&'a Resource),
    /// To be handed to that agent.
    HandOver(&'a Agent, &'a Resource),
    /// For the trust domain.
    Txn,
}

/// Which task is wanted.
#[derive(Clone, Copy, Debug)]
pub enum TaskWanted<'a> {
    /// None is named: the subject token's own, or a new one.
    Unnamed {
        /// What a new one is for.
        purpose: Option<&'a Purpose>,
        /// How long a new one may take.
        deadline: Option<Lifetime>,
    },
    /// This one. `None` when there is no task with this id.
    Named(TaskId, Option<&'a Task>),
}

/// What is to be issued.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The kind of token.
    pub kind: TokenKind,
    /// Its `aud`.
    pub audience: String,
    /// What to sign it with; the configured algorithm when absent.
    pub algorithm: Option<SigningAlgorithm>,
    /// In whose name.
    pub requester: Requester,
    /// Who acts.
    pub chain: Chain,
    /// The client that gets it.
    pub client: ClientId,
    /// The task it belongs to.
    pub task: PlannedTask,
    /// The tokens it is derived from, oldest first.
    pub lineage: Vec<TokenId>,
    /// What may be done with it.
    pub authority: Authority,
    /// The scopes that this covers.
    pub scope: ScopeSet,
    /// When it ends.
    pub expires: Timestamp,
    /// How the requester signed in.
    pub sign_in: SignIn,
    /// The workload that asked for a transaction token.
    pub req_wl: Option<ClientId>,
    /// The agent that a hand-over token is for.
    pub may_act: Option<NextActor>,
    /// By what right: for the audit trail.
    pub basis: &'static str,
}

/// The task of a planned token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PlannedTask {
    /// A new one.
    Open {
        /// What it is for.
        purpose: Purpose,
        /// What is approved for it.
        authority: Authority,
        /// When it ends by itself.
        deadline: Timestamp,
    },
    /// One that is there.
    Existing {
        /// Which.
        id: TaskId,
        /// The hash of what was approved for it.
        authority_hash: String,
        /// What the parent token says it is for, to be said again unchanged; for a joined task its purpose.
        context: TaskContext,
    },
}

/// Decides.
pub fn decide(ask: &Ask<'_>) -> Result<Plan, Denial> {
    check_output(ask)?;
    let basis = check_presenter(ask)?;
    let chain = chain(ask)?;
    let lineage = lineage(ask)?;
    let wanted = authority(ask)?;
    let (task, deadline) = task(ask, &wanted)?;
    let authority = match ask.output {
        Output::Access(resource) => wanted.at(&resource.uri),
        Output::HandOver(..) | Output::Txn => wanted,
    };
    if authority.is_empty() {
        return Err(Denial::NothingForTarget);
    }
    let expires = expires(ask, deadline)?;
    Ok(Plan {
        kind: kind(ask.output),
        audience: match ask.output {
            Output::Access(resource) => resource.uri.to_string(),
            Output::HandOver(..) => ask.issuer.to_string(),
            Output::Txn => ask.trust_domain.to_owned(),
        },
        algorithm: match ask.output {
            Output::Access(resource) => resource.signing_algorithm,
            Output::HandOver(..) | Output::Txn => None,
        },
        requester: requester(ask.subject),
        chain,
        client: ask.presenter.id().clone(),
        task,
        lineage,
        scope: ask.registry.scopes_covered(&authority),
        authority,
        expires,
        sign_in: match ask.subject {
            Evidence::User(user, _) => user.sign_in.clone(),
            Evidence::Own(own, _) => SignIn { auth_time: own.auth_time, acr: own.acr.clone(), amr: own.amr.clone() },
        },
        req_wl: matches!(ask.output, Output::Txn).then(|| ask.presenter.id().clone()),
        may_act: match ask.output {
            Output::HandOver(to, _) => Some(NextActor { iss: ask.issuer.clone(), sub: to.id.clone() }),
            Output::Access(_) | Output::Txn => None,
        },
        basis,
    })
}

fn kind(output: Output<'_>) -> TokenKind {
    match output {
        Output::Access(_) => TokenKind::Access,
        Output::HandOver(..) => TokenKind::HandOver,
        Output::Txn => TokenKind::Txn,
    }
}

fn requester(subject: Evidence<'_>) -> Requester {
    match subject {
        Evidence::User(user, _) => user.requester.clone(),
        Evidence::Own(own, _) => own.requester(),
    }
}

/// Which outputs there are for whom, and that the target is not shut out.
fn check_output(ask: &Ask<'_>) -> Result<(), Denial> {
    match (ask.presenter, ask.output) {
        (Presenter::Resource(_), Output::Access(_) | Output::HandOver(..)) => return Err(Denial::OnlyTxnForResource),
        (_, Output::Access(resource)) if resource.disabled => return Err(Denial::TargetShutOut),
        (Presenter::Agent(from), Output::HandOver(to, resource)) => {
            if resource.disabled || to.disabled {
                return Err(Denial::TargetShutOut);
            }
            if !from.may_delegate_to.contains(&to.id) {
                return Err(Denial::MayNotDelegate);
            }
        }
        (Presenter::Agent(_), Output::Access(_)) | (_, Output::Txn) => {}
    }
    match ask.subject {
        Evidence::Own(_, TokenKind::Txn) if !matches!(ask.output, Output::Txn) => Err(Denial::TxnOnlyReplaced),
        Evidence::Own(_, TokenKind::Api) => Err(Denial::ApiToken),
        Evidence::Own(..) | Evidence::User(..) => Ok(()),
    }
}

/// Whether the evidence points at the presenter. Returns by what right.
fn check_presenter(ask: &Ask<'_>) -> Result<&'static str, Denial> {
    match (ask.subject, ask.presenter) {
        (Evidence::User(..), Presenter::Resource(_)) => Err(Denial::NotThePresenter),
        (Evidence::User(user, issuer), Presenter::Agent(agent)) => {
            let basis = splice::check(pointers(ask, user, issuer, agent)).map_err(Denial::Splice)?;
            Ok(basis.as_str())
        }
        (Evidence::Own(own, kind), presenter) => {
            check_not_shut_out(ask, own)?;
            if ask.actor == Says::SomebodyElse {
                return Err(Denial::Splice(splice::NotThisAgent::ActorIsAnother));
            }
            check_own(ask, own, kind, presenter)
        }
    }
}

fn pointers(ask: &Ask<'_>, user: &UserClaims, issuer: &TrustedIssuer, agent: &Agent) -> Pointers {
    let names = agent.known_as.get(&issuer.issuer).map(Vec::as_slice).unwrap_or_default();
    let is_this_agent = |may_act: &MayAct| match may_act.iss.as_deref() {
        Some(iss) if iss == ask.issuer.as_str() => may_act.sub == agent.id.as_str(),
        Some(iss) => iss == issuer.issuer.as_str() && names.contains(&may_act.sub),
        None => names.contains(&may_act.sub),
    };
    Pointers {
        audience: user.audiences.iter().any(|aud| names.contains(aud)),
        client: user.client.as_ref().is_some_and(|client| names.contains(client)),
        may_act: match &user.may_act {
            None => Says::Nothing,
            Some(may_act) if is_this_agent(may_act) => Says::ThisAgent,
            Some(_) => Says::SomebodyElse,
        },
        actor: ask.actor,
        grant: ask.grant,
    }
}

/// A token of ours goes on from the client that holds it, from the resource it is for, or from the agent that it names.
fn check_own(
    ask: &Ask<'_>,
    own: &TaskTokenClaims,
    kind: TokenKind,
    presenter: Presenter<'_>,
) -> Result<&'static str, Denial> {
    match (kind, presenter) {
        (TokenKind::Access, Presenter::Agent(agent)) if agent.id == own.client_id => Ok("holder"),
        (TokenKind::Access, Presenter::Resource(resource)) if resource.uri.as_str() == own.aud => Ok("audience"),
        (TokenKind::HandOver, Presenter::Agent(agent)) => {
            let named = own.may_act.as_ref().is_some_and(|next| next.iss == *ask.issuer && next.sub == agent.id);
            if !named {
                return Err(Denial::NotThePresenter);
            }
            // The edge is looked at again: it may have been taken out of the registry since the hand-over.
            let from = ask.registry.agent(&own.client_id).ok_or(Denial::ShutOut)?;
            if from.may_delegate_to.contains(&agent.id) { Ok("hand_over") } else { Err(Denial::MayNotDelegate) }
        }
        (TokenKind::Txn, presenter) if own.req_wl.as_ref() == Some(presenter.id()) => Ok("holder"),
        _ => Err(Denial::NotThePresenter),
    }
}

/// Nothing is derived from what somebody who is shut out took part in.
fn check_not_shut_out(ask: &Ask<'_>, own: &TaskTokenClaims) -> Result<(), Denial> {
    if admits(ask.registry, own) { Ok(()) } else { Err(Denial::ShutOut) }
}

/// Whether everybody who takes part in a token is still registered and not shut out: its requester's issuer, its
/// client, every agent of ours in its chain, and the resource that it is for.
#[must_use]
pub fn admits(registry: &Registry, own: &TaskTokenClaims) -> bool {
    let names = own.names();
    let issuer = registry.issuer(own.sub_iss.as_str()).is_some_and(|issuer| !issuer.disabled);
    let clients = names.agents.iter().all(|id| registry.client(id).is_some_and(|client| !client.is_disabled()));
    let resource = names.resource.is_none_or(|uri| registry.resource_at(&uri).is_some_and(|r| !r.disabled));
    issuer && clients && resource
}

fn chain(ask: &Ask<'_>) -> Result<Chain, Denial> {
    let hop = |agent: &Agent| Hop {
        iss: ask.issuer.to_string(),
        sub: agent.id.to_string(),
        sub_profile: Some(SUB_PROFILE.to_owned()),
    };
    let max = ask.tokens.max_chain;
    let chain = match (ask.subject, ask.presenter) {
        (Evidence::User(user, _), Presenter::Agent(agent)) => match &user.chain {
            None => Ok(Chain::of(hop(agent))),
            Some(before) => before.extended_by(hop(agent), max),
        },
        (Evidence::Own(own, TokenKind::HandOver), Presenter::Agent(agent)) => own.act.extended_by(hop(agent), max),
        // The holder goes on, or the resource that it called: nobody new acts.
        (Evidence::Own(own, _), _) => Ok(own.act.clone()),
        (Evidence::User(..), Presenter::Resource(_)) => return Err(Denial::NotThePresenter),
    };
    chain.map_err(Denial::Chain)
}

fn lineage(ask: &Ask<'_>) -> Result<Vec<TokenId>, Denial> {
    match ask.subject {
        Evidence::User(..) => Ok(Vec::new()),
        Evidence::Own(own, _) if own.lineage.len() >= MAX_LINEAGE => Err(Denial::LineageTooLong),
        Evidence::Own(own, _) => Ok(own.lineage.iter().copied().chain([own.jti]).collect()),
    }
}

/// `requested ∩ parent ∩ requester's ∩ agent's ∩ catalogue`, where asking for more than can be had is an error that says
/// whose ceiling it was, and asking for nothing is one that says how to ask.
fn authority(ask: &Ask<'_>) -> Result<Authority, Denial> {
    let by_scope = match ask.scope {
        None => Authority::default(),
        Some(scopes) => scopes_asked(ask, scopes)?,
    };
    let by_details = ask.details.cloned().unwrap_or_default();
    if ask.scope.is_none() && ask.details.is_none() {
        return Err(Denial::NothingAsked);
    }
    for (holding, ceiling) in ceilings(ask)? {
        if !by_scope.within(&ceiling) {
            return Err(Denial::ScopeTooWide(holding));
        }
        if !by_details.within(&ceiling) {
            return Err(Denial::DetailsTooWide(holding));
        }
    }
    Ok(by_scope.iter().chain(by_details.iter()).cloned().collect())
}

/// The tools under the scopes that are asked for; a scope without a tool is unknown.
fn scopes_asked(ask: &Ask<'_>, scopes: &ScopeSet) -> Result<Authority, Denial> {
    let at = match ask.output {
        Output::Access(resource) | Output::HandOver(_, resource) => Some(&resource.uri),
        Output::Txn => None,
    };
    let known = |scope| !ask.registry.under_scopes(&std::iter::once(scope).collect(), at).is_empty();
    if scopes.iter().cloned().all(known) {
        Ok(ask.registry.under_scopes(scopes, at))
    } else {
        Err(Denial::ScopeTooWide(Holding::Catalogue))
    }
}

/// Everything that the asked must be within, and whose it is.
fn ceilings(ask: &Ask<'_>) -> Result<Vec<(Holding, Authority)>, Denial> {
    let mut ceilings = vec![(Holding::Catalogue, ask.registry.catalogue())];
    if let Presenter::Agent(agent) = ask.presenter {
        ceilings.push((Holding::Agent, ask.registry.ceiling(agent)));
    }
    if let Output::HandOver(to, _) = ask.output {
        ceilings.push((Holding::Agent, ask.registry.ceiling(to)));
    }
    match ask.subject {
        Evidence::Own(own, _) => ceilings.push((Holding::Parent, own.authorization_details.clone())),
        Evidence::User(user, issuer) => {
            if issuer.subject_scopes == SubjectScopes::Ceiling {
                let scope = user.scope.as_ref().ok_or(Denial::SubjectWithoutScope)?;
                ceilings.push((Holding::Requester, ask.registry.under_scopes(scope, None)));
            }
            if !issuer.entitlements.is_empty() {
                let rules = issuer.entitlements.iter().filter(|rule| rule.to.covers(&user.all));
                ceilings.push((Holding::Requester, ask.registry.entitled(rules)));
            }
        }
    }
    if let TaskWanted::Named(_, Some(task)) = ask.task {
        ceilings.push((Holding::Task, task.authority.clone()));
    }
    Ok(ceilings)
}

fn task(ask: &Ask<'_>, wanted: &Authority) -> Result<(PlannedTask, Timestamp), Denial> {
    match (ask.subject, ask.task) {
        (Evidence::Own(own, _), TaskWanted::Named(id, _)) if id != own.txn => Err(Denial::OtherTask),
        (Evidence::Own(own, _), _) => {
            let existing = PlannedTask::Existing {
                id: own.txn,
                authority_hash: own.task.authority_hash.clone(),
                context: own.tctx.clone(),
            };
            // The parent's expiry is never later than the task's deadline, and ours is never later than the parent's.
            Ok((existing, own.exp))
        }
        (Evidence::User(user, _), TaskWanted::Named(_, task)) => {
            let task = task.ok_or(Denial::CannotJoin(crate::domain::task::CannotJoin::NotYours))?;
            task.admits(&user.requester, ask.presenter.id(), ask.now).map_err(Denial::CannotJoin)?;
            let existing = PlannedTask::Existing {
                id: task.id,
                authority_hash: task.authority.hash(),
                context: TaskContext { purpose: task.purpose.clone(), details: None },
            };
            Ok((existing, task.deadline))
        }
        (Evidence::User(..), TaskWanted::Unnamed { purpose, deadline }) => {
            let purpose = purpose.ok_or(Denial::PurposeMissing)?.clone();
            let life = deadline.unwrap_or(ask.tasks.lifetime);
            if life > ask.tasks.max_lifetime {
                return Err(Denial::DeadlineTooLong);
            }
            let deadline = ask.now.after(life);
            Ok((PlannedTask::Open { purpose, authority: wanted.clone(), deadline }, deadline))
        }
    }
}

/// `min(asked, ours, the resource's cap, the agent's cap, the subject token's own expiry, the task's deadline)`.
fn expires(ask: &Ask<'_>, deadline: Timestamp) -> Result<Timestamp, Denial> {
    let agent_cap = |agent: &Agent| agent.max_token_lifetime;
    let caps = [
        Some(ask.tokens.lifetime),
        ask.expires_in,
        match ask.output {
            Output::Access(resource) | Output::HandOver(_, resource) => resource.max_token_lifetime,
            Output::Txn => None,
        },
        match ask.presenter {
            Presenter::Agent(agent) => agent_cap(agent),
            Presenter::Resource(_) => None,
        },
        match ask.output {
            Output::HandOver(to, _) => agent_cap(to),
            Output::Access(_) | Output::Txn => None,
        },
    ];
    let life = caps.into_iter().flatten().min().unwrap_or(ask.tokens.lifetime);
    let subject = match ask.subject {
        Evidence::User(user, _) => user.expires,
        Evidence::Own(own, _) => own.exp,
    };
    let expires = ask.now.after(life).min(subject).min(deadline);
    if expires.is_past(ask.now) { Err(Denial::NoTimeLeft) } else { Ok(expires) }
}
