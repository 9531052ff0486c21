//! One errand from end to end: exchange, introspect, hand over, revoke.

use serde_json::json;

use crate::server::{ACCESS_TOKEN, FILES, IDP, Server, TOKEN_EXCHANGE, decode_claims, form};

on_both_stores!(happy_path_issues_introspects_and_revokes);

async fn happy_path_issues_introspects_and_revokes(server: Server) {
    let token = server.task_token().await;
    let says = decode_claims(&token);
    assert_eq!(
        (&says["iss"], &says["aud"], &says["sub"], &says["sub_iss"], &says["client_id"]),
        (&json!(server.url), &json!(FILES), &json!("alice"), &json!(IDP), &json!("planner"))
    );
    assert_eq!(says["act"], json!({"iss": server.url, "sub": "planner", "sub_profile": "ai_agent"}));
    assert_eq!((&says["acr"], &says["amr"]), (&json!("loa2"), &json!(["hwk"])));

    let answer = server.introspect(&token).await;
    assert_eq!(answer["active"], true, "{answer}");
    for member in
        ["scope", "sub", "aud", "exp", "iat", "jti", "txn", "act", "authorization_details", "task", "client_id"]
    {
        assert_eq!(answer[member], says[member], "{member}");
    }
    let (_, elsewhere) = server.post_as("notes", "/oauth2/introspect", &form(&[("token", &token)])).await;
    assert_eq!(elsewhere, json!({"active": false}), "another resource learns nothing");

    let hand_over = form(&[
        ("grant_type", TOKEN_EXCHANGE),
        ("subject_token", &token),
        ("subject_token_type", ACCESS_TOKEN),
        ("requested_actor", "reader"),
        ("scope", "files:read"),
    ]);
    let (status, handed) = server.post_as_planner("/oauth2/token", &hand_over).await;
    assert_eq!((status.as_u16(), &handed["token_type"]), (200, &json!("N_A")), "{handed}");
    let handed = handed["access_token"].as_str().unwrap();
    assert_eq!(server.introspect(handed).await, json!({"active": false}), "it is for Errand alone");

    let (status, part) = server.post_as("reader", "/oauth2/token", &server.exchange_form(handed)).await;
    assert_eq!(status, 200, "{part}");
    let part = part["access_token"].as_str().unwrap();
    let says_part = decode_claims(part);
    assert_eq!(says_part["act"]["sub"], "reader");
    assert_eq!(says_part["act"]["act"]["sub"], "planner");
    assert_eq!((&says_part["sub"], &says_part["txn"]), (&says["sub"], &says["txn"]));
    assert_eq!(server.introspect(part).await["active"], true);

    let task = json!({"kind": "task", "id": says["txn"], "reason": "the test says so"});
    let (status, revoked) = server.admin(reqwest::Method::POST, "/revocations", Some(task)).await;
    assert_eq!(status, 200, "{revoked}");
    for dead in [&token[..], handed, part] {
        assert_eq!(server.introspect(dead).await, json!({"active": false}));
    }
    let (status, refused) = server.post_as("reader", "/oauth2/token", &server.exchange_form(handed)).await;
    assert_eq!((status.as_u16(), &refused["error"]), (400, &json!("invalid_request")), "{refused}");
    let path = format!("/audit?task={}", says["txn"].as_str().unwrap());
    let (_, trail) = server.admin(reqwest::Method::GET, &path, None).await;
    let trail = trail["items"].as_array().unwrap();
    let is_refusal = |item: &&serde_json::Value| item["chained"]["record"]["outcome"] == "refused";
    let refusal =
        &trail.iter().find(is_refusal).expect("what was tried with a dead token is in its task's trail")["chained"];
    assert_eq!(
        (&refusal["record"]["client"], &refusal["record"]["token"]),
        (&json!("reader"), &decode_claims(handed)["jti"])
    );
    server.stop().await;
}
