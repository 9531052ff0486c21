//! Token exchange (RFC 8693): evidence in, a decision by the domain, a signed token out, its record durable before it
//! leaves.

use std::time::Duration;

use serde_json::json;

use crate::{
    app::{
        BadRequest, Cx, ExchangeRequest, Failure, Service, SubjectFault, Unsettled, View,
        authenticate::Identified,
        evidence::{Ours, Subject},
    },
    domain::{
        audit::{Event, Outcome, Record},
        authority::Authority,
        client::Client,
        exchange::{Ask, Denial, Plan, PlannedTask, Presenter, TaskWanted, decide},
        id::{TaskId, TokenId},
        limits::MAX_JWT,
        revocation::Standing,
        scope::ScopeSet,
        secret::Secret,
        splice::{NotThisAgent, Says},
        status_list::StatusPlace,
        task::{Task, TaskState},
        time::Lifetime,
        token::{TaskContext, TaskRef, TaskTokenClaims, TokenKind},
        uri::ResourceUri,
    },
    ports::{OneTimeId, Outage, TokenRecord, Write, Written},
};

/// An issued token and what the answer says of it.
#[derive(Debug)]
pub struct Issued {
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
struct Trail {
    subject: Option<Subject>,
    /// What the client itself brought to be used once.
    once: Vec<OneTimeId>,
    /// What its actor token is, to be used once.
    actor: Option<OneTimeId>,
}

impl Trail {
    fn redeemed(&self) -> Vec<OneTimeId> {
        self.once.iter().chain(&self.actor).cloned().collect()
    }
}

/// A token that is signed and not recorded yet: nobody has it.
struct Signed {
    token: String,
    plan: Plan,
    task: Option<Task>,
    claims: TaskTokenClaims,
    place: Option<StatusPlace>,
    /// The version of the keys that it was signed with.
    keys: u64,
}

/// How often an exchange is decided anew because what it was decided by has changed.
const LOOKS: usize = 5;
/// How soon after it was last looked at what it is decided by a token is durable, or nobody gets it.
pub(super) const WRITTEN_WITHIN: Duration = Duration::from_secs(10);

impl Service {
    /// Exchanges a token. Every end but an outage leaves an audit record; the one of an issued token is durable, together
    /// with the token's own record, before this returns.
    pub async fn exchange(&self, caller: Unsettled, request: ExchangeRequest, cx: &Cx) -> Result<Issued, Failure> {
        let (mut caller, once) = caller.into_parts();
        for _ in 0..LOOKS {
            let mut trail = Trail { once: once.clone(), ..Trail::default() };
            let signed = match self.plan(&caller, &request, &mut trail, cx).await {
                Ok(plan) => {
                    let place = self.status_place(plan.kind, plan.expires).await?;
                    self.sign(&caller, &request, plan, place, cx)
                }
                Err(refusal) => Err(refusal),
            };
            match signed {
                Ok(signed) => {
                    let looked = self.clock().monotonic();
                    let view = self.0.follower.current(cx.now).await?;
                    if self.still_stands(&caller, &signed, &view) {
                        return self.issue(&caller, &request, signed, looked, trail, cx).await;
                    }
                    match caller.later(view) {
                        Ok(later) => caller = later,
                        Err(changed) => return Err(self.refuse(&caller, &request, trail, changed.into(), cx).await),
                    }
                }
                Err(Failure::Outage(outage)) => return Err(outage.into()),
                Err(refusal) => return Err(self.refuse(&caller, &request, trail, refusal, cx).await),
            }
        }
        Err(Outage::during("exchange")("what it is decided by keeps changing").into())
    }

    /// Whether what was decided would be decided now, right before it is written: keys may have been fetched in between, or
    /// the client may have been slow to send its request. What comes later ends the token by its `rev`.
    fn still_stands(&self, caller: &Identified, signed: &Signed, view: &View) -> bool {
        (view.log == caller.view().log && view.seq == caller.view().seq)
            || (view.reading == caller.view().reading
                && self.0.parts.signer.version() == signed.keys
                && view.standing(&signed.claims.names()) == Standing::Live)
    }

    /// Gathers what the rule needs, and asks it.
    async fn plan(
        &self,
        caller: &Identified,
        request: &ExchangeRequest,
        trail: &mut Trail,
        cx: &Cx,
    ) -> Result<Plan, Failure> {
        let view = caller.view();
        let client = caller.client()?;
        let presenter = match client {
            Client::Agent(agent) => Presenter::Agent(agent),
            Client::Resource(resource) => Presenter::Resource(resource),
            Client::Admin(_) => return Err(BadRequest::GrantNotForClient.into()),
        };
        let (token, said) = (request.subject_token.expose(), request.subject_token_type);
        let subject = self.subject(token, said, client, view, &mut trail.subject, cx).await?;
        let actor = match &request.actor {
            None => Says::Nothing,
            Some((token, said)) => {
                let (says, once) = self.actor(token.expose(), *said, client, view, cx)?;
                // One assertion can't be two in one request either.
                if once.as_ref().is_some_and(|once| trail.once.contains(once)) {
                    return Err(Failure::Token("actor", SubjectFault::Replayed));
                }
                trail.actor = once;
                says
            }
        };
        let output = self.output(caller, request, subject.evidence())?;
        let target = output.resource().map(|resource| &resource.uri);
        let details = request.authorization_details.as_ref().map(|asked| asked.at(target));
        let details = details.transpose().map_err(BadRequest::from)?;
        let joined = match (request.task_id, subject) {
            // Somebody else's is none, nor that of another agent or issuer of the same name.
            (Some(id), Subject::User(user, _)) => {
                let task = self.store().task(id).await?;
                task.filter(|task| task.is_of(&user.requester, client.id()) && view.registry.still_has(task))
            }
            (Some(_), Subject::Own(..)) | (None, _) => None,
        };
        let settings = self.settings();
        // Where a task rests on a grant, that one decides; else grants are looked at where nothing else is enough.
        let grants = match &joined {
            Some(Task { grant: Some(_), .. }) => self.grants_of(subject, caller, cx).await?,
            Some(_) | None => Vec::new(),
        };
        let ask = Ask {
            now: cx.now,
            issuer: &settings.issuer,
            trust_domain: &settings.trust_domain,
            registry: &view.registry,
            tokens: &settings.tokens,
            tasks: &settings.tasks,
            presenter,
            subject: subject.evidence(),
            actor,
            grants: &grants,
            output,
            scope: request.scope.as_ref(),
            details: details.as_ref(),
            expires_in: request.expires_in,
            task: match request.task_id {
                Some(id) => TaskWanted::Named(id, joined.as_ref()),
                None => TaskWanted::Unnamed { purpose: request.purpose.as_ref(), deadline: request.task_deadline },
            },
        };
        match decide(&ask) {
            Err(Denial::Splice(NotThisAgent::Unrelated | NotThisAgent::BoundToAKey) | Denial::ConsentNeeded) => {
                let grants = self.grants_of(subject, caller, cx).await?;
                let ask = Ask { grants: &grants, ..ask };
                decide(&ask).map_err(|denial| self.denied(denial, &ask))
            }
            decided => Ok(decided?),
        }
    }

    fn sign(
        &self,
        caller: &Identified,
        request: &ExchangeRequest,
        plan: Plan,
        place: Option<StatusPlace>,
        cx: &Cx,
    ) -> Result<Signed, Failure> {
        let (task, claims) = self.claims(caller, request, &plan, place, cx);
        let payload = serde_json::to_vec(&claims).map_err(Outage::during("write the claims"))?;
        let algorithm = self.signing_algorithm(plan.algorithm, cx);
        let keys = self.0.parts.signer.version();
        let token = self.0.parts.signer.sign(algorithm, plan.kind.typ(), &payload, cx.now)?;
        // One that we would not take for what it is would be active nowhere, and could not be revoked.
        if token.len() <= MAX_JWT && Ours::read(plan.kind.typ(), &payload).is_some() {
            Ok(Signed { token, plan, task, claims, place, keys })
        } else {
            Err(BadRequest::TooMuch.into())
        }
    }

    /// Signs first, records last: if the signer is out, nothing was written; the record is the commit point; then the
    /// token leaves.
    async fn issue(
        &self,
        caller: &Identified,
        request: &ExchangeRequest,
        signed: Signed,
        looked: Duration,
        trail: Trail,
        cx: &Cx,
    ) -> Result<Issued, Failure> {
        let Signed { token, plan, task, claims, place, keys: _ } = signed;
        let record = Record {
            requester: Some(plan.requester.clone()),
            agents: plan.chain.hops().map(|hop| hop.sub.clone()).collect(),
            client: Some(plan.client.clone()),
            task: Some(claims.txn),
            purpose: Some(claims.tctx.purpose.to_string()),
            authority_hash: Some(claims.task.authority_hash.clone()),
            token: Some(claims.jti),
            resource: Some(plan.audience.clone()),
            asked: Some(request.asked()),
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
        let ours = plan.chain.hops().filter(|hop| hop.iss == self.settings().issuer.as_str());
        let write = Write {
            once: trail.redeemed(),
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
                status: place,
            }),
            audit: super::break_glass::records(record, &claims),
            ..Write::default()
        };
        match self.0.journal.commit(write).await? {
            // Whoever looks for what was taken back looks for so long, and would miss it.
            Written::Done { .. } if self.clock().monotonic().saturating_sub(looked) > WRITTEN_WITHIN => {
                Err(Outage::during("issue")("it took too long to be written").into())
            }
            Written::Done { .. } => Ok(Issued {
                token: Secret::new(token),
                kind: plan.kind,
                expires_in: plan.expires.since(cx.now),
                scope: plan.scope,
                authority: plan.authority,
                task: claims.txn,
            }),
            Written::Replayed => Err(self.refuse_replayed(caller, request, trail, cx).await),
            Written::Moved | Written::Before { .. } => {
                Err(Outage::during("issue")("the store answered a question that was not asked").into())
            }
        }
    }

    /// The claims of a planned token, and its task if it is a new one.
    fn claims(
        &self,
        caller: &Identified,
        request: &ExchangeRequest,
        plan: &Plan,
        place: Option<StatusPlace>,
        cx: &Cx,
    ) -> (Option<Task>, TaskTokenClaims) {
        let settings = self.settings();
        let (task, id, authority_hash, tctx) = match &plan.task {
            PlannedTask::Existing { id, authority_hash, context } => {
                (None, *id, authority_hash.clone(), context.clone())
            }
            PlannedTask::Open { purpose, authority, deadline } => {
                let id = TaskId::new(self.0.parts.entropy.uuid());
                let task = Task {
                    id,
                    requester: plan.requester.clone(),
                    root_agent: plan.client.clone(),
                    purpose: purpose.clone(),
                    authority: authority.clone(),
                    state: TaskState::Active,
                    created: cx.now,
                    deadline: *deadline,
                    grant: plan.grant,
                    turns: 0,
                    turned: None,
                    rev: caller.view().seq,
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
            jti: TokenId::new(self.0.parts.entropy.uuid()),
            txn: id,
            lineage: plan.lineage.clone(),
            rev: caller.view().seq,
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
            auth_time: plan.sign_in.auth_time,
            acr: plan.sign_in.acr.clone(),
            amr: plan.sign_in.amr.clone(),
            status: place.map(|place| place.claim(&settings.issuer)),
        };
        (task, claims)
    }

    /// Records a refusal, together with redeeming what the request brought: a one-time id is used up by a refused
    /// request too, and one that was used before is the answer, whatever else was wrong.
    async fn refuse(
        &self,
        caller: &Identified,
        request: &ExchangeRequest,
        trail: Trail,
        refusal: Failure,
        cx: &Cx,
    ) -> Failure {
        let audit = vec![refused(caller, request, &trail, &refusal, cx)];
        match self.0.journal.commit(Write { once: trail.redeemed(), audit, ..Write::default() }).await {
            Ok(Written::Replayed) => self.refuse_replayed(caller, request, trail, cx).await,
            Ok(_) => refusal,
            Err(outage) => outage.into(),
        }
    }

    /// Something was used before. If it is what the client proves itself with, the client is none; if only its actor token
    /// was, that is not good (RFC 8693 §2.2.2), and what the client brought is used up.
    async fn refuse_replayed(&self, caller: &Identified, request: &ExchangeRequest, trail: Trail, cx: &Cx) -> Failure {
        if trail.actor.is_none() {
            return self.replayed(caller.id(), cx).await;
        }
        let refusal = Failure::Token("actor", SubjectFault::Replayed);
        let audit = vec![refused(caller, request, &trail, &refusal, cx)];
        match self.redeem(caller.id(), Write { once: trail.once, audit, ..Write::default() }, cx).await {
            Ok(_) => refusal,
            Err(failure) => failure,
        }
    }
}

fn refused(caller: &Identified, request: &ExchangeRequest, trail: &Trail, refusal: &Failure, cx: &Cx) -> Record {
    let mut record = Record {
        client: Some(caller.id().clone()),
        purpose: request.purpose.as_ref().map(ToString::to_string),
        resource: request.resource.as_ref().and_then(|text| text.parse::<ResourceUri>().ok()).map(String::from),
        asked: Some(request.asked()),
        reason: Some(refusal.to_string()),
        request_id: Some(cx.request_id.clone()),
        ..Record::new(cx.now, Event::TokenIssue, Outcome::Refused)
    };
    match &trail.subject {
        None => {}
        Some(Subject::User(claims, _)) => record.requester = Some(claims.requester.clone()),
        Some(Subject::Own(claims, _)) => {
            record.requester = Some(claims.requester());
            record.task = Some(claims.txn);
            record.token = Some(claims.jti);
            record.agents = claims.act.hops().map(|hop| hop.sub.clone()).collect();
        }
    }
    record
}
