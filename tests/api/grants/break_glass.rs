//! Break-glass: an emergency grant replaces the requester's grant and nothing else, every use is
//! visible, and another admin than its author reviews it.

use std::sync::Arc;

use errand::domain::registry::{RegistryObject, policy::BreakGlassRule};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::{
    evaluation::{EVALUATION, call},
    grants::consent::{details, expiry_in},
    server::{FILES, IDP, Server, decode_claims, form_with_changes, read_response, wait_until},
    support::TestStore,
    tasks::requester_self_service::{call_api, portal_token},
};

/// Runs each test on both stores, at a server whose resource `files` demands consent.
macro_rules! consent_tests {
    ($($name:ident),* $(,)?) => {
        mod sqlite {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $name() {
                super::$name(crate::tasks::requester_self_service::with_portal(crate::support::TestStore::sqlite().await).await).await;
            })*
        }
        mod postgres {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $name() {
                super::$name(crate::tasks::requester_self_service::with_portal(crate::support::TestStore::postgres().await).await).await;
            })*
        }
    };
}

consent_tests!(
    break_glass_replaces_consent_only,
    requester_grant_takes_precedence,
    every_use_is_audited,
    token_is_active_only_with_a_record,
    withdrawal_ends_tokens_based_on_break_glass,
    review_requires_another_admin,
    concurrent_reviews_have_one_winner,
    opted_out_resource_rejects_break_glass,
    invalid_break_glass_request_is_rejected,
);

const READ_TOOLS: [&str; 2] = ["list_files", "read_file"];

/// Returns a request for an emergency grant: the planner acts for alice.
fn emergency(tools: &[&str]) -> Value {
    json!({"issuer": IDP, "subject": "alice", "agent": "planner", "authorization_details": details(tools),
        "reason": "the payroll is on fire and alice is on a plane"})
}

async fn create_break_glass(server: &Server, tools: &[&str]) -> Value {
    let (status, body) = server.admin(Method::POST, "/break-glass", Some(emergency(tools))).await;
    assert_eq!(status, 201, "{body}");
    body
}

fn grant_id(glass: &Value) -> &str {
    glass["id"].as_str().unwrap()
}

/// Returns an API token of another admin, whom `ops` creates.
async fn create_admin(server: &Server, name: &str) -> String {
    let body = json!({"id": name, "role": "operator", "authentication": {"method": "client_secret_basic"}});
    assert_eq!(server.admin(Method::PUT, &format!("/admins/{name}"), Some(body)).await.0, 201);
    let (status, made) = server.admin(Method::POST, &format!("/clients/{name}/secret"), None).await;
    assert_eq!(status, 201, "{made}");
    let form = [("grant_type", "client_credentials"), ("scope", "errand:admin errand:audit")];
    let request = server.post("/oauth2/token").basic_auth(name, made["client_secret"].as_str()).form(&form);
    let (status, body) = read_response(request.send().await.unwrap()).await;
    assert_eq!(status, 200, "{body}");
    body["access_token"].as_str().unwrap().to_owned()
}

async fn review(server: &Server, admin: &str, glass: &Value) -> (u16, Value) {
    let path = format!("/break-glass/{}/review", grant_id(glass));
    let (status, body) =
        server.admin_with(admin, Method::POST, &path, Some(json!({"note": "all as it was said"}))).await;
    (status.as_u16(), body)
}

async fn list_grants(server: &Server, query: &str) -> Vec<String> {
    let (status, page) = server.admin(Method::GET, &format!("/break-glass{query}"), None).await;
    assert_eq!(status, 200, "{page}");
    page["items"].as_array().unwrap().iter().map(|glass| grant_id(glass).to_owned()).collect()
}

/// Returns the records of one event, newest first.
async fn audit_records(server: &Server, query: &str) -> Vec<Value> {
    let (_, page) = server.admin(Method::GET, &format!("/audit?{query}"), None).await;
    page["items"].as_array().unwrap().iter().map(|row| row["record"].clone()).collect()
}

async fn break_glass_replaces_consent_only(server: Server) {
    let form = server.exchange_form(&server.user_token(json!({})));
    assert_eq!(server.post_as_planner("/oauth2/token", &form).await.1["error"], "interaction_required");
    let glass = create_break_glass(&server, &["list_files", "read_file", "write_file", "delete_file"]).await;
    assert_eq!((&glass["by"], &glass["break_glass"]), (&json!("admin:ops"), &json!(true)));
    assert_eq!((&glass["withdrawn"], &glass["review"]), (&json!(false), &Value::Null));
    let token = server.issue_token("planner", &form).await;
    let claims = decode_claims(&token);
    assert_eq!((&claims["break_glass"], &claims["grant"]), (&json!(true), &glass["id"]));
    assert_eq!(claims["sub"], "alice", "the requester stays the subject");
    let names =
        claims["authorization_details"].as_array().unwrap().iter().map(|d| &d["identifier"]).collect::<Vec<_>>();
    assert_eq!(names, READ_TOOLS, "the requested authority, not all that the grant covers");
    // If the user token does not name the agent, the emergency grant replaces the recorded
    // grant.
    let unrelated = server.exchange_form(&server.user_token(json!({"client_id": "another-client"})));
    assert_eq!(decode_claims(&server.issue_token("planner", &unrelated).await)["break_glass"], json!(true));
    let write = form_with_changes(&form, &[("scope", "files:write")]);
    for (what, agent, form, error) in [
        // The grant is for alice and the planner.
        (
            "another person",
            "planner",
            server.exchange_form(&server.user_token(json!({"sub": "bob"}))),
            "interaction_required",
        ),
        (
            "another agent",
            "reader",
            server.exchange_form(&server.user_token(json!({"client_id": "reader-client"}))),
            "interaction_required",
        ),
        // Evidence is required as always.
        (
            "named to another",
            "planner",
            server.exchange_form(&server.user_token(json!({"may_act": {"sub": "x"}}))),
            "actor_unauthorized",
        ),
        (
            "over",
            "planner",
            server.exchange_form(&server.user_token(json!({"exp": Server::now() - 600}))),
            "invalid_request",
        ),
        (
            "forged",
            "planner",
            server.exchange_form(&crate::idp::Key::new("idp-1").sign("at+jwt", &server.user_claims())),
            "invalid_request",
        ),
        // Every ceiling applies: the agent's and the requester's.
        (
            "beyond the agent",
            "planner",
            form_with_changes(
                &form,
                &[("scope", "files:delete"), ("subject_token", &server.user_token(json!({"scope": "files:delete"})))],
            ),
            "invalid_scope",
        ),
        (
            "beyond the person",
            "planner",
            form_with_changes(&write, &[("subject_token", &server.user_token(json!({"scope": "files:read"})))]),
            "invalid_scope",
        ),
    ] {
        let (status, body) = server.request_token_as(agent, &form).await;
        assert_eq!((status.as_u16(), &body["error"]), (400, &json!(error)), "{what}: {body}");
    }
    server.stop().await;
}

async fn requester_grant_takes_precedence(server: Server) {
    let form = server.exchange_form(&server.user_token(json!({})));
    let glass = create_break_glass(&server, &READ_TOOLS).await;
    let asked = json!({"issuer": IDP, "subject": "alice", "agent": "planner", "until": expiry_in(60), "authorization_details": details(&READ_TOOLS)});
    let (_, grant) = server.admin(Method::POST, "/grants", Some(asked)).await;
    assert_eq!(grant["break_glass"], json!(false));
    let claims = decode_claims(&server.issue_token("planner", &form).await);
    assert_eq!(
        (&claims["grant"], claims.get("break_glass")),
        (&grant["id"], None),
        "an ordinary grant takes precedence over an emergency grant"
    );
    let (_, record) = server.admin(Method::GET, &format!("/tokens/{}", claims["jti"].as_str().unwrap()), None).await;
    assert_eq!(record["break_glass"], json!(false));
    // A task that rests on the emergency grant continues with this grant only.
    assert_eq!(server.admin(Method::DELETE, &format!("/grants/{}", grant["id"].as_str().unwrap()), None).await.0, 204);
    let claims = decode_claims(&server.issue_token("planner", &form).await);
    assert_eq!(claims["grant"], glass["id"]);
    let join = form_with_changes(&form, &[("purpose", ""), ("task_id", claims["txn"].as_str().unwrap())]);
    assert_eq!(decode_claims(&server.issue_token("planner", &join).await)["break_glass"], json!(true));
    server.stop().await;
}

async fn every_use_is_audited(server: Server) {
    let glass = create_break_glass(&server, &READ_TOOLS).await;
    let token = server.task_token().await;
    let handed = server.issue_token("planner", &server.delegation_form(&token, "reader")).await;
    let child =
        server.issue_token("reader", &form_with_changes(&server.exchange_form(&handed), &[("purpose", "")])).await;
    let txn = server.request_token_as("files", &server.txn_form(&child, crate::server::ACCESS_TOKEN)).await;
    let txn = txn.1["access_token"].as_str().unwrap_or_else(|| panic!("{}", txn.1)).to_owned();
    let mut ids = Vec::new();
    for token in [&txn, &child, &handed, &token] {
        let claims = decode_claims(token);
        assert_eq!((&claims["break_glass"], &claims["grant"]), (&json!(true), &glass["id"]));
        let (_, record) =
            server.admin(Method::GET, &format!("/tokens/{}", claims["jti"].as_str().unwrap()), None).await;
        assert_eq!((&record["break_glass"], &record["grant"]), (&json!(true), &glass["id"]), "{record}");
        ids.push(claims["jti"].clone());
    }
    // Each use has a record of its own in addition to the token's, and all records of the grant
    // share one resource.
    let used = audit_records(&server, "event=break_glass.use").await;
    assert_eq!(used.iter().map(|record| record["token"].clone()).collect::<Vec<_>>(), ids);
    assert_eq!(
        (&used[1]["requester"]["subject"], &used[1]["agents"]),
        (&json!("alice"), &json!(["reader", "planner"]))
    );
    let about = audit_records(&server, &format!("resource=break-glass/{}", grant_id(&glass))).await;
    assert_eq!(about.len(), 5, "one creation and four uses");
    assert_eq!((&about[4]["event"], &about[4]["admin"]), (&json!("break_glass.create"), &json!("admin:ops")));
    assert_eq!(about[4]["reason"], emergency(&[])["reason"]);
    let issued = audit_records(&server, "event=token.issue&outcome=done").await;
    let marked = issued.iter().filter(|record| record["granted"]["break_glass"] == true).count();
    assert_eq!(marked, 4);
    // Every introspection of such a token is recorded, not only the first.
    for _ in 0..3 {
        let answer = server.introspect(&child).await;
        assert_eq!((&answer["active"], &answer["break_glass"]), (&json!(true), &json!(true)), "{answer}");
    }
    wait_until("all introspections are on record", async || {
        let noted = audit_records(&server, "event=token.introspect").await;
        noted.len() == 3 && noted.iter().all(|record| record["granted"]["break_glass"] == true)
    })
    .await;
    let task = decode_claims(&token)["txn"].as_str().unwrap().to_owned();
    let (_, trail) = server.admin(Method::GET, &format!("/tasks/{task}/trail"), None).await;
    assert!(trail["steps"].to_string().contains("break-glass"), "{trail}");
    server.stop().await;
}

/// While no record can be written, the outcome of an introspection is unknown, although the replica
/// could answer from memory. Other tokens are not affected.
async fn token_is_active_only_with_a_record(server: Server) {
    create_break_glass(&server, &READ_TOOLS).await;
    let token = server.task_token().await;
    let ordinary = server.api_token("planner", "errand:tasks").await;
    assert!(server.is_active(&token).await);
    let lock = server.store.lock_writes().await;
    let form = crate::server::form(&[("token", &token)]);
    let (status, body) = server.post_as("files", "/oauth2/introspect", &form).await;
    assert_eq!((status.as_u16(), &body["error"]), (503, &json!("temporarily_unavailable")), "{body}");
    // So is the decision about a call, and a denied call needs no record.
    let (status, body) = server.evaluate_as("files", EVALUATION, &call(&token, "read_file", json!({}))).await;
    assert_eq!((status.as_u16(), &body["decision"]), (503, &Value::Null), "{body}");
    let denied = server.evaluate(&call(&token, "write_file", json!({}))).await;
    assert_eq!(denied["context"]["reason"], "not_permitted");
    assert_eq!(call_api(&server, &ordinary, Method::GET, "/v1/tasks", None).await.0, 200);
    drop(lock);
    wait_until("records are written again", async || {
        server.post_as("files", "/oauth2/introspect", &form).await.0 == 200
    })
    .await;
    // A permitted call is on record when it is answered, although `read_file` only reads.
    let answer = server.evaluate(&call(&token, "read_file", json!({}))).await;
    let records = audit_records(&server, "event=call.evaluate&outcome=done").await;
    assert_eq!(records[0]["requested"]["evaluation"], answer["context"]["evaluation_id"], "{records:?}");
    assert_eq!(records[0]["granted"]["break_glass"], true);
    server.stop().await;
}

async fn withdrawal_ends_tokens_based_on_break_glass(server: Server) {
    let other = server.replica().await;
    let glass = create_break_glass(&server, &READ_TOOLS).await;
    let token = server.task_token().await;
    assert!(other.is_active(&token).await);
    assert_eq!(other.admin(Method::DELETE, &format!("/grants/{}", grant_id(&glass)), None).await.0, 204);
    assert!(!server.is_active(&token).await && !other.is_active(&token).await);
    let form = server.exchange_form(&server.user_token(json!({})));
    assert_eq!(server.post_as_planner("/oauth2/token", &form).await.1["error"], "interaction_required");
    let (_, seen) = server.admin(Method::GET, &format!("/break-glass/{}", grant_id(&glass)), None).await;
    assert_eq!((&seen["withdrawn"], &seen["review"]), (&json!(true), &Value::Null));
    assert_eq!(
        list_grants(&server, "?review=open").await,
        [grant_id(&glass)],
        "a withdrawn grant still needs a review"
    );
    // The requester sees the emergency grant among their grants, and can withdraw it.
    let second = create_break_glass(&server, &READ_TOOLS).await;
    let token = server.task_token().await;
    let (alice, bob) = (portal_token(&server, json!({})), portal_token(&server, json!({"sub": "bob"})));
    let (_, own) = call_api(&server, &alice, Method::GET, "/v1/grants", None).await;
    assert_eq!((&own["items"][0]["id"], &own["items"][0]["break_glass"]), (&second["id"], &json!(true)), "{own}");
    let path = format!("/v1/grants/{}", grant_id(&second));
    assert_eq!(call_api(&server, &bob, Method::DELETE, &path, None).await.0, 404);
    assert!(server.is_active(&token).await);
    assert_eq!(call_api(&server, &alice, Method::DELETE, &path, None).await.0, 204);
    assert!(!server.is_active(&token).await && !other.is_active(&token).await);
    other.stop().await;
    server.stop().await;
}

async fn review_requires_another_admin(server: Server) {
    let (ops, boss) = (server.api_token("ops", "errand:admin").await, create_admin(&server, "boss").await);
    let post = async |token: &str, path: &str, key: &str, body: &Value| {
        let request = server.post(&format!("/v1/admin{path}")).bearer_auth(token).header("idempotency-key", key);
        let (status, body) = read_response(request.json(body).send().await.unwrap()).await;
        (status.as_u16(), body)
    };
    let (status, glass) = post(&ops, "/break-glass", "k", &emergency(&READ_TOOLS)).await;
    assert_eq!(status, 201, "{glass}");
    assert_eq!(post(&ops, "/break-glass", "k", &emergency(&READ_TOOLS)).await, (201, glass.clone()));
    let mut more = emergency(&READ_TOOLS);
    more["reason"] = json!("something else");
    assert_eq!(post(&ops, "/break-glass", "k", &more).await.0, 422);
    more["lifetime"] = json!(60);
    let (_, short) = post(&ops, "/break-glass", "l", &more).await;
    assert_eq!(list_grants(&server, "?review=open").await.len(), 2);
    assert_eq!(list_grants(&server, "?review=open&limit=1").await, [grant_id(&short)], "the newest first");
    assert_eq!(review(&server, &boss, &glass).await.0, 409, "the grant is still active");
    assert_eq!(server.admin(Method::DELETE, &format!("/grants/{}", grant_id(&glass)), None).await.0, 204);
    let (status, body) = review(&server, &ops, &glass).await;
    assert_eq!(
        (status, &body["type"]),
        (409, &json!("urn:errand:problem:wrong_state")),
        "an admin may not review their own break-glass grant: {body}"
    );
    let auditor = server.api_token("audit", "errand:audit").await;
    assert_eq!(review(&server, &auditor, &glass).await.0, 403);
    assert_eq!(list_grants(&server, "?review=done").await, Vec::<String>::new());
    let path = format!("/break-glass/{}/review", grant_id(&glass));
    let note = json!({"note": "all as it was said"});
    let (status, done) = post(&boss, &path, "r", &note).await;
    assert_eq!(
        (status, &done["review"]["by"], &done["review"]["note"]),
        (200, &json!("admin:boss"), &note["note"]),
        "{done}"
    );
    assert_eq!(post(&boss, &path, "r", &note).await, (200, done.clone()), "a repeated request succeeds");
    assert_eq!(post(&boss, &path, "r", &json!({"note": "no"})).await.0, 422);
    assert_eq!(review(&server, &boss, &glass).await.0, 409, "once");
    assert_eq!(list_grants(&server, "?review=done").await, [grant_id(&glass)]);
    assert_eq!(list_grants(&server, "?review=open").await, [grant_id(&short)]);
    assert_eq!(list_grants(&server, "").await, [grant_id(&short), grant_id(&glass)]);
    let (_, read) = server.admin_with(&auditor, Method::GET, &format!("/break-glass/{}", grant_id(&glass)), None).await;
    assert_eq!(read, done);
    let reviews = audit_records(&server, "event=break_glass.review&outcome=done").await;
    assert_eq!((reviews.len(), &reviews[0]["admin"]), (1, &json!("admin:boss")));
    server.stop().await;
}

/// Two admins review at two replicas concurrently.
async fn concurrent_reviews_have_one_winner(server: Server) {
    let other = Arc::new(server.replica().await);
    let admins = [create_admin(&server, "boss").await, create_admin(&server, "chief").await];
    let server = Arc::new(server);
    for round in 0..8 {
        let glass = create_break_glass(&server, &READ_TOOLS).await;
        assert_eq!(server.admin(Method::DELETE, &format!("/grants/{}", grant_id(&glass)), None).await.0, 204);
        let mut both = JoinSet::new();
        for (at, admin) in [&server, &other].into_iter().zip(&admins) {
            let (at, admin, glass) = (Arc::clone(at), admin.clone(), glass.clone());
            both.spawn(async move { review(&at, &admin, &glass).await });
        }
        let mut said = both.join_all().await;
        said.sort_by_key(|(status, _)| *status);
        assert_eq!((said[0].0, said[1].0), (200, 409), "round {round}: {said:?}");
        let (_, read) = server.admin(Method::GET, &format!("/break-glass/{}", grant_id(&glass)), None).await;
        assert_eq!(read, said[0].1, "the admin whose review was accepted is recorded");
    }
    assert_eq!(audit_records(&server, "event=break_glass.review&outcome=done").await.len(), 8);
}

async fn opted_out_resource_rejects_break_glass(server: Server) {
    create_break_glass(&server, &READ_TOOLS).await;
    let token = server.task_token().await;
    assert!(server.is_active(&token).await);
    let form = server.exchange_form(&server.user_token(json!({})));
    let other = server
        .replica_with(|config| {
            for object in &mut config.objects {
                if let RegistryObject::Resource(resource) = object
                    && resource.uri.as_str() == FILES
                {
                    resource.break_glass = BreakGlassRule::Refuse;
                }
            }
        })
        .await;
    for at in [&server, &other] {
        assert!(!at.is_active(&token).await, "existing tokens are not accepted either");
        let (status, body) = at.post_as_planner("/oauth2/token", &form).await;
        assert_eq!((status.as_u16(), &body["error"]), (400, &json!("interaction_required")), "{body}");
        assert_eq!(at.request_token_as("planner", &at.delegation_form(&token, "reader")).await.0, 400);
        let (status, body) = at.admin(Method::POST, "/break-glass", Some(emergency(&READ_TOOLS))).await;
        assert_eq!(status, 422, "{body}");
    }
    // The requester's own grants still work.
    let asked = json!({"issuer": IDP, "subject": "alice", "agent": "planner", "until": expiry_in(60), "authorization_details": details(&READ_TOOLS)});
    assert_eq!(server.admin(Method::POST, "/grants", Some(asked)).await.0, 201);
    assert!(server.is_active(&server.task_token().await).await);
    other.stop().await;
    server.stop().await;
}

async fn invalid_break_glass_request_is_rejected(server: Server) {
    let ops = server.api_token("ops", "errand:admin errand:audit").await;
    let good = emergency(&READ_TOOLS);
    let one = |name: &str, value: Value| {
        let mut body = good.clone();
        body[name] = value;
        body
    };
    let without = |name: &str| {
        let mut body = good.clone();
        body.as_object_mut().unwrap().remove(name);
        body
    };
    for (what, body, want) in [
        ("no reason", without("reason"), 400),
        ("an empty reason", one("reason", json!("")), 400),
        ("a novel", one("reason", json!("x".repeat(5000))), 400),
        ("no subject", without("subject"), 400),
        ("no issuer", without("issuer"), 400),
        ("no agent", without("agent"), 400),
        ("nothing", without("authorization_details"), 400),
        ("everything", one("authorization_details", Value::Null), 400),
        ("an empty list", one("authorization_details", json!([])), 400),
        ("a text", one("authorization_details", json!("read_file")), 400),
        ("no time", one("lifetime", json!(0)), 400),
        ("too long", one("lifetime", json!(901)), 400),
        ("forever", one("lifetime", json!(99_999_999_999_u64)), 400),
        ("back in time", one("lifetime", json!(-1)), 400),
        ("a part of a second", one("lifetime", json!(1.5)), 400),
        ("a word", one("lifetime", json!("900")), 400),
        ("a member more", one("until", json!(expiry_in(600))), 400),
        ("a review of its own", one("review", json!({"by": "admin:boss"})), 400),
        ("an unknown agent", one("agent", json!("unknown-agent")), 404),
        ("a resource as agent", one("agent", json!("files")), 404),
        ("an unknown tool", one("authorization_details", details(&["format_disk"])), 422),
    ] {
        let (status, answer) = server.admin_with(&ops, Method::POST, "/break-glass", Some(body)).await;
        assert_eq!(status, want, "{what}: {answer}");
    }
    let unknown = "01970000-0000-7000-8000-00000000abcd";
    for id in ["x", unknown, "%00"] {
        assert_eq!(server.admin_with(&ops, Method::GET, &format!("/break-glass/{id}"), None).await.0, 404, "{id}");
        let path = format!("/break-glass/{id}/review");
        let (status, body) = server.admin_with(&ops, Method::POST, &path, Some(json!({"note": "x"}))).await;
        assert_eq!(status, 404, "{id}: {body}");
    }
    // A requester's grant is not an emergency grant and needs no review.
    let asked = json!({"issuer": IDP, "subject": "alice", "agent": "planner", "until": expiry_in(60), "authorization_details": details(&READ_TOOLS)});
    let (_, grant) = server.admin_with(&ops, Method::POST, "/grants", Some(asked)).await;
    assert_eq!(server.admin_with(&ops, Method::GET, &format!("/break-glass/{}", grant_id(&grant)), None).await.0, 404);
    for query in ["review=maybe", "review=", "review=open&review=done", "agent=planner", "after=x", "limit=0"] {
        let (status, _) = server.admin_with(&ops, Method::GET, &format!("/break-glass?{query}"), None).await;
        assert_eq!(status, 400, "{query}");
    }
    for (who, token, want) in [
        ("an auditor", server.api_token("audit", "errand:audit").await, 403),
        ("an agent", server.api_token("planner", "errand:tasks").await, 403),
        ("a person", portal_token(&server, json!({})), 401),
        ("a user token", server.user_token(json!({})), 401),
    ] {
        let (status, body) = server.admin_with(&token, Method::POST, "/break-glass", Some(good.clone())).await;
        assert_eq!(status, want, "{who}: {body}");
    }
    assert_eq!(list_grants(&server, "").await, Vec::<String>::new());
    server.stop().await;
}

mod capped {
    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn lifetime_is_limited_by_configuration() {
        let server = Server::start_with(TestStore::sqlite().await, "[break_glass]\nmax_lifetime = 120").await;
        let before = Server::now();
        let (_, glass) = server.admin(Method::POST, "/break-glass", Some(emergency(&READ_TOOLS))).await;
        let last = |text: &Value| {
            let text = text.as_str().unwrap();
            time::OffsetDateTime::parse(text, &time::format_description::well_known::Rfc3339).unwrap().unix_timestamp()
        };
        assert_eq!(last(&glass["until"]) - last(&glass["at"]), 120);
        assert!(last(&glass["at"]) >= before);
        let mut long = emergency(&READ_TOOLS);
        long["lifetime"] = json!(121);
        assert_eq!(server.admin(Method::POST, "/break-glass", Some(long)).await.0, 400);
        // No token outlives the grant.
        let unrelated = server.exchange_form(&server.user_token(json!({"client_id": "another-client"})));
        let claims = decode_claims(&server.issue_token("planner", &unrelated).await);
        assert_eq!(claims["break_glass"], json!(true));
        assert!(claims["exp"].as_i64().unwrap() <= last(&glass["until"]));
        server.stop().await;
    }
}
