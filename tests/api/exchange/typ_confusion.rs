//! Each `typ` of §12.2 at every place that takes tokens: only where it belongs is it taken.

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
    "nothing-like-it",
];

impl Server {
    /// An exchange by the planner; the status and the error.
    async fn try_exchange(&self, form: &Form) -> (u16, String) {
        let (status, body) = self.post_as_planner("/oauth2/token", form).await;
        (status.as_u16(), body["error"].as_str().unwrap_or_default().to_owned())
    }
}

/// Good claims, a good signature, the right place; only the `typ` varies, and what the request says it is.
async fn every_typ_is_checked_at_every_endpoint(server: Server) {
    let refused = (400, "invalid_request".to_owned());
    let taken = (200, String::new());
    for typ in TYP_VALUES {
        for said in [ACCESS_TOKEN, JWT, ID_TOKEN, TXN_TOKEN] {
            let subject = server.idp.sign(typ, &server.user_claims());
            let form = form_with_changes(&server.exchange_form(&subject), &[("subject_token_type", said)]);
            // The issuer is trusted with access tokens alone.
            let want = if (typ, said) == ("at+jwt", ACCESS_TOKEN) { &taken } else { &refused };
            assert_eq!(server.try_exchange(&form).await, *want, "subject {typ} said to be {said}");

            let actor = server.planner.sign(typ, &server.assertion_claims());
            let form = server.exchange_form(&server.user_token(json!({})));
            let form = form_with_changes(&form, &[("actor_token", &actor), ("actor_token_type", said)]);
            let is_assertion = ["client-authentication+jwt", "JWT", ""].contains(&typ) && said == JWT;
            let want = if is_assertion { &taken } else { &refused };
            assert_eq!(server.try_exchange(&form).await, *want, "actor {typ} said to be {said}");
        }
        let assertion = server.planner.sign(typ, &server.assertion_claims());
        let form = server.exchange_form(&server.user_token(json!({})));
        let (status, body) = server.post_with_assertion("/oauth2/token", &form, &assertion).await;
        let want = if ["client-authentication+jwt", "JWT", ""].contains(&typ) { 200 } else { 401 };
        assert_eq!(status, want, "assertion {typ}: {body}");

        // Nobody else's token is ever ours, whatever it says.
        for (key, claims) in [(&server.idp, server.user_claims()), (&server.planner, server.assertion_claims())] {
            let token = key.sign(typ, &claims);
            assert_eq!(server.introspect(&token).await, json!({"active": false}), "introspected {typ}");
            let (status, _) = server.admin_with(&token, Method::GET, "/agents", None).await;
            assert_eq!(status, 401, "bearer {typ}");
        }
    }
    server.stop().await;
}

/// The tokens that Errand itself signs, at every acceptor.
async fn issued_token_types_are_not_confused(server: Server) {
    let access = server.task_token().await;
    let hand_over = server.issue_token("planner", &server.delegation_form(&access, "reader")).await;
    let txn = server.issue_token("planner", &server.txn_form(&access, ACCESS_TOKEN)).await;
    let api = server.issue_token("planner", &form(&[("grant_type", "client_credentials")])).await;
    let introspect = server.post("/oauth2/introspect").basic_auth("files", Some(secret("files")));
    let introspect = introspect.header("accept", "application/token-introspection+jwt");
    let answer = introspect.form(&form(&[("token", &access)])).send().await.unwrap().text().await.unwrap();
    let ours = [
        ("access", &access),
        ("hand-over", &hand_over),
        ("txn", &txn),
        ("api", &api),
        ("introspection answer", &answer),
    ];
    for (name, token) in ours {
        // As a subject: an access token and a transaction token, said to be what they are, by their holder.
        for said in [ACCESS_TOKEN, TXN_TOKEN, JWT, ID_TOKEN] {
            let form =
                form_with_changes(&server.exchange_form(token), &[("subject_token_type", said), ("purpose", "")]);
            let (status, error) = server.try_exchange(&form).await;
            match (name, said) {
                ("access", ACCESS_TOKEN) => assert_eq!(status, 200, "{name} {said} {error}"),
                // It is the reader's to present.
                ("hand-over", ACCESS_TOKEN) => assert_eq!((status, &error[..]), (400, "actor_unauthorized")),
                _ => assert_eq!((status, &error[..]), (400, "invalid_request"), "{name} {said}"),
            }
            let form = form_with_changes(&server.txn_form(token, said), &[("purpose", "")]);
            let (status, error) = server.try_exchange(&form).await;
            match (name, said) {
                ("access", ACCESS_TOKEN) | ("txn", TXN_TOKEN) => assert_eq!(status, 200, "{name} {said} {error}"),
                ("hand-over", ACCESS_TOKEN) => assert_eq!((status, &error[..]), (400, "actor_unauthorized")),
                _ => assert_eq!((status, &error[..]), (400, "invalid_request"), "{name} {said}"),
            }
            // As an actor: an API token of one's own.
            let user = server.exchange_form(&server.user_token(json!({})));
            let form = form_with_changes(&user, &[("actor_token", token), ("actor_token_type", said)]);
            let (status, error) = server.try_exchange(&form).await;
            match (name, said) {
                ("api", ACCESS_TOKEN) => assert_eq!(status, 200, "{name} {said} {error}"),
                // As an assertion it is not even about this client, or it is and is not signed by it.
                _ => assert_eq!(status, 400, "actor {name} {said} {error}"),
            }
        }
        // As a client assertion: none.
        let form = server.exchange_form(&server.user_token(json!({})));
        let (status, _) = server.post_with_assertion("/oauth2/token", &form, token).await;
        assert_eq!(status, 401, "{name}");
        assert_eq!(
            read_response(server.post("/oauth2/introspect").form(&with_assertion(&form, token)).send().await.unwrap())
                .await
                .0,
            401
        );
        // Asked about: an access token for the one who asks.
        assert_eq!(server.is_active(token).await, name == "access", "{name}");
        // As a bearer at our own APIs: an API token, with the scope.
        let (status, body) = server.admin_with(token, Method::GET, "/agents", None).await;
        let want = if name == "api" { (403, "insufficient_scope") } else { (401, "invalid_token") };
        let code = crate::transport::injection::error_code(&Value::to_string(&body));
        assert_eq!((status.as_u16(), &code[..]), want, "{name}");
        let bearer = server.post("/oauth2/introspect").bearer_auth(token).form(&self::form(&[("token", &access)]));
        assert_eq!(bearer.send().await.unwrap().status(), want.0, "{name}");
    }
    server.stop().await;
}
