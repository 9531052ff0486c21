//! Asking for more than somebody has: where, and whose.

use super::*;
use crate::domain::authority::parse_details;

pub(super) fn about_scopes_and_tools() -> Vec<Row> {
    let scope = |scope| move |c: &mut Case| c.scope = Some(scope);
    let details = |names: &'static [&'static str]| {
        move |c: &mut Case| {
            c.scope = None;
            c.details = Some(tools(names));
        }
    };
    let all = |u: &mut UserClaims| u.scope = Some("files:read files:write files:delete".parse().unwrap());
    let little = |u: &mut UserClaims| u.scope = Some("files:read".parse().unwrap());
    let bob = |groups: Value| Case::user().change(|c| c.subject = Subject::User(Box::new(bob(&groups))));
    let join = |authority| Case::user().change(|c| c.task = Wanted::Named(task_id(7), Some(Box::new(task(authority)))));
    let write = "files:write";
    vec![
        ("asks for nothing", Case::user().change(|c| c.scope = None), Denial::NothingAsked),
        ("an unknown scope", Case::user().change(scope("files:read files:own")), wide("[1]", Holding::Catalogue)),
        ("a scope of another resource", Case::user().change(scope("mail:read")), wide("[0]", Holding::Catalogue)),
        (
            "an unknown tool",
            Case::user().change(details(&["read_file", "own_file"])),
            much("[0].identifier", Holding::Catalogue),
        ),
        (
            "a tool of a disabled resource, beside others",
            Case::user().change(details(&["read_file", "search"])).object("mail", |o| o["disabled"] = true.into()),
            much("[1].identifier", Holding::Catalogue),
        ),
        (
            "more than the agent may",
            Case::user().user_claims(all).change(scope("files:delete")),
            wide("[0]", Holding::Agent),
        ),
        (
            "more than the agent may, by name",
            Case::user().user_claims(all).change(details(&["delete_file"])),
            much("[0].identifier", Holding::Agent),
        ),
        (
            "more than the next agent may",
            Case::user().change(scope(write)).change(|c| c.output = Out::HandOver("reader", "files")),
            wide("[0]", Holding::NextAgent),
        ),
        (
            "more than the next agent may, by name",
            Case::user()
                .change(details(&["read_file", "write_file"]))
                .change(|c| c.output = Out::HandOver("reader", "files")),
            much("[1].identifier", Holding::NextAgent),
        ),
        (
            "more than the user's scope",
            Case::user().user_claims(little).change(scope(write)),
            wide("[0]", Holding::Requester),
        ),
        (
            "more than the user's scope, by name",
            Case::user().user_claims(little).change(details(&["write_file"])),
            much("[0].identifier", Holding::Requester),
        ),
        (
            "more than the user's groups give",
            bob(json!(["staff"])).change(scope(write)),
            wide("[0]", Holding::Requester),
        ),
        ("a group of another name", bob(json!(["staffing", "Staff", 1])), wide("[0]", Holding::Requester)),
        ("groups as one text", bob(json!("staff admins")), wide("[0]", Holding::Requester)),
        ("more than the parent", Case::held().change(scope(write)), wide("[0]", Holding::Parent)),
        (
            "more than the parent, by name",
            Case::handed().change(details(&["write_file"])).object("reader", |o| {
                o["access"] = json!([{"resource": "files", "scopes": ["files:read", "files:write"]}]);
            }),
            much("[0].identifier", Holding::Parent),
        ),
        (
            "more than the parent, inside",
            Case::inside().change(details(&["search"])),
            much("[0].identifier", Holding::Parent),
        ),
        ("more than the task", join(tools(&["read_file"])), wide("[0]", Holding::Task)),
        (
            "more than the task, by name",
            join(tools(&["read_file"])).change(details(&["list_files"])),
            much("[0].identifier", Holding::Task),
        ),
        ("all elsewhere", Case::user().change(details(&["search"])), Denial::NothingForTarget),
        (
            "all elsewhere, to be handed over",
            Case::user()
                .change(details(&["search"]))
                .change(|c| c.output = Out::HandOver("writer", "files"))
                .object("writer", |o| o["access"] = json!([{"resource": "mail", "tools": ["search"]}])),
            Denial::NothingForTarget,
        ),
    ]
}

/// `read_file`, with rules for its arguments as they stand in a request.
fn read_file(rules: &str) -> Authority {
    let text = format!(r#"[{{"type":"mcp_tool","actions":["tools/call"],"identifier":"read_file"{rules}}}]"#);
    parse_details(&text, Some(&FILES.parse().unwrap())).unwrap()
}

const REPORTS: &str = r#","constraints":{"path":{"prefix":"/reports/"},"limit":{"max":100}}"#;

/// The planner may read reports, a hundred lines at a time, and write.
fn reports_only(case: Case) -> Case {
    let rules = json!({"path": {"prefix": "/reports/"}, "limit": {"max": 100}});
    case.object("planner", |o| {
        o["access"] = json!([{"resource": "files", "scopes": ["files:write"],
            "tools": ["list_files", {"identifier": "read_file", "constraints": rules}]}]);
    })
}

/// Bob's groups let him do the same.
fn entitled_to_reports() -> Case {
    let rules = json!({"path": {"prefix": "/reports/"}, "limit": {"max": 100}});
    Case::user().change(|c| c.subject = Subject::User(Box::new(bob(&json!(["staff"]))))).object(PARTNER, |o| {
        o["entitlements"] = json!([{"to": {"claim": {"name": "groups", "value": "staff"}}, "resource": "files",
            "tools": [{"identifier": "read_file", "constraints": rules}]}]);
    })
}

fn asking(case: Case, rules: &str) -> Case {
    let details = read_file(rules);
    case.change(|c| (c.scope, c.details) = (None, Some(details)))
}

pub(super) fn about_arguments() -> Vec<Row> {
    let agent = |rules: &str| asking(reports_only(Case::user()), rules);
    let requester = |rules: &str| asking(entitled_to_reports(), rules);
    let at = |place: &str| format!("[0].constraints{place}");
    vec![
        ("a scope, with rules for a tool of it", reports_only(Case::user()), wide("[0]", Holding::Agent)),
        ("every call, with rules", agent(""), much(&at(".limit"), Holding::Agent)),
        ("a rule is left out", agent(r#","constraints":{"limit":{"max":5}}"#), much(&at(".path"), Holding::Agent)),
        (
            "a rule is wider",
            agent(r#","constraints":{"limit":{"max":101},"path":{"prefix":"/reports/"}}"#),
            much(&at(".limit"), Holding::Agent),
        ),
        (
            "an argument that is not named there",
            agent(r#","constraints":{"limit":{"max":1},"path":{"prefix":"/reports/"},"mode":{"any":true}}"#),
            much(&at(".mode"), Holding::Agent),
        ),
        (
            "any other argument",
            agent(&format!("{REPORTS},\"additional_arguments\":true")),
            much("[0].additional_arguments", Holding::Agent),
        ),
        ("a user's scope means every call", entitled_to_reports(), wide("[0]", Holding::Requester)),
        // Which arguments the user's rules are about is not the agent's to know.
        ("more than the user may", requester(""), much(&at(""), Holding::Requester)),
        (
            "more than the user may, at an argument",
            requester(r#","constraints":{"limit":{"max":500}}"#),
            much(&at(".limit"), Holding::Requester),
        ),
        (
            "more than the user may, at one that is not named",
            requester(r#","constraints":{"limit":{"max":5}}"#),
            much(&at(""), Holding::Requester),
        ),
        (
            "more than the parent, at an argument",
            asking(Case::with("planner", asking(Case::user(), REPORTS).token(1)), ""),
            much(&at(".limit"), Holding::Parent),
        ),
        (
            "more than the task, at an argument",
            asking(Case::user(), "")
                .change(|c| c.task = Wanted::Named(task_id(7), Some(Box::new(task(read_file(REPORTS)))))),
            much(&at(".limit"), Holding::Task),
        ),
    ]
}

#[test]
fn rules_let_through_what_is_within_them() {
    let narrow = r#","constraints":{"path":{"one_of":["/reports/q3.md"]},"limit":{"max":5}}"#;
    for rules in [REPORTS, narrow] {
        for case in [asking(reports_only(Case::user()), rules), asking(entitled_to_reports(), rules)] {
            let plan = case.decide().unwrap();
            assert_eq!(plan.authority, read_file(rules));
            assert_eq!(plan.scope.to_string(), "", "a scope would say every call");
        }
    }
    // A bare tool beside it, and a scope beside it, are as they were.
    let listed = reports_only(Case::user()).change(|c| (c.scope, c.details) = (None, Some(tools(&["list_files"]))));
    assert_eq!(listed.decide().unwrap().authority, tools(&["list_files"]));
    assert!(reports_only(Case::user()).change(|c| c.scope = Some("files:write")).decide().is_ok());
    // Two uses of one tool side by side: either, and not both mixed.
    let two = |case: Case| {
        case.object("planner", |o| {
            let use_of = |folder: &str, max: u32| {
                json!({"identifier": "read_file", "constraints": {"path": {"prefix": folder}, "limit": {"max": max}}})
            };
            o["access"] = json!([{"resource": "files", "tools": [use_of("/a/", 5), use_of("/b/", 50)]}]);
        })
    };
    let at = |folder: &str, max: u32| {
        let rules = format!(r#","constraints":{{"path":{{"prefix":"{folder}"}},"limit":{{"max":{max}}}}}"#);
        asking(two(Case::user()), &rules).decide().map(drop).map_err(without_allowed)
    };
    assert_eq!((at("/a/", 5), at("/b/x/", 50)), (Ok(()), Ok(())));
    assert_eq!(at("/a/", 50), Err(much("[0].constraints", Holding::Agent)));
}

/// A scope that stands in a request again and again is looked at once, whether it is all right or not.
#[test]
fn a_scope_counts_once() {
    let often = |scope: &str| &*format!("{} files:write", [scope; 63].join(" ")).leak();
    let allocations = |scope: &'static str, change: fn(Case) -> Case| {
        let case = change(Case::user()).change(|c| c.scope = Some(scope));
        let mut answer = None;
        let info = allocation_counter::measure(|| answer = Some(case.decide().map_err(without_allowed)));
        (info.count_total, answer.unwrap())
    };
    let little: fn(Case) -> Case = |case| case.user_claims(|u| u.scope = Some("files:read".parse().unwrap()));
    let (one, given) = allocations("files:read files:write", |case| case);
    let (many, given_too) = allocations(often("files:read"), |case| case);
    assert!(given.is_ok() && given.map(|plan| plan.authority) == given_too.map(|plan| plan.authority));
    assert!(many < one + 400, "{one} allocations, and {many}");
    let (one, refused) = allocations("files:read files:write", little);
    let (many, refused_too) = allocations(often("files:read"), little);
    assert_eq!((refused, refused_too), (Err(wide("[1]", Holding::Requester)), Err(wide("[63]", Holding::Requester))));
    assert!(many < one + 400, "{one} allocations, and {many}");
}

/// Of its own limits an agent is told how much they leave; of others' nothing.
#[test]
fn what_can_be_had_is_told_of_ones_own_limits_alone() {
    let allowed = |case: &Case| match case.decide() {
        Err(Denial::ScopeTooWide(excess) | Denial::DetailsTooWide(excess)) => excess.allowed,
        other => panic!("{other:?}"),
    };
    let by_scope = reports_only(Case::user());
    let both = read_file(REPORTS).iter().chain(tools(&["list_files"]).iter()).cloned().collect::<Authority>();
    assert_eq!(allowed(&by_scope), Some(both), "as much of the scope as there is");
    let wide = r#","constraints":{"path":{"prefix":"/reports/2026"},"limit":{"max":500}}"#;
    let met = r#","constraints":{"path":{"prefix":"/reports/2026"},"limit":{"max":100}}"#;
    assert_eq!(allowed(&asking(reports_only(Case::user()), wide)), Some(read_file(met)));
    // Its token and its ceiling meet.
    let small = r#","constraints":{"path":{"prefix":"/"},"limit":{"max":7}}"#;
    let held = reports_only(Case::with("planner", asking(Case::user(), small).token(1)));
    let both = r#","constraints":{"path":{"prefix":"/reports/"},"limit":{"max":7}}"#;
    assert_eq!(allowed(&asking(held, "")), Some(read_file(both)));
    // Nothing is left, so nothing is told.
    let elsewhere = r#","constraints":{"path":{"prefix":"/etc/"},"limit":{"max":1}}"#;
    assert_eq!(allowed(&asking(reports_only(Case::user()), elsewhere)), None);
    for case in [
        entitled_to_reports(),
        asking(entitled_to_reports(), ""),
        asking(entitled_to_reports(), wide),
        Case::user()
            .user_claims(|u| u.scope = Some("files:read".parse().unwrap()))
            .change(|c| c.scope = Some("files:write")),
        Case::user().change(|c| (c.scope, c.output) = (Some("files:write"), Out::HandOver("reader", "files"))),
    ] {
        assert_eq!(allowed(&case), None);
    }
}
