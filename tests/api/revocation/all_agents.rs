//! Suspension of every agent with one entry: introspection, feed and status lists agree, no token
//! is issued, and admins and resources go on.

use reqwest::Method;
use serde_json::json;

use crate::{
    cli::errand,
    revocation::feed::FeedReplica,
    server::{Server, form, form_with_changes, wait_until},
};

on_both_stores!(all_agents_are_suspended_and_resumed, stop_command_shows_the_effect_first);

async fn all_agents_are_suspended_and_resumed(server: Server) {
    let other = server.replica().await;
    let token = server.task_token().await;
    let delegated = server.issue_token("planner", &server.delegation_form(&token, "reader")).await;
    let form_for_reader = form_with_changes(&server.exchange_form(&delegated), &[("purpose", "")]);
    let delegated = server.issue_token("reader", &form_for_reader).await;
    let api = server.api_token("ops", "errand:admin").await;
    let agent_api = server.issue_token("reader", &form(&[("grant_type", "client_credentials")])).await;
    let resource_api = server.api_token("files", "errand:revocations").await;
    let reads_tasks = async |at: &Server, token: &str| {
        at.request(Method::GET, "/v1/tasks").bearer_auth(token).send().await.unwrap().status().as_u16()
    };
    assert_eq!(reads_tasks(&other, &agent_api).await, 200);
    let mut feed = FeedReplica::default();

    // An agent that is suspended alone stays so.
    server.revoke(json!({"kind": "agent", "id": "writer", "verb": "suspend", "reason": "alone"})).await;
    for (verb, is_stopped, status) in [("suspend", true, 2), ("resume", false, 0), ("suspend", true, 2)] {
        let head = server.application.service.applied_seq().number();
        let answer = server.revoke(json!({"kind": "agents", "verb": verb, "reason": "an incident"})).await;
        assert_eq!((&answer["kind"], &answer["seq"]), (&json!("agents"), &json!(head + 1)), "one entry: {answer}");
        feed.catch_up(&other, &api).await;
        for at in [&server, &other] {
            for token in [&token, &delegated] {
                assert_eq!(at.is_active(token).await, !is_stopped, "{verb}");
                wait_until("the status list follows", || async { at.status_of(token).await == status }).await;
            }
        }
        assert_eq!((feed.is_accepted(&token), feed.is_accepted(&delegated)), (!is_stopped, !is_stopped), "{verb}");
        // New tokens, and the agents' own access.
        let user = server.user_token(json!({}));
        let (answer, body) = other.post_as_planner("/oauth2/token", &other.exchange_form(&user)).await;
        assert_eq!(answer == 200, !is_stopped, "{verb}: {body}");
        assert_eq!(reads_tasks(&other, &agent_api).await == 200, !is_stopped, "{verb}");
        // Admins and resources go on.
        assert_eq!(other.admin_with(&api, Method::GET, "/tasks", None).await.0, 200);
        let feed = other.request(Method::GET, "/revocations").bearer_auth(&resource_api).send().await.unwrap();
        assert_eq!(feed.status(), 200, "{verb}");
        let (answer, _) =
            other.post_as("writer", "/oauth2/token", &form(&[("grant_type", "client_credentials")])).await;
        assert_ne!(answer, 200, "{verb}: suspended alone");
    }
    // The suspension survives a restart and covers an agent that is registered later.
    let third = server.replica().await;
    assert!(!third.is_active(&token).await);
    let guest = json!({"id": "guest", "authentication": {"method": "client_secret_basic"}});
    server.put_object("/agents/guest", guest).await;
    let secret = server.create_secret("guest").await;
    let request = third.post("/oauth2/token").basic_auth("guest", Some(secret));
    let response = request.form(&form(&[("grant_type", "client_credentials")])).send().await.unwrap();
    assert_ne!(response.status(), 200);
    let (_, blocks) = third.admin(Method::GET, "/blocks", None).await;
    let kinds = blocks["items"].as_array().unwrap().iter().map(|block| block["kind"].clone()).collect::<Vec<_>>();
    assert!(kinds.contains(&json!("agents")) && kinds.contains(&json!("agent")), "{blocks}");
    for verb in ["revoke", "block", "unblock", "suspend"] {
        let body = json!({"kind": "agents", "verb": verb, "reason": "x"});
        let (status, answer) = server.admin(Method::POST, "/revocations", Some(body)).await;
        assert_eq!(status, if verb == "suspend" { 409 } else { 400 }, "{verb}: {answer}");
    }
    third.stop().await;
    other.stop().await;
    server.stop().await;
}

async fn stop_command_shows_the_effect_first(server: Server) {
    let folder = server.folder.path();
    let token = server.task_token().await;
    let (code, out, err) = errand(folder, &["stop", "--all", "errand.toml"]).await;
    assert!(code == 0 && out.contains("1 live tokens in 1 tasks") && out.contains("--yes"), "{out} {err}");
    assert!(server.is_active(&token).await);
    assert_eq!(errand(folder, &["stop", "errand.toml"]).await.0, 2, "`--all` is needed");
    assert_eq!(errand(folder, &["stop", "--all", "--yes", "errand.toml"]).await.0, 2, "a reason is needed");
    let stop = ["stop", "--all", "--yes", "--reason", "incident 12", "--config", "errand.toml"];
    let (code, out, err) = errand(folder, &stop).await;
    assert!(code == 0 && out.contains("all agents are suspended"), "{out} {err}");
    assert!(!server.is_active(&token).await);
    let records = server.audit_records("&event=revocation").await;
    let record = records.iter().find(|record| record["reason"] == "incident 12").unwrap();
    assert_eq!(record["requested"], json!({"kind": "agents", "key": "", "verb": "suspend"}), "{record}");
    let (code, out, err) = errand(folder, &[&stop[..], &["--resume"]].concat()).await;
    assert!(code == 0 && out.contains("resumed"), "{out} {err}");
    assert!(server.is_active(&token).await);
    server.stop().await;
}
