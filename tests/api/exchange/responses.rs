//! Issued tokens and responses: lifetimes, copied and excluded claims, response headers, size
//! limits.

use std::collections::HashSet;

use reqwest::Method;
use serde_json::{Value, json};

use crate::server::{
    ACCESS_TOKEN, NOTES, Server, decode_claims, form, form_with_changes, read_response, secret, with_assertion,
};

on_both_stores!(
    token_lifetime_is_bounded_by_its_sources,
    authentication_context_is_copied,
    subject_token_is_never_echoed,
    every_response_has_required_headers,
    oversized_token_is_not_issued,
);

impl Server {
    async fn token_lifetime(&self, user: Value, changes: &[(&str, &str)]) -> (i64, Value) {
        let form = form_with_changes(&self.exchange_form(&self.user_token(user)), changes);
        let (status, body) = self.post_as_planner("/oauth2/token", &form).await;
        assert_eq!(status, 200, "{body}");
        let claims = decode_claims(body["access_token"].as_str().unwrap());
        let lifetime = claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap();
        assert_eq!(body["expires_in"], lifetime, "{body}");
        (lifetime, claims)
    }
}

async fn token_lifetime_is_bounded_by_its_sources(server: Server) {
    let now = Server::now();
    assert_eq!(server.token_lifetime(json!({}), &[]).await.0, 300, "the default");
    assert_eq!(server.token_lifetime(json!({}), &[("expires_in", "60")]).await.0, 60);
    assert_eq!(
        server.token_lifetime(json!({}), &[("expires_in", "86400")]).await.0,
        300,
        "a longer requested lifetime has no effect"
    );
    let (_, claims) = server.token_lifetime(json!({"exp": now + 100}), &[]).await;
    assert_eq!(claims["exp"], now + 100, "the user token's expiry");
    let (_, claims) = server.token_lifetime(json!({"exp": now + 100}), &[("expires_in", "200")]).await;
    assert_eq!(claims["exp"], now + 100);
    assert_eq!(server.token_lifetime(json!({}), &[("task_deadline", "50")]).await.0, 50, "the task's deadline");
    // The deadline of a joined task limits the token.
    let (_, opened) = server.token_lifetime(json!({}), &[("task_deadline", "120")]).await;
    let task = opened["txn"].as_str().unwrap();
    let (_, joined) = server.token_lifetime(json!({}), &[("task_id", task), ("purpose", "")]).await;
    assert_eq!(joined["exp"], opened["exp"]);
    // Along a chain, no token expires later than its parent.
    let parent = form_with_changes(&server.exchange_form(&server.user_token(json!({}))), &[("expires_in", "90")]);
    let parent = server.issue_token("planner", &parent).await;
    let mut last = decode_claims(&parent)["exp"].as_i64().unwrap();
    let hand_over = server.issue_token("planner", &server.delegation_form(&parent, "reader")).await;
    let part = form_with_changes(&server.exchange_form(&hand_over), &[("purpose", ""), ("expires_in", "280")]);
    let part = server.issue_token("reader", &part).await;
    let txn = server
        .issue_token("reader", &form_with_changes(&server.txn_form(&part, ACCESS_TOKEN), &[("purpose", "")]))
        .await;
    for token in [&hand_over, &part, &txn] {
        let exp = decode_claims(token)["exp"].as_i64().unwrap();
        assert!(exp <= last, "{exp} after {last}");
        last = exp;
    }
    let (status, body) = {
        let late = form_with_changes(&server.exchange_form(&server.user_token(json!({"exp": now - 1}))), &[]);
        server.post_as_planner("/oauth2/token", &late).await
    };
    assert_eq!(
        (status.as_u16(), &body["error"]),
        (400, &json!("invalid_request")),
        "the leeway does not apply to user tokens"
    );
    server.stop().await;
}

async fn authentication_context_is_copied(server: Server) {
    let long_ago = Server::now() - 86_400;
    for (user, want) in [
        (json!({}), json!({"acr": "loa2", "amr": ["hwk"], "auth_time": Value::Null})),
        (json!({"auth_time": long_ago}), json!({"acr": "loa2", "amr": ["hwk"], "auth_time": long_ago})),
        (
            json!({"auth_time": null, "acr": null, "amr": null}),
            json!({"acr": Value::Null, "amr": Value::Null, "auth_time": Value::Null}),
        ),
    ] {
        let token = server.user_token(user.clone());
        let mut want = want;
        if want["auth_time"].is_null() {
            want["auth_time"] = decode_claims(&token)["auth_time"].clone();
        }
        let access = server.issue_token("planner", &server.exchange_form(&token)).await;
        let hand_over = server.issue_token("planner", &server.delegation_form(&access, "reader")).await;
        let part = form_with_changes(&server.exchange_form(&hand_over), &[("purpose", "")]);
        let part = server.issue_token("reader", &part).await;
        for (name, token) in [("access", &access), ("hand-over", &hand_over), ("part", &part)] {
            let claims = decode_claims(token);
            for claim in ["auth_time", "acr", "amr"] {
                assert_eq!(claims[claim], want[claim], "{name} {claim} {user}");
            }
        }
    }
    server.stop().await;
}

/// No part of a presented token appears in an issued token.
async fn subject_token_is_never_echoed(server: Server) {
    let user = server.user_token(json!({"email": "alice@example.com", "picture": "n-0S6_WzA2Mj-n-0S6"}));
    let assertion = server.assertion(json!({}));
    let form = with_assertion(&server.exchange_form(&user), &assertion);
    let (status, body) = read_response(server.post("/oauth2/token").form(&form).send().await.unwrap()).await;
    assert_eq!(status, 200, "{body}");
    let access = body["access_token"].as_str().unwrap().to_owned();
    let hand_over = server.issue_token("planner", &server.delegation_form(&access, "reader")).await;
    let part = form_with_changes(&server.exchange_form(&hand_over), &[("purpose", "")]);
    let part = server.issue_token("reader", &part).await;
    let decode = |token: &str| {
        let [header, claims] = [crate::server::decode_header(token), decode_claims(token)];
        format!("{token} {header} {claims}")
    };
    for (name, presented, issued) in [
        ("user token", &user, &access),
        ("assertion", &assertion, &access),
        ("user token, after two hops", &user, &part),
        ("access token", &access, &hand_over),
        ("hand-over", &hand_over, &part),
    ] {
        let in_lineage = name == "access token" || name == "hand-over";
        let out = decode(issued);
        let parts = presented.split('.').collect::<Vec<_>>();
        // A signature is unique. A value that both tokens have, such as the issuer, may have the
        // same base64 text, and so have the claims that one issued token inherits from another.
        let inherited = in_lineage.then_some(usize::MAX);
        for (part, length) in [(parts[1], inherited.unwrap_or(48)), (parts[2], 12)] {
            for piece in part.as_bytes().windows(length) {
                let piece = std::str::from_utf8(piece).unwrap();
                assert!(!out.contains(piece), "{name}: {piece}");
            }
        }
        for secret in ["alice@example.com", "n-0S6_WzA2Mj"] {
            assert!(!out.contains(secret), "{name}");
        }
        let jti = decode_claims(presented)["jti"].as_str().unwrap().to_owned();
        assert_eq!(out.contains(&jti), in_lineage, "{name}: only the ids of issued tokens are kept");
    }
    server.stop().await;
}

async fn every_response_has_required_headers(server: Server) {
    let mut ids = HashSet::new();
    let user = server.user_token(json!({}));
    let good = || {
        server.post("/oauth2/token").form(&with_assertion(&server.exchange_form(&user), &server.assertion(json!({}))))
    };
    let api = server.api_token("ops", "errand:admin errand:audit").await;
    let access = server.task_token().await;
    let introspect = || {
        server.post("/oauth2/introspect").basic_auth("files", Some(secret("files"))).form(&form(&[("token", &access)]))
    };
    let revoke =
        || server.post("/oauth2/revoke").basic_auth("reader", Some(secret("reader"))).form(&form(&[("token", "x")]));
    let public = ["/oauth2/jwks", "/.well-known/oauth-authorization-server"];
    for (name, request, second) in [
        ("issued", good(), good()),
        ("introspected", introspect(), introspect()),
        ("revoked", revoke(), revoke()),
        ("refused", server.post("/oauth2/token"), server.post("/oauth2/token")),
        (
            "admin",
            server.request(Method::GET, "/v1/admin/keys").bearer_auth(&api),
            server.request(Method::GET, "/v1/admin/keys").bearer_auth(&api),
        ),
        ("admin refused", server.request(Method::GET, "/v1/admin/keys"), server.request(Method::GET, "/v1/admin/keys")),
        ("nowhere", server.request(Method::GET, "/nowhere"), server.request(Method::GET, "/nowhere")),
        ("health", server.request(Method::GET, "/healthz"), server.request(Method::GET, "/healthz")),
        ("keys", server.request(Method::GET, public[0]), server.request(Method::GET, public[0])),
        ("metadata", server.request(Method::GET, public[1]), server.request(Method::GET, public[1])),
    ] {
        let response = request.send().await.unwrap();
        let headers = response.headers();
        assert!(ids.insert(headers["x-request-id"].to_str().unwrap().to_owned()), "{name}: a request id is unique");
        let cached = headers["cache-control"].to_str().unwrap().to_owned();
        let want = if ["keys", "metadata"].contains(&name) { "public, max-age=300" } else { "no-store" };
        assert_eq!(cached, want, "{name}");
        assert_eq!(headers["x-content-type-options"], "nosniff", "{name}");
        let named = second.header("x-request-id", format!("mine-{}", ids.len())).send().await.unwrap();
        assert_eq!(named.headers()["x-request-id"], format!("mine-{}", ids.len()), "{name}");
    }
    // The response always has the scope and the authority, even if only details were requested.
    let details = r#"[{"type":"mcp_tool","actions":["tools/call"],"identifier":"read_file"}]"#;
    let form = form_with_changes(&server.exchange_form(&user), &[("scope", ""), ("authorization_details", details)]);
    let (status, body) = server.post_as_planner("/oauth2/token", &form).await;
    assert_eq!(status, 200, "{body}");
    let want = json!([{"type": "mcp_tool", "locations": [crate::server::FILES], "actions": ["tools/call"], "identifier": "read_file"}]);
    assert_eq!(body["authorization_details"], want);
    assert_eq!(body.get("scope"), None, "a scope covers all its tools, and this is one of two");
    assert_eq!(body["issued_token_type"], ACCESS_TOKEN);
    assert_eq!((&body["token_type"], body["txn"].is_string()), (&json!("Bearer"), true));
    let names = form_with_changes(&server.exchange_form(&user), &[("resource", ""), ("audience", "files")]);
    let (status, body) = server.post_as_planner("/oauth2/token", &names).await;
    assert_eq!((status.as_u16(), &body["scope"]), (200, &json!("files:read")), "{body}");
    let both = form_with_changes(&server.exchange_form(&user), &[("scope", "files:read notes:read")]);
    let (status, _) = server.post_as_planner("/oauth2/token", &both).await;
    assert_eq!(status, 400, "a token has one audience, and {NOTES} is another");
    server.stop().await;
}

/// A scope that covers many tools with long names. The token would exceed the size limit for
/// presented tokens.
async fn oversized_token_is_not_issued(server: Server) {
    let tool = |n: usize| json!({"name": format!("{}_{n}", "t".repeat(100)), "scope": "big:all", "effect": "read"});
    let big = json!({"id": "big", "uri": "https://big.example.com/mcp", "authentication": {"method": "client_secret_basic"},
        "tools": (0..120).map(tool).collect::<Vec<_>>()});
    let guest = json!({"id": "guest", "authentication": {"method": "private_key_jwt", "jwks": server.planner.jwks()},
        "known_as": {(crate::server::IDP): ["guest-client"]}, "access": [{"resource": "big", "scopes": ["big:all"]}]});
    for (path, body) in [("/resources/big", big), ("/agents/guest", guest)] {
        let (status, body) = server.admin(Method::PUT, path, Some(body)).await;
        assert_eq!(status, 201, "{body}");
    }
    let user = server.user_token(json!({"client_id": "guest-client", "scope": "big:all"}));
    let changes = [("resource", "https://big.example.com/mcp"), ("scope", "big:all")];
    let form = form_with_changes(&server.exchange_form(&user), &changes);
    let assertion = server.assertion(json!({"iss": "guest", "sub": "guest"}));
    let (status, body) = server.post_with_assertion("/oauth2/token", &form, &assertion).await;
    assert_eq!((status.as_u16(), &body["error"]), (400, &json!("invalid_request")), "{body}");
    assert!(body["error_description"].as_str().unwrap().contains("exceed the maximum size"));
    let (status, body) = server.post_with_assertion("/oauth2/token", &form, &assertion).await;
    assert_eq!((status.as_u16(), &body["error"]), (401, &json!("invalid_client")), "the assertion is redeemed: {body}");
    server.stop().await;
}
