//! Entries of the revocation log.

use thiserror::Error;

use super::{LogPosition, evidence::EndedEvidence, latest_possible_expiry};
use crate::domain::{
    id::{ClientId, GrantId, TaskId, TokenId, ToolName},
    registry::issuer::IssuerKeyId,
    requester::Requester,
    time::Timestamp,
    uri::{IssuerUrl, ResourceUri},
    version::ProgramVersion,
};

/// State outside the log that every replica keeps in memory, and reads again when an entry says
/// that it has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SharedState {
    /// The signing keys.
    Keys,
    /// The registry, with its blocks.
    Registry,
    /// The configuration file of each replica, which the replica reads from its own disk.
    ConfigurationFile,
}

impl SharedState {
    /// Every kind of state, in the order in which a replica reads them.
    pub const ALL: [Self; 3] = [Self::Keys, Self::Registry, Self::ConfigurationFile];
}

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
    /// All task tokens, whichever agents act with them. Suspended and resumed only.
    AllAgents,
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
    /// User tokens, which no exchange accepts any more.
    Evidence(EndedEvidence),
    /// Not about tokens: the registry changed, and every replica reads it again.
    Registry,
    /// Not about tokens: the signing keys changed.
    Keys,
    /// Not about tokens: an operator requests that every replica reads its configuration file
    /// again.
    Configuration,
    /// Not about tokens: a key of an identity provider. While it is suspended, no replica verifies
    /// user tokens with it.
    IssuerKey(IssuerKeyId),
    /// Not about tokens: the cached keys of an identity provider, which every replica fetches
    /// again.
    IssuerKeySet(IssuerUrl),
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
        matches!(
            self,
            Self::Task(_)
                | Self::Agent(_)
                | Self::AllAgents
                | Self::Tool(..)
                | Self::Delegation(..)
                | Self::IssuerKey(_)
        )
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
            Self::AllAgents => "agents",
            Self::Credentials(_) => "credentials",
            Self::Resource(_) => "resource",
            Self::Issuer(_) => "issuer",
            Self::Tool(..) => "tool",
            Self::BreakGlass(_) => "break_glass",
            Self::Delegation(..) => "delegation",
            Self::Evidence(_) => "evidence",
            Self::Registry => "registry",
            Self::Keys => "keys",
            Self::Configuration => "configuration",
            Self::IssuerKey(_) => "issuer_key",
            Self::IssuerKeySet(_) => "issuer_keys",
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
            Self::Issuer(url) | Self::IssuerKeySet(url) => url.to_string(),
            Self::Tool(uri, tool) => tool_key(uri, tool),
            Self::Delegation(agent, requester) => delegation_key(agent, requester),
            Self::Evidence(ended) => ended.key(),
            Self::AllAgents | Self::Registry | Self::Keys | Self::Configuration => String::new(),
            // An issuer URL contains no space, so this is unambiguous.
            Self::IssuerKey(key) => format!("{} {}", key.issuer, key.kid),
        }
    }

    /// Returns the state that a replica reads again when it applies an entry with this target.
    #[must_use]
    pub fn changed_state(&self) -> Option<SharedState> {
        match self {
            Self::Keys => Some(SharedState::Keys),
            // The block of all agents is a part of the registry.
            Self::Registry | Self::AllAgents => Some(SharedState::Registry),
            Self::Configuration => Some(SharedState::ConfigurationFile),
            Self::Token(_)
            | Self::Task(_)
            | Self::Grant(_)
            | Self::Requester(_)
            | Self::Agent(_)
            | Self::Credentials(_)
            | Self::Resource(_)
            | Self::Issuer(_)
            | Self::Tool(..)
            | Self::BreakGlass(_)
            | Self::Delegation(..)
            | Self::Evidence(_)
            // Applied by the follower one by one.
            | Self::IssuerKey(_)
            | Self::IssuerKeySet(_) => None,
        }
    }

    /// Returns whether an entry with this target affects tokens.
    #[must_use]
    pub fn is_about_tokens(&self) -> bool {
        !matches!(self, Self::Registry | Self::Keys | Self::Configuration | Self::IssuerKey(_) | Self::IssuerKeySet(_))
    }

    /// Returns the first version of the program that knows this kind of target. A new kind needs
    /// an arm of its own here: older replicas then stop at its entries instead of skipping them.
    #[must_use]
    pub fn min_version(&self) -> ProgramVersion {
        match self {
            Self::Token(_)
            | Self::Task(_)
            | Self::Grant(_)
            | Self::Requester(_)
            | Self::Agent(_)
            | Self::AllAgents
            | Self::Credentials(_)
            | Self::Resource(_)
            | Self::Issuer(_)
            | Self::Tool(..)
            | Self::BreakGlass(_)
            | Self::Delegation(..)
            | Self::Evidence(_)
            | Self::Registry
            | Self::Keys
            | Self::Configuration
            | Self::IssuerKey(_)
            | Self::IssuerKeySet(_) => ProgramVersion::new(0, 1, 0),
        }
    }

    /// Returns whether this version of the program knows the kind.
    #[must_use]
    pub fn is_known_kind(kind: &str) -> bool {
        const KINDS: [&str; 18] = [
            "issuer_key",
            "issuer_keys",
            "token",
            "task",
            "grant",
            "requester",
            "agent",
            "agents",
            "credentials",
            "resource",
            "issuer",
            "tool",
            "break_glass",
            "delegation",
            "evidence",
            "registry",
            "keys",
            "configuration",
        ];
        KINDS.contains(&kind)
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
            "agents" if key.is_empty() => Self::AllAgents,
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
            "evidence" => Self::Evidence(EndedEvidence::parse(key)?),
            "registry" if key.is_empty() => Self::Registry,
            "keys" if key.is_empty() => Self::Keys,
            "configuration" if key.is_empty() => Self::Configuration,
            "issuer_key" => {
                let (issuer, kid) = key.split_once(' ')?;
                Self::IssuerKey(IssuerKeyId { issuer: issuer.parse().ok()?, kid: kid.to_owned() })
            }
            "issuer_keys" => Self::IssuerKeySet(key.parse().ok()?),
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
    /// Returns the first version of the program that knows the action.
    #[must_use]
    pub fn min_version(self) -> ProgramVersion {
        match self {
            Self::Revoke | Self::Suspend | Self::Resume => ProgramVersion::new(0, 1, 0),
        }
    }

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
            "revoke" if *target != Target::AllAgents => Some(Self::Revoke),
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
    /// Returns the first version of the program that knows the entry's kind and verb.
    #[must_use]
    pub fn min_version(&self) -> ProgramVersion {
        self.target.min_version().max(self.verb.min_version())
    }

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

    /// Returns the entry that makes every running replica read its configuration file again.
    #[must_use]
    pub fn reload_requested(by: String, at: Timestamp) -> Self {
        // A replica that starts later reads its file anyway.
        Self { reason: "reload".into(), forget_after: at, ..Self::changed(Target::Configuration, by, at) }
    }

    /// Returns the entry that makes every replica fetch the keys of an identity provider again. A
    /// replica that starts later fetches them anyway.
    #[must_use]
    pub fn issuer_keys_changed(issuer: IssuerUrl, reason: String, by: String, at: Timestamp) -> Self {
        let forget_after = latest_possible_expiry(at);
        Self { verb: LogAction::Revoke, target: Target::IssuerKeySet(issuer), reason, by, at, forget_after }
    }

    /// Returns the entry that suspends or resumes a key of an identity provider. It is retained
    /// forever, because the provider may publish the key for as long.
    #[must_use]
    pub fn issuer_key(verb: LogAction, key: IssuerKeyId, reason: String, by: String, at: Timestamp) -> Self {
        Self { verb, target: Target::IssuerKey(key), reason, by, at, forget_after: Timestamp::MAX }
    }

    /// The entry is retained forever, because a replica may be away for long.
    fn changed(target: Target, by: String, at: Timestamp) -> Self {
        Self { verb: LogAction::Revoke, target, reason: "changed".into(), by, at, forget_after: Timestamp::MAX }
    }
}

/// An entry of a kind or with a verb that this version of the program does not know. It was written
/// by a newer version, and skipping it could keep a revoked token active.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error(
    "entry {seq} of the revocation log (`{verb} {kind}`) needs version {needed} of the program, and this is version {own}; upgrade this replica"
)]
pub struct UnknownEntryError {
    /// The position.
    pub seq: u64,
    /// The kind of target.
    pub kind: String,
    /// The action.
    pub verb: String,
    /// The first version that knows the entry, as its writer recorded it.
    pub needed: String,
    /// The version of this program.
    pub own: ProgramVersion,
}

impl UnknownEntryError {
    /// Returns whether the entry says that a newer version wrote it.
    #[must_use]
    pub fn needs_newer_version(&self) -> bool {
        self.needed.parse::<ProgramVersion>().is_ok_and(|needed| needed > self.own)
    }
}

/// Checks that this version of the program knows an entry, by its kind, its verb and the version
/// that its writer requires.
pub fn check_known(seq: u64, kind: &str, verb: &str, min_version: &str) -> Result<(), UnknownEntryError> {
    const MAX_TEXT_CHARS: usize = 40;
    let own = ProgramVersion::current();
    let is_known = Target::is_known_kind(kind)
        && ["revoke", "suspend", "resume"].contains(&verb)
        && min_version.parse::<ProgramVersion>().is_ok_and(|needed| needed <= own);
    if is_known {
        return Ok(());
    }
    let shorten = |text: &str| text.escape_debug().take(MAX_TEXT_CHARS).collect::<String>();
    Err(UnknownEntryError { seq, kind: shorten(kind), verb: shorten(verb), needed: shorten(min_version), own })
}

/// One entry of the revocation log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogEntry {
    /// The position.
    pub seq: LogPosition,
    /// The entry.
    pub entry: NewEntry,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn target_has_one_stored_form() {
        let id = "01970000-0000-7000-8000-000000000001";
        for (kind, key) in [
            ("token", id),
            ("task", id),
            ("grant", id),
            ("requester", "https://login.example.com alice"),
            ("agent", "planner"),
            ("credentials", "planner"),
            ("resource", "https://files.example.com/mcp"),
            ("issuer", "https://login.example.com"),
            ("registry", ""),
            ("keys", ""),
        ] {
            let target = Target::parse(kind, key).unwrap();
            assert_eq!((target.kind(), target.key().as_str()), (kind, key));
            // A key where none belongs, or none where one belongs.
            let other = if key.is_empty() { "x" } else { "" };
            assert_eq!(Target::parse(kind, other), None, "{kind} {other:?}");
            assert_eq!(Target::parse(&kind.to_uppercase(), key), None, "{kind}");
        }
        for (kind, key) in [("", ""), ("tokens", id), ("token", "x"), ("requester", "alice"), ("agent", "a b")] {
            assert_eq!(Target::parse(kind, key), None, "{kind} {key}");
        }
    }

    #[test]
    fn entry_of_another_version_is_unknown() {
        let own = ProgramVersion::current().to_string();
        for (kind, verb, min_version, is_known) in [
            ("task", "revoke", "0.1.0", true),
            ("task", "suspend", own.as_str(), true),
            ("session", "revoke", "0.1.0", false),
            ("", "revoke", "0.1.0", false),
            ("Task", "revoke", "0.1.0", false),
            ("task", "quarantine", "0.1.0", false),
            ("task", "", "0.1.0", false),
            ("task", "revoke", "999.0.0", false),
            ("task", "revoke", "next", false),
            ("task", "revoke", "", false),
        ] {
            let checked = check_known(7, kind, verb, min_version);
            assert_eq!(checked.is_ok(), is_known, "{verb} {kind} {min_version}");
            if let Err(error) = checked {
                assert!(error.to_string().contains("upgrade this replica"), "{error}");
            }
        }
        let long = check_known(7, &"x".repeat(1000), "\u{1b}[2J", "1.0.0").unwrap_err();
        assert!(long.to_string().len() < 300 && !long.to_string().contains('\u{1b}'), "{long}");
    }

    #[test]
    fn known_kinds_are_those_of_the_targets() {
        let uuid = "018f0000-0000-7000-8000-000000000000";
        for (kind, key) in [
            ("token", uuid),
            ("task", uuid),
            ("grant", uuid),
            ("requester", "https://login.example.com alice"),
            ("agent", "planner"),
            ("agents", ""),
            ("credentials", "planner"),
            ("resource", "https://files.example.com/mcp"),
            ("issuer", "https://login.example.com"),
            ("tool", "https://files.example.com/mcp read_file"),
            ("break_glass", "https://files.example.com/mcp"),
            ("delegation", "planner https://login.example.com alice"),
            ("evidence", "requester https://login.example.com alice"),
            ("registry", ""),
            ("keys", ""),
            ("configuration", ""),
            ("issuer_key", "https://login.example.com a kid"),
            ("issuer_keys", "https://login.example.com"),
        ] {
            let target = Target::parse(kind, key).unwrap();
            assert!(Target::is_known_kind(target.kind()) && target.kind() == kind);
            assert!(target.min_version() <= ProgramVersion::current());
        }
    }
}
