//! The rule of the house: may this token be issued, and what stands in it? A pure function from an [`Ask`] to a [`Plan`]
//! or a [`Denial`]. If it is not in the `Ask`, it can't matter.
//!
//! The order of the checks is the order of the answers: who presents it, the chain, the task, the authority, the life.

mod ask;
mod ceilings;
mod consent;
mod denial;
mod edges;
mod plan;
mod presenter;
#[cfg(test)]
mod tests;

pub use ask::{Ask, Evidence, Output, Presenter, TaskWanted};
pub use denial::{Denial, Excess, Holding};
pub use plan::{Plan, PlannedTask};
pub use presenter::admits;

use ceilings::authority;
use consent::{Ground, ground};
use edges::edges;
use presenter::{check_output, check_presenter};

use crate::domain::{
    authority::Authority,
    chain::{Chain, Hop, InvalidChain},
    claims::SignIn,
    client::Agent,
    id::TokenId,
    limits::{TASK_LIFETIME_CAP, TOKEN_LIFETIME_CAP},
    splice::Basis,
    task::{CannotJoin, Requester},
    time::Timestamp,
    token::{NextActor, TaskContext, TokenKind},
};

/// How many tokens one can be derived from: an agent that trades its own token again and again comes to an end.
pub const MAX_LINEAGE: usize = 16;

/// Decides.
pub fn decide(ask: &Ask<'_>) -> Result<Plan, Denial> {
    let ask = &without_theirs(ask);
    check_output(ask)?;
    let basis = check_presenter(ask)?;
    let chain = chain(ask)?;
    let along = edges(ask, &chain)?;
    let lineage = lineage(ask)?;
    check_task(ask)?;
    let wanted = authority(ask, &along)?;
    let ground = ground(ask, basis == Basis::Grant.as_str(), &wanted)?;
    let (task, deadline) = task(ask, &wanted, ground)?;
    let authority = ask.output.resource().map_or(wanted.clone(), |resource| wanted.at(&resource.uri));
    if authority.is_empty() {
        return Err(Denial::NothingForTarget);
    }
    let expires = expires(ask, deadline, ground)?;
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
        scope: ask.registry.scopes_covered(&authority, ask.output.resource().map(|resource| &resource.uri)),
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
        grant: ground.id(),
        break_glass: ground.is_break_glass(),
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

fn chain(ask: &Ask<'_>) -> Result<Chain, Denial> {
    let hop = |agent: &Agent| Hop {
        iss: ask.issuer.to_string(),
        sub: agent.id.to_string(),
        sub_profile: Some(agent.kind.profile().to_owned()),
    };
    let max = ask.tokens.max_chain;
    let chain = match (ask.subject, ask.presenter) {
        (Evidence::User(user, _), Presenter::Agent(agent)) => match &user.chain {
            None => Ok(Chain::of(hop(agent))),
            // Only we say which agents of ours acted: no edge of the registry was looked at for that hop.
            Some(before) if before.hops().any(|hop| hop.iss == ask.issuer.as_str()) => Err(InvalidChain::NotTheirs),
            Some(before) => before.extended_by(hop(agent), max),
        },
        (Evidence::Own(own, TokenKind::HandOver), Presenter::Agent(agent)) => own.act.extended_by(hop(agent), max),
        // The holder goes on, or the resource that it called: nobody new acts.
        (Evidence::Own(own, _), _) => Ok(own.act.clone()),
        (Evidence::User(..), Presenter::Resource(_)) => return Err(Denial::NotThePresenter),
    };
    let chain = chain.map_err(Denial::Chain)?;
    // A token for an agent that can't join is good for nothing: say so now, and not when it is presented.
    if let Output::HandOver(to, _) = ask.output {
        chain.extended_by(hop(to), max).map_err(Denial::Chain)?;
    }
    Ok(chain)
}

fn lineage(ask: &Ask<'_>) -> Result<Vec<TokenId>, Denial> {
    match ask.subject {
        Evidence::User(..) => Ok(Vec::new()),
        Evidence::Own(own, _) if own.lineage.len() >= MAX_LINEAGE => Err(Denial::LineageTooLong),
        Evidence::Own(own, _) => Ok(own.lineage.iter().copied().chain([own.jti]).collect()),
    }
}

/// The same question, where a task that is somebody else's is none: nothing of it may show in an answer, whatever it says.
fn without_theirs<'a>(ask: &Ask<'a>) -> Ask<'a> {
    let task = match (ask.task, ask.subject) {
        (TaskWanted::Named(id, task), Evidence::User(user, _)) => {
            TaskWanted::Named(id, task.filter(|task| task.is_of(&user.requester, ask.presenter.id())))
        }
        // Who brings a token of ours names the task of that token, or none.
        (TaskWanted::Named(id, _), Evidence::Own(..)) => TaskWanted::Named(id, None),
        (unnamed @ TaskWanted::Unnamed { .. }, _) => unnamed,
    };
    Ask { task, ..*ask }
}

/// Whether the named task can be gone on with: before anything is measured by what was approved for it.
fn check_task(ask: &Ask<'_>) -> Result<(), Denial> {
    match (ask.subject, ask.task) {
        (_, TaskWanted::Unnamed { .. }) => Ok(()),
        (Evidence::Own(own, _), TaskWanted::Named(id, _)) if id != own.txn => Err(Denial::OtherTask),
        (Evidence::Own(..), TaskWanted::Named(..)) => Ok(()),
        (Evidence::User(..), TaskWanted::Named(_, None)) => Err(Denial::CannotJoin(CannotJoin::NotYours)),
        (Evidence::User(user, _), TaskWanted::Named(_, Some(task))) => {
            task.admits(&user.requester, ask.presenter.id(), ask.now).map_err(Denial::CannotJoin)
        }
    }
}

fn task(ask: &Ask<'_>, wanted: &Authority, ground: Ground<'_>) -> Result<(PlannedTask, Timestamp), Denial> {
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
        (Evidence::User(..), TaskWanted::Named(_, task)) => {
            let task = task.ok_or(Denial::CannotJoin(CannotJoin::NotYours))?;
            let existing = PlannedTask::Existing {
                id: task.id,
                authority_hash: task.authority.hash(),
                context: TaskContext { purpose: task.purpose.clone(), details: None },
            };
            Ok((existing, task.deadline))
        }
        (Evidence::User(..), TaskWanted::Unnamed { purpose, deadline }) => {
            let purpose = purpose.ok_or(Denial::PurposeMissing)?.clone();
            let longest = ask.tasks.max_lifetime.min(TASK_LIFETIME_CAP);
            let life = deadline.unwrap_or(ask.tasks.lifetime.min(longest));
            if life > longest {
                return Err(Denial::DeadlineTooLong);
            }
            let deadline = within_grant(ask.now.after(life), ground);
            Ok((PlannedTask::Open { purpose, authority: wanted.clone(), deadline }, deadline))
        }
    }
}

/// Nothing outlives the grant that it rests on. What is derived ends with its parent, which does not.
fn within_grant(end: Timestamp, ground: Ground<'_>) -> Timestamp {
    match ground {
        Ground::Recorded(grant) => end.min(grant.until),
        Ground::None | Ground::Inherited { .. } => end,
    }
}

/// What the requester would have to consent to: all that is asked for, as far as it can be had.
#[must_use]
pub fn consent_wanted(ask: &Ask<'_>) -> Option<Authority> {
    let along = edges(ask, &chain(ask).ok()?).ok()?;
    authority(ask, &along).ok()
}

/// `min(asked, ours, the resource's cap, the agent's cap, the subject token's own expiry, the grant's, the task's deadline)`.
fn expires(ask: &Ask<'_>, deadline: Timestamp, ground: Ground<'_>) -> Result<Timestamp, Denial> {
    let agent_cap = |agent: &Agent| agent.max_token_lifetime;
    let caps = [
        // Whatever is configured: a revocation is forgotten when nothing that it could end lives any more.
        Some(TOKEN_LIFETIME_CAP),
        Some(ask.tokens.lifetime),
        ask.expires_in,
        ask.output.resource().and_then(|resource| resource.max_token_lifetime),
        match ask.presenter {
            Presenter::Agent(agent) => agent_cap(agent),
            Presenter::Resource(_) => None,
        },
        match ask.output {
            Output::HandOver(to, _) => agent_cap(to),
            Output::Access(_) | Output::Txn => None,
        },
    ];
    let life = caps.into_iter().flatten().min().unwrap_or(TOKEN_LIFETIME_CAP);
    let subject = match ask.subject {
        Evidence::User(user, _) => user.expires,
        Evidence::Own(own, _) => own.exp,
    };
    let expires = within_grant(ask.now.after(life).min(subject).min(deadline), ground);
    if expires.is_past(ask.now) { Err(Denial::NoTimeLeft) } else { Ok(expires) }
}
