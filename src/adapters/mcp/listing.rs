//! The tools in a page of `tools/list`. Each tool is parsed apart from the message and from the
//! other tools: what is wrong with one does not affect the others.

use serde::Deserialize;
use serde_json::{Value, value::RawValue};

use crate::{
    domain::{encoding::strict_json, id::ToolName, registry::tool::ToolDefinition},
    ports::{ToolProblem, UnusableTool},
};

/// The maximum nesting depth of a tool. A schema that is too deep loses its tool.
const MAX_TOOL_DEPTH: usize = 60;

/// The tools of a page.
#[derive(Debug, Default)]
pub(super) struct ListedTools {
    pub(super) usable: Vec<ToolDefinition>,
    /// The positions are within the page.
    pub(super) unusable: Vec<UnusableTool>,
}

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow)]
    result: &'a RawValue,
}

#[derive(Deserialize)]
struct ToolsResult<'a> {
    #[serde(borrow)]
    tools: &'a RawValue,
}

/// Returns the tools of a message, and the message without them. `None`: the message has no list of
/// tools.
pub(super) fn take_tools(message: &str) -> Option<(ListedTools, String)> {
    let envelope = serde_json::from_str::<Envelope<'_>>(message).ok()?;
    let result = serde_json::from_str::<ToolsResult<'_>>(envelope.result.get()).ok()?;
    let raw = result.tools.get();
    let tools = serde_json::from_str::<Vec<&RawValue>>(raw).ok()?;
    // The list is a part of the message, so the difference of the addresses is its position.
    let (before, rest) = message.split_at_checked(raw.as_ptr().addr().checked_sub(message.as_ptr().addr())?)?;
    let after = rest.strip_prefix(raw)?;
    let mut listed = ListedTools::default();
    // One more than the limit, which the caller checks.
    for (position, tool) in (1..).zip(tools).take(super::MAX_TOOLS + 1) {
        match parse_tool(tool.get()) {
            Ok(definition) => listed.usable.push(definition),
            Err((name, problem)) => listed.unusable.push(UnusableTool { position, name, problem }),
        }
    }
    Some((listed, format!("{before}[]{after}")))
}

/// Reads the three members that count. Others are ignored, whatever they contain.
fn parse_tool(text: &str) -> Result<ToolDefinition, (Option<ToolName>, ToolProblem)> {
    let Ok(Value::Object(members)) = strict_json::parse(text.as_bytes(), MAX_TOOL_DEPTH) else {
        return Err((None, ToolProblem::NotAnObject(MAX_TOOL_DEPTH)));
    };
    let name = match members.get("name") {
        None => return Err((None, ToolProblem::Missing("name"))),
        Some(Value::String(name)) => name,
        Some(_) => return Err((None, ToolProblem::WrongType("name", "a string"))),
    };
    let named = |problem| (name.parse::<ToolName>().ok(), problem);
    let description = match members.get("description") {
        None | Some(Value::Null) => None,
        Some(Value::String(description)) => Some(description.as_str()),
        Some(_) => return Err(named(ToolProblem::WrongType("description", "a string"))),
    };
    let schema = match members.get("inputSchema") {
        None => return Err(named(ToolProblem::Missing("inputSchema"))),
        Some(Value::Object(schema)) => schema,
        Some(_) => return Err(named(ToolProblem::WrongType("inputSchema", "an object"))),
    };
    ToolDefinition::new(name, description, schema).map_err(|error| named(error.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every way in which a tool can be wrong, with the text that names it. The good tools around
    /// it stay.
    #[test]
    fn bad_tool_is_named_and_hides_no_other() {
        let good = |name: &str| format!(r#"{{"name":"{name}","description":"x","inputSchema":{{"type":"object"}}}}"#);
        let deep = format!("{}{}", r#"{"p":"#.repeat(30), "1".to_owned() + &"}".repeat(30));
        let deeper = format!("{}{}", "[".repeat(200), "]".repeat(200));
        let long = "x".repeat(17_000);
        let wide = "x".repeat(33_000);
        for (bad, want) in [
            ("7".to_owned(), "tool number 2: the tool is not an object of strict JSON"),
            ("null".to_owned(), "tool number 2: the tool is not an object of strict JSON"),
            ("[]".to_owned(), "tool number 2: the tool is not an object of strict JSON"),
            (r#"{"name":"b","name":"b","inputSchema":{}}"#.to_owned(), "tool number 2: the tool is not an object"),
            (
                format!(r#"{{"name":"b","inputSchema":{{}},"_meta":{deeper}}}"#),
                "tool number 2: the tool is not an object",
            ),
            (r#"{"inputSchema":{}}"#.to_owned(), "tool number 2: `name` is missing"),
            (r#"{"name":7,"inputSchema":{}}"#.to_owned(), "tool number 2: `name` must be a string"),
            (r#"{"name":"b c","inputSchema":{}}"#.to_owned(), "tool number 2: `name` is not a valid tool name"),
            (
                r#"{"name":"b","description":[],"inputSchema":{}}"#.to_owned(),
                "tool `b`: `description` must be a string",
            ),
            (
                format!(r#"{{"name":"b","description":"{long}","inputSchema":{{}}}}"#),
                "tool `b`: `description` exceeds 16384 bytes",
            ),
            (r#"{"name":"b"}"#.to_owned(), "tool `b`: `inputSchema` is missing"),
            (r#"{"name":"b","inputSchema":null}"#.to_owned(), "tool `b`: `inputSchema` must be an object"),
            (r#"{"name":"b","inputSchema":true}"#.to_owned(), "tool `b`: `inputSchema` must be an object"),
            (
                format!(r#"{{"name":"b","inputSchema":{{"d":"{wide}"}}}}"#),
                "tool `b`: `inputSchema` exceeds 32768 bytes",
            ),
            (
                format!(r#"{{"name":"b","inputSchema":{deep}}}"#),
                "tool `b`: `inputSchema` is nested deeper than 24 levels",
            ),
        ] {
            let message = format!(
                r#"{{"jsonrpc":"2.0","id":1,"result":{{"tools":[{},{bad},{}],"nextCursor":"2"}}}}"#,
                good("a"),
                good("c")
            );
            let (listed, rest) = take_tools(&message).unwrap();
            let names = listed.usable.iter().map(|tool| tool.name().as_str()).collect::<Vec<_>>();
            assert_eq!(names, ["a", "c"], "{want}");
            assert_eq!(listed.unusable.len(), 1);
            let text = listed.unusable[0].to_string();
            assert!(text.starts_with(want) && text.len() < 200, "{text}");
            assert_eq!(rest, r#"{"jsonrpc":"2.0","id":1,"result":{"tools":[],"nextCursor":"2"}}"#);
        }
    }

    /// Members that do not count can't make a tool unusable.
    #[test]
    fn other_members_are_ignored() {
        let message = r#"{"result":{"tools":[{"name":"a","description":null,"inputSchema":{},"annotations":7,"outputSchema":[],"icons":{"x":[]},"execution":"?"}]}}"#;
        let (listed, _) = take_tools(message).unwrap();
        assert_eq!((listed.usable.len(), listed.unusable.len()), (1, 0));
    }

    #[test]
    fn message_without_a_list_is_left_alone() {
        for message in
            ["", "{}", r#"{"result":{}}"#, r#"{"result":{"tools":{}}}"#, r#"{"result":{"tools":null}}"#, "[]"]
        {
            assert!(take_tools(message).is_none(), "{message}");
        }
        // The same text earlier in the message is not the list.
        let message = r#"{"x":"[7]","result":{"y":[7],"tools":[7]}}"#;
        let (_, rest) = take_tools(message).unwrap();
        assert_eq!(rest, r#"{"x":"[7]","result":{"y":[7],"tools":[]}}"#);
    }
}
