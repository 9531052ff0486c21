//! The checker on changes that concern more than one token, and on retried requests.

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
    let Event::Changed(change) = call.event else { panic!("the event is not a change") };
    Call { event: Event::Changed(Change { key: Some(key.into()), ..change }), ..call }
}

/// A selection of the tasks of alice, with a dry run from 20 to 30.
fn alices_tasks() -> Target {
    let (dry_run_started, dry_run_ended) = (Duration::from_millis(20), Duration::from_millis(30));
    Target::Tasks(TaskSelection {
        requester: Some("alice".into()),
        dry_run_started,
        dry_run_ended,
        ..TaskSelection::default()
    })
}

fn log(entries: &[(&str, &str, &str)]) -> StoredState {
    let entries = entries.iter().map(|(verb, kind, key)| (verb.to_string(), kind.to_string(), key.to_string()));
    StoredState { tokens: ["root".to_owned(), "late".to_owned()].into(), log: (1..).zip(entries).collect() }
}

fn is_inactive_violation(found: &[Violation]) -> bool {
    matches!(found, [Violation::Inactive { .. }])
}

fn is_suspended_violation(found: &[Violation]) -> bool {
    matches!(found, [Violation::ActiveWhileSuspended { .. }])
}

#[test]
fn selection_covers_tasks_of_the_dry_run() {
    let stored = log(&[("revoke", "task", "task")]);
    let ended = |opened: (u64, u64), target: Target, result| {
        let history = [
            issued(opened.0, opened.1, token("root", 0, &[])),
            change(40, 50, Action::End, target, ChangeResult::Done, Some(1)),
            introspected(60, 70, "root", result),
        ];
        find_violations(&history, &stored)
    };
    assert!(is_active_violation(&ended((0, 20), alices_tasks(), IntrospectionResult::Active)));
    assert_eq!(ended((0, 20), alices_tasks(), IntrospectionResult::Inactive), []);
    // Opened during the dry run, the task may be part of the selection: both results are allowed.
    for result in [IntrospectionResult::Active, IntrospectionResult::Inactive] {
        assert_eq!(ended((0, 21), alices_tasks(), result), []);
        assert_eq!(ended((29, 35), alices_tasks(), result), []);
    }
    // A task opened after the dry run is not affected.
    assert_eq!(ended((30, 35), alices_tasks(), IntrospectionResult::Active), []);
    assert!(is_inactive_violation(&ended((30, 35), alices_tasks(), IntrospectionResult::Inactive)));
    let selection = |requester: Option<&str>, agent: Option<&str>, ids: &[&str]| {
        let ids = ids.iter().map(ToString::to_string).collect();
        let (requester, agent) = (requester.map(Into::into), agent.map(Into::into));
        let (dry_run_started, dry_run_ended) = (Duration::from_millis(20), Duration::from_millis(30));
        Target::Tasks(TaskSelection { ids, requester, agent, dry_run_started, dry_run_ended })
    };
    for (target, matches) in [
        (selection(Some("bob"), None, &[]), false),
        (selection(Some("alice"), Some("planner"), &[]), true),
        (selection(Some("alice"), Some("reader"), &[]), false),
        (selection(None, Some("planner"), &[]), true),
        (selection(None, None, &["other", "task"]), true),
        (selection(None, None, &["other"]), false),
    ] {
        assert_eq!(
            is_active_violation(&ended((0, 10), target.clone(), IntrospectionResult::Active)),
            matches,
            "{target:?}"
        );
        assert_eq!(
            !is_inactive_violation(&ended((0, 10), target.clone(), IntrospectionResult::Inactive)),
            matches,
            "{target:?}"
        );
    }
    // A derived token belongs to its task, regardless of the agent.
    let history = [
        issued(0, 10, token("root", 0, &[])),
        issued(41, 60, Token { agents: ["planner".into(), "reader".into()].into(), ..token("late", 1, &["root"]) }),
        change(40, 50, Action::End, selection(None, Some("planner"), &[]), ChangeResult::Done, Some(1)),
        introspected(70, 80, "late", IntrospectionResult::Active),
    ];
    assert!(is_active_violation(&find_violations(&history, &stored)));
}

#[test]
fn unacknowledged_or_suspended_selection_is_checked() {
    let first = issued(0, 10, token("root", 0, &[]));
    let stored = |verb| log(&[(verb, "task", "task")]);
    let transition = |start, verb, result| change(start, start + 10, verb, alices_tasks(), result, None);
    let introspect = |start, result| introspected(start, start + 5, "root", result);
    for result in [IntrospectionResult::Active, IntrospectionResult::Inactive] {
        let history = [first.clone(), transition(40, Action::End, ChangeResult::Unknown), introspect(60, result)];
        assert_eq!(find_violations(&history, &stored("revoke")), []);
        let history = [
            first.clone(),
            transition(40, Action::Suspend, ChangeResult::Done),
            transition(60, Action::Resume, ChangeResult::Done),
            introspect(65, result),
        ];
        assert_eq!(find_violations(&history, &stored("suspend")), [], "the resumption is in progress");
    }
    let refused = [
        first.clone(),
        transition(40, Action::End, ChangeResult::Refused),
        introspect(60, IntrospectionResult::Inactive),
    ];
    assert!(is_inactive_violation(&find_violations(&refused, &stored("revoke"))));
    let suspended = [
        first.clone(),
        transition(40, Action::Suspend, ChangeResult::Done),
        introspect(51, IntrospectionResult::Active),
    ];
    assert!(is_suspended_violation(&find_violations(&suspended, &stored("suspend"))));
    let resumed = [
        first.clone(),
        transition(40, Action::Suspend, ChangeResult::Done),
        transition(60, Action::Resume, ChangeResult::Done),
        introspect(71, IntrospectionResult::Inactive),
    ];
    assert!(is_inactive_violation(&find_violations(&resumed, &stored("suspend"))));
    // Each task has an entry of its own, unless it is based on a grant.
    let without_seq = [first, change(40, 50, Action::End, alices_tasks(), ChangeResult::Done, None)];
    let no_entry = Violation::MissingEntry { target: alices_tasks(), seq: None };
    assert_eq!(find_violations(&without_seq, &log(&[("revoke", "task", "other")])), [no_entry]);
    assert_eq!(find_violations(&without_seq, &stored("revoke")), []);
    let by_grant = issued(0, 10, Token { grant: Some("grant".into()), ..token("root", 0, &[]) });
    assert_eq!(find_violations(&[by_grant, without_seq[1].clone()], &log(&[("revoke", "task", "other")])), []);
    let wrong_seq = [without_seq[0].clone(), change(40, 50, Action::End, alices_tasks(), ChangeResult::Done, Some(2))];
    let stored = log(&[("revoke", "task", "task"), ("revoke", "token", "x")]);
    assert_eq!(
        find_violations(&wrong_seq, &stored),
        [Violation::MissingEntry { target: alices_tasks(), seq: Some(2) }]
    );
}

#[test]
fn retried_request_counts_once() {
    let first = issued(0, 10, token("root", 4, &[]));
    let end = |start, result, seq| with_key("k", change(start, start + 10, Action::End, requester(), result, seq));
    let introspect = |start, id: &str, result| introspected(start, start + 5, id, result);
    let done = [first.clone(), end(20, ChangeResult::Unknown, None), end(40, ChangeResult::Done, Some(5))];
    assert!(is_active_violation(&violations(
        &[&done[..], &[introspect(51, "root", IntrospectionResult::Active)]].concat()
    )));
    assert_eq!(violations(&[&done[..], &[introspect(50, "root", IntrospectionResult::Active)]].concat()), []);
    // The first attempt may have taken effect, so a token issued between the two attempts may or
    // may not have ended.
    for result in [IntrospectionResult::Active, IntrospectionResult::Inactive] {
        let late = [issued(32, 36, token("late", 5, &[])), introspect(60, "late", result)];
        assert_eq!(violations(&[&done[..], &late[..]].concat()), []);
    }
    // The request is not applied again after its acknowledgement.
    let late = [issued(51, 56, token("late", 5, &[])), introspect(60, "late", IntrospectionResult::Inactive)];
    assert!(is_inactive_violation(&violations(&[&done[..], &late[..]].concat())));
    let unacknowledged = [first.clone(), end(20, ChangeResult::Unknown, None), end(40, ChangeResult::Unknown, None)];
    assert_eq!(violations(&[&unacknowledged[..], &late[..]].concat()), [], "the time of the end is unknown");
    // A retried suspension does not undo a resumption between the two attempts.
    let suspend = |start, result| with_key("k", change(start, start + 10, Action::Suspend, task(), result, None));
    let resume = change(31, 35, Action::Resume, task(), ChangeResult::Done, None);
    let history = [
        first.clone(),
        suspend(20, ChangeResult::Unknown),
        resume,
        suspend(40, ChangeResult::Done),
        introspect(60, "root", IntrospectionResult::Active),
    ];
    assert_eq!(violations(&history), []);
    let history = [
        first.clone(),
        suspend(20, ChangeResult::Unknown),
        suspend(40, ChangeResult::Done),
        introspect(60, "root", IntrospectionResult::Active),
    ];
    assert!(is_suspended_violation(&violations(&history)));
    // Of two acknowledgements, the first counts, and both name the same log position.
    let twice = |seq| [first.clone(), end(20, ChangeResult::Done, Some(5)), end(40, ChangeResult::Done, Some(seq))];
    assert!(is_active_violation(&violations(
        &[&twice(5)[..], &[introspect(31, "root", IntrospectionResult::Active)]].concat()
    )));
    let seqs = [5, 6].into();
    assert_eq!(violations(&twice(6)), [Violation::AppliedTwice { key: "k".into(), seqs }]);
}

#[test]
fn blocked_party_has_no_active_token() {
    let first = issued(0, 10, token("root", 4, &[]));
    let introspect = |start, id: &str, result| introspected(start, start + 5, id, result);
    for target in [agent(), requester()] {
        let block =
            |result| change(20, 30, Action::Block, target.clone(), result, (result == ChangeResult::Done).then_some(6));
        let unblock = |result| {
            change(60, 70, Action::Unblock, target.clone(), result, (result == ChangeResult::Done).then_some(8))
        };
        let blocked = [first.clone(), block(ChangeResult::Done)];
        let then = |calls: &[Call]| violations(&[&blocked[..], calls].concat());
        assert!(is_active_violation(&then(&[introspect(31, "root", IntrospectionResult::Active)])));
        assert_eq!(then(&[introspect(30, "root", IntrospectionResult::Active)]), []);
        // The unblocking does not restore revoked tokens.
        assert!(is_active_violation(&then(&[
            unblock(ChangeResult::Done),
            introspect(80, "root", IntrospectionResult::Active)
        ])));
        let new = |start| issued(start, start + 5, token("late", 8, &[]));
        let while_blocked = then(&[issued(31, 40, token("late", 6, &[]))]);
        assert!(matches!(&while_blocked[..], [Violation::IssuedWhileSuspended { .. }]), "{while_blocked:?}");
        for result in [ChangeResult::Done, ChangeResult::Unknown] {
            assert_eq!(then(&[unblock(result), new(61)]), [], "the unblocking is in progress");
            assert_eq!(then(&[unblock(result), new(80)]), []);
        }
        let refused = then(&[unblock(ChangeResult::Refused), issued(80, 85, token("late", 6, &[]))]);
        assert!(matches!(&refused[..], [Violation::IssuedWhileSuspended { .. }]));
        // Tokens issued after the unblocking work.
        assert!(is_inactive_violation(&then(&[
            unblock(ChangeResult::Done),
            new(71),
            introspect(80, "late", IntrospectionResult::Inactive)
        ])));
        assert_eq!(
            then(&[unblock(ChangeResult::Done), new(71), introspect(80, "late", IntrospectionResult::Active)]),
            []
        );
        // An unacknowledged block allows both results.
        let unacknowledged = [first.clone(), block(ChangeResult::Unknown), new(40)];
        for result in [IntrospectionResult::Active, IntrospectionResult::Inactive] {
            assert_eq!(
                violations(
                    &[&unacknowledged[..], &[introspect(50, "root", result), introspect(50, "late", result)]].concat()
                ),
                []
            );
        }
        // The log has the end of the tokens before the change of the registry.
        let (kind, key) = target.log_key();
        let entry = ("revoke", kind, key);
        let registry = ("revoke", "registry", "");
        let block = |seq| [change(20, 30, Action::Block, target.clone(), ChangeResult::Done, Some(seq))];
        assert_eq!(find_violations(&block(2), &log(&[entry, registry])), []);
        for (seq, stored) in [(2, log(&[registry, entry])), (2, log(&[registry, registry])), (1, log(&[entry]))] {
            let no_entry = Violation::MissingEntry { target: target.clone(), seq: Some(seq) };
            assert_eq!(find_violations(&block(seq), &stored), [no_entry]);
        }
    }
}

#[test]
fn suspended_agent_is_resumed() {
    let first = issued(0, 10, token("root", 4, &[]));
    let suspend =
        |result| change(20, 30, Action::Suspend, agent(), result, (result == ChangeResult::Done).then_some(6));
    let resume = |result| change(60, 70, Action::Resume, agent(), result, (result == ChangeResult::Done).then_some(8));
    let introspect = |start, result| introspected(start, start + 5, "root", result);
    let then = |calls: &[Call]| violations(&[&[first.clone(), suspend(ChangeResult::Done)], calls].concat());
    assert!(is_suspended_violation(&then(&[introspect(31, IntrospectionResult::Active)])));
    assert_eq!(then(&[introspect(31, IntrospectionResult::Inactive)]), []);
    for result in [IntrospectionResult::Active, IntrospectionResult::Inactive] {
        assert_eq!(then(&[resume(ChangeResult::Done), introspect(62, result)]), []);
        assert_eq!(then(&[resume(ChangeResult::Unknown), introspect(80, result)]), []);
    }
    // The resumption restores the same tokens.
    assert!(is_inactive_violation(&then(&[resume(ChangeResult::Done), introspect(80, IntrospectionResult::Inactive)])));
    assert_eq!(then(&[resume(ChangeResult::Done), introspect(80, IntrospectionResult::Active)]), []);
    // `Already` holds on all replicas, but does not require a particular log entry.
    let already = [
        first.clone(),
        suspend(ChangeResult::Unknown),
        change(40, 45, Action::Suspend, agent(), ChangeResult::Already, None),
    ];
    assert!(is_suspended_violation(&violations(
        &[&already[..], &[introspect(46, IntrospectionResult::Active)]].concat()
    )));
    assert_eq!(violations(&already), []);
    let already_active = change(40, 45, Action::Resume, agent(), ChangeResult::Already, None);
    assert!(is_inactive_violation(&then(&[already_active, introspect(46, IntrospectionResult::Inactive)])));
    // No token is derived for a suspended agent.
    let derived = then(&[issued(31, 40, token("late", 6, &["root"]))]);
    assert!(matches!(&derived[..], [Violation::IssuedWhileSuspended { .. }]), "{derived:?}");
}

#[test]
fn withdrawn_grant_ends_its_tokens() {
    let by = |id, grant: &str, lineage: &[&str]| Token { grant: Some(grant.into()), ..token(id, 4, lineage) };
    let withdraw = |result| change(20, 30, Action::End, Target::Grant("grant".into()), result, None);
    for result in [ChangeResult::Done, ChangeResult::Already] {
        let stored = log(&[("revoke", "grant", "grant")]);
        let ended = |token: Token, introspection| {
            let id = token.id.clone();
            find_violations(
                &[issued(0, 10, token), withdraw(result), introspected(31, 40, &id, introspection)],
                &stored,
            )
        };
        assert!(is_active_violation(&ended(by("root", "grant", &[]), IntrospectionResult::Active)));
        assert!(is_active_violation(&ended(by("late", "grant", &["root"]), IntrospectionResult::Active)));
        assert_eq!(ended(by("root", "other", &[]), IntrospectionResult::Active), []);
        assert!(is_inactive_violation(&ended(by("root", "other", &[]), IntrospectionResult::Inactive)));
        let no_entry = Violation::MissingEntry { target: Target::Grant("grant".into()), seq: None };
        assert_eq!(find_violations(&[withdraw(result)], &log(&[("revoke", "grant", "other")])), [no_entry]);
    }
    // The task ends with its grant and needs no log entry of its own.
    let ended_with_grant =
        [issued(0, 10, by("root", "grant", &[])), change(40, 50, Action::End, task(), ChangeResult::Already, None)];
    assert_eq!(violations(&ended_with_grant), []);
}

#[test]
fn removed_key_ends_its_tokens() {
    let signed = |id, by: &str, lineage: &[&str]| Token { key: by.into(), ..token(id, 4, lineage) };
    let remove = |result| change(20, 30, Action::End, key("key"), result, None);
    let stored = log(&[("revoke", "keys", "")]);
    let first = issued(0, 10, token("root", 4, &[]));
    let then = |result, calls: &[Call]| find_violations(&[&[first.clone(), remove(result)], calls].concat(), &stored);
    assert!(is_active_violation(&then(
        ChangeResult::Done,
        &[introspected(31, 40, "root", IntrospectionResult::Active)]
    )));
    assert_eq!(then(ChangeResult::Done, &[introspected(30, 40, "root", IntrospectionResult::Active)]), []);
    assert_eq!(then(ChangeResult::Unknown, &[introspected(31, 40, "root", IntrospectionResult::Active)]), []);
    // A token signed by another key stays active, even if it was derived from an ended one
    // before the acknowledgement.
    let child = issued(22, 24, signed("late", "new", &["root"]));
    for (start, removal, introspection) in [
        (31, ChangeResult::Done, IntrospectionResult::Active),
        (25, ChangeResult::Done, IntrospectionResult::Inactive),
        (40, ChangeResult::Unknown, IntrospectionResult::Inactive),
    ] {
        // A replica that does not know the new key reports the token inactive.
        assert_eq!(
            then(removal, &[child.clone(), introspected(start, start + 5, "late", introspection)]),
            [],
            "{start} {removal:?} {introspection:?}"
        );
    }
    assert!(is_inactive_violation(&then(
        ChangeResult::Done,
        &[child, introspected(31, 40, "late", IntrospectionResult::Inactive)]
    )));
    // A key that existed before the removal is known to all replicas.
    let old = [issued(0, 10, signed("old", "old", &[])), remove(ChangeResult::Unknown)];
    let late =
        [issued(30, 35, signed("late", "old", &[])), introspected(40, 50, "late", IntrospectionResult::Inactive)];
    assert!(is_inactive_violation(&find_violations(
        &[&old[..], &late[..]].concat(),
        &StoredState { tokens: ["old".to_owned(), "late".to_owned()].into(), ..stored.clone() }
    )));
    // No token is issued from one that the removed key signed.
    let derived = then(ChangeResult::Done, &[issued(31, 40, signed("late", "new", &["root"]))]);
    assert!(matches!(&derived[..], [Violation::IssuedFromEnded { ended: Target::Key(_), .. }]), "{derived:?}");
    let no_entry = Violation::MissingEntry { target: key("key"), seq: None };
    assert_eq!(find_violations(&[remove(ChangeResult::Done)], &log(&[("revoke", "token", "x")])), [no_entry]);
}

/// The resumption of an agent does not restore a token that ended during the suspension.
#[test]
fn end_during_suspension_is_final() {
    let first = issued(0, 10, token("root", 4, &[]));
    let suspend = change(20, 30, Action::Suspend, agent(), ChangeResult::Done, Some(6));
    let resume = change(40, 50, Action::Resume, agent(), ChangeResult::Done, Some(9));
    let history =
        [first, suspend, end(31, 35, root(), 7), resume, introspected(60, 70, "root", IntrospectionResult::Active)];
    assert!(is_active_violation(&violations(&history)));
}
