//! Client authentication: one response for every failure, and an assertion is valid for one use.

use reqwest::RequestBuilder;
use serde_json::{Value, json};

use crate::{
    idp::Key,
    server::{Form, JWT_BEARER, Server, form, form_with_changes, read_response, secret, with_assertion},
};

on_both_stores!(
    failed_authentication_reveals_nothing,
    only_registered_method_is_accepted,
    assertion_is_accepted_once_across_replicas,
    rejected_request_consumes_assertion,
    assertion_audience_setting_is_enforced,
);

/// Returns the status, the headers and the body, except the request id and the date.
async fn send_and_read(request: RequestBuilder) -> (u16, Vec<(String, String)>, String) {
    let response = request.send().await.unwrap();
    let headers = response.headers().iter().filter(|(name, _)| !["x-request-id", "date"].contains(&name.as_str()));
    let headers = headers.map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned())).collect();
    (response.status().as_u16(), headers, response.text().await.unwrap())
}

async fn failed_authentication_reveals_nothing(server: Server) {
    // A client that is disabled.
    let closed = json!({"id": "closed", "disabled": true, "authentication": {"method": "client_secret_basic"}});
    let (status, _) = server.admin(reqwest::Method::PUT, "/agents/closed", Some(closed)).await;
    assert_eq!(status, 201);
    let (status, made) = server.admin(reqwest::Method::POST, "/clients/closed/secret", None).await;
    assert_eq!(status, 201);
    let closed = made["client_secret"].as_str().unwrap();
    let grant = form(&[("grant_type", "client_credentials"), ("token", "x")]);
    let stranger = Key::new("planner-1");
    for path in ["/oauth2/token", "/oauth2/introspect", "/oauth2/revoke"] {
        let basic = |id: &str, secret: &str| server.post(path).basic_auth(id, Some(secret)).form(&grant);
        let signed = |key: &Key, changes: Value| {
            let claims = crate::server::with_changes(server.assertion_claims(), changes);
            let assertion = key.sign("client-authentication+jwt", &claims);
            server.post(path).form(&with_assertion(&grant, &assertion))
        };
        let unknown = json!({"iss": "unknown", "sub": "unknown"});
        let reader = json!({"iss": "reader", "sub": "reader"});
        let want = send_and_read(basic("unknown", &secret("unknown"))).await;
        assert_eq!(
            (want.0, &want.2[..]),
            (401, r#"{"error":"invalid_client","error_description":"client authentication failed"}"#)
        );
        let challenge = ("www-authenticate".to_owned(), r#"Basic realm="errand", charset="UTF-8""#.to_owned());
        assert!(want.1.contains(&challenge), "{want:?}");
        for (name, request) in [
            ("wrong secret", basic("reader", &secret("writer"))),
            ("no secret", basic("reader", "")),
            ("part of a secret", basic("reader", &secret("reader")[..40])),
            ("secret of a client with a key", basic("planner", &secret("planner"))),
            ("disabled, right secret", basic("closed", closed)),
            ("disabled, wrong secret", basic("closed", &secret("closed"))),
            ("not a client id", basic("no such client!", "x")),
            ("an id of 10,000 characters", basic(&"a".repeat(10_000), "x")),
            ("an id with NUL", basic("rea\0der", "x")),
            ("unknown, signed", signed(&stranger, unknown)),
            ("wrong key", signed(&stranger, json!({}))),
            ("a key of another party", signed(&server.idp, json!({}))),
            ("a key for a client with a secret", signed(&server.planner, reader)),
        ] {
            assert_eq!(send_and_read(request).await, want, "{path} {name}");
        }
        // With a valid signature of the client, the response says what is wrong.
        let (planner, grant) = (&server.planner, &grant);
        let post = |assertion: &str| server.post(path).form(&with_assertion(grant, assertion));
        let used = server.assertion(json!({}));
        send_and_read(post(&used)).await;
        let typed = planner.sign("at+jwt", &server.assertion_claims());
        let unsigned = format!("{}.", used.rsplit_once('.').unwrap().0);
        for (request, text) in [
            (signed(planner, json!({"aud": "https://elsewhere.example"})), "`aud` does not identify this server"),
            (signed(planner, json!({"exp": Server::now() - 600})), "the token has expired"),
            (signed(planner, json!({"exp": Server::now() + 86_400})), "the token lifetime exceeds"),
            (signed(planner, json!({"jti": null})), "the claim `jti` is m"),
            (post(&typed), "`typ` names another kind of token"),
            (post(&used), "already used; sign a new one for each request"),
            // What was sent alone shows these.
            (post(&unsigned), "the token is not signed; the algorithm `none` is not accepted"),
            (post("x.y"), "the token is not three base64url parts"),
        ] {
            let (status, _, body) = send_and_read(request).await;
            let body: Value = serde_json::from_str(&body).unwrap();
            let description = body["error_description"].as_str().unwrap();
            assert_eq!((status, &body["error"]), (401, &json!("invalid_client")), "{path} {description}");
            assert!(description.starts_with(&format!("client assertion: {text}")), "{path} {description}");
        }
    }
    server.stop().await;
}

async fn only_registered_method_is_accepted(server: Server) {
    let grant = form(&[("grant_type", "client_credentials")]);
    let assertion = || server.assertion(json!({}));
    let basic = |form: &Form| server.post("/oauth2/token").basic_auth("reader", Some(secret("reader"))).form(form);
    let bare = |form: &Form| server.post("/oauth2/token").form(form);
    let in_body = form_with_changes(&grant, &[("client_id", "reader"), ("client_secret", &secret("reader"))]);
    let client_id = |id: &str| form_with_changes(&grant, &[("client_id", id)]);
    let several = (400, "invalid_request");
    let failed = (401, "invalid_client");
    let rows: Vec<(&str, RequestBuilder, (u16, &str))> = vec![
        ("Basic", basic(&grant), (200, "")),
        ("Basic and its id", basic(&client_id("reader")), (200, "")),
        ("Basic and another's id", basic(&client_id("writer")), failed),
        ("Basic and an assertion", basic(&with_assertion(&grant, &assertion())), several),
        (
            "Basic and an assertion type",
            basic(&form_with_changes(&grant, &[("client_assertion_type", JWT_BEARER)])),
            several,
        ),
        ("Basic and a secret in the body", basic(&in_body), several),
        ("two headers", basic(&grant).header("authorization", "Bearer x"), several),
        ("a secret in the body", bare(&in_body), failed),
        ("an assertion and a secret", bare(&with_assertion(&in_body, &assertion())), several),
        ("an id alone", bare(&client_id("reader")), failed),
        ("nothing", bare(&grant), failed),
        ("Bearer", bare(&grant).bearer_auth("x"), failed),
        ("Digest", bare(&grant).header("authorization", "Digest username=\"reader\""), failed),
        ("Basic without anything", bare(&grant).header("authorization", "Basic"), failed),
        ("Basic, not base64", bare(&grant).header("authorization", "Basic !!!"), failed),
        ("Basic, no colon", bare(&grant).header("authorization", "Basic cmVhZGVy"), failed),
        ("an assertion", bare(&with_assertion(&grant, &assertion())), (200, "")),
        ("an assertion and its id", bare(&with_assertion(&client_id("planner"), &assertion())), (200, "")),
        ("an assertion and another's id", bare(&with_assertion(&client_id("reader"), &assertion())), failed),
        ("an assertion without type", bare(&form_with_changes(&grant, &[("client_assertion", &assertion())])), failed),
        (
            "an assertion of another type",
            bare(&form_with_changes(
                &with_assertion(&grant, &assertion()),
                &[("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:saml2-bearer")],
            )),
            failed,
        ),
        (
            "a type without assertion",
            bare(&form_with_changes(&grant, &[("client_assertion_type", JWT_BEARER)])),
            failed,
        ),
    ];
    for (name, request, want) in rows {
        let (status, body) = read_response(request.send().await.unwrap()).await;
        assert_eq!((status.as_u16(), body["error"].as_str().unwrap_or_default()), want, "{name}: {body}");
    }
    server.stop().await;
}

/// Sixteen requests with one assertion, at two replicas: exactly one is accepted, whichever it is.
async fn assertion_is_accepted_once_across_replicas(server: Server) {
    let other = server.replica().await;
    let grant = form(&[("grant_type", "client_credentials")]);
    for round in 0..4 {
        let assertion = server.assertion(json!({}));
        let user = server.user_token(json!({}));
        let tries = (0..16).map(|n| {
            let (at, form) = match n % 4 {
                0 => (&server, with_assertion(&server.exchange_form(&user), &assertion)),
                1 => (&other, with_assertion(&server.exchange_form(&user), &assertion)),
                2 => (&server, with_assertion(&grant, &assertion)),
                _ => (&other, with_assertion(&grant, &assertion)),
            };
            tokio::spawn(at.post("/oauth2/token").form(&form).send())
        });
        let (mut accepted, mut rejected) = (0, 0);
        for answer in tries.collect::<Vec<_>>() {
            match read_response(answer.await.unwrap().unwrap()).await {
                (status, _) if status == 200 => accepted += 1,
                (status, body) => {
                    assert_eq!((status.as_u16(), &body["error"]), (401, &json!("invalid_client")), "{body}");
                    rejected += 1;
                }
            }
        }
        assert_eq!((accepted, rejected), (1, 15), "round {round}");
        // Afterwards, no endpoint accepts the assertion.
        for path in ["/oauth2/token", "/oauth2/introspect", "/oauth2/revoke"] {
            let form = form_with_changes(&grant, &[("token", "x")]);
            let (status, body) = other.post_with_assertion(path, &form, &assertion).await;
            assert_eq!((status.as_u16(), &body["error"]), (401, &json!("invalid_client")), "{path} {body}");
        }
    }
    // A `jti` is scoped to its client, and a second signature over the same `jti` is a replay.
    let claims = crate::server::with_changes(server.assertion_claims(), json!({"jti": "reused-id"}));
    let (first, second) = (server.planner.sign("JWT", &claims), server.planner.sign("JWT", &claims));
    assert_ne!(first, second);
    assert_eq!(server.post_with_assertion("/oauth2/token", &grant, &first).await.0, 200);
    assert_eq!(other.post_with_assertion("/oauth2/token", &grant, &second).await.0, 401);
    other.stop().await;
    server.stop().await;
}

async fn rejected_request_consumes_assertion(server: Server) {
    let token = server.task_token().await;
    let grant = form(&[("grant_type", "client_credentials")]);
    let by_token = form(&[("token", &token)]);
    let exchange =
        |changes: &[(&str, &str)]| form_with_changes(&server.exchange_form(&server.user_token(json!({}))), changes);
    for (name, path, form, want) in [
        ("a scope that exceeds the ceiling", "/oauth2/token", exchange(&[("scope", "files:delete")]), 400),
        ("an unknown target", "/oauth2/token", exchange(&[("resource", "https://unknown.example")]), 400),
        ("a bad subject", "/oauth2/token", exchange(&[("subject_token", "a.b.c")]), 400),
        ("no subject token", "/oauth2/token", exchange(&[("subject_token", "")]), 400),
        ("an invalid subject token type", "/oauth2/token", exchange(&[("subject_token_type", "access_token")]), 400),
        ("an unknown grant", "/oauth2/token", exchange(&[("grant_type", "password")]), 400),
        ("no grant", "/oauth2/token", exchange(&[("grant_type", "")]), 400),
        ("an invalid API scope", "/oauth2/token", form_with_changes(&grant, &[("scope", "\"")]), 400),
        ("a revocation without a token", "/oauth2/revoke", form_with_changes(&by_token, &[("token", "")]), 400),
        ("an introspection without a token", "/oauth2/introspect", form_with_changes(&by_token, &[("token", "")]), 400),
        (
            "an API scope that is not allowed",
            "/oauth2/token",
            form_with_changes(&grant, &[("scope", "errand:admin")]),
            400,
        ),
        ("an introspection by an agent", "/oauth2/introspect", by_token.clone(), 403),
        ("a revocation", "/oauth2/revoke", form_with_changes(&by_token, &[("token", "unknown")]), 200),
    ] {
        let assertion = server.assertion(json!({}));
        let (status, body) = server.post_with_assertion(path, &form, &assertion).await;
        assert_eq!(status, want, "{name} {body}");
        let (status, body) = server.post_with_assertion("/oauth2/token", &grant, &assertion).await;
        assert_eq!((status.as_u16(), &body["error"]), (401, &json!("invalid_client")), "{name} {body}");
    }
    assert!(server.is_active(&token).await);
    server.stop().await;
}

async fn assertion_audience_setting_is_enforced(server: Server) {
    let agent = |audience: &str| {
        json!({"id": "authlib", "authentication": {"method": "private_key_jwt", "jwks": server.planner.jwks(),
            "assertion_audience": audience}})
    };
    let grant = form(&[("grant_type", "client_credentials")]);
    let endpoint = format!("{}/oauth2/token", server.issuer);
    for (registered, audience, want) in [
        ("issuer", json!(server.issuer), 200),
        ("issuer", json!(endpoint), 401),
        ("token_endpoint_too", json!(server.issuer), 200),
        ("token_endpoint_too", json!(endpoint), 200),
        ("token_endpoint_too", json!([endpoint]), 401),
        ("token_endpoint_too", json!(format!("{}/oauth2/introspect", server.issuer)), 401),
        ("token_endpoint_too", json!(format!("{endpoint}/")), 401),
    ] {
        let (status, body) = server.admin(reqwest::Method::PUT, "/agents/authlib", Some(agent(registered))).await;
        assert!(status.is_success(), "{body}");
        let changes = json!({"iss": "authlib", "sub": "authlib", "aud": audience});
        let (status, body) = server.post_with_assertion("/oauth2/token", &grant, &server.assertion(changes)).await;
        assert_eq!(status, want, "{registered} {audience} {body}");
    }
    server.stop().await;
}
