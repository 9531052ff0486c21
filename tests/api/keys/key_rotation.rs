//! Signing keys: publication before use, rotation, revocation, and every algorithm.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use josekit::{
    jwk::Jwk,
    jws::{ES256, EdDSA, JwsVerifier, RS256},
};
use reqwest::Method;
use serde_json::{Value, json};

use crate::{
    idp::b64,
    server::{Server, decode_claims, decode_header, form_with_changes, read_response, wait_until},
    support::TestStore,
};

on_both_stores!(
    revoked_key_ends_its_tokens,
    key_revocation_requires_operator,
    rotated_key_signs_after_publication,
    concurrent_rotations_create_one_key,
    resource_algorithm_is_used_for_its_tokens,
    every_algorithm_signs_verifiable_tokens
);

/// Verifies a token with a JWKS as a third party would: by `kid`, with another library. Panics if
/// the signature is invalid.
pub fn verify_signature(jwks: &Value, token: &str) {
    let header = decode_header(token);
    let key =
        jwks["keys"].as_array().unwrap().iter().find(|key| key["kid"] == header["kid"]).expect("the key is published");
    assert_eq!((&key["use"], &key["alg"]), (&json!("sig"), &header["alg"]), "{key}");
    for private in ["d", "p", "q", "k"] {
        assert_eq!(key[private], Value::Null);
    }
    let key = Jwk::from_map(key.as_object().unwrap().clone()).unwrap();
    let verifier: Box<dyn JwsVerifier> = match header["alg"].as_str().unwrap() {
        "ES256" => Box::new(ES256.verifier_from_jwk(&key).unwrap()),
        "EdDSA" => Box::new(EdDSA.verifier_from_jwk(&key).unwrap()),
        "RS256" => Box::new(RS256.verifier_from_jwk(&key).unwrap()),
        other => panic!("{other}"),
    };
    let (input, signature) = token.rsplit_once('.').unwrap();
    let signature = URL_SAFE_NO_PAD.decode(signature).unwrap();
    verifier.verify(input.as_bytes(), &signature).unwrap();
    let other = format!("{}.{}", input.split('.').next().unwrap(), b64("{}"));
    assert!(verifier.verify(other.as_bytes(), &signature).is_err());
}

impl Server {
    pub async fn jwks(&self) -> Value {
        let response = self.request(Method::GET, "/oauth2/jwks").send().await.unwrap();
        assert_eq!(response.headers()["content-type"], "application/jwk-set+json");
        read_response(response).await.1
    }
}

/// Starts a replica that publishes its next key for only two seconds before it signs.
async fn start_with_fast_rotation(server: &Server) -> Server {
    server.replica_with(|config| config.keys.rotation.publish_ahead = errand::domain::time::Lifetime::seconds(2)).await
}

async fn rotated_key_signs_after_publication(server: Server) {
    let fast = start_with_fast_rotation(&server).await;
    let before = server.task_token().await;
    let old = decode_header(&before)["kid"].clone();
    assert_eq!(server.jwks().await["keys"].as_array().unwrap().len(), 1);
    let (status, created) = fast.admin(Method::POST, "/keys/rotate", None).await;
    assert_eq!(status, 200, "{created}");
    let new = created["items"][0]["kid"].clone();
    let (_, list) = server.admin(Method::GET, "/keys", None).await;
    let key = |kid: &Value| list["items"].as_array().unwrap().iter().find(|key| key["kid"] == *kid).unwrap().clone();
    assert_eq!(key(&old)["retires"], key(&new)["activates"], "the new key activates when the old one retires");
    assert_eq!(
        server.jwks().await["keys"].as_array().unwrap().len(),
        2,
        "the other replica publishes it at once, before it signs"
    );

    // The signing key is published at both replicas.
    let after = || async {
        let token = server.task_token().await;
        for at in [&server, &fast] {
            verify_signature(&at.jwks().await, &token);
            verify_signature(&at.jwks().await, &before);
            assert!(at.is_active(&token).await && at.is_active(&before).await);
        }
        decode_header(&token)["kid"] == new
    };
    wait_until("the new key signs", after).await;
    let (_, again) = server.admin(Method::GET, "/keys", None).await;
    for (kid, state) in [(&old, "retired"), (&new, "active")] {
        assert!(again["items"].as_array().unwrap().iter().any(|key| key["kid"] == *kid && key["state"] == state));
    }
    fast.stop().await;
    server.stop().await;
}

/// Revokes a key that leaked.
async fn revoke_key(at: &Server, kid: &Value) -> (u16, Value) {
    let path = format!("/keys/{}/revoke", kid.as_str().unwrap());
    let (status, body) = at.admin(Method::POST, &path, Some(json!({"reason": "it leaked"}))).await;
    (status.as_u16(), body)
}

async fn published_keys(at: &Server) -> Vec<Value> {
    at.jwks().await["keys"].as_array().unwrap().iter().map(|key| key["kid"].clone()).collect()
}

async fn revoked_key_ends_its_tokens(server: Server) {
    let other = server.replica().await;
    let token = server.task_token().await;
    let api = server.api_token("ops", "errand:admin").await;
    let leaked = decode_header(&token)["kid"].clone();
    // Both replicas have the tokens in their caches, with the key that verified them.
    for at in [&other, &server] {
        assert!(at.is_active(&token).await && at.is_active(&token).await);
        assert_eq!(at.admin_with(&api, Method::GET, "/keys", None).await.0, 200);
    }
    let (status, created) = revoke_key(&server, &leaked).await;
    assert_eq!((status, created["items"].as_array().unwrap().len()), (200, 1), "{created}");
    let new = created["items"][0]["kid"].clone();
    for at in [&other, &server] {
        assert_eq!(published_keys(at).await, std::slice::from_ref(&new), "the revoked key is not in the JWKS");
        assert!(!at.is_active(&token).await);
        assert_eq!(at.admin_with(&api, Method::GET, "/keys", None).await.0, 401);
        let (status, body) = at.request_token_as("planner", &at.exchange_form(&token)).await;
        assert_eq!((status.as_u16(), &body["error"]), (400, &json!("invalid_request")), "{body}");
        let fresh = at.task_token().await;
        assert_eq!(decode_header(&fresh)["kid"], new, "the new key signs at once");
        verify_signature(&other.jwks().await, &fresh);
        assert!(server.is_active(&fresh).await && other.is_active(&fresh).await);
    }
    assert_eq!(revoke_key(&other, &leaked).await.0, 404, "the key is revoked already");
    let started = server.replica().await;
    assert_eq!(
        published_keys(&started).await,
        std::slice::from_ref(&new),
        "a replica that starts creates no other key"
    );
    let (_, trail) = server.admin(Method::GET, "/audit?event=key.revoke&outcome=done", None).await;
    let record = &trail["items"][0]["record"];
    assert_eq!((&record["requested"]["key"], &record["reason"]), (&leaked, &json!("it leaked")));
    assert_eq!((&record["admin"], &record["granted"]["keys"][0][1]), (&json!("admin:ops"), &new), "{trail}");

    // During a rotation: revoke the pending key, then the active one.
    let (_, created) = server.admin(Method::POST, "/keys/rotate", None).await;
    let pending = created["items"][0]["kid"].clone();
    let before = server.task_token().await;
    assert_eq!(revoke_key(&other, &pending).await, (200, json!({"items": [], "next": null})));
    let (_, list) = server.admin(Method::GET, "/keys", None).await;
    assert_eq!((list["items"].as_array().unwrap().len(), &list["items"][0]["retires"]), (1, &Value::Null), "{list}");
    assert!(other.is_active(&before).await, "the tokens of the active key stay valid");
    let (_, created) = server.admin(Method::POST, "/keys/rotate", None).await;
    let pending = created["items"][0]["kid"].clone();
    assert_eq!(revoke_key(&other, &new).await.0, 200);
    for at in [&other, &server, &started] {
        assert_eq!(published_keys(at).await, std::slice::from_ref(&pending));
        assert_eq!(decode_header(&at.task_token().await)["kid"], pending, "the pending key becomes active");
        assert!(!at.is_active(&before).await);
    }
    for at in [started, other, server] {
        at.stop().await;
    }
}

async fn key_revocation_requires_operator(server: Server) {
    let kid = decode_header(&server.task_token().await)["kid"].as_str().unwrap().to_owned();
    let auditor = server.api_token("audit", "errand:audit").await;
    let path = format!("/keys/{kid}/revoke");
    let body = || Some(json!({"reason": "it leaked"}));
    assert_eq!(server.admin_with(&auditor, Method::POST, &path, body()).await.0, 403);
    for (path, body, status) in [
        (&*path, None, 415),
        (&path, Some(json!({})), 400),
        (&path, Some(json!({"reason": ""})), 400),
        (&path, Some(json!({"reason": "x", "kid": kid})), 400),
        ("/keys/unknown/revoke", body(), 404),
        ("/keys/%20/revoke", body(), 404),
        ("/keys/%ff/revoke", body(), 404),
    ] {
        assert_eq!(server.admin(Method::POST, path, body.clone()).await.0, status, "{path} {body:?}");
    }
    assert_eq!(published_keys(&server).await, [json!(kid)]);
    // Concurrent and repeated requests: one removal, one new key.
    let other = server.replica().await;
    let api = server.api_token("ops", "errand:admin").await;
    let tries = (0..6).map(|n| {
        let at = if n % 2 == 0 { &server } else { &other };
        let request = at.post(&format!("/v1/admin{path}")).bearer_auth(&api).header("idempotency-key", "leak");
        tokio::spawn(request.json(&json!({"reason": "it leaked"})).send())
    });
    let mut created = Vec::new();
    for answer in tries.collect::<Vec<_>>() {
        let (status, body) = read_response(answer.await.unwrap().unwrap()).await;
        // A later request carries an API token that the removed key signed.
        assert!(status == 200 || status == 401, "{status} {body}");
        created.extend(body["items"].as_array().cloned());
    }
    assert!(!created.is_empty() && created.iter().all(|one| *one == created[0]), "{created:?}");
    assert_eq!(published_keys(&server).await.len(), 1);
    other.stop().await;
    server.stop().await;
}

async fn concurrent_rotations_create_one_key(server: Server) {
    let other = server.replica().await;
    let token = server.api_token("ops", "errand:admin errand:audit").await;
    let rotate = |at: &Server| tokio::spawn(at.post("/v1/admin/keys/rotate").bearer_auth(&token).send());
    let all = (0..8).map(|n| rotate(if n % 2 == 0 { &server } else { &other })).collect::<Vec<_>>();
    let mut created = Vec::new();
    for answer in all {
        let (status, body) = read_response(answer.await.unwrap().unwrap()).await;
        assert_eq!(status, 200, "{body}");
        created.extend(body["items"].as_array().unwrap().clone());
    }
    assert_eq!(created.len(), 1, "{created:?}");
    for at in [&server, &other] {
        assert_eq!(at.jwks().await["keys"].as_array().unwrap().len(), 2);
    }
    let auditor = server.api_token("audit", "errand:audit").await;
    let (status, _) = server.admin_with(&auditor, Method::POST, "/keys/rotate", None).await;
    assert_eq!(status, 403);
    other.stop().await;
    server.stop().await;
}

async fn resource_algorithm_is_used_for_its_tokens(server: Server) {
    let vault = json!({"id": "vault", "uri": "https://vault.example.com", "signing_algorithm": "EdDSA",
        "authentication": {"method": "client_secret_basic"},
        "tools": [{"name": "open", "scope": "vault:read", "effect": "read"}]});
    let guest = json!({"id": "guest", "authentication": {"method": "private_key_jwt", "jwks": server.planner.jwks()},
        "known_as": {(crate::server::IDP): ["guest-client"]}, "access": [{"resource": "vault", "scopes": ["vault:read"]}]});
    let fast = start_with_fast_rotation(&server).await;
    for (path, body) in [("/resources/vault", vault), ("/agents/guest", guest)] {
        let (status, body) = fast.admin(Method::PUT, path, Some(body)).await;
        assert_eq!(status, 201, "{body}");
    }
    let issue = || async {
        let user = server.user_token(json!({"client_id": "guest-client", "scope": "vault:read"}));
        let changes = [("resource", "https://vault.example.com"), ("scope", "vault:read")];
        let form = form_with_changes(&server.exchange_form(&user), &changes);
        let assertion = server.assertion(json!({"iss": "guest", "sub": "guest"}));
        server.post_with_assertion("/oauth2/token", &form, &assertion).await
    };
    let keys = server.jwks().await;
    let is_new = |key: &Value| key["crv"] == "Ed25519";
    assert!(keys["keys"].as_array().unwrap().iter().any(is_new), "the key is published before it signs: {keys}");
    // Until then its tokens are signed with the default algorithm; the signing key is always a
    // published one.
    let signed_with = || async {
        let (status, body) = issue().await;
        assert_eq!(status, 200, "{body}");
        let token = body["access_token"].as_str().unwrap();
        verify_signature(&keys, token);
        decode_header(token)["alg"].clone()
    };
    wait_until("the new key signs", || async { signed_with().await == "EdDSA" }).await;
    assert_eq!(decode_header(&server.task_token().await)["alg"], "ES256", "other resources keep the default algorithm");
    fast.stop().await;
    server.stop().await;
}

async fn every_algorithm_signs_verifiable_tokens(server: Server) {
    // Each algorithm gets a store of its own, of the same kind.
    let is_sqlite = server.store.url().starts_with("sqlite");
    server.stop().await;
    for algorithm in ["ES256", "EdDSA", "RS256"] {
        let store = if is_sqlite { TestStore::sqlite().await } else { TestStore::postgres().await };
        let edit = |text: String| text.replace("[keys]\n", &format!("[keys]\nalgorithm = \"{algorithm}\"\n"));
        let server = Server::start_edited(store, edit).await;
        let token = server.task_token().await;
        assert_eq!(decode_header(&token)["alg"], algorithm);
        verify_signature(&server.jwks().await, &token);
        assert!(server.is_active(&token).await);
        let api = server.api_token("ops", "errand:audit").await;
        verify_signature(&server.jwks().await, &api);
        assert_eq!(server.admin_with(&api, Method::GET, "/keys", None).await.0, 200);
        let hand_over = server.issue_token("planner", &server.delegation_form(&token, "reader")).await;
        let part = server
            .issue_token("reader", &form_with_changes(&server.exchange_form(&hand_over), &[("purpose", "")]))
            .await;
        verify_signature(&server.jwks().await, &part);
        assert!(server.is_active(&part).await);
        assert_eq!(decode_claims(&part)["txn"], decode_claims(&token)["txn"]);
        let metadata = server.request(Method::GET, "/.well-known/oauth-authorization-server").send().await.unwrap();
        let (_, metadata) = read_response(metadata).await;
        assert!(metadata["introspection_signing_alg_values_supported"].as_array().unwrap().contains(&json!(algorithm)));
        server.stop().await;
    }
}
