//! A connection pooler between Errand and PostgreSQL.

use std::{
    path::Path,
    process::{Child, Stdio},
    time::Duration,
};

use errand::{
    domain::{
        replication::{Heartbeat, Replica, ReplicaId},
        revocation::Target,
    },
    ports::{Notification, WriteSet},
};
use tempfile::TempDir;

use crate::{
    cluster::{PostgresServer, USER, as_server},
    create_schema, error_text,
    fixtures::{NOW, commit_one, entry, issue_token, task_id, uuid},
    machine::{find_program, report_not_run},
    open, open_patient,
    port::ReservedPort,
    wait_until, without_waiting,
};

/// PgBouncer in front of a server. Dropping it stops it.
struct PgBouncer {
    process: Child,
    port: ReservedPort,
    _folder: TempDir,
}

impl PgBouncer {
    async fn start(program: &Path, server: &PostgresServer, settings: &str) -> Self {
        let folder = tempfile::Builder::new().prefix("errand-pool.").tempdir_in("/tmp").unwrap();
        std::fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let reserved = ReservedPort::new();
        let port = reserved.address().port();
        let path = folder.path().display();
        let config = format!(
            "[databases]\nerrand = host=127.0.0.1 port={} dbname=errand\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\nauth_type = trust\nauth_file = {path}/users\n{settings}\n",
            server.port()
        );
        std::fs::write(folder.path().join("pgbouncer.ini"), config).unwrap();
        std::fs::write(folder.path().join("users"), format!("\"{USER}\" \"\"\n")).unwrap();
        let mut command = as_server(program, folder.path());
        let command = command.arg(folder.path().join("pgbouncer.ini"));
        let process = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let pooler = Self { process, port: reserved, _folder: folder };
        wait_until("PgBouncer listens", || async { tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_ok() })
            .await;
        pooler
    }

    fn url(&self) -> String {
        format!("postgres://{USER}@127.0.0.1:{}/errand", self.port.address().port())
    }
}

impl Drop for PgBouncer {
    fn drop(&mut self) {
        // The process may have ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn find_pgbouncer(test: &str) -> Option<std::path::PathBuf> {
    let found = find_program("pgbouncer");
    if found.is_none() {
        report_not_run(test, "pgbouncer is not installed; install the package pgbouncer");
    }
    found
}

/// Sessions stay with their connections: everything works, notifications included.
#[tokio::test(flavor = "multi_thread")]
async fn session_mode_is_supported() {
    let test = "session_mode_is_supported";
    let Some(program) = find_pgbouncer(test) else { return };
    let Some(server) = PostgresServer::start(test).await else { return };
    let pooler = PgBouncer::start(&program, &server, "pool_mode = session\ndefault_pool_size = 30").await;
    let store = open(&pooler.url()).await;
    store.verify_server().await.unwrap();
    create_schema(&*store).await;
    store.ping().await.unwrap();
    let mut listener = store.listen().await.unwrap();
    let write = WriteSet { log_entries: vec![entry(Target::Keys)], ..issue_token(1) };
    commit_one(&*store, write).await;
    let notified = tokio::time::timeout(Duration::from_mins(1), listener.recv()).await.unwrap().unwrap();
    assert_eq!(notified, Notification::Log);
    let replica = Replica {
        id: ReplicaId(uuid(9)),
        name: "a".into(),
        version: "1".into(),
        started_at: NOW,
        file: None,
        pending_restart: Vec::new(),
    };
    let lease = Duration::from_secs(2);
    let beat = Heartbeat { replica, number: 1, applied: store.read_log_head().await.unwrap(), lease, at: NOW };
    store.record_heartbeat(&beat, true).await.unwrap();
    let notified = tokio::time::timeout(Duration::from_mins(1), listener.recv()).await.unwrap().unwrap();
    assert_eq!(notified, Notification::Acknowledgement);
    let reads = (0..20).map(|_| store.find_task(task_id(1)));
    for read in futures_util::future::join_all(reads).await {
        assert!(read.unwrap().is_some());
    }
    // Every connection that Errand opens is a session of the server.
    assert!(store.read_log_head().await.unwrap().number() > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn shared_sessions_are_refused_by_name() {
    let test = "shared_sessions_are_refused_by_name";
    let Some(program) = find_pgbouncer(test) else { return };
    let Some(server) = PostgresServer::start(test).await else { return };
    create_schema(&*open(&server.url()).await).await;
    for settings in [
        "pool_mode = transaction",
        "pool_mode = transaction\ndefault_pool_size = 1",
        "pool_mode = transaction\nserver_round_robin = 1\nmin_pool_size = 4",
    ] {
        let pooler = PgBouncer::start(&program, &server, settings).await;
        let store = open(&pooler.url()).await;
        for _ in 0..3 {
            let text = error_text(&store.verify_server().await.unwrap_err());
            assert!(text.contains("PgBouncer") && text.contains("`pool_mode = session`"), "{settings}: {text}");
        }
    }
    let pooler = PgBouncer::start(&program, &server, "pool_mode = statement").await;
    let text = error_text(&open(&pooler.url()).await.verify_server().await.unwrap_err());
    assert!(text.contains("statement pooling") || text.contains("`pool_mode = session`"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn pool_that_is_too_small_is_named() {
    let test = "pool_that_is_too_small_is_named";
    let Some(program) = find_pgbouncer(test) else { return };
    let Some(server) = PostgresServer::start(test).await else { return };
    let pooler = PgBouncer::start(&program, &server, "pool_mode = session\ndefault_pool_size = 1").await;
    let store = open_patient(&pooler.url()).await;
    let text = error_text(&without_waiting(store.verify_server()).await.unwrap_err());
    assert!(text.contains("`default_pool_size`") && text.contains("14 connections"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_startup_parameter_is_named() {
    let test = "refused_startup_parameter_is_named";
    let Some(program) = find_pgbouncer(test) else { return };
    let Some(server) = PostgresServer::start(test).await else { return };
    let pooler = PgBouncer::start(&program, &server, "pool_mode = session\ndefault_pool_size = 30").await;
    let store = open(&format!("{}?options=-c%20lock_timeout%3D1s", pooler.url())).await;
    let text = error_text(&store.verify_server().await.unwrap_err());
    assert!(text.contains("options") && text.contains("`ignore_startup_parameters`"), "{text}");
}
