//! Many tasks at once: first a dry run, which says what would happen and gives a confirmation; then, with it, the act
//! itself, in one transaction.
//!
//! The confirmation is a text that only we can mark. It binds the admin, the act, the selection, the moment up to which
//! tasks were opened, which tasks were shown, and its own end. Nothing has to be stored for it.

use std::{collections::BTreeSet, time::Duration};

use serde_json::{Value, json};

use crate::{
    app::{
        ApiCaller, BadRequest, Conflict, Cx, Failure, Service, Turning, What,
        admin::ATTEMPTS,
        dry_run::DryRun,
        revoke::{IDEMPOTENCY, NO_PLACE},
        tasks::{about_task, planned_turn, turn_record},
    },
    domain::{
        audit::{Event, Outcome, Record},
        decode, encode,
        id::{Reason, TaskId},
        replica::Spread,
        revocation::{Seq, Target, Verb},
        shown::Shown,
        task::{Act, Party, Task, TaskState},
        time::{Lifetime, Timestamp},
    },
    ports::{Change, Expected, Idempotency, Outage, Page, TaskFilter, TokenFilter, Write, Written},
};

/// The most tasks of one selection: they are one transaction.
pub const MOST_TASKS: usize = 1000;
/// How long a confirmation is good.
const CONFIRM_WITHIN: Lifetime = Lifetime::minutes(5);

/// Tasks that something is done to together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selection {
    /// These.
    These(BTreeSet<TaskId>),
    /// All that fit.
    Fitting(TaskFilter),
}

impl Selection {
    /// For records and for what is confirmed: the same text for the same selection.
    fn asked(&self) -> Value {
        match self {
            Self::These(ids) => json!({"ids": ids}),
            Self::Fitting(filter) => json!({
                "requester": filter.requester,
                "agent": filter.agent,
                "state": filter.state,
                "resource": filter.resource,
                "opened_from": filter.from,
                "opened_before": filter.until,
            }),
        }
    }
}

/// What an admin wants to do to many tasks.
#[derive(Debug)]
pub struct Bulk {
    /// Which.
    pub tasks: Selection,
    /// What.
    pub what: What,
    /// Why.
    pub reason: Reason,
    /// What the dry run gave.
    pub confirmation: Option<String>,
}

/// It is durable.
#[derive(Debug, PartialEq, Eq)]
pub struct Turned {
    /// The place of the last entry in the log.
    pub seq: Seq,
    /// How many tasks it was.
    pub tasks: u64,
    /// When.
    pub at: Timestamp,
    /// How far it got.
    pub spread: Spread,
}

impl Bulk {
    fn act(&self) -> Result<Act, BadRequest> {
        match self.what {
            What::Revoke => Ok(Act::Revoke),
            What::Suspend => Ok(Act::Suspend),
            What::Resume => Ok(Act::Resume),
            What::Disable | What::Enable => Err(BadRequest::Invalid("verb", "tasks are not disabled or enabled")),
        }
    }
}

/// What a confirmation says, beside what the request says again.
#[derive(Clone, Debug)]
struct Confirmed {
    until: Timestamp,
    shown: Shown,
    expires: Timestamp,
    /// No two are the same: what was done by one does not stand for what another one is for.
    once: String,
}

impl Confirmed {
    fn text(&self) -> String {
        format!("{}.{}.{}.{}", self.until.unix(), self.shown.text(), self.expires.unix(), self.once)
    }

    /// Reads it, with the mark on it. Whose it is shows in the mark.
    fn read(confirmation: &str) -> Option<(Self, Vec<u8>)> {
        let parts = confirmation.split('.').collect::<Vec<_>>();
        let [until, shown, expires, once, mark] = *parts.as_slice() else { return None };
        let time = |text: &str| text.parse().ok().map(Timestamp::from_unix);
        let (until, shown, expires) = (time(until)?, Shown::parse(shown)?, time(expires)?);
        Some((Self { until, shown, expires, once: once.to_owned() }, decode(mark)?))
    }
}

impl Service {
    /// What the act would do now; nothing happens.
    pub async fn dry_run_tasks(&self, admin: &ApiCaller, bulk: &Bulk, cx: &Cx) -> Result<DryRun, Failure> {
        // Tasks of this second are in; those that are opened while somebody thinks it over are not.
        let until = cx.now.after(Lifetime::seconds(1));
        let tasks = self.selected(admin, bulk, until, cx).await?;
        let act = bulk.act()?;
        let verb = match act {
            Act::Suspend => Verb::Suspend,
            Act::Resume => Verb::Resume,
            Act::Revoke | Act::Complete | Act::Fail | Act::Expire => Verb::Revoke,
        };
        let targets = tasks.iter().map(|task| (verb, Target::Task(task.id))).collect::<Vec<_>>();
        let one = match &tasks[..] {
            [task] => TokenFilter { task: Some(task.id), ..TokenFilter::default() },
            _ => TokenFilter::default(),
        };
        let mut found = self.would_change(admin, &targets, one, cx).await?;
        found.add_tasks(tasks.iter().map(|task| task.id));
        let (shown, once) = (Shown::of(act, &tasks), self.0.parts.entropy.uuid().to_string());
        let confirmed = Confirmed { until, shown, expires: cx.now.after(CONFIRM_WITHIN), once };
        let text = confirmed.text();
        let mark = self.0.parts.pepper.mark(&bound(admin, bulk, &text));
        found.confirmation = Some((format!("{text}.{}", encode(&mark)), confirmed.expires));
        Ok(found)
    }

    /// Does it. Durable, with the audit records, and known everywhere before this returns, or after so long. The confirmation
    /// is its idempotency key.
    pub async fn turn_tasks(
        &self,
        admin: &ApiCaller,
        bulk: &Bulk,
        patience: Option<Duration>,
        cx: &Cx,
    ) -> Result<Turned, Failure> {
        let refused = |conflict| self.refused(summary(admin, bulk, Outcome::Done, cx), conflict);
        let confirmation =
            bulk.confirmation.as_deref().ok_or_else(|| refused(Conflict::Unconfirmed(NO_CONFIRMATION)))?;
        let (confirmed, mark) =
            Confirmed::read(confirmation).ok_or_else(|| refused(Conflict::Unconfirmed(OTHER_CONFIRMATION)))?;
        if !self.0.parts.pepper.is_marked(&bound(admin, bulk, &confirmed.text()), &mark) {
            return Err(refused(Conflict::Unconfirmed(OTHER_CONFIRMATION)));
        }
        let request = Idempotency {
            caller: admin.name(),
            // The mark stands for all of it, however many were shown.
            key: format!("confirmation {}", encode(&mark)),
            fingerprint: bulk.reason.to_string(),
            answer: String::new(),
            keep_until: cx.now.after(IDEMPOTENCY),
        };
        if let Some(before) = self.store().answered(&request.caller, &request.key).await? {
            let (tasks, at) = turned_before(&request, &before).map_err(refused)?;
            // Who hears the first answer again may not have heard it then: it holds everywhere now as well.
            let spread = match before {
                Written::Before { seq: Some(seq), .. } => self.0.journal.spread(seq, patience).await?,
                _ => self.0.journal.spread_all(patience).await?,
            };
            return Ok(Turned { seq: spread.seq, tasks, at, spread });
        }
        if confirmed.expires.is_past(cx.now) {
            return Err(refused(Conflict::Unconfirmed("the confirmation has expired: ask with `dry_run` again")));
        }
        let act = bulk.act()?;
        for _ in 0..ATTEMPTS {
            let fitting = self.selected(admin, bulk, confirmed.until, cx).await?;
            let (tasks, others) = fitting.into_iter().partition::<Vec<_>, _>(|task| confirmed.shown.has(act, task));
            // Some may have ended meanwhile, which is no harm; what was not shown is not touched. One that has never turned
            // was opened since. Any other may be what is meant, and its admin has not seen it.
            if others.iter().any(|task| task.turns > 0) {
                return Err(refused(Conflict::Unconfirmed(OTHERS_FIT)));
            }
            let write = bulk_write(admin, bulk, &tasks, &request, cx)?;
            let (written, spread) = self.0.journal.publish(write, patience).await?;
            let (tasks, at) = match written {
                Written::Done { .. } => (tasks.len() as u64, cx.now),
                before @ Written::Before { .. } => turned_before(&request, &before).map_err(refused)?,
                Written::Moved => continue,
                Written::Replayed => {
                    return Err(Outage::during("revoke")("the store answered a question that was not asked").into());
                }
            };
            let spread = spread.ok_or_else(|| Outage::during("revoke")(NO_PLACE))?;
            return Ok(Turned { seq: spread.seq, tasks, at, spread });
        }
        Err(refused(Conflict::Contended))
    }

    /// The tasks of a selection that the act can be done to, opened before `until`.
    async fn selected(&self, admin: &ApiCaller, bulk: &Bulk, until: Timestamp, cx: &Cx) -> Result<Vec<Task>, Failure> {
        let (act, by) = (bulk.act()?, Party::Admin(admin.name()));
        let mut found = Vec::new();
        match &bulk.tasks {
            Selection::These(ids) => {
                for id in ids {
                    found.push(self.store().task(*id).await?.ok_or(Conflict::NotFound("task"))?);
                }
            }
            Selection::Fitting(filter) => {
                let until = filter.until.map_or(until, |asked| asked.min(until));
                // Of the two states that are not final, what is held back or let go is in one: then that is enough.
                let state = filter.state.or(match act {
                    Act::Suspend => Some(TaskState::Active),
                    Act::Resume => Some(TaskState::Suspended),
                    Act::Revoke | Act::Complete | Act::Fail | Act::Expire => None,
                });
                let filter = TaskFilter { state, only_open: true, until: Some(until), ..filter.clone() };
                let page = self.store().tasks(&filter, &Page { after: None, limit: 1000 }).await?;
                if page.next.is_some() {
                    return Err(BadRequest::Invalid("kind", TOO_MANY).into());
                }
                found = page.items;
            }
        }
        found.retain(|task| task.after(act, &by, cx.now).is_ok());
        if found.len() > MOST_TASKS { Err(BadRequest::Invalid("kind", TOO_MANY).into()) } else { Ok(found) }
    }
}

const TOO_MANY: &str =
    "more than 1000 tasks fit: narrow the selection, or revoke by agent, requester, resource or issuer";
const OTHERS_FIT: &str =
    "more tasks fit by now than the dry run showed, or they are not as it showed them: ask with `dry_run` again";
const NO_CONFIRMATION: &str = "a selection needs the `confirmation` that the same request with `dry_run` gives";
const OTHER_CONFIRMATION: &str = "the confirmation is not for this request of this admin: ask with `dry_run` again";

/// What a confirmation is for, as one text.
fn bound(admin: &ApiCaller, bulk: &Bulk, confirmed: &str) -> String {
    json!(["confirmation", admin.name(), bulk.what.as_str(), bulk.tasks.asked(), confirmed]).to_string()
}

fn bulk_write(
    admin: &ApiCaller,
    bulk: &Bulk,
    tasks: &[Task],
    request: &Idempotency,
    cx: &Cx,
) -> Result<Write, BadRequest> {
    let (act, by) = (bulk.act()?, Party::Admin(admin.name()));
    let turning = Turning { act, reason: Some(bulk.reason.clone()), outcome: None };
    let (mut log, mut changes, mut expected) = (Vec::new(), Vec::new(), Vec::new());
    let count = json!({"tasks": tasks.len()});
    let mut audit = vec![Record { granted: Some(count.clone()), ..summary(admin, bulk, Outcome::Done, cx) }];
    for task in tasks {
        let Ok(state) = task.after(act, &by, cx.now) else { continue };
        let (turn, entry) = planned_turn(task, state, &by, &turning, cx);
        audit.push(match act {
            Act::Revoke => Record {
                admin: Some(admin.name()),
                asked: Some(json!({"kind": "task", "key": task.id})),
                reason: Some(bulk.reason.to_string()),
                request_id: Some(cx.request_id.clone()),
                ..about_task(task, Record::new(cx.now, Event::Revocation, Outcome::Done))
            },
            Act::Suspend | Act::Resume | Act::Complete | Act::Fail | Act::Expire => turn_record(&by, task, &turn, cx),
        });
        expected.push((task.id, task.turns));
        changes.push(Change::TurnTask(task.id, turn));
        log.push(entry);
    }
    let answer = json!({"tasks": tasks.len(), "at": cx.now}).to_string();
    let idempotency = Some(Idempotency { answer, ..request.clone() });
    Ok(Write { expected: Some(Expected::Tasks(expected)), idempotency, changes, log, audit, ..Write::default() })
}

fn turned_before(request: &Idempotency, before: &Written) -> Result<(u64, Timestamp), Conflict> {
    let Written::Before { fingerprint, answer, .. } = before else { return Err(Conflict::KeyReused) };
    if *fingerprint != request.fingerprint {
        return Err(Conflict::KeyReused);
    }
    let answer = serde_json::from_str::<Value>(answer).unwrap_or_default();
    let tasks = answer.get("tasks").and_then(Value::as_u64).unwrap_or_default();
    let at = answer.get("at").and_then(Value::as_i64).unwrap_or_default();
    Ok((tasks, Timestamp::from_unix(at)))
}

/// The record of the whole; each task has its own besides.
fn summary(admin: &ApiCaller, bulk: &Bulk, outcome: Outcome, cx: &Cx) -> Record {
    Record {
        admin: Some(admin.name()),
        asked: Some(json!({"kind": "tasks", "verb": bulk.what.as_str(), "selection": bulk.tasks.asked()})),
        reason: Some(bulk.reason.to_string()),
        request_id: Some(cx.request_id.clone()),
        ..Record::new(cx.now, Event::Revocation, outcome)
    }
}
