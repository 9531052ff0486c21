//! The life of a task: a change of its state builds on the state that it was read in, whoever else changes it.

use errand::{
    domain::{
        audit::Writer,
        revocation::{Seq, Target, Verb},
        task::TaskState,
    },
    ports::{Change, Expected, Write, Written},
};

use crate::{samples::*, support::TestStore};

/// A change of task `n` that builds on so many changes before it.
fn turned(n: u128, turns: u64, state: TaskState) -> Write {
    Write { expected: Some(Expected::Task(task_id(n), turns)), changes: vec![turning(n, state)], ..Write::default() }
}

async fn a_change_builds_on_the_state_it_read(on: &TestStore) {
    let store = on.open().await;
    let open = |n| Write { task: Some(task(n)), ..Write::default() };
    commit(&*store, &[open(1), open(2)]).await;
    assert_eq!(store.task(task_id(1)).await.unwrap(), Some(task(1)));
    let moved = |n, turns| turned(n, turns, TaskState::Revoked);
    // What was never there, and what is not there yet.
    assert_eq!(commit(&*store, &[moved(1, 1), moved(9, 0)]).await, [Written::Moved, Written::Moved]);
    done(&*store, turned(1, 0, TaskState::Suspended)).await;
    let suspended = store.task(task_id(1)).await.unwrap().unwrap();
    assert_eq!((suspended.state, suspended.turns), (TaskState::Suspended, 1));
    assert_eq!(suspended.turned, Some(turn(TaskState::Suspended)));
    // Of two in one batch that build on the same state, the first happens; what builds on that one goes on.
    let batch = [
        turned(1, 1, TaskState::Active),
        turned(1, 1, TaskState::Completed),
        turned(2, 0, TaskState::Failed),
        turned(1, 2, TaskState::Expired),
    ];
    let done = Written::Done { seq: None };
    assert_eq!(commit(&*store, &batch).await, [done.clone(), Written::Moved, done.clone(), done]);
    let ended = store.task(task_id(1)).await.unwrap().unwrap();
    assert_eq!((ended.state, ended.turns), (TaskState::Expired, 3));
    assert_eq!(store.task(task_id(2)).await.unwrap().unwrap().state, TaskState::Failed);
}

async fn a_change_of_many_builds_on_all_of_them(on: &TestStore) {
    let store = on.open().await;
    let open = |n| Write { task: Some(task(n)), ..Write::default() };
    commit(&*store, &[open(1), open(2), open(3)]).await;
    let many = |tasks: &[(u128, u64)], state| Write {
        expected: Some(Expected::Tasks(tasks.iter().map(|(n, turns)| (task_id(*n), *turns)).collect())),
        changes: tasks.iter().map(|(n, _)| turning(*n, state)).collect(),
        ..Write::default()
    };
    let batch = [
        many(&[(1, 0), (2, 0)], TaskState::Suspended),
        many(&[(3, 0), (2, 0)], TaskState::Revoked),
        many(&[(3, 0), (9, 0)], TaskState::Revoked),
        many(&[], TaskState::Revoked),
        many(&[(2, 1), (3, 0)], TaskState::Completed),
    ];
    let done = Written::Done { seq: None };
    let want = [done.clone(), Written::Moved, Written::Moved, done.clone(), done];
    assert_eq!(commit(&*store, &batch).await, want);
    let mut states = Vec::new();
    for n in 1..4 {
        let task = store.task(task_id(n)).await.unwrap().unwrap();
        states.push((task.state, task.turns));
    }
    assert_eq!(states, [(TaskState::Suspended, 1), (TaskState::Completed, 2), (TaskState::Completed, 1)]);
}

/// Many replicas, each with a batch over the same tasks in an order of its own: every task is ended by one of them.
async fn a_race_to_end_a_task_has_one_winner(on: &TestStore) {
    const TASKS: u128 = 8;
    let store = on.open().await;
    for n in 0..TASKS {
        done(&*store, Write { task: Some(task(n)), ..Write::default() }).await;
    }
    for round in 0..5 {
        let mut racers = Vec::new();
        for racer in 0..4_u128 {
            let store = on.open().await;
            racers.push(tokio::spawn(async move {
                let mut order = (0..TASKS).collect::<Vec<_>>();
                order.rotate_left(usize::try_from(racer * 2).unwrap());
                let write = |n: &u128| Write {
                    log: vec![entry(Target::Task(task_id(*n)))],
                    audit: vec![record(*n)],
                    ..turned(*n, round, TaskState::Completed)
                };
                let batch = order.iter().map(write).collect::<Vec<_>>();
                let written = store.commit(Writer(uuid(racer)), &batch).await.unwrap();
                assert!(written.iter().all(|w| matches!(w, Written::Done { seq: Some(_) } | Written::Moved)));
                written.iter().filter(|written| **written != Written::Moved).count()
            }));
        }
        let mut won = 0;
        for racer in racers {
            won += racer.await.unwrap();
        }
        assert_eq!(won, usize::try_from(TASKS).unwrap(), "round {round}");
    }
    let entries = u64::try_from(TASKS).unwrap() * 5;
    assert_eq!(store.head().await.unwrap(), Seq::new(entries), "who lost left no entry");
    for n in 0..TASKS {
        assert_eq!(store.task(task_id(n)).await.unwrap().unwrap().turns, 5);
    }
}

async fn tasks_past_their_deadline_are_found_until_they_have_ended(on: &TestStore) {
    let store = on.open().await;
    let states = [TaskState::Active, TaskState::Suspended, TaskState::Completed, TaskState::Active];
    for (n, state) in (0..).zip(states) {
        let mut task = task(n);
        task.state = state;
        task.deadline = at(NOW.unix() + 10 - i64::try_from(n).unwrap());
        done(&*store, Write { task: Some(task), ..Write::default() }).await;
    }
    let due = async |now: i64, limit| {
        let due = store.tasks_due(at(NOW.unix() + now), limit).await.unwrap();
        due.into_iter().map(|task| task.id).collect::<Vec<_>>()
    };
    assert_eq!(due(6, 9).await, []);
    assert_eq!(due(7, 9).await, [task_id(3)]);
    assert_eq!(due(10, 9).await, [3, 1, 0].map(task_id), "longest overdue first");
    assert_eq!(due(10, 2).await, [3, 1].map(task_id));
    done(&*store, turned(3, 0, TaskState::Expired)).await;
    assert_eq!(due(10, 9).await, [1, 0].map(task_id));
}

async fn the_log_says_what_is_done(on: &TestStore) {
    let store = on.open().await;
    let verbs = [Verb::Suspend, Verb::Resume, Verb::Revoke];
    for verb in verbs {
        let mut entry = entry(Target::Task(task_id(1)));
        entry.verb = verb;
        done(&*store, Write { log: vec![entry], ..Write::default() }).await;
    }
    let log = store.log_after(Seq::new(0), NOW, 9).await.unwrap();
    assert_eq!(log.iter().map(|entry| entry.entry.verb).collect::<Vec<_>>(), verbs);
    let listed = store.revocations(&first(9)).await.unwrap().items;
    assert_eq!(listed.iter().rev().map(|entry| entry.entry.verb).collect::<Vec<_>>(), verbs);
    // Only a task is held back.
    let mut of_token = entry(Target::Token(token_id(1)));
    of_token.verb = Verb::Suspend;
    store.commit(WRITER, &[Write { log: vec![of_token], ..Write::default() }]).await.unwrap_err();
    assert_eq!(store.head().await.unwrap(), Seq::new(3));
}

/// A change without a condition still goes on by one, so that whoever built on the state before is too late.
async fn a_change_without_a_condition_counts(on: &TestStore) {
    let store = on.open().await;
    done(&*store, Write { task: Some(task(1)), ..Write::default() }).await;
    let unconditional =
        Write { changes: vec![Change::TurnTask(task_id(1), turn(TaskState::Revoked))], ..Write::default() };
    let batch = [unconditional, turned(1, 0, TaskState::Completed)];
    assert_eq!(commit(&*store, &batch).await, [Written::Done { seq: None }, Written::Moved]);
    assert_eq!(store.task(task_id(1)).await.unwrap().unwrap().state, TaskState::Revoked);
}

conformance!(
    a_change_builds_on_the_state_it_read,
    a_change_of_many_builds_on_all_of_them,
    a_race_to_end_a_task_has_one_winner,
    tasks_past_their_deadline_are_found_until_they_have_ended,
    the_log_says_what_is_done,
    a_change_without_a_condition_counts,
);
