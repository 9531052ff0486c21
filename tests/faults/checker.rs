//! Reads a history and says what must not be in it. A pure function: calls in, offences out.
//!
//! Calls overlap, so it judges by what is certain. What was told `Done` happened between its start and its end; what was
//! answered by nothing may have happened at any time since, or not at all. An offence is what no order of events allows.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    time::Duration,
};

use crate::{
    effects::{Effect, OpenedTask, effects, opened_tasks},
    history::{Action, Call, Change, ChangeResult, Event, IntrospectionResult, Target, Token},
};

/// What the store has when all is over.
#[derive(Clone, Debug, Default)]
pub struct StoredState {
    /// The ids of issued tokens.
    pub tokens: BTreeSet<String>,
    /// The log: verb, kind and key of each place.
    pub log: BTreeMap<u64, (String, String, String)>,
}

/// Something that must never happen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Violation {
    /// The call began after an end that covers the token was acknowledged, and was told that the token is active.
    Active { token: String, at: usize, since_acknowledged: Duration, ended: Target },
    /// The same with a hold.
    ActiveWhileSuspended { token: String, at: usize, suspended_target: Target },
    /// Nobody has taken it back, and it was told to be nothing.
    Inactive { token: String, at: usize },
    /// A token was issued from one that had ended before the exchange began.
    IssuedFromEnded { token: String, at: usize, ended: Target },
    /// A token was issued while something that it is of was held back, or somebody shut out.
    IssuedWhileSuspended { token: String, at: usize, suspended_target: Target },
    /// A token that was given out says that it is newer than an entry that came after it.
    RevTooNew { token: String, seq: u64 },
    /// A token was given out, and the store knows nothing of it.
    MissingRecord { token: String },
    /// Something was acknowledged, and the log doesn't have it where it should be.
    MissingEntry { target: Target, seq: Option<u64> },
    /// A place of the log is empty.
    Gap { seq: u64 },
    /// More than one token was had with one assertion.
    UsedTwice { assertion: String },
    /// A request that came again was done again.
    AppliedTwice { key: String, seqs: BTreeSet<u64> },
    /// An answer that means nothing.
    UnexpectedResponse { at: usize, answer: String },
}

/// Everything in a history that must not be there.
pub fn find_violations(history: &[Call], kept: &StoredState) -> Vec<Violation> {
    let known = Analysis::new(history, kept);
    let mut offences = Vec::new();
    for call in history {
        match &call.event {
            Event::Issued(token) => offences.extend(known.check_issued(call, token, kept)),
            Event::Introspected { token, result: said } => {
                offences.extend(known.check_introspection(call, token, *said))
            }
            Event::Changed(change) => offences.extend(known.check_entry(call, change, kept)),
            Event::UnexpectedResponse(answer) => {
                offences.push(Violation::UnexpectedResponse { at: call.at, answer: answer.clone() })
            }
            Event::NotIssued(_) | Event::Prepared(_) => {}
        }
    }
    offences.extend(known.assertions_used_twice());
    offences.extend(keys_applied_twice(history));
    let last = kept.log.keys().next_back().copied().unwrap_or_default();
    offences.extend((1..=last).filter(|seq| !kept.log.contains_key(seq)).map(|seq| Violation::Gap { seq }));
    offences
}

/// A history by what is looked for.
struct Analysis<'a> {
    tokens: HashMap<&'a str, (&'a Call, &'a Token)>,
    tasks: Vec<OpenedTask<'a>>,
    effects: HashMap<Target, Vec<Effect>>,
    assertions: HashMap<&'a str, u32>,
    /// When a token was there for the first time that this key had signed.
    keys: HashMap<&'a str, Duration>,
    /// What the log has, wherever.
    log: HashSet<(&'a str, &'a str, &'a str)>,
}

impl<'a> Analysis<'a> {
    fn new(history: &'a [Call], kept: &'a StoredState) -> Self {
        let tasks = opened_tasks(history);
        let mut by_target = HashMap::<Target, Vec<Effect>>::new();
        for effect in effects(history, &tasks) {
            by_target.entry(effect.target.clone()).or_default().push(effect);
        }
        let log = kept.log.values().map(|(verb, kind, key)| (verb.as_str(), kind.as_str(), key.as_str())).collect();
        let (tokens, assertions, keys) = Default::default();
        let mut known = Self { tokens, tasks, effects: by_target, assertions, keys, log };
        for call in history {
            let Event::Issued(token) = &call.event else { continue };
            known.tokens.insert(&token.id, (call, token));
            let first = known.keys.entry(&token.key).or_insert(call.end);
            *first = call.end.min(*first);
            if let Some(assertion) = &token.assertion {
                *known.assertions.entry(assertion).or_default() += 1;
            }
        }
        known
    }

    fn effects(&self, target: &Target, verb: Action) -> impl Iterator<Item = &Effect> {
        self.effects.get(target).into_iter().flatten().filter(move |effect| effect.verb == verb)
    }

    /// The token and everything that it was derived from, as far as it was seen to be issued, each with the names that end the
    /// token too: what another key signed for an ancestor is its own.
    fn ancestry(&self, token: &'a Token) -> impl Iterator<Item = (&'a Call, &'a Token, Target)> {
        let ids = token.lineage.iter().chain([&token.id]);
        let line = ids.filter_map(|id| self.tokens.get(id.as_str()).copied());
        line.flat_map(|(call, of)| {
            let is_own = |name: &Target| of.id == token.id || !matches!(name, Target::Key(_));
            of.revocation_targets().filter(is_own).map(|name| (call, of, name)).collect::<Vec<_>>()
        })
    }

    /// An end that covers the token for certain, and was acknowledged before this moment: the last one.
    fn find_end(&self, token: &'a Token, before: Duration) -> Option<(Target, Duration)> {
        let mut last: Option<(Target, Duration)> = None;
        for (issuing, token, name) in self.ancestry(token) {
            for end in self.effects(&name, Action::End) {
                let is_acknowledged = end.result.is_effective() && end.end < before;
                let was_there = issuing.end <= end.start || end.seq.is_some_and(|seq| token.rev < seq);
                let covers = !name.ends_earlier_tokens() || was_there;
                if is_acknowledged && covers && last.as_ref().is_none_or(|(_, at)| *at < end.end) {
                    last = Some((name.clone(), end.end));
                }
            }
        }
        last
    }

    /// Whether something may have ended the token before this moment.
    fn may_have_ended(&self, token: &'a Token, before: Duration) -> bool {
        self.ancestry(token).any(|(issuing, _, name)| {
            self.effects(&name, Action::End).any(|end| {
                let may_cover = !name.ends_earlier_tokens() || issuing.start <= end.latest();
                end.start < before && may_cover
            })
        })
    }

    /// What was held back during all of the call, for certain, of what the token is of.
    fn find_suspension(&self, token: &Token, asked: &Call) -> Option<Target> {
        token.revocation_targets().find(|name| {
            self.effects(name, Action::Suspend).any(|hold| {
                let holds = hold.result.is_effective() && hold.end < asked.start;
                let undone = |resume: &Effect| resume.latest() > hold.start && resume.start < asked.end;
                holds && !self.effects(name, Action::Resume).any(undone)
            })
        })
    }

    /// Whether something that the token is of may have been held back at some moment of the call.
    fn may_be_suspended(&self, token: &Token, asked: &Call) -> bool {
        token.revocation_targets().any(|name| {
            self.effects(&name, Action::Suspend).any(|hold| {
                let undone = |resume: &Effect| {
                    resume.result.is_effective() && resume.start >= hold.latest() && resume.end <= asked.start
                };
                hold.start < asked.end && !self.effects(&name, Action::Resume).any(undone)
            })
        })
    }

    /// Whether the token's key may be one that took the place of a removed one, and that not everybody had heard of.
    fn may_be_signed_by_new_key(&self, token: &Token, asked: &Call) -> bool {
        let removals = self.effects.values().flatten().filter(|effect| matches!(effect.target, Target::Key(_)));
        removals.filter(|removal| removal.verb == Action::End && removal.start < asked.end).any(|removal| {
            let is_new = self.keys.get(token.key.as_str()).is_none_or(|first| *first > removal.start);
            let is_known = |end: &Effect| end.result.is_effective() && end.end <= asked.start;
            is_new && !self.effects(&removal.target, Action::End).any(is_known)
        })
    }

    fn check_introspection(&self, asked: &Call, id: &str, said: IntrospectionResult) -> Option<Violation> {
        let (issuing, token) = self.tokens.get(id).copied()?;
        let (token_id, at) = (id.to_owned(), asked.at);
        match said {
            IntrospectionResult::Unknown => None,
            IntrospectionResult::Active => {
                if let Some((ended, acknowledged)) = self.find_end(token, asked.start) {
                    let since_acknowledged = asked.start.saturating_sub(acknowledged);
                    return Some(Violation::Active { token: token_id, at, since_acknowledged, ended });
                }
                let held = self.find_suspension(token, asked)?;
                Some(Violation::ActiveWhileSuspended { token: token_id, at, suspended_target: held })
            }
            IntrospectionResult::Inactive => {
                let is_young = asked.end < token.valid_until && issuing.end <= asked.start;
                let has_reason = self.may_have_ended(token, asked.end)
                    || self.may_be_suspended(token, asked)
                    || self.may_be_signed_by_new_key(token, asked);
                (is_young && !has_reason).then_some(Violation::Inactive { token: token_id, at })
            }
        }
    }

    fn check_issued(&self, call: &Call, token: &'a Token, kept: &StoredState) -> Vec<Violation> {
        let id = || token.id.clone();
        let mut offences = Vec::new();
        if !kept.tokens.contains(&token.id) {
            offences.push(Violation::MissingRecord { token: id() });
        }
        let mut parents = token.lineage.iter().filter_map(|parent| self.tokens.get(parent.as_str()).copied());
        let ended = parents.find_map(|(_, parent)| self.find_end(parent, call.start));
        if let Some((ended, _)) = ended {
            offences.push(Violation::IssuedFromEnded { token: id(), at: call.at, ended });
        }
        if let Some(held) = self.find_suspension(token, call) {
            offences.push(Violation::IssuedWhileSuspended { token: id(), at: call.at, suspended_target: held });
        }
        let later = token.revocation_targets().flat_map(|name| {
            let ends = self.effects(&name, Action::End);
            ends.filter(|end| call.end <= end.start).filter_map(|end| end.seq).collect::<Vec<_>>()
        });
        if let Some(seq) = later.filter(|seq| token.rev >= *seq).min() {
            offences.push(Violation::RevTooNew { token: id(), seq });
        }
        offences
    }

    fn assertions_used_twice(&self) -> impl Iterator<Item = Violation> {
        let twice = self.assertions.iter().filter(|(_, times)| **times > 1);
        twice.map(|(assertion, _)| Violation::UsedTwice { assertion: (*assertion).to_owned() })
    }

    /// What was acknowledged is in the log: at its place, where the answer named one.
    fn check_entry(&self, call: &Call, change: &Change, kept: &StoredState) -> Option<Violation> {
        let Change { verb, target, result: told, seq, .. } = change;
        let (kind, key) = target.log_key();
        let word = match verb {
            Action::End | Action::Block => "revoke",
            Action::Suspend => "suspend",
            Action::Resume | Action::Unblock => "resume",
        };
        let there = |seq: u64| kept.log.get(&seq).map(|(verb, kind, key)| (verb.as_str(), kind.as_str(), key.as_str()));
        let is_there = match (told, target) {
            // Nobody is ended or held back by being so already, and a task may have ended with its grant.
            (ChangeResult::Refused | ChangeResult::Unknown, _)
            | (ChangeResult::Already, Target::Agent(_) | Target::Requester(_)) => true,
            (ChangeResult::Done, Target::Tasks(selection)) => {
                let is_one = |seq| there(seq).is_some_and(|(verb, kind, _)| (verb, kind) == (word, "task"));
                let has = |task: &OpenedTask<'_>| {
                    let has = |word| self.log.contains(&(word, "task", task.id));
                    match verb {
                        Action::End => has("revoke"),
                        Action::Suspend => has("suspend") || has("revoke"),
                        // It may never have been held back.
                        Action::Resume | Action::Block | Action::Unblock => true,
                    }
                };
                // One that rests on a grant ends with it, and one that is past its deadline has ended: neither needs a word.
                let concerned =
                    |task: &&OpenedTask<'_>| task.is_in(selection) && !task.has_grant && call.end < task.valid_until;
                seq.is_none_or(is_one) && self.tasks.iter().filter(concerned).all(has)
            }
            (ChangeResult::Already, Target::Task(id))
                if self.tasks.iter().any(|task| task.id == id && task.has_grant) =>
            {
                true
            }
            // A task that goes on may never have been held back.
            (ChangeResult::Already, _) if *verb == Action::Resume => true,
            (ChangeResult::Done, Target::Agent(_) | Target::Requester(_)) if *verb != Action::End => {
                let before = |seq: u64| there(seq.saturating_sub(1)) == Some((word, kind, key));
                let is_it = |seq| *verb == Action::Unblock || before(seq);
                seq.is_some_and(|seq| there(seq) == Some(("revoke", "registry", "")) && is_it(seq))
            }
            (ChangeResult::Done | ChangeResult::Already, _) => match seq {
                Some(seq) => there(*seq) == Some((word, kind, key)),
                // Taken back before, by itself or with what it came from: then there is nothing new to write.
                None if matches!(target, Target::Token(_)) => true,
                None => self.log.contains(&(word, kind, key)),
            },
        };
        (!is_there).then(|| Violation::MissingEntry { target: target.clone(), seq: *seq })
    }
}

/// Requests that came again and have more than one place.
fn keys_applied_twice(history: &[Call]) -> impl Iterator<Item = Violation> {
    let mut places = BTreeMap::<&str, BTreeSet<u64>>::new();
    for call in history {
        if let Event::Changed(Change { result: ChangeResult::Done, key: Some(key), seq: Some(seq), .. }) = &call.event {
            places.entry(key).or_default().insert(*seq);
        }
    }
    let twice = places.into_iter().filter(|(_, seqs)| seqs.len() > 1);
    twice.map(|(key, seqs)| Violation::AppliedTwice { key: key.to_owned(), seqs })
}
