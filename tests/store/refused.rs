//! What a store refuses in a batch: then it says that nothing happened, and nothing did; and it says so only then.

use std::time::Duration;

use errand::{
    adapters::store::{StoreOptions, connect},
    domain::revocation::{Seq, Target},
    ports::{Change, CommitFault, Store, Write, Written},
};

use crate::{samples::*, support::TestStore};

/// A write of everything: rows of every table that a commit touches, a version that moves on, an entry of the log.
fn everything(n: u128) -> Write {
    Write {
        idempotency: Some(key(&format!("key {n}"))),
        changes: vec![Change::PutObject(Box::new(admin("ops", "operator")))],
        log: vec![entry(Target::Task(task_id(n)))],
        ..issue(n)
    }
}

async fn refused(store: &dyn Store, batch: &[Write]) {
    match store.commit(WRITER, batch).await {
        Err(CommitFault::Refused(_)) => {}
        other => panic!("not refused: {other:?}"),
    }
}

async fn nothing_of_a_refused_batch_happened(on: &TestStore) {
    let store = on.open().await;
    done(&*store, everything(1)).await;
    let (head, heads) = (store.head().await.unwrap(), store.audit_heads().await.unwrap());
    let registry = store.registry().await.unwrap().version;
    // A second token of the same id: the database's own rule, at the end of everything else.
    let twice = Write { token: issue(1).token, ..everything(2) };
    let cases = [vec![twice.clone()], vec![everything(3), twice.clone()], vec![twice, everything(3)]];
    for batch in &cases {
        refused(&*store, batch).await;
        for n in [2, 3] {
            assert!(store.token(token_id(n)).await.unwrap().is_none());
            assert!(store.task(task_id(n)).await.unwrap().is_none());
            assert!(store.answered("admin:ops", &format!("key {n}")).await.unwrap().is_none());
        }
        assert_eq!((store.head().await.unwrap(), store.audit_heads().await.unwrap()), (head, heads.clone()));
        assert_eq!(store.registry().await.unwrap().version, registry);
    }
    // What was refused with another may be tried again: its ids and its key are not used up.
    assert!(done(&*store, everything(3)).await > Some(head));
    assert!(done(&*store, everything(2)).await > Some(head));
    assert_eq!(store.audit_heads().await.unwrap()[0].1.n, 3);
}

/// What one database takes and the other does not: U+0000 in a text.
async fn a_value_that_can_not_be_stored(on: &TestStore) {
    let store = on.open().await;
    let mut write = issue(1);
    write.token.as_mut().unwrap().audience = "a\0b".into();
    if on.url().starts_with("sqlite") {
        assert_eq!(commit(&*store, &[write]).await, [Written::Done { seq: None }]);
    } else {
        refused(&*store, &[issue(2), write]).await;
        assert!(store.token(token_id(2)).await.unwrap().is_none());
    }
}

/// What is stored can't be read: told before anything is committed, and not after.
async fn an_answer_that_can_not_be_read(on: &TestStore) {
    let store = on.open().await;
    done(&*store, Write { idempotency: Some(key("k")), ..issue(1) }).await;
    on.tamper("UPDATE idempotency SET seq = -7").await;
    let again = Write { idempotency: Some(key("k")), ..issue(2) };
    refused(&*store, &[issue(3), again]).await;
    assert!(store.token(token_id(3)).await.unwrap().is_none());
    assert_eq!(commit(&*store, &[issue(3)]).await, [Written::Done { seq: None }]);
}

/// A store that keeps a batch waiting for too long refuses nothing in it.
async fn a_store_that_is_held_up_is_an_outage(on: &TestStore) {
    let soon = Duration::from_millis(300);
    let options = StoreOptions { max_connections: 2, acquire_timeout: soon, statement_timeout: soon };
    let store = connect(on.url(), &options).await.unwrap();
    assert_eq!(store.head().await.unwrap(), Seq::new(0));
    let held = on.hold_writes().await;
    let outage = store.commit(WRITER, &[issue(1), issue(2)]).await.unwrap_err();
    assert!(matches!(outage, CommitFault::Outage(_)), "{outage:?}");
    drop(held);
    on.tamper("ALTER TABLE log_head RENAME TO log_head_away").await;
    let log = Write { log: vec![entry(Target::Task(task_id(1)))], ..Write::default() };
    let outage = store.commit(WRITER, &[log, issue(2)]).await.unwrap_err();
    assert!(matches!(outage, CommitFault::Outage(_)), "{outage:?}");
}

conformance!(
    nothing_of_a_refused_batch_happened,
    a_value_that_can_not_be_stored,
    an_answer_that_can_not_be_read,
    a_store_that_is_held_up_is_an_outage,
);
