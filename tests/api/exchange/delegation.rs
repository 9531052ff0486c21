//! Ceilings down to the argument, delegation edges with limits, brokers, and the parties that may
//! exchange a token.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::{
    server::{ACCESS_TOKEN, FILES, Form, JWT, Server, decode_claims, form, form_with_changes},
    support::TestStore,
};

/// Runs each test on both stores, on a server with an extended configuration of the agents.
macro_rules! on_both_stores {
    ($($name:ident),* $(,)?) => {
        mod sqlite {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $name() {
                super::$name(super::start(crate::support::TestStore::sqlite().await).await).await;
            })*
        }
        mod postgres {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $name() {
                super::$name(super::start(crate::support::TestStore::postgres().await).await).await;
            })*
        }
    };
}

on_both_stores!(
    agent_ceiling_limits_arguments,
    requester_ceiling_limits_arguments,
    edge_limits_tools_and_depth,
    broker_adds_one_actor,
    captured_token_cannot_be_exchanged
);

/// Starts a server. The planner may read reports, and may delegate those of one quarter to the
/// reader, at depth 1. `stranger` is a broker, to which the planner and the writer may delegate.
async fn start(store: TestStore) -> Server {
    let edit = |text: String| {
        let reports =
            r#"{ identifier = "read_file", constraints = { path = { prefix = "/reports/" }, limit = { max = 100 } } }"#;
        let quarter = r#"{ identifier = "read_file", constraints = { path = { prefix = "/reports/q3/" }, limit = { any = true } } }"#;
        let edits = [
            (
                r#"access = [{ resource = "files", scopes = ["files:read", "files:write"] }, { resource"#,
                format!(
                    r#"access = [{{ resource = "files", scopes = ["files:write"], tools = ["list_files", {reports}] }}, {{ resource"#
                ),
            ),
            (
                r#"may_delegate_to = ["reader"]"#,
                format!(
                    r#"may_delegate_to = ["stranger", {{ agent = "reader", depth = 1, access = [{{ resource = "files", tools = [{quarter}] }}] }}]"#
                ),
            ),
            (r#"id = "stranger""#, "id = \"stranger\"\nkind = \"broker\"".to_owned()),
            (
                r#"token_types = ["access_token"]"#,
                format!(
                    r#"token_types = ["access_token"]
entitlements = [
    {{ to = {{ claim = {{ name = "groups", value = "interns" }} }}, resource = "files", tools = [{reports}] }},
    {{ to = {{ claim = {{ name = "groups", value = "staff" }} }}, scopes = ["files:read", "files:write", "notes:read"] }},
]"#
                ),
            ),
        ];
        edits.iter().fold(text, |text, (old, new)| {
            assert!(text.contains(old), "{old}");
            text.replacen(old, new, 1)
        })
    };
    Server::start_edited(store, edit).await
}

fn read_file_detail(constraints: &Value) -> Value {
    json!([{"type": "mcp_tool", "locations": [FILES], "actions": ["tools/call"], "identifier": "read_file",
        "constraints": constraints}])
}

fn form_with_details(form: &Form, details: &Value) -> Form {
    form_with_changes(form, &[("scope", ""), ("authorization_details", &details.to_string())])
}

/// The form of a valid exchange of a user token of a requester in these groups.
fn user_form_with_groups(server: &Server, groups: &Value) -> Form {
    server.exchange_form(&server.user_token(json!({"groups": groups})))
}

fn assert_refused(response: (StatusCode, Value), code: &str) -> Value {
    let (status, body) = response;
    assert_eq!((status.as_u16(), &body["error"]), (400, &json!(code)), "{body}");
    body
}

fn assert_granted(response: (StatusCode, Value)) -> String {
    let (status, body) = response;
    assert_eq!(status, 200, "{body}");
    body["access_token"].as_str().unwrap().to_owned()
}

async fn agent_ceiling_limits_arguments(server: Server) {
    let form = user_form_with_groups(&server, &json!("staff"));
    let request = async |details: &Value| server.request_token_as("planner", &form_with_details(&form, details)).await;

    // A scope covers every call. The response claims how to narrow the request, and what is
    // allowed.
    let body = assert_refused(server.request_token_as("planner", &form).await, "invalid_scope");
    let description = body["error_description"].as_str().unwrap();
    assert!(
        description
            .starts_with("scope[0]: exceeds what the agent may have; request at most `authorization_details_allowed`"),
        "{description}"
    );
    let allowed = &body["authorization_details_allowed"];
    assert_eq!(allowed.as_array().unwrap().len(), 2, "{allowed}");
    let token = assert_granted(request(allowed).await);
    assert_eq!(decode_claims(&token)["authorization_details"], *allowed);
    assert_eq!(server.introspect(&token).await["authorization_details"], *allowed);
    assert_eq!(decode_claims(&token).get("scope"), None);

    assert_granted(
        request(&read_file_detail(&json!({"path": {"equals": "/reports/q3/a.md"}, "limit": {"max": 1}}))).await,
    );
    for (rules, place, left) in [
        (
            json!({"path": {"prefix": "/"}, "limit": {"max": 1}}),
            "constraints.path",
            json!({"path": {"prefix": "/reports/"}, "limit": {"max": 1}}),
        ),
        (
            json!({"path": {"prefix": "/reports/q3"}, "limit": {"max": 101}}),
            "constraints.limit",
            json!({"path": {"prefix": "/reports/q3"}, "limit": {"max": 100}}),
        ),
        (json!({"path": {"prefix": "/reports/q3"}}), "constraints.limit", Value::Null),
    ] {
        let body = assert_refused(request(&read_file_detail(&rules)).await, "invalid_authorization_details");
        let description = body["error_description"].as_str().unwrap();
        assert!(
            description.starts_with(&format!("authorization_details[0].{place}: exceeds what the agent may have")),
            "{description}"
        );
        assert_eq!(body["authorization_details_allowed"][0]["constraints"], left, "{rules}");
    }
    let body = assert_refused(
        server.request_token_as("planner", &form_with_changes(&form, &[("scope", "")])).await,
        "invalid_scope",
    );
    assert!(body["error_description"].as_str().unwrap().contains("no authority requested"), "{body}");
    server.stop().await;
}

async fn requester_ceiling_limits_arguments(server: Server) {
    let intern = user_form_with_groups(&server, &json!(["interns"]));
    let request =
        async |details: &Value| server.request_token_as("planner", &form_with_details(&intern, details)).await;
    let within = json!({"path": {"prefix": "/reports/2026/"}, "limit": {"max": 5}});
    let token = assert_granted(request(&read_file_detail(&within)).await);
    assert_eq!(decode_claims(&token)["authorization_details"][0]["constraints"], within);

    // The response does not reveal what other requesters are allowed.
    let list = json!([{"type": "mcp_tool", "actions": ["tools/call"], "identifier": "list_files"}]);
    let body = assert_refused(request(&list).await, "invalid_authorization_details");
    assert_eq!(body["error_description"], "authorization_details[0].identifier: exceeds what the requester may have");
    assert_eq!(body.get("authorization_details_allowed"), None);
    // A requester in an unknown group, without groups, and with groups of another type.
    for groups in [json!("guests"), json!(null), json!({"interns": true})] {
        let form = form_with_details(&user_form_with_groups(&server, &groups), &read_file_detail(&within));
        assert_refused(server.request_token_as("planner", &form).await, "invalid_authorization_details");
    }
    // Two groups: the union of their entitlements.
    let form = form_with_details(&user_form_with_groups(&server, &json!(["interns", "staff"])), &list);
    assert_granted(server.request_token_as("planner", &form).await);
    server.stop().await;
}

async fn edge_limits_tools_and_depth(server: Server) {
    let form = user_form_with_groups(&server, &json!("staff"));
    let reports = json!({"path": {"prefix": "/reports/"}, "limit": {"max": 100}});
    let all = assert_refused(server.request_token_as("planner", &form).await, "invalid_scope");
    let held = assert_granted(
        server.request_token_as("planner", &form_with_details(&form, &all["authorization_details_allowed"])).await,
    );

    // The edge passes a part of the planner's authority on. The response names that part.
    let hand_over = server.delegation_form(&held, "reader");
    let list =
        json!([{"type": "mcp_tool", "locations": [FILES], "actions": ["tools/call"], "identifier": "list_files"}]);
    for (details, place) in [(&list, "identifier"), (&read_file_detail(&reports), "constraints.path")] {
        let form = form_with_details(&hand_over, details);
        let body = assert_refused(server.request_token_as("planner", &form).await, "invalid_authorization_details");
        let description = body["error_description"].as_str().unwrap();
        let want = format!("authorization_details[0].{place}: exceeds what may be delegated along the chain");
        assert!(description.starts_with(&want), "{description}");
        let left = json!({"path": {"prefix": "/reports/q3/"}, "limit": {"max": 100}});
        let allowed = body["authorization_details_allowed"][0].get("constraints").cloned();
        assert_eq!(allowed, (place != "identifier").then_some(left));
    }
    let quarter = read_file_detail(&json!({"path": {"prefix": "/reports/q3/"}, "limit": {"max": 10}}));
    let handed = assert_granted(server.request_token_as("planner", &form_with_details(&hand_over, &quarter)).await);
    let onward = form_with_changes(&form_with_details(&server.exchange_form(&handed), &quarter), &[("purpose", "")]);
    let readers = assert_granted(server.request_token_as("reader", &onward).await);
    let claims = decode_claims(&readers);
    assert_eq!(claims["act"]["act"]["sub"], "planner");
    assert_eq!((&claims["sub"], &claims["txn"]), (&json!("alice"), &decode_claims(&held)["txn"]));
    assert!(claims["exp"].as_i64() <= decode_claims(&held)["exp"].as_i64());

    // The depth of the planner's edge ends here, although the reader may delegate to the writer.
    let further = form_with_details(&server.delegation_form(&readers, "writer"), &quarter);
    let body = assert_refused(server.request_token_as("reader", &further).await, "invalid_request");
    assert!(body["error_description"].as_str().unwrap().contains("depth"), "{body}");
    // A task that the reader opens itself is limited by the reader's own edge.
    let form = user_form_with_groups(&server, &json!("staff"));
    let own = server.user_token(json!({"groups": "staff", "client_id": "reader-client"}));
    let own =
        assert_granted(server.request_token_as("reader", &form_with_changes(&form, &[("subject_token", &own)])).await);
    assert_granted(server.request_token_as("reader", &server.delegation_form(&own, "writer")).await);
    server.stop().await;
}

async fn broker_adds_one_actor(server: Server) {
    let quarter = read_file_detail(&json!({"path": {"prefix": "/reports/q3/"}, "limit": {"max": 10}}));
    let form = form_with_details(&user_form_with_groups(&server, &json!("staff")), &quarter);
    let held = assert_granted(server.request_token_as("planner", &form).await);
    let hand_over = form_with_details(&server.delegation_form(&held, "stranger"), &quarter);
    let handed = assert_granted(server.request_token_as("planner", &hand_over).await);
    let onward = form_with_changes(&form_with_details(&server.exchange_form(&handed), &quarter), &[("purpose", "")]);
    let brokered = assert_granted(server.request_token_as("stranger", &onward).await);

    let hop = |sub: &str, profile: &str| json!({"iss": server.issuer, "sub": sub, "sub_profile": profile});
    let mut act = hop("stranger", "service");
    act["act"] = hop("planner", "ai_agent");
    let response = server.introspect(&brokered).await;
    assert_eq!((&response["active"], &response["act"]), (&json!(true), &act), "the resource sees the principal");
    assert_eq!(response["sub"], "alice");
    let jti = decode_claims(&brokered)["jti"].as_str().unwrap().to_owned();
    for agent in ["planner", "stranger"] {
        let records = server.audit_records(&format!("&agent={agent}")).await;
        let record = records.iter().find(|record| record["token"] == jti && record["event"] == "token.issue");
        assert_eq!(record.unwrap()["agents"], json!(["stranger", "planner"]), "{agent}");
    }
    // Revoking the principal ends the broker's token.
    server.revoke(json!({"kind": "agent", "id": "planner", "reason": "test"})).await;
    assert!(!server.is_active(&brokered).await);

    // A broker can't act on its own: neither by the user token's `may_act`, nor by a grant.
    let may_act = json!({"groups": "staff", "may_act": {"iss": server.issuer, "sub": "stranger"}});
    let form = server.exchange_form(&server.user_token(may_act));
    let body = assert_refused(server.request_token_as("stranger", &form).await, "actor_unauthorized");
    assert!(body["error_description"].as_str().unwrap().contains("broker"), "{body}");
    let until = "2100-01-01T00:00:00Z";
    let grant = json!({"issuer": crate::server::IDP, "subject": "alice", "agent": "stranger", "until": until});
    assert_eq!(server.admin(Method::POST, "/grants", Some(grant)).await.0, 201);
    assert_refused(
        server.request_token_as("stranger", &user_form_with_groups(&server, &json!("staff"))).await,
        "actor_unauthorized",
    );
    server.stop().await;
}

/// Presenter × presented token × actor token. Only its holder continues with a token, only the
/// named agent exchanges a hand-over token, and an actor token adds no right.
async fn captured_token_cannot_be_exchanged(server: Server) {
    let quarter = read_file_detail(&json!({"path": {"prefix": "/reports/q3/"}, "limit": {"max": 10}}));
    let form_of =
        |token: &str| form_with_changes(&form_with_details(&server.exchange_form(token), &quarter), &[("purpose", "")]);
    let held = assert_granted(
        server
            .request_token_as("planner", &form_with_details(&user_form_with_groups(&server, &json!("staff")), &quarter))
            .await,
    );
    let hand_over = form_with_details(&server.delegation_form(&held, "reader"), &quarter);
    let handed = assert_granted(server.request_token_as("planner", &hand_over).await);
    let api = async |client: &str| server.issue_token(client, &form(&[("grant_type", "client_credentials")])).await;
    let (planner_token, reader_token) = (api("planner").await, api("reader").await);
    let (mut allowed, mut cells) = (0, 0);
    for (origin, token) in [("issued", &held), ("handed over", &handed)] {
        for presenter in ["planner", "reader", "writer", "stranger"] {
            for actor in ["none", "planner", "reader", "task", "assertion"] {
                let assertion = server.assertion(json!({}));
                let (actor_token, declared_type) = match actor {
                    "planner" => (&planner_token, ACCESS_TOKEN),
                    "reader" => (&reader_token, ACCESS_TOKEN),
                    // A token with `act` describes a delegation, and does not identify one party.
                    "task" => (&held, ACCESS_TOKEN),
                    "assertion" => (&assertion, JWT),
                    _ => (&String::new(), ""),
                };
                let form = form_of(token);
                let form = match actor {
                    "none" => form,
                    _ => form_with_changes(&form, &[("actor_token", actor_token), ("actor_token_type", declared_type)]),
                };
                let (status, body) = server.request_token_as(presenter, &form).await;
                let cell = format!("{presenter} presents the token that was {origin}; actor token: {actor}");
                cells += 1;
                let is_presentable = match origin {
                    "issued" => presenter == "planner",
                    _ => presenter == "reader",
                };
                let is_own = match actor {
                    "none" => true,
                    "task" => false,
                    "assertion" => presenter == "planner",
                    client => presenter == client,
                };
                if is_presentable && is_own {
                    allowed += 1;
                    assert_eq!(status, 200, "{cell}: {body}");
                    let act = &decode_claims(body["access_token"].as_str().unwrap())["act"];
                    let principal = act.get("act").map(|act| &act["sub"]);
                    assert_eq!(act["sub"], presenter, "{cell}");
                    assert_eq!(principal, (origin == "handed over").then_some(&json!("planner")), "{cell}");
                } else {
                    // A presenter that does not hold the token learns nothing else.
                    let is_invalid = actor == "task" && is_presentable;
                    let want = if is_invalid { "invalid_request" } else { "actor_unauthorized" };
                    assert_eq!((status.as_u16(), &body["error"]), (400, &json!(want)), "{cell}: {body}");
                }
            }
        }
    }
    assert_eq!((cells, allowed), (40, 5));
    server.stop().await;
}
