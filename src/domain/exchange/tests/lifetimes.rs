//! The expiry is the earliest of all limits; each row makes another limit the earliest.

use super::*;

#[test]
fn token_expires_at_the_earliest_limit() {
    let cap = |id: &'static str, life: u32| move |c: Case| c.with_object(id, |o| o["max_token_lifetime"] = life.into());
    let requested = |life| move |c: Case| c.change(|c| c.expires_in = Some(life));
    let configured = |life| move |c: Case| c.change(|c| c.tokens.lifetime = Lifetime::seconds(life));
    let deadline =
        |life| move |c: Case| c.change(|c| c.task = TaskRequest::Unnamed { purpose: Some("x"), deadline: Some(life) });
    let user_ends =
        |life| move |c: Case| c.with_user_claims(|u| u.expires = NOW.saturating_add(Lifetime::seconds(life)));
    let own_ends = |life| move |c: Case| c.with_own_claims(|own| own.exp = NOW.saturating_add(Lifetime::seconds(life)));
    let to_reader =
        || Case::with_access_token().change(|c| c.requested_token = TokenRequest::HandOver("reader", "files"));
    let txn = |scope: &'static str| {
        Case::with_user_token().change(|c| (c.requested_token, c.scope) = (TokenRequest::Txn, Some(scope)))
    };
    let joined = |life| {
        let mut task = task(tools(&["read_file", "list_files"]));
        task.deadline = NOW.saturating_add(Lifetime::seconds(life));
        Case::with_user_token().change(|c| c.task = TaskRequest::Named(task_id(7), Some(Box::new(task))))
    };
    let rows: Vec<(&str, Case, u32)> = vec![
        ("default", Case::with_user_token(), 300),
        ("configured", configured(600)(Case::with_user_token()), 600),
        ("the hard cap, with a longer configured lifetime", configured(7200)(Case::with_user_token()), 900),
        (
            "the hard cap, with a longer requested lifetime",
            requested(7200)(configured(7200)(Case::with_user_token())),
            900,
        ),
        ("requested", requested(60)(Case::with_user_token()), 60),
        ("requested longer", requested(301)(Case::with_user_token()), 300),
        ("a second", requested(1)(Case::with_user_token()), 1),
        ("the resource's", cap("files", 61)(Case::with_user_token()), 61),
        ("another resource's", cap("mail", 61)(Case::with_user_token()), 300),
        ("the agent's", cap("planner", 62)(Case::with_user_token()), 62),
        ("another agent's", cap("reader", 62)(Case::with_user_token()), 300),
        ("the user token's", user_ends(63)(Case::with_user_token()), 63),
        ("the new task's", deadline(64)(Case::with_user_token()), 64),
        ("the longest task's", deadline(24 * 3600)(Case::with_user_token()), 300),
        ("the joined task's", joined(65), 65),
        ("the parent's", own_ends(66)(Case::with_access_token()), 66),
        ("the parent's, with a longer requested lifetime", requested(299)(own_ends(66)(Case::with_access_token())), 66),
        ("the next agent's", cap("reader", 67)(to_reader()), 67),
        ("the resource's, at a hand-over", cap("files", 68)(to_reader()), 68),
        ("the hand-over's", own_ends(69)(Case::with_handed_over_token()), 69),
        ("the receiving agent's", cap("reader", 70)(Case::with_handed_over_token()), 70),
        ("the handing agent's cap is not applied again", cap("planner", 70)(Case::with_handed_over_token()), 300),
        (
            "a transaction token: the shortest of its resources'",
            cap("mail", 61)(cap("files", 62)(txn("files:read mail:read"))),
            61,
        ),
        (
            "a transaction token: the other resource's",
            cap("mail", 62)(cap("files", 61)(txn("files:read mail:read"))),
            61,
        ),
        (
            "a transaction token: not that of a resource outside",
            cap("mail", 61)(cap("files", 62)(txn("files:read"))),
            62,
        ),
        ("a transaction token of a resource", cap("files", 63)(Case::with_txn_token()), 63),
        ("a transaction token: the parent's", own_ends(71)(Case::with_txn_token()), 71),
        (
            "all limits",
            cap("files", 50)(cap("planner", 40)(requested(30)(deadline(20)(user_ends(10)(Case::with_user_token()))))),
            10,
        ),
    ];
    for (what, case, want) in rows {
        assert_eq!(case.decide().unwrap().expires, NOW.saturating_add(Lifetime::seconds(want)), "{what}");
    }
}

#[test]
fn default_lifetime_over_the_limit_is_shortened() {
    let case = Case::with_user_token()
        .change(|c| c.tasks = TaskLimits { lifetime: Lifetime::hours(2), max_lifetime: Lifetime::hours(1) });
    let PlannedTask::Open { deadline, .. } = case.decide().unwrap().task else { panic!() };
    assert_eq!(deadline, NOW.saturating_add(Lifetime::hours(1)));
}
