//! Whatever is tried in whatever world: what is issued only ever shrinks, names everybody, and dies with what it came from.

mod truths;

use std::cell::Cell;

use proptest::test_runner::{Config, TestCaseError, TestCaseResult, TestRunner};

use super::{
    walk::{Seed, Step, World, seeds, uri},
    *,
};
use crate::domain::scope::ScopeList;
use truths::{check, check_pairs, check_revocations, line_of};

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
    /// With rules for arguments, by brokers, along an edge with a depth, along one with tools, by an own actor token.
    constrained: Cell<usize>,
    brokered: Cell<usize>,
    measured: Cell<usize>,
    narrowed: Cell<usize>,
    vouched: Cell<usize>,
    /// Refused since an edge was cut, led no further, let less through, or a broker came alone.
    cut: Cell<usize>,
    too_far: Cell<usize>,
    too_much: Cell<usize>,
    alone: Cell<usize>,
    pairs: Cell<usize>,
    killed: Cell<usize>,
    spared: Cell<usize>,
}

fn count(cell: &Cell<usize>) {
    cell.set(cell.get() + 1);
}

#[test]
fn what_is_issued_only_shrinks() {
    let tally = Tally::default();
    let config = Config { cases: 1_000, failure_persistence: None, ..Config::default() };
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
        ("constrained", &tally.constrained, 1_500),
        ("brokered", &tally.brokered, 400),
        ("with a depth", &tally.measured, 200),
        ("with tools on the edge", &tally.narrowed, 200),
        ("vouched for", &tally.vouched, 900),
        ("cut", &tally.cut, 700),
        ("too far", &tally.too_far, 50),
        ("too much for an edge", &tally.too_much, 60),
        ("alone", &tally.alone, 150),
        ("pairs", &tally.pairs, 6_000),
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
    /// What the actor token says.
    actor: Says,
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
        let who = usize::from(step.who) % world.agents.len();
        match step.op {
            0 => world.shut_out(&format!("a{who}")),
            1 | 2 => world.cut(who),
            // An edge that the newest token came along.
            3 | 4 => {
                let number = |hop: &Hop| world.agents.iter().position(|a| *a == hop.sub);
                let line = issued.last().map(|i| i.claims.act.hops().filter_map(number).collect::<Vec<_>>());
                if let Some([to, from, ..]) = line.as_deref() {
                    world.narrow(*from, *to);
                }
            }
            5 => world.change_a_tool(step.who.into()),
            _ => {}
        }
        if step.op < 6 {
            continue;
        }
        let attempt = attempt(&world, &issued, step);
        let plan = ask(&world, &issued, step, &attempt, now);
        if step.stray {
            count(&tally.strays);
        }
        match plan {
            Err(denial) => {
                count(&tally.refused);
                match denial {
                    Denial::MayNotDelegate => count(&tally.cut),
                    Denial::TooFar => count(&tally.too_far),
                    Denial::ScopeTooWide(Excess { holding: Holding::Edge, .. })
                    | Denial::DetailsTooWide(Excess { holding: Holding::Edge, .. }) => count(&tally.too_much),
                    Denial::BrokerAlone => count(&tally.alone),
                    _ => {}
                }
            }
            Ok(plan) => {
                check(&world, &issued, &attempt, step, &plan, now)?;
                let parent = attempt.with;
                let (deadline, approved) = match (&plan.task, parent.or(attempt.join)) {
                    (PlannedTask::Open { authority, deadline, .. }, _) => (*deadline, authority.clone()),
                    (_, Some(from)) => (issued[from].deadline, issued[from].approved.clone()),
                    (_, None) => return Err(TestCaseError::fail("a task from nowhere")),
                };
                note(tally, &world, &attempt, &plan);
                let n = u128::try_from(issued.len()).unwrap() + 1;
                let (claims, kind) = issue(&plan, now, n);
                issued.push(Issued { claims, kind, parent, deadline, approved });
            }
        }
    }
    check_pairs(&issued, tally)?;
    check_revocations(&issued, tally)
}

fn note(tally: &Tally, world: &World, attempt: &Try, plan: &Plan) {
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
    let line = line_of(world, attempt, plan);
    let steps = || line.iter().zip(line.iter().skip(1)).map(|(a, b)| &world.edges[*a][b]);
    for (so, cell) in [
        (plan.authority.iter().any(|p| !p.constraints.is_none()), &tally.constrained),
        (line.iter().any(|a| world.brokers[*a]), &tally.brokered),
        (steps().any(|(depth, _)| depth.is_some()), &tally.measured),
        (steps().any(|(_, lets)| lets.is_some()), &tally.narrowed),
        (attempt.actor == Says::ThisAgent, &tally.vouched),
    ] {
        if so {
            count(cell);
        }
    }
}

/// Chooses what is tried: mostly the newest token by who may present it, sometimes anybody anything.
fn attempt(world: &World, issued: &[Issued], step: &Step) -> Try {
    let actor = match step.who % 8 {
        0 => Says::SomebodyElse,
        1 | 2 => Says::ThisAgent,
        _ => Says::Nothing,
    };
    let (agents, resources) = (world.agents.len(), world.resources.len());
    let who = usize::from(step.who);
    // A transaction token leads to nothing but others: most of the time one that leads on is taken.
    let leads_on = |n: &usize| issued[*n].kind != TokenKind::Txn || step.op % 8 == 7;
    let with = (0..issued.len()).rev().filter(leads_on).nth(step.token.into()).filter(|_| step.op >= 16);
    let Some(n) = with else {
        // A user token: opens a task, or joins an old one.
        let join = step.op.is_multiple_of(3).then(|| issued.iter().rposition(|i| i.parent.is_none())).flatten();
        let root = join.map_or(format!("a{}", who % agents), |n| issued[n].claims.client_id.to_string());
        let presenter = if step.stray { format!("r{}", who % resources) } else { root };
        let output = match step.op % 4 {
            0 => Goal::HandOver((who + 1) % agents, who % resources),
            _ => Goal::Access(who % resources),
        };
        return Try { with: None, presenter, output, join, actor };
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
    let next = me.map(|me| world.edges[me].keys().filter(is_new).copied().collect::<Vec<_>>()).unwrap_or_default();
    let to = if next.is_empty() || step.stray { who % agents } else { next[who % next.len()] };
    let output = match (parent.kind, step.op % 16) {
        (TokenKind::Txn, op) if op < 14 => Goal::Txn,
        (TokenKind::Access, 5 | 6) => Goal::Txn,
        (_, 0 | 1) => Goal::Access(at),
        (_, 2) => Goal::Access(who % resources),
        _ => Goal::HandOver(to, at),
    };
    Try { with, presenter, output, join: None, actor }
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
        _ if step.greedy => may,
        Goal::HandOver(to, _) => {
            let me = world.agents.iter().position(|a| *a == attempt.presenter);
            let lets = me.and_then(|me| world.edges[me].get(&to)).and_then(|(_, lets)| lets.as_ref());
            let may = may.meet(&world.ceilings[to]);
            lets.map_or(may.clone(), |lets| may.meet(lets))
        }
        Goal::Access(_) | Goal::Txn => may,
    };
    let may = if step.rules == 0 { may } else { may.meet(&world.narrowed(step.rules)) };
    let mask = |n: usize| step.mask >> (n % 16) & 1 == 1;
    let details = may.iter().enumerate().filter(|(n, _)| mask(*n)).map(|(_, p)| p.clone()).collect::<Authority>();
    let scope = world.covered(&details, output.resource().map(|r| r.uri.as_str()));
    let scope = scope.iter().map(|scope| scope.parse().unwrap()).collect::<ScopeList>();
    let by_scope = step.by_scope && scope.iter().next().is_some();
    let asked = details.iter().cloned().collect::<Details>();
    let purpose = "anything".parse().unwrap();
    let joined = attempt.join.map(|n| {
        let root = &issued[n];
        let (id, approved) = (root.claims.txn, root.approved.clone());
        Task { id, root_agent: root.claims.client_id.clone(), deadline: root.deadline, ..task(approved) }
    });
    // Of a broker nothing is known at the provider; a grant would do for anybody else.
    let is_broker = world.agents.iter().zip(&world.brokers).any(|(a, broker)| *broker && *a == attempt.presenter);
    let to_broker = Grant {
        agent: id.clone(),
        requester: user.requester.clone(),
        until: NOW.after(Lifetime::hours(9)),
        ..grant(1, None)
    };
    let grants = if is_broker { vec![to_broker] } else { Vec::new() };
    decide(&Ask {
        now,
        issuer: &US.parse().unwrap(),
        trust_domain: DOMAIN,
        registry,
        tokens: &world.tokens,
        tasks: &TaskLimits::default(),
        presenter,
        subject,
        actor: attempt.actor,
        grants: &grants,
        output,
        scope: by_scope.then_some(&scope),
        details: (!by_scope).then_some(&asked),
        expires_in: step.expires_in.map(|life| Lifetime::seconds(life.into())),
        task: match &joined {
            Some(task) => TaskWanted::Named(task.id, Some(task)),
            None => TaskWanted::Unnamed { purpose: Some(&purpose), deadline: Some(Lifetime::minutes(15)) },
        },
    })
}
