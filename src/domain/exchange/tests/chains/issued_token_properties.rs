//! Properties of every issued token, computed independently of the rule.

use proptest::{prelude::*, test_runner::TestCaseResult};

use super::*;
use crate::domain::revocation::{Index, LogAction, LogEntry, NewEntry, Standing, Target};

/// Checks all properties of a planned token.
pub(super) fn check_issued(
    world: &World,
    issued: &[Issued],
    attempt: &Attempt,
    step: &Step,
    plan: &TokenPlan,
    now: Timestamp,
) -> TestCaseResult {
    let parent = attempt.parent.map(|n| &issued[n]);
    check_parties(world, attempt, parent, plan)?;
    check_chain(world, attempt, parent, plan)?;
    check_audience(world, attempt, plan)?;

    // Authority: within all ceilings.
    let presenter = world.agents.iter().position(|a| *a == attempt.presenter);
    prop_assert!(!plan.authority.is_empty());
    let within = |ceiling: &Authority| is_subset_of(world, &plan.authority, ceiling);
    prop_assert!(within(&world.all_permissions()));
    prop_assert!(
        world.has_accepted_definitions(&plan.authority),
        "a tool with another definition than the accepted one"
    );
    prop_assert!(within(&world.user_ceiling));
    prop_assert!(presenter.is_none_or(|a| within(&world.ceilings[a])));
    prop_assert!(parent.is_none_or(|p| within(&p.claims.authorization_details)));
    prop_assert!(attempt.join.is_none_or(|n| within(&issued[n].approved)));
    if let AttemptedToken::HandOver(to, _) = attempt.output {
        prop_assert!(within(&world.ceilings[to]));
    }
    check_edges(world, attempt, plan)?;
    let by = match attempt.output {
        AttemptedToken::Access(at) | AttemptedToken::HandOver(_, at) => Some(uri(at)),
        AttemptedToken::Txn => None,
    };
    let scopes = plan.scope.iter().map(ToString::to_string).collect::<Vec<_>>();
    prop_assert_eq!(scopes, world.covered_scopes(&plan.authority, by.as_deref()), "exactly the covered scopes");

    // Expiry: after now, and no later than any limit.
    prop_assert!(plan.expires > now);
    prop_assert!(plan.expires <= now.saturating_add(Lifetime::minutes(15)));
    prop_assert!(step.expires_in.is_none_or(|life| plan.expires <= now.saturating_add(Lifetime::seconds(life.into()))));
    prop_assert!(plan.expires <= parent.map_or(world.user.expires, |p| p.claims.exp));
    match (&plan.task, parent, attempt.join.map(|n| &issued[n])) {
        (PlannedTask::Open { authority, deadline, .. }, None, None) => {
            prop_assert!(plan.expires <= *deadline && plan.authority.is_subset_of(authority));
            prop_assert!(authority.is_subset_of(&world.user_ceiling));
        }
        (PlannedTask::Existing { id, authority_hash, context }, Some(from), None)
        | (PlannedTask::Existing { id, authority_hash, context }, None, Some(from)) => {
            prop_assert!(plan.expires <= from.deadline);
            prop_assert_eq!((id, authority_hash), (&from.claims.txn, &from.claims.task.authority_hash));
            prop_assert_eq!(context.details.is_none(), from.claims.tctx.details.is_none());
        }
        _ => prop_assert!(false, "a task without origin"),
    }

    // Lineage and identity.
    let lineage = parent.map_or(Vec::new(), |p| {
        let mut lineage = p.claims.lineage.clone();
        lineage.push(p.claims.jti);
        lineage
    });
    prop_assert_eq!(&plan.lineage, &lineage);
    prop_assert_eq!(&plan.requester, &world.user.requester);
    prop_assert_eq!(&plan.auth_context, &world.user.auth_context);
    Ok(())
}

/// Checks the relation, and its meaning call by call.
fn is_subset_of(world: &World, ours: &Authority, theirs: &Authority) -> bool {
    let call_by_call = world.catalogue.iter().all(|(at, tool, _)| {
        let (at, tool) = (at.parse().unwrap(), tool.parse().unwrap());
        world.calls.iter().all(|call| !ours.allows(&at, &tool, call) || theirs.allows(&at, &tool, call))
    });
    call_by_call && ours.is_subset_of(theirs)
}

/// Returns the agents of the chain, oldest first, and the requested actor.
pub(super) fn agents_along_chain(world: &World, attempt: &Attempt, plan: &TokenPlan) -> Vec<usize> {
    let number = |hop: &Actor| world.agents.iter().position(|a| *a == hop.sub).unwrap();
    let mut line = plan.chain.actors().rev().map(number).collect::<Vec<_>>();
    if let AttemptedToken::HandOver(to, _) = attempt.output {
        line.push(to);
    }
    line
}

/// Checks that every edge exists, with enough depth and authority; that the actor token does not
/// name another party; and that no broker is first.
fn check_edges(world: &World, attempt: &Attempt, plan: &TokenPlan) -> TestCaseResult {
    let line = agents_along_chain(world, attempt, plan);
    prop_assert!(!world.brokers[line[0]], "a broker without a principal");
    prop_assert!(attempt.actor_match != AgentMatch::OtherParty);
    for (n, pair) in line.windows(2).enumerate() {
        let edge = world.edges[pair[0]].get(&pair[1]);
        prop_assert!(edge.is_some(), "no edge in {line:?}");
        let (depth, lets) = edge.unwrap();
        prop_assert!(depth.is_none_or(|depth| line.len() - 1 - n <= usize::from(depth)), "{line:?} too far");
        prop_assert!(lets.as_ref().is_none_or(|lets| is_subset_of(world, &plan.authority, lets)), "{line:?} too much");
    }
    for (hop, agent) in plan.chain.actors().zip(line.iter().take(plan.chain.depth()).rev()) {
        let profile = if world.brokers[*agent] { "service" } else { "ai_agent" };
        prop_assert_eq!(hop.sub_profile.as_deref(), Some(profile));
    }
    Ok(())
}

/// Checks that the relation of a token to its parent holds for all its ancestors.
pub(super) fn check_ancestor_pairs(issued: &[Issued], tally: &Tally) -> TestCaseResult {
    for token in issued {
        let mut line = token.parent.map(|n| &issued[n]);
        while let Some(ancestor) = line {
            let (ours, theirs) = (&token.claims, &ancestor.claims);
            prop_assert!(ours.authorization_details.is_subset_of(&theirs.authorization_details));
            prop_assert!(ours.exp <= theirs.exp && ours.lineage.contains(&theirs.jti));
            prop_assert_eq!((&ours.sub, &ours.sub_iss, ours.txn), (&theirs.sub, &theirs.sub_iss, theirs.txn));
            prop_assert_eq!(&ours.task.authority_hash, &theirs.task.authority_hash);
            let (all, first) = (ours.act.actors().collect::<Vec<_>>(), theirs.act.actors().collect::<Vec<_>>());
            prop_assert!(all.ends_with(&first), "earlier actors are unchanged");
            count(&tally.pairs);
            line = ancestor.parent.map(|n| &issued[n]);
        }
    }
    Ok(())
}

/// Checks that the presenter may present the token, and that no party is disabled.
fn check_parties(world: &World, attempt: &Attempt, parent: Option<&Issued>, plan: &TokenPlan) -> TestCaseResult {
    let me = attempt.presenter.as_str();
    prop_assert_eq!(plan.client.as_str(), me);
    prop_assert!(!world.is_disabled(me));
    for hop in plan.chain.actors() {
        prop_assert!(!world.is_disabled(&hop.sub), "{} acts and is disabled", hop.sub);
    }
    let Some(parent) = parent else {
        prop_assert!(me.starts_with('a'));
        return Ok(());
    };
    let claims = &parent.claims;
    let edge = |from: &str, to: &str| {
        let n = |id: &str| world.agents.iter().position(|a| a == id).unwrap();
        world.edges[n(from)].contains_key(&n(to))
    };
    let may = match parent.kind {
        TokenKind::Access if me.starts_with('r') => uri(me.trim_start_matches('r').parse().unwrap()) == claims.aud,
        TokenKind::Access => claims.client_id.as_str() == me,
        TokenKind::HandOver => {
            claims.may_act.as_ref().is_some_and(|next| next.sub.as_str() == me) && edge(claims.client_id.as_str(), me)
        }
        TokenKind::Txn => claims.req_wl.as_ref().is_some_and(|id| id.as_str() == me) && plan.kind == TokenKind::Txn,
        TokenKind::Api => false,
    };
    prop_assert!(may, "{me} presented {claims:?}");
    if let AttemptedToken::HandOver(to, _) = attempt.output {
        prop_assert!(edge(me, &world.agents[to]) && !world.is_disabled(&world.agents[to]));
    }
    prop_assert!(me.starts_with('a') || plan.kind == TokenKind::Txn);
    Ok(())
}

/// Checks the chain: not empty, no duplicates, the new actor first, the others unchanged.
fn check_chain(world: &World, attempt: &Attempt, parent: Option<&Issued>, plan: &TokenPlan) -> TestCaseResult {
    let hops = plan.chain.actors().cloned().collect::<Vec<_>>();
    prop_assert!(!hops.is_empty() && hops.len() <= world.tokens.max_chain);
    let parties = hops.iter().map(|hop| (&hop.iss, &hop.sub)).collect::<std::collections::BTreeSet<_>>();
    prop_assert_eq!(parties.len(), hops.len());
    let before = parent.map_or(Vec::new(), |p| p.claims.act.actors().cloned().collect::<Vec<_>>());
    let joins = parent.is_none_or(|p| p.kind == TokenKind::HandOver);
    if joins {
        prop_assert_eq!((hops[0].iss.as_str(), hops[0].sub.as_str()), (US, attempt.presenter.as_str()));
        prop_assert_eq!(&hops[1..], &before[..]);
    } else {
        prop_assert_eq!(hops, before);
    }
    Ok(())
}

/// Checks that the token has one audience, and no authority for another resource.
fn check_audience(world: &World, attempt: &Attempt, plan: &TokenPlan) -> TestCaseResult {
    let only_at = |at: usize| plan.authority.iter().all(|p| p.resource.as_str() == uri(at));
    match attempt.output {
        AttemptedToken::Access(at) => {
            prop_assert_eq!((plan.kind, &plan.audience), (TokenKind::Access, &uri(at)));
            prop_assert!(only_at(at) && plan.may_act.is_none() && plan.req_wl.is_none());
        }
        AttemptedToken::HandOver(to, at) => {
            prop_assert_eq!((plan.kind, plan.audience.as_str()), (TokenKind::HandOver, US));
            prop_assert_eq!(plan.may_act.as_ref().unwrap().sub.as_str(), world.agents[to].as_str());
            prop_assert!(only_at(at) && plan.req_wl.is_none());
        }
        AttemptedToken::Txn => {
            prop_assert_eq!((plan.kind, plan.audience.as_str()), (TokenKind::Txn, DOMAIN));
            prop_assert!(plan.may_act.is_none() && plan.req_wl.as_ref() == Some(&plan.client));
        }
    }
    Ok(())
}

/// Checks that a revocation by any key of a token ends its descendants, and no other token.
pub(super) fn check_revocations(issued: &[Issued], tally: &Tally) -> TestCaseResult {
    let ended = |victim: &Issued, target: &Target| {
        let entry = NewEntry {
            verb: LogAction::Revoke,
            target: target.clone(),
            reason: "x".into(),
            by: "x".into(),
            at: NOW,
            forget_after: NOW,
        };
        let mut index = Index::starting_after(LogPosition::new(999));
        index.apply(&LogEntry { seq: LogPosition::new(1_000), entry }, std::time::Duration::ZERO);
        index.standing(&victim.claims.revocation_keys()) == Standing::Revoked
    };
    for victim in issued {
        let mut line = Some(victim);
        while let Some(ancestor) = line {
            for target in revocation_targets_of(ancestor) {
                prop_assert!(ended(victim, &target), "{target:?} did not end {:?}", victim.claims);
                count(&tally.revoked);
            }
            line = ancestor.parent.map(|n| &issued[n]);
        }
        let others = issued.iter().map(|other| other.claims.jti);
        for id in others.filter(|id| *id != victim.claims.jti && !victim.claims.lineage.contains(id)) {
            prop_assert!(!ended(victim, &Target::Token(id)));
            count(&tally.unaffected);
        }
    }
    Ok(())
}

/// Returns the revocation targets that a reader of the token derives from its claims.
fn revocation_targets_of(token: &Issued) -> Vec<Target> {
    let claims = &token.claims;
    let mut names = vec![
        Target::Token(claims.jti),
        Target::Task(claims.txn),
        Target::for_requester(&claims.requester()),
        Target::Issuer(claims.sub_iss.clone()),
        Target::Agent(claims.client_id.clone()),
    ];
    names.extend(claims.act.actors().map(|hop| Target::Agent(hop.sub.parse().unwrap())));
    names.extend(claims.may_act.iter().map(|next| Target::Agent(next.sub.clone())));
    if token.kind == TokenKind::Access {
        names.push(Target::Resource(claims.aud.parse().unwrap()));
    }
    names
}
