//! Ending is ending: the user token of an ended task opens and joins no other task of that agent,
//! nothing of an ended requester is evidence any more, and an agent that the requester refused gets
//! nothing, at every replica.

use reqwest::Method;
use serde_json::{Value, json};

use crate::{
    server::{FILES, Form, IDP, Server, decode_claims, form_with_changes},
    tasks::requester_self_service::{call_api, portal_token, with_portal},
};

/// Runs each test on both stores, at a server with a portal for requesters.
macro_rules! portal_tests {
    ($($name:ident),* $(,)?) => {
        mod sqlite {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $name() {
                super::$name(super::without_consent(crate::support::TestStore::sqlite().await).await).await;
            })*
        }
        mod postgres {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $name() {
                super::$name(super::without_consent(crate::support::TestStore::postgres().await).await).await;
            })*
        }
    };
}

portal_tests!(
    ended_task_ends_its_evidence_for_that_agent,
    evidence_without_token_id_is_known_by_its_text,
    ended_requester_ends_evidence_and_sessions,
    revoked_party_ends_tasks_for_good,
    refused_agent_gets_nothing,
);

/// Starts a server with a portal whose resources need no consent.
async fn without_consent(store: crate::support::TestStore) -> Server {
    let server = with_portal(store).await;
    let edit = |text: String| text.replace("consent = \"required\"\n", "");
    let text = std::fs::read_to_string(server.config_file()).unwrap();
    std::fs::write(server.config_file(), edit(text)).unwrap();
    server.replica().await.stop().await;
    server
}

async fn exchange(at: &Server, agent: &str, form: &Form) -> (u16, Value) {
    let (status, body) = at.request_token_as(agent, form).await;
    (status.as_u16(), body)
}

fn task_of(body: &Value) -> String {
    decode_claims(body["access_token"].as_str().unwrap_or_else(|| panic!("{body}")))["txn"].as_str().unwrap().to_owned()
}

async fn assert_refused(servers: &[&Server], agent: &str, form: &Form, want: &str) {
    for at in servers {
        let (status, body) = exchange(at, agent, form).await;
        assert_eq!((status, &body["error"]), (400, &json!("invalid_request")), "{body}");
        assert!(body["error_description"].as_str().unwrap().contains(want), "{body}");
    }
}

async fn end_task(server: &Server, task: &str, act: &str) {
    let reason = json!({"reason": "for the test"});
    if act == "revoke" {
        let target = json!({"kind": "task", "id": task});
        server.revoke(crate::server::with_changes(target, reason)).await;
        return;
    }
    let (status, body) = server.admin(Method::POST, &format!("/tasks/{task}/{act}"), Some(reason)).await;
    assert_eq!(status, 200, "{body}");
}

const TASK_ENDED: &str = "a task of this agent with this token was ended";

async fn ended_task_ends_its_evidence_for_that_agent(server: Server) {
    let other = server.replica().await;
    let at = [&server, &other];
    let user = || server.user_token(json!({}));
    let join = |token: &str, task: &str| {
        form_with_changes(&server.exchange_form(token), &[("purpose", ""), ("task_id", task)])
    };
    for way in ["revoke", "complete", "fail", "selection", "person"] {
        let (first, second, third) = (user(), user(), user());
        let (status, opened) = exchange(&server, "planner", &server.exchange_form(&first)).await;
        assert_eq!(status, 200, "{opened}");
        let task = task_of(&opened);
        let (status, joined) = exchange(&server, "planner", &join(&second, &task)).await;
        assert_eq!(status, 200, "{joined}");
        let (status, another) = exchange(&server, "planner", &server.exchange_form(&third)).await;
        assert_eq!(status, 200, "{another}");
        let reason = json!("for the test");
        match way {
            "selection" => {
                let ids = json!({"kind": "tasks", "ids": [task], "reason": reason});
                let dry = crate::server::with_changes(ids.clone(), json!({"dry_run": true}));
                let (_, shown) = server.admin(Method::POST, "/revocations", Some(dry)).await;
                let confirmed = crate::server::with_changes(ids, json!({"confirmation": shown["confirmation"]}));
                server.revoke(confirmed).await;
            }
            "person" => {
                let portal = portal_token(&server, json!({}));
                let path = format!("/v1/tasks/{task}/revoke");
                let (status, body) = call_api(&server, &portal, Method::POST, &path, Some(json!({}))).await;
                assert_eq!(status, 200, "{body}");
            }
            act => end_task(&server, &task, act).await,
        }
        for token in [&first, &second] {
            assert_refused(&at, "planner", &server.exchange_form(token), TASK_ENDED).await;
            assert_refused(&at, "planner", &join(token, &task_of(&another)), TASK_ENDED).await;
        }
        // A token that no task of it had goes on, and so does its task.
        assert_eq!(exchange(&other, "planner", &join(&third, &task_of(&another))).await.0, 200, "{way}");
        assert_eq!(exchange(&other, "planner", &server.exchange_form(&user())).await.0, 200, "{way}");
    }
    // An agent that ends its own task goes on with the same session.
    let token = user();
    let task = task_of(&exchange(&server, "planner", &server.exchange_form(&token)).await.1);
    let api = server.api_token("planner", "errand:tasks").await;
    let path = format!("/v1/tasks/{task}/complete");
    let (status, body) = call_api(&server, &api, Method::POST, &path, Some(json!({}))).await;
    assert_eq!(status, 200, "{body}");
    assert_eq!(exchange(&server, "planner", &server.exchange_form(&token)).await.0, 200);
    // Suspending is not ending.
    let task = task_of(&exchange(&server, "planner", &server.exchange_form(&token)).await.1);
    end_task(&server, &task, "suspend").await;
    assert_eq!(exchange(&server, "planner", &server.exchange_form(&token)).await.0, 200);
    // A replica that starts now knows it too, and other agents of the same session go on.
    end_task(&server, &task, "revoke").await;
    let started = server.replica().await;
    assert_refused(&[&started], "planner", &server.exchange_form(&token), TASK_ENDED).await;
    let mine = server.user_token(json!({"jti": decode_claims(&token)["jti"], "client_id": "reader-client"}));
    assert_eq!(exchange(&started, "reader", &server.exchange_form(&mine)).await.0, 200);
    for one in [started, other, server] {
        one.stop().await;
    }
}

async fn evidence_without_token_id_is_known_by_its_text(server: Server) {
    // An `at+jwt` has a `jti`; a plain JWT may have none.
    let (_, issuer) = server.admin(Method::GET, "/issuers", None).await;
    assert_eq!(issuer["items"][0]["body"]["token_types"], json!(["access_token"]));
    let edit =
        |text: String| text.replace("token_types = [\"access_token\"]", "token_types = [\"access_token\", \"jwt\"]");
    let plain = server.restarted(edit).await;
    let user = |sub: &str| {
        let claims = json!({"jti": null, "sub": sub});
        let token = server.idp.sign("JWT", &crate::server::with_changes(server.user_claims(), claims));
        form_with_changes(&server.exchange_form(&token), &[("subject_token_type", crate::server::JWT)])
    };
    let (one, two) = (user("alice"), user("bob"));
    let (status, opened) = exchange(&plain, "planner", &one).await;
    assert_eq!(status, 200, "{opened}");
    end_task(&server, &task_of(&opened), "revoke").await;
    assert_refused(&[&plain], "planner", &one, TASK_ENDED).await;
    assert_eq!(exchange(&plain, "planner", &two).await.0, 200);
    plain.stop().await;
    server.stop().await;
}

async fn ended_requester_ends_evidence_and_sessions(server: Server) {
    let other = server.replica().await;
    let at = [&server, &other];
    let now = Server::now;
    for verb in ["revoke", "block"] {
        let sid = format!("session of {verb}");
        let used = server.user_token(json!({"sid": sid}));
        let portals = [json!({"sid": sid}), json!({"iat": now() - 5})].map(|changes| portal_token(&server, changes));
        assert_eq!(call_api(&server, &portals[0], Method::GET, "/v1/grants", None).await.0, 200);
        let unused = server.user_token(json!({"iat": now() - 5}));
        let bob = server.user_token(json!({"sub": "bob", "iat": now() - 5}));
        for token in [&used, &bob] {
            assert_eq!(exchange(&server, "planner", &server.exchange_form(token)).await.0, 200);
        }
        let alice = json!({"kind": "requester", "issuer": IDP, "subject": "alice", "reason": "for the test"});
        server.revoke(crate::server::with_changes(alice.clone(), json!({"verb": verb}))).await;
        if verb == "block" {
            server.revoke(crate::server::with_changes(alice, json!({"verb": "unblock"}))).await;
        }
        let text = "an admin ended everything of the requester after the token was issued";
        assert_refused(&at, "planner", &server.exchange_form(&used), text).await;
        assert_refused(&at, "planner", &server.exchange_form(&unused), text).await;
        // The requester's own tokens no longer speak for the requester.
        for (portal, at) in portals.iter().flat_map(|portal| at.map(|at| (portal, at))) {
            let (status, body) = call_api(at, portal, Method::GET, "/v1/grants", None).await;
            assert_eq!((status.as_u16(), &body["type"]), (401, &json!("urn:errand:problem:invalid_token")), "{body}");
            assert!(body["detail"].as_str().unwrap().contains("an admin ended"), "{body}");
        }
        // A token that the session got later is of the same session.
        let refreshed = server.user_token(json!({"sid": sid, "iat": now() + 5}));
        assert_refused(&at, "planner", &server.exchange_form(&refreshed), "ended the session of the token").await;
        let mine = server.user_token(json!({"sid": sid, "iat": now() + 5, "client_id": "reader-client"}));
        assert_refused(&at, "reader", &server.exchange_form(&mine), "ended the session of the token").await;
        // After a new sign-in, everything works, as it does for others.
        let fresh = server.user_token(json!({"sid": format!("after {verb}"), "iat": now() + 5}));
        assert_eq!(exchange(&other, "planner", &server.exchange_form(&fresh)).await.0, 200, "{verb}");
        assert_eq!(exchange(&other, "planner", &server.exchange_form(&bob)).await.0, 200, "{verb}");
    }
    other.stop().await;
    server.stop().await;
}

async fn revoked_party_ends_tasks_for_good(server: Server) {
    let other = server.replica().await;
    for target in [
        json!({"kind": "requester", "issuer": IDP, "subject": "alice"}),
        json!({"kind": "agent", "id": "planner"}),
        json!({"kind": "issuer", "id": IDP}),
    ] {
        let fresh = || server.user_token(json!({"iat": Server::now() + 5}));
        let (status, opened) = exchange(&server, "planner", &server.exchange_form(&fresh())).await;
        assert_eq!(status, 200, "{opened}");
        let task = task_of(&opened);
        server.revoke(crate::server::with_changes(target.clone(), json!({"reason": "for the test"}))).await;
        let join = form_with_changes(&server.exchange_form(&fresh()), &[("purpose", ""), ("task_id", &task)]);
        // As if the task had not been ended yet.
        let undo = format!("UPDATE tasks SET state = 'active' WHERE id = '{task}'");
        for is_undone in [false, true] {
            if is_undone {
                server.rewrite_tasks(&undo).await;
            }
            assert_refused(&[&server, &other], "planner", &join, "the task has ended").await;
        }
        // Another task is opened, and joined.
        let (status, opened) = exchange(&other, "planner", &server.exchange_form(&fresh())).await;
        assert_eq!(status, 200, "{target}: {opened}");
        let join =
            form_with_changes(&server.exchange_form(&fresh()), &[("purpose", ""), ("task_id", &task_of(&opened))]);
        assert_eq!(exchange(&other, "planner", &join).await.0, 200, "{target}");
        // The maintenance job ends what was left, and nothing else.
        server.application.service.collect_garbage(&server.cx()).await.unwrap();
        let (_, ended) = server.admin(Method::GET, &format!("/tasks/{task}"), None).await;
        let by = (&ended["state"], &ended["last_transition"]["by"]);
        assert_eq!(by, (&json!("revoked"), &json!("revocation")), "{ended}");
        let (_, alive) = server.admin(Method::GET, &format!("/tasks/{}", task_of(&opened)), None).await;
        assert_eq!(alive["state"], "active");
    }
    other.stop().await;
    server.stop().await;
}

async fn refused_agent_gets_nothing(server: Server) {
    let other = server.replica().await;
    let portal = portal_token(&server, json!({}));
    let call =
        async |method: Method, path: &str, body: Option<Value>| call_api(&server, &portal, method, path, body).await;
    let user = |client: &str| server.exchange_form(&server.user_token(json!({"client_id": client})));
    let root = server.task_token().await;
    let hand_over = server.issue_token("planner", &server.delegation_form(&root, "reader")).await;
    let again = form_with_changes(&server.exchange_form(&hand_over), &[("purpose", "")]);
    let part = server.issue_token("reader", &again).await;
    let own = server.issue_token("reader", &user("reader-client")).await;
    let bob = server.issue_token("planner", &server.exchange_form(&server.user_token(json!({"sub": "bob"})))).await;
    assert_eq!(call(Method::GET, "/v1/grants", None).await.1["refused_agents"], json!([]));

    for query in ["", "?agent=", "?agent=planner&agent=reader", "?agent=planner&all=1"] {
        assert_eq!(call(Method::DELETE, &format!("/v1/grants{query}"), None).await.0, 400, "{query}");
    }
    assert_eq!(call(Method::DELETE, "/v1/grants?agent=unknown", None).await.0, 404);
    // A repeated refusal changes nothing.
    for _ in 0..2 {
        let (status, body) = call(Method::DELETE, "/v1/grants?agent=planner", None).await;
        assert_eq!(status, 204, "{body}");
    }
    for at in [&server, &other] {
        assert!(!at.is_active(&root).await && !at.is_active(&part).await);
        assert!(at.is_active(&own).await && at.is_active(&bob).await);
        assert_refused(&[at], "planner", &user("planner-client"), "the requester refused the agent `planner`").await;
        assert_eq!(at.request_token_as("reader", &again).await.0, 400);
        let to_reader = at.request_token_as("reader", &user("reader-client")).await;
        assert_eq!(to_reader.0, 200, "{}", to_reader.1);
    }
    let task = decode_claims(&root)["txn"].as_str().unwrap().to_owned();
    assert_eq!(call(Method::GET, &format!("/v1/tasks/{task}"), None).await.1["state"], "revoked");
    assert_eq!(call(Method::GET, "/v1/grants", None).await.1["refused_agents"], json!(["planner"]));
    // An admin does not lift the refusal, by a grant or in an emergency.
    let details =
        json!([{"type": "mcp_tool", "locations": [FILES], "actions": ["tools/call"], "identifier": "read_file"}]);
    let until = crate::grants::consent::expiry_in(600);
    let grant = json!({"issuer": IDP, "subject": "alice", "agent": "planner", "authorization_details": details});
    let with = |changes: Value| crate::server::with_changes(grant.clone(), changes);
    for (path, body) in
        [("/grants", with(json!({"until": until}))), ("/break-glass", with(json!({"reason": "for the test"})))]
    {
        let (status, answer) = server.admin(Method::POST, path, Some(body)).await;
        assert_eq!(status, 422, "{answer}");
        assert!(answer["detail"].as_str().unwrap().contains("the requester refused this agent"), "{answer}");
    }
    // The requester does, also at a replica that starts now; what was ended stays ended.
    let started = server.replica().await;
    assert_refused(&[&started], "planner", &user("planner-client"), "refused the agent").await;
    let body = json!({"agent": "planner", "authorization_details": details, "until": until});
    let (status, made) = call(Method::POST, "/v1/grants", Some(body)).await;
    assert_eq!(status, 201, "{made}");
    for at in [&server, &other, &started] {
        assert_eq!(exchange(at, "planner", &user("planner-client")).await.0, 200);
        assert!(!at.is_active(&root).await);
    }
    assert_eq!(call(Method::GET, "/v1/grants", None).await.1["refused_agents"], json!([]));
    for one in [started, other, server] {
        one.stop().await;
    }
}
