//! Task transitions: optimistic concurrency by the version that was read.

use errand::{
    domain::{
        audit::WriterId,
        revocation::{LogAction, LogPosition, Target},
        task::{Task, TaskState},
    },
    ports::{Precondition, StateChange, TokenRecord, WriteOutcome, WriteSet},
};

use crate::{fixtures::*, support::TestStore};

/// Returns a transition of task `n` that requires a version.
fn transition_write(n: u128, turns: u64, state: TaskState) -> WriteSet {
    WriteSet {
        precondition: Some(Precondition::TaskVersion(task_id(n), turns)),
        state_changes: vec![transition_task(n, state)],
        ..WriteSet::default()
    }
}

async fn transition_requires_the_read_version(on: &TestStore) {
    let store = on.open().await;
    let open = |n| WriteSet { task: Some(task(n)), ..WriteSet::default() };
    commit(&*store, &[open(1), open(2)]).await;
    assert_eq!(store.find_task(task_id(1)).await.unwrap(), Some(task(1)));
    let moved = |n, turns| transition_write(n, turns, TaskState::Revoked);
    // A task that does not exist, and a version that does not exist yet.
    assert_eq!(commit(&*store, &[moved(1, 1), moved(9, 0)]).await, [WriteOutcome::Conflict, WriteOutcome::Conflict]);
    commit_one(&*store, transition_write(1, 0, TaskState::Suspended)).await;
    let suspended = store.find_task(task_id(1)).await.unwrap().unwrap();
    assert_eq!((suspended.state, suspended.version), (TaskState::Suspended, 1));
    assert_eq!(suspended.last_transition, Some(transition(TaskState::Suspended)));
    // Of two transitions of the same version in one batch, the first is applied, and one that
    // requires its result follows.
    let batch = [
        transition_write(1, 1, TaskState::Active),
        transition_write(1, 1, TaskState::Completed),
        transition_write(2, 0, TaskState::Failed),
        transition_write(1, 2, TaskState::Expired),
    ];
    let done = WriteOutcome::Committed { seq: None };
    assert_eq!(commit(&*store, &batch).await, [done.clone(), WriteOutcome::Conflict, done.clone(), done]);
    let ended = store.find_task(task_id(1)).await.unwrap().unwrap();
    assert_eq!((ended.state, ended.version), (TaskState::Expired, 3));
    assert_eq!(store.find_task(task_id(2)).await.unwrap().unwrap().state, TaskState::Failed);
}

async fn bulk_transition_requires_all_read_versions(on: &TestStore) {
    let store = on.open().await;
    let open = |n| WriteSet { task: Some(task(n)), ..WriteSet::default() };
    commit(&*store, &[open(1), open(2), open(3)]).await;
    let many = |tasks: &[(u128, u64)], state| WriteSet {
        precondition: Some(Precondition::TaskVersions(tasks.iter().map(|(n, turns)| (task_id(*n), *turns)).collect())),
        state_changes: tasks.iter().map(|(n, _)| transition_task(*n, state)).collect(),
        ..WriteSet::default()
    };
    let batch = [
        many(&[(1, 0), (2, 0)], TaskState::Suspended),
        many(&[(3, 0), (2, 0)], TaskState::Revoked),
        many(&[(3, 0), (9, 0)], TaskState::Revoked),
        many(&[], TaskState::Revoked),
        many(&[(2, 1), (3, 0)], TaskState::Completed),
    ];
    let done = WriteOutcome::Committed { seq: None };
    let want = [done.clone(), WriteOutcome::Conflict, WriteOutcome::Conflict, done.clone(), done];
    assert_eq!(commit(&*store, &batch).await, want);
    let mut states = Vec::new();
    for n in 1..4 {
        let task = store.find_task(task_id(n)).await.unwrap().unwrap();
        states.push((task.state, task.version));
    }
    assert_eq!(states, [(TaskState::Suspended, 1), (TaskState::Completed, 2), (TaskState::Completed, 1)]);
}

/// Many replicas end the same tasks in different orders: each task is ended by exactly one of them.
async fn concurrent_ends_have_one_winner(on: &TestStore) {
    const TASKS: u128 = 8;
    let store = on.open().await;
    for n in 0..TASKS {
        commit_one(&*store, WriteSet { task: Some(task(n)), ..WriteSet::default() }).await;
    }
    for round in 0..5 {
        let mut racers = Vec::new();
        for racer in 0..4_u128 {
            let store = on.open().await;
            racers.push(tokio::spawn(async move {
                let mut order = (0..TASKS).collect::<Vec<_>>();
                order.rotate_left(usize::try_from(racer * 2).unwrap());
                let write = |n: &u128| WriteSet {
                    log_entries: vec![entry(Target::Task(task_id(*n)))],
                    audit_records: vec![record(*n)],
                    ..transition_write(*n, round, TaskState::Completed)
                };
                let batch = order.iter().map(write).collect::<Vec<_>>();
                let written = store.commit(WriterId(uuid(racer)), &batch).await.unwrap();
                assert!(
                    written
                        .iter()
                        .all(|w| matches!(w, WriteOutcome::Committed { seq: Some(_) } | WriteOutcome::Conflict))
                );
                written.iter().filter(|written| **written != WriteOutcome::Conflict).count()
            }));
        }
        let mut won = 0;
        for racer in racers {
            won += racer.await.unwrap();
        }
        assert_eq!(won, usize::try_from(TASKS).unwrap(), "round {round}");
    }
    let entries = u64::try_from(TASKS).unwrap() * 5;
    assert_eq!(store.read_log_head().await.unwrap(), LogPosition::new(entries), "the losers left no entry");
    for n in 0..TASKS {
        assert_eq!(store.find_task(task_id(n)).await.unwrap().unwrap().version, 5);
    }
}

async fn overdue_tasks_are_found_until_ended(on: &TestStore) {
    let store = on.open().await;
    let states = [TaskState::Active, TaskState::Suspended, TaskState::Completed, TaskState::Active];
    for (n, state) in (0..).zip(states) {
        let mut task = task(n);
        task.state = state;
        task.deadline = at(NOW.unix() + 10 - i64::try_from(n).unwrap());
        commit_one(&*store, WriteSet { task: Some(task), ..WriteSet::default() }).await;
    }
    let due = async |now: i64, limit| {
        let due = store.list_overdue_tasks(at(NOW.unix() + now), limit).await.unwrap();
        due.into_iter().map(|task| task.id).collect::<Vec<_>>()
    };
    assert_eq!(due(6, 9).await, []);
    assert_eq!(due(7, 9).await, [task_id(3)]);
    assert_eq!(due(10, 9).await, [3, 1, 0].map(task_id), "longest overdue first");
    assert_eq!(due(10, 2).await, [3, 1].map(task_id));
    commit_one(&*store, transition_write(3, 0, TaskState::Expired)).await;
    assert_eq!(due(10, 9).await, [1, 0].map(task_id));
}

async fn live_tasks_and_tokens_are_counted(on: &TestStore) {
    let store = on.open().await;
    let count = async |now: i64, since: i64, limit| {
        let counts = store.count_live(at(NOW.unix() + now), at(NOW.unix() + since), limit).await.unwrap();
        (counts.tasks, counts.tokens)
    };
    assert_eq!(count(0, 0, 9).await, (0, 0));
    let states = [TaskState::Active, TaskState::Suspended, TaskState::Completed, TaskState::Revoked];
    let tasks = (0..).zip(states).map(|(n, state)| Task { state, ..task(n) }).collect::<Vec<_>>();
    let issued_token = |n: u128, issued: i64, expires: i64| TokenRecord {
        issued: at(NOW.unix() + issued),
        expires: at(NOW.unix() + expires),
        ..token(n)
    };
    for task in tasks {
        commit_one(&*store, WriteSet { task: Some(task), ..WriteSet::default() }).await;
    }
    for token in [issued_token(1, 0, 10), issued_token(2, 5, 20), issued_token(3, -5, 30)] {
        commit_one(&*store, WriteSet { token: Some(token), ..WriteSet::default() }).await;
    }
    assert_eq!(count(0, 0, 9).await, (2, 2), "issued before the period");
    assert_eq!(count(0, -5, 9).await, (2, 3));
    assert_eq!(count(10, -5, 9).await, (2, 2), "expired on the second");
    assert_eq!(count(0, -5, 1).await, (1, 1));
}

async fn log_entry_is_written_with_transition(on: &TestStore) {
    let store = on.open().await;
    let verbs = [LogAction::Suspend, LogAction::Resume, LogAction::Revoke];
    for verb in verbs {
        let mut entry = entry(Target::Task(task_id(1)));
        entry.verb = verb;
        commit_one(&*store, WriteSet { log_entries: vec![entry], ..WriteSet::default() }).await;
    }
    let log = store.read_log_after(LogPosition::new(0), NOW, 9).await.unwrap();
    assert_eq!(log.iter().map(|entry| entry.entry.verb).collect::<Vec<_>>(), verbs);
    let listed = store.list_revocations(&first_page(9)).await.unwrap().items;
    assert_eq!(listed.iter().rev().map(|entry| entry.entry.verb).collect::<Vec<_>>(), verbs);
    // Only tasks can be suspended.
    let mut of_token = entry(Target::Token(token_id(1)));
    of_token.verb = LogAction::Suspend;
    store.commit(WRITER, &[WriteSet { log_entries: vec![of_token], ..WriteSet::default() }]).await.unwrap_err();
    assert_eq!(store.read_log_head().await.unwrap(), LogPosition::new(3));
}

/// A transition without a precondition increments the version too, so that writes that require the
/// old one fail.
async fn unconditional_transition_increases_version(on: &TestStore) {
    let store = on.open().await;
    commit_one(&*store, WriteSet { task: Some(task(1)), ..WriteSet::default() }).await;
    let unconditional = WriteSet {
        state_changes: vec![StateChange::TransitionTask(task_id(1), transition(TaskState::Revoked))],
        ..WriteSet::default()
    };
    let batch = [unconditional, transition_write(1, 0, TaskState::Completed)];
    assert_eq!(commit(&*store, &batch).await, [WriteOutcome::Committed { seq: None }, WriteOutcome::Conflict]);
    assert_eq!(store.find_task(task_id(1)).await.unwrap().unwrap().state, TaskState::Revoked);
}

conformance!(
    transition_requires_the_read_version,
    bulk_transition_requires_all_read_versions,
    concurrent_ends_have_one_winner,
    overdue_tasks_are_found_until_ended,
    live_tasks_and_tokens_are_counted,
    log_entry_is_written_with_transition,
    unconditional_transition_increases_version,
);
