//! The entries in force, by key.

use std::{
    collections::{HashSet, VecDeque},
    time::Duration,
};

use super::{
    LogAction, LogEntry, LogPosition, NewEntry, RETENTION, RevocationKeys, Standing, Target,
    tombstones::{KeyRef, SHARD_COUNT, Tombstone, TombstoneTable},
};
use crate::domain::id::ClientId;

/// The entries that are held, by name. Pure data: whoever follows the log feeds it.
#[derive(Debug, Default)]
pub struct Index {
    applied: LogPosition,
    /// Up to this place entries may be missing: they were passed over when the log was read, or dropped since. Whatever is
    /// as old as that has expired, if wall clocks are right; if they are not, nobody can say whether it has ended.
    evicted_up_to: LogPosition,
    entries: TombstoneTable,
    /// Agents that are held back: with all that they act in, whenever it was issued, for as long as nobody resumes them.
    suspended_agents: HashSet<ClientId>,
    /// Up to which place entries had been applied at which time, oldest first: at most one for every second.
    sweep_marks: VecDeque<SweepMark>,
}

/// Everything up to this place was applied at this time or before it.
#[derive(Clone, Copy, Debug)]
struct SweepMark {
    seq: LogPosition,
    /// When the first and the last of them were (on the holder's monotonic clock).
    first_applied_at: Duration,
    last_applied_at: Duration,
}

/// How exact an age is.
const SWEEP_QUANTUM: Duration = Duration::from_secs(1);

impl Index {
    /// In how many steps it forgets.
    pub const SHARD_COUNT: usize = SHARD_COUNT;

    /// One that goes on from a place, with nothing said before it.
    #[must_use]
    pub fn starting_after(seq: LogPosition) -> Self {
        Self { applied: seq, ..Self::default() }
    }

    /// The position up to which the log has been applied.
    #[must_use]
    pub fn applied(&self) -> LogPosition {
        self.applied
    }

    /// How many names are held.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len().saturating_add(self.suspended_agents.len())
    }

    /// Whether nothing is held.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.len() == 0 && self.suspended_agents.is_empty()
    }

    /// Applies one entry at `now` on the monotonic clock. Entries come in the order of the log; one that was applied
    /// before is passed over.
    pub fn apply(&mut self, entry: &LogEntry, now: Duration) {
        if entry.seq <= self.applied {
            return;
        }
        // What is not there was passed over.
        self.advance_to(LogPosition::new(entry.seq.number().saturating_sub(1)));
        self.applied = entry.seq;
        if matches!(entry.entry.target, Target::Registry | Target::Keys) {
            return;
        }
        let NewEntry { verb, target, .. } = &entry.entry;
        // An agent lives on: that what it had was ended and that it is held back are two things.
        match (verb, target) {
            (LogAction::Suspend, Target::Agent(id)) => {
                self.suspended_agents.insert(id.clone());
                return;
            }
            (LogAction::Resume, Target::Agent(id)) => {
                self.suspended_agents.remove(id);
                return;
            }
            (LogAction::Revoke | LogAction::Suspend | LogAction::Resume, _) => {}
        }
        // What was ended stays ended, whatever is said of it later.
        let is_ended = || self.entries.entry_for(target).is_some_and(|held| held.standing == Standing::Revoked);
        let standing = match verb {
            LogAction::Revoke => Standing::Revoked,
            LogAction::Suspend | LogAction::Resume if is_ended() => Standing::Revoked,
            LogAction::Suspend => Standing::Suspended,
            LogAction::Resume => {
                self.entries.remove(target);
                return;
            }
        };
        self.entries.insert(target, Tombstone { seq: entry.seq, standing });
        match self.sweep_marks.back_mut() {
            Some(age) if now.saturating_sub(age.first_applied_at) < SWEEP_QUANTUM => {
                (age.seq, age.last_applied_at) = (entry.seq, now.max(age.last_applied_at));
            }
            Some(_) | None => {
                self.sweep_marks.push_back(SweepMark { seq: entry.seq, first_applied_at: now, last_applied_at: now })
            }
        }
    }

    /// Says that the log has been read up to `seq`, forgotten entries included.
    pub fn advance_to(&mut self, seq: LogPosition) {
        if seq > self.applied {
            (self.applied, self.evicted_up_to) = (seq, seq);
        }
    }

    /// Drops what has been held for long enough at `now` on the monotonic clock: the `n`th part of it, of
    /// [`PARTS`](Self::PARTS). Each takes a moment, so whoever shares the index can let others in between.
    pub fn evict(&mut self, n: usize, now: Duration) {
        let is_over = |age: &SweepMark| age.last_applied_at.saturating_add(RETENTION) <= now;
        let over = self.sweep_marks.partition_point(is_over);
        let Some(last) = over.checked_sub(1).and_then(|n| self.sweep_marks.get(n)).map(|age| age.seq) else { return };
        self.evicted_up_to = self.evicted_up_to.max(last);
        self.entries.evict(n, last);
        if n + 1 == SHARD_COUNT {
            self.sweep_marks.drain(..over);
        }
    }

    /// What the log says of a token; of one that is older than what was forgotten, that it has ended. By the log's own
    /// clock again: an entry about a token comes after it, so one that is younger misses nothing.
    #[must_use]
    pub fn standing(&self, names: &RevocationKeys) -> Standing {
        if names.rev < self.evicted_up_to { Standing::Revoked } else { self.standing_by_entries(names) }
    }

    /// What the entries that are held say of a token: a handful of look-ups.
    ///
    /// A token, task or grant is never used again once it is named, so presence is enough. A requester, agent, resource or
    /// issuer lives on: what was issued **before** the entry is ended, by the log's own clock and never by wall clocks.
    #[must_use]
    pub fn standing_by_entries(&self, names: &RevocationKeys) -> Standing {
        if self.is_empty() {
            return Standing::Live;
        }
        let held_back = names.agents.iter().any(|id| self.suspended_agents.contains(id)).then_some(Standing::Suspended);
        let held = |name: KeyRef<'_>| self.entries.find(name).map(|held| held.standing);
        let older =
            |name: KeyRef<'_>| self.entries.find(name).filter(|held| names.rev < held.seq).map(|held| held.standing);
        let tokens = [names.token].into_iter().chain(names.lineage.iter().copied());
        let named = names.task.map(KeyRef::Task).into_iter().chain(names.grant.map(KeyRef::Grant));
        let by_name = tokens.map(KeyRef::Token).chain(named).filter_map(held);
        // Only an API token is of no task: it is its client's alone.
        let client = names.agents.iter().filter(|_| names.task.is_none()).map(KeyRef::Credentials);
        let requester = names.requester.iter().flat_map(|r| [KeyRef::Requester(r), KeyRef::Issuer(&r.issuer)]);
        let (agents, resources) =
            (names.agents.iter().map(KeyRef::Agent), names.resources.iter().map(KeyRef::Resource));
        let by_age = agents.chain(client).chain(requester).chain(resources).filter_map(older);
        by_name.chain(by_age).chain(held_back).max().unwrap_or(Standing::Live)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::domain::{
        id::{GrantId, TaskId, TokenId},
        requester::Requester,
        time::Timestamp,
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
            let mut index = Index::starting_after(LogPosition::new(4));
            index.apply(&entry(5, target.clone()), Duration::ZERO);
            let ended = |rev| index.standing(&revocation_keys(rev)) == Standing::Revoked;
            assert_eq!((ended(4), ended(5)), (ends_older, ends_younger), "{target:?}");
            assert_eq!(Target::parse(target.kind(), &target.key()), Some(target));
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
        // Ended by one name and held back by another: ended.
        let mut index = Index::default();
        let mut held = entry(1, Target::Task(task(9)));
        held.entry.verb = Suspend;
        index.apply(&held, Duration::ZERO);
        index.apply(&entry(2, Target::Token(token(1))), Duration::ZERO);
        assert_eq!(index.standing(&revocation_keys(0)), Revoked);
    }

    #[test]
    fn suspended_agent_suspends_tokens_of_any_age() {
        use LogAction::{Resume, Revoke, Suspend};
        use Standing::{Live, Revoked, Suspended};
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
            assert_eq!(
                (index.standing(&revocation_keys(0)), index.standing(&revocation_keys(99))),
                (before, after),
                "{said:?}"
            );
            // Nobody resumed it, so it is still held back when everything else is forgotten.
            evict_all(&mut index, RETENTION);
            assert_eq!(index.standing(&revocation_keys(99)), after, "{said:?}");
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
        // Whatever the revoker's wall clock said: the entry claims to be over since long ago.
        index.apply(&entry(1, Target::Token(token(3))), start);
        evict_all(&mut index, (start + RETENTION).saturating_sub(tick));
        assert_eq!(index.standing(&revocation_keys(0)), Standing::Revoked);
        evict_all(&mut index, start + RETENTION);
        assert!(index.is_empty());
        index.apply(&entry(1, Target::Token(token(3))), start);
        assert!(index.is_empty(), "what was applied once is not applied again");
        assert_eq!(index.applied(), LogPosition::new(1));
        // A token of before can only be there if somebody's wall clock is wrong, and may be the one that was ended.
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
        assert_eq!(index.standing_by_entries(&revocation_keys(2)), Live, "nothing that is held says so");
        index.advance_to(LogPosition::new(8));
        index.advance_to(LogPosition::new(3));
        assert_eq!(standing(&index), [Revoked, Revoked, Revoked, Live, Live, Live]);
        index.advance_to(LogPosition::new(10));
        assert_eq!(
            (standing(&index), index.applied()),
            ([Revoked, Revoked, Revoked, Revoked, Revoked, Live], LogPosition::new(10))
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
            rev: LogPosition::new(rev),
        }
    }

    proptest! {
        /// The table says what a plain list of the entries says, at every moment, whatever was forgotten: nothing goes
        /// before its time, and nothing stays for more than a second after it.
        #[test]
        fn index_agrees_with_plain_log_scan(
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
                    0 if kind == 1 => LogAction::Suspend,
                    1 if kind == 1 => LogAction::Resume,
                    _ => LogAction::Revoke,
                };
                evict_all(&mut index, now);
                index.apply(&entry, now);
                all.push((entry, now));
                let since = all.iter().filter(|(entry, _)| entry.seq > LogPosition::new(asked)).cloned().collect::<Vec<_>>();
                for n in 0..3 {
                    let names = keys_of_token(n, asked);
                    // Of a token that was issued then, and what was said since: if that ended it, it stays ended.
                    let ever = reference_standing(&since, &names, now, Duration::MAX / 4);
                    prop_assert!(ever != Standing::Revoked || index.standing(&names) == Standing::Revoked);
                    prop_assert!(ever == Standing::Live || index.standing(&names) != Standing::Live);
                    if names.rev < index.evicted_up_to {
                        prop_assert_eq!(index.standing(&names), Standing::Revoked);
                        let mut forgotten = all.iter().filter(|(entry, _)| entry.seq <= index.evicted_up_to);
                        prop_assert!(forgotten.all(|(_, at)| *at + RETENTION <= now), "nothing is forgotten before its time");
                    }
                    let (must, may) = (reference_standing(&all, &names, now, RETENTION), reference_standing(&all, &names, now, RETENTION + SWEEP_QUANTUM));
                    let found = index.standing_by_entries(&names);
                    prop_assert!(must <= found && found <= may, "{found:?}: {must:?} to {may:?}");
                    prop_assert!(must == Standing::Live || found != Standing::Live);
                }
            }
            evict_all(&mut index, now + RETENTION + SWEEP_QUANTUM);
            prop_assert!(index.is_empty());
            prop_assert_eq!(index.standing(&keys_of_token(0, 60)), Standing::Live);
        }
    }

    /// What the entries that are held for so long say, one after the other.
    fn reference_standing(
        all: &[(LogEntry, Duration)],
        names: &RevocationKeys,
        now: Duration,
        hold: Duration,
    ) -> Standing {
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
                    (Standing::Revoked, _) | (_, LogAction::Revoke) => (Standing::Revoked, *at),
                    (_, LogAction::Suspend) => (Standing::Suspended, *at),
                    (_, LogAction::Resume) => (Standing::Live, *at),
                };
            }
            if standing.1 + hold <= now { Standing::Live } else { standing.0 }
        };
        let issuer = names.requester.as_ref().unwrap().issuer.clone();
        [
            says(&|target| *target == Target::Token(names.token), false),
            says(&|target| Some(target) == names.task.map(Target::Task).as_ref(), false),
            says(&|target| Some(target) == names.grant.map(Target::Grant).as_ref(), false),
            says(&|target| *target == Target::for_requester(names.requester.as_ref().unwrap()), true),
            says(&|target| matches!(target, Target::Agent(id) if names.agents.contains(id)), true),
            says(&|target| matches!(target, Target::Resource(uri) if names.resources.contains(uri)), true),
            says(&|target| *target == Target::Issuer(issuer.clone()), true),
        ]
        .into_iter()
        .max()
        .unwrap()
    }
}
