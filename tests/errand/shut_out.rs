//! Somebody is shut out, or held back, by an admin: also who stands in the file, at every replica, at once, and for as
//! long as nobody lets them in.

use reqwest::Method;
use serde_json::{Value, json};

use crate::server::{FILES, IDP, Server, changed_form, claims, form};

on_both_stores!(
    an_agent_of_the_file_is_disabled,
    a_requester_is_disabled,
    a_resource_and_an_issuer_and_an_admin,
    an_agent_is_held_back,
    a_task_is_held_back_from_here,
    one_after_the_other,
    what_may_not_be,
    together_or_not_at_all,
    a_request_that_comes_again,
    nothing_slips_through,
);

/// What this admin call is answered.
async fn act(server: &Server, body: Value) -> (u16, Value) {
    let mut body = body;
    body["reason"] = json!("for the test");
    let (status, answer) = server.admin(Method::POST, "/revocations", Some(body)).await;
    (status.as_u16(), answer)
}

async fn done(server: &Server, body: Value) -> Value {
    let (status, answer) = act(server, body.clone()).await;
    assert_eq!(status, 200, "{body}: {answer}");
    answer
}

/// What an exchange of a fresh user token of this person by the planner is answered.
async fn exchange(server: &Server, sub: &str) -> (u16, Value) {
    let user = server.user_token(json!({"sub": sub}));
    let (status, body) = server.token_as("planner", &server.exchange_form(&user)).await;
    (status.as_u16(), body)
}

async fn gets_one(server: &Server, sub: &str) -> bool {
    let (status, body) = exchange(server, sub).await;
    assert!(status == 200 || body["error"].is_string(), "{body}");
    status == 200
}

fn requester(sub: &str, changes: Value) -> Value {
    crate::server::changed(json!({"kind": "requester", "issuer": IDP, "subject": sub}), changes)
}

fn agent(id: &str, changes: Value) -> Value {
    crate::server::changed(json!({"kind": "agent", "id": id}), changes)
}

async fn an_agent_of_the_file_is_disabled(server: Server) {
    let other = server.replica().await;
    let root = server.task_token().await;
    let hand_over = server.issued("planner", &server.hand_over_form(&root, "reader")).await;
    let part = server.issued("reader", &changed_form(&server.exchange_form(&hand_over), &[("purpose", "")])).await;
    let api = server.api_token("reader", "errand:tasks").await;
    let answer = done(&server, agent("reader", json!({"disable": true}))).await;
    assert_eq!((&answer["kind"], &answer["key"]), (&json!("agent"), &json!("reader")));
    for at in [&other, &server] {
        assert!(!at.is_live(&part).await && at.is_live(&root).await);
        let (status, body) = at.token_as("reader", &at.exchange_form(&hand_over)).await;
        assert_eq!((status.as_u16(), &body["error"]), (401, &json!("invalid_client")));
        let path = format!("/v1/tasks/{}", claims(&root)["txn"].as_str().unwrap());
        assert_eq!(at.request(Method::GET, &path).bearer_auth(&api).send().await.unwrap().status(), 401);
    }
    // Nothing is handed to who is out.
    let (status, body) = server.token_as("planner", &server.hand_over_form(&root, "reader")).await;
    assert_eq!((status.as_u16(), &body["error"]), (400, &json!("invalid_target")));

    // The file is applied again at every start, and says nothing of this.
    let started = server.replica().await;
    assert_eq!(started.token_as("reader", &started.exchange_form(&hand_over)).await.0, 401);
    let (_, view) = started.admin(Method::GET, "/agents/reader", None).await;
    assert_eq!((&view["owner"], &view["body"]["disabled"]), (&json!("file"), &json!(false)));
    let out = &view["shut_out"];
    assert_eq!(
        (&out["how"], &out["by"], &out["reason"]),
        (&json!("disabled"), &json!("admin:ops"), &json!("for the test"))
    );
    let (_, list) = started.admin(Method::GET, "/shut-out", None).await;
    assert_eq!(list["items"], json!([out]), "{list}");
    let (_, all) = started.admin(Method::GET, "/agents", None).await;
    let views = all["items"].as_array().unwrap().iter().filter(|view| view["shut_out"].is_object()).count();
    assert_eq!(views, 1, "{all}");

    done(&started, agent("reader", json!({"verb": "enable"}))).await;
    for at in [&other, &server, &started] {
        assert!(!at.is_live(&part).await, "what was ended stays ended");
        let api_again = at.request(Method::GET, "/v1/tasks/x").bearer_auth(&api).send().await.unwrap();
        assert_eq!(api_again.status(), 401);
    }
    let (_, list) = other.admin(Method::GET, "/shut-out", None).await;
    assert_eq!(list["items"], json!([]));
    let hand_over = server.issued("planner", &server.hand_over_form(&root, "reader")).await;
    let fresh = server.issued("reader", &changed_form(&server.exchange_form(&hand_over), &[("purpose", "")])).await;
    assert!(other.is_live(&fresh).await, "and it works again");
    for at in [started, other, server] {
        at.stop().await;
    }
}

async fn a_requester_is_disabled(server: Server) {
    let other = server.replica().await;
    let (alice, bob) = (server.task_token().await, exchange(&server, "bob").await.1);
    let bob = bob["access_token"].as_str().unwrap();
    done(&server, requester("alice", json!({"disable": true}))).await;
    for at in [&other, &server] {
        assert!(!at.is_live(&alice).await && at.is_live(bob).await);
        let (status, body) = exchange(at, "alice").await;
        assert_eq!((status, &body["error"]), (400, &json!("invalid_request")), "{body}");
        assert!(body["error_description"].as_str().unwrap().contains("requester is disabled"), "{body}");
        assert!(gets_one(at, "bob").await && gets_one(at, "alic").await);
    }
    let started = server.replica().await;
    assert!(!gets_one(&started, "alice").await);
    done(&other, requester("alice", json!({"verb": "enable"}))).await;
    assert!(gets_one(&started, "alice").await && gets_one(&server, "alice").await);
    assert!(!server.is_live(&alice).await);
    for at in [started, other, server] {
        at.stop().await;
    }
}

async fn a_resource_and_an_issuer_and_an_admin(server: Server) {
    for body in [
        json!({"kind": "resource", "id": "files"}),
        json!({"kind": "resource", "uri": FILES}),
        json!({"kind": "issuer", "id": IDP}),
    ] {
        let token = server.task_token().await;
        done(&server, crate::server::changed(body.clone(), json!({"disable": true}))).await;
        assert!(!gets_one(&server, "alice").await, "{body}");
        done(&server, crate::server::changed(body.clone(), json!({"verb": "enable"}))).await;
        assert!(gets_one(&server, "alice").await, "{body}");
        assert!(!server.is_live(&token).await, "{body}");
    }
    let api = server.api_token("audit", "errand:audit").await;
    done(&server, agent("audit", json!({"disable": true}))).await;
    assert_eq!(server.admin_with(&api, Method::GET, "/agents", None).await.0, 401);
    let asked = form(&[("grant_type", "client_credentials")]);
    assert_eq!(server.token_as("audit", &asked).await.0, 401);
    done(&server, agent("audit", json!({"verb": "enable"}))).await;
    assert_eq!(server.token_as("audit", &asked).await.0, 200);
    server.stop().await;
}

async fn an_agent_is_held_back(server: Server) {
    let other = server.replica().await;
    let root = server.task_token().await;
    let hand_over = server.issued("planner", &server.hand_over_form(&root, "reader")).await;
    let again = changed_form(&server.exchange_form(&hand_over), &[("purpose", "")]);
    let part = server.issued("reader", &again).await;
    done(&server, agent("planner", json!({"verb": "suspend"}))).await;
    for at in [&other, &server] {
        assert!(!at.is_live(&root).await && !at.is_live(&part).await, "in the chain, at whatever place");
        assert!(!gets_one(at, "alice").await);
        assert_eq!(at.token_as("reader", &again).await.0, 400, "nothing is derived from it");
    }
    // Whoever starts now knows.
    let started = server.replica().await;
    assert!(!started.is_live(&root).await && !gets_one(&started, "alice").await);
    let path = format!("/tasks/{}", claims(&root)["txn"].as_str().unwrap());
    let (_, tree) = started.admin(Method::GET, &path, None).await;
    assert_eq!(tree["tokens"][0]["standing"], "suspended", "{tree}");
    let (_, list) = started.admin(Method::GET, "/revocations", None).await;
    assert_eq!((&list["items"][0]["verb"], &list["items"][0]["kind"]), (&json!("suspend"), &json!("agent")));
    done(&started, agent("planner", json!({"verb": "resume"}))).await;
    for at in [&other, &server, &started] {
        assert!(at.is_live(&root).await && at.is_live(&part).await, "the very same tokens");
        assert!(gets_one(at, "alice").await);
    }
    let last = server.replica().await;
    assert!(last.is_live(&root).await, "the last word counts at a start too");
    for at in [last, started, other, server] {
        at.stop().await;
    }
}

async fn a_task_is_held_back_from_here(server: Server) {
    let token = server.task_token().await;
    let task = json!({"kind": "task", "id": claims(&token)["txn"]});
    let with = |verb: &str| crate::server::changed(task.clone(), json!({"verb": verb}));
    for (verb, status, live) in [
        ("resume", 409, true),
        ("suspend", 200, false),
        ("suspend", 409, false),
        ("resume", 200, true),
        ("suspend", 200, false),
        ("revoke", 200, false),
        ("resume", 409, false),
    ] {
        let (got, answer) = act(&server, with(verb)).await;
        assert_eq!((got, server.is_live(&token).await), (status, live), "{verb}: {answer}");
        if status == 409 {
            assert_eq!(answer["type"], "urn:errand:problem:wrong_state");
            assert!(answer["state"].is_string(), "{answer}");
        }
    }
    let path = format!("/tasks/{}/trail", task["id"].as_str().unwrap());
    let (_, trail) = server.admin(Method::GET, &path, None).await;
    let texts = trail["steps"].as_array().unwrap().iter().map(|step| step["text"].as_str().unwrap());
    let count = |what: &str| texts.clone().filter(|text| text.contains(what)).count();
    assert_eq!((count("admin:ops suspended the task"), count("admin:ops resumed the task")), (2, 1), "{trail}");
    server.stop().await;
}

async fn one_after_the_other(server: Server) {
    // What is said, whether it is done, and whether the first token and a fresh one work then.
    let first = server.task_token().await;
    for (changes, status, old_works, new_works) in [
        (json!({"verb": "enable"}), 409, true, true),
        (json!({"verb": "resume"}), 409, true, true),
        (json!({"verb": "suspend"}), 200, false, false),
        (json!({"verb": "suspend"}), 409, false, false),
        (json!({"verb": "enable"}), 409, false, false),
        (json!({"disable": true}), 200, false, false),
        (json!({"verb": "resume"}), 409, false, false),
        (json!({"verb": "suspend"}), 409, false, false),
        (json!({"disable": true}), 200, false, false),
        (json!({"verb": "enable"}), 200, false, true),
        (json!({"verb": "suspend"}), 200, false, false),
        (json!({"verb": "revoke"}), 200, false, false),
        (json!({"verb": "resume"}), 200, false, true),
    ] {
        let (got, answer) = act(&server, agent("planner", changes.clone())).await;
        assert_eq!(got, status, "{changes}: {answer}");
        let started = server.replica().await;
        for at in [&server, &started] {
            let works = (at.is_live(&first).await, gets_one(at, "alice").await);
            assert_eq!(works, (old_works, new_works), "{changes}");
        }
        started.stop().await;
    }
    server.stop().await;
}

async fn what_may_not_be(server: Server) {
    let token = claims(&server.task_token().await);
    for (body, status, says) in [
        (agent("nobody", json!({"disable": true})), 404, "agent"),
        (agent("nobody", json!({"verb": "suspend"})), 404, "agent"),
        (agent("nobody", json!({"verb": "enable"})), 404, "agent"),
        (agent("files", json!({"disable": true})), 400, "resource"),
        (agent("files", json!({"verb": "suspend"})), 400, "only tasks and agents"),
        (agent("ops", json!({"verb": "suspend"})), 400, "only tasks and agents"),
        (json!({"kind": "resource", "id": "files", "verb": "suspend"}), 400, "only tasks and agents"),
        (json!({"kind": "resource", "id": "planner", "disable": true}), 404, "resource"),
        (json!({"kind": "resource", "uri": "https://files.example.com", "disable": true}), 404, "resource"),
        (json!({"kind": "issuer", "id": "https://login.example.org", "disable": true}), 404, "issuer"),
        (requester("alice", json!({"issuer": "https://login.example.org", "disable": true})), 404, "issuer"),
        (requester("alice", json!({"verb": "suspend"})), 400, "only tasks and agents"),
        (requester("alice", json!({"verb": "enable"})), 409, "no admin has disabled"),
        (json!({"kind": "token", "id": token["jti"], "disable": true}), 400, "revoke them"),
        (json!({"kind": "token", "id": token["jti"], "verb": "suspend"}), 400, "only tasks and agents"),
        (json!({"kind": "task", "id": token["txn"], "disable": true}), 400, "revoke them"),
        (json!({"kind": "task", "id": token["txn"], "verb": "enable"}), 400, "revoke them"),
        (agent("planner", json!({"verb": "enable", "disable": true})), 400, "verb `revoke`"),
        (agent("planner", json!({"verb": "erase"})), 400, "expected"),
        (agent("planner", json!({"disable": "yes"})), 400, "boolean"),
        (agent("planner", json!({"disabled": true})), 400, "expected `id`"),
        (json!({"id": "planner"}), 400, "kind"),
        (json!({"kind": "registry"}), 400, "expected"),
    ] {
        let (got, answer) = act(&server, body.clone()).await;
        assert_eq!(got, status, "{body}: {answer}");
        assert!(answer["detail"].as_str().unwrap().contains(says), "{body}: {answer}");
    }
    let reader = server.api_token("audit", "errand:audit").await;
    let body = agent("planner", json!({"disable": true, "reason": "x"}));
    assert_eq!(server.admin_with(&reader, Method::POST, "/revocations", Some(body)).await.0, 403);
    assert_eq!(server.admin_with(&reader, Method::GET, "/shut-out", None).await.0, 200);
    let without_reason = agent("planner", json!({"disable": true}));
    assert_eq!(server.admin(Method::POST, "/revocations", Some(without_reason)).await.0, 400);
    assert!(gets_one(&server, "alice").await);
    server.stop().await;
}

async fn together_or_not_at_all(server: Server) {
    let before = server.admin(Method::GET, "/revocations", None).await.1["items"].as_array().unwrap().len();
    let answer = done(&server, agent("reader", json!({"disable": true}))).await;
    let (_, list) = server.admin(Method::GET, "/revocations", None).await;
    assert_eq!(list["items"].as_array().unwrap().len(), before + 1, "{list}");
    let entry = &list["items"][0];
    assert_eq!((&entry["kind"], &entry["key"], &entry["verb"]), (&json!("agent"), &json!("reader"), &json!("revoke")));
    assert_eq!(entry["seq"].as_u64().unwrap() + 1, answer["seq"].as_u64().unwrap(), "with the change of the registry");
    let (_, trail) = server.admin(Method::GET, "/audit?event=revocation&agent=reader", None).await;
    let record = &trail["items"][0]["chained"]["record"];
    assert_eq!(record["asked"], json!({"kind": "agent", "key": "reader", "verb": "disable"}));
    assert_eq!((&record["admin"], &record["outcome"]), (&json!("admin:ops"), &json!("done")));
    // An object that is removed and put again has the name of somebody who is out.
    let guest = json!({"id": "guest", "authentication": {"method": "client_secret_basic"}});
    assert_eq!(server.admin(Method::PUT, "/agents/guest", Some(guest.clone())).await.0, 201);
    done(&server, agent("guest", json!({"disable": true}))).await;
    assert_eq!(server.admin(Method::DELETE, "/agents/guest", None).await.0, 204);
    assert_eq!(act(&server, agent("guest", json!({"disable": true}))).await.0, 404);
    let (status, put) = server.admin(Method::PUT, "/agents/guest", Some(guest)).await;
    assert_eq!((status.as_u16(), &put["shut_out"]["how"]), (201, &json!("disabled")), "{put}");
    assert_eq!(server.admin(Method::DELETE, "/agents/guest", None).await.0, 204);
    done(&server, agent("guest", json!({"verb": "enable"}))).await;
    server.stop().await;
}

async fn a_request_that_comes_again(server: Server) {
    let other = server.replica().await;
    let api = server.api_token("ops", "errand:admin").await;
    let send = async |at: &Server, key: &str, body: Value| {
        let request = at.post("/v1/admin/revocations").bearer_auth(&api).header("idempotency-key", key);
        let (status, body) = crate::server::read(request.json(&body).send().await.unwrap()).await;
        (status.as_u16(), body)
    };
    let body = |changes| crate::server::changed(agent("reader", changes), json!({"reason": "once"}));
    let suspend = body(json!({"verb": "suspend"}));
    let first = send(&server, "k", suspend.clone()).await;
    assert_eq!(first.0, 200, "{first:?}");
    assert_eq!(send(&other, "k", suspend.clone()).await, first, "the same answer, although it is suspended already");
    assert_eq!(send(&other, "k", body(json!({"verb": "resume"}))).await.0, 422);
    assert_eq!(send(&other, "k2", body(json!({"verb": "resume"}))).await.0, 200);
    assert_eq!(send(&server, "k", suspend).await, first, "and it suspends nobody again");
    let (_, list) = server.admin(Method::GET, "/shut-out", None).await;
    assert_eq!(list["items"], json!([]));
    other.stop().await;
    server.stop().await;
}

/// Exchanges run at both replicas while a requester and an agent are disabled: what was issued before or meanwhile is dead.
async fn nothing_slips_through(server: Server) {
    let other = server.replica().await;
    for body in [requester("alice", json!({"disable": true})), agent("planner", json!({"disable": true}))] {
        let user = server.user_token(json!({}));
        let many = (0..24).map(|n| {
            let at = if n % 2 == 0 { &server } else { &other };
            let form = at.exchange_form(&user);
            async move { at.token_as("planner", &form).await.1["access_token"].as_str().map(str::to_owned) }
        });
        let shut = async {
            tokio::time::sleep(std::time::Duration::from_millis(3)).await;
            done(&server, body.clone()).await
        };
        let (issued, _) = tokio::join!(futures_util::future::join_all(many), shut);
        for token in issued.into_iter().flatten() {
            assert!(!server.is_live(&token).await && !other.is_live(&token).await, "{body}");
        }
        assert!(!gets_one(&other, "alice").await);
        let lifted = crate::server::changed(body, json!({"disable": null, "verb": "enable"}));
        done(&server, lifted).await;
    }
    other.stop().await;
    server.stop().await;
}
