//! Rejected batches: the store reports a rollback if, and only if, nothing happened.

use std::time::Duration;

use errand::{
    adapters::store::{StoreOptions, connect},
    domain::revocation::{LogPosition, Target},
    ports::{CommitError, StateChange, Store, WriteOutcome, WriteSet},
};

use crate::{
    fixtures::*,
    support::{TestStore, sealer},
};

/// Returns a write to every table that a commit touches, with a version change and a log entry.
fn write_everything(n: u128) -> WriteSet {
    WriteSet {
        idempotency: Some(idempotency_key(&format!("key {n}"))),
        state_changes: vec![StateChange::PutObject(Box::new(admin("ops", "operator")))],
        log_entries: vec![entry(Target::Task(task_id(n)))],
        ..issue_token(n)
    }
}

async fn assert_refused(store: &dyn Store, batch: &[WriteSet]) {
    match store.commit(WRITER, batch).await {
        Err(CommitError::RolledBack(_)) => {}
        other => panic!("not rejected: {other:?}"),
    }
}

async fn rejected_batch_is_rolled_back(on: &TestStore) {
    let store = on.open().await;
    commit_one(&*store, write_everything(1)).await;
    let (head, heads) = (store.read_log_head().await.unwrap(), store.list_audit_heads().await.unwrap());
    let registry = store.load_registry().await.unwrap().version;
    // A second token with the same id violates a constraint of the database, after everything else.
    let twice = WriteSet { token: issue_token(1).token, ..write_everything(2) };
    let cases = [vec![twice.clone()], vec![write_everything(3), twice.clone()], vec![twice, write_everything(3)]];
    for batch in &cases {
        assert_refused(&*store, batch).await;
        for n in [2, 3] {
            assert!(store.find_token(token_id(n)).await.unwrap().is_none());
            assert!(store.find_task(task_id(n)).await.unwrap().is_none());
            assert!(store.find_idempotent_response("admin:ops", &format!("key {n}")).await.unwrap().is_none());
        }
        assert_eq!(
            (store.read_log_head().await.unwrap(), store.list_audit_heads().await.unwrap()),
            (head, heads.clone())
        );
        assert_eq!(store.load_registry().await.unwrap().version, registry);
    }
    // A write that was rejected with another can be retried: its replay guard and its key are not
    // used up.
    assert!(commit_one(&*store, write_everything(3)).await > Some(head));
    assert!(commit_one(&*store, write_everything(2)).await > Some(head));
    assert_eq!(store.list_audit_heads().await.unwrap()[0].1.n, 3);
}

/// U+0000 in a text, which one database accepts and the other does not.
async fn unstorable_value_rejects_batch(on: &TestStore) {
    let store = on.open().await;
    let mut write = issue_token(1);
    write.token.as_mut().unwrap().audience = "a\0b".into();
    if on.url().starts_with("sqlite") {
        assert_eq!(commit(&*store, &[write]).await, [WriteOutcome::Committed { seq: None }]);
    } else {
        assert_refused(&*store, &[issue_token(2), write]).await;
        assert!(store.find_token(token_id(2)).await.unwrap().is_none());
    }
}

/// A stored row that can't be parsed is reported before the commit, and not after.
async fn unreadable_row_rejects_batch_before_commit(on: &TestStore) {
    let store = on.open().await;
    commit_one(&*store, WriteSet { idempotency: Some(idempotency_key("k")), ..issue_token(1) }).await;
    on.tamper("UPDATE idempotency_keys SET seq = -7").await;
    let again = WriteSet { idempotency: Some(idempotency_key("k")), ..issue_token(2) };
    assert_refused(&*store, &[issue_token(3), again]).await;
    assert!(store.find_token(token_id(3)).await.unwrap().is_none());
    assert_eq!(commit(&*store, &[issue_token(3)]).await, [WriteOutcome::Committed { seq: None }]);
}

/// A timeout is an outage and not a rejection.
async fn blocked_store_is_unavailable(on: &TestStore) {
    let timeout = Duration::from_millis(300);
    let options = StoreOptions {
        max_connections: 2,
        acquire_timeout: timeout,
        statement_timeout: timeout,
        ..StoreOptions::default()
    };
    on.open().await;
    let store = connect(on.url(), &options).await.unwrap();
    store.unlock(sealer());
    assert_eq!(store.read_log_head().await.unwrap(), LogPosition::new(0));
    let held = on.lock_writes().await;
    let outage = store.commit(WRITER, &[issue_token(1), issue_token(2)]).await.unwrap_err();
    assert!(matches!(outage, CommitError::Outage(_)), "{outage:?}");
    drop(held);
    on.tamper("ALTER TABLE log_head RENAME TO log_head_away").await;
    let log = WriteSet { log_entries: vec![entry(Target::Task(task_id(1)))], ..WriteSet::default() };
    let outage = store.commit(WRITER, &[log, issue_token(2)]).await.unwrap_err();
    assert!(matches!(outage, CommitError::Outage(_)), "{outage:?}");
}

conformance!(
    rejected_batch_is_rolled_back,
    unstorable_value_rejects_batch,
    unreadable_row_rejects_batch_before_commit,
    blocked_store_is_unavailable,
);
