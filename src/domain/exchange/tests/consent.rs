//! Consent: where required, no token exceeds a live grant, and every token names its grant.

use proptest::{prelude::*, sample::subsequence};

use super::*;

fn requiring_consent(word: &'static str) -> Case {
    Case::with_user_token().with_object("files", move |files| files["consent"] = json!(word))
}

/// A grant covers a tool as it was when the grant was made.
#[test]
fn changed_tool_is_not_covered_by_an_earlier_grant() {
    let pinned = |text: &str| {
        let digest = definition("read_file", text).digest();
        tools(&["read_file"]).iter().map(|tool| Permission { digest: Some(digest.clone()), ..tool.clone() }).collect()
    };
    let case = |break_glass| {
        let grant = Grant { break_glass, ..grant(1, Some(pinned("old"))) };
        requiring_consent("required").change(|c| {
            (c.grants, c.scope, c.details) = (vec![grant], None, Some(tools(&["read_file"])));
        })
    };
    for break_glass in [false, true] {
        let known = |text| case(break_glass).with_known_tool("read_file", Some(text), Some(text));
        assert_eq!(known("old").decide().map(|plan| plan.grant), Ok(Some(grant_id(1))));
        assert_eq!(known("new").decide().map(|plan| plan.grant), Err(Denial::ConsentRequired));
    }
}

#[test]
fn token_names_its_grant_and_expires_with_it() {
    let short = Grant {
        expires: NOW.saturating_add(Lifetime::minutes(2)),
        ..grant(1, Some(tools(&["read_file", "list_files"])))
    };
    let case = requiring_consent("required").change(|c| c.grants = vec![short.clone()]);
    let plan = case.decide().unwrap();
    assert_eq!((plan.grant, plan.expires), (Some(short.id), short.expires));
    assert!(
        matches!(plan.task, PlannedTask::Open { deadline, .. } if deadline == short.expires),
        "the task ends with the grant too"
    );
    // Of several grants, the one that expires last.
    let longer = Grant {
        expires: NOW.saturating_add(Lifetime::minutes(4)),
        ..grant(2, Some(tools(&["read_file", "list_files"])))
    };
    let plan = case.clone().change(|c| c.grants.push(longer.clone())).decide().unwrap();
    assert_eq!((plan.grant, plan.expires), (Some(longer.id), longer.expires));
    // Without a requirement and with other evidence, grants are ignored.
    let plan = Case::with_user_token().change(|c| c.grants = vec![short.clone()]).decide().unwrap();
    assert_eq!(plan.grant, None);
    // A hand-over token, and the token derived from it, depend on the same grant.
    let (held, kind) = case.issue_token(1);
    assert_eq!(held.revocation_keys().grant, Some(short.id));
    let handing = Case::with_issued_token("planner", (held, kind)).change(|c| {
        c.objects.clone_from(&case.objects);
        c.grants = vec![short.clone()];
        c.requested_token = TokenRequest::HandOver("reader", "files");
    });
    let handed =
        Case::with_issued_token("reader", handing.issue_token(2)).change(|c| c.objects.clone_from(&case.objects));
    // Where consent is required, exactly that grant must cover the request.
    let with = |grants: Vec<Grant>| handed.clone().change(|c| c.grants = grants).decide();
    let plan = with(vec![short.clone()]).unwrap();
    assert_eq!((plan.grant, plan.expires), (Some(short.id), short.expires));
    for grants in [
        Vec::new(),
        vec![longer],
        vec![Grant { authority: None, ..short.clone() }],
        vec![Grant { authority: Some(tools(&["read_file"])), ..short.clone() }],
    ] {
        assert_eq!(with(grants).map(|plan| plan.grant), Err(Denial::ConsentRequired));
    }
    let not_required = handed.change(|c| c.objects.clone_from(&Case::with_user_token().objects));
    assert_eq!(not_required.decide().map(|plan| plan.grant), Ok(Some(short.id)));
}

#[test]
fn reversible_tool_needs_no_consent_under_destructive_policy() {
    let all = |case: Case| {
        case.with_object("planner", |planner| planner["access"][0]["scopes"] = json!(["files:write", "files:delete"]))
            .with_user_claims(|u| u.scope = Some("files:write files:delete".parse().unwrap()))
    };
    for (scope, want) in [("files:write", Ok(None)), ("files:delete", Err(Denial::ConsentRequired))] {
        let case = all(requiring_consent("destructive")).change(|c| c.scope = Some(scope));
        assert_eq!(case.decide().map(|plan| plan.grant), want, "{scope}");
    }
    let consented = all(requiring_consent("destructive")).change(|c| {
        c.scope = Some("files:delete");
        c.grants = vec![grant(1, Some(tools(&["delete_file"])))];
    });
    assert_eq!(consented.decide().map(|plan| plan.grant), Ok(Some(grant_id(1))));
}

const TOOL_NAMES: [&str; 4] = ["read_file", "list_files", "write_file", "search"];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// Where issuer or resource require consent, no token exceeds a single live grant, and every
    /// request within one succeeds.
    #[test]
    fn issued_authority_is_within_one_live_grant(
        by_issuer in any::<bool>(),
        requested in subsequence(TOOL_NAMES[..3].to_vec(), 1..=3),
        grants in prop::collection::vec((subsequence(TOOL_NAMES.to_vec(), 0..=4), any::<bool>(), -100..900_i64, 0..4_u8), 0..4),
    ) {
        let grants = (1..).zip(grants).map(|(n, (names, has_authority, seconds, kind))| {
            let mut one = grant(n, has_authority.then(|| tools(&names)));
            one.expires = Timestamp::from_unix(NOW.unix() + seconds);
            match kind {
                0 => one.agent = "reader".parse().unwrap(),
                1 => one.requester.subject = "bob".parse().unwrap(),
                _ => {}
            }
            one
        }).collect::<Vec<_>>();
        let place = if by_issuer { LOGIN } else { "files" };
        let case = Case::with_user_token().with_object(place, |object| object["consent"] = json!("required")).change(|c| {
            (c.scope, c.details, c.grants) = (None, Some(tools(&requested)), grants.clone());
        });
        let fits = |one: &Grant| {
            one.requester == alice().requester && one.agent.as_str() == "planner" && one.expires > NOW
                && one.authority.as_ref().is_some_and(|a| requested.iter().all(|name| tools(&[name]).is_subset_of(a)))
        };
        match case.decide() {
            Ok(plan) => {
                let one = grants.iter().find(|one| Some(one.id) == plan.grant).unwrap();
                prop_assert!(fits(one));
                let held = one.authority.as_ref().unwrap();
                prop_assert!(plan.authority.is_subset_of(&plan.authority.intersect(held)), "{:?}", plan.authority);
                prop_assert!(plan.expires <= one.expires);
                let PlannedTask::Open { authority, deadline, .. } = &plan.task else { panic!("not a new task") };
                prop_assert!(authority.is_subset_of(held) && *deadline <= one.expires);
            }
            Err(denial) => {
                prop_assert_eq!(denial, Denial::ConsentRequired);
                prop_assert!(!grants.iter().any(fits));
            }
        }
    }
}
