//! Break-glass: in place of the requester's grant, where none of theirs is enough; beyond no ceiling; and it shows.

use proptest::{prelude::*, sample::subsequence};

use super::*;
use crate::domain::exchange::admits;

fn glass(n: u128, names: &[&str]) -> Grant {
    Grant { break_glass: true, until: NOW.after(Lifetime::minutes(15)), ..grant(n, Some(tools(names))) }
}

fn demanding() -> Case {
    Case::user().object("files", |files| files["consent"] = json!("required"))
}

#[test]
fn what_comes_of_it_shows_it() {
    let case = demanding().change(|c| c.grants = vec![glass(1, &["read_file", "list_files"])]);
    assert!(case.decide().unwrap().break_glass);
    let (held, kind) = case.token(1);
    let handing = Case::with("planner", (held.clone(), kind)).change(|c| c.output = Out::HandOver("reader", "files"));
    let handed = Case::with("reader", handing.token(2));
    assert!(handing.decide().unwrap().break_glass && handed.decide().unwrap().break_glass);
    let inside = Case::with("files", (held.clone(), kind)).change(|c| c.output = Out::Txn);
    assert!(inside.decide().unwrap().break_glass);
    // Not where none is needed, and not where the requester's own is enough.
    assert!(!Case::user().change(|c| c.grants.clone_from(&case.grants)).decide().unwrap().break_glass);
    let both = case.clone().change(|c| {
        let short =
            Grant { until: NOW.after(Lifetime::minutes(1)), ..grant(2, Some(tools(&["read_file", "list_files"]))) };
        c.grants.push(short);
    });
    let plan = both.decide().unwrap();
    assert_eq!((plan.grant, plan.break_glass), (Some(grant_id(2)), false));
    // A resource that refuses it takes nothing of it, at once.
    let refusing = |case: Case| case.object("files", |files| files["break_glass"] = json!("refuse"));
    assert_eq!(refusing(case.clone()).decide(), Err(Denial::ConsentNeeded));
    assert_eq!(refusing(handed.clone()).decide(), Err(Denial::ShutOut));
    assert_eq!(refusing(handed.clone().own(|own| own.break_glass = false)).decide().map(|_| ()), Ok(()));
    assert!(
        admits(&registry(case.objects), &held, &held.names())
            && !admits(&registry(refusing(demanding()).objects), &held, &held.names())
    );
}

#[test]
fn nothing_in_the_evidence_is_outweighed() {
    let unrelated = Case::user().user_claims(|u| u.client = Some("another-app".into()));
    let case = unrelated.change(|c| c.grants = vec![glass(1, &["read_file", "list_files"])]);
    let plan = case.decide().unwrap();
    assert_eq!((plan.basis, plan.break_glass), ("grant", true));
    let names_another = case.clone().user_claims(|u| u.may_act = Some(MayAct { iss: None, sub: "x".into() }));
    assert!(matches!(names_another.decide(), Err(Denial::Splice(_))));
    assert!(matches!(case.clone().change(|c| c.actor = Says::SomebodyElse).decide(), Err(Denial::Splice(_))));
    assert_eq!(case.clone().without("requester", &format!("{LOGIN} alice")).decide(), Err(Denial::RequesterShutOut));
    assert_eq!(case.change(|c| c.now = NOW.after(Lifetime::minutes(15))).decide().map(|_| ()), {
        Err(Denial::Splice(crate::domain::splice::NotThisAgent::Unrelated))
    });
}

const NAMES: [&str; 4] = ["read_file", "list_files", "write_file", "delete_file"];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// Whatever the emergency grant says: what is issued is within it, within the agent's ceiling, within the requester's
    /// scopes; and it is used exactly where no grant of the requester covers what is asked for.
    #[test]
    fn it_goes_beyond_nothing(
        asked in subsequence(NAMES.to_vec(), 1..=4),
        said in subsequence(NAMES.to_vec(), 0..=4),
        own in subsequence(NAMES.to_vec(), 0..=4),
        of_agent in subsequence(vec!["files:read", "files:write", "files:delete"], 1..=3),
        of_user in subsequence(vec!["files:read", "files:write", "files:delete"], 1..=3),
        refuses in any::<bool>(),
        seconds in -5..900_i64,
    ) {
        let mut one = glass(1, &said);
        one.until = Timestamp::from_unix(NOW.unix() + seconds);
        let case = demanding()
            .object("files", |files| files["break_glass"] = json!(if refuses { "refuse" } else { "allow" }))
            .object("planner", |planner| planner["access"] = json!([{"resource": "files", "scopes": of_agent}]))
            .user_claims(|user| user.scope = Some(of_user.join(" ").parse().unwrap()))
            .change(|c| {
                (c.scope, c.details) = (None, Some(tools(&asked)));
                c.grants = vec![one.clone(), grant(2, Some(tools(&own)))];
            });
        let scope = |name: &str| match name {
            "write_file" => "files:write",
            "delete_file" => "files:delete",
            _ => "files:read",
        };
        let held = asked.iter().all(|name| of_agent.contains(&scope(name)) && of_user.contains(&scope(name)));
        let by_own = asked.iter().all(|name| own.contains(name));
        let by_glass = !refuses && seconds > 0 && asked.iter().all(|name| said.contains(name));
        match case.decide() {
            Ok(plan) => {
                prop_assert!(held && (by_own || by_glass));
                prop_assert_eq!(plan.break_glass, !by_own);
                prop_assert!(by_own || plan.expires <= one.until);
            }
            Err(denial) => {
                prop_assert!(!held || !(by_own || by_glass), "{denial:?}");
                prop_assert_eq!(held, denial == Denial::ConsentNeeded);
            }
        }
    }
}
