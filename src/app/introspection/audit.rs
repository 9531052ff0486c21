//! Audit records of introspections, and the choice of those that are recorded.

use quick_cache::sync::Cache;
use serde_json::json;

use crate::{
    app::{RequestContext, Service},
    domain::{
        audit::{Event, IntrospectionAuditMode, Outcome, Record},
        id::TokenId,
        registry::client::Resource,
        token::TaskTokenClaims,
    },
    ports::Outage,
};

/// Maximum number of tokens in [`RecentlyAudited`].
const AUDIT_DEDUP_CAPACITY: usize = 65_536;
/// The reason in the counts of texts that are no token of this server.
const UNKNOWN_TOKEN: &str = "not a token of this server";

/// The tokens whose first introspection with an outcome is recorded. Bounded: the next
/// introspection of an evicted token is recorded once more. A token has one audience, and only that
/// resource gets an active result, so the token's id and the outcome are the key.
pub(in crate::app) struct RecentlyAudited {
    tokens: Cache<(TokenId, Outcome), ()>,
}

impl Default for RecentlyAudited {
    fn default() -> Self {
        Self { tokens: Cache::new(AUDIT_DEDUP_CAPACITY) }
    }
}

impl RecentlyAudited {
    fn contains(&self, id: TokenId, outcome: Outcome) -> bool {
        self.tokens.get(&(id, outcome)).is_some()
    }

    fn insert(&self, id: TokenId, outcome: Outcome) {
        self.tokens.insert((id, outcome), ());
    }
}

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
                self.count_unknown_token(resource, cx);
            }
            return Ok(());
        };
        if claims.break_glass && outcome == Outcome::Active {
            return self.inner.writer.commit_record(introspection_record(resource, claims, outcome, cx)).await;
        }
        let was_audited = || self.inner.recently_audited.contains(claims.jti, outcome);
        let is_new = match mode {
            // An inactive break-glass token can be introspected at will, like any other.
            _ if claims.break_glass => !was_audited(),
            IntrospectionAuditMode::Off => return Ok(()),
            IntrospectionAuditMode::All => true,
            IntrospectionAuditMode::Changes => !was_audited(),
        };
        if is_new {
            let is_queued = self.inner.writer.enqueue_audit(introspection_record(resource, claims, outcome, cx));
            // Only if the record was queued: after a dropped record, the next introspection is
            // recorded instead.
            if is_queued {
                self.inner.recently_audited.insert(claims.jti, outcome);
            }
        } else if outcome != Outcome::Active {
            self.enqueue_sampled(introspection_record(resource, claims, outcome, cx));
        }
        Ok(())
    }

    /// Counts the introspection of a text that is no token of this server. There is nothing to
    /// record about it except that it was sent.
    fn count_unknown_token(&self, resource: &Resource, cx: &RequestContext) {
        let record = Record {
            client: Some(resource.id.clone()),
            resource: Some(resource.uri.to_string()),
            reason: Some(UNKNOWN_TOKEN.to_owned()),
            ..Record::new(cx.now, Event::TokenIntrospect, Outcome::Inactive)
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
        ..Record::new(cx.now, Event::TokenIntrospect, outcome)
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn recently_audited_tokens_are_remembered_within_the_capacity() {
        let audited = RecentlyAudited::default();
        let id = |n: usize| TokenId::new(Uuid::from_u128(n as u128));
        let active = Outcome::Active;
        assert!(!audited.contains(id(0), active));
        audited.insert(id(0), active);
        assert!(audited.contains(id(0), active) && !audited.contains(id(0), Outcome::Inactive));
        for n in 1..3 * AUDIT_DEDUP_CAPACITY {
            audited.insert(id(n), active);
        }
        assert!(audited.tokens.len() <= AUDIT_DEDUP_CAPACITY);
        let remembered = (0..3 * AUDIT_DEDUP_CAPACITY).filter(|n| audited.contains(id(*n), active)).count();
        assert!(remembered >= AUDIT_DEDUP_CAPACITY * 9 / 10, "{remembered} of {AUDIT_DEDUP_CAPACITY}");
    }
}
