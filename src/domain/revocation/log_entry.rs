//! Entries of the revocation log.

use super::LogPosition;
use crate::domain::{
    id::{ClientId, GrantId, TaskId, TokenId, ToolName},
    requester::Requester,
    time::Timestamp,
    uri::{IssuerUrl, ResourceUri},
};

/// The target of an entry.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Target {
    /// One token, with all tokens derived from it.
    Token(TokenId),
    /// One task, with all its tokens.
    Task(TaskId),
    /// One recorded grant, with all tokens based on it.
    Grant(GrantId),
    /// All tokens issued so far for a requester. Issuer and subject, as in [`Requester`].
    Requester(String),
    /// All tokens issued so far with an agent anywhere in the chain.
    Agent(ClientId),
    /// All API tokens issued so far to a client, because its credentials were replaced.
    Credentials(ClientId),
    /// All tokens issued so far whose authority includes a resource.
    Resource(ResourceUri),
    /// All tokens issued so far that are based on an identity provider's tokens.
    Issuer(IssuerUrl),
    /// One tool of a resource, in all tokens issued so far. A token without another tool ends.
    Tool(ResourceUri, ToolName),
    /// All tokens issued so far that are based on a break-glass grant and include a resource.
    BreakGlass(ResourceUri),
    /// All tokens issued so far in which an agent acts for a requester. While it is suspended, no
    /// new ones are issued: the requester refused the agent.
    Delegation(ClientId, Box<Requester>),
    /// Not about tokens: the registry changed, and every replica reads it again.
    Registry,
    /// Not about tokens: the signing keys changed.
    Keys,
}

impl Target {
    /// Returns the target for a requester.
    #[must_use]
    pub fn for_requester(requester: &Requester) -> Self {
        // An issuer URL contains no space, so this is unambiguous.
        Self::Requester(format!("{} {}", requester.issuer, requester.subject))
    }

    /// Returns whether a suspension of the target is a valid entry.
    #[must_use]
    pub fn can_be_suspended(&self) -> bool {
        matches!(self, Self::Task(_) | Self::Agent(_) | Self::Tool(..) | Self::Delegation(..))
    }

    /// Returns the word for the kind of target.
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
            Self::Tool(..) => "tool",
            Self::BreakGlass(_) => "break_glass",
            Self::Delegation(..) => "delegation",
            Self::Registry => "registry",
            Self::Keys => "keys",
        }
    }

    /// Returns the key within the kind; empty for the registry and the signing keys.
    #[must_use]
    pub fn key(&self) -> String {
        match self {
            Self::Token(id) => id.to_string(),
            Self::Task(id) => id.to_string(),
            Self::Grant(id) => id.to_string(),
            Self::Requester(key) => key.clone(),
            Self::Agent(id) | Self::Credentials(id) => id.to_string(),
            Self::Resource(uri) | Self::BreakGlass(uri) => uri.to_string(),
            Self::Issuer(url) => url.to_string(),
            Self::Tool(uri, tool) => tool_key(uri, tool),
            Self::Delegation(agent, requester) => delegation_key(agent, requester),
            Self::Registry | Self::Keys => String::new(),
        }
    }

    /// Parses kind and key as stored.
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
            "tool" => {
                let (uri, tool) = key.split_once(' ')?;
                Self::Tool(uri.parse().ok()?, tool.parse().ok()?)
            }
            "break_glass" => Self::BreakGlass(key.parse().ok()?),
            "delegation" => {
                let (agent, requester) = key.split_once(' ')?;
                let (issuer, subject) = requester.split_once(' ')?;
                let requester = Requester { issuer: issuer.parse().ok()?, subject: subject.parse().ok()? };
                Self::Delegation(agent.parse().ok()?, Box::new(requester))
            }
            "registry" if key.is_empty() => Self::Registry,
            "keys" if key.is_empty() => Self::Keys,
            _ => return None,
        })
    }
}

/// Returns the key of a tool: the URI of its resource and its name. A URI contains no space.
#[must_use]
pub fn tool_key(resource: &ResourceUri, tool: &ToolName) -> String {
    format!("{resource} {tool}")
}

/// Returns the key of a delegation: agent, issuer and subject. Only a subject may contain a space.
#[must_use]
pub fn delegation_key(agent: &ClientId, requester: &Requester) -> String {
    format!("{agent} {} {}", requester.issuer, requester.subject)
}

/// The action of an entry on its target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LogAction {
    /// Revokes the target, permanently.
    Revoke,
    /// Suspends its tokens. Only for targets that [can be suspended](Target::can_be_suspended).
    Suspend,
    /// Lifts a suspension; the same tokens work again.
    Resume,
}

impl LogAction {
    /// Returns the wire name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Revoke => "revoke",
            Self::Suspend => "suspend",
            Self::Resume => "resume",
        }
    }

    /// Parses the wire name, if the action applies to the target.
    #[must_use]
    pub fn parse(word: &str, target: &Target) -> Option<Self> {
        match word {
            "revoke" => Some(Self::Revoke),
            "suspend" if target.can_be_suspended() => Some(Self::Suspend),
            "resume" if target.can_be_suspended() => Some(Self::Resume),
            _ => None,
        }
    }
}

/// A log entry without a position.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewEntry {
    /// The action.
    pub verb: LogAction,
    /// The target.
    pub target: Target,
    /// The reason.
    pub reason: String,
    /// The author: `admin:NAME`, `client:ID`.
    pub by: String,
    /// The time of the action.
    pub at: Timestamp,
    /// The time after which every token that the entry could revoke has expired. A starting replica
    /// may then skip the entry.
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

    /// The entry is retained forever, because a replica may be away for long.
    fn changed(target: Target, by: String, at: Timestamp) -> Self {
        Self { verb: LogAction::Revoke, target, reason: "changed".into(), by, at, forget_after: Timestamp::MAX }
    }
}

/// One entry of the revocation log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogEntry {
    /// The position.
    pub seq: LogPosition,
    /// The entry.
    pub entry: NewEntry,
}
