use serde_json::{Map, from_value, json};

use super::*;

const NOW: Timestamp = Timestamp::from_unix(1_795_200_000);
const LATER: Timestamp = Timestamp::from_unix(1_795_200_100);

fn definition(name: &str, description: &str) -> ToolDefinition {
    ToolDefinition::new(name, Some(description), &Map::new()).unwrap()
}

fn files(tools: &[&str]) -> Resource {
    let tool = |name: &&str| json!({"name": name, "scope": "files:read", "effect": "read"});
    from_value(json!({"id": "files", "uri": "https://files.example.com/mcp",
        "authentication": {"method": "client_secret_basic"}, "tools": tools.iter().map(tool).collect::<Vec<_>>()}))
    .unwrap()
}

/// A record: what was accepted, and what was seen.
fn tool_record(tool: &str, accepted: Option<&str>, seen: Option<&str>) -> ToolRecord {
    let sighting = |text: Option<&str>| text.map(|text| ObservedDefinition::new(&definition(tool, text), NOW));
    ToolRecord {
        resource: "files".parse().unwrap(),
        tool: tool.parse().unwrap(),
        accepted: sighting(accepted),
        accepted_by: accepted.map(|_| "admin:ops".to_owned()),
        observed: sighting(seen),
    }
}

#[test]
fn digest_of_changed_definition_is_invalid() {
    let observed = ObservedDefinition::new(&definition("read_file", "Read a file"), NOW);
    assert!(observed.has_valid_digest());
    let changed = observed.definition.replace("Read", "Send");
    assert!(!ObservedDefinition { definition: changed, ..observed }.has_valid_digest());
}

/// The definitions that were accepted and seen, by their texts; none, where nothing is on record.
type Digests = Option<(Option<&'static str>, Option<&'static str>)>;
type Row = (Digests, bool, Option<&'static str>, RefreshMode<'static>, (ToolState, ToolState), Digests);

#[test]
fn diff_listing_yields_specified_state_and_record() {
    use ToolState::{Changed, Gone, Known, Proposed, Unchecked};
    let import = RefreshMode::Import("admin:ops");
    // On record (accepted, seen), whether the resource has it, listed as, how: it was, it is, (accepted, seen) now.
    let rows: [Row; 20] = [
        (None, true, Some("a"), import, (Unchecked, Known), Some((Some("a"), Some("a")))),
        (None, true, None, import, (Unchecked, Gone), Some((None, None))),
        (None, false, Some("a"), import, (Unchecked, Proposed), Some((None, Some("a")))),
        (None, true, Some("a"), RefreshMode::Refresh, (Unchecked, Unchecked), None),
        (None, true, None, RefreshMode::Refresh, (Unchecked, Unchecked), None),
        (None, false, Some("a"), RefreshMode::Refresh, (Unchecked, Proposed), Some((None, Some("a")))),
        (Some((Some("a"), Some("a"))), true, Some("a"), import, (Known, Known), Some((Some("a"), Some("a")))),
        (Some((Some("a"), Some("a"))), true, Some("b"), import, (Known, Changed), Some((Some("a"), Some("b")))),
        (
            Some((Some("a"), Some("a"))),
            true,
            Some("b"),
            RefreshMode::Refresh,
            (Known, Changed),
            Some((Some("a"), Some("b"))),
        ),
        (Some((Some("a"), Some("a"))), true, None, RefreshMode::Refresh, (Known, Gone), Some((Some("a"), None))),
        (Some((Some("a"), Some("a"))), false, None, import, (Known, Gone), Some((Some("a"), None))),
        (Some((Some("a"), Some("b"))), true, Some("a"), import, (Changed, Known), Some((Some("a"), Some("a")))),
        (Some((Some("a"), Some("b"))), true, Some("b"), import, (Changed, Changed), Some((Some("a"), Some("b")))),
        (Some((Some("a"), None)), true, Some("a"), RefreshMode::Refresh, (Gone, Known), Some((Some("a"), Some("a")))),
        (Some((Some("a"), None)), true, Some("b"), RefreshMode::Refresh, (Gone, Changed), Some((Some("a"), Some("b")))),
        // Seen before anybody wanted it: to want it is not to have looked at it.
        (Some((None, Some("a"))), true, Some("a"), import, (Proposed, Proposed), Some((None, Some("a")))),
        (Some((None, Some("a"))), true, Some("b"), import, (Proposed, Proposed), Some((None, Some("b")))),
        (Some((None, None)), true, Some("a"), import, (Gone, Proposed), Some((None, Some("a")))),
        (Some((None, Some("a"))), true, None, import, (Proposed, Gone), Some((None, None))),
        (Some((None, Some("a"))), false, None, import, (Proposed, Gone), None),
    ];
    for (n, (before, is_wanted, listed, how, (was, is), after)) in rows.into_iter().enumerate() {
        let resource = files(if is_wanted { &["t"] } else { &[] });
        let records = before.map(|(accepted, seen)| tool_record("t", accepted, seen)).into_iter().collect::<Vec<_>>();
        let listed = listed.map(|text| definition("t", text)).into_iter().collect::<Vec<_>>();
        let findings = diff_listing(&resource, &records, &listed, how, LATER);
        let [found] = &findings[..] else { panic!("row {n}: {findings:?}") };
        assert_eq!((found.tool.as_str(), found.previous_state, found.state), ("t", was, is), "row {n}");
        let digests = found.record.as_ref().map(ToolRecord::known_tool);
        let want = after.map(|(accepted, seen)| tool_record("t", accepted, seen).known_tool());
        assert_eq!(digests, want, "row {n}");
        assert_eq!(found.has_changed, before != after, "row {n}");
        let by = found.record.as_ref().and_then(|record| record.accepted_by.clone());
        assert_eq!(by.is_some(), after.is_some_and(|(accepted, _)| accepted.is_some()), "row {n}");
    }
    // What is as it was keeps its time; what is new has the new one.
    let resource = files(&["t"]);
    let seen_at = |text: &str| {
        let found =
            diff_listing(&resource, &[tool_record("t", Some("a"), Some("a"))], &[definition("t", text)], import, LATER);
        found[0].record.clone().unwrap().observed.unwrap().at
    };
    assert_eq!((seen_at("a"), seen_at("b")), (NOW, LATER));
    // Twice in one list, alike or not: nobody can say which one a client takes.
    for other in ["a", "b"] {
        let twice = [definition("t", "a"), definition("t", other)];
        let found = diff_listing(&resource, &[tool_record("t", Some("a"), Some("a"))], &twice, import, LATER);
        assert_eq!(found[0].state, Gone);
    }
    // Many tools: each on its own, by name.
    let records = [tool_record("b", Some("x"), Some("x")), tool_record("d", Some("x"), Some("x"))];
    let listed = [definition("d", "y"), definition("c", "x"), definition("a", "x")];
    let found = diff_listing(&files(&["a", "b", "d"]), &records, &listed, import, LATER);
    let told = found.iter().map(|f| format!("{} {}", f.tool, f.state)).collect::<Vec<_>>();
    assert_eq!(told, ["a known", "b gone", "c proposed", "d changed"]);
}

#[test]
fn acceptance_of_stale_or_unknown_definition_is_rejected() {
    let digest = |text: &str| definition("t", text).digest();
    let tool = |name: &str| from_value::<Tool>(json!({"name": name, "scope": "files:own", "effect": "write"})).unwrap();
    let one = |digest| Acceptance { name: "t".parse().unwrap(), digest, tool: None };
    let t = || "t".parse::<ToolName>().unwrap();
    let try_it = |tools: &[&str], record: Option<ToolRecord>, acceptances: &[Acceptance]| {
        accept_definitions(&files(tools), &record.into_iter().collect::<Vec<_>>(), acceptances, "admin:eve", LATER)
    };
    let changed = || Some(tool_record("t", Some("a"), Some("b")));

    let (records, tools) = try_it(&["t"], changed(), &[one(digest("b"))]).unwrap();
    assert_eq!((records[0].known_tool().state(), tools.len()), (ToolState::Known, 0));
    assert_eq!(records[0].accepted_by.as_deref(), Some("admin:eve"));
    assert_eq!(records[0].accepted.as_ref().unwrap().at, LATER);
    // Once more, and of what needs no acceptance: nothing happens.
    assert_eq!(try_it(&["t"], Some(records[0].clone()), &[one(digest("b"))]).unwrap().0, []);

    for (what, record, acceptances, want) in [
        ("never seen", None, vec![one(digest("b"))], AcceptanceError::NotListed(t())),
        ("the old one", changed(), vec![one(digest("a"))], AcceptanceError::DefinitionChanged(t())),
        ("another one", changed(), vec![one(digest("c"))], AcceptanceError::DefinitionChanged(t())),
        (
            "gone",
            Some(tool_record("t", Some("a"), None)),
            vec![one(digest("a"))],
            AcceptanceError::DefinitionChanged(t()),
        ),
        ("twice", changed(), vec![one(digest("b")), one(digest("b"))], AcceptanceError::Duplicate(t())),
        (
            "with a scope that it has already",
            changed(),
            vec![Acceptance { tool: Some(tool("t")), ..one(digest("b")) }],
            AcceptanceError::AlreadyInCatalogue(t()),
        ),
    ] {
        assert_eq!(try_it(&["t"], record, &acceptances), Err(want), "{what}");
    }
    // One that is not good, and none is.
    let both = [one(digest("b")), Acceptance { name: "u".parse().unwrap(), ..one(digest("b")) }];
    assert!(try_it(&["t"], changed(), &both).is_err());

    let proposed = || Some(tool_record("t", None, Some("a")));
    let (records, tools) =
        try_it(&[], proposed(), &[Acceptance { tool: Some(tool("t")), ..one(digest("a")) }]).unwrap();
    assert_eq!((records[0].known_tool().state(), tools), (ToolState::Known, vec![tool("t")]));
    let (records, tools) = try_it(&[], proposed(), &[one(digest("a"))]).unwrap();
    assert_eq!((records[0].known_tool().state(), tools.len()), (ToolState::Known, 0));
}
