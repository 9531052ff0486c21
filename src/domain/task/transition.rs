//! State machine of a task: states, actions and who may perform them.

use std::fmt;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::Task;
use crate::domain::{
    id::{ClientId, GrantId, OutcomeText, Reason},
    requester::Requester,
    revocation::LogAction,
    time::Timestamp,
};

/// The state of a task. All but the first two are final.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TaskState {
    /// Its tokens work.
    Active,
    /// Its tokens are suspended. The same tokens work again when it is resumed.
    Suspended,
    /// The work was completed.
    Completed,
    /// The work failed.
    Failed,
    /// The deadline passed.
    Expired,
    /// The task was revoked.
    Revoked,
}

impl TaskState {
    /// All states, in the order of the life cycle.
    pub const ALL: [Self; 6] =
        [Self::Active, Self::Suspended, Self::Completed, Self::Failed, Self::Expired, Self::Revoked];

    /// Returns the wire name.
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

    /// Parses the wire name.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == word)
    }

    /// Returns whether the state is final.
    #[must_use]
    pub fn is_final(self) -> bool {
        !matches!(self, Self::Active | Self::Suspended)
    }

    /// Returns the state after an action, or why the action is illegal.
    pub fn next_state(self, action: TaskAction) -> Result<Self, TransitionError> {
        match (self, action) {
            (Self::Active, TaskAction::Suspend) => Ok(Self::Suspended),
            (Self::Suspended, TaskAction::Resume) => Ok(Self::Active),
            (Self::Active | Self::Suspended, TaskAction::Complete) => Ok(Self::Completed),
            (Self::Active | Self::Suspended, TaskAction::Fail) => Ok(Self::Failed),
            (Self::Active | Self::Suspended, TaskAction::Expire) => Ok(Self::Expired),
            (Self::Active | Self::Suspended, TaskAction::Revoke) => Ok(Self::Revoked),
            (Self::Active, TaskAction::Resume)
            | (Self::Suspended, TaskAction::Suspend)
            | (Self::Completed | Self::Failed | Self::Expired | Self::Revoked, _) => {
                Err(TransitionError::Illegal { state: self, action })
            }
        }
    }
}

impl fmt::Display for TaskState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// An action on a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum TaskAction {
    /// Suspends its tokens.
    Suspend,
    /// Lifts the suspension; the same tokens work again.
    Resume,
    /// Ends the task as completed.
    Complete,
    /// Ends the task as failed.
    Fail,
    /// Ends the task at its deadline.
    Expire,
    /// Revokes the task.
    Revoke,
}

impl TaskAction {
    /// All actions.
    pub const ALL: [Self; 6] = [Self::Suspend, Self::Resume, Self::Complete, Self::Fail, Self::Expire, Self::Revoke];

    /// Returns the past participle, as in "can't be resumed".
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

impl From<TaskAction> for LogAction {
    /// Returns the log action of a transition: everything that ends a task revokes its tokens.
    fn from(action: TaskAction) -> Self {
        match action {
            TaskAction::Suspend => Self::Suspend,
            TaskAction::Resume => Self::Resume,
            TaskAction::Complete | TaskAction::Fail | TaskAction::Expire | TaskAction::Revoke => Self::Revoke,
        }
    }
}

/// The initiator of a state change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Initiator {
    /// The agent that opened the task.
    Agent(ClientId),
    /// The requester on whose behalf it runs.
    Requester(Requester),
    /// An admin, by the name in audit records: `admin:NAME`.
    Admin(String),
    /// The withdrawal of the grant on which it is based.
    Grant(GrantId),
    /// The removal of the agent that opened it, or of its requester's issuer, from the registry.
    Removal,
    /// The revocation of its requester, their issuer, or the agent that opened it.
    Revocation,
    /// The deadline.
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
            Self::Revocation => f.write_str("revocation"),
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

/// Returns the precedence of an initiator, by the name in audit records.
fn precedence_of(name: &str) -> u8 {
    match name.split_once(':') {
        Some(("client", _)) => 1,
        Some(("requester", _)) => 2,
        _ => ADMIN_PRECEDENCE,
    }
}

/// Why an action on a task is rejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum TransitionError {
    /// The state does not permit the action.
    #[error("the task is {state} and can't be {}", action.past_participle())]
    Illegal {
        /// The current state.
        state: TaskState,
        /// The requested action.
        action: TaskAction,
    },
    /// The task was suspended by an initiator of the same or a higher precedence.
    #[error("the task was suspended by another party; only that party or an admin can resume it")]
    SuspendedByAnother,
    /// The deadline is in the future.
    #[error("the deadline of the task is in the future")]
    DeadlineNotReached,
}

impl TransitionError {
    /// Returns the current state of the task.
    #[must_use]
    pub fn state(self) -> TaskState {
        match self {
            Self::Illegal { state, .. } => state,
            Self::SuspendedByAnother => TaskState::Suspended,
            Self::DeadlineNotReached => TaskState::Active,
        }
    }
}

/// A state change of a task: the new state, the time, the initiator, and their remarks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Transition {
    /// The new state.
    pub state: TaskState,
    /// The time of the change.
    pub at: Timestamp,
    /// The initiator: `admin:NAME`, `client:ID`, `grant:ID`, `removal`, `revocation`,
    /// `deadline`.
    pub by: String,
    /// The reason.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Reason>,
    /// The result of the work.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<OutcomeText>,
}

impl Task {
    /// Returns the state at `now`. A task is expired from its deadline, even before the expiry is
    /// recorded.
    #[must_use]
    pub fn state_at(&self, now: Timestamp) -> TaskState {
        if !self.state.is_final() && self.deadline.has_passed(now) { TaskState::Expired } else { self.state }
    }

    /// Returns the state after an action of this initiator, or why it is rejected.
    ///
    /// A suspension is lifted by the initiator who imposed it, or by one of higher precedence: an
    /// admin is above the requester, and the requester is above the agent. An initiator of higher
    /// precedence who suspends a suspended task takes the suspension over.
    pub fn next_state(&self, action: TaskAction, by: &Initiator, now: Timestamp) -> Result<TaskState, TransitionError> {
        if action == TaskAction::Expire {
            return if self.deadline.has_passed(now) {
                self.state.next_state(action)
            } else {
                Err(TransitionError::DeadlineNotReached)
            };
        }
        let state = self.state_at(now);
        let holder = self.last_transition.as_ref().map(|transition| transition.by.as_str()).unwrap_or_default();
        let is_own = holder == by.to_string();
        match (state, action) {
            (TaskState::Suspended, TaskAction::Suspend) if precedence_of(holder) < by.precedence() => {
                Ok(TaskState::Suspended)
            }
            (TaskState::Suspended, TaskAction::Resume)
                if !is_own && by.precedence() < ADMIN_PRECEDENCE && precedence_of(holder) >= by.precedence() =>
            {
                Err(TransitionError::SuspendedByAnother)
            }
            _ => state.next_state(action),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{authority::Authority, id::TaskId, revocation::LogPosition, time::Lifetime};

    const NOW: Timestamp = Timestamp::from_unix(1_795_200_000);

    fn task(state: TaskState, by: Option<&str>) -> Task {
        let transition = |by: &str| Transition { state, at: NOW, by: by.to_owned(), reason: None, outcome: None };
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
            last_transition: by.map(transition),
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
            for (action, want) in TaskAction::ALL.into_iter().zip(row) {
                let got = state.next_state(action);
                assert_eq!(got.ok(), want, "{state} {action:?}");
                if let Err(error) = got {
                    assert_eq!(error.state(), state);
                    assert_eq!(
                        error.to_string(),
                        format!("the task is {state} and can't be {}", action.past_participle())
                    );
                }
            }
        }
    }

    #[test]
    fn suspension_is_lifted_only_by_holder_or_higher_precedence() {
        let (agent, admin) = (Initiator::Agent("planner".parse().unwrap()), Initiator::Admin("admin:ops".into()));
        let suspended_by = |by: &str| task(TaskState::Suspended, Some(by));
        for (holder, action, by, want) in [
            ("client:planner", TaskAction::Resume, &agent, Ok(TaskState::Active)),
            ("client:planner", TaskAction::Resume, &admin, Ok(TaskState::Active)),
            ("admin:ops", TaskAction::Resume, &agent, Err(TransitionError::SuspendedByAnother)),
            ("admin:other", TaskAction::Resume, &admin, Ok(TaskState::Active)),
            ("client:planner2", TaskAction::Resume, &agent, Err(TransitionError::SuspendedByAnother)),
            ("client:planner", TaskAction::Suspend, &admin, Ok(TaskState::Suspended)),
            ("admin:ops", TaskAction::Complete, &agent, Ok(TaskState::Completed)),
        ] {
            assert_eq!(suspended_by(holder).next_state(action, by, NOW), want, "{holder} {action:?} {by}");
        }
        for (holder, by) in [("client:planner", &agent), ("admin:ops", &agent), ("admin:ops", &admin)] {
            let rejected = Err(TransitionError::Illegal { state: TaskState::Suspended, action: TaskAction::Suspend });
            assert_eq!(suspended_by(holder).next_state(TaskAction::Suspend, by, NOW), rejected, "{holder} {by}");
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
        for action in
            [TaskAction::Suspend, TaskAction::Resume, TaskAction::Complete, TaskAction::Fail, TaskAction::Revoke]
        {
            let rejected = Err(TransitionError::Illegal { state: TaskState::Expired, action });
            assert_eq!(task.next_state(action, &admin, task.deadline), rejected);
        }
    }
}
