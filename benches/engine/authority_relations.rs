//! Cost of `is_subset_of` and `allows`, which run for every link of a chain and for every checked
//! call.

use std::collections::BTreeMap;

use errand::domain::{
    authority::{Arg, Authority, parse_details},
    id::ToolName,
};
use serde_json::{Value, json};

use crate::{Line, measure_one};

const FILES: &str = "https://files.example.com/mcp";

/// Creates an authority: each detail is a tool with three constraints, optionally narrower ones.
fn authority(details: usize, is_narrow: bool) -> Authority {
    let (prefix, max) = if is_narrow { ("/reports/2026/", 10) } else { ("/reports/", 1000) };
    let detail = |n: usize| {
        json!({"type": "mcp_tool", "locations": [FILES], "actions": ["tools/call"], "identifier": format!("tool_{n}"),
            "constraints": {"path": {"prefix": prefix}, "lines": {"min": 1, "max": max}, "mode": {"one_of": ["text", "raw"]}}})
    };
    parse_details(&(0..details).map(detail).collect::<Value>().to_string(), None).unwrap()
}

pub fn measure() -> Vec<Line> {
    let arguments = [("path", Arg::Text("/reports/2026/q3.txt".into())), ("mode", Arg::Text("text".into()))];
    let mut arguments = arguments.map(|(name, value)| (name.to_owned(), value)).into_iter().collect::<BTreeMap<_, _>>();
    let Arg::List(numbers) = Arg::parse("[7, 7000]", 2).unwrap() else { unreachable!() };
    let resource = FILES.parse().unwrap();
    let mut lines = Vec::new();
    for details in [1, 4, 16, 64] {
        let (wide, narrow) = (authority(details, false), authority(details, true));
        assert!(wide.len() == details && narrow.is_subset_of(&wide) && !wide.is_subset_of(&narrow));
        // The last tool: a search visits all others first.
        let tool = format!("tool_{}", details - 1).parse::<ToolName>().unwrap();
        lines.push(measure_one(format!("within, {details} details"), None, || narrow.is_subset_of(&wide)));
        for (word, number) in ["yes", "no"].into_iter().zip(&numbers) {
            arguments.insert("lines".to_owned(), number.clone());
            assert_eq!(wide.allows(&resource, &tool, &arguments), word == "yes");
            let what = format!("allows, {details} details, {word}");
            lines.push(measure_one(what, None, || wide.allows(&resource, &tool, &arguments)));
        }
        lines.push(measure_one(format!("meet, {details} details"), None, || wide.intersect(&narrow)));
    }
    lines
}
