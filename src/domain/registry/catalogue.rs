//! Catalogue: what resources offer, and whether each tool's definition is still the accepted one.

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

/// The observed tools of each resource.
pub type KnownTools = BTreeMap<ClientId, BTreeMap<ToolName, KnownTool>>;

/// A requested tool that is not available.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnacceptedTool {
    /// The tool.
    pub tool: ToolName,
    /// Why the tool is not available.
    pub reason: ToolUnavailable,
}

/// A value reduced to the part that is valid now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reduction<T> {
    /// The complete value is valid.
    Unchanged,
    /// Only this part is valid.
    Reduced(T),
}

impl Registry {
    /// Returns the registry with these observed tools.
    #[must_use]
    pub fn with_tools(self, known: KnownTools) -> Self {
        Self { known_tools: known, ..self }
    }

    /// Returns the state of a tool of a resource.
    #[must_use]
    pub fn tool_state(&self, resource: &ClientId, tool: &ToolName) -> ToolState {
        let known = self.known_tools.get(resource).and_then(|tools| tools.get(tool));
        known.map_or(ToolState::Unchecked, KnownTool::state)
    }

    /// Returns the observed tools of a resource.
    pub fn known_tools_of(&self, resource: &ClientId) -> impl Iterator<Item = (&ToolName, &KnownTool)> {
        self.known_tools.get(resource).into_iter().flatten()
    }

    /// Returns whether a permission names another definition of its tool than the accepted one.
    #[must_use]
    pub fn is_superseded(&self, permission: &Permission) -> bool {
        let accepted = self.known_tool(permission).and_then(|(_, known)| known.accepted.as_ref());
        accepted.is_some_and(|accepted| permission.digest.as_ref().is_some_and(|digest| digest != accepted))
    }

    /// Returns whether the tools of a resource were ever fetched from its server.
    #[must_use]
    pub fn has_known_tools(&self, resource: &ClientId) -> bool {
        self.known_tools.contains_key(resource)
    }

    /// Returns the same authority with each permission [bound to its
    /// definition](Self::bind_definition).
    pub fn bind_definitions(&self, requested: &Authority) -> Result<Authority, UnacceptedTool> {
        if self.known_tools.is_empty() {
            return Ok(requested.clone());
        }
        requested.iter().map(|permission| self.bind_definition(permission)).collect()
    }

    /// Returns the permission bound to the accepted definition of its tool, if the definition is
    /// known. Only such a permission may go into a token. Fails if the tool is not available. A
    /// tool that no resource offers is left to the ceilings.
    pub fn bind_definition(&self, requested: &Permission) -> Result<Permission, UnacceptedTool> {
        let Some((tool, known)) = self.known_tool(requested).filter(|(tool, _)| self.is_offered(requested, tool))
        else {
            return Ok(requested.clone());
        };
        let unavailable = |reason| Err(UnacceptedTool { tool: tool.clone(), reason });
        let accepted = match (known.state(), &known.accepted) {
            (ToolState::Known, Some(accepted)) => accepted,
            (ToolState::Changed, _) => return unavailable(ToolUnavailable::Changed),
            (ToolState::Gone, _) => return unavailable(ToolUnavailable::Gone),
            (ToolState::Proposed | ToolState::Known | ToolState::Unchecked, _) => {
                return unavailable(ToolUnavailable::Proposed);
            }
        };
        if requested.digest.as_ref().is_some_and(|digest| digest != accepted) {
            return unavailable(ToolUnavailable::DigestMismatch);
        }
        Ok(Permission { digest: Some(accepted.clone()), ..requested.clone() })
    }

    /// Returns the part of an authority that is available now: each tool is offered, and its
    /// definition is the accepted one.
    #[must_use]
    pub fn remaining_available(&self, authority: &Authority) -> Reduction<Authority> {
        if authority.iter().all(|permission| self.is_available(permission)) {
            return Reduction::Unchanged;
        }
        Reduction::Reduced(authority.iter().filter(|permission| self.is_available(permission)).cloned().collect())
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

/// Returns the permissions that a resource offers for the selected scopes and tool names.
pub(super) fn offered_permissions(
    resource: &Resource,
    has_scope: impl Fn(&ScopeToken) -> bool,
    has_name: impl Fn(&ToolName) -> bool,
) -> Vec<Permission> {
    let tools = resource.tools.iter().filter(|tool| has_scope(&tool.scope) || has_name(&tool.name));
    let calls = tools.map(|tool| Permission::unconstrained(resource.uri.clone(), tool.name.clone()));
    let may_list = resource.discovery_scope.as_ref().is_some_and(&has_scope);
    let listings = ListAction::ALL.into_iter().filter(|_| may_list);
    calls.chain(listings.map(|listing| Permission::listing(resource.uri.clone(), listing))).collect()
}

/// Returns every scope of a resource, with whether `authority` allows everything under it without
/// argument constraints.
pub(super) fn resource_scope_coverage<'a>(
    resource: &'a Resource,
    authority: &'a Authority,
) -> impl Iterator<Item = (&'a ScopeToken, bool)> {
    let calls = resource.tools.iter().map(|tool| (&tool.scope, authority.allows_every_call(&resource.uri, &tool.name)));
    let lists_all = || ListAction::ALL.into_iter().all(|listing| authority.allows_listing(&resource.uri, listing));
    calls.chain(resource.discovery_scope.iter().map(move |scope| (scope, lists_all())))
}

/// Returns the tool of `requested` if `ceiling` has it with another definition. The request then
/// fails because of the definition, not because it exceeds the ceiling.
pub(crate) fn find_definition_mismatch(ceiling: &Authority, requested: &Permission) -> Option<ToolName> {
    let Action::Call(tool) = &requested.action else { return None };
    let has_other_definition = |known: &Permission| {
        known.resource == requested.resource
            && known.action == requested.action
            && known.digest.is_some()
            && known.digest != requested.digest
    };
    ceiling.iter().any(has_other_definition).then(|| tool.clone())
}
