//! Text of lists, for the summary and the warnings.

use std::fmt::Display;

/// Joins scopes and tools to one list; a tool is marked as one.
pub(super) fn format_permissions(scopes: &[impl Display], tools: &[impl Display]) -> String {
    let names = scopes.iter().map(ToString::to_string).chain(tools.iter().map(|tool| format!("tool {tool}")));
    names.collect::<Vec<_>>().join(", ")
}

/// Joins items with commas.
pub(super) fn format_list(items: &[impl Display]) -> String {
    items.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}
