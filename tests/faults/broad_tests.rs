//! The checker on changes that are about more than one token, and on requests that come again.

use std::time::Duration;

use crate::{
    checker::{Kept, Offence, check},
    checker_tests::{change, end, is_active_offence, issued, offences, requester, root, said, task, token},
    history::{Call, Change, Said, Selection, Target, Token, Told, Verb, What},
};

fn agent() -> Target {
    Target::Agent("planner".into())
}

fn key(key: &str) -> Target {
    Target::Key(key.into())
}

fn with_key(key: &str, call: Call) -> Call {
    let What::Changed(change) = call.what else { panic!("no change") };
    Call { what: What::Changed(Change { key: Some(key.into()), ..change }), ..call }
}

/// Tasks of alice, as they were shown from 20 to 30.
fn of_alice() -> Target {
    let (asked, shown) = (Duration::from_millis(20), Duration::from_millis(30));
    Target::Tasks(Selection { requester: Some("alice".into()), asked, shown, ..Selection::default() })
}

fn log(entries: &[(&str, &str, &str)]) -> Kept {
    let entries = entries.iter().map(|(verb, kind, key)| (verb.to_string(), kind.to_string(), key.to_string()));
    Kept { tokens: ["root".to_owned(), "late".to_owned()].into(), log: (1..).zip(entries).collect() }
}

fn is_inactive_offence(offences: &[Offence]) -> bool {
    matches!(offences, [Offence::Inactive { .. }])
}

fn is_suspended_offence(offences: &[Offence]) -> bool {
    matches!(offences, [Offence::ActiveWhileSuspended { .. }])
}

#[test]
fn a_selection_is_of_what_was_there_when_it_was_shown() {
    let kept = log(&[("revoke", "task", "task")]);
    let ended = |opened: (u64, u64), target: Target, it| {
        let history = [
            issued(opened.0, opened.1, token("root", 0, &[])),
            change(40, 50, Verb::End, target, Told::Done, Some(1)),
            said(60, 70, "root", it),
        ];
        check(&history, &kept)
    };
    assert!(is_active_offence(&ended((0, 20), of_alice(), Said::Active)));
    assert_eq!(ended((0, 20), of_alice(), Said::Inactive), []);
    // While it was shown: either is right.
    for it in [Said::Active, Said::Inactive] {
        assert_eq!(ended((0, 21), of_alice(), it), []);
        assert_eq!(ended((29, 35), of_alice(), it), []);
    }
    // Opened afterwards it is not touched.
    assert_eq!(ended((30, 35), of_alice(), Said::Active), []);
    assert!(is_inactive_offence(&ended((30, 35), of_alice(), Said::Inactive)));
    let selection = |requester: Option<&str>, agent: Option<&str>, ids: &[&str]| {
        let ids = ids.iter().map(ToString::to_string).collect();
        let (requester, agent) = (requester.map(Into::into), agent.map(Into::into));
        let (asked, shown) = (Duration::from_millis(20), Duration::from_millis(30));
        Target::Tasks(Selection { ids, requester, agent, asked, shown })
    };
    for (target, fits) in [
        (selection(Some("bob"), None, &[]), false),
        (selection(Some("alice"), Some("planner"), &[]), true),
        (selection(Some("alice"), Some("reader"), &[]), false),
        (selection(None, Some("planner"), &[]), true),
        (selection(None, None, &["other", "task"]), true),
        (selection(None, None, &["other"]), false),
    ] {
        assert_eq!(is_active_offence(&ended((0, 10), target.clone(), Said::Active)), fits, "{target:?}");
        assert_eq!(!is_inactive_offence(&ended((0, 10), target.clone(), Said::Inactive)), fits, "{target:?}");
    }
    // What was derived, by whichever agent, is of its task.
    let history = [
        issued(0, 10, token("root", 0, &[])),
        issued(41, 60, Token { agents: ["planner".into(), "reader".into()].into(), ..token("late", 1, &["root"]) }),
        change(40, 50, Verb::End, selection(None, Some("planner"), &[]), Told::Done, Some(1)),
        said(70, 80, "late", Said::Active),
    ];
    assert!(is_active_offence(&check(&history, &kept)));
}

#[test]
fn a_selection_that_was_not_acknowledged_or_is_held_back() {
    let first = issued(0, 10, token("root", 0, &[]));
    let kept = |verb| log(&[(verb, "task", "task")]);
    let turn = |start, verb, told| change(start, start + 10, verb, of_alice(), told, None);
    let ask = |start, it| said(start, start + 5, "root", it);
    for it in [Said::Active, Said::Inactive] {
        let history = [first.clone(), turn(40, Verb::End, Told::Unknown), ask(60, it)];
        assert_eq!(check(&history, &kept("revoke")), []);
        let history =
            [first.clone(), turn(40, Verb::Suspend, Told::Done), turn(60, Verb::Resume, Told::Done), ask(65, it)];
        assert_eq!(check(&history, &kept("suspend")), [], "it is being let go");
    }
    let refused = [first.clone(), turn(40, Verb::End, Told::Refused), ask(60, Said::Inactive)];
    assert!(is_inactive_offence(&check(&refused, &kept("revoke"))));
    let held = [first.clone(), turn(40, Verb::Suspend, Told::Done), ask(51, Said::Active)];
    assert!(is_suspended_offence(&check(&held, &kept("suspend"))));
    let let_go = [
        first.clone(),
        turn(40, Verb::Suspend, Told::Done),
        turn(60, Verb::Resume, Told::Done),
        ask(71, Said::Inactive),
    ];
    assert!(is_inactive_offence(&check(&let_go, &kept("suspend"))));
    // Each task has an entry, unless it needs none.
    let bare = [first, change(40, 50, Verb::End, of_alice(), Told::Done, None)];
    let no_entry = Offence::NoEntry { target: of_alice(), seq: None };
    assert_eq!(check(&bare, &log(&[("revoke", "task", "other")])), [no_entry]);
    assert_eq!(check(&bare, &kept("revoke")), []);
    let by_grant = issued(0, 10, Token { grant: Some("grant".into()), ..token("root", 0, &[]) });
    assert_eq!(check(&[by_grant, bare[1].clone()], &log(&[("revoke", "task", "other")])), []);
    let elsewhere = [bare[0].clone(), change(40, 50, Verb::End, of_alice(), Told::Done, Some(2))];
    let kept = log(&[("revoke", "task", "task"), ("revoke", "token", "x")]);
    assert_eq!(check(&elsewhere, &kept), [Offence::NoEntry { target: of_alice(), seq: Some(2) }]);
}

#[test]
fn a_request_that_comes_again_is_one() {
    let first = issued(0, 10, token("root", 4, &[]));
    let end = |start, told, seq| with_key("k", change(start, start + 10, Verb::End, requester(), told, seq));
    let ask = |start, id: &str, it| said(start, start + 5, id, it);
    let done = [first.clone(), end(20, Told::Unknown, None), end(40, Told::Done, Some(5))];
    assert!(is_active_offence(&offences(&[&done[..], &[ask(51, "root", Said::Active)]].concat())));
    assert_eq!(offences(&[&done[..], &[ask(50, "root", Said::Active)]].concat()), []);
    // It may have been done by the first one: what was issued between the two need not have ended, or may have.
    for it in [Said::Active, Said::Inactive] {
        let late = [issued(32, 36, token("late", 5, &[])), ask(60, "late", it)];
        assert_eq!(offences(&[&done[..], &late[..]].concat()), []);
    }
    // But it is not done again, after it was acknowledged.
    let late = [issued(51, 56, token("late", 5, &[])), ask(60, "late", Said::Inactive)];
    assert!(is_inactive_offence(&offences(&[&done[..], &late[..]].concat())));
    let never = [first.clone(), end(20, Told::Unknown, None), end(40, Told::Unknown, None)];
    assert_eq!(offences(&[&never[..], &late[..]].concat()), [], "nobody knows when");
    // Neither does it hold back what was let go between the two.
    let hold = |start, told| with_key("k", change(start, start + 10, Verb::Suspend, task(), told, None));
    let resume = change(31, 35, Verb::Resume, task(), Told::Done, None);
    let history = [first.clone(), hold(20, Told::Unknown), resume, hold(40, Told::Done), ask(60, "root", Said::Active)];
    assert_eq!(offences(&history), []);
    let history = [first.clone(), hold(20, Told::Unknown), hold(40, Told::Done), ask(60, "root", Said::Active)];
    assert!(is_suspended_offence(&offences(&history)));
    // Acknowledged twice, the first time counts; and it is the same place.
    let twice = |seq| [first.clone(), end(20, Told::Done, Some(5)), end(40, Told::Done, Some(seq))];
    assert!(is_active_offence(&offences(&[&twice(5)[..], &[ask(31, "root", Said::Active)]].concat())));
    let seqs = [5, 6].into();
    assert_eq!(offences(&twice(6)), [Offence::DoneTwice { key: "k".into(), seqs }]);
}

#[test]
fn who_is_shut_out_has_nothing_and_gets_nothing() {
    let first = issued(0, 10, token("root", 4, &[]));
    let ask = |start, id: &str, it| said(start, start + 5, id, it);
    for target in [agent(), requester()] {
        let disable = |told| change(20, 30, Verb::Disable, target.clone(), told, (told == Told::Done).then_some(6));
        let enable = |told| change(60, 70, Verb::Enable, target.clone(), told, (told == Told::Done).then_some(8));
        let out = [first.clone(), disable(Told::Done)];
        let then = |calls: &[Call]| offences(&[&out[..], calls].concat());
        assert!(is_active_offence(&then(&[ask(31, "root", Said::Active)])));
        assert_eq!(then(&[ask(30, "root", Said::Active)]), []);
        // Let in again, it has not got back what it had.
        assert!(is_active_offence(&then(&[enable(Told::Done), ask(80, "root", Said::Active)])));
        let new = |start| issued(start, start + 5, token("late", 8, &[]));
        let while_out = then(&[issued(31, 40, token("late", 6, &[]))]);
        assert!(matches!(&while_out[..], [Offence::IssuedWhileSuspended { .. }]), "{while_out:?}");
        for told in [Told::Done, Told::Unknown] {
            assert_eq!(then(&[enable(told), new(61)]), [], "it is being let in");
            assert_eq!(then(&[enable(told), new(80)]), []);
        }
        let refused = then(&[enable(Told::Refused), issued(80, 85, token("late", 6, &[]))]);
        assert!(matches!(&refused[..], [Offence::IssuedWhileSuspended { .. }]));
        // What it gets then works.
        assert!(is_inactive_offence(&then(&[enable(Told::Done), new(71), ask(80, "late", Said::Inactive)])));
        assert_eq!(then(&[enable(Told::Done), new(71), ask(80, "late", Said::Active)]), []);
        // Not acknowledged, it is neither.
        let maybe = [first.clone(), disable(Told::Unknown), new(40)];
        for it in [Said::Active, Said::Inactive] {
            assert_eq!(offences(&[&maybe[..], &[ask(50, "root", it), ask(50, "late", it)]].concat()), []);
        }
        // The end stands before the word that the registry changed.
        let (word, kind) = ("revoke", target.in_log().0);
        let entry = (word, kind, target.in_log().1);
        let registry = ("revoke", "registry", "");
        let disable = |seq| [change(20, 30, Verb::Disable, target.clone(), Told::Done, Some(seq))];
        assert_eq!(check(&disable(2), &log(&[entry, registry])), []);
        for (seq, kept) in [(2, log(&[registry, entry])), (2, log(&[registry, registry])), (1, log(&[entry]))] {
            let no_entry = Offence::NoEntry { target: target.clone(), seq: Some(seq) };
            assert_eq!(check(&disable(seq), &kept), [no_entry]);
        }
    }
}

#[test]
fn an_agent_is_held_back_and_let_go() {
    let first = issued(0, 10, token("root", 4, &[]));
    let hold = |told| change(20, 30, Verb::Suspend, agent(), told, (told == Told::Done).then_some(6));
    let go = |told| change(60, 70, Verb::Resume, agent(), told, (told == Told::Done).then_some(8));
    let ask = |start, it| said(start, start + 5, "root", it);
    let then = |calls: &[Call]| offences(&[&[first.clone(), hold(Told::Done)], calls].concat());
    assert!(is_suspended_offence(&then(&[ask(31, Said::Active)])));
    assert_eq!(then(&[ask(31, Said::Inactive)]), []);
    for it in [Said::Active, Said::Inactive] {
        assert_eq!(then(&[go(Told::Done), ask(62, it)]), []);
        assert_eq!(then(&[go(Told::Unknown), ask(80, it)]), []);
    }
    // The same tokens work again.
    assert!(is_inactive_offence(&then(&[go(Told::Done), ask(80, Said::Inactive)])));
    assert_eq!(then(&[go(Told::Done), ask(80, Said::Active)]), []);
    // That it is so already is so everywhere; what it became so by, nobody says.
    let already = [first.clone(), hold(Told::Unknown), change(40, 45, Verb::Suspend, agent(), Told::Already, None)];
    assert!(is_suspended_offence(&offences(&[&already[..], &[ask(46, Said::Active)]].concat())));
    assert_eq!(offences(&already), []);
    let goes_on = change(40, 45, Verb::Resume, agent(), Told::Already, None);
    assert!(is_inactive_offence(&then(&[goes_on, ask(46, Said::Inactive)])));
    // Held back, it derives nothing.
    let derived = then(&[issued(31, 40, token("late", 6, &["root"]))]);
    assert!(matches!(&derived[..], [Offence::IssuedWhileSuspended { .. }]), "{derived:?}");
}

#[test]
fn a_grant_that_is_withdrawn() {
    let by = |id, grant: &str, lineage: &[&str]| Token { grant: Some(grant.into()), ..token(id, 4, lineage) };
    let withdraw = |told| change(20, 30, Verb::End, Target::Grant("grant".into()), told, None);
    for told in [Told::Done, Told::Already] {
        let kept = log(&[("revoke", "grant", "grant")]);
        let ended = |token: Token, it| {
            let id = token.id.clone();
            check(&[issued(0, 10, token), withdraw(told), said(31, 40, &id, it)], &kept)
        };
        assert!(is_active_offence(&ended(by("root", "grant", &[]), Said::Active)));
        assert!(is_active_offence(&ended(by("late", "grant", &["root"]), Said::Active)));
        assert_eq!(ended(by("root", "other", &[]), Said::Active), []);
        assert!(is_inactive_offence(&ended(by("root", "other", &[]), Said::Inactive)));
        let no_entry = Offence::NoEntry { target: Target::Grant("grant".into()), seq: None };
        assert_eq!(check(&[withdraw(told)], &log(&[("revoke", "grant", "other")])), [no_entry]);
    }
    // Its task is over with it, and the log need not say so.
    let over = [issued(0, 10, by("root", "grant", &[])), change(40, 50, Verb::End, task(), Told::Already, None)];
    assert_eq!(offences(&over), []);
}

#[test]
fn a_key_that_is_removed() {
    let signed = |id, by: &str, lineage: &[&str]| Token { key: by.into(), ..token(id, 4, lineage) };
    let remove = |told| change(20, 30, Verb::End, key("key"), told, None);
    let kept = log(&[("revoke", "keys", "")]);
    let first = issued(0, 10, token("root", 4, &[]));
    let then = |told, calls: &[Call]| check(&[&[first.clone(), remove(told)], calls].concat(), &kept);
    assert!(is_active_offence(&then(Told::Done, &[said(31, 40, "root", Said::Active)])));
    assert_eq!(then(Told::Done, &[said(30, 40, "root", Said::Active)]), []);
    assert_eq!(then(Told::Unknown, &[said(31, 40, "root", Said::Active)]), []);
    // What another key has signed lives on, also what was derived before.
    let child = issued(22, 24, signed("late", "new", &["root"]));
    for (start, told, it) in
        [(31, Told::Done, Said::Active), (25, Told::Done, Said::Inactive), (40, Told::Unknown, Said::Inactive)]
    {
        // A replica that has not heard of the new key calls it nothing.
        assert_eq!(then(told, &[child.clone(), said(start, start + 5, "late", it)]), [], "{start} {told:?} {it:?}");
    }
    assert!(is_inactive_offence(&then(Told::Done, &[child, said(31, 40, "late", Said::Inactive)])));
    // A key that was there before is known to everybody.
    let old = [issued(0, 10, signed("old", "old", &[])), remove(Told::Unknown)];
    let asked = [issued(30, 35, signed("late", "old", &[])), said(40, 50, "late", Said::Inactive)];
    assert!(is_inactive_offence(&check(
        &[&old[..], &asked[..]].concat(),
        &Kept { tokens: ["old".to_owned(), "late".to_owned()].into(), ..kept.clone() }
    )));
    // Nothing is issued from what it signed.
    let derived = then(Told::Done, &[issued(31, 40, signed("late", "new", &["root"]))]);
    assert!(matches!(&derived[..], [Offence::IssuedFromWhatEnded { ended: Target::Key(_), .. }]), "{derived:?}");
    let no_entry = Offence::NoEntry { target: key("key"), seq: None };
    assert_eq!(check(&[remove(Told::Done)], &log(&[("revoke", "token", "x")])), [no_entry]);
}

/// An agent that goes on takes nothing up that has ended meanwhile.
#[test]
fn what_ended_while_it_was_held_back() {
    let first = issued(0, 10, token("root", 4, &[]));
    let hold = change(20, 30, Verb::Suspend, agent(), Told::Done, Some(6));
    let go = change(40, 50, Verb::Resume, agent(), Told::Done, Some(9));
    let history = [first, hold, end(31, 35, root(), 7), go, said(60, 70, "root", Said::Active)];
    assert!(is_active_offence(&offences(&history)));
}
