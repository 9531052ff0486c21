//! In-memory index of the revocation log, from which the standing of a token is computed.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    time::Duration,
};

use super::{
    LogAction, LogEntry, LogPosition, NewEntry, RETENTION, RevocationKeys, Standing, Target, delegation_key,
    tombstones::{KeyRef, SHARD_COUNT, Tombstone, TombstoneTable},
};
use crate::domain::{
    id::ClientId,
    requester::Requester,
    revocation::evidence::{EndedEvidence, EvidenceEnd, PresentedEvidence},
    time::Timestamp,
};

/// The entries in force, by revocation key. Plain data, fed by the follower of the log.
#[derive(Debug, Default)]
pub struct Index {
    applied: LogPosition,
    /// Entries up to this position may be missing, because they were skipped when the log was read,
    /// or evicted since. Tokens as old as that have expired if wall clocks are right. If they are
    /// not, it is unknown whether such a token was revoked.
    evicted_up_to: LogPosition,
    entries: TombstoneTable,
    /// Suspended agents. The suspension affects every token with the agent, whenever it was issued,
    /// until the agent is resumed.
    suspended_agents: HashSet<ClientId>,
    /// Suspended tools, by [key](super::tool_key): their servers list them with another definition
    /// than the accepted one, or not at all. As for agents, the age of a token is irrelevant.
    suspended_tools: HashSet<Box<str>>,
    /// Delegations that their requesters refused, by [key](super::delegation_key), until the
    /// requester lifts the refusal.
    refused_delegations: HashSet<Box<str>>,
    /// Whether all agents are suspended, apart from those that are suspended one by one.
    are_all_agents_suspended: bool,
    /// Ended evidence, by [key](EndedEvidence::key). It concerns user tokens, which may live longer
    /// than any token of Errand, so each has a retention of its own.
    ended_evidence: HashMap<Box<str>, EvidenceTombstone>,
    /// When which positions were applied, oldest first: at most one mark for each second.
    sweep_marks: VecDeque<SweepMark>,
}

/// What has to be resumed before a suspended token works again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SuspensionCause {
    /// Its task.
    Task,
    /// An agent of its chain, or the agent that it is for.
    Agent(ClientId),
    /// All agents, which an admin has stopped at once.
    AllAgents,
    /// All its tools: their server changed or removed them.
    Tools,
}

/// The end of evidence.
#[derive(Clone, Copy, Debug)]
struct EvidenceTombstone {
    /// The time of the latest entry.
    at: Timestamp,
    /// Until when it is retained, on this process's monotonic clock; `None` for good.
    retain_until: Option<Duration>,
}

impl EvidenceTombstone {
    /// Wall clocks determine only how long the entry is retained, and never less than the entry
    /// says: the duration counts from the moment at which the entry was applied.
    fn new(entry: &NewEntry, now: Duration) -> Self {
        let seconds = entry.forget_after.unix().saturating_sub(entry.at.unix()).max(0).unsigned_abs();
        let retain_until = (entry.forget_after < Timestamp::MAX)
            .then(|| now.saturating_add(Duration::from_secs(seconds)).saturating_add(RETENTION));
        Self { at: entry.at, retain_until }
    }

    fn merge(self, other: Self) -> Self {
        let retain_until = self.retain_until.zip(other.retain_until).map(|(one, two)| one.max(two));
        Self { at: self.at.max(other.at), retain_until }
    }
}

/// All entries up to this position were applied by this time.
#[derive(Clone, Copy, Debug)]
struct SweepMark {
    seq: LogPosition,
    /// When the first and the last of them were applied, on this process's monotonic clock.
    first_applied_at: Duration,
    last_applied_at: Duration,
}

/// The precision with which the age of an entry is known.
const SWEEP_QUANTUM: Duration = Duration::from_secs(1);

impl Index {
    /// The number of steps of a complete eviction.
    pub const SHARD_COUNT: usize = SHARD_COUNT;

    /// Returns an empty index that continues after a position.
    #[must_use]
    pub fn starting_after(seq: LogPosition) -> Self {
        Self { applied: seq, ..Self::default() }
    }

    /// Returns the position up to which the log has been applied.
    #[must_use]
    pub fn applied(&self) -> LogPosition {
        self.applied
    }

    /// Returns the number of keys in the index.
    #[must_use]
    pub fn len(&self) -> usize {
        let (agents, tools) = (self.suspended_agents.len(), self.suspended_tools.len());
        let all_agents = usize::from(self.are_all_agents_suspended);
        let others = [agents, tools, self.refused_delegations.len(), all_agents, self.ended_evidence.len()];
        others.into_iter().fold(self.entries.len(), usize::saturating_add)
    }

    /// Returns whether the index is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Applies one entry at `now` on the monotonic clock. Entries must come in log order; an entry
    /// that was already applied is ignored.
    pub fn apply(&mut self, entry: &LogEntry, now: Duration) {
        if entry.seq <= self.applied {
            return;
        }
        // Missing positions were skipped by the reader of the log.
        self.advance_to(LogPosition::new(entry.seq.number().saturating_sub(1)));
        self.applied = entry.seq;
        if !entry.entry.target.is_about_tokens() {
            return;
        }
        let NewEntry { verb, target, .. } = &entry.entry;
        if let Target::Evidence(ended) = target {
            let tombstone = EvidenceTombstone::new(&entry.entry, now);
            let known = self.ended_evidence.entry(ended.key().into()).or_insert(tombstone);
            *known = known.merge(tombstone);
            return;
        }
        // An agent or a tool outlives its revocation, so its revocation and its suspension are
        // independent.
        match (verb, target) {
            (LogAction::Suspend, Target::Agent(id)) => {
                self.suspended_agents.insert(id.clone());
                return;
            }
            (LogAction::Resume, Target::Agent(id)) => {
                self.suspended_agents.remove(id);
                return;
            }
            (LogAction::Suspend, Target::Tool(..)) => {
                self.suspended_tools.insert(target.key().into());
                return;
            }
            (LogAction::Resume, Target::Tool(..)) => {
                self.suspended_tools.remove(target.key().as_str());
                return;
            }
            (LogAction::Suspend, Target::Delegation(..)) => {
                self.refused_delegations.insert(target.key().into());
                return;
            }
            (LogAction::Resume, Target::Delegation(..)) => {
                self.refused_delegations.remove(target.key().as_str());
                return;
            }
            (_, Target::AllAgents) => {
                self.are_all_agents_suspended = *verb != LogAction::Resume;
                return;
            }
            (LogAction::Revoke | LogAction::Suspend | LogAction::Resume, _) => {}
        }
        // A revocation is final; later entries do not change it.
        let is_revoked =
            || self.entries.entry_for(target).is_some_and(|tombstone| tombstone.standing == Standing::Revoked);
        let standing = match verb {
            LogAction::Revoke => Standing::Revoked,
            LogAction::Suspend | LogAction::Resume if is_revoked() => Standing::Revoked,
            LogAction::Suspend => Standing::Suspended,
            LogAction::Resume => {
                self.entries.remove(target);
                return;
            }
        };
        self.entries.insert(target, Tombstone { seq: entry.seq, standing });
        match self.sweep_marks.back_mut() {
            Some(mark) if now.saturating_sub(mark.first_applied_at) < SWEEP_QUANTUM => {
                (mark.seq, mark.last_applied_at) = (entry.seq, now.max(mark.last_applied_at));
            }
            Some(_) | None => {
                self.sweep_marks.push_back(SweepMark { seq: entry.seq, first_applied_at: now, last_applied_at: now });
            }
        }
    }

    /// Records that the log has been read up to `seq`, including entries past retention.
    pub fn advance_to(&mut self, seq: LogPosition) {
        if seq > self.applied {
            (self.applied, self.evicted_up_to) = (seq, seq);
        }
    }

    /// Evicts the entries whose [retention](RETENTION) has passed at `now` on the monotonic clock,
    /// from shard `n` of [`SHARD_COUNT`](Self::SHARD_COUNT). Each step is short, so that a caller
    /// can release a lock on the index in between.
    pub fn evict(&mut self, n: usize, now: Duration) {
        if n == 0 {
            self.ended_evidence.retain(|_, ended| ended.retain_until.is_none_or(|until| until > now));
        }
        let is_expired = |mark: &SweepMark| mark.last_applied_at.saturating_add(RETENTION) <= now;
        let expired = self.sweep_marks.partition_point(is_expired);
        let Some(last) = expired.checked_sub(1).and_then(|n| self.sweep_marks.get(n)).map(|mark| mark.seq) else {
            return;
        };
        self.evicted_up_to = self.evicted_up_to.max(last);
        self.entries.evict(n, last);
        if n + 1 == SHARD_COUNT {
            self.sweep_marks.drain(..expired);
        }
    }

    /// Returns the standing of a token. A token older than an evicted entry counts as revoked. Ages
    /// are log positions: an entry about a token comes after the token, so a younger token misses
    /// no entry.
    #[must_use]
    pub fn standing(&self, keys: &RevocationKeys) -> Standing {
        if keys.rev < self.evicted_up_to { Standing::Revoked } else { self.standing_by_entries(keys) }
    }

    /// Returns the standing of a token according to the entries in the index, with a few look-ups.
    ///
    /// The id of a token, task or grant is never reused, so the presence of its key is enough. A
    /// requester, agent, resource or issuer lives on: tokens issued **before** the entry are
    /// revoked, by log position and never by wall clock. So does a tool; a token ends with the last
    /// of its tools.
    #[must_use]
    pub fn standing_by_entries(&self, keys: &RevocationKeys) -> Standing {
        if self.is_empty() {
            return Standing::Live;
        }
        // Only a task token has an agent that acts. The client of an API token may be an admin; the
        // registry decides about it.
        let is_suspended = (self.are_all_agents_suspended && keys.task.is_some())
            || keys.agents.iter().any(|id| self.suspended_agents.contains(id));
        let suspended = is_suspended.then_some(Standing::Suspended);
        let at_any_age = |key: KeyRef<'_>| self.entries.find(key).map(|tombstone| tombstone.standing);
        let if_older = |key: KeyRef<'_>| {
            let tombstone = self.entries.find(key).filter(|tombstone| keys.rev < tombstone.seq);
            tombstone.map(|tombstone| tombstone.standing)
        };
        let tokens = [keys.token].into_iter().chain(keys.lineage.iter().copied());
        let task_and_grant = keys.task.map(KeyRef::Task).into_iter().chain(keys.grant.map(KeyRef::Grant));
        let by_presence = tokens.map(KeyRef::Token).chain(task_and_grant).filter_map(at_any_age);
        // Only an API token has no task. It belongs to its client alone.
        let client = keys.agents.iter().filter(|_| keys.task.is_none()).map(KeyRef::Credentials);
        let requester = keys.requester.iter().flat_map(|r| [KeyRef::Requester(r), KeyRef::Issuer(&r.issuer)]);
        let (agents, resources) = (keys.agents.iter().map(KeyRef::Agent), keys.resources.iter().map(KeyRef::Resource));
        let break_glass = keys.resources.iter().filter(|_| keys.break_glass).map(KeyRef::BreakGlass);
        let delegations =
            keys.requester.iter().flat_map(|r| keys.agents.iter().map(move |id| KeyRef::Delegation(id, r)));
        let by_age = agents.chain(client).chain(requester).chain(resources).chain(break_glass).chain(delegations);
        let by_age = by_age.filter_map(if_older);
        let tools = [self.standing_by_tools(keys)];
        by_presence.chain(by_age).chain(suspended).chain(tools).max().unwrap_or(Standing::Live)
    }

    /// Returns the standing of a tool in a token with this `rev`, by the tool's
    /// [key](super::tool_key).
    #[must_use]
    pub fn tool_standing(&self, key: &str, rev: LogPosition) -> Standing {
        if self.entries.find(KeyRef::Tool(key)).is_some_and(|tombstone| rev < tombstone.seq) {
            Standing::Revoked
        } else if self.suspended_tools.contains(key) {
            Standing::Suspended
        } else {
            Standing::Live
        }
    }

    /// Returns whether every tool of a token is live.
    #[must_use]
    pub fn all_tools_are_live(&self, keys: &RevocationKeys) -> bool {
        self.has_no_tool_entries() || keys.tools.iter().all(|key| self.tool_standing(key, keys.rev) == Standing::Live)
    }

    /// Returns the standing of a token by its tools alone: it has that of its best tool.
    fn standing_by_tools(&self, keys: &RevocationKeys) -> Standing {
        if keys.may_list || self.has_no_tool_entries() {
            return Standing::Live;
        }
        keys.tools.iter().map(|key| self.tool_standing(key, keys.rev)).min().unwrap_or(Standing::Live)
    }

    fn has_no_tool_entries(&self) -> bool {
        self.suspended_tools.is_empty() && !self.entries.has_tools()
    }

    /// Returns why a user token is no longer evidence for an agent; `None` if it still is.
    #[must_use]
    pub fn evidence_end(
        &self,
        agent: &ClientId,
        requester: &Requester,
        evidence: &PresentedEvidence,
    ) -> Option<EvidenceEnd> {
        if self.ended_evidence.is_empty() {
            return None;
        }
        self.evidence_end_of_requester(requester, evidence).or_else(|| {
            let for_agent = EndedEvidence::ForAgent(agent.clone(), evidence.token.clone());
            self.find_ended(&for_agent).map(|_| EvidenceEnd::Task)
        })
    }

    /// Returns why a user token no longer speaks for its requester, for every client; `None` if it
    /// still does.
    #[must_use]
    pub fn evidence_end_of_requester(
        &self,
        requester: &Requester,
        evidence: &PresentedEvidence,
    ) -> Option<EvidenceEnd> {
        if self.ended_evidence.is_empty() {
            return None;
        }
        let of_requester = self.find_ended(&EndedEvidence::Requester(Box::new(requester.clone())));
        if of_requester.is_some_and(|ended| evidence.issued < ended.at)
            || self.find_ended(&EndedEvidence::Token(evidence.token.clone())).is_some()
        {
            return Some(EvidenceEnd::Requester);
        }
        let session = evidence.session.clone().map(EndedEvidence::Session);
        session.filter(|session| self.has_ended(session)).map(|_| EvidenceEnd::Session)
    }

    /// Returns whether this evidence was ended, whenever that was.
    #[must_use]
    pub fn has_ended(&self, ended: &EndedEvidence) -> bool {
        self.find_ended(ended).is_some()
    }

    fn find_ended(&self, ended: &EndedEvidence) -> Option<&EvidenceTombstone> {
        self.ended_evidence.get(ended.key().as_str())
    }

    /// Returns whether a requester refused an agent. No token is issued in which it acts for them.
    #[must_use]
    pub fn is_refused(&self, agent: &ClientId, requester: &Requester) -> bool {
        !self.refused_delegations.is_empty()
            && self.refused_delegations.contains(delegation_key(agent, requester).as_str())
    }

    /// Returns the agents that a requester refused, in order.
    #[must_use]
    pub fn refused_agents(&self, requester: &Requester) -> Vec<ClientId> {
        let own = |key: &str| {
            let (agent, _) = key.split_once(' ')?;
            let agent = agent.parse::<ClientId>().ok()?;
            (delegation_key(&agent, requester) == key).then_some(agent)
        };
        let mut agents = self.refused_delegations.iter().filter_map(|key| own(key)).collect::<Vec<_>>();
        agents.sort();
        agents
    }

    /// Returns what a suspended token waits for: its task, an agent, or its tools.
    #[must_use]
    pub fn suspension_cause(&self, keys: &RevocationKeys) -> Option<SuspensionCause> {
        let is_suspended = |key| self.entries.find(key).is_some_and(|found| found.standing == Standing::Suspended);
        if let Some(agent) = keys.agents.iter().find(|id| self.suspended_agents.contains(*id)) {
            return Some(SuspensionCause::Agent(agent.clone()));
        }
        if self.are_all_agents_suspended && keys.task.is_some() {
            return Some(SuspensionCause::AllAgents);
        }
        if keys.task.is_some_and(|task| is_suspended(KeyRef::Task(task))) {
            return Some(SuspensionCause::Task);
        }
        (self.standing_by_tools(keys) == Standing::Suspended).then_some(SuspensionCause::Tools)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::domain::{
        id::{GrantId, TaskId, TokenId},
        registry::issuer::IssuerKeyId,
        revocation::evidence::EvidenceDigest,
    };

    fn token(n: u8) -> TokenId {
        TokenId::new(uuid::Uuid::from_bytes([n; 16]))
    }

    fn task(n: u8) -> TaskId {
        TaskId::new(uuid::Uuid::from_bytes([n; 16]))
    }

    fn grant(n: u8) -> GrantId {
        GrantId::new(uuid::Uuid::from_bytes([n; 16]))
    }

    fn tool(uri: &str, name: &str) -> Target {
        Target::Tool(uri.parse().unwrap(), name.parse().unwrap())
    }

    fn delegation(agent: &str, subject: &str) -> Target {
        let requester =
            Requester { issuer: "https://login.example.com".parse().unwrap(), subject: subject.parse().unwrap() };
        Target::Delegation(agent.parse().unwrap(), Box::new(requester))
    }

    fn revocation_keys(rev: u64) -> RevocationKeys {
        RevocationKeys {
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
            tools: ["https://files.example.com/mcp read_file".to_owned()].into(),
            may_list: false,
            break_glass: true,
            rev: LogPosition::new(rev),
        }
    }

    fn entry(seq: u64, target: Target) -> LogEntry {
        let now = Timestamp::from_unix(1000);
        let entry = NewEntry {
            verb: LogAction::Revoke,
            target,
            reason: "x".into(),
            by: "admin:ops".into(),
            at: now,
            forget_after: now,
        };
        LogEntry { seq: LogPosition::new(seq), entry }
    }

    #[test]
    fn target_revokes_only_tokens_that_carry_its_key() {
        let requester = |text: &str| Target::Requester(text.into());
        let issuer_key = |kid: &str| {
            Target::IssuerKey(IssuerKeyId { issuer: "https://login.example.com".parse().unwrap(), kid: kid.into() })
        };
        for (target, revokes_older, revokes_younger) in [
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
            (tool("https://files.example.com/mcp", "read_file"), true, false),
            (tool("https://files.example.com/mcp", "read_files"), false, false),
            (tool("https://files.example.com", "read_file"), false, false),
            (Target::BreakGlass("https://files.example.com/mcp".parse().unwrap()), true, false),
            (Target::BreakGlass("https://files.example.com".parse().unwrap()), false, false),
            (delegation("planner", "alice"), true, false),
            (delegation("reader", "alice"), true, false),
            (delegation("writer", "alice"), false, false),
            (delegation("planner", "alice in chains"), false, false),
            (Target::Registry, false, false),
            (Target::Keys, false, false),
            (Target::IssuerKeySet("https://login.example.com".parse().unwrap()), false, false),
            (issuer_key("a"), false, false),
            (issuer_key("a kid with spaces"), false, false),
        ] {
            let mut index = Index::starting_after(LogPosition::new(4));
            index.apply(&entry(5, target.clone()), Duration::ZERO);
            let is_revoked = |rev| index.standing(&revocation_keys(rev)) == Standing::Revoked;
            assert_eq!((is_revoked(4), is_revoked(5)), (revokes_older, revokes_younger), "{target:?}");
            assert_eq!(Target::parse(target.kind(), &target.key()), Some(target));
        }
    }

    #[test]
    fn token_ends_with_the_last_of_its_tools() {
        use LogAction::{Resume, Revoke, Suspend};
        use Standing::{Live, Revoked, Suspended};
        let uri = "https://files.example.com/mcp";
        let keys = |rev, may_list, names: &[&str]| {
            let tools = names.iter().map(|name| format!("{uri} {name}")).collect();
            RevocationKeys { tools, may_list, ..revocation_keys(rev) }
        };
        // Actions on tools, the standing of an older token with the tools `one` and `two`, of one
        // with `one` alone, and of a newer one with `one` alone.
        for (actions, both, older, newer) in [
            (&[("one", Revoke)][..], Live, Revoked, Live),
            (&[("one", Revoke), ("two", Revoke)], Revoked, Revoked, Live),
            (&[("one", Suspend)], Live, Suspended, Suspended),
            (&[("one", Suspend), ("two", Suspend)], Suspended, Suspended, Suspended),
            (&[("one", Suspend), ("two", Revoke)], Suspended, Suspended, Suspended),
            (&[("one", Suspend), ("one", Resume)], Live, Live, Live),
            (&[("one", Revoke), ("one", Suspend), ("one", Resume)], Live, Revoked, Live),
            (&[("one", Suspend), ("one", Revoke)], Live, Revoked, Suspended),
            (&[("three", Revoke), ("three", Suspend)], Live, Live, Live),
            (&[("one", Resume)], Live, Live, Live),
        ] {
            let mut index = Index::default();
            for (seq, (name, verb)) in (1..).zip(actions) {
                let mut entry = entry(seq, tool(uri, name));
                entry.entry.verb = *verb;
                index.apply(&entry, Duration::ZERO);
            }
            let tokens = [keys(0, false, &["one", "two"]), keys(0, false, &["one"]), keys(99, false, &["one"])];
            assert_eq!(tokens.map(|keys| index.standing(&keys)), [both, older, newer], "{actions:?}");
            assert_eq!(index.standing(&keys(0, true, &["one"])), Live, "it may still list tools: {actions:?}");
            let is_whole = actions.last().is_some_and(|(name, verb)| *name == "three" || *verb == Resume);
            let was_revoked = actions.iter().any(|(name, verb)| *name != "three" && *verb == Revoke);
            let all_live = index.all_tools_are_live(&keys(0, true, &["one", "two"]));
            assert_eq!(all_live, is_whole && !was_revoked, "{actions:?}");
        }
    }

    #[test]
    fn evidence_ends_by_token_session_and_age() {
        let issuer = "https://login.example.com".parse().unwrap();
        let digest = |jti: &str| EvidenceDigest::of_token_id(&issuer, jti);
        let session = |sid: &str| EvidenceDigest::of_session(&issuer, sid);
        let alice = || revocation_keys(0).requester.unwrap();
        let bob = || Requester { subject: "bob".parse().unwrap(), ..alice() };
        let evidence = |jti: &str, sid: Option<&str>, issued: i64| PresentedEvidence {
            token: digest(jti),
            session: sid.map(session),
            issued: Timestamp::from_unix(issued),
            expires: Timestamp::from_unix(issued + 600),
        };
        let mut index = Index::default();
        // The entries are of second 1000.
        for (seq, ended) in (1..).zip([
            EndedEvidence::ForAgent("planner".parse().unwrap(), digest("used")),
            EndedEvidence::Token(digest("seen")),
            EndedEvidence::Session(session("s1")),
            EndedEvidence::Requester(Box::new(alice())),
        ]) {
            index.apply(&entry(seq, Target::Evidence(ended)), Duration::ZERO);
        }
        for (agent, requester, presented, want) in [
            ("planner", bob(), evidence("used", None, 2000), Some(EvidenceEnd::Task)),
            ("reader", bob(), evidence("used", None, 2000), None),
            ("planner", bob(), evidence("other", None, 2000), None),
            ("reader", bob(), evidence("seen", None, 2000), Some(EvidenceEnd::Requester)),
            ("reader", bob(), evidence("x", Some("s1"), 2000), Some(EvidenceEnd::Session)),
            ("reader", bob(), evidence("x", Some("s2"), 2000), None),
            ("reader", bob(), evidence("x", None, 0), None),
            ("reader", alice(), evidence("x", None, 999), Some(EvidenceEnd::Requester)),
            ("reader", alice(), evidence("x", None, 0), Some(EvidenceEnd::Requester)),
            ("reader", alice(), evidence("x", Some("s2"), 999), Some(EvidenceEnd::Requester)),
            ("reader", alice(), evidence("x", Some("s2"), 1000), None),
            ("reader", alice(), evidence("x", Some("s1"), 1001), Some(EvidenceEnd::Session)),
        ] {
            let end = index.evidence_end(&agent.parse().unwrap(), &requester, &presented);
            assert_eq!(end, want, "{agent} {requester:?} {presented:?}");
        }
        assert_eq!(index.standing(&revocation_keys(0)), Standing::Live, "no token of Errand ends by it");
    }

    #[test]
    fn ended_evidence_is_retained_as_long_as_its_entry_says() {
        let token = EvidenceDigest::of_token_id(&"https://login.example.com".parse().unwrap(), "x");
        let requester = revocation_keys(0).requester.unwrap();
        let presented = PresentedEvidence {
            token: token.clone(),
            session: None,
            issued: Timestamp::from_unix(2000),
            expires: Timestamp::from_unix(9000),
        };
        for (forget_after, lasts) in [(Timestamp::from_unix(11_000), Some(10_000)), (Timestamp::MAX, None)] {
            let mut index = Index::default();
            let mut new = entry(1, Target::Evidence(EndedEvidence::Token(token.clone())));
            new.entry.forget_after = forget_after;
            index.apply(&new, Duration::from_secs(5));
            let mut is_ended = |seconds| {
                evict_all(&mut index, Duration::from_secs(seconds));
                index.evidence_end(&"planner".parse().unwrap(), &requester, &presented).is_some()
            };
            assert!(is_ended(5) && is_ended(9_000), "{forget_after:?}");
            assert!(is_ended(5 + lasts.unwrap_or(u64::MAX / 4)), "{forget_after:?}");
            assert_eq!(is_ended(5 + 10_000 + RETENTION.as_secs()), lasts.is_none(), "{forget_after:?}");
        }
    }

    #[test]
    fn refused_delegation_affects_new_tokens_only() {
        let mut index = Index::default();
        let mut apply = |seq, target, verb| {
            let mut entry = entry(seq, target);
            entry.entry.verb = verb;
            index.apply(&entry, Duration::ZERO);
            let requester = revocation_keys(0).requester.unwrap();
            let refused = index.refused_agents(&requester).iter().map(ToString::to_string).collect::<Vec<_>>();
            assert_eq!(
                refused.contains(&"planner".to_owned()),
                index.is_refused(&"planner".parse().unwrap(), &requester)
            );
            (refused, index.standing(&revocation_keys(0)))
        };
        let planner = || delegation("planner", "alice");
        let names = |names: &[&str]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(apply(1, planner(), LogAction::Suspend), (names(&["planner"]), Standing::Live));
        assert_eq!(apply(2, delegation("reader", "bob"), LogAction::Suspend), (names(&["planner"]), Standing::Live));
        assert_eq!(apply(3, delegation("a", "alice"), LogAction::Suspend), (names(&["a", "planner"]), Standing::Live));
        assert_eq!(apply(4, planner(), LogAction::Revoke), (names(&["a", "planner"]), Standing::Revoked));
        assert_eq!(apply(5, planner(), LogAction::Resume), (names(&["a"]), Standing::Revoked));
    }

    #[test]
    fn suspension_names_its_cause() {
        let uri = "https://files.example.com/mcp";
        let suspended = |targets: &[Target]| {
            let mut index = Index::default();
            for (seq, target) in (1..).zip(targets) {
                let mut entry = entry(seq, target.clone());
                entry.entry.verb = LogAction::Suspend;
                index.apply(&entry, Duration::ZERO);
            }
            index.suspension_cause(&revocation_keys(0))
        };
        let agent = |id: &str| Target::Agent(id.parse().unwrap());
        let cause = |id: &str| Some(SuspensionCause::Agent(id.parse().unwrap()));
        for (targets, want) in [
            (&[Target::Task(task(9))][..], Some(SuspensionCause::Task)),
            (&[agent("planner")], cause("planner")),
            (&[agent("reader")], cause("reader")),
            (&[Target::Task(task(9)), agent("reader")], cause("reader")),
            (&[tool(uri, "read_file")], Some(SuspensionCause::Tools)),
            (&[Target::AllAgents, Target::Task(task(9))], Some(SuspensionCause::AllAgents)),
            (&[Target::AllAgents, agent("reader")], cause("reader")),
            (&[Target::Task(task(8)), agent("writer"), tool(uri, "write_file")], None),
            (&[], None),
        ] {
            assert_eq!(suspended(targets), want, "{targets:?}");
        }
    }

    #[test]
    fn new_credentials_revoke_older_api_tokens() {
        let mut index = Index::starting_after(LogPosition::new(4));
        index.apply(&entry(5, Target::Credentials("planner".parse().unwrap())), Duration::ZERO);
        for (client, rev, want) in
            [("planner", 4, Standing::Revoked), ("planner", 5, Standing::Live), ("reader", 4, Standing::Live)]
        {
            let agents = [client.parse().unwrap()].into();
            let api =
                RevocationKeys { task: None, requester: None, lineage: Vec::new(), agents, ..revocation_keys(rev) };
            assert_eq!(index.standing(&api), want, "{client} {rev}");
        }
    }

    #[test]
    fn all_agents_are_suspended_until_they_are_resumed() {
        use LogAction::{Resume, Suspend};
        use Standing::{Live, Suspended};
        let planner = || Target::Agent("planner".parse().unwrap());
        for (actions, want) in [
            (&[(Target::AllAgents, Suspend)][..], Suspended),
            (&[(Target::AllAgents, Suspend), (Target::AllAgents, Resume)], Live),
            (&[(Target::AllAgents, Suspend), (planner(), Resume)], Suspended),
            (&[(planner(), Suspend), (Target::AllAgents, Suspend), (Target::AllAgents, Resume)], Suspended),
            (&[(Target::AllAgents, Resume)], Live),
        ] {
            let mut index = Index::default();
            for (seq, (target, verb)) in (1..).zip(actions) {
                let mut entry = entry(seq, target.clone());
                entry.entry.verb = *verb;
                index.apply(&entry, Duration::ZERO);
            }
            // Tokens of any age are suspended, and API tokens are not.
            let api = |rev| RevocationKeys {
                task: None,
                requester: None,
                agents: ["ops".parse().unwrap()].into(),
                ..revocation_keys(rev)
            };
            for rev in [0, 99] {
                assert_eq!(index.standing(&revocation_keys(rev)), want, "{actions:?}");
                assert_eq!(index.standing(&api(rev)), Live, "{actions:?}");
            }
        }
    }

    #[test]
    fn latest_action_wins_until_revoked() {
        use LogAction::{Resume, Revoke, Suspend};
        use Standing::{Live, Revoked, Suspended};
        let standing = |verbs: &[LogAction]| {
            let mut index = Index::default();
            for (seq, verb) in (1..).zip(verbs) {
                let mut entry = entry(seq, Target::Task(task(9)));
                entry.entry.verb = *verb;
                index.apply(&entry, Duration::ZERO);
            }
            index.standing(&revocation_keys(99))
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
        // Revoked under one key and suspended under another: revoked.
        let mut index = Index::default();
        let mut suspension = entry(1, Target::Task(task(9)));
        suspension.entry.verb = Suspend;
        index.apply(&suspension, Duration::ZERO);
        index.apply(&entry(2, Target::Token(token(1))), Duration::ZERO);
        assert_eq!(index.standing(&revocation_keys(0)), Revoked);
    }

    #[test]
    fn suspended_agent_suspends_tokens_of_any_age() {
        use LogAction::{Resume, Revoke, Suspend};
        use Standing::{Live, Revoked, Suspended};
        // Actions on agents, and the standing of an older (rev 0) and a newer token (rev 99)
        // afterwards.
        for (actions, older, newer) in [
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
            for (seq, (agent, verb)) in (1..).zip(actions) {
                let mut entry = entry(seq, Target::Agent(agent.parse().unwrap()));
                entry.entry.verb = *verb;
                index.apply(&entry, Duration::ZERO);
            }
            assert_eq!(
                (index.standing(&revocation_keys(0)), index.standing(&revocation_keys(99))),
                (older, newer),
                "{actions:?}"
            );
            // The suspension was not lifted, so it remains after everything else is evicted.
            evict_all(&mut index, RETENTION);
            assert_eq!(index.standing(&revocation_keys(99)), newer, "{actions:?}");
        }
    }

    #[test]
    fn only_tasks_and_agents_can_be_suspended() {
        for verb in [LogAction::Revoke, LogAction::Suspend, LogAction::Resume] {
            for target in [Target::Task(task(9)), Target::Agent("planner".parse().unwrap())] {
                assert_eq!(LogAction::parse(verb.as_str(), &target), Some(verb));
            }
            let of_token = LogAction::parse(verb.as_str(), &Target::Token(token(1)));
            assert_eq!(of_token, (verb == LogAction::Revoke).then_some(verb));
        }
        assert_eq!(LogAction::parse("", &Target::Task(task(9))), None);
    }

    fn evict_all(index: &mut Index, now: Duration) {
        (0..Index::SHARD_COUNT).for_each(|n| index.evict(n, now));
    }

    #[test]
    fn entry_is_evicted_only_after_retention() {
        let mut index = Index::default();
        let (start, tick) = (Duration::from_secs(500), Duration::from_nanos(1));
        // The retention in the entry, which the revoker's wall clock determined, has passed long
        // ago.
        index.apply(&entry(1, Target::Token(token(3))), start);
        evict_all(&mut index, (start + RETENTION).saturating_sub(tick));
        assert_eq!(index.standing(&revocation_keys(0)), Standing::Revoked);
        evict_all(&mut index, start + RETENTION);
        assert!(index.is_empty());
        index.apply(&entry(1, Target::Token(token(3))), start);
        assert!(index.is_empty(), "an applied entry is not applied again");
        assert_eq!(index.applied(), LogPosition::new(1));
        // An older token can only exist if a wall clock is wrong, and may be the revoked one.
        assert_eq!([0, 1].map(|rev| index.standing(&revocation_keys(rev))), [Standing::Revoked, Standing::Live]);
    }

    #[test]
    fn skipped_entries_revoke_all_older_tokens() {
        use Standing::{Live, Revoked};
        let standing = |index: &Index| [2, 3, 6, 7, 9, 10].map(|rev| index.standing(&revocation_keys(rev)));
        let mut index = Index::default();
        for seq in 1..=2 {
            index.apply(&entry(seq, Target::Registry), Duration::ZERO);
        }
        assert_eq!(standing(&index), [Live; 6]);
        index.apply(&entry(4, Target::Registry), Duration::ZERO);
        assert_eq!(standing(&index), [Revoked, Live, Live, Live, Live, Live]);
        index.apply(&entry(8, Target::Token(token(77))), Duration::ZERO);
        assert_eq!(standing(&index), [Revoked, Revoked, Revoked, Live, Live, Live]);
        assert_eq!(index.standing_by_entries(&revocation_keys(2)), Live, "no entry in the index revokes it");
        index.advance_to(LogPosition::new(8));
        index.advance_to(LogPosition::new(3));
        assert_eq!(standing(&index), [Revoked, Revoked, Revoked, Live, Live, Live]);
        index.advance_to(LogPosition::new(10));
        assert_eq!(
            (standing(&index), index.applied()),
            ([Revoked, Revoked, Revoked, Revoked, Revoked, Live], LogPosition::new(10))
        );
    }

    /// The kinds of target by number, so that equal numbers of different kinds are different keys.
    fn target(kind: u8, n: u8) -> Target {
        match kind {
            0 => Target::Token(token(n)),
            1 => Target::Task(task(n)),
            2 => Target::Requester(format!("https://login.example.com r{n}")),
            3 => Target::Agent(format!("a{n}").parse().unwrap()),
            4 => Target::Resource(format!("https://r{n}.example.com").parse().unwrap()),
            5 => Target::Grant(grant(n)),
            6 => Target::BreakGlass(format!("https://r{n}.example.com").parse().unwrap()),
            7 => {
                let issuer = format!("https://i{n}.example.com").parse().unwrap();
                let requester = Requester { issuer, subject: "x".parse().unwrap() };
                Target::Delegation(format!("a{n}").parse().unwrap(), Box::new(requester))
            }
            _ => Target::Issuer(format!("https://i{n}.example.com").parse().unwrap()),
        }
    }

    /// The keys of a token with one key of each kind.
    fn keys_of_token(n: u8, rev: u64) -> RevocationKeys {
        let issuer = |n: u8| format!("https://i{n}.example.com").parse().unwrap();
        RevocationKeys {
            token: token(n),
            lineage: Vec::new(),
            task: Some(task(n)),
            grant: Some(grant(n)),
            requester: Some(Requester { issuer: issuer(n), subject: "x".parse().unwrap() }),
            agents: [format!("a{n}").parse().unwrap()].into(),
            resources: [format!("https://r{n}.example.com").parse().unwrap()].into(),
            tools: [format!("https://r{n}.example.com one"), format!("https://r{n}.example.com two")].into(),
            may_list: false,
            break_glass: true,
            rev: LogPosition::new(rev),
        }
    }

    proptest! {
        /// The index always agrees with a scan of the complete log. An entry is never evicted
        /// before its retention has passed, and remains at most one second longer.
        #[test]
        fn index_agrees_with_plain_log_scan(
            log in proptest::collection::vec(
                (0_u8..9, 0_u8..3, 0_u8..3, prop_oneof![0_u64..900, 0_u64..3_000_000, Just(4_500_000 - 500)]),
                1..60,
            ),
            rev in 0_u64..60,
        ) {
            let (mut index, mut now, mut all) = (Index::default(), Duration::ZERO, Vec::new());
            for (seq, (kind, n, verb, later)) in (1..).zip(log) {
                now += Duration::from_millis(later);
                let mut entry = entry(seq, target(kind, n));
                entry.entry.verb = match verb {
                    0 if kind == 1 => LogAction::Suspend,
                    1 if kind == 1 => LogAction::Resume,
                    _ => LogAction::Revoke,
                };
                evict_all(&mut index, now);
                index.apply(&entry, now);
                all.push((entry, now));
                let since = all.iter().filter(|(entry, _)| entry.seq > LogPosition::new(rev)).cloned().collect::<Vec<_>>();
                for n in 0..3 {
                    let keys = keys_of_token(n, rev);
                    // A token issued then is revoked by the entries since, and stays revoked.
                    let unevicted = reference_standing(&since, &keys, now, Duration::MAX / 4);
                    prop_assert!(unevicted != Standing::Revoked || index.standing(&keys) == Standing::Revoked);
                    prop_assert!(unevicted == Standing::Live || index.standing(&keys) != Standing::Live);
                    if keys.rev < index.evicted_up_to {
                        prop_assert_eq!(index.standing(&keys), Standing::Revoked);
                        let mut evicted = all.iter().filter(|(entry, _)| entry.seq <= index.evicted_up_to);
                        prop_assert!(evicted.all(|(_, at)| *at + RETENTION <= now), "no entry is evicted before its retention has passed");
                    }
                    let (lower, upper) = (reference_standing(&all, &keys, now, RETENTION), reference_standing(&all, &keys, now, RETENTION + SWEEP_QUANTUM));
                    let found = index.standing_by_entries(&keys);
                    prop_assert!(lower <= found && found <= upper, "{found:?}: {lower:?} to {upper:?}");
                    prop_assert!(lower == Standing::Live || found != Standing::Live);
                }
            }
            evict_all(&mut index, now + RETENTION + SWEEP_QUANTUM);
            prop_assert!(index.is_empty());
            prop_assert_eq!(index.standing(&keys_of_token(0, 60)), Standing::Live);
        }
    }

    /// The standing according to a scan of the entries that are within `retention`.
    fn reference_standing(
        all: &[(LogEntry, Duration)],
        keys: &RevocationKeys,
        now: Duration,
        retention: Duration,
    ) -> Standing {
        let scan = |matches: &dyn Fn(&Target) -> bool, by_age: bool| {
            let mut standing = (Standing::Live, Duration::ZERO);
            for (LogEntry { seq, entry }, at) in all.iter().filter(|(entry, _)| matches(&entry.entry.target)) {
                if standing.1 + retention <= *at {
                    standing.0 = Standing::Live;
                }
                if by_age && keys.rev >= *seq {
                    continue;
                }
                standing = match (standing.0, entry.verb) {
                    (Standing::Revoked, _) | (_, LogAction::Revoke) => (Standing::Revoked, *at),
                    (_, LogAction::Suspend) => (Standing::Suspended, *at),
                    (_, LogAction::Resume) => (Standing::Live, *at),
                };
            }
            if standing.1 + retention <= now { Standing::Live } else { standing.0 }
        };
        let issuer = keys.requester.as_ref().unwrap().issuer.clone();
        [
            scan(&|target| *target == Target::Token(keys.token), false),
            scan(&|target| Some(target) == keys.task.map(Target::Task).as_ref(), false),
            scan(&|target| Some(target) == keys.grant.map(Target::Grant).as_ref(), false),
            scan(&|target| *target == Target::for_requester(keys.requester.as_ref().unwrap()), true),
            scan(&|target| matches!(target, Target::Agent(id) if keys.agents.contains(id)), true),
            scan(&|target| matches!(target, Target::Resource(uri) if keys.resources.contains(uri)), true),
            scan(&|target| *target == Target::Issuer(issuer.clone()), true),
            scan(&|target| matches!(target, Target::Delegation(id, of) if keys.agents.contains(id) && Some(&**of) == keys.requester.as_ref()), true),
            scan(&|target| matches!(target, Target::BreakGlass(uri) if keys.resources.contains(uri)), true),
        ]
        .into_iter()
        .max()
        .unwrap()
    }
}
