//! What an exchange commits: an issued token with its records, or the record of a refusal.

use serde_json::json;

use crate::{
    app::{
        Error, Service, TokenError,
        exchange::{
            ExchangeContext,
            evidence::{EvidenceError, KnownSubject, VerifiedEvidence},
            signing::SignedToken,
        },
        grants::break_glass::with_use_record,
    },
    domain::{
        audit::{Event, Outcome, Record},
        uri::ResourceUri,
    },
    ports::{ReplayGuard, TokenRecord, WriteOutcome, WriteSet},
};

/// What the record of a refused exchange states in addition to the request, and what the refusal
/// redeems.
#[derive(Debug)]
pub(super) struct ExchangeAudit {
    /// The subject, if its token was verified.
    subject: Option<KnownSubject>,
    /// The one-time id of the actor token, if it is an assertion and was verified.
    actor_replay_guard: Option<ReplayGuard>,
}

impl ExchangeAudit {
    pub(super) fn of(evidence: &VerifiedEvidence<'_>) -> Self {
        Self {
            subject: Some(KnownSubject::from(&evidence.subject)),
            actor_replay_guard: evidence.actor_replay_guard.clone(),
        }
    }
}

/// A refused exchange that is not recorded yet.
#[derive(Debug)]
pub(super) struct RefusedExchange {
    pub(super) error: Error,
    pub(super) audit: ExchangeAudit,
}

impl From<EvidenceError> for RefusedExchange {
    fn from(EvidenceError { error, known }: EvidenceError) -> Self {
        Self { error, audit: ExchangeAudit { subject: known, actor_replay_guard: None } }
    }
}

impl Service {
    /// Builds the write that issues a token: its record, its task if that is new, its audit record,
    /// and the one-time ids that the request redeems.
    pub(super) fn issue_write(
        &self,
        exchange: ExchangeContext<'_>,
        evidence: &VerifiedEvidence<'_>,
        signed: &SignedToken,
    ) -> WriteSet {
        let SignedToken { plan, task, claims, status_index, .. } = signed;
        let own_actors = plan.chain.actors().filter(|actor| actor.iss == self.settings().issuer.as_str());
        WriteSet {
            replay_guards: redeemed_guards(exchange.replay_guards, evidence.actor_replay_guard.as_ref()),
            task: task.clone(),
            token: Some(TokenRecord {
                id: claims.jti,
                kind: plan.kind,
                task: Some(claims.txn),
                grant: plan.grant,
                break_glass: plan.break_glass,
                requester: Some(plan.requester.clone()),
                client: plan.client.clone(),
                agents: own_actors.filter_map(|actor| actor.sub.parse().ok()).collect(),
                audience: plan.audience.clone(),
                lineage: plan.lineage.clone(),
                authority: plan.authority.clone(),
                issued: exchange.cx.now,
                expires: plan.expires,
                rev: claims.rev,
                status_index: *status_index,
                evidence: evidence.subject.presented().cloned(),
            }),
            audit_records: with_use_record(issue_record(exchange, signed), claims),
            ..WriteSet::default()
        }
    }

    /// Records a refusal and redeems the one-time ids of the request in one write. A refused
    /// request uses its one-time ids up too. An id that was used before determines the error,
    /// whatever else was wrong.
    pub(super) async fn record_refused_exchange(
        &self,
        exchange: ExchangeContext<'_>,
        refusal: RefusedExchange,
    ) -> Error {
        let RefusedExchange { error, audit } = refusal;
        let write = WriteSet {
            replay_guards: redeemed_guards(exchange.replay_guards, audit.actor_replay_guard.as_ref()),
            audit_records: self.inner.refusals.sample(refusal_record(exchange, &audit, &error)),
            ..WriteSet::default()
        };
        if write.replay_guards.is_empty() && write.audit_records.is_empty() {
            return error;
        }
        match self.inner.writer.commit(write).await {
            Ok(WriteOutcome::Replayed) => self.reject_replay(exchange, audit).await,
            Ok(_) => error,
            Err(outage) => outage.into(),
        }
    }

    /// Rejects a request whose one-time id was used before. If the id is of the client's own
    /// credentials, the client is not authenticated. If only the actor token was replayed, the
    /// actor token is invalid (RFC 8693 §2.2.2), and the client's own ids are redeemed.
    pub(super) async fn reject_replay(&self, exchange: ExchangeContext<'_>, audit: ExchangeAudit) -> Error {
        let ExchangeContext { caller, replay_guards, cx, .. } = exchange;
        if audit.actor_replay_guard.is_none() {
            return self.reject_replayed_client(caller.id(), replay_guards, cx).await;
        }
        let error = Error::Token("actor", TokenError::Replayed);
        let write = WriteSet {
            replay_guards: replay_guards.to_vec(),
            audit_records: self.inner.refusals.sample(refusal_record(exchange, &audit, &error)),
            ..WriteSet::default()
        };
        match self.redeem_refused(caller.id(), write, cx).await {
            Ok(()) => error,
            Err(failure) => failure,
        }
    }
}

fn redeemed_guards(client: &[ReplayGuard], actor: Option<&ReplayGuard>) -> Vec<ReplayGuard> {
    client.iter().chain(actor).cloned().collect()
}

fn issue_record(exchange: ExchangeContext<'_>, signed: &SignedToken) -> Record {
    let (SignedToken { plan, claims, .. }, cx) = (signed, exchange.cx);
    Record {
        requester: Some(plan.requester.clone()),
        agents: plan.chain.audit_names(&claims.iss),
        client: Some(plan.client.clone()),
        task: Some(claims.txn),
        purpose: Some(claims.tctx.purpose.to_string()),
        authority_hash: Some(claims.task.authority_hash.clone()),
        token: Some(claims.jti),
        resource: Some(plan.audience.clone()),
        requested: Some(exchange.request.audit_details()),
        granted: Some(json!({
            "authorization_details": plan.authority,
            "basis": plan.basis,
            "break_glass": plan.break_glass,
            "expires": plan.expires,
            "grant": plan.grant,
            "kind": plan.kind,
            "lineage": plan.lineage,
            "scope": plan.scope,
        })),
        request_id: Some(cx.request_id.clone()),
        source: cx.source_text(),
        ..Record::new(cx.now, Event::TokenIssue, Outcome::Done)
    }
}

fn refusal_record(exchange: ExchangeContext<'_>, audit: &ExchangeAudit, error: &Error) -> Record {
    let ExchangeContext { caller, request, cx, .. } = exchange;
    let (subject, issued) = (audit.subject.as_ref(), audit.subject.as_ref().and_then(|known| known.issued.as_ref()));
    Record {
        requester: subject.map(|known| known.requester.clone()),
        agents: issued.map(|known| known.agents.clone()).unwrap_or_default(),
        client: Some(caller.id().clone()),
        task: issued.map(|known| known.task),
        token: issued.map(|known| known.token),
        purpose: request.purpose.as_ref().map(ToString::to_string),
        resource: request.resource.as_ref().and_then(|text| text.parse::<ResourceUri>().ok()).map(String::from),
        requested: Some(request.audit_details()),
        reason: Some(error.to_string()),
        request_id: Some(cx.request_id.clone()),
        source: cx.source_text(),
        ..Record::new(cx.now, Event::TokenIssue, Outcome::Refused)
    }
}
