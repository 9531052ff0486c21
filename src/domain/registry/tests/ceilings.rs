//! Ceilings of agents, users and tokens, as computed from the registry.

use super::*;
use crate::domain::{
    authority::{Action, ListAction, Permission},
    id::ToolDigest,
    registry::{
        Reduction,
        issuer::{ClaimMatcher, MatchMode, UserMatcher},
        tool::{KnownTool, ToolUnavailable},
    },
};

fn action_text(permission: &Permission) -> &str {
    match &permission.action {
        Action::Call(tool) => tool.as_str(),
        Action::List(listing) => listing.as_str(),
    }
}

fn summarize(authority: &Authority) -> String {
    let name = |p: &Permission| {
        format!("{}.{}", p.resource.as_str().trim_start_matches("https://").split('.').next().unwrap(), action_text(p))
    };
    authority.iter().map(name).collect::<Vec<_>>().join(" ")
}

#[test]
fn ceilings_of_agent_user_and_scope_are_resolved() {
    let mut objects = consistent_objects();
    let registry = build(objects.clone()).unwrap();
    let agent = |id: &str| registry.agent(&id.parse().unwrap()).unwrap();
    assert_eq!(
        summarize(&registry.catalogue(|_| true)),
        "files.drop files.list files.read files.write mail.read mail.send"
    );
    // `s:read` at files, and `drop` by name, but not the `s:read` of mail.
    assert_eq!(summarize(&registry.ceiling(agent("planner"), |_| true)), "files.drop files.list files.read");
    assert_eq!(summarize(&registry.ceiling(agent("reader"), |_| true)), "");

    let scopes = |text: &str| text.parse().unwrap();
    let files = "https://files.example.com/mcp".parse().unwrap();
    assert_eq!(summarize(&registry.tools_under_scopes(&scopes("s:read"), |_| true)), "files.list files.read mail.read");
    assert_eq!(
        summarize(&registry.tools_under_scopes(&scopes("s:read s:send"), |uri| *uri == files)),
        "files.list files.read"
    );
    assert_eq!(summarize(&registry.tools_under_scopes(&scopes("S:read s"), |_| true)), "");

    assert_eq!(
        summarize(&registry.catalogue(|uri| *uri == files)),
        "files.drop files.list files.read files.write",
        "the part that is there"
    );
    assert_eq!(summarize(&registry.ceiling(agent("planner"), |uri| *uri != files)), "");
    let offered = registry.offered_scopes(|uri| *uri != files).iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(offered, ["s:read", "s:send"]);

    let rule = |rule: Value| serde_json::from_value::<Entitlement>(rule).unwrap();
    for (rules, want) in [
        (vec![], ""),
        (vec![rule(json!({"to": "everyone", "scopes": ["s:read"]}))], "files.list files.read mail.read"),
        (
            vec![rule(json!({"to": "everyone", "resource": "mail", "scopes": ["s:read"], "tools": ["send"]}))],
            "mail.read mail.send",
        ),
        (vec![rule(json!({"to": "everyone", "tools": ["read"]}))], "files.read mail.read"),
        (
            vec![
                rule(json!({"to": "everyone", "resource": "mail", "tools": ["send"]})),
                rule(json!({"to": "everyone", "resource": "files", "tools": ["drop", "nothing"]})),
            ],
            "files.drop mail.send",
        ),
    ] {
        let everywhere = registry.resolve_entitlements(rules.iter(), |_| true);
        assert_eq!(summarize(&everywhere), want, "{rules:?}");
        assert_eq!(
            registry.resolve_entitlements(rules.iter(), |uri| *uri == files),
            everywhere.restrict_to(&files),
            "{rules:?}"
        );
    }

    // A blocked resource is not offered and not included by a scope.
    objects.get_mut("resource mail").unwrap()["disabled"] = true.into();
    let less = build(objects).unwrap();
    assert_eq!(summarize(&less.catalogue(|_| true)), "files.drop files.list files.read files.write");
    assert_eq!(summarize(&less.tools_under_scopes(&scopes("s:read"), |_| true)), "files.list files.read");
}

#[test]
fn access_rules_become_ceiling_constraints() {
    let mut objects = consistent_objects();
    let some = json!({"identifier": "read", "constraints": {"path": {"prefix": "/a/"}}});
    objects.get_mut("agent planner").unwrap()["access"] =
        json!([{"resource": "files", "scopes": ["s:write"], "tools": ["list", some]}]);
    objects.get_mut("agent planner").unwrap()["may_delegate_to"] =
        json!([{"agent": "reader", "access": [{"resource": "files", "tools": [some]}]}]);
    let registry = build(objects).unwrap();
    let planner = registry.agent(&"planner".parse().unwrap()).unwrap();
    let files = "https://files.example.com/mcp".parse::<ResourceUri>().unwrap();
    let reads = |authority: &Authority, path: &str| {
        let arguments = [("path".to_owned(), crate::domain::authority::Arg::Text(path.to_owned()))].into();
        authority.allows(&files, &"read".parse().unwrap(), &arguments)
    };
    let ceiling = registry.ceiling(planner, |_| true);
    assert_eq!(summarize(&ceiling), "files.list files.read files.write");
    assert!(reads(&ceiling, "/a/x") && !reads(&ceiling, "/b"));
    let edge = planner.edge_to(&"reader".parse().unwrap()).unwrap();
    let ceiling = registry.edge_ceiling(edge, |_| true).unwrap();
    assert_eq!(summarize(&ceiling), "files.read");
    assert!(reads(&ceiling, "/a/x") && !reads(&ceiling, "/b"));
    let rule = json!({"to": "everyone", "tools": [some]});
    let entitled = registry.resolve_entitlements([serde_json::from_value(rule).unwrap()].iter(), |_| true);
    assert_eq!(summarize(&entitled), "files.read mail.read");
    assert!(reads(&entitled, "/a/x") && !reads(&entitled, "/b"));
    assert!(planner.edge_to(&"planner".parse().unwrap()).is_none());
}

#[test]
fn edge_is_written_as_name_or_object() {
    for written in [
        json!("b"),
        json!({"agent": "b", "depth": 2}),
        json!({"agent": "b", "access": [{"resource": "files", "scopes": ["s:read"], "tools": []}]}),
    ] {
        let edge = serde_json::from_value::<Edge>(written.clone()).unwrap();
        assert_eq!(serde_json::to_value(&edge).unwrap(), written);
        assert_eq!(edge.agent.as_str(), "b");
    }
    for bad in [
        json!({}),
        json!(1),
        json!(["b"]),
        json!({"agent": "b", "deep": 1}),
        json!({"agent": "b", "depth": "1"}),
        json!({"agent": "b", "depth": -1}),
        json!({"agent": "b", "depth": 256}),
        json!({"agent": "b", "access": {"resource": "files"}}),
        json!({"agent": "not an id"}),
        json!("not an id"),
    ] {
        assert!(serde_json::from_value::<Edge>(bad.clone()).is_err(), "{bad}");
    }
}

#[test]
fn entitlement_applies_only_to_matching_users() {
    let (path, value, mode) = (vec!["groups".into()], "staff".into(), MatchMode::Value);
    let holder = UserMatcher::Claim(ClaimMatcher { path, value, mode });
    for (claims, want) in [
        (json!({"groups": "staff"}), true),
        (json!({"groups": ["x", "staff"]}), true),
        (json!({}), false),
        (json!({"groups": null}), false),
        (json!({"groups": "Staff"}), false),
        (json!({"groups": "staff "}), false),
        (json!({"groups": "staff admins"}), false),
        (json!({"groups": ["staffing"]}), false),
        (json!({"groups": [["staff"]]}), false),
        (json!({"groups": {"staff": true}}), false),
        (json!({"groups": true}), false),
        (json!({"Groups": "staff"}), false),
    ] {
        assert_eq!(holder.matches(claims.as_object().unwrap()), want, "{claims}");
        assert!(UserMatcher::Everyone.matches(claims.as_object().unwrap()));
    }
}

#[test]
fn scope_is_covered_only_when_all_its_tools_are() {
    let registry = build(consistent_objects()).unwrap();
    let files = "https://files.example.com/mcp".parse::<ResourceUri>().unwrap();
    let mail = "https://mail.example.com/mcp".parse::<ResourceUri>().unwrap();
    let at = |uri: &ResourceUri, tools: &[&str]| {
        let permission = |tool: &&str| Permission::unconstrained(uri.clone(), tool.parse().unwrap());
        tools.iter().map(permission).collect::<Vec<_>>()
    };
    let both = [at(&files, &["read", "list"]), at(&mail, &["read"])].concat();
    for (authority, by, want) in [
        (vec![], None, ""),
        (at(&files, &["read"]), Some(&files), ""),
        (at(&files, &["read", "list"]), Some(&files), "s:read"),
        (at(&files, &["read", "list", "drop"]), Some(&files), "s:drop s:read"),
        (at(&files, &["read", "list", "gone"]), Some(&files), "s:read"),
        // At another resource, or for another reader, the same name is a different tool.
        (at(&files, &["read", "list"]), Some(&mail), ""),
        (at(&files, &["read", "list", "drop"]), None, "s:drop"),
        (both, None, "s:read"),
        (at(&mail, &["read", "list"]), None, ""),
    ] {
        let authority = authority.into_iter().collect();
        assert_eq!(registry.covered_scopes(&authority, by).to_string(), want, "{} {by:?}", summarize(&authority));
    }
    assert_eq!(
        registry.covered_scopes(&registry.catalogue(|_| true), None).to_string(),
        "s:drop s:read s:send s:write"
    );
}

/// Listing is separate from calling: it has its own scope, is granted by that scope, and covered by
/// all listings.
#[test]
fn listing_requires_discovery_scope() {
    let mut objects = consistent_objects();
    objects.get_mut("resource files").unwrap()["discovery_scope"] = json!("s:list");
    objects.get_mut("agent reader").unwrap()["access"] = json!([{"resource": "files", "scopes": ["s:list"]}]);
    let registry = build(objects).unwrap();
    let lists = "files.resources/list files.tools/list";
    let agent = |id: &str| summarize(&registry.ceiling(registry.agent(&id.parse().unwrap()).unwrap(), |_| true));
    assert_eq!((agent("reader").as_str(), agent("planner").as_str()), (lists, "files.drop files.list files.read"));
    let calls = "files.drop files.list files.read files.write";
    assert_eq!(summarize(&registry.catalogue(|uri| uri.as_str().contains("files"))), format!("{calls} {lists}"));
    assert_eq!(summarize(&registry.tools_under_scopes(&"s:list".parse().unwrap(), |_| true)), lists);
    assert_eq!(
        summarize(&registry.tools_under_scopes(&"s:read".parse().unwrap(), |_| true)),
        "files.list files.read mail.read"
    );
    let rule = |rule: Value| [serde_json::from_value::<Entitlement>(rule).unwrap()];
    assert_eq!(
        summarize(
            &registry.resolve_entitlements(rule(json!({"to": "everyone", "scopes": ["s:list"]})).iter(), |_| true)
        ),
        lists
    );
    // A tool may have the name of a listing.
    assert_eq!(
        summarize(
            &registry.resolve_entitlements(rule(json!({"to": "everyone", "tools": ["tools/list"]})).iter(), |_| true)
        ),
        ""
    );
    let files = "https://files.example.com/mcp".parse::<ResourceUri>().unwrap();
    let one = [Permission::listing(files.clone(), ListAction::Tools)];
    let both = ListAction::ALL.map(|listing| Permission::listing(files.clone(), listing));
    assert_eq!(registry.covered_scopes(&one.into_iter().collect(), Some(&files)).to_string(), "");
    assert_eq!(registry.covered_scopes(&both.into_iter().collect(), Some(&files)).to_string(), "s:list");
}

/// What goes into a token, and what of a token is available, for every state of a tool.
#[test]
fn permission_is_bound_to_accepted_definition() {
    let digest = |sign: &str| format!("sha-256:{}", sign.repeat(43)).parse::<ToolDigest>().unwrap();
    let (a, b) = (digest("a"), digest("b"));
    let files = "https://files.example.com/mcp".parse::<ResourceUri>().unwrap();
    let read = |digest: Option<&ToolDigest>| {
        let plain = Permission::unconstrained(files.clone(), "read".parse().unwrap());
        Authority::from_iter([Permission { digest: digest.cloned(), ..plain }])
    };
    let list = Authority::from_iter([Permission::unconstrained(files.clone(), "list".parse().unwrap())]);
    let with = |accepted: Option<&ToolDigest>, observed: Option<&ToolDigest>| {
        let known = KnownTool { accepted: accepted.cloned(), observed: observed.cloned() };
        let known = BTreeMap::from([("read".parse().unwrap(), known)]);
        build(consistent_objects()).unwrap().with_tools(BTreeMap::from([("files".parse().unwrap(), known)]))
    };
    let no = |why| Err(UnacceptedTool { tool: "read".parse().unwrap(), reason: why });
    let unasked = build(consistent_objects()).unwrap();
    for digest in [None, Some(&a)] {
        assert_eq!(unasked.bind_definitions(&read(digest)), Ok(read(digest)));
        assert_eq!(unasked.remaining_available(&read(digest)), Reduction::Unchanged);
    }
    // (accepted, observed), requested: what goes into a token, and whether the permission is
    // available.
    for (accepted, observed, requested, want, is_available) in [
        (Some(&a), Some(&a), None, Ok(read(Some(&a))), true),
        (Some(&a), Some(&a), Some(&a), Ok(read(Some(&a))), true),
        (Some(&a), Some(&a), Some(&b), no(ToolUnavailable::DigestMismatch), false),
        (Some(&a), Some(&b), None, no(ToolUnavailable::Changed), false),
        (Some(&a), Some(&b), Some(&a), no(ToolUnavailable::Changed), false),
        (Some(&a), Some(&b), Some(&b), no(ToolUnavailable::Changed), false),
        (Some(&a), None, Some(&a), no(ToolUnavailable::Gone), false),
        (None, None, None, no(ToolUnavailable::Gone), false),
        (None, Some(&a), Some(&a), no(ToolUnavailable::Proposed), false),
        (None, Some(&a), None, no(ToolUnavailable::Proposed), false),
    ] {
        let registry = with(accepted, observed);
        assert_eq!(registry.bind_definitions(&read(requested)), want, "{accepted:?} {observed:?} {requested:?}");
        let rest = if is_available { Reduction::Unchanged } else { Reduction::Reduced(Authority::default()) };
        assert_eq!(registry.remaining_available(&read(requested)), rest, "{accepted:?} {observed:?} {requested:?}");
        // The state of one tool does not affect another tool or listing.
        assert_eq!(registry.bind_definitions(&list), Ok(list.clone()));
        let more = read(requested).iter().chain(list.iter()).cloned().collect::<Authority>();
        let rest = if is_available { Reduction::Unchanged } else { Reduction::Reduced(list.clone()) };
        assert_eq!(registry.remaining_available(&more), rest);
        let listing = Authority::from_iter([Permission::listing(files.clone(), ListAction::Tools)]);
        assert_eq!(
            (registry.bind_definitions(&listing), registry.remaining_available(&listing)),
            (Ok(listing.clone()), Reduction::Unchanged)
        );
        let dropped = [Permission::unconstrained(files.clone(), "dropped_tool".parse().unwrap())];
        let dropped = list.iter().cloned().chain(dropped).collect::<Authority>();
        assert_eq!(registry.remaining_available(&dropped), Reduction::Reduced(list.clone()), "no resource offers it");
        // A tool with the same name at another resource is a different tool.
        let mail = Authority::from_iter([Permission::unconstrained(
            "https://mail.example.com/mcp".parse().unwrap(),
            "read".parse().unwrap(),
        )]);
        assert_eq!(
            (registry.bind_definitions(&mail), registry.remaining_available(&mail)),
            (Ok(mail.clone()), Reduction::Unchanged)
        );
    }
}

#[test]
fn client_lookup_requires_exact_id() {
    let registry = build(consistent_objects()).unwrap();
    let kind = |id: &str| registry.client(&id.parse().unwrap()).map(|client| client.id().to_string());
    assert_eq!(["planner", "files", "ops"].map(kind), ["planner", "files", "ops"].map(|id| Some(id.to_owned())));
    assert_eq!(["Planner", "planner-app", "login"].map(kind), [None, None, None]);
    assert!(registry.issuer(LOGIN).is_some());
    assert!(
        registry.issuer("https://login.example.com/").is_none()
            && registry.issuer("HTTPS://login.example.com").is_none()
    );
    let partner = registry.issuer(PARTNER).unwrap();
    assert_eq!(registry.foreign_prefixes(partner).collect::<Vec<_>>(), [""; 0]);
    assert_eq!(registry.foreign_prefixes(registry.issuer(LOGIN).unwrap()).collect::<Vec<_>>(), ["partner:"]);
}
