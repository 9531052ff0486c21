//! Retention: rows are deleted once nothing rests on them, and no others.

use errand::{
    domain::{
        audit::Head,
        id::{TaskId, TokenId},
        settings::{Retention, RetentionCutoffs},
        task::{Task, TaskState},
        time::Timestamp,
    },
    ports::{AuditFilter, RequesterRows, StateChange, Store, TokenRecord, WriteSet},
};

use crate::{
    break_glass::{review, sample_break_glass},
    fixtures::*,
    support::TestStore,
};

conformance!(
    tokens_and_tasks_are_deleted_when_nothing_rests_on_them,
    rows_of_one_requester_are_deleted,
    break_glass_grant_of_a_requester_is_kept_until_its_review,
    audit_records_are_deleted_from_the_start_of_a_chain,
);

/// Cutoffs at one time for all kinds.
fn cutoffs(cutoff: Timestamp) -> RetentionCutoffs {
    RetentionCutoffs { tokens: cutoff, tasks: cutoff, ..Retention::default().cutoffs(cutoff) }
}

async fn left(store: &dyn Store, count: u128) -> (Vec<u128>, Vec<u128>) {
    let (mut tokens, mut tasks) = (Vec::new(), Vec::new());
    for n in 1..=count {
        if store.find_token(token_id(n)).await.unwrap().is_some() {
            tokens.push(n);
        }
        if store.find_task(task_id(n)).await.unwrap().is_some() {
            tasks.push(n);
        }
    }
    (tokens, tasks)
}

async fn tokens_and_tasks_are_deleted_when_nothing_rests_on_them(on: &TestStore) {
    let store = on.open().await;
    // 1: all is over. 2: the task is open. 3: the user token is valid for longer. 4: the token is.
    // 5: the deadline has not passed.
    let issue = |n: u128, expires: i64, evidence_expires: i64, deadline: i64| {
        let mut seen = evidence(&format!("jti {n}"), None);
        seen.expires = at(NOW.unix() + evidence_expires);
        WriteSet {
            task: Some(Task { deadline: at(NOW.unix() + deadline), ..task(n) }),
            token: Some(TokenRecord {
                task: Some(task_id(n)),
                expires: at(NOW.unix() + expires),
                evidence: Some(seen),
                ..token(n)
            }),
            audit_records: vec![record(n)],
            ..WriteSet::default()
        }
    };
    for write in [
        issue(1, 300, 600, 3600),
        issue(2, 300, 600, 3600),
        issue(3, 300, 90_000, 3600),
        issue(4, 90_000, 600, 3600),
        issue(5, 300, 600, 90_000),
    ] {
        commit_one(&*store, write).await;
    }
    let end = |n| WriteSet {
        state_changes: vec![StateChange::TransitionTask(task_id(n), transition(TaskState::Completed))],
        ..WriteSet::default()
    };
    for n in [1, 3, 4, 5] {
        commit_one(&*store, end(n)).await;
    }
    let collect = async |seconds: i64| {
        let cutoff = at(NOW.unix() + seconds);
        let stats = store.collect_garbage(NOW, &cutoffs(cutoff)).await.unwrap();
        (stats.tokens, stats.tasks)
    };
    assert_eq!(collect(299).await, (0, 0));
    assert_eq!(collect(599).await, (0, 0), "the user token can open another task");
    assert_eq!(collect(600).await, (2, 0));
    assert_eq!(left(&*store, 5).await, (vec![2, 3, 4], vec![1, 2, 3, 4, 5]));
    assert_eq!(collect(3600).await, (0, 1), "the tasks of the others have tokens, are open or go on");
    assert_eq!(left(&*store, 5).await, (vec![2, 3, 4], vec![2, 3, 4, 5]));
    assert_eq!(collect(90_000).await, (2, 3));
    assert_eq!(left(&*store, 5).await, (vec![2], vec![2]), "an open task keeps its tokens");
    commit_one(&*store, end(2)).await;
    assert_eq!(collect(90_000).await, (1, 1));
    assert_eq!(on.tamper("DELETE FROM task_resources").await, 0, "the copies went with the tasks");
    let trail = store.list_audit_records(&AuditFilter::default(), &first_page(100)).await.unwrap();
    assert_eq!(trail.items.len(), 5, "the audit trail is not concerned");
}

async fn rows_of_one_requester_are_deleted(on: &TestStore) {
    let store = on.open().await;
    for (n, name) in [(1, "alice"), (2, "alice"), (3, "bob")] {
        let write = WriteSet {
            task: Some(Task { requester: requester(name), ..task(n) }),
            token: Some(TokenRecord { task: Some(task_id(n)), requester: Some(requester(name)), ..token(n) }),
            state_changes: vec![StateChange::PutGrant(Box::new(grant(n, name, "planner")))],
            ..WriteSet::default()
        };
        commit_one(&*store, write).await;
    }
    let end = |n| StateChange::TransitionTask(task_id(n), transition(TaskState::Revoked));
    commit_one(&*store, WriteSet { state_changes: vec![end(1), end(3)], ..WriteSet::default() }).await;
    let (alice, bob) = (requester("alice"), requester("bob"));
    let rows = |tokens, tasks, grants| RequesterRows { tokens, tasks, grants, break_glass: 0 };
    assert_eq!(store.count_requester_rows(&alice).await.unwrap(), rows(2, 2, 2));
    let far = at(NOW.unix() + 1_000_000_000);
    assert_eq!(store.delete_requester_rows(&alice, at(0)).await.unwrap(), rows(0, 0, 0), "nothing has ended");
    assert_eq!(store.delete_requester_rows(&alice, far).await.unwrap(), rows(1, 1, 2));
    assert_eq!(store.count_requester_rows(&alice).await.unwrap(), rows(1, 1, 0), "one task is open");
    assert_eq!(store.count_requester_rows(&bob).await.unwrap(), rows(1, 1, 1));
    let (task, token): (TaskId, TokenId) = (task_id(2), token_id(2));
    assert!(store.find_task(task).await.unwrap().is_some() && store.find_token(token).await.unwrap().is_some());
}

async fn break_glass_grant_of_a_requester_is_kept_until_its_review(on: &TestStore) {
    let store = on.open().await;
    let change = async |state_changes| commit_one(&*store, WriteSet { state_changes, ..WriteSet::default() }).await;
    let put = |n| StateChange::PutBreakGlass(Box::new(sample_break_glass(n)));
    change((1..=3).map(put).collect()).await;
    let review_of = |n| StateChange::ReviewBreakGlass(grant_id(n), review("admin:boss"));
    change(vec![review_of(1)]).await;
    let person = sample_break_glass(1).grant.requester;
    let far = at(NOW.unix() + 1_000_000_000);
    let rows = |grants, break_glass| RequesterRows { grants, break_glass, ..RequesterRows::default() };
    assert_eq!(store.delete_requester_rows(&person, at(0)).await.unwrap(), rows(0, 0), "the grants are live");
    assert_eq!(store.delete_requester_rows(&person, far).await.unwrap(), rows(1, 1));
    // A grant without a review is unchanged, and does not count as withdrawn.
    for n in [2, 3] {
        assert_eq!(store.find_break_glass(grant_id(n)).await.unwrap(), Some(sample_break_glass(n)));
    }
    change(vec![review_of(2), review_of(3)]).await;
    assert_eq!(store.delete_requester_rows(&person, far).await.unwrap(), rows(2, 2));
    assert_eq!(store.count_requester_rows(&person).await.unwrap(), RequesterRows::default());
}

async fn audit_records_are_deleted_from_the_start_of_a_chain(on: &TestStore) {
    let store = on.open().await;
    for n in 1..=5 {
        commit_one(&*store, WriteSet { audit_records: vec![record(n)], ..WriteSet::default() }).await;
    }
    assert_eq!(store.delete_audit_records(WRITER, 0, 10).await.unwrap(), 0);
    assert_eq!(store.delete_audit_records(WRITER, 3, 2).await.unwrap(), 2, "in batches");
    assert_eq!(store.delete_audit_records(WRITER, 3, 2).await.unwrap(), 1);
    assert_eq!(store.delete_audit_records(WRITER, 3, 2).await.unwrap(), 0);
    let rows = store.read_audit_chain(WRITER, 0, 10).await.unwrap();
    assert_eq!(rows.iter().map(|row| row.n).collect::<Vec<_>>(), [4, 5]);
    let heads = store.list_audit_heads().await.unwrap();
    assert_eq!(heads, [(WRITER, Head { n: 5, hash: rows[1].hash.clone() })], "the head stays");
    let unknown = on.tamper("DELETE FROM audit_agents WHERE n <= 3").await;
    assert_eq!(unknown, 0, "the copies went with the records");
}
