//! What changes amount to. A request that came again is one request; what was said of many is said of each; and to disable is
//! to end what there is and to hold back what comes.

use std::{
    collections::{BTreeSet, HashMap},
    time::Duration,
};

use crate::history::{Action, Call, Change, ChangeResult, Event, Target, TaskSelection};

/// One change of one thing: an end, a hold, or the end of a hold.
#[derive(Clone, Debug)]
pub struct Effect {
    pub target: Target,
    pub verb: Action,
    /// Never `Refused`.
    pub result: ChangeResult,
    /// Its place in the log, where the answer said it.
    pub seq: Option<u64>,
    /// It did not happen before this.
    pub start: Duration,
    /// Then it was acknowledged, if it was.
    pub end: Duration,
}

impl Effect {
    /// When it may have happened for the last time.
    pub fn latest(&self) -> Duration {
        if self.result == ChangeResult::Unknown { Duration::MAX } else { self.end }
    }
}

/// A task, as the token tells that it was opened for.
#[derive(Debug)]
pub struct OpenedTask<'a> {
    pub id: &'a str,
    requester: &'a str,
    agents: &'a BTreeSet<String>,
    /// When that was asked for, and when it was there.
    start: Duration,
    end: Duration,
    pub valid_until: Duration,
    pub has_grant: bool,
}

impl OpenedTask<'_> {
    /// Whether a change of the selection is one of this task, as far as can be told.
    fn result_for(&self, selection: &TaskSelection, told: ChangeResult) -> Option<ChangeResult> {
        if !selection.matches(self) || selection.dry_run_ended <= self.start {
            // What came after the dry run is not touched.
            None
        } else if self.end <= selection.dry_run_started {
            Some(told)
        } else {
            Some(ChangeResult::Unknown)
        }
    }

    /// Whether a change of the selection that is done was one of this task for certain.
    pub fn is_in(&self, selection: &TaskSelection) -> bool {
        self.result_for(selection, ChangeResult::Done) == Some(ChangeResult::Done)
    }
}

impl TaskSelection {
    fn matches(&self, task: &OpenedTask<'_>) -> bool {
        if !self.ids.is_empty() {
            return self.ids.contains(task.id);
        }
        self.requester.as_ref().is_none_or(|requester| requester == task.requester)
            && self.agent.as_ref().is_none_or(|agent| task.agents.contains(agent))
    }
}

/// The tasks of a history.
pub fn opened_tasks(history: &[Call]) -> Vec<OpenedTask<'_>> {
    let opened = history.iter().filter_map(|call| match &call.event {
        Event::Issued(token) if token.lineage.is_empty() => Some(OpenedTask {
            id: &token.task,
            requester: &token.requester,
            agents: &token.agents,
            start: call.start,
            end: call.end,
            valid_until: token.valid_until,
            has_grant: token.grant.is_some(),
        }),
        _ => None,
    });
    opened.collect()
}

/// A request, however often it was sent.
struct ChangeRequest<'a> {
    change: &'a Change,
    result: ChangeResult,
    seq: Option<u64>,
    start: Duration,
    end: Duration,
}

/// Everything that was done, or may have been.
pub fn effects(history: &[Call], tasks: &[OpenedTask<'_>]) -> Vec<Effect> {
    let mut requests = Vec::<ChangeRequest<'_>>::new();
    let mut known = HashMap::<&str, usize>::new();
    for call in history {
        let Event::Changed(change) = &call.event else { continue };
        let &Call { start, end, .. } = call;
        let request = ChangeRequest { change, result: change.result, seq: change.seq, start, end };
        match (change.result, &change.key) {
            (ChangeResult::Refused, _) => {}
            (ChangeResult::Done | ChangeResult::Unknown, Some(key)) => match known.get(key.as_str()) {
                Some(at) => requests[*at].merge_retry(&request),
                None => {
                    known.insert(key, requests.len());
                    requests.push(request);
                }
            },
            // What is so already says nothing of this request.
            (ChangeResult::Already, _) | (_, None) => requests.push(request),
        }
    }
    requests.iter().flat_map(|request| request.effects(tasks)).collect()
}

impl<'a> ChangeRequest<'a> {
    /// It is done once, however often it is sent; if it was acknowledged once, it was done before that.
    fn merge_retry(&mut self, again: &ChangeRequest<'a>) {
        let start = self.start.min(again.start);
        let is_news =
            again.result == ChangeResult::Done && (self.result == ChangeResult::Unknown || again.end < self.end);
        if is_news {
            (self.result, self.seq, self.end) = (again.result, again.seq, again.end);
        }
        self.start = start;
    }

    fn effects(&self, tasks: &[OpenedTask<'_>]) -> Vec<Effect> {
        let &Self { change, result: told, seq, start, end } = self;
        let effect =
            |target: &Target, verb, told, seq| Effect { target: target.clone(), verb, result: told, seq, start, end };
        match (&change.target, change.verb) {
            (Target::Tasks(selection), verb) => {
                let each = tasks.iter().filter_map(|task| {
                    let told = task.result_for(selection, told)?;
                    Some(effect(&Target::Task(task.id.to_owned()), verb, told, None))
                });
                each.collect()
            }
            // The last entry says that the registry changed, the one before it what has ended.
            (target, Action::Block) => vec![
                effect(target, Action::End, told, seq.map(|seq| seq.saturating_sub(1))),
                effect(target, Action::Suspend, told, None),
            ],
            (target, Action::Unblock) => vec![effect(target, Action::Resume, told, None)],
            (target, verb) => vec![effect(target, verb, told, seq)],
        }
    }
}
