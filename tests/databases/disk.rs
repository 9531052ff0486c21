//! A full disk: writes fail and change nothing; when there is space again, the next one succeeds.

use errand::{
    adapters::store::Database,
    ports::{CommitError, WriteOutcome},
};

use crate::{
    cluster::PostgresServer,
    create_schema, error_text,
    fixtures::{WRITER, commit_one, issue_token, task_id},
    machine::{SmallDisk, report_not_run},
    open,
};

const NO_MOUNT: &str = "this user may not mount a small file system; run the tests as root";

/// Commits until the store refuses, and returns the number of the refused write.
async fn commit_until_full(store: &dyn Database, first: u128) -> u128 {
    for n in first..first + 200_000 {
        match store.commit(WRITER, &[issue_token(n)]).await {
            Ok(outcomes) => assert!(matches!(outcomes[..], [WriteOutcome::Committed { .. }]), "{outcomes:?}"),
            Err(CommitError::Outage(outage)) => {
                let text = error_text(&outage);
                assert!(text.contains("full") || text.contains("No space") || text.contains("disk"), "{text}");
                return n;
            }
            Err(other) => panic!("{other:?}"),
        }
    }
    panic!("the disk never fills");
}

async fn assert_heals(store: &dyn Database, disk: &SmallDisk) {
    let mut repeated = 0;
    for round in 0..3_u128 {
        let first = 1_000_000 * (round + 1);
        disk.fill();
        let refused = commit_until_full(store, first).await;
        for _ in 0..3 {
            // The same write fails again, for the same reason: no other error follows from the
            // first.
            match store.commit(WRITER, &[issue_token(refused)]).await {
                // A smaller write may still fit.
                Ok(_) => break,
                Err(CommitError::Outage(outage)) => {
                    let text = error_text(&outage);
                    assert!(!text.contains("transaction"), "{text}");
                    repeated += 1;
                }
                Err(other) => panic!("{other:?}"),
            }
        }
        disk.free();
        let outcome = store.commit(WRITER, &[issue_token(refused)]).await.unwrap();
        assert!(matches!(outcome[..], [WriteOutcome::Committed { .. } | WriteOutcome::Replayed]), "{outcome:?}");
        assert!(store.find_task(task_id(refused)).await.unwrap().is_some());
        commit_one(store, issue_token(refused + 1)).await;
        store.probe_write(u64::try_from(round).unwrap()).await.unwrap();
    }
    assert!(repeated > 0, "no write failed twice");
}

#[tokio::test(flavor = "multi_thread")]
async fn sqlite_heals_after_a_full_disk() {
    let Some(disk) = SmallDisk::mount(2048) else {
        report_not_run("sqlite_heals_after_a_full_disk", NO_MOUNT);
        return;
    };
    let store = open(&format!("sqlite://{}", disk.path().join("errand.db").display())).await;
    create_schema(&*store).await;
    assert_heals(&*store, &disk).await;
}

/// The tables are on a small disk; the server's own files are not, so the server stays up.
#[tokio::test(flavor = "multi_thread")]
async fn postgres_heals_after_a_full_disk() {
    let test = "postgres_heals_after_a_full_disk";
    let Some(disk) = SmallDisk::mount(32_768) else {
        report_not_run(test, NO_MOUNT);
        return;
    };
    let Some(server) = PostgresServer::start(test).await else { return };
    let folder = disk.path().join("tables");
    std::fs::create_dir(&folder).unwrap();
    assert!(std::process::Command::new("chown").arg("postgres").arg(&folder).status().unwrap().success());
    std::fs::set_permissions(disk.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    server.execute(&format!("CREATE TABLESPACE small LOCATION '{}'", folder.display())).await;
    let mut admin = <sqlx::PgConnection as sqlx::Connection>::connect(&server.url_of("postgres")).await.unwrap();
    sqlx::Executor::execute(&mut admin, "CREATE DATABASE small TABLESPACE small").await.unwrap();
    let store = open(&server.url_of("small")).await;
    create_schema(&*store).await;
    assert_heals(&*store, &disk).await;
}
