//! The checker on hand-written histories: each kind of violation is reported, and a history that
//! merely resembles one is accepted.

use std::time::Duration;

use crate::{
    checker::{StoredState, Violation, find_violations},
    history::{Action, Call, Change, ChangeResult, Event, IntrospectionResult, Target, Token},
};

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn call(start: u64, end: u64, event: Event) -> Call {
    Call { at: 1, start: ms(start), end: ms(end), is_answered: true, event }
}

pub fn token(id: &str, rev: u64, lineage: &[&str]) -> Token {
    Token {
        id: id.into(),
        lineage: lineage.iter().map(ToString::to_string).collect(),
        task: "task".into(),
        requester: "alice".into(),
        agents: ["planner".into()].into(),
        resource: "files".into(),
        issuer: "idp".into(),
        rev,
        valid_until: ms(10_000),
        assertion: None,
        grant: None,
        key: "key".into(),
    }
}

pub fn issued(start: u64, end: u64, token: Token) -> Call {
    call(start, end, Event::Issued(token))
}

pub fn introspected(start: u64, end: u64, token: &str, result: IntrospectionResult) -> Call {
    call(start, end, Event::Introspected { token: token.into(), result })
}

pub fn change(start: u64, end: u64, verb: Action, target: Target, result: ChangeResult, seq: Option<u64>) -> Call {
    call(start, end, Event::Changed(Change { verb, target, result, seq, propagated: None, key: None }))
}

pub fn end(start: u64, end: u64, target: Target, seq: u64) -> Call {
    change(start, end, Action::End, target, ChangeResult::Done, Some(seq))
}

pub fn root() -> Target {
    Target::Token("root".into())
}

pub fn task() -> Target {
    Target::Task("task".into())
}

pub fn requester() -> Target {
    Target::Requester("alice".into())
}

/// Returns the violations, with a store that agrees with the history.
pub fn violations(history: &[Call]) -> Vec<Violation> {
    let mut stored = StoredState::default();
    for call in history {
        match &call.event {
            Event::Issued(token) => {
                stored.tokens.insert(token.id.clone());
            }
            Event::Changed(Change { verb, target, result: ChangeResult::Done, seq, .. }) => {
                let (kind, key) = target.log_key();
                let log_verb = match verb {
                    Action::End | Action::Block => "revoke",
                    Action::Suspend => "suspend",
                    Action::Resume | Action::Unblock => "resume",
                };
                let seq = seq.unwrap_or_else(|| stored.log.keys().next_back().unwrap_or(&0) + 1);
                let is_of_registry = matches!(target, Target::Agent(_) | Target::Requester(_)) && *verb != Action::End;
                if is_of_registry {
                    stored.log.insert(seq - 1, (log_verb.into(), kind.into(), key.into()));
                    stored.log.insert(seq, ("revoke".into(), "registry".into(), String::new()));
                } else {
                    stored.log.insert(seq, (log_verb.into(), kind.into(), key.into()));
                }
            }
            _ => {}
        }
    }
    let first = stored.log.keys().next().copied().unwrap_or(1);
    for seq in 1..first {
        stored.log.insert(seq, ("revoke".into(), "registry".into(), String::new()));
    }
    find_violations(history, &stored)
}

pub fn is_active_violation(found: &[Violation]) -> bool {
    matches!(found, [Violation::Active { .. }])
}

#[test]
fn active_after_acknowledged_end_is_a_violation() {
    let targets = [root(), task(), requester(), Target::Agent("planner".into())].into_iter();
    let targets = targets.chain([Target::Resource("files".into()), Target::Issuer("idp".into())]);
    for target in targets {
        let introspected_at = |start| {
            let history = [
                issued(0, 10, token("root", 4, &[])),
                end(20, 30, target.clone(), 5),
                introspected(start, start + 20, "root", IntrospectionResult::Active),
            ];
            violations(&history)
        };
        assert!(is_active_violation(&introspected_at(31)), "{target:?}");
        // A call invoked before the acknowledgement may have been answered before it.
        assert_eq!(introspected_at(30), [], "{target:?}");
        assert_eq!(introspected_at(15), [], "{target:?}");
    }
}

#[test]
fn unacknowledged_end_allows_both_results() {
    for result in [ChangeResult::Unknown, ChangeResult::Refused] {
        let history = [
            issued(0, 10, token("root", 4, &[])),
            change(20, 30, Action::End, root(), result, None),
            introspected(40, 50, "root", IntrospectionResult::Active),
        ];
        assert_eq!(violations(&history), [], "{result:?}");
    }
}

/// A second request is refused because the state is already in effect. The state then holds on all
/// replicas, regardless of the result of the first request.
#[test]
fn already_revoked_counts_as_acknowledged() {
    let first = issued(0, 10, token("root", 4, &[]));
    let unacknowledged = |verb| change(20, 100, verb, task(), ChangeResult::Unknown, None);
    let already = |verb| change(25, 30, verb, task(), ChangeResult::Already, None);
    let introspect = |start, result| introspected(start, start + 5, "root", result);
    let log = |verb: &str| StoredState {
        tokens: ["root".to_owned()].into(),
        log: [(1, (verb.to_owned(), "task".to_owned(), "task".to_owned()))].into(),
    };
    let check = |history: &[Call], verb: &str| find_violations(history, &log(verb));
    let end =
        [first.clone(), unacknowledged(Action::End), already(Action::End), introspect(31, IntrospectionResult::Active)];
    assert!(is_active_violation(&check(&end, "revoke")));
    assert_eq!(
        check(
            &[
                first.clone(),
                unacknowledged(Action::End),
                already(Action::End),
                introspect(30, IntrospectionResult::Active)
            ],
            "revoke"
        ),
        []
    );
    // The refusal needs an entry in the log as its reason.
    assert_eq!(check(&end[..3], "suspend"), [Violation::MissingEntry { target: task(), seq: None }]);
    let suspended = [
        first.clone(),
        unacknowledged(Action::Suspend),
        already(Action::Suspend),
        introspect(31, IntrospectionResult::Active),
    ];
    assert!(matches!(&check(&suspended, "suspend")[..], [Violation::ActiveWhileSuspended { .. }]));
    let resume = change(31, 33, Action::Resume, task(), ChangeResult::Unknown, None);
    let resumed = [
        first.clone(),
        unacknowledged(Action::Suspend),
        already(Action::Suspend),
        resume,
        introspect(40, IntrospectionResult::Active),
    ];
    assert_eq!(check(&resumed, "suspend"), []);
    // The task is active and was not suspended since, so the token works. `Already` does not imply
    // that the task was ever suspended.
    let suspension = change(12, 18, Action::Suspend, task(), ChangeResult::Done, None);
    let active = [first.clone(), suspension, already(Action::Resume), introspect(31, IntrospectionResult::Inactive)];
    assert!(matches!(&check(&active, "suspend")[..], [Violation::Inactive { .. }]));
    assert_eq!(check(&[first, already(Action::Resume), introspect(31, IntrospectionResult::Active)], "suspend"), []);
}

#[test]
fn unrelated_targets_end_nothing() {
    let unrelated = [Target::Token("other".into()), Target::Task("other".into()), Target::Requester("bob".into())];
    for target in unrelated {
        let history = [
            issued(0, 10, token("root", 4, &[])),
            end(20, 30, target, 5),
            introspected(40, 50, "root", IntrospectionResult::Active),
        ];
        assert_eq!(violations(&history), []);
    }
}

#[test]
fn revoked_parent_ends_descendants() {
    // The child was issued while its parent ended; its `rev` covers the end or not.
    for (target, rev) in [(root(), 4), (root(), 5), (requester(), 4), (requester(), 5)] {
        let history = [
            issued(0, 10, token("root", 4, &[])),
            issued(19, 40, token("child", rev, &["root"])),
            end(20, 30, target.clone(), 5),
            introspected(50, 60, "child", IntrospectionResult::Active),
        ];
        assert!(is_active_violation(&violations(&history)), "{target:?} {rev}");
    }
}

#[test]
fn token_issued_after_end_stays_active() {
    let history = |issued_at, rev| {
        [
            end(20, 30, requester(), 5),
            issued(issued_at, issued_at + 5, token("root", rev, &[])),
            introspected(60, 70, "root", IntrospectionResult::Active),
        ]
    };
    assert_eq!(violations(&history(40, 5)), []);
    // Its `rev` is below the entry.
    assert!(is_active_violation(&violations(&history(40, 4))));
    // The calls overlap: the token may be newer than the entry.
    assert_eq!(violations(&history(25, 5)), []);
}

#[test]
fn issue_from_ended_token_is_a_violation() {
    let history = |start| {
        [
            issued(0, 10, token("root", 4, &[])),
            end(20, 30, root(), 5),
            issued(start, start + 10, token("child", 5, &["root"])),
        ]
    };
    assert!(matches!(&violations(&history(31))[..], [Violation::IssuedFromEnded { .. }]));
    assert_eq!(violations(&history(29)), []);
}

#[test]
fn rev_beyond_later_entry_is_a_violation() {
    let history = |rev| [issued(0, 10, token("root", rev, &[])), end(20, 30, requester(), 5)];
    assert!(matches!(&violations(&history(5))[..], [Violation::RevTooNew { seq: 5, .. }]));
    assert_eq!(violations(&history(4)), []);
}

#[test]
fn active_while_suspended_is_a_violation() {
    let suspend = |result| change(20, 30, Action::Suspend, task(), result, None);
    let resume = |start, result| change(start, start + 10, Action::Resume, task(), result, None);
    let first = issued(0, 10, token("root", 4, &[]));
    let introspect = |start, result| introspected(start, start + 10, "root", result);
    let suspended = |history: &[Call]| matches!(&violations(history)[..], [Violation::ActiveWhileSuspended { .. }]);

    assert!(suspended(&[first.clone(), suspend(ChangeResult::Done), introspect(40, IntrospectionResult::Active)]));
    assert!(suspended(&[
        first.clone(),
        suspend(ChangeResult::Done),
        introspect(40, IntrospectionResult::Active),
        resume(51, ChangeResult::Done)
    ]));
    for result in [ChangeResult::Done, ChangeResult::Unknown] {
        // The task may have been resumed during the introspection or before it.
        assert_eq!(
            violations(&[
                first.clone(),
                suspend(ChangeResult::Done),
                introspect(40, IntrospectionResult::Active),
                resume(45, result)
            ]),
            []
        );
        assert_eq!(
            violations(&[
                first.clone(),
                suspend(ChangeResult::Done),
                resume(35, result),
                introspect(60, IntrospectionResult::Active)
            ]),
            []
        );
    }
    assert!(suspended(&[
        first.clone(),
        suspend(ChangeResult::Done),
        resume(35, ChangeResult::Refused),
        introspect(60, IntrospectionResult::Active)
    ]));
    assert_eq!(
        violations(&[first.clone(), suspend(ChangeResult::Unknown), introspect(40, IntrospectionResult::Active)]),
        []
    );

    let inactive = |history: &[Call]| matches!(&violations(history)[..], [Violation::Inactive { .. }]);
    assert!(inactive(&[
        first.clone(),
        suspend(ChangeResult::Done),
        resume(35, ChangeResult::Done),
        introspect(60, IntrospectionResult::Inactive)
    ]));
    assert_eq!(
        violations(&[
            first.clone(),
            suspend(ChangeResult::Done),
            resume(35, ChangeResult::Done),
            introspect(40, IntrospectionResult::Inactive)
        ]),
        []
    );
    assert_eq!(
        violations(&[
            first.clone(),
            suspend(ChangeResult::Unknown),
            resume(35, ChangeResult::Done),
            introspect(60, IntrospectionResult::Inactive)
        ]),
        []
    );
    assert_eq!(
        violations(&[
            first,
            suspend(ChangeResult::Done),
            resume(35, ChangeResult::Unknown),
            introspect(60, IntrospectionResult::Inactive)
        ]),
        []
    );
}

#[test]
fn unexplained_inactive_is_a_violation() {
    let first = issued(0, 10, token("root", 4, &[]));
    let introspect = |start, end| introspected(start, end, "root", IntrospectionResult::Inactive);
    assert!(matches!(&violations(&[first.clone(), introspect(20, 30)])[..], [Violation::Inactive { .. }]));
    assert_eq!(violations(&[first.clone(), introspect(9_995, 10_000)]), [], "the token may have expired");
    assert_eq!(violations(&[first.clone(), introspect(5, 30)]), [], "the token may not have been issued");
    assert_eq!(violations(&[first.clone(), introspected(20, 30, "root", IntrospectionResult::Unknown)]), []);
    for result in [ChangeResult::Done, ChangeResult::Unknown] {
        let ending = change(25, 35, Action::End, requester(), result, (result == ChangeResult::Done).then_some(5));
        assert_eq!(
            violations(&[first.clone(), introspect(20, 30), ending.clone()]),
            [],
            "the token may have ended meanwhile"
        );
        assert_eq!(violations(&[first.clone(), ending, introspect(40, 50)]), []);
    }
    let refused = change(12, 15, Action::End, requester(), ChangeResult::Refused, None);
    assert!(matches!(&violations(&[first.clone(), refused, introspect(20, 30)])[..], [Violation::Inactive { .. }]));
    let too_late = change(31, 35, Action::End, requester(), ChangeResult::Unknown, None);
    assert!(matches!(&violations(&[first, introspect(20, 30), too_late])[..], [Violation::Inactive { .. }]));
    // A token issued after the end of the requester's tokens must work, unless the end was not
    // acknowledged: then its time is unknown.
    let after = |result, seq| {
        [
            change(20, 30, Action::End, requester(), result, seq),
            issued(40, 50, token("new", 5, &[])),
            introspected(60, 70, "new", IntrospectionResult::Inactive),
        ]
    };
    assert!(matches!(&violations(&after(ChangeResult::Done, Some(5)))[..], [Violation::Inactive { .. }]));
    assert_eq!(violations(&after(ChangeResult::Unknown, None)), []);
}

#[test]
fn missing_store_entries_are_violations() {
    let history = [issued(0, 10, token("root", 4, &[])), end(20, 30, root(), 2)];
    let entry = |key: &str| ("revoke".to_owned(), "token".to_owned(), key.to_owned());
    let store_with = |tokens: &[&str], log: &[(u64, &str)]| StoredState {
        tokens: tokens.iter().map(ToString::to_string).collect(),
        log: log.iter().map(|(seq, key)| (*seq, entry(key))).collect(),
    };
    let complete = store_with(&["root"], &[(1, "x"), (2, "root")]);
    assert!(matches!(&find_violations(&history[..1], &complete)[..], []));
    let token = "root".to_owned();
    let missing = find_violations(&history[..1], &store_with(&[], &[(1, "x"), (2, "root")]));
    assert_eq!(missing, [Violation::MissingRecord { token }]);
    let missing = |log| find_violations(&history[1..], &store_with(&[], log));
    assert_eq!(missing(&[(1, "x"), (2, "root")]), []);
    let no_entry = Violation::MissingEntry { target: root(), seq: Some(2) };
    assert_eq!(missing(&[(1, "root"), (2, "x")]), std::slice::from_ref(&no_entry));
    assert_eq!(missing(&[(1, "root")]), [no_entry]);
    assert_eq!(missing(&[(2, "root")]), [Violation::Gap { seq: 1 }]);
    // The answer to a suspension names no log position.
    let suspended = [change(0, 10, Action::Suspend, task(), ChangeResult::Done, None)];
    let no_entry = Violation::MissingEntry { target: task(), seq: None };
    assert_eq!(find_violations(&suspended, &complete), [no_entry]);
}

#[test]
fn reused_assertion_is_a_violation() {
    let with = |id, assertion: &str| Token { assertion: Some(assertion.into()), ..token(id, 4, &[]) };
    let history = [issued(0, 10, with("a", "1")), issued(0, 10, with("b", "2"))];
    assert_eq!(violations(&history), []);
    let history = [issued(0, 10, with("a", "1")), issued(0, 10, with("b", "1"))];
    assert_eq!(violations(&history), [Violation::UsedTwice { assertion: "1".into() }]);
}

#[test]
fn unexpected_response_is_a_violation() {
    let history = [call(0, 10, Event::UnexpectedResponse("500".into()))];
    assert_eq!(violations(&history), [Violation::UnexpectedResponse { at: 1, answer: "500".into() }]);
}
