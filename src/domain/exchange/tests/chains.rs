//! Properties of generated chains: authority only shrinks, every actor is named, and a token ends
//! with its ancestors.

mod issued_token_properties;

use std::cell::Cell;

use proptest::test_runner::{Config, TestCaseError, TestCaseResult, TestRunner};

use super::{
    chain_generator::{Seed, Step, World, seeds, uri},
    *,
};
use crate::domain::scope::ScopeList;
use issued_token_properties::{agents_along_chain, check_ancestor_pairs, check_issued, check_revocations};

/// An issued token and its origin.
struct Issued {
    claims: TaskTokenClaims,
    kind: TokenKind,
    /// The presented token.
    parent: Option<usize>,
    /// The deadline of the task.
    deadline: Timestamp,
    /// The authority approved for the task.
    approved: Authority,
}

/// Counts of the outcomes, to show that the properties are not vacuous.
#[derive(Default)]
struct Tally {
    issued: Cell<usize>,
    refused: Cell<usize>,
    /// Tokens by the length of their chain.
    by_chain_depth: [Cell<usize>; 9],
    handed_over: Cell<usize>,
    hand_over_used: Cell<usize>,
    txn_tokens: Cell<usize>,
    joined: Cell<usize>,
    strays: Cell<usize>,
    /// With constraints, by brokers, along an edge with a depth, along one with tools, with an
    /// actor token.
    constrained: Cell<usize>,
    brokered: Cell<usize>,
    depth_limited: Cell<usize>,
    tools_limited: Cell<usize>,
    with_actor_token: Cell<usize>,
    /// Denied because of a removed edge, its depth, its authority, or a broker without a principal.
    edge_removed: Cell<usize>,
    depth_exceeded: Cell<usize>,
    edge_ceiling_exceeded: Cell<usize>,
    broker_without_principal: Cell<usize>,
    pairs: Cell<usize>,
    revoked: Cell<usize>,
    unaffected: Cell<usize>,
}

fn count(cell: &Cell<usize>) {
    cell.set(cell.get() + 1);
}

#[test]
fn issued_authority_only_shrinks_along_a_chain() {
    let tally = Tally::default();
    let config = Config { cases: 1_000, failure_persistence: None, ..Config::default() };
    TestRunner::new(config).run(&seeds(), |seed| run_walk(&seed, &tally)).unwrap();
    // Properties of issued tokens need many issued tokens.
    let deep = tally.by_chain_depth.iter().map(Cell::get).collect::<Vec<_>>();
    for (what, cell, least) in [
        ("issued", &tally.issued, 2_000),
        ("refused", &tally.refused, 2_500),
        ("handed over", &tally.handed_over, 1_000),
        ("hand-over used", &tally.hand_over_used, 800),
        ("transaction tokens", &tally.txn_tokens, 60),
        ("joined", &tally.joined, 40),
        ("strays", &tally.strays, 700),
        ("constrained", &tally.constrained, 1_500),
        ("brokered", &tally.brokered, 400),
        ("with a depth", &tally.depth_limited, 200),
        ("with tools on the edge", &tally.tools_limited, 200),
        ("with an actor token", &tally.with_actor_token, 900),
        ("edge removed", &tally.edge_removed, 700),
        ("depth exceeded", &tally.depth_exceeded, 50),
        ("edge ceiling exceeded", &tally.edge_ceiling_exceeded, 60),
        ("broker without principal", &tally.broker_without_principal, 150),
        ("pairs", &tally.pairs, 6_000),
        ("revoked", &tally.revoked, 40_000),
        ("unaffected", &tally.unaffected, 10_000),
    ] {
        assert!(cell.get() >= least, "{what}: {} of {least}; by depth: {deep:?}", cell.get());
    }
    assert!((1..=8).all(|depth| deep[depth] >= 1), "{deep:?}");
}

/// The exchange that a step attempts.
struct Attempt {
    /// The presented token; `None`: the user token.
    parent: Option<usize>,
    presenter: String,
    output: AttemptedToken,
    join: Option<usize>,
    /// Whom the actor token names.
    actor_match: AgentMatch,
}

/// The requested token, with resource and agent by number.
enum AttemptedToken {
    Access(usize),
    HandOver(usize, usize),
    Txn,
}

fn run_walk(seed: &Seed, tally: &Tally) -> TestCaseResult {
    let mut world = World::new(seed);
    let mut issued: Vec<Issued> = Vec::new();
    let mut now = NOW;
    for step in &seed.steps {
        now = now.saturating_add(Lifetime::seconds(step.wait_seconds.into()));
        let agent = usize::from(step.agent) % world.agents.len();
        match step.operation {
            0 => world.disable(&format!("a{agent}")),
            1 | 2 => world.remove_edge(agent),
            // The newest token's last edge.
            3 | 4 => {
                let number = |hop: &Actor| world.agents.iter().position(|a| *a == hop.sub);
                let line = issued.last().map(|i| i.claims.act.actors().filter_map(number).collect::<Vec<_>>());
                if let Some([to, from, ..]) = line.as_deref() {
                    world.narrow_edge(*from, *to);
                }
            }
            5 => world.accept_changed_tool(step.agent.into()),
            _ => {}
        }
        if step.operation < 6 {
            continue;
        }
        let attempt = choose_attempt(&world, &issued, step);
        let plan = decide_attempt(&world, &issued, step, &attempt, now);
        if step.is_stray {
            count(&tally.strays);
        }
        match plan {
            Err(denial) => {
                count(&tally.refused);
                match denial {
                    Denial::DelegationNotAllowed => count(&tally.edge_removed),
                    Denial::DelegationDepthExceeded => count(&tally.depth_exceeded),
                    Denial::ScopeExceedsCeiling(CeilingExceeded { owner: CeilingOwner::Edge, .. })
                    | Denial::DetailsExceedCeiling(CeilingExceeded { owner: CeilingOwner::Edge, .. }) => {
                        count(&tally.edge_ceiling_exceeded);
                    }
                    Denial::BrokerWithoutPrincipal => count(&tally.broker_without_principal),
                    _ => {}
                }
            }
            Ok(plan) => {
                check_issued(&world, &issued, &attempt, step, &plan, now)?;
                let parent = attempt.parent;
                let (deadline, approved) = match (&plan.task, parent.or(attempt.join)) {
                    (PlannedTask::Open { authority, deadline, .. }, _) => (*deadline, authority.clone()),
                    (_, Some(from)) => (issued[from].deadline, issued[from].approved.clone()),
                    (_, None) => return Err(TestCaseError::fail("a task without origin")),
                };
                record_statistics(tally, &world, &attempt, &plan);
                let n = u128::try_from(issued.len()).unwrap() + 1;
                let (claims, kind) = issue(&plan, now, n);
                issued.push(Issued { claims, kind, parent, deadline, approved });
            }
        }
    }
    check_ancestor_pairs(&issued, tally)?;
    check_revocations(&issued, tally)
}

fn record_statistics(tally: &Tally, world: &World, attempt: &Attempt, plan: &TokenPlan) {
    count(&tally.issued);
    count(&tally.by_chain_depth[plan.chain.depth()]);
    match plan.kind {
        TokenKind::HandOver => count(&tally.handed_over),
        TokenKind::Txn => count(&tally.txn_tokens),
        TokenKind::Access | TokenKind::Api => {}
    }
    if plan.basis == Basis::HandOver {
        count(&tally.hand_over_used);
    }
    if attempt.join.is_some() {
        count(&tally.joined);
    }
    let line = agents_along_chain(world, attempt, plan);
    let steps = || line.iter().zip(line.iter().skip(1)).map(|(a, b)| &world.edges[*a][b]);
    for (holds, cell) in [
        (plan.authority.iter().any(|p| !p.constraints.is_none()), &tally.constrained),
        (line.iter().any(|a| world.brokers[*a]), &tally.brokered),
        (steps().any(|(depth, _)| depth.is_some()), &tally.depth_limited),
        (steps().any(|(_, lets)| lets.is_some()), &tally.tools_limited),
        (attempt.actor_match == AgentMatch::ThisAgent, &tally.with_actor_token),
    ] {
        if holds {
            count(cell);
        }
    }
}

/// Chooses an exchange: mostly the newest token by a party that may present it, sometimes any token
/// by any party.
fn choose_attempt(world: &World, issued: &[Issued], step: &Step) -> Attempt {
    let actor = match step.agent % 8 {
        0 => AgentMatch::OtherParty,
        1 | 2 => AgentMatch::ThisAgent,
        _ => AgentMatch::Absent,
    };
    let (agents, resources) = (world.agents.len(), world.resources.len());
    let who = usize::from(step.agent);
    // A transaction token only leads to others of its kind, so mostly another token is chosen.
    let leads_on = |n: &usize| issued[*n].kind != TokenKind::Txn || step.operation % 8 == 7;
    let with = (0..issued.len()).rev().filter(leads_on).nth(step.token.into()).filter(|_| step.operation >= 16);
    let Some(n) = with else {
        // A user token: opens a task, or joins an existing one.
        let join = step.operation.is_multiple_of(3).then(|| issued.iter().rposition(|i| i.parent.is_none())).flatten();
        let root = join.map_or(format!("a{}", who % agents), |n| issued[n].claims.client_id.to_string());
        let presenter = if step.is_stray { format!("r{}", who % resources) } else { root };
        let output = match step.operation % 4 {
            0 => AttemptedToken::HandOver((who + 1) % agents, who % resources),
            _ => AttemptedToken::Access(who % resources),
        };
        return Attempt { parent: None, presenter, output, join, actor_match: actor };
    };
    let parent = &issued[n];
    let at = parent.claims.authorization_details.iter().next().map(|p| p.resource.to_string());
    let at = (0..resources).find(|r| Some(uri(*r)) == at).unwrap_or_default();
    let to_presenter = match parent.kind {
        TokenKind::HandOver => parent.claims.may_act.as_ref().unwrap().sub.to_string(),
        TokenKind::Access if step.operation % 16 == 5 => format!("r{at}"),
        TokenKind::Access | TokenKind::Txn | TokenKind::Api => parent.claims.client_id.to_string(),
    };
    let strays = [format!("a{}", who % agents), format!("r{}", who % resources), parent.claims.client_id.to_string()];
    let presenter = if step.is_stray { strays[usize::from(step.operation) % 3].clone() } else { to_presenter };
    // Mostly to an agent that the presenter may hand over to and that is not in the chain yet.
    let me = world.agents.iter().position(|a| *a == presenter);
    let is_new = |to: &&usize| !parent.claims.act.actors().any(|hop| hop.sub == world.agents[**to]) && Some(**to) != me;
    let next = me.map(|me| world.edges[me].keys().filter(is_new).copied().collect::<Vec<_>>()).unwrap_or_default();
    let to = if next.is_empty() || step.is_stray { who % agents } else { next[who % next.len()] };
    let output = match (parent.kind, step.operation % 16) {
        (TokenKind::Txn, op) if op < 14 => AttemptedToken::Txn,
        (TokenKind::Access, 5 | 6) => AttemptedToken::Txn,
        (_, 0 | 1) => AttemptedToken::Access(at),
        (_, 2) => AttemptedToken::Access(who % resources),
        _ => AttemptedToken::HandOver(to, at),
    };
    Attempt { parent: with, presenter, output, join: None, actor_match: actor }
}

fn decide_attempt(
    world: &World,
    issued: &[Issued],
    step: &Step,
    attempt: &Attempt,
    now: Timestamp,
) -> Result<TokenPlan, Denial> {
    let registry = &world.registry;
    let resource = |n: usize| registry.resource(&world.resources[n].parse().unwrap()).unwrap();
    let output = match attempt.output {
        AttemptedToken::Access(at) => RequestedToken::Access(resource(at)),
        AttemptedToken::HandOver(to, at) => {
            RequestedToken::HandOver(registry.agent(&world.agents[to].parse().unwrap()).unwrap(), resource(at))
        }
        AttemptedToken::Txn => RequestedToken::Txn,
    };
    let id = attempt.presenter.parse().unwrap();
    let presenter =
        registry.agent(&id).map_or_else(|| Presenter::Resource(registry.resource(&id).unwrap()), Presenter::Agent);
    let user = UserClaims { client: Some(attempt.presenter.replace('a', "app")), ..world.user.clone() };
    let subject = match attempt.parent {
        None => Evidence::User(&user, registry.issuer(LOGIN).unwrap()),
        Some(n) => Evidence::Own(&issued[n].claims, issued[n].kind),
    };
    let may = match attempt.parent {
        _ if step.is_greedy => world.all_permissions(),
        None => {
            let agent = world.agents.iter().position(|a| *a == attempt.presenter);
            agent.map_or(Authority::default(), |a| world.user_ceiling.intersect(&world.ceilings[a]))
        }
        Some(n) => issued[n].claims.authorization_details.clone(),
    };
    let may = match attempt.output {
        _ if step.is_greedy => may,
        AttemptedToken::HandOver(to, _) => {
            let me = world.agents.iter().position(|a| *a == attempt.presenter);
            let lets = me.and_then(|me| world.edges[me].get(&to)).and_then(|(_, lets)| lets.as_ref());
            let may = may.intersect(&world.ceilings[to]);
            lets.map_or(may.clone(), |lets| may.intersect(lets))
        }
        AttemptedToken::Access(_) | AttemptedToken::Txn => may,
    };
    let may = if step.rules == 0 { may } else { may.intersect(&world.permissions_with_rules(step.rules)) };
    let mask = |n: usize| step.mask >> (n % 16) & 1 == 1;
    let details = may.iter().enumerate().filter(|(n, _)| mask(*n)).map(|(_, p)| p.clone()).collect::<Authority>();
    let scope = world.covered_scopes(&details, output.resource().map(|r| r.uri.as_str()));
    let scope = scope.iter().map(|scope| scope.parse().unwrap()).collect::<ScopeList>();
    let by_scope = step.uses_scope && scope.iter().next().is_some();
    let requested = details.iter().cloned().collect::<RequestedPermissions>();
    let purpose = "anything".parse().unwrap();
    let joined = attempt.join.map(|n| {
        let root = &issued[n];
        let (id, approved) = (root.claims.txn, root.approved.clone());
        Task { id, root_agent: root.claims.client_id.clone(), deadline: root.deadline, ..task(approved) }
    });
    // The provider does not know a broker, so it gets a grant.
    let is_broker = world.agents.iter().zip(&world.brokers).any(|(a, broker)| *broker && *a == attempt.presenter);
    let to_broker = Grant {
        agent: id.clone(),
        requester: user.requester.clone(),
        expires: NOW.saturating_add(Lifetime::hours(9)),
        ..grant(1, None)
    };
    let grants = if is_broker { vec![to_broker] } else { Vec::new() };
    decide(&ExchangeInput {
        now,
        issuer: &US.parse().unwrap(),
        trust_domain: DOMAIN,
        registry,
        token_limits: &world.tokens,
        task_limits: &TaskLimits::default(),
        presenter,
        subject,
        actor_match: attempt.actor_match,
        grants: &grants,
        requested_token: output,
        scope: by_scope.then_some(&scope),
        details: (!by_scope).then_some(&requested),
        expires_in: step.expires_in.map(|life| Lifetime::seconds(life.into())),
        task: match &joined {
            Some(task) => TaskSelector::Named(task.id, Some(task)),
            None => TaskSelector::Unnamed { purpose: Some(&purpose), deadline: Some(Lifetime::minutes(15)) },
        },
    })
}
