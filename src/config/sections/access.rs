//! Names of one object that stand in another, and what to do about one that can't be read.

use crate::config::node::{Node, Section};
use crate::domain::{
    authority::{Arg, Constraints, MAX_DETAILS_DEPTH, ToolUse},
    id::ToolName,
    registry::client::Access,
    scope::ScopeToken,
};

pub(in crate::config) const CLIENT_ID_HINT: &str = "write the `id` as it stands there";
pub(in crate::config) const TOOL_NAME_HINT: &str = "write the tool's name as the MCP server lists it";

pub(in crate::config) fn read_scopes(at: &Node<'_>) -> Option<Vec<ScopeToken>> {
    at.elements(|item| item.parse("write one scope an item, such as `files:read`"))
}

/// A part of a ceiling.
pub(in crate::config) fn read_access(mut section: Section<'_>) -> Option<Access> {
    let resource = section.required("resource", "\"files\"", |at| at.parse(CLIENT_ID_HINT));
    let scopes = section.optional("scopes", |at| read_scopes(&at)).unwrap_or_default();
    let tools = section.optional("tools", |at| read_tools(&at)).unwrap_or_default();
    Some(Access { resource: resource?, scopes, tools })
}

/// Tools, each by its name or with rules for its arguments.
pub(in crate::config) fn read_tools(at: &Node<'_>) -> Option<Vec<ToolUse>> {
    at.elements(|item| {
        if item.is_string() { item.parse::<ToolName>(TOOL_NAME_HINT).map(Into::into) } else { read_tool_use(&item) }
    })
}

fn read_tool_use(at: &Node<'_>) -> Option<ToolUse> {
    let mut section = at.section()?;
    let tool = section.required("identifier", "\"read_file\"", |at| at.parse::<ToolName>(TOOL_NAME_HINT));
    let rules = section.get("constraints");
    let additional = section.optional("additional_arguments", |at| at.boolean()).map(Arg::Bool);
    let read = match &rules {
        None => None,
        Some(at) => Some(at.to_arg(MAX_DETAILS_DEPTH)?),
    };
    let constraints = Constraints::parse(read.as_ref(), additional.as_ref()).map_err(|fault| {
        let place = fault.path.strip_prefix(".constraints").unwrap_or(&fault.path).trim_start_matches('.');
        let colon = if place.is_empty() { "" } else { ": " };
        let remedy = "such as `constraints = { path = { prefix = \"/reports/\" } }`; docs/reference/authority.md has all of them";
        rules.as_ref().unwrap_or(at).error(format_args!("{place}{colon}{}", fault.rule), remedy);
    });
    Some(ToolUse { tool: tool?, constraints: constraints.ok()? })
}
