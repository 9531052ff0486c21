//! One task from end to end: exchange, introspect, delegate, revoke.

use serde_json::json;

use crate::server::{ACCESS_TOKEN, FILES, IDP, Server, TOKEN_EXCHANGE, decode_claims, form};

on_both_stores!(happy_path_issues_introspects_and_revokes);

async fn happy_path_issues_introspects_and_revokes(server: Server) {
    let token = server.task_token().await;
    let claims = decode_claims(&token);
    assert_eq!(
        (&claims["iss"], &claims["aud"], &claims["sub"], &claims["sub_iss"], &claims["client_id"]),
        (&json!(server.url), &json!(FILES), &json!("alice"), &json!(IDP), &json!("planner"))
    );
    assert_eq!(claims["act"], json!({"iss": server.url, "sub": "planner", "sub_profile": "ai_agent"}));
    assert_eq!((&claims["acr"], &claims["amr"]), (&json!("loa2"), &json!(["hwk"])));

    let response = server.introspect(&token).await;
    assert_eq!(response["active"], true, "{response}");
    for member in
        ["scope", "sub", "aud", "exp", "iat", "jti", "txn", "act", "authorization_details", "task", "client_id"]
    {
        assert_eq!(response[member], claims[member], "{member}");
    }
    let (_, elsewhere) = server.post_as("notes", "/oauth2/introspect", &form(&[("token", &token)])).await;
    assert_eq!(elsewhere, json!({"active": false}), "another resource gets no information");

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
    assert_eq!(server.introspect(handed).await, json!({"active": false}), "a hand-over token is valid at Errand alone");

    let (status, part) = server.post_as("reader", "/oauth2/token", &server.exchange_form(handed)).await;
    assert_eq!(status, 200, "{part}");
    let part = part["access_token"].as_str().unwrap();
    let part_claims = decode_claims(part);
    assert_eq!(part_claims["act"]["sub"], "reader");
    assert_eq!(part_claims["act"]["act"]["sub"], "planner");
    assert_eq!((&part_claims["sub"], &part_claims["txn"]), (&claims["sub"], &claims["txn"]));
    assert_eq!(server.introspect(part).await["active"], true);

    let task = json!({"kind": "task", "id": claims["txn"], "reason": "test"});
    let (status, receipt) = server.admin(reqwest::Method::POST, "/revocations", Some(task)).await;
    assert_eq!(status, 200, "{receipt}");
    for revoked in [&token[..], handed, part] {
        assert_eq!(server.introspect(revoked).await, json!({"active": false}));
    }
    let (status, refused) = server.post_as("reader", "/oauth2/token", &server.exchange_form(handed)).await;
    assert_eq!((status.as_u16(), &refused["error"]), (400, &json!("invalid_request")), "{refused}");
    let path = format!("/audit?task={}", claims["txn"].as_str().unwrap());
    let (_, trail) = server.admin(reqwest::Method::GET, &path, None).await;
    let trail = trail["items"].as_array().unwrap();
    let is_refusal = |item: &&serde_json::Value| item["record"]["outcome"] == "refused";
    let refusal = trail.iter().find(is_refusal).expect("the task's trail has the attempt with a revoked token");
    assert_eq!(
        (&refusal["record"]["client"], &refusal["record"]["token"]),
        (&json!("reader"), &decode_claims(handed)["jti"])
    );
    server.stop().await;
}
