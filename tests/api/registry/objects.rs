//! The registry over REST: permissions, consistency, and the effect of a change at every replica at
//! once.

use reqwest::Method;
use serde_json::{Value, json};

use crate::{
    server::{IDP, Server, decode_claims, form, form_with_changes, read_response, with_changes},
    transport::injection::error_code,
};

on_both_stores!(
    object_is_created_read_and_removed,
    file_objects_cannot_be_changed,
    inconsistent_object_is_rejected,
    registry_change_is_visible_on_other_replica,
    secret_creation_is_idempotent,
    new_credentials_end_old_api_tokens,
    admin_access_depends_on_role,
    grants_are_created_and_withdrawn,
    concurrent_admin_changes_do_not_conflict,
    repeated_request_is_idempotent
);

fn guest() -> Value {
    json!({"id": "guest", "authentication": {"method": "client_secret_basic"}, "known_as": {(IDP): ["guest-client"]},
        "access": [{"resource": "files", "scopes": ["files:read"], "tools": []}]})
}

fn vault() -> Value {
    json!({"id": "vault", "uri": "https://vault.example.com", "authentication": {"method": "client_secret_basic"},
        "tools": [{"name": "open", "scope": "vault:read", "effect": "read", "risk": "low"}]})
}

fn second_idp(server: &Server) -> Value {
    json!({"issuer": "https://second.example", "keys": {"inline": server.idp.jwks()}, "audiences": [server.issuer],
        "algorithms": ["ES256"], "token_types": ["access_token"], "subject_prefix": "second:"})
}

const SECOND: &str = "/issuers/https%3A%2F%2Fsecond.example";

async fn object_is_created_read_and_removed(server: Server) {
    let admin = json!({"id": "night", "role": "auditor", "authentication": {"method": "client_secret_basic"}});
    for (list, path, body) in [
        ("/agents", "/agents/guest", guest()),
        ("/resources", "/resources/vault", vault()),
        ("/issuers", SECOND, second_idp(&server)),
        ("/admins", "/admins/night", admin),
    ] {
        assert_eq!(server.admin(Method::GET, path, None).await.0, 404, "{path}");
        assert_eq!(server.admin(Method::DELETE, path, None).await.0, 404, "{path}");
        let (status, put) = server.admin(Method::PUT, path, Some(body.clone())).await;
        assert_eq!(status, 201, "{path} {put}");
        assert_eq!(put["owner"], "api");
        assert_eq!(put["body"], with_changes(put["body"].clone(), body.clone()), "{path}");
        assert_eq!(server.admin(Method::PUT, path, Some(body)).await.0, 200, "{path}: again");
        assert_eq!(server.admin(Method::GET, path, None).await.1, put);
        let (_, all) = server.admin(Method::GET, list, None).await;
        assert!(all["items"].as_array().unwrap().contains(&put), "{all}");
        assert_eq!(server.admin(Method::DELETE, path, None).await.0, 204, "{path}");
        assert_eq!(server.admin(Method::GET, path, None).await.0, 404, "{path}");
    }
    server.stop().await;
}

async fn file_objects_cannot_be_changed(server: Server) {
    for path in [
        "/agents/planner",
        "/agents/reader",
        "/resources/files",
        "/admins/ops",
        "/issuers/https%3A%2F%2Flogin.example.com",
    ] {
        let (status, view) = server.admin(Method::GET, path, None).await;
        assert_eq!((status.as_u16(), &view["owner"]), (200, &json!("file")));
        for (method, body) in [(Method::DELETE, None), (Method::PUT, Some(view["body"].clone()))] {
            let (status, answer) = server.admin(method, path, body).await;
            assert_eq!(status, 409, "{path} {answer}");
            assert!(answer["detail"].as_str().unwrap().contains("configuration file"), "{answer}");
        }
        assert_eq!(server.admin(Method::GET, path, None).await.1, view);
    }
    server.stop().await;
}

async fn inconsistent_object_is_rejected(server: Server) {
    let with = |base: Value, changes: Value| with_changes(base, changes);
    assert_eq!(server.admin(Method::PUT, "/resources/vault", Some(vault())).await.0, 201);
    let us = format!("/issuers/{}", server.issuer.replace(':', "%3A").replace('/', "%2F"));
    for (path, body, text) in [
        ("/agents/guest", with(guest(), json!({"access": [{"resource": "nowhere", "scopes": ["x"]}]})), "access"),
        (
            "/agents/guest",
            with(guest(), json!({"access": [{"resource": "files", "scopes": ["files:none"]}]})),
            "access",
        ),
        ("/agents/guest", with(guest(), json!({"access": [{"resource": "files"}]})), "access"),
        ("/agents/guest", with(guest(), json!({"may_delegate_to": ["unknown-agent"]})), "may_delegate_to"),
        ("/agents/files", with(guest(), json!({"id": "files"})), "id"),
        ("/agents/errand-bootstrap", with(guest(), json!({"id": "errand-bootstrap"})), "id"),
        (
            "/admins/errand",
            json!({"id": "errand", "role": "auditor", "authentication": {"method": "client_secret_basic"}}),
            "id",
        ),
        ("/resources/Errand-x", with(vault(), json!({"id": "Errand-x", "uri": "https://x.example"})), "id"),
        ("/resources/us", with(vault(), json!({"id": "us", "uri": server.issuer})), "uri"),
        ("/resources/us", with(vault(), json!({"id": "us", "uri": format!("{}/", server.issuer)})), "uri"),
        ("/resources/other", with(vault(), json!({"id": "other"})), "uri"),
        ("/resources/other", with(vault(), json!({"id": "other", "uri": crate::server::FILES})), "uri"),
        (SECOND, with(second_idp(&server), json!({"subject_prefix": null})), "subject_prefix"),
        (SECOND, with(second_idp(&server), json!({"audiences": []})), "audiences"),
        (&us, with(second_idp(&server), json!({"issuer": server.issuer, "subject_prefix": "us:"})), "issuer"),
    ] {
        let (status, answer) = server.admin(Method::PUT, path, Some(body.clone())).await;
        assert_eq!(status, 422, "{path} {body} {answer}");
        let detail = answer["detail"].as_str().unwrap();
        assert!(detail.contains(text) && detail.contains('`'), "key and reason: {detail}");
    }
    // An object that others need can't be removed.
    assert_eq!(
        server
            .admin(
                Method::PUT,
                "/agents/guest",
                Some(with(guest(), json!({"access": [{"resource": "vault", "scopes": ["vault:read"]}]})))
            )
            .await
            .0,
        201
    );
    let (status, answer) = server.admin(Method::DELETE, "/resources/vault", None).await;
    assert_eq!(status, 422, "{answer}");
    let (status, answer) = server.admin(Method::PUT, "/agents/other", Some(guest())).await;
    assert_eq!(status, 400, "the name in the path is another: {answer}");
    server.stop().await;
}

async fn registry_change_is_visible_on_other_replica(server: Server) {
    let other = server.replica().await;
    let admin = server.api_token("ops", "errand:admin errand:audit").await;
    let user = || server.user_token(json!({"client_id": "guest-client"}));
    let mut held: Option<String> = None;
    for round in 0..5 {
        let (here, there) = if round % 2 == 0 { (&server, &other) } else { (&other, &server) };
        let put = async |disabled: bool| {
            let body = with_changes(guest(), json!({"disabled": disabled}));
            let (status, body) = here.admin_with(&admin, Method::PUT, "/agents/guest", Some(body)).await;
            assert!(status.is_success(), "{body}");
        };
        put(false).await;
        let (status, made) = here.admin_with(&admin, Method::POST, "/clients/guest/secret", None).await;
        assert_eq!(status, 201);
        let secret = made["client_secret"].as_str().unwrap();
        let try_there = async || {
            let request = there.post("/oauth2/token").basic_auth("guest", Some(secret));
            read_response(request.form(&there.exchange_form(&user())).send().await.unwrap()).await
        };
        let (status, body) = try_there().await;
        assert_eq!(status, 200, "round {round} {body}");
        let token = body["access_token"].as_str().unwrap().to_owned();
        assert!(there.is_active(&token).await && here.is_active(&token).await);
        put(true).await;
        assert_eq!(try_there().await.0, 401, "round {round}");
        assert!(!there.is_active(&token).await && !here.is_active(&token).await, "round {round}");
        if let Some(before) = &held {
            assert!(!there.is_active(before).await);
        }
        held = Some(token);
    }
    // An agent's access shrinks at once, and the old name of a tool is unknown.
    other.stop().await;
    server.stop().await;
}

async fn secret_creation_is_idempotent(server: Server) {
    assert_eq!(server.admin(Method::PUT, "/agents/guest", Some(guest())).await.0, 201);
    let grant = form(&[("grant_type", "client_credentials")]);
    let try_with = async |secret: &str| {
        let request = server.post("/oauth2/token").basic_auth("guest", Some(secret)).form(&grant);
        request.send().await.unwrap().status().as_u16()
    };
    assert_eq!(try_with("").await, 401, "no authentication without a secret");
    let mut secrets = Vec::new();
    for _ in 0..3 {
        let (status, made) = server.admin(Method::POST, "/clients/guest/secret", None).await;
        assert_eq!((status.as_u16(), &made["client_id"]), (201, &json!("guest")));
        secrets.push(made["client_secret"].as_str().unwrap().to_owned());
        for (n, secret) in secrets.iter().enumerate() {
            assert_eq!(try_with(secret).await, if n + 1 == secrets.len() { 200 } else { 401 });
        }
    }
    assert!(secrets.iter().all(|secret| secret.len() == 43), "256 bits");
    for path in ["/agents/guest", "/agents", "/audit?limit=1000"] {
        let (_, body) = server.admin(Method::GET, path, None).await;
        assert!(!secrets.iter().any(|secret| body.to_string().contains(secret)), "{path}: never shown again");
    }
    for (client, want) in [("planner", 422), ("unknown-client", 404)] {
        let (status, body) = server.admin(Method::POST, &format!("/clients/{client}/secret"), None).await;
        assert_eq!(status, want, "{body}");
    }
    // The secret is removed with the client.
    assert_eq!(server.admin(Method::DELETE, "/agents/guest", None).await.0, 204);
    assert_eq!(try_with(&secrets[2]).await, 401);
    assert_eq!(server.admin(Method::PUT, "/agents/guest", Some(guest())).await.0, 201);
    assert_eq!(try_with(&secrets[2]).await, 401, "the old secret is not valid for the new object");
    server.stop().await;
}

async fn new_credentials_end_old_api_tokens(server: Server) {
    let other = server.replica().await;
    let vault = vault();
    assert_eq!(server.admin(Method::PUT, "/resources/vault", Some(vault.clone())).await.0, 201);
    assert_eq!(server.admin(Method::PUT, "/agents/guest", Some(guest())).await.0, 201);
    let make = async |client: &str| {
        let (status, made) = server.admin(Method::POST, &format!("/clients/{client}/secret"), None).await;
        assert_eq!(status, 201, "{made}");
        made["client_secret"].as_str().unwrap().to_owned()
    };
    let send = async |at: &Server, client: &str, secret: &str, pairs: &[(&str, &str)]| {
        let request = at.post("/oauth2/token").basic_auth(client, Some(secret)).form(&form(pairs));
        let (status, body) = read_response(request.send().await.unwrap()).await;
        assert_eq!(status, 200, "{body}");
        body["access_token"].as_str().unwrap().to_owned()
    };
    let api = [("grant_type", "client_credentials")];
    let is_good = async |at: &Server, token: &str| {
        let request = at.request(Method::GET, "/v1/tasks/01970000-0000-7000-8000-00000000abcd").bearer_auth(token);
        request.send().await.unwrap().status() != 401
    };
    let (guest_secret, vault_secret) = (make("guest").await, make("vault").await);
    let task = server.exchange_form(&server.user_token(json!({"client_id": "guest-client"})));
    let task = task.iter().map(|(name, value)| (&**name, &**value)).collect::<Vec<_>>();
    let task = send(&server, "guest", &guest_secret, &task).await;
    let (of_guest, of_vault) =
        (send(&server, "guest", &guest_secret, &api).await, send(&server, "vault", &vault_secret, &api).await);
    // Another client's secret, and an object that is put unchanged, end no token.
    make("vault").await;
    assert_eq!(server.admin(Method::PUT, "/agents/guest", Some(guest())).await.0, 200);
    for at in [&other, &server] {
        assert!(is_good(at, &of_guest).await && !is_good(at, &of_vault).await);
    }
    let secret = make("guest").await;
    let fresh = send(&other, "guest", &secret, &api).await;
    for at in [&other, &server] {
        assert!(!is_good(at, &of_guest).await && is_good(at, &fresh).await);
        assert!(at.is_active(&task).await, "task tokens stay active");
    }
    let keys = json!({"method": "private_key_jwt", "jwks": server.planner.jwks()});
    let with_keys = with_changes(guest(), json!({"authentication": keys}));
    assert_eq!(server.admin(Method::PUT, "/agents/guest", Some(with_keys)).await.0, 200);
    for at in [&other, &server] {
        assert!(!is_good(at, &fresh).await && at.is_active(&task).await);
    }
    let (_, list) = server.admin(Method::GET, "/revocations", None).await;
    let entries = list["items"].as_array().unwrap().iter();
    assert_eq!(entries.filter(|entry| entry["kind"] == "credentials").count(), 3, "{list}");
    other.stop().await;
    server.stop().await;
}

async fn admin_access_depends_on_role(server: Server) {
    let auditor = server.api_token("audit", "errand:audit").await;
    let operator = server.api_token("ops", "errand:admin").await;
    let resource = server.api_token("files", "errand:introspect").await;
    let grant = json!({"issuer": IDP, "subject": "alice", "agent": "reader", "until": "2100-01-01T00:00:00Z"});
    let changes = [
        (Method::PUT, "/agents/guest", Some(guest())),
        (Method::DELETE, "/agents/guest", None),
        (Method::PUT, "/resources/vault", Some(vault())),
        (
            Method::PUT,
            "/admins/me",
            Some(json!({"id": "me", "role": "operator", "authentication": {"method": "client_secret_basic"}})),
        ),
        (Method::POST, "/clients/reader/secret", None),
        (Method::POST, "/grants", Some(grant)),
        (Method::DELETE, "/grants?issuer=https://login.example.com&subject=alice&agent=reader", None),
        (Method::POST, "/keys/rotate", None),
        (Method::POST, "/revocations", Some(json!({"kind": "agent", "id": "reader", "reason": "x"}))),
    ];
    let before = server.admin(Method::GET, "/agents", None).await.1;
    for (method, path, body) in changes {
        for (name, token, want) in
            [("auditor", &auditor, "insufficient_scope"), ("resource", &resource, "insufficient_scope")]
        {
            let (status, answer) = server.admin_with(token, method.clone(), path, body.clone()).await;
            assert_eq!(
                (status.as_u16(), error_code(&answer.to_string()).as_str()),
                (403, want),
                "{name} {method} {path}"
            );
        }
        let (status, answer) = server.admin_with("x.y.z", method.clone(), path, body.clone()).await;
        assert_eq!(
            (status.as_u16(), error_code(&answer.to_string()).as_str()),
            (401, "invalid_token"),
            "{method} {path}"
        );
    }
    assert_eq!(server.admin(Method::GET, "/agents", None).await.1, before);
    for path in [
        "/agents",
        "/resources",
        "/issuers",
        "/admins",
        "/keys",
        "/grants",
        "/tokens",
        "/tasks",
        "/revocations",
        "/audit",
    ] {
        for (token, want) in [(&auditor, 200), (&operator, 200), (&resource, 403)] {
            assert_eq!(server.admin_with(token, Method::GET, path, None).await.0, want, "{path}");
        }
    }
    // A removed role has no effect at once, whatever scope the token has.
    let night = |role: &str| json!({"id": "night", "role": role, "authentication": {"method": "client_secret_basic"}});
    server.admin(Method::PUT, "/admins/night", Some(night("operator"))).await;
    let (_, made) = server.admin(Method::POST, "/clients/night/secret", None).await;
    let request = server.post("/oauth2/token").basic_auth("night", made["client_secret"].as_str());
    let (_, body) =
        read_response(request.form(&form(&[("grant_type", "client_credentials")])).send().await.unwrap()).await;
    let token = body["access_token"].as_str().unwrap();
    assert_eq!(server.admin_with(token, Method::PUT, "/agents/guest", Some(guest())).await.0, 201);
    server.admin(Method::PUT, "/admins/night", Some(night("auditor"))).await;
    assert_eq!(server.admin_with(token, Method::PUT, "/agents/guest", Some(guest())).await.0, 403);
    assert_eq!(server.admin_with(token, Method::GET, "/agents", None).await.0, 200);
    // The old token does not get the role back.
    server.admin(Method::PUT, "/admins/night", Some(night("operator"))).await;
    assert_eq!(server.admin_with(token, Method::GET, "/agents", None).await.0, 401);
    server.admin(Method::DELETE, "/admins/night", None).await;
    assert_eq!(server.admin_with(token, Method::GET, "/agents", None).await.0, 401);
    server.stop().await;
}

async fn grants_are_created_and_withdrawn(server: Server) {
    let subject = || server.user_token(json!({"client_id": "another-client", "scope": "files:read"}));
    let try_it = async || server.post_as("stranger", "/oauth2/token", &server.exchange_form(&subject())).await;
    assert_eq!(try_it().await.1["error"], "actor_unauthorized");
    let grant = |until: &str| json!({"issuer": IDP, "subject": "alice", "agent": "stranger", "until": until});
    for (body, want) in [
        (grant("2001-01-01T00:00:00Z"), 400),
        (grant("tomorrow"), 400),
        (with_changes(grant("2100-01-01T00:00:00Z"), json!({"agent": "unknown-agent"})), 404),
        (grant("2100-01-01T00:00:00Z"), 201),
    ] {
        let (status, answer) = server.admin(Method::POST, "/grants", Some(body)).await;
        assert_eq!(status, want, "{answer}");
    }
    let (status, body) = try_it().await;
    assert_eq!(status, 200, "{body}");
    assert_eq!(decode_claims(body["access_token"].as_str().unwrap())["act"]["sub"], "stranger");
    let path = "/grants?issuer=https://login.example.com&subject=alice&agent=stranger";
    assert_eq!(server.admin(Method::DELETE, path, None).await.0, 204);
    assert_eq!(server.admin(Method::DELETE, path, None).await.0, 404);
    assert_eq!(try_it().await.1["error"], "actor_unauthorized");
    let form = form_with_changes(&server.exchange_form(&subject()), &[("scope", "files:read")]);
    assert_eq!(server.post_as("stranger", "/oauth2/token", &form).await.0, 400);
    server.stop().await;
}

/// Concurrent changes at two replicas: each builds on the other's result, or is refused as
/// contended.
async fn concurrent_admin_changes_do_not_conflict(server: Server) {
    let other = server.replica().await;
    let token = server.api_token("ops", "errand:admin").await;
    let tries = (0..12).map(|n| {
        let at = if n % 2 == 0 { &server } else { &other };
        let body = json!({"id": format!("guest-{n}"), "authentication": {"method": "client_secret_basic"}});
        let request = at.request(Method::PUT, &format!("/v1/admin/agents/guest-{n}")).bearer_auth(&token);
        (n, tokio::spawn(request.json(&body).send()))
    });
    let mut made = Vec::new();
    for (n, answer) in tries.collect::<Vec<_>>() {
        match read_response(answer.await.unwrap().unwrap()).await {
            (status, _) if status == 201 => made.push(n),
            (status, body) => assert_eq!(status, 409, "{body}"),
        }
    }
    assert!(!made.is_empty());
    for at in [&server, &other] {
        let (_, list) = at.admin_with(&token, Method::GET, "/agents", None).await;
        let ids = list["items"].as_array().unwrap().iter().map(|item| item["body"]["id"].as_str().unwrap());
        let there = ids.filter_map(|id| id.strip_prefix("guest-")?.parse::<i32>().ok()).collect::<Vec<_>>();
        assert!(made.iter().all(|n| there.contains(n)) && there.len() == made.len(), "{made:?} {there:?}");
    }
    other.stop().await;
    server.stop().await;
}

async fn repeated_request_is_idempotent(server: Server) {
    let api = server.api_token("ops", "errand:admin").await;
    let send = async |path: &str, key: &str, body: Value| {
        let request = server.post(&format!("/v1/admin{path}")).bearer_auth(&api).header("idempotency-key", key);
        let request = if body.is_null() { request } else { request.json(&body) };
        let (status, body) = crate::server::read_response(request.send().await.unwrap()).await;
        (status.as_u16(), body)
    };
    let grant = |until: &str| json!({"issuer": "https://login.example.com", "subject": "alice", "agent": "reader", "until": until});
    let first = send("/grants", "k-grant", grant("2100-01-01T00:00:00Z")).await;
    assert_eq!(first.0, 201, "{first:?}");
    tokio::time::sleep(std::time::Duration::from_millis(1100)).await;
    assert_eq!(
        send("/grants", "k-grant", grant("2100-01-01T00:00:00Z")).await,
        first,
        "the response has the time of the first request"
    );
    let (status, body) = send("/grants", "k-grant", grant("2101-01-01T00:00:00Z")).await;
    assert_eq!((status, &body["type"]), (422, &json!("urn:errand:problem:idempotency_key_reused")), "{body}");

    let first = send("/keys/rotate", "k-keys", Value::Null).await;
    assert_eq!((first.0, first.1["items"].as_array().map(Vec::len)), (200, Some(1)), "{first:?}");
    assert_eq!(send("/keys/rotate", "k-keys", Value::Null).await, first);
    assert_eq!(send("/keys/rotate", "k-grant", Value::Null).await.0, 422);

    let guest = json!({"id": "guest", "authentication": {"method": "client_secret_basic"}});
    let (status, body) = server.admin(reqwest::Method::PUT, "/agents/guest", Some(guest)).await;
    assert_eq!(status, 201, "{body}");
    assert_eq!(send("/clients/guest/secret", "k-secret", Value::Null).await.0, 201);
    let (status, body) = send("/clients/guest/secret", "k-secret", Value::Null).await;
    assert_eq!((status, &body["type"]), (409, &json!("urn:errand:problem:secret_already_shown")), "{body}");
    assert_eq!(
        server.audit_records("&event=secret.change").await.len(),
        1,
        "a repeated request creates no other secret"
    );
    assert_eq!(send("/clients/files/secret", "k-secret", Value::Null).await.0, 422);
    server.stop().await;
}
