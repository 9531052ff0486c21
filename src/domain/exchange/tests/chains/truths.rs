//! What must be true of every token that is issued, worked out beside the rule.

use proptest::{prelude::*, test_runner::TestCaseResult};

use super::*;
use crate::domain::revocation::{Index, LogEntry, NewEntry, Standing, Target, Verb};

/// Everything that a yes must be.
pub(super) fn check(
    world: &World,
    issued: &[Issued],
    attempt: &Try,
    step: &Step,
    plan: &Plan,
    now: Timestamp,
) -> TestCaseResult {
    let parent = attempt.with.map(|n| &issued[n]);
    check_who(world, attempt, parent, plan)?;
    check_chain(world, attempt, parent, plan)?;
    check_audience(world, attempt, plan)?;

    // Authority: within everybody's.
    let presenter = world.agents.iter().position(|a| *a == attempt.presenter);
    prop_assert!(!plan.authority.is_empty());
    prop_assert!(plan.authority.within(&world.everything()));
    prop_assert!(world.is_up_to_date(&plan.authority), "a tool by another definition than the accepted one");
    prop_assert!(plan.authority.within(&world.users));
    prop_assert!(presenter.is_none_or(|a| plan.authority.within(&world.ceilings[a])));
    prop_assert!(parent.is_none_or(|p| plan.authority.within(&p.claims.authorization_details)));
    prop_assert!(attempt.join.is_none_or(|n| plan.authority.within(&issued[n].approved)));
    if let Goal::HandOver(to, _) = attempt.output {
        prop_assert!(plan.authority.within(&world.ceilings[to]));
    }
    let by = match attempt.output {
        Goal::Access(at) | Goal::HandOver(_, at) => Some(uri(at)),
        Goal::Txn => None,
    };
    let scopes = plan.scope.iter().map(ToString::to_string).collect::<Vec<_>>();
    prop_assert_eq!(scopes, world.covered(&plan.authority, by.as_deref()), "what is covered, and no more");

    // Life: after now, before every end.
    prop_assert!(plan.expires > now);
    prop_assert!(plan.expires <= now.after(Lifetime::minutes(15)));
    prop_assert!(step.expires_in.is_none_or(|life| plan.expires <= now.after(Lifetime::seconds(life.into()))));
    prop_assert!(plan.expires <= parent.map_or(world.user.expires, |p| p.claims.exp));
    match (&plan.task, parent, attempt.join.map(|n| &issued[n])) {
        (PlannedTask::Open { authority, deadline, .. }, None, None) => {
            prop_assert!(plan.expires <= *deadline && plan.authority.within(authority));
            prop_assert!(authority.within(&world.users));
        }
        (PlannedTask::Existing { id, authority_hash, context }, Some(from), None)
        | (PlannedTask::Existing { id, authority_hash, context }, None, Some(from)) => {
            prop_assert!(plan.expires <= from.deadline);
            prop_assert_eq!((id, authority_hash), (&from.claims.txn, &from.claims.task.authority_hash));
            prop_assert_eq!(context.details.is_none(), from.claims.tctx.details.is_none());
        }
        _ => prop_assert!(false, "a task from nowhere"),
    }

    // Lineage and names.
    let lineage = parent.map_or(Vec::new(), |p| {
        let mut lineage = p.claims.lineage.clone();
        lineage.push(p.claims.jti);
        lineage
    });
    prop_assert_eq!(&plan.lineage, &lineage);
    prop_assert_eq!(&plan.requester, &world.user.requester);
    prop_assert_eq!(&plan.sign_in, &world.user.sign_in);
    Ok(())
}

/// Nobody but who may present it, and nobody who is shut out.
fn check_who(world: &World, attempt: &Try, parent: Option<&Issued>, plan: &Plan) -> TestCaseResult {
    let me = attempt.presenter.as_str();
    prop_assert_eq!(plan.client.as_str(), me);
    prop_assert!(!world.is_shut_out(me));
    for hop in plan.chain.hops() {
        prop_assert!(!world.is_shut_out(&hop.sub), "{} acts and is shut out", hop.sub);
    }
    let Some(parent) = parent else {
        prop_assert!(me.starts_with('a'));
        return Ok(());
    };
    let claims = &parent.claims;
    let edge = |from: &str, to: &str| {
        let n = |id: &str| world.agents.iter().position(|a| a == id).unwrap();
        world.edges[n(from)].contains(&n(to))
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
    prop_assert!(may, "{me} went on with {claims:?}");
    if let Goal::HandOver(to, _) = attempt.output {
        prop_assert!(edge(me, &world.agents[to]) && !world.is_shut_out(&world.agents[to]));
    }
    prop_assert!(me.starts_with('a') || plan.kind == TokenKind::Txn);
    Ok(())
}

/// Who acts: never nobody, nobody twice, the new one in front, the rest as it was.
fn check_chain(world: &World, attempt: &Try, parent: Option<&Issued>, plan: &Plan) -> TestCaseResult {
    let hops = plan.chain.hops().cloned().collect::<Vec<_>>();
    prop_assert!(!hops.is_empty() && hops.len() <= world.tokens.max_chain);
    let parties = hops.iter().map(|hop| (&hop.iss, &hop.sub)).collect::<std::collections::BTreeSet<_>>();
    prop_assert_eq!(parties.len(), hops.len());
    let before = parent.map_or(Vec::new(), |p| p.claims.act.hops().cloned().collect::<Vec<_>>());
    let joins = parent.is_none_or(|p| p.kind == TokenKind::HandOver);
    if joins {
        prop_assert_eq!((hops[0].iss.as_str(), hops[0].sub.as_str()), (US, attempt.presenter.as_str()));
        prop_assert_eq!(&hops[1..], &before[..]);
    } else {
        prop_assert_eq!(hops, before);
    }
    Ok(())
}

/// One audience, and nothing for another place in it.
fn check_audience(world: &World, attempt: &Try, plan: &Plan) -> TestCaseResult {
    let only_at = |at: usize| plan.authority.iter().all(|p| p.resource.as_str() == uri(at));
    match attempt.output {
        Goal::Access(at) => {
            prop_assert_eq!((plan.kind, &plan.audience), (TokenKind::Access, &uri(at)));
            prop_assert!(only_at(at) && plan.may_act.is_none() && plan.req_wl.is_none());
        }
        Goal::HandOver(to, at) => {
            prop_assert_eq!((plan.kind, plan.audience.as_str()), (TokenKind::HandOver, US));
            prop_assert_eq!(plan.may_act.as_ref().unwrap().sub.as_str(), world.agents[to].as_str());
            prop_assert!(only_at(at) && plan.req_wl.is_none());
        }
        Goal::Txn => {
            prop_assert_eq!((plan.kind, plan.audience.as_str()), (TokenKind::Txn, DOMAIN));
            prop_assert!(plan.may_act.is_none() && plan.req_wl.as_ref() == Some(&plan.client));
        }
    }
    Ok(())
}

/// Whatever ends a token, by any of its names, ends everything that came of it; and nothing else's name does.
pub(super) fn check_revocations(issued: &[Issued], tally: &Tally) -> TestCaseResult {
    let ended = |victim: &Issued, target: &Target| {
        let entry = NewEntry {
            verb: Verb::Revoke,
            target: target.clone(),
            reason: "x".into(),
            by: "x".into(),
            at: NOW,
            forget_after: NOW,
        };
        let mut index = Index::default();
        index.apply(&LogEntry { seq: Seq::new(1_000), entry }, std::time::Duration::ZERO);
        index.standing(&victim.claims.names()) == Standing::Revoked
    };
    for victim in issued {
        let mut line = Some(victim);
        while let Some(ancestor) = line {
            for target in names_of(ancestor) {
                prop_assert!(ended(victim, &target), "{target:?} did not end {:?}", victim.claims);
                count(&tally.killed);
            }
            line = ancestor.parent.map(|n| &issued[n]);
        }
        let strangers = issued.iter().map(|other| other.claims.jti);
        for id in strangers.filter(|id| *id != victim.claims.jti && !victim.claims.lineage.contains(id)) {
            prop_assert!(!ended(victim, &Target::Token(id)));
            count(&tally.spared);
        }
    }
    Ok(())
}

/// What a reader of the token would call it by.
fn names_of(token: &Issued) -> Vec<Target> {
    let claims = &token.claims;
    let mut names = vec![
        Target::Token(claims.jti),
        Target::Task(claims.txn),
        Target::requester(&claims.requester()),
        Target::Issuer(claims.sub_iss.clone()),
        Target::Agent(claims.client_id.clone()),
    ];
    names.extend(claims.act.hops().map(|hop| Target::Agent(hop.sub.parse().unwrap())));
    names.extend(claims.may_act.iter().map(|next| Target::Agent(next.sub.clone())));
    if token.kind == TokenKind::Access {
        names.push(Target::Resource(claims.aud.parse().unwrap()));
    }
    names
}
