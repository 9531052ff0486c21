//! Audit records of introspections, and the choice of those that are recorded.

use parking_lot::Mutex;
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
    /// Held while the first record of a token is queued.
    first: Mutex<()>,
}

impl Default for RecentlyAudited {
    fn default() -> Self {
        Self { tokens: Cache::new(AUDIT_DEDUP_CAPACITY), first: Mutex::default() }
    }
}

impl RecentlyAudited {
    fn contains(&self, id: TokenId, outcome: Outcome) -> bool {
        self.tokens.get(&(id, outcome)).is_some()
    }

    /// Calls `enqueue` unless the token was recorded with this outcome, and remembers the token if
    /// the record was queued: after a dropped record, the next introspection is recorded instead.
    /// Of concurrent calls for a token, one succeeds. Returns whether the token is recorded by an
    /// earlier call.
    fn record_once(&self, id: TokenId, outcome: Outcome, enqueue: impl FnOnce() -> bool) -> bool {
        let _first = self.first.lock();
        if self.contains(id, outcome) {
            return true;
        }
        if enqueue() {
            self.tokens.insert((id, outcome), ());
        }
        false
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
        let (audited, writer) = (&self.inner.recently_audited, &self.inner.writer);
        let enqueue = || writer.enqueue_audit(introspection_record(resource, claims, outcome, cx));
        // An inactive break-glass token can be introspected at will, like any other.
        let was_audited = match mode {
            IntrospectionAuditMode::Off if !claims.break_glass => return Ok(()),
            IntrospectionAuditMode::All if !claims.break_glass => {
                enqueue();
                false
            }
            IntrospectionAuditMode::Off | IntrospectionAuditMode::All | IntrospectionAuditMode::Changes => {
                audited.contains(claims.jti, outcome) || audited.record_once(claims.jti, outcome, enqueue)
            }
        };
        if was_audited && outcome != Outcome::Active {
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
        assert!(!audited.record_once(id(0), active, || true));
        assert!(audited.contains(id(0), active) && !audited.contains(id(0), Outcome::Inactive));
        for n in 1..3 * AUDIT_DEDUP_CAPACITY {
            audited.record_once(id(n), active, || true);
        }
        assert!(audited.tokens.len() <= AUDIT_DEDUP_CAPACITY);
        let remembered = (0..3 * AUDIT_DEDUP_CAPACITY).filter(|n| audited.contains(id(*n), active)).count();
        assert!(remembered >= AUDIT_DEDUP_CAPACITY * 9 / 10, "{remembered} of {AUDIT_DEDUP_CAPACITY}");
    }
}
