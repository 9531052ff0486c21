//! The cache of verified tokens: the same response for less work, and never an outdated one.

use std::convert::Infallible;

use bytes::Bytes;
use errand::{
    app::{Credentials, Introspection, RequestContext},
    domain::{
        audit::WriterId,
        keys::KeySchedule,
        secret::Secret,
        time::{Lifetime, Timestamp},
        token::TaskTokenClaims,
    },
    ports::{StateChange, StoredKey, WriteSet},
};
use reqwest::Method;
use serde_json::{Value, json};

use crate::server::{IDP, Server, decode_claims, form, form_with_changes, read_response, secret};

on_both_stores!(
    cached_response_is_reused,
    only_active_tokens_are_cached,
    revocation_takes_effect_on_cached_token,
    suspension_takes_effect_on_cached_token,
    removed_key_ends_cached_tokens,
    cached_answers_match_uncached_answers,
    api_tokens_are_cached,
);

const INACTIVE: &str = r#"{"active":false}"#;

impl Server {
    fn context_after(&self, seconds: u32) -> RequestContext {
        let now = self.application.service.clock().now().saturating_add(Lifetime::seconds(seconds));
        RequestContext::internal("cache".parse().unwrap(), now)
    }

    /// Introspects as a resource, this many seconds from now. Returns the encoded response of an
    /// active token, and whether it was encoded for this call.
    async fn introspect_after(&self, resource: &str, token: &str, seconds: u32) -> (Option<Bytes>, bool) {
        let (service, cx) = (&self.application.service, self.context_after(seconds));
        let credentials = Credentials::Basic { client: resource.into(), secret: Secret::new(secret(resource)) };
        let caller = service.authenticate(credentials, &cx).await.unwrap().redeem(service, &cx).await.unwrap();
        let mut was_encoded = false;
        let encode = |claims: &TaskTokenClaims| {
            was_encoded = true;
            Ok::<_, Infallible>(Bytes::from(claims.jti.to_string()))
        };
        match service.introspect(&caller, token, &cx).await.unwrap() {
            Introspection::Active(active) => (Some(active.encoded(encode).unwrap()), was_encoded),
            Introspection::Inactive => (None, false),
        }
    }

    /// Issues a task token and introspects it, so that it is cached.
    async fn cached_token(&self) -> String {
        let token = self.task_token().await;
        assert!(self.introspect_after("files", &token, 0).await.1, "the first response is encoded");
        let (response, was_encoded) = self.introspect_after("files", &token, 0).await;
        assert!(response.is_some() && !was_encoded, "the second response comes from the cache");
        token
    }

    fn cached_tokens(&self) -> usize {
        self.application.service.token_cache_size().0
    }
}

async fn cached_response_is_reused(server: Server) {
    let token = server.task_token().await;
    let introspect = async |token: &str, accept: &str| {
        let request = server.post("/oauth2/introspect").basic_auth("files", Some(secret("files")));
        let response = request.header("accept", accept).form(&form(&[("token", token)])).send().await.unwrap();
        (response.headers()["content-type"].clone(), response.text().await.unwrap())
    };
    let first = introspect(&token, "application/json").await;
    assert_eq!(first.0, "application/json");
    assert!(first.1.starts_with(r#"{"active":true,"token_type":"Bearer","#), "{}", first.1);
    assert_eq!(server.cached_tokens(), 1);
    for _ in 0..3 {
        assert_eq!(introspect(&token, "*/*").await, first);
    }
    let (_, signed) = introspect(&token, "application/token-introspection+jwt").await;
    assert_eq!(decode_claims(&signed)["token_introspection"], serde_json::from_str::<Value>(&first.1).unwrap());
    // A changed text is another token, even if it shares most of its bytes with the cached one.
    for at in [0, 10, token.len() / 2, token.len() - 1] {
        let mut other = token.clone().into_bytes();
        other[at] = if other[at] == b'A' { b'B' } else { b'A' };
        assert_eq!(introspect(&String::from_utf8(other).unwrap(), "*/*").await.1, INACTIVE, "{at}");
    }
    assert_eq!(introspect(&format!("{token} "), "*/*").await.1, INACTIVE);
    assert_eq!(introspect(&token, "*/*").await, first);
    assert_eq!(server.cached_tokens(), 1);
    server.stop().await;
}

async fn only_active_tokens_are_cached(server: Server) {
    let good = server.task_token().await;
    let txn = server.issue_token("planner", &server.txn_form(&good, crate::server::ACCESS_TOKEN)).await;
    let hand_over = server.issue_token("planner", &server.delegation_form(&good, "reader")).await;
    let api = server.issue_token("planner", &form(&[("grant_type", "client_credentials")])).await;
    let long = "x".repeat(20_000);
    for token in [&txn, &hand_over, &api, &long, &format!("{good}x"), &server.user_token(json!({}))] {
        assert_eq!(server.introspect_after("files", token, 0).await, (None, false));
    }
    assert_eq!(server.introspect_after("notes", &good, 0).await, (None, false), "not for this resource");
    assert_eq!(server.introspect_after("files", &good, 86_400).await, (None, false), "expired by then");
    assert_eq!(server.cached_tokens(), 0);
    assert!(server.introspect_after("files", &good, 0).await.1);
    assert_eq!(server.cached_tokens(), 1);
    assert_eq!(
        server.introspect_after("notes", &good, 0).await,
        (None, false),
        "cached, and still not for this resource"
    );
    // Garbage collection evicts expired tokens.
    server.application.service.collect_garbage(&server.context_after(0)).await.unwrap();
    assert_eq!(server.cached_tokens(), 1);
    server.application.service.collect_garbage(&server.context_after(600)).await.unwrap();
    assert_eq!(server.cached_tokens(), 0);
    server.stop().await;
}

async fn revocation_takes_effect_on_cached_token(server: Server) {
    let other = server.replica().await;
    let token = server.cached_token().await;
    let lifetime =
        u32::try_from(decode_claims(&token)["exp"].as_i64().unwrap() - decode_claims(&token)["iat"].as_i64().unwrap())
            .unwrap();
    assert!(server.introspect_after("files", &token, lifetime - 30).await.0.is_some());
    assert_eq!(server.introspect_after("files", &token, lifetime).await, (None, false), "expired");
    for kind in ["token", "task", "requester", "agent", "resource", "issuer"] {
        let token = server.cached_token().await;
        let claims = decode_claims(&token);
        let mut target = json!({"kind": kind, "reason": "test"});
        match kind {
            "token" => target["id"] = claims["jti"].clone(),
            "task" => target["id"] = claims["txn"].clone(),
            "requester" => {
                target["issuer"] = json!(IDP);
                target["subject"] = claims["sub"].clone();
            }
            "issuer" => target["id"] = json!(IDP),
            "agent" => target["id"] = json!("planner"),
            _ => target["id"] = json!("files"),
        }
        // The revocation is written by the other replica, so this replica must apply it from the
        // log.
        other.revoke(target).await;
        assert_eq!(server.introspect_after("files", &token, 0).await, (None, false), "{kind}");
        assert_eq!(server.introspect(&token).await, json!({"active": false}));
    }
    other.stop().await;
    server.stop().await;
}

async fn suspension_takes_effect_on_cached_token(server: Server) {
    let token = server.cached_token().await;
    let task = decode_claims(&token)["txn"].as_str().unwrap().to_owned();
    let transition = async |action: &str| {
        let (status, body) =
            server.admin(Method::POST, &format!("/tasks/{task}/{action}"), Some(json!({"reason": "x"}))).await;
        assert!(status.is_success(), "{body}");
    };
    for _ in 0..2 {
        transition("suspend").await;
        assert_eq!(server.introspect_after("files", &token, 0).await, (None, false));
        transition("resume").await;
        let (response, was_encoded) = server.introspect_after("files", &token, 0).await;
        assert!(response.is_some() && !was_encoded, "the token stayed in the cache");
    }
    transition("complete").await;
    assert_eq!(server.introspect_after("files", &token, 0).await, (None, false));
    server.stop().await;
}

async fn removed_key_ends_cached_tokens(server: Server) {
    let token = server.cached_token().await;
    let past = Server::now() - 3600;
    let store = server.open_store().await;
    let stored = store.load_keys().await.unwrap();
    let withdraw = |key: StoredKey| {
        let (retires_at, unpublished_at) = (Some(Timestamp::from_unix(past - 1)), Some(Timestamp::from_unix(past)));
        StateChange::PutKey(StoredKey { schedule: KeySchedule { retires_at, unpublished_at, ..key.schedule }, ..key })
    };
    let state_changes = stored.keys.into_iter().map(withdraw).collect();
    let write = WriteSet { state_changes, ..WriteSet::default() };
    store.commit(WriterId(uuid::Uuid::nil()), &[write]).await.unwrap();
    // A replica that starts finds no key to sign with and creates one, and every replica reloads
    // the keys.
    let newcomer = server.replica().await;
    assert_eq!(server.introspect_after("files", &token, 0).await, (None, false));
    assert_eq!(newcomer.introspect_after("files", &token, 0).await, (None, false));
    let next = server.cached_token().await;
    assert!(newcomer.is_active(&next).await);
    newcomer.stop().await;
    server.stop().await;
}

/// After every change, a replica with a cache responds as a replica without one.
async fn cached_answers_match_uncached_answers(server: Server) {
    let uncached = server.replica_with(|config| config.memory.verified_tokens = 0).await;
    let admin = server.api_token("ops", "errand:admin errand:audit").await;
    let call = async |method: Method, path: &str, body: Option<Value>| {
        let (status, body) = server.admin_with(&admin, method, path, body).await;
        assert!(status.is_success(), "{path} {body}");
    };
    let tool = |name: &str, scope: &str| json!({"name": name, "scope": scope, "effect": "read"});
    let uri = "https://vault.example.com";
    let vault = |tools: Value, disabled: bool| {
        json!({"id": "vault", "uri": uri, "disabled": disabled, "tools": tools,
            "authentication": {"method": "client_secret_basic"}})
    };
    let guest = |disabled: bool, access: Value| {
        json!({"id": "guest", "disabled": disabled, "authentication": {"method": "client_secret_basic"},
            "known_as": {(IDP): ["guest-client"]}, "access": access})
    };
    let all = json!([{"resource": "vault", "scopes": ["vault:read"]}]);
    let both = json!([tool("open", "vault:read"), tool("count", "vault:read")]);
    call(Method::PUT, "/resources/vault", Some(vault(both.clone(), false))).await;
    call(Method::PUT, "/agents/guest", Some(guest(false, all.clone()))).await;
    let mut secrets = Vec::new();
    for client in ["guest", "vault"] {
        let (_, made) = server.admin_with(&admin, Method::POST, &format!("/clients/{client}/secret"), None).await;
        secrets.push(made["client_secret"].as_str().unwrap().to_owned());
    }
    let issue = async || {
        let user = server.user_token(json!({"client_id": "guest-client", "scope": "vault:read"}));
        let target = [("resource", uri), ("scope", "vault:read")];
        let request = server.post("/oauth2/token").basic_auth("guest", Some(&secrets[0]));
        let request = request.form(&form_with_changes(&server.exchange_form(&user), &target));
        let (status, body) = read_response(request.send().await.unwrap()).await;
        assert_eq!(status, 200, "{body}");
        body["access_token"].as_str().unwrap().to_owned()
    };
    let introspect = async |at: &Server, token: &str| {
        let request = at.post("/oauth2/introspect").basic_auth("vault", Some(&secrets[1]));
        let response = request.form(&form(&[("token", token)])).send().await.unwrap();
        (response.status().as_u16(), response.text().await.unwrap())
    };
    let mut token = issue().await;
    let put_guest = |disabled, scopes| (Method::PUT, "/agents/guest", Some(guest(disabled, scopes)));
    let put_vault = |tools, disabled| (Method::PUT, "/resources/vault", Some(vault(tools, disabled)));
    // Each change, whether the token is active after it, and whether another token can be issued.
    for ((method, path, body), is_active, is_restored) in [
        (put_guest(true, all.clone()), false, false),
        (put_guest(false, all.clone()), false, true),
        (put_vault(json!([tool("open", "vault:read")]), false), true, false),
        (put_guest(false, json!([])), true, false),
        (put_vault(json!([]), false), false, false),
        (put_vault(both.clone(), false), false, false),
        (put_guest(false, all.clone()), false, true),
        (put_vault(both.clone(), true), false, false),
        (put_vault(both.clone(), false), false, true),
        ((Method::DELETE, "/agents/guest", None), false, false),
        (put_guest(false, all.clone()), false, false),
    ] {
        introspect(&server, &token).await;
        call(method, path, body.clone()).await;
        let (cached, fresh) = (introspect(&server, &token).await, introspect(&uncached, &token).await);
        assert_eq!(cached, fresh, "{path} {body:?}");
        assert_eq!(cached.1.contains(r#""active":true"#), is_active, "{path} {body:?}");
        if is_restored {
            token = issue().await;
        }
    }
    assert_eq!(uncached.cached_tokens(), 0);
    uncached.stop().await;
    server.stop().await;
}

async fn api_tokens_are_cached(server: Server) {
    let good = server.task_token().await;
    let request = form(&[("token", &good)]);
    let introspect_with = async |bearer: &str| {
        let response = server.post("/oauth2/introspect").bearer_auth(bearer).form(&request).send().await.unwrap();
        response.status().as_u16()
    };
    let token = server.api_token("files", "errand:introspect").await;
    let before = server.cached_tokens();
    assert_eq!(
        (introspect_with(&token).await, introspect_with(&token).await, introspect_with(&token).await),
        (200, 200, 200)
    );
    assert_eq!(server.cached_tokens(), before + 2, "the API token and the introspected token");
    assert_eq!(introspect_with(&format!("{token}x")).await, 401);
    let mut other = token.clone().into_bytes();
    let last = other.len() - 2;
    other[last] = if other[last] == b'A' { b'B' } else { b'A' };
    assert_eq!(introspect_with(&String::from_utf8(other).unwrap()).await, 401);
    let expired = server.context_after(3600);
    let bearer = Secret::new(token.clone());
    assert!(server.application.service.authorize(&bearer, &["errand:introspect"], "x", &expired).await.is_err());
    let wrong = server.application.service.authorize(&bearer, &["errand:admin"], "x", &server.context_after(0)).await;
    assert!(wrong.is_err(), "cached, without the required scope");
    server.revoke(json!({"kind": "token", "id": decode_claims(&token)["jti"], "reason": "leaked"})).await;
    assert_eq!(introspect_with(&token).await, 401);

    let token = server.api_token("files", "errand:introspect").await;
    assert_eq!((introspect_with(&token).await, introspect_with(&token).await), (200, 200));
    server.revoke(json!({"kind": "agent", "id": "files", "reason": "secret leaked"})).await;
    assert_eq!(introspect_with(&token).await, 401);
    server.stop().await;
}
