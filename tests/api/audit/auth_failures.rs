//! Records of refused requests: replays, failed authentication, sampling, malformed requests, admin
//! refusals.

use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};

use crate::server::{IDP, JWT, Server, form, form_with_changes, read_response, secret, with_assertion, with_changes};

on_both_stores!(
    replayed_assertion_is_audited,
    replayed_actor_token_is_audited,
    client_authentication_flood_is_sampled,
    bearer_token_flood_is_sampled,
    malformed_request_is_audited,
    wrong_credentials_are_audited,
    admin_refusals_are_audited
);

impl Server {
    /// Sends a request that is refused, and returns its record.
    async fn find_refusal(&self, id: &str, request: RequestBuilder, want: u16) -> Value {
        let (status, body) = read_response(request.header("x-request-id", id).send().await.unwrap()).await;
        assert_eq!(status, want, "{id}: {body}");
        let record = self.audit_record_of(id).await;
        assert_eq!(record["outcome"], "refused", "{id}: {record}");
        record
    }
}

async fn replayed_assertion_is_audited(server: Server) {
    let token = server.task_token().await;
    let user = server.user_token(json!({}));
    let grant = form(&[("grant_type", "client_credentials")]);
    let assertion = server.assertion(json!({}));
    assert_eq!(server.post_with_assertion("/oauth2/token", &grant, &assertion).await.0, 200);
    for (id, path, form) in [
        ("replay-exchange", "/oauth2/token", server.exchange_form(&user)),
        (
            "replay-refused",
            "/oauth2/token",
            form_with_changes(&server.exchange_form(&user), &[("scope", "files:delete")]),
        ),
        ("replay-grammar", "/oauth2/token", form(&[("grant_type", "password")])),
        ("replay-api", "/oauth2/token", grant.clone()),
        ("replay-api-scope", "/oauth2/token", form_with_changes(&grant, &[("scope", "errand:admin")])),
        ("replay-introspect", "/oauth2/introspect", form(&[("token", &token)])),
        ("replay-revoke", "/oauth2/revoke", form(&[("token", &token)])),
    ] {
        let record = server.find_refusal(id, server.post(path).form(&with_assertion(&form, &assertion)), 401).await;
        assert_eq!((&record["event"], &record["client"]), (&json!("client.authenticate"), &json!("planner")), "{id}");
        assert!(record["reason"].as_str().unwrap().contains("already used"), "{record}");
    }
    assert!(server.is_active(&token).await);
    server.stop().await;
}

/// The client is authenticated, and its actor token was used before. The client's own assertion is
/// redeemed.
async fn replayed_actor_token_is_audited(server: Server) {
    let used = server.assertion(json!({}));
    let grant = form(&[("grant_type", "client_credentials")]);
    assert_eq!(server.post_with_assertion("/oauth2/token", &grant, &used).await.0, 200);
    let with_actor = |actor: &str, scope: &str| {
        let form = server.exchange_form(&server.user_token(json!({})));
        form_with_changes(&form, &[("actor_token", actor), ("actor_token_type", JWT), ("scope", scope)])
    };
    let (fresh, other, both) = (server.assertion(json!({})), server.assertion(json!({})), server.assertion(json!({})));
    let send = |form: &crate::server::Form, assertion: &str| {
        server.post("/oauth2/token").form(&with_assertion(form, assertion))
    };
    for (id, request, want, event) in [
        ("actor-replay", send(&with_actor(&used, "files:read"), &fresh), 400, "token.issue"),
        // The replay is reported even if the exchange would be refused for another reason.
        ("actor-replay-refused", send(&with_actor(&used, "files:delete"), &other), 400, "token.issue"),
        // One assertion can't be both the client's credentials and the actor token.
        ("both", send(&with_actor(&both, "files:read"), &both), 400, "token.issue"),
        // The refused requests redeemed their assertions.
        ("fresh-replay", send(&with_actor(&used, "files:read"), &fresh), 401, "client.authenticate"),
        (
            "other-replay",
            send(&with_actor(&server.assertion(json!({})), "files:read"), &other),
            401,
            "client.authenticate",
        ),
        ("both-replay", send(&grant, &both), 401, "client.authenticate"),
    ] {
        let record = server.find_refusal(id, request, want).await;
        assert_eq!((&record["event"], &record["client"]), (&json!(event), &json!("planner")), "{id}");
        let reason = record["reason"].as_str().unwrap();
        assert!(reason.contains("already used"), "{id}: {record}");
        assert_eq!(reason.starts_with("actor token"), want == 400, "{id}: {record}");
    }
    server.stop().await;
}

/// Failed client authentication needs no credentials. The trail counts the failures, and does not
/// grow with them.
async fn client_authentication_flood_is_sampled(server: Server) {
    let grant = form(&[("grant_type", "client_credentials")]);
    let send = |n| server.post("/oauth2/token").basic_auth(format!("unknown-{n}"), Some("wrong")).form(&grant);
    assert_counted(&server, send, "unknown").await;
    server.stop().await;
}

/// Failed requester authentication is sampled in the same way.
async fn bearer_token_flood_is_sampled(server: Server) {
    let send = |n: usize| {
        let token = server.user_token(json!({"iss": format!("https://{n}.example"), "jti": n}));
        server.request(Method::GET, "/v1/grants").bearer_auth(token)
    };
    assert_counted(&server, send, "not a live API token").await;
    server.stop().await;
}

/// Sends 60 requests that are refused, and checks for 20 records and the count of the others.
async fn assert_counted(server: &Server, send: impl Fn(usize) -> RequestBuilder, reason: &str) {
    for _ in 0..3 {
        let requests = (0..20).map(|n| send(n).send());
        let responses = futures_util::future::join_all(requests).await;
        assert!(responses.into_iter().all(|response| response.unwrap().status() == 401));
    }
    let all = async || {
        let path = "/audit?event=client.authenticate&outcome=refused&limit=1000";
        let (_, trail) = server.admin(Method::GET, path, None).await;
        let items = trail["items"].as_array().unwrap().clone();
        items.into_iter().map(|item| item["chained"]["record"].clone()).collect::<Vec<_>>()
    };
    crate::server::wait_until("the failures are recorded", async || all().await.len() == 20).await;
    let cx = server.cx();
    let later =
        errand::app::RequestContext { now: cx.now.saturating_add(errand::domain::time::Lifetime::minutes(2)), ..cx };
    server.application.service.collect_garbage(&later).await.unwrap();
    crate::server::wait_until("the count is recorded", async || all().await.len() == 21).await;
    let records = all().await;
    let counted =
        records.iter().find(|record| record["requested"]["count"] == 40).unwrap_or_else(|| panic!("{records:?}"));
    assert!(counted["reason"].as_str().unwrap().contains(reason), "{counted}");
}

async fn malformed_request_is_audited(server: Server) {
    let exchange = server.exchange_form(&server.user_token(json!({})));
    let grant = form(&[("grant_type", "client_credentials"), ("scope", "\"")]);
    for (id, path, form, event) in [
        ("no-subject", "/oauth2/token", form_with_changes(&exchange, &[("subject_token", "")]), "token.issue"),
        ("no-grant", "/oauth2/token", form_with_changes(&exchange, &[("grant_type", "")]), "token.issue"),
        ("other-grant", "/oauth2/token", form_with_changes(&exchange, &[("grant_type", "password")]), "token.issue"),
        ("no-scope", "/oauth2/token", grant, "token.issue"),
        ("no-token", "/oauth2/revoke", form(&[("x", "y")]), "revocation"),
    ] {
        let request = server.post(path).basic_auth("reader", Some(secret("reader"))).form(&form);
        let record = server.find_refusal(id, request, 400).await;
        assert_eq!((&record["event"], &record["client"]), (&json!(event), &json!("reader")), "{id}");
        assert!(record["reason"].is_string(), "{record}");
    }
    server.stop().await;
}

async fn wrong_credentials_are_audited(server: Server) {
    let grant = form(&[("grant_type", "client_credentials")]);
    let basic = |client: &str| server.post("/oauth2/token").basic_auth(client, Some("wrong")).form(&grant);
    let signed = |assertion: &str| server.post("/oauth2/token").form(&with_assertion(&grant, assertion));
    let with = |claims: Value| with_changes(server.assertion_claims(), claims);
    let forged = server.idp.sign("client-authentication+jwt", &server.assertion_claims());
    let late = server.assertion(json!({"exp": 1}));
    let unknown = server.planner.sign("JWT", &with(json!({"iss": "unregistered", "sub": "unregistered"})));
    for (id, request, client) in [
        ("wrong-secret", basic("reader"), json!("reader")),
        ("wrong-method", basic("planner"), json!("planner")),
        ("wrong-key", signed(&forged), json!("planner")),
        ("wrong-time", signed(&late), json!("planner")),
        ("unknown-basic", basic("unregistered"), Value::Null),
        ("unknown-signed", signed(&unknown), Value::Null),
        ("nothing", signed("a.b.c"), Value::Null),
    ] {
        let record = server.find_refusal(id, request, 401).await;
        assert_eq!((&record["event"], &record["client"]), (&json!("client.authenticate"), &client), "{id} {record}");
        assert!(!record.to_string().contains("unregistered"), "the claimed name is not repeated: {record}");
    }
    server.stop().await;
}

async fn admin_refusals_are_audited(server: Server) {
    let auditor = server.api_token("audit", "errand:audit").await;
    let operator = server.api_token("ops", "errand:admin").await;
    let call = |token: &str, method: &Method, path: &str, body: &Value| {
        let request = server.request(method.clone(), &format!("/v1/admin{path}")).bearer_auth(token);
        if body.is_null() { request } else { request.json(body) }
    };
    let guest = json!({"id": "guest", "authentication": {"method": "client_secret_basic"}});
    let inconsistent = with_changes(guest.clone(), json!({"may_delegate_to": ["unknown"]}));
    let reserved = json!({"id": "errand", "authentication": {"method": "client_secret_basic"}});
    let planner = with_changes(guest.clone(), json!({"id": "planner"}));
    let grant = json!({"issuer": IDP, "subject": "alice", "agent": "unknown", "until": "2100-01-01T00:00:00Z"});
    let grants = format!("/grants?issuer={IDP}&subject=alice&agent=unknown");
    let unknown_task = "01970000-0000-7000-8000-00000000abcd";
    let end = json!({"kind": "task", "id": unknown_task, "reason": "x"});
    for (id, method, path, body, want, event) in [
        ("put-file", Method::PUT, "/agents/planner", &planner, 409, "registry.change"),
        ("put-inconsistent", Method::PUT, "/agents/guest", &inconsistent, 422, "registry.change"),
        ("put-reserved", Method::PUT, "/agents/errand", &reserved, 422, "registry.change"),
        ("remove-file", Method::DELETE, "/agents/planner", &Value::Null, 409, "registry.change"),
        ("remove-none", Method::DELETE, "/agents/unknown", &Value::Null, 404, "registry.change"),
        ("secret-file", Method::POST, "/clients/reader/secret", &Value::Null, 409, "secret.change"),
        ("secret-key", Method::POST, "/clients/planner/secret", &Value::Null, 422, "secret.change"),
        ("grant-none", Method::POST, "/grants", &grant, 404, "grant.change"),
        ("withdraw-none", Method::DELETE, &grants, &Value::Null, 404, "grant.change"),
        ("revoke-none", Method::POST, "/revocations", &end, 404, "revocation"),
    ] {
        let record = server.find_refusal(id, call(&operator, &method, path, body), want).await;
        assert_eq!((&record["event"], &record["admin"]), (&json!(event), &json!("admin:ops")), "{id} {record}");
        assert!(record["reason"].is_string(), "{id} {record}");
        let object = [&record["requested"], &record["resource"]];
        assert!(object.iter().any(|member| !member.is_null()) && record["granted"].is_null(), "{id} {record}");

        let record = server.find_refusal(&format!("{id}-audit"), call(&auditor, &method, path, body), 403).await;
        assert_eq!((&record["event"], &record["client"]), (&json!("client.authenticate"), &json!("audit")), "{record}");
        let path = path.split('?').next().unwrap();
        assert_eq!(record["requested"]["call"], format!("{method} /v1/admin{path}"), "{record}");
    }
    server.stop().await;
}
