//! The checker on changes that are about more than one token, and on requests that come again.

use std::time::Duration;

use crate::{
    checker::{StoredState, Violation, find_violations},
    checker_tests::{change, end, introspected, is_active_violation, issued, requester, root, task, token, violations},
    history::{Action, Call, Change, ChangeResult, Event, IntrospectionResult, Target, TaskSelection, Token},
};

fn agent() -> Target {
    Target::Agent("planner".into())
}

fn key(key: &str) -> Target {
    Target::Key(key.into())
}

fn with_key(key: &str, call: Call) -> Call {
    let Event::Changed(change) = call.event else { panic!("no change") };
    Call { event: Event::Changed(Change { key: Some(key.into()), ..change }), ..call }
}

/// Tasks of alice, as they were shown from 20 to 30.
fn alices_tasks() -> Target {
    let (asked, shown) = (Duration::from_millis(20), Duration::from_millis(30));
    Target::Tasks(TaskSelection {
        requester: Some("alice".into()),
        dry_run_started: asked,
        dry_run_ended: shown,
        ..TaskSelection::default()
    })
}

fn log(entries: &[(&str, &str, &str)]) -> StoredState {
    let entries = entries.iter().map(|(verb, kind, key)| (verb.to_string(), kind.to_string(), key.to_string()));
    StoredState { tokens: ["root".to_owned(), "late".to_owned()].into(), log: (1..).zip(entries).collect() }
}

fn is_inactive_violation(offences: &[Violation]) -> bool {
    matches!(offences, [Violation::Inactive { .. }])
}

fn is_suspended_violation(offences: &[Violation]) -> bool {
    matches!(offences, [Violation::ActiveWhileSuspended { .. }])
}

#[test]
fn selection_covers_tasks_of_the_dry_run() {
    let kept = log(&[("revoke", "task", "task")]);
    let ended = |opened: (u64, u64), target: Target, it| {
        let history = [
            issued(opened.0, opened.1, token("root", 0, &[])),
            change(40, 50, Action::End, target, ChangeResult::Done, Some(1)),
            introspected(60, 70, "root", it),
        ];
        find_violations(&history, &kept)
    };
    assert!(is_active_violation(&ended((0, 20), alices_tasks(), IntrospectionResult::Active)));
    assert_eq!(ended((0, 20), alices_tasks(), IntrospectionResult::Inactive), []);
    // While it was shown: either is right.
    for it in [IntrospectionResult::Active, IntrospectionResult::Inactive] {
        assert_eq!(ended((0, 21), alices_tasks(), it), []);
        assert_eq!(ended((29, 35), alices_tasks(), it), []);
    }
    // Opened afterwards it is not touched.
    assert_eq!(ended((30, 35), alices_tasks(), IntrospectionResult::Active), []);
    assert!(is_inactive_violation(&ended((30, 35), alices_tasks(), IntrospectionResult::Inactive)));
    let selection = |requester: Option<&str>, agent: Option<&str>, ids: &[&str]| {
        let ids = ids.iter().map(ToString::to_string).collect();
        let (requester, agent) = (requester.map(Into::into), agent.map(Into::into));
        let (asked, shown) = (Duration::from_millis(20), Duration::from_millis(30));
        Target::Tasks(TaskSelection { ids, requester, agent, dry_run_started: asked, dry_run_ended: shown })
    };
    for (target, fits) in [
        (selection(Some("bob"), None, &[]), false),
        (selection(Some("alice"), Some("planner"), &[]), true),
        (selection(Some("alice"), Some("reader"), &[]), false),
        (selection(None, Some("planner"), &[]), true),
        (selection(None, None, &["other", "task"]), true),
        (selection(None, None, &["other"]), false),
    ] {
        assert_eq!(
            is_active_violation(&ended((0, 10), target.clone(), IntrospectionResult::Active)),
            fits,
            "{target:?}"
        );
        assert_eq!(
            !is_inactive_violation(&ended((0, 10), target.clone(), IntrospectionResult::Inactive)),
            fits,
            "{target:?}"
        );
    }
    // What was derived, by whichever agent, is of its task.
    let history = [
        issued(0, 10, token("root", 0, &[])),
        issued(41, 60, Token { agents: ["planner".into(), "reader".into()].into(), ..token("late", 1, &["root"]) }),
        change(40, 50, Action::End, selection(None, Some("planner"), &[]), ChangeResult::Done, Some(1)),
        introspected(70, 80, "late", IntrospectionResult::Active),
    ];
    assert!(is_active_violation(&find_violations(&history, &kept)));
}

#[test]
fn unacknowledged_or_suspended_selection_is_checked() {
    let first = issued(0, 10, token("root", 0, &[]));
    let kept = |verb| log(&[(verb, "task", "task")]);
    let turn = |start, verb, told| change(start, start + 10, verb, alices_tasks(), told, None);
    let ask = |start, it| introspected(start, start + 5, "root", it);
    for it in [IntrospectionResult::Active, IntrospectionResult::Inactive] {
        let history = [first.clone(), turn(40, Action::End, ChangeResult::Unknown), ask(60, it)];
        assert_eq!(find_violations(&history, &kept("revoke")), []);
        let history = [
            first.clone(),
            turn(40, Action::Suspend, ChangeResult::Done),
            turn(60, Action::Resume, ChangeResult::Done),
            ask(65, it),
        ];
        assert_eq!(find_violations(&history, &kept("suspend")), [], "it is being let go");
    }
    let refused = [first.clone(), turn(40, Action::End, ChangeResult::Refused), ask(60, IntrospectionResult::Inactive)];
    assert!(is_inactive_violation(&find_violations(&refused, &kept("revoke"))));
    let held = [first.clone(), turn(40, Action::Suspend, ChangeResult::Done), ask(51, IntrospectionResult::Active)];
    assert!(is_suspended_violation(&find_violations(&held, &kept("suspend"))));
    let let_go = [
        first.clone(),
        turn(40, Action::Suspend, ChangeResult::Done),
        turn(60, Action::Resume, ChangeResult::Done),
        ask(71, IntrospectionResult::Inactive),
    ];
    assert!(is_inactive_violation(&find_violations(&let_go, &kept("suspend"))));
    // Each task has an entry, unless it needs none.
    let bare = [first, change(40, 50, Action::End, alices_tasks(), ChangeResult::Done, None)];
    let no_entry = Violation::MissingEntry { target: alices_tasks(), seq: None };
    assert_eq!(find_violations(&bare, &log(&[("revoke", "task", "other")])), [no_entry]);
    assert_eq!(find_violations(&bare, &kept("revoke")), []);
    let by_grant = issued(0, 10, Token { grant: Some("grant".into()), ..token("root", 0, &[]) });
    assert_eq!(find_violations(&[by_grant, bare[1].clone()], &log(&[("revoke", "task", "other")])), []);
    let elsewhere = [bare[0].clone(), change(40, 50, Action::End, alices_tasks(), ChangeResult::Done, Some(2))];
    let kept = log(&[("revoke", "task", "task"), ("revoke", "token", "x")]);
    assert_eq!(find_violations(&elsewhere, &kept), [Violation::MissingEntry { target: alices_tasks(), seq: Some(2) }]);
}

#[test]
fn retried_request_counts_once() {
    let first = issued(0, 10, token("root", 4, &[]));
    let end = |start, told, seq| with_key("k", change(start, start + 10, Action::End, requester(), told, seq));
    let ask = |start, id: &str, it| introspected(start, start + 5, id, it);
    let done = [first.clone(), end(20, ChangeResult::Unknown, None), end(40, ChangeResult::Done, Some(5))];
    assert!(is_active_violation(&violations(&[&done[..], &[ask(51, "root", IntrospectionResult::Active)]].concat())));
    assert_eq!(violations(&[&done[..], &[ask(50, "root", IntrospectionResult::Active)]].concat()), []);
    // It may have been done by the first one: what was issued between the two need not have ended, or may have.
    for it in [IntrospectionResult::Active, IntrospectionResult::Inactive] {
        let late = [issued(32, 36, token("late", 5, &[])), ask(60, "late", it)];
        assert_eq!(violations(&[&done[..], &late[..]].concat()), []);
    }
    // But it is not done again, after it was acknowledged.
    let late = [issued(51, 56, token("late", 5, &[])), ask(60, "late", IntrospectionResult::Inactive)];
    assert!(is_inactive_violation(&violations(&[&done[..], &late[..]].concat())));
    let never = [first.clone(), end(20, ChangeResult::Unknown, None), end(40, ChangeResult::Unknown, None)];
    assert_eq!(violations(&[&never[..], &late[..]].concat()), [], "nobody knows when");
    // Neither does it hold back what was let go between the two.
    let hold = |start, told| with_key("k", change(start, start + 10, Action::Suspend, task(), told, None));
    let resume = change(31, 35, Action::Resume, task(), ChangeResult::Done, None);
    let history = [
        first.clone(),
        hold(20, ChangeResult::Unknown),
        resume,
        hold(40, ChangeResult::Done),
        ask(60, "root", IntrospectionResult::Active),
    ];
    assert_eq!(violations(&history), []);
    let history = [
        first.clone(),
        hold(20, ChangeResult::Unknown),
        hold(40, ChangeResult::Done),
        ask(60, "root", IntrospectionResult::Active),
    ];
    assert!(is_suspended_violation(&violations(&history)));
    // Acknowledged twice, the first time counts; and it is the same place.
    let twice = |seq| [first.clone(), end(20, ChangeResult::Done, Some(5)), end(40, ChangeResult::Done, Some(seq))];
    assert!(is_active_violation(&violations(
        &[&twice(5)[..], &[ask(31, "root", IntrospectionResult::Active)]].concat()
    )));
    let seqs = [5, 6].into();
    assert_eq!(violations(&twice(6)), [Violation::AppliedTwice { key: "k".into(), seqs }]);
}

#[test]
fn blocked_party_has_no_active_token() {
    let first = issued(0, 10, token("root", 4, &[]));
    let ask = |start, id: &str, it| introspected(start, start + 5, id, it);
    for target in [agent(), requester()] {
        let block =
            |told| change(20, 30, Action::Block, target.clone(), told, (told == ChangeResult::Done).then_some(6));
        let unblock =
            |told| change(60, 70, Action::Unblock, target.clone(), told, (told == ChangeResult::Done).then_some(8));
        let out = [first.clone(), block(ChangeResult::Done)];
        let then = |calls: &[Call]| violations(&[&out[..], calls].concat());
        assert!(is_active_violation(&then(&[ask(31, "root", IntrospectionResult::Active)])));
        assert_eq!(then(&[ask(30, "root", IntrospectionResult::Active)]), []);
        // Let in again, it has not got back what it had.
        assert!(is_active_violation(&then(&[
            unblock(ChangeResult::Done),
            ask(80, "root", IntrospectionResult::Active)
        ])));
        let new = |start| issued(start, start + 5, token("late", 8, &[]));
        let while_out = then(&[issued(31, 40, token("late", 6, &[]))]);
        assert!(matches!(&while_out[..], [Violation::IssuedWhileSuspended { .. }]), "{while_out:?}");
        for told in [ChangeResult::Done, ChangeResult::Unknown] {
            assert_eq!(then(&[unblock(told), new(61)]), [], "it is being let in");
            assert_eq!(then(&[unblock(told), new(80)]), []);
        }
        let refused = then(&[unblock(ChangeResult::Refused), issued(80, 85, token("late", 6, &[]))]);
        assert!(matches!(&refused[..], [Violation::IssuedWhileSuspended { .. }]));
        // What it gets then works.
        assert!(is_inactive_violation(&then(&[
            unblock(ChangeResult::Done),
            new(71),
            ask(80, "late", IntrospectionResult::Inactive)
        ])));
        assert_eq!(then(&[unblock(ChangeResult::Done), new(71), ask(80, "late", IntrospectionResult::Active)]), []);
        // Not acknowledged, it is neither.
        let maybe = [first.clone(), block(ChangeResult::Unknown), new(40)];
        for it in [IntrospectionResult::Active, IntrospectionResult::Inactive] {
            assert_eq!(violations(&[&maybe[..], &[ask(50, "root", it), ask(50, "late", it)]].concat()), []);
        }
        // The end stands before the word that the registry changed.
        let (word, kind) = ("revoke", target.log_key().0);
        let entry = (word, kind, target.log_key().1);
        let registry = ("revoke", "registry", "");
        let block = |seq| [change(20, 30, Action::Block, target.clone(), ChangeResult::Done, Some(seq))];
        assert_eq!(find_violations(&block(2), &log(&[entry, registry])), []);
        for (seq, kept) in [(2, log(&[registry, entry])), (2, log(&[registry, registry])), (1, log(&[entry]))] {
            let no_entry = Violation::MissingEntry { target: target.clone(), seq: Some(seq) };
            assert_eq!(find_violations(&block(seq), &kept), [no_entry]);
        }
    }
}

#[test]
fn suspended_agent_is_resumed() {
    let first = issued(0, 10, token("root", 4, &[]));
    let hold = |told| change(20, 30, Action::Suspend, agent(), told, (told == ChangeResult::Done).then_some(6));
    let go = |told| change(60, 70, Action::Resume, agent(), told, (told == ChangeResult::Done).then_some(8));
    let ask = |start, it| introspected(start, start + 5, "root", it);
    let then = |calls: &[Call]| violations(&[&[first.clone(), hold(ChangeResult::Done)], calls].concat());
    assert!(is_suspended_violation(&then(&[ask(31, IntrospectionResult::Active)])));
    assert_eq!(then(&[ask(31, IntrospectionResult::Inactive)]), []);
    for it in [IntrospectionResult::Active, IntrospectionResult::Inactive] {
        assert_eq!(then(&[go(ChangeResult::Done), ask(62, it)]), []);
        assert_eq!(then(&[go(ChangeResult::Unknown), ask(80, it)]), []);
    }
    // The same tokens work again.
    assert!(is_inactive_violation(&then(&[go(ChangeResult::Done), ask(80, IntrospectionResult::Inactive)])));
    assert_eq!(then(&[go(ChangeResult::Done), ask(80, IntrospectionResult::Active)]), []);
    // That it is so already is so everywhere; what it became so by, nobody says.
    let already = [
        first.clone(),
        hold(ChangeResult::Unknown),
        change(40, 45, Action::Suspend, agent(), ChangeResult::Already, None),
    ];
    assert!(is_suspended_violation(&violations(&[&already[..], &[ask(46, IntrospectionResult::Active)]].concat())));
    assert_eq!(violations(&already), []);
    let goes_on = change(40, 45, Action::Resume, agent(), ChangeResult::Already, None);
    assert!(is_inactive_violation(&then(&[goes_on, ask(46, IntrospectionResult::Inactive)])));
    // Held back, it derives nothing.
    let derived = then(&[issued(31, 40, token("late", 6, &["root"]))]);
    assert!(matches!(&derived[..], [Violation::IssuedWhileSuspended { .. }]), "{derived:?}");
}

#[test]
fn withdrawn_grant_ends_its_tokens() {
    let by = |id, grant: &str, lineage: &[&str]| Token { grant: Some(grant.into()), ..token(id, 4, lineage) };
    let withdraw = |told| change(20, 30, Action::End, Target::Grant("grant".into()), told, None);
    for told in [ChangeResult::Done, ChangeResult::Already] {
        let kept = log(&[("revoke", "grant", "grant")]);
        let ended = |token: Token, it| {
            let id = token.id.clone();
            find_violations(&[issued(0, 10, token), withdraw(told), introspected(31, 40, &id, it)], &kept)
        };
        assert!(is_active_violation(&ended(by("root", "grant", &[]), IntrospectionResult::Active)));
        assert!(is_active_violation(&ended(by("late", "grant", &["root"]), IntrospectionResult::Active)));
        assert_eq!(ended(by("root", "other", &[]), IntrospectionResult::Active), []);
        assert!(is_inactive_violation(&ended(by("root", "other", &[]), IntrospectionResult::Inactive)));
        let no_entry = Violation::MissingEntry { target: Target::Grant("grant".into()), seq: None };
        assert_eq!(find_violations(&[withdraw(told)], &log(&[("revoke", "grant", "other")])), [no_entry]);
    }
    // Its task is over with it, and the log need not say so.
    let over =
        [issued(0, 10, by("root", "grant", &[])), change(40, 50, Action::End, task(), ChangeResult::Already, None)];
    assert_eq!(violations(&over), []);
}

#[test]
fn removed_key_ends_its_tokens() {
    let signed = |id, by: &str, lineage: &[&str]| Token { key: by.into(), ..token(id, 4, lineage) };
    let remove = |told| change(20, 30, Action::End, key("key"), told, None);
    let kept = log(&[("revoke", "keys", "")]);
    let first = issued(0, 10, token("root", 4, &[]));
    let then = |told, calls: &[Call]| find_violations(&[&[first.clone(), remove(told)], calls].concat(), &kept);
    assert!(is_active_violation(&then(
        ChangeResult::Done,
        &[introspected(31, 40, "root", IntrospectionResult::Active)]
    )));
    assert_eq!(then(ChangeResult::Done, &[introspected(30, 40, "root", IntrospectionResult::Active)]), []);
    assert_eq!(then(ChangeResult::Unknown, &[introspected(31, 40, "root", IntrospectionResult::Active)]), []);
    // What another key has signed lives on, also what was derived before.
    let child = issued(22, 24, signed("late", "new", &["root"]));
    for (start, told, it) in [
        (31, ChangeResult::Done, IntrospectionResult::Active),
        (25, ChangeResult::Done, IntrospectionResult::Inactive),
        (40, ChangeResult::Unknown, IntrospectionResult::Inactive),
    ] {
        // A replica that has not heard of the new key calls it nothing.
        assert_eq!(
            then(told, &[child.clone(), introspected(start, start + 5, "late", it)]),
            [],
            "{start} {told:?} {it:?}"
        );
    }
    assert!(is_inactive_violation(&then(
        ChangeResult::Done,
        &[child, introspected(31, 40, "late", IntrospectionResult::Inactive)]
    )));
    // A key that was there before is known to everybody.
    let old = [issued(0, 10, signed("old", "old", &[])), remove(ChangeResult::Unknown)];
    let asked =
        [issued(30, 35, signed("late", "old", &[])), introspected(40, 50, "late", IntrospectionResult::Inactive)];
    assert!(is_inactive_violation(&find_violations(
        &[&old[..], &asked[..]].concat(),
        &StoredState { tokens: ["old".to_owned(), "late".to_owned()].into(), ..kept.clone() }
    )));
    // Nothing is issued from what it signed.
    let derived = then(ChangeResult::Done, &[issued(31, 40, signed("late", "new", &["root"]))]);
    assert!(matches!(&derived[..], [Violation::IssuedFromEnded { ended: Target::Key(_), .. }]), "{derived:?}");
    let no_entry = Violation::MissingEntry { target: key("key"), seq: None };
    assert_eq!(find_violations(&[remove(ChangeResult::Done)], &log(&[("revoke", "token", "x")])), [no_entry]);
}

/// An agent that goes on takes nothing up that has ended meanwhile.
#[test]
fn end_during_suspension_is_final() {
    let first = issued(0, 10, token("root", 4, &[]));
    let hold = change(20, 30, Action::Suspend, agent(), ChangeResult::Done, Some(6));
    let go = change(40, 50, Action::Resume, agent(), ChangeResult::Done, Some(9));
    let history = [first, hold, end(31, 35, root(), 7), go, introspected(60, 70, "root", IntrospectionResult::Active)];
    assert!(is_active_violation(&violations(&history)));
}
