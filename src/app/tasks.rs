//! The life of a task: read, suspend, resume, complete, fail; and its end by the deadline.
//!
//! A change of state is one write: the new state, on the condition that nobody changed the old one meanwhile, the entry in
//! the revocation log, the audit record. At the deadline there is no entry: no token outlives its task.

use std::time::Duration;

use futures_util::future::try_join_all;
use serde_json::json;

use crate::{
    app::{
        ApiCaller, AuthFault, BadRequest, Conflict, Cx, Failure, RequesterCaller, Service, admin::ATTEMPTS, again,
        publish::Aside,
    },
    domain::{
        audit::{Event, Outcome, Record},
        client::Client,
        id::{OutcomeText, Reason, TaskId},
        limits::CLOCKS_MAY_DIFFER,
        registry::{Kind, Registry},
        replica::Spread,
        revocation::{NewEntry, Target, Verb},
        task::{Act, CannotTurn, Party, Requester, Task, TaskState, Turn},
        time::Timestamp,
    },
    ports::{Change, Expected, Idempotency, Outage, Page, Paged, TaskFilter, TokenFilter, Write, Written},
};

/// How many tasks a sweep ends at a time: where the queue has room for them, together they are one commit.
const AT_A_TIME: u32 = 64;
/// How often a sweep looks for more before it leaves the rest to the next one.
const ROUNDS: usize = 1000;

/// What is done to a task, and what is said about it.
#[derive(Clone, Debug)]
pub struct Turning {
    /// What is done.
    pub act: Act,
    /// Why.
    pub reason: Option<Reason>,
    /// What came of the work.
    pub outcome: Option<OutcomeText>,
}

/// A task whose state was changed, and how far the word of it got.
#[derive(Debug)]
pub struct TurnedTask {
    /// The task as it is now.
    pub task: Task,
    /// The entry of the log, and who knows of it.
    pub spread: Spread,
}

impl Service {
    /// One task, for an agent that takes part in it. For everybody else there is none.
    pub async fn read_own_task(&self, caller: &ApiCaller, id: TaskId) -> Result<Task, Failure> {
        let agent = match caller.client().client()? {
            Client::Agent(agent) => &agent.id,
            Client::Resource(_) | Client::Admin(_) => return Err(AuthFault::NotForThisClient.into()),
        };
        let registry = &caller.client().view().registry;
        let task = self.store().task(id).await?.filter(|task| registry.still_has(task));
        let task = task.ok_or(Conflict::NotFound("task"))?;
        if task.root_agent == *agent {
            return Ok(task);
        }
        let its_tokens = TokenFilter { task: Some(id), client: Some(agent.clone()), ..TokenFilter::default() };
        let newest = self.store().tokens(&its_tokens, &Page { after: None, limit: 1 }).await?.items;
        let takes_part = newest.iter().any(|token| registry.was_there(Kind::Agent, agent.as_str(), token.rev));
        if takes_part { Ok(task) } else { Err(Conflict::NotFound("task").into()) }
    }

    /// Changes the state of a task for the agent that opened it. An agent that was given a part reads, and no more.
    /// Returns when no replica answers by the old state any more, or after so long.
    pub async fn turn_own_task(
        &self,
        caller: &ApiCaller,
        id: TaskId,
        turning: &Turning,
        key: Option<String>,
        patience: Option<Duration>,
        cx: &Cx,
    ) -> Result<TurnedTask, Failure> {
        let task = self.read_own_task(caller, id).await?;
        let agent = caller.client().id();
        if task.root_agent != *agent {
            return Err(AuthFault::NotForThisClient.into());
        }
        self.turn_task(&Party::Agent(agent.clone()), task, turning, key, patience, cx).await
    }

    /// The tasks that an agent opened, newest first: where it left off, for one that starts again.
    pub async fn list_opened_tasks(
        &self,
        caller: &ApiCaller,
        filter: TaskFilter,
        page: &Page,
    ) -> Result<Paged<Task>, Failure> {
        let Client::Agent(agent) = caller.client().client()? else {
            return Err(AuthFault::NotForThisClient.into());
        };
        if filter.agent.as_ref().is_some_and(|wanted| *wanted != agent.id) {
            return Err(BadRequest::Invalid("agent", "an agent sees the tasks that it opened itself").into());
        }
        let filter = TaskFilter { agent: Some(agent.id.clone()), ..filter };
        Ok(of_today(self.store().tasks(&filter, page).await?, &caller.client().view().registry))
    }

    /// A requester's own tasks, newest first.
    pub async fn list_own_tasks(
        &self,
        caller: &RequesterCaller,
        filter: TaskFilter,
        page: &Page,
    ) -> Result<Paged<Task>, Failure> {
        let Requester { issuer, subject } = caller.requester().clone();
        let filter = TaskFilter { requester: Some((issuer, subject.into())), ..filter };
        Ok(of_today(self.store().tasks(&filter, page).await?, &caller.view().registry))
    }

    /// One of a requester's own tasks. Somebody else's can't be told from none.
    pub async fn read_requested_task(&self, caller: &RequesterCaller, id: TaskId) -> Result<Task, Failure> {
        let is_theirs = |task: &Task| task.requester == *caller.requester() && caller.view().registry.still_has(task);
        let task = self.store().task(id).await?.filter(is_theirs);
        Ok(task.ok_or(Conflict::NotFound("task"))?)
    }

    /// Changes the state of a task for the requester in whose name it is. Returns when no replica answers by the old state
    /// any more, or after so long.
    pub async fn turn_requested_task(
        &self,
        caller: &RequesterCaller,
        id: TaskId,
        turning: &Turning,
        key: Option<String>,
        patience: Option<Duration>,
        cx: &Cx,
    ) -> Result<TurnedTask, Failure> {
        let task = self.read_requested_task(caller, id).await?;
        self.turn_task(&Party::Requester(caller.requester().clone()), task, turning, key, patience, cx).await
    }

    /// Changes the state of a task for an admin. Returns when no replica answers by the old state any more, or after so
    /// long.
    pub async fn turn_any_task(
        &self,
        admin: &ApiCaller,
        id: TaskId,
        turning: &Turning,
        key: Option<String>,
        patience: Option<Duration>,
        cx: &Cx,
    ) -> Result<TurnedTask, Failure> {
        let Some(task) = self.store().task(id).await? else {
            let record = Record {
                admin: Some(admin.name()),
                task: Some(id),
                asked: Some(json!({"act": turning.act})),
                request_id: Some(cx.request_id.clone()),
                ..Record::new(cx.now, Event::TaskTurn, Outcome::Done)
            };
            return Err(self.refused_as_it_is(record, Conflict::NotFound("task")).await);
        };
        self.turn_task(&Party::Admin(admin.name()), task, turning, key, patience, cx).await
    }

    async fn turn_task(
        &self,
        by: &Party,
        mut task: Task,
        turning: &Turning,
        key: Option<String>,
        patience: Option<Duration>,
        cx: &Cx,
    ) -> Result<TurnedTask, Failure> {
        check_words(turning)?;
        let asked = json!(["turn", task.id, turning.act, turning.reason, turning.outcome]);
        let request = again::request(by.to_string(), key, asked.to_string(), cx);
        if let Some(turned) = self.turned_before(request.as_ref(), &task, patience).await? {
            return Ok(turned);
        }
        for _ in 0..ATTEMPTS {
            let state = match task.after(turning.act, by, cx.now) {
                Ok(state) => state,
                Err(refusal) => return Err(self.refuse_turn(by, &task, turning, refusal, cx).await),
            };
            let (turn, entry) = planned_turn(&task, state, by, turning, cx);
            let record = turn_record(by, &task, &turn, cx);
            let answer = json!((task.turns.saturating_add(1), &turn)).to_string();
            let idempotency = request.clone().map(|request| Idempotency { answer, ..request });
            let (expected, change) = turned_from(&task, turn.clone());
            let (expected, changes, log, audit) = (Some(expected), vec![change], vec![entry], vec![record]);
            let write = Write { expected, idempotency, changes, log, audit, ..Write::default() };
            let (written, spread) = self.0.journal.publish(write, patience).await?;
            let before = again::first_answer::<(u64, Turn)>(request.as_ref(), &written)?;
            match (before, spread) {
                (Some((turns, turn)), Some(spread)) => {
                    return Ok(TurnedTask { task: Task { turns, ..turned(task, turn) }, spread });
                }
                (None, Some(spread)) => return Ok(TurnedTask { task: turned(task, turn), spread }),
                (_, None) => {}
            }
            task = self.read_task(task.id).await?;
        }
        let record = turn_record(by, &task, &turn(task.state, by, turning, cx), cx);
        let asked = Some(json!({"act": turning.act}));
        Err(self.refused(Record { asked, granted: None, ..record }, Conflict::Contended))
    }

    /// What was answered to this request the first time. Who hears it again may not have heard it then: it holds
    /// everywhere now as well.
    async fn turned_before(
        &self,
        request: Option<&Idempotency>,
        task: &Task,
        patience: Option<Duration>,
    ) -> Result<Option<TurnedTask>, Failure> {
        let Some(asked) = request else { return Ok(None) };
        let Some(before) = self.store().answered(&asked.caller, &asked.key).await? else { return Ok(None) };
        let answer = again::first_answer::<(u64, Turn)>(request, &before)?;
        let (Some((turns, turn)), Written::Before { seq: Some(seq), .. }) = (answer, before) else { return Ok(None) };
        let spread = self.0.journal.spread(seq, patience).await?;
        Ok(Some(TurnedTask { task: Task { turns, ..turned(task.clone(), turn) }, spread }))
    }

    async fn refuse_turn(&self, by: &Party, task: &Task, turning: &Turning, refusal: CannotTurn, cx: &Cx) -> Failure {
        let record = Record {
            asked: Some(json!({"act": turning.act})),
            granted: None,
            outcome: Outcome::Refused,
            reason: Some(refusal.to_string()),
            ..turn_record(by, task, &turn(task.state, by, turning, cx), cx)
        };
        let recorded = self.0.journal.commit(Write { audit: vec![record], ..Write::default() }).await;
        // The answer says which state the task is in, so that state is the one that everybody goes by.
        match recorded.and(self.0.journal.settle().await) {
            Ok(()) => Conflict::CannotTurn(refusal).into(),
            Err(outage) => outage.into(),
        }
    }

    /// Brings tasks past their deadline to their end. Any number of replicas may do this at once: each task is ended, and
    /// recorded, by one of them.
    pub(super) async fn expire_tasks(&self, cx: &Cx) -> Result<(), Failure> {
        self.end_tasks(|limit| self.store().tasks_due(cx.now, limit), |_| (Act::Expire, Party::Deadline), cx).await
    }

    /// Brings tasks to their end whose agent, or whose requester's issuer, was removed: nobody can join them any more. Any number
    /// of replicas may do this at once.
    pub(super) async fn end_tasks_of_removed(&self, cx: &Cx) -> Result<(), Failure> {
        let how = |task: &Task| {
            let is_over = task.deadline.is_past(cx.now);
            if is_over { (Act::Expire, Party::Deadline) } else { (Act::Revoke, Party::Removal) }
        };
        self.end_tasks(|limit| self.store().tasks_of_removed(limit), how, cx).await
    }

    /// Ends tasks whose tokens are dead by themselves: there is no entry in the log.
    pub(super) async fn end_tasks<F>(
        &self,
        due: impl Fn(u32) -> F,
        how: impl Fn(&Task) -> (Act, Party),
        cx: &Cx,
    ) -> Result<(), Failure>
    where
        F: Future<Output = Result<Vec<Task>, Outage>>,
    {
        // Those who are waited for need the queue more.
        let at_once = (self.settings().write_queue / 8).max(1);
        for _ in 0..ROUNDS {
            let due = due(AT_A_TIME).await?;
            let is_last = due.len() < usize::try_from(AT_A_TIME).unwrap_or(usize::MAX);
            let ends = due.iter().filter_map(|task| {
                let (act, by) = how(task);
                let state = task.after(act, &by, cx.now).ok()?;
                let turn = turn(state, &by, &Turning { act, reason: None, outcome: None }, cx);
                let record = turn_record(&by, task, &turn, cx);
                let (expected, change) = turned_from(task, turn);
                Some(Aside { expected, idempotency: None, change, record })
            });
            let mut ends = ends.collect::<Vec<_>>();
            while !ends.is_empty() {
                let few = ends.drain(..at_once.min(ends.len()));
                // One that moved on meanwhile was ended by somebody else.
                try_join_all(few.map(|aside| self.0.journal.commit_aside(aside))).await?;
            }
            if is_last {
                break;
            }
        }
        Ok(())
    }
}

/// A page without the tasks of others of the same names who were removed.
fn of_today(Paged { items, next }: Paged<Task>, registry: &Registry) -> Paged<Task> {
    Paged { items: items.into_iter().filter(|task| registry.still_has(task)).collect(), next }
}

fn check_words(turning: &Turning) -> Result<(), BadRequest> {
    let needs_reason = matches!(turning.act, Act::Suspend | Act::Fail);
    if needs_reason && turning.reason.is_none() {
        return Err(BadRequest::Missing("reason"));
    }
    if turning.outcome.is_some() && !matches!(turning.act, Act::Complete | Act::Fail) {
        return Err(BadRequest::Invalid("outcome", "only what ends has one"));
    }
    Ok(())
}

/// A change of state: what the task says of it, and what the log says.
pub(super) fn planned_turn(task: &Task, state: TaskState, by: &Party, turning: &Turning, cx: &Cx) -> (Turn, NewEntry) {
    let entry = NewEntry {
        verb: match turning.act {
            Act::Suspend => Verb::Suspend,
            Act::Resume => Verb::Resume,
            Act::Complete | Act::Fail | Act::Expire | Act::Revoke => Verb::Revoke,
        },
        target: Target::Task(task.id),
        reason: turning.reason.as_ref().map_or_else(|| turning.act.done().to_owned(), ToString::to_string),
        by: by.to_string(),
        at: cx.now,
        forget_after: task_forgotten(task, cx.now),
    };
    (turn(state, by, turning, cx), entry)
}

fn turn(state: TaskState, by: &Party, turning: &Turning, cx: &Cx) -> Turn {
    Turn { state, at: cx.now, by: by.to_string(), reason: turning.reason.clone(), outcome: turning.outcome.clone() }
}

fn turned(task: Task, turn: Turn) -> Task {
    Task { state: turn.state, turns: task.turns.saturating_add(1), turned: Some(turn), ..task }
}

/// The change, and what it builds on: that nobody changes the state in between.
fn turned_from(task: &Task, turn: Turn) -> (Expected, Change) {
    (Expected::Task(task.id, task.turns), Change::TurnTask(task.id, turn))
}

pub(super) fn turn_record(by: &Party, task: &Task, turn: &Turn, cx: &Cx) -> Record {
    let (client, admin, by) = match by {
        Party::Agent(id) => (Some(id.clone()), None, None),
        Party::Admin(name) => (None, Some(name.clone()), None),
        Party::Requester(_) | Party::Grant(_) | Party::Removal => (None, None, Some(by.to_string())),
        Party::Deadline => (None, None, None),
    };
    Record {
        client,
        admin,
        by,
        granted: Some(match &turn.outcome {
            Some(outcome) => json!({"state": turn.state, "outcome": outcome}),
            None => json!({"state": turn.state}),
        }),
        reason: turn.reason.as_ref().map(ToString::to_string),
        request_id: Some(cx.request_id.clone()),
        ..about_task(task, Record::new(cx.now, Event::TaskTurn, Outcome::Done))
    }
}

/// The record with what every record about a task has.
pub(super) fn about_task(task: &Task, record: Record) -> Record {
    Record {
        task: Some(task.id),
        purpose: Some(task.purpose.to_string()),
        authority_hash: Some(task.authority.hash()),
        requester: Some(task.requester.clone()),
        agents: vec![task.root_agent.to_string()],
        ..record
    }
}

/// When an entry about a task may be forgotten: no token outlives it. All entries about one task are forgotten together.
pub(super) fn task_forgotten(task: &Task, now: Timestamp) -> Timestamp {
    task.deadline.max(now).after(CLOCKS_MAY_DIFFER)
}
