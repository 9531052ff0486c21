//! What agents, users and tokens may have by the registry.

use super::*;
use crate::domain::issuer::Holder;

fn told(authority: &Authority) -> String {
    let name = |p: &Permission| {
        format!("{}.{}", p.resource.as_str().trim_start_matches("https://").split('.').next().unwrap(), p.tool)
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
    assert_eq!(told(&registry.ceiling(agent("planner"))), "files.drop files.list files.read");
    assert_eq!(told(&registry.ceiling(agent("reader"))), "");

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
    let ceiling = registry.ceiling(planner);
    assert_eq!(told(&ceiling), "files.list files.read files.write");
    assert!(reads(&ceiling, "/a/x") && !reads(&ceiling, "/b"));
    let edge = planner.edge_to(&"reader".parse().unwrap()).unwrap();
    let lets = registry.let_through(edge).unwrap();
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
