//! What a run was like, in a few lines.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
    time::Duration,
};

use crate::{
    history::{Call, Change, Said, Target, Told, Verb, What},
    weather::Survived,
};

/// Counts of a history.
#[derive(Debug, Default)]
pub struct Tally {
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
    pub again: usize,
    /// How long a change took that was acknowledged, as whoever wanted it saw it.
    pub took: Vec<Duration>,
    /// How long the replicas took, as the answer said.
    pub propagated: Vec<Duration>,
}

impl Tally {
    pub fn of(history: &[Call]) -> Self {
        let mut tally = Self { calls: history.len(), ..Self::default() };
        let mut unanswered = BTreeSet::new();
        for call in history {
            tally.silent += usize::from(!call.is_answered);
            let unknown = usize::from(call.is_answered);
            match &call.what {
                What::Issued(_) => tally.issued += 1,
                What::Introspected { said: Said::Active, .. } => tally.active += 1,
                What::Introspected { said: Said::Inactive, .. } => tally.inactive += 1,
                What::Introspected { said: Said::Unknown, .. }
                | What::NotIssued(Told::Unknown)
                | What::Prepared(Told::Unknown) => {
                    tally.unknown += unknown;
                }
                What::Changed(change) => match (change.told, change.verb) {
                    (Told::Done, verb) => {
                        match verb {
                            Verb::End | Verb::Disable => tally.ended += 1,
                            Verb::Suspend => tally.suspended += 1,
                            Verb::Resume | Verb::Enable => tally.resumed += 1,
                        }
                        *tally.done.entry(named(change)).or_default() += 1;
                        // The history is in the order of the answers.
                        tally.again += usize::from(change.key.as_ref().is_some_and(|key| unanswered.contains(key)));
                        tally.took.push(call.end.saturating_sub(call.start));
                        tally.propagated.extend(change.propagated);
                    }
                    (Told::Unknown, _) => {
                        tally.unknown += unknown;
                        unanswered.extend(&change.key);
                    }
                    (Told::Already | Told::Refused, _) => {}
                },
                What::NotIssued(_) | What::Prepared(_) | What::Strange(_) => {}
            }
        }
        tally.took.sort_unstable();
        tally.propagated.sort_unstable();
        tally
    }

    /// For whoever reads the output of a test.
    pub fn told(&self, seed: u64, long: Duration, survived: Survived) -> String {
        let Survived { kills, pauses, cuts, blocks, silences, swallowed, restarts } = survived;
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
        let _ = writeln!(text, "by what they were: {done}; {} when asked for again", self.again);
        text + &self.times()
    }

    /// How long changes took.
    pub fn times(&self) -> String {
        let mut text = format!("a change, as the caller saw it: {}\n", spread(&self.took));
        if !self.propagated.is_empty() {
            let _ = writeln!(text, "until all replicas had it (propagated_ms): {}", spread(&self.propagated));
        }
        text
    }
}

/// In a word, what was done.
fn named(change: &Change) -> &'static str {
    match (change.verb, &change.target) {
        (Verb::End, Target::Token(_)) => "end token",
        (Verb::End, Target::Task(_)) => "end task",
        (Verb::End, Target::Requester(_)) => "end requester",
        (Verb::End, Target::Agent(_)) => "end agent",
        (Verb::End, Target::Resource(_)) => "end resource",
        (Verb::End, Target::Issuer(_)) => "end issuer",
        (Verb::End, Target::Grant(_)) => "withdraw grant",
        (Verb::End, Target::Key(_)) => "remove key",
        (Verb::End, Target::Tasks(_)) => "end selection",
        (Verb::Suspend, Target::Tasks(_)) => "suspend selection",
        (Verb::Suspend, Target::Agent(_)) => "suspend agent",
        (Verb::Suspend, _) => "suspend task",
        (Verb::Resume, Target::Tasks(_)) => "resume selection",
        (Verb::Resume, Target::Agent(_)) => "resume agent",
        (Verb::Resume, _) => "resume task",
        (Verb::Disable, Target::Agent(_)) => "disable agent",
        (Verb::Disable, _) => "disable requester",
        (Verb::Enable, Target::Agent(_)) => "enable agent",
        (Verb::Enable, _) => "enable requester",
    }
}

fn spread(sorted: &[Duration]) -> String {
    let at = |share: usize| sorted.get((sorted.len() * share / 100).min(sorted.len().saturating_sub(1)));
    let ms = |at: Option<&Duration>| at.map_or(0, Duration::as_millis);
    format!("p50 {} ms, p99 {} ms, max {} ms", ms(at(50)), ms(at(99)), ms(sorted.last()))
}
