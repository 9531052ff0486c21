//! A task: one delegated piece of work. Its id is the `txn` claim of every token that was issued for it.

use std::fmt;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::domain::{
    authority::Authority,
    id::{ClientId, GrantId, OutcomeText, Purpose, Reason, Subject, TaskId},
    revocation::Seq,
    time::Timestamp,
    uri::IssuerUrl,
};

/// The human on whose behalf: an issuer and its subject, prefix included.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Requester {
    /// The identity provider that vouches for them.
    pub issuer: IssuerUrl,
    /// Who they are, unique among all issuers.
    pub subject: Subject,
}

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
    pub fn after(self, act: Act) -> Result<Self, CannotTurn> {
        match (self, act) {
            (Self::Active, Act::Suspend) => Ok(Self::Suspended),
            (Self::Suspended, Act::Resume) => Ok(Self::Active),
            (Self::Active | Self::Suspended, Act::Complete) => Ok(Self::Completed),
            (Self::Active | Self::Suspended, Act::Fail) => Ok(Self::Failed),
            (Self::Active | Self::Suspended, Act::Expire) => Ok(Self::Expired),
            (Self::Active | Self::Suspended, Act::Revoke) => Ok(Self::Revoked),
            (Self::Active, Act::Resume)
            | (Self::Suspended, Act::Suspend)
            | (Self::Completed | Self::Failed | Self::Expired | Self::Revoked, _) => {
                Err(CannotTurn::Illegal { state: self, act })
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
pub enum Act {
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

impl Act {
    /// All of them.
    pub const ALL: [Self; 6] = [Self::Suspend, Self::Resume, Self::Complete, Self::Fail, Self::Expire, Self::Revoke];

    /// What is done to the task, as in "it can't be resumed".
    #[must_use]
    pub fn done(self) -> &'static str {
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
pub enum Party {
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

impl fmt::Display for Party {
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

impl Party {
    fn rank(&self) -> u8 {
        rank(&self.to_string())
    }
}

const ADMIN: u8 = 3;

/// Who stands above whom, by the name that records have.
fn rank(name: &str) -> u8 {
    match name.split_once(':') {
        Some(("client", _)) => 1,
        Some(("requester", _)) => 2,
        _ => ADMIN,
    }
}

/// Why an act on a task is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum CannotTurn {
    /// The state does not allow it.
    #[error("the task is {state}: it can't be {}", act.done())]
    Illegal {
        /// Where it is.
        state: TaskState,
        /// What was wanted.
        act: Act,
    },
    /// An agent would lift what somebody else put on.
    #[error("the task is suspended by somebody else: they resume it, or an admin does")]
    HeldByAnother,
    /// The deadline has not passed.
    #[error("the task's deadline has not passed")]
    NotDue,
}

impl CannotTurn {
    /// Where the task is.
    #[must_use]
    pub fn state(self) -> TaskState {
        match self {
            Self::Illegal { state, .. } => state,
            Self::HeldByAnother => TaskState::Suspended,
            Self::NotDue => TaskState::Active,
        }
    }
}

/// One change of a task's state: what it became, when, by whom, and what was said.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Turn {
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

/// One delegated piece of work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Task {
    /// The `txn` claim.
    pub id: TaskId,
    /// On whose behalf.
    pub requester: Requester,
    /// The agent that opened it.
    pub root_agent: ClientId,
    /// What it is for.
    pub purpose: Purpose,
    /// What was approved for it, at every resource that it is about.
    pub authority: Authority,
    /// Where it is in its life.
    pub state: TaskState,
    /// When it was opened.
    pub created: Timestamp,
    /// When it ends by itself; no token of it lives longer.
    pub deadline: Timestamp,
    /// The grant that it rests on: when that is withdrawn, the task is over.
    pub grant: Option<GrantId>,
    /// How often its state has changed: what a change builds on.
    pub turns: u64,
    /// The last change; none since it was opened.
    pub turned: Option<Turn>,
    /// Where the log stood when it was opened. It is no task of an agent, or an issuer, that was registered after that.
    pub rev: Seq,
}

/// Why an exchange can't join a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum CannotJoin {
    /// There is none with this id, or it is somebody else's: the two can't be told apart from outside.
    #[error("there is no such task for this requester and agent")]
    NotYours,
    /// It is suspended.
    #[error("the task is suspended: it can be joined again when it is resumed")]
    Suspended,
    /// It was ended or its deadline has passed.
    #[error("the task has ended")]
    Ended,
}

impl Task {
    /// Whether it is this requester's, opened by this agent.
    #[must_use]
    pub fn is_of(&self, requester: &Requester, agent: &ClientId) -> bool {
        self.requester == *requester && self.root_agent == *agent
    }

    /// Whether an exchange may join: same requester, same root agent, active, before its deadline.
    pub fn admits(&self, requester: &Requester, agent: &ClientId, now: Timestamp) -> Result<(), CannotJoin> {
        if !self.is_of(requester, agent) {
            return Err(CannotJoin::NotYours);
        }
        match self.state_at(now) {
            TaskState::Active => Ok(()),
            TaskState::Suspended => Err(CannotJoin::Suspended),
            TaskState::Completed | TaskState::Failed | TaskState::Expired | TaskState::Revoked => {
                Err(CannotJoin::Ended)
            }
        }
    }

    /// Where it is now: at its deadline it is over, whether or not anybody has come by to write that down.
    #[must_use]
    pub fn state_at(&self, now: Timestamp) -> TaskState {
        if !self.state.is_final() && self.deadline.is_past(now) { TaskState::Expired } else { self.state }
    }

    /// The state after an act of somebody, or why there is none.
    ///
    /// Who holds a task back lets it go, or somebody above them: an admin stands above the requester, and the requester above
    /// the agent. Who suspends what somebody below them has suspended takes the hold over.
    pub fn after(&self, act: Act, by: &Party, now: Timestamp) -> Result<TaskState, CannotTurn> {
        if act == Act::Expire {
            return if self.deadline.is_past(now) { self.state.after(act) } else { Err(CannotTurn::NotDue) };
        }
        let state = self.state_at(now);
        let holder = self.turned.as_ref().map(|turn| turn.by.as_str()).unwrap_or_default();
        let is_theirs = holder == by.to_string();
        match (state, act) {
            (TaskState::Suspended, Act::Suspend) if rank(holder) < by.rank() => Ok(TaskState::Suspended),
            (TaskState::Suspended, Act::Resume) if !is_theirs && by.rank() < ADMIN && rank(holder) >= by.rank() => {
                Err(CannotTurn::HeldByAnother)
            }
            _ => state.after(act),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::time::Lifetime;

    const NOW: Timestamp = Timestamp::from_unix(1_795_200_000);

    fn task(state: TaskState, by: Option<&str>) -> Task {
        let turn = |by: &str| Turn { state, at: NOW, by: by.to_owned(), reason: None, outcome: None };
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
            created: NOW,
            deadline: NOW.after(Lifetime::minutes(30)),
            grant: None,
            turns: u64::from(by.is_some()),
            turned: by.map(turn),
            rev: Seq::default(),
        }
    }

    #[test]
    fn every_state_and_every_act() {
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
            for (act, want) in Act::ALL.into_iter().zip(row) {
                let got = state.after(act);
                assert_eq!(got.ok(), want, "{state} {act:?}");
                if let Err(refusal) = got {
                    assert_eq!(refusal.state(), state);
                    assert_eq!(refusal.to_string(), format!("the task is {state}: it can't be {}", act.done()));
                }
            }
        }
    }

    #[test]
    fn who_holds_a_task_lets_it_go() {
        let (agent, admin) = (Party::Agent("planner".parse().unwrap()), Party::Admin("admin:ops".into()));
        let held = |by: &str| task(TaskState::Suspended, Some(by));
        for (holder, act, by, want) in [
            ("client:planner", Act::Resume, &agent, Ok(TaskState::Active)),
            ("client:planner", Act::Resume, &admin, Ok(TaskState::Active)),
            ("admin:ops", Act::Resume, &agent, Err(CannotTurn::HeldByAnother)),
            ("admin:other", Act::Resume, &admin, Ok(TaskState::Active)),
            ("client:planner2", Act::Resume, &agent, Err(CannotTurn::HeldByAnother)),
            ("client:planner", Act::Suspend, &admin, Ok(TaskState::Suspended)),
            ("admin:ops", Act::Complete, &agent, Ok(TaskState::Completed)),
        ] {
            assert_eq!(held(holder).after(act, by, NOW), want, "{holder} {act:?} {by}");
        }
        for (holder, by) in [("client:planner", &agent), ("admin:ops", &agent), ("admin:ops", &admin)] {
            let refused = Err(CannotTurn::Illegal { state: TaskState::Suspended, act: Act::Suspend });
            assert_eq!(held(holder).after(Act::Suspend, by, NOW), refused, "{holder} {by}");
        }
        assert_eq!(task(TaskState::Suspended, None).after(Act::Resume, &agent, NOW), Err(CannotTurn::HeldByAnother));
    }

    #[test]
    fn a_task_is_over_at_its_deadline() {
        let task = task(TaskState::Active, None);
        let before = NOW.after(Lifetime::minutes(29));
        let admin = Party::Admin("admin:ops".into());
        assert_eq!(task.state_at(before), TaskState::Active);
        assert_eq!(task.after(Act::Expire, &Party::Deadline, before), Err(CannotTurn::NotDue));
        assert_eq!(task.state_at(task.deadline), TaskState::Expired);
        assert_eq!(task.after(Act::Expire, &Party::Deadline, task.deadline), Ok(TaskState::Expired));
        for act in [Act::Suspend, Act::Resume, Act::Complete, Act::Fail, Act::Revoke] {
            let refused = Err(CannotTurn::Illegal { state: TaskState::Expired, act });
            assert_eq!(task.after(act, &admin, task.deadline), refused);
        }
    }
}
