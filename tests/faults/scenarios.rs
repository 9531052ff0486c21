//! Scenes with a script: what must come right, and what the checker must see.

use std::sync::Arc;

use crate::{
    checker::{StoredState, Violation, find_violations},
    cluster::{Cluster, Program},
    history::{ChangeResult, IntrospectionResult, Target},
    proxy::{LinkState, LostDirection, Proxy},
    recorder::Recorder,
};

/// Two replicas, of which the second one may run another program, and a token that both have seen.
async fn start_two_replicas(second: Program) -> (Arc<Cluster>, Recorder, crate::recorder::IssuedToken) {
    let ground = Arc::new(Cluster::prepare().await);
    for (number, program) in [(0, Program::Errand), (1, second)] {
        ground.start(number, program);
        ground.wait_until_ready(number, program).await;
    }
    ground.wait_until_leased(1).await;
    let caller = Recorder::new(Arc::clone(&ground));
    let issued = caller.open(0, "reader", "alice").await.unwrap();
    assert_eq!(caller.introspect(1, &issued).await, IntrospectionResult::Active);
    (ground, caller, issued)
}

/// The second replica is cut off from the database in this way, and the first one takes the token back. Returns what the
/// second one then says, and what the checker says to that.
async fn run_with_cut_link(second: Program, how: fn(&Proxy)) -> (IntrospectionResult, Vec<Violation>) {
    let (ground, caller, issued) = start_two_replicas(second).await;
    how(&ground.replicas[1].proxy);
    let told = caller.revoke(0, Target::Token(issued.token.id.clone())).await;
    assert_eq!(told, ChangeResult::Done, "it is waited for no longer than its lease: {}", ground.log_text(0));
    let said = caller.introspect(1, &issued).await;
    let kept = StoredState { tokens: [issued.token.id].into(), log: crate::read_log(&ground).await };
    (said, find_violations(&caller.history(), &kept))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn partitioned_replica_does_not_answer() {
    let (said, offences) = run_with_cut_link(Program::Errand, |proxy| proxy.set(LinkState::Blocked)).await;
    assert_eq!((said, offences), (IntrospectionResult::Unknown, vec![]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silent_connection_stops_answers() {
    let (said, offences) = run_with_cut_link(Program::Errand, |proxy| proxy.silence(LostDirection::Both)).await;
    assert_eq!((said, offences), (IntrospectionResult::Unknown, vec![]));
}

/// What it was connected by is silent for good, and nobody has told it so. It does not know, and then it knows by
/// connections that are new.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dropped_connection_is_replaced() {
    let (ground, caller, issued) = start_two_replicas(Program::Errand).await;
    let proxy = &ground.replicas[1].proxy;
    proxy.drop_connections(LostDirection::Both);
    let told = caller.revoke(0, Target::Token(issued.token.id.clone())).await;
    assert_eq!(told, ChangeResult::Done, "it is waited for no longer than its lease: {}", ground.log_text(0));
    for _ in 0..60 {
        match caller.introspect(1, &issued).await {
            IntrospectionResult::Active => panic!("it was taken back"),
            IntrospectionResult::Inactive => {
                assert!(proxy.swallowed() > 0, "it was silent");
                return;
            }
            // It has noticed nothing yet.
            IntrospectionResult::Unknown => {}
        }
    }
    panic!("it does not come right again: {}", ground.log_text(1));
}

/// Asked while it was paused, it answers when it goes on: after the token was taken back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn paused_replica_rechecks_its_lease() {
    let (ground, caller, issued) = start_two_replicas(Program::Errand).await;
    ground.replicas[1].signal("STOP");
    let told = caller.revoke(0, Target::Token(issued.token.id.clone())).await;
    assert_eq!(told, ChangeResult::Done, "it is waited for no longer than its lease: {}", ground.log_text(0));
    let asking = caller.introspect(1, &issued);
    let going_on = async {
        // The question lies in its socket by then; and if it does not, the answer must be the same.
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        ground.replicas[1].signal("CONT");
    };
    let (said, ()) = tokio::join!(asking, going_on);
    assert_ne!(said, IntrospectionResult::Active);
    assert_eq!(caller.introspect(1, &issued).await, IntrospectionResult::Inactive);
}

/// A lease that never lapses in the eyes of who holds it: then it lies, and the checker must say so. If this test fails,
/// the others prove nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frozen_clock_violation_is_detected() {
    let (said, offences) = run_with_cut_link(Program::Frozen, |proxy| proxy.set(LinkState::Blocked)).await;
    assert_eq!(
        said,
        IntrospectionResult::Active,
        "its clock stands still, and it knows all the same: what did it ask?"
    );
    let is_the_lie = |offence: &Violation| matches!(offence, Violation::Active { at: 1, ended: Target::Token(_), .. });
    assert!(offences.len() == 1 && offences.iter().all(is_the_lie), "{offences:?}");
}
