//! State transitions of a task.

use std::fmt;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::Task;
use crate::domain::{
    id::{ClientId, GrantId, OutcomeText, Reason},
    requester::Requester,
    time::Timestamp,
};

/// Where a task is in its life. All but the first two are final.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TaskState {
    /// Its tokens work.
    Active,
    /// Its tokens are held back, and the same ones work again when it is resumed.
    Suspended,
    /// Done.
    Completed,
    /// Given up.
    Failed,
    /// Its deadline passed.
    Expired,
    /// Taken back.
    Revoked,
}

impl TaskState {
    /// All of them, in the order of a life.
    pub const ALL: [Self; 6] =
        [Self::Active, Self::Suspended, Self::Completed, Self::Failed, Self::Expired, Self::Revoked];

    /// The word for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Suspended => "suspended",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Expired => "expired",
            Self::Revoked => "revoked",
        }
    }

    /// Reads the word.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == word)
    }

    /// Whether nothing comes after it.
    #[must_use]
    pub fn is_final(self) -> bool {
        !matches!(self, Self::Active | Self::Suspended)
    }

    /// The state after an act, or why there is none.
    pub fn next_state(self, act: TaskAction) -> Result<Self, TransitionError> {
        match (self, act) {
            (Self::Active, TaskAction::Suspend) => Ok(Self::Suspended),
            (Self::Suspended, TaskAction::Resume) => Ok(Self::Active),
            (Self::Active | Self::Suspended, TaskAction::Complete) => Ok(Self::Completed),
            (Self::Active | Self::Suspended, TaskAction::Fail) => Ok(Self::Failed),
            (Self::Active | Self::Suspended, TaskAction::Expire) => Ok(Self::Expired),
            (Self::Active | Self::Suspended, TaskAction::Revoke) => Ok(Self::Revoked),
            (Self::Active, TaskAction::Resume)
            | (Self::Suspended, TaskAction::Suspend)
            | (Self::Completed | Self::Failed | Self::Expired | Self::Revoked, _) => {
                Err(TransitionError::Illegal { state: self, action: act })
            }
        }
    }
}

impl fmt::Display for TaskState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What somebody does to a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum TaskAction {
    /// Hold its tokens back.
    Suspend,
    /// Let the same tokens work again.
    Resume,
    /// End it: it is done.
    Complete,
    /// End it: it did not work out.
    Fail,
    /// End it: its deadline passed.
    Expire,
    /// End it: it is taken back.
    Revoke,
}

impl TaskAction {
    /// All of them.
    pub const ALL: [Self; 6] = [Self::Suspend, Self::Resume, Self::Complete, Self::Fail, Self::Expire, Self::Revoke];

    /// What is done to the task, as in "it can't be resumed".
    #[must_use]
    pub fn past_participle(self) -> &'static str {
        match self {
            Self::Suspend => "suspended",
            Self::Resume => "resumed",
            Self::Complete => "completed",
            Self::Fail => "failed",
            Self::Expire => "ended by its deadline",
            Self::Revoke => "revoked",
        }
    }
}

/// Who acts on a task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Initiator {
    /// The agent that opened it.
    Agent(ClientId),
    /// The requester in whose name it is.
    Requester(Requester),
    /// An admin, by the name that records have: `admin:NAME`.
    Admin(String),
    /// Nobody: the grant that it rests on was withdrawn.
    Grant(GrantId),
    /// Nobody: the agent that opened it, or the issuer of its requester, was removed from the registry.
    Removal,
    /// Nobody: the deadline passed.
    Deadline,
}

impl fmt::Display for Initiator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Agent(id) => write!(f, "client:{id}"),
            Self::Requester(requester) => write!(f, "requester:{} {}", requester.issuer, requester.subject),
            Self::Admin(name) => f.write_str(name),
            Self::Grant(id) => write!(f, "grant:{id}"),
            Self::Removal => f.write_str("removal"),
            Self::Deadline => f.write_str("deadline"),
        }
    }
}

impl Initiator {
    fn precedence(&self) -> u8 {
        precedence_of(&self.to_string())
    }
}

const ADMIN_PRECEDENCE: u8 = 3;

/// Who stands above whom, by the name that records have.
fn precedence_of(name: &str) -> u8 {
    match name.split_once(':') {
        Some(("client", _)) => 1,
        Some(("requester", _)) => 2,
        _ => ADMIN_PRECEDENCE,
    }
}

/// Why an act on a task is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum TransitionError {
    /// The state does not allow it.
    #[error("the task is {state}: it can't be {}", action.past_participle())]
    Illegal {
        /// Where it is.
        state: TaskState,
        /// What was wanted.
        action: TaskAction,
    },
    /// An agent would lift what somebody else put on.
    #[error("the task is suspended by somebody else: they resume it, or an admin does")]
    SuspendedByAnother,
    /// The deadline has not passed.
    #[error("the task's deadline has not passed")]
    DeadlineNotReached,
}

impl TransitionError {
    /// Where the task is.
    #[must_use]
    pub fn state(self) -> TaskState {
        match self {
            Self::Illegal { state, .. } => state,
            Self::SuspendedByAnother => TaskState::Suspended,
            Self::DeadlineNotReached => TaskState::Active,
        }
    }
}

/// One change of a task's state: what it became, when, by whom, and what was said.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Transition {
    /// What it became.
    pub state: TaskState,
    /// When.
    pub at: Timestamp,
    /// Who did it: `admin:NAME`, `client:ID`, `grant:ID`, `removal`, `deadline`.
    pub by: String,
    /// Why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Reason>,
    /// What came of the work.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<OutcomeText>,
}

impl Task {
    /// Where it is now: at its deadline it is over, whether or not anybody has come by to write that down.
    #[must_use]
    pub fn state_at(&self, now: Timestamp) -> TaskState {
        if !self.state.is_final() && self.deadline.has_passed(now) { TaskState::Expired } else { self.state }
    }

    /// The state after an act of somebody, or why there is none.
    ///
    /// Who holds a task back lets it go, or somebody above them: an admin stands above the requester, and the requester above
    /// the agent. Who suspends what somebody below them has suspended takes the hold over.
    pub fn next_state(&self, act: TaskAction, by: &Initiator, now: Timestamp) -> Result<TaskState, TransitionError> {
        if act == TaskAction::Expire {
            return if self.deadline.has_passed(now) {
                self.state.next_state(act)
            } else {
                Err(TransitionError::DeadlineNotReached)
            };
        }
        let state = self.state_at(now);
        let holder = self.last_transition.as_ref().map(|turn| turn.by.as_str()).unwrap_or_default();
        let is_theirs = holder == by.to_string();
        match (state, act) {
            (TaskState::Suspended, TaskAction::Suspend) if precedence_of(holder) < by.precedence() => {
                Ok(TaskState::Suspended)
            }
            (TaskState::Suspended, TaskAction::Resume)
                if !is_theirs && by.precedence() < ADMIN_PRECEDENCE && precedence_of(holder) >= by.precedence() =>
            {
                Err(TransitionError::SuspendedByAnother)
            }
            _ => state.next_state(act),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{authority::Authority, id::TaskId, revocation::LogPosition, time::Lifetime};

    const NOW: Timestamp = Timestamp::from_unix(1_795_200_000);

    fn task(state: TaskState, by: Option<&str>) -> Task {
        let turn = |by: &str| Transition { state, at: NOW, by: by.to_owned(), reason: None, outcome: None };
        Task {
            id: TaskId::new(uuid::Uuid::from_u128(7)),
            requester: Requester {
                issuer: "https://login.example.com".parse().unwrap(),
                subject: "alice".parse().unwrap(),
            },
            root_agent: "planner".parse().unwrap(),
            purpose: "quarterly report".parse().unwrap(),
            authority: Authority::default(),
            state,
            created_at: NOW,
            deadline: NOW.saturating_add(Lifetime::minutes(30)),
            grant: None,
            version: u64::from(by.is_some()),
            last_transition: by.map(turn),
            rev: LogPosition::default(),
        }
    }

    #[test]
    fn every_state_and_action_has_specified_next_state() {
        use TaskState::{Active, Completed, Expired, Failed, Revoked, Suspended};
        // Suspend, resume, complete, fail, expire, revoke.
        let table = [
            (Active, [Some(Suspended), None, Some(Completed), Some(Failed), Some(Expired), Some(Revoked)]),
            (Suspended, [None, Some(Active), Some(Completed), Some(Failed), Some(Expired), Some(Revoked)]),
            (Completed, [None; 6]),
            (Failed, [None; 6]),
            (Expired, [None; 6]),
            (Revoked, [None; 6]),
        ];
        assert_eq!(table.map(|(state, _)| state), TaskState::ALL);
        for (state, row) in table {
            assert_eq!(TaskState::parse(state.as_str()), Some(state));
            assert_eq!(state.is_final(), row.iter().all(Option::is_none));
            for (act, want) in TaskAction::ALL.into_iter().zip(row) {
                let got = state.next_state(act);
                assert_eq!(got.ok(), want, "{state} {act:?}");
                if let Err(refusal) = got {
                    assert_eq!(refusal.state(), state);
                    assert_eq!(
                        refusal.to_string(),
                        format!("the task is {state}: it can't be {}", act.past_participle())
                    );
                }
            }
        }
    }

    #[test]
    fn suspension_is_lifted_only_by_holder_or_higher_precedence() {
        let (agent, admin) = (Initiator::Agent("planner".parse().unwrap()), Initiator::Admin("admin:ops".into()));
        let held = |by: &str| task(TaskState::Suspended, Some(by));
        for (holder, act, by, want) in [
            ("client:planner", TaskAction::Resume, &agent, Ok(TaskState::Active)),
            ("client:planner", TaskAction::Resume, &admin, Ok(TaskState::Active)),
            ("admin:ops", TaskAction::Resume, &agent, Err(TransitionError::SuspendedByAnother)),
            ("admin:other", TaskAction::Resume, &admin, Ok(TaskState::Active)),
            ("client:planner2", TaskAction::Resume, &agent, Err(TransitionError::SuspendedByAnother)),
            ("client:planner", TaskAction::Suspend, &admin, Ok(TaskState::Suspended)),
            ("admin:ops", TaskAction::Complete, &agent, Ok(TaskState::Completed)),
        ] {
            assert_eq!(held(holder).next_state(act, by, NOW), want, "{holder} {act:?} {by}");
        }
        for (holder, by) in [("client:planner", &agent), ("admin:ops", &agent), ("admin:ops", &admin)] {
            let refused = Err(TransitionError::Illegal { state: TaskState::Suspended, action: TaskAction::Suspend });
            assert_eq!(held(holder).next_state(TaskAction::Suspend, by, NOW), refused, "{holder} {by}");
        }
        assert_eq!(
            task(TaskState::Suspended, None).next_state(TaskAction::Resume, &agent, NOW),
            Err(TransitionError::SuspendedByAnother)
        );
    }

    #[test]
    fn task_is_expired_from_its_deadline() {
        let task = task(TaskState::Active, None);
        let before = NOW.saturating_add(Lifetime::minutes(29));
        let admin = Initiator::Admin("admin:ops".into());
        assert_eq!(task.state_at(before), TaskState::Active);
        assert_eq!(
            task.next_state(TaskAction::Expire, &Initiator::Deadline, before),
            Err(TransitionError::DeadlineNotReached)
        );
        assert_eq!(task.state_at(task.deadline), TaskState::Expired);
        assert_eq!(task.next_state(TaskAction::Expire, &Initiator::Deadline, task.deadline), Ok(TaskState::Expired));
        for act in [TaskAction::Suspend, TaskAction::Resume, TaskAction::Complete, TaskAction::Fail, TaskAction::Revoke]
        {
            let refused = Err(TransitionError::Illegal { state: TaskState::Expired, action: act });
            assert_eq!(task.next_state(act, &admin, task.deadline), refused);
        }
    }
}
