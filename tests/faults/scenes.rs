//! Scenes with a script: what must come right, and what the checker must see.

use std::sync::Arc;

use crate::{
    caller::Caller,
    checker::{Kept, Offence, check},
    ground::{Ground, Program},
    history::{Said, Target, Told},
    proxy::{Line, Lost, Proxy},
};

/// Two replicas, of which the second one may run another program, and a token that both have seen.
async fn two(second: Program) -> (Arc<Ground>, Caller, crate::caller::Issued) {
    let ground = Arc::new(Ground::prepare().await);
    for (number, program) in [(0, Program::Errand), (1, second)] {
        ground.start(number, program);
        ground.ready(number, program).await;
    }
    ground.leased(1).await;
    let caller = Caller::new(Arc::clone(&ground));
    let issued = caller.open(0, "reader", "alice").await.unwrap();
    assert_eq!(caller.introspect(1, &issued).await, Said::Active);
    (ground, caller, issued)
}

/// The second replica is cut off from the database in this way, and the first one takes the token back. Returns what the
/// second one then says, and what the checker says to that.
async fn cut_off(second: Program, how: fn(&Proxy)) -> (Said, Vec<Offence>) {
    let (ground, caller, issued) = two(second).await;
    how(&ground.replicas[1].proxy);
    let told = caller.revoke(0, Target::Token(issued.token.id.clone())).await;
    assert_eq!(told, Told::Done, "it is waited for no longer than its lease: {}", ground.said(0));
    let said = caller.introspect(1, &issued).await;
    let kept = Kept { tokens: [issued.token.id].into(), log: crate::log(&ground).await };
    (said, check(&caller.history(), &kept))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cut_off_it_does_not_know() {
    let (said, offences) = cut_off(Program::Errand, |proxy| proxy.set(Line::Blocked)).await;
    assert_eq!((said, offences), (Said::Unknown, vec![]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_a_silent_line_it_does_not_know() {
    let (said, offences) = cut_off(Program::Errand, |proxy| proxy.fall_silent(Lost::Both)).await;
    assert_eq!((said, offences), (Said::Unknown, vec![]));
}

/// What it was connected by is silent for good, and nobody has told it so. It does not know, and then it knows by
/// connections that are new.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn forgotten_it_asks_by_another_way() {
    let (ground, caller, issued) = two(Program::Errand).await;
    let proxy = &ground.replicas[1].proxy;
    proxy.forget(Lost::Both);
    let told = caller.revoke(0, Target::Token(issued.token.id.clone())).await;
    assert_eq!(told, Told::Done, "it is waited for no longer than its lease: {}", ground.said(0));
    for _ in 0..60 {
        match caller.introspect(1, &issued).await {
            Said::Active => panic!("it was taken back"),
            Said::Inactive => {
                assert!(proxy.swallowed() > 0, "it was silent");
                return;
            }
            // It has noticed nothing yet.
            Said::Unknown => {}
        }
    }
    panic!("it does not come right again: {}", ground.said(1));
}

/// Asked while it was paused, it answers when it goes on: after the token was taken back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn paused_it_looks_again() {
    let (ground, caller, issued) = two(Program::Errand).await;
    ground.replicas[1].signal("STOP");
    let told = caller.revoke(0, Target::Token(issued.token.id.clone())).await;
    assert_eq!(told, Told::Done, "it is waited for no longer than its lease: {}", ground.said(0));
    let asking = caller.introspect(1, &issued);
    let going_on = async {
        // The question lies in its socket by then; and if it does not, the answer must be the same.
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        ground.replicas[1].signal("CONT");
    };
    let (said, ()) = tokio::join!(asking, going_on);
    assert_ne!(said, Said::Active);
    assert_eq!(caller.introspect(1, &issued).await, Said::Inactive);
}

/// A lease that never lapses in the eyes of who holds it: then it lies, and the checker must say so. If this test fails,
/// the others prove nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_a_frozen_clock_it_lies_and_the_checker_sees_it() {
    let (said, offences) = cut_off(Program::Frozen, |proxy| proxy.set(Line::Blocked)).await;
    assert_eq!(said, Said::Active, "its clock stands still, and it knows all the same: what did it ask?");
    let is_the_lie = |offence: &Offence| matches!(offence, Offence::Active { at: 1, ended: Target::Token(_), .. });
    assert!(offences.len() == 1 && offences.iter().all(is_the_lie), "{offences:?}");
}
