//! Audit records of evaluations, and the choice of those that are recorded.

use serde_json::{Map, Value, json};

use crate::{
    app::{
        RequestContext, Service,
        evaluation::{Evaluation, is_recorded_first},
        introspection::audit::presented_token_record,
    },
    domain::{
        audit::{Event, Outcome, Record},
        evaluation::{Question, effect_of},
        id::ToolName,
        registry::client::Resource,
        token::TaskTokenClaims,
    },
    ports::Outage,
};

/// Maximum length of a name of an action in a record. Names of MCP are shorter.
const MAX_ACTION_LENGTH: usize = 64;

impl Service {
    /// Records an evaluation, if the settings require it. `claims` are those of the token, also if
    /// it is not active for the resource: the trail of its task then shows the attempt. The answer
    /// does not name them.
    ///
    /// Only a call that a break-glass token permits waits for its record. The other records are
    /// dropped and counted if the queue is full. Denied evaluations are sampled, because a resource
    /// can repeat one at will; the first of each task and reason is always recorded.
    pub(super) async fn audit_evaluation(
        &self,
        resource: &Resource,
        claims: Option<&TaskTokenClaims>,
        question: &Question,
        evaluation: &Evaluation,
        cx: &RequestContext,
    ) -> Result<(), Outage> {
        let Some(claims) = claims else {
            self.count_unknown_token(resource, (Event::CallEvaluate, Outcome::Refused), cx);
            return Ok(());
        };
        let record = || evaluation_record(resource, claims, question, evaluation, cx);
        if is_recorded_first(claims, evaluation) {
            return self.inner.writer.commit_record(record()).await;
        }
        match &evaluation.decision {
            Ok(permitted) => {
                if self.settings().evaluation_audit.includes(effect_of(permitted, resource)) {
                    self.inner.writer.enqueue_audit(record());
                }
            }
            Err(denied) => {
                let key = (resource.id.clone(), claims.txn, denied.reason);
                let enqueue = || self.inner.writer.enqueue_audit(record());
                if self.inner.recently_denied.record_once(key, enqueue) {
                    self.enqueue_sampled(record());
                }
            }
        }
        Ok(())
    }
}

/// Returns the record of an evaluation. It has no arguments: they are personal data.
fn evaluation_record(
    resource: &Resource,
    claims: &TaskTokenClaims,
    question: &Question,
    evaluation: &Evaluation,
    cx: &RequestContext,
) -> Record {
    let denied = evaluation.decision.as_ref().err();
    let mut requested = Map::from_iter([("evaluation".to_owned(), json!(evaluation.id))]);
    // The resource chose these texts.
    let action = question.action.chars().take(MAX_ACTION_LENGTH).collect::<String>();
    requested.insert("action".to_owned(), Value::String(action));
    if let Ok(tool) = question.resource_id.parse::<ToolName>() {
        requested.insert("tool".to_owned(), json!(tool));
    }
    if let Some(at) = denied.and_then(|denied| denied.at.as_ref()) {
        requested.insert("at".to_owned(), json!(at));
    }
    let outcome = if denied.is_none() { Outcome::Done } else { Outcome::Refused };
    Record {
        requested: Some(Value::Object(requested)),
        reason: denied.map(|denied| denied.reason.as_str().to_owned()),
        ..presented_token_record(resource, claims, (Event::CallEvaluate, outcome), cx)
    }
}
