//! What an agent can't learn from errors: the state of other clients' tokens, and which agents and
//! resources are registered.

use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::server::{ACCESS_TOKEN, FILES, Server, decode_claims, form_with_changes};

on_both_stores!(
    stranger_gets_one_answer_for_every_token,
    unusable_target_looks_like_an_unknown_one,
    actor_of_own_issuer_in_another_spelling_is_rejected,
    foreign_actor_is_marked_in_the_trail
);

/// A live, a suspended, a revoked and an expired token of the planner, presented by agents that do
/// not hold them: as a subject token, and its API tokens as an actor token.
async fn stranger_gets_one_answer_for_every_token(server: Server) {
    let [live, suspended, revoked] = [server.task_token().await, server.task_token().await, server.task_token().await];
    let brief = form_with_changes(&server.exchange_form(&server.user_token(json!({}))), &[("expires_in", "1")]);
    let expired = server.issue_token("planner", &brief).await;
    for (token, verb) in [(&suspended, "suspend"), (&revoked, "revoke")] {
        let task = decode_claims(token)["txn"].clone();
        server.revoke(json!({"kind": "task", "id": task, "verb": verb, "reason": "x"})).await;
    }
    let exp = decode_claims(&expired)["exp"].as_i64().unwrap();
    crate::server::wait_until("the token has expired", async || exp < Server::now()).await;
    for agent in ["reader", "stranger"] {
        let answer = async |token: &str| server.request_token_as(agent, &server.exchange_form(token)).await;
        let want = answer(&live).await;
        assert_eq!((want.0, &want.1["error"]), (StatusCode::BAD_REQUEST, &json!("actor_unauthorized")), "{want:?}");
        for token in [&suspended, &revoked, &expired] {
            assert_eq!(answer(token).await, want, "{agent}");
        }
    }
    // The holder learns which it is.
    for (token, text) in [(&suspended, "suspended"), (&revoked, "revoked"), (&expired, "expired")] {
        let (_, body) = server.post_as_planner("/oauth2/token", &server.exchange_form(token)).await;
        assert!(body["error_description"].as_str().unwrap().contains(text), "{body}");
    }

    let (live, ended) =
        (server.api_token("reader", "errand:tasks").await, server.api_token("reader", "errand:tasks").await);
    let (status, body) =
        server.post_as("reader", "/oauth2/revoke", &crate::server::form(&[("token", ended.as_str())])).await;
    assert_eq!(status, 200, "{body}");
    let user = server.user_token(json!({}));
    let answer = async |token: &str| {
        let form = form_with_changes(
            &server.exchange_form(&user),
            &[("actor_token", token), ("actor_token_type", ACCESS_TOKEN)],
        );
        server.post_as_planner("/oauth2/token", &form).await
    };
    let want = answer(&live).await;
    assert_eq!(want.1["error"], json!("actor_unauthorized"), "{want:?}");
    assert_eq!(answer(&ended).await, want);
    server.stop().await;
}

/// The reader may use `files` alone, and may delegate to the writer alone.
async fn unusable_target_looks_like_an_unknown_one(server: Server) {
    let user = server.user_token(json!({"client_id": "reader-client"}));
    let form = server.exchange_form(&user);
    let ask = async |changes: &[(&str, &str)]| {
        server.post_as("reader", "/oauth2/token", &form_with_changes(&form, changes)).await
    };
    let details = |location: &str, tool: &str| {
        json!([{"type": "mcp_tool", "locations": [location], "actions": ["tools/call"], "identifier": tool}])
            .to_string()
    };
    let notes = "https://notes.example.com/mcp";
    let (unusable, unknown) = (details(notes, "read_notes"), details("https://nowhere.example.com/mcp", "read_notes"));
    let no_tool = details(notes, "no_such_tool");
    let (absent, parameter) = ("https://nowhere.example.com/mcp", "authorization_details");
    for (parameter, there, absent, code) in [
        ("resource", notes, absent, "invalid_target"),
        ("resource", notes, "https://notes.example.com/mcp/", "invalid_target"),
        (parameter, unusable.as_str(), unknown.as_str(), "invalid_authorization_details"),
        (parameter, unusable.as_str(), no_tool.as_str(), "invalid_authorization_details"),
    ] {
        let want = ask(&[(parameter, absent)]).await;
        assert_eq!(want.1["error"], json!(code), "{absent} {want:?}");
        assert_eq!(ask(&[(parameter, there)]).await, want, "{there}");
    }
    let by_name = async |name: &str| ask(&[("resource", ""), ("audience", name)]).await;
    let want = by_name("nowhere").await;
    assert_eq!(want.1["error"], json!("invalid_target"), "{want:?}");
    assert_eq!(by_name("notes").await, want);
    assert_eq!(by_name("files").await.0, StatusCode::OK);

    let delegate = async |agent: &str| ask(&[("requested_actor", agent)]).await;
    let want = delegate("no-such-agent").await;
    assert_eq!(want.1["error"], json!("actor_unauthorized"), "{want:?}");
    for agent in ["planner", "stranger", "reader", "files", "ops"] {
        assert_eq!(delegate(agent).await, want, "{agent}");
    }
    assert_eq!(delegate("writer").await.0, StatusCode::OK);
    server.stop().await;
}

/// Another issuer can't name an agent of this server, however it spells this server's issuer.
async fn actor_of_own_issuer_in_another_spelling_is_rejected(server: Server) {
    let own = server.issuer.clone();
    for iss in [own.clone(), format!("{own}/"), format!("{own}//"), own.to_uppercase(), own.replace("http://", "http:")]
    {
        let user = server.user_token(json!({"act": {"iss": iss, "sub": "reader"}}));
        let (status, body) = server.post_as_planner("/oauth2/token", &server.exchange_form(&user)).await;
        assert_eq!(status, 400, "{iss} {body}");
        assert!(body["error_description"].as_str().unwrap().contains("names an agent of this server"), "{iss} {body}");
    }
    server.stop().await;
}

async fn foreign_actor_is_marked_in_the_trail(server: Server) {
    let user = server.user_token(json!({"act": {"iss": "https://agents.example", "sub": "reader"}}));
    let token = server.issue_token("planner", &server.exchange_form(&user)).await;
    assert!(server.is_active(&token).await);
    let records = server.audit_records("").await;
    let of_token = records.iter().filter(|record| record["token"] == decode_claims(&token)["jti"]);
    let agents = of_token.map(|record| record["agents"].clone()).collect::<Vec<Value>>();
    let want = json!(["planner", "foreign:https://agents.example reader"]);
    assert!(!agents.is_empty() && agents.iter().all(|agents| *agents == want), "{agents:?}");
    assert_eq!(decode_claims(&token)["aud"], json!(FILES));
    server.stop().await;
}
