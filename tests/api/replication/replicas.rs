//! Several replicas on one store: each answers from memory while its lease is valid, and a
//! revocation is acknowledged when none of them answers any more from a memory that lacks it.

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

/// The length of a lease that is long enough to act while it is valid, and short enough to wait for
/// its end.
const LONG_LEASE_MS: u32 = 6000;

impl Server {
    /// Starts another replica with a long lease.
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
        wait_until("the lease is valid", || async { self.application.service.holds_lease() }).await;
    }

    /// Stops following the log while the replica keeps serving, as if it were disconnected from the
    /// others.
    pub async fn isolate(&mut self) {
        self.stop_following().await;
        assert!(self.application.service.holds_lease());
    }

    /// Stops following the log. The lease lapses, at once on a slow machine.
    pub async fn stop_following(&mut self) {
        self.background_tasks.shutdown().await;
    }

    pub async fn revoke_with_preference(&self, api: &str, target: &Value, prefer: Option<&str>) -> (StatusCode, Value) {
        let request = self.post("/v1/admin/revocations").bearer_auth(api).json(target);
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

/// Checks that no replica is pending, and returns the number of replicas.
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
        wait_until("every replica has caught up", || async { one.replicas().await.iter().all(|r| r["behind"] == 0) })
            .await;
        wait_until("both leases are valid", || async { one.replicas().await.iter().all(|r| r["lease_valid"] == true) })
            .await;
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
        assert!(
            list[0]["name"].as_str().is_some_and(|name| !name.is_empty()),
            "the default is the host name: {list:?}"
        );
    }
    // A replica that shuts down deregisters, and no revoker waits for it.
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

/// The store is unavailable, so every answer comes from memory.
async fn valid_lease_serves_introspection_from_memory(server: Server) {
    let token = server.task_token().await;
    let at = server.replica_with_long_lease().await;
    assert!(at.is_active(&token).await);
    at.wait_until_leased().await;
    make_store_unavailable(&server.store).await;
    let mut from_memory = 0;
    wait_until("the lease has lapsed", || {
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
    assert!(from_memory > 10, "only {from_memory} requests were sent before the lease lapsed");
    assert!(!at.application.service.holds_lease());
    // It remains unavailable, and issues nothing.
    let again = form_with_changes(&at.exchange_form(&token), &[("purpose", "")]);
    for _ in 0..3 {
        assert_eq!(at.post_as("files", "/oauth2/introspect", &form(&[("token", &token)])).await.0, 503);
        assert_eq!(at.post_as_planner("/oauth2/token", &again).await.0, 503);
    }
    restore_store(&server.store).await;
    at.wait_until_leased().await;
    assert!(at.is_active(&token).await);
}

/// A renewal does not extend the lease until the head of the log has been read after it.
async fn lease_starts_after_reading_log_head(server: Server) {
    let token = server.task_token().await;
    let mut at = server.replica_with(|config| config.replicas.heartbeat_ms = 20).await;
    at.wait_until_leased().await;
    at.stop_following().await;
    wait_until("the lease has lapsed", || async { !at.application.service.holds_lease() }).await;
    server.store.tamper("ALTER TABLE log_head RENAME TO log_head_away").await;
    let _replication = at.application.spawn_replication();
    // While the log can't be read, the replica tries to renew its lease every 20 ms.
    for _ in 0..20 {
        let unknown = at.post_as("files", "/oauth2/introspect", &form(&[("token", &token)])).await;
        assert_eq!(unknown.0, 503, "{}", unknown.1);
    }
    assert!(!at.application.service.holds_lease(), "the replica has not read the head of the log");
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
    // A caller that does not wait learns only that the entry is durable.
    let (status, answer) = server.revoke_with_preference(&api, &token_target(&one), Some("wait=0")).await;
    assert_eq!(status, 202, "{answer}");
    assert!(replica_counts(&answer)[2] >= 1 && replica_counts(&answer).iter().sum::<u64>() == 3, "{answer}");
    assert!(silent.is_active(&one).await, "its lease is valid, so a revoker waits for it");
    assert!(!server.is_active(&one).await, "the replica that revoked it has applied it");
    // A caller that waits gets the response when the lease is over.
    let (status, answer) = third.revoke_with_preference(&api, &token_target(&two), None).await;
    assert_eq!((status.as_u16(), replica_counts(&answer)), (200, [2, 1, 0]), "{answer}");
    for at in [&server, &third, &silent] {
        for token in [&one, &two] {
            assert!(!at.is_active(token).await);
        }
        assert!(at.is_active(&other).await);
    }
    // A revoker that has observed the silent replica for a whole lease does not wait for it any
    // more.
    let (status, answer) = third.revoke_with_preference(&api, &token_target(&other), Some("wait=0")).await;
    assert_eq!((answer["replicas_lapsed"].as_u64(), status.is_success()), (Some(1), true), "{answer}");
    let (status, answer) = server.revoke_with_preference(&api, &token_target(&other), None).await;
    assert_eq!((status.as_u16(), replica_counts(&answer)), (200, [2, 1, 0]), "{answer}");
    assert!(!silent.is_active(&other).await);
    let list = server.replicas().await;
    let valid = list.iter().map(|replica| replica["lease_valid"].as_bool().unwrap()).collect::<Vec<_>>();
    assert_eq!(valid, [true, false, true], "{list:?}");
    // A valid preference is acknowledged, and an invalid one is ignored.
    let request = server.post("/v1/admin/revocations").bearer_auth(&api).header("prefer", "wait=7");
    let response = request.json(&token_target(&other)).send().await.unwrap();
    assert_eq!(
        (response.status().as_u16(), &response.headers()["preference-applied"]),
        (200, &"wait=7".parse().unwrap())
    );
    let (status, _) = server.revoke_with_preference(&api, &token_target(&other), Some("wait=soon")).await;
    assert_eq!(status, 200);
}

/// The first response was lost. The retried request waits for propagation, although this replica
/// has applied the change.
async fn retried_revocation_waits_for_propagation(server: Server) {
    for way in ["client", "key", "task", "removal", "block"] {
        let mut silent = server.replica_with_long_lease().await;
        server.wait_until_leased().await;
        let token = server.task_token().await;
        let claims = decode_claims(&token);
        assert!(silent.is_active(&token).await);
        silent.isolate().await;
        let send = async || {
            // A new API token each time: revoking the signing key also ends the previous one.
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
                    let path = format!("/v1/admin/tasks/{}/suspend", claims["txn"].as_str().unwrap());
                    server.post(&path).bearer_auth(&api).json(&json!({"reason": "a pause"}))
                }
                "block" => {
                    let agent =
                        json!({"kind": "agent", "id": claims["client_id"], "reason": "a pause", "verb": "suspend"});
                    server.post("/v1/admin/revocations").bearer_auth(&api).json(&agent)
                }
                _ => {
                    let path = format!("/v1/admin/keys/{}/revoke", decode_header(&token)["kid"].as_str().unwrap());
                    server.post(&path).bearer_auth(&api).json(&json!({"reason": "it leaked"}))
                }
            };
            request.send().await.unwrap().status().as_u16()
        };
        let first = timeout(Duration::from_millis(400), send()).await;
        assert!(first.is_err(), "{way}: the first request waits: {first:?}");
        wait_until("this replica has applied the change", || async { !server.is_active(&token).await }).await;
        assert!(silent.is_active(&token).await, "{way}: the silent replica's lease is valid");
        let expected = match way {
            "client" | "key" => 200,
            "task" | "block" => 409,
            _ => 404,
        };
        assert_eq!(send().await, expected, "{way}");
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
    // When the response shows a new secret, the old one is invalid at every replica.
    let (status, newer) = server.admin(Method::POST, "/clients/temp/secret", None).await;
    assert_eq!((status.as_u16(), log_in(&silent, &made["client_secret"]).await), (201, 401));
    assert_eq!(log_in(&silent, &newer["client_secret"]).await, 200);
    silent.background_tasks = silent.application.spawn_replication();
    silent.wait_until_leased().await;
    silent.isolate().await;
    let mut disabled = agent;
    disabled["disabled"] = json!(true);
    assert_eq!(server.admin(Method::PUT, "/agents/temp", Some(disabled)).await.0, 200);
    assert_eq!(log_in(&silent, &newer["client_secret"]).await, 401);
}

/// A replica without a lease is exact as well, at the cost of a read.
async fn expired_lease_reads_from_store(server: Server) {
    let mut at = server.replica().await;
    let (one, two) = (server.task_token().await, server.task_token().await);
    assert!(at.is_active(&one).await);
    at.wait_until_leased().await;
    at.stop_following().await;
    wait_until("the lease has lapsed", || async { !at.application.service.holds_lease() }).await;
    let api = server.api_token("ops", "errand:admin").await;
    let task = json!({"kind": "task", "id": decode_claims(&two)["txn"], "reason": "in a test"});
    for target in [token_target(&one), task] {
        let (status, _) = server.revoke_with_preference(&api, &target, None).await;
        assert_eq!(status, 200);
    }
    for token in [&one, &two] {
        assert!(!at.is_active(token).await);
        let again = form_with_changes(&at.exchange_form(token), &[("purpose", "")]);
        assert_eq!(at.post_as_planner("/oauth2/token", &again).await.0, 400);
    }
    assert!(!at.application.service.holds_lease());
}

/// A replica that starts knows every revocation that was acknowledged before its first response.
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

/// One introspection, with the times of its request and of its response.
struct Observed {
    requested: Instant,
    responded: Instant,
    active: bool,
}

/// Three replicas are introspected continuously, and the times are recorded. Meanwhile, tokens are
/// revoked, suspended and resumed at any of them. Every introspection that began after an
/// acknowledgement agrees with it.
async fn acknowledged_revocation_is_visible_on_every_replica(server: Server) {
    const ROUNDS: usize = 24;
    let server = Arc::new(server);
    let replicas = [Arc::clone(&server), Arc::new(server.replica().await), Arc::new(server.replica().await)];
    for replica in &replicas {
        replica.wait_until_leased().await;
    }
    let api = server.api_token("ops", "errand:admin").await;
    let (mut before, mut after) = (0, 0);
    for round in 0..ROUNDS {
        // The end of a task ends its user token.
        let user = server.user_token(json!({"client_id": "reader-client"}));
        let token = server.issue_token("reader", &server.exchange_form(&user)).await;
        let claims = decode_claims(&token);
        let stop = Arc::new(AtomicBool::new(false));
        let mut clients = JoinSet::new();
        for at in &replicas {
            let (at, stop, token) = (Arc::clone(at), Arc::clone(&stop), token.clone());
            clients.spawn(async move {
                let mut observed = Vec::new();
                while !stop.load(Ordering::SeqCst) {
                    let requested = Instant::now();
                    let active = at.is_active(&token).await;
                    observed.push(Observed { requested, responded: Instant::now(), active });
                    // Let other tasks run between two requests.
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                observed
            });
        }
        let at = &replicas[round % 3];
        let mut acknowledged = Vec::new();
        if round % 3 == 0 {
            for (act, active) in [("suspend", false), ("resume", true)] {
                let began = Instant::now();
                let path = format!("/v1/admin/tasks/{}/{act}", claims["txn"].as_str().unwrap());
                let request = at.post(&path).bearer_auth(&api).json(&json!({"reason": "the race"}));
                let (status, body) = read_response(request.send().await.unwrap()).await;
                assert_eq!((status.as_u16(), assert_complete(&body)), (200, 3), "{body}");
                acknowledged.push((began, Instant::now(), active));
                // Long enough for an introspection in between.
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
        let began = Instant::now();
        if round % 4 == 1 {
            let request = at.post("/oauth2/revoke").basic_auth("reader", Some(secret("reader")));
            assert_eq!(request.form(&form(&[("token", &token)])).send().await.unwrap().status(), 200);
        } else {
            let target = match round % 4 {
                0 => json!({"kind": "agent", "id": "reader", "reason": "the race"}),
                2 => json!({"kind": "task", "id": claims["txn"], "reason": "the race"}),
                _ => token_target(&token),
            };
            let (status, body) = at.revoke_with_preference(&api, &target, None).await;
            assert_eq!((status.as_u16(), assert_complete(&body)), (200, 3), "{body}");
        }
        acknowledged.push((began, Instant::now(), false));
        for at in &replicas {
            assert!(!at.is_active(&token).await);
        }
        stop.store(true, Ordering::SeqCst);
        while let Some(observed) = clients.join_next().await {
            for Observed { requested, responded, active } in observed.unwrap() {
                // Either the state that was last acknowledged before the request, or that of a
                // change that began before the response.
                let last = acknowledged.iter().rposition(|(_, end, _)| *end <= requested);
                let since = &acknowledged[last.map_or(0, |last| last + 1)..];
                let acknowledged_state = last.is_none_or(|last| acknowledged[last].2);
                let is_concurrent = since.iter().any(|(began, _, result)| *began <= responded && *result == active);
                assert!(active == acknowledged_state || is_concurrent, "round {round}: {active} after {last:?}");
                *if last.is_some() { &mut after } else { &mut before } += 1;
            }
        }
    }
    assert!(before > 0 && after > 0, "no overlap: {before} before, {after} after");
}

/// A listener reconnects after its connection was cut. The next heartbeat is far away, so an
/// acknowledgement shows that a notification arrived.
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
    let target = json!({"kind": "agent", "id": "reader", "reason": "in a test"});
    for _ in 0..2 {
        // A cut connection is detected when it is used, and that request gets 503.
        let mut tries = 0;
        let answer = loop {
            let (status, body) = server.admin(Method::POST, "/revocations", Some(target.clone())).await;
            match status.as_u16() {
                200 => break body,
                503 if tries < 20 => tries += 1,
                other => panic!("{other} {body}"),
            }
        };
        assert_eq!(replica_counts(&answer), [2, 0, 0], "{answer}");
        make_store_unavailable(&server.store).await;
        restore_store(&server.store).await;
        wait_until("tokens are issued again", || async {
            let form = form(&[("grant_type", "client_credentials")]);
            server.post_as("ops", "/oauth2/token", &form).await.0 == 200
        })
        .await;
    }
}
