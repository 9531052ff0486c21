//! Who is shut out by an admin, whatever their own entry says: a fact of its own, so that it holds for what the file
//! declares, outlives every start, and can be lifted again.

use std::fmt;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::{ObjectKind, Registry};
use crate::domain::{id::Reason, requester::Requester, revocation::Target, time::Timestamp};

/// Who can be shut out.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum BlockSubject {
    /// An object of the registry by its name: this one, and any other that gets the name later.
    Object(ObjectKind, String),
    /// A requester.
    Requester(Requester),
}

impl BlockSubject {
    /// The word for what it is.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Object(kind, _) => kind.as_str(),
            Self::Requester(_) => REQUESTER_KIND,
        }
    }

    /// The name among its kind; of a requester, issuer and subject with a blank between.
    #[must_use]
    pub fn id(&self) -> String {
        match self {
            Self::Object(_, id) => id.clone(),
            Self::Requester(requester) => format!("{} {}", requester.issuer, requester.subject),
        }
    }

    /// Reads kind and name as they were stored.
    #[must_use]
    pub fn parse(kind: &str, id: &str) -> Option<Self> {
        let object = |kind| Some(Self::Object(kind, id.to_owned()));
        match kind {
            "issuer" => object(ObjectKind::Issuer),
            "agent" => object(ObjectKind::Agent),
            "resource" => object(ObjectKind::Resource),
            "admin" => object(ObjectKind::Admin),
            REQUESTER_KIND => {
                let (issuer, subject) = id.split_once(' ')?;
                Some(Self::Requester(Requester { issuer: issuer.parse().ok()?, subject: subject.parse().ok()? }))
            }
            _ => None,
        }
    }
}

const REQUESTER_KIND: &str = "requester";

/// In which way somebody is shut out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BlockKind {
    /// What they had is held back, and works again when this is lifted.
    Suspended,
    /// What they had was ended.
    Disabled,
}

impl BlockKind {
    /// The word for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Suspended => "suspended",
            Self::Disabled => "disabled",
        }
    }
}

impl fmt::Display for BlockKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Somebody who is shut out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// Who.
    pub subject: BlockSubject,
    /// In which way.
    pub kind: BlockKind,
    /// Why.
    pub reason: Reason,
    /// Who did it: `admin:NAME`.
    pub by: String,
    /// When.
    pub at: Timestamp,
}

/// What an admin does about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlockAction {
    /// Hold back what they have, and give nothing.
    Suspend,
    /// Let the same work again.
    Resume,
    /// End what they have, and give nothing.
    Block,
    /// Let them in again, with nothing.
    Unblock,
}

/// Why an admin's act is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum BlockError {
    /// It is held back.
    #[error("it is suspended already")]
    AlreadySuspended,
    /// Held back is less than shut out.
    #[error("it is disabled already")]
    AlreadyDisabled,
    /// There is nothing to take up again.
    #[error("it is not suspended")]
    NotSuspended,
    /// What it had was ended, and does not come back.
    #[error("it is disabled: enable it")]
    MustUnblock,
    /// It is let in again together with what it had.
    #[error("it is suspended: resume it")]
    MustResume,
    /// Nobody disabled it here.
    #[error("no admin has disabled it: what its own entry says is changed there")]
    NotDisabled,
}

impl BlockAction {
    /// How somebody is shut out after this, if at all. To disable again is no mistake: it ends what there is.
    pub fn apply(self, now: Option<BlockKind>) -> Result<Option<BlockKind>, BlockError> {
        match (now, self) {
            (None, Self::Suspend) => Ok(Some(BlockKind::Suspended)),
            (None | Some(BlockKind::Suspended | BlockKind::Disabled), Self::Block) => Ok(Some(BlockKind::Disabled)),
            (Some(BlockKind::Suspended), Self::Resume) | (Some(BlockKind::Disabled), Self::Unblock) => Ok(None),
            (None, Self::Resume) => Err(BlockError::NotSuspended),
            (None, Self::Unblock) => Err(BlockError::NotDisabled),
            (Some(BlockKind::Suspended), Self::Suspend) => Err(BlockError::AlreadySuspended),
            (Some(BlockKind::Suspended), Self::Unblock) => Err(BlockError::MustResume),
            (Some(BlockKind::Disabled), Self::Suspend) => Err(BlockError::AlreadyDisabled),
            (Some(BlockKind::Disabled), Self::Resume) => Err(BlockError::MustUnblock),
        }
    }
}

impl Registry {
    /// The same registry, with these shut out: their objects are disabled in whatever is looked up. The entries, which are
    /// what somebody declared, stay as they are.
    #[must_use]
    pub fn with_blocks(mut self, shut_out: Vec<Block>) -> Self {
        for Block { subject: who, .. } in &shut_out {
            match who {
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
                BlockSubject::Requester(requester) => {
                    self.blocked_requesters.insert(requester.clone());
                }
            }
        }
        self.blocks = shut_out;
        self
    }

    /// Everybody who is shut out by an admin.
    #[must_use]
    pub fn blocks(&self) -> &[Block] {
        &self.blocks
    }

    /// Whether and how somebody is shut out by an admin.
    #[must_use]
    pub fn find_block(&self, who: &BlockSubject) -> Option<&Block> {
        self.blocks.iter().find(|one| one.subject == *who)
    }

    /// Whether nothing may be done in a requester's name.
    #[must_use]
    pub fn is_blocked(&self, requester: &Requester) -> bool {
        self.blocked_requesters.contains(requester)
    }

    /// What somebody who is registered has: the names under which it all can be taken back.
    #[must_use]
    pub fn revocation_targets(&self, who: &BlockSubject) -> Vec<Target> {
        match who {
            BlockSubject::Object(kind, id) => {
                self.entry(*kind, id).map(|entry| entry.object.revocation_targets()).unwrap_or_default()
            }
            BlockSubject::Requester(requester) => vec![Target::for_requester(requester)],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_block_kind_and_action_has_specified_result() {
        use BlockKind::{Disabled, Suspended};
        // Suspend, resume, disable, enable.
        for (now, row) in [
            (
                None,
                [Ok(Some(Suspended)), Err(BlockError::NotSuspended), Ok(Some(Disabled)), Err(BlockError::NotDisabled)],
            ),
            (
                Some(Suspended),
                [Err(BlockError::AlreadySuspended), Ok(None), Ok(Some(Disabled)), Err(BlockError::MustResume)],
            ),
            (
                Some(Disabled),
                [Err(BlockError::AlreadyDisabled), Err(BlockError::MustUnblock), Ok(Some(Disabled)), Ok(None)],
            ),
        ] {
            let acts = [BlockAction::Suspend, BlockAction::Resume, BlockAction::Block, BlockAction::Unblock];
            assert_eq!(acts.map(|act| act.apply(now)), row, "{now:?}");
        }
    }

    #[test]
    fn block_subject_round_trips_through_kind_and_id() {
        let requester = Requester {
            issuer: "https://login.example.com".parse().unwrap(),
            subject: "alice in chains".parse().unwrap(),
        };
        for who in [
            BlockSubject::Object(ObjectKind::Issuer, "https://login.example.com".into()),
            BlockSubject::Object(ObjectKind::Agent, "planner".into()),
            BlockSubject::Object(ObjectKind::Resource, "files".into()),
            BlockSubject::Object(ObjectKind::Admin, "ops".into()),
            BlockSubject::Requester(requester),
        ] {
            assert_eq!(BlockSubject::parse(who.kind(), &who.id()), Some(who));
        }
        for (kind, id) in [("requester", "alice"), ("requester", "alice bob"), ("client", "planner"), ("", "")] {
            assert_eq!(BlockSubject::parse(kind, id), None, "{kind} {id}");
        }
    }
}
