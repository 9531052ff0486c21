//! Consent: where it is demanded, nothing is issued beyond a live grant; and every token says which one it rests on.

use proptest::{prelude::*, sample::subsequence};

use super::*;

fn demanding(word: &'static str) -> Case {
    Case::user().object("files", move |files| files["consent"] = json!(word))
}

#[test]
fn a_token_names_its_grant_and_does_not_outlive_it() {
    let short = Grant { until: NOW.after(Lifetime::minutes(2)), ..grant(1, Some(tools(&["read_file", "list_files"]))) };
    let case = demanding("required").change(|c| c.grants = vec![short.clone()]);
    let plan = case.decide().unwrap();
    assert_eq!((plan.grant, plan.expires), (Some(short.id), short.until));
    assert!(matches!(plan.task, PlannedTask::Open { deadline, .. } if deadline == short.until), "nor does its task");
    // Of several, the one that lasts longest.
    let longer =
        Grant { until: NOW.after(Lifetime::minutes(4)), ..grant(2, Some(tools(&["read_file", "list_files"]))) };
    let plan = case.clone().change(|c| c.grants.push(longer.clone())).decide().unwrap();
    assert_eq!((plan.grant, plan.expires), (Some(longer.id), longer.until));
    // Where nobody demands it and something else points at the agent, no grant is looked at.
    let plan = Case::user().change(|c| c.grants = vec![short.clone()]).decide().unwrap();
    assert_eq!(plan.grant, None);
    // What is handed over, and what the next agent makes of it, rests on the same.
    let (held, kind) = case.token(1);
    assert_eq!(held.names().grant, Some(short.id));
    let handing = Case::with("planner", (held, kind)).change(|c| {
        c.objects.clone_from(&case.objects);
        c.grants = vec![short.clone()];
        c.output = Out::HandOver("reader", "files");
    });
    let handed = Case::with("reader", handing.token(2)).change(|c| c.objects.clone_from(&case.objects));
    // Whether that one says what for is looked at where consent is demanded: and that one alone.
    let with = |grants: Vec<Grant>| handed.clone().change(|c| c.grants = grants).decide();
    let plan = with(vec![short.clone()]).unwrap();
    assert_eq!((plan.grant, plan.expires), (Some(short.id), short.until));
    for grants in [
        Vec::new(),
        vec![longer],
        vec![Grant { authority: None, ..short.clone() }],
        vec![Grant { authority: Some(tools(&["read_file"])), ..short.clone() }],
    ] {
        assert_eq!(with(grants).map(|plan| plan.grant), Err(Denial::ConsentNeeded));
    }
    let undemanded = handed.change(|c| c.objects.clone_from(&Case::user().objects));
    assert_eq!(undemanded.decide().map(|plan| plan.grant), Ok(Some(short.id)));
}

#[test]
fn what_can_be_undone_needs_no_consent_where_only_the_rest_does() {
    let all = |case: Case| {
        case.object("planner", |planner| planner["access"][0]["scopes"] = json!(["files:write", "files:delete"]))
            .user_claims(|u| u.scope = Some("files:write files:delete".parse().unwrap()))
    };
    for (scope, want) in [("files:write", Ok(None)), ("files:delete", Err(Denial::ConsentNeeded))] {
        let case = all(demanding("destructive")).change(|c| c.scope = Some(scope));
        assert_eq!(case.decide().map(|plan| plan.grant), want, "{scope}");
    }
    let consented = all(demanding("destructive")).change(|c| {
        c.scope = Some("files:delete");
        c.grants = vec![grant(1, Some(tools(&["delete_file"])))];
    });
    assert_eq!(consented.decide().map(|plan| plan.grant), Ok(Some(grant_id(1))));
}

const NAMES: [&str; 4] = ["read_file", "list_files", "write_file", "search"];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// With a grant demanded, by the issuer or by the resource, nothing is ever issued beyond one live grant; and what is
    /// within one is issued, so the rule is not merely a no.
    #[test]
    fn nothing_is_issued_beyond_a_grant(
        by_issuer in any::<bool>(),
        asked in subsequence(NAMES[..3].to_vec(), 1..=3),
        grants in prop::collection::vec((subsequence(NAMES.to_vec(), 0..=4), any::<bool>(), -100..900_i64, 0..4_u8), 0..4),
    ) {
        let grants = (1..).zip(grants).map(|(n, (names, says, seconds, whose))| {
            let mut one = grant(n, says.then(|| tools(&names)));
            one.until = Timestamp::from_unix(NOW.unix() + seconds);
            match whose {
                0 => one.agent = "reader".parse().unwrap(),
                1 => one.requester.subject = "bob".parse().unwrap(),
                _ => {}
            }
            one
        }).collect::<Vec<_>>();
        let place = if by_issuer { LOGIN } else { "files" };
        let case = Case::user().object(place, |object| object["consent"] = json!("required")).change(|c| {
            (c.scope, c.details, c.grants) = (None, Some(tools(&asked)), grants.clone());
        });
        let fits = |one: &Grant| {
            one.requester == alice().requester && one.agent.as_str() == "planner" && one.until > NOW
                && one.authority.as_ref().is_some_and(|a| asked.iter().all(|name| tools(&[name]).within(a)))
        };
        match case.decide() {
            Ok(plan) => {
                let one = grants.iter().find(|one| Some(one.id) == plan.grant).unwrap();
                prop_assert!(fits(one));
                let held = one.authority.as_ref().unwrap();
                prop_assert!(plan.authority.within(&plan.authority.meet(held)), "{:?}", plan.authority);
                prop_assert!(plan.expires <= one.until);
                let PlannedTask::Open { authority, deadline, .. } = &plan.task else { panic!("a new task") };
                prop_assert!(authority.within(held) && *deadline <= one.until);
            }
            Err(denial) => {
                prop_assert_eq!(denial, Denial::ConsentNeeded);
                prop_assert!(!grants.iter().any(fits));
            }
        }
    }
}
