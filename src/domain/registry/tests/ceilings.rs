//! What agents, users and tokens may have by the registry.

use super::*;
use crate::domain::{
    authority::{Action, Listing, Permission},
    id::ToolDigest,
    issuer::Holder,
    tool::{KnownTool, NotGood},
};

fn what(permission: &Permission) -> &str {
    match &permission.action {
        Action::Call(tool) => tool.as_str(),
        Action::List(listing) => listing.as_str(),
    }
}

fn told(authority: &Authority) -> String {
    let name = |p: &Permission| {
        format!("{}.{}", p.resource.as_str().trim_start_matches("https://").split('.').next().unwrap(), what(p))
    };
    authority.iter().map(name).collect::<Vec<_>>().join(" ")
}

#[test]
fn what_an_agent_a_user_and_a_scope_may_have() {
    let mut objects = world();
    let registry = build(objects.clone()).unwrap();
    let agent = |id: &str| registry.agent(&id.parse().unwrap()).unwrap();
    assert_eq!(told(&registry.catalogue(|_| true)), "files.drop files.list files.read files.write mail.read mail.send");
    // `s:read` at files, and `drop` by name; not the `s:read` of mail.
    assert_eq!(told(&registry.ceiling(agent("planner"), |_| true)), "files.drop files.list files.read");
    assert_eq!(told(&registry.ceiling(agent("reader"), |_| true)), "");

    let scopes = |text: &str| text.parse().unwrap();
    let files = "https://files.example.com/mcp".parse().unwrap();
    assert_eq!(told(&registry.under_scopes(&scopes("s:read"), |_| true)), "files.list files.read mail.read");
    assert_eq!(told(&registry.under_scopes(&scopes("s:read s:send"), |uri| *uri == files)), "files.list files.read");
    assert_eq!(told(&registry.under_scopes(&scopes("S:read s"), |_| true)), "");

    assert_eq!(
        told(&registry.catalogue(|uri| *uri == files)),
        "files.drop files.list files.read files.write",
        "the part that is there"
    );
    assert_eq!(told(&registry.ceiling(agent("planner"), |uri| *uri != files)), "");
    let offered = registry.scopes_offered(|uri| *uri != files).iter().map(ToString::to_string).collect::<Vec<_>>();
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
        let everywhere = registry.entitled(rules.iter(), |_| true);
        assert_eq!(told(&everywhere), want, "{rules:?}");
        assert_eq!(registry.entitled(rules.iter(), |uri| *uri == files), everywhere.at(&files), "{rules:?}");
    }

    // What is shut out is not offered, and not meant by a scope.
    objects.get_mut("resource mail").unwrap()["disabled"] = true.into();
    let less = build(objects).unwrap();
    assert_eq!(told(&less.catalogue(|_| true)), "files.drop files.list files.read files.write");
    assert_eq!(told(&less.under_scopes(&scopes("s:read"), |_| true)), "files.list files.read");
}

#[test]
fn rules_go_from_the_registry_into_ceilings() {
    let mut objects = world();
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
    assert_eq!(told(&ceiling), "files.list files.read files.write");
    assert!(reads(&ceiling, "/a/x") && !reads(&ceiling, "/b"));
    let edge = planner.edge_to(&"reader".parse().unwrap()).unwrap();
    let lets = registry.let_through(edge, |_| true).unwrap();
    assert_eq!(told(&lets), "files.read");
    assert!(reads(&lets, "/a/x") && !reads(&lets, "/b"));
    let rule = json!({"to": "everyone", "tools": [some]});
    let entitled = registry.entitled([serde_json::from_value(rule).unwrap()].iter(), |_| true);
    assert_eq!(told(&entitled), "files.read mail.read");
    assert!(reads(&entitled, "/a/x") && !reads(&entitled, "/b"));
    assert!(planner.edge_to(&"planner".parse().unwrap()).is_none());
}

#[test]
fn an_edge_is_written_by_name_or_with_limits() {
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
fn whom_an_entitlement_is_for() {
    let holder = Holder::Claim { name: "groups".into(), value: "staff".into() };
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
        assert_eq!(holder.covers(claims.as_object().unwrap()), want, "{claims}");
        assert!(Holder::Everyone.covers(claims.as_object().unwrap()));
    }
}

#[test]
fn a_scope_is_covered_when_every_tool_under_it_is() {
    let registry = build(world()).unwrap();
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
        // Elsewhere, and for whoever reads it, it is another thing.
        (at(&files, &["read", "list"]), Some(&mail), ""),
        (at(&files, &["read", "list", "drop"]), None, "s:drop"),
        (both, None, "s:read"),
        (at(&mail, &["read", "list"]), None, ""),
    ] {
        let authority = authority.into_iter().collect();
        assert_eq!(registry.scopes_covered(&authority, by).to_string(), want, "{} {by:?}", told(&authority));
    }
    assert_eq!(
        registry.scopes_covered(&registry.catalogue(|_| true), None).to_string(),
        "s:drop s:read s:send s:write"
    );
}

/// To list is apart from to call: by its own scope, for whoever has that, and covered by all of it.
#[test]
fn who_may_list() {
    let mut objects = world();
    objects.get_mut("resource files").unwrap()["discovery_scope"] = json!("s:list");
    objects.get_mut("agent reader").unwrap()["access"] = json!([{"resource": "files", "scopes": ["s:list"]}]);
    let registry = build(objects).unwrap();
    let lists = "files.resources/list files.tools/list";
    let agent = |id: &str| told(&registry.ceiling(registry.agent(&id.parse().unwrap()).unwrap(), |_| true));
    assert_eq!((agent("reader").as_str(), agent("planner").as_str()), (lists, "files.drop files.list files.read"));
    let calls = "files.drop files.list files.read files.write";
    assert_eq!(told(&registry.catalogue(|uri| uri.as_str().contains("files"))), format!("{calls} {lists}"));
    assert_eq!(told(&registry.under_scopes(&"s:list".parse().unwrap(), |_| true)), lists);
    assert_eq!(told(&registry.under_scopes(&"s:read".parse().unwrap(), |_| true)), "files.list files.read mail.read");
    let rule = |rule: Value| [serde_json::from_value::<Entitlement>(rule).unwrap()];
    assert_eq!(told(&registry.entitled(rule(json!({"to": "everyone", "scopes": ["s:list"]})).iter(), |_| true)), lists);
    // A tool by that name is a tool.
    assert_eq!(told(&registry.entitled(rule(json!({"to": "everyone", "tools": ["tools/list"]})).iter(), |_| true)), "");
    let files = "https://files.example.com/mcp".parse::<ResourceUri>().unwrap();
    let one = [Permission::listing(files.clone(), Listing::Tools)];
    let both = Listing::ALL.map(|listing| Permission::listing(files.clone(), listing));
    assert_eq!(registry.scopes_covered(&one.into_iter().collect(), Some(&files)).to_string(), "");
    assert_eq!(registry.scopes_covered(&both.into_iter().collect(), Some(&files)).to_string(), "s:list");
}

/// What goes into a token, and what of a token is good: for every state of a tool.
#[test]
fn a_tool_is_bound_to_its_definition() {
    let digest = |sign: &str| format!("sha-256:{}", sign.repeat(43)).parse::<ToolDigest>().unwrap();
    let (a, b) = (digest("a"), digest("b"));
    let files = "https://files.example.com/mcp".parse::<ResourceUri>().unwrap();
    let read = |digest: Option<&ToolDigest>| {
        let plain = Permission::unconstrained(files.clone(), "read".parse().unwrap());
        Authority::from_iter([Permission { digest: digest.cloned(), ..plain }])
    };
    let list = Authority::from_iter([Permission::unconstrained(files.clone(), "list".parse().unwrap())]);
    let with = |accepted: Option<&ToolDigest>, seen: Option<&ToolDigest>| {
        let known = KnownTool { accepted: accepted.cloned(), seen: seen.cloned() };
        let known = BTreeMap::from([("read".parse().unwrap(), known)]);
        build(world()).unwrap().with_tools(BTreeMap::from([("files".parse().unwrap(), known)]))
    };
    let no = |why| Err(Unaccepted { tool: "read".parse().unwrap(), why });
    let unasked = build(world()).unwrap();
    for digest in [None, Some(&a)] {
        assert_eq!(unasked.pinned(&read(digest)), Ok(read(digest)));
        assert_eq!(unasked.still_good(&read(digest)), None);
    }
    // (accepted, seen), asked for: what goes into a token, whether it is good in one.
    for (accepted, seen, asked, want, is_good) in [
        (Some(&a), Some(&a), None, Ok(read(Some(&a))), true),
        (Some(&a), Some(&a), Some(&a), Ok(read(Some(&a))), true),
        (Some(&a), Some(&a), Some(&b), no(NotGood::OtherAsked), false),
        (Some(&a), Some(&b), None, no(NotGood::Changed), false),
        (Some(&a), Some(&b), Some(&a), no(NotGood::Changed), false),
        (Some(&a), Some(&b), Some(&b), no(NotGood::Changed), false),
        (Some(&a), None, Some(&a), no(NotGood::Gone), false),
        (None, None, None, no(NotGood::Gone), false),
        (None, Some(&a), Some(&a), no(NotGood::Proposed), false),
        (None, Some(&a), None, no(NotGood::Proposed), false),
    ] {
        let registry = with(accepted, seen);
        assert_eq!(registry.pinned(&read(asked)), want, "{accepted:?} {seen:?} {asked:?}");
        let rest = if is_good { None } else { Some(Authority::default()) };
        assert_eq!(registry.still_good(&read(asked)), rest, "{accepted:?} {seen:?} {asked:?}");
        // The tool beside it is nobody's business, and neither is listing.
        assert_eq!(registry.pinned(&list), Ok(list.clone()));
        let more = read(asked).iter().chain(list.iter()).cloned().collect::<Authority>();
        assert_eq!(registry.still_good(&more), (!is_good).then(|| list.clone()));
        let listing = Authority::from_iter([Permission::listing(files.clone(), Listing::Tools)]);
        assert_eq!((registry.pinned(&listing), registry.still_good(&listing)), (Ok(listing.clone()), None));
        let dropped = [Permission::unconstrained(files.clone(), "dropped_tool".parse().unwrap())];
        let dropped = list.iter().cloned().chain(dropped).collect::<Authority>();
        assert_eq!(registry.still_good(&dropped), Some(list.clone()), "nobody offers it");
        // A tool of that name elsewhere is another tool.
        let mail = Authority::from_iter([Permission::unconstrained(
            "https://mail.example.com/mcp".parse().unwrap(),
            "read".parse().unwrap(),
        )]);
        assert_eq!((registry.pinned(&mail), registry.still_good(&mail)), (Ok(mail.clone()), None));
    }
}

#[test]
fn a_client_is_found_by_exactly_its_name() {
    let registry = build(world()).unwrap();
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
