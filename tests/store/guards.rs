//! What keeps a write from happening: then it leaves no trace, and the others of its batch don't notice.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use errand::{
    domain::{
        audit::Writer,
        revocation::{Seq, Target},
        task::TaskState,
    },
    ports::{AuditFilter, Change, Expected, OneTimeId, TaskFilter, TokenFilter, Write, Written},
};

use crate::{samples::*, support::TestStore};

const DONE: Written = Written::Done { seq: None };

fn redeem(ids: &[&str]) -> Write {
    Write { once: ids.iter().map(|id| once(id)).collect(), ..Write::default() }
}

async fn a_one_time_id_is_good_once(on: &TestStore) {
    let store = on.open().await;
    assert_eq!(commit(&*store, &[redeem(&["a"])]).await, [DONE]);
    assert_eq!(commit(&*store, &[redeem(&["a"])]).await, [Written::Replayed]);
    assert_eq!(commit(&*on.open().await, &[redeem(&["a"])]).await, [Written::Replayed], "another replica");
    let of = |party: &str, id: &str| Write {
        once: vec![OneTimeId { party: party.into(), id: id.into(), keep_until: NOW }],
        ..Write::default()
    };
    // Different parties don't meet, wherever the line between party and id is; and whatever they write is an id.
    let long = "x".repeat(20_000);
    for (party, id) in [("p", "ab"), ("pa", "b"), ("", "pab"), ("p", "a\0b"), ("p", "a\0c"), ("p", &long), ("p", "A")] {
        assert_eq!(commit(&*store, &[of(party, id)]).await, [DONE], "{party} {id:.9}");
        assert_eq!(commit(&*store, &[of(party, id)]).await, [Written::Replayed], "{party} {id:.9}");
    }
}

async fn the_same_id_twice_in_a_batch(on: &TestStore) {
    let store = on.open().await;
    let batch = [redeem(&["a"]), redeem(&["a"]), redeem(&["b", "a"]), redeem(&["b"]), redeem(&["c", "c"])];
    let want = [DONE, Written::Replayed, Written::Replayed, DONE, DONE];
    assert_eq!(commit(&*store, &batch).await, want);
    assert_eq!(commit(&*store, &batch).await, vec![Written::Replayed; 5]);
}

async fn a_race_for_an_id_has_one_winner(on: &TestStore) {
    const IDS: usize = 60;
    let names = (0..IDS).map(|n| format!("jti {n}")).collect::<Vec<_>>();
    let mut racers = Vec::new();
    for racer in 0..6_u128 {
        let store = on.open().await;
        let mut names = names.clone();
        // Everyone in another order, in batches of another size: nobody may wait in a circle.
        names.rotate_left(usize::try_from(racer * 9).unwrap());
        if racer % 2 == 0 {
            names.reverse();
        }
        racers.push(tokio::spawn(async move {
            let mut won = Vec::new();
            // Some want all at once, and so hold what the others want while they wait for what the others hold.
            for chunk in names.chunks(if racer < 3 { IDS } else { usize::try_from(racer).unwrap() }) {
                let batch = chunk.iter().map(|name| redeem(&[name])).collect::<Vec<_>>();
                let written = store.commit(Writer(uuid(racer)), &batch).await.unwrap();
                for (name, written) in chunk.iter().zip(written) {
                    match written {
                        Written::Done { .. } => won.push(name.clone()),
                        Written::Replayed => {}
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
    assert_eq!(won, names, "every id has exactly one winner");
}

/// Long batches of the same ids at the same time: each holds some that the other wants, and nobody waits in a circle.
async fn batches_that_want_the_same_do_not_block_each_other(on: &TestStore) {
    const IDS: usize = 400;
    for round in 0..6 {
        let mut racers = Vec::new();
        for racer in 0..3_u128 {
            let store = on.open().await;
            let mut batch = (0..IDS).map(|n| redeem(&[&format!("{round} {n}")])).collect::<Vec<_>>();
            batch.rotate_left(usize::try_from(racer).unwrap() * IDS / 3);
            racers.push(tokio::spawn(async move { store.commit(Writer(uuid(racer)), &batch).await.unwrap() }));
        }
        let mut won = 0;
        for racer in racers {
            won += racer.await.unwrap().into_iter().filter(|written| *written == DONE).count();
        }
        assert_eq!(won, IDS, "round {round}");
    }
}

/// A write that touches everything, and builds on a state of the registry that never was.
fn everything(n: u128) -> Write {
    Write {
        changes: vec![Change::PutObject(Box::new(admin("ops", "operator"))), turning(1, TaskState::Revoked)],
        log: vec![entry(Target::Task(task_id(n)))],
        ..issue(n)
    }
}

async fn a_refused_write_leaves_no_trace(on: &TestStore) {
    let store = on.open().await;
    done(&*store, Write { idempotency: Some(key("k")), ..issue(1) }).await;
    done(&*store, redeem(&["used"])).await;
    let moved = Write { expected: Some(Expected::Registry(7)), idempotency: Some(key("new")), ..everything(2) };
    let before = Write { idempotency: Some(key("k")), ..everything(3) };
    let mut replayed = Write { idempotency: Some(key("newer")), ..everything(4) };
    replayed.once.push(once("used"));
    let Written::Before { fingerprint, answer, seq: None } = &commit(&*store, std::slice::from_ref(&before)).await[0]
    else {
        panic!("the key was used before");
    };
    assert_eq!((&**fingerprint, &**answer), ("fingerprint of k", r#"{"answer":"k"}"#));
    assert_eq!(commit(&*store, std::slice::from_ref(&moved)).await, [Written::Moved]);
    assert_eq!(commit(&*store, std::slice::from_ref(&replayed)).await, [Written::Replayed]);
    let together = commit(&*store, &[moved, before, replayed, redeem(&["another"])]).await;
    assert!(
        matches!(together[..], [Written::Moved, Written::Before { .. }, Written::Replayed, Written::Done { .. }]),
        "{together:?}"
    );

    assert_eq!(store.head().await.unwrap(), Seq::new(0));
    assert_eq!(store.registry().await.unwrap().version, 0);
    assert!(store.registry().await.unwrap().entries.is_empty());
    assert_eq!(store.tasks(&TaskFilter::default(), &first(9)).await.unwrap().items, [task(1)]);
    assert_eq!(store.tokens(&TokenFilter::default(), &first(9)).await.unwrap().items.len(), 1);
    assert_eq!(store.audit(&AuditFilter::default(), &first(9)).await.unwrap().items.len(), 1);
    assert_eq!(store.answered("admin:ops", "new").await.unwrap(), None);
    assert_eq!(store.answered("admin:ops", "newer").await.unwrap(), None);
    // What they wanted to use up is still there to be used.
    let batch = [redeem(&["jti 2"]), redeem(&["jti 3"]), redeem(&["jti 4"])];
    assert_eq!(commit(&*store, &batch).await, vec![DONE; 3]);
    let again = Write { idempotency: Some(key("new")), ..Write::default() };
    assert_eq!(commit(&*store, &[again]).await, [DONE]);
}

async fn a_refused_write_gives_way_to_the_next_in_its_batch(on: &TestStore) {
    let store = on.open().await;
    let refused = Write { expected: Some(Expected::Keys(3)), idempotency: Some(key("k")), ..redeem(&["a"]) };
    let other = Write { idempotency: Some(key("other")), ..redeem(&["b"]) };
    let mut same_key = key("k");
    same_key.fingerprint = "of the second".into();
    let second = Write { idempotency: Some(same_key), ..redeem(&["a"]) };
    let replayed = Write { idempotency: Some(key("k")), ..redeem(&["b"]) };
    let batch = [refused, other, second, replayed];
    assert_eq!(commit(&*store, &batch).await, [Written::Moved, DONE, DONE, Written::Replayed]);
    let Some(Written::Before { fingerprint, .. }) = store.answered("admin:ops", "k").await.unwrap() else {
        panic!("the second one is done");
    };
    assert_eq!(fingerprint, "of the second");
}

async fn the_others_of_a_batch_are_done(on: &TestStore) {
    let store = on.open().await;
    done(&*store, issue(1)).await;
    let batch = [issue(2), issue(1), issue(3), Write { expected: Some(Expected::Keys(1)), ..issue(4) }, issue(5)];
    assert_eq!(commit(&*store, &batch).await, [DONE, Written::Replayed, DONE, Written::Moved, DONE]);
    let mut tasks = store.tasks(&TaskFilter::default(), &first(99)).await.unwrap().items;
    tasks.sort_by_key(|task| task.id);
    assert_eq!(tasks, [1, 2, 3, 5].map(task));
    let rows = store.audit_chain(WRITER, 0, 99).await.unwrap();
    assert_eq!(rows.len(), 4);
}

async fn a_version_moves_on_with_every_change(on: &TestStore) {
    let store = on.open().await;
    let put = |role| vec![Change::PutObject(Box::new(admin("ops", role)))];
    let versions = || async { (store.registry().await.unwrap().version, store.keys().await.unwrap().version) };
    assert_eq!(versions().await, (0, 0));
    done(&*store, Write { changes: put("operator"), ..Write::default() }).await;
    assert_eq!(versions().await, (1, 0), "without being asked");
    let on_one = |role| Write { expected: Some(Expected::Registry(1)), changes: put(role), ..Write::default() };
    let written = commit(&*store, &[on_one("auditor"), on_one("operator")]).await;
    assert_eq!(written, [DONE, Written::Moved], "what the second builds on was moved by the first");
    assert_eq!(versions().await, (2, 0));
    assert_eq!(store.registry().await.unwrap().entries, [admin("ops", "auditor")]);
    let only_look = Write { expected: Some(Expected::Registry(2)), ..redeem(&["a"]) };
    done(&*store, only_look).await;
    assert_eq!(versions().await, (2, 0), "to build on a state is no change of it");
    let grants = Write { changes: vec![turning(1, TaskState::Revoked)], ..Write::default() };
    done(&*store, grants).await;
    assert_eq!(versions().await, (2, 0), "nor is a change of something else");
}

pub(crate) async fn a_race_for_a_version_has_one_winner(on: &TestStore) {
    const ROUNDS: u64 = 12;
    for round in 0..ROUNDS {
        let mut racers = Vec::new();
        for racer in 0..4_u128 {
            let store = on.open().await;
            racers.push(tokio::spawn(async move {
                let write = Write {
                    expected: Some(Expected::Registry(round)),
                    changes: vec![Change::PutObject(Box::new(admin(&format!("r{round}-{racer}"), "operator")))],
                    log: vec![entry(Target::Registry)],
                    ..Write::default()
                };
                store.commit(Writer(uuid(racer)), &[write]).await.unwrap().remove(0)
            }));
        }
        let mut winners = 0;
        for racer in racers {
            match racer.await.unwrap() {
                Written::Done { seq } => {
                    assert_eq!(seq, Some(Seq::new(round + 1)));
                    winners += 1;
                }
                other => assert_eq!(other, Written::Moved),
            }
        }
        assert_eq!(winners, 1, "round {round}");
    }
    let store = on.open().await;
    let registry = store.registry().await.unwrap();
    assert_eq!((registry.version, registry.entries.len()), (ROUNDS, usize::try_from(ROUNDS).unwrap()));
}

async fn a_request_that_comes_again_finds_its_answer(on: &TestStore) {
    let store = on.open().await;
    let write = |name: &str| Write {
        idempotency: Some(key(name)),
        log: vec![entry(Target::Task(task_id(1))), entry(Target::Task(task_id(2)))],
        ..Write::default()
    };
    let before = |name: &str, seq| {
        let of = key(name);
        Written::Before { fingerprint: of.fingerprint, answer: of.answer, seq: Some(Seq::new(seq)) }
    };
    assert_eq!(store.answered("admin:ops", "a").await.unwrap(), None);
    assert_eq!(done(&*store, write("a")).await, Some(Seq::new(2)));
    assert_eq!(store.answered("admin:ops", "a").await.unwrap(), Some(before("a", 2)));
    assert_eq!(store.answered("admin:other", "a").await.unwrap(), None, "two callers' keys don't meet");
    // Again, and with others; and the same new key twice in one batch.
    let written = commit(&*store, &[write("b"), write("a"), write("b")]).await;
    assert_eq!(written, [Written::Done { seq: Some(Seq::new(4)) }, before("a", 2), before("b", 4)]);
    assert_eq!(store.head().await.unwrap(), Seq::new(4));
}

async fn a_race_of_the_same_request_happens_once(on: &TestStore) {
    for round in 0..10 {
        let mut racers = Vec::new();
        for racer in 0..4_u128 {
            let store = on.open().await;
            racers.push(tokio::spawn(async move {
                let write = Write {
                    idempotency: Some(key(&format!("round {round}"))),
                    log: vec![entry(Target::Task(task_id(racer)))],
                    ..Write::default()
                };
                store.commit(Writer(uuid(racer)), &[write]).await.unwrap().remove(0)
            }));
        }
        let mut winners = 0;
        for racer in racers {
            match racer.await.unwrap() {
                Written::Done { .. } => winners += 1,
                Written::Before { seq, .. } => assert_eq!(seq, Some(Seq::new(round + 1))),
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(winners, 1, "round {round}");
    }
}

async fn which_answer_goes_first(on: &TestStore) {
    let store = on.open().await;
    done(&*store, Write { idempotency: Some(key("k")), ..redeem(&["a"]) }).await;
    let moved = Some(Expected::Registry(9));
    let both = Write { idempotency: Some(key("k")), expected: moved.clone(), ..redeem(&["fresh"]) };
    let all = Write { idempotency: Some(key("k")), expected: moved, ..redeem(&["a"]) };
    let written = commit(&*store, &[both, all]).await;
    assert!(matches!(written[..], [Written::Before { .. }, Written::Replayed]), "{written:?}");
}

async fn a_sweep_drops_what_is_past(on: &TestStore) {
    let store = on.open().await;
    let keep = |id: &str, until| Write {
        once: vec![OneTimeId { keep_until: at(until), ..once(id) }],
        idempotency: Some(errand::ports::Idempotency { keep_until: at(until), ..key(id) }),
        ..Write::default()
    };
    commit(&*store, &[keep("a", 99), keep("b", 100), keep("c", 101)]).await;
    let swept = store.sweep(at(100)).await.unwrap();
    assert_eq!((swept.once, swept.idempotency, swept.keys), (2, 2, 0));
    assert_eq!(store.sweep(at(100)).await.unwrap(), errand::ports::Swept::default());
    let written = commit(&*store, &[redeem(&["a"]), redeem(&["b"]), redeem(&["c"])]).await;
    assert_eq!(written, [DONE, DONE, Written::Replayed]);
    assert!(store.answered("admin:ops", "a").await.unwrap().is_none());
    assert!(store.answered("admin:ops", "c").await.unwrap().is_some());
    // The longest wish counts, when a batch has several for one id.
    let batch = [keep("d", 500), keep("d", 900)];
    commit(&*store, &batch).await;
    store.sweep(at(600)).await.unwrap();
    assert_eq!(commit(&*store, &[redeem(&["d"])]).await, [Written::Replayed]);
}

/// A caller that goes away in the middle: its write happened or it did not, and the next one is not disturbed.
/// A future that is let go after so many polls: in the middle of whatever it is at then, however fast the machine is.
struct Cut<F> {
    future: F,
    polls: u64,
}

impl<F: Future + Unpin> Future for Cut<F> {
    type Output = Option<F::Output>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(polls) = self.polls.checked_sub(1) else { return Poll::Ready(None) };
        self.polls = polls;
        Pin::new(&mut self.future).poll(context).map(Some)
    }
}

async fn a_caller_that_goes_away_leaves_all_or_nothing(on: &TestStore) {
    const CALLERS: u64 = 120;
    let store = on.open().await;
    let mut gone = 0;
    for n in 0..CALLERS {
        let write = Write { log: vec![entry(Target::Task(task_id(n.into())))], ..issue(n.into()) };
        let batch = [write];
        let commit = Cut { future: store.commit(WRITER, &batch), polls: n / 2 };
        gone += u32::from(commit.await.is_none());
    }
    // How often a commit wakes up is the machine's affair; but three times it does.
    assert!(gone > 5, "{gone}");
    // What the last one sent may still be under way; an entry waits until it is over, one way or the other.
    let last = done(&*store, Write { log: vec![entry(Target::Keys)], ..Write::default() }).await.unwrap();
    let mut happened = 0;
    for n in 0..CALLERS {
        let there = store.task(task_id(n.into())).await.unwrap().is_some();
        assert_eq!(store.token(token_id(n.into())).await.unwrap().is_some(), there, "{n}");
        let replayed = commit(&*store, &[redeem(&[&format!("jti {n}")])]).await == [Written::Replayed];
        assert_eq!(replayed, there, "{n}");
        happened += u64::from(there);
    }
    let log = store.log_after(Seq::new(0), NOW, 1000).await.unwrap();
    assert_eq!(last, Seq::new(happened + 1));
    assert_eq!(log.iter().map(|entry| entry.seq.number()).collect::<Vec<_>>(), (1..=happened + 1).collect::<Vec<_>>());
    assert_eq!(store.audit_heads().await.unwrap().first().map_or(0, |(_, head)| head.n), happened);
}

async fn an_empty_batch_is_nothing(on: &TestStore) {
    let store = on.open().await;
    assert_eq!(commit(&*store, &[]).await, []);
    assert_eq!(commit(&*store, &[Write::default()]).await, [DONE]);
    assert!(store.audit_heads().await.unwrap().is_empty());
}

conformance!(
    a_one_time_id_is_good_once,
    the_same_id_twice_in_a_batch,
    a_race_for_an_id_has_one_winner,
    batches_that_want_the_same_do_not_block_each_other,
    a_refused_write_leaves_no_trace,
    a_refused_write_gives_way_to_the_next_in_its_batch,
    the_others_of_a_batch_are_done,
    a_version_moves_on_with_every_change,
    a_race_for_a_version_has_one_winner,
    a_request_that_comes_again_finds_its_answer,
    a_race_of_the_same_request_happens_once,
    which_answer_goes_first,
    a_sweep_drops_what_is_past,
    a_caller_that_goes_away_leaves_all_or_nothing,
    an_empty_batch_is_nothing,
);
