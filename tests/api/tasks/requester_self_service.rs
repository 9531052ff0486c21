//! Self-service of requesters: they manage their own tasks and grants only. An agent can't, with
//! any token that it holds.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::{
    grants::consent::{details, expiry_in},
    server::{IDP, Server, decode_claims, read_response},
    support::TestStore,
};

macro_rules! portal_tests {
    ($($name:ident),* $(,)?) => {
        mod sqlite {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $name() {
                super::$name(super::with_portal(crate::support::TestStore::sqlite().await).await).await;
            })*
        }
        mod postgres {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $name() {
                super::$name(super::with_portal(crate::support::TestStore::postgres().await).await).await;
            })*
        }
    };
}

portal_tests!(
    only_portal_tokens_are_accepted,
    requester_manages_own_tasks,
    repeated_requester_request_is_idempotent,
    requester_creates_and_withdraws_grants,
    agent_cannot_grant_itself_consent,
);

pub const API: &str = "https://errand.example.com/api";

pub async fn with_portal(store: TestStore) -> Server {
    let edit = |text: String| {
        let text = text.replace("id = \"files\"\n", "id = \"files\"\nconsent = \"required\"\n");
        let more =
            format!("token_types = [\"access_token\"]\napi_audiences = [\"{API}\"]\nportal_clients = [\"portal\"]\n");
        text.replace("token_types = [\"access_token\"]\n", &more)
    };
    Server::start_edited(store, edit).await
}

/// Returns the portal's token for alice, with these claims changed.
pub fn portal_token(server: &Server, changes: Value) -> String {
    let mut all = json!({"aud": API, "client_id": "portal"});
    for (name, value) in changes.as_object().unwrap() {
        all[name] = value.clone();
    }
    server.user_token(all)
}

pub async fn call_api(
    server: &Server,
    token: &str,
    method: Method,
    path: &str,
    body: Option<Value>,
) -> (StatusCode, Value) {
    let request = server.request(method, path).bearer_auth(token);
    let request = match body {
        Some(body) => request.json(&body),
        None => request,
    };
    read_response(request.send().await.unwrap()).await
}

fn own_grant(tools: &[&str]) -> Value {
    json!({"agent": "planner", "until": expiry_in(600), "authorization_details": details(tools)})
}

const READ_TOOLS: [&str; 2] = ["list_files", "read_file"];

async fn only_portal_tokens_are_accepted(server: Server) {
    let good = portal_token(&server, json!({}));
    for path in ["/v1/tasks", "/v1/grants"] {
        assert_eq!(call_api(&server, &good, Method::GET, path, None).await.0, 200, "{path}");
    }
    let other_key = crate::idp::Key::new("idp-1");
    let portal_claims = decode_claims(&good);
    let now = Server::now();
    for (what, token, want) in [
        ("a token to be exchanged", server.user_token(json!({})), 401),
        ("of the portal, to be exchanged", server.user_token(json!({"client_id": "portal"})), 401),
        ("of an agent's client", portal_token(&server, json!({"client_id": "planner-client"})), 403),
        ("of another client", portal_token(&server, json!({"client_id": "other"})), 403),
        ("for both", portal_token(&server, json!({"aud": [API, server.issuer]})), 401),
        ("for another", portal_token(&server, json!({"aud": "https://elsewhere.example"})), 401),
        ("no audience", portal_token(&server, json!({"aud": null})), 401),
        ("with an actor", portal_token(&server, json!({"act": {"iss": IDP, "sub": "x"}})), 403),
        ("with a possible actor", portal_token(&server, json!({"may_act": {"sub": "planner-client"}})), 403),
        ("bound to a key", portal_token(&server, json!({"cnf": {"jkt": "x"}})), 403),
        ("over", portal_token(&server, json!({"exp": now - 60, "iat": now - 600})), 401),
        ("not yet", portal_token(&server, json!({"nbf": now + 600})), 401),
        ("no end", portal_token(&server, json!({"exp": null})), 401),
        ("no subject", portal_token(&server, json!({"sub": null})), 401),
        ("of an unknown issuer", portal_token(&server, json!({"iss": "https://elsewhere.example"})), 401),
        ("another's key", other_key.sign("at+jwt", &portal_claims), 401),
        ("an ID token", server.idp.sign("JWT", &portal_claims), 401),
        ("no type", server.idp.sign("", &portal_claims), 401),
        ("a security event", portal_token(&server, json!({"events": {}})), 401),
        ("an agent's own", server.api_token("planner", "errand:tasks").await, 401),
        ("an admin's", server.api_token("ops", "errand:admin").await, 401),
        ("nothing", "x".to_owned(), 401),
    ] {
        let tasks = match what {
            // An agent sees the tasks that it opened; a client without tasks sees none.
            "an agent's own" => 200,
            "an admin's" => 403,
            _ => want,
        };
        for (path, want) in [("/v1/tasks", tasks), ("/v1/grants", want)] {
            let (status, body) = call_api(&server, &token, Method::GET, path, None).await;
            assert_eq!(status, want, "{what} {path}: {body}");
        }
    }
    // The token works for no other endpoint.
    let form = server.exchange_form(&good);
    assert_eq!(server.post_as_planner("/oauth2/token", &form).await.0, 400);
    assert_eq!(call_api(&server, &good, Method::GET, "/v1/admin/tasks", None).await.0, 401);
    // A blocked requester is rejected here too.
    let out = json!({"kind": "requester", "issuer": IDP, "subject": "alice", "verb": "block", "reason": "gone"});
    server.revoke(out).await;
    assert_eq!(call_api(&server, &good, Method::GET, "/v1/tasks", None).await.0, 401);
    assert_eq!(
        call_api(&server, &portal_token(&server, json!({"sub": "bob"})), Method::GET, "/v1/tasks", None).await.0,
        200
    );
    server.stop().await;
}

async fn requester_manages_own_tasks(server: Server) {
    let (alice, bob) = (portal_token(&server, json!({})), portal_token(&server, json!({"sub": "bob"})));
    let (status, body) = call_api(&server, &alice, Method::POST, "/v1/grants", Some(own_grant(&READ_TOOLS))).await;
    assert_eq!(status, 201, "{body}");
    let token = server.task_token().await;
    let task = decode_claims(&token)["txn"].as_str().unwrap().to_owned();
    let path = format!("/v1/tasks/{task}");
    let (_, list) = call_api(&server, &alice, Method::GET, "/v1/tasks?agent=planner", None).await;
    assert_eq!(list["items"].as_array().unwrap().len(), 1, "{list}");
    assert_eq!(call_api(&server, &bob, Method::GET, "/v1/tasks", None).await.1["items"], json!([]));
    assert_eq!(call_api(&server, &alice, Method::GET, "/v1/tasks?subject=bob", None).await.0, 400);
    assert_eq!(call_api(&server, &alice, Method::GET, &path, None).await.1["purpose"], "the quarterly report");
    let act = async |who: &str, act: &str| {
        let body = json!({"reason": "let me see first"});
        call_api(&server, who, Method::POST, &format!("{path}/{act}"), Some(body)).await.0.as_u16()
    };
    // The task of another requester gives the same answer as a missing one.
    assert_eq!(call_api(&server, &bob, Method::GET, &path, None).await.0, 404);
    for word in ["suspend", "resume", "complete", "fail", "revoke"] {
        assert_eq!(act(&bob, word).await, 404, "{word}");
    }
    assert!(server.is_active(&token).await);
    assert_eq!(act(&alice, "suspend").await, 200);
    assert!(!server.is_active(&token).await);
    let planner = server.api_token("planner", "errand:tasks").await;
    assert_eq!(act(&planner, "resume").await, 409, "an agent can't resume what the requester suspended");
    assert_eq!(act(&planner, "revoke").await, 401, "an agent can't revoke a task");
    assert_eq!(act(&alice, "resume").await, 200);
    assert!(server.is_active(&token).await);
    // She may resume what her agent suspended, but not what an admin suspended.
    assert_eq!(act(&planner, "suspend").await, 200);
    assert_eq!(act(&alice, "resume").await, 200);
    let admin = server.api_token("ops", "errand:admin").await;
    let hold = json!({"reason": "looking into it"});
    let suspend = format!("/tasks/{task}/suspend");
    assert_eq!(server.admin_with(&admin, Method::POST, &suspend, Some(hold)).await.0, 200);
    assert_eq!(act(&alice, "resume").await, 409);
    assert_eq!(act(&alice, "revoke").await, 200);
    assert!(!server.is_active(&token).await);
    let (_, ended) = call_api(&server, &alice, Method::GET, &path, None).await;
    assert_eq!(ended["state"], "revoked");
    assert_eq!(ended["last_transition"]["by"], format!("requester:{IDP} alice"));
    let (_, trail) = server.admin_with(&admin, Method::GET, &format!("/tasks/{task}/trail"), None).await;
    let texts = trail["steps"].as_array().unwrap().iter().map(|s| s["text"].as_str().unwrap().to_owned());
    let texts = texts.collect::<Vec<_>>().join("\n");
    assert!(texts.contains(&format!("requester:{IDP} alice revoked the task")), "{texts}");
    server.stop().await;
}

async fn repeated_requester_request_is_idempotent(server: Server) {
    let alice = portal_token(&server, json!({}));
    assert_eq!(call_api(&server, &alice, Method::POST, "/v1/grants", Some(own_grant(&READ_TOOLS))).await.0, 201);
    let token = server.task_token().await;
    let path = format!("/v1/tasks/{}", decode_claims(&token)["txn"].as_str().unwrap());
    let act = async |act: &str, key: &str| {
        let request = server.post(&format!("{path}/{act}")).bearer_auth(&alice).header("idempotency-key", key);
        let request = request.header("prefer", "wait=5").json(&json!({"reason": "let me see first"}));
        let response = request.send().await.unwrap();
        assert_eq!(response.headers()["preference-applied"], "wait=5");
        read_response(response).await
    };
    let (status, first) = act("suspend", "hold").await;
    assert_eq!((status.as_u16(), &first["replicas_pending"]), (200, &json!(0)), "{first}");
    assert_eq!(act("resume", "go on").await.0, 200);
    let (status, again) = act("suspend", "hold").await;
    assert_eq!(
        (status.as_u16(), &again["seq"], &again["last_transition"]),
        (200, &first["seq"], &first["last_transition"]),
        "{again}"
    );
    assert!(server.is_active(&token).await, "the task was suspended and resumed once");
    let (status, last) = act("revoke", "enough").await;
    assert_eq!((status.as_u16(), &last["state"]), (200, &json!("revoked")), "{last}");
    let (status, again) = act("revoke", "enough").await;
    assert_eq!((status.as_u16(), &again["seq"]), (200, &last["seq"]), "{again}");
    assert!(!server.is_active(&token).await);
    server.stop().await;
}

async fn requester_creates_and_withdraws_grants(server: Server) {
    let (alice, bob) = (portal_token(&server, json!({})), portal_token(&server, json!({"sub": "bob"})));
    let form = server.exchange_form(&server.user_token(json!({})));
    assert_eq!(server.post_as_planner("/oauth2/token", &form).await.1["error"], "interaction_required");
    // Only Bob manages Bob's grant.
    assert_eq!(call_api(&server, &bob, Method::POST, "/v1/grants", Some(own_grant(&READ_TOOLS))).await.0, 201);
    assert_eq!(server.post_as_planner("/oauth2/token", &form).await.1["error"], "interaction_required");
    let (status, grant) = call_api(&server, &alice, Method::POST, "/v1/grants", Some(own_grant(&READ_TOOLS))).await;
    assert_eq!(status, 201, "{grant}");
    assert_eq!(grant["by"], format!("requester:{IDP} alice"));
    let token = server.issue_token("planner", &form).await;
    let path = format!("/v1/grants/{}", grant["id"].as_str().unwrap());
    assert_eq!(call_api(&server, &bob, Method::DELETE, &path, None).await.0, 404);
    assert!(server.is_active(&token).await);
    let (_, list) = call_api(&server, &alice, Method::GET, "/v1/grants", None).await;
    assert_eq!(list["items"], json!([grant]));
    assert_eq!(call_api(&server, &alice, Method::DELETE, &path, None).await.0, 204);
    assert!(!server.is_active(&token).await);
    assert_eq!(call_api(&server, &alice, Method::DELETE, &path, None).await.0, 404);
    // A requester must name the authority, and grants for themselves only.
    let mut blank = own_grant(&READ_TOOLS);
    blank.as_object_mut().unwrap().remove("authorization_details");
    assert_eq!(call_api(&server, &alice, Method::POST, "/v1/grants", Some(blank)).await.0, 400);
    let mut for_bob = own_grant(&READ_TOOLS);
    for_bob["subject"] = json!("bob");
    assert_eq!(call_api(&server, &alice, Method::POST, "/v1/grants", Some(for_bob)).await.0, 400);
    let (_, trail) = server.admin(Method::GET, "/audit?event=grant.change&outcome=done", None).await;
    let by = trail["items"].as_array().unwrap().iter().map(|row| &row["record"]["by"]).collect::<Vec<_>>();
    let (hers, his) = (json!(format!("requester:{IDP} alice")), json!(format!("requester:{IDP} bob")));
    assert_eq!(by, [&hers, &hers, &his], "{trail}");
    server.stop().await;
}

/// An agent can't consent to its own actions, with any user token that it holds.
async fn agent_cannot_grant_itself_consent(server: Server) {
    let user = server.user_token(json!({}));
    let alice = portal_token(&server, json!({}));
    assert_eq!(call_api(&server, &alice, Method::POST, "/v1/grants", Some(own_grant(&READ_TOOLS))).await.0, 201);
    let access = server.issue_token("planner", &server.exchange_form(&user)).await;
    let hand_over = server.issue_token("planner", &server.delegation_form(&access, "reader")).await;
    let api = server.api_token("planner", "errand:tasks").await;
    for (what, token) in [("user", user), ("access", access), ("hand-over", hand_over), ("API", api)] {
        let (status, body) = call_api(&server, &token, Method::POST, "/v1/grants", Some(own_grant(&READ_TOOLS))).await;
        assert_eq!(status, 401, "{what}: {body}");
    }
    // The registry rejects an agent that is a portal, and a portal audience that agents' tokens
    // have.
    let (_, planner) = server.admin(Method::GET, "/agents/planner", None).await;
    let mut twin = planner["body"].clone();
    (twin["id"], twin["may_delegate_to"]) = (json!("twin"), json!([]));
    for (name, want) in [("portal", 422), (API, 422), ("twin-client", 201)] {
        twin["known_as"] = json!({IDP: [name]});
        let (status, body) = server.admin(Method::PUT, "/agents/twin", Some(twin.clone())).await;
        assert_eq!(status, want, "{name}: {body}");
    }
    let issuer = |audiences: Value, portals: Value| {
        json!({"issuer": "https://second.example.com", "keys": {"inline": server.idp.jwks()}, "audiences": ["https://a.example"],
            "algorithms": ["ES256"], "token_types": ["access_token"], "subject_prefix": "second:",
            "api_audiences": audiences, "portal_clients": portals})
    };
    for (body, want) in [
        (issuer(json!(["https://a.example"]), json!(["portal"])), 422),
        (issuer(json!(["https://b.example"]), json!([])), 422),
        (issuer(json!([]), json!(["portal"])), 422),
        (issuer(json!([""]), json!(["portal"])), 422),
        // An ID token of the portal has the portal's client id as its `aud`.
        (issuer(json!(["portal"]), json!(["portal"])), 422),
        (issuer(json!(["https://b.example", "portal"]), json!(["other", "portal"])), 422),
        (issuer(json!(["https://b.example"]), json!(["portal"])), 201),
    ] {
        let (status, answer) =
            server.admin(Method::PUT, "/issuers/https%3A%2F%2Fsecond.example.com", Some(body.clone())).await;
        assert_eq!(status, want, "{body}: {answer}");
    }
    server.stop().await;
}

mod without_a_portal {
    use super::*;

    on_both_stores!(self_service_is_rejected_without_a_portal);

    async fn self_service_is_rejected_without_a_portal(server: Server) {
        for token in [portal_token(&server, json!({})), server.user_token(json!({}))] {
            for path in ["/v1/tasks", "/v1/grants"] {
                assert_eq!(call_api(&server, &token, Method::GET, path, None).await.0, 401, "{path}");
            }
        }
        server.stop().await;
    }
}
