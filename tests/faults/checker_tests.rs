//! The checker on histories made by hand: each kind of offence is flagged, and what only looks like one is not.

use std::time::Duration;

use crate::{
    checker::{StoredState, Violation, find_violations},
    history::{Action, Call, Change, ChangeResult, Event, IntrospectionResult, Target, Token},
};

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn call(start: u64, end: u64, what: Event) -> Call {
    Call { at: 1, start: ms(start), end: ms(end), is_answered: true, event: what }
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

pub fn introspected(start: u64, end: u64, token: &str, said: IntrospectionResult) -> Call {
    call(start, end, Event::Introspected { token: token.into(), result: said })
}

pub fn change(start: u64, end: u64, verb: Action, target: Target, told: ChangeResult, seq: Option<u64>) -> Call {
    call(start, end, Event::Changed(Change { verb, target, result: told, seq, propagated: None, key: None }))
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

/// The offences, with a store that has whatever the history says.
pub fn violations(history: &[Call]) -> Vec<Violation> {
    let mut kept = StoredState::default();
    for call in history {
        match &call.event {
            Event::Issued(token) => {
                kept.tokens.insert(token.id.clone());
            }
            Event::Changed(Change { verb, target, result: ChangeResult::Done, seq, .. }) => {
                let (kind, key) = target.log_key();
                let word = match verb {
                    Action::End | Action::Block => "revoke",
                    Action::Suspend => "suspend",
                    Action::Resume | Action::Unblock => "resume",
                };
                let seq = seq.unwrap_or_else(|| kept.log.keys().next_back().unwrap_or(&0) + 1);
                let is_of_registry = matches!(target, Target::Agent(_) | Target::Requester(_)) && *verb != Action::End;
                if is_of_registry {
                    kept.log.insert(seq - 1, (word.into(), kind.into(), key.into()));
                    kept.log.insert(seq, ("revoke".into(), "registry".into(), String::new()));
                } else {
                    kept.log.insert(seq, (word.into(), kind.into(), key.into()));
                }
            }
            _ => {}
        }
    }
    let first = kept.log.keys().next().copied().unwrap_or(1);
    for seq in 1..first {
        kept.log.insert(seq, ("revoke".into(), "registry".into(), String::new()));
    }
    find_violations(history, &kept)
}

pub fn is_active_violation(offences: &[Violation]) -> bool {
    matches!(offences, [Violation::Active { .. }])
}

#[test]
fn active_after_acknowledged_end_is_a_violation() {
    let by_each_name = [root(), task(), requester(), Target::Agent("planner".into())].into_iter();
    let by_each_name = by_each_name.chain([Target::Resource("files".into()), Target::Issuer("idp".into())]);
    for target in by_each_name {
        let until = |start| {
            let history = [
                issued(0, 10, token("root", 4, &[])),
                end(20, 30, target.clone(), 5),
                introspected(start, start + 20, "root", IntrospectionResult::Active),
            ];
            violations(&history)
        };
        assert!(is_active_violation(&until(31)), "{target:?}");
        // Begun before the acknowledgement, it may have been answered before.
        assert_eq!(until(30), [], "{target:?}");
        assert_eq!(until(15), [], "{target:?}");
    }
}

#[test]
fn unacknowledged_end_allows_both_results() {
    for told in [ChangeResult::Unknown, ChangeResult::Refused] {
        let history = [
            issued(0, 10, token("root", 4, &[])),
            change(20, 30, Action::End, root(), told, None),
            introspected(40, 50, "root", IntrospectionResult::Active),
        ];
        assert_eq!(violations(&history), [], "{told:?}");
    }
}

/// Who comes second is told that it is so already: then it is so everywhere, whatever the first one was told.
#[test]
fn already_revoked_counts_as_acknowledged() {
    let first = issued(0, 10, token("root", 4, &[]));
    let began = |verb| change(20, 100, verb, task(), ChangeResult::Unknown, None);
    let already = |verb| change(25, 30, verb, task(), ChangeResult::Already, None);
    let ask = |start, it| introspected(start, start + 5, "root", it);
    let log = |verb: &str| StoredState {
        tokens: ["root".to_owned()].into(),
        log: [(1, (verb.to_owned(), "task".to_owned(), "task".to_owned()))].into(),
    };
    let offences = |history: &[Call], verb: &str| find_violations(history, &log(verb));
    let end = [first.clone(), began(Action::End), already(Action::End), ask(31, IntrospectionResult::Active)];
    assert!(is_active_violation(&offences(&end, "revoke")));
    assert_eq!(
        offences(
            &[first.clone(), began(Action::End), already(Action::End), ask(30, IntrospectionResult::Active)],
            "revoke"
        ),
        []
    );
    // It does not say so without a reason.
    assert_eq!(offences(&end[..3], "suspend"), [Violation::MissingEntry { target: task(), seq: None }]);
    let hold = [first.clone(), began(Action::Suspend), already(Action::Suspend), ask(31, IntrospectionResult::Active)];
    assert!(matches!(&offences(&hold, "suspend")[..], [Violation::ActiveWhileSuspended { .. }]));
    let resumed = change(31, 33, Action::Resume, task(), ChangeResult::Unknown, None);
    let let_go = [
        first.clone(),
        began(Action::Suspend),
        already(Action::Suspend),
        resumed,
        ask(40, IntrospectionResult::Active),
    ];
    assert_eq!(offences(&let_go, "suspend"), []);
    // It goes on, and nobody has held it back since: it works. That it ever was held back, nobody says.
    let held = change(12, 18, Action::Suspend, task(), ChangeResult::Done, None);
    let goes_on = [first.clone(), held, already(Action::Resume), ask(31, IntrospectionResult::Inactive)];
    assert!(matches!(&offences(&goes_on, "suspend")[..], [Violation::Inactive { .. }]));
    assert_eq!(offences(&[first, already(Action::Resume), ask(31, IntrospectionResult::Active)], "suspend"), []);
}

#[test]
fn unrelated_targets_end_nothing() {
    let others = [Target::Token("other".into()), Target::Task("other".into()), Target::Requester("bob".into())];
    for target in others {
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
    // The child was issued while its parent ended, and says so (`rev`), or not.
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
    // By its own words it is older than the entry.
    assert!(is_active_violation(&violations(&history(40, 4))));
    // At the same time: whatever it says.
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
    let suspend = |told| change(20, 30, Action::Suspend, task(), told, None);
    let resume = |start, told| change(start, start + 10, Action::Resume, task(), told, None);
    let first = issued(0, 10, token("root", 4, &[]));
    let ask = |start, it| introspected(start, start + 10, "root", it);
    let suspended = |history: &[Call]| matches!(&violations(history)[..], [Violation::ActiveWhileSuspended { .. }]);

    assert!(suspended(&[first.clone(), suspend(ChangeResult::Done), ask(40, IntrospectionResult::Active)]));
    assert!(suspended(&[
        first.clone(),
        suspend(ChangeResult::Done),
        ask(40, IntrospectionResult::Active),
        resume(51, ChangeResult::Done)
    ]));
    for told in [ChangeResult::Done, ChangeResult::Unknown] {
        // It may have been resumed while it was asked about, or before.
        assert_eq!(
            violations(&[
                first.clone(),
                suspend(ChangeResult::Done),
                ask(40, IntrospectionResult::Active),
                resume(45, told)
            ]),
            []
        );
        assert_eq!(
            violations(&[
                first.clone(),
                suspend(ChangeResult::Done),
                resume(35, told),
                ask(60, IntrospectionResult::Active)
            ]),
            []
        );
    }
    assert!(suspended(&[
        first.clone(),
        suspend(ChangeResult::Done),
        resume(35, ChangeResult::Refused),
        ask(60, IntrospectionResult::Active)
    ]));
    assert_eq!(violations(&[first.clone(), suspend(ChangeResult::Unknown), ask(40, IntrospectionResult::Active)]), []);

    let inactive = |history: &[Call]| matches!(&violations(history)[..], [Violation::Inactive { .. }]);
    assert!(inactive(&[
        first.clone(),
        suspend(ChangeResult::Done),
        resume(35, ChangeResult::Done),
        ask(60, IntrospectionResult::Inactive)
    ]));
    assert_eq!(
        violations(&[
            first.clone(),
            suspend(ChangeResult::Done),
            resume(35, ChangeResult::Done),
            ask(40, IntrospectionResult::Inactive)
        ]),
        []
    );
    assert_eq!(
        violations(&[
            first.clone(),
            suspend(ChangeResult::Unknown),
            resume(35, ChangeResult::Done),
            ask(60, IntrospectionResult::Inactive)
        ]),
        []
    );
    assert_eq!(
        violations(&[
            first,
            suspend(ChangeResult::Done),
            resume(35, ChangeResult::Unknown),
            ask(60, IntrospectionResult::Inactive)
        ]),
        []
    );
}

#[test]
fn unexplained_inactive_is_a_violation() {
    let first = issued(0, 10, token("root", 4, &[]));
    let ask = |start, end| introspected(start, end, "root", IntrospectionResult::Inactive);
    assert!(matches!(&violations(&[first.clone(), ask(20, 30)])[..], [Violation::Inactive { .. }]));
    assert_eq!(violations(&[first.clone(), ask(9_995, 10_000)]), [], "it may have expired");
    assert_eq!(violations(&[first.clone(), ask(5, 30)]), [], "it may not have been there");
    assert_eq!(violations(&[first.clone(), introspected(20, 30, "root", IntrospectionResult::Unknown)]), []);
    for told in [ChangeResult::Done, ChangeResult::Unknown] {
        let ending = change(25, 35, Action::End, requester(), told, (told == ChangeResult::Done).then_some(5));
        assert_eq!(violations(&[first.clone(), ask(20, 30), ending.clone()]), [], "it may have ended meanwhile");
        assert_eq!(violations(&[first.clone(), ending, ask(40, 50)]), []);
    }
    let refused = change(12, 15, Action::End, requester(), ChangeResult::Refused, None);
    assert!(matches!(&violations(&[first.clone(), refused, ask(20, 30)])[..], [Violation::Inactive { .. }]));
    let too_late = change(31, 35, Action::End, requester(), ChangeResult::Unknown, None);
    assert!(matches!(&violations(&[first, ask(20, 30), too_late])[..], [Violation::Inactive { .. }]));
    // Issued after the requester's others were ended: it must work. Not, if nobody knows when that happened.
    let after = |told, seq| {
        [
            change(20, 30, Action::End, requester(), told, seq),
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
    let keep = |tokens: &[&str], log: &[(u64, &str)]| StoredState {
        tokens: tokens.iter().map(ToString::to_string).collect(),
        log: log.iter().map(|(seq, key)| (*seq, entry(key))).collect(),
    };
    let whole = keep(&["root"], &[(1, "x"), (2, "root")]);
    assert!(matches!(&find_violations(&history[..1], &whole)[..], []));
    let token = "root".to_owned();
    let missing = find_violations(&history[..1], &keep(&[], &[(1, "x"), (2, "root")]));
    assert_eq!(missing, [Violation::MissingRecord { token }]);
    let missing = |log| find_violations(&history[1..], &keep(&[], log));
    assert_eq!(missing(&[(1, "x"), (2, "root")]), []);
    let no_entry = Violation::MissingEntry { target: root(), seq: Some(2) };
    assert_eq!(missing(&[(1, "root"), (2, "x")]), std::slice::from_ref(&no_entry));
    assert_eq!(missing(&[(1, "root")]), [no_entry]);
    assert_eq!(missing(&[(2, "root")]), [Violation::Gap { seq: 1 }]);
    // A hold says nothing of its place.
    let hold = [change(0, 10, Action::Suspend, task(), ChangeResult::Done, None)];
    let no_entry = Violation::MissingEntry { target: task(), seq: None };
    assert_eq!(find_violations(&hold, &whole), [no_entry]);
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
