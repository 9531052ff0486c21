//! Entries of a ceiling, and the location of an excess.

use serde_json::{Value, json};

use super::*;
use crate::authority::ToolUse;

#[test]
fn tool_use_is_written_as_name_or_object() {
    for (written, displayed) in [
        (json!("t"), "t"),
        (json!({"identifier": "t", "constraints": {"path": {"prefix": "/a/"}}}), r#"t with path {"prefix":"/a/"}"#),
        (
            json!({"identifier": "t", "constraints": {"a": {"max": 0.5}, "b": {"any": true}}, "additional_arguments": true}),
            r#"t with a {"max":0.5}, b {"any":true} and any other argument"#,
        ),
        (json!({"identifier": "t", "additional_arguments": false}), "t without arguments"),
    ] {
        let read = serde_json::from_value::<ToolUse>(written.clone()).unwrap();
        assert_eq!(serde_json::to_value(&read).unwrap(), written);
        assert_eq!(read.to_string(), displayed);
        let permission = read.permission_at(&files());
        let as_detail = serde_json::to_value(&permission).unwrap();
        assert_eq!(as_detail.get("constraints"), written.get("constraints"), "both forms have the same constraints");
        assert_eq!(permission.constraints.is_none(), written.is_string());
    }
    // The long form of an unconstrained tool.
    for long in
        [json!({"identifier": "t"}), json!({"identifier": "t", "constraints": {}, "additional_arguments": true})]
    {
        assert_eq!(serde_json::to_value(serde_json::from_value::<ToolUse>(long).unwrap()).unwrap(), json!("t"));
    }
}

#[test]
fn unknown_member_of_tool_use_is_rejected() {
    for bad in [
        json!(null),
        json!(1),
        json!(["t"]),
        json!("a b"),
        json!(""),
        json!({}),
        json!({"name": "t"}),
        json!({"identifier": 1}),
        json!({"identifier": "a b"}),
        json!({"identifier": "t", "constrains": {"a": {"max": 1}}}),
        json!({"identifier": "t", "constraints": {"a": {"regex": ".*"}}}),
        json!({"identifier": "t", "constraints": {"a": {}}}),
        json!({"identifier": "t", "constraints": {"a\u{0}": {"any": true}}}),
        json!({"identifier": "t", "constraints": [{"a": {"max": 1}}]}),
        json!({"identifier": "t", "constraints": null}),
        json!({"identifier": "t", "constraints": {"a": {"max": 9_223_372_036_854_775_807_i64}}}),
        json!({"identifier": "t", "additional_arguments": "false"}),
        json!({"identifier": "t", "locations": ["https://a.example"]}),
    ] {
        assert!(serde_json::from_value::<ToolUse>(bad.clone()).is_err(), "{bad}");
    }
}

#[test]
fn excess_path_names_the_exceeding_member() {
    let path = r#""constraints":{"path":{"prefix":"/a/"},"limit":{"max":9},"mode":{"any":true}}"#;
    let open = r#""constraints":{"path":{"prefix":"/a/"}},"additional_arguments":true"#;
    let other = r#""constraints":{"path":{"prefix":"/c/"}}"#;
    for (ceiling, requested, own, of_others) in [
        (vec![path], r#""constraints":{"path":{"prefix":"/a/b"},"limit":{"max":9}}"#, None, None),
        (vec![path], "", Some(".constraints.limit"), Some(".constraints")),
        (vec![path], r#""constraints":{"limit":{"max":9}}"#, Some(".constraints.path"), Some(".constraints")),
        (vec![path], r#""constraints":{"limit":{"max":10}}"#, Some(".constraints.limit"), Some(".constraints.limit")),
        (
            vec![path],
            r#""constraints":{"path":{"equals":"/a/x"},"limit":{"max":9},"other":{"equals":1}}"#,
            Some(".constraints.other"),
            Some(".constraints.other"),
        ),
        (
            vec![path],
            r#""constraints":{"path":{"equals":"/a/x"},"limit":{"max":9}},"additional_arguments":true"#,
            Some(".additional_arguments"),
            Some(".additional_arguments"),
        ),
        (vec![open], r#""constraints":{"path":{"equals":"/a/x"}},"additional_arguments":true"#, None, None),
        (vec![open], "", Some(".constraints.path"), Some(".constraints")),
        (vec![path, other], r#""constraints":{"path":{"equals":"/b"}}"#, Some(".constraints"), Some(".constraints")),
        (vec![], "", Some(".identifier"), Some(".identifier")),
    ] {
        let ceiling = ceiling.iter().map(|rules| permission("t", constraints(rules))).collect::<Authority>();
        let requested = permission("t", constraints(requested));
        assert_eq!(ceiling.excess_path(&requested, true).as_deref(), own, "{requested:?}");
        assert_eq!(ceiling.excess_path(&requested, false).as_deref(), of_others, "{requested:?}");
    }
}

/// Every example in `docs/reference/authority.md` parses.
#[test]
fn documentation_examples_parse() {
    let page = include_str!("../../../../../docs/reference/authority.md");
    let details = |value: Value| match value {
        Value::Object(answer) if answer.contains_key("error") => answer["authorization_details_allowed"].clone(),
        Value::Object(mut one) => {
            one.entry("type").or_insert_with(|| json!("mcp_tool"));
            one.entry("actions").or_insert_with(|| json!(["tools/call"]));
            json!([one])
        }
        list => list,
    };
    let blocks = page.split("```json\n").skip(1).map(|rest| rest.split("```").next().unwrap());
    let section = page.split("## Ten examples").nth(1).unwrap().split("\n## ").next().unwrap();
    let numbered = (1..=10).map(|n| {
        let line = section.lines().find(|line| line.starts_with(&format!("{n}. "))).unwrap();
        line.split('`').find(|code| code.starts_with('{')).unwrap()
    });
    let examples = blocks.chain(numbered).collect::<Vec<_>>();
    assert_eq!(examples.len(), 13);
    for example in examples {
        let details = details(serde_json::from_str(example).unwrap()).to_string();
        let authority = parse_one(&details);
        assert!(authority.as_ref().is_ok_and(|authority| !authority.is_empty()), "{example}: {authority:?}");
    }
}
