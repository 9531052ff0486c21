//! Requests that exceed a ceiling: location and owner.

use super::*;
use crate::domain::authority::parse_details;

#[expect(clippy::too_many_lines, reason = "a table")]
pub(super) fn scope_and_tool_rows() -> Vec<Row> {
    let scope = |scope| move |c: &mut Case| c.scope = Some(scope);
    let details = |names: &'static [&'static str]| {
        move |c: &mut Case| {
            c.scope = None;
            c.details = Some(tools(names));
        }
    };
    let all = |u: &mut UserClaims| u.scope = Some("files:read files:write files:delete".parse().unwrap());
    let small = |u: &mut UserClaims| u.scope = Some("files:read".parse().unwrap());
    let bob = |groups: Value| Case::with_user_token().change(|c| c.subject = Subject::User(Box::new(bob(&groups))));
    let join = |authority| {
        Case::with_user_token().change(|c| c.task = TaskRequest::Named(task_id(7), Some(Box::new(task(authority)))))
    };
    let write = "files:write";
    vec![
        ("no authority", Case::with_user_token().change(|c| c.scope = None), Denial::NoAuthorityRequested),
        (
            "an unknown scope",
            Case::with_user_token().change(scope("files:read files:own")),
            scope_exceeds("[1]", CeilingOwner::Catalogue),
        ),
        (
            "a scope of another resource",
            Case::with_user_token().change(scope("mail:read")),
            scope_exceeds("[0]", CeilingOwner::Catalogue),
        ),
        (
            "an unknown tool",
            Case::with_user_token().change(details(&["read_file", "own_file"])),
            details_exceed("[0].identifier", CeilingOwner::Catalogue),
        ),
        (
            "a tool of a disabled resource, with others",
            Case::with_user_token()
                .change(details(&["read_file", "search"]))
                .with_object("mail", |o| o["disabled"] = true.into()),
            details_exceed("[1].identifier", CeilingOwner::Catalogue),
        ),
        (
            "more than the agent may",
            Case::with_user_token().with_user_claims(all).change(scope("files:delete")),
            scope_exceeds("[0]", CeilingOwner::Agent),
        ),
        (
            "more than the agent may, by name",
            Case::with_user_token().with_user_claims(all).change(details(&["delete_file"])),
            details_exceed("[0].identifier", CeilingOwner::Agent),
        ),
        (
            "more than the next agent may",
            Case::with_user_token()
                .change(scope(write))
                .change(|c| c.requested_token = TokenRequest::HandOver("reader", "files")),
            scope_exceeds("[0]", CeilingOwner::NextAgent),
        ),
        (
            "more than the next agent may, by name",
            Case::with_user_token()
                .change(details(&["read_file", "write_file"]))
                .change(|c| c.requested_token = TokenRequest::HandOver("reader", "files")),
            details_exceed("[1].identifier", CeilingOwner::NextAgent),
        ),
        (
            "more than the user's scope",
            Case::with_user_token().with_user_claims(small).change(scope(write)),
            scope_exceeds("[0]", CeilingOwner::Requester),
        ),
        (
            "more than the user's scope, by name",
            Case::with_user_token().with_user_claims(small).change(details(&["write_file"])),
            details_exceed("[0].identifier", CeilingOwner::Requester),
        ),
        (
            "more than the user's groups give",
            bob(json!(["staff"])).change(scope(write)),
            scope_exceeds("[0]", CeilingOwner::Requester),
        ),
        (
            "a group of another name",
            bob(json!(["staffing", "Staff", 1])),
            scope_exceeds("[0]", CeilingOwner::Requester),
        ),
        ("groups as one string", bob(json!("staff admins")), scope_exceeds("[0]", CeilingOwner::Requester)),
        (
            "more than the parent",
            Case::with_access_token().change(scope(write)),
            scope_exceeds("[0]", CeilingOwner::Parent),
        ),
        (
            "more than the parent, by name",
            Case::with_handed_over_token().change(details(&["write_file"])).with_object("reader", |o| {
                o["access"] = json!([{"resource": "files", "scopes": ["files:read", "files:write"]}]);
            }),
            details_exceed("[0].identifier", CeilingOwner::Parent),
        ),
        (
            "more than the parent, by a transaction token",
            Case::with_txn_token().change(details(&["search"])),
            details_exceed("[0].identifier", CeilingOwner::Parent),
        ),
        ("more than the task", join(tools(&["read_file"])), scope_exceeds("[0]", CeilingOwner::Task)),
        (
            "more than the task, by name",
            join(tools(&["read_file"])).change(details(&["list_files"])),
            details_exceed("[0].identifier", CeilingOwner::Task),
        ),
        ("all at another resource", Case::with_user_token().change(details(&["search"])), Denial::NoAuthorityAtTarget),
        (
            "all at another resource, in a hand-over",
            Case::with_user_token()
                .change(details(&["search"]))
                .change(|c| c.requested_token = TokenRequest::HandOver("writer", "files"))
                .with_object("writer", |o| o["access"] = json!([{"resource": "mail", "tools": ["search"]}])),
            Denial::NoAuthorityAtTarget,
        ),
    ]
}

/// `read_file` with constraints on its arguments, as in a request.
fn read_file(rules: &str) -> Authority {
    let text = format!(r#"[{{"type":"mcp_tool","actions":["tools/call"],"identifier":"read_file"{rules}}}]"#);
    parse_details(&text, Some(&FILES.parse().unwrap())).unwrap()
}

const REPORTS_RULES: &str = r#","constraints":{"path":{"prefix":"/reports/"},"limit":{"max":100}}"#;

/// The planner may read reports, a hundred lines at a time, and write.
fn reports_only(case: Case) -> Case {
    let rules = json!({"path": {"prefix": "/reports/"}, "limit": {"max": 100}});
    case.with_object("planner", |o| {
        o["access"] = json!([{"resource": "files", "scopes": ["files:write"],
            "tools": ["list_files", {"identifier": "read_file", "constraints": rules}]}]);
    })
}

/// Bob may read the same reports by his groups.
fn entitled_to_reports() -> Case {
    let rules = json!({"path": {"prefix": "/reports/"}, "limit": {"max": 100}});
    Case::with_user_token().change(|c| c.subject = Subject::User(Box::new(bob(&json!(["staff"]))))).with_object(
        PARTNER,
        |o| {
            o["entitlements"] = json!([{"to": {"claim": {"name": "groups", "value": "staff"}}, "resource": "files",
            "tools": [{"identifier": "read_file", "constraints": rules}]}]);
        },
    )
}

fn requesting_with_rules(case: Case, rules: &str) -> Case {
    let details = read_file(rules);
    case.change(|c| (c.scope, c.details) = (None, Some(details)))
}

pub(super) fn argument_rows() -> Vec<Row> {
    let agent = |rules: &str| requesting_with_rules(reports_only(Case::with_user_token()), rules);
    let requester = |rules: &str| requesting_with_rules(entitled_to_reports(), rules);
    let at = |place: &str| format!("[0].constraints{place}");
    vec![
        (
            "a scope with a constrained tool",
            reports_only(Case::with_user_token()),
            scope_exceeds("[0]", CeilingOwner::Agent),
        ),
        ("every call of a constrained tool", agent(""), details_exceed(&at(".limit"), CeilingOwner::Agent)),
        (
            "a rule is missing",
            agent(r#","constraints":{"limit":{"max":5}}"#),
            details_exceed(&at(".path"), CeilingOwner::Agent),
        ),
        (
            "a rule is wider",
            agent(r#","constraints":{"limit":{"max":101},"path":{"prefix":"/reports/"}}"#),
            details_exceed(&at(".limit"), CeilingOwner::Agent),
        ),
        (
            "an argument without a rule",
            agent(r#","constraints":{"limit":{"max":1},"path":{"prefix":"/reports/"},"mode":{"any":true}}"#),
            details_exceed(&at(".mode"), CeilingOwner::Agent),
        ),
        (
            "any other argument",
            agent(&format!("{REPORTS_RULES},\"additional_arguments\":true")),
            details_exceed("[0].additional_arguments", CeilingOwner::Agent),
        ),
        ("a user's scope means every call", entitled_to_reports(), scope_exceeds("[0]", CeilingOwner::Requester)),
        // The agent must not learn which arguments the user's rules name.
        ("more than the user may", requester(""), details_exceed(&at(""), CeilingOwner::Requester)),
        (
            "more than the user may, at an argument",
            requester(r#","constraints":{"limit":{"max":500}}"#),
            details_exceed(&at(".limit"), CeilingOwner::Requester),
        ),
        (
            "more than the user may, at an argument that is not named",
            requester(r#","constraints":{"limit":{"max":5}}"#),
            details_exceed(&at(""), CeilingOwner::Requester),
        ),
        (
            "more than the parent, at an argument",
            requesting_with_rules(
                Case::with_issued_token(
                    "planner",
                    requesting_with_rules(Case::with_user_token(), REPORTS_RULES).issue_token(1),
                ),
                "",
            ),
            details_exceed(&at(".limit"), CeilingOwner::Parent),
        ),
        (
            "more than the task, at an argument",
            requesting_with_rules(Case::with_user_token(), "")
                .change(|c| c.task = TaskRequest::Named(task_id(7), Some(Box::new(task(read_file(REPORTS_RULES)))))),
            details_exceed(&at(".limit"), CeilingOwner::Task),
        ),
    ]
}

#[test]
fn request_within_rules_is_issued() {
    let narrow = r#","constraints":{"path":{"one_of":["/reports/q3.md"]},"limit":{"max":5}}"#;
    for rules in [REPORTS_RULES, narrow] {
        for case in [
            requesting_with_rules(reports_only(Case::with_user_token()), rules),
            requesting_with_rules(entitled_to_reports(), rules),
        ] {
            let plan = case.decide().unwrap();
            assert_eq!(plan.authority, read_file(rules));
            assert_eq!(plan.scope.to_string(), "", "a scope would allow every call");
        }
    }
    // An unconstrained tool and another scope are unaffected.
    let listed =
        reports_only(Case::with_user_token()).change(|c| (c.scope, c.details) = (None, Some(tools(&["list_files"]))));
    assert_eq!(listed.decide().unwrap().authority, tools(&["list_files"]));
    assert!(reports_only(Case::with_user_token()).change(|c| c.scope = Some("files:write")).decide().is_ok());
    // Two entries for one tool: each applies on its own, without mixing.
    let two = |case: Case| {
        case.with_object("planner", |o| {
            let use_of = |folder: &str, max: u32| {
                json!({"identifier": "read_file", "constraints": {"path": {"prefix": folder}, "limit": {"max": max}}})
            };
            o["access"] = json!([{"resource": "files", "tools": [use_of("/a/", 5), use_of("/b/", 50)]}]);
        })
    };
    let at = |folder: &str, max: u32| {
        let rules = format!(r#","constraints":{{"path":{{"prefix":"{folder}"}},"limit":{{"max":{max}}}}}"#);
        requesting_with_rules(two(Case::with_user_token()), &rules).decide().map(drop).map_err(without_allowed)
    };
    assert_eq!((at("/a/", 5), at("/b/x/", 50)), (Ok(()), Ok(())));
    assert_eq!(at("/a/", 50), Err(details_exceed("[0].constraints", CeilingOwner::Agent)));
}

/// A repeated scope is evaluated once, whether it is allowed or not.
#[test]
fn repeated_scope_is_evaluated_once() {
    let repeated = |scope: &str| &*format!("{} files:write", [scope; 63].join(" ")).leak();
    let allocations = |scope: &'static str, change: fn(Case) -> Case| {
        let case = change(Case::with_user_token()).change(|c| c.scope = Some(scope));
        let mut answer = None;
        let info = allocation_counter::measure(|| answer = Some(case.decide().map_err(without_allowed)));
        (info.count_total, answer.unwrap())
    };
    let small: fn(Case) -> Case = |case| case.with_user_claims(|u| u.scope = Some("files:read".parse().unwrap()));
    let (single, plan) = allocations("files:read files:write", |case| case);
    let (many, same_plan) = allocations(repeated("files:read"), |case| case);
    assert!(plan.is_ok() && plan.map(|plan| plan.authority) == same_plan.map(|plan| plan.authority));
    assert!(many < single + 400, "{single} allocations, and {many}");
    let (single, denial) = allocations("files:read files:write", small);
    let (many, same_denial) = allocations(repeated("files:read"), small);
    assert_eq!(
        (denial, same_denial),
        (Err(scope_exceeds("[1]", CeilingOwner::Requester)), Err(scope_exceeds("[63]", CeilingOwner::Requester)))
    );
    assert!(many < single + 400, "{single} allocations, and {many}");
}

/// A denial shows what the agent's own ceilings leave, but not what others' ceilings leave.
#[test]
fn denial_discloses_allowed_part_only_for_own_ceilings() {
    let allowed = |case: &Case| match case.decide() {
        Err(Denial::ScopeExceedsCeiling(excess) | Denial::DetailsExceedCeiling(excess)) => excess.allowed,
        other => panic!("{other:?}"),
    };
    let by_scope = reports_only(Case::with_user_token());
    let both = read_file(REPORTS_RULES).iter().chain(tools(&["list_files"]).iter()).cloned().collect::<Authority>();
    assert_eq!(allowed(&by_scope), Some(both), "the part of the scope within the ceiling");
    let wide = r#","constraints":{"path":{"prefix":"/reports/2026"},"limit":{"max":500}}"#;
    let narrowed = r#","constraints":{"path":{"prefix":"/reports/2026"},"limit":{"max":100}}"#;
    assert_eq!(allowed(&requesting_with_rules(reports_only(Case::with_user_token()), wide)), Some(read_file(narrowed)));
    // The intersection of its token and its ceiling.
    let small = r#","constraints":{"path":{"prefix":"/"},"limit":{"max":7}}"#;
    let held = reports_only(Case::with_issued_token(
        "planner",
        requesting_with_rules(Case::with_user_token(), small).issue_token(1),
    ));
    let both = r#","constraints":{"path":{"prefix":"/reports/"},"limit":{"max":7}}"#;
    assert_eq!(allowed(&requesting_with_rules(held, "")), Some(read_file(both)));
    // An empty intersection is omitted.
    let elsewhere = r#","constraints":{"path":{"prefix":"/etc/"},"limit":{"max":1}}"#;
    assert_eq!(allowed(&requesting_with_rules(reports_only(Case::with_user_token()), elsewhere)), None);
    for case in [
        entitled_to_reports(),
        requesting_with_rules(entitled_to_reports(), ""),
        requesting_with_rules(entitled_to_reports(), wide),
        Case::with_user_token()
            .with_user_claims(|u| u.scope = Some("files:read".parse().unwrap()))
            .change(|c| c.scope = Some("files:write")),
        Case::with_user_token().change(|c| {
            (c.scope, c.requested_token) = (Some("files:write"), TokenRequest::HandOver("reader", "files"));
        }),
    ] {
        assert_eq!(allowed(&case), None);
    }
}
