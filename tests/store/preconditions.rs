//! Guards and preconditions: a rejected write leaves no trace and does not affect the others of its
//! batch.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use errand::{
    domain::{
        audit::WriterId,
        revocation::{LogPosition, Target},
        settings::Retention,
        task::TaskState,
    },
    ports::{AuditFilter, Precondition, ReplayGuard, StateChange, TaskFilter, TokenFilter, WriteOutcome, WriteSet},
};

use crate::{fixtures::*, support::TestStore};

const COMMITTED: WriteOutcome = WriteOutcome::Committed { seq: None };

fn redeem(ids: &[&str]) -> WriteSet {
    WriteSet { replay_guards: ids.iter().map(|id| replay_guard(id)).collect(), ..WriteSet::default() }
}

async fn replay_guard_is_used_once(on: &TestStore) {
    let store = on.open().await;
    assert_eq!(commit(&*store, &[redeem(&["a"])]).await, [COMMITTED]);
    assert_eq!(commit(&*store, &[redeem(&["a"])]).await, [WriteOutcome::Replayed]);
    assert_eq!(commit(&*on.open().await, &[redeem(&["a"])]).await, [WriteOutcome::Replayed], "another replica");
    let of = |party: &str, id: &str| WriteSet {
        replay_guards: vec![ReplayGuard { party: party.into(), id: id.into(), keep_until: NOW }],
        ..WriteSet::default()
    };
    // Parties are independent, wherever the boundary between party and id is, and any text is an
    // id.
    let long = "x".repeat(20_000);
    for (party, id) in [("p", "ab"), ("pa", "b"), ("", "pab"), ("p", "a\0b"), ("p", "a\0c"), ("p", &long), ("p", "A")] {
        assert_eq!(commit(&*store, &[of(party, id)]).await, [COMMITTED], "{party} {id:.9}");
        assert_eq!(commit(&*store, &[of(party, id)]).await, [WriteOutcome::Replayed], "{party} {id:.9}");
    }
}

async fn duplicate_id_in_batch_is_rejected(on: &TestStore) {
    let store = on.open().await;
    let batch = [redeem(&["a"]), redeem(&["a"]), redeem(&["b", "a"]), redeem(&["b"]), redeem(&["c", "c"])];
    let want = [COMMITTED, WriteOutcome::Replayed, WriteOutcome::Replayed, COMMITTED, COMMITTED];
    assert_eq!(commit(&*store, &batch).await, want);
    assert_eq!(commit(&*store, &batch).await, vec![WriteOutcome::Replayed; 5]);
}

async fn concurrent_redemptions_have_one_winner(on: &TestStore) {
    const IDS: usize = 60;
    let names = (0..IDS).map(|n| format!("jti {n}")).collect::<Vec<_>>();
    let mut racers = Vec::new();
    for racer in 0..6_u128 {
        let store = on.open().await;
        let mut names = names.clone();
        // Each in another order and in batches of another size: no deadlock may occur.
        names.rotate_left(usize::try_from(racer * 9).unwrap());
        if racer % 2 == 0 {
            names.reverse();
        }
        racers.push(tokio::spawn(async move {
            let mut won = Vec::new();
            // Some take all at once, and so hold guards that the others wait for while they wait
            // themselves.
            for chunk in names.chunks(if racer < 3 { IDS } else { usize::try_from(racer).unwrap() }) {
                let batch = chunk.iter().map(|name| redeem(&[name])).collect::<Vec<_>>();
                let outcomes = store.commit(WriterId(uuid(racer)), &batch).await.unwrap();
                for (name, outcomes) in chunk.iter().zip(outcomes) {
                    match outcomes {
                        WriteOutcome::Committed { .. } => won.push(name.clone()),
                        WriteOutcome::Replayed => {}
                        other => panic!("{other:?}"),
                    }
                }
            }
            won
        }));
    }
    let mut won = Vec::new();
    for racer in racers {
        won.extend(racer.await.unwrap());
    }
    won.sort();
    let mut names = names;
    names.sort();
    assert_eq!(won, names, "each id has exactly one winner");
}

/// Concurrent long batches of the same ids: each holds some that the other needs, and no deadlock
/// occurs.
async fn overlapping_batches_do_not_deadlock(on: &TestStore) {
    const IDS: usize = 400;
    for round in 0..6 {
        let mut racers = Vec::new();
        for racer in 0..3_u128 {
            let store = on.open().await;
            let mut batch = (0..IDS).map(|n| redeem(&[&format!("{round} {n}")])).collect::<Vec<_>>();
            batch.rotate_left(usize::try_from(racer).unwrap() * IDS / 3);
            racers.push(tokio::spawn(async move { store.commit(WriterId(uuid(racer)), &batch).await.unwrap() }));
        }
        let mut won = 0;
        for racer in racers {
            won += racer.await.unwrap().into_iter().filter(|outcomes| *outcomes == COMMITTED).count();
        }
        assert_eq!(won, IDS, "round {round}");
    }
}

/// Returns a write to every table whose precondition never holds.
fn write_everything(n: u128) -> WriteSet {
    WriteSet {
        state_changes: vec![
            StateChange::PutObject(Box::new(admin("ops", "operator"))),
            transition_task(1, TaskState::Revoked),
        ],
        log_entries: vec![entry(Target::Task(task_id(n)))],
        ..issue_token(n)
    }
}

async fn rejected_write_leaves_no_trace(on: &TestStore) {
    let store = on.open().await;
    commit_one(&*store, WriteSet { idempotency: Some(idempotency_key("k")), ..issue_token(1) }).await;
    commit_one(&*store, redeem(&["used"])).await;
    let moved = WriteSet {
        precondition: Some(Precondition::RegistryVersion(7)),
        idempotency: Some(idempotency_key("new")),
        ..write_everything(2)
    };
    let before = WriteSet { idempotency: Some(idempotency_key("k")), ..write_everything(3) };
    let mut replayed = WriteSet { idempotency: Some(idempotency_key("newer")), ..write_everything(4) };
    replayed.replay_guards.push(replay_guard("used"));
    let WriteOutcome::AlreadyApplied { fingerprint, response: answer, seq: None } =
        &commit(&*store, std::slice::from_ref(&before)).await[0]
    else {
        panic!("the key was not used before");
    };
    assert_eq!((&**fingerprint, &**answer), ("fingerprint of k", r#"{"answer":"k"}"#));
    assert_eq!(commit(&*store, std::slice::from_ref(&moved)).await, [WriteOutcome::Conflict]);
    assert_eq!(commit(&*store, std::slice::from_ref(&replayed)).await, [WriteOutcome::Replayed]);
    let together = commit(&*store, &[moved, before, replayed, redeem(&["another"])]).await;
    assert!(
        matches!(
            together[..],
            [
                WriteOutcome::Conflict,
                WriteOutcome::AlreadyApplied { .. },
                WriteOutcome::Replayed,
                WriteOutcome::Committed { .. }
            ]
        ),
        "{together:?}"
    );

    assert_eq!(store.read_log_head().await.unwrap(), LogPosition::new(0));
    assert_eq!(store.load_registry().await.unwrap().version, 0);
    assert!(store.load_registry().await.unwrap().entries.is_empty());
    assert_eq!(store.list_tasks(&TaskFilter::default(), &first_page(9)).await.unwrap().items, [task(1)]);
    assert_eq!(store.list_tokens(&TokenFilter::default(), &first_page(9)).await.unwrap().items.len(), 1);
    assert_eq!(store.list_audit_records(&AuditFilter::default(), &first_page(9)).await.unwrap().items.len(), 1);
    assert_eq!(store.find_idempotent_response("admin:ops", "new").await.unwrap(), None);
    assert_eq!(store.find_idempotent_response("admin:ops", "newer").await.unwrap(), None);
    // The guards that they would have used are still free.
    let batch = [redeem(&["jti 2"]), redeem(&["jti 3"]), redeem(&["jti 4"])];
    assert_eq!(commit(&*store, &batch).await, vec![COMMITTED; 3]);
    let again = WriteSet { idempotency: Some(idempotency_key("new")), ..WriteSet::default() };
    assert_eq!(commit(&*store, &[again]).await, [COMMITTED]);
}

async fn rejected_write_does_not_block_the_next(on: &TestStore) {
    let store = on.open().await;
    let refused = WriteSet {
        precondition: Some(Precondition::KeysVersion(3)),
        idempotency: Some(idempotency_key("k")),
        ..redeem(&["a"])
    };
    let other = WriteSet { idempotency: Some(idempotency_key("other")), ..redeem(&["b"]) };
    let mut same_key = idempotency_key("k");
    same_key.fingerprint = "of the second".into();
    let second = WriteSet { idempotency: Some(same_key), ..redeem(&["a"]) };
    let replayed = WriteSet { idempotency: Some(idempotency_key("k")), ..redeem(&["b"]) };
    let batch = [refused, other, second, replayed];
    assert_eq!(commit(&*store, &batch).await, [WriteOutcome::Conflict, COMMITTED, COMMITTED, WriteOutcome::Replayed]);
    let Some(WriteOutcome::AlreadyApplied { fingerprint, .. }) =
        store.find_idempotent_response("admin:ops", "k").await.unwrap()
    else {
        panic!("the second write is not committed");
    };
    assert_eq!(fingerprint, "of the second");
}

async fn other_writes_of_batch_are_committed(on: &TestStore) {
    let store = on.open().await;
    commit_one(&*store, issue_token(1)).await;
    let batch = [
        issue_token(2),
        issue_token(1),
        issue_token(3),
        WriteSet { precondition: Some(Precondition::KeysVersion(1)), ..issue_token(4) },
        issue_token(5),
    ];
    assert_eq!(
        commit(&*store, &batch).await,
        [COMMITTED, WriteOutcome::Replayed, COMMITTED, WriteOutcome::Conflict, COMMITTED]
    );
    let mut tasks = store.list_tasks(&TaskFilter::default(), &first_page(99)).await.unwrap().items;
    tasks.sort_by_key(|task| task.id);
    assert_eq!(tasks, [1, 2, 3, 5].map(task));
    let rows = store.read_audit_chain(WRITER, 0, 99).await.unwrap();
    assert_eq!(rows.len(), 4);
}

async fn version_increases_with_every_change(on: &TestStore) {
    let store = on.open().await;
    let put = |role| vec![StateChange::PutObject(Box::new(admin("ops", role)))];
    let versions =
        || async { (store.load_registry().await.unwrap().version, store.load_keys().await.unwrap().version) };
    assert_eq!(versions().await, (0, 0));
    commit_one(&*store, WriteSet { state_changes: put("operator"), ..WriteSet::default() }).await;
    assert_eq!(versions().await, (1, 0), "without a precondition");
    let on_one = |role| WriteSet {
        precondition: Some(Precondition::RegistryVersion(1)),
        state_changes: put(role),
        ..WriteSet::default()
    };
    let outcomes = commit(&*store, &[on_one("auditor"), on_one("operator")]).await;
    assert_eq!(
        outcomes,
        [COMMITTED, WriteOutcome::Conflict],
        "the first write invalidates the precondition of the second"
    );
    assert_eq!(versions().await, (2, 0));
    assert_eq!(store.load_registry().await.unwrap().entries, [admin("ops", "auditor")]);
    let only_look = WriteSet { precondition: Some(Precondition::RegistryVersion(2)), ..redeem(&["a"]) };
    commit_one(&*store, only_look).await;
    assert_eq!(versions().await, (2, 0), "a precondition is not a change");
    let grants = WriteSet { state_changes: vec![transition_task(1, TaskState::Revoked)], ..WriteSet::default() };
    commit_one(&*store, grants).await;
    assert_eq!(versions().await, (2, 0), "a change of other state changes no version");
}

pub(crate) async fn concurrent_changes_of_a_version_have_one_winner(on: &TestStore) {
    const ROUNDS: u64 = 12;
    for round in 0..ROUNDS {
        let mut racers = Vec::new();
        for racer in 0..4_u128 {
            let store = on.open().await;
            racers.push(tokio::spawn(async move {
                let write = WriteSet {
                    precondition: Some(Precondition::RegistryVersion(round)),
                    state_changes: vec![StateChange::PutObject(Box::new(admin(
                        &format!("r{round}-{racer}"),
                        "operator",
                    )))],
                    log_entries: vec![entry(Target::Registry)],
                    ..WriteSet::default()
                };
                store.commit(WriterId(uuid(racer)), &[write]).await.unwrap().remove(0)
            }));
        }
        let mut winners = 0;
        for racer in racers {
            match racer.await.unwrap() {
                WriteOutcome::Committed { seq } => {
                    assert_eq!(seq, Some(LogPosition::new(round + 1)));
                    winners += 1;
                }
                other => assert_eq!(other, WriteOutcome::Conflict),
            }
        }
        assert_eq!(winners, 1, "round {round}");
    }
    let store = on.open().await;
    let registry = store.load_registry().await.unwrap();
    assert_eq!((registry.version, registry.entries.len()), (ROUNDS, usize::try_from(ROUNDS).unwrap()));
}

async fn repeated_request_finds_stored_response(on: &TestStore) {
    let store = on.open().await;
    let write = |name: &str| WriteSet {
        idempotency: Some(idempotency_key(name)),
        log_entries: vec![entry(Target::Task(task_id(1))), entry(Target::Task(task_id(2)))],
        ..WriteSet::default()
    };
    let before = |name: &str, seq| {
        let of = idempotency_key(name);
        WriteOutcome::AlreadyApplied {
            fingerprint: of.fingerprint,
            response: of.response,
            seq: Some(LogPosition::new(seq)),
        }
    };
    assert_eq!(store.find_idempotent_response("admin:ops", "a").await.unwrap(), None);
    assert_eq!(commit_one(&*store, write("a")).await, Some(LogPosition::new(2)));
    assert_eq!(store.find_idempotent_response("admin:ops", "a").await.unwrap(), Some(before("a", 2)));
    assert_eq!(
        store.find_idempotent_response("admin:other", "a").await.unwrap(),
        None,
        "keys of two callers are independent"
    );
    // Retried, alone and with others; and the same new key twice in one batch.
    let outcomes = commit(&*store, &[write("b"), write("a"), write("b")]).await;
    assert_eq!(outcomes, [WriteOutcome::Committed { seq: Some(LogPosition::new(4)) }, before("a", 2), before("b", 4)]);
    assert_eq!(store.read_log_head().await.unwrap(), LogPosition::new(4));
}

async fn concurrent_identical_requests_commit_once(on: &TestStore) {
    for round in 0..10 {
        let mut racers = Vec::new();
        for racer in 0..4_u128 {
            let store = on.open().await;
            racers.push(tokio::spawn(async move {
                let write = WriteSet {
                    idempotency: Some(idempotency_key(&format!("round {round}"))),
                    log_entries: vec![entry(Target::Task(task_id(racer)))],
                    ..WriteSet::default()
                };
                store.commit(WriterId(uuid(racer)), &[write]).await.unwrap().remove(0)
            }));
        }
        let mut winners = 0;
        for racer in racers {
            match racer.await.unwrap() {
                WriteOutcome::Committed { .. } => winners += 1,
                WriteOutcome::AlreadyApplied { seq, .. } => assert_eq!(seq, Some(LogPosition::new(round + 1))),
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(winners, 1, "round {round}");
    }
}

async fn repeated_request_precedes_conflict_and_replay(on: &TestStore) {
    let store = on.open().await;
    commit_one(&*store, WriteSet { idempotency: Some(idempotency_key("k")), ..redeem(&["a"]) }).await;
    let moved = Some(Precondition::RegistryVersion(9));
    let both = WriteSet { idempotency: Some(idempotency_key("k")), precondition: moved.clone(), ..redeem(&["fresh"]) };
    let all = WriteSet { idempotency: Some(idempotency_key("k")), precondition: moved, ..redeem(&["a"]) };
    let outcomes = commit(&*store, &[both, all]).await;
    assert!(matches!(outcomes[..], [WriteOutcome::AlreadyApplied { .. }, WriteOutcome::Replayed]), "{outcomes:?}");
}

async fn garbage_collection_removes_expired_rows(on: &TestStore) {
    let store = on.open().await;
    let keep = |id: &str, until| WriteSet {
        replay_guards: vec![ReplayGuard { keep_until: at(until), ..replay_guard(id) }],
        idempotency: Some(errand::ports::IdempotentRequest { keep_until: at(until), ..idempotency_key(id) }),
        ..WriteSet::default()
    };
    commit(&*store, &[keep("a", 99), keep("b", 100), keep("c", 101)]).await;
    let swept = store.collect_garbage(at(100), &Retention::default().cutoffs(at(100))).await.unwrap();
    assert_eq!((swept.replay_guards, swept.idempotency_records, swept.signing_keys), (2, 2, 0));
    assert_eq!(
        store.collect_garbage(at(100), &Retention::default().cutoffs(at(100))).await.unwrap(),
        errand::ports::GcStats::default()
    );
    let outcomes = commit(&*store, &[redeem(&["a"]), redeem(&["b"]), redeem(&["c"])]).await;
    assert_eq!(outcomes, [COMMITTED, COMMITTED, WriteOutcome::Replayed]);
    assert!(store.find_idempotent_response("admin:ops", "a").await.unwrap().is_none());
    assert!(store.find_idempotent_response("admin:ops", "c").await.unwrap().is_some());
    // The longest requested time counts if a batch has several for one id.
    let batch = [keep("d", 500), keep("d", 900)];
    commit(&*store, &batch).await;
    store.collect_garbage(at(600), &Retention::default().cutoffs(at(600))).await.unwrap();
    assert_eq!(commit(&*store, &[redeem(&["d"])]).await, [WriteOutcome::Replayed]);
}

/// A future that is dropped after a number of polls, at a point that does not depend on the speed
/// of the machine.
struct CancelAfter<F> {
    future: F,
    polls: u64,
}

impl<F: Future + Unpin> Future for CancelAfter<F> {
    type Output = Option<F::Output>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(polls) = self.polls.checked_sub(1) else { return Poll::Ready(None) };
        self.polls = polls;
        Pin::new(&mut self.future).poll(context).map(Some)
    }
}

/// A cancelled commit happens wholly or not at all, and does not disturb the next one.
async fn cancelled_commit_is_atomic(on: &TestStore) {
    const CALLERS: u64 = 120;
    let store = on.open().await;
    let mut gone = 0;
    for n in 0..CALLERS {
        let write = WriteSet { log_entries: vec![entry(Target::Task(task_id(n.into())))], ..issue_token(n.into()) };
        let batch = [write];
        let commit = CancelAfter { future: store.commit(WRITER, &batch), polls: n / 2 };
        gone += u32::from(commit.await.is_none());
    }
    // The number of polls of a commit depends on the machine, but it is at least three.
    assert!(gone > 5, "{gone}");
    // The statements of the last one may still be running. A log entry waits until its transaction
    // has ended.
    let last =
        commit_one(&*store, WriteSet { log_entries: vec![entry(Target::Keys)], ..WriteSet::default() }).await.unwrap();
    let mut happened = 0;
    for n in 0..CALLERS {
        let there = store.find_task(task_id(n.into())).await.unwrap().is_some();
        assert_eq!(store.find_token(token_id(n.into())).await.unwrap().is_some(), there, "{n}");
        let replayed = commit(&*store, &[redeem(&[&format!("jti {n}")])]).await == [WriteOutcome::Replayed];
        assert_eq!(replayed, there, "{n}");
        happened += u64::from(there);
    }
    let log = store.read_log_after(LogPosition::new(0), NOW, 1000).await.unwrap();
    assert_eq!(last, LogPosition::new(happened + 1));
    assert_eq!(log.iter().map(|entry| entry.seq.number()).collect::<Vec<_>>(), (1..=happened + 1).collect::<Vec<_>>());
    assert_eq!(store.list_audit_heads().await.unwrap().first().map_or(0, |(_, head)| head.n), happened);
}

async fn empty_batch_commits_nothing(on: &TestStore) {
    let store = on.open().await;
    assert_eq!(commit(&*store, &[]).await, []);
    assert_eq!(commit(&*store, &[WriteSet::default()]).await, [COMMITTED]);
    assert!(store.list_audit_heads().await.unwrap().is_empty());
}

conformance!(
    replay_guard_is_used_once,
    duplicate_id_in_batch_is_rejected,
    concurrent_redemptions_have_one_winner,
    overlapping_batches_do_not_deadlock,
    rejected_write_leaves_no_trace,
    rejected_write_does_not_block_the_next,
    other_writes_of_batch_are_committed,
    version_increases_with_every_change,
    concurrent_changes_of_a_version_have_one_winner,
    repeated_request_finds_stored_response,
    concurrent_identical_requests_commit_once,
    repeated_request_precedes_conflict_and_replay,
    garbage_collection_removes_expired_rows,
    cancelled_commit_is_atomic,
    empty_batch_commits_nothing,
);
