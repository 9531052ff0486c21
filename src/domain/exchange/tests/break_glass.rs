//! Break-glass grants: used only if no grant of the requester is enough, within all ceilings, and
//! visible in the token.

use proptest::{prelude::*, sample::subsequence};

use super::*;
use crate::domain::registry::parties_are_active;

fn break_glass_grant(n: u128, names: &[&str]) -> Grant {
    Grant { break_glass: true, expires: NOW.saturating_add(Lifetime::minutes(15)), ..grant(n, Some(tools(names))) }
}

fn requiring_consent() -> Case {
    Case::with_user_token().with_object("files", |files| files["consent"] = json!("required"))
}

#[test]
fn token_from_break_glass_grant_is_marked() {
    let case = requiring_consent().change(|c| c.grants = vec![break_glass_grant(1, &["read_file", "list_files"])]);
    assert!(case.decide().unwrap().break_glass);
    let (held, kind) = case.issue_token(1);
    let handing = Case::with_issued_token("planner", (held.clone(), kind))
        .change(|c| c.requested_token = TokenRequest::HandOver("reader", "files"));
    let handed = Case::with_issued_token("reader", handing.issue_token(2));
    assert!(handing.decide().unwrap().break_glass && handed.decide().unwrap().break_glass);
    let inside =
        Case::with_issued_token("files", (held.clone(), kind)).change(|c| c.requested_token = TokenRequest::Txn);
    assert!(inside.decide().unwrap().break_glass);
    // Not used where no grant is needed, or the requester's own grant is enough.
    assert!(!Case::with_user_token().change(|c| c.grants.clone_from(&case.grants)).decide().unwrap().break_glass);
    let both = case.clone().change(|c| {
        let short = Grant {
            expires: NOW.saturating_add(Lifetime::minutes(1)),
            ..grant(2, Some(tools(&["read_file", "list_files"])))
        };
        c.grants.push(short);
    });
    let plan = both.decide().unwrap();
    assert_eq!((plan.grant, plan.break_glass), (Some(grant_id(2)), false));
    // A resource that refuses break-glass tokens refuses existing ones at once.
    let refusing = |case: Case| case.with_object("files", |files| files["break_glass"] = json!("refuse"));
    assert_eq!(refusing(case.clone()).decide(), Err(Denial::ConsentRequired));
    assert_eq!(refusing(handed.clone()).decide(), Err(Denial::PartyBlocked));
    assert_eq!(refusing(handed.clone().with_own_claims(|own| own.break_glass = false)).decide().map(|_| ()), Ok(()));
    assert!(
        parties_are_active(&registry(case.objects), &held, &held.revocation_keys())
            && !parties_are_active(&registry(refusing(requiring_consent()).objects), &held, &held.revocation_keys())
    );
}

#[test]
fn break_glass_grant_does_not_override_evidence_checks() {
    let unrelated = Case::with_user_token().with_user_claims(|u| u.client = Some("another-app".into()));
    let case = unrelated.change(|c| c.grants = vec![break_glass_grant(1, &["read_file", "list_files"])]);
    let plan = case.decide().unwrap();
    assert_eq!((plan.basis, plan.break_glass), (Basis::Grant, true));
    let names_other = case.clone().with_user_claims(|u| u.may_act = Some(MayAct { iss: None, sub: "x".into() }));
    assert!(matches!(names_other.decide(), Err(Denial::PresenterNotBound(_))));
    assert!(matches!(
        case.clone().change(|c| c.actor_match = AgentMatch::OtherParty).decide(),
        Err(Denial::PresenterNotBound(_))
    ));
    assert_eq!(case.clone().with_block("requester", &format!("{LOGIN} alice")).decide(), Err(Denial::RequesterBlocked));
    assert_eq!(case.change(|c| c.now = NOW.saturating_add(Lifetime::minutes(15))).decide().map(|_| ()), {
        Err(Denial::PresenterNotBound(crate::domain::exchange::presenter_binding::BindingError::Unrelated))
    });
}

const TOOL_NAMES: [&str; 4] = ["read_file", "list_files", "write_file", "delete_file"];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// The token is within the break-glass grant, the agent's ceiling and the requester's scopes.
    /// The grant is used exactly where no grant of the requester covers the request.
    #[test]
    fn break_glass_token_stays_within_every_ceiling(
        requested in subsequence(TOOL_NAMES.to_vec(), 1..=4),
        of_glass in subsequence(TOOL_NAMES.to_vec(), 0..=4),
        own in subsequence(TOOL_NAMES.to_vec(), 0..=4),
        of_agent in subsequence(vec!["files:read", "files:write", "files:delete"], 1..=3),
        of_user in subsequence(vec!["files:read", "files:write", "files:delete"], 1..=3),
        refuses in any::<bool>(),
        seconds in -5..900_i64,
    ) {
        let mut one = break_glass_grant(1, &of_glass);
        one.expires = Timestamp::from_unix(NOW.unix() + seconds);
        let case = requiring_consent()
            .with_object("files", |files| files["break_glass"] = json!(if refuses { "refuse" } else { "allow" }))
            .with_object("planner", |planner| planner["access"] = json!([{"resource": "files", "scopes": of_agent}]))
            .with_user_claims(|user| user.scope = Some(of_user.join(" ").parse().unwrap()))
            .change(|c| {
                (c.scope, c.details) = (None, Some(tools(&requested)));
                c.grants = vec![one.clone(), grant(2, Some(tools(&own)))];
            });
        let scope = |name: &str| match name {
            "write_file" => "files:write",
            "delete_file" => "files:delete",
            _ => "files:read",
        };
        let held = requested.iter().all(|name| of_agent.contains(&scope(name)) && of_user.contains(&scope(name)));
        let by_own = requested.iter().all(|name| own.contains(name));
        let by_glass = !refuses && seconds > 0 && requested.iter().all(|name| of_glass.contains(name));
        match case.decide() {
            Ok(plan) => {
                prop_assert!(held && (by_own || by_glass));
                prop_assert_eq!(plan.break_glass, !by_own);
                prop_assert!(by_own || plan.expires <= one.expires);
            }
            Err(denial) => {
                prop_assert!(!held || !(by_own || by_glass), "{denial:?}");
                prop_assert_eq!(held, denial == Denial::ConsentRequired);
            }
        }
    }
}
