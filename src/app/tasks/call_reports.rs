//! What a call did, as the resource reports it; and the trail that it joins: intent, privilege, call and outcome in one place.

use serde_json::{Value, json};

use crate::{
    app::{
        ApiCaller, AuthError, ConflictError, Error, RequestContext, RequestError, Service, tasks::tree::TokenStanding,
    },
    domain::{
        audit::{self, Event, Outcome, Record, describe},
        id::TaskId,
        registry::client::Client,
        settings::MAX_CLOCK_SKEW,
        task::{
            Task,
            call_report::{CallOutcome, CallReport},
        },
        time::{Lifetime, Timestamp},
        token::TokenKind,
    },
    ports::{AuditFilter, AuditRow, IdempotentRequest, Outage, PageRequest, WriteOutcome, WriteSet},
};

/// How long after a task's deadline a call is still reported.
const REPORT_WINDOW: Lifetime = Lifetime::hours(24);
/// How many records are read at a time.
const PAGE_SIZE: u32 = 1000;
/// The most records that a trail shows.
const MAX_TRAIL_RECORDS: usize = 10_000;
/// How many bytes of records, and then a page.
const MAX_TRAIL_BYTES: usize = 4 << 20;

/// A report that is durable.
#[derive(Debug, PartialEq, Eq)]
pub struct CallReceipt {
    /// When it was first reported.
    pub at: Timestamp,
    /// Whether the token named the tool.
    pub named_by_token: bool,
    /// Whether it was reported before.
    pub is_repeated: bool,
}

/// A task and what happened in it, oldest first.
#[derive(Debug)]
pub struct TaskTrail {
    /// The task.
    pub task: Task,
    /// What happened.
    pub entries: Vec<TrailEntry>,
    /// Where what was before that begins, if there is more than is shown.
    pub next: Option<String>,
}

/// One record of a trail.
#[derive(Debug)]
pub enum TrailEntry {
    /// The record as it was written.
    Record(Box<Record>),
    /// Somebody edited it.
    Edited(Box<AuditRow>),
}

impl TrailEntry {
    /// When.
    #[must_use]
    pub fn at(&self) -> Timestamp {
        match self {
            Self::Record(record) => record.at,
            Self::Edited(row) => row.columns.at,
        }
    }

    /// What it is about, in one word.
    #[must_use]
    pub fn category(&self) -> &'static str {
        match self {
            Self::Record(record) => describe::category(record),
            Self::Edited(_) => "edited",
        }
    }

    /// What happened, in a sentence.
    #[must_use]
    pub fn describe(&self) -> String {
        match self {
            Self::Record(record) => describe::describe(record),
            Self::Edited(row) => {
                format!("record {} of {} was edited: what it said is not known", row.n, row.writer.0)
            }
        }
    }
}

impl Service {
    /// Takes a resource's report of a call: about a token of this task, for this resource. The same report again is the
    /// same report.
    pub async fn report_call(
        &self,
        caller: &ApiCaller,
        task: TaskId,
        report: &CallReport,
        cx: &RequestContext,
    ) -> Result<CallReceipt, Error> {
        let Client::Resource(resource) = caller.client().client()? else {
            return Err(AuthError::ClientNotAllowed.into());
        };
        report.validate().map_err(|fault| RequestError::MalformedJson(fault.to_string()))?;
        let unknown = ConflictError::NotFound("token of this task for this resource");
        let token = self.store().find_token(report.jti).await?.ok_or_else(|| unknown.clone())?;
        let is_its =
            token.task == Some(task) && token.kind == TokenKind::Access && token.audience == resource.uri.as_str();
        if !is_its {
            return Err(unknown.into());
        }
        let task = self.store().find_task(task).await?.ok_or(unknown)?;
        let until = task.deadline.saturating_add(REPORT_WINDOW);
        if until.has_passed(cx.now) {
            let late = "the task's deadline is over a day ago: its calls are no longer reported";
            return Err(ConflictError::Inconsistent(late.into()).into());
        }
        let named_by_token = report.is_named_by(&token.authority, &resource.uri);
        // A report may come late, and of a call that was made in time: so it is taken, and says what the token was by then.
        let standing = caller.client().snapshot().standing(&token.revocation_keys());
        let standing = TokenStanding::from_standing(standing, token.expires, cx.now);
        let record = Record {
            requester: token.requester.clone(),
            agents: token.agents.iter().map(ToString::to_string).collect(),
            client: Some(resource.id.clone()),
            task: Some(task.id),
            purpose: Some(task.purpose.to_string()),
            authority_hash: Some(task.authority.hash()),
            token: Some(token.id),
            resource: Some(resource.uri.to_string()),
            requested: Some(json!({
                "call": report.id,
                "tool": report.tool,
                "arguments": report.arguments,
                "outcome": report.outcome,
                "data": report.data,
                "named_by_token": named_by_token,
                "token_standing": standing.as_str(),
            })),
            request_id: Some(cx.request_id.clone()),
            ..Record::new(cx.now, Event::ToolCall, audit_outcome(report.outcome))
        };
        // Longer than a report is taken: so it is the same one as long as it can come.
        let idempotency = IdempotentRequest {
            caller: format!("client:{}", resource.id),
            key: format!("call {} {}", report.jti, report.id),
            fingerprint: serde_json::to_string(report).map_err(Outage::during("read the report"))?,
            response: json!({"at": cx.now}).to_string(),
            keep_until: until.saturating_add(MAX_CLOCK_SKEW),
        };
        let fingerprint = idempotency.fingerprint.clone();
        let write = WriteSet { idempotency: Some(idempotency), audit_records: vec![record], ..WriteSet::default() };
        match self.inner.writer.commit(write).await? {
            WriteOutcome::Committed { .. } => Ok(CallReceipt { at: cx.now, named_by_token, is_repeated: false }),
            WriteOutcome::AlreadyApplied { fingerprint: then, response: answer, .. } if then == fingerprint => {
                let answer = serde_json::from_str::<Value>(&answer).unwrap_or_default();
                let at = answer.get("at").and_then(Value::as_i64).map_or(cx.now, Timestamp::from_unix);
                Ok(CallReceipt { at, named_by_token, is_repeated: true })
            }
            WriteOutcome::AlreadyApplied { .. } => {
                Err(ConflictError::Inconsistent("this call was reported before, and otherwise".into()).into())
            }
            WriteOutcome::Replayed | WriteOutcome::Conflict => {
                Err(Outage::during("report a call")("the store answered a question that was not asked").into())
            }
        }
    }

    /// The calls of a task that were reported last, oldest first, each as its record; and whether there are more.
    pub(in crate::app) async fn list_reported_calls(&self, id: TaskId) -> Result<(Vec<Record>, bool), Error> {
        let filter = AuditFilter { task: Some(id), event: Some(Event::ToolCall), ..AuditFilter::default() };
        let got = self.store().list_audit_records(&filter, &PageRequest { cursor: None, limit: PAGE_SIZE }).await?;
        // One that somebody edited says nothing; the trail says that it is there.
        let read = |row: &AuditRow| audit::read(row.writer, row.n, &row.body, &row.hash).ok();
        Ok((got.items.iter().rev().filter_map(read).collect(), got.next.is_some()))
    }

    /// A task and everything that is on record about it, oldest first; of a long trail the newest part, or the one before the
    /// `after` that came with another part. Of records of the same second, those of one replica stand in their order.
    pub async fn read_task_trail(&self, id: TaskId, after: Option<String>) -> Result<TaskTrail, Error> {
        let task = self.read_task(id).await?;
        let filter = AuditFilter { task: Some(id), ..AuditFilter::default() };
        let mut page = PageRequest { cursor: after, limit: PAGE_SIZE };
        let (mut rows, mut bytes) = (Vec::new(), 0);
        let next = loop {
            let got = self.store().list_audit_records(&filter, &page).await?;
            bytes += got.items.iter().map(|row| row.body.len()).sum::<usize>();
            rows.extend(got.items);
            if got.next.is_none() || rows.len() >= MAX_TRAIL_RECORDS || bytes >= MAX_TRAIL_BYTES {
                break got.next;
            }
            page.cursor = got.next;
        };
        let steps = rows.into_iter().rev().map(|row| match audit::read(row.writer, row.n, &row.body, &row.hash) {
            Ok(record) => TrailEntry::Record(Box::new(record)),
            Err(_) => TrailEntry::Edited(Box::new(row)),
        });
        let mut steps = steps.collect::<Vec<_>>();
        // Whoever wrote it down: nothing in a task was before its intent.
        steps.sort_by_key(|step| (step.at(), step.category() != "intent"));
        Ok(TaskTrail { task, entries: steps, next })
    }
}

fn audit_outcome(outcome: CallOutcome) -> Outcome {
    match outcome {
        CallOutcome::Succeeded => Outcome::Done,
        CallOutcome::Failed => Outcome::Failed,
        CallOutcome::Refused => Outcome::Refused,
    }
}
