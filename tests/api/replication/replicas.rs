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
    replication::store_outage::{make_store_unavailable, restore_store},
    server::{Server, decode_claims, decode_header, form, form_with_changes, read_response, secret, wait_until},
    support::TestStore,
};

on_both_stores!(
    replicas_are_listed_with_their_state,
    valid_lease_serves_introspection_from_memory,
    lease_starts_after_reading_log_head,
    revocation_waits_for_silent_replica_lease,
    retried_revocation_waits_for_propagation,
    registry_changes_wait_for_propagation,
    expired_lease_reads_from_store,
    starting_replica_knows_acknowledged_revocations,
    acknowledged_revocation_is_visible_on_every_replica,
);

/// A lease that is long enough to do something while it holds, and to wait for its end.
const LONG_LEASE_MS: u32 = 6000;

impl Server {
    /// Another replica with a long lease.
    pub async fn replica_with_long_lease(&self) -> Self {
        let other = self
            .replica_with(|config| {
                config.replicas.lease_ms = LONG_LEASE_MS;
                config.replicas.heartbeat_ms = LONG_LEASE_MS / 20;
            })
            .await;
        other.wait_until_leased().await;
        other
    }

    pub async fn wait_until_leased(&self) {
        wait_until("its lease holds", || async { self.application.service.holds_lease() }).await;
    }

    /// It follows no longer, and goes on answering: as one that is cut off from the others.
    pub async fn isolate(&mut self) {
        self.background_tasks.shutdown().await;
        assert!(self.application.service.holds_lease());
    }

    pub async fn revoke_with_preference(&self, api: &str, what: &Value, prefer: Option<&str>) -> (StatusCode, Value) {
        let request = self.post("/v1/admin/revocations").bearer_auth(api).json(what);
        let request = match prefer {
            Some(prefer) => request.header("prefer", prefer),
            None => request,
        };
        read_response(request.send().await.unwrap()).await
    }

    async fn replicas(&self) -> Vec<Value> {
        let (status, list) = self.admin(Method::GET, "/replicas", None).await;
        assert_eq!((status.as_u16(), &list["next"]), (200, &Value::Null), "{list}");
        list["items"].as_array().unwrap().clone()
    }
}

pub fn token_target(token: &str) -> Value {
    json!({"kind": "token", "id": decode_claims(token)["jti"], "reason": "in a test"})
}

pub fn replica_counts(answer: &Value) -> [u64; 3] {
    let count = |name| answer[format!("replicas_{name}")].as_u64().unwrap_or_else(|| panic!("{answer}"));
    ["acknowledged", "lapsed", "pending"].map(count)
}

/// Of how many replicas it is known that they answer by it.
fn assert_complete(answer: &Value) -> u64 {
    let [acknowledged, lapsed, pending] = replica_counts(answer);
    assert_eq!(pending, 0, "{answer}");
    acknowledged + lapsed
}

async fn replicas_are_listed_with_their_state(server: Server) {
    let other = server.replica_with(|config| config.replicas.name = Some("second".into())).await;
    for one in [&server, &other] {
        one.wait_until_leased().await;
    }
    let token = server.task_token().await;
    let answer = server.revoke(token_target(&token)).await;
    assert_eq!(assert_complete(&answer), 2, "{answer}");
    for one in [&server, &other] {
        wait_until("it says so", || async { one.replicas().await.iter().all(|r| r["behind"] == 0) }).await;
        wait_until("both live", || async { one.replicas().await.iter().all(|r| r["lease_valid"] == true) }).await;
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
    let answer = server.revoke(token_target(&token)).await;
    assert_eq!(replica_counts(&answer), [1, 0, 0], "{answer}");
    let metrics = server.request(Method::GET, "/metrics").send().await.unwrap().text().await.unwrap();
    let seq = format!("errand_log_applied_seq {}", answer["seq"]);
    for line in [&*seq, "errand_revocation_propagation_seconds_count 2"] {
        assert!(metrics.lines().any(|one| one == line), "{line}: {metrics}");
    }
}

/// The store is away, so whatever asks it gets no answer; what is answered all the same was not asked of it.
async fn valid_lease_serves_introspection_from_memory(server: Server) {
    let token = server.task_token().await;
    let at = server.replica_with_long_lease().await;
    assert!(at.is_active(&token).await);
    at.wait_until_leased().await;
    make_store_unavailable(&server.store).await;
    let mut from_memory = 0;
    wait_until("its lease is over", || {
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
    assert!(!at.application.service.holds_lease());
    // It stays so, and nothing is issued either.
    let again = form_with_changes(&at.exchange_form(&token), &[("purpose", "")]);
    for _ in 0..3 {
        assert_eq!(at.post_as("files", "/oauth2/introspect", &form(&[("token", &token)])).await.0, 503);
        assert_eq!(at.post_as_planner("/oauth2/token", &again).await.0, 503);
    }
    restore_store(&server.store).await;
    at.wait_until_leased().await;
    assert!(at.is_active(&token).await);
}

/// A renewal is no lease before the head of the log was read after it.
async fn lease_starts_after_reading_log_head(server: Server) {
    let mut at = server.replica_with(|config| config.replicas.heartbeat_ms = 20).await;
    at.wait_until_leased().await;
    at.isolate().await;
    wait_until("its lease is over", || async { !at.application.service.holds_lease() }).await;
    server.store.tamper("ALTER TABLE log_head RENAME TO log_head_away").await;
    let store = server.store.open().await;
    let renewals = async || {
        let beats = store.list_replicas().await.unwrap();
        beats.iter().map(|beat| (beat.replica.id, beat.number)).max().unwrap().1
    };
    let before = renewals().await;
    let _following = at.application.spawn_replication();
    wait_until("it has renewed a few times", || async { renewals().await > before + 3 }).await;
    assert!(!at.application.service.holds_lease(), "it can't know what it missed");
    server.store.tamper("ALTER TABLE log_head_away RENAME TO log_head").await;
    at.wait_until_leased().await;
}

async fn revocation_waits_for_silent_replica_lease(server: Server) {
    let mut silent = server.replica_with_long_lease().await;
    let third = server.replica().await;
    for one in [&server, &third] {
        one.wait_until_leased().await;
    }
    let api = server.api_token("ops", "errand:admin").await;
    let (one, two, other) = (server.task_token().await, server.task_token().await, server.task_token().await);
    assert!(silent.is_active(&one).await);
    silent.isolate().await;
    // Who does not wait is told that it is durable, and no more.
    let (status, answer) = server.revoke_with_preference(&api, &token_target(&one), Some("wait=0")).await;
    assert_eq!(status, 202, "{answer}");
    assert!(replica_counts(&answer)[2] >= 1 && replica_counts(&answer).iter().sum::<u64>() == 3, "{answer}");
    assert!(silent.is_active(&one).await, "which is why it is waited for");
    assert!(!server.is_active(&one).await, "at home it is known at once");
    // Who waits hears of it when the lease is over.
    let (status, answer) = third.revoke_with_preference(&api, &token_target(&two), None).await;
    assert_eq!((status.as_u16(), replica_counts(&answer)), (200, [2, 1, 0]), "{answer}");
    for at in [&server, &third, &silent] {
        for token in [&one, &two] {
            assert!(!at.is_active(token).await);
        }
        assert!(at.is_active(&other).await);
    }
    // From now on nobody waits for it: whoever has watched it for so long knows.
    let (status, answer) = third.revoke_with_preference(&api, &token_target(&other), Some("wait=0")).await;
    assert_eq!((answer["replicas_lapsed"].as_u64(), status.is_success()), (Some(1), true), "{answer}");
    let (status, answer) = server.revoke_with_preference(&api, &token_target(&other), None).await;
    assert_eq!((status.as_u16(), replica_counts(&answer)), (200, [2, 1, 0]), "{answer}");
    assert!(!silent.is_active(&other).await);
    let list = server.replicas().await;
    let valid = list.iter().map(|replica| replica["lease_valid"].as_bool().unwrap()).collect::<Vec<_>>();
    assert_eq!(valid, [true, false, true], "{list:?}");
    // Preferences are answered, and what is none is none.
    let request = server.post("/v1/admin/revocations").bearer_auth(&api).header("prefer", "wait=7");
    let response = request.json(&token_target(&other)).send().await.unwrap();
    assert_eq!(
        (response.status().as_u16(), &response.headers()["preference-applied"]),
        (200, &"wait=7".parse().unwrap())
    );
    let (status, _) = server.revoke_with_preference(&api, &token_target(&other), Some("wait=soon")).await;
    assert_eq!(status, 200);
}

/// The first answer got lost: the same again is answered when it is everywhere, and not because it is known here.
async fn retried_revocation_waits_for_propagation(server: Server) {
    for way in ["client", "key", "task", "removal", "door"] {
        let mut silent = server.replica_with_long_lease().await;
        server.wait_until_leased().await;
        let token = server.task_token().await;
        let says = decode_claims(&token);
        assert!(silent.is_active(&token).await);
        silent.isolate().await;
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
                    request.header("idempotency-key", "again").json(&token_target(&token))
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
                    let path = format!("/v1/admin/keys/{}/revoke", decode_header(&token)["kid"].as_str().unwrap());
                    server.post(&path).bearer_auth(&api).json(&json!({"reason": "it leaked"}))
                }
            };
            request.send().await.unwrap().status().as_u16()
        };
        let first = timeout(Duration::from_millis(400), ask()).await;
        assert!(first.is_err(), "{way}: it waits: {first:?}");
        wait_until("it is known at home", || async { !server.is_active(&token).await }).await;
        assert!(silent.is_active(&token).await, "{way}: its lease holds");
        let want = match way {
            "client" | "key" => 200,
            "task" | "door" => 409,
            _ => 404,
        };
        assert_eq!(ask().await, want, "{way}");
        assert!(!silent.is_active(&token).await, "{way}");
    }
}

async fn registry_changes_wait_for_propagation(server: Server) {
    let agent = json!({"id": "temp", "authentication": {"method": "client_secret_basic"}});
    assert_eq!(server.admin(Method::PUT, "/agents/temp", Some(agent.clone())).await.0, 201);
    let (_, made) = server.admin(Method::POST, "/clients/temp/secret", None).await;
    let mut silent = server.replica_with_long_lease().await;
    let log_in = async |at: &Server, secret: &Value| {
        let request = at.post("/oauth2/token").basic_auth("temp", secret.as_str());
        let request = request.form(&form(&[("grant_type", "client_credentials")]));
        request.send().await.unwrap().status().as_u16()
    };
    assert_eq!(log_in(&silent, &made["client_secret"]).await, 200);
    silent.isolate().await;
    // A new secret: the old one is dead everywhere when it is shown.
    let (status, newer) = server.admin(Method::POST, "/clients/temp/secret", None).await;
    assert_eq!((status.as_u16(), log_in(&silent, &made["client_secret"]).await), (201, 401));
    assert_eq!(log_in(&silent, &newer["client_secret"]).await, 200);
    silent.background_tasks = silent.application.spawn_replication();
    silent.wait_until_leased().await;
    silent.isolate().await;
    let mut shut = agent;
    shut["disabled"] = json!(true);
    assert_eq!(server.admin(Method::PUT, "/agents/temp", Some(shut)).await.0, 200);
    assert_eq!(log_in(&silent, &newer["client_secret"]).await, 401);
}

/// Today's way for whoever has no lease: exact, at the price of a read.
async fn expired_lease_reads_from_store(server: Server) {
    let mut at = server.replica().await;
    let (one, two) = (server.task_token().await, server.task_token().await);
    assert!(at.is_active(&one).await);
    at.wait_until_leased().await;
    at.isolate().await;
    wait_until("its lease is over", || async { !at.application.service.holds_lease() }).await;
    let api = server.api_token("ops", "errand:admin").await;
    let task = json!({"kind": "task", "id": decode_claims(&two)["txn"], "reason": "in a test"});
    for what in [token_target(&one), task] {
        // It need not even be known to be dead for long.
        let (status, _) = server.revoke_with_preference(&api, &what, None).await;
        assert_eq!(status, 200);
    }
    for token in [&one, &two] {
        assert!(!at.is_active(token).await);
        let again = form_with_changes(&at.exchange_form(token), &[("purpose", "")]);
        assert_eq!(at.post_as_planner("/oauth2/token", &again).await.0, 400);
    }
    assert!(!at.application.service.holds_lease());
}

/// Whoever starts knows what was acknowledged before they answered.
async fn starting_replica_knows_acknowledged_revocations(server: Server) {
    let api = server.api_token("ops", "errand:admin").await;
    let user = server.user_token(json!({"client_id": "reader-client"}));
    let issue = async || server.issue_token("reader", &server.exchange_form(&user)).await;
    let mut revoked = Vec::new();
    for _ in 0..6 {
        let starting = server.replica_with(|config| config.replicas.heartbeat_ms = 20);
        let revoking = async {
            for _ in 0..5 {
                let token = issue().await;
                assert_eq!(server.revoke_with_preference(&api, &token_target(&token), None).await.0, 200);
                revoked.push(token);
            }
        };
        let (newcomer, ()) = tokio::join!(starting, revoking);
        newcomer.wait_until_leased().await;
        for token in &revoked {
            assert!(!newcomer.is_active(token).await);
        }
    }
}

/// What a resource was told, when it had asked, and when it was answered.
struct Acknowledged {
    asked: Instant,
    answered: Instant,
    active: bool,
}

/// Three replicas are asked without a pause, by somebody who writes down when they asked; somebody else ends tokens,
/// suspends and resumes at any of them. Whoever asked after an acknowledgement was told accordingly.
async fn acknowledged_revocation_is_visible_on_every_replica(server: Server) {
    const ROUNDS: usize = 24;
    let server = Arc::new(server);
    let replicas = [Arc::clone(&server), Arc::new(server.replica().await), Arc::new(server.replica().await)];
    for replica in &replicas {
        replica.wait_until_leased().await;
    }
    let api = server.api_token("ops", "errand:admin").await;
    let user = server.user_token(json!({"client_id": "reader-client"}));
    let (mut before, mut after) = (0, 0);
    for round in 0..ROUNDS {
        let token = server.issue_token("reader", &server.exchange_form(&user)).await;
        let says = decode_claims(&token);
        let stop = Arc::new(AtomicBool::new(false));
        let mut askers = JoinSet::new();
        for at in &replicas {
            let (at, stop, token) = (Arc::clone(at), Arc::clone(&stop), token.clone());
            askers.spawn(async move {
                let mut told = Vec::new();
                while !stop.load(Ordering::SeqCst) {
                    let asked = Instant::now();
                    let active = at.is_active(&token).await;
                    told.push(Acknowledged { asked, answered: Instant::now(), active });
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
                let (status, body) = read_response(request.send().await.unwrap()).await;
                assert_eq!((status.as_u16(), assert_complete(&body)), (200, 3), "{body}");
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
                _ => token_target(&token),
            };
            let (status, body) = at.revoke_with_preference(&api, &what, None).await;
            assert_eq!((status.as_u16(), assert_complete(&body)), (200, 3), "{body}");
        }
        acknowledged.push((began, Instant::now(), false));
        for at in &replicas {
            assert!(!at.is_active(&token).await);
        }
        stop.store(true, Ordering::SeqCst);
        while let Some(told) = askers.join_next().await {
            for Acknowledged { asked, answered, active } in told.unwrap() {
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
async fn store_listeners_reconnect() {
    let server = Server::start(TestStore::postgres().await).await;
    let other = server.replica_with(|config| {
        config.replicas.lease_ms = 600_000;
        config.replicas.heartbeat_ms = 300_000;
    });
    let other = other.await;
    for one in [&server, &other] {
        one.wait_until_leased().await;
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
        assert_eq!(replica_counts(&answer), [2, 0, 0], "{answer}");
        make_store_unavailable(&server.store).await;
        restore_store(&server.store).await;
        wait_until("it issues again", || async {
            let form = form(&[("grant_type", "client_credentials")]);
            server.post_as("ops", "/oauth2/token", &form).await.0 == 200
        })
        .await;
    }
}
