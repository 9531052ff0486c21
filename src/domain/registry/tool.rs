//! What an MCP server says a tool is, and whether that is what an admin has looked at.
//!
//! A tool can't be swapped under a grant: as soon as its server says something else about it, it is not good until an admin
//! accepts that. The digest of a definition is what tells one from another.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::domain::{
    id::{ClientId, ToolDigest, ToolName},
    registry::client::{Resource, Tool},
    time::Timestamp,
};

pub use errand_authority::tool_definition::{
    MAX_DESCRIPTION_BYTES, MAX_SCHEMA_BYTES, MAX_SCHEMA_DEPTH, ToolDefinition,
};

/// A definition, and when a server was first seen to say it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObservedDefinition {
    /// Its digest.
    pub digest: ToolDigest,
    /// Its canonical JSON: for a human to read, and written by a stranger.
    pub definition: String,
    /// When.
    pub at: Timestamp,
}

impl ObservedDefinition {
    /// Records that a server was first seen to list this definition at this moment.
    #[must_use]
    pub fn new(definition: &ToolDefinition, at: Timestamp) -> Self {
        Self { digest: definition.digest(), definition: definition.as_str().to_owned(), at }
    }

    /// Whether the digest is that of the text.
    #[must_use]
    pub fn has_valid_digest(&self) -> bool {
        ToolDigest::of_canonical(&self.definition) == self.digest
    }
}

/// What is kept of one tool of a resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ToolRecord {
    /// Whose tool it is.
    pub resource: ClientId,
    /// Which.
    pub tool: ToolName,
    /// The definition that is good, with when it was accepted.
    pub accepted: Option<ObservedDefinition>,
    /// Who accepted it.
    pub accepted_by: Option<String>,
    /// What the server said when it was last asked; none when it did not list the tool.
    pub observed: Option<ObservedDefinition>,
}

impl ToolRecord {
    /// What decides about tokens.
    #[must_use]
    pub fn known_tool(&self) -> KnownTool {
        let digest = |sighting: &Option<ObservedDefinition>| sighting.as_ref().map(|sighting| sighting.digest.clone());
        KnownTool { accepted: digest(&self.accepted), observed: digest(&self.observed) }
    }
}

/// The digests of one tool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownTool {
    /// That of the definition that is good.
    pub accepted: Option<ToolDigest>,
    /// That of what the server said last.
    pub observed: Option<ToolDigest>,
}

/// How it stands with a tool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ToolState {
    /// Its server was never asked: it is good, and no token says which definition was meant.
    Unchecked,
    /// Its server says what was accepted: it is good.
    Known,
    /// Its server says something else than what was accepted.
    Changed,
    /// Its server does not list it.
    Gone,
    /// Its server lists it, and nothing was accepted yet.
    Proposed,
}

impl ToolState {
    /// The word for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unchecked => "unchecked",
            Self::Known => "known",
            Self::Changed => "changed",
            Self::Gone => "gone",
            Self::Proposed => "proposed",
        }
    }
}

impl fmt::Display for ToolState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl KnownTool {
    /// How it stands with the tool.
    #[must_use]
    pub fn state(&self) -> ToolState {
        match (&self.accepted, &self.observed) {
            (_, None) => ToolState::Gone,
            (None, Some(_)) => ToolState::Proposed,
            (Some(accepted), Some(seen)) if accepted == seen => ToolState::Known,
            (Some(_), Some(_)) => ToolState::Changed,
        }
    }
}

/// Why a tool can't be had, although the resource offers it. The texts go to the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ToolUnavailable {
    /// Another definition is there than was accepted.
    #[error("its definition changed, and waits for an admin to accept it")]
    Changed,
    /// It is not there any more.
    #[error("its server does not list it any more")]
    Gone,
    /// Nobody has looked at it yet.
    #[error("its definition waits for an admin to accept it")]
    Proposed,
    /// The request names another definition than the one that is good.
    #[error("`tool_digest` is not that of the definition that was accepted")]
    DigestMismatch,
    /// What the request builds on was for another definition than the one that is good now.
    #[error(
        "its definition is another one than the subject token or the task was made for: open a new task with a user token"
    )]
    DefinitionSuperseded,
}

/// What a look at a server makes of one tool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ToolDiff {
    /// Which tool.
    pub tool: ToolName,
    /// How it stood before.
    pub previous_state: ToolState,
    /// How it stands now.
    pub state: ToolState,
    /// What is kept of it now; none when nothing is: an unwanted proposal that is not listed any more, or a tool that is
    /// not looked after.
    pub record: Option<ToolRecord>,
    /// Whether that is something else than before.
    pub has_changed: bool,
}

/// What a look is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefreshMode<'a> {
    /// An admin asked for it, who is named. A tool of the resource that is seen for the first time is accepted as it is seen.
    Import(&'a str),
    /// From time to time. Nothing is accepted by it, and a tool that was never imported is left alone.
    Refresh,
}

/// What a server's answer makes of the tools of a resource: of those that it is to have, and of those that are on record.
/// Sorted by name.
#[must_use]
pub fn diff_listing(
    resource: &Resource,
    records: &[ToolRecord],
    listed: &[ToolDefinition],
    mode: RefreshMode<'_>,
    now: Timestamp,
) -> Vec<ToolDiff> {
    let before = records.iter().map(|record| (&record.tool, record)).collect::<BTreeMap<_, _>>();
    let mut seen = BTreeMap::<&ToolName, Option<&ToolDefinition>>::new();
    for definition in listed {
        // Two definitions of one name: nobody can say which one a client takes.
        seen.entry(definition.name()).and_modify(|one| *one = None).or_insert(Some(definition));
    }
    let wanted = resource.tools.iter().map(|tool| &tool.name).collect::<BTreeSet<_>>();
    let names = wanted.iter().chain(before.keys()).chain(seen.keys()).copied().collect::<BTreeSet<_>>();
    let finding = |name: &ToolName| {
        let old = before.get(name).copied();
        let is_wanted = wanted.contains(name);
        let now_seen = seen.get(name).copied().flatten().map(|definition| {
            let fresh = ObservedDefinition::new(definition, now);
            // The same as before keeps its time: nothing new was seen.
            old.and_then(|old| old.observed.clone()).filter(|before| before.digest == fresh.digest).unwrap_or(fresh)
        });
        let record = match (old, now_seen, mode) {
            (Some(old), seen @ Some(_), _) => Some(ToolRecord { observed: seen, ..old.clone() }),
            (Some(old), None, _) if is_wanted || old.accepted.is_some() => {
                Some(ToolRecord { observed: None, ..old.clone() })
            }
            (Some(_), None, _) => None,
            (None, Some(seen), RefreshMode::Import(by)) if is_wanted => Some(ToolRecord {
                accepted: Some(seen.clone()),
                accepted_by: Some(by.to_owned()),
                ..new_record(resource, name, Some(seen))
            }),
            (None, _, RefreshMode::Refresh) if is_wanted => None,
            (None, seen, RefreshMode::Import(_) | RefreshMode::Refresh) => Some(new_record(resource, name, seen)),
        };
        let state =
            |record: Option<&ToolRecord>| record.map_or(ToolState::Unchecked, |record| record.known_tool().state());
        let is = match &record {
            None if !is_wanted => ToolState::Gone,
            record => state(record.as_ref()),
        };
        ToolDiff {
            tool: name.clone(),
            previous_state: state(old),
            state: is,
            has_changed: record.as_ref() != old,
            record,
        }
    };
    names.into_iter().map(finding).collect()
}

fn new_record(resource: &Resource, tool: &ToolName, seen: Option<ObservedDefinition>) -> ToolRecord {
    ToolRecord { resource: resource.id.clone(), tool: tool.clone(), accepted: None, accepted_by: None, observed: seen }
}

/// An admin's word that a definition is good: of this tool, and this one definition of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Acceptance {
    /// Which tool.
    pub name: ToolName,
    /// The digest of the definition that was looked at.
    pub digest: ToolDigest,
    /// How it goes into the catalogue, where it is not there yet. Without this it stays out of it.
    pub tool: Option<Tool>,
}

/// Why something can't be accepted.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum AcceptanceError {
    /// The server was never seen to list it.
    #[error("the tool `{0}` was never listed: import the catalogue first")]
    NotListed(ToolName),
    /// What is there is not what was looked at.
    #[error("the definition of `{0}` is another one by now: look at it again")]
    DefinitionChanged(ToolName),
    /// One tool, twice.
    #[error("the tool `{0}` stands twice")]
    Duplicate(ToolName),
    /// It has a scope and an effect already.
    #[error("the tool `{0}` is in the catalogue already: its scope, effect, risk and data class are changed there")]
    AlreadyInCatalogue(ToolName),
}

/// What accepting makes of records and catalogue: all of it, or nothing.
pub fn accept_definitions(
    resource: &Resource,
    records: &[ToolRecord],
    acceptances: &[Acceptance],
    by: &str,
    now: Timestamp,
) -> Result<(Vec<ToolRecord>, Vec<Tool>), AcceptanceError> {
    let mut accepted = Vec::new();
    for (n, Acceptance { name, digest, tool }) in acceptances.iter().enumerate() {
        if acceptances.iter().take(n).any(|other| other.name == *name) {
            return Err(AcceptanceError::Duplicate(name.clone()));
        }
        let Some(record) = records.iter().find(|record| record.tool == *name) else {
            return Err(AcceptanceError::NotListed(name.clone()));
        };
        let Some(seen) = record.observed.as_ref().filter(|seen| seen.digest == *digest) else {
            return Err(AcceptanceError::DefinitionChanged(name.clone()));
        };
        if tool.is_some() && resource.tools.iter().any(|known| known.name == *name) {
            return Err(AcceptanceError::AlreadyInCatalogue(name.clone()));
        }
        // What was accepted before keeps its name and date.
        if record.known_tool().state() != ToolState::Known {
            let sighting = ObservedDefinition { at: now, ..seen.clone() };
            accepted.push(ToolRecord { accepted: Some(sighting), accepted_by: Some(by.to_owned()), ..record.clone() });
        }
    }
    Ok((accepted, acceptances.iter().filter_map(|acceptance| acceptance.tool.clone()).collect()))
}

/// How it stands with the tools of a resource, without asking its server again.
#[must_use]
pub fn assess_tools(resource: &Resource, records: &[ToolRecord]) -> Vec<ToolDiff> {
    let by_name = records.iter().map(|record| (&record.tool, record)).collect::<BTreeMap<_, _>>();
    let wanted = resource.tools.iter().map(|tool| &tool.name);
    let names = wanted.chain(by_name.keys().copied()).collect::<BTreeSet<_>>();
    let finding = |name: &ToolName| {
        let record = by_name.get(name).copied();
        let is = record.map_or(ToolState::Unchecked, |record| record.known_tool().state());
        ToolDiff { tool: name.clone(), previous_state: is, state: is, record: record.cloned(), has_changed: false }
    };
    names.into_iter().map(finding).collect()
}

#[cfg(test)]
mod tests;
