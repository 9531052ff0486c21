//! Ceilings down to the argument, edges with limits, brokers, and whose say it is that somebody goes on with a token.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::{
    server::{ACCESS_TOKEN, FILES, Form, JWT, Server, decode_claims, form, form_with_changes},
    support::TestStore,
};

/// Runs each test on both stores, on a server whose file says more about agents.
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

/// The planner reads reports, and lets the reader read those of one quarter, and nobody after it. `stranger` is a broker, to
/// which the planner and the writer hand over.
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
        edits.iter().fold(text, |text, (was, is)| {
            assert!(text.contains(was), "{was}");
            text.replacen(was, is, 1)
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

/// The form of a good exchange of a user token of somebody in these groups.
fn user_form_with_groups(server: &Server, groups: &Value) -> Form {
    server.exchange_form(&server.user_token(json!({"groups": groups})))
}

fn assert_refused(answer: (StatusCode, Value), code: &str) -> Value {
    let (status, body) = answer;
    assert_eq!((status.as_u16(), &body["error"]), (400, &json!(code)), "{body}");
    body
}

fn assert_granted(answer: (StatusCode, Value)) -> String {
    let (status, body) = answer;
    assert_eq!(status, 200, "{body}");
    body["access_token"].as_str().unwrap().to_owned()
}

async fn agent_ceiling_limits_arguments(server: Server) {
    let form = user_form_with_groups(&server, &json!("staff"));
    let ask = async |details: &Value| server.request_token_as("planner", &form_with_details(&form, details)).await;

    // A scope means every call: the answer says how to ask, and for how much.
    let body = assert_refused(server.request_token_as("planner", &form).await, "invalid_scope");
    let says = body["error_description"].as_str().unwrap();
    assert!(
        says.starts_with("scope[0]: exceeds what the agent may have; request at most `authorization_details_allowed`"),
        "{says}"
    );
    let allowed = &body["authorization_details_allowed"];
    assert_eq!(allowed.as_array().unwrap().len(), 2, "{allowed}");
    let token = assert_granted(ask(allowed).await);
    assert_eq!(decode_claims(&token)["authorization_details"], *allowed);
    assert_eq!(server.introspect(&token).await["authorization_details"], *allowed);
    assert_eq!(decode_claims(&token)["scope"], "");

    assert_granted(ask(&read_file_detail(&json!({"path": {"equals": "/reports/q3/a.md"}, "limit": {"max": 1}}))).await);
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
        let body = assert_refused(ask(&read_file_detail(&rules)).await, "invalid_authorization_details");
        let says = body["error_description"].as_str().unwrap();
        assert!(
            says.starts_with(&format!("authorization_details[0].{place}: exceeds what the agent may have")),
            "{says}"
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
    let ask = async |details: &Value| server.request_token_as("planner", &form_with_details(&intern, details)).await;
    let within = json!({"path": {"prefix": "/reports/2026/"}, "limit": {"max": 5}});
    let token = assert_granted(ask(&read_file_detail(&within)).await);
    assert_eq!(decode_claims(&token)["authorization_details"][0]["constraints"], within);

    // What others may have is theirs to know.
    let list = json!([{"type": "mcp_tool", "actions": ["tools/call"], "identifier": "list_files"}]);
    let body = assert_refused(ask(&list).await, "invalid_authorization_details");
    assert_eq!(body["error_description"], "authorization_details[0].identifier: exceeds what the requester may have");
    assert_eq!(body.get("authorization_details_allowed"), None);
    // In no group, and in one that says no more than it says.
    for groups in [json!("nobody"), json!(null), json!({"interns": true})] {
        let form = form_with_details(&user_form_with_groups(&server, &groups), &read_file_detail(&within));
        assert_refused(server.request_token_as("planner", &form).await, "invalid_authorization_details");
    }
    // Both groups: the union of what they give.
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

    // Of what the planner has, the edge lets one part through: it is told which.
    let hand_over = server.delegation_form(&held, "reader");
    let list =
        json!([{"type": "mcp_tool", "locations": [FILES], "actions": ["tools/call"], "identifier": "list_files"}]);
    for (details, place) in [(&list, "identifier"), (&read_file_detail(&reports), "constraints.path")] {
        let form = form_with_details(&hand_over, details);
        let body = assert_refused(server.request_token_as("planner", &form).await, "invalid_authorization_details");
        let says = body["error_description"].as_str().unwrap();
        let want = format!("authorization_details[0].{place}: exceeds what may be delegated along the chain");
        assert!(says.starts_with(&want), "{says}");
        let left = json!({"path": {"prefix": "/reports/q3/"}, "limit": {"max": 100}});
        let allowed = body["authorization_details_allowed"][0].get("constraints").cloned();
        assert_eq!(allowed, (place != "identifier").then_some(left));
    }
    let quarter = read_file_detail(&json!({"path": {"prefix": "/reports/q3/"}, "limit": {"max": 10}}));
    let handed = assert_granted(server.request_token_as("planner", &form_with_details(&hand_over, &quarter)).await);
    let take = form_with_changes(&form_with_details(&server.exchange_form(&handed), &quarter), &[("purpose", "")]);
    let readers = assert_granted(server.request_token_as("reader", &take).await);
    let says = decode_claims(&readers);
    assert_eq!(says["act"]["act"]["sub"], "planner");
    assert_eq!((&says["sub"], &says["txn"]), (&json!("alice"), &decode_claims(&held)["txn"]));
    assert!(says["exp"].as_i64() <= decode_claims(&held)["exp"].as_i64());

    // Here the edge ends, though the reader may delegate to the writer, and the chain may be longer.
    let on = form_with_details(&server.delegation_form(&readers, "writer"), &quarter);
    let body = assert_refused(server.request_token_as("reader", &on).await, "invalid_request");
    assert!(body["error_description"].as_str().unwrap().contains("depth"), "{body}");
    // The reader's own work goes as far as its own edge says.
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
    let take = form_with_changes(&form_with_details(&server.exchange_form(&handed), &quarter), &[("purpose", "")]);
    let brokered = assert_granted(server.request_token_as("stranger", &take).await);

    let hop = |sub: &str, profile: &str| json!({"iss": server.issuer, "sub": sub, "sub_profile": profile});
    let mut act = hop("stranger", "service");
    act["act"] = hop("planner", "ai_agent");
    let answer = server.introspect(&brokered).await;
    assert_eq!((&answer["active"], &answer["act"]), (&json!(true), &act), "the server sees who wants it");
    assert_eq!(answer["sub"], "alice");
    let jti = decode_claims(&brokered)["jti"].as_str().unwrap().to_owned();
    for agent in ["planner", "stranger"] {
        let records = server.audit_records(&format!("&agent={agent}")).await;
        let record = records.iter().find(|record| record["token"] == jti && record["event"] == "token.issue");
        assert_eq!(record.unwrap()["agents"], json!(["stranger", "planner"]), "{agent}");
    }
    // Ending the agent behind it ends what the broker has.
    server.revoke(json!({"kind": "agent", "id": "planner", "reason": "enough"})).await;
    assert!(!server.is_active(&brokered).await);

    // On its own it is nobody: not by the user's word, and not by a grant.
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

/// Who presents it × what it presents × what it says with an actor token: presenter continuation is for the holder alone,
/// presenter rebind for whom the holder named, and an actor token adds nothing to it.
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
    let (planners, readers) = (api("planner").await, api("reader").await);
    let (mut legal, mut cells) = (0, 0);
    for (what, token) in [("held", &held), ("handed", &handed)] {
        for presenter in ["planner", "reader", "writer", "stranger"] {
            for actor in ["none", "planner", "reader", "task", "assertion"] {
                let assertion = server.assertion(json!({}));
                let (actor_token, said) = match actor {
                    "planner" => (&planners, ACCESS_TOKEN),
                    "reader" => (&readers, ACCESS_TOKEN),
                    // Somebody's delegation is not somebody: it carries `act`.
                    "task" => (&held, ACCESS_TOKEN),
                    "assertion" => (&assertion, JWT),
                    _ => (&String::new(), ""),
                };
                let form = form_of(token);
                let form = match actor {
                    "none" => form,
                    _ => form_with_changes(&form, &[("actor_token", actor_token), ("actor_token_type", said)]),
                };
                let (status, body) = server.request_token_as(presenter, &form).await;
                let cell = format!("{presenter} presents what was {what}, and as actor token: {actor}");
                cells += 1;
                let is_its = match what {
                    "held" => presenter == "planner",
                    _ => presenter == "reader",
                };
                let is_own = match actor {
                    "none" => true,
                    "task" => false,
                    "assertion" => presenter == "planner",
                    client => presenter == client,
                };
                if is_its && is_own {
                    legal += 1;
                    assert_eq!(status, 200, "{cell}: {body}");
                    let act = &decode_claims(body["access_token"].as_str().unwrap())["act"];
                    let behind = act.get("act").map(|act| &act["sub"]);
                    assert_eq!(act["sub"], presenter, "{cell}");
                    assert_eq!(behind, (what == "handed").then_some(&json!("planner")), "{cell}");
                } else {
                    let want = if actor == "task" { "invalid_request" } else { "actor_unauthorized" };
                    assert_eq!((status.as_u16(), &body["error"]), (400, &json!(want)), "{cell}: {body}");
                }
            }
        }
    }
    assert_eq!((cells, legal), (40, 5));
    server.stop().await;
}
