//! Names of one object that stand in another, and what to do about one that can't be read.

use super::reader::{At, Section};
use crate::domain::{
    authority::{Arg, Constraints, MAX_DETAILS_DEPTH, ToolUse},
    client::Access,
    id::ToolName,
    scope::ScopeToken,
};

pub(super) const ID: &str = "write the `id` as it stands there";
pub(super) const TOOL: &str = "write the tool's name as the MCP server lists it";

pub(super) fn scopes(at: &At<'_>) -> Option<Vec<ScopeToken>> {
    at.each(|item| item.parse("write one scope an item, such as `files:read`"))
}

/// A part of a ceiling.
pub(super) fn access(mut section: Section<'_>) -> Option<Access> {
    let resource = section.must("resource", "\"files\"", |at| at.parse(ID));
    let scopes = section.read("scopes", |at| scopes(&at)).unwrap_or_default();
    let tools = section.read("tools", |at| tools(&at)).unwrap_or_default();
    Some(Access { resource: resource?, scopes, tools })
}

/// Tools, each by its name or with rules for its arguments.
pub(super) fn tools(at: &At<'_>) -> Option<Vec<ToolUse>> {
    at.each(|item| if item.is_text() { item.parse::<ToolName>(TOOL).map(Into::into) } else { tool_use(&item) })
}

fn tool_use(at: &At<'_>) -> Option<ToolUse> {
    let mut section = at.section()?;
    let tool = section.must("identifier", "\"read_file\"", |at| at.parse::<ToolName>(TOOL));
    let rules = section.get("constraints");
    let additional = section.read("additional_arguments", |at| at.flag()).map(Arg::Bool);
    let read = match &rules {
        None => None,
        Some(at) => Some(at.arg(MAX_DETAILS_DEPTH)?),
    };
    let constraints = Constraints::parse(read.as_ref(), additional.as_ref()).map_err(|fault| {
        let place = fault.path.strip_prefix(".constraints").unwrap_or(&fault.path).trim_start_matches('.');
        let colon = if place.is_empty() { "" } else { ": " };
        let remedy = "such as `constraints = { path = { prefix = \"/reports/\" } }`; docs/reference/authority.md has all of them";
        rules.as_ref().unwrap_or(at).wrong(format_args!("{place}{colon}{}", fault.rule), remedy);
    });
    Some(ToolUse { tool: tool?, constraints: constraints.ok()? })
}
