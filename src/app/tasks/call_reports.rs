//! Call reports: what a tool call did, as its resource reports it.

use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::{
    app::{
        ApiCaller, AuthError, ConflictError, Error, RequestContext, RequestError, Service,
        commit::idempotency::Idempotent, tasks::tree::TokenStanding,
    },
    domain::{
        audit::{Event, Outcome, Record},
        id::TaskId,
        registry::client::Client,
        settings::MAX_CLOCK_SKEW,
        task::call_report::{CallOutcome, CallReport},
        time::{Lifetime, Timestamp},
        token::TokenKind,
    },
    ports::{IdempotentRequest, Outage, WriteSet},
};

/// How long after a task's deadline reports of its calls are accepted.
const REPORT_WINDOW: Lifetime = Lifetime::hours(24);

/// A durable report.
#[derive(Debug, PartialEq, Eq)]
pub struct CallReceipt {
    /// When the call was first reported.
    pub at: Timestamp,
    /// Whether the token named the tool.
    pub named_by_token: bool,
    /// Whether the call was reported before.
    pub is_repeated: bool,
}

/// The response that is stored for a report.
#[derive(Serialize, Deserialize)]
struct StoredCallReceipt {
    at: Timestamp,
}

impl Service {
    /// Records a resource's report of a call with a token of this task for this resource. A
    /// repeated report is not recorded again.
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
        report.validate().map_err(|error| RequestError::MalformedJson(error.to_string()))?;
        let unknown = ConflictError::NotFound("token of this task for this resource");
        let token = self.store().find_token(report.jti).await?.ok_or_else(|| unknown.clone())?;
        let matches =
            token.task == Some(task) && token.kind == TokenKind::Access && token.audience == resource.uri.as_str();
        if !matches {
            return Err(unknown.into());
        }
        let task = self.store().find_task(task).await?.ok_or(unknown)?;
        let report_deadline = task.deadline.saturating_add(REPORT_WINDOW);
        if report_deadline.has_passed(cx.now) {
            let text = "the task's deadline passed more than 24 hours ago; its calls can no longer be reported";
            return Err(ConflictError::Inconsistent(text.into()).into());
        }
        let named_by_token = report.is_named_by(&token.authority, &resource.uri);
        // A late report of a call that was made in time is accepted. The record has the standing of
        // the token by now.
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
            source: cx.source_text(),
            ..Record::new(cx.now, Event::ToolCall, audit_outcome(report.outcome))
        };
        let request = Idempotent::from(IdempotentRequest {
            caller: format!("client:{}", resource.id),
            key: format!("call {} {}", report.jti, report.id),
            fingerprint: serde_json::to_string(report).map_err(Outage::during("serialize a call report"))?,
            response: String::new(),
            // Longer than reports are accepted, so that a repeated report is always recognized.
            keep_until: report_deadline.saturating_add(MAX_CLOCK_SKEW),
        });
        let idempotency = request.storing(&StoredCallReceipt { at: cx.now })?;
        let write = WriteSet { idempotency, audit_records: vec![record], ..WriteSet::default() };
        match self.commit_once(&request, write).await {
            Ok(None) => Ok(CallReceipt { at: cx.now, named_by_token, is_repeated: false }),
            Ok(Some(StoredCallReceipt { at })) => Ok(CallReceipt { at, named_by_token, is_repeated: true }),
            Err(Error::Conflict(ConflictError::IdempotencyKeyReused)) => {
                let text = "this call was reported before with other content; use a new `id` for another call";
                Err(ConflictError::Inconsistent(text.into()).into())
            }
            Err(error) => Err(error),
        }
    }
}

fn audit_outcome(outcome: CallOutcome) -> Outcome {
    match outcome {
        CallOutcome::Succeeded => Outcome::Done,
        CallOutcome::Failed => Outcome::Failed,
        CallOutcome::Refused => Outcome::Refused,
    }
}
