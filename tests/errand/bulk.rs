//! Many tasks at once: a dry run says what would happen, and only what it showed can be done, by whom it was shown to.

use reqwest::Method;
use serde_json::{Value, json};

use crate::server::{FILES, IDP, Server, but_for_the_spread, changed, changed_form, claims, read};

on_both_stores!(
    a_dry_run_says_what_would_happen,
    a_selection_is_confirmed_and_ended,
    what_is_held_back_together_works_again_together,
    a_confirmation_is_for_one_thing,
    what_came_since_is_not_touched,
    only_what_was_shown,
    a_hold_that_was_not_shown_stays,
    a_task_that_turns_all_the_time,
    a_busy_second,
    twice_is_once,
    what_is_no_selection,
);

async fn ask(server: &Server, body: Value) -> (u16, Value) {
    let (status, answer) = server.admin(Method::POST, "/revocations", Some(with_reason(body))).await;
    (status.as_u16(), answer)
}

fn with_reason(body: Value) -> Value {
    if body["reason"].is_null() { changed(body, json!({"reason": "for the test"})) } else { body }
}

async fn dry(server: &Server, body: &Value) -> Value {
    let (status, answer) = ask(server, changed(body.clone(), json!({"dry_run": true}))).await;
    assert_eq!(
        (status, &answer["dry_run"], &answer["complete"]),
        (200, &json!(true), &json!(true)),
        "{body}: {answer}"
    );
    answer
}

fn confirmed(body: &Value, dry: &Value) -> Value {
    changed(body.clone(), json!({"confirmation": dry["confirmation"]}))
}

fn counts(answer: &Value) -> (u64, u64, u64) {
    let number = |name: &str| answer[name].as_u64().unwrap();
    (number("tokens"), number("tasks"), number("agents"))
}

async fn state(server: &Server, token: &str) -> String {
    let path = format!("/tasks/{}", claims(token)["txn"].as_str().unwrap());
    server.admin(Method::GET, &path, None).await.1["state"].as_str().unwrap().to_owned()
}

/// A token of the planner in bob's name, with a part of it at the reader; and one in alice's.
async fn three(server: &Server) -> (String, String, String) {
    let bob = server.issued("planner", &server.exchange_form(&server.user_token(json!({"sub": "bob"})))).await;
    let hand_over = server.issued("planner", &server.hand_over_form(&bob, "reader")).await;
    let part = server.issued("reader", &changed_form(&server.exchange_form(&hand_over), &[("purpose", "")])).await;
    (bob, part, server.task_token().await)
}

async fn a_dry_run_says_what_would_happen(server: Server) {
    let (bob, part, alice) = three(&server).await;
    let api = server.api_token("reader", "errand:tasks").await;
    let of_api = json!({"kind": "token", "id": claims(&api)["jti"]});
    for (body, want) in [
        // bob's token, the hand-over, the part.
        (json!({"kind": "task", "id": claims(&bob)["txn"]}), (3, 1, 2)),
        (json!({"kind": "token", "id": claims(&bob)["jti"]}), (3, 1, 2)),
        (json!({"kind": "token", "id": claims(&part)["jti"]}), (1, 1, 2)),
        (json!({"kind": "requester", "issuer": IDP, "subject": "bob"}), (3, 1, 2)),
        (json!({"kind": "requester", "issuer": IDP, "subject": "bob", "disable": true}), (3, 1, 2)),
        (json!({"kind": "requester", "issuer": IDP, "subject": "carol"}), (0, 0, 0)),
        (json!({"kind": "agent", "id": "planner"}), (4, 2, 2)),
        // The part and its API token; that the hand-over is for it does not stand in the record.
        (json!({"kind": "agent", "id": "reader"}), (2, 1, 2)),
        (json!({"kind": "agent", "id": "reader", "disable": true}), (2, 1, 2)),
        (json!({"kind": "agent", "id": "reader", "verb": "suspend"}), (2, 1, 2)),
        (json!({"kind": "resource", "id": "files"}), (4, 2, 2)),
        (json!({"kind": "resource", "uri": FILES}), (4, 2, 2)),
        (json!({"kind": "resource", "id": "notes"}), (0, 0, 0)),
        (json!({"kind": "issuer", "id": IDP}), (4, 2, 2)),
        (of_api, (1, 0, 1)),
        (json!({"kind": "tasks", "ids": [claims(&bob)["txn"], claims(&alice)["txn"]]}), (4, 2, 2)),
        (json!({"kind": "tasks", "issuer": IDP, "subject": "alice"}), (1, 1, 1)),
    ] {
        let answer = dry(&server, &body).await;
        assert_eq!(counts(&answer), want, "{body}: {answer}");
        assert_eq!(answer["sample"]["tokens"].as_array().unwrap().len() as u64, want.0.min(10));
        assert_eq!(answer["sample"]["tasks"].as_array().unwrap().len() as u64, want.1);
        assert_eq!(answer["confirmation"].is_string(), body["kind"] == "tasks", "{answer}");
        assert!(!answer["sample"].to_string().contains("eyJ"), "no token stands in it");
    }
    // Nothing happened: nothing ended, nothing is written.
    for token in [&bob, &part, &alice] {
        assert!(server.is_live(token).await);
    }
    let (_, list) = server.admin(Method::GET, "/revocations", None).await;
    assert_eq!(list["items"], json!([]));
    // What has ended is not counted again, and the sample has an end.
    server.revoke(json!({"kind": "task", "id": claims(&bob)["txn"], "reason": "x"})).await;
    assert_eq!(counts(&dry(&server, &json!({"kind": "agent", "id": "planner"})).await), (1, 1, 1));
    for _ in 0..11 {
        server.task_token().await;
    }
    let many = dry(&server, &json!({"kind": "agent", "id": "planner"})).await;
    assert_eq!(counts(&many), (12, 12, 1));
    assert_eq!(
        (many["sample"]["tokens"].as_array().unwrap().len(), many["sample"]["tasks"].as_array().unwrap().len()),
        (10, 10)
    );
    for body in [
        json!({"kind": "agent", "id": "planner", "verb": "enable", "dry_run": true}),
        json!({"kind": "agent", "id": "planner", "dry_run": true, "confirmation": "x"}),
    ] {
        assert_eq!(ask(&server, body.clone()).await.0, 400, "{body}");
    }
    server.stop().await;
}

async fn a_selection_is_confirmed_and_ended(server: Server) {
    let other = server.replica().await;
    let (bob, part, alice) = three(&server).await;
    let body = json!({"kind": "tasks", "agent": "planner", "issuer": IDP, "subject": "bob"});
    let (status, answer) = ask(&server, body.clone()).await;
    assert_eq!((status, &answer["type"]), (409, &json!("urn:errand:problem:unconfirmed")), "{answer}");
    assert!(server.is_live(&bob).await);
    let found = dry(&other, &body).await;
    assert_eq!(counts(&found), (3, 1, 2));
    let (status, answer) = ask(&server, confirmed(&body, &found)).await;
    assert_eq!((status, &answer["tasks"], &answer["kind"]), (200, &json!(1), &json!("tasks")), "{answer}");
    for at in [&other, &server] {
        assert!(!at.is_live(&bob).await && !at.is_live(&part).await && at.is_live(&alice).await);
    }
    assert_eq!((state(&server, &bob).await, state(&server, &alice).await), ("revoked".into(), "active".into()));
    let path = format!("/audit?event=revocation&task={}", claims(&bob)["txn"].as_str().unwrap());
    let (_, trail) = server.admin(Method::GET, &path, None).await;
    let record = &trail["items"][0]["chained"]["record"];
    assert_eq!((&record["admin"], &record["reason"]), (&json!("admin:ops"), &json!("for the test")), "{trail}");
    let (_, trail) = server.admin(Method::GET, "/audit?event=revocation", None).await;
    let records = trail["items"].as_array().unwrap().iter().map(|item| &item["chained"]["record"]);
    let whole = records.clone().find(|record| record["granted"]["tasks"] == 1).unwrap_or_else(|| panic!("{trail}"));
    assert_eq!(whole["asked"]["selection"]["requester"], json!([IDP, "bob"]));
    // By resource, by age, by name: each ends what it says, and no more.
    let from = |answer: &Value| answer["items"][0]["created"].clone();
    let created = from(&server.admin(Method::GET, "/tasks?state=active", None).await.1);
    for (body, want) in [
        (json!({"kind": "tasks", "resource": "https://notes.example.com/mcp"}), 0),
        (json!({"kind": "tasks", "opened_before": created}), 0),
        (json!({"kind": "tasks", "opened_from": created, "agent": "reader"}), 0),
        (json!({"kind": "tasks", "state": "suspended"}), 0),
        (json!({"kind": "tasks", "ids": [claims(&bob)["txn"]]}), 0),
        (json!({"kind": "tasks", "resource": FILES, "opened_from": created, "agent": "planner"}), 1),
    ] {
        let found = dry(&server, &body).await;
        assert_eq!(found["tasks"], want, "{body}: {found}");
        let (status, answer) = ask(&other, confirmed(&body, &found)).await;
        assert_eq!((status, &answer["tasks"]), (200, &json!(want)), "{body}: {answer}");
        assert_eq!(server.is_live(&alice).await, want == 0, "{body}");
    }
    other.stop().await;
    server.stop().await;
}

async fn what_is_held_back_together_works_again_together(server: Server) {
    let (bob, part, alice) = three(&server).await;
    for (verb, tokens, live) in [("suspend", 4, false), ("resume", 4, true), ("resume", 0, true), ("revoke", 4, false)]
    {
        let body = json!({"kind": "tasks", "agent": "planner", "verb": verb});
        let found = dry(&server, &body).await;
        assert_eq!(found["tokens"], tokens, "{verb}: {found}");
        let (status, answer) = ask(&server, confirmed(&body, &found)).await;
        assert_eq!(status, 200, "{verb}: {answer}");
        for token in [&bob, &part, &alice] {
            assert_eq!(server.is_live(token).await, live, "{verb}");
        }
    }
    server.stop().await;
}

async fn a_confirmation_is_for_one_thing(server: Server) {
    let (bob, _, alice) = three(&server).await;
    let boss = json!({"id": "boss", "role": "operator", "authentication": {"method": "client_secret_basic"}});
    assert_eq!(server.admin(Method::PUT, "/admins/boss", Some(boss)).await.0, 201);
    let (_, made) = server.admin(Method::POST, "/clients/boss/secret", None).await;
    let api = server.http.post(format!("{}/oauth2/token", server.url));
    let api = api.basic_auth("boss", made["client_secret"].as_str()).form(&[("grant_type", "client_credentials")]);
    let (_, api) = read(api.send().await.unwrap()).await;
    let body = json!({"kind": "tasks", "issuer": IDP, "subject": "bob"});
    let found = dry(&server, &body).await;
    let good = confirmed(&body, &found);
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
        json!({"subject": null, "issuer": null, "ids": [claims(&bob)["txn"]]}),
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
        let (status, answer) = ask(&server, changed(good.clone(), changes.clone())).await;
        assert_eq!((status, &answer["type"]), (409, &json!("urn:errand:problem:unconfirmed")), "{changes}: {answer}");
    }
    let somebody = api["access_token"].as_str().unwrap();
    let (status, answer) =
        server.admin_with(somebody, Method::POST, "/revocations", Some(with_reason(good.clone()))).await;
    assert_eq!((status.as_u16(), &answer["type"]), (409, &json!("urn:errand:problem:unconfirmed")), "{answer}");
    assert!(server.is_live(&bob).await && server.is_live(&alice).await);
    // Refused ones are on record too.
    let (_, trail) = server.admin(Method::GET, "/audit?event=revocation&outcome=refused", None).await;
    assert!(trail["items"].as_array().unwrap().len() > 10, "{trail}");

    // Too late: the same service, five minutes on.
    late(&server, &good).await;
    assert!(server.is_live(&bob).await);
    assert_eq!(ask(&server, good).await.0, 200);
    assert!(!server.is_live(&bob).await && server.is_live(&alice).await);
    server.stop().await;
}

/// The use-case itself, at another time.
async fn late(server: &Server, good: &Value) {
    use errand::{
        app::{Bulk, Conflict, Cx, Failure, Selection, What},
        domain::{client::API_ADMIN, secret::Secret, time::Lifetime},
        ports::TaskFilter,
    };
    let bearer = Secret::new(server.api_token("ops", "errand:admin").await);
    let admin = server.house.service.authorize(&bearer, &[API_ADMIN], "x", &server.cx()).await.unwrap();
    let requester = Some((IDP.parse().unwrap(), "bob".to_owned()));
    let bulk = Bulk {
        tasks: Selection::Fitting(TaskFilter { requester, ..TaskFilter::default() }),
        what: What::Revoke,
        reason: "for the test".parse().unwrap(),
        confirmation: good["confirmation"].as_str().map(str::to_owned),
    };
    let later = Cx { now: server.cx().now.after(Lifetime::seconds(301)), ..server.cx() };
    let refused = server.house.service.turn_tasks(&admin, &bulk, None, &later).await.unwrap_err();
    assert!(
        matches!(&refused, Failure::Conflict(Conflict::Unconfirmed(text)) if text.contains("expired")),
        "{refused:?}"
    );
}

/// Held back and let go while it is looked for, it is in the selection all the same.
async fn a_task_that_turns_all_the_time(server: Server) {
    let api = server.api_token("ops", "errand:admin").await;
    for n in 0..60 {
        let person = format!("bob-{n}");
        let token = server.issued("planner", &server.exchange_form(&server.user_token(json!({"sub": person})))).await;
        let task = claims(&token)["txn"].as_str().unwrap().to_owned();
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
                let dry = changed(body.clone(), json!({"dry_run": true}));
                let (_, found) = server.admin_with(&api, Method::POST, "/revocations", Some(dry)).await;
                if found["tasks"] == 1 {
                    break found["confirmation"].clone();
                }
            };
            let confirmed = changed(body, json!({"confirmation": confirmation}));
            loop {
                let confirmed = Some(confirmed.clone());
                let (status, answer) = server.admin_with(&api, Method::POST, "/revocations", confirmed).await;
                // It may have turned once too often meanwhile.
                if status == 200 {
                    break assert_eq!(answer["tasks"], 1, "it was there all the time: {answer}");
                }
                assert_eq!(status, 409, "{answer}");
            }
            is_over.store(true, std::sync::atomic::Ordering::SeqCst);
        };
        tokio::join!(turns, ends);
        assert!(!server.is_live(&token).await);
    }
    server.stop().await;
}

async fn what_came_since_is_not_touched(server: Server) {
    let before = server.task_token().await;
    let by_agent = json!({"kind": "tasks", "agent": "planner"});
    let found = dry(&server, &by_agent).await;
    // Tasks of another second are not of the selection; one of the same second would be, and was not shown.
    let shown_at = claims(&before)["iat"].as_i64().unwrap();
    crate::server::until("the clock goes on", async || server.cx().now.unix() > shown_at + 2).await;
    let since = server.task_token().await;
    let (status, answer) = ask(&server, confirmed(&by_agent, &found)).await;
    assert_eq!((status, &answer["tasks"]), (200, &json!(1)), "{answer}");
    assert!(!server.is_live(&before).await && server.is_live(&since).await);
    // Some have ended meanwhile: what is left is done.
    let (one, two) = (server.task_token().await, server.task_token().await);
    let ids = json!({"kind": "tasks", "ids": [claims(&one)["txn"], claims(&two)["txn"], claims(&since)["txn"]]});
    let found = dry(&server, &ids).await;
    server.revoke(json!({"kind": "task", "id": claims(&one)["txn"], "reason": "x"})).await;
    let (status, answer) = ask(&server, confirmed(&ids, &found)).await;
    assert_eq!((status, &answer["tasks"]), (200, &json!(2)), "{answer}");
    // A suspended one that was not fit to be resumed, and is now, is more than was shown.
    let three = server.task_token().await;
    let resume = json!({"kind": "tasks", "ids": [claims(&three)["txn"]], "verb": "resume"});
    let found = dry(&server, &resume).await;
    assert_eq!(found["tasks"], 0);
    server.revoke(json!({"kind": "task", "id": claims(&three)["txn"], "verb": "suspend", "reason": "x"})).await;
    let (status, answer) = ask(&server, confirmed(&resume, &found)).await;
    assert_eq!((status, &answer["type"]), (409, &json!("urn:errand:problem:unconfirmed")), "{answer}");
    assert!(answer["detail"].as_str().unwrap().contains("more tasks"), "{answer}");
    assert!(!server.is_live(&three).await);
    server.stop().await;
}

/// Somebody does it to one task while somebody else thinks it over.
async fn turn(server: &Server, token: &str, act: &str) {
    let path = format!("/tasks/{}/{act}", claims(token)["txn"].as_str().unwrap());
    let (status, body) = server.admin(Method::POST, &path, Some(json!({"reason": "x"}))).await;
    assert!(status.is_success(), "{body}");
}

/// As many as were shown, and not the same ones.
async fn only_what_was_shown(server: Server) {
    let (shown, other) = (server.task_token().await, server.task_token().await);
    for verb in ["revoke", "resume"] {
        turn(&server, &shown, "suspend").await;
        let body = json!({"kind": "tasks", "agent": "planner", "state": "suspended", "verb": verb});
        let found = dry(&server, &body).await;
        assert_eq!((&found["tasks"], &found["sample"]["tasks"]), (&json!(1), &json!([claims(&shown)["txn"]])));
        turn(&server, &shown, "resume").await;
        turn(&server, &other, "suspend").await;
        let (status, answer) = ask(&server, confirmed(&body, &found)).await;
        assert_eq!((status, &answer["type"]), (409, &json!("urn:errand:problem:unconfirmed")), "{verb}: {answer}");
        assert_eq!((state(&server, &shown).await, state(&server, &other).await), ("active".into(), "suspended".into()));
        assert!(!server.is_live(&other).await && server.is_live(&shown).await, "{verb}");
        // What was shown can be done to what was shown, when nothing else fits any more.
        turn(&server, &other, "resume").await;
        let (status, answer) = ask(&server, confirmed(&body, &found)).await;
        assert_eq!((status, &answer["tasks"]), (200, &json!(0)), "{verb}: {answer}");
    }
    // However it has turned since, it is to be ended.
    let body = json!({"kind": "tasks", "ids": [claims(&shown)["txn"]]});
    let found = dry(&server, &body).await;
    turn(&server, &shown, "suspend").await;
    let (status, answer) = ask(&server, confirmed(&body, &found)).await;
    assert_eq!(
        (status, &answer["tasks"], state(&server, &shown).await),
        (200, &json!(1), "revoked".into()),
        "{answer}"
    );
    server.stop().await;
}

/// The same task, and another hold.
async fn a_hold_that_was_not_shown_stays(server: Server) {
    let token = server.task_token().await;
    turn(&server, &token, "suspend").await;
    let body = json!({"kind": "tasks", "agent": "planner", "verb": "resume"});
    let found = dry(&server, &body).await;
    turn(&server, &token, "resume").await;
    turn(&server, &token, "suspend").await;
    let (status, answer) = ask(&server, confirmed(&body, &found)).await;
    assert_eq!((status, state(&server, &token).await), (409, "suspended".into()), "{answer}");
    let found = dry(&server, &body).await;
    let (status, answer) = ask(&server, confirmed(&body, &found)).await;
    assert_eq!((status, &answer["tasks"], state(&server, &token).await), (200, &json!(1), "active".into()), "{answer}");
    server.stop().await;
}

/// Nobody is kept from ending many tasks by others that are opened meanwhile; and what is done again is done again.
async fn a_busy_second(server: Server) {
    let body = json!({"kind": "tasks", "agent": "planner"});
    let mut shown = Vec::new();
    for _ in 0..3 {
        shown.push(server.task_token().await);
        let found = dry(&server, &body).await;
        let since = server.task_token().await;
        let (status, answer) = ask(&server, confirmed(&body, &found)).await;
        assert_eq!((status, &answer["tasks"]), (200, &json!(shown.len())), "{answer}");
        for token in &shown {
            assert!(!server.is_live(token).await);
        }
        assert!(server.is_live(&since).await);
        shown = vec![since];
    }
    for verb in ["suspend", "resume", "suspend", "resume"] {
        let body = json!({"kind": "tasks", "ids": [claims(&shown[0])["txn"]], "verb": verb});
        let found = dry(&server, &body).await;
        assert_eq!(ask(&server, confirmed(&body, &found)).await.1["tasks"], 1, "{verb}");
        assert_eq!(server.is_live(&shown[0]).await, verb == "resume");
    }
    server.stop().await;
}

async fn twice_is_once(server: Server) {
    let other = server.replica().await;
    let mut tokens = Vec::new();
    for _ in 0..5 {
        tokens.push(server.task_token().await);
    }
    let body = json!({"kind": "tasks", "agent": "planner"});
    let good = with_reason(confirmed(&body, &dry(&server, &body).await));
    let api = server.api_token("ops", "errand:admin").await;
    let tries = (0..8).map(|n| {
        let at = if n % 2 == 0 { &server } else { &other };
        tokio::spawn(at.post("/v1/admin/revocations").bearer_auth(&api).json(&good).send())
    });
    let mut answers = Vec::new();
    for answer in tries.collect::<Vec<_>>() {
        let (status, body) = read(answer.await.unwrap().unwrap()).await;
        answers.push((status.as_u16(), but_for_the_spread(body)));
    }
    assert!(answers.iter().all(|answer| *answer == answers[0] && answer.0 == 200), "{answers:?}");
    assert_eq!(answers[0].1["tasks"], 5);
    let (_, list) = server.admin(Method::GET, "/revocations", None).await;
    assert_eq!(list["items"].as_array().unwrap().len(), 5);
    assert_eq!(ask(&other, changed(good.clone(), json!({"reason": "another"}))).await.0, 422);
    for token in tokens {
        assert!(!other.is_live(&token).await);
    }
    // Nothing fits any more, and that is confirmed and done as well; and again the same.
    let again = confirmed(&body, &dry(&server, &body).await);
    let first = ask(&server, again.clone()).await;
    assert_eq!((first.0, &first.1["tasks"]), (200, &json!(0)));
    let second = ask(&other, again).await;
    assert_eq!((second.0, but_for_the_spread(second.1)), (first.0, but_for_the_spread(first.1)));
    other.stop().await;
    server.stop().await;
}

async fn what_is_no_selection(server: Server) {
    let one = claims(&server.task_token().await)["txn"].clone();
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
        (json!({"kind": "tasks", "agent": "planner", "disable": true}), 400),
        (json!({"kind": "tasks", "agent": "planner", "verb": "enable"}), 400),
        (json!({"kind": "tasks", "agent": "planner", "color": "red"}), 400),
        (json!({"kind": "agent", "id": "planner", "confirmation": "x", "dry_run": false}), 400),
        (json!({"kind": "agent", "id": "planner", "agent": "planner"}), 400),
    ] {
        let dry_run = if body["confirmation"].is_null() { json!({"dry_run": true}) } else { json!({}) };
        let (got, answer) = ask(&server, changed(body.clone(), dry_run)).await;
        assert_eq!(got, status, "{body}: {answer}");
    }
    server.stop().await;
}
