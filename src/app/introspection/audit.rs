//! Audit records of introspections, and the choice of those that are recorded.

use serde_json::json;

use crate::{
    app::{RequestContext, Service},
    domain::{
        audit::{Event, IntrospectionAuditMode, Outcome, Record},
        registry::client::Resource,
        token::TaskTokenClaims,
    },
    ports::Outage,
};

/// The reason in the counts of texts that are no token of this server.
const UNKNOWN_TOKEN: &str = "not a token of this server";

impl Service {
    /// Records an introspection, if the settings require it. The record names the requester and the
    /// task, so that a task's trail shows attempts with its tokens after its end. The response for
    /// an inactive token does not name them.
    ///
    /// A break-glass token is active only if the record is durable. The other records don't wait
    /// for the store, and their number is bounded: a resource can send any text as a token, and one
    /// token any number of times.
    pub(super) async fn audit_introspection(
        &self,
        resource: &Resource,
        claims: Option<&TaskTokenClaims>,
        outcome: Outcome,
        cx: &RequestContext,
    ) -> Result<(), Outage> {
        let mode = self.settings().introspection_audit;
        let Some(claims) = claims else {
            if mode != IntrospectionAuditMode::Off {
                self.count_unknown_token(resource, (Event::TokenIntrospect, Outcome::Inactive), cx);
            }
            return Ok(());
        };
        if claims.break_glass && outcome == Outcome::Active {
            return self.inner.writer.commit_record(introspection_record(resource, claims, outcome, cx)).await;
        }
        let (audited, writer) = (&self.inner.recently_audited, &self.inner.writer);
        let enqueue = || writer.enqueue_audit(introspection_record(resource, claims, outcome, cx));
        // An inactive break-glass token can be introspected at will, like any other.
        let was_audited = match mode {
            IntrospectionAuditMode::Off if !claims.break_glass => return Ok(()),
            IntrospectionAuditMode::All if !claims.break_glass => {
                enqueue();
                false
            }
            // A token has one audience, and only that resource gets an active result, so the id of
            // the token and the outcome are the key.
            IntrospectionAuditMode::Off | IntrospectionAuditMode::All | IntrospectionAuditMode::Changes => {
                audited.record_once((claims.jti, outcome), enqueue)
            }
        };
        if was_audited && outcome != Outcome::Active {
            self.enqueue_sampled(introspection_record(resource, claims, outcome, cx));
        }
        Ok(())
    }

    /// Counts a text that a resource presented and that is no token of this server. There is
    /// nothing to record about it except that it was sent.
    pub(in crate::app) fn count_unknown_token(
        &self,
        resource: &Resource,
        (event, outcome): (Event, Outcome),
        cx: &RequestContext,
    ) {
        let record = Record {
            client: Some(resource.id.clone()),
            resource: Some(resource.uri.to_string()),
            reason: Some(UNKNOWN_TOKEN.to_owned()),
            ..Record::new(cx.now, event, outcome)
        };
        for record in self.inner.refusals.count(record) {
            self.inner.writer.enqueue_audit(record);
        }
    }
}

fn introspection_record(
    resource: &Resource,
    claims: &TaskTokenClaims,
    outcome: Outcome,
    cx: &RequestContext,
) -> Record {
    presented_token_record(resource, claims, (Event::TokenIntrospect, outcome), cx)
}

/// Returns the record of a token that a resource presented: whom it is for, and what it is part of.
pub(in crate::app) fn presented_token_record(
    resource: &Resource,
    claims: &TaskTokenClaims,
    (event, outcome): (Event, Outcome),
    cx: &RequestContext,
) -> Record {
    Record {
        requester: Some(claims.requester()),
        agents: claims.act.audit_names(&claims.iss),
        client: Some(resource.id.clone()),
        task: Some(claims.txn),
        authority_hash: Some(claims.task.authority_hash.clone()),
        token: Some(claims.jti),
        resource: Some(resource.uri.to_string()),
        granted: claims.break_glass.then(|| json!({"break_glass": true, "grant": claims.grant})),
        request_id: Some(cx.request_id.clone()),
        source: cx.source_text(),
        ..Record::new(cx.now, event, outcome)
    }
}
