//! Invalid tokens at every place that accepts a token: subject token, actor token, client
//! assertion, bearer token, introspection, revocation.

use serde_json::{Value, json};

use crate::{
    server::{ACCESS_TOKEN, ID_TOKEN, JWT, Server, form, form_with_changes, secret, with_assertion, with_changes},
    transport::injection::{Row, bad_headers, bad_payloads, check_rows, corrupted_tokens, ignored_headers},
};

on_both_stores!(
    invalid_subject_token_is_rejected,
    invalid_actor_token_is_rejected,
    invalid_client_assertion_is_rejected,
    invalid_bearer_token_is_rejected,
    invalid_token_introspects_as_inactive,
    revoking_invalid_token_succeeds
);

const SUBJECT: (u16, &str) = (400, "invalid_request");

async fn invalid_subject_token_is_rejected(server: Server) {
    let claims = server.user_claims();
    let good = server.idp.sign("at+jwt", &claims);
    server.issue_token("planner", &server.exchange_form(&good)).await;
    let own = server.task_token().await;

    let mut tokens = corrupted_tokens(&good);
    tokens.extend(corrupted_tokens(&own));
    tokens.extend(bad_headers(&server.idp, "at+jwt", &claims));
    tokens.extend(bad_payloads(&server.idp, "at+jwt", &claims));
    // An issuer that is not trusted, and Errand's own `iss`, signed with another key.
    for iss in ["https://elsewhere.example", &server.issuer, "https://login.example.com/"] {
        tokens.push(("iss of another", server.user_token(json!({ "iss": iss }))));
    }
    for (name, changes) in [
        ("scope with quotes", json!({"scope": "files:read \"files:write\""})),
        ("scope with two blanks", json!({"scope": "files:read  files:write"})),
        ("scope a number", json!({"scope": 1_234_567_890})),
        ("scope an object", json!({"scope": {"files:read": true}})),
        ("client_id a number", json!({"client_id": 1_234_567_890})),
        ("no client_id", json!({"client_id": null})),
        ("no iat", json!({"iat": null})),
        ("may_act a string", json!({"may_act": "planner-client"})),
        ("may_act without sub", json!({"may_act": {"iss": "https://login.example.com"}})),
        ("act a string", json!({"act": "another-agent"})),
        ("act without sub", json!({"act": {"iss": "https://login.example.com"}})),
        ("act of an agent registered here", json!({"act": {"iss": server.issuer, "sub": "reader"}})),
        ("sub too long", json!({"sub": "alice-the-first".repeat(40)})),
    ] {
        tokens.push((name, server.user_token(changes)));
    }
    let rows = tokens.into_iter().map(|(name, token)| {
        let form = with_assertion(&server.exchange_form(&token), &server.assertion(json!({})));
        Row::form(name, server.post("/oauth2/token"), &form, SUBJECT)
    });
    check_rows(rows.collect()).await;
    for (name, token) in ignored_headers(&server.idp, "at+jwt", || server.user_claims()) {
        let (status, body) = server.post_as_planner("/oauth2/token", &server.exchange_form(&token)).await;
        assert_eq!(status, 200, "{name}: {body}");
    }
    server.stop().await;
}

async fn invalid_actor_token_is_rejected(server: Server) {
    let good = server.assertion(json!({}));
    let with_actor = |token: &str, declared_type: &str| {
        let form = server.exchange_form(&server.user_token(json!({})));
        let form = form_with_changes(&form, &[("actor_token", token), ("actor_token_type", declared_type)]);
        with_assertion(&form, &server.assertion(json!({})))
    };
    let (status, body) = {
        let form = with_actor(&good, JWT);
        crate::server::read_response(server.post("/oauth2/token").form(&form).send().await.unwrap()).await
    };
    assert_eq!(status, 200, "{body}");

    let fresh = || server.assertion_claims();
    let mut tokens = corrupted_tokens(&server.assertion(json!({})));
    tokens.extend(bad_headers(&server.planner, "client-authentication+jwt", &fresh()));
    tokens.extend(bad_payloads(&server.planner, "client-authentication+jwt", &fresh()));
    tokens.push(("used before", good));
    // An assertion that names another client belongs to that client. Any other row is an invalid
    // token.
    let other_party =
        ["sub a number", "sub empty", "sub null", "sub an array", "sub with NUL", "no sub", "another payload"];
    let rows = tokens.into_iter().map(|(name, token)| {
        let want = match name {
            name if other_party.contains(&name) => (400, "actor_unauthorized"),
            _ => SUBJECT,
        };
        Row::form(name, server.post("/oauth2/token"), &with_actor(&token, JWT), want)
    });
    let mut rows = rows.collect::<Vec<_>>();
    let api = server.issue_token("planner", &form(&[("grant_type", "client_credentials")])).await;
    rows.extend(corrupted_tokens(&api).into_iter().map(|(name, token)| {
        Row::form(name, server.post("/oauth2/token"), &with_actor(&token, ACCESS_TOKEN), SUBJECT)
    }));
    rows.push(Row::form(
        "declared as an ID token",
        server.post("/oauth2/token"),
        &with_actor(&server.assertion(json!({})), ID_TOKEN),
        SUBJECT,
    ));
    check_rows(rows).await;
    server.stop().await;
}

async fn invalid_client_assertion_is_rejected(server: Server) {
    let claims = || server.assertion_claims();
    let mut tokens = corrupted_tokens(&server.assertion(json!({})));
    tokens.extend(bad_headers(&server.planner, "client-authentication+jwt", &claims()));
    tokens.extend(bad_payloads(&server.planner, "client-authentication+jwt", &claims()));
    let now = Server::now();
    let long = "planner-".repeat(40);
    for (name, changes) in [
        ("aud an array of one", json!({"aud": [server.issuer]})),
        ("aud the token endpoint", json!({"aud": format!("{}/oauth2/token", server.issuer)})),
        ("lifetime too long", json!({"exp": now + 600})),
        ("lifetime too long, issued long ago", json!({"iat": now - 3600, "exp": now + 60})),
        ("iss is not sub", json!({"iss": "reader"})),
        ("sub of another client", json!({"sub": "reader", "iss": "reader"})),
        ("sub of an unknown client", json!({"sub": "unknown-client", "iss": "unknown-client"})),
        ("sub too long", json!({"sub": long, "iss": long})),
        ("jti too long", json!({"jti": "0123456789".repeat(103)})),
        ("jti empty", json!({"jti": ""})),
    ] {
        tokens.push((name, server.assertion(changes)));
    }
    for typ in ["at+jwt", "txntoken+jwt", "dpop+jwt", "token-introspection+jwt"] {
        tokens.push((typ, server.planner.sign(typ, &claims())));
    }
    // Every endpoint that accepts a client assertion.
    let form = server.exchange_form(&server.user_token(json!({})));
    for path in ["/oauth2/token", "/oauth2/introspect", "/oauth2/revoke"] {
        let rows = tokens.iter().map(|(name, token)| {
            Row::form(
                format!("{path} {name}"),
                server.post(path),
                &with_assertion(&form, token),
                (401, "invalid_client"),
            )
        });
        check_rows(rows.collect()).await;
    }
    for (name, token) in ignored_headers(&server.planner, "client-authentication+jwt", || server.assertion_claims()) {
        let form = server.exchange_form(&server.user_token(json!({})));
        let (status, body) = server.post_with_assertion("/oauth2/token", &form, &token).await;
        assert_eq!(status, 200, "{name}: {body}");
    }
    server.stop().await;
}

async fn invalid_bearer_token_is_rejected(server: Server) {
    let good = server.api_token("ops", "errand:admin").await;
    let (status, _) = server.admin_with(&good, reqwest::Method::GET, "/agents", None).await;
    assert_eq!(status, 200);
    let mut tokens = corrupted_tokens(&good).into_iter().filter(|(_, token)| is_header_safe(token)).collect::<Vec<_>>();
    tokens.push(("a task token", server.task_token().await));
    tokens.push(("a user token", server.user_token(json!({}))));
    tokens.push(("an assertion", server.assertion(json!({}))));
    tokens.push(("a secret", secret("ops")));
    let rows = tokens.into_iter().flat_map(|(name, token)| {
        ["/v1/admin/agents", "/v1/admin/audit"].map(|path| Row {
            name: format!("{path} {name}"),
            request: server.request(reqwest::Method::GET, path).bearer_auth(&token),
            sent: vec![token.clone()],
            expected: (401, "invalid_token"),
        })
    });
    check_rows(rows.collect()).await;
    server.stop().await;
}

fn is_header_safe(token: &str) -> bool {
    token.bytes().all(|b| b.is_ascii_graphic())
}

/// Every invalid token gets the same introspection response, byte for byte.
async fn invalid_token_introspects_as_inactive(server: Server) {
    let (good, user) = (server.task_token().await, server.user_claims());
    assert!(server.is_active(&good).await);
    let mut tokens = corrupted_tokens(&good);
    tokens.extend(bad_headers(&server.idp, "at+jwt", &claims_of(&good)));
    tokens.extend(bad_payloads(&server.idp, "at+jwt", &claims_of(&good)));
    tokens.extend(bad_payloads(&server.idp, "at+jwt", &user));
    tokens.push(("not a token", "what is this".into()));
    tokens.push(("60 KiB", "x".repeat(60 * 1024)));
    for (name, token) in tokens {
        let request = server.post("/oauth2/introspect").basic_auth("files", Some(secret("files")));
        let response = request.form(&form(&[("token", &token)])).send().await.unwrap();
        let (status, headers) = (response.status(), response.headers().clone());
        let text = response.text().await.unwrap();
        assert_eq!((status.as_u16(), text.as_str()), (200, r#"{"active":false}"#), "{name}");
        assert_eq!(crate::transport::injection::find_echo(&headers, &text, &[token]), None, "{name}");
    }
    assert!(server.is_active(&good).await);
    server.stop().await;
}

/// Revoking a token that is not live succeeds: the client's goal is already met (RFC 7009 §2.2).
async fn revoking_invalid_token_succeeds(server: Server) {
    let good = server.task_token().await;
    let mut tokens = corrupted_tokens(&good);
    tokens.extend(bad_payloads(&server.idp, "at+jwt", &claims_of(&good)));
    tokens.push(("a user token", server.user_token(json!({}))));
    for (name, token) in tokens {
        let (status, body) = server.post_as("reader", "/oauth2/revoke", &form(&[("token", &token)])).await;
        assert_eq!((status.as_u16(), body), (200, json!("")), "{name}");
    }
    assert!(server.is_active(&good).await);
    server.stop().await;
}

/// The claims of a token, to be signed with another key.
fn claims_of(token: &str) -> Value {
    with_changes(crate::server::decode_claims(token), json!({}))
}
