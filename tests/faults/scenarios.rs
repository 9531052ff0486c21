//! Scripted scenarios: faults that the cluster must survive, and a violation that the checker must
//! find.

use std::sync::Arc;

use crate::{
    checker::{StoredState, Violation, find_violations},
    cluster::{Cluster, Program},
    history::{ChangeResult, IntrospectionResult, Target},
    proxy::{LinkState, LostDirection, Proxy},
    recorder::Recorder,
};

/// Starts two replicas, the second one with the given program, and issues a token that both of them
/// know.
async fn start_two_replicas(second: Program) -> (Arc<Cluster>, Recorder, crate::recorder::IssuedToken) {
    let cluster = Arc::new(Cluster::prepare().await);
    for (number, program) in [(0, Program::Errand), (1, second)] {
        cluster.start(number, program);
        cluster.wait_until_ready(number, program).await;
    }
    cluster.wait_until_leased(1).await;
    let recorder = Recorder::new(Arc::clone(&cluster));
    let issued = recorder.open(0, "reader", "alice").await.unwrap();
    assert_eq!(recorder.introspect(1, &issued).await, IntrospectionResult::Active);
    (cluster, recorder, issued)
}

/// Disconnects the second replica from the database, and revokes the token at the first one.
/// Returns the answer of the second one to a later introspection, and the violations that the
/// checker finds.
async fn run_with_cut_link(second: Program, disconnect: fn(&Proxy)) -> (IntrospectionResult, Vec<Violation>) {
    let (cluster, recorder, issued) = start_two_replicas(second).await;
    disconnect(&cluster.replicas[1].proxy);
    let result = recorder.revoke(0, Target::Token(issued.token.id.clone())).await;
    assert_eq!(
        result,
        ChangeResult::Done,
        "the revocation must be acknowledged when the lease of replica 1 is over: {}",
        cluster.log_text(0)
    );
    let answer = recorder.introspect(1, &issued).await;
    let stored = StoredState { tokens: [issued.token.id].into(), log: crate::read_log(&cluster).await };
    (answer, find_violations(&recorder.history(), &stored))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn partitioned_replica_does_not_answer() {
    let (answer, violations) = run_with_cut_link(Program::Errand, |proxy| proxy.set(LinkState::Blocked)).await;
    assert_eq!((answer, violations), (IntrospectionResult::Unknown, vec![]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silent_connection_stops_answers() {
    let (answer, violations) = run_with_cut_link(Program::Errand, |proxy| proxy.silence(LostDirection::Both)).await;
    assert_eq!((answer, violations), (IntrospectionResult::Unknown, vec![]));
}

/// The connections of the replica never carry data again, and it gets no error about that. It
/// answers 503 until it has new connections, and then "inactive".
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dropped_connection_is_replaced() {
    let (cluster, recorder, issued) = start_two_replicas(Program::Errand).await;
    let proxy = &cluster.replicas[1].proxy;
    proxy.drop_connections(LostDirection::Both);
    let result = recorder.revoke(0, Target::Token(issued.token.id.clone())).await;
    assert_eq!(
        result,
        ChangeResult::Done,
        "the revocation must be acknowledged when the lease of replica 1 is over: {}",
        cluster.log_text(0)
    );
    for _ in 0..60 {
        match recorder.introspect(1, &issued).await {
            IntrospectionResult::Active => panic!("replica 1 answered active for a revoked token"),
            IntrospectionResult::Inactive => {
                assert!(proxy.swallowed() > 0, "the dropped connections lost no data");
                return;
            }
            // The replica has not replaced its connections yet.
            IntrospectionResult::Unknown => {}
        }
    }
    panic!("replica 1 did not replace its connections: {}", cluster.log_text(1));
}

/// A paused replica gets a request, and answers it after the pause. By then the token is revoked.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn paused_replica_rechecks_its_lease() {
    let (cluster, recorder, issued) = start_two_replicas(Program::Errand).await;
    cluster.replicas[1].signal("STOP");
    let result = recorder.revoke(0, Target::Token(issued.token.id.clone())).await;
    assert_eq!(
        result,
        ChangeResult::Done,
        "the revocation must be acknowledged when the lease of replica 1 is over: {}",
        cluster.log_text(0)
    );
    let introspection = recorder.introspect(1, &issued);
    let resume = async {
        // By then the request is in the socket of the replica. If it is not, the answer must be the
        // same.
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        cluster.replicas[1].signal("CONT");
    };
    let (answer, ()) = tokio::join!(introspection, resume);
    assert_ne!(answer, IntrospectionResult::Active);
    assert_eq!(recorder.introspect(1, &issued).await, IntrospectionResult::Inactive);
}

/// A replica with a frozen clock never sees its lease lapse. It answers "active" for a revoked
/// token, and the checker must report that. If this test fails, the others prove nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frozen_clock_violation_is_detected() {
    let (answer, violations) = run_with_cut_link(Program::Frozen, |proxy| proxy.set(LinkState::Blocked)).await;
    assert_eq!(
        answer,
        IntrospectionResult::Active,
        "replica 1 noticed the end of its lease or the revocation, although its clock is frozen"
    );
    let is_expected =
        |violation: &Violation| matches!(violation, Violation::Active { at: 1, ended: Target::Token(_), .. });
    assert!(violations.len() == 1 && violations.iter().all(is_expected), "{violations:?}");
}
