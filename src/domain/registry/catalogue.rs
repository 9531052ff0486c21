//! The catalogue: what resources offer, and whether each tool is still the one that an admin has looked at.

use std::collections::BTreeMap;

use crate::domain::{
    authority::{Action, Authority, ListAction, Permission},
    id::{ClientId, ToolDigest, ToolName},
    registry::{
        Registry,
        resource::Resource,
        tool::{KnownTool, ToolState, ToolUnavailable},
    },
    scope::ScopeToken,
};

/// What is known of the tools of each resource.
pub type KnownTools = BTreeMap<ClientId, BTreeMap<ToolName, KnownTool>>;

/// A tool that is asked for and is not good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnacceptedTool {
    /// Which.
    pub tool: ToolName,
    /// Why not.
    pub reason: ToolUnavailable,
}

impl Registry {
    /// The same registry, with what is known of tools.
    #[must_use]
    pub fn with_tools(self, known: KnownTools) -> Self {
        Self { known_tools: known, ..self }
    }

    /// How it stands with a tool of a resource.
    #[must_use]
    pub fn tool_state(&self, resource: &ClientId, tool: &ToolName) -> ToolState {
        let known = self.known_tools.get(resource).and_then(|tools| tools.get(tool));
        known.map_or(ToolState::Unchecked, KnownTool::state)
    }

    /// Whether the server of a resource was ever asked for its tools.
    #[must_use]
    pub fn has_known_tools(&self, resource: &ClientId) -> bool {
        self.known_tools.contains_key(resource)
    }

    /// The same authority, each permission [pinned](Self::pin).
    pub fn bind_definitions(&self, asked: &Authority) -> Result<Authority, UnacceptedTool> {
        if self.known_tools.is_empty() {
            return Ok(asked.clone());
        }
        asked.iter().map(|permission| self.bind_definition(permission)).collect()
    }

    /// The same permission, bound to the definition of its tool where that is known: what may go into a token. Says no
    /// where the tool is not good. What no resource offers is left to the ceilings.
    pub fn bind_definition(&self, asked: &Permission) -> Result<Permission, UnacceptedTool> {
        let Some((tool, known)) = self.known_tool(asked).filter(|(tool, _)| self.is_offered(asked, tool)) else {
            return Ok(asked.clone());
        };
        let no = |why| Err(UnacceptedTool { tool: tool.clone(), reason: why });
        let accepted = match (known.state(), &known.accepted) {
            (ToolState::Known, Some(accepted)) => accepted,
            (ToolState::Changed, _) => return no(ToolUnavailable::Changed),
            (ToolState::Gone, _) => return no(ToolUnavailable::Gone),
            (ToolState::Proposed | ToolState::Known | ToolState::Unchecked, _) => return no(ToolUnavailable::Proposed),
        };
        if asked.digest.as_ref().is_some_and(|digest| digest != accepted) {
            return no(ToolUnavailable::DigestMismatch);
        }
        Ok(Permission { digest: Some(accepted.clone()), ..asked.clone() })
    }

    /// What of an authority is good now, each tool being offered and the one that was accepted; `None` when all of it is.
    #[must_use]
    pub fn remaining_available(&self, authority: &Authority) -> Option<Authority> {
        if authority.iter().all(|permission| self.is_available(permission)) {
            return None;
        }
        Some(authority.iter().filter(|permission| self.is_available(permission)).cloned().collect())
    }

    fn is_available(&self, permission: &Permission) -> bool {
        if permission.tool().is_some_and(|tool| !self.is_offered(permission, tool)) {
            return false;
        }
        let is_accepted = |digest: &ToolDigest, known: &KnownTool| known.accepted.as_ref() == Some(digest);
        self.known_tool(permission).is_none_or(|(_, known)| {
            known.state() == ToolState::Known
                && permission.digest.as_ref().is_none_or(|digest| is_accepted(digest, known))
        })
    }

    fn known_tool<'a>(&'a self, permission: &'a Permission) -> Option<(&'a ToolName, &'a KnownTool)> {
        let tool = permission.tool()?;
        let id = self.by_uri.get(&permission.resource)?;
        Some((tool, self.known_tools.get(id)?.get(tool)?))
    }

    fn is_offered(&self, permission: &Permission, tool: &ToolName) -> bool {
        self.resource_at(&permission.resource).is_some_and(|r| r.tools.iter().any(|offered| offered.name == *tool))
    }
}

/// The part of what a resource offers that stands under such a scope, or has such a name.
pub(super) fn offered_permissions(
    resource: &Resource,
    under: impl Fn(&ScopeToken) -> bool,
    named: impl Fn(&ToolName) -> bool,
) -> Vec<Permission> {
    let tools = resource.tools.iter().filter(|tool| under(&tool.scope) || named(&tool.name));
    let calls = tools.map(|tool| Permission::unconstrained(resource.uri.clone(), tool.name.clone()));
    let may_list = resource.discovery_scope.as_ref().is_some_and(&under);
    let listings = ListAction::ALL.into_iter().filter(|_| may_list);
    calls.chain(listings.map(|listing| Permission::listing(resource.uri.clone(), listing))).collect()
}

/// Everything that stands under a scope at a resource, with whether `authority` allows all of it, whatever the arguments.
pub(super) fn resource_scope_coverage<'a>(
    resource: &'a Resource,
    authority: &'a Authority,
) -> impl Iterator<Item = (&'a ScopeToken, bool)> {
    let calls = resource.tools.iter().map(|tool| (&tool.scope, authority.allows_every_call(&resource.uri, &tool.name)));
    let lists_all = || ListAction::ALL.into_iter().all(|listing| authority.allows_listing(&resource.uri, listing));
    calls.chain(resource.discovery_scope.iter().map(move |scope| (scope, lists_all())))
}

/// Whether `ceiling` knows the tool of `asked` by another definition: then it is not too much that is asked for.
pub(crate) fn find_definition_mismatch(ceiling: &Authority, asked: &Permission) -> Option<ToolName> {
    let Action::Call(tool) = &asked.action else { return None };
    let is_other = |known: &Permission| {
        known.resource == asked.resource
            && known.action == asked.action
            && known.digest.is_some()
            && known.digest != asked.digest
    };
    ceiling.iter().any(is_other).then(|| tool.clone())
}
