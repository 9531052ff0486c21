//! Tool definitions as MCP servers present them, and their acceptance by admins.
//!
//! A tool can't be swapped under a grant: when its server changes the definition, the tool is
//! unavailable until an admin accepts the new one. Definitions are compared by digest.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::domain::{
    id::{ClientId, ToolDigest, ToolName},
    registry::resource::{Resource, Tool},
    time::Timestamp,
};

pub use errand_authority::tool_definition::{
    MAX_DESCRIPTION_BYTES, MAX_SCHEMA_BYTES, MAX_SCHEMA_DEPTH, ToolDefinition, ToolDefinitionError,
};

/// A definition, with the time when the server was first observed to send it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObservedDefinition {
    /// The digest of the definition.
    pub digest: ToolDigest,
    /// The canonical JSON, for display to a human. The text is untrusted.
    pub definition: String,
    /// The time of the first observation.
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

/// The stored record of a tool of a resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ToolRecord {
    /// The resource.
    pub resource: ClientId,
    /// The tool.
    pub tool: ToolName,
    /// The accepted definition, with the time of acceptance.
    pub accepted: Option<ObservedDefinition>,
    /// The admin who accepted it.
    pub accepted_by: Option<String>,
    /// The definition in the last listing; `None` if the server did not list the tool.
    pub observed: Option<ObservedDefinition>,
}

impl ToolRecord {
    /// Returns the digests, which decide about tokens.
    #[must_use]
    pub fn known_tool(&self) -> KnownTool {
        let digest = |observation: &Option<ObservedDefinition>| {
            observation.as_ref().map(|observation| observation.digest.clone())
        };
        KnownTool { accepted: digest(&self.accepted), observed: digest(&self.observed) }
    }
}

/// The digests of a tool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownTool {
    /// The digest of the accepted definition.
    pub accepted: Option<ToolDigest>,
    /// The digest of the last observed definition.
    pub observed: Option<ToolDigest>,
}

/// The state of a tool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ToolState {
    /// The server was never queried. The tool is available, and tokens do not name a definition.
    Unchecked,
    /// The server lists the accepted definition. The tool is available.
    Known,
    /// The server lists another definition than the accepted one.
    Changed,
    /// The server does not list the tool.
    Gone,
    /// The server lists the tool, and no definition was accepted yet.
    Proposed,
}

impl ToolState {
    /// Returns the wire name.
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
    /// Returns the state of the tool.
    #[must_use]
    pub fn state(&self) -> ToolState {
        match (&self.accepted, &self.observed) {
            (_, None) => ToolState::Gone,
            (None, Some(_)) => ToolState::Proposed,
            (Some(accepted), Some(observed)) if accepted == observed => ToolState::Known,
            (Some(_), Some(_)) => ToolState::Changed,
        }
    }
}

/// Why a tool is unavailable although its resource offers it. Clients receive these texts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ToolUnavailable {
    /// The definition differs from the accepted one.
    #[error("the definition of the tool changed; an admin must accept it")]
    Changed,
    /// The server no longer lists the tool.
    #[error("the server no longer lists the tool")]
    Gone,
    /// No definition was accepted yet.
    #[error("the definition of the tool is new; an admin must accept it")]
    Proposed,
    /// The request names another definition than the accepted one.
    #[error("`tool_digest` is not the digest of the accepted definition")]
    DigestMismatch,
    /// The subject token or the task names another definition than the accepted one.
    #[error(
        "the definition of the tool differs from the one in the subject token or task; open a new task with a user token"
    )]
    DefinitionSuperseded,
}

/// The result of comparing a listing with the record of one tool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ToolDiff {
    /// The tool.
    pub tool: ToolName,
    /// The state before the comparison.
    pub previous_state: ToolState,
    /// The state after the comparison.
    pub state: ToolState,
    /// The record after the comparison. `None` for a proposal that the server stopped listing, and
    /// for a tool whose catalogue was never imported.
    pub record: Option<ToolRecord>,
    /// Whether the record changed.
    pub has_changed: bool,
}

/// The purpose of a comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefreshMode<'a> {
    /// An import by the named admin. A tool of the resource is accepted as it is when it is first
    /// observed.
    Import(&'a str),
    /// A scheduled refresh. It accepts nothing, and it ignores tools that were never imported.
    Refresh,
}

/// Compares a listing with the tools of a resource and with the records, and returns the result for
/// each tool, sorted by name.
#[must_use]
pub fn diff_listing(
    resource: &Resource,
    records: &[ToolRecord],
    listed: &[ToolDefinition],
    mode: RefreshMode<'_>,
    now: Timestamp,
) -> Vec<ToolDiff> {
    let previous_records = records.iter().map(|record| (&record.tool, record)).collect::<BTreeMap<_, _>>();
    let mut observed = BTreeMap::<&ToolName, Option<&ToolDefinition>>::new();
    for definition in listed {
        // With two definitions of one name, it is undefined which one a client uses.
        observed.entry(definition.name()).and_modify(|unique| *unique = None).or_insert(Some(definition));
    }
    let catalogued = resource.tools.iter().map(|tool| &tool.name).collect::<BTreeSet<_>>();
    let names =
        catalogued.iter().chain(previous_records.keys()).chain(observed.keys()).copied().collect::<BTreeSet<_>>();
    let compare = |name: &ToolName| {
        let previous = previous_records.get(name).copied();
        let is_catalogued = catalogued.contains(name);
        let observation = observed.get(name).copied().flatten().map(|definition| {
            let current = ObservedDefinition::new(definition, now);
            // An unchanged definition keeps its first observation time.
            previous
                .and_then(|previous| previous.observed.clone())
                .filter(|earlier| earlier.digest == current.digest)
                .unwrap_or(current)
        });
        let record = match (previous, observation, mode) {
            (Some(previous), observed @ Some(_), _) => Some(ToolRecord { observed, ..previous.clone() }),
            (Some(previous), None, _) if is_catalogued || previous.accepted.is_some() => {
                Some(ToolRecord { observed: None, ..previous.clone() })
            }
            (Some(_), None, _) => None,
            (None, Some(observed), RefreshMode::Import(by)) if is_catalogued => Some(ToolRecord {
                accepted: Some(observed.clone()),
                accepted_by: Some(by.to_owned()),
                ..new_record(resource, name, Some(observed))
            }),
            (None, _, RefreshMode::Refresh) if is_catalogued => None,
            (None, observed, RefreshMode::Import(_) | RefreshMode::Refresh) => {
                Some(new_record(resource, name, observed))
            }
        };
        let state_of =
            |record: Option<&ToolRecord>| record.map_or(ToolState::Unchecked, |record| record.known_tool().state());
        let state = match &record {
            None if !is_catalogued => ToolState::Gone,
            record => state_of(record.as_ref()),
        };
        ToolDiff {
            tool: name.clone(),
            previous_state: state_of(previous),
            state,
            has_changed: record.as_ref() != previous,
            record,
        }
    };
    names.into_iter().map(compare).collect()
}

fn new_record(resource: &Resource, tool: &ToolName, observed: Option<ObservedDefinition>) -> ToolRecord {
    ToolRecord { resource: resource.id.clone(), tool: tool.clone(), accepted: None, accepted_by: None, observed }
}

/// An admin's acceptance of one definition of a tool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Acceptance {
    /// The tool.
    pub name: ToolName,
    /// The digest of the reviewed definition.
    pub digest: ToolDigest,
    /// The catalogue entry of a tool that is not in the catalogue yet. Without it, the tool is not
    /// added.
    pub tool: Option<Tool>,
}

/// Why an acceptance is rejected.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum AcceptanceError {
    /// The server never listed the tool.
    #[error("the tool `{0}` was never listed; import the catalogue first")]
    NotListed(ToolName),
    /// The observed definition is not the reviewed one.
    #[error("the definition of `{0}` has changed since; review the catalogue again")]
    DefinitionChanged(ToolName),
    /// The tool appears more than once.
    #[error("the tool `{0}` is listed more than once")]
    Duplicate(ToolName),
    /// The tool already has a catalogue entry.
    #[error("the tool `{0}` is already in the catalogue; change its scope, effect, risk and data class there")]
    AlreadyInCatalogue(ToolName),
}

/// Applies acceptances to the records and the catalogue, all or none.
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
        let Some(observed) = record.observed.as_ref().filter(|observed| observed.digest == *digest) else {
            return Err(AcceptanceError::DefinitionChanged(name.clone()));
        };
        if tool.is_some() && resource.tools.iter().any(|known| known.name == *name) {
            return Err(AcceptanceError::AlreadyInCatalogue(name.clone()));
        }
        // A definition that is already accepted keeps its admin and date.
        if record.known_tool().state() != ToolState::Known {
            let observation = ObservedDefinition { at: now, ..observed.clone() };
            accepted.push(ToolRecord {
                accepted: Some(observation),
                accepted_by: Some(by.to_owned()),
                ..record.clone()
            });
        }
    }
    Ok((accepted, acceptances.iter().filter_map(|acceptance| acceptance.tool.clone()).collect()))
}

/// Returns the state of the tools of a resource without querying its server.
#[must_use]
pub fn assess_tools(resource: &Resource, records: &[ToolRecord]) -> Vec<ToolDiff> {
    let by_name = records.iter().map(|record| (&record.tool, record)).collect::<BTreeMap<_, _>>();
    let catalogued = resource.tools.iter().map(|tool| &tool.name);
    let names = catalogued.chain(by_name.keys().copied()).collect::<BTreeSet<_>>();
    let compare = |name: &ToolName| {
        let record = by_name.get(name).copied();
        let state = record.map_or(ToolState::Unchecked, |record| record.known_tool().state());
        ToolDiff { tool: name.clone(), previous_state: state, state, record: record.cloned(), has_changed: false }
    };
    names.into_iter().map(compare).collect()
}

#[cfg(test)]
mod tests;
