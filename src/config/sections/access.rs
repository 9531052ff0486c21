//! Scopes and tools in ceilings, delegation edges and entitlement rules.

use crate::config::node::{Node, Section, StringOrSection};
use crate::domain::{
    authority::{Arg, Constraints, MAX_DETAILS_DEPTH, ToolUse},
    id::ToolName,
    registry::client::Access,
    scope::ScopeToken,
};

pub(in crate::config) const CLIENT_ID_HINT: &str = "write the `id` exactly as it is declared";
pub(in crate::config) const TOOL_NAME_HINT: &str = "write the tool's name as the MCP server lists it";

pub(in crate::config) fn read_scopes(node: &Node<'_>) -> Option<Vec<ScopeToken>> {
    node.elements(|item| item.parse("write one scope per element, such as `files:read`"))
}

/// Reads an entry of `access`: a resource with scopes and tools.
pub(in crate::config) fn read_access(mut section: Section<'_>) -> Option<Access> {
    let resource = section.required("resource", "\"files\"", |node| node.parse(CLIENT_ID_HINT));
    let scopes = section.optional("scopes", |node| read_scopes(&node)).unwrap_or_default();
    let tools = section.optional("tools", |node| read_tools(&node)).unwrap_or_default();
    Some(Access { resource: resource?, scopes, tools })
}

/// Reads tools, each by its name or with constraints on its arguments.
pub(in crate::config) fn read_tools(node: &Node<'_>) -> Option<Vec<ToolUse>> {
    node.elements(|item| match item.string_or_section()? {
        StringOrSection::String(_) => item.parse::<ToolName>(TOOL_NAME_HINT).map(Into::into),
        StringOrSection::Section(section) => read_tool_use(&item, section),
    })
}

fn read_tool_use(node: &Node<'_>, mut section: Section<'_>) -> Option<ToolUse> {
    let tool = section.required("identifier", "\"read_file\"", |node| node.parse::<ToolName>(TOOL_NAME_HINT));
    let constraints = section.get("constraints");
    let additional = section.optional("additional_arguments", |node| node.boolean()).map(Arg::Bool);
    let arg = match &constraints {
        None => None,
        Some(node) => {
            node.entries()?;
            Some(node.to_arg(MAX_DETAILS_DEPTH)?)
        }
    };
    let parsed = Constraints::parse(arg.as_ref(), additional.as_ref()).map_err(|error| {
        let path = error.path.strip_prefix(".constraints").unwrap_or(&error.path).trim_start_matches('.');
        let colon = if path.is_empty() { "" } else { ": " };
        let remedy =
            "for example, `constraints = { path = { prefix = \"/reports/\" } }`; see docs/reference/authority.md";
        constraints.as_ref().unwrap_or(node).error(format_args!("{path}{colon}{}", error.rule), remedy);
    });
    Some(ToolUse { tool: tool?, constraints: parsed.ok()? })
}
