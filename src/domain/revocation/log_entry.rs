//! An entry of the revocation log: what it does, to which target.

use super::LogPosition;
use crate::domain::{
    id::{ClientId, GrantId, TaskId, TokenId},
    requester::Requester,
    time::Timestamp,
    uri::{IssuerUrl, ResourceUri},
};

/// What an entry is about.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Target {
    /// One token, with all that was derived from it.
    Token(TokenId),
    /// One task, with all its tokens.
    Task(TaskId),
    /// One recorded grant, with all tokens that rest on it.
    Grant(GrantId),
    /// Everything issued so far in a requester's name. Issuer and subject, as in [`Requester`].
    Requester(String),
    /// Everything issued so far that an agent acts in, at whatever place in the chain.
    Agent(ClientId),
    /// Every API token that a client got so far: with credentials that it has no more.
    Credentials(ClientId),
    /// Everything issued so far that something may be done at a resource with.
    Resource(ResourceUri),
    /// Everything issued so far on the word of an identity provider.
    Issuer(IssuerUrl),
    /// Not about tokens: the registry changed, and whoever holds a copy reads it again.
    Registry,
    /// Not about tokens: the signing keys changed.
    Keys,
}

impl Target {
    /// The target that means a requester.
    #[must_use]
    pub fn for_requester(requester: &Requester) -> Self {
        // An issuer URL has no blank in it, so this is unambiguous.
        Self::Requester(format!("{} {}", requester.issuer, requester.subject))
    }

    /// The word for the kind of target.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Token(_) => "token",
            Self::Task(_) => "task",
            Self::Grant(_) => "grant",
            Self::Requester(_) => "requester",
            Self::Agent(_) => "agent",
            Self::Credentials(_) => "credentials",
            Self::Resource(_) => "resource",
            Self::Issuer(_) => "issuer",
            Self::Registry => "registry",
            Self::Keys => "keys",
        }
    }

    /// The name among its kind; empty for the registry and the keys.
    #[must_use]
    pub fn key(&self) -> String {
        match self {
            Self::Token(id) => id.to_string(),
            Self::Task(id) => id.to_string(),
            Self::Grant(id) => id.to_string(),
            Self::Requester(key) => key.clone(),
            Self::Agent(id) | Self::Credentials(id) => id.to_string(),
            Self::Resource(uri) => uri.to_string(),
            Self::Issuer(url) => url.to_string(),
            Self::Registry | Self::Keys => String::new(),
        }
    }

    /// Reads kind and key as they were stored.
    #[must_use]
    pub fn parse(kind: &str, key: &str) -> Option<Self> {
        Some(match kind {
            "token" => Self::Token(key.parse().ok()?),
            "task" => Self::Task(key.parse().ok()?),
            "grant" => Self::Grant(key.parse().ok()?),
            "requester" => Self::Requester(key.split_once(' ').map(|_| key.to_owned())?),
            "agent" => Self::Agent(key.parse().ok()?),
            "credentials" => Self::Credentials(key.parse().ok()?),
            "resource" => Self::Resource(key.parse().ok()?),
            "issuer" => Self::Issuer(key.parse().ok()?),
            "registry" if key.is_empty() => Self::Registry,
            "keys" if key.is_empty() => Self::Keys,
            _ => return None,
        })
    }
}

/// What an entry does to its target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LogAction {
    /// Ends it, for good.
    Revoke,
    /// Holds its tokens back. Of tasks and agents only.
    Suspend,
    /// Lets the same tokens work again. Of tasks and agents only.
    Resume,
}

impl LogAction {
    /// The word for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Revoke => "revoke",
            Self::Suspend => "suspend",
            Self::Resume => "resume",
        }
    }

    /// Reads the word, where it means something for the target.
    #[must_use]
    pub fn parse(word: &str, target: &Target) -> Option<Self> {
        match word {
            "revoke" => Some(Self::Revoke),
            "suspend" if matches!(target, Target::Task(_) | Target::Agent(_)) => Some(Self::Suspend),
            "resume" if matches!(target, Target::Task(_) | Target::Agent(_)) => Some(Self::Resume),
            _ => None,
        }
    }
}

/// One entry of the revocation log, before it has its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewEntry {
    /// What is done.
    pub verb: LogAction,
    /// What is taken back.
    pub target: Target,
    /// Why.
    pub reason: String,
    /// Who did it: `admin:NAME`, `client:ID`.
    pub by: String,
    /// When.
    pub at: Timestamp,
    /// The moment after which no token that this could end is unexpired: then it need not be read at a start.
    pub forget_after: Timestamp,
}

impl NewEntry {
    /// Returns the entry that makes every replica read the registry again.
    #[must_use]
    pub fn registry_changed(by: String, at: Timestamp) -> Self {
        Self::changed(Target::Registry, by, at)
    }

    /// Returns the entry that makes every replica read the signing keys again.
    #[must_use]
    pub fn keys_changed(by: String, at: Timestamp) -> Self {
        Self::changed(Target::Keys, by, at)
    }

    /// Retained forever: a replica may be away for long.
    fn changed(target: Target, by: String, at: Timestamp) -> Self {
        Self { verb: LogAction::Revoke, target, reason: "changed".into(), by, at, forget_after: Timestamp::MAX }
    }
}

/// One entry of the revocation log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogEntry {
    /// Its place.
    pub seq: LogPosition,
    /// What it says.
    pub entry: NewEntry,
}
