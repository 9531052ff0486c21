//! What was taken back, and what a token's standing is by that.
//!
//! A token carries every name under which it can be taken back, so ending an ancestor is one entry: no walk over
//! descendants, and no lock against a child that is being issued at that moment.

use std::{
    collections::{BTreeSet, HashMap},
    time::Duration,
};

use serde::{Deserialize, Serialize};

use crate::domain::{
    id::{ClientId, TaskId, TokenId},
    limits::TOKEN_LIFETIME_CAP,
    task::Requester,
    time::Timestamp,
    uri::{IssuerUrl, ResourceUri},
};

/// A position in the revocation log. Gap-free, in commit order; 0 is before the first entry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Seq(u64);

impl Seq {
    /// Takes a position.
    #[must_use]
    pub const fn new(seq: u64) -> Self {
        Self(seq)
    }

    /// The position as a number.
    #[must_use]
    pub const fn number(self) -> u64 {
        self.0
    }
}

/// What an entry is about.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Target {
    /// One token, with all that was derived from it.
    Token(TokenId),
    /// One task, with all its tokens.
    Task(TaskId),
    /// Everything issued so far in a requester's name. Issuer and subject, as in [`Requester`].
    Requester(String),
    /// Everything issued so far that an agent acts in, at whatever place in the chain.
    Agent(ClientId),
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
    pub fn requester(requester: &Requester) -> Self {
        // An issuer URL has no blank in it, so this is unambiguous.
        Self::Requester(format!("{} {}", requester.issuer, requester.subject))
    }

    /// The word for the kind of target.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Token(_) => "token",
            Self::Task(_) => "task",
            Self::Requester(_) => "requester",
            Self::Agent(_) => "agent",
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
            Self::Requester(key) => key.clone(),
            Self::Agent(id) => id.to_string(),
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
            "requester" => Self::Requester(key.split_once(' ').map(|_| key.to_owned())?),
            "agent" => Self::Agent(key.parse().ok()?),
            "resource" => Self::Resource(key.parse().ok()?),
            "issuer" => Self::Issuer(key.parse().ok()?),
            "registry" if key.is_empty() => Self::Registry,
            "keys" if key.is_empty() => Self::Keys,
            _ => return None,
        })
    }
}

/// One entry of the revocation log, before it has its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewEntry {
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

/// One entry of the revocation log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogEntry {
    /// Its place.
    pub seq: Seq,
    /// What it says.
    pub entry: NewEntry,
}

/// Every name under which a token can be taken back, and the position of the log that its issuer had applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Names {
    /// The token itself.
    pub token: TokenId,
    /// The tokens it was derived from.
    pub lineage: Vec<TokenId>,
    /// Its task; an API token has none.
    pub task: Option<TaskId>,
    /// In whose name; an API token is in nobody's.
    pub requester: Option<Requester>,
    /// Every agent in its chain, the client that got it, and the agent that it is to be handed to.
    pub agents: BTreeSet<ClientId>,
    /// Every resource that something may be done at with it; an API token is for none.
    pub resources: BTreeSet<ResourceUri>,
    /// The position of the log when it was issued (claim `rev`).
    pub rev: Seq,
}

/// What the log says of a token now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Nothing that would end it.
    Live,
    /// Ended, for good.
    Revoked,
}

/// How long an entry is held after it was applied: longer than any token lives that it could end, and than wall clocks of
/// replicas may differ. Counted on the holder's own monotonic clock: nobody's wall clock can make an entry go early.
pub const HOLD: Duration = Duration::from_secs(TOKEN_LIFETIME_CAP.as_seconds() as u64 + 3600);

/// The entries that are held, by name. Pure data: whoever follows the log feeds it.
#[derive(Debug, Default)]
pub struct Index {
    applied: Seq,
    entries: HashMap<Target, Held>,
}

/// The latest entry for a name, and until when (on the holder's monotonic clock) it is held.
#[derive(Clone, Copy, Debug)]
struct Held {
    seq: Seq,
    until: Duration,
}

impl Index {
    /// The position up to which the log has been applied.
    #[must_use]
    pub fn applied(&self) -> Seq {
        self.applied
    }

    /// How many names are held.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether nothing is held.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Applies one entry at `now` on the monotonic clock. Entries come in the order of the log; one that was applied
    /// before is passed over.
    pub fn apply(&mut self, entry: &LogEntry, now: Duration) {
        if entry.seq <= self.applied {
            return;
        }
        self.applied = entry.seq;
        if matches!(entry.entry.target, Target::Registry | Target::Keys) {
            return;
        }
        let held = Held { seq: entry.seq, until: now.saturating_add(HOLD) };
        self.entries.insert(entry.entry.target.clone(), held);
    }

    /// Says that the log has been read up to `seq`, forgotten entries included.
    pub fn applied_up_to(&mut self, seq: Seq) {
        self.applied = self.applied.max(seq);
    }

    /// Drops what has been held for long enough at `now` on the monotonic clock.
    pub fn forget(&mut self, now: Duration) {
        self.entries.retain(|_, held| held.until > now);
    }

    /// What the log says of a token: a handful of look-ups.
    ///
    /// A token or task is never used again once it is named, so presence is enough. A requester, agent, resource or
    /// issuer lives on: what was issued **before** the entry is ended, by the log's own clock and never by wall clocks.
    #[must_use]
    pub fn standing(&self, names: &Names) -> Standing {
        let is_held = |target: Target| self.entries.contains_key(&target);
        let is_older = |target: Target| self.entries.get(&target).is_some_and(|held| names.rev < held.seq);
        let ended = is_held(Target::Token(names.token))
            || names.lineage.iter().any(|id| is_held(Target::Token(*id)))
            || names.task.is_some_and(|id| is_held(Target::Task(id)))
            || names.agents.iter().any(|id| is_older(Target::Agent(id.clone())))
            || names
                .requester
                .as_ref()
                .is_some_and(|r| is_older(Target::requester(r)) || is_older(Target::Issuer(r.issuer.clone())))
            || names.resources.iter().any(|uri| is_older(Target::Resource(uri.clone())));
        if ended { Standing::Revoked } else { Standing::Live }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(n: u8) -> TokenId {
        TokenId::new(uuid::Uuid::from_bytes([n; 16]))
    }

    fn task(n: u8) -> TaskId {
        TaskId::new(uuid::Uuid::from_bytes([n; 16]))
    }

    fn names(rev: u64) -> Names {
        Names {
            token: token(3),
            lineage: vec![token(1), token(2)],
            task: Some(task(9)),
            requester: Some(Requester {
                issuer: "https://login.example.com".parse().unwrap(),
                subject: "alice".parse().unwrap(),
            }),
            agents: ["planner", "reader"].iter().map(|id| id.parse().unwrap()).collect(),
            resources: ["https://files.example.com/mcp".parse().unwrap()].into(),
            rev: Seq::new(rev),
        }
    }

    fn entry(seq: u64, target: Target) -> LogEntry {
        let now = Timestamp::from_unix(1000);
        let entry = NewEntry { target, reason: "x".into(), by: "admin:ops".into(), at: now, forget_after: now };
        LogEntry { seq: Seq::new(seq), entry }
    }

    #[test]
    fn what_ends_what() {
        let requester = |text: &str| Target::Requester(text.into());
        for (target, ends_older, ends_younger) in [
            (Target::Token(token(3)), true, true),
            (Target::Token(token(1)), true, true),
            (Target::Token(token(4)), false, false),
            (Target::Task(task(9)), true, true),
            (Target::Task(task(8)), false, false),
            (requester("https://login.example.com alice"), true, false),
            (requester("https://login.example.com alic"), false, false),
            (requester("https://login.example.org alice"), false, false),
            (Target::Agent("planner".parse().unwrap()), true, false),
            (Target::Agent("reader".parse().unwrap()), true, false),
            (Target::Agent("writer".parse().unwrap()), false, false),
            (Target::Resource("https://files.example.com/mcp".parse().unwrap()), true, false),
            (Target::Resource("https://files.example.com".parse().unwrap()), false, false),
            (Target::Issuer("https://login.example.com".parse().unwrap()), true, false),
            (Target::Issuer("https://login.example.org".parse().unwrap()), false, false),
            (Target::Registry, false, false),
            (Target::Keys, false, false),
        ] {
            let mut index = Index::default();
            index.apply(&entry(5, target.clone()), Duration::ZERO);
            let ended = |rev| index.standing(&names(rev)) == Standing::Revoked;
            assert_eq!((ended(4), ended(5)), (ends_older, ends_younger), "{target:?}");
            assert_eq!(Target::parse(target.kind(), &target.key()), Some(target));
        }
    }

    #[test]
    fn forgets_only_what_can_end_nothing_any_more() {
        let mut index = Index::default();
        let (start, tick) = (Duration::from_secs(500), Duration::from_nanos(1));
        // Whatever the revoker's wall clock said: the entry claims to be over since long ago.
        index.apply(&entry(1, Target::Token(token(3))), start);
        index.forget((start + HOLD).saturating_sub(tick));
        assert_eq!(index.standing(&names(0)), Standing::Revoked);
        index.forget(start + HOLD);
        assert!(index.is_empty());
        index.apply(&entry(1, Target::Token(token(3))), start);
        assert!(index.is_empty(), "what was applied once is not applied again");
        assert_eq!(index.applied(), Seq::new(1));
    }
}
