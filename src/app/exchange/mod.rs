//! Token exchange (RFC 8693): evidence in, a decision by the domain, a signed token out, its record durable before it
//! leaves.

pub(super) mod evidence;
pub(super) mod request;
pub(super) mod target;

use std::time::Duration;

use serde_json::json;

use crate::{
    app::{
        Error, ExchangeRequest, RequestContext, RequestError, Service, Snapshot, TokenError, UnredeemedClient,
        auth::client::IdentifiedClient,
        exchange::evidence::{IssuedToken, SubjectToken},
    },
    domain::{
        audit::{Event, Outcome, Record},
        authority::Authority,
        exchange::{
            Denial, ExchangeInput, PlannedTask, Presenter, TaskSelector, TokenPlan, decide,
            presenter_binding::{AgentMatch, BindingError},
        },
        id::{TaskId, TokenId},
        registry::client::Client,
        revocation::Standing,
        scope::ScopeSet,
        secret::Secret,
        settings::MAX_JWT_BYTES,
        status_list::StatusIndex,
        task::{Task, TaskState},
        time::Lifetime,
        token::{TaskContext, TaskRef, TaskTokenClaims, TokenKind},
        uri::ResourceUri,
    },
    ports::{Outage, ReplayGuard, TokenRecord, WriteOutcome, WriteSet},
};

/// An issued token and what the answer says of it.
#[derive(Debug)]
pub struct ExchangedToken {
    /// The token.
    pub token: Secret,
    /// Its kind.
    pub kind: TokenKind,
    /// How long it lives.
    pub expires_in: Lifetime,
    /// The scopes it covers.
    pub scope: ScopeSet,
    /// What may be done with it.
    pub authority: Authority,
    /// Its task.
    pub task: TaskId,
}

/// What an exchange is about, as far as it is known when it ends: for the audit record of a refusal.
#[derive(Default)]
struct ExchangeAudit {
    subject: Option<SubjectToken>,
    /// What the client itself brought to be used once.
    replay_guards: Vec<ReplayGuard>,
    /// What its actor token is, to be used once.
    actor_replay_guard: Option<ReplayGuard>,
}

impl ExchangeAudit {
    fn all_replay_guards(&self) -> Vec<ReplayGuard> {
        self.replay_guards.iter().chain(&self.actor_replay_guard).cloned().collect()
    }
}

/// A token that is signed and not recorded yet: nobody has it.
struct SignedToken {
    token: String,
    plan: TokenPlan,
    task: Option<Task>,
    claims: TaskTokenClaims,
    status_index: Option<StatusIndex>,
    /// The version of the keys that it was signed with.
    key_version: u64,
}

/// How often an exchange is decided anew because what it was decided by has changed.
const MAX_DECISION_ATTEMPTS: usize = 5;
/// How soon after it was last looked at what it is decided by a token is durable, or nobody gets it.
pub(super) const ISSUE_DEADLINE: Duration = Duration::from_secs(10);

impl Service {
    /// Exchanges a token. Every end but an outage leaves an audit record; the one of an issued token is durable, together
    /// with the token's own record, before this returns.
    pub async fn exchange(
        &self,
        caller: UnredeemedClient,
        request: ExchangeRequest,
        cx: &RequestContext,
    ) -> Result<ExchangedToken, Error> {
        let (mut caller, replay_guards) = caller.into_parts();
        for _ in 0..MAX_DECISION_ATTEMPTS {
            let mut exchange_audit = ExchangeAudit { replay_guards: replay_guards.clone(), ..ExchangeAudit::default() };
            let signed = match self.decide_exchange(&caller, &request, &mut exchange_audit, cx).await {
                Ok(plan) => {
                    let status_index = self.allocate_status_index(plan.kind, plan.expires).await?;
                    self.sign(&caller, &request, plan, status_index, cx)
                }
                Err(refusal) => Err(refusal),
            };
            match signed {
                Ok(signed) => {
                    let checked_at = self.clock().monotonic();
                    let snapshot = self.inner.follower.snapshot(cx.now).await?;
                    if self.is_still_valid(&caller, &signed, &snapshot) {
                        return self.issue(&caller, &request, signed, checked_at, exchange_audit, cx).await;
                    }
                    match caller.revalidate(snapshot) {
                        Ok(later) => caller = later,
                        Err(changed) => {
                            return Err(self
                                .record_denial(&caller, &request, exchange_audit, changed.into(), cx)
                                .await);
                        }
                    }
                }
                Err(Error::Unavailable(outage)) => return Err(outage.into()),
                Err(refusal) => return Err(self.record_denial(&caller, &request, exchange_audit, refusal, cx).await),
            }
        }
        Err(Outage::during("exchange")("what it is decided by keeps changing").into())
    }

    /// Whether what was decided would be decided now, right before it is written: keys may have been fetched in between, or
    /// the client may have been slow to send its request. What comes later ends the token by its `rev`.
    fn is_still_valid(&self, caller: &IdentifiedClient, signed: &SignedToken, snapshot: &Snapshot) -> bool {
        (snapshot.log_epoch == caller.snapshot().log_epoch && snapshot.seq == caller.snapshot().seq)
            || (snapshot.registry_generation == caller.snapshot().registry_generation
                && self.inner.ports.signer.version() == signed.key_version
                && snapshot.standing(&signed.claims.revocation_keys()) == Standing::Live)
    }

    /// Gathers what the rule needs, and asks it.
    async fn decide_exchange(
        &self,
        caller: &IdentifiedClient,
        request: &ExchangeRequest,
        exchange_audit: &mut ExchangeAudit,
        cx: &RequestContext,
    ) -> Result<TokenPlan, Error> {
        let snapshot = caller.snapshot();
        let client = caller.client()?;
        let presenter = match client {
            Client::Agent(agent) => Presenter::Agent(agent),
            Client::Resource(resource) => Presenter::Resource(resource),
            Client::Admin(_) => return Err(RequestError::UnauthorizedGrantType.into()),
        };
        let (token, declared_type) = (request.subject_token.expose(), request.subject_token_type);
        let subject =
            self.verify_subject_token(token, declared_type, client, snapshot, &mut exchange_audit.subject, cx).await?;
        let actor = match &request.actor {
            None => AgentMatch::Absent,
            Some((token, said)) => {
                let (says, once) = self.verify_actor_token(token.expose(), *said, client, snapshot, cx)?;
                // One assertion can't be two in one request either.
                if once.as_ref().is_some_and(|once| exchange_audit.replay_guards.contains(once)) {
                    return Err(Error::Token("actor", TokenError::Replayed));
                }
                exchange_audit.actor_replay_guard = once;
                says
            }
        };
        let requested_token = self.resolve_target(caller, request, subject.evidence())?;
        let target = requested_token.resource().map(|resource| &resource.uri);
        let details = request.authorization_details.as_ref().map(|asked| asked.resolve(target));
        let details = details.transpose().map_err(RequestError::from)?;
        let joined = match (request.task_id, subject) {
            // Somebody else's is none, nor that of another agent or issuer of the same name.
            (Some(id), SubjectToken::User(user, _)) => {
                let task = self.store().find_task(id).await?;
                task.filter(|task| {
                    task.belongs_to(&user.requester, client.id()) && snapshot.registry.is_current_task(task)
                })
            }
            (Some(_), SubjectToken::Own(..)) | (None, _) => None,
        };
        let settings = self.settings();
        // Where a task rests on a grant, that one decides; else grants are looked at where nothing else is enough.
        let grants = match &joined {
            Some(Task { grant: Some(_), .. }) => self.find_grants(subject, caller, cx).await?,
            Some(_) | None => Vec::new(),
        };
        let ask = ExchangeInput {
            now: cx.now,
            issuer: &settings.issuer,
            trust_domain: &settings.trust_domain,
            registry: &snapshot.registry,
            token_limits: &settings.tokens,
            task_limits: &settings.tasks,
            presenter,
            subject: subject.evidence(),
            actor_match: actor,
            grants: &grants,
            requested_token,
            scope: request.scope.as_ref(),
            details: details.as_ref(),
            expires_in: request.expires_in,
            task: match request.task_id {
                Some(id) => TaskSelector::Named(id, joined.as_ref()),
                None => TaskSelector::Unnamed { purpose: request.purpose.as_ref(), deadline: request.task_deadline },
            },
        };
        match decide(&ask) {
            Err(
                Denial::PresenterNotBound(BindingError::Unrelated | BindingError::KeyBound) | Denial::ConsentRequired,
            ) => {
                let grants = self.find_grants(subject, caller, cx).await?;
                let ask = ExchangeInput { grants: &grants, ..ask };
                decide(&ask).map_err(|denial| self.denial_error(denial, &ask))
            }
            decided => Ok(decided?),
        }
    }

    fn sign(
        &self,
        caller: &IdentifiedClient,
        request: &ExchangeRequest,
        plan: TokenPlan,
        status_index: Option<StatusIndex>,
        cx: &RequestContext,
    ) -> Result<SignedToken, Error> {
        let (task, claims) = self.build_claims(caller, request, &plan, status_index, cx);
        let payload = serde_json::to_vec(&claims).map_err(Outage::during("write the claims"))?;
        let algorithm = self.select_signing_algorithm(plan.algorithm, cx);
        let keys = self.inner.ports.signer.version();
        let token = self.inner.ports.signer.sign(algorithm, plan.kind.typ(), &payload, cx.now)?;
        // One that we would not take for what it is would be active nowhere, and could not be revoked.
        if token.len() <= MAX_JWT_BYTES && IssuedToken::parse_payload(plan.kind.typ(), &payload).is_some() {
            Ok(SignedToken { token, plan, task, claims, status_index, key_version: keys })
        } else {
            Err(RequestError::TokenTooLarge.into())
        }
    }

    /// Signs first, records last: if the signer is out, nothing was written; the record is the commit point; then the
    /// token leaves.
    async fn issue(
        &self,
        caller: &IdentifiedClient,
        request: &ExchangeRequest,
        signed: SignedToken,
        checked_at: Duration,
        exchange_audit: ExchangeAudit,
        cx: &RequestContext,
    ) -> Result<ExchangedToken, Error> {
        let SignedToken { token, plan, task, claims, status_index: place, key_version: _ } = signed;
        let record = Record {
            requester: Some(plan.requester.clone()),
            agents: plan.chain.actors().map(|hop| hop.sub.clone()).collect(),
            client: Some(plan.client.clone()),
            task: Some(claims.txn),
            purpose: Some(claims.tctx.purpose.to_string()),
            authority_hash: Some(claims.task.authority_hash.clone()),
            token: Some(claims.jti),
            resource: Some(plan.audience.clone()),
            requested: Some(request.audit_details()),
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
            ..Record::new(cx.now, Event::TokenIssue, Outcome::Done)
        };
        let ours = plan.chain.actors().filter(|hop| hop.iss == self.settings().issuer.as_str());
        let write = WriteSet {
            replay_guards: exchange_audit.all_replay_guards(),
            task,
            token: Some(TokenRecord {
                id: claims.jti,
                kind: plan.kind,
                task: Some(claims.txn),
                grant: plan.grant,
                break_glass: plan.break_glass,
                requester: Some(plan.requester.clone()),
                client: plan.client.clone(),
                agents: ours.filter_map(|hop| hop.sub.parse().ok()).collect(),
                audience: plan.audience.clone(),
                lineage: plan.lineage.clone(),
                authority: plan.authority.clone(),
                issued: cx.now,
                expires: plan.expires,
                rev: claims.rev,
                status_index: place,
            }),
            audit_records: super::grants::break_glass::with_use_record(record, &claims),
            ..WriteSet::default()
        };
        match self.inner.writer.commit(write).await? {
            // Whoever looks for what was taken back looks for so long, and would miss it.
            WriteOutcome::Committed { .. } if self.clock().monotonic().saturating_sub(checked_at) > ISSUE_DEADLINE => {
                Err(Outage::during("issue")("it took too long to be written").into())
            }
            WriteOutcome::Committed { .. } => Ok(ExchangedToken {
                token: Secret::new(token),
                kind: plan.kind,
                expires_in: plan.expires.remaining_from(cx.now),
                scope: plan.scope,
                authority: plan.authority,
                task: claims.txn,
            }),
            WriteOutcome::Replayed => Err(self.deny_replay(caller, request, exchange_audit, cx).await),
            WriteOutcome::Conflict | WriteOutcome::AlreadyApplied { .. } => {
                Err(Outage::during("issue")("the store answered a question that was not asked").into())
            }
        }
    }

    /// The claims of a planned token, and its task if it is a new one.
    fn build_claims(
        &self,
        caller: &IdentifiedClient,
        request: &ExchangeRequest,
        plan: &TokenPlan,
        status_index: Option<StatusIndex>,
        cx: &RequestContext,
    ) -> (Option<Task>, TaskTokenClaims) {
        let settings = self.settings();
        let (task, id, authority_hash, tctx) = match &plan.task {
            PlannedTask::Existing { id, authority_hash, context } => {
                (None, *id, authority_hash.clone(), context.clone())
            }
            PlannedTask::Open { purpose, authority, deadline } => {
                let id = TaskId::new(self.inner.ports.entropy.new_uuid());
                let task = Task {
                    id,
                    requester: plan.requester.clone(),
                    root_agent: plan.client.clone(),
                    purpose: purpose.clone(),
                    authority: authority.clone(),
                    state: TaskState::Active,
                    created_at: cx.now,
                    deadline: *deadline,
                    grant: plan.grant,
                    version: 0,
                    last_transition: None,
                    rev: caller.snapshot().seq,
                };
                let context = TaskContext { purpose: purpose.clone(), details: request.request_details.clone() };
                (Some(task), id, authority.hash(), context)
            }
        };
        let claims = TaskTokenClaims {
            iss: settings.issuer.clone(),
            aud: plan.audience.clone(),
            sub: plan.requester.subject.clone(),
            sub_iss: plan.requester.issuer.clone(),
            client_id: plan.client.clone(),
            iat: cx.now,
            exp: plan.expires,
            jti: TokenId::new(self.inner.ports.entropy.new_uuid()),
            txn: id,
            lineage: plan.lineage.clone(),
            rev: caller.snapshot().seq,
            scope: plan.scope.clone(),
            authorization_details: plan.authority.clone(),
            act: plan.chain.clone(),
            task: TaskRef { id, issuer: settings.issuer.clone(), authority_hash },
            tctx,
            rctx: request.request_context.clone().unwrap_or_default(),
            req_wl: plan.req_wl.clone(),
            may_act: plan.may_act.clone(),
            grant: plan.grant,
            break_glass: plan.break_glass,
            auth_time: plan.auth_context.auth_time,
            acr: plan.auth_context.acr.clone(),
            amr: plan.auth_context.amr.clone(),
            status: status_index.map(|place| place.to_claim(&settings.issuer)),
        };
        (task, claims)
    }

    /// Records a refusal, together with redeeming what the request brought: a one-time id is used up by a refused
    /// request too, and one that was used before is the answer, whatever else was wrong.
    async fn record_denial(
        &self,
        caller: &IdentifiedClient,
        request: &ExchangeRequest,
        exchange_audit: ExchangeAudit,
        refusal: Error,
        cx: &RequestContext,
    ) -> Error {
        let audit = vec![denial_record(caller, request, &exchange_audit, &refusal, cx)];
        match self
            .inner
            .writer
            .commit(WriteSet {
                replay_guards: exchange_audit.all_replay_guards(),
                audit_records: audit,
                ..WriteSet::default()
            })
            .await
        {
            Ok(WriteOutcome::Replayed) => self.deny_replay(caller, request, exchange_audit, cx).await,
            Ok(_) => refusal,
            Err(outage) => outage.into(),
        }
    }

    /// Something was used before. If it is what the client proves itself with, the client is none; if only its actor token
    /// was, that is not good (RFC 8693 §2.2.2), and what the client brought is used up.
    async fn deny_replay(
        &self,
        caller: &IdentifiedClient,
        request: &ExchangeRequest,
        exchange_audit: ExchangeAudit,
        cx: &RequestContext,
    ) -> Error {
        if exchange_audit.actor_replay_guard.is_none() {
            return self.reject_replayed_client(caller.id(), cx).await;
        }
        let refusal = Error::Token("actor", TokenError::Replayed);
        let audit = vec![denial_record(caller, request, &exchange_audit, &refusal, cx)];
        match self
            .redeem(
                caller.id(),
                WriteSet { replay_guards: exchange_audit.replay_guards, audit_records: audit, ..WriteSet::default() },
                cx,
            )
            .await
        {
            Ok(_) => refusal,
            Err(failure) => failure,
        }
    }
}

fn denial_record(
    caller: &IdentifiedClient,
    request: &ExchangeRequest,
    exchange_audit: &ExchangeAudit,
    refusal: &Error,
    cx: &RequestContext,
) -> Record {
    let mut record = Record {
        client: Some(caller.id().clone()),
        purpose: request.purpose.as_ref().map(ToString::to_string),
        resource: request.resource.as_ref().and_then(|text| text.parse::<ResourceUri>().ok()).map(String::from),
        requested: Some(request.audit_details()),
        reason: Some(refusal.to_string()),
        request_id: Some(cx.request_id.clone()),
        ..Record::new(cx.now, Event::TokenIssue, Outcome::Refused)
    };
    match &exchange_audit.subject {
        None => {}
        Some(SubjectToken::User(claims, _)) => record.requester = Some(claims.requester.clone()),
        Some(SubjectToken::Own(claims, _)) => {
            record.requester = Some(claims.requester());
            record.task = Some(claims.txn);
            record.token = Some(claims.jti);
            record.agents = claims.act.actors().map(|hop| hop.sub.clone()).collect();
        }
    }
    record
}
