//! The history of a run, as the callers observed it. All times are measured on one clock, from
//! the start of the run.

use std::{collections::BTreeSet, time::Duration};

/// A call, from its invocation to its completion: the answer, or the end of the wait for it.
#[derive(Clone, Debug)]
pub struct Call {
    /// The replica.
    pub at: usize,
    /// The invocation.
    pub start: Duration,
    /// The completion.
    pub end: Duration,
    /// Whether the call received an answer.
    pub is_answered: bool,
    pub event: Event,
}

/// The operation of a call, with its result.
#[derive(Clone, Debug)]
pub enum Event {
    /// A token was issued.
    Issued(Token),
    /// No token was issued.
    NotIssued(ChangeResult),
    /// A prerequisite of another call: the creation of a grant, or the dry run of a selection.
    Prepared(ChangeResult),
    /// A resource introspected a token.
    Introspected { token: String, result: IntrospectionResult },
    /// A target was revoked, suspended, resumed, blocked or unblocked.
    Changed(Change),
    /// An answer that the API does not define, such as a 500.
    UnexpectedResponse(String),
}

/// The contents of an issued token.
#[derive(Clone, Debug)]
pub struct Token {
    pub id: String,
    pub lineage: Vec<String>,
    pub task: String,
    pub requester: String,
    pub agents: BTreeSet<String>,
    pub resource: String,
    pub issuer: String,
    /// The log position that the issuing replica had applied.
    pub rev: u64,
    /// A time before which the token has certainly not expired.
    pub valid_until: Duration,
    /// The `jti` of the client assertion that the token was issued for.
    pub assertion: Option<String>,
    /// The grant that the token is based on.
    pub grant: Option<String>,
    /// The key that signed it.
    pub key: String,
}

/// The result of an introspection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IntrospectionResult {
    Active,
    Inactive,
    /// A 503 or no answer.
    Unknown,
}

/// A change, with its result.
#[derive(Clone, Debug)]
pub struct Change {
    pub verb: Action,
    pub target: Target,
    pub result: ChangeResult,
    /// Its position in the log, if the answer named one.
    pub seq: Option<u64>,
    /// The propagation time, if the answer named it.
    pub propagated: Option<Duration>,
    /// The identity of the request across retries: its idempotency key or the confirmation.
    pub key: Option<String>,
}

/// An action on a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Ends the target permanently: by revocation, completion, failure, withdrawal or removal.
    End,
    /// Suspends the target.
    Suspend,
    /// Lifts a suspension.
    Resume,
    /// Revokes the existing tokens and issues no new ones.
    Block,
    /// Lifts a block: new tokens are issued.
    Unblock,
}

/// The target of a change.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Target {
    Token(String),
    Task(String),
    Requester(String),
    Agent(String),
    Resource(String),
    Issuer(String),
    Grant(String),
    /// A signing key.
    Key(String),
    Tasks(TaskSelection),
}

/// A selection of tasks by an admin.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TaskSelection {
    /// The ids of the tasks. If empty, all tasks that match the filters.
    pub ids: BTreeSet<String>,
    pub requester: Option<String>,
    /// The agent that opened them.
    pub agent: Option<String>,
    /// Invocation and completion of the dry run.
    pub dry_run_started: Duration,
    pub dry_run_ended: Duration,
}

/// The result of a change, as the caller learned it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChangeResult {
    /// The change is in effect on all replicas.
    Done,
    /// The change was refused because its state is already in effect on all replicas.
    Already,
    /// The change was refused and has no effect.
    Refused,
    /// A 503, a 202 or no answer: the change may have taken effect, and may still do so.
    Unknown,
}

impl ChangeResult {
    /// Returns whether the state is certainly in effect.
    pub fn is_effective(self) -> bool {
        match self {
            Self::Done | Self::Already => true,
            Self::Refused | Self::Unknown => false,
        }
    }
}

impl Token {
    /// Returns every target whose revocation ends the token.
    pub fn revocation_targets(&self) -> impl Iterator<Item = Target> {
        let ancestors = self.lineage.iter().cloned().map(Target::Token);
        let agents = self.agents.iter().cloned().map(Target::Agent);
        let grant = self.grant.iter().cloned().map(Target::Grant);
        let others = [
            Target::Key(self.key.clone()),
            Target::Token(self.id.clone()),
            Target::Task(self.task.clone()),
            Target::Requester(self.requester.clone()),
            Target::Resource(self.resource.clone()),
            Target::Issuer(self.issuer.clone()),
        ];
        ancestors.chain(agents).chain(grant).chain(others)
    }
}

impl Target {
    /// Returns whether an end of this target covers only the tokens issued before it.
    pub fn ends_earlier_tokens(&self) -> bool {
        match self {
            Self::Token(_) | Self::Task(_) | Self::Grant(_) | Self::Key(_) | Self::Tasks(_) => false,
            Self::Requester(_) | Self::Agent(_) | Self::Resource(_) | Self::Issuer(_) => true,
        }
    }

    /// Returns kind and key, as stored in the log.
    pub fn log_key(&self) -> (&'static str, &str) {
        match self {
            Self::Token(key) => ("token", key),
            Self::Task(key) => ("task", key),
            Self::Requester(key) => ("requester", key),
            Self::Agent(key) => ("agent", key),
            Self::Resource(key) => ("resource", key),
            Self::Issuer(key) => ("issuer", key),
            Self::Grant(key) => ("grant", key),
            // The log records that the keys changed, but not which ones.
            Self::Key(_) => ("keys", ""),
            // The log has one entry per task.
            Self::Tasks(_) => ("task", ""),
        }
    }
}
