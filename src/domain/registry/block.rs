//! Blocks: parties that an admin has suspended or disabled. A block is stored apart from the
//! party's own entry. It therefore also holds for what the configuration file declares, survives
//! restarts, and can be lifted.

use std::fmt;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::{ObjectKind, Registry};
use crate::domain::{id::Reason, requester::Requester, revocation::Target, time::Timestamp};

/// The party that a block is about.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum BlockSubject {
    /// The registry object with this name, now and after any re-registration.
    Object(ObjectKind, String),
    /// A requester.
    Requester(Requester),
    /// All agents, those that are registered later included.
    AllAgents,
}

impl BlockSubject {
    /// Returns the word for the kind of party.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Object(kind, _) => kind.as_str(),
            Self::Requester(_) => REQUESTER_KIND,
            Self::AllAgents => ALL_AGENTS_KIND,
        }
    }

    /// Returns the name within its kind; for a requester, issuer and subject separated by a space.
    #[must_use]
    pub fn id(&self) -> String {
        match self {
            Self::Object(_, id) => id.clone(),
            Self::Requester(requester) => format!("{} {}", requester.issuer, requester.subject),
            Self::AllAgents => String::new(),
        }
    }

    /// Parses kind and name as stored.
    #[must_use]
    pub fn parse(kind: &str, id: &str) -> Option<Self> {
        let object = |kind| Some(Self::Object(kind, id.to_owned()));
        match kind {
            "issuer" => object(ObjectKind::Issuer),
            "agent" => object(ObjectKind::Agent),
            "resource" => object(ObjectKind::Resource),
            "admin" => object(ObjectKind::Admin),
            ALL_AGENTS_KIND => id.is_empty().then_some(Self::AllAgents),
            REQUESTER_KIND => {
                let (issuer, subject) = id.split_once(' ')?;
                Some(Self::Requester(Requester { issuer: issuer.parse().ok()?, subject: subject.parse().ok()? }))
            }
            _ => None,
        }
    }
}

const REQUESTER_KIND: &str = "requester";
const ALL_AGENTS_KIND: &str = "agents";

/// The kind of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BlockKind {
    /// The party's tokens are suspended; they work again when the block is lifted.
    Suspended,
    /// The party's tokens were revoked.
    Blocked,
}

impl BlockKind {
    /// Returns the wire name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Suspended => "suspended",
            Self::Blocked => "blocked",
        }
    }
}

impl fmt::Display for BlockKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A block in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// The blocked party.
    pub subject: BlockSubject,
    /// The kind of block.
    pub kind: BlockKind,
    /// The reason.
    pub reason: Reason,
    /// The admin who blocked it: `admin:NAME`.
    pub by: String,
    /// The time of the block.
    pub at: Timestamp,
}

/// An admin's action on the block of a party.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlockAction {
    /// Suspends the party's tokens and issues no new ones.
    Suspend,
    /// Lifts the suspension; the same tokens work again.
    Resume,
    /// Revokes the party's tokens and issues no new ones.
    Block,
    /// Lifts the block; revoked tokens stay revoked.
    Unblock,
}

/// Why an admin's action is rejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum BlockError {
    /// The party is already suspended.
    #[error("the party is already suspended")]
    AlreadySuspended,
    /// A block is stricter than a suspension.
    #[error("the party is already blocked")]
    AlreadyBlocked,
    /// The party is not suspended.
    #[error("the party is not suspended")]
    NotSuspended,
    /// The tokens of a blocked party were revoked and cannot be resumed.
    #[error("the party is blocked; unblock it")]
    MustUnblock,
    /// Lifting a suspension also restores the tokens.
    #[error("the party is suspended; resume it")]
    MustResume,
    /// No admin has blocked the party.
    #[error("no admin has blocked the party; if its own entry disables it, change the entry")]
    NotBlocked,
}

impl BlockAction {
    /// Returns the block in force after the action. Blocking again is permitted: it revokes the
    /// tokens issued in the meantime.
    pub fn apply(self, current: Option<BlockKind>) -> Result<Option<BlockKind>, BlockError> {
        match (current, self) {
            (None, Self::Suspend) => Ok(Some(BlockKind::Suspended)),
            (None | Some(BlockKind::Suspended | BlockKind::Blocked), Self::Block) => Ok(Some(BlockKind::Blocked)),
            (Some(BlockKind::Suspended), Self::Resume) | (Some(BlockKind::Blocked), Self::Unblock) => Ok(None),
            (None, Self::Resume) => Err(BlockError::NotSuspended),
            (None, Self::Unblock) => Err(BlockError::NotBlocked),
            (Some(BlockKind::Suspended), Self::Suspend) => Err(BlockError::AlreadySuspended),
            (Some(BlockKind::Suspended), Self::Unblock) => Err(BlockError::MustResume),
            (Some(BlockKind::Blocked), Self::Suspend) => Err(BlockError::AlreadyBlocked),
            (Some(BlockKind::Blocked), Self::Resume) => Err(BlockError::MustUnblock),
        }
    }
}

impl Registry {
    /// Returns the registry with these blocks applied: look-ups return the blocked objects as
    /// disabled. The entries, which are what was declared, stay unchanged.
    #[must_use]
    pub fn with_blocks(mut self, blocks: Vec<Block>) -> Self {
        for Block { subject, .. } in &blocks {
            match subject {
                BlockSubject::Object(ObjectKind::Issuer, id) => {
                    let issuers = self.issuers.values_mut().filter(|issuer| issuer.issuer.as_str() == id);
                    issuers.for_each(|issuer| std::sync::Arc::make_mut(issuer).disabled = true);
                }
                BlockSubject::Object(ObjectKind::Agent, id) => {
                    let agents = self.agents.values_mut().filter(|agent| agent.id.as_str() == id);
                    agents.for_each(|agent| agent.disabled = true);
                }
                BlockSubject::Object(ObjectKind::Resource, id) => {
                    let resources = self.resources.values_mut().filter(|resource| resource.id.as_str() == id);
                    resources.for_each(|resource| resource.disabled = true);
                }
                BlockSubject::Object(ObjectKind::Admin, id) => {
                    let admins = self.admins.values_mut().filter(|admin| admin.id.as_str() == id);
                    admins.for_each(|admin| admin.disabled = true);
                }
                BlockSubject::AllAgents => self.agents.values_mut().for_each(|agent| agent.disabled = true),
                BlockSubject::Requester(requester) => {
                    self.blocked_requesters.insert(requester.clone());
                }
            }
        }
        self.blocks = blocks;
        self
    }

    /// Returns all blocks.
    #[must_use]
    pub fn blocks(&self) -> &[Block] {
        &self.blocks
    }

    /// Returns the block of a party, if any.
    #[must_use]
    pub fn find_block(&self, subject: &BlockSubject) -> Option<&Block> {
        self.blocks.iter().find(|block| block.subject == *subject)
    }

    /// Returns whether a requester is blocked.
    #[must_use]
    pub fn is_blocked(&self, requester: &Requester) -> bool {
        self.blocked_requesters.contains(requester)
    }

    /// Returns the revocation targets that cover everything a registered party has.
    #[must_use]
    pub fn revocation_targets(&self, subject: &BlockSubject) -> Vec<Target> {
        match subject {
            BlockSubject::Object(kind, id) => {
                self.entry(*kind, id).map(|entry| entry.object.revocation_targets()).unwrap_or_default()
            }
            BlockSubject::Requester(requester) => vec![Target::for_requester(requester)],
            // All agents are suspended, and never revoked at once.
            BlockSubject::AllAgents => Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_block_kind_and_action_has_specified_result() {
        use BlockKind::{Blocked, Suspended};
        // Suspend, resume, block, unblock.
        for (current, row) in [
            (
                None,
                [Ok(Some(Suspended)), Err(BlockError::NotSuspended), Ok(Some(Blocked)), Err(BlockError::NotBlocked)],
            ),
            (
                Some(Suspended),
                [Err(BlockError::AlreadySuspended), Ok(None), Ok(Some(Blocked)), Err(BlockError::MustResume)],
            ),
            (
                Some(Blocked),
                [Err(BlockError::AlreadyBlocked), Err(BlockError::MustUnblock), Ok(Some(Blocked)), Ok(None)],
            ),
        ] {
            let acts = [BlockAction::Suspend, BlockAction::Resume, BlockAction::Block, BlockAction::Unblock];
            assert_eq!(acts.map(|act| act.apply(current)), row, "{current:?}");
        }
    }

    #[test]
    fn block_subject_round_trips_through_kind_and_id() {
        let requester = Requester {
            issuer: "https://login.example.com".parse().unwrap(),
            subject: "alice in chains".parse().unwrap(),
        };
        for subject in [
            BlockSubject::Object(ObjectKind::Issuer, "https://login.example.com".into()),
            BlockSubject::Object(ObjectKind::Agent, "planner".into()),
            BlockSubject::Object(ObjectKind::Resource, "files".into()),
            BlockSubject::Object(ObjectKind::Admin, "ops".into()),
            BlockSubject::Requester(requester),
            BlockSubject::AllAgents,
        ] {
            assert_eq!(BlockSubject::parse(subject.kind(), &subject.id()), Some(subject));
        }
        for (kind, id) in
            [("requester", "alice"), ("requester", "alice bob"), ("client", "planner"), ("agents", "all"), ("", "")]
        {
            assert_eq!(BlockSubject::parse(kind, id), None, "{kind} {id}");
        }
    }
}
