//! Delegation edges: depth, authority, and brokers.

use super::*;

/// The planner delegates to the reader, and the reader to the writer, along these edges.
fn with_edges(case: Case, to_reader: Value, to_writer: Value) -> Case {
    case.with_object("planner", |o| o["may_delegate_to"] = vec![to_reader].into())
        .with_object("reader", |o| o["may_delegate_to"] = vec![to_writer].into())
}

/// The reader hands over to the writer what the planner handed over to it.
fn second_hand_over() -> Case {
    Case::with_issued_token("reader", Case::with_handed_over_token().issue_token(3))
        .change(|c| c.requested_token = TokenRequest::HandOver("writer", "files"))
}

/// The writer uses the token.
fn second_hand_over_used() -> Case {
    Case::with_issued_token("writer", second_hand_over().issue_token(4))
}

fn as_broker(case: Case, id: &str) -> Case {
    case.with_object(id, |o| {
        o["kind"] = "broker".into();
        o["known_as"] = json!({});
    })
}

pub(super) fn edge_rows() -> Vec<Row> {
    let to = |agent: &str, depth: u8| json!({"agent": agent, "depth": depth});
    let only = |agent: &str, tools: Value| json!({"agent": agent, "access": [{"resource": "files", "tools": tools}]});
    let rules = json!([{"identifier": "read_file", "constraints": {"path": {"prefix": "/a/"}}}]);
    let one = |c: &mut Case| (c.scope, c.details) = (None, Some(tools(&["read_file"])));
    let granted = |id: &'static str| {
        Case::with_user_token().change(|c| {
            (c.presenter, c.grants) = (id, vec![Grant { agent: id.parse().unwrap(), ..grant(1, None) }]);
        })
    };
    vec![
        (
            "beyond the depth of the first edge",
            with_edges(second_hand_over(), to("reader", 1), "writer".into()),
            Denial::DelegationDepthExceeded,
        ),
        (
            "beyond the reduced depth of the first edge",
            with_edges(second_hand_over_used(), to("reader", 1), to("writer", 7)),
            Denial::DelegationDepthExceeded,
        ),
        (
            "an edge in the middle was removed",
            with_edges(second_hand_over_used(), "writer".into(), "writer".into()),
            Denial::DelegationNotAllowed,
        ),
        (
            "more than the edge allows",
            with_edges(
                Case::with_access_token().change(|c| c.requested_token = TokenRequest::HandOver("reader", "files")),
                only("reader", json!(["read_file"])),
                "writer".into(),
            ),
            scope_exceeds("[0]", CeilingOwner::Edge),
        ),
        (
            "every call, and the edge has rules",
            with_edges(
                Case::with_access_token()
                    .change(|c| c.requested_token = TokenRequest::HandOver("reader", "files"))
                    .change(one),
                only("reader", rules.clone()),
                "writer".into(),
            ),
            details_exceed("[0].constraints.path", CeilingOwner::Edge),
        ),
        (
            "every call, and an edge of other agents has rules",
            with_edges(second_hand_over().change(one), only("reader", rules), "writer".into()),
            details_exceed("[0].constraints", CeilingOwner::Edge),
        ),
        (
            "more than a narrowed edge allows",
            with_edges(second_hand_over_used(), only("reader", json!(["list_files"])), "writer".into()).change(one),
            details_exceed("[0].identifier", CeilingOwner::Edge),
        ),
        (
            "an edge for another resource",
            with_edges(
                Case::with_access_token().change(|c| c.requested_token = TokenRequest::HandOver("reader", "files")),
                json!({"agent": "reader", "access": [{"resource": "mail", "scopes": ["mail:read"]}]}),
                "writer".into(),
            ),
            scope_exceeds("[0]", CeilingOwner::Edge),
        ),
        ("a broker presents a user token", as_broker(granted("writer"), "writer"), Denial::BrokerWithoutPrincipal),
        (
            "a broker hands over a user token",
            as_broker(
                granted("reader").change(|c| c.requested_token = TokenRequest::HandOver("writer", "files")),
                "reader",
            ),
            Denial::BrokerWithoutPrincipal,
        ),
        (
            "the root has become a broker",
            as_broker(Case::with_access_token(), "planner"),
            Denial::BrokerWithoutPrincipal,
        ),
        (
            "the root has become a broker since it handed over",
            as_broker(Case::with_handed_over_token(), "planner"),
            Denial::BrokerWithoutPrincipal,
        ),
        (
            "a broker with another issuer's agent behind it",
            as_broker(granted("writer"), "writer")
                .with_user_claims(|u| u.chain = Some(ActorChain::from_actor(actor(LOGIN, "web")))),
            Denial::BrokerWithoutPrincipal,
        ),
    ]
}

#[test]
fn edge_depth_limits_further_delegation() {
    let to = |agent: &str, depth: u8| json!({"agent": agent, "depth": depth});
    for (first, second, want) in [(1, 1, false), (2, 1, true), (7, 1, true), (2, 7, true)] {
        let case = with_edges(second_hand_over_used(), to("reader", first), to("writer", second));
        assert_eq!(case.decide().is_ok(), want, "{first} {second}");
        assert_eq!(
            with_edges(Case::with_handed_over_token(), to("reader", first), to("writer", second)).decide().err(),
            None
        );
    }
    // The maximum length of the chain applies too.
    let short =
        with_edges(second_hand_over_used(), to("reader", 7), to("writer", 7)).change(|c| c.tokens.max_chain = 2);
    assert_eq!(short.decide(), Err(Denial::Chain(ActorChainError::TooDeep)));
}

#[test]
fn edge_access_limits_delegated_authority() {
    let only = json!({"agent": "reader", "access": [{"resource": "files", "tools": ["read_file"]}]});
    let held = || {
        with_edges(
            Case::with_access_token().change(|c| c.requested_token = TokenRequest::HandOver("reader", "files")),
            only.clone(),
            "writer".into(),
        )
    };
    let part = held().change(|c| (c.scope, c.details) = (None, Some(tools(&["read_file"]))));
    assert_eq!(part.decide().unwrap().authority, tools(&["read_file"]));
    // The planner's own authority is unaffected.
    assert_eq!(
        held().change(|c| c.requested_token = TokenRequest::Access("files")).decide().unwrap().authority,
        tools(&["list_files", "read_file"])
    );
}

#[test]
fn broker_is_an_additional_actor() {
    let case = as_broker(Case::with_handed_over_token(), "reader");
    let plan = case.decide().unwrap();
    let hops = plan.chain.actors().map(|hop| (hop.sub.as_str(), hop.sub_profile.as_deref())).collect::<Vec<_>>();
    assert_eq!(hops, [("reader", Some("service")), ("planner", Some("ai_agent"))]);
    // A broker renews and hands over along edges like any agent.
    let held = as_broker(Case::with_issued_token("reader", case.issue_token(3)), "reader");
    assert_eq!(held.decide().unwrap().chain, plan.chain);
    let on = as_broker(second_hand_over(), "reader").decide().unwrap();
    assert_eq!(on.may_act.unwrap().sub.as_str(), "writer");
}
