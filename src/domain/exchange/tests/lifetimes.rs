//! `expires` is the least of everything that has a say; each row makes another one the least.

use super::*;

#[test]
fn the_shortest_life_counts() {
    let cap = |id: &'static str, life: u32| move |c: Case| c.object(id, |o| o["max_token_lifetime"] = life.into());
    let asked = |life| move |c: Case| c.change(|c| c.expires_in = Some(life));
    let ours = |life| move |c: Case| c.change(|c| c.tokens.lifetime = Lifetime::seconds(life));
    let deadline =
        |life| move |c: Case| c.change(|c| c.task = Wanted::Unnamed { purpose: Some("x"), deadline: Some(life) });
    let user_ends = |life| move |c: Case| c.user_claims(|u| u.expires = NOW.after(Lifetime::seconds(life)));
    let own_ends = |life| move |c: Case| c.own(|own| own.exp = NOW.after(Lifetime::seconds(life)));
    let to_reader = || Case::held().change(|c| c.output = Out::HandOver("reader", "files"));
    let joined = |life| {
        let mut task = task(tools(&["read_file", "list_files"]));
        task.deadline = NOW.after(Lifetime::seconds(life));
        Case::user().change(|c| c.task = Wanted::Named(task_id(7), Some(Box::new(task))))
    };
    let rows: Vec<(&str, Case, u32)> = vec![
        ("nothing said", Case::user(), 300),
        ("configured", ours(600)(Case::user()), 600),
        ("the cap, whatever is configured", ours(7200)(Case::user()), 900),
        ("the cap, whatever is asked", asked(7200)(ours(7200)(Case::user())), 900),
        ("asked", asked(60)(Case::user()), 60),
        ("asked for more", asked(301)(Case::user()), 300),
        ("a second", asked(1)(Case::user()), 1),
        ("the resource's", cap("files", 61)(Case::user()), 61),
        ("another resource's", cap("mail", 61)(Case::user()), 300),
        ("the agent's", cap("planner", 62)(Case::user()), 62),
        ("another agent's", cap("reader", 62)(Case::user()), 300),
        ("the user token's", user_ends(63)(Case::user()), 63),
        ("the new task's", deadline(64)(Case::user()), 64),
        ("the longest task's", deadline(24 * 3600)(Case::user()), 300),
        ("the joined task's", joined(65), 65),
        ("the parent's", own_ends(66)(Case::held()), 66),
        ("the parent's, whatever is asked", asked(299)(own_ends(66)(Case::held())), 66),
        ("the next agent's", cap("reader", 67)(to_reader()), 67),
        ("the resource's, at a hand-over", cap("files", 68)(to_reader()), 68),
        ("the hand-over's", own_ends(69)(Case::handed()), 69),
        ("the taker's", cap("reader", 70)(Case::handed()), 70),
        ("the giver's does not count again", cap("planner", 70)(Case::handed()), 300),
        ("a transaction token: the parent's", own_ends(71)(Case::inside()), 71),
        ("all at once", cap("files", 50)(cap("planner", 40)(asked(30)(deadline(20)(user_ends(10)(Case::user()))))), 10),
    ];
    for (what, case, want) in rows {
        assert_eq!(case.decide().unwrap().expires, NOW.after(Lifetime::seconds(want)), "{what}");
    }
}

#[test]
fn a_default_over_the_limit_is_shortened_and_not_refused() {
    let case = Case::user()
        .change(|c| c.tasks = TaskLimits { lifetime: Lifetime::hours(2), max_lifetime: Lifetime::hours(1) });
    let PlannedTask::Open { deadline, .. } = case.decide().unwrap().task else { panic!() };
    assert_eq!(deadline, NOW.after(Lifetime::hours(1)));
}
