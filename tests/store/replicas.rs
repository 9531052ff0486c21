//! Replicas: heartbeats in order, and change notifications.

use std::time::Duration;

use errand::{
    domain::{
        configuration::FileVersion,
        replication::{Heartbeat, Replica, ReplicaId},
        revocation::{LogPosition, Target},
    },
    ports::{ChangeListener, Notification, WriteSet},
};
use tokio::time::timeout;

use crate::{fixtures::*, support::TestStore};

fn heartbeat(n: u128, number: u64, applied: u64) -> Heartbeat {
    let replica = Replica {
        id: ReplicaId(uuid(n)),
        name: HOSTILE[0].to_owned(),
        version: "1.2.3".into(),
        started_at: at(i64::try_from(n).unwrap()),
        file: (number > 1).then(|| FileVersion { digest: HOSTILE[0].to_owned(), generation: Some(number) }),
        pending_restart: vec![HOSTILE[0].to_owned()],
    };
    Heartbeat { replica, number, applied: LogPosition::new(applied), lease: Duration::from_millis(1999), at: NOW }
}

async fn latest_heartbeat_is_kept(on: &TestStore) {
    let store = on.open().await;
    assert_eq!(store.list_replicas().await.unwrap(), []);
    for (n, number, applied) in [(2, 1, 0), (1, 1, 5), (1, 2, 7)] {
        store.record_heartbeat(&heartbeat(n, number, applied), true).await.unwrap();
    }
    let other = on.open().await;
    assert_eq!(other.list_replicas().await.unwrap(), [heartbeat(1, 2, 7), heartbeat(2, 1, 0)]);
    // A late heartbeat, and a repeated one.
    for late in [heartbeat(1, 1, 5), Heartbeat { applied: LogPosition::new(6), ..heartbeat(1, 2, 7) }] {
        store.record_heartbeat(&late, true).await.expect_err("a late heartbeat gives no lease");
        assert_eq!(other.list_replicas().await.unwrap(), [heartbeat(1, 2, 7), heartbeat(2, 1, 0)]);
    }
    let slower = Heartbeat { lease: Duration::from_secs(30), ..heartbeat(1, 3, 7) };
    store.record_heartbeat(&slower, false).await.unwrap();
    assert_eq!(other.list_replicas().await.unwrap(), [slower, heartbeat(2, 1, 0)]);
}

async fn renewed_replica_is_not_removed(on: &TestStore) {
    let store = on.open().await;
    store.record_heartbeat(&heartbeat(1, 4, 0), false).await.unwrap();
    store.record_heartbeat(&heartbeat(2, 9, 0), false).await.unwrap();
    for (n, number, was_there) in [(1, 3, false), (1, 4, true), (1, 4, false), (3, 9, false)] {
        assert_eq!(store.deregister_replica(ReplicaId(uuid(n)), number).await.unwrap(), was_there, "{n} {number}");
    }
    assert_eq!(store.list_replicas().await.unwrap(), [heartbeat(2, 9, 0)]);
    // The replica returns.
    store.record_heartbeat(&heartbeat(1, 5, 0), false).await.unwrap();
    assert_eq!(store.list_replicas().await.unwrap(), [heartbeat(1, 5, 0), heartbeat(2, 9, 0)]);
}

async fn receive(listener: &mut dyn ChangeListener) -> Notification {
    timeout(Duration::from_secs(30), listener.recv()).await.expect("a notification arrives").unwrap()
}

async fn writes_of_others_are_notified(on: &TestStore) {
    let (store, other) = (on.open().await, on.open().await);
    store.record_heartbeat(&heartbeat(1, 1, 0), true).await.unwrap();
    let mut listener = other.listen().await.unwrap();
    for n in 1..4_u128 {
        // Tokens and heartbeats without news cause no notification: the next one is for the entry.
        commit_one(&*store, issue_token(n)).await;
        store.record_heartbeat(&heartbeat(1, 2 * u64::try_from(n).unwrap(), 0), false).await.unwrap();
        commit_one(
            &*store,
            WriteSet { log_entries: vec![entry(Target::Registry), entry(Target::Keys)], ..WriteSet::default() },
        )
        .await;
        assert_eq!(receive(&mut *listener).await, Notification::Log);
        store
            .record_heartbeat(&heartbeat(2, u64::try_from(n).unwrap(), u64::try_from(n).unwrap()), true)
            .await
            .unwrap();
        assert_eq!(receive(&mut *listener).await, Notification::Acknowledgement);
    }
    let none = timeout(Duration::from_millis(100), listener.recv()).await;
    assert!(none.is_err(), "{none:?}");
    // A store may have several listeners in turn.
    drop(listener);
    let mut listener = other.listen().await.unwrap();
    commit_one(&*store, WriteSet { log_entries: vec![entry(Target::Registry)], ..WriteSet::default() }).await;
    assert_eq!(receive(&mut *listener).await, Notification::Log);
}

/// A broken listener reports an error, and a new one receives notifications.
#[tokio::test]
async fn lost_listener_connection_is_reported() {
    let on = TestStore::postgres().await;
    let store = on.open().await;
    let mut listener = store.listen().await.unwrap();
    on.tamper("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'LISTEN%'").await;
    timeout(Duration::from_secs(30), listener.recv()).await.expect("the listener returns").unwrap_err();
    drop(listener);
    let mut listener = store.listen().await.unwrap();
    commit_one(&*store, WriteSet { log_entries: vec![entry(Target::Registry)], ..WriteSet::default() }).await;
    assert_eq!(receive(&mut *listener).await, Notification::Log);
}

conformance!(latest_heartbeat_is_kept, renewed_replica_is_not_removed, writes_of_others_are_notified);
