//! Records of refused requests: replays, failed authentication, sampling, malformed requests, admin
//! refusals.

use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};

use crate::server::{
    Form, IDP, JWT, Server, decode_claims, form, form_with_changes, read_response, secret, wait_until, with_assertion,
    with_changes,
};

on_both_stores!(
    replayed_assertion_is_audited,
    replayed_actor_token_is_audited,
    refusal_flood_is_counted,
    introspection_flood_of_revoked_token_is_counted,
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

/// How the records of a flood of 60 equal requests are checked.
struct Flood<'a> {
    name: &'a str,
    /// Sends the request with this number.
    send: Box<dyn Fn(usize) -> RequestBuilder + 'a>,
    status: u16,
    event: &'a str,
    outcome: &'a str,
    reason: &'a str,
    /// How many requests are recorded one by one.
    recorded: usize,
}

impl<'a> Flood<'a> {
    /// A flood of refusals, of which a sample is recorded.
    fn refused(
        name: &'a str,
        send: impl Fn(usize) -> RequestBuilder + 'a,
        status: u16,
        event: &'a str,
        reason: &'a str,
    ) -> Self {
        Self { name, send: Box::new(send), status, event, outcome: "refused", reason, recorded: 20 }
    }

    /// Sends 60 requests, and checks that some are recorded and the others are counted.
    async fn run(&self, server: &Server) {
        let Self { name, event, outcome, recorded, .. } = self;
        let find = async || {
            let path = format!("/audit?event={event}&outcome={outcome}&limit=1000");
            let (_, trail) = server.admin(Method::GET, &path, None).await;
            let items = trail["items"].as_array().unwrap().iter();
            let records = items.map(|item| item["record"].clone());
            records.filter(|record| record["reason"].as_str().unwrap_or_default().contains(self.reason)).collect()
        };
        let before: Vec<Value> = find().await;
        for batch in 0..3 {
            let requests = (0..20).map(|n| (self.send)(20 * batch + n).send());
            for response in futures_util::future::join_all(requests).await {
                assert_eq!(response.unwrap().status(), self.status, "{name}");
            }
        }
        wait_until(name, async || find().await.len() == before.len() + recorded).await;
        let cx = server.cx();
        let later = errand::app::RequestContext {
            now: cx.now.saturating_add(errand::domain::time::Lifetime::minutes(2)),
            ..cx
        };
        server.application.service.collect_garbage(&later).await.unwrap();
        wait_until(name, async || find().await.len() == before.len() + recorded + 1).await;
        let records: Vec<Value> = find().await;
        let is_count = |record: &&Value| record["requested"]["count"] == 60 - *recorded as u64;
        assert_eq!(records.iter().filter(is_count).count(), 1, "{name}: {records:?}");
    }
}

/// A caller can cause each of these refusals at will, and most of them without credentials. The
/// trail counts them, and does not grow with them.
async fn refusal_flood_is_counted(server: Server) {
    let grant = form(&[("grant_type", "client_credentials")]);
    let used = server.assertion(json!({}));
    assert_eq!(server.post_with_assertion("/oauth2/token", &grant, &used).await.0, 200);
    let user = server.user_token(json!({}));
    let token = server.task_token().await;
    let excess = form_with_changes(&server.exchange_form(&user), &[("scope", "files:delete")]);
    let api_token = server.api_token("planner", "errand:tasks").await;
    let as_reader = |form: &Form| server.post("/oauth2/token").basic_auth("reader", Some(secret("reader"))).form(form);
    let as_planner =
        |form: &Form| server.post("/oauth2/token").form(&with_assertion(form, &server.assertion(json!({}))));
    let introspect = |token: &str| {
        let form = form(&[("token", token)]);
        server.post("/oauth2/introspect").basic_auth("files", Some(secret("files"))).form(&form)
    };
    let foreign = server.task_token().await;
    let complete = format!("/v1/tasks/{}/complete", decode_claims(&token)["txn"].as_str().unwrap());
    let complete = || server.request(Method::POST, &complete).bearer_auth(&api_token).json(&json!({}));
    assert_eq!(complete().send().await.unwrap().status(), 200);
    let floods = [
        Flood::refused(
            "unknown clients",
            |n| server.post("/oauth2/token").basic_auth(format!("unknown-{n}"), Some("wrong")).form(&grant),
            401,
            "client.authenticate",
            "unknown or disabled client",
        ),
        Flood::refused(
            "bearer tokens of strangers",
            |n| {
                let token = server.user_token(json!({"iss": format!("https://{n}.example"), "jti": n}));
                server.request(Method::GET, "/v1/grants").bearer_auth(token)
            },
            401,
            "client.authenticate",
            "not a live API token",
        ),
        Flood::refused(
            "a captured assertion",
            |_| server.post("/oauth2/token").form(&with_assertion(&grant, &used)),
            401,
            "client.authenticate",
            "already used",
        ),
        Flood::refused(
            "an agent's token at the admin API",
            |_| server.request(Method::GET, "/v1/admin/keys").bearer_auth(&api_token),
            403,
            "client.authenticate",
            "the API token lacks",
        ),
        Flood::refused("exchanges that are denied", |_| as_planner(&excess), 400, "token.issue", "exceeds"),
        Flood::refused(
            "malformed requests",
            |_| as_reader(&form(&[("grant_type", "password")])),
            400,
            "token.issue",
            "`grant_type` is not supported",
        ),
        Flood::refused(
            "scopes that are not allowed",
            |_| as_reader(&form_with_changes(&grant, &[("scope", "errand:admin")])),
            400,
            "token.issue",
            "the client may not request this scope",
        ),
        Flood::refused(
            "revocations of another client's token",
            |_| {
                let form = form(&[("token", &foreign)]);
                server.post("/oauth2/revoke").basic_auth("stranger", Some(secret("stranger"))).form(&form)
            },
            400,
            "revocation",
            "neither issued to this client",
        ),
        Flood::refused("transitions of a completed task", |_| complete(), 409, "task.transition", ""),
        Flood {
            name: "introspections of made-up tokens",
            send: Box::new(|n| introspect(&format!("{token}{n}"))),
            status: 200,
            event: "token.introspect",
            outcome: "inactive",
            reason: "not a token of this server",
            recorded: 0,
        },
    ];
    for flood in floods {
        flood.run(&server).await;
    }
    server.stop().await;
}

/// The introspections of one revoked token: the first one is recorded, then a sample.
async fn introspection_flood_of_revoked_token_is_counted(server: Server) {
    let token = server.task_token().await;
    server.revoke(json!({"kind": "token", "id": decode_claims(&token)["jti"], "reason": "test"})).await;
    let form = form(&[("token", &token)]);
    let flood = Flood {
        name: "introspections of a revoked token",
        send: Box::new(|_| server.post("/oauth2/introspect").basic_auth("files", Some(secret("files"))).form(&form)),
        status: 200,
        event: "token.introspect",
        outcome: "inactive",
        reason: "",
        recorded: 21,
    };
    flood.run(&server).await;
    drop(flood);
    server.stop().await;
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
