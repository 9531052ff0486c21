//! What may be done: a set of permissions, each a tool of a resource with constraints on the arguments of a call.
//!
//! An authority only ever shrinks: [`Authority::within`] and [`Authority::meet`] are the two relations it shrinks by, and
//! [`Authority::allows`] is what they are about. All three are total; `within` is sound: it never says yes wrongly.

mod constraint;
mod path;
#[cfg(test)]
mod tests;
mod tools;
mod value;
mod wire;

use std::{cmp::Ordering, collections::BTreeMap};

use ring::digest;

pub use constraint::{Constraints, Rule};
pub use tools::ToolUse;
pub use value::{Arg, Decimal, Kind};
pub use wire::{
    ACTION, DETAIL_TYPE, Details, InvalidDetails, MAX_DETAILS, MAX_DETAILS_BYTES, MAX_DETAILS_DEPTH, parse_details,
};

use crate::domain::{id::ToolName, uri::ResourceUri};

/// One thing that may be done: call this tool of this resource, with arguments that fit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Permission {
    /// The MCP server.
    pub resource: ResourceUri,
    /// The tool, by its name there.
    pub tool: ToolName,
    /// What the arguments must be like.
    pub constraints: Constraints,
}

impl Permission {
    /// Every call of a tool.
    #[must_use]
    pub fn unconstrained(resource: ResourceUri, tool: ToolName) -> Self {
        Self { resource, tool, constraints: Constraints::none() }
    }

    fn is_about_same_tool(&self, other: &Self) -> bool {
        self.resource == other.resource && self.tool == other.tool
    }

    fn within(&self, other: &Self) -> bool {
        self.is_about_same_tool(other) && self.constraints.within(&other.constraints)
    }

    fn meet(&self, other: &Self) -> Option<Self> {
        let constraints = self.is_about_same_tool(other).then(|| self.constraints.meet(&other.constraints))??;
        Some(Self { constraints, ..self.clone() })
    }

    /// What it is sorted by: its resource, its tool, and the canonical text of the rest.
    fn text(&self) -> String {
        serde_json_canonicalizer::to_string(self).unwrap_or_default()
    }
}

impl Ord for Permission {
    fn cmp(&self, other: &Self) -> Ordering {
        (&self.resource, &self.tool)
            .cmp(&(&other.resource, &other.tool))
            .then_with(|| if self == other { Ordering::Equal } else { self.text().cmp(&other.text()) })
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
        self.about(resource, tool).any(|p| p.constraints.allow(arguments))
    }

    /// Whether every call of this tool is allowed, whatever its arguments.
    #[must_use]
    pub fn allows_every_call(&self, resource: &ResourceUri, tool: &ToolName) -> bool {
        self.about(resource, tool).any(|p| p.constraints.is_none())
    }

    /// Whether everything that `self` allows, `other` allows. Sound: it may say no when it is not sure.
    #[must_use]
    pub fn within(&self, other: &Self) -> bool {
        self.0.iter().all(|ours| other.covers(ours))
    }

    /// Whether everything that a permission allows is allowed here, by one permission alone.
    #[must_use]
    pub fn covers(&self, asked: &Permission) -> bool {
        self.about(&asked.resource, &asked.tool).any(|theirs| asked.within(theirs))
    }

    /// Where in its wire form a permission goes beyond what is allowed here; `None` when it does not. `in_full`: whether an
    /// argument may be named that the permission does not name itself, only a rule in here does.
    #[must_use]
    pub fn excess(&self, asked: &Permission, in_full: bool) -> Option<String> {
        if self.covers(asked) {
            return None;
        }
        let mut about = self.about(&asked.resource, &asked.tool);
        Some(match (about.next(), about.next()) {
            (None, _) => ".identifier".to_owned(),
            (Some(only), None) => asked.constraints.excess(&only.constraints, in_full),
            (Some(_), Some(_)) => ".constraints".to_owned(),
        })
    }

    /// What both allow.
    #[must_use]
    pub fn meet(&self, other: &Self) -> Self {
        let pairs = self
            .0
            .iter()
            .flat_map(|ours| other.about(&ours.resource, &ours.tool).filter_map(move |theirs| ours.meet(theirs)));
        pairs.collect()
    }

    /// The part that is about one resource: what may stand in a token for it.
    #[must_use]
    pub fn at(&self, resource: &ResourceUri) -> Self {
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

    /// The permissions, sorted by resource and tool.
    pub fn iter(&self) -> impl Iterator<Item = &Permission> {
        self.0.iter()
    }

    /// `sha-256:` and the base64url digest of the canonical JSON (RFC 8785) of the permissions.
    #[must_use]
    pub fn hash(&self) -> String {
        // Everything in here has a canonical form; an empty text would only ever hash to something nobody approved.
        let canonical = serde_json_canonicalizer::to_vec(self).unwrap_or_default();
        format!("sha-256:{}", crate::domain::encode(digest::digest(&digest::SHA256, &canonical).as_ref()))
    }

    /// The permissions about one tool: they stand side by side, since the set is sorted.
    fn about(&self, resource: &ResourceUri, tool: &ToolName) -> impl Iterator<Item = &Permission> {
        let from = self.0.partition_point(|p| (&p.resource, &p.tool) < (resource, tool));
        let rest = self.0.get(from..).unwrap_or_default();
        rest.iter().take_while(move |p| p.resource == *resource && p.tool == *tool)
    }
}

impl FromIterator<Permission> for Authority {
    fn from_iter<I: IntoIterator<Item = Permission>>(permissions: I) -> Self {
        let mut sorted = permissions.into_iter().collect::<Vec<_>>();
        sorted.sort();
        sorted.dedup();
        let is_covered = |n: usize, ours: &Permission| {
            sorted.iter().enumerate().any(|(m, theirs)| {
                // Of two that cover each other, the first one stays.
                n != m && ours.within(theirs) && (m < n || !theirs.within(ours))
            })
        };
        Self(sorted.iter().enumerate().filter(|(n, p)| !is_covered(*n, p)).map(|(_, p)| p.clone()).collect())
    }
}
