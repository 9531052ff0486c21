//! Every known `typ` at every place that accepts tokens. Each `typ` is accepted only where it
//! belongs.

use reqwest::Method;
use serde_json::{Value, json};

use crate::server::{
    ACCESS_TOKEN, Form, ID_TOKEN, JWT, Server, TXN_TOKEN, form, form_with_changes, read_response, secret,
    with_assertion,
};

on_both_stores!(every_typ_is_checked_at_every_endpoint, issued_token_types_are_not_confused);

const TYP_VALUES: [&str; 16] = [
    "at+jwt",
    "txntoken+jwt",
    "oauth-id-jag+jwt",
    "client-authentication+jwt",
    "dpop+jwt",
    "wit+jwt",
    "wpt+jwt",
    "token-introspection+jwt",
    "statuslist+jwt",
    "secevent+jwt",
    "txn-authz-challenge+jwt",
    "aat+jwt",
    "aat-pop+jwt",
    "JWT",
    "",
    "unknown-type",
];

impl Server {
    /// Exchanges as the planner, and returns the status and the error code.
    async fn try_exchange(&self, form: &Form) -> (u16, String) {
        let (status, body) = self.post_as_planner("/oauth2/token", form).await;
        (status.as_u16(), body["error"].as_str().unwrap_or_default().to_owned())
    }
}

/// Valid claims and a valid signature; only the `typ` and the declared type vary.
async fn every_typ_is_checked_at_every_endpoint(server: Server) {
    let refused = (400, "invalid_request".to_owned());
    let accepted = (200, String::new());
    for typ in TYP_VALUES {
        for declared_type in [ACCESS_TOKEN, JWT, ID_TOKEN, TXN_TOKEN] {
            let subject = server.idp.sign(typ, &server.user_claims());
            let form = form_with_changes(&server.exchange_form(&subject), &[("subject_token_type", declared_type)]);
            // The issuer's `token_types` has access tokens only.
            let want = if (typ, declared_type) == ("at+jwt", ACCESS_TOKEN) { &accepted } else { &refused };
            assert_eq!(server.try_exchange(&form).await, *want, "subject {typ} declared as {declared_type}");

            let actor = server.planner.sign(typ, &server.assertion_claims());
            let form = server.exchange_form(&server.user_token(json!({})));
            let form = form_with_changes(&form, &[("actor_token", &actor), ("actor_token_type", declared_type)]);
            let is_assertion = ["client-authentication+jwt", "JWT", ""].contains(&typ) && declared_type == JWT;
            let want = if is_assertion { &accepted } else { &refused };
            assert_eq!(server.try_exchange(&form).await, *want, "actor {typ} declared as {declared_type}");
        }
        let assertion = server.planner.sign(typ, &server.assertion_claims());
        let form = server.exchange_form(&server.user_token(json!({})));
        let (status, body) = server.post_with_assertion("/oauth2/token", &form, &assertion).await;
        let want = if ["client-authentication+jwt", "JWT", ""].contains(&typ) { 200 } else { 401 };
        assert_eq!(status, want, "assertion {typ}: {body}");

        // A token that another key signed is never accepted as an issued token, whatever its `typ`.
        for (key, claims) in [(&server.idp, server.user_claims()), (&server.planner, server.assertion_claims())] {
            let token = key.sign(typ, &claims);
            assert_eq!(server.introspect(&token).await, json!({"active": false}), "introspected {typ}");
            let (status, _) = server.admin_with(&token, Method::GET, "/agents", None).await;
            assert_eq!(status, 401, "bearer {typ}");
        }
    }
    server.stop().await;
}

/// The tokens that Errand itself signs, at every place that accepts tokens.
async fn issued_token_types_are_not_confused(server: Server) {
    let access = server.task_token().await;
    let hand_over = server.issue_token("planner", &server.delegation_form(&access, "reader")).await;
    let txn = server.issue_token("planner", &server.txn_form(&access, ACCESS_TOKEN)).await;
    let api = server.issue_token("planner", &form(&[("grant_type", "client_credentials")])).await;
    let introspect = server.post("/oauth2/introspect").basic_auth("files", Some(secret("files")));
    let introspect = introspect.header("accept", "application/token-introspection+jwt");
    let response = introspect.form(&form(&[("token", &access)])).send().await.unwrap().text().await.unwrap();
    let issued = [
        ("access", &access),
        ("hand-over", &hand_over),
        ("txn", &txn),
        ("api", &api),
        ("introspection response", &response),
    ];
    for (name, token) in issued {
        // Subject token: an access token and a transaction token are accepted from their holder,
        // with their type declared.
        for declared_type in [ACCESS_TOKEN, TXN_TOKEN, JWT, ID_TOKEN] {
            let form = form_with_changes(
                &server.exchange_form(token),
                &[("subject_token_type", declared_type), ("purpose", "")],
            );
            let (status, error) = server.try_exchange(&form).await;
            match (name, declared_type) {
                ("access", ACCESS_TOKEN) => assert_eq!(status, 200, "{name} {declared_type} {error}"),
                // Only the reader may present it.
                ("hand-over", ACCESS_TOKEN) => assert_eq!((status, &error[..]), (400, "actor_unauthorized")),
                _ => assert_eq!((status, &error[..]), (400, "invalid_request"), "{name} {declared_type}"),
            }
            let form = form_with_changes(&server.txn_form(token, declared_type), &[("purpose", "")]);
            let (status, error) = server.try_exchange(&form).await;
            match (name, declared_type) {
                ("access", ACCESS_TOKEN) | ("txn", TXN_TOKEN) => {
                    assert_eq!(status, 200, "{name} {declared_type} {error}");
                }
                ("hand-over", ACCESS_TOKEN) => assert_eq!((status, &error[..]), (400, "actor_unauthorized")),
                _ => assert_eq!((status, &error[..]), (400, "invalid_request"), "{name} {declared_type}"),
            }
            // Actor token: the client's own API token is accepted.
            let user = server.exchange_form(&server.user_token(json!({})));
            let form = form_with_changes(&user, &[("actor_token", token), ("actor_token_type", declared_type)]);
            let (status, error) = server.try_exchange(&form).await;
            match (name, declared_type) {
                ("api", ACCESS_TOKEN) => assert_eq!(status, 200, "{name} {declared_type} {error}"),
                // As an assertion, it names another client, or is not signed with the client's key.
                _ => assert_eq!(status, 400, "actor {name} {declared_type} {error}"),
            }
        }
        // Client assertion: none is accepted.
        let form = server.exchange_form(&server.user_token(json!({})));
        let (status, _) = server.post_with_assertion("/oauth2/token", &form, token).await;
        assert_eq!(status, 401, "{name}");
        assert_eq!(
            read_response(server.post("/oauth2/introspect").form(&with_assertion(&form, token)).send().await.unwrap())
                .await
                .0,
            401
        );
        // Introspection: an access token for the resource that asks is active.
        assert_eq!(server.is_active(token).await, name == "access", "{name}");
        // Bearer token at Errand's own APIs: an API token with the scope is accepted.
        let (status, body) = server.admin_with(token, Method::GET, "/agents", None).await;
        let want = if name == "api" { (403, "insufficient_scope") } else { (401, "invalid_token") };
        let code = crate::transport::injection::error_code(&Value::to_string(&body));
        assert_eq!((status.as_u16(), &code[..]), want, "{name}");
        let bearer = server.post("/oauth2/introspect").bearer_auth(token).form(&self::form(&[("token", &access)]));
        assert_eq!(bearer.send().await.unwrap().status(), want.0, "{name}");
    }
    server.stop().await;
}
