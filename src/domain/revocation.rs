//! What was taken back, and what a token's standing is by that.
//!
//! A token carries every name under which it can be taken back, so ending an ancestor is one entry: no walk over
//! descendants, and no lock against a child that is being issued at that moment.

mod table;

use std::{
    collections::{BTreeSet, HashSet, VecDeque},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use table::{Held, Name, PARTS, Table};

use crate::domain::{
    id::{ClientId, GrantId, TaskId, TokenId},
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
pub enum Verb {
    /// Ends it, for good.
    Revoke,
    /// Holds its tokens back. Of tasks and agents only.
    Suspend,
    /// Lets the same tokens work again. Of tasks and agents only.
    Resume,
}

impl Verb {
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
    pub verb: Verb,
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
    /// The recorded grant that it rests on.
    pub grant: Option<GrantId>,
    /// In whose name; an API token is in nobody's.
    pub requester: Option<Requester>,
    /// Every agent in its chain, the client that got it, and the agent that it is to be handed to.
    pub agents: BTreeSet<ClientId>,
    /// Every resource that something may be done at with it; an API token is for none.
    pub resources: BTreeSet<ResourceUri>,
    /// The position of the log when it was issued (claim `rev`).
    pub rev: Seq,
}

/// What the log says of a token now. Of two words about one token, the later one in this order counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Standing {
    /// Nothing that would end it.
    Live,
    /// Held back, until its task or the agent is resumed.
    Suspended,
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
    /// Up to this place entries may be missing: they were passed over when the log was read, or dropped since. Whatever is
    /// as old as that has expired, if wall clocks are right; if they are not, nobody can say whether it has ended.
    forgotten: Seq,
    entries: Table,
    /// Agents that are held back: with all that they act in, whenever it was issued, for as long as nobody resumes them.
    agents: HashSet<ClientId>,
    /// Up to which place entries had been applied at which time, oldest first: at most one for every second.
    ages: VecDeque<Age>,
}

/// Everything up to this place was applied at this time or before it.
#[derive(Clone, Copy, Debug)]
struct Age {
    seq: Seq,
    /// When the first and the last of them were (on the holder's monotonic clock).
    from: Duration,
    until: Duration,
}

/// How exact an age is.
const AGE: Duration = Duration::from_secs(1);

impl Index {
    /// In how many steps it forgets.
    pub const PARTS: usize = PARTS;

    /// One that goes on from a place, with nothing said before it.
    #[must_use]
    pub fn after(seq: Seq) -> Self {
        Self { applied: seq, ..Self::default() }
    }

    /// The position up to which the log has been applied.
    #[must_use]
    pub fn applied(&self) -> Seq {
        self.applied
    }

    /// How many names are held.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len().saturating_add(self.agents.len())
    }

    /// Whether nothing is held.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.len() == 0 && self.agents.is_empty()
    }

    /// Applies one entry at `now` on the monotonic clock. Entries come in the order of the log; one that was applied
    /// before is passed over.
    pub fn apply(&mut self, entry: &LogEntry, now: Duration) {
        if entry.seq <= self.applied {
            return;
        }
        // What is not there was passed over.
        self.applied_up_to(Seq(entry.seq.0.saturating_sub(1)));
        self.applied = entry.seq;
        if matches!(entry.entry.target, Target::Registry | Target::Keys) {
            return;
        }
        let NewEntry { verb, target, .. } = &entry.entry;
        // An agent lives on: that what it had was ended and that it is held back are two things.
        match (verb, target) {
            (Verb::Suspend, Target::Agent(id)) => {
                self.agents.insert(id.clone());
                return;
            }
            (Verb::Resume, Target::Agent(id)) => {
                self.agents.remove(id);
                return;
            }
            (Verb::Revoke | Verb::Suspend | Verb::Resume, _) => {}
        }
        // What was ended stays ended, whatever is said of it later.
        let is_ended = || self.entries.held(target).is_some_and(|held| held.standing == Standing::Revoked);
        let standing = match verb {
            Verb::Revoke => Standing::Revoked,
            Verb::Suspend | Verb::Resume if is_ended() => Standing::Revoked,
            Verb::Suspend => Standing::Suspended,
            Verb::Resume => {
                self.entries.remove(target);
                return;
            }
        };
        self.entries.put(target, Held { seq: entry.seq, standing });
        match self.ages.back_mut() {
            Some(age) if now.saturating_sub(age.from) < AGE => {
                (age.seq, age.until) = (entry.seq, now.max(age.until));
            }
            Some(_) | None => self.ages.push_back(Age { seq: entry.seq, from: now, until: now }),
        }
    }

    /// Says that the log has been read up to `seq`, forgotten entries included.
    pub fn applied_up_to(&mut self, seq: Seq) {
        if seq > self.applied {
            (self.applied, self.forgotten) = (seq, seq);
        }
    }

    /// Drops what has been held for long enough at `now` on the monotonic clock: the `n`th part of it, of
    /// [`PARTS`](Self::PARTS). Each takes a moment, so whoever shares the index can let others in between.
    pub fn forget(&mut self, n: usize, now: Duration) {
        let is_over = |age: &Age| age.until.saturating_add(HOLD) <= now;
        let over = self.ages.partition_point(is_over);
        let Some(last) = over.checked_sub(1).and_then(|n| self.ages.get(n)).map(|age| age.seq) else { return };
        self.forgotten = self.forgotten.max(last);
        self.entries.forget(n, last);
        if n + 1 == PARTS {
            self.ages.drain(..over);
        }
    }

    /// What the log says of a token; of one that is older than what was forgotten, that it has ended. By the log's own
    /// clock again: an entry about a token comes after it, so one that is younger misses nothing.
    #[must_use]
    pub fn standing(&self, names: &Names) -> Standing {
        if names.rev < self.forgotten { Standing::Revoked } else { self.word(names) }
    }

    /// What the entries that are held say of a token: a handful of look-ups.
    ///
    /// A token, task or grant is never used again once it is named, so presence is enough. A requester, agent, resource or
    /// issuer lives on: what was issued **before** the entry is ended, by the log's own clock and never by wall clocks.
    #[must_use]
    pub fn word(&self, names: &Names) -> Standing {
        if self.is_empty() {
            return Standing::Live;
        }
        let held_back = names.agents.iter().any(|id| self.agents.contains(id)).then_some(Standing::Suspended);
        let held = |name: Name<'_>| self.entries.find(name).map(|held| held.standing);
        let older =
            |name: Name<'_>| self.entries.find(name).filter(|held| names.rev < held.seq).map(|held| held.standing);
        let tokens = [names.token].into_iter().chain(names.lineage.iter().copied());
        let named = names.task.map(Name::Task).into_iter().chain(names.grant.map(Name::Grant));
        let by_name = tokens.map(Name::Token).chain(named).filter_map(held);
        // Only an API token is of no task: it is its client's alone.
        let client = names.agents.iter().filter(|_| names.task.is_none()).map(Name::Credentials);
        let requester = names.requester.iter().flat_map(|r| [Name::Requester(r), Name::Issuer(&r.issuer)]);
        let (agents, resources) = (names.agents.iter().map(Name::Agent), names.resources.iter().map(Name::Resource));
        let by_age = agents.chain(client).chain(requester).chain(resources).filter_map(older);
        by_name.chain(by_age).chain(held_back).max().unwrap_or(Standing::Live)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn token(n: u8) -> TokenId {
        TokenId::new(uuid::Uuid::from_bytes([n; 16]))
    }

    fn task(n: u8) -> TaskId {
        TaskId::new(uuid::Uuid::from_bytes([n; 16]))
    }

    fn grant(n: u8) -> GrantId {
        GrantId::new(uuid::Uuid::from_bytes([n; 16]))
    }

    fn names(rev: u64) -> Names {
        Names {
            token: token(3),
            lineage: vec![token(1), token(2)],
            task: Some(task(9)),
            grant: Some(grant(7)),
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
        let entry = NewEntry {
            verb: Verb::Revoke,
            target,
            reason: "x".into(),
            by: "admin:ops".into(),
            at: now,
            forget_after: now,
        };
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
            (Target::Grant(grant(7)), true, true),
            (Target::Grant(grant(8)), false, false),
            (requester("https://login.example.com alice"), true, false),
            (requester("https://login.example.com alic"), false, false),
            (requester("https://login.example.org alice"), false, false),
            (Target::Agent("planner".parse().unwrap()), true, false),
            (Target::Agent("reader".parse().unwrap()), true, false),
            (Target::Agent("writer".parse().unwrap()), false, false),
            (Target::Credentials("planner".parse().unwrap()), false, false),
            (Target::Resource("https://files.example.com/mcp".parse().unwrap()), true, false),
            (Target::Resource("https://files.example.com".parse().unwrap()), false, false),
            (Target::Issuer("https://login.example.com".parse().unwrap()), true, false),
            (Target::Issuer("https://login.example.org".parse().unwrap()), false, false),
            (Target::Registry, false, false),
            (Target::Keys, false, false),
        ] {
            let mut index = Index::after(Seq::new(4));
            index.apply(&entry(5, target.clone()), Duration::ZERO);
            let ended = |rev| index.standing(&names(rev)) == Standing::Revoked;
            assert_eq!((ended(4), ended(5)), (ends_older, ends_younger), "{target:?}");
            assert_eq!(Target::parse(target.kind(), &target.key()), Some(target));
        }
    }

    #[test]
    fn new_credentials_end_the_api_tokens_of_before() {
        let mut index = Index::after(Seq::new(4));
        index.apply(&entry(5, Target::Credentials("planner".parse().unwrap())), Duration::ZERO);
        for (client, rev, want) in
            [("planner", 4, Standing::Revoked), ("planner", 5, Standing::Live), ("reader", 4, Standing::Live)]
        {
            let agents = [client.parse().unwrap()].into();
            let api = Names { task: None, requester: None, lineage: Vec::new(), agents, ..names(rev) };
            assert_eq!(index.standing(&api), want, "{client} {rev}");
        }
    }

    #[test]
    fn the_last_word_counts_until_it_is_ended() {
        use Standing::{Live, Revoked, Suspended};
        use Verb::{Resume, Revoke, Suspend};
        let standing = |verbs: &[Verb]| {
            let mut index = Index::default();
            for (seq, verb) in (1..).zip(verbs) {
                let mut entry = entry(seq, Target::Task(task(9)));
                entry.entry.verb = *verb;
                index.apply(&entry, Duration::ZERO);
            }
            index.standing(&names(99))
        };
        for (verbs, want) in [
            (&[Suspend][..], Suspended),
            (&[Suspend, Resume], Live),
            (&[Resume], Live),
            (&[Suspend, Resume, Suspend], Suspended),
            (&[Suspend, Suspend, Resume], Live),
            (&[Revoke, Resume], Revoked),
            (&[Revoke, Suspend, Resume], Revoked),
            (&[Suspend, Revoke, Resume], Revoked),
            (&[Suspend, Resume, Revoke], Revoked),
        ] {
            assert_eq!(standing(verbs), want, "{verbs:?}");
        }
        // Ended by one name and held back by another: ended.
        let mut index = Index::default();
        let mut held = entry(1, Target::Task(task(9)));
        held.entry.verb = Suspend;
        index.apply(&held, Duration::ZERO);
        index.apply(&entry(2, Target::Token(token(1))), Duration::ZERO);
        assert_eq!(index.standing(&names(0)), Revoked);
    }

    #[test]
    fn an_agent_is_held_back_whenever_it_was_issued() {
        use Standing::{Live, Revoked, Suspended};
        use Verb::{Resume, Revoke, Suspend};
        // What is said of whom, and what a token of before (rev 0) and one of afterwards (rev 99) is worth then.
        for (said, before, after) in [
            (&[("planner", Suspend)][..], Suspended, Suspended),
            (&[("reader", Suspend)], Suspended, Suspended),
            (&[("writer", Suspend)], Live, Live),
            (&[("planner", Suspend), ("planner", Resume)], Live, Live),
            (&[("planner", Suspend), ("reader", Suspend), ("planner", Resume)], Suspended, Suspended),
            (&[("planner", Revoke), ("planner", Suspend)], Revoked, Suspended),
            (&[("planner", Suspend), ("planner", Revoke)], Revoked, Suspended),
            (&[("planner", Suspend), ("planner", Revoke), ("planner", Resume)], Revoked, Live),
            (&[("planner", Resume)], Live, Live),
        ] {
            let mut index = Index::default();
            for (seq, (agent, verb)) in (1..).zip(said) {
                let mut entry = entry(seq, Target::Agent(agent.parse().unwrap()));
                entry.entry.verb = *verb;
                index.apply(&entry, Duration::ZERO);
            }
            assert_eq!((index.standing(&names(0)), index.standing(&names(99))), (before, after), "{said:?}");
            // Nobody resumed it, so it is still held back when everything else is forgotten.
            forget(&mut index, HOLD);
            assert_eq!(index.standing(&names(99)), after, "{said:?}");
        }
    }

    #[test]
    fn only_a_task_or_an_agent_is_held_back() {
        for verb in [Verb::Revoke, Verb::Suspend, Verb::Resume] {
            for target in [Target::Task(task(9)), Target::Agent("planner".parse().unwrap())] {
                assert_eq!(Verb::parse(verb.as_str(), &target), Some(verb));
            }
            let of_token = Verb::parse(verb.as_str(), &Target::Token(token(1)));
            assert_eq!(of_token, (verb == Verb::Revoke).then_some(verb));
        }
        assert_eq!(Verb::parse("", &Target::Task(task(9))), None);
    }

    fn forget(index: &mut Index, now: Duration) {
        (0..Index::PARTS).for_each(|n| index.forget(n, now));
    }

    #[test]
    fn forgets_only_what_can_end_nothing_any_more() {
        let mut index = Index::default();
        let (start, tick) = (Duration::from_secs(500), Duration::from_nanos(1));
        // Whatever the revoker's wall clock said: the entry claims to be over since long ago.
        index.apply(&entry(1, Target::Token(token(3))), start);
        forget(&mut index, (start + HOLD).saturating_sub(tick));
        assert_eq!(index.standing(&names(0)), Standing::Revoked);
        forget(&mut index, start + HOLD);
        assert!(index.is_empty());
        index.apply(&entry(1, Target::Token(token(3))), start);
        assert!(index.is_empty(), "what was applied once is not applied again");
        assert_eq!(index.applied(), Seq::new(1));
        // A token of before can only be there if somebody's wall clock is wrong, and may be the one that was ended.
        assert_eq!([0, 1].map(|rev| index.standing(&names(rev))), [Standing::Revoked, Standing::Live]);
    }

    #[test]
    fn what_was_passed_over_may_be_about_anybody() {
        use Standing::{Live, Revoked};
        let standing = |index: &Index| [2, 3, 6, 7, 9, 10].map(|rev| index.standing(&names(rev)));
        let mut index = Index::default();
        for seq in 1..=2 {
            index.apply(&entry(seq, Target::Registry), Duration::ZERO);
        }
        assert_eq!(standing(&index), [Live; 6]);
        index.apply(&entry(4, Target::Registry), Duration::ZERO);
        assert_eq!(standing(&index), [Revoked, Live, Live, Live, Live, Live]);
        index.apply(&entry(8, Target::Token(token(77))), Duration::ZERO);
        assert_eq!(standing(&index), [Revoked, Revoked, Revoked, Live, Live, Live]);
        assert_eq!(index.word(&names(2)), Live, "nothing that is held says so");
        index.applied_up_to(Seq::new(8));
        index.applied_up_to(Seq::new(3));
        assert_eq!(standing(&index), [Revoked, Revoked, Revoked, Live, Live, Live]);
        index.applied_up_to(Seq::new(10));
        assert_eq!(
            (standing(&index), index.applied()),
            ([Revoked, Revoked, Revoked, Revoked, Revoked, Live], Seq::new(10))
        );
    }

    /// Kinds of target by number, so that equal numbers of different kinds are different names.
    fn target(kind: u8, n: u8) -> Target {
        match kind {
            0 => Target::Token(token(n)),
            1 => Target::Task(task(n)),
            2 => Target::Requester(format!("https://login.example.com r{n}")),
            3 => Target::Agent(format!("a{n}").parse().unwrap()),
            4 => Target::Resource(format!("https://r{n}.example.com").parse().unwrap()),
            5 => Target::Grant(grant(n)),
            _ => Target::Issuer(format!("https://i{n}.example.com").parse().unwrap()),
        }
    }

    /// A token with one name of each kind.
    fn named(n: u8, rev: u64) -> Names {
        let issuer = |n: u8| format!("https://i{n}.example.com").parse().unwrap();
        Names {
            token: token(n),
            lineage: Vec::new(),
            task: Some(task(n)),
            grant: Some(grant(n)),
            requester: Some(Requester { issuer: issuer(n), subject: "x".parse().unwrap() }),
            agents: [format!("a{n}").parse().unwrap()].into(),
            resources: [format!("https://r{n}.example.com").parse().unwrap()].into(),
            rev: Seq::new(rev),
        }
    }

    proptest! {
        /// The table says what a plain list of the entries says, at every moment, whatever was forgotten: nothing goes
        /// before its time, and nothing stays for more than a second after it.
        #[test]
        fn as_the_log_says(
            log in proptest::collection::vec(
                (0_u8..7, 0_u8..3, 0_u8..3, prop_oneof![0_u64..900, 0_u64..3_000_000, Just(4_500_000 - 500)]),
                1..60,
            ),
            asked in 0_u64..60,
        ) {
            let (mut index, mut now, mut all) = (Index::default(), Duration::ZERO, Vec::new());
            for (seq, (kind, n, verb, later)) in (1..).zip(log) {
                now += Duration::from_millis(later);
                let mut entry = entry(seq, target(kind, n));
                entry.entry.verb = match verb {
                    0 if kind == 1 => Verb::Suspend,
                    1 if kind == 1 => Verb::Resume,
                    _ => Verb::Revoke,
                };
                forget(&mut index, now);
                index.apply(&entry, now);
                all.push((entry, now));
                let since = all.iter().filter(|(entry, _)| entry.seq > Seq::new(asked)).cloned().collect::<Vec<_>>();
                for n in 0..3 {
                    let names = named(n, asked);
                    // Of a token that was issued then, and what was said since: if that ended it, it stays ended.
                    let ever = plainly(&since, &names, now, Duration::MAX / 4);
                    prop_assert!(ever != Standing::Revoked || index.standing(&names) == Standing::Revoked);
                    prop_assert!(ever == Standing::Live || index.standing(&names) != Standing::Live);
                    if names.rev < index.forgotten {
                        prop_assert_eq!(index.standing(&names), Standing::Revoked);
                        let mut forgotten = all.iter().filter(|(entry, _)| entry.seq <= index.forgotten);
                        prop_assert!(forgotten.all(|(_, at)| *at + HOLD <= now), "nothing is forgotten before its time");
                    }
                    let (must, may) = (plainly(&all, &names, now, HOLD), plainly(&all, &names, now, HOLD + AGE));
                    let found = index.word(&names);
                    prop_assert!(must <= found && found <= may, "{found:?}: {must:?} to {may:?}");
                    prop_assert!(must == Standing::Live || found != Standing::Live);
                }
            }
            forget(&mut index, now + HOLD + AGE);
            prop_assert!(index.is_empty());
            prop_assert_eq!(index.standing(&named(0, 60)), Standing::Live);
        }
    }

    /// What the entries that are held for so long say, one after the other.
    fn plainly(all: &[(LogEntry, Duration)], names: &Names, now: Duration, hold: Duration) -> Standing {
        let says = |is_named: &dyn Fn(&Target) -> bool, by_age: bool| {
            let mut standing = (Standing::Live, Duration::ZERO);
            for (LogEntry { seq, entry }, at) in all.iter().filter(|(entry, _)| is_named(&entry.entry.target)) {
                if standing.1 + hold <= *at {
                    standing.0 = Standing::Live;
                }
                if by_age && names.rev >= *seq {
                    continue;
                }
                standing = match (standing.0, entry.verb) {
                    (Standing::Revoked, _) | (_, Verb::Revoke) => (Standing::Revoked, *at),
                    (_, Verb::Suspend) => (Standing::Suspended, *at),
                    (_, Verb::Resume) => (Standing::Live, *at),
                };
            }
            if standing.1 + hold <= now { Standing::Live } else { standing.0 }
        };
        let issuer = names.requester.as_ref().unwrap().issuer.clone();
        [
            says(&|target| *target == Target::Token(names.token), false),
            says(&|target| Some(target) == names.task.map(Target::Task).as_ref(), false),
            says(&|target| Some(target) == names.grant.map(Target::Grant).as_ref(), false),
            says(&|target| *target == Target::requester(names.requester.as_ref().unwrap()), true),
            says(&|target| matches!(target, Target::Agent(id) if names.agents.contains(id)), true),
            says(&|target| matches!(target, Target::Resource(uri) if names.resources.contains(uri)), true),
            says(&|target| *target == Target::Issuer(issuer.clone()), true),
        ]
        .into_iter()
        .max()
        .unwrap()
    }
}
