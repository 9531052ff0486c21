//! Half-open connections to the database: a firewall dropped their state, or a machine lost power,
//! and no error is reported. New connections work. No request waits forever, and the replica
//! recovers.

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
    server::{Server, decode_claims, form, secret, wait_until},
    support::TestStore,
};

/// A TCP relay in front of a server.
struct TcpRelay {
    address: SocketAddr,
    /// The number of times that the state of all connections was dropped.
    drops: Arc<AtomicU64>,
}

impl TcpRelay {
    async fn start(upstream: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let drops = Arc::<AtomicU64>::default();
        let shared = Arc::clone(&drops);
        tokio::spawn(async move {
            loop {
                let (near, _) = listener.accept().await.unwrap();
                let Ok(far) = TcpStream::connect(upstream).await else { continue };
                let ((near_read, near_write), (far_read, far_write)) = (near.into_split(), far.into_split());
                tokio::spawn(pump(near_read, far_write, Arc::clone(&shared)));
                tokio::spawn(pump(far_read, near_write, Arc::clone(&shared)));
            }
        });
        Self { address, drops }
    }

    /// Makes all current connections half-open: they are never closed, and no data passes.
    fn drop_connections(&self) {
        self.drops.fetch_add(1, Ordering::SeqCst);
    }
}

async fn pump(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin, drops: Arc<AtomicU64>) {
    let drops_before = drops.load(Ordering::SeqCst);
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let read = from.read(&mut buffer).await;
        let is_dropped = drops.load(Ordering::SeqCst) != drops_before;
        match read {
            Ok(1..) if is_dropped => {}
            Ok(length @ 1..) if to.write_all(&buffer[..length]).await.is_ok() => {}
            _ if is_dropped => std::future::pending::<()>().await,
            _ => return,
        }
    }
}

/// Starts a replica with a direct connection, and another one whose connections go through a relay.
async fn start_two_replicas() -> (Server, Server, TcpRelay) {
    let server = Server::start(TestStore::postgres().await).await;
    let mut url = url::Url::parse(server.store.url()).unwrap();
    let upstream = format!("{}:{}", url.host_str().unwrap(), url.port().unwrap()).parse().unwrap();
    let relay = TcpRelay::start(upstream).await;
    url.set_port(Some(relay.address.port())).unwrap();
    std::fs::write(server.folder.path().join("store-url"), url.as_str()).unwrap();
    let other = server.replica().await;
    for at in [&server, &other] {
        wait_until("the lease is valid", || async { at.application.service.holds_lease() }).await;
    }
    (server, other, relay)
}

/// Waits until the replica introspects, issues, is ready and holds its lease, as before.
async fn assert_recovered(at: &Server, token: &str) {
    let grant = form(&[("grant_type", "client_credentials")]);
    let token_form = form(&[("token", token)]);
    wait_until("the replica has recovered", || async {
        let (introspection, body) = at.post_as("files", "/oauth2/introspect", &token_form).await;
        assert!(introspection == 503 || (introspection == 200 && body["active"] == true), "{introspection} {body}");
        let (issue, _) = at.post_as("reader", "/oauth2/token", &grant).await;
        let ready = at.request(Method::GET, "/readyz").send().await.unwrap().status();
        introspection == 200 && issue == 200 && ready == 200 && at.application.service.holds_lease()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_connection_loss_is_detected() {
    let (server, other, relay) = start_two_replicas().await;
    let token = server.task_token().await;
    relay.drop_connections();
    assert_recovered(&other, &token).await;
    // It receives notifications and acknowledges again.
    let task = json!({"kind": "task", "id": decode_claims(&token)["txn"], "reason": "in a test"});
    let answer = server.revoke(task).await;
    assert_eq!(answer["replicas_pending"], 0, "{answer}");
    assert!(!other.is_active(&token).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn connection_loss_during_commit_is_detected() {
    let (server, other, relay) = start_two_replicas().await;
    let token = server.task_token().await;
    let held = server.store.lock_writes().await;
    let grant = form(&[("grant_type", "client_credentials")]);
    let first = other.post("/oauth2/token").basic_auth("reader", Some(secret("reader"))).form(&grant).send();
    let first = tokio::spawn(first);
    let mut lock = PgConnection::connect(server.store.url()).await.unwrap();
    wait_for_lock_contention(&mut lock).await;
    relay.drop_connections();
    drop(held);
    // A replica with a stalled commit is not ready.
    wait_until("the replica is not ready", || async {
        let answer = other.request(Method::GET, "/readyz").send().await.unwrap();
        answer.status() == 503
    })
    .await;
    assert_eq!(first.await.unwrap().unwrap().status(), 503, "the outcome of the commit is unknown");
    assert_recovered(&other, &token).await;
}

/// Waits until a statement in this database waits for a lock.
async fn wait_for_lock_contention(connection: &mut PgConnection) {
    for _ in 0..1200 {
        let waiting =
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
        if sqlx::query_scalar::<_, i64>(waiting).fetch_one(&mut *connection).await.unwrap() > 0 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    panic!("no statement waits for a lock");
}

#[tokio::test(flavor = "multi_thread")]
async fn connection_loss_during_catch_up_is_detected() {
    let (server, other, relay) = start_two_replicas().await;
    let token = server.task_token().await;
    let api = server.api_token("ops", "errand:admin").await;
    let mut lock = PgConnection::connect(server.store.url()).await.unwrap();
    let head = server.application.service.applied_seq();
    // Block reads of the registry, and change it.
    lock.execute("BEGIN; LOCK TABLE secrets IN ACCESS EXCLUSIVE MODE").await.unwrap();
    let body = json!({"kind": "agent", "id": "stranger", "disable": true, "reason": "in a test"});
    let disabling = server.post("/v1/admin/revocations").bearer_auth(&api).header("prefer", "wait=0").json(&body);
    let disabling = tokio::spawn(disabling.send());
    let mut watch = PgConnection::connect(server.store.url()).await.unwrap();
    wait_for_lock_contention(&mut watch).await;
    relay.drop_connections();
    lock.execute("ROLLBACK").await.unwrap();
    disabling.await.unwrap().unwrap();
    assert_recovered(&other, &token).await;
    assert!(other.application.service.applied_seq() > head);
}

#[tokio::test(flavor = "multi_thread")]
async fn connection_loss_during_shutdown_is_detected() {
    let (server, other, relay) = start_two_replicas().await;
    let held = server.store.lock_writes().await;
    let grant = form(&[("grant_type", "client_credentials")]);
    let first = other.post("/oauth2/token").basic_auth("reader", Some(secret("reader"))).form(&grant).send();
    let first = tokio::spawn(first);
    let mut watch = PgConnection::connect(server.store.url()).await.unwrap();
    wait_for_lock_contention(&mut watch).await;
    relay.drop_connections();
    let finished = timeout(Duration::from_secs(40), other.application.service.shutdown()).await;
    assert!(finished.is_ok(), "a database that does not respond must not prevent the shutdown");
    drop(held);
    assert_eq!(first.await.unwrap().unwrap().status(), 503);
}
