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
};

/// Maximum number of tokens in [`RecentlyAudited`].
const AUDIT_DEDUP_CAPACITY: usize = 65_536;

/// The tokens whose first active introspection is recorded. Bounded: the next active introspection
/// of an evicted token is recorded once more. A token has one audience, and only that resource gets
/// an active result, so the token's id is the key.
pub(in crate::app) struct RecentlyAudited {
    tokens: Cache<TokenId, ()>,
}

impl Default for RecentlyAudited {
    fn default() -> Self {
        Self { tokens: Cache::new(AUDIT_DEDUP_CAPACITY) }
    }
}

impl RecentlyAudited {
    fn contains(&self, id: TokenId) -> bool {
        self.tokens.get(&id).is_some()
    }

    fn insert(&self, id: TokenId) {
        self.tokens.insert(id, ());
    }
}

impl Service {
    /// Enqueues the record of an introspection, if the settings require one. The record names the
    /// requester and the task, so that a task's trail shows attempts with its tokens after its end.
    /// The response for an inactive token does not name them.
    pub(super) fn audit_introspection(
        &self,
        resource: &Resource,
        claims: Option<&TaskTokenClaims>,
        outcome: Outcome,
        cx: &RequestContext,
    ) {
        let was_audited = || claims.is_some_and(|claims| self.inner.recently_audited.contains(claims.jti));
        let break_glass = claims.is_some_and(|claims| claims.break_glass);
        let is_required = match self.settings().introspection_audit {
            _ if break_glass => true,
            IntrospectionAuditMode::Off => false,
            IntrospectionAuditMode::All => true,
            IntrospectionAuditMode::Changes => outcome != Outcome::Active || !was_audited(),
        };
        if !is_required {
            return;
        }
        let is_queued = self.inner.writer.enqueue_audit(Record {
            requester: claims.map(TaskTokenClaims::requester),
            agents: claims.map(|claims| claims.act.audit_names(&claims.iss)).unwrap_or_default(),
            client: Some(resource.id.clone()),
            task: claims.map(|claims| claims.txn),
            authority_hash: claims.map(|claims| claims.task.authority_hash.clone()),
            token: claims.map(|claims| claims.jti),
            resource: Some(resource.uri.to_string()),
            granted: break_glass.then(|| json!({"break_glass": true, "grant": claims.and_then(|claims| claims.grant)})),
            request_id: Some(cx.request_id.clone()),
            ..Record::new(cx.now, Event::TokenIntrospect, outcome)
        });
        // Only if the record was queued: after a dropped record, the next introspection is recorded
        // instead.
        if let (true, Outcome::Active, Some(claims)) = (is_queued, outcome, claims) {
            self.inner.recently_audited.insert(claims.jti);
        }
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
        assert!(!audited.contains(id(0)));
        audited.insert(id(0));
        assert!(audited.contains(id(0)));
        for n in 1..3 * AUDIT_DEDUP_CAPACITY {
            audited.insert(id(n));
        }
        assert!(audited.tokens.len() <= AUDIT_DEDUP_CAPACITY);
        let remembered = (0..3 * AUDIT_DEDUP_CAPACITY).filter(|n| audited.contains(id(*n))).count();
        assert!(remembered >= AUDIT_DEDUP_CAPACITY * 9 / 10, "{remembered} of {AUDIT_DEDUP_CAPACITY}");
    }
}
