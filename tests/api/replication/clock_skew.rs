//! Wrong wall clocks: an acknowledged revocation holds whatever they show.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use errand::{
    adapters::system::SystemClock,
    app::{AdminAction, Credentials, RequestContext, Revocation, RevocationTarget},
    bootstrap::{Application, BackgroundTasks, MigrationPolicy},
    domain::{
        registry::client::ADMIN_SCOPE,
        secret::Secret,
        time::{Lifetime, Timestamp},
    },
    http::{AppState, HttpSettings, Listener, router, serve},
    ports::Clock,
};
use serde_json::{Value, json};

use crate::server::{Server, decode_claims, form, read_response, secret, wait_until};

on_both_stores!(
    revoker_with_slow_clock_still_ends_tokens,
    revoker_with_clock_behind_is_still_effective,
    revocation_with_clock_ahead_is_logged_within_an_hour,
    token_from_issuer_with_clock_ahead_is_not_revived,
    revoking_expired_token_is_harmless,
    replica_recovers_from_brief_clock_jump,
);

impl Server {
    pub fn cx(&self) -> RequestContext {
        RequestContext::internal("clocks".parse().unwrap(), self.application.service.clock().now())
    }
}

async fn revoker_with_slow_clock_still_ends_tokens(server: Server) {
    let replica = server.replica().await;
    let token = server.task_token().await;
    assert_eq!(replica.introspect(&token).await["active"], true);
    let bearer = Secret::new(server.api_token("ops", ADMIN_SCOPE).await);
    let admin = server
        .application
        .service
        .authorize(&bearer, &[ADMIN_SCOPE], "POST /v1/admin/revocations", &server.cx())
        .await
        .unwrap();
    let an_hour_ago = RequestContext { now: server.cx().now.saturating_sub(Lifetime::hours(1)), ..server.cx() };
    for target in [
        RevocationTarget::Agent("planner".parse().unwrap()),
        RevocationTarget::Resource("files".parse().unwrap()),
        RevocationTarget::Task(decode_claims(&token)["txn"].as_str().unwrap().parse().unwrap()),
    ] {
        let reason = "the clock is slow".parse().unwrap();
        let revocation = Revocation { target, action: AdminAction::Revoke, reason, idempotency_key: None };
        server.application.service.revoke(&admin, revocation, &an_hour_ago).await.unwrap();
        // The entry is not skipped as out of date, neither by a follower nor at start.
        let newcomer = server.replica().await;
        for one in [&server, &replica, &newcomer] {
            assert_eq!(one.introspect(&token).await, json!({"active": false}));
        }
    }
}

async fn replica_recovers_from_brief_clock_jump(server: Server) {
    let replica = server.replica().await;
    let token = server.task_token().await;
    assert_eq!(replica.introspect(&token).await["active"], true);
    server.revoke(json!({"kind": "token", "id": decode_claims(&token)["jti"], "reason": "it leaked"})).await;
    let tomorrow = RequestContext { now: server.cx().now.saturating_add(Lifetime::hours(20)), ..server.cx() };
    replica.application.service.check_readiness(&tomorrow).await.unwrap();
    replica.application.service.collect_garbage(&tomorrow).await.unwrap();
    assert_eq!(replica.introspect(&token).await, json!({"active": false}));
}

/// The revoker's entries claim to be long out of date. A replica that starts may skip them, and
/// rejects the tokens that they may concern.
async fn revoker_with_clock_behind_is_still_effective(server: Server) {
    let token = server.task_token().await;
    let bearer = Secret::new(server.api_token("ops", ADMIN_SCOPE).await);
    let service = &server.application.service;
    let admin = service.authorize(&bearer, &[ADMIN_SCOPE], "POST /v1/admin/revocations", &server.cx()).await.unwrap();
    let days_ago = RequestContext { now: server.cx().now.saturating_sub(Lifetime::hours(49)), ..server.cx() };
    let (target, reason) = (RevocationTarget::Agent("planner".parse().unwrap()), "the clock is wrong".parse().unwrap());
    let revocation = Revocation { target, action: AdminAction::Revoke, reason, idempotency_key: None };
    service.revoke(&admin, revocation, &days_ago).await.unwrap();
    let since = server.task_token().await;
    let newcomer = server.replica().await;
    for one in [&server, &newcomer] {
        assert!(!one.is_active(&token).await);
        assert!(one.is_active(&since).await, "the token was issued after the entry");
    }
}

/// The token has expired for the revoker, but not for other replicas.
async fn revocation_with_clock_ahead_is_logged_within_an_hour(server: Server) {
    let other = server.replica().await;
    let user = server.user_token(json!({"client_id": "reader-client"}));
    let service = &server.application.service;
    for (ahead, is_written) in [(0, true), (3600 - 10, true), (3600 + 10, false)] {
        let token = server.issue_token("reader", &server.exchange_form(&user)).await;
        // `ahead` counts from the token's expiry.
        let end = Timestamp::from_unix(decode_claims(&token)["exp"].as_i64().unwrap());
        let cx = RequestContext { now: end.saturating_add(Lifetime::seconds(ahead)), ..server.cx() };
        let credentials = Credentials::Basic { client: "reader".into(), secret: Secret::new(secret("reader")) };
        let caller = service.authenticate(credentials, &cx).await.unwrap().redeem(service, &cx).await.unwrap();
        let spread = service.revoke_token(&caller, &token, &cx).await.unwrap();
        assert_eq!(spread.is_some(), is_written, "{ahead}");
        for one in [&server, &other] {
            assert_eq!(one.is_active(&token).await, !is_written, "{ahead}");
        }
    }
}

/// A clock whose wall time and monotonic time the test sets.
struct OffsetClock {
    clock: SystemClock,
    ahead: AtomicU64,
    passed: AtomicU64,
}

impl Clock for OffsetClock {
    fn now(&self) -> Timestamp {
        let more = self.ahead.load(Ordering::SeqCst) + self.passed.load(Ordering::SeqCst);
        self.clock.now().saturating_add(Lifetime::seconds(u32::try_from(more).unwrap()))
    }

    fn monotonic(&self) -> Duration {
        self.clock.monotonic() + Duration::from_secs(self.passed.load(Ordering::SeqCst))
    }
}

/// Starts another replica whose wall clock is `ahead` seconds ahead.
async fn start_replica_ahead(server: &Server, ahead: u64) -> (Arc<OffsetClock>, Application, String, BackgroundTasks) {
    let clock =
        Arc::new(OffsetClock { clock: SystemClock::new(), ahead: AtomicU64::new(ahead), passed: AtomicU64::new(0) });
    let application =
        Application::build_with_clock(Arc::clone(&clock) as Arc<dyn Clock>, &server.config, MigrationPolicy::Always)
            .await
            .unwrap();
    let listener = Listener::bind(([127, 0, 0, 1], 0).into(), None).await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let tasks = application.spawn_replication();
    let app = router(AppState::new(application.service.clone()), HttpSettings::default());
    tasks.spawn(serve(listener, app, std::future::pending()));
    wait_until("the lease is valid", || async { application.service.holds_lease() }).await;
    (clock, application, url, tasks)
}

/// Issues a token to the reader at a replica whose wall clock is `ahead` seconds ahead.
async fn issue_at(server: &Server, url: &str, ahead: u64) -> Value {
    let then = Server::now() + i64::try_from(ahead).unwrap();
    let user = json!({"client_id": "reader-client", "iat": then, "exp": then + 600, "auth_time": then});
    let form = server.exchange_form(&server.user_token(user));
    let request = server.http.post(format!("{url}/oauth2/token")).basic_auth("reader", Some(secret("reader")));
    let (status, issued) = read_response(request.form(&form).send().await.unwrap()).await;
    assert_eq!(status, 200, "{issued}");
    issued["access_token"].clone()
}

async fn is_active(server: &Server, url: &str, token: &Value) -> bool {
    let request = server.http.post(format!("{url}/oauth2/introspect")).basic_auth("files", Some(secret("files")));
    let request = request.form(&form(&[("token", token.as_str().unwrap())]));
    read_response(request.send().await.unwrap()).await.1["active"].as_bool().unwrap()
}

/// The token outlives the retention of the entry that ends it. It must not become active again.
async fn token_from_issuer_with_clock_ahead_is_not_revived(server: Server) {
    const AHEAD: u64 = 3 * 3600;
    let (_, _house, there, _tasks) = start_replica_ahead(&server, AHEAD).await;
    let (clock, application, here, _more_tasks) = start_replica_ahead(&server, 0).await;
    let (token, other) = (issue_at(&server, &there, AHEAD).await, issue_at(&server, &there, AHEAD).await);
    // Their age is unknown at the replica with the right clock, so it rejects them; their issuer
    // accepts them.
    assert!(!is_active(&server, &here, &token).await && is_active(&server, &there, &token).await);
    let request = server.http.post(format!("{here}/oauth2/revoke")).basic_auth("reader", Some(secret("reader")));
    let request = request.form(&form(&[("token", token.as_str().unwrap())]));
    assert_eq!(request.send().await.unwrap().status(), 200);
    assert!(!is_active(&server, &here, &token).await && !is_active(&server, &there, &token).await);
    assert!(is_active(&server, &there, &other).await);
    // After an hour and a quarter the entry may be evicted; after two hours the token's expiry is
    // plausible.
    for minutes in [70, 76, 110, 125, 150, 179] {
        clock.passed.store(minutes * 60, Ordering::SeqCst);
        let cx = RequestContext::internal("clocks".parse().unwrap(), clock.now());
        application.service.collect_garbage(&cx).await.unwrap();
        wait_until("the lease is valid", || async { application.service.holds_lease() }).await;
        assert!(!is_active(&server, &here, &token).await, "{minutes}");
    }
}

/// Revoking an expired token succeeds, and a replica that starts afterwards does not count its
/// entry as a skipped one.
async fn revoking_expired_token_is_harmless(server: Server) {
    const AHEAD: u64 = 72 * 3600;
    let old = server.task_token().await;
    let (_, application, there, _tasks) = start_replica_ahead(&server, AHEAD).await;
    let token = issue_at(&server, &there, AHEAD).await;
    assert!(is_active(&server, &there, &token).await);
    let bearer = Secret::new(server.api_token("ops", ADMIN_SCOPE).await);
    let admin =
        server.application.service.authorize(&bearer, &[ADMIN_SCOPE], "POST /v1/admin/revocations", &server.cx()).await;
    let target = RevocationTarget::Token(decode_claims(&old)["jti"].as_str().unwrap().parse().unwrap());
    let reason = "to be sure".parse().unwrap();
    let revocation = Revocation { target, action: AdminAction::Revoke, reason, idempotency_key: None };
    let days_later = RequestContext { now: application.service.clock().now(), ..server.cx() };
    server.application.service.revoke(&admin.unwrap(), revocation, &days_later).await.unwrap();
    let (_, _newcomer, newcomer, _more_tasks) = start_replica_ahead(&server, AHEAD).await;
    assert!(is_active(&server, &newcomer, &token).await);
}
