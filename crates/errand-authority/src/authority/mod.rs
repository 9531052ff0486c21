//! What may be done: a set of permissions, each a tool of a resource with constraints on the arguments of a call.
//!
//! An authority only ever shrinks: [`Authority::within`] and [`Authority::meet`] are the two relations it shrinks by, and
//! [`Authority::allows`] is what they are about. All three are total; `within` is sound: it never says yes wrongly.

mod constraint;
mod decode;
mod escape;
mod path;
#[cfg(test)]
mod tests;
mod tool_use;
mod value;
mod wire;

use std::{cmp::Ordering, collections::BTreeMap};

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

/// What can be done at a resource.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Action {
    /// Call a tool, by its name there.
    Call(ToolName),
    /// See what there is. Nothing can be called with it.
    List(ListAction),
}

/// What can be listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ListAction {
    /// The tools, with their definitions.
    Tools,
    /// What MCP calls resources: the data that a server shows.
    Resources,
}

impl ListAction {
    /// All of them: what a discovery scope stands for.
    pub const ALL: [Self; 2] = [Self::Tools, Self::Resources];

    /// The method of MCP.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tools => "tools/list",
            Self::Resources => "resources/list",
        }
    }

    /// Reads the method.
    #[must_use]
    pub fn parse(method: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|listing| listing.as_str() == method)
    }
}

impl Action {
    /// What it is sorted and looked up by.
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

/// One thing that may be done: call this tool of this resource, with arguments that fit; or list what is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Permission {
    /// The MCP server.
    pub resource: ResourceUri,
    /// What may be done there.
    pub action: Action,
    /// What the arguments must be like.
    pub constraints: Constraints,
    /// The definition of the tool that was looked at. None: whatever it is.
    pub digest: Option<ToolDigest>,
}

impl Permission {
    /// Every call of a tool.
    #[must_use]
    pub fn unconstrained(resource: ResourceUri, tool: ToolName) -> Self {
        Self { resource, action: Action::Call(tool), constraints: Constraints::none(), digest: None }
    }

    /// Seeing what there is.
    #[must_use]
    pub fn listing(resource: ResourceUri, listing: ListAction) -> Self {
        Self { resource, action: Action::List(listing), constraints: Constraints::none(), digest: None }
    }

    /// The tool that may be called; none, where something may only be listed.
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
        let same_definition = other.digest.is_none() || self.digest == other.digest;
        self.sort_key() == other.sort_key() && same_definition && self.constraints.is_subset_of(&other.constraints)
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

    /// What it is sorted by after its resource and its action: the canonical text of the whole.
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

/// A set of permissions: what one of them allows is allowed. The empty one allows nothing.
///
/// Kept sorted, and without permissions that another one covers, so that what means the same mostly is the same.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Authority(Vec<Permission>);

impl Authority {
    /// Whether a call of this tool with these arguments is allowed.
    #[must_use]
    pub fn allows(&self, resource: &ResourceUri, tool: &ToolName, arguments: &BTreeMap<String, Arg>) -> bool {
        self.permissions_for(resource, call_key(tool)).any(|p| p.constraints.allows(arguments))
    }

    /// Whether this may be listed.
    #[must_use]
    pub fn allows_listing(&self, resource: &ResourceUri, listing: ListAction) -> bool {
        self.permissions_for(resource, Action::List(listing).sort_key()).next().is_some()
    }

    /// Whether every call of this tool is allowed, whatever its arguments.
    #[must_use]
    pub fn allows_every_call(&self, resource: &ResourceUri, tool: &ToolName) -> bool {
        self.permissions_for(resource, call_key(tool)).any(|p| p.constraints.is_none())
    }

    /// Whether everything that `self` allows, `other` allows. Sound: it may say no when it is not sure.
    #[must_use]
    pub fn is_subset_of(&self, other: &Self) -> bool {
        self.0.iter().all(|ours| other.covers(ours))
    }

    /// Whether everything that a permission allows is allowed here, by one permission alone.
    #[must_use]
    pub fn covers(&self, asked: &Permission) -> bool {
        self.permissions_for(&asked.resource, asked.action.sort_key()).any(|theirs| asked.is_subset_of(theirs))
    }

    /// Where in its wire form a permission goes beyond what is allowed here; `None` when it does not. `in_full`: whether an
    /// argument may be named that the permission does not name itself, only a rule in here does.
    #[must_use]
    pub fn excess_path(&self, asked: &Permission, in_full: bool) -> Option<String> {
        if self.covers(asked) {
            return None;
        }
        let mut about = self.permissions_for(&asked.resource, asked.action.sort_key());
        Some(match (about.next(), about.next()) {
            (None, _) if asked.tool().is_none() => ".actions".to_owned(),
            (None, _) => ".identifier".to_owned(),
            (Some(only), None) => asked.constraints.excess_path(&only.constraints, in_full),
            (Some(_), Some(_)) => ".constraints".to_owned(),
        })
    }

    /// The first permission of `self` that is not within one of `other`.
    #[must_use]
    pub fn first_excess<'a>(&'a self, other: &Self) -> Option<&'a Permission> {
        self.0.iter().find(|ours| !other.covers(ours))
    }

    /// What both allow.
    #[must_use]
    pub fn intersect(&self, other: &Self) -> Self {
        let pairs = self.0.iter().flat_map(|ours| {
            other
                .permissions_for(&ours.resource, ours.action.sort_key())
                .filter_map(move |theirs| ours.intersect(theirs))
        });
        pairs.collect()
    }

    /// The part that is about one resource: what may stand in a token for it.
    #[must_use]
    pub fn restrict_to(&self, resource: &ResourceUri) -> Self {
        Self(self.0.iter().filter(|p| p.resource == *resource).cloned().collect())
    }

    /// Whether nothing is allowed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many permissions there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// The permissions, sorted by resource and action.
    pub fn iter(&self) -> impl Iterator<Item = &Permission> {
        self.0.iter()
    }

    /// `sha-256:` and the base64url digest of the canonical JSON (RFC 8785) of the permissions.
    #[must_use]
    pub fn hash(&self) -> String {
        // Everything in here has a canonical form; an empty text would only ever hash to something nobody approved.
        let canonical = jcs::to_string(self).unwrap_or_default();
        digest::sha256_text(canonical.as_bytes())
    }

    /// The permissions about one thing: they stand side by side, since the set is sorted.
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
        // Only permissions about the same thing can cover each other, and they stand side by side. Mostly there are none.
        if sorted.iter().zip(sorted.iter().skip(1)).all(|(one, next)| one.sort_key() != next.sort_key()) {
            return Self(sorted);
        }
        let kept = sorted.chunk_by(|one, next| one.sort_key() == next.sort_key()).flat_map(|about| {
            let is_covered = |n: usize, ours: &Permission| {
                about.iter().enumerate().any(|(m, theirs)| {
                    // Of two that cover each other, the first one stays.
                    n != m && ours.is_subset_of(theirs) && (m < n || !theirs.is_subset_of(ours))
                })
            };
            about.iter().enumerate().filter(move |(n, p)| !is_covered(*n, p)).map(|(_, p)| p.clone())
        });
        Self(kept.collect())
    }
}
