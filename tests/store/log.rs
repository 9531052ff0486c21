//! The revocation log: consecutive positions in commit order, for every reader at every time.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use errand::{
    domain::{
        audit::WriterId,
        id::TaskId,
        registry::issuer::IssuerKeyId,
        revocation::{LogPosition, Target},
        task::TaskState,
        time::Timestamp,
    },
    ports::{GrantFilter, StateChange, WriteOutcome, WriteSet},
};

use crate::{fixtures::*, support::TestStore};

fn end_targets(targets: &[Target]) -> WriteSet {
    WriteSet { log_entries: targets.iter().cloned().map(entry).collect(), ..WriteSet::default() }
}

async fn entries_get_consecutive_positions(on: &TestStore) {
    let store = on.open().await;
    assert_eq!(store.read_log_head().await.unwrap(), LogPosition::new(0));
    let targets = [
        Target::Token(token_id(1)),
        Target::Task(task_id(2)),
        Target::for_requester(&requester(HOSTILE[0])),
        Target::Agent(client("planner")),
        Target::Resource("https://files.example.com/mcp".parse().unwrap()),
        Target::Issuer("https://login.example.com".parse().unwrap()),
        Target::Registry,
        Target::Keys,
        Target::IssuerKeySet("https://login.example.com".parse().unwrap()),
        Target::IssuerKey(IssuerKeyId { issuer: "https://login.example.com".parse().unwrap(), kid: HOSTILE[0].into() }),
    ];
    let batch = [end_targets(&targets[..3]), end_targets(&[]), end_targets(&targets[3..4]), end_targets(&targets[4..])];
    let seq = |n| WriteOutcome::Committed { seq: Some(LogPosition::new(n)) };
    assert_eq!(commit(&*store, &batch).await, [seq(3), WriteOutcome::Committed { seq: None }, seq(4), seq(10)]);
    assert_eq!(store.read_log_head().await.unwrap(), LogPosition::new(10));
    let log = store.read_log_after(LogPosition::new(0), NOW, 100).await.unwrap();
    assert_eq!(log.iter().map(|e| e.seq.number()).collect::<Vec<_>>(), (1..=10).collect::<Vec<_>>());
    assert_eq!(log.iter().map(|e| e.entry.clone()).collect::<Vec<_>>(), targets.map(entry));
    let some = store.read_log_after(LogPosition::new(2), NOW, 3).await.unwrap();
    assert_eq!(some.iter().map(|e| e.seq.number()).collect::<Vec<_>>(), [3, 4, 5]);
}

async fn expired_entries_are_listed_but_not_followed(on: &TestStore) {
    let store = on.open().await;
    for (n, until) in [(1, 10), (2, 20), (3, 5), (4, 30)] {
        let mut new = entry(Target::Task(task_id(n)));
        new.forget_after = at(until);
        commit_one(&*store, WriteSet { log_entries: vec![new, entry(Target::Registry)], ..WriteSet::default() }).await;
    }
    let positions = |log: Vec<errand::domain::revocation::LogEntry>| {
        let tasks = log.into_iter().filter(|e| e.entry.target != Target::Registry);
        tasks.map(|e| e.seq.number()).collect::<Vec<_>>()
    };
    for (now, want) in [(4, vec![1, 3, 5, 7]), (5, vec![1, 3, 7]), (10, vec![3, 7]), (29, vec![7]), (30, vec![])] {
        assert_eq!(positions(store.read_log_after(LogPosition::new(0), at(now), 100).await.unwrap()), want, "{now}");
    }
    // The list for an admin has all entries except changes of the registry and of the keys, newest
    // first.
    let mut seen = Vec::new();
    let mut page = first_page(3);
    loop {
        let got = store.list_revocations(&page).await.unwrap();
        assert!(got.items.iter().all(|e| e.entry.target != Target::Registry));
        seen.extend(got.items.iter().map(|e| e.seq.number()));
        page.cursor = match got.next {
            Some(next) => Some(next),
            None => break,
        };
    }
    assert_eq!(seen, [7, 5, 3, 1]);
}

/// A concurrent reader never sees a position without all positions before it.
pub(crate) async fn concurrent_reader_skips_no_entry(on: &TestStore) {
    const WRITERS: u128 = 5;
    const BATCHES: u128 = 25;
    let over = Arc::new(AtomicBool::new(false));
    let mut readers = Vec::new();
    for _ in 0..2 {
        let (store, over) = (on.open().await, Arc::clone(&over));
        readers.push(tokio::spawn(async move {
            let (mut seen, mut reads) = (0, 0_u32);
            loop {
                let last_round = over.load(Ordering::SeqCst);
                let head = store.read_log_head().await.unwrap().number();
                let log = store.read_log_after(LogPosition::new(seen), Timestamp::EPOCH, 7).await.unwrap();
                for entry in &log {
                    assert_eq!(entry.seq.number(), seen + 1, "an entry appeared after a later one");
                    seen += 1;
                }
                reads += 1;
                assert!(seen >= head.min(seen + 1) || log.len() == 7, "head {head}, but only {seen} entries");
                if last_round && log.is_empty() {
                    return (seen, reads);
                }
            }
        }));
    }
    let mut writers = Vec::new();
    for writer in 0..WRITERS {
        let store = on.open().await;
        writers.push(tokio::spawn(async move {
            let mut positions = Vec::new();
            for n in 0..BATCHES {
                let task = TaskId::new(uuid(writer * 1000 + n));
                let batch = [
                    end_targets(&[Target::Task(task)]),
                    issue_token(writer * 1000 + n),
                    end_targets(&[Target::Registry, Target::Task(task)]),
                ];
                for written in store.commit(WriterId(uuid(writer)), &batch).await.unwrap() {
                    let WriteOutcome::Committed { seq } = written else { panic!("{written:?}") };
                    positions.extend(seq.map(LogPosition::number));
                }
            }
            assert!(positions.is_sorted());
            positions
        }));
    }
    let mut positions = Vec::new();
    for writer in writers {
        positions.extend(writer.await.unwrap());
    }
    over.store(true, Ordering::SeqCst);
    let all = u64::try_from(WRITERS * BATCHES * 3).unwrap();
    for reader in readers {
        let (seen, reads) = reader.await.unwrap();
        assert_eq!(seen, all);
        assert!(reads > 10, "too few concurrent reads: {reads}");
    }
    positions.sort_unstable();
    positions.dedup();
    assert_eq!(positions.len(), usize::try_from(WRITERS * BATCHES * 2).unwrap(), "positions are unique");
    assert_eq!(on.open().await.read_log_head().await.unwrap(), LogPosition::new(all));
}

/// Concurrent state changes of the same rows in opposite orders.
async fn opposite_order_changes_do_not_deadlock(on: &TestStore) {
    const THINGS: u128 = 12;
    let store = on.open().await;
    for n in 0..THINGS {
        commit_one(&*store, WriteSet { task: Some(task(n)), ..WriteSet::default() }).await;
    }
    let mut racers = Vec::new();
    for racer in 0..4_u128 {
        let store = on.open().await;
        racers.push(tokio::spawn(async move {
            for round in 1..9_u128 {
                let mut order = (0..THINGS).collect::<Vec<_>>();
                if racer % 2 == 0 {
                    order.reverse();
                }
                let write = |n: u128| WriteSet {
                    state_changes: vec![
                        transition_task(n, TaskState::Revoked),
                        StateChange::RemoveGrant(grant_id(n)),
                        StateChange::PutGrant(Box::new(grant(racer * 10_000 + round * 100 + n, "alice", "planner"))),
                    ],
                    ..WriteSet::default()
                };
                let batch = order.into_iter().map(write).collect::<Vec<_>>();
                store.commit(WriterId(uuid(racer)), &batch).await.unwrap();
            }
        }));
    }
    for racer in racers {
        racer.await.unwrap();
    }
    assert_eq!(store.read_log_head().await.unwrap(), LogPosition::new(0), "a change without an entry");
    assert_eq!(
        store.list_grants(&GrantFilter::default(), &first_page(1000)).await.unwrap().items.len(),
        usize::try_from(32 * THINGS).unwrap()
    );
}

conformance!(
    entries_get_consecutive_positions,
    expired_entries_are_listed_but_not_followed,
    concurrent_reader_skips_no_entry,
    opposite_order_changes_do_not_deadlock,
);
