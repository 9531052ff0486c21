//! The checker on histories made by hand: each kind of offence is flagged, and what only looks like one is not.

use std::time::Duration;

use crate::{
    checker::{Kept, Offence, check},
    history::{Call, Change, Said, Target, Token, Told, Verb, What},
};

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn call(start: u64, end: u64, what: What) -> Call {
    Call { at: 1, start: ms(start), end: ms(end), is_answered: true, what }
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
        good_until: ms(10_000),
        assertion: None,
        grant: None,
        key: "key".into(),
    }
}

pub fn issued(start: u64, end: u64, token: Token) -> Call {
    call(start, end, What::Issued(token))
}

pub fn said(start: u64, end: u64, token: &str, said: Said) -> Call {
    call(start, end, What::Introspected { token: token.into(), said })
}

pub fn change(start: u64, end: u64, verb: Verb, target: Target, told: Told, seq: Option<u64>) -> Call {
    call(start, end, What::Changed(Change { verb, target, told, seq, propagated: None, key: None }))
}

pub fn end(start: u64, end: u64, target: Target, seq: u64) -> Call {
    change(start, end, Verb::End, target, Told::Done, Some(seq))
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
pub fn offences(history: &[Call]) -> Vec<Offence> {
    let mut kept = Kept::default();
    for call in history {
        match &call.what {
            What::Issued(token) => {
                kept.tokens.insert(token.id.clone());
            }
            What::Changed(Change { verb, target, told: Told::Done, seq, .. }) => {
                let (kind, key) = target.in_log();
                let word = match verb {
                    Verb::End | Verb::Disable => "revoke",
                    Verb::Suspend => "suspend",
                    Verb::Resume | Verb::Enable => "resume",
                };
                let seq = seq.unwrap_or_else(|| kept.log.keys().next_back().unwrap_or(&0) + 1);
                let is_of_registry = matches!(target, Target::Agent(_) | Target::Requester(_)) && *verb != Verb::End;
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
    check(history, &kept)
}

pub fn is_active_offence(offences: &[Offence]) -> bool {
    matches!(offences, [Offence::Active { .. }])
}

#[test]
fn active_after_an_acknowledged_end() {
    let by_each_name = [root(), task(), requester(), Target::Agent("planner".into())].into_iter();
    let by_each_name = by_each_name.chain([Target::Resource("files".into()), Target::Issuer("idp".into())]);
    for target in by_each_name {
        let until = |start| {
            let history = [
                issued(0, 10, token("root", 4, &[])),
                end(20, 30, target.clone(), 5),
                said(start, start + 20, "root", Said::Active),
            ];
            offences(&history)
        };
        assert!(is_active_offence(&until(31)), "{target:?}");
        // Begun before the acknowledgement, it may have been answered before.
        assert_eq!(until(30), [], "{target:?}");
        assert_eq!(until(15), [], "{target:?}");
    }
}

#[test]
fn an_end_that_was_not_acknowledged_ends_nothing_for_certain() {
    for told in [Told::Unknown, Told::Refused] {
        let history = [
            issued(0, 10, token("root", 4, &[])),
            change(20, 30, Verb::End, root(), told, None),
            said(40, 50, "root", Said::Active),
        ];
        assert_eq!(offences(&history), [], "{told:?}");
    }
}

/// Who comes second is told that it is so already: then it is so everywhere, whatever the first one was told.
#[test]
fn so_already_is_so_everywhere() {
    let first = issued(0, 10, token("root", 4, &[]));
    let began = |verb| change(20, 100, verb, task(), Told::Unknown, None);
    let already = |verb| change(25, 30, verb, task(), Told::Already, None);
    let ask = |start, it| said(start, start + 5, "root", it);
    let log = |verb: &str| Kept {
        tokens: ["root".to_owned()].into(),
        log: [(1, (verb.to_owned(), "task".to_owned(), "task".to_owned()))].into(),
    };
    let offences = |history: &[Call], verb: &str| check(history, &log(verb));
    let end = [first.clone(), began(Verb::End), already(Verb::End), ask(31, Said::Active)];
    assert!(is_active_offence(&offences(&end, "revoke")));
    assert_eq!(offences(&[first.clone(), began(Verb::End), already(Verb::End), ask(30, Said::Active)], "revoke"), []);
    // It does not say so without a reason.
    assert_eq!(offences(&end[..3], "suspend"), [Offence::NoEntry { target: task(), seq: None }]);
    let hold = [first.clone(), began(Verb::Suspend), already(Verb::Suspend), ask(31, Said::Active)];
    assert!(matches!(&offences(&hold, "suspend")[..], [Offence::ActiveWhileSuspended { .. }]));
    let resumed = change(31, 33, Verb::Resume, task(), Told::Unknown, None);
    let let_go = [first.clone(), began(Verb::Suspend), already(Verb::Suspend), resumed, ask(40, Said::Active)];
    assert_eq!(offences(&let_go, "suspend"), []);
    // It goes on, and nobody has held it back since: it works. That it ever was held back, nobody says.
    let held = change(12, 18, Verb::Suspend, task(), Told::Done, None);
    let goes_on = [first.clone(), held, already(Verb::Resume), ask(31, Said::Inactive)];
    assert!(matches!(&offences(&goes_on, "suspend")[..], [Offence::Inactive { .. }]));
    assert_eq!(offences(&[first, already(Verb::Resume), ask(31, Said::Active)], "suspend"), []);
}

#[test]
fn other_names_end_nothing() {
    let others = [Target::Token("other".into()), Target::Task("other".into()), Target::Requester("bob".into())];
    for target in others {
        let history =
            [issued(0, 10, token("root", 4, &[])), end(20, 30, target, 5), said(40, 50, "root", Said::Active)];
        assert_eq!(offences(&history), []);
    }
}

#[test]
fn what_came_of_it_ends_with_it() {
    // The child was issued while its parent ended, and says so (`rev`), or not.
    for (target, rev) in [(root(), 4), (root(), 5), (requester(), 4), (requester(), 5)] {
        let history = [
            issued(0, 10, token("root", 4, &[])),
            issued(19, 40, token("child", rev, &["root"])),
            end(20, 30, target.clone(), 5),
            said(50, 60, "child", Said::Active),
        ];
        assert!(is_active_offence(&offences(&history)), "{target:?} {rev}");
    }
}

#[test]
fn what_is_issued_afterwards_lives() {
    let history = |issued_at, rev| {
        [
            end(20, 30, requester(), 5),
            issued(issued_at, issued_at + 5, token("root", rev, &[])),
            said(60, 70, "root", Said::Active),
        ]
    };
    assert_eq!(offences(&history(40, 5)), []);
    // By its own words it is older than the entry.
    assert!(is_active_offence(&offences(&history(40, 4))));
    // At the same time: whatever it says.
    assert_eq!(offences(&history(25, 5)), []);
}

#[test]
fn from_what_had_ended_nothing_is_issued() {
    let history = |start| {
        [
            issued(0, 10, token("root", 4, &[])),
            end(20, 30, root(), 5),
            issued(start, start + 10, token("child", 5, &["root"])),
        ]
    };
    assert!(matches!(&offences(&history(31))[..], [Offence::IssuedFromWhatEnded { .. }]));
    assert_eq!(offences(&history(29)), []);
}

#[test]
fn a_token_is_not_newer_than_what_came_after_it() {
    let history = |rev| [issued(0, 10, token("root", rev, &[])), end(20, 30, requester(), 5)];
    assert!(matches!(&offences(&history(5))[..], [Offence::NewerThanItIs { seq: 5, .. }]));
    assert_eq!(offences(&history(4)), []);
}

#[test]
fn held_back_and_let_go() {
    let suspend = |told| change(20, 30, Verb::Suspend, task(), told, None);
    let resume = |start, told| change(start, start + 10, Verb::Resume, task(), told, None);
    let first = issued(0, 10, token("root", 4, &[]));
    let ask = |start, it| said(start, start + 10, "root", it);
    let suspended = |history: &[Call]| matches!(&offences(history)[..], [Offence::ActiveWhileSuspended { .. }]);

    assert!(suspended(&[first.clone(), suspend(Told::Done), ask(40, Said::Active)]));
    assert!(suspended(&[first.clone(), suspend(Told::Done), ask(40, Said::Active), resume(51, Told::Done)]));
    for told in [Told::Done, Told::Unknown] {
        // It may have been resumed while it was asked about, or before.
        assert_eq!(offences(&[first.clone(), suspend(Told::Done), ask(40, Said::Active), resume(45, told)]), []);
        assert_eq!(offences(&[first.clone(), suspend(Told::Done), resume(35, told), ask(60, Said::Active)]), []);
    }
    assert!(suspended(&[first.clone(), suspend(Told::Done), resume(35, Told::Refused), ask(60, Said::Active)]));
    assert_eq!(offences(&[first.clone(), suspend(Told::Unknown), ask(40, Said::Active)]), []);

    let inactive = |history: &[Call]| matches!(&offences(history)[..], [Offence::Inactive { .. }]);
    assert!(inactive(&[first.clone(), suspend(Told::Done), resume(35, Told::Done), ask(60, Said::Inactive)]));
    assert_eq!(offences(&[first.clone(), suspend(Told::Done), resume(35, Told::Done), ask(40, Said::Inactive)]), []);
    assert_eq!(offences(&[first.clone(), suspend(Told::Unknown), resume(35, Told::Done), ask(60, Said::Inactive)]), []);
    assert_eq!(offences(&[first, suspend(Told::Done), resume(35, Told::Unknown), ask(60, Said::Inactive)]), []);
}

#[test]
fn inactive_for_no_reason() {
    let first = issued(0, 10, token("root", 4, &[]));
    let ask = |start, end| said(start, end, "root", Said::Inactive);
    assert!(matches!(&offences(&[first.clone(), ask(20, 30)])[..], [Offence::Inactive { .. }]));
    assert_eq!(offences(&[first.clone(), ask(9_995, 10_000)]), [], "it may have expired");
    assert_eq!(offences(&[first.clone(), ask(5, 30)]), [], "it may not have been there");
    assert_eq!(offences(&[first.clone(), said(20, 30, "root", Said::Unknown)]), []);
    for told in [Told::Done, Told::Unknown] {
        let ending = change(25, 35, Verb::End, requester(), told, (told == Told::Done).then_some(5));
        assert_eq!(offences(&[first.clone(), ask(20, 30), ending.clone()]), [], "it may have ended meanwhile");
        assert_eq!(offences(&[first.clone(), ending, ask(40, 50)]), []);
    }
    let refused = change(12, 15, Verb::End, requester(), Told::Refused, None);
    assert!(matches!(&offences(&[first.clone(), refused, ask(20, 30)])[..], [Offence::Inactive { .. }]));
    let too_late = change(31, 35, Verb::End, requester(), Told::Unknown, None);
    assert!(matches!(&offences(&[first, ask(20, 30), too_late])[..], [Offence::Inactive { .. }]));
    // Issued after the requester's others were ended: it must work. Not, if nobody knows when that happened.
    let after = |told, seq| {
        [
            change(20, 30, Verb::End, requester(), told, seq),
            issued(40, 50, token("new", 5, &[])),
            said(60, 70, "new", Said::Inactive),
        ]
    };
    assert!(matches!(&offences(&after(Told::Done, Some(5)))[..], [Offence::Inactive { .. }]));
    assert_eq!(offences(&after(Told::Unknown, None)), []);
}

#[test]
fn what_the_store_must_have() {
    let history = [issued(0, 10, token("root", 4, &[])), end(20, 30, root(), 2)];
    let entry = |key: &str| ("revoke".to_owned(), "token".to_owned(), key.to_owned());
    let keep = |tokens: &[&str], log: &[(u64, &str)]| Kept {
        tokens: tokens.iter().map(ToString::to_string).collect(),
        log: log.iter().map(|(seq, key)| (*seq, entry(key))).collect(),
    };
    let whole = keep(&["root"], &[(1, "x"), (2, "root")]);
    assert!(matches!(&check(&history[..1], &whole)[..], []));
    let token = "root".to_owned();
    let missing = check(&history[..1], &keep(&[], &[(1, "x"), (2, "root")]));
    assert_eq!(missing, [Offence::NoRecord { token }]);
    let missing = |log| check(&history[1..], &keep(&[], log));
    assert_eq!(missing(&[(1, "x"), (2, "root")]), []);
    let no_entry = Offence::NoEntry { target: root(), seq: Some(2) };
    assert_eq!(missing(&[(1, "root"), (2, "x")]), std::slice::from_ref(&no_entry));
    assert_eq!(missing(&[(1, "root")]), [no_entry]);
    assert_eq!(missing(&[(2, "root")]), [Offence::Gap { seq: 1 }]);
    // A hold says nothing of its place.
    let hold = [change(0, 10, Verb::Suspend, task(), Told::Done, None)];
    let no_entry = Offence::NoEntry { target: task(), seq: None };
    assert_eq!(check(&hold, &whole), [no_entry]);
}

#[test]
fn one_assertion_two_tokens() {
    let with = |id, assertion: &str| Token { assertion: Some(assertion.into()), ..token(id, 4, &[]) };
    let history = [issued(0, 10, with("a", "1")), issued(0, 10, with("b", "2"))];
    assert_eq!(offences(&history), []);
    let history = [issued(0, 10, with("a", "1")), issued(0, 10, with("b", "1"))];
    assert_eq!(offences(&history), [Offence::UsedTwice { assertion: "1".into() }]);
}

#[test]
fn an_answer_that_means_nothing() {
    let history = [call(0, 10, What::Strange("500".into()))];
    assert_eq!(offences(&history), [Offence::Strange { at: 1, answer: "500".into() }]);
}
