//! Whatever is tried in whatever world: what is issued only ever shrinks, names everybody, and dies with what it came from.

use std::cell::Cell;

use proptest::{
    prelude::*,
    test_runner::{Config, TestCaseError, TestCaseResult, TestRunner},
};

use super::{
    walk::{Seed, Step, World, seeds, uri},
    *,
};
use crate::domain::{
    revocation::{Index, LogEntry, NewEntry, Standing, Target},
    scope::ScopeSet,
};

/// A token that was issued, and where it comes from.
struct Issued {
    claims: TaskTokenClaims,
    kind: TokenKind,
    /// The token that was presented for it.
    parent: Option<usize>,
    /// The task's end.
    deadline: Timestamp,
    /// What was approved for the task.
    approved: Authority,
}

/// How often the answer was yes, and of which kind.
#[derive(Default)]
struct Tally {
    issued: Cell<usize>,
    refused: Cell<usize>,
    /// Tokens by the length of their chain.
    deep: [Cell<usize>; 9],
    handed_over: Cell<usize>,
    taken: Cell<usize>,
    inside: Cell<usize>,
    joined: Cell<usize>,
    strays: Cell<usize>,
    killed: Cell<usize>,
    spared: Cell<usize>,
}

fn count(cell: &Cell<usize>) {
    cell.set(cell.get() + 1);
}

#[test]
fn what_is_issued_only_shrinks() {
    let tally = Tally::default();
    let config = Config { cases: 500, failure_persistence: None, ..Config::default() };
    TestRunner::new(config).run(&seeds(), |seed| walk(&seed, &tally)).unwrap();
    // A property of yeses that are never said proves nothing.
    let deep = tally.deep.iter().map(Cell::get).collect::<Vec<_>>();
    for (what, cell, least) in [
        ("issued", &tally.issued, 2_000),
        ("refused", &tally.refused, 2_500),
        ("handed over", &tally.handed_over, 1_000),
        ("taken", &tally.taken, 800),
        ("inside", &tally.inside, 60),
        ("joined", &tally.joined, 40),
        ("strays", &tally.strays, 700),
        ("killed", &tally.killed, 40_000),
        ("spared", &tally.spared, 10_000),
    ] {
        assert!(cell.get() >= least, "{what}: {} of {least}; by depth: {deep:?}", cell.get());
    }
    assert!((1..=8).all(|depth| deep[depth] >= 1), "{deep:?}");
}

/// What a step comes to: who asks, with what, for what.
struct Try {
    /// The token that is presented; the user's when absent.
    with: Option<usize>,
    presenter: String,
    output: Goal,
    join: Option<usize>,
}

/// What for: the resource, and the agent that it is handed to, by number.
enum Goal {
    Access(usize),
    HandOver(usize, usize),
    Txn,
}

fn walk(seed: &Seed, tally: &Tally) -> TestCaseResult {
    let mut world = World::new(seed);
    let mut issued: Vec<Issued> = Vec::new();
    let mut now = NOW;
    for step in &seed.steps {
        now = now.after(Lifetime::seconds(step.wait.into()));
        if step.op == 0 {
            world.shut_out(&format!("a{}", usize::from(step.who) % world.agents.len()));
            continue;
        }
        let attempt = attempt(&world, &issued, step);
        let plan = ask(&world, &issued, step, &attempt, now);
        if step.stray {
            count(&tally.strays);
        }
        match plan {
            Err(_) => count(&tally.refused),
            Ok(plan) => {
                check(&world, &issued, &attempt, step, &plan, now)?;
                let parent = attempt.with;
                let (deadline, approved) = match (&plan.task, parent.or(attempt.join)) {
                    (PlannedTask::Open { authority, deadline, .. }, _) => (*deadline, authority.clone()),
                    (_, Some(from)) => (issued[from].deadline, issued[from].approved.clone()),
                    (_, None) => return Err(TestCaseError::fail("a task from nowhere")),
                };
                note(tally, &attempt, &plan);
                let n = u128::try_from(issued.len()).unwrap() + 1;
                let (claims, kind) = issue(&plan, now, n);
                issued.push(Issued { claims, kind, parent, deadline, approved });
            }
        }
    }
    check_revocations(&issued, tally)
}

fn note(tally: &Tally, attempt: &Try, plan: &Plan) {
    count(&tally.issued);
    count(&tally.deep[plan.chain.depth()]);
    match plan.kind {
        TokenKind::HandOver => count(&tally.handed_over),
        TokenKind::Txn => count(&tally.inside),
        TokenKind::Access | TokenKind::Api => {}
    }
    if plan.basis == "hand_over" {
        count(&tally.taken);
    }
    if attempt.join.is_some() {
        count(&tally.joined);
    }
}

/// Chooses what is tried: mostly the newest token by who may present it, sometimes anybody anything.
fn attempt(world: &World, issued: &[Issued], step: &Step) -> Try {
    let (agents, resources) = (world.agents.len(), world.resources.len());
    let who = usize::from(step.who);
    // A transaction token leads to nothing but others: most of the time one that leads on is taken.
    let leads_on = |n: &usize| issued[*n].kind != TokenKind::Txn || step.op % 8 == 7;
    let with = (0..issued.len()).rev().filter(leads_on).nth(step.token.into()).filter(|_| step.op >= 16);
    let Some(n) = with else {
        // A user token: opens a task, or joins an old one.
        let join = (step.op % 3 == 0).then(|| issued.iter().rposition(|i| i.parent.is_none())).flatten();
        let root = join.map_or(format!("a{}", who % agents), |n| issued[n].claims.client_id.to_string());
        let presenter = if step.stray { format!("r{}", who % resources) } else { root };
        let output = match step.op % 4 {
            0 => Goal::HandOver((who + 1) % agents, who % resources),
            _ => Goal::Access(who % resources),
        };
        return Try { with: None, presenter, output, join };
    };
    let parent = &issued[n];
    let at = parent.claims.authorization_details.iter().next().map(|p| p.resource.to_string());
    let at = (0..resources).find(|r| Some(uri(*r)) == at).unwrap_or_default();
    let to_presenter = match parent.kind {
        TokenKind::HandOver => parent.claims.may_act.as_ref().unwrap().sub.to_string(),
        TokenKind::Access if step.op % 16 == 5 => format!("r{at}"),
        TokenKind::Access | TokenKind::Txn | TokenKind::Api => parent.claims.client_id.to_string(),
    };
    let strays = [format!("a{}", who % agents), format!("r{}", who % resources), parent.claims.client_id.to_string()];
    let presenter = if step.stray { strays[usize::from(step.op) % 3].clone() } else { to_presenter };
    // Mostly to an agent that it may hand over to, and that is not in the chain yet.
    let me = world.agents.iter().position(|a| *a == presenter);
    let is_new = |to: &&usize| !parent.claims.act.hops().any(|hop| hop.sub == world.agents[**to]) && Some(**to) != me;
    let next = me.map(|me| world.edges[me].iter().filter(is_new).copied().collect::<Vec<_>>()).unwrap_or_default();
    let to = if next.is_empty() || step.stray { who % agents } else { next[who % next.len()] };
    let output = match (parent.kind, step.op % 16) {
        (TokenKind::Txn, op) if op < 14 => Goal::Txn,
        (TokenKind::Access, 5 | 6) => Goal::Txn,
        (_, 0 | 1) => Goal::Access(at),
        (_, 2) => Goal::Access(who % resources),
        _ => Goal::HandOver(to, at),
    };
    Try { with, presenter, output, join: None }
}

fn ask(world: &World, issued: &[Issued], step: &Step, attempt: &Try, now: Timestamp) -> Result<Plan, Denial> {
    let registry = &world.registry;
    let resource = |n: usize| registry.resource(&world.resources[n].parse().unwrap()).unwrap();
    let output = match attempt.output {
        Goal::Access(at) => Output::Access(resource(at)),
        Goal::HandOver(to, at) => {
            Output::HandOver(registry.agent(&world.agents[to].parse().unwrap()).unwrap(), resource(at))
        }
        Goal::Txn => Output::Txn,
    };
    let id = attempt.presenter.parse().unwrap();
    let presenter =
        registry.agent(&id).map_or_else(|| Presenter::Resource(registry.resource(&id).unwrap()), Presenter::Agent);
    let user = UserClaims { client: Some(attempt.presenter.replace('a', "app")), ..world.user.clone() };
    let subject = match attempt.with {
        None => Evidence::User(&user, registry.issuer(LOGIN).unwrap()),
        Some(n) => Evidence::Own(&issued[n].claims, issued[n].kind),
    };
    let may = match attempt.with {
        _ if step.greedy => world.everything(),
        None => {
            let agent = world.agents.iter().position(|a| *a == attempt.presenter);
            agent.map_or(Authority::default(), |a| world.users.meet(&world.ceilings[a]))
        }
        Some(n) => issued[n].claims.authorization_details.clone(),
    };
    let may = match attempt.output {
        Goal::HandOver(to, _) if !step.greedy => may.meet(&world.ceilings[to]),
        _ => may,
    };
    let mask = |n: usize| step.mask >> (n % 16) & 1 == 1;
    let details = may.iter().enumerate().filter(|(n, _)| mask(*n)).map(|(_, p)| p.clone()).collect::<Authority>();
    let scope = world.covered(&details, output.resource().map(|r| r.uri.as_str()));
    let scope = scope.iter().map(|scope| scope.parse().unwrap()).collect::<ScopeSet>();
    let by_scope = step.by_scope && !scope.is_empty();
    let purpose = "anything".parse().unwrap();
    let joined = attempt.join.map(|n| {
        let root = &issued[n];
        let (id, approved) = (root.claims.txn, root.approved.clone());
        Task { id, root_agent: root.claims.client_id.clone(), deadline: root.deadline, ..task(approved) }
    });
    decide(&Ask {
        now,
        issuer: &US.parse().unwrap(),
        trust_domain: DOMAIN,
        registry,
        tokens: &world.tokens,
        tasks: &TaskLimits::default(),
        presenter,
        subject,
        actor: Says::Nothing,
        grant: false,
        output,
        scope: by_scope.then_some(&scope),
        details: (!by_scope).then_some(&details),
        expires_in: step.expires_in.map(|life| Lifetime::seconds(life.into())),
        task: match &joined {
            Some(task) => TaskWanted::Named(task.id, Some(task)),
            None => TaskWanted::Unnamed { purpose: Some(&purpose), deadline: Some(Lifetime::minutes(15)) },
        },
    })
}

/// Everything that a yes must be.
fn check(world: &World, issued: &[Issued], attempt: &Try, step: &Step, plan: &Plan, now: Timestamp) -> TestCaseResult {
    let parent = attempt.with.map(|n| &issued[n]);
    check_who(world, attempt, parent, plan)?;
    check_chain(world, attempt, parent, plan)?;
    check_audience(world, attempt, plan)?;

    // Authority: within everybody's.
    let presenter = world.agents.iter().position(|a| *a == attempt.presenter);
    prop_assert!(!plan.authority.is_empty());
    prop_assert!(plan.authority.within(&world.everything()));
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
        TokenKind::Access if me.starts_with('r') => uri(me[1..].parse().unwrap()) == claims.aud,
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
fn check_revocations(issued: &[Issued], tally: &Tally) -> TestCaseResult {
    let ended = |victim: &Issued, target: &Target| {
        let entry = NewEntry { target: target.clone(), reason: "x".into(), by: "x".into(), at: NOW, forget_after: NOW };
        let mut index = Index::default();
        index.apply(&LogEntry { seq: Seq::new(1_000), entry });
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
    if token.kind == TokenKind::Access {
        names.push(Target::Resource(claims.aud.parse().unwrap()));
    }
    names
}
