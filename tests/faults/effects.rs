//! The effects of the changes in a history. A retried request is one request. A change of a
//! selection is a change of each selected task. A block ends the existing tokens and suspends
//! later ones.

use std::{
    collections::{BTreeSet, HashMap},
    time::Duration,
};

use crate::history::{Action, Call, Change, ChangeResult, Event, Target, TaskSelection};

/// One change of one target: an end, a suspension or a resumption.
#[derive(Clone, Debug)]
pub struct Effect {
    pub target: Target,
    pub verb: Action,
    /// Never `Refused`.
    pub result: ChangeResult,
    /// Its position in the log, if the answer named one.
    pub seq: Option<u64>,
    /// The invocation: the change did not take effect before.
    pub start: Duration,
    /// The completion, which is the acknowledgement if the change was acknowledged.
    pub end: Duration,
}

impl Effect {
    /// Returns the latest time at which the change may have taken effect.
    pub fn latest(&self) -> Duration {
        if self.result == ChangeResult::Unknown { Duration::MAX } else { self.end }
    }
}

/// A task, as described by the first token issued for it.
#[derive(Debug)]
pub struct OpenedTask<'a> {
    pub id: &'a str,
    pub requester: &'a str,
    pub agents: &'a BTreeSet<String>,
    /// Invocation and completion of the call that opened the task.
    start: Duration,
    end: Duration,
    pub valid_until: Duration,
    pub has_grant: bool,
}

impl OpenedTask<'_> {
    /// Returns the result for this task of a change of the selection, or `None` if the change does
    /// not concern the task. `Unknown` if the task was opened during the dry run.
    fn result_for(&self, selection: &TaskSelection, result: ChangeResult) -> Option<ChangeResult> {
        if !selection.matches(self) || selection.dry_run_ended <= self.start {
            // A task opened after the dry run is not affected.
            None
        } else if self.end <= selection.dry_run_started {
            Some(result)
        } else {
            Some(ChangeResult::Unknown)
        }
    }

    /// Returns whether a completed change of the selection certainly changed this task.
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

/// Returns the tasks opened in a history.
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

/// A request, with all its retries.
struct ChangeRequest<'a> {
    change: &'a Change,
    result: ChangeResult,
    seq: Option<u64>,
    start: Duration,
    end: Duration,
}

/// Returns every effect that took place or may have taken place.
pub fn effects(history: &[Call], tasks: &[OpenedTask<'_>]) -> Vec<Effect> {
    let mut requests = Vec::<ChangeRequest<'_>>::new();
    let mut index_by_key = HashMap::<&str, usize>::new();
    for call in history {
        let Event::Changed(change) = &call.event else { continue };
        let &Call { start, end, .. } = call;
        let request = ChangeRequest { change, result: change.result, seq: change.seq, start, end };
        match (change.result, &change.key) {
            (ChangeResult::Refused, _) => {}
            (ChangeResult::Done | ChangeResult::Unknown, Some(key)) => match index_by_key.get(key.as_str()) {
                Some(at) => requests[*at].merge_retry(&request),
                None => {
                    index_by_key.insert(key, requests.len());
                    requests.push(request);
                }
            },
            // `Already` says nothing about an earlier attempt of this request.
            (ChangeResult::Already, _) | (_, None) => requests.push(request),
        }
    }
    requests.iter().flat_map(|request| request.effects(tasks)).collect()
}

impl<'a> ChangeRequest<'a> {
    /// Merges a retry. The request takes effect once, before its first acknowledgement.
    fn merge_retry(&mut self, retry: &ChangeRequest<'a>) {
        let start = self.start.min(retry.start);
        let is_first_acknowledgement =
            retry.result == ChangeResult::Done && (self.result == ChangeResult::Unknown || retry.end < self.end);
        if is_first_acknowledgement {
            (self.result, self.seq, self.end) = (retry.result, retry.seq, retry.end);
        }
        self.start = start;
    }

    fn effects(&self, tasks: &[OpenedTask<'_>]) -> Vec<Effect> {
        let &Self { change, result, seq, start, end } = self;
        let effect =
            |target: &Target, verb, result, seq| Effect { target: target.clone(), verb, result, seq, start, end };
        match (&change.target, change.verb) {
            (Target::Tasks(selection), verb) => {
                let each = tasks.iter().filter_map(|task| {
                    let result = task.result_for(selection, result)?;
                    Some(effect(&Target::Task(task.id.to_owned()), verb, result, None))
                });
                each.collect()
            }
            // The last entry is the change of the registry; the one before it is the end.
            (target, Action::Block) => vec![
                effect(target, Action::End, result, seq.map(|seq| seq.saturating_sub(1))),
                effect(target, Action::Suspend, result, None),
            ],
            (target, Action::Unblock) => vec![effect(target, Action::Resume, result, None)],
            (target, verb) => vec![effect(target, verb, result, seq)],
        }
    }
}
