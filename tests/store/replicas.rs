//! Replicas: renewals in their order, and hearing of what others write.

use std::time::Duration;

use errand::{
    domain::{
        replica::{Beat, Replica, ReplicaId},
        revocation::{Seq, Target},
    },
    ports::{Ear, Heard, Write},
};
use tokio::time::timeout;

use crate::{samples::*, support::TestStore};

fn beat(n: u128, number: u64, applied: u64) -> Beat {
    let replica = Replica {
        id: ReplicaId(uuid(n)),
        name: HOSTILE[0].to_owned(),
        version: "1.2.3".into(),
        started: at(i64::try_from(n).unwrap()),
    };
    Beat { replica, number, applied: Seq::new(applied), lease: Duration::from_millis(1999), at: NOW }
}

async fn the_last_renewal_counts(on: &TestStore) {
    let store = on.open().await;
    assert_eq!(store.replicas().await.unwrap(), []);
    for (n, number, applied) in [(2, 1, 0), (1, 1, 5), (1, 2, 7)] {
        store.renew(&beat(n, number, applied), true).await.unwrap();
    }
    let other = on.open().await;
    assert_eq!(other.replicas().await.unwrap(), [beat(1, 2, 7), beat(2, 1, 0)]);
    // One that was sent before and comes after, and the same once more.
    for late in [beat(1, 1, 5), Beat { applied: Seq::new(6), ..beat(1, 2, 7) }] {
        store.renew(&late, true).await.expect_err("nobody will wait for it");
        assert_eq!(other.replicas().await.unwrap(), [beat(1, 2, 7), beat(2, 1, 0)]);
    }
    let slower = Beat { lease: Duration::from_secs(30), ..beat(1, 3, 7) };
    store.renew(&slower, false).await.unwrap();
    assert_eq!(other.replicas().await.unwrap(), [slower, beat(2, 1, 0)]);
}

async fn who_has_renewed_since_is_not_removed(on: &TestStore) {
    let store = on.open().await;
    store.renew(&beat(1, 4, 0), false).await.unwrap();
    store.renew(&beat(2, 9, 0), false).await.unwrap();
    for (n, number, was_there) in [(1, 3, false), (1, 4, true), (1, 4, false), (3, 9, false)] {
        assert_eq!(store.remove_replica(ReplicaId(uuid(n)), number).await.unwrap(), was_there, "{n} {number}");
    }
    assert_eq!(store.replicas().await.unwrap(), [beat(2, 9, 0)]);
    // It comes again.
    store.renew(&beat(1, 5, 0), false).await.unwrap();
    assert_eq!(store.replicas().await.unwrap(), [beat(1, 5, 0), beat(2, 9, 0)]);
}

async fn heard(ear: &mut dyn Ear) -> Heard {
    timeout(Duration::from_secs(30), ear.hear()).await.expect("something is heard").unwrap()
}

async fn what_others_write_is_heard(on: &TestStore) {
    let (store, other) = (on.open().await, on.open().await);
    store.renew(&beat(1, 1, 0), true).await.unwrap();
    let mut ear = other.listen().await.unwrap();
    for n in 1..4_u128 {
        // Neither tokens nor renewals that say nothing new: what is heard next is the entry.
        done(&*store, issue(n)).await;
        store.renew(&beat(1, 2 * u64::try_from(n).unwrap(), 0), false).await.unwrap();
        done(&*store, Write { log: vec![entry(Target::Registry), entry(Target::Keys)], ..Write::default() }).await;
        assert_eq!(heard(&mut *ear).await, Heard::Log);
        store.renew(&beat(2, u64::try_from(n).unwrap(), u64::try_from(n).unwrap()), true).await.unwrap();
        assert_eq!(heard(&mut *ear).await, Heard::Acknowledgement);
    }
    let nothing = timeout(Duration::from_millis(100), ear.hear()).await;
    assert!(nothing.is_err(), "{nothing:?}");
    // Several may listen at one store, one after the other.
    drop(ear);
    let mut ear = other.listen().await.unwrap();
    done(&*store, Write { log: vec![entry(Target::Registry)], ..Write::default() }).await;
    assert_eq!(heard(&mut *ear).await, Heard::Log);
}

/// What broke says so, and another one hears again.
#[tokio::test]
async fn a_listener_whose_connection_is_gone_says_so() {
    let on = TestStore::postgres().await;
    let store = on.open().await;
    let mut ear = store.listen().await.unwrap();
    on.tamper("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'LISTEN%'").await;
    timeout(Duration::from_secs(30), ear.hear()).await.expect("it says something").unwrap_err();
    drop(ear);
    let mut ear = store.listen().await.unwrap();
    done(&*store, Write { log: vec![entry(Target::Registry)], ..Write::default() }).await;
    assert_eq!(heard(&mut *ear).await, Heard::Log);
}

conformance!(the_last_renewal_counts, who_has_renewed_since_is_not_removed, what_others_write_is_heard);
