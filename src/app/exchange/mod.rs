//! Token exchange (RFC 8693): verify the evidence, decide, sign, commit.
//!
//! The decision is the domain's ([`crate::domain::exchange::decide`]). The commit makes the token
//! and its audit record durable together, before the token leaves the process.

pub(super) mod evidence;
pub(super) mod quotas;
pub(super) mod request;
mod signing;
mod target;
mod write;

use std::time::Duration;

use crate::{
    app::{
        Error, ExchangeRequest, LogicError, RequestContext, RequestError, Service, Snapshot, TokenError,
        UnredeemedClient,
        auth::client::IdentifiedClient,
        exchange::{
            evidence::{SubjectToken, VerifiedEvidence},
            signing::SignedToken,
            write::{ExchangeAudit, RefusedExchange},
        },
        status_list::lists::ISSUE_DEADLINE,
    },
    domain::{
        authority::Authority,
        exchange::{
            Denial, Evidence, ExchangeInput, Presenter, RequestedToken, TaskSelector, TokenPlan, decide,
            presenter_binding::BindingError,
        },
        id::{ClientId, TaskId},
        revocation::Standing,
        scope::ScopeSet,
        secret::Secret,
        task::{Task, TaskState},
        time::Lifetime,
        token::{TaskTokenClaims, TokenKind},
    },
    ports::{Outage, ReplayGuard, WriteOutcome},
};

/// An issued token and the values that the token response states.
#[derive(Debug)]
pub struct ExchangedToken {
    /// The token.
    pub token: Secret,
    /// Its kind.
    pub kind: TokenKind,
    /// Its remaining lifetime.
    pub expires_in: Lifetime,
    /// The scopes it covers.
    pub scope: ScopeSet,
    /// Its authority.
    pub authority: Authority,
    /// Its task.
    pub task: TaskId,
}

/// One request, as every step of an exchange sees it.
#[derive(Clone, Copy)]
pub(in crate::app) struct ExchangeContext<'a> {
    caller: &'a IdentifiedClient,
    /// The one-time ids of the client's own credentials.
    replay_guards: &'a [ReplayGuard],
    request: &'a ExchangeRequest,
    cx: &'a RequestContext,
}

/// How an attempt at an exchange ends, if it is not refused.
enum ExchangeAttempt {
    Issued(ExchangedToken),
    /// The state that the decision was based on changed before the commit. The same client, at the
    /// newer state.
    Outdated(IdentifiedClient),
    /// The commit found that a one-time id was used before.
    Replayed(ExchangeAudit),
}

/// Maximum number of decisions per request. A decision is repeated when the state it was based on
/// has changed.
const MAX_DECISION_ATTEMPTS: usize = 5;

impl Service {
    /// Exchanges a token. Every result except an outage leaves an audit record. The record of an
    /// issued token is durable, together with the token's own record, before this returns.
    pub async fn exchange(
        &self,
        caller: UnredeemedClient,
        request: ExchangeRequest,
        cx: &RequestContext,
    ) -> Result<ExchangedToken, Error> {
        let (mut caller, replay_guards) = caller.into_parts();
        for _ in 0..MAX_DECISION_ATTEMPTS {
            let exchange = ExchangeContext { caller: &caller, replay_guards: &replay_guards, request: &request, cx };
            match self.try_exchange(exchange).await {
                Ok(ExchangeAttempt::Issued(token)) => return Ok(token),
                Ok(ExchangeAttempt::Outdated(updated)) => caller = updated,
                Ok(ExchangeAttempt::Replayed(audit)) => return Err(self.reject_replay(exchange, audit).await),
                Err(RefusedExchange { error: Error::Unavailable(outage), .. }) => return Err(outage.into()),
                Err(refusal) => return Err(self.record_refused_exchange(exchange, refusal).await),
            }
        }
        Err(Outage::during("exchange")("the registry, the keys or the token's standing changed in every attempt")
            .into())
    }

    /// Runs the four steps of an exchange once.
    async fn try_exchange(&self, exchange: ExchangeContext<'_>) -> Result<ExchangeAttempt, RefusedExchange> {
        let evidence = self.verify_evidence(exchange).await?;
        let refuse = |error: Error| RefusedExchange { error, audit: ExchangeAudit::of(&evidence) };
        let plan = self.decide_exchange(exchange, &evidence).await.map_err(refuse)?;
        // Held until the commit.
        let _reservations = self.reserve_quotas(exchange, &plan).await.map_err(refuse)?;
        let signed = self.sign(exchange, plan).await.map_err(refuse)?;
        self.commit_if_current(exchange, &evidence, signed).await.map_err(refuse)
    }

    /// Decides what is issued: gathers the facts that the decision needs, and has the domain
    /// decide.
    #[tracing::instrument(target = "errand::trace", level = "trace", name = "decide", skip_all)]
    async fn decide_exchange(
        &self,
        exchange: ExchangeContext<'_>,
        evidence: &VerifiedEvidence<'_>,
    ) -> Result<TokenPlan, Error> {
        let ExchangeContext { caller, request, cx, .. } = exchange;
        let (snapshot, settings) = (caller.snapshot(), self.settings());
        let subject = &evidence.subject;
        let requested_token = self.resolve_target(caller, request, subject.evidence())?;
        let target = requested_token.resource().map(|resource| &resource.uri);
        if let Some(agent) = Self::find_refused_agent_of(evidence, requested_token, snapshot) {
            return Err(Error::Token("subject", TokenError::AgentRefused(agent)));
        }
        let details = request.authorization_details.as_ref().map(|details| details.resolve(target));
        let details = details.transpose().map_err(RequestError::from)?;
        let details = details.map(|details| details.map_resources(|uri| snapshot.registry.canonical_uri(uri)));
        let task = self.find_named_task(exchange, subject).await?;
        // A task that rests on a grant needs that grant. Otherwise grants are read only when the
        // decision depends on one.
        let grants = match &task {
            Some(Task { grant: Some(_), .. }) => self.find_grants(subject, caller, cx).await?,
            Some(_) | None => Vec::new(),
        };
        let input = ExchangeInput {
            now: cx.now,
            issuer: &settings.issuer,
            trust_domain: &settings.trust_domain,
            registry: &snapshot.registry,
            token_limits: &settings.tokens,
            task_limits: &settings.tasks,
            presenter: evidence.presenter,
            subject: subject.evidence(),
            actor_match: evidence.actor_match,
            grants: &grants,
            requested_token,
            scope: request.scope.as_ref(),
            details: details.as_ref(),
            expires_in: request.expires_in,
            task: match request.task_id {
                Some(id) => TaskSelector::Named(id, task.as_ref()),
                None => TaskSelector::Unnamed { purpose: request.purpose.as_ref(), deadline: request.task_deadline },
            },
        };
        match decide(&input) {
            Err(
                Denial::PresenterNotBound(BindingError::Unrelated | BindingError::KeyBound) | Denial::ConsentRequired,
            ) => {
                let grants = self.find_grants(subject, caller, cx).await?;
                let input = ExchangeInput { grants: &grants, ..input };
                decide(&input).map_err(|denial| self.denial_error(denial, &input))
            }
            decided => Ok(decided?),
        }
    }

    /// Returns the first agent of a new token that its requester refused: the presenter, the agents
    /// in the chain of the subject token, and the agent that the token is for.
    fn find_refused_agent_of(
        evidence: &VerifiedEvidence<'_>,
        requested_token: RequestedToken<'_>,
        snapshot: &Snapshot,
    ) -> Option<ClientId> {
        let (requester, agents) = match evidence.subject.evidence() {
            Evidence::User(user, _) => (user.requester.clone(), Vec::new()),
            Evidence::Own(own, _) => (own.requester(), own.revocation_keys().agents.into_iter().collect()),
        };
        let presenter = match evidence.presenter {
            Presenter::Agent(agent) => Some(agent.id.clone()),
            Presenter::Resource(_) => None,
        };
        let next = match requested_token {
            RequestedToken::HandOver(agent, _) => Some(agent.id.clone()),
            RequestedToken::Access(_) | RequestedToken::Txn => None,
        };
        let mut agents = presenter.into_iter().chain(agents).chain(next);
        agents.find(|agent| snapshot.is_refused(agent, &requester))
    }

    /// Returns an agent of a signed token that its requester refused meanwhile.
    fn find_refused_agent(claims: &TaskTokenClaims, snapshot: &Snapshot) -> Option<ClientId> {
        let requester = claims.requester();
        claims.revocation_keys().agents.into_iter().find(|agent| snapshot.is_refused(agent, &requester))
    }

    /// Finds the task that the request names. A task of another requester or root agent is treated
    /// as unknown, and so is a task of an agent or issuer that was registered under the same id
    /// before.
    async fn find_named_task(
        &self,
        exchange: ExchangeContext<'_>,
        subject: &SubjectToken,
    ) -> Result<Option<Task>, Error> {
        let ExchangeContext { caller, request, .. } = exchange;
        match (request.task_id, subject) {
            (Some(id), SubjectToken::User(user, ..)) => {
                let task = self.store().find_task(id).await?;
                let is_own = |task: &Task| {
                    task.belongs_to(&user.requester, caller.id()) && caller.snapshot().registry.is_current_task(task)
                };
                let Some(task) = task.filter(is_own) else { return Ok(None) };
                // The revocation of a party ended the task, though its state may still say
                // otherwise.
                let has_ended = !task.state.is_final() && self.store().is_party_revoked(&task).await?;
                Ok(Some(if has_ended { Task { state: TaskState::Revoked, ..task } } else { task }))
            }
            (Some(_), SubjectToken::Own(..)) | (None, _) => Ok(None),
        }
    }

    /// Commits the token if the decision still holds; otherwise revalidates the client for another
    /// attempt.
    async fn commit_if_current(
        &self,
        exchange: ExchangeContext<'_>,
        evidence: &VerifiedEvidence<'_>,
        signed: SignedToken,
    ) -> Result<ExchangeAttempt, Error> {
        let checked_at = self.clock().monotonic();
        let snapshot = self.inner.follower.snapshot(exchange.cx.now).await?;
        if self.is_still_valid(exchange.caller, &evidence.subject, &signed, &snapshot) {
            return self.commit(exchange, evidence, signed, checked_at).await;
        }
        Ok(ExchangeAttempt::Outdated(exchange.caller.revalidate(snapshot)?))
    }

    /// Checks that the same decision would be made now, right before the commit: fetching an
    /// issuer's keys takes time, and a client may send its request slowly. A revocation after this
    /// check ends the token by its `rev`.
    fn is_still_valid(
        &self,
        caller: &IdentifiedClient,
        subject: &SubjectToken,
        signed: &SignedToken,
        snapshot: &Snapshot,
    ) -> bool {
        let decided_at = caller.snapshot();
        (snapshot.log_epoch == decided_at.log_epoch && snapshot.seq == decided_at.seq)
            || (snapshot.registry_generation == decided_at.registry_generation
                && self.inner.ports.signer.version() == signed.key_version
                // A key that signed the user token may have been withdrawn.
                && snapshot.withdrawn_issuer_keys() == decided_at.withdrawn_issuer_keys()
                && subject.evidence_end(caller.id(), snapshot).is_none()
                && Self::find_refused_agent(&signed.claims, snapshot).is_none()
                && snapshot.standing(&signed.claims.revocation_keys()) == Standing::Live)
    }

    /// Commits the token's record and its audit record. Signing comes first, so an outage of the
    /// signer leaves nothing written. The token exists from the commit on; only then does it leave
    /// the process.
    async fn commit(
        &self,
        exchange: ExchangeContext<'_>,
        evidence: &VerifiedEvidence<'_>,
        signed: SignedToken,
        checked_at: Duration,
    ) -> Result<ExchangeAttempt, Error> {
        let write = self.issue_write(exchange, evidence, &signed);
        match self.inner.writer.commit(write).await? {
            WriteOutcome::Committed { .. } if self.clock().monotonic().saturating_sub(checked_at) > ISSUE_DEADLINE => {
                Err(Outage::during("issue")("the commit took longer than the issue deadline").into())
            }
            WriteOutcome::Committed { .. } => {
                let SignedToken { token, plan, claims, .. } = signed;
                Ok(ExchangeAttempt::Issued(ExchangedToken {
                    token: Secret::new(token),
                    kind: plan.kind,
                    expires_in: plan.expires.remaining_from(exchange.cx.now),
                    scope: plan.scope,
                    authority: plan.authority,
                    task: claims.txn,
                }))
            }
            WriteOutcome::Replayed => Ok(ExchangeAttempt::Replayed(ExchangeAudit::of(evidence))),
            // A party was disabled while the write was queued.
            WriteOutcome::Conflict => {
                let snapshot = self.inner.follower.snapshot(exchange.cx.now).await?;
                Ok(ExchangeAttempt::Outdated(exchange.caller.revalidate(snapshot)?))
            }
            WriteOutcome::AlreadyApplied { .. } => Err(LogicError::ImpossibleOutcome("already applied").into()),
        }
    }
}
