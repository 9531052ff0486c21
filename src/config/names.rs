//! Names of one object that stand in another, and what to do about one that can't be read.

use super::reader::At;
use crate::domain::scope::ScopeToken;

pub(super) const ID: &str = "write the `id` as it stands there";
pub(super) const TOOL: &str = "write the tool's name as the MCP server lists it";

pub(super) fn scopes(at: &At<'_>) -> Option<Vec<ScopeToken>> {
    at.each(|item| item.parse("write one scope an item, such as `files:read`"))
}
