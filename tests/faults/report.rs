//! What a run was like, in a few lines.

use std::{fmt::Write, time::Duration};

use crate::{
    history::{Call, Said, Told, Verb, What},
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
    /// How long a change took that was acknowledged, as whoever wanted it saw it.
    pub took: Vec<Duration>,
    /// How long the replicas took, as the answer said.
    pub propagated: Vec<Duration>,
}

impl Tally {
    pub fn of(history: &[Call]) -> Self {
        let mut tally = Self { calls: history.len(), ..Self::default() };
        for call in history {
            tally.silent += usize::from(!call.is_answered);
            let unknown = usize::from(call.is_answered);
            match &call.what {
                What::Issued(_) => tally.issued += 1,
                What::Introspected { said: Said::Active, .. } => tally.active += 1,
                What::Introspected { said: Said::Inactive, .. } => tally.inactive += 1,
                What::Introspected { said: Said::Unknown, .. } | What::NotIssued(Told::Unknown) => {
                    tally.unknown += unknown;
                }
                What::Changed(change) => match (change.told, change.verb) {
                    (Told::Done, verb) => {
                        match verb {
                            Verb::End => tally.ended += 1,
                            Verb::Suspend => tally.suspended += 1,
                            Verb::Resume => tally.resumed += 1,
                        }
                        tally.took.push(call.end.saturating_sub(call.start));
                        tally.propagated.extend(change.propagated);
                    }
                    (Told::Unknown, _) => tally.unknown += unknown,
                    (Told::Already | Told::Refused, _) => {}
                },
                What::NotIssued(_) | What::Strange(_) => {}
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

fn spread(sorted: &[Duration]) -> String {
    let at = |share: usize| sorted.get((sorted.len() * share / 100).min(sorted.len().saturating_sub(1)));
    let ms = |at: Option<&Duration>| at.map_or(0, Duration::as_millis);
    format!("p50 {} ms, p99 {} ms, max {} ms", ms(at(50)), ms(at(99)), ms(sorted.last()))
}
