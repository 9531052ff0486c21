//! Authorities: sets of permissions to call tools of MCP servers, with constraints on the
//! arguments.
//!
//! An authority only shrinks on its way from a person to an agent and from agent to agent. Three
//! total functions define what that means:
//!
//! - [`Authority::allows`]: whether a call is allowed;
//! - [`Authority::is_subset_of`]: whether another authority allows every call that this one allows.
//!   Sound, not complete: it may answer no when unsure, but never a wrong yes;
//! - [`Authority::intersect`]: the authority that allows what both allow.
//!
//! On the wire, an authority is `authorization_details` of the type `mcp_tool`
//! ([RFC 9396](https://www.rfc-editor.org/rfc/rfc9396)).
//!
//! # Examples
//!
//! [`parse_details`] parses the details of a request. A detail without `locations` is for the
//! target of the request:
//!
//! ```
//! use errand_authority::authority::parse_details;
//!
//! let target = "https://files.example.com/mcp".parse()?;
//! let requested = parse_details(
//!     r#"[{"type": "mcp_tool", "actions": ["tools/call"], "identifier": "read_file",
//!          "constraints": {"path": {"prefix": "/reports/"}}}]"#,
//!     Some(&target),
//! )?;
//! assert_eq!(requested.len(), 1);
//!
//! // Unknown members and constraints are rejected. The error names the location, not the value.
//! let error = parse_details(
//!     r#"[{"type": "mcp_tool", "actions": ["tools/call"], "identifier": "read_file",
//!          "constraints": {"path": {"regex": ".*"}}}]"#,
//!     Some(&target),
//! )
//! .unwrap_err();
//! assert_eq!(error.path, "[0].constraints.path");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! [`Authority::allows`] decides about a call. Arguments without a rule are rejected, unless
//! `additional_arguments` is true:
//!
//! ```
//! # use errand_authority::authority::parse_details;
//! use errand_authority::authority::Arg;
//!
//! # let target = "https://files.example.com/mcp".parse()?;
//! # let authority = parse_details(
//! #     r#"[{"type": "mcp_tool", "actions": ["tools/call"], "identifier": "read_file",
//! #          "constraints": {"path": {"prefix": "/reports/"}}}]"#,
//! #     Some(&target),
//! # )?;
//! let tool = "read_file".parse()?;
//! let allows = |arguments: &str| match Arg::parse(arguments, 8) {
//!     Ok(Arg::Object(arguments)) => authority.allows(&target, &tool, &arguments),
//!     _ => false,
//! };
//! assert!(allows(r#"{"path": "/reports/q3.md"}"#));
//! assert!(!allows(r#"{"path": "/reports/../etc/passwd"}"#));
//! assert!(!allows(r#"{"path": "/reports/q3.md", "follow_links": true}"#));
//! assert!(!allows(r#"{}"#));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! [`Authority::intersect`] applies a limit, and [`Authority::is_subset_of`] checks one:
//!
//! ```
//! # use errand_authority::authority::{Authority, parse_details};
//! # let target = "https://files.example.com/mcp".parse()?;
//! let with_path = |rule: &str| {
//!     let details = format!(
//!         r#"[{{"type": "mcp_tool", "actions": ["tools/call"], "identifier": "read_file",
//!              "constraints": {{"path": {rule}}}}}]"#
//!     );
//!     parse_details(&details, Some(&target))
//! };
//! let requested = with_path(r#"{"one_of": ["/reports/q3.md", "/etc/passwd"]}"#)?;
//! let ceiling = with_path(r#"{"prefix": "/reports/"}"#)?;
//! assert!(!requested.is_subset_of(&ceiling));
//!
//! let granted = requested.intersect(&ceiling);
//! assert_eq!(granted, with_path(r#"{"equals": "/reports/q3.md"}"#)?);
//! assert!(granted.is_subset_of(&requested) && granted.is_subset_of(&ceiling));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod call;
mod constraint;
mod coverage;
mod decode;
mod escape;
mod path;
#[cfg(test)]
mod tests;
mod tool_use;
mod value;
mod wire;

use std::{cmp::Ordering, collections::BTreeMap};

pub use call::CallRefusal;
pub use constraint::{Constraints, Rule};
pub use tool_use::ToolUse;
pub use value::{Arg, Decimal, ValueKind};
pub use wire::{
    AuthorizationDetails, CALL_ACTION, DETAIL_TYPE, DetailsError, MAX_DETAILS, MAX_DETAILS_BYTES, MAX_DETAILS_DEPTH,
    RequestedPermissions, parse_detail, parse_details,
};

use crate::{
    digest::{self, ToolDigest},
    encoding::jcs,
    id::ToolName,
    uri::ResourceUri,
};

/// An action at a resource.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Action {
    /// Call the tool with this name.
    Call(ToolName),
    /// List tools or data. Allows no call.
    List(ListAction),
}

/// A list method of MCP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ListAction {
    /// Lists the tools with their definitions.
    Tools,
    /// Lists what MCP calls resources: the data that a server offers.
    Resources,
}

impl ListAction {
    /// All list actions: the meaning of a discovery scope.
    pub const ALL: [Self; 2] = [Self::Tools, Self::Resources];

    /// Returns the method name of MCP.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tools => "tools/list",
            Self::Resources => "resources/list",
        }
    }

    /// Parses a method name of MCP.
    #[must_use]
    pub fn parse(method: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|listing| listing.as_str() == method)
    }
}

impl Action {
    /// The key for sorting and lookup.
    fn sort_key(&self) -> (bool, &str) {
        match self {
            Self::Call(tool) => call_key(tool),
            Self::List(listing) => (true, listing.as_str()),
        }
    }
}

fn call_key(tool: &ToolName) -> (bool, &str) {
    (false, tool.as_str())
}

/// A permission: call a tool of a resource with certain arguments, or list its tools or data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Permission {
    /// The MCP server.
    pub resource: ResourceUri,
    /// The allowed action.
    pub action: Action,
    /// Constraints on the arguments.
    pub constraints: Constraints,
    /// The digest of the tool definition that the permission is for. `None`: any definition.
    pub digest: Option<ToolDigest>,
}

impl Permission {
    /// Returns a permission for every call of a tool.
    #[must_use]
    pub fn unconstrained(resource: ResourceUri, tool: ToolName) -> Self {
        Self { resource, action: Action::Call(tool), constraints: Constraints::none(), digest: None }
    }

    /// Returns a permission for a list action.
    #[must_use]
    pub fn listing(resource: ResourceUri, listing: ListAction) -> Self {
        Self { resource, action: Action::List(listing), constraints: Constraints::none(), digest: None }
    }

    /// Returns the tool that may be called, or `None` for a list action.
    #[must_use]
    pub fn tool(&self) -> Option<&ToolName> {
        match &self.action {
            Action::Call(tool) => Some(tool),
            Action::List(_) => None,
        }
    }

    fn sort_key(&self) -> (&ResourceUri, (bool, &str)) {
        (&self.resource, self.action.sort_key())
    }

    fn is_subset_of(&self, other: &Self) -> bool {
        self.sort_key() == other.sort_key()
            && self.has_definition_of(other)
            && self.constraints.is_subset_of(&other.constraints)
    }

    /// Returns whether every definition of the tool that `self` is for is one that `other` is for.
    fn has_definition_of(&self, other: &Self) -> bool {
        other.digest.is_none() || self.digest == other.digest
    }

    fn intersect(&self, other: &Self) -> Option<Self> {
        let digest = match (&self.digest, &other.digest) {
            (Some(ours), Some(theirs)) if ours != theirs => return None,
            (ours, theirs) => ours.as_ref().or(theirs.as_ref()).cloned(),
        };
        let constraints =
            (self.sort_key() == other.sort_key()).then(|| self.constraints.intersect(&other.constraints))??;
        Some(Self { constraints, digest, ..self.clone() })
    }

    /// The sort key after resource and action: the canonical text of the permission.
    fn canonical_text(&self) -> String {
        jcs::to_string(self).unwrap_or_default()
    }
}

impl Ord for Permission {
    fn cmp(&self, other: &Self) -> Ordering {
        self.sort_key().cmp(&other.sort_key()).then_with(|| {
            if self == other { Ordering::Equal } else { self.canonical_text().cmp(&other.canonical_text()) }
        })
    }
}

impl PartialOrd for Permission {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// A set of permissions. It allows a call if one of them does; the empty set allows nothing.
///
/// The permissions are sorted, and a permission that another one covers is dropped, so that equal
/// sets usually have equal representations.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Authority(Vec<Permission>);

impl Authority {
    /// Returns whether a call of this tool with these arguments is allowed.
    #[must_use]
    pub fn allows(&self, resource: &ResourceUri, tool: &ToolName, arguments: &BTreeMap<String, Arg>) -> bool {
        self.permissions_for(resource, call_key(tool)).any(|p| p.constraints.allows(arguments))
    }

    /// Returns whether this list action is allowed.
    #[must_use]
    pub fn allows_listing(&self, resource: &ResourceUri, listing: ListAction) -> bool {
        self.permissions_for(resource, Action::List(listing).sort_key()).next().is_some()
    }

    /// Returns whether every call of this tool is allowed, with any arguments.
    #[must_use]
    pub fn allows_every_call(&self, resource: &ResourceUri, tool: &ToolName) -> bool {
        self.permissions_for(resource, call_key(tool)).any(|p| p.constraints.is_none())
    }

    /// Returns whether `other` allows everything that `self` allows. Sound, not complete: it may
    /// answer no when unsure, but never a wrong yes.
    #[must_use]
    pub fn is_subset_of(&self, other: &Self) -> bool {
        self.0.iter().all(|ours| other.covers(ours))
    }

    /// Returns whether the permissions of this set, alone or together, allow everything that
    /// `permission` allows. Sound, not complete.
    #[must_use]
    pub fn covers(&self, permission: &Permission) -> bool {
        let relevant = || {
            self.permissions_for(&permission.resource, permission.action.sort_key())
                .filter(|theirs| permission.has_definition_of(theirs))
        };
        if relevant().any(|theirs| permission.is_subset_of(theirs)) {
            return true;
        }
        let others = relevant().map(|theirs| &theirs.constraints).collect::<Vec<_>>();
        others.len() > 1 && coverage::is_covered(&permission.constraints, &others)
    }

    /// Returns where, in its wire form, a permission exceeds this set; `None` if this set covers
    /// it. With `in_full`, the path may name an argument that only a rule of this set names.
    #[must_use]
    pub fn excess_path(&self, permission: &Permission, in_full: bool) -> Option<String> {
        if self.covers(permission) {
            return None;
        }
        let mut about = self.permissions_for(&permission.resource, permission.action.sort_key());
        Some(match (about.next(), about.next()) {
            (None, _) if permission.tool().is_none() => ".actions".to_owned(),
            (None, _) => ".identifier".to_owned(),
            (Some(only), None) => permission.constraints.excess_path(&only.constraints, in_full),
            (Some(_), Some(_)) => ".constraints".to_owned(),
        })
    }

    /// Returns the first permission of `self` that `other` does not cover.
    #[must_use]
    pub fn first_excess<'a>(&'a self, other: &Self) -> Option<&'a Permission> {
        self.0.iter().find(|ours| !other.covers(ours))
    }

    /// Returns the authority that allows what both allow.
    #[must_use]
    pub fn intersect(&self, other: &Self) -> Self {
        let pairs = self.0.iter().flat_map(|ours| {
            other
                .permissions_for(&ours.resource, ours.action.sort_key())
                .filter_map(move |theirs| ours.intersect(theirs))
        });
        pairs.collect()
    }

    /// Returns the permissions at one resource: those that a token for it may carry.
    #[must_use]
    pub fn restrict_to(&self, resource: &ResourceUri) -> Self {
        Self(self.0.iter().filter(|p| p.resource == *resource).cloned().collect())
    }

    /// Returns whether the set is empty, so that it allows nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the number of permissions.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Iterates over the permissions, sorted by resource and action.
    pub fn iter(&self) -> impl Iterator<Item = &Permission> {
        self.0.iter()
    }

    /// Computes the authority hash: `sha-256:` and the base64url digest of the canonical JSON
    /// (RFC 8785) of the permissions.
    #[must_use]
    pub fn hash(&self) -> String {
        // Every permission has a canonical form. The hash of an empty text would match no approved
        // authority.
        let canonical = jcs::to_string(self).unwrap_or_default();
        digest::sha256_text(canonical.as_bytes())
    }

    /// The permissions for one action at one resource. They are adjacent, since the set is sorted.
    fn permissions_for<'a, 'b>(
        &'a self,
        resource: &'b ResourceUri,
        action: (bool, &'b str),
    ) -> impl Iterator<Item = &'a Permission> + use<'a, 'b> {
        let from = self.0.partition_point(|p| p.sort_key() < (resource, action));
        let rest = self.0.get(from..).unwrap_or_default();
        rest.iter().take_while(move |p| p.sort_key() == (resource, action))
    }
}

impl FromIterator<Permission> for Authority {
    fn from_iter<I: IntoIterator<Item = Permission>>(permissions: I) -> Self {
        let mut sorted = permissions.into_iter().collect::<Vec<_>>();
        sorted.sort();
        sorted.dedup();
        // Only permissions for the same action can cover each other, and these are adjacent.
        // Usually there is one for each action.
        if sorted.iter().zip(sorted.iter().skip(1)).all(|(one, next)| one.sort_key() != next.sort_key()) {
            return Self(sorted);
        }
        let kept = sorted.chunk_by(|one, next| one.sort_key() == next.sort_key()).flat_map(|about| {
            let is_covered = |n: usize, ours: &Permission| {
                about.iter().enumerate().any(|(m, theirs)| {
                    // Of two that cover each other, the first is kept.
                    n != m && ours.is_subset_of(theirs) && (m < n || !theirs.is_subset_of(ours))
                })
            };
            about.iter().enumerate().filter(move |(n, p)| !is_covered(*n, p)).map(|(_, p)| p.clone())
        });
        Self(kept.collect())
    }
}
