//! The checker: finds the violations in a history. A pure function from calls to violations.
//!
//! Calls overlap, so the checker reports only what is certain. A change with the result `Done`
//! took effect between its invocation and its completion. A change without an answer may take
//! effect at any time after its invocation, or never. A violation is what no order of events
//! allows.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    time::Duration,
};

use crate::{
    effects::{Effect, OpenedTask, effects, opened_tasks},
    history::{Action, Call, Change, ChangeResult, Event, IntrospectionResult, Target, Token},
};

/// The contents of the store after the run.
#[derive(Clone, Debug, Default)]
pub struct StoredState {
    /// The ids of issued tokens.
    pub tokens: BTreeSet<String>,
    /// The log: verb, kind and key of each entry, by position.
    pub log: BTreeMap<u64, (String, String, String)>,
}

/// A violation of the guarantees.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Violation {
    /// The token was reported active by a call that began after the acknowledgement of an end that
    /// covers the token.
    Active { token: String, at: usize, since_acknowledged: Duration, ended: Target },
    /// The token was reported active by a call during which it was certainly suspended.
    ActiveWhileSuspended { token: String, at: usize, suspended_target: Target },
    /// The token was reported inactive without a reason: no revocation, suspension or
    /// expiry covers it, and all replicas know its key.
    Inactive { token: String, at: usize },
    /// The token was issued from one that had ended before the exchange began.
    IssuedFromEnded { token: String, at: usize, ended: Target },
    /// The token was issued while one of its revocation targets was suspended or blocked.
    IssuedWhileSuspended { token: String, at: usize, suspended_target: Target },
    /// The `rev` of an issued token is not below a log entry that was written after it.
    RevTooNew { token: String, seq: u64 },
    /// A token was issued, but the store has no record of it.
    MissingRecord { token: String },
    /// A change was acknowledged, but the log does not have it at the expected position.
    MissingEntry { target: Target, seq: Option<u64> },
    /// A position of the log is empty.
    Gap { seq: u64 },
    /// More than one token was issued for one assertion.
    UsedTwice { assertion: String },
    /// A retried request was applied more than once.
    AppliedTwice { key: String, seqs: BTreeSet<u64> },
    /// An answer that the API does not define.
    UnexpectedResponse { at: usize, answer: String },
}

/// Returns all violations in a history.
pub fn find_violations(history: &[Call], stored: &StoredState) -> Vec<Violation> {
    let analysis = Analysis::new(history, stored);
    let mut violations = Vec::new();
    for call in history {
        match &call.event {
            Event::Issued(token) => violations.extend(analysis.check_issued(call, token, stored)),
            Event::Introspected { token, result } => {
                violations.extend(analysis.check_introspection(call, token, *result));
            }
            Event::Changed(change) => violations.extend(analysis.check_entry(call, change, stored)),
            Event::UnexpectedResponse(answer) => {
                violations.push(Violation::UnexpectedResponse { at: call.at, answer: answer.clone() });
            }
            Event::NotIssued(_) | Event::Prepared(_) => {}
        }
    }
    violations.extend(analysis.assertions_used_twice());
    violations.extend(keys_applied_twice(history));
    let last = stored.log.keys().next_back().copied().unwrap_or_default();
    violations.extend((1..=last).filter(|seq| !stored.log.contains_key(seq)).map(|seq| Violation::Gap { seq }));
    violations
}

/// A history, indexed for the checks.
struct Analysis<'a> {
    tokens: HashMap<&'a str, (&'a Call, &'a Token)>,
    tasks: Vec<OpenedTask<'a>>,
    effects: HashMap<Target, Vec<Effect>>,
    assertions: HashMap<&'a str, u32>,
    /// The completion of the first call that issued a token signed by this key.
    keys: HashMap<&'a str, Duration>,
    /// The entries of the log, regardless of position.
    log: HashSet<(&'a str, &'a str, &'a str)>,
}

impl<'a> Analysis<'a> {
    fn new(history: &'a [Call], stored: &'a StoredState) -> Self {
        let tasks = opened_tasks(history);
        let mut by_target = HashMap::<Target, Vec<Effect>>::new();
        for effect in effects(history, &tasks) {
            by_target.entry(effect.target.clone()).or_default().push(effect);
        }
        let log = stored.log.values().map(|(verb, kind, key)| (verb.as_str(), kind.as_str(), key.as_str())).collect();
        let (tokens, assertions, keys) = Default::default();
        let mut analysis = Self { tokens, tasks, effects: by_target, assertions, keys, log };
        for call in history {
            let Event::Issued(token) = &call.event else { continue };
            analysis.tokens.insert(&token.id, (call, token));
            let first = analysis.keys.entry(&token.key).or_insert(call.end);
            *first = call.end.min(*first);
            if let Some(assertion) = &token.assertion {
                *analysis.assertions.entry(assertion).or_default() += 1;
            }
        }
        analysis
    }

    fn effects(&self, target: &Target, verb: Action) -> impl Iterator<Item = &Effect> {
        self.effects.get(target).into_iter().flatten().filter(move |effect| effect.verb == verb)
    }

    /// Returns the token and its ancestors, as far as the history has their issuance, each with
    /// the targets whose end also ends the token. The signing key of an ancestor is not one of
    /// them: the descendant may be signed by another key.
    fn ancestry(&self, token: &'a Token) -> impl Iterator<Item = (&'a Call, &'a Token, Target)> {
        let ids = token.lineage.iter().chain([&token.id]);
        let issuances = ids.filter_map(|id| self.tokens.get(id.as_str()).copied());
        issuances.flat_map(|(call, member)| {
            let is_own = |target: &Target| member.id == token.id || !matches!(target, Target::Key(_));
            member.revocation_targets().filter(is_own).map(|target| (call, member, target)).collect::<Vec<_>>()
        })
    }

    /// Returns the last end that certainly covers the token and was acknowledged before `before`.
    fn find_end(&self, token: &'a Token, before: Duration) -> Option<(Target, Duration)> {
        let mut last: Option<(Target, Duration)> = None;
        for (issuing, token, target) in self.ancestry(token) {
            for end in self.effects(&target, Action::End) {
                let is_acknowledged = end.result.is_effective() && end.end < before;
                let existed = issuing.end <= end.start || end.seq.is_some_and(|seq| token.rev < seq);
                let covers = !target.ends_earlier_tokens() || existed;
                if is_acknowledged && covers && last.as_ref().is_none_or(|(_, at)| *at < end.end) {
                    last = Some((target.clone(), end.end));
                }
            }
        }
        last
    }

    /// Returns whether the token may have been ended before `before`.
    fn may_have_ended(&self, token: &'a Token, before: Duration) -> bool {
        self.ancestry(token).any(|(issuing, _, target)| {
            self.effects(&target, Action::End).any(|end| {
                let may_cover = !target.ends_earlier_tokens() || issuing.start <= end.latest();
                end.start < before && may_cover
            })
        })
    }

    /// Returns a revocation target of the token that was certainly suspended during the whole call.
    fn find_suspension(&self, token: &Token, call: &Call) -> Option<Target> {
        token.revocation_targets().find(|target| {
            self.effects(target, Action::Suspend).any(|suspension| {
                let precedes = suspension.result.is_effective() && suspension.end < call.start;
                let lifts = |resume: &Effect| resume.latest() > suspension.start && resume.start < call.end;
                precedes && !self.effects(target, Action::Resume).any(lifts)
            })
        })
    }

    /// Returns whether a revocation target of the token may have been suspended at some point of
    /// the call.
    fn may_be_suspended(&self, token: &Token, call: &Call) -> bool {
        token.revocation_targets().any(|target| {
            self.effects(&target, Action::Suspend).any(|suspension| {
                let lifts = |resume: &Effect| {
                    resume.result.is_effective() && resume.start >= suspension.latest() && resume.end <= call.start
                };
                suspension.start < call.end && !self.effects(&target, Action::Resume).any(lifts)
            })
        })
    }

    /// Returns whether the token may be signed by the successor of a removed key that some replica
    /// did not yet know.
    fn may_be_signed_by_new_key(&self, token: &Token, call: &Call) -> bool {
        let removals = self.effects.values().flatten().filter(|effect| matches!(effect.target, Target::Key(_)));
        removals.filter(|removal| removal.verb == Action::End && removal.start < call.end).any(|removal| {
            let is_new = self.keys.get(token.key.as_str()).is_none_or(|first| *first > removal.start);
            let is_known = |end: &Effect| end.result.is_effective() && end.end <= call.start;
            is_new && !self.effects(&removal.target, Action::End).any(is_known)
        })
    }

    fn check_introspection(&self, call: &Call, id: &str, result: IntrospectionResult) -> Option<Violation> {
        let (issuing, token) = self.tokens.get(id).copied()?;
        let (token_id, at) = (id.to_owned(), call.at);
        match result {
            IntrospectionResult::Unknown => None,
            IntrospectionResult::Active => {
                if let Some((ended, acknowledged)) = self.find_end(token, call.start) {
                    let since_acknowledged = call.start.saturating_sub(acknowledged);
                    return Some(Violation::Active { token: token_id, at, since_acknowledged, ended });
                }
                let suspended_target = self.find_suspension(token, call)?;
                Some(Violation::ActiveWhileSuspended { token: token_id, at, suspended_target })
            }
            IntrospectionResult::Inactive => {
                let is_valid = call.end < token.valid_until && issuing.end <= call.start;
                let has_reason = self.may_have_ended(token, call.end)
                    || self.may_be_suspended(token, call)
                    || self.may_be_signed_by_new_key(token, call);
                (is_valid && !has_reason).then_some(Violation::Inactive { token: token_id, at })
            }
        }
    }

    fn check_issued(&self, call: &Call, token: &'a Token, stored: &StoredState) -> Vec<Violation> {
        let id = || token.id.clone();
        let mut violations = Vec::new();
        if !stored.tokens.contains(&token.id) {
            violations.push(Violation::MissingRecord { token: id() });
        }
        let mut parents = token.lineage.iter().filter_map(|parent| self.tokens.get(parent.as_str()).copied());
        let ended = parents.find_map(|(_, parent)| self.find_end(parent, call.start));
        if let Some((ended, _)) = ended {
            violations.push(Violation::IssuedFromEnded { token: id(), at: call.at, ended });
        }
        if let Some(suspended_target) = self.find_suspension(token, call) {
            violations.push(Violation::IssuedWhileSuspended { token: id(), at: call.at, suspended_target });
        }
        let later_seqs = token.revocation_targets().flat_map(|target| {
            let ends = self.effects(&target, Action::End);
            ends.filter(|end| call.end <= end.start).filter_map(|end| end.seq).collect::<Vec<_>>()
        });
        if let Some(seq) = later_seqs.filter(|seq| token.rev >= *seq).min() {
            violations.push(Violation::RevTooNew { token: id(), seq });
        }
        violations
    }

    fn assertions_used_twice(&self) -> impl Iterator<Item = Violation> {
        let duplicates = self.assertions.iter().filter(|(_, times)| **times > 1);
        duplicates.map(|(assertion, _)| Violation::UsedTwice { assertion: (*assertion).to_owned() })
    }

    /// Returns whether a party to the task was revoked, which ends the tasks opened before. Whether
    /// its tokens have ended is checked at every introspection.
    fn may_have_ended_with_party(&self, task: &OpenedTask<'_>) -> bool {
        self.log.contains(&("revoke", "requester", task.requester))
            || task.agents.iter().any(|agent| self.log.contains(&("revoke", "agent", agent)))
            || self.log.iter().any(|(verb, kind, _)| (*verb, *kind) == ("revoke", "issuer"))
    }

    /// Checks that the log has an acknowledged change: at its position, if the answer named one.
    fn check_entry(&self, call: &Call, change: &Change, stored: &StoredState) -> Option<Violation> {
        let Change { verb, target, result, seq, .. } = change;
        let (kind, key) = target.log_key();
        let log_verb = match verb {
            Action::End | Action::Block => "revoke",
            Action::Suspend => "suspend",
            Action::Resume | Action::Unblock => "resume",
        };
        let entry_at =
            |seq: u64| stored.log.get(&seq).map(|(verb, kind, key)| (verb.as_str(), kind.as_str(), key.as_str()));
        let is_logged = match (result, target) {
            // `Already` does not tell which request set the state of the party, so no particular
            // entry is required.
            (ChangeResult::Refused | ChangeResult::Unknown, _)
            | (ChangeResult::Already, Target::Agent(_) | Target::Requester(_)) => true,
            (ChangeResult::Done, Target::Tasks(selection)) => {
                let is_task_entry =
                    |seq| entry_at(seq).is_some_and(|(verb, kind, _)| (verb, kind) == (log_verb, "task"));
                let is_logged = |task: &OpenedTask<'_>| {
                    let has = |log_verb| self.log.contains(&(log_verb, "task", task.id));
                    match verb {
                        Action::End => has("revoke"),
                        Action::Suspend => has("suspend") || has("revoke"),
                        // The task may never have been suspended.
                        Action::Resume | Action::Block | Action::Unblock => true,
                    }
                };
                // A task that is based on a grant ends with the grant, a task ends with its
                // parties, and a task past its deadline has expired. None needs an entry of its
                // own.
                let is_required = |task: &&OpenedTask<'_>| {
                    let may_have_ended = task.has_grant || self.may_have_ended_with_party(task);
                    task.is_in(selection) && !may_have_ended && call.end < task.valid_until
                };
                seq.is_none_or(is_task_entry) && self.tasks.iter().filter(is_required).all(is_logged)
            }
            // The task may have ended with its grant or with a party.
            (ChangeResult::Already, Target::Task(id))
                if self
                    .tasks
                    .iter()
                    .any(|task| task.id == id && (task.has_grant || self.may_have_ended_with_party(task))) =>
            {
                true
            }
            // An active task may never have been suspended.
            (ChangeResult::Already, _) if *verb == Action::Resume => true,
            (ChangeResult::Done, Target::Agent(_) | Target::Requester(_)) if *verb != Action::End => {
                let before = |seq: u64| entry_at(seq.saturating_sub(1)) == Some((log_verb, kind, key));
                let has_both = |seq| *verb == Action::Unblock || before(seq);
                seq.is_some_and(|seq| entry_at(seq) == Some(("revoke", "registry", "")) && has_both(seq))
            }
            (ChangeResult::Done | ChangeResult::Already, _) => match seq {
                Some(seq) => entry_at(*seq) == Some((log_verb, kind, key)),
                // The token was revoked before, directly or through an ancestor: no new entry is
                // written.
                None if matches!(target, Target::Token(_)) => true,
                None => self.log.contains(&(log_verb, kind, key)),
            },
        };
        (!is_logged).then(|| Violation::MissingEntry { target: target.clone(), seq: *seq })
    }
}

/// Returns the retried requests with more than one log position.
fn keys_applied_twice(history: &[Call]) -> impl Iterator<Item = Violation> {
    let mut seqs_by_key = BTreeMap::<&str, BTreeSet<u64>>::new();
    for call in history {
        if let Event::Changed(Change { result: ChangeResult::Done, key: Some(key), seq: Some(seq), .. }) = &call.event {
            seqs_by_key.entry(key).or_default().insert(*seq);
        }
    }
    let duplicates = seqs_by_key.into_iter().filter(|(_, seqs)| seqs.len() > 1);
    duplicates.map(|(key, seqs)| Violation::AppliedTwice { key: key.to_owned(), seqs })
}
