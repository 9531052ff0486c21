//! The summary of a run.

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
    /// Calls with an unknown result: answered 503 or 202.
    pub unknown: usize,
    /// Calls without an answer in time.
    pub silent: usize,
    pub ended: usize,
    pub suspended: usize,
    pub resumed: usize,
    /// Acknowledged changes, by kind.
    pub done: BTreeMap<&'static str, usize>,
    /// Changes that were acknowledged on retry.
    pub retried: usize,
    /// The latencies of acknowledged changes, as the callers observed them.
    pub took: Vec<Duration>,
    /// The propagation times that the answers named.
    pub propagated: Vec<Duration>,
}

impl Summary {
    /// Counts the calls of a history.
    pub fn new(history: &[Call]) -> Self {
        let mut summary = Self { calls: history.len(), ..Self::default() };
        let mut unacknowledged = BTreeSet::new();
        for call in history {
            summary.silent += usize::from(!call.is_answered);
            let answered = usize::from(call.is_answered);
            match &call.event {
                Event::Issued(_) => summary.issued += 1,
                Event::Introspected { result: IntrospectionResult::Active, .. } => summary.active += 1,
                Event::Introspected { result: IntrospectionResult::Inactive, .. } => summary.inactive += 1,
                Event::Introspected { result: IntrospectionResult::Unknown, .. }
                | Event::NotIssued(ChangeResult::Unknown)
                | Event::Prepared(ChangeResult::Unknown) => {
                    summary.unknown += answered;
                }
                Event::Changed(change) => match (change.result, change.verb) {
                    (ChangeResult::Done, verb) => {
                        match verb {
                            Action::End | Action::Block => summary.ended += 1,
                            Action::Suspend => summary.suspended += 1,
                            Action::Resume | Action::Unblock => summary.resumed += 1,
                        }
                        *summary.done.entry(change_name(change)).or_default() += 1;
                        // The history is in the order of the completions.
                        summary.retried +=
                            usize::from(change.key.as_ref().is_some_and(|key| unacknowledged.contains(key)));
                        summary.took.push(call.end.saturating_sub(call.start));
                        summary.propagated.extend(change.propagated);
                    }
                    (ChangeResult::Unknown, _) => {
                        summary.unknown += answered;
                        unacknowledged.extend(&change.key);
                    }
                    (ChangeResult::Already | ChangeResult::Refused, _) => {}
                },
                Event::NotIssued(_) | Event::Prepared(_) | Event::UnexpectedResponse(_) => {}
            }
        }
        summary.took.sort_unstable();
        summary.propagated.sort_unstable();
        summary
    }

    /// Renders the summary for the output of the test.
    pub fn render(&self, seed: u64, duration: Duration, faults: FaultCounts) -> String {
        let FaultCounts { kills, pauses, cuts, blocks, silences, swallowed, restarts } = faults;
        let Self { calls, issued, active, inactive, unknown, silent, ended, suspended, resumed, .. } = self;
        let mut text = format!("seed {seed}, {} s of faults\n", duration.as_secs());
        let _ = writeln!(
            text,
            "faults injected: {kills} kills, {pauses} pauses, {cuts} cut connections, {blocks} blocked links, {silences} half-open links ({swallowed} bytes lost), {restarts} restarts of PostgreSQL"
        );
        let _ = writeln!(
            text,
            "{calls} calls: {issued} tokens issued, {active} active, {inactive} inactive, {unknown} answered 503, {silent} without a response"
        );
        let _ = writeln!(
            text,
            "acknowledged: {ended} ends, {suspended} suspensions, {resumed} resumptions; {} of them on retry",
            self.retried
        );
        let done = self.done.iter().map(|(name, times)| format!("{name} {times}")).collect::<Vec<_>>().join(", ");
        let _ = writeln!(text, "by kind: {done}");
        text + &self.render_times()
    }

    /// Renders the latencies of changes.
    pub fn render_times(&self) -> String {
        let mut text = format!("latency of a change, seen by the caller: {}\n", percentiles(&self.took));
        if !self.propagated.is_empty() {
            let _ = writeln!(text, "latency of a change, propagated_ms: {}", percentiles(&self.propagated));
        }
        text
    }
}

/// Returns the kind of a change.
fn change_name(change: &Change) -> &'static str {
    match (change.verb, &change.target) {
        (Action::End, Target::Token(_)) => "end token",
        (Action::End, Target::Task(_)) => "end task",
        (Action::End, Target::Requester(_)) => "end requester",
        (Action::End, Target::Agent(_)) => "end agent",
        (Action::End, Target::Resource(_)) => "end resource",
        (Action::End, Target::Issuer(_)) => "end issuer",
        (Action::End, Target::Grant(_)) => "revoke grant",
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
