//! Who is shut out by an admin, whatever their own entry says: a fact of its own, so that it holds for what the file
//! declares, outlives every start, and can be lifted again.

use std::fmt;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::{Kind, Registry};
use crate::domain::{id::Reason, revocation::Target, task::Requester, time::Timestamp};

/// Who can be shut out.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Who {
    /// An object of the registry by its name: this one, and any other that gets the name later.
    Object(Kind, String),
    /// A requester.
    Requester(Requester),
}

impl Who {
    /// The word for what it is.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Object(kind, _) => kind.as_str(),
            Self::Requester(_) => REQUESTER,
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
            "issuer" => object(Kind::Issuer),
            "agent" => object(Kind::Agent),
            "resource" => object(Kind::Resource),
            "admin" => object(Kind::Admin),
            REQUESTER => {
                let (issuer, subject) = id.split_once(' ')?;
                Some(Self::Requester(Requester { issuer: issuer.parse().ok()?, subject: subject.parse().ok()? }))
            }
            _ => None,
        }
    }
}

const REQUESTER: &str = "requester";

/// In which way somebody is shut out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum How {
    /// What they had is held back, and works again when this is lifted.
    Suspended,
    /// What they had was ended.
    Disabled,
}

impl How {
    /// The word for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Suspended => "suspended",
            Self::Disabled => "disabled",
        }
    }
}

impl fmt::Display for How {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Somebody who is shut out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShutOut {
    /// Who.
    pub who: Who,
    /// In which way.
    pub how: How,
    /// Why.
    pub reason: Reason,
    /// Who did it: `admin:NAME`.
    pub by: String,
    /// When.
    pub at: Timestamp,
}

/// What an admin does about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Door {
    /// Hold back what they have, and give nothing.
    Suspend,
    /// Let the same work again.
    Resume,
    /// End what they have, and give nothing.
    Disable,
    /// Let them in again, with nothing.
    Enable,
}

/// Why an admin's act is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum NoChange {
    /// It is held back.
    #[error("it is suspended already")]
    IsSuspended,
    /// Held back is less than shut out.
    #[error("it is disabled already")]
    IsDisabled,
    /// There is nothing to take up again.
    #[error("it is not suspended")]
    NotSuspended,
    /// What it had was ended, and does not come back.
    #[error("it is disabled: enable it")]
    EnableInstead,
    /// It is let in again together with what it had.
    #[error("it is suspended: resume it")]
    ResumeInstead,
    /// Nobody disabled it here.
    #[error("no admin has disabled it: what its own entry says is changed there")]
    NotDisabled,
}

impl Door {
    /// How somebody is shut out after this, if at all. To disable again is no mistake: it ends what there is.
    pub fn after(self, now: Option<How>) -> Result<Option<How>, NoChange> {
        match (now, self) {
            (None, Self::Suspend) => Ok(Some(How::Suspended)),
            (None | Some(How::Suspended | How::Disabled), Self::Disable) => Ok(Some(How::Disabled)),
            (Some(How::Suspended), Self::Resume) | (Some(How::Disabled), Self::Enable) => Ok(None),
            (None, Self::Resume) => Err(NoChange::NotSuspended),
            (None, Self::Enable) => Err(NoChange::NotDisabled),
            (Some(How::Suspended), Self::Suspend) => Err(NoChange::IsSuspended),
            (Some(How::Suspended), Self::Enable) => Err(NoChange::ResumeInstead),
            (Some(How::Disabled), Self::Suspend) => Err(NoChange::IsDisabled),
            (Some(How::Disabled), Self::Resume) => Err(NoChange::EnableInstead),
        }
    }
}

impl Registry {
    /// The same registry, with these shut out: their objects are disabled in whatever is looked up. The entries, which are
    /// what somebody declared, stay as they are.
    #[must_use]
    pub fn without(mut self, shut_out: Vec<ShutOut>) -> Self {
        for ShutOut { who, .. } in &shut_out {
            match who {
                Who::Object(Kind::Issuer, id) => {
                    let issuers = self.issuers.values_mut().filter(|issuer| issuer.issuer.as_str() == id);
                    issuers.for_each(|issuer| std::sync::Arc::make_mut(issuer).disabled = true);
                }
                Who::Object(Kind::Agent, id) => {
                    let agents = self.agents.values_mut().filter(|agent| agent.id.as_str() == id);
                    agents.for_each(|agent| agent.disabled = true);
                }
                Who::Object(Kind::Resource, id) => {
                    let resources = self.resources.values_mut().filter(|resource| resource.id.as_str() == id);
                    resources.for_each(|resource| resource.disabled = true);
                }
                Who::Object(Kind::Admin, id) => {
                    let admins = self.admins.values_mut().filter(|admin| admin.id.as_str() == id);
                    admins.for_each(|admin| admin.disabled = true);
                }
                Who::Requester(requester) => {
                    self.requesters_out.insert(requester.clone());
                }
            }
        }
        self.shut_out = shut_out;
        self
    }

    /// Everybody who is shut out by an admin.
    #[must_use]
    pub fn shut_out(&self) -> &[ShutOut] {
        &self.shut_out
    }

    /// Whether and how somebody is shut out by an admin.
    #[must_use]
    pub fn shut_out_of(&self, who: &Who) -> Option<&ShutOut> {
        self.shut_out.iter().find(|one| one.who == *who)
    }

    /// Whether nothing may be done in a requester's name.
    #[must_use]
    pub fn is_out(&self, requester: &Requester) -> bool {
        self.requesters_out.contains(requester)
    }

    /// What somebody who is registered has: the names under which it all can be taken back.
    #[must_use]
    pub fn targets_of(&self, who: &Who) -> Vec<Target> {
        match who {
            Who::Object(kind, id) => self.entry(*kind, id).map(|entry| entry.object.ends()).unwrap_or_default(),
            Who::Requester(requester) => vec![Target::requester(requester)],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_and_every_act() {
        use How::{Disabled, Suspended};
        // Suspend, resume, disable, enable.
        for (now, row) in [
            (None, [Ok(Some(Suspended)), Err(NoChange::NotSuspended), Ok(Some(Disabled)), Err(NoChange::NotDisabled)]),
            (Some(Suspended), [Err(NoChange::IsSuspended), Ok(None), Ok(Some(Disabled)), Err(NoChange::ResumeInstead)]),
            (Some(Disabled), [Err(NoChange::IsDisabled), Err(NoChange::EnableInstead), Ok(Some(Disabled)), Ok(None)]),
        ] {
            let acts = [Door::Suspend, Door::Resume, Door::Disable, Door::Enable];
            assert_eq!(acts.map(|act| act.after(now)), row, "{now:?}");
        }
    }

    #[test]
    fn who_comes_back_as_it_was() {
        let requester = Requester {
            issuer: "https://login.example.com".parse().unwrap(),
            subject: "alice in chains".parse().unwrap(),
        };
        for who in [
            Who::Object(Kind::Issuer, "https://login.example.com".into()),
            Who::Object(Kind::Agent, "planner".into()),
            Who::Object(Kind::Resource, "files".into()),
            Who::Object(Kind::Admin, "ops".into()),
            Who::Requester(requester),
        ] {
            assert_eq!(Who::parse(who.kind(), &who.id()), Some(who));
        }
        for (kind, id) in [("requester", "alice"), ("requester", "alice bob"), ("client", "planner"), ("", "")] {
            assert_eq!(Who::parse(kind, id), None, "{kind} {id}");
        }
    }
}
