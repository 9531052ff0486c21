//! Wall clocks that are wrong: a revocation that was acknowledged holds whatever they say.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use errand::{
    adapters::system::SystemClock,
    app::{Credentials, Cx, Revocation, Wanted, What},
    domain::{
        client::API_ADMIN,
        secret::Secret,
        time::{Lifetime, Timestamp},
    },
    house::{House, Migrations},
    http::{App, EdgeSettings, Listener, router, serve},
    ports::Clock,
};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::server::{Server, claims, form, read, secret, until};

on_both_stores!(
    a_revoker_that_is_slow,
    a_revoker_that_is_days_behind,
    a_client_is_taken_at_its_word_for_an_hour,
    an_issuer_that_is_hours_ahead,
    what_ended_long_ago_harms_nobody,
    a_replica_that_was_ahead_for_a_moment,
);

impl Server {
    pub fn cx(&self) -> Cx {
        Cx { request_id: "clocks".parse().unwrap(), now: self.house.service.clock().now() }
    }
}

async fn a_revoker_that_is_slow(server: Server) {
    let replica = server.replica().await;
    let token = server.task_token().await;
    assert_eq!(replica.introspect(&token).await["active"], true);
    let bearer = Secret::new(server.api_token("ops", API_ADMIN).await);
    let admin = server
        .house
        .service
        .authorize(&bearer, &[API_ADMIN], "POST /v1/admin/revocations", &server.cx())
        .await
        .unwrap();
    let an_hour_ago = Cx { now: server.cx().now.before(Lifetime::hours(1)), ..server.cx() };
    for target in [
        Wanted::Agent("planner".parse().unwrap()),
        Wanted::Resource("files".parse().unwrap()),
        Wanted::Task(claims(&token)["txn"].as_str().unwrap().parse().unwrap()),
    ] {
        let reason = "the clock is slow".parse().unwrap();
        let revocation = Revocation { target, what: What::Revoke, reason, idempotency_key: None };
        server.house.service.revoke(&admin, revocation, &an_hour_ago).await.unwrap();
        // Nobody passes it over as long gone: neither who follows the log nor who starts now.
        let newcomer = server.replica().await;
        for one in [&server, &replica, &newcomer] {
            assert_eq!(one.introspect(&token).await, json!({"active": false}));
        }
    }
}

async fn a_replica_that_was_ahead_for_a_moment(server: Server) {
    let replica = server.replica().await;
    let token = server.task_token().await;
    assert_eq!(replica.introspect(&token).await["active"], true);
    server.revoke(json!({"kind": "token", "id": claims(&token)["jti"], "reason": "it leaked"})).await;
    let tomorrow = Cx { now: server.cx().now.after(Lifetime::hours(20)), ..server.cx() };
    replica.house.service.ready(&tomorrow).await.unwrap();
    replica.house.service.sweep(&tomorrow).await.unwrap();
    assert_eq!(replica.introspect(&token).await, json!({"active": false}));
}

/// What it writes claims to be over since long. Who starts then passes it over, and knows that it did.
async fn a_revoker_that_is_days_behind(server: Server) {
    let token = server.task_token().await;
    let bearer = Secret::new(server.api_token("ops", API_ADMIN).await);
    let service = &server.house.service;
    let admin = service.authorize(&bearer, &[API_ADMIN], "POST /v1/admin/revocations", &server.cx()).await.unwrap();
    let days_ago = Cx { now: server.cx().now.before(Lifetime::hours(49)), ..server.cx() };
    let (target, reason) = (Wanted::Agent("planner".parse().unwrap()), "the clock is wrong".parse().unwrap());
    let revocation = Revocation { target, what: What::Revoke, reason, idempotency_key: None };
    service.revoke(&admin, revocation, &days_ago).await.unwrap();
    let since = server.task_token().await;
    let newcomer = server.replica().await;
    for one in [&server, &newcomer] {
        assert!(!one.is_live(&token).await);
        assert!(one.is_live(&since).await, "it was issued afterwards");
    }
}

/// For the revoker the token has expired, and for others it has not.
async fn a_client_is_taken_at_its_word_for_an_hour(server: Server) {
    let other = server.replica().await;
    let user = server.user_token(json!({"client_id": "reader-client"}));
    let service = &server.house.service;
    for (ahead, is_written) in [(0, true), (3600 - 10, true), (3600 + 10, false)] {
        let token = server.issued("reader", &server.exchange_form(&user)).await;
        // What it is ahead of the moment in which it takes the token for dead.
        let end = Timestamp::from_unix(claims(&token)["exp"].as_i64().unwrap());
        let cx = Cx { now: end.after(Lifetime::seconds(ahead)), ..server.cx() };
        let credentials = Credentials::Basic { client: "reader".into(), secret: Secret::new(secret("reader")) };
        let caller = service.authenticate(credentials, &cx).await.unwrap().settle(service, &cx).await.unwrap();
        let spread = service.revoke_own(&caller, &token, &cx).await.unwrap();
        assert_eq!(spread.is_some(), is_written, "{ahead}");
        for one in [&server, &other] {
            assert_eq!(one.is_live(&token).await, !is_written, "{ahead}");
        }
    }
}

/// A clock that is set by hand, both of what it has.
struct Set {
    clock: SystemClock,
    ahead: AtomicU64,
    passed: AtomicU64,
}

impl Clock for Set {
    fn now(&self) -> Timestamp {
        let more = self.ahead.load(Ordering::SeqCst) + self.passed.load(Ordering::SeqCst);
        self.clock.now().after(Lifetime::seconds(u32::try_from(more).unwrap()))
    }

    fn monotonic(&self) -> Duration {
        self.clock.monotonic() + Duration::from_secs(self.passed.load(Ordering::SeqCst))
    }
}

/// Another replica, so many seconds ahead.
async fn at(server: &Server, ahead: u64) -> (Arc<Set>, House, String, JoinSet<()>) {
    let clock = Arc::new(Set { clock: SystemClock::new(), ahead: AtomicU64::new(ahead), passed: AtomicU64::new(0) });
    let house = House::open_by(Arc::clone(&clock) as Arc<dyn Clock>, &server.config, Migrations::Always).await.unwrap();
    let listener = Listener::bind(([127, 0, 0, 1], 0).into(), None).await.unwrap();
    let url = format!("http://{}", listener.address().unwrap());
    let mut tasks = house.follow();
    let app = router(App::new(house.service.clone()), EdgeSettings::default());
    tasks.spawn(serve(listener, app, std::future::pending()));
    until("its lease holds", || async { house.service.holds_lease() }).await;
    (clock, house, url, tasks)
}

/// A token of the reader, from a replica that is so many seconds ahead.
async fn issued_at(server: &Server, url: &str, ahead: u64) -> Value {
    let then = Server::now() + i64::try_from(ahead).unwrap();
    let user = json!({"client_id": "reader-client", "iat": then, "exp": then + 600, "auth_time": then});
    let form = server.exchange_form(&server.user_token(user));
    let request = server.http.post(format!("{url}/oauth2/token")).basic_auth("reader", Some(secret("reader")));
    let (status, issued) = read(request.form(&form).send().await.unwrap()).await;
    assert_eq!(status, 200, "{issued}");
    issued["access_token"].clone()
}

async fn is_active(server: &Server, url: &str, token: &Value) -> bool {
    let request = server.http.post(format!("{url}/oauth2/introspect")).basic_auth("files", Some(secret("files")));
    let request = request.form(&form(&[("token", token.as_str().unwrap())]));
    read(request.send().await.unwrap()).await.1["active"].as_bool().unwrap()
}

/// What it issues lasts until long after the end of it has been forgotten; and is no good for that.
async fn an_issuer_that_is_hours_ahead(server: Server) {
    const AHEAD: u64 = 3 * 3600;
    let (_, _house, there, _tasks) = at(&server, AHEAD).await;
    let (clock, house, here, _more_tasks) = at(&server, 0).await;
    let (token, other) = (issued_at(&server, &there, AHEAD).await, issued_at(&server, &there, AHEAD).await);
    // Nobody can say how old they are; at home they are as good as any.
    assert!(!is_active(&server, &here, &token).await && is_active(&server, &there, &token).await);
    let request = server.http.post(format!("{here}/oauth2/revoke")).basic_auth("reader", Some(secret("reader")));
    let request = request.form(&form(&[("token", token.as_str().unwrap())]));
    assert_eq!(request.send().await.unwrap().status(), 200);
    assert!(!is_active(&server, &here, &token).await && !is_active(&server, &there, &token).await);
    assert!(is_active(&server, &there, &other).await);
    // An hour and a quarter later its entry may be forgotten; two hours later its end is near enough to be believed.
    for minutes in [70, 76, 110, 125, 150, 179] {
        clock.passed.store(minutes * 60, Ordering::SeqCst);
        let cx = Cx { request_id: "clocks".parse().unwrap(), now: clock.now() };
        house.service.sweep(&cx).await.unwrap();
        until("its lease holds", || async { house.service.holds_lease() }).await;
        assert!(!is_active(&server, &here, &token).await, "{minutes}");
    }
}

/// To take back what has expired is no mistake, and who starts then does not take it for something that is missing.
async fn what_ended_long_ago_harms_nobody(server: Server) {
    const AHEAD: u64 = 72 * 3600;
    let old = server.task_token().await;
    let (_, house, there, _tasks) = at(&server, AHEAD).await;
    let token = issued_at(&server, &there, AHEAD).await;
    assert!(is_active(&server, &there, &token).await);
    let bearer = Secret::new(server.api_token("ops", API_ADMIN).await);
    let admin = server.house.service.authorize(&bearer, &[API_ADMIN], "POST /v1/admin/revocations", &server.cx()).await;
    let target = Wanted::Token(claims(&old)["jti"].as_str().unwrap().parse().unwrap());
    let reason = "to be sure".parse().unwrap();
    let revocation = Revocation { target, what: What::Revoke, reason, idempotency_key: None };
    let days_later = Cx { now: house.service.clock().now(), ..server.cx() };
    server.house.service.revoke(&admin.unwrap(), revocation, &days_later).await.unwrap();
    let (_, _newcomer, newcomer, _more_tasks) = at(&server, AHEAD).await;
    assert!(is_active(&server, &newcomer, &token).await);
}
