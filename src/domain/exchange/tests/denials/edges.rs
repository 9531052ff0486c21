//! From agent to agent: how far, what, and never a broker on its own.

use super::*;

/// The planner delegates to the reader, and the reader to the writer, along edges with more to them.
fn edges(case: Case, to_reader: Value, to_writer: Value) -> Case {
    case.object("planner", |o| o["may_delegate_to"] = vec![to_reader].into())
        .object("reader", |o| o["may_delegate_to"] = vec![to_writer].into())
}

/// The reader hands on to the writer what the planner handed to it.
fn handed_on() -> Case {
    Case::with("reader", Case::handed().token(3)).change(|c| c.output = Out::HandOver("writer", "files"))
}

/// The writer has taken it.
fn taken_on() -> Case {
    Case::with("writer", handed_on().token(4))
}

fn broker(case: Case, id: &str) -> Case {
    case.object(id, |o| {
        o["kind"] = "broker".into();
        o["known_as"] = json!({});
    })
}

pub(super) fn about_edges() -> Vec<Row> {
    let to = |agent: &str, depth: u8| json!({"agent": agent, "depth": depth});
    let only = |agent: &str, tools: Value| json!({"agent": agent, "access": [{"resource": "files", "tools": tools}]});
    let rules = json!([{"identifier": "read_file", "constraints": {"path": {"prefix": "/a/"}}}]);
    let one = |c: &mut Case| (c.scope, c.details) = (None, Some(tools(&["read_file"])));
    let granted = |id: &'static str| {
        Case::user().change(|c| {
            (c.presenter, c.grants) = (id, vec![Grant { agent: id.parse().unwrap(), ..grant(1, None) }]);
        })
    };
    vec![
        ("further than the first edge", edges(handed_on(), to("reader", 1), "writer".into()), Denial::TooFar),
        ("further than the first edge by now", edges(taken_on(), to("reader", 1), to("writer", 7)), Denial::TooFar),
        ("an edge in the middle is gone", edges(taken_on(), "writer".into(), "writer".into()), Denial::MayNotDelegate),
        (
            "more than the edge lets through",
            edges(
                Case::held().change(|c| c.output = Out::HandOver("reader", "files")),
                only("reader", json!(["read_file"])),
                "writer".into(),
            ),
            wide("[0]", Holding::Edge),
        ),
        (
            "every call, and the edge has rules",
            edges(
                Case::held().change(|c| c.output = Out::HandOver("reader", "files")).change(one),
                only("reader", rules.clone()),
                "writer".into(),
            ),
            much("[0].constraints.path", Holding::Edge),
        ),
        (
            "every call, and an edge of others has rules",
            edges(handed_on().change(one), only("reader", rules), "writer".into()),
            much("[0].constraints", Holding::Edge),
        ),
        (
            "more than an edge lets through by now",
            edges(taken_on(), only("reader", json!(["list_files"])), "writer".into()).change(one),
            much("[0].identifier", Holding::Edge),
        ),
        (
            "an edge for another resource",
            edges(
                Case::held().change(|c| c.output = Out::HandOver("reader", "files")),
                json!({"agent": "reader", "access": [{"resource": "mail", "scopes": ["mail:read"]}]}),
                "writer".into(),
            ),
            wide("[0]", Holding::Edge),
        ),
        ("a broker presents a user token", broker(granted("writer"), "writer"), Denial::BrokerAlone),
        (
            "a broker hands over a user token",
            broker(granted("reader").change(|c| c.output = Out::HandOver("writer", "files")), "reader"),
            Denial::BrokerAlone,
        ),
        ("the root has become a broker", broker(Case::held(), "planner"), Denial::BrokerAlone),
        ("the root has become a broker since it handed over", broker(Case::handed(), "planner"), Denial::BrokerAlone),
        (
            "a broker with another issuer's agent behind it",
            broker(granted("writer"), "writer").user_claims(|u| u.chain = Some(Chain::of(hop(LOGIN, "web")))),
            Denial::BrokerAlone,
        ),
    ]
}

#[test]
fn an_edge_leads_as_far_as_it_says() {
    let to = |agent: &str, depth: u8| json!({"agent": agent, "depth": depth});
    for (first, second, want) in [(1, 1, false), (2, 1, true), (7, 1, true), (2, 7, true)] {
        let case = edges(taken_on(), to("reader", first), to("writer", second));
        assert_eq!(case.decide().is_ok(), want, "{first} {second}");
        assert_eq!(edges(Case::handed(), to("reader", first), to("writer", second)).decide().err(), None);
    }
    // The length of the chain decides beside it.
    let short = edges(taken_on(), to("reader", 7), to("writer", 7)).change(|c| c.tokens.max_chain = 2);
    assert_eq!(short.decide(), Err(Denial::Chain(InvalidChain::TooDeep)));
}

#[test]
fn an_edge_lets_through_what_it_names() {
    let only = json!({"agent": "reader", "access": [{"resource": "files", "tools": ["read_file"]}]});
    let held =
        || edges(Case::held().change(|c| c.output = Out::HandOver("reader", "files")), only.clone(), "writer".into());
    let part = held().change(|c| (c.scope, c.details) = (None, Some(tools(&["read_file"]))));
    assert_eq!(part.decide().unwrap().authority, tools(&["read_file"]));
    // The planner itself has what it had.
    assert_eq!(
        held().change(|c| c.output = Out::Access("files")).decide().unwrap().authority,
        tools(&["list_files", "read_file"])
    );
}

#[test]
fn a_broker_is_one_more_hop() {
    let case = broker(Case::handed(), "reader");
    let plan = case.decide().unwrap();
    let hops = plan.chain.hops().map(|hop| (hop.sub.as_str(), hop.sub_profile.as_deref())).collect::<Vec<_>>();
    assert_eq!(hops, [("reader", Some("service")), ("planner", Some("ai_agent"))]);
    // It renews, and hands on along an edge, like anybody.
    let held = broker(Case::with("reader", case.token(3)), "reader");
    assert_eq!(held.decide().unwrap().chain, plan.chain);
    let on = broker(handed_on(), "reader").decide().unwrap();
    assert_eq!(on.may_act.unwrap().sub.as_str(), "writer");
}
