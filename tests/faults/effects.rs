//! What changes amount to. A request that came again is one request; what was said of many is said of each; and to disable is
//! to end what there is and to hold back what comes.

use std::{
    collections::{BTreeSet, HashMap},
    time::Duration,
};

use crate::history::{Call, Change, Selection, Target, Told, Verb, What};

/// One change of one thing: an end, a hold, or the end of a hold.
#[derive(Clone, Debug)]
pub struct Effect {
    pub target: Target,
    pub verb: Verb,
    /// Never `Refused`.
    pub told: Told,
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
        if self.told == Told::Unknown { Duration::MAX } else { self.end }
    }
}

/// A task, as the token tells that it was opened for.
#[derive(Debug)]
pub struct Opened<'a> {
    pub id: &'a str,
    requester: &'a str,
    agents: &'a BTreeSet<String>,
    /// When that was asked for, and when it was there.
    start: Duration,
    end: Duration,
    pub good_until: Duration,
    pub has_grant: bool,
}

impl Opened<'_> {
    /// Whether a change of the selection is one of this task, as far as can be told.
    fn told(&self, selection: &Selection, told: Told) -> Option<Told> {
        if !selection.fits(self) || selection.shown <= self.start {
            // What came after the dry run is not touched.
            None
        } else if self.end <= selection.asked {
            Some(told)
        } else {
            Some(Told::Unknown)
        }
    }

    /// Whether a change of the selection that is done was one of this task for certain.
    pub fn is_in(&self, selection: &Selection) -> bool {
        self.told(selection, Told::Done) == Some(Told::Done)
    }
}

impl Selection {
    fn fits(&self, task: &Opened<'_>) -> bool {
        if !self.ids.is_empty() {
            return self.ids.contains(task.id);
        }
        self.requester.as_ref().is_none_or(|requester| requester == task.requester)
            && self.agent.as_ref().is_none_or(|agent| task.agents.contains(agent))
    }
}

/// The tasks of a history.
pub fn opened(history: &[Call]) -> Vec<Opened<'_>> {
    let opened = history.iter().filter_map(|call| match &call.what {
        What::Issued(token) if token.lineage.is_empty() => Some(Opened {
            id: &token.task,
            requester: &token.requester,
            agents: &token.agents,
            start: call.start,
            end: call.end,
            good_until: token.good_until,
            has_grant: token.grant.is_some(),
        }),
        _ => None,
    });
    opened.collect()
}

/// A request, however often it was sent.
struct Request<'a> {
    change: &'a Change,
    told: Told,
    seq: Option<u64>,
    start: Duration,
    end: Duration,
}

/// Everything that was done, or may have been.
pub fn effects(history: &[Call], tasks: &[Opened<'_>]) -> Vec<Effect> {
    let mut requests = Vec::<Request<'_>>::new();
    let mut known = HashMap::<&str, usize>::new();
    for call in history {
        let What::Changed(change) = &call.what else { continue };
        let &Call { start, end, .. } = call;
        let request = Request { change, told: change.told, seq: change.seq, start, end };
        match (change.told, &change.key) {
            (Told::Refused, _) => {}
            (Told::Done | Told::Unknown, Some(key)) => match known.get(key.as_str()) {
                Some(at) => requests[*at].comes_again(&request),
                None => {
                    known.insert(key, requests.len());
                    requests.push(request);
                }
            },
            // What is so already says nothing of this request.
            (Told::Already, _) | (_, None) => requests.push(request),
        }
    }
    requests.iter().flat_map(|request| request.effects(tasks)).collect()
}

impl<'a> Request<'a> {
    /// It is done once, however often it is sent; if it was acknowledged once, it was done before that.
    fn comes_again(&mut self, again: &Request<'a>) {
        let start = self.start.min(again.start);
        let is_news = again.told == Told::Done && (self.told == Told::Unknown || again.end < self.end);
        if is_news {
            (self.told, self.seq, self.end) = (again.told, again.seq, again.end);
        }
        self.start = start;
    }

    fn effects(&self, tasks: &[Opened<'_>]) -> Vec<Effect> {
        let &Self { change, told, seq, start, end } = self;
        let effect = |target: &Target, verb, told, seq| Effect { target: target.clone(), verb, told, seq, start, end };
        match (&change.target, change.verb) {
            (Target::Tasks(selection), verb) => {
                let each = tasks.iter().filter_map(|task| {
                    let told = task.told(selection, told)?;
                    Some(effect(&Target::Task(task.id.to_owned()), verb, told, None))
                });
                each.collect()
            }
            // The last entry says that the registry changed, the one before it what has ended.
            (target, Verb::Disable) => vec![
                effect(target, Verb::End, told, seq.map(|seq| seq.saturating_sub(1))),
                effect(target, Verb::Suspend, told, None),
            ],
            (target, Verb::Enable) => vec![effect(target, Verb::Resume, told, None)],
            (target, verb) => vec![effect(target, verb, told, seq)],
        }
    }
}
