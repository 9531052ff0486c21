use serde_json::from_value;

use super::*;

const NOW: Timestamp = Timestamp::from_unix(1_795_200_000);
const LATER: Timestamp = Timestamp::from_unix(1_795_200_100);

fn object(value: Value) -> Map<String, Value> {
    from_value(value).unwrap()
}

fn definition(name: &str, description: &str) -> Definition {
    Definition::new(name, Some(description), &Map::new()).unwrap()
}

fn files(tools: &[&str]) -> Resource {
    let tool = |name: &&str| json!({"name": name, "scope": "files:read", "effect": "read"});
    from_value(json!({"id": "files", "uri": "https://files.example.com/mcp",
        "authentication": {"method": "client_secret_basic"}, "tools": tools.iter().map(tool).collect::<Vec<_>>()}))
    .unwrap()
}

/// A record: what was accepted, and what was seen.
fn known(tool: &str, accepted: Option<&str>, seen: Option<&str>) -> ToolRecord {
    let sighting = |text: Option<&str>| text.map(|text| definition(tool, text).seen(NOW));
    ToolRecord {
        resource: "files".parse().unwrap(),
        tool: tool.parse().unwrap(),
        accepted: sighting(accepted),
        accepted_by: accepted.map(|_| "admin:ops".to_owned()),
        seen: sighting(seen),
    }
}

#[test]
fn a_digest_is_that_of_the_canonical_text() {
    let schema = object(json!({"type": "object", "properties": {"b": {"type": "number", "maximum": 1.0}, "a": {}}}));
    let made = Definition::new("read_file", Some("Read a file"), &schema).unwrap();
    let text = r#"{"description":"Read a file","inputSchema":{"properties":{"a":{},"b":{"maximum":1,"type":"number"}},"type":"object"},"name":"read_file"}"#;
    assert_eq!(made.seen(NOW).definition, text);
    // Worked out elsewhere: printf '%s' "$text" | openssl dgst -sha256 -binary | basenc --base64url
    assert_eq!(made.digest().as_str(), "sha-256:cpLvD4UJ-kIe-QfBfjH1n4Rf9nInWA80FYBtg-kUeEQ");
    assert!(made.seen(NOW).is_whole());
    assert!(!Sighting { definition: text.replace("Read", "Send"), ..made.seen(NOW) }.is_whole());
    // Order and spelling don't count; everything else does.
    let again = object(json!({"properties": {"a": {}, "b": {"maximum": 1, "type": "number"}}, "type": "object"}));
    assert_eq!(Definition::new("read_file", Some("Read a file"), &again), Some(made.clone()));
    for (name, description, schema) in [
        ("read_files", Some("Read a file"), &schema),
        ("read_file", Some("Read a file "), &schema),
        ("read_file", Some(""), &schema),
        ("read_file", None, &schema),
        ("read_file", Some("Read a file"), &object(json!({"type": "object"}))),
    ] {
        assert_ne!(
            Definition::new(name, description, schema).unwrap().digest(),
            made.digest(),
            "{name} {description:?}"
        );
    }
}

#[test]
fn what_is_too_much_is_no_definition() {
    let nested = |depth: usize| object((0..depth).fold(json!({}), |inner, _| json!({"properties": inner})));
    let long = |bytes: usize| "x".repeat(bytes);
    let none = Map::new();
    for (name, description, schema, ok) in [
        ("a", None, none.clone(), true),
        ("", None, none.clone(), false),
        ("a b", None, none.clone(), false),
        ("ａ", None, none.clone(), false),
        ("a\u{202e}", None, none.clone(), false),
        (&long(128), None, none.clone(), true),
        (&long(129), None, none.clone(), false),
        ("a", Some(long(MAX_DESCRIPTION)), none.clone(), true),
        ("a", Some(long(MAX_DESCRIPTION + 1)), none.clone(), false),
        ("a", None, object(json!({"d": long(MAX_SCHEMA - 8)})), true),
        ("a", None, object(json!({"d": long(MAX_SCHEMA - 7)})), false),
        ("a", None, nested(MAX_SCHEMA_DEPTH), true),
        ("a", None, nested(MAX_SCHEMA_DEPTH + 1), false),
        ("a", None, nested(100), false),
    ] {
        let made = Definition::new(name, description.as_deref(), &schema);
        assert_eq!(made.is_some(), ok, "{} {:?}", name.len(), description.map(|text| text.len()));
    }
    let hostile = definition("a", "\u{0}\u{1b}[2J\u{202e}");
    assert_eq!(
        hostile.seen(NOW).definition,
        "{\"description\":\"\\u0000\\u001b[2J\u{202e}\",\"inputSchema\":{},\"name\":\"a\"}"
    );
}

/// The definitions that were accepted and seen, by their texts; none, where nothing is on record.
type Digests = Option<(Option<&'static str>, Option<&'static str>)>;
type Row = (Digests, bool, Option<&'static str>, Look<'static>, (ToolState, ToolState), Digests);

#[test]
fn what_a_look_makes_of_a_tool() {
    use ToolState::{Changed, Gone, Known, Proposed, Unchecked};
    let import = Look::Import("admin:ops");
    // On record (accepted, seen), whether the resource has it, listed as, how: it was, it is, (accepted, seen) now.
    let rows: [Row; 20] = [
        (None, true, Some("a"), import, (Unchecked, Known), Some((Some("a"), Some("a")))),
        (None, true, None, import, (Unchecked, Gone), Some((None, None))),
        (None, false, Some("a"), import, (Unchecked, Proposed), Some((None, Some("a")))),
        (None, true, Some("a"), Look::Refresh, (Unchecked, Unchecked), None),
        (None, true, None, Look::Refresh, (Unchecked, Unchecked), None),
        (None, false, Some("a"), Look::Refresh, (Unchecked, Proposed), Some((None, Some("a")))),
        (Some((Some("a"), Some("a"))), true, Some("a"), import, (Known, Known), Some((Some("a"), Some("a")))),
        (Some((Some("a"), Some("a"))), true, Some("b"), import, (Known, Changed), Some((Some("a"), Some("b")))),
        (Some((Some("a"), Some("a"))), true, Some("b"), Look::Refresh, (Known, Changed), Some((Some("a"), Some("b")))),
        (Some((Some("a"), Some("a"))), true, None, Look::Refresh, (Known, Gone), Some((Some("a"), None))),
        (Some((Some("a"), Some("a"))), false, None, import, (Known, Gone), Some((Some("a"), None))),
        (Some((Some("a"), Some("b"))), true, Some("a"), import, (Changed, Known), Some((Some("a"), Some("a")))),
        (Some((Some("a"), Some("b"))), true, Some("b"), import, (Changed, Changed), Some((Some("a"), Some("b")))),
        (Some((Some("a"), None)), true, Some("a"), Look::Refresh, (Gone, Known), Some((Some("a"), Some("a")))),
        (Some((Some("a"), None)), true, Some("b"), Look::Refresh, (Gone, Changed), Some((Some("a"), Some("b")))),
        // Seen before anybody wanted it: to want it is not to have looked at it.
        (Some((None, Some("a"))), true, Some("a"), import, (Proposed, Proposed), Some((None, Some("a")))),
        (Some((None, Some("a"))), true, Some("b"), import, (Proposed, Proposed), Some((None, Some("b")))),
        (Some((None, None)), true, Some("a"), import, (Gone, Proposed), Some((None, Some("a")))),
        (Some((None, Some("a"))), true, None, import, (Proposed, Gone), Some((None, None))),
        (Some((None, Some("a"))), false, None, import, (Proposed, Gone), None),
    ];
    for (n, (before, is_wanted, listed, how, (was, is), after)) in rows.into_iter().enumerate() {
        let resource = files(if is_wanted { &["t"] } else { &[] });
        let records = before.map(|(accepted, seen)| known("t", accepted, seen)).into_iter().collect::<Vec<_>>();
        let listed = listed.map(|text| definition("t", text)).into_iter().collect::<Vec<_>>();
        let findings = look(&resource, &records, &listed, how, LATER);
        let [found] = &findings[..] else { panic!("row {n}: {findings:?}") };
        assert_eq!((found.tool.as_str(), found.was, found.is), ("t", was, is), "row {n}");
        let digests = found.record.as_ref().map(ToolRecord::known);
        let want = after.map(|(accepted, seen)| known("t", accepted, seen).known());
        assert_eq!(digests, want, "row {n}");
        assert_eq!(found.is_news, before != after, "row {n}");
        let by = found.record.as_ref().and_then(|record| record.accepted_by.clone());
        assert_eq!(by.is_some(), after.is_some_and(|(accepted, _)| accepted.is_some()), "row {n}");
    }
    // What is as it was keeps its time; what is new has the new one.
    let resource = files(&["t"]);
    let seen_at = |text: &str| {
        let found = look(&resource, &[known("t", Some("a"), Some("a"))], &[definition("t", text)], import, LATER);
        found[0].record.clone().unwrap().seen.unwrap().at
    };
    assert_eq!((seen_at("a"), seen_at("b")), (NOW, LATER));
    // Twice in one list, alike or not: nobody can say which one a client takes.
    for other in ["a", "b"] {
        let twice = [definition("t", "a"), definition("t", other)];
        let found = look(&resource, &[known("t", Some("a"), Some("a"))], &twice, import, LATER);
        assert_eq!(found[0].is, Gone);
    }
    // Many tools: each on its own, by name.
    let records = [known("b", Some("x"), Some("x")), known("d", Some("x"), Some("x"))];
    let listed = [definition("d", "y"), definition("c", "x"), definition("a", "x")];
    let found = look(&files(&["a", "b", "d"]), &records, &listed, import, LATER);
    let told = found.iter().map(|f| format!("{} {}", f.tool, f.is)).collect::<Vec<_>>();
    assert_eq!(told, ["a known", "b gone", "c proposed", "d changed"]);
}

#[test]
fn what_may_be_accepted() {
    let digest = |text: &str| definition("t", text).digest();
    let tool = |name: &str| from_value::<Tool>(json!({"name": name, "scope": "files:own", "effect": "write"})).unwrap();
    let one = |digest| Acceptance { name: "t".parse().unwrap(), digest, tool: None };
    let t = || "t".parse::<ToolName>().unwrap();
    let try_it = |tools: &[&str], record: Option<ToolRecord>, acceptances: &[Acceptance]| {
        accept(&files(tools), &record.into_iter().collect::<Vec<_>>(), acceptances, "admin:eve", LATER)
    };
    let changed = || Some(known("t", Some("a"), Some("b")));

    let (records, tools) = try_it(&["t"], changed(), &[one(digest("b"))]).unwrap();
    assert_eq!((records[0].known().state(), tools.len()), (ToolState::Known, 0));
    assert_eq!(records[0].accepted_by.as_deref(), Some("admin:eve"));
    assert_eq!(records[0].accepted.as_ref().unwrap().at, LATER);
    // Once more, and of what needs no acceptance: nothing happens.
    assert_eq!(try_it(&["t"], Some(records[0].clone()), &[one(digest("b"))]).unwrap().0, []);

    for (what, record, acceptances, want) in [
        ("never seen", None, vec![one(digest("b"))], CannotAccept::Unlisted(t())),
        ("the old one", changed(), vec![one(digest("a"))], CannotAccept::Moved(t())),
        ("another one", changed(), vec![one(digest("c"))], CannotAccept::Moved(t())),
        ("gone", Some(known("t", Some("a"), None)), vec![one(digest("a"))], CannotAccept::Moved(t())),
        ("twice", changed(), vec![one(digest("b")), one(digest("b"))], CannotAccept::Twice(t())),
        (
            "with a scope that it has already",
            changed(),
            vec![Acceptance { tool: Some(tool("t")), ..one(digest("b")) }],
            CannotAccept::InCatalogue(t()),
        ),
    ] {
        assert_eq!(try_it(&["t"], record, &acceptances), Err(want), "{what}");
    }
    // One that is not good, and none is.
    let both = [one(digest("b")), Acceptance { name: "u".parse().unwrap(), ..one(digest("b")) }];
    assert!(try_it(&["t"], changed(), &both).is_err());

    let proposed = || Some(known("t", None, Some("a")));
    let (records, tools) =
        try_it(&[], proposed(), &[Acceptance { tool: Some(tool("t")), ..one(digest("a")) }]).unwrap();
    assert_eq!((records[0].known().state(), tools), (ToolState::Known, vec![tool("t")]));
    let (records, tools) = try_it(&[], proposed(), &[one(digest("a"))]).unwrap();
    assert_eq!((records[0].known().state(), tools.len()), (ToolState::Known, 0));
}
