//! Failures that pass: the store heals by itself, and says what is wrong meanwhile.

use errand::ports::{CommitError, WriteSet};

use crate::{
    cluster::PostgresServer,
    create_schema, error_text,
    fixtures::{WRITER, commit_one, issue_token, task_id},
    open, open_patient, wait_until, without_waiting,
};

/// A standby is refused by name. Once it is promoted, the same store works, without a restart.
#[tokio::test(flavor = "multi_thread")]
async fn standby_is_refused_until_it_is_promoted() {
    let test = "standby_is_refused_until_it_is_promoted";
    let Some(primary) = PostgresServer::start(test).await else { return };
    let on_primary = open(&primary.url()).await;
    create_schema(&*on_primary).await;
    commit_one(&*on_primary, issue_token(1)).await;
    let Some(standby) = primary.start_standby(test) else { return };
    let store = open_patient(&standby.url()).await;
    let outages = without_waiting(async {
        [
            store.verify_server().await.unwrap_err(),
            store.ping().await.unwrap_err(),
            store.migrate().await.unwrap_err(),
            store.read_log_head().await.unwrap_err(),
        ]
    });
    for outage in outages.await {
        let text = error_text(&outage);
        assert!(text.contains("standby") && text.contains("URL of the primary"), "{text}");
        assert!(!text.contains("max_connections"), "{text}");
    }
    wait_until("the standby has the schema", || async {
        let mut connection = <sqlx::PgConnection as sqlx::Connection>::connect(&standby.url()).await.unwrap();
        let found = sqlx::query_scalar::<_, i64>("SELECT count(*) FROM tasks").fetch_one(&mut connection).await;
        found.is_ok_and(|count| count == 1)
    })
    .await;
    primary.crash();
    standby.promote();
    wait_until("the promoted server is used", || async { store.ping().await.is_ok() }).await;
    assert!(store.find_task(task_id(1)).await.unwrap().is_some());
    commit_one(&*store, issue_token(2)).await;
    store.verify_server().await.unwrap();
}

/// A server that refuses connections is found out once; after that every call fails at once.
#[tokio::test(flavor = "multi_thread")]
async fn known_outage_is_answered_at_once() {
    let Some(server) = PostgresServer::start("known_outage_is_answered_at_once").await else { return };
    create_schema(&*open(&server.url()).await).await;
    let store = open_patient(&server.url()).await;
    store.ping().await.unwrap();
    server.crash();
    wait_until("the outage is known", || async { store.ping().await.is_err() }).await;
    without_waiting(async {
        let first = store.ping().await.unwrap_err();
        assert!(error_text(&first).contains("Connection refused"), "{}", error_text(&first));
        for _ in 0..50 {
            store.ping().await.unwrap_err();
            store.read_log_head().await.unwrap_err();
            store.reserved().read_log_head().await.unwrap_err();
            let failed = store.commit(WRITER, &[issue_token(1)]).await.unwrap_err();
            assert!(matches!(failed, CommitError::Outage(_)), "{failed:?}");
        }
    })
    .await;
    server.resume();
    wait_until("the server is used again", || async { store.ping().await.is_ok() }).await;
    commit_one(&*store, issue_token(1)).await;
}

/// The server ended all sessions. At most one call of each kind notices.
#[tokio::test(flavor = "multi_thread")]
async fn killed_sessions_cost_one_call() {
    let Some(server) = PostgresServer::start("killed_sessions_cost_one_call").await else { return };
    let store = open(&server.url()).await;
    create_schema(&*store).await;
    for round in 0..3_u128 {
        // Several connections are open and were in use a moment ago.
        let reads = (0..8).map(|_| store.read_log_head());
        for read in futures_util::future::join_all(reads).await {
            read.unwrap();
        }
        commit_one(&*store, issue_token(100 + round)).await;
        server
            .execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'errand'")
            .await;
        wait_until("the sessions have ended", || server.has_no_sessions_of("errand")).await;
        let mut failed = 0;
        for _ in 0..12 {
            failed += u32::from(store.read_log_head().await.is_err());
        }
        assert!(failed <= 1, "{failed} of 12 reads failed");
        let mut failed = 0;
        for n in 0..4_u128 {
            let write = issue_token(1000 + 10 * round + n);
            failed += u32::from(store.commit(WRITER, &[write]).await.is_err());
        }
        assert!(failed <= 1, "{failed} of 4 commits failed");
    }
}

/// The commit itself fails, after all statements succeeded.
#[tokio::test(flavor = "multi_thread")]
async fn failed_commit_leaves_nothing_and_heals() {
    let Some(server) = PostgresServer::start("failed_commit_leaves_nothing_and_heals").await else { return };
    let store = open(&server.url()).await;
    create_schema(&*store).await;
    server
        .execute(
            "CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS
                $$ BEGIN RAISE 'could not write: Input/output error' USING ERRCODE = 'io_error'; END $$;
             CREATE CONSTRAINT TRIGGER fail AFTER INSERT ON tokens DEFERRABLE INITIALLY DEFERRED
                FOR EACH ROW EXECUTE FUNCTION fail();
             CREATE TRIGGER fail BEFORE UPDATE ON write_probe FOR EACH ROW EXECUTE FUNCTION fail()",
        )
        .await;
    for _ in 0..5 {
        let failed = store.commit(WRITER, &[issue_token(1)]).await.unwrap_err();
        let CommitError::Outage(outage) = failed else { panic!("{failed:?}") };
        assert!(error_text(&outage).contains("Input/output error"), "{}", error_text(&outage));
        assert_eq!(store.find_task(task_id(1)).await.unwrap(), None);
        store.probe_write(1).await.unwrap_err();
    }
    // Other writes go on.
    let other = WriteSet { token: None, ..issue_token(2) };
    commit_one(&*store, other).await;
    server.execute("DROP TRIGGER fail ON tokens; DROP TRIGGER fail ON write_probe").await;
    store.probe_write(2).await.unwrap();
    commit_one(&*store, issue_token(1)).await;
    assert!(store.find_task(task_id(1)).await.unwrap().is_some());
}
