//! What a run was like, in a few lines.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
    time::Duration,
};

use crate::{
    history::{Action, Call, Change, ChangeResult, Event, IntrospectionResult, Target},
    nemesis::FaultCounts,
};

/// Counts of a history.
#[derive(Debug, Default)]
pub struct Summary {
    pub calls: usize,
    pub issued: usize,
    pub active: usize,
    pub inactive: usize,
    /// "I do not know": 503, or 202.
    pub unknown: usize,
    /// Nobody was there, or said anything in time.
    pub silent: usize,
    pub ended: usize,
    pub suspended: usize,
    pub resumed: usize,
    /// What was acknowledged, by what it was.
    pub done: BTreeMap<&'static str, usize>,
    /// How much of it when it was asked for again.
    pub retried: usize,
    /// How long a change took that was acknowledged, as whoever wanted it saw it.
    pub took: Vec<Duration>,
    /// How long the replicas took, as the answer said.
    pub propagated: Vec<Duration>,
}

impl Summary {
    pub fn new(history: &[Call]) -> Self {
        let mut tally = Self { calls: history.len(), ..Self::default() };
        let mut unanswered = BTreeSet::new();
        for call in history {
            tally.silent += usize::from(!call.is_answered);
            let unknown = usize::from(call.is_answered);
            match &call.event {
                Event::Issued(_) => tally.issued += 1,
                Event::Introspected { result: IntrospectionResult::Active, .. } => tally.active += 1,
                Event::Introspected { result: IntrospectionResult::Inactive, .. } => tally.inactive += 1,
                Event::Introspected { result: IntrospectionResult::Unknown, .. }
                | Event::NotIssued(ChangeResult::Unknown)
                | Event::Prepared(ChangeResult::Unknown) => {
                    tally.unknown += unknown;
                }
                Event::Changed(change) => match (change.result, change.verb) {
                    (ChangeResult::Done, verb) => {
                        match verb {
                            Action::End | Action::Block => tally.ended += 1,
                            Action::Suspend => tally.suspended += 1,
                            Action::Resume | Action::Unblock => tally.resumed += 1,
                        }
                        *tally.done.entry(change_name(change)).or_default() += 1;
                        // The history is in the order of the answers.
                        tally.retried += usize::from(change.key.as_ref().is_some_and(|key| unanswered.contains(key)));
                        tally.took.push(call.end.saturating_sub(call.start));
                        tally.propagated.extend(change.propagated);
                    }
                    (ChangeResult::Unknown, _) => {
                        tally.unknown += unknown;
                        unanswered.extend(&change.key);
                    }
                    (ChangeResult::Already | ChangeResult::Refused, _) => {}
                },
                Event::NotIssued(_) | Event::Prepared(_) | Event::UnexpectedResponse(_) => {}
            }
        }
        tally.took.sort_unstable();
        tally.propagated.sort_unstable();
        tally
    }

    /// For whoever reads the output of a test.
    pub fn render(&self, seed: u64, long: Duration, survived: FaultCounts) -> String {
        let FaultCounts { kills, pauses, cuts, blocks, silences, swallowed, restarts } = survived;
        let Self { calls, issued, active, inactive, unknown, silent, ended, suspended, resumed, .. } = self;
        let mut text = format!("seed {seed}, {} s of bad weather\n", long.as_secs());
        let _ = writeln!(
            text,
            "survived: {kills} kills, {pauses} pauses, {cuts} cuts, {blocks} blocked lines, {silences} silent lines ({swallowed} bytes swallowed), {restarts} restarts of PostgreSQL"
        );
        let _ = writeln!(
            text,
            "{calls} calls: {issued} tokens issued, {active} times active, {inactive} times inactive, {unknown} times 503, {silent} times silence"
        );
        let _ = writeln!(text, "acknowledged: {ended} ends, {suspended} suspensions, {resumed} resumptions");
        let done = self.done.iter().map(|(name, times)| format!("{name} {times}")).collect::<Vec<_>>().join(", ");
        let _ = writeln!(text, "by what they were: {done}; {} when asked for again", self.retried);
        text + &self.render_times()
    }

    /// How long changes took.
    pub fn render_times(&self) -> String {
        let mut text = format!("a change, as the caller saw it: {}\n", percentiles(&self.took));
        if !self.propagated.is_empty() {
            let _ = writeln!(text, "until all replicas had it (propagated_ms): {}", percentiles(&self.propagated));
        }
        text
    }
}

/// In a word, what was done.
fn change_name(change: &Change) -> &'static str {
    match (change.verb, &change.target) {
        (Action::End, Target::Token(_)) => "end token",
        (Action::End, Target::Task(_)) => "end task",
        (Action::End, Target::Requester(_)) => "end requester",
        (Action::End, Target::Agent(_)) => "end agent",
        (Action::End, Target::Resource(_)) => "end resource",
        (Action::End, Target::Issuer(_)) => "end issuer",
        (Action::End, Target::Grant(_)) => "withdraw grant",
        (Action::End, Target::Key(_)) => "remove key",
        (Action::End, Target::Tasks(_)) => "end selection",
        (Action::Suspend, Target::Tasks(_)) => "suspend selection",
        (Action::Suspend, Target::Agent(_)) => "suspend agent",
        (Action::Suspend, _) => "suspend task",
        (Action::Resume, Target::Tasks(_)) => "resume selection",
        (Action::Resume, Target::Agent(_)) => "resume agent",
        (Action::Resume, _) => "resume task",
        (Action::Block, Target::Agent(_)) => "block agent",
        (Action::Block, _) => "block requester",
        (Action::Unblock, Target::Agent(_)) => "unblock agent",
        (Action::Unblock, _) => "unblock requester",
    }
}

fn percentiles(sorted: &[Duration]) -> String {
    let at = |share: usize| sorted.get((sorted.len() * share / 100).min(sorted.len().saturating_sub(1)));
    let ms = |at: Option<&Duration>| at.map_or(0, Duration::as_millis);
    format!("p50 {} ms, p99 {} ms, max {} ms", ms(at(50)), ms(at(99)), ms(sorted.last()))
}
