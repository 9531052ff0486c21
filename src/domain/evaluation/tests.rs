//! Tests of the decision: a table with a row for each reason, and properties of generated tokens
//! and questions.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::domain::{
    authority::parse_details,
    id::ToolDigest,
    registry::{Entry, KnownTools, RegistryObject, Source, tool::KnownTool},
    revocation::LogPosition,
    time::Timestamp,
};

const US: &str = "https://sts.example.com";
const BANK: &str = "https://bank.example.com/mcp";
const OTHER: &str = "https://other.example.com/mcp";

fn registry() -> Registry {
    let tool = |name: &str, effect: &str| json!({"name": name, "scope": format!("bank:{name}"), "effect": effect});
    let body = json!({"id": "bank", "uri": BANK, "authentication": {"method": "client_secret_basic"},
        "discovery_scope": "bank:list",
        "tools": [tool("pay", "write"), tool("balance", "read"), tool("close", "destructive")]});
    let object: RegistryObject = serde_json::from_value(json!({"kind": "resource", "body": body})).unwrap();
    Registry::build(1, vec![Entry { object, source: Source::File }], BTreeMap::new()).unwrap()
}

fn claims_with(details: &Value) -> TaskTokenClaims {
    let id = "01a1fa42-2000-7c1e-9b57-4d2f6a0c8e13";
    let claims = json!({"iss": US, "aud": BANK, "sub": "corp:alice", "sub_iss": "https://login.example.com",
        "client_id": "planner", "iat": 1, "exp": 300, "jti": id, "txn": id, "lineage": [], "rev": 1,
        "authorization_details": details, "act": {"iss": US, "sub": "planner"},
        "task": {"id": id, "issuer": US, "authority_hash": "sha-256:x"}, "tctx": {"purpose": "rent"}, "rctx": {}});
    serde_json::from_value(claims).unwrap()
}

/// May pay up to 1000 to one account, and list tools.
fn claims() -> TaskTokenClaims {
    claims_with(&json!([
        {"type": "mcp_tool", "locations": [BANK], "actions": ["tools/call"], "identifier": "pay",
            "constraints": {"to": {"equals": "acct-7"}, "amount": {"max": 1000}}},
        {"type": "mcp_tool", "locations": [BANK], "actions": ["tools/call"], "identifier": "balance"},
        {"type": "mcp_tool", "locations": [BANK], "actions": ["tools/list"]}
    ]))
}

fn arguments(text: &str) -> Arc<Arguments> {
    match Arg::parse(text, 64).unwrap() {
        Arg::Object(members) => Arc::new(members.into()),
        other => panic!("{other:?}"),
    }
}

/// Asks for a payment that is permitted.
fn question() -> Question {
    Question {
        subject: "corp:alice".into(),
        agent: Some("planner".into()),
        action: "tools/call".into(),
        resource_type: "tool".into(),
        resource_id: "pay".into(),
        arguments: arguments(r#"{"to": "acct-7", "amount": 1000}"#),
    }
}

fn decide_with(question: &Question, claims: Option<&TaskTokenClaims>) -> Result<Permitted, Denied> {
    let registry = registry();
    let resource = registry.resource_at(&BANK.parse().unwrap()).unwrap();
    decide(&EvaluationInput { question, claims, names_tools: true, resource, registry: &registry })
}

fn name(name: &str) -> ToolName {
    name.parse().unwrap()
}

#[test]
fn each_question_gets_its_reason() {
    let list = |action: &str, id: &str| Question {
        action: action.into(),
        resource_type: SERVER_TYPE.into(),
        resource_id: id.into(),
        arguments: Arc::default(),
        ..question()
    };
    let pay = |text: &str| Question { arguments: arguments(text), ..question() };
    for (asked, expected) in [
        (question(), Ok(Permitted::Call(name("pay")))),
        (Question { agent: None, ..question() }, Ok(Permitted::Call(name("pay")))),
        (pay(r#"{"to": "acct-7", "amount": -0.5}"#), Ok(Permitted::Call(name("pay")))),
        (list("tools/list", BANK), Ok(Permitted::ListTools(Some(vec![name("pay"), name("balance")])))),
        (Question { resource_id: "balance".into(), ..question() }, Ok(Permitted::Call(name("balance")))),
        // Another subject or agent.
        (Question { subject: "alice".into(), ..question() }, Err(("not_permitted", "subject.id"))),
        (Question { subject: String::new(), ..question() }, Err(("not_permitted", "subject.id"))),
        (Question { subject: "corp:Alice".into(), ..question() }, Err(("not_permitted", "subject.id"))),
        (Question { agent: Some("reader".into()), ..question() }, Err(("not_permitted", "context.agent"))),
        (Question { agent: Some(String::new()), ..question() }, Err(("not_permitted", "context.agent"))),
        // An action or a resource of another kind.
        (Question { action: "resources/read".into(), ..question() }, Err(("not_permitted", "action.name"))),
        (Question { action: "TOOLS/CALL".into(), ..question() }, Err(("not_permitted", "action.name"))),
        (Question { resource_type: "mcp_server".into(), ..question() }, Err(("not_permitted", "resource.type"))),
        (Question { resource_type: "Tool".into(), ..question() }, Err(("not_permitted", "resource.type"))),
        (Question { action: "tools/list".into(), ..question() }, Err(("not_permitted", "resource.type"))),
        (list("tools/list", OTHER), Err(("not_permitted", "resource.id"))),
        (list("tools/list", "https://bank.example.com/mcp/"), Err(("not_permitted", "resource.id"))),
        (list("resources/list", BANK), Err(("not_permitted", "action.name"))),
        (list("prompts/list", BANK), Err(("not_permitted", "action.name"))),
        // A tool that the token does not permit.
        (Question { resource_id: "close".into(), ..question() }, Err(("not_permitted", "resource.id"))),
        (Question { resource_id: "unknown".into(), ..question() }, Err(("not_permitted", "resource.id"))),
        (Question { resource_id: "PAY".into(), ..question() }, Err(("not_permitted", "resource.id"))),
        (Question { resource_id: String::new(), ..question() }, Err(("not_permitted", "resource.id"))),
        (Question { resource_id: "pay\0".into(), ..question() }, Err(("not_permitted", "resource.id"))),
        // Arguments.
        (pay(r#"{"to": "acct-7", "amount": 1000.01}"#), Err(("constraint", "arguments.amount"))),
        (pay(r#"{"to": "acct-8", "amount": 1}"#), Err(("constraint", "arguments.to"))),
        (pay(r#"{"to": "acct-7", "amount": "1"}"#), Err(("constraint", "arguments.amount"))),
        (pay(r#"{"to": "acct-7", "amount": null}"#), Err(("constraint", "arguments.amount"))),
        (pay(r#"{"to": "acct-7"}"#), Err(("constraint", "arguments.amount"))),
        (pay("{}"), Err(("constraint", "arguments.amount"))),
        (pay(r#"{"to": "acct-7", "amount": 1, "memo": "x"}"#), Err(("constraint", "arguments.memo"))),
        (pay(r#"{"to": "acct-7", "amount": -1e400}"#), Err(("constraint", "arguments.amount"))),
        (pay(r#"{"to": "acct-7", "amount": 0.10000000000000000001}"#), Err(("constraint", "arguments.amount"))),
        // The tool has no constraint, and the number no canonical form.
        (
            Question {
                resource_id: "balance".into(),
                arguments: arguments(r#"{"at": {"n": 9223372036854775808}}"#),
                ..question()
            },
            Err(("constraint", "arguments.at.n")),
        ),
        // The first reason is given where several hold.
        (
            Question { subject: "bob".into(), arguments: arguments(r#"{"amount": 1e400}"#), ..question() },
            Err(("not_permitted", "subject.id")),
        ),
        (
            Question { resource_id: "close".into(), arguments: arguments(r#"{"amount": 1e400}"#), ..question() },
            Err(("not_permitted", "resource.id")),
        ),
    ] {
        let decision = decide_with(&asked, Some(&claims()));
        let found = match &decision {
            Ok(permitted) => Ok(permitted.clone()),
            Err(denied) => Err((denied.reason.as_str(), denied.at.as_deref())),
        };
        assert_eq!(found, expected.map_err(|(reason, at)| (reason, Some(at))), "{asked:?}");
        let inactive = decide_with(&asked, None).unwrap_err();
        assert_eq!((inactive.reason, inactive.at), (DenyReason::Inactive, None), "{asked:?}");
    }
}

#[test]
fn list_shows_what_the_token_may_call() {
    let call = |tool: &str, at: &str| json!({"type": "mcp_tool", "locations": [at], "actions": ["tools/call"], "identifier": tool});
    let list = json!({"type": "mcp_tool", "locations": [BANK], "actions": ["tools/list"]});
    let asked = Question {
        action: "tools/list".into(),
        resource_type: SERVER_TYPE.into(),
        resource_id: BANK.into(),
        arguments: Arc::default(),
        ..question()
    };
    let tools = |details: Value, known: KnownTools| {
        let registry = registry().with_tools(known);
        let resource = registry.resource_at(&BANK.parse().unwrap()).unwrap();
        let claims = claims_with(&details);
        let names_tools = details.to_string().contains("tools/call");
        let claims = Some(&claims);
        let input = EvaluationInput { question: &asked, claims, names_tools, resource, registry: &registry };
        match decide(&input) {
            Ok(Permitted::ListTools(Some(tools))) => {
                Ok(tools.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "))
            }
            other => Err(other),
        }
    };
    let none = KnownTools::new;
    // In the order of the catalogue.
    assert_eq!(tools(json!([call("close", BANK), call("balance", BANK), list]), none()).unwrap(), "balance close");
    // A token for listing alone sees everything that is offered.
    assert_eq!(tools(json!([list]), none()).unwrap(), "pay balance close");
    assert_eq!(tools(json!([call("pay", OTHER), list]), none()).unwrap(), "", "issued for a call elsewhere");
    let digest = |text: &str| Some(ToolDigest::of_canonical(text));
    let changed = KnownTool { accepted: digest("a"), observed: digest("b") };
    let known = KnownTools::from([("bank".parse().unwrap(), [(name("pay"), changed)].into())]);
    assert_eq!(tools(json!([list]), known).unwrap(), "balance close", "a changed tool is not offered");
    // Without the permission to list there is no list.
    let refused = tools(json!([call("pay", BANK)]), none()).unwrap_err().unwrap_err();
    assert_eq!((refused.reason, refused.at.as_deref()), (DenyReason::NotPermitted, Some("action.name")));
}

/// This server finds new tools by listing them, also at a server that filters by the decision.
#[test]
fn own_listing_token_sees_every_tool() {
    let id = "01a1fa42-2000-7c1e-9b57-4d2f6a0c8e13";
    let (issuer, uri) = (US.parse().unwrap(), BANK.parse().unwrap());
    let (ids, rev) = ((id.parse().unwrap(), id.parse().unwrap()), LogPosition::new(1));
    let own = TaskTokenClaims::for_catalogue(&issuer, &uri, ids, rev, Timestamp::from_unix(5)).unwrap();
    let asked = Question {
        subject: own.sub.to_string(),
        agent: Some(own.client_id.to_string()),
        action: "tools/list".into(),
        resource_type: SERVER_TYPE.into(),
        resource_id: BANK.into(),
        arguments: Arc::default(),
    };
    assert_eq!(decide_with(&asked, Some(&own)), Ok(Permitted::ListTools(None)));
}

#[test]
fn effect_is_that_of_the_catalogue() {
    let registry = registry();
    let resource = registry.resource_at(&BANK.parse().unwrap()).unwrap();
    for (permitted, effect) in [
        (Permitted::Call(name("balance")), Effect::Read),
        (Permitted::Call(name("pay")), Effect::Write),
        (Permitted::Call(name("close")), Effect::Destructive),
        (Permitted::Call(name("unknown")), Effect::Destructive),
        (Permitted::ListTools(None), Effect::Read),
        (Permitted::ListResources, Effect::Read),
    ] {
        assert_eq!(effect_of(&permitted, resource), effect, "{permitted:?}");
    }
}

#[test]
fn batch_ends_by_its_semantic() {
    for (word, after_permit, after_deny) in
        [("execute_all", false, false), ("deny_on_first_deny", false, true), ("permit_on_first_permit", true, false)]
    {
        let semantic = BatchSemantic::parse(word).unwrap();
        assert_eq!(semantic.as_str(), word);
        assert_eq!((semantic.ends_after(true), semantic.ends_after(false)), (after_permit, after_deny), "{word}");
    }
    assert_eq!(BatchSemantic::parse("Execute_All"), None);
}

// ---- properties --------------------------------------------------------------------------------

fn value() -> impl Strategy<Value = Value> {
    let scalar = prop_oneof![
        Just(json!(null)),
        Just(json!(true)),
        (0..4_u32).prop_map(|n| json!(n)),
        Just(json!(0.5)),
        prop_oneof!["/a", "/a/b", "x", ""].prop_map(|text| json!(text)),
    ];
    scalar.prop_recursive(2, 6, 3, |inner| proptest::collection::vec(inner, 0..3).prop_map(|list| json!(list)))
}

fn rule() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(json!({"any": true})),
        value().prop_map(|value| json!({"equals": value})),
        (0..4_u32).prop_map(|max| json!({"max": max})),
        Just(json!({"prefix": "/a"})),
        (0..3_u32).prop_map(|length| json!({"max_length": length})),
    ]
}

fn argument_name() -> impl Strategy<Value = String> {
    prop_oneof!["a", "b", "c"]
}

fn tool_name() -> impl Strategy<Value = String> {
    prop_oneof![Just("pay"), Just("balance"), Just("close"), Just("other")].prop_map(str::to_owned)
}

fn detail() -> impl Strategy<Value = Value> {
    let rules = proptest::collection::btree_map(argument_name(), rule(), 0..3);
    let at = prop_oneof![4 => Just(BANK), 1 => Just(OTHER)];
    let call = (tool_name(), rules, any::<bool>(), at).prop_map(|(tool, rules, additional, at)| {
        let mut detail = json!({"type": "mcp_tool", "locations": [at], "actions": ["tools/call"], "identifier": tool});
        if !rules.is_empty() || !additional {
            detail["constraints"] = json!(rules);
            detail["additional_arguments"] = json!(additional);
        }
        detail
    });
    let list = prop_oneof![Just("tools/list"), Just("resources/list")]
        .prop_map(|action| json!({"type": "mcp_tool", "locations": [BANK], "actions": [action]}));
    prop_oneof![5 => call, 1 => list]
}

fn any_question() -> impl Strategy<Value = (Question, String)> {
    let subject = prop_oneof![6 => Just("corp:alice"), 1 => Just("alice")];
    let agent = prop_oneof![3 => Just(None), 3 => Just(Some("planner")), 1 => Just(Some("reader"))];
    let action = prop_oneof![6 => Just("tools/call"), 2 => Just("tools/list"), 1 => Just("resources/list"),
        1 => Just("tools/other")];
    let kind = prop_oneof![6 => Just(TOOL_TYPE), 2 => Just(SERVER_TYPE)];
    let id = prop_oneof![5 => tool_name(), 2 => Just(BANK.to_owned())];
    let exact =
        proptest::collection::btree_map(argument_name(), value(), 0..3).prop_map(|members| json!(members).to_string());
    let text = prop_oneof![6 => exact, 1 => Just(r#"{"a": 1.00000000000000000001}"#.to_owned())];
    (subject, agent, action, kind, id, text).prop_map(|(subject, agent, action, kind, id, text)| {
        let asked = Question {
            subject: subject.into(),
            agent: agent.map(str::to_owned),
            action: action.into(),
            resource_type: kind.into(),
            resource_id: id,
            arguments: arguments(&text),
        };
        (asked, text)
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    /// Evaluation permits a call exactly if introspection and the constraints would: the claims
    /// name the parties, and the authority allows the call of a tool of this resource.
    #[test]
    fn evaluation_agrees_with_introspection_and_constraints(
        details in proptest::collection::vec(detail(), 0..4),
        (asked, text) in any_question(),
    ) {
        // Details that are not satisfiable are not issued.
        let Ok(authority) = parse_details(&json!(details).to_string(), None) else { return Ok(()) };
        let claims = claims_with(&serde_json::to_value(&authority).unwrap());
        let uri = BANK.parse().unwrap();
        let Ok(Arg::Object(sent)) = Arg::parse(&text, 64) else { panic!("{text}") };
        let are_parties = asked.subject == "corp:alice" && asked.agent.as_deref().is_none_or(|agent| agent == "planner");
        let is_call = asked.action == "tools/call" && asked.resource_type == TOOL_TYPE;
        let may_call = asked.resource_id.parse().is_ok_and(|tool| authority.allows(&uri, &tool, &sent));
        let is_exact = Arg::Object(sent).to_canonical().is_some();
        let is_list = asked.resource_type == SERVER_TYPE && asked.resource_id == BANK;
        let may_list = ListAction::parse(&asked.action).is_some_and(|list| authority.allows_listing(&uri, list));
        let expected = are_parties && ((is_call && may_call && is_exact) || (is_list && may_list));
        let decision = decide_with(&asked, Some(&claims));
        prop_assert_eq!(decision.is_ok(), expected, "{:?} {:?}", asked, decision);
        if let Ok(Permitted::ListTools(Some(tools))) = &decision {
            let names = registry().resource_at(&uri).unwrap().tools.iter().map(|tool| tool.name.clone()).collect::<Vec<_>>();
            let order = tools.iter().map(|tool| names.iter().position(|other| other == tool).unwrap()).collect::<Vec<_>>();
            prop_assert!(order.is_sorted());
        }
        prop_assert!(decide_with(&asked, None).is_err());
    }
}
