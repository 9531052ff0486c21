//! Connections to the database that go silent, without a word that they are gone: a firewall that forgot them, a machine
//! that lost its power. New ones are good. Nobody waits for ever, and all comes right again by itself.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use reqwest::Method;
use serde_json::json;
use sqlx::{Connection, Executor, PgConnection};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::timeout,
};

use crate::{
    server::{Server, claims, form, secret, until},
    support::TestStore,
};

/// The way to a server.
struct Wire {
    address: SocketAddr,
    /// How often it has forgotten what it had.
    forgotten: Arc<AtomicU64>,
}

impl Wire {
    async fn to(upstream: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let forgotten = Arc::<AtomicU64>::default();
        let forgetting = Arc::clone(&forgotten);
        tokio::spawn(async move {
            loop {
                let (near, _) = listener.accept().await.unwrap();
                let Ok(far) = TcpStream::connect(upstream).await else { continue };
                let ((near_read, near_write), (far_read, far_write)) = (near.into_split(), far.into_split());
                tokio::spawn(pump(near_read, far_write, Arc::clone(&forgetting)));
                tokio::spawn(pump(far_read, near_write, Arc::clone(&forgetting)));
            }
        });
        Self { address, forgotten }
    }

    /// What is connected now is never closed, and nothing passes any more.
    fn forget(&self) {
        self.forgotten.fetch_add(1, Ordering::SeqCst);
    }
}

async fn pump(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin, forgotten: Arc<AtomicU64>) {
    let began = forgotten.load(Ordering::SeqCst);
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let read = from.read(&mut buffer).await;
        let is_forgotten = forgotten.load(Ordering::SeqCst) != began;
        match read {
            Ok(1..) if is_forgotten => {}
            Ok(length @ 1..) if to.write_all(&buffer[..length]).await.is_ok() => {}
            _ if is_forgotten => std::future::pending::<()>().await,
            _ => return,
        }
    }
}

/// A replica behind a wire, and another one that has none.
async fn two() -> (Server, Server, Wire) {
    let server = Server::start(TestStore::postgres().await).await;
    let mut url = url::Url::parse(server.store.url()).unwrap();
    let upstream = format!("{}:{}", url.host_str().unwrap(), url.port().unwrap()).parse().unwrap();
    let wire = Wire::to(upstream).await;
    url.set_port(Some(wire.address.port())).unwrap();
    std::fs::write(server.folder.path().join("store-url"), url.as_str()).unwrap();
    let other = server.replica().await;
    for at in [&server, &other] {
        until("its lease holds", || async { at.house.service.holds_lease() }).await;
    }
    (server, other, wire)
}

/// It introspects, issues, is ready and answers from memory, as before.
async fn is_well_again(at: &Server, token: &str) {
    let grant = form(&[("grant_type", "client_credentials")]);
    let asked = form(&[("token", token)]);
    until("it is well again", || async {
        let (introspection, body) = at.post_as("files", "/oauth2/introspect", &asked).await;
        assert!(introspection == 503 || (introspection == 200 && body["active"] == true), "{introspection} {body}");
        let (issue, _) = at.post_as("reader", "/oauth2/token", &grant).await;
        let ready = at.request(Method::GET, "/readyz").send().await.unwrap().status();
        introspection == 200 && issue == 200 && ready == 200 && at.house.service.holds_lease()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn while_nothing_happens() {
    let (server, other, wire) = two().await;
    let token = server.task_token().await;
    wire.forget();
    is_well_again(&other, &token).await;
    // It hears of things again, and is heard of.
    let task = json!({"kind": "task", "id": claims(&token)["txn"], "reason": "in a test"});
    let answer = server.revoke(task).await;
    assert_eq!(answer["replicas_pending"], 0, "{answer}");
    assert!(!other.is_live(&token).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn while_it_commits() {
    let (server, other, wire) = two().await;
    let token = server.task_token().await;
    let held = server.store.hold_writes().await;
    let grant = form(&[("grant_type", "client_credentials")]);
    let first = other.post("/oauth2/token").basic_auth("reader", Some(secret("reader"))).form(&grant).send();
    let first = tokio::spawn(first);
    let mut lock = PgConnection::connect(server.store.url()).await.unwrap();
    waits_for_a_lock(&mut lock).await;
    wire.forget();
    drop(held);
    // A commit that never ends is no readiness.
    until("it says that it is not ready", || async {
        let answer = other.request(Method::GET, "/readyz").send().await.unwrap();
        answer.status() == 503
    })
    .await;
    assert_eq!(first.await.unwrap().unwrap().status(), 503, "it may have happened, and may not");
    is_well_again(&other, &token).await;
}

/// Waits until somebody in this database waits for a lock.
async fn waits_for_a_lock(connection: &mut PgConnection) {
    for _ in 0..1200 {
        let waiting =
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
        if sqlx::query_scalar::<_, i64>(waiting).fetch_one(&mut *connection).await.unwrap() > 0 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    panic!("nobody waits for a lock");
}

#[tokio::test(flavor = "multi_thread")]
async fn while_it_catches_up() {
    let (server, other, wire) = two().await;
    let token = server.task_token().await;
    let api = server.api_token("ops", "errand:admin").await;
    let mut lock = PgConnection::connect(server.store.url()).await.unwrap();
    let head = server.house.service.log_applied();
    // Nobody can read the registry, and the log says that it changed.
    lock.execute("BEGIN; LOCK TABLE secrets IN ACCESS EXCLUSIVE MODE").await.unwrap();
    let body = json!({"kind": "agent", "id": "stranger", "disable": true, "reason": "in a test"});
    let disabling = server.post("/v1/admin/revocations").bearer_auth(&api).header("prefer", "wait=0").json(&body);
    let disabling = tokio::spawn(disabling.send());
    let mut watch = PgConnection::connect(server.store.url()).await.unwrap();
    waits_for_a_lock(&mut watch).await;
    wire.forget();
    lock.execute("ROLLBACK").await.unwrap();
    disabling.await.unwrap().unwrap();
    is_well_again(&other, &token).await;
    assert!(other.house.service.log_applied() > head);
}

#[tokio::test(flavor = "multi_thread")]
async fn while_it_stops() {
    let (server, other, wire) = two().await;
    let held = server.store.hold_writes().await;
    let grant = form(&[("grant_type", "client_credentials")]);
    let first = other.post("/oauth2/token").basic_auth("reader", Some(secret("reader"))).form(&grant).send();
    let first = tokio::spawn(first);
    let mut watch = PgConnection::connect(server.store.url()).await.unwrap();
    waits_for_a_lock(&mut watch).await;
    wire.forget();
    let finished = timeout(Duration::from_secs(40), other.house.service.finish()).await;
    assert!(finished.is_ok(), "a database that does not answer keeps nobody from stopping");
    drop(held);
    assert_eq!(first.await.unwrap().unwrap().status(), 503);
}
