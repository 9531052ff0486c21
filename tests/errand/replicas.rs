//! Several replicas on one store: each answers from memory while its lease holds, and a revocation is acknowledged when none
//! of them answers any more from a memory that is older.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::{task::JoinSet, time::timeout};

use crate::{
    outage::{give_back, take_away},
    server::{Server, changed_form, claims, form, header, read, secret, until},
    support::TestStore,
};

on_both_stores!(
    who_follows,
    from_memory_while_the_lease_holds,
    the_lease_comes_after_the_head_of_the_log,
    a_silent_replica_is_waited_for_until_its_lease_is_over,
    who_asks_again_waits_again,
    changes_of_the_registry_wait,
    without_a_lease_the_store_is_asked,
    who_starts_meanwhile,
    acknowledged_is_everywhere,
);

/// A lease that is long enough to do something while it holds, and to wait for its end.
const LONG: u32 = 6000;

impl Server {
    /// Another replica with a long lease.
    pub async fn with_long_lease(&self) -> Self {
        let other = self
            .replica_with(|config| {
                config.replicas.lease_ms = LONG;
                config.replicas.heartbeat_ms = LONG / 20;
            })
            .await;
        other.leased().await;
        other
    }

    pub async fn leased(&self) {
        until("its lease holds", || async { self.house.service.holds_lease() }).await;
    }

    /// It follows no longer, and goes on answering: as one that is cut off from the others.
    pub async fn silence(&mut self) {
        self.following.shutdown().await;
        assert!(self.house.service.holds_lease());
    }

    pub async fn take_back(&self, api: &str, what: &Value, prefer: Option<&str>) -> (StatusCode, Value) {
        let request = self.post("/v1/admin/revocations").bearer_auth(api).json(what);
        let request = match prefer {
            Some(prefer) => request.header("prefer", prefer),
            None => request,
        };
        read(request.send().await.unwrap()).await
    }

    async fn replicas(&self) -> Vec<Value> {
        let (status, list) = self.admin(Method::GET, "/replicas", None).await;
        assert_eq!((status.as_u16(), &list["next"]), (200, &Value::Null), "{list}");
        list["items"].as_array().unwrap().clone()
    }
}

pub fn token_of(token: &str) -> Value {
    json!({"kind": "token", "id": claims(token)["jti"], "reason": "in a test"})
}

pub fn counts(answer: &Value) -> [u64; 3] {
    let count = |name| answer[format!("replicas_{name}")].as_u64().unwrap_or_else(|| panic!("{answer}"));
    ["acknowledged", "lapsed", "pending"].map(count)
}

/// Of how many replicas it is known that they answer by it.
fn everywhere(answer: &Value) -> u64 {
    let [acknowledged, lapsed, pending] = counts(answer);
    assert_eq!(pending, 0, "{answer}");
    acknowledged + lapsed
}

async fn who_follows(server: Server) {
    let other = server.replica_with(|config| config.replicas.name = Some("second".into())).await;
    for one in [&server, &other] {
        one.leased().await;
    }
    let token = server.task_token().await;
    let answer = server.revoke(token_of(&token)).await;
    assert_eq!(everywhere(&answer), 2, "{answer}");
    for one in [&server, &other] {
        until("it says so", || async { one.replicas().await.iter().all(|r| r["behind"] == 0) }).await;
        until("both live", || async { one.replicas().await.iter().all(|r| r["lease_valid"] == true) }).await;
    }
    for (at, n) in [(&server, 0), (&other, 1)] {
        let list = at.replicas().await;
        assert_eq!(list.len(), 2, "{list:?}");
        for (place, replica) in list.iter().enumerate() {
            assert_eq!(replica["answering"], place == n, "{list:?}");
            assert_eq!((&replica["applied_seq"], &replica["lease_ms"]), (&answer["seq"], &json!(2000)), "{list:?}");
            assert_eq!(replica["version"], env!("CARGO_PKG_VERSION"));
        }
        assert_eq!(list[1]["name"], "second");
        assert!(list[0]["name"].as_str().is_some_and(|name| !name.is_empty()), "the machine's name: {list:?}");
    }
    // Who leaves says so, and nobody waits for them.
    other.stop().await;
    assert_eq!(server.replicas().await.len(), 1);
    let answer = server.revoke(token_of(&token)).await;
    assert_eq!(counts(&answer), [1, 0, 0], "{answer}");
    let metrics = server.request(Method::GET, "/metrics").send().await.unwrap().text().await.unwrap();
    let seq = format!("errand_log_applied_seq {}", answer["seq"]);
    for line in [&*seq, "errand_revocation_propagation_seconds_count 2"] {
        assert!(metrics.lines().any(|one| one == line), "{line}: {metrics}");
    }
}

/// The store is away, so whatever asks it gets no answer; what is answered all the same was not asked of it.
async fn from_memory_while_the_lease_holds(server: Server) {
    let token = server.task_token().await;
    let at = server.with_long_lease().await;
    assert!(at.is_live(&token).await);
    at.leased().await;
    take_away(&server.store).await;
    let mut from_memory = 0;
    until("its lease is over", || {
        from_memory += 1;
        async {
            let (status, body) = at.post_as("files", "/oauth2/introspect", &form(&[("token", &token)])).await;
            match status.as_u16() {
                200 => assert_eq!(body["active"], true, "{body}"),
                status => assert_eq!((status, &body["error"]), (503, &json!("temporarily_unavailable")), "{body}"),
            }
            status == 503
        }
    })
    .await;
    assert!(from_memory > 10, "it was asked {from_memory} times");
    assert!(!at.house.service.holds_lease());
    // It stays so, and nothing is issued either.
    let again = changed_form(&at.exchange_form(&token), &[("purpose", "")]);
    for _ in 0..3 {
        assert_eq!(at.post_as("files", "/oauth2/introspect", &form(&[("token", &token)])).await.0, 503);
        assert_eq!(at.post_as_planner("/oauth2/token", &again).await.0, 503);
    }
    give_back(&server.store).await;
    at.leased().await;
    assert!(at.is_live(&token).await);
}

/// A renewal is no lease before the head of the log was read after it.
async fn the_lease_comes_after_the_head_of_the_log(server: Server) {
    let mut at = server.replica_with(|config| config.replicas.heartbeat_ms = 20).await;
    at.leased().await;
    at.silence().await;
    until("its lease is over", || async { !at.house.service.holds_lease() }).await;
    server.store.tamper("ALTER TABLE log_head RENAME TO log_head_away").await;
    let store = server.store.open().await;
    let renewals = async || {
        let beats = store.replicas().await.unwrap();
        beats.iter().map(|beat| (beat.replica.id, beat.number)).max().unwrap().1
    };
    let before = renewals().await;
    let _following = at.house.follow();
    until("it has renewed a few times", || async { renewals().await > before + 3 }).await;
    assert!(!at.house.service.holds_lease(), "it can't know what it missed");
    server.store.tamper("ALTER TABLE log_head_away RENAME TO log_head").await;
    at.leased().await;
}

async fn a_silent_replica_is_waited_for_until_its_lease_is_over(server: Server) {
    let mut silent = server.with_long_lease().await;
    let third = server.replica().await;
    for one in [&server, &third] {
        one.leased().await;
    }
    let api = server.api_token("ops", "errand:admin").await;
    let (one, two, other) = (server.task_token().await, server.task_token().await, server.task_token().await);
    assert!(silent.is_live(&one).await);
    silent.silence().await;
    // Who does not wait is told that it is durable, and no more.
    let (status, answer) = server.take_back(&api, &token_of(&one), Some("wait=0")).await;
    assert_eq!(status, 202, "{answer}");
    assert!(counts(&answer)[2] >= 1 && counts(&answer).iter().sum::<u64>() == 3, "{answer}");
    assert!(silent.is_live(&one).await, "which is why it is waited for");
    assert!(!server.is_live(&one).await, "at home it is known at once");
    // Who waits hears of it when the lease is over.
    let (status, answer) = third.take_back(&api, &token_of(&two), None).await;
    assert_eq!((status.as_u16(), counts(&answer)), (200, [2, 1, 0]), "{answer}");
    for at in [&server, &third, &silent] {
        for token in [&one, &two] {
            assert!(!at.is_live(token).await);
        }
        assert!(at.is_live(&other).await);
    }
    // From now on nobody waits for it: whoever has watched it for so long knows.
    let (status, answer) = third.take_back(&api, &token_of(&other), Some("wait=0")).await;
    assert_eq!((answer["replicas_lapsed"].as_u64(), status.is_success()), (Some(1), true), "{answer}");
    let (status, answer) = server.take_back(&api, &token_of(&other), None).await;
    assert_eq!((status.as_u16(), counts(&answer)), (200, [2, 1, 0]), "{answer}");
    assert!(!silent.is_live(&other).await);
    let list = server.replicas().await;
    let valid = list.iter().map(|replica| replica["lease_valid"].as_bool().unwrap()).collect::<Vec<_>>();
    assert_eq!(valid, [true, false, true], "{list:?}");
    // Preferences are answered, and what is none is none.
    let request = server.post("/v1/admin/revocations").bearer_auth(&api).header("prefer", "wait=7");
    let response = request.json(&token_of(&other)).send().await.unwrap();
    assert_eq!(
        (response.status().as_u16(), &response.headers()["preference-applied"]),
        (200, &"wait=7".parse().unwrap())
    );
    let (status, _) = server.take_back(&api, &token_of(&other), Some("wait=soon")).await;
    assert_eq!(status, 200);
}

/// The first answer got lost: the same again is answered when it is everywhere, and not because it is known here.
async fn who_asks_again_waits_again(server: Server) {
    for way in ["client", "key", "task", "removal", "door"] {
        let mut silent = server.with_long_lease().await;
        server.leased().await;
        let token = server.task_token().await;
        let says = claims(&token);
        assert!(silent.is_live(&token).await);
        silent.silence().await;
        let ask = async || {
            // A new one each time: with the key that signed it, the token of the one before is gone.
            let api = server.api_token("ops", "errand:admin").await;
            let request = match way {
                "client" => {
                    let form = form(&[("token", &token)]);
                    server
                        .post("/oauth2/revoke")
                        .form(&crate::server::with_assertion(&form, &server.assertion(json!({}))))
                }
                "key" => {
                    let request = server.post("/v1/admin/revocations").bearer_auth(&api);
                    request.header("idempotency-key", "again").json(&token_of(&token))
                }
                "task" => {
                    let path = format!("/v1/admin/tasks/{}/suspend", says["txn"].as_str().unwrap());
                    server.post(&path).bearer_auth(&api).json(&json!({"reason": "a pause"}))
                }
                "door" => {
                    let agent =
                        json!({"kind": "agent", "id": says["client_id"], "reason": "a pause", "verb": "suspend"});
                    server.post("/v1/admin/revocations").bearer_auth(&api).json(&agent)
                }
                _ => {
                    let path = format!("/v1/admin/keys/{}/revoke", header(&token)["kid"].as_str().unwrap());
                    server.post(&path).bearer_auth(&api).json(&json!({"reason": "it leaked"}))
                }
            };
            request.send().await.unwrap().status().as_u16()
        };
        let first = timeout(Duration::from_millis(400), ask()).await;
        assert!(first.is_err(), "{way}: it waits: {first:?}");
        until("it is known at home", || async { !server.is_live(&token).await }).await;
        assert!(silent.is_live(&token).await, "{way}: its lease holds");
        let want = match way {
            "client" | "key" => 200,
            "task" | "door" => 409,
            _ => 404,
        };
        assert_eq!(ask().await, want, "{way}");
        assert!(!silent.is_live(&token).await, "{way}");
    }
}

async fn changes_of_the_registry_wait(server: Server) {
    let agent = json!({"id": "temp", "authentication": {"method": "client_secret_basic"}});
    assert_eq!(server.admin(Method::PUT, "/agents/temp", Some(agent.clone())).await.0, 201);
    let (_, made) = server.admin(Method::POST, "/clients/temp/secret", None).await;
    let mut silent = server.with_long_lease().await;
    let log_in = async |at: &Server, secret: &Value| {
        let request = at.post("/oauth2/token").basic_auth("temp", secret.as_str());
        let request = request.form(&form(&[("grant_type", "client_credentials")]));
        request.send().await.unwrap().status().as_u16()
    };
    assert_eq!(log_in(&silent, &made["client_secret"]).await, 200);
    silent.silence().await;
    // A new secret: the old one is dead everywhere when it is shown.
    let (status, newer) = server.admin(Method::POST, "/clients/temp/secret", None).await;
    assert_eq!((status.as_u16(), log_in(&silent, &made["client_secret"]).await), (201, 401));
    assert_eq!(log_in(&silent, &newer["client_secret"]).await, 200);
    silent.following = silent.house.follow();
    silent.leased().await;
    silent.silence().await;
    let mut shut = agent;
    shut["disabled"] = json!(true);
    assert_eq!(server.admin(Method::PUT, "/agents/temp", Some(shut)).await.0, 200);
    assert_eq!(log_in(&silent, &newer["client_secret"]).await, 401);
}

/// Today's way for whoever has no lease: exact, at the price of a read.
async fn without_a_lease_the_store_is_asked(server: Server) {
    let mut at = server.replica().await;
    let (one, two) = (server.task_token().await, server.task_token().await);
    assert!(at.is_live(&one).await);
    at.leased().await;
    at.silence().await;
    until("its lease is over", || async { !at.house.service.holds_lease() }).await;
    let api = server.api_token("ops", "errand:admin").await;
    let task = json!({"kind": "task", "id": claims(&two)["txn"], "reason": "in a test"});
    for what in [token_of(&one), task] {
        // It need not even be known to be dead for long.
        let (status, _) = server.take_back(&api, &what, None).await;
        assert_eq!(status, 200);
    }
    for token in [&one, &two] {
        assert!(!at.is_live(token).await);
        let again = changed_form(&at.exchange_form(token), &[("purpose", "")]);
        assert_eq!(at.post_as_planner("/oauth2/token", &again).await.0, 400);
    }
    assert!(!at.house.service.holds_lease());
}

/// Whoever starts knows what was acknowledged before they answered.
async fn who_starts_meanwhile(server: Server) {
    let api = server.api_token("ops", "errand:admin").await;
    let user = server.user_token(json!({"client_id": "reader-client"}));
    let issue = async || server.issued("reader", &server.exchange_form(&user)).await;
    let mut revoked = Vec::new();
    for _ in 0..6 {
        let starting = server.replica_with(|config| config.replicas.heartbeat_ms = 20);
        let revoking = async {
            for _ in 0..5 {
                let token = issue().await;
                assert_eq!(server.take_back(&api, &token_of(&token), None).await.0, 200);
                revoked.push(token);
            }
        };
        let (newcomer, ()) = tokio::join!(starting, revoking);
        newcomer.leased().await;
        for token in &revoked {
            assert!(!newcomer.is_live(token).await);
        }
    }
}

/// What a resource was told, when it had asked, and when it was answered.
struct Told {
    asked: Instant,
    answered: Instant,
    active: bool,
}

/// Three replicas are asked without a pause, by somebody who writes down when they asked; somebody else ends tokens,
/// suspends and resumes at any of them. Whoever asked after an acknowledgement was told accordingly.
async fn acknowledged_is_everywhere(server: Server) {
    const ROUNDS: usize = 24;
    let server = Arc::new(server);
    let replicas = [Arc::clone(&server), Arc::new(server.replica().await), Arc::new(server.replica().await)];
    for replica in &replicas {
        replica.leased().await;
    }
    let api = server.api_token("ops", "errand:admin").await;
    let user = server.user_token(json!({"client_id": "reader-client"}));
    let (mut before, mut after) = (0, 0);
    for round in 0..ROUNDS {
        let token = server.issued("reader", &server.exchange_form(&user)).await;
        let says = claims(&token);
        let stop = Arc::new(AtomicBool::new(false));
        let mut askers = JoinSet::new();
        for at in &replicas {
            let (at, stop, token) = (Arc::clone(at), Arc::clone(&stop), token.clone());
            askers.spawn(async move {
                let mut told = Vec::new();
                while !stop.load(Ordering::SeqCst) {
                    let asked = Instant::now();
                    let active = at.is_live(&token).await;
                    told.push(Told { asked, answered: Instant::now(), active });
                    // Between two questions, others get their turn.
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                told
            });
        }
        let at = &replicas[round % 3];
        let mut acknowledged = Vec::new();
        if round % 3 == 0 {
            for (act, active) in [("suspend", false), ("resume", true)] {
                let began = Instant::now();
                let path = format!("/v1/admin/tasks/{}/{act}", says["txn"].as_str().unwrap());
                let request = at.post(&path).bearer_auth(&api).json(&json!({"reason": "the race"}));
                let (status, body) = read(request.send().await.unwrap()).await;
                assert_eq!((status.as_u16(), everywhere(&body)), (200, 3), "{body}");
                acknowledged.push((began, Instant::now(), active));
                // Long enough that somebody asks in between.
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
        let began = Instant::now();
        if round % 4 == 1 {
            let request = at.post("/oauth2/revoke").basic_auth("reader", Some(secret("reader")));
            assert_eq!(request.form(&form(&[("token", &token)])).send().await.unwrap().status(), 200);
        } else {
            let what = match round % 4 {
                0 => json!({"kind": "agent", "id": "reader", "reason": "the race"}),
                2 => json!({"kind": "task", "id": says["txn"], "reason": "the race"}),
                _ => token_of(&token),
            };
            let (status, body) = at.take_back(&api, &what, None).await;
            assert_eq!((status.as_u16(), everywhere(&body)), (200, 3), "{body}");
        }
        acknowledged.push((began, Instant::now(), false));
        for at in &replicas {
            assert!(!at.is_live(&token).await);
        }
        stop.store(true, Ordering::SeqCst);
        while let Some(told) = askers.join_next().await {
            for Told { asked, answered, active } in told.unwrap() {
                // As it was acknowledged last before they asked, or as what began before they were answered made it.
                let last = acknowledged.iter().rposition(|(_, end, _)| *end <= asked);
                let since = &acknowledged[last.map_or(0, |last| last + 1)..];
                let was = last.is_none_or(|last| acknowledged[last].2);
                let may_be = since.iter().any(|(began, _, made)| *began <= answered && *made == active);
                assert!(active == was || may_be, "round {round}: told {active} after {last:?}");
                *if last.is_some() { &mut after } else { &mut before } += 1;
            }
        }
    }
    assert!(before > 0 && after > 0, "it was no race: {before} before, {after} after");
}

/// Whoever was cut off listens again by itself: no heartbeat is near, so what it acknowledges it was told.
#[tokio::test(flavor = "multi_thread")]
async fn listeners_come_back() {
    let server = Server::start(TestStore::postgres().await).await;
    let other = server.replica_with(|config| {
        config.replicas.lease_ms = 600_000;
        config.replicas.heartbeat_ms = 300_000;
    });
    let other = other.await;
    for one in [&server, &other] {
        one.leased().await;
    }
    let what = json!({"kind": "agent", "id": "reader", "reason": "in a test"});
    for _ in 0..2 {
        // Each connection that was cut is found to be gone when it is used, and whoever did is told to come again.
        let mut tries = 0;
        let answer = loop {
            let (status, body) = server.admin(Method::POST, "/revocations", Some(what.clone())).await;
            match status.as_u16() {
                200 => break body,
                503 if tries < 20 => tries += 1,
                other => panic!("{other} {body}"),
            }
        };
        assert_eq!(counts(&answer), [2, 0, 0], "{answer}");
        take_away(&server.store).await;
        give_back(&server.store).await;
        until("it issues again", || async {
            let form = form(&[("grant_type", "client_credentials")]);
            server.post_as("ops", "/oauth2/token", &form).await.0 == 200
        })
        .await;
    }
}
