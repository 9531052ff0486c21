//! Changes of many tasks: a dry run shows the effect, and only the tasks that it showed can be
//! changed, by the same admin.

use reqwest::Method;
use serde_json::{Value, json};

use crate::server::{
    FILES, IDP, Server, decode_claims, form_with_changes, read_response, with_changes, without_propagation,
};

on_both_stores!(
    dry_run_reports_affected_tokens,
    confirmed_selection_is_ended,
    suspended_selection_can_be_resumed,
    confirmation_is_bound_to_its_request,
    later_tasks_are_not_affected,
    changed_selection_is_rejected,
    later_suspension_is_kept,
    transitioning_task_stays_in_selection,
    concurrent_task_creation_does_not_block_bulk_end,
    repeated_bulk_request_is_idempotent,
    invalid_selection_is_rejected,
);

async fn send_revocation(server: &Server, body: Value) -> (u16, Value) {
    let (status, answer) = server.admin(Method::POST, "/revocations", Some(with_reason(body))).await;
    (status.as_u16(), answer)
}

fn with_reason(body: Value) -> Value {
    if body["reason"].is_null() { with_changes(body, json!({"reason": "for the test"})) } else { body }
}

async fn dry_run(server: &Server, body: &Value) -> Value {
    let (status, answer) = send_revocation(server, with_changes(body.clone(), json!({"dry_run": true}))).await;
    assert_eq!(
        (status, &answer["dry_run"], &answer["complete"]),
        (200, &json!(true), &json!(true)),
        "{body}: {answer}"
    );
    answer
}

fn with_confirmation(body: &Value, dry: &Value) -> Value {
    with_changes(body.clone(), json!({"confirmation": dry["confirmation"]}))
}

fn counts(answer: &Value) -> (u64, u64, u64) {
    let number = |name: &str| answer[name].as_u64().unwrap();
    (number("tokens"), number("tasks"), number("agents"))
}

async fn state(server: &Server, token: &str) -> String {
    let path = format!("/tasks/{}", decode_claims(token)["txn"].as_str().unwrap());
    server.admin(Method::GET, &path, None).await.1["state"].as_str().unwrap().to_owned()
}

/// Issues a token of the planner on behalf of bob, with a part delegated to the reader, and a token
/// on behalf of alice.
async fn open_three_tasks(server: &Server) -> (String, String, String) {
    let bob = server.issue_token("planner", &server.exchange_form(&server.user_token(json!({"sub": "bob"})))).await;
    let hand_over = server.issue_token("planner", &server.delegation_form(&bob, "reader")).await;
    let part =
        server.issue_token("reader", &form_with_changes(&server.exchange_form(&hand_over), &[("purpose", "")])).await;
    (bob, part, server.task_token().await)
}

async fn dry_run_reports_affected_tokens(server: Server) {
    let (bob, part, alice) = open_three_tasks(&server).await;
    let api = server.api_token("reader", "errand:tasks").await;
    let of_api = json!({"kind": "token", "id": decode_claims(&api)["jti"]});
    for (body, want) in [
        // bob's token, the delegation token, the delegated part.
        (json!({"kind": "task", "id": decode_claims(&bob)["txn"]}), (3, 1, 2)),
        (json!({"kind": "token", "id": decode_claims(&bob)["jti"]}), (3, 1, 2)),
        (json!({"kind": "token", "id": decode_claims(&part)["jti"]}), (1, 1, 2)),
        (json!({"kind": "requester", "issuer": IDP, "subject": "bob"}), (3, 1, 2)),
        (json!({"kind": "requester", "issuer": IDP, "subject": "bob", "verb": "block"}), (3, 1, 2)),
        (json!({"kind": "requester", "issuer": IDP, "subject": "carol"}), (0, 0, 0)),
        (json!({"kind": "agent", "id": "planner"}), (4, 2, 2)),
        // The delegated part and the API token. The record of the delegation token does not name
        // the reader.
        (json!({"kind": "agent", "id": "reader"}), (2, 1, 2)),
        (json!({"kind": "agent", "id": "reader", "verb": "block"}), (2, 1, 2)),
        (json!({"kind": "agent", "id": "reader", "verb": "suspend"}), (2, 1, 2)),
        (json!({"kind": "resource", "id": "files"}), (4, 2, 2)),
        (json!({"kind": "resource", "uri": FILES}), (4, 2, 2)),
        (json!({"kind": "resource", "id": "notes"}), (0, 0, 0)),
        (json!({"kind": "issuer", "id": IDP}), (4, 2, 2)),
        (of_api, (1, 0, 1)),
        (json!({"kind": "tasks", "ids": [decode_claims(&bob)["txn"], decode_claims(&alice)["txn"]]}), (4, 2, 2)),
        (json!({"kind": "tasks", "issuer": IDP, "subject": "alice"}), (1, 1, 1)),
    ] {
        let answer = dry_run(&server, &body).await;
        assert_eq!(counts(&answer), want, "{body}: {answer}");
        assert_eq!(answer["sample"]["tokens"].as_array().unwrap().len() as u64, want.0.min(10));
        assert_eq!(answer["sample"]["tasks"].as_array().unwrap().len() as u64, want.1);
        assert_eq!(answer["confirmation"].is_string(), body["kind"] == "tasks", "{answer}");
        assert!(!answer["sample"].to_string().contains("eyJ"), "the sample contains no token");
    }
    // A dry run ends no token and writes no record.
    for token in [&bob, &part, &alice] {
        assert!(server.is_active(token).await);
    }
    let (_, list) = server.admin(Method::GET, "/revocations", None).await;
    assert_eq!(list["items"], json!([]));
    // Tokens that have ended are not counted, and the sample is limited.
    server.revoke(json!({"kind": "task", "id": decode_claims(&bob)["txn"], "reason": "x"})).await;
    assert_eq!(counts(&dry_run(&server, &json!({"kind": "agent", "id": "planner"})).await), (1, 1, 1));
    for _ in 0..11 {
        server.task_token().await;
    }
    let many = dry_run(&server, &json!({"kind": "agent", "id": "planner"})).await;
    assert_eq!(counts(&many), (12, 12, 1));
    assert_eq!(
        (many["sample"]["tokens"].as_array().unwrap().len(), many["sample"]["tasks"].as_array().unwrap().len()),
        (10, 10)
    );
    for body in [
        json!({"kind": "agent", "id": "planner", "verb": "unblock", "dry_run": true}),
        json!({"kind": "agent", "id": "planner", "dry_run": true, "confirmation": "x"}),
    ] {
        assert_eq!(send_revocation(&server, body.clone()).await.0, 400, "{body}");
    }
    server.stop().await;
}

async fn confirmed_selection_is_ended(server: Server) {
    let other = server.replica().await;
    let (bob, part, alice) = open_three_tasks(&server).await;
    let body = json!({"kind": "tasks", "agent": "planner", "issuer": IDP, "subject": "bob"});
    let (status, answer) = send_revocation(&server, body.clone()).await;
    assert_eq!((status, &answer["type"]), (409, &json!("urn:errand:problem:confirmation_required")), "{answer}");
    assert!(server.is_active(&bob).await);
    let found = dry_run(&other, &body).await;
    assert_eq!(counts(&found), (3, 1, 2));
    let (status, answer) = send_revocation(&server, with_confirmation(&body, &found)).await;
    assert_eq!((status, &answer["tasks"], &answer["kind"]), (200, &json!(1), &json!("tasks")), "{answer}");
    for at in [&other, &server] {
        assert!(!at.is_active(&bob).await && !at.is_active(&part).await && at.is_active(&alice).await);
    }
    assert_eq!((state(&server, &bob).await, state(&server, &alice).await), ("revoked".into(), "active".into()));
    let path = format!("/audit?event=revocation&task={}", decode_claims(&bob)["txn"].as_str().unwrap());
    let (_, trail) = server.admin(Method::GET, &path, None).await;
    let record = &trail["items"][0]["record"];
    assert_eq!((&record["admin"], &record["reason"]), (&json!("admin:ops"), &json!("for the test")), "{trail}");
    let (_, trail) = server.admin(Method::GET, "/audit?event=revocation", None).await;
    let records = trail["items"].as_array().unwrap().iter().map(|item| &item["record"]);
    let whole = records.clone().find(|record| record["granted"]["tasks"] == 1).unwrap_or_else(|| panic!("{trail}"));
    assert_eq!(whole["requested"]["selection"]["requester"], json!([IDP, "bob"]));
    // Filters by resource, age and ids end exactly the matching tasks.
    let from = |answer: &Value| answer["items"][0]["created"].clone();
    let created = from(&server.admin(Method::GET, "/tasks?state=active", None).await.1);
    for (body, want) in [
        (json!({"kind": "tasks", "resource": "https://notes.example.com/mcp"}), 0),
        (json!({"kind": "tasks", "opened_before": created}), 0),
        (json!({"kind": "tasks", "opened_from": created, "agent": "reader"}), 0),
        (json!({"kind": "tasks", "state": "suspended"}), 0),
        (json!({"kind": "tasks", "ids": [decode_claims(&bob)["txn"]]}), 0),
        (json!({"kind": "tasks", "resource": FILES, "opened_from": created, "agent": "planner"}), 1),
    ] {
        let found = dry_run(&server, &body).await;
        assert_eq!(found["tasks"], want, "{body}: {found}");
        let (status, answer) = send_revocation(&other, with_confirmation(&body, &found)).await;
        assert_eq!((status, &answer["tasks"]), (200, &json!(want)), "{body}: {answer}");
        assert_eq!(server.is_active(&alice).await, want == 0, "{body}");
    }
    other.stop().await;
    server.stop().await;
}

async fn suspended_selection_can_be_resumed(server: Server) {
    let (bob, part, alice) = open_three_tasks(&server).await;
    for (verb, tokens, live) in [("suspend", 4, false), ("resume", 4, true), ("resume", 0, true), ("revoke", 4, false)]
    {
        let body = json!({"kind": "tasks", "agent": "planner", "verb": verb});
        let found = dry_run(&server, &body).await;
        assert_eq!(found["tokens"], tokens, "{verb}: {found}");
        let (status, answer) = send_revocation(&server, with_confirmation(&body, &found)).await;
        assert_eq!(status, 200, "{verb}: {answer}");
        for token in [&bob, &part, &alice] {
            assert_eq!(server.is_active(token).await, live, "{verb}");
        }
    }
    server.stop().await;
}

async fn confirmation_is_bound_to_its_request(server: Server) {
    let (bob, _, alice) = open_three_tasks(&server).await;
    let boss = json!({"id": "boss", "role": "operator", "authentication": {"method": "client_secret_basic"}});
    assert_eq!(server.admin(Method::PUT, "/admins/boss", Some(boss)).await.0, 201);
    let (_, made) = server.admin(Method::POST, "/clients/boss/secret", None).await;
    let api = server.http.post(format!("{}/oauth2/token", server.url));
    let api = api.basic_auth("boss", made["client_secret"].as_str()).form(&[("grant_type", "client_credentials")]);
    let (_, api) = read_response(api.send().await.unwrap()).await;
    let body = json!({"kind": "tasks", "issuer": IDP, "subject": "bob"});
    let found = dry_run(&server, &body).await;
    let good = with_confirmation(&body, &found);
    let text = found["confirmation"].as_str().unwrap();
    let parts = text.split('.').collect::<Vec<_>>();
    let forged = |n: usize, part: &str| {
        let mut parts = parts.clone();
        parts[n] = part;
        json!(parts.join("."))
    };
    let (more, later, next_year) = ("AAAAAAAAAAA", "1999999999", "1999999999");
    for changes in [
        json!({"subject": "alice"}),
        json!({"agent": "planner"}),
        json!({"subject": null, "issuer": null, "agent": "planner"}),
        json!({"verb": "suspend"}),
        json!({"state": "active"}),
        json!({"subject": null, "issuer": null, "ids": [decode_claims(&bob)["txn"]]}),
        json!({"confirmation": forged(0, later)}),
        json!({"confirmation": forged(1, more)}),
        json!({"confirmation": forged(1, "")}),
        json!({"confirmation": forged(2, next_year)}),
        json!({"confirmation": forged(3, "AAAA")}),
        json!({"confirmation": forged(3, "")}),
        json!({"confirmation": forged(4, "AAAA")}),
        json!({"confirmation": forged(4, "")}),
        json!({"confirmation": format!("{text}.1")}),
        json!({"confirmation": format!("{text}=")}),
        json!({"confirmation": text[..text.len() - 2].to_owned()}),
        json!({"confirmation": ""}),
        json!({"confirmation": "🦀.1.2.3"}),
        json!({"confirmation": "-1.-1.-1.AAAA"}),
        json!({"confirmation": "a".repeat(9000)}),
    ] {
        let (status, answer) = send_revocation(&server, with_changes(good.clone(), changes.clone())).await;
        assert_eq!(
            (status, &answer["type"]),
            (409, &json!("urn:errand:problem:confirmation_required")),
            "{changes}: {answer}"
        );
    }
    let other_admin = api["access_token"].as_str().unwrap();
    let (status, answer) =
        server.admin_with(other_admin, Method::POST, "/revocations", Some(with_reason(good.clone()))).await;
    assert_eq!(
        (status.as_u16(), &answer["type"]),
        (409, &json!("urn:errand:problem:confirmation_required")),
        "{answer}"
    );
    assert!(server.is_active(&bob).await && server.is_active(&alice).await);
    // Refused requests are recorded too.
    let (_, trail) = server.admin(Method::GET, "/audit?event=revocation&outcome=refused", None).await;
    assert!(trail["items"].as_array().unwrap().len() > 10, "{trail}");

    // The confirmation expires: the same service, five minutes later.
    confirm_too_late(&server, &good).await;
    assert!(server.is_active(&bob).await);
    assert_eq!(send_revocation(&server, good).await.0, 200);
    assert!(!server.is_active(&bob).await && server.is_active(&alice).await);
    server.stop().await;
}

/// Calls the use-case directly, at another time.
async fn confirm_too_late(server: &Server, good: &Value) {
    use errand::{
        app::{AdminAction, BulkTaskAction, ConflictError, Error, RequestContext, Selection},
        domain::{registry::client::ADMIN_SCOPE, secret::Secret, time::Lifetime},
        ports::TaskFilter,
    };
    let bearer = Secret::new(server.api_token("ops", "errand:admin").await);
    let admin = server.application.service.authorize(&bearer, &[ADMIN_SCOPE], "x", &server.cx()).await.unwrap();
    let requester = Some((IDP.parse().unwrap(), "bob".to_owned()));
    let bulk = BulkTaskAction {
        selection: Selection::Matching(TaskFilter { requester, ..TaskFilter::default() }),
        action: AdminAction::Revoke,
        reason: "for the test".parse().unwrap(),
        confirmation: good["confirmation"].as_str().map(str::to_owned),
    };
    let later = RequestContext { now: server.cx().now.saturating_add(Lifetime::seconds(301)), ..server.cx() };
    let refused = server.application.service.transition_tasks(&admin, &bulk, None, &later).await.unwrap_err();
    assert!(
        matches!(&refused, Error::Conflict(ConflictError::ConfirmationRequired(text)) if text.contains("expired")),
        "{refused:?}"
    );
}

/// A task that is suspended and resumed during the selection is selected.
async fn transitioning_task_stays_in_selection(server: Server) {
    let api = server.api_token("ops", "errand:admin").await;
    for n in 0..60 {
        let person = format!("bob-{n}");
        let token =
            server.issue_token("planner", &server.exchange_form(&server.user_token(json!({"sub": person})))).await;
        let task = decode_claims(&token)["txn"].as_str().unwrap().to_owned();
        let is_over = std::sync::atomic::AtomicBool::new(false);
        let turns = async {
            for act in ["suspend", "resume"].into_iter().cycle() {
                if is_over.load(std::sync::atomic::Ordering::SeqCst) {
                    break;
                }
                let body = Some(json!({"reason": "x"}));
                server.admin_with(&api, Method::POST, &format!("/tasks/{task}/{act}"), body).await;
            }
        };
        let ends = async {
            let body = json!({"kind": "tasks", "issuer": IDP, "subject": person, "reason": "for the test"});
            let confirmation = loop {
                let dry = with_changes(body.clone(), json!({"dry_run": true}));
                let (_, found) = server.admin_with(&api, Method::POST, "/revocations", Some(dry)).await;
                if found["tasks"] == 1 {
                    break found["confirmation"].clone();
                }
            };
            let confirmed = with_changes(body, json!({"confirmation": confirmation}));
            loop {
                let confirmed = Some(confirmed.clone());
                let (status, answer) = server.admin_with(&api, Method::POST, "/revocations", confirmed).await;
                // The task may have changed its state once more meanwhile.
                if status == 200 {
                    break assert_eq!(answer["tasks"], 1, "it was there all the time: {answer}");
                }
                assert_eq!(status, 409, "{answer}");
            }
            is_over.store(true, std::sync::atomic::Ordering::SeqCst);
        };
        tokio::join!(turns, ends);
        assert!(!server.is_active(&token).await);
    }
    server.stop().await;
}

async fn later_tasks_are_not_affected(server: Server) {
    let before = server.task_token().await;
    let by_agent = json!({"kind": "tasks", "agent": "planner"});
    let found = dry_run(&server, &by_agent).await;
    // Tasks of another second are not selected. A task of the same second would be, and was not
    // shown.
    let shown_at = decode_claims(&before)["iat"].as_i64().unwrap();
    crate::server::wait_until("the clock goes on", async || server.cx().now.unix() > shown_at + 2).await;
    let since = server.task_token().await;
    let (status, answer) = send_revocation(&server, with_confirmation(&by_agent, &found)).await;
    assert_eq!((status, &answer["tasks"]), (200, &json!(1)), "{answer}");
    assert!(!server.is_active(&before).await && server.is_active(&since).await);
    // Some tasks have ended meanwhile: the remaining ones are changed.
    let (one, two) = (server.task_token().await, server.task_token().await);
    let ids = json!({"kind": "tasks", "ids": [decode_claims(&one)["txn"], decode_claims(&two)["txn"], decode_claims(&since)["txn"]]});
    let found = dry_run(&server, &ids).await;
    server.revoke(json!({"kind": "task", "id": decode_claims(&one)["txn"], "reason": "x"})).await;
    let (status, answer) = send_revocation(&server, with_confirmation(&ids, &found)).await;
    assert_eq!((status, &answer["tasks"]), (200, &json!(2)), "{answer}");
    // A suspended task that could not be resumed then, and can be now, was not shown.
    let three = server.task_token().await;
    let resume = json!({"kind": "tasks", "ids": [decode_claims(&three)["txn"]], "verb": "resume"});
    let found = dry_run(&server, &resume).await;
    assert_eq!(found["tasks"], 0);
    server.revoke(json!({"kind": "task", "id": decode_claims(&three)["txn"], "verb": "suspend", "reason": "x"})).await;
    let (status, answer) = send_revocation(&server, with_confirmation(&resume, &found)).await;
    assert_eq!((status, &answer["type"]), (409, &json!("urn:errand:problem:confirmation_required")), "{answer}");
    assert!(answer["detail"].as_str().unwrap().contains("more tasks"), "{answer}");
    assert!(!server.is_active(&three).await);
    server.stop().await;
}

/// One of the selected tasks is changed after the dry run.
async fn transition_task(server: &Server, token: &str, act: &str) {
    let path = format!("/tasks/{}/{act}", decode_claims(token)["txn"].as_str().unwrap());
    let (status, body) = server.admin(Method::POST, &path, Some(json!({"reason": "x"}))).await;
    assert!(status.is_success(), "{body}");
}

/// As many tasks match as were shown, but other ones.
async fn changed_selection_is_rejected(server: Server) {
    let (shown, other) = (server.task_token().await, server.task_token().await);
    for verb in ["revoke", "resume"] {
        transition_task(&server, &shown, "suspend").await;
        let body = json!({"kind": "tasks", "agent": "planner", "state": "suspended", "verb": verb});
        let found = dry_run(&server, &body).await;
        assert_eq!((&found["tasks"], &found["sample"]["tasks"]), (&json!(1), &json!([decode_claims(&shown)["txn"]])));
        transition_task(&server, &shown, "resume").await;
        transition_task(&server, &other, "suspend").await;
        let (status, answer) = send_revocation(&server, with_confirmation(&body, &found)).await;
        assert_eq!(
            (status, &answer["type"]),
            (409, &json!("urn:errand:problem:confirmation_required")),
            "{verb}: {answer}"
        );
        assert_eq!((state(&server, &shown).await, state(&server, &other).await), ("active".into(), "suspended".into()));
        assert!(!server.is_active(&other).await && server.is_active(&shown).await, "{verb}");
        // The shown tasks can be changed once no other task matches.
        transition_task(&server, &other, "resume").await;
        let (status, answer) = send_revocation(&server, with_confirmation(&body, &found)).await;
        assert_eq!((status, &answer["tasks"]), (200, &json!(0)), "{verb}: {answer}");
    }
    // A revocation applies, whatever state changes happened since.
    let body = json!({"kind": "tasks", "ids": [decode_claims(&shown)["txn"]]});
    let found = dry_run(&server, &body).await;
    transition_task(&server, &shown, "suspend").await;
    let (status, answer) = send_revocation(&server, with_confirmation(&body, &found)).await;
    assert_eq!(
        (status, &answer["tasks"], state(&server, &shown).await),
        (200, &json!(1), "revoked".into()),
        "{answer}"
    );
    server.stop().await;
}

/// The same task under another suspension.
async fn later_suspension_is_kept(server: Server) {
    let token = server.task_token().await;
    transition_task(&server, &token, "suspend").await;
    let body = json!({"kind": "tasks", "agent": "planner", "verb": "resume"});
    let found = dry_run(&server, &body).await;
    transition_task(&server, &token, "resume").await;
    transition_task(&server, &token, "suspend").await;
    let (status, answer) = send_revocation(&server, with_confirmation(&body, &found)).await;
    assert_eq!((status, state(&server, &token).await), (409, "suspended".into()), "{answer}");
    let found = dry_run(&server, &body).await;
    let (status, answer) = send_revocation(&server, with_confirmation(&body, &found)).await;
    assert_eq!((status, &answer["tasks"], state(&server, &token).await), (200, &json!(1), "active".into()), "{answer}");
    server.stop().await;
}

/// Tasks that are opened meanwhile don't block a change of many tasks, and a repeated request gets
/// the same answer.
async fn concurrent_task_creation_does_not_block_bulk_end(server: Server) {
    let body = json!({"kind": "tasks", "agent": "planner"});
    let mut shown = Vec::new();
    for _ in 0..3 {
        shown.push(server.task_token().await);
        let found = dry_run(&server, &body).await;
        let since = server.task_token().await;
        let (status, answer) = send_revocation(&server, with_confirmation(&body, &found)).await;
        assert_eq!((status, &answer["tasks"]), (200, &json!(shown.len())), "{answer}");
        for token in &shown {
            assert!(!server.is_active(token).await);
        }
        assert!(server.is_active(&since).await);
        shown = vec![since];
    }
    for verb in ["suspend", "resume", "suspend", "resume"] {
        let body = json!({"kind": "tasks", "ids": [decode_claims(&shown[0])["txn"]], "verb": verb});
        let found = dry_run(&server, &body).await;
        assert_eq!(send_revocation(&server, with_confirmation(&body, &found)).await.1["tasks"], 1, "{verb}");
        assert_eq!(server.is_active(&shown[0]).await, verb == "resume");
    }
    server.stop().await;
}

async fn repeated_bulk_request_is_idempotent(server: Server) {
    let other = server.replica().await;
    let mut tokens = Vec::new();
    for _ in 0..5 {
        tokens.push(server.task_token().await);
    }
    let body = json!({"kind": "tasks", "agent": "planner"});
    let good = with_reason(with_confirmation(&body, &dry_run(&server, &body).await));
    let api = server.api_token("ops", "errand:admin").await;
    let tries = (0..8).map(|n| {
        let at = if n % 2 == 0 { &server } else { &other };
        tokio::spawn(at.post("/v1/admin/revocations").bearer_auth(&api).json(&good).send())
    });
    let mut answers = Vec::new();
    for answer in tries.collect::<Vec<_>>() {
        let (status, body) = read_response(answer.await.unwrap().unwrap()).await;
        answers.push((status.as_u16(), without_propagation(body)));
    }
    assert!(answers.iter().all(|answer| *answer == answers[0] && answer.0 == 200), "{answers:?}");
    assert_eq!(answers[0].1["tasks"], 5);
    let (_, list) = server.admin(Method::GET, "/revocations", None).await;
    assert_eq!(list["items"].as_array().unwrap().len(), 5);
    assert_eq!(send_revocation(&other, with_changes(good.clone(), json!({"reason": "another"}))).await.0, 422);
    for token in tokens {
        assert!(!other.is_active(&token).await);
    }
    // An empty selection can be confirmed and carried out too, and repeated.
    let again = with_confirmation(&body, &dry_run(&server, &body).await);
    let first = send_revocation(&server, again.clone()).await;
    assert_eq!((first.0, &first.1["tasks"]), (200, &json!(0)));
    let second = send_revocation(&other, again).await;
    assert_eq!((second.0, without_propagation(second.1)), (first.0, without_propagation(first.1)));
    other.stop().await;
    server.stop().await;
}

async fn invalid_selection_is_rejected(server: Server) {
    let one = decode_claims(&server.task_token().await)["txn"].clone();
    let many = vec![one.clone(); 1001];
    for (body, status) in [
        (json!({"kind": "tasks"}), 400),
        (json!({"kind": "tasks", "ids": []}), 400),
        (json!({"kind": "tasks", "ids": many}), 400),
        (json!({"kind": "tasks", "ids": [one, one], "agent": "planner"}), 400),
        (json!({"kind": "tasks", "ids": ["x"]}), 400),
        (json!({"kind": "tasks", "ids": "x"}), 400),
        (json!({"kind": "tasks", "ids": ["01970000-0000-7000-8000-00000000abcd"]}), 404),
        (json!({"kind": "tasks", "issuer": IDP}), 400),
        (json!({"kind": "tasks", "subject": "alice"}), 400),
        (json!({"kind": "tasks", "opened_before": "yesterday"}), 400),
        (json!({"kind": "tasks", "state": "asleep"}), 400),
        (json!({"kind": "tasks", "agent": "planner", "verb": "block"}), 400),
        (json!({"kind": "tasks", "agent": "planner", "verb": "unblock"}), 400),
        (json!({"kind": "tasks", "agent": "planner", "color": "red"}), 400),
        (json!({"kind": "agent", "id": "planner", "confirmation": "x", "dry_run": false}), 400),
        (json!({"kind": "agent", "id": "planner", "agent": "planner"}), 400),
    ] {
        let dry_run = if body["confirmation"].is_null() { json!({"dry_run": true}) } else { json!({}) };
        let (got, answer) = send_revocation(&server, with_changes(body.clone(), dry_run)).await;
        assert_eq!(got, status, "{body}: {answer}");
    }
    server.stop().await;
}
