//! Reads a history and says what must not be in it. A pure function: calls in, offences out.
//!
//! Calls overlap, so it judges by what is certain. What was told `Done` happened between its start and its end; what was
//! answered by nothing may have happened at any time since, or not at all. An offence is what no order of events allows.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    time::Duration,
};

use crate::history::{Call, Change, Said, Target, Token, Told, Verb, What};

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
    ActiveWhileSuspended { token: String, at: usize },
    /// Nobody has taken it back, and it was told to be nothing.
    Inactive { token: String, at: usize },
    /// A token was issued from one that had ended before the exchange began.
    IssuedFromWhatEnded { token: String, at: usize, ended: Target },
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
    /// An answer that means nothing.
    Strange { at: usize, answer: String },
}

/// Everything in a history that must not be there.
pub fn check(history: &[Call], kept: &Kept) -> Vec<Offence> {
    let known = Known::of(history);
    let mut offences = Vec::new();
    for call in history {
        match &call.what {
            What::Issued(token) => offences.extend(known.issued(call, token, kept)),
            What::Introspected { token, said } => offences.extend(known.introspected(call, token, *said)),
            What::Changed(change) => offences.extend(entry(change, kept)),
            What::Strange(answer) => offences.push(Offence::Strange { at: call.at, answer: answer.clone() }),
            What::NotIssued(_) => {}
        }
    }
    offences.extend(known.used_twice());
    let last = kept.log.keys().next_back().copied().unwrap_or_default();
    offences.extend((1..=last).filter(|seq| !kept.log.contains_key(seq)).map(|seq| Offence::Gap { seq }));
    offences
}

/// A history by what is looked for.
struct Known<'a> {
    tokens: HashMap<&'a str, (&'a Call, &'a Token)>,
    changes: HashMap<&'a Target, Vec<(&'a Call, &'a Change)>>,
    assertions: HashMap<&'a str, u32>,
}

impl<'a> Known<'a> {
    fn of(history: &'a [Call]) -> Self {
        let mut known = Self { tokens: HashMap::new(), changes: HashMap::new(), assertions: HashMap::new() };
        for call in history {
            match &call.what {
                What::Issued(token) => {
                    known.tokens.insert(&token.id, (call, token));
                    if let Some(assertion) = &token.assertion {
                        *known.assertions.entry(assertion).or_default() += 1;
                    }
                }
                What::Changed(change) if change.told != Told::Refused => {
                    known.changes.entry(&change.target).or_default().push((call, change));
                }
                What::Changed(_) | What::NotIssued(_) | What::Introspected { .. } | What::Strange(_) => {}
            }
        }
        known
    }

    fn changes(&self, target: &Target, verb: Verb) -> impl Iterator<Item = (&'a Call, &'a Change)> {
        let about = self.changes.get(target).into_iter().flatten().copied();
        about.filter(move |(_, change)| change.verb == verb)
    }

    /// The token and everything that it was derived from, as far as it was seen to be issued.
    fn line(&self, token: &'a Token) -> impl Iterator<Item = (&'a Call, &'a Token)> {
        let ids = token.lineage.iter().chain([&token.id]);
        ids.filter_map(|id| self.tokens.get(id.as_str()).copied())
    }

    /// An end that covers the token for certain, and was acknowledged before this moment: the last one.
    fn ended(&self, token: &'a Token, before: Duration) -> Option<(Target, Duration)> {
        let mut last: Option<(Target, Duration)> = None;
        for (issuing, token) in self.line(token) {
            for name in token.names() {
                for (call, change) in self.changes(&name, Verb::End) {
                    let is_acknowledged = change.told.is_so() && call.end < before;
                    let was_there = issuing.end <= call.start || change.seq.is_some_and(|seq| token.rev < seq);
                    let covers = !name.ends_what_was_before() || was_there;
                    if is_acknowledged && covers && last.as_ref().is_none_or(|(_, end)| *end < call.end) {
                        last = Some((name.clone(), call.end));
                    }
                }
            }
        }
        last
    }

    /// Whether something may have ended the token before this moment.
    fn may_have_ended(&self, token: &'a Token, before: Duration) -> bool {
        self.line(token).any(|(issuing, token)| {
            token.names().any(|name| {
                self.changes(&name, Verb::End).any(|(call, _)| {
                    let may_cover = !name.ends_what_was_before() || issuing.start <= call.latest();
                    call.start < before && may_cover
                })
            })
        })
    }

    /// Whether the task was held back during all of the call, for certain.
    fn is_suspended(&self, task: &Target, asked: &Call) -> bool {
        self.changes(task, Verb::Suspend).any(|(hold, change)| {
            let holds = change.told.is_so() && hold.end < asked.start;
            let undone = |(call, _): (&Call, &Change)| call.latest() > hold.start && call.start < asked.end;
            holds && !self.changes(task, Verb::Resume).any(undone)
        })
    }

    /// Whether the task may have been held back at some moment of the call.
    fn may_be_suspended(&self, task: &Target, asked: &Call) -> bool {
        self.changes(task, Verb::Suspend).any(|(hold, _)| {
            let undone = |(call, change): (&Call, &Change)| {
                change.told.is_so() && call.start >= hold.latest() && call.end <= asked.start
            };
            hold.start < asked.end && !self.changes(task, Verb::Resume).any(undone)
        })
    }

    fn introspected(&self, asked: &Call, id: &str, said: Said) -> Option<Offence> {
        let (issuing, token) = self.tokens.get(id).copied()?;
        let (token_id, at, task) = (id.to_owned(), asked.at, Target::Task(token.task.clone()));
        match said {
            Said::Unknown => None,
            Said::Active => {
                if let Some((ended, acknowledged)) = self.ended(token, asked.start) {
                    let since_acknowledged = asked.start.saturating_sub(acknowledged);
                    return Some(Offence::Active { token: token_id, at, since_acknowledged, ended });
                }
                self.is_suspended(&task, asked).then_some(Offence::ActiveWhileSuspended { token: token_id, at })
            }
            Said::Inactive => {
                let is_young = asked.end < token.good_until && issuing.end <= asked.start;
                let has_reason = self.may_have_ended(token, asked.end) || self.may_be_suspended(&task, asked);
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
        let later = token.names().flat_map(|name| {
            let ends = self.changes(&name, Verb::End);
            ends.filter(|(end, _)| call.end <= end.start).filter_map(|(_, change)| change.seq).collect::<Vec<_>>()
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
}

/// What was acknowledged is in the log: at its place, where the answer named one.
fn entry(change: &Change, kept: &Kept) -> Option<Offence> {
    // A task that goes on may never have been held back.
    let is_in_log = change.told == Told::Done || (change.told == Told::Already && change.verb != Verb::Resume);
    if !is_in_log {
        return None;
    }
    let (kind, key) = change.target.in_log();
    let is_it = |(verb, its_kind, its_key): &(String, String, String)| {
        let verb_fits = match change.verb {
            Verb::End => verb == "revoke",
            Verb::Suspend => verb == "suspend",
            Verb::Resume => verb == "resume",
        };
        verb_fits && its_kind == kind && its_key == key
    };
    let is_there = match change.seq {
        Some(seq) => kept.log.get(&seq).is_some_and(is_it),
        // Taken back before, by itself or with what it came from: then there is nothing new to write.
        None if matches!(change.target, Target::Token(_)) => true,
        None => kept.log.values().any(is_it),
    };
    (!is_there).then(|| Offence::NoEntry { target: change.target.clone(), seq: change.seq })
}
