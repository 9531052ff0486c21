//! What happened, as those saw it who made the calls. One clock for all of them: time since the run began.

use std::{collections::BTreeSet, time::Duration};

/// A call, from when it was sent to when its answer was there, or was not waited for any more.
#[derive(Clone, Debug)]
pub struct Call {
    /// The replica.
    pub at: usize,
    pub start: Duration,
    pub end: Duration,
    /// Whether there was an answer at all.
    pub is_answered: bool,
    pub event: Event,
}

/// What was asked for, and what the answer was.
#[derive(Clone, Debug)]
pub enum Event {
    /// A token was issued.
    Issued(Token),
    /// None was.
    NotIssued(ChangeResult),
    /// What something else needs first: a grant, or what an admin is shown before many tasks are ended.
    Prepared(ChangeResult),
    /// A resource asked about a token.
    Introspected { token: String, result: IntrospectionResult },
    /// Something was taken back, held back or let work again.
    Changed(Change),
    /// An answer that means nothing to anybody, such as a 500.
    UnexpectedResponse(String),
}

/// An issued token: what it says.
#[derive(Clone, Debug)]
pub struct Token {
    pub id: String,
    pub lineage: Vec<String>,
    pub task: String,
    pub requester: String,
    pub agents: BTreeSet<String>,
    pub resource: String,
    pub issuer: String,
    /// The position of the log that its issuer had applied.
    pub rev: u64,
    /// Until then it has certainly not expired.
    pub valid_until: Duration,
    /// The one-time id that it was had with.
    pub assertion: Option<String>,
    /// The recorded grant that it rests on.
    pub grant: Option<String>,
    /// The key that signed it.
    pub key: String,
}

/// What introspection said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IntrospectionResult {
    Active,
    Inactive,
    /// A 503, or no answer at all.
    Unknown,
}

#[derive(Clone, Debug)]
pub struct Change {
    pub verb: Action,
    pub target: Target,
    pub result: ChangeResult,
    /// Its place in the log, where the answer said it.
    pub seq: Option<u64>,
    /// How long the replicas took, as the answer said.
    pub propagated: Option<Duration>,
    /// What names the request when it comes again: its idempotency key, or the confirmation.
    pub key: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// For good: by whatever way.
    End,
    Suspend,
    Resume,
    /// End what there is, and give nothing any more.
    Block,
    /// Give something again.
    Unblock,
}

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

/// Tasks that an admin chose together.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TaskSelection {
    /// These; if it is none, all that fit.
    pub ids: BTreeSet<String>,
    pub requester: Option<String>,
    /// The agent that opened them.
    pub agent: Option<String>,
    /// When the dry run was asked for, and when its answer was there.
    pub dry_run_started: Duration,
    pub dry_run_ended: Duration,
}

/// What whoever wanted a change was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChangeResult {
    /// It is so, everywhere.
    Done,
    /// It can't be done, because it is so already, everywhere.
    Already,
    /// It is not.
    Refused,
    /// A 503, a 202, or no answer at all: it may have happened, and may still happen.
    Unknown,
}

impl ChangeResult {
    /// Whether it is so for certain.
    pub fn is_effective(self) -> bool {
        match self {
            Self::Done | Self::Already => true,
            Self::Refused | Self::Unknown => false,
        }
    }
}

impl Token {
    /// Everything that it can be taken back by.
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
    /// Whether such an end is for what was issued before it alone.
    pub fn ends_earlier_tokens(&self) -> bool {
        match self {
            Self::Token(_) | Self::Task(_) | Self::Grant(_) | Self::Key(_) | Self::Tasks(_) => false,
            Self::Requester(_) | Self::Agent(_) | Self::Resource(_) | Self::Issuer(_) => true,
        }
    }

    /// Kind and key, as the log has them.
    pub fn log_key(&self) -> (&'static str, &str) {
        match self {
            Self::Token(key) => ("token", key),
            Self::Task(key) => ("task", key),
            Self::Requester(key) => ("requester", key),
            Self::Agent(key) => ("agent", key),
            Self::Resource(key) => ("resource", key),
            Self::Issuer(key) => ("issuer", key),
            Self::Grant(key) => ("grant", key),
            // The log says that the keys changed, and not which.
            Self::Key(_) => ("keys", ""),
            // It has one entry for each of them.
            Self::Tasks(_) => ("task", ""),
        }
    }
}
