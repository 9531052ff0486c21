//! Reads a history and says what must not be in it. A pure function: calls in, offences out.
//!
//! Calls overlap, so it judges by what is certain. What was told `Done` happened between its start and its end; what was
//! answered by nothing may have happened at any time since, or not at all. An offence is what no order of events allows.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    time::Duration,
};

use crate::{
    effects::{Effect, Opened, effects, opened},
    history::{Call, Change, Said, Target, Token, Told, Verb, What},
};

/// What the store has when all is over.
#[derive(Clone, Debug, Default)]
pub struct Kept {
    /// The ids of issued tokens.
    pub tokens: BTreeSet<String>,
    /// The log: verb, kind and key of each place.
    pub log: BTreeMap<u64, (String, String, String)>,
}

/// Something that must never happen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Offence {
    /// The call began after an end that covers the token was acknowledged, and was told that the token is active.
    Active { token: String, at: usize, since_acknowledged: Duration, ended: Target },
    /// The same with a hold.
    ActiveWhileSuspended { token: String, at: usize, held: Target },
    /// Nobody has taken it back, and it was told to be nothing.
    Inactive { token: String, at: usize },
    /// A token was issued from one that had ended before the exchange began.
    IssuedFromWhatEnded { token: String, at: usize, ended: Target },
    /// A token was issued while something that it is of was held back, or somebody shut out.
    IssuedWhileSuspended { token: String, at: usize, held: Target },
    /// A token that was given out says that it is newer than an entry that came after it.
    NewerThanItIs { token: String, seq: u64 },
    /// A token was given out, and the store knows nothing of it.
    NoRecord { token: String },
    /// Something was acknowledged, and the log doesn't have it where it should be.
    NoEntry { target: Target, seq: Option<u64> },
    /// A place of the log is empty.
    Gap { seq: u64 },
    /// More than one token was had with one assertion.
    UsedTwice { assertion: String },
    /// A request that came again was done again.
    DoneTwice { key: String, seqs: BTreeSet<u64> },
    /// An answer that means nothing.
    Strange { at: usize, answer: String },
}

/// Everything in a history that must not be there.
pub fn check(history: &[Call], kept: &Kept) -> Vec<Offence> {
    let known = Known::of(history, kept);
    let mut offences = Vec::new();
    for call in history {
        match &call.what {
            What::Issued(token) => offences.extend(known.issued(call, token, kept)),
            What::Introspected { token, said } => offences.extend(known.introspected(call, token, *said)),
            What::Changed(change) => offences.extend(known.entry(call, change, kept)),
            What::Strange(answer) => offences.push(Offence::Strange { at: call.at, answer: answer.clone() }),
            What::NotIssued(_) | What::Prepared(_) => {}
        }
    }
    offences.extend(known.used_twice());
    offences.extend(done_twice(history));
    let last = kept.log.keys().next_back().copied().unwrap_or_default();
    offences.extend((1..=last).filter(|seq| !kept.log.contains_key(seq)).map(|seq| Offence::Gap { seq }));
    offences
}

/// A history by what is looked for.
struct Known<'a> {
    tokens: HashMap<&'a str, (&'a Call, &'a Token)>,
    tasks: Vec<Opened<'a>>,
    effects: HashMap<Target, Vec<Effect>>,
    assertions: HashMap<&'a str, u32>,
    /// When a token was there for the first time that this key had signed.
    keys: HashMap<&'a str, Duration>,
    /// What the log has, wherever.
    log: HashSet<(&'a str, &'a str, &'a str)>,
}

impl<'a> Known<'a> {
    fn of(history: &'a [Call], kept: &'a Kept) -> Self {
        let tasks = opened(history);
        let mut by_target = HashMap::<Target, Vec<Effect>>::new();
        for effect in effects(history, &tasks) {
            by_target.entry(effect.target.clone()).or_default().push(effect);
        }
        let log = kept.log.values().map(|(verb, kind, key)| (verb.as_str(), kind.as_str(), key.as_str())).collect();
        let (tokens, assertions, keys) = Default::default();
        let mut known = Self { tokens, tasks, effects: by_target, assertions, keys, log };
        for call in history {
            let What::Issued(token) = &call.what else { continue };
            known.tokens.insert(&token.id, (call, token));
            let first = known.keys.entry(&token.key).or_insert(call.end);
            *first = call.end.min(*first);
            if let Some(assertion) = &token.assertion {
                *known.assertions.entry(assertion).or_default() += 1;
            }
        }
        known
    }

    fn effects(&self, target: &Target, verb: Verb) -> impl Iterator<Item = &Effect> {
        self.effects.get(target).into_iter().flatten().filter(move |effect| effect.verb == verb)
    }

    /// The token and everything that it was derived from, as far as it was seen to be issued, each with the names that end the
    /// token too: what another key signed for an ancestor is its own.
    fn line(&self, token: &'a Token) -> impl Iterator<Item = (&'a Call, &'a Token, Target)> {
        let ids = token.lineage.iter().chain([&token.id]);
        let line = ids.filter_map(|id| self.tokens.get(id.as_str()).copied());
        line.flat_map(|(call, of)| {
            let is_own = |name: &Target| of.id == token.id || !matches!(name, Target::Key(_));
            of.names().filter(is_own).map(|name| (call, of, name)).collect::<Vec<_>>()
        })
    }

    /// An end that covers the token for certain, and was acknowledged before this moment: the last one.
    fn ended(&self, token: &'a Token, before: Duration) -> Option<(Target, Duration)> {
        let mut last: Option<(Target, Duration)> = None;
        for (issuing, token, name) in self.line(token) {
            for end in self.effects(&name, Verb::End) {
                let is_acknowledged = end.told.is_so() && end.end < before;
                let was_there = issuing.end <= end.start || end.seq.is_some_and(|seq| token.rev < seq);
                let covers = !name.ends_what_was_before() || was_there;
                if is_acknowledged && covers && last.as_ref().is_none_or(|(_, at)| *at < end.end) {
                    last = Some((name.clone(), end.end));
                }
            }
        }
        last
    }

    /// Whether something may have ended the token before this moment.
    fn may_have_ended(&self, token: &'a Token, before: Duration) -> bool {
        self.line(token).any(|(issuing, _, name)| {
            self.effects(&name, Verb::End).any(|end| {
                let may_cover = !name.ends_what_was_before() || issuing.start <= end.latest();
                end.start < before && may_cover
            })
        })
    }

    /// What was held back during all of the call, for certain, of what the token is of.
    fn suspended(&self, token: &Token, asked: &Call) -> Option<Target> {
        token.names().find(|name| {
            self.effects(name, Verb::Suspend).any(|hold| {
                let holds = hold.told.is_so() && hold.end < asked.start;
                let undone = |resume: &Effect| resume.latest() > hold.start && resume.start < asked.end;
                holds && !self.effects(name, Verb::Resume).any(undone)
            })
        })
    }

    /// Whether something that the token is of may have been held back at some moment of the call.
    fn may_be_suspended(&self, token: &Token, asked: &Call) -> bool {
        token.names().any(|name| {
            self.effects(&name, Verb::Suspend).any(|hold| {
                let undone =
                    |resume: &Effect| resume.told.is_so() && resume.start >= hold.latest() && resume.end <= asked.start;
                hold.start < asked.end && !self.effects(&name, Verb::Resume).any(undone)
            })
        })
    }

    /// Whether the token's key may be one that took the place of a removed one, and that not everybody had heard of.
    fn may_be_by_a_new_key(&self, token: &Token, asked: &Call) -> bool {
        let removals = self.effects.values().flatten().filter(|effect| matches!(effect.target, Target::Key(_)));
        removals.filter(|removal| removal.verb == Verb::End && removal.start < asked.end).any(|removal| {
            let is_new = self.keys.get(token.key.as_str()).is_none_or(|first| *first > removal.start);
            let is_known = |end: &Effect| end.told.is_so() && end.end <= asked.start;
            is_new && !self.effects(&removal.target, Verb::End).any(is_known)
        })
    }

    fn introspected(&self, asked: &Call, id: &str, said: Said) -> Option<Offence> {
        let (issuing, token) = self.tokens.get(id).copied()?;
        let (token_id, at) = (id.to_owned(), asked.at);
        match said {
            Said::Unknown => None,
            Said::Active => {
                if let Some((ended, acknowledged)) = self.ended(token, asked.start) {
                    let since_acknowledged = asked.start.saturating_sub(acknowledged);
                    return Some(Offence::Active { token: token_id, at, since_acknowledged, ended });
                }
                let held = self.suspended(token, asked)?;
                Some(Offence::ActiveWhileSuspended { token: token_id, at, held })
            }
            Said::Inactive => {
                let is_young = asked.end < token.good_until && issuing.end <= asked.start;
                let has_reason = self.may_have_ended(token, asked.end)
                    || self.may_be_suspended(token, asked)
                    || self.may_be_by_a_new_key(token, asked);
                (is_young && !has_reason).then_some(Offence::Inactive { token: token_id, at })
            }
        }
    }

    fn issued(&self, call: &Call, token: &'a Token, kept: &Kept) -> Vec<Offence> {
        let id = || token.id.clone();
        let mut offences = Vec::new();
        if !kept.tokens.contains(&token.id) {
            offences.push(Offence::NoRecord { token: id() });
        }
        let mut parents = token.lineage.iter().filter_map(|parent| self.tokens.get(parent.as_str()).copied());
        let ended = parents.find_map(|(_, parent)| self.ended(parent, call.start));
        if let Some((ended, _)) = ended {
            offences.push(Offence::IssuedFromWhatEnded { token: id(), at: call.at, ended });
        }
        if let Some(held) = self.suspended(token, call) {
            offences.push(Offence::IssuedWhileSuspended { token: id(), at: call.at, held });
        }
        let later = token.names().flat_map(|name| {
            let ends = self.effects(&name, Verb::End);
            ends.filter(|end| call.end <= end.start).filter_map(|end| end.seq).collect::<Vec<_>>()
        });
        if let Some(seq) = later.filter(|seq| token.rev >= *seq).min() {
            offences.push(Offence::NewerThanItIs { token: id(), seq });
        }
        offences
    }

    fn used_twice(&self) -> impl Iterator<Item = Offence> {
        let twice = self.assertions.iter().filter(|(_, times)| **times > 1);
        twice.map(|(assertion, _)| Offence::UsedTwice { assertion: (*assertion).to_owned() })
    }

    /// What was acknowledged is in the log: at its place, where the answer named one.
    fn entry(&self, call: &Call, change: &Change, kept: &Kept) -> Option<Offence> {
        let Change { verb, target, told, seq, .. } = change;
        let (kind, key) = target.in_log();
        let word = match verb {
            Verb::End | Verb::Disable => "revoke",
            Verb::Suspend => "suspend",
            Verb::Resume | Verb::Enable => "resume",
        };
        let there = |seq: u64| kept.log.get(&seq).map(|(verb, kind, key)| (verb.as_str(), kind.as_str(), key.as_str()));
        let is_there = match (told, target) {
            // Nobody is ended or held back by being so already, and a task may have ended with its grant.
            (Told::Refused | Told::Unknown, _) | (Told::Already, Target::Agent(_) | Target::Requester(_)) => true,
            (Told::Done, Target::Tasks(selection)) => {
                let is_one = |seq| there(seq).is_some_and(|(verb, kind, _)| (verb, kind) == (word, "task"));
                let has = |task: &Opened<'_>| {
                    let has = |word| self.log.contains(&(word, "task", task.id));
                    match verb {
                        Verb::End => has("revoke"),
                        Verb::Suspend => has("suspend") || has("revoke"),
                        // It may never have been held back.
                        Verb::Resume | Verb::Disable | Verb::Enable => true,
                    }
                };
                // One that rests on a grant ends with it, and one that is past its deadline has ended: neither needs a word.
                let concerned =
                    |task: &&Opened<'_>| task.is_in(selection) && !task.has_grant && call.end < task.good_until;
                seq.is_none_or(is_one) && self.tasks.iter().filter(concerned).all(has)
            }
            (Told::Already, Target::Task(id)) if self.tasks.iter().any(|task| task.id == id && task.has_grant) => true,
            // A task that goes on may never have been held back.
            (Told::Already, _) if *verb == Verb::Resume => true,
            (Told::Done, Target::Agent(_) | Target::Requester(_)) if *verb != Verb::End => {
                let before = |seq: u64| there(seq.saturating_sub(1)) == Some((word, kind, key));
                let is_it = |seq| *verb == Verb::Enable || before(seq);
                seq.is_some_and(|seq| there(seq) == Some(("revoke", "registry", "")) && is_it(seq))
            }
            (Told::Done | Told::Already, _) => match seq {
                Some(seq) => there(*seq) == Some((word, kind, key)),
                // Taken back before, by itself or with what it came from: then there is nothing new to write.
                None if matches!(target, Target::Token(_)) => true,
                None => self.log.contains(&(word, kind, key)),
            },
        };
        (!is_there).then(|| Offence::NoEntry { target: target.clone(), seq: *seq })
    }
}

/// Requests that came again and have more than one place.
fn done_twice(history: &[Call]) -> impl Iterator<Item = Offence> {
    let mut places = BTreeMap::<&str, BTreeSet<u64>>::new();
    for call in history {
        if let What::Changed(Change { told: Told::Done, key: Some(key), seq: Some(seq), .. }) = &call.what {
            places.entry(key).or_default().insert(*seq);
        }
    }
    let twice = places.into_iter().filter(|(_, seqs)| seqs.len() > 1);
    twice.map(|(key, seqs)| Offence::DoneTwice { key: key.to_owned(), seqs })
}
