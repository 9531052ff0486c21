//! Break-glass: grants for an emergency, made by an admin, used under everybody's eyes, signed off by another admin.
//!
//! They are withdrawn like any grant. Everything about one is in the trail under its name.

use serde_json::json;

use crate::{
    app::{
        ApiCaller, ConflictError, Error, RequestContext, RequestError, Service, Snapshot,
        commit::idempotency,
        grants::{GrantActor, capacity_guard, grant_record},
        registry::objects::MAX_COMMIT_ATTEMPTS,
        replication::propagation::UnloggedWrite,
    },
    domain::{
        audit::{Event, Record},
        authority::Authority,
        grants::{
            Grant,
            break_glass::{BreakGlassGrant, Review, ReviewError, ReviewState},
        },
        id::{ClientId, GrantId, Reason},
        task::Requester,
        time::{Lifetime, Timestamp},
        token::TaskTokenClaims,
    },
    ports::{IdempotentRequest, Outage, Page, PageRequest, ReplayGuard, StateChange, WriteOutcome, WriteSet},
};

/// A grant for an emergency as it is asked for.
#[derive(Debug)]
pub struct BreakGlassRequest {
    /// For whom.
    pub requester: Requester,
    /// Who.
    pub agent: ClientId,
    /// What for.
    pub authority: Authority,
    /// What the emergency is.
    pub reason: Reason,
    /// How long it is to last; as long as it may when absent.
    pub lifetime: Option<Lifetime>,
    /// The caller's `Idempotency-Key`: the same request again gets the same answer.
    pub idempotency_key: Option<String>,
}

impl Service {
    /// Makes a grant for an emergency.
    pub async fn create_break_glass(
        &self,
        admin: &ApiCaller,
        request: BreakGlassRequest,
        cx: &RequestContext,
    ) -> Result<BreakGlassGrant, Error> {
        let BreakGlassRequest { requester, agent, authority, reason, lifetime, idempotency_key } = request;
        let longest = self.settings().break_glass.max_lifetime;
        let life = lifetime.unwrap_or(longest);
        if life > longest || life.as_seconds() == 0 {
            return Err(RequestError::InvalidParameter(
                "lifetime",
                "must be 1 or more seconds, and within `max_lifetime`",
            )
            .into());
        }
        let (issuer, subject, hash) = (&requester.issuer, &requester.subject, authority.hash());
        let fingerprint = format!("break glass {issuer} {subject} {agent} {} {hash} {reason}", life.as_seconds());
        let id = GrantId::new(self.0.ports.entropy.new_uuid());
        let idempotency = idempotency::build_idempotency(admin.identity(), idempotency_key, fingerprint, cx)
            .map(|request| IdempotentRequest { response: json!([id, cx.now]).to_string(), ..request });
        let made = |(id, at): (GrantId, Timestamp)| {
            let grant = Grant {
                id,
                requester: requester.clone(),
                agent: agent.clone(),
                authority: Some(authority.clone()),
                expires: at.saturating_add(life),
                by: admin.identity(),
                at,
                break_glass: true,
            };
            BreakGlassGrant { grant, reason: reason.clone(), is_withdrawn: false, review: None }
        };
        if let Some(first) = self.find_stored_response(idempotency.as_ref()).await? {
            return self.reload_break_glass(made(first)).await;
        }
        let glass = made((id, cx.now));
        let details = json!({"id": id, "until": glass.grant.expires, "authorization_details": authority});
        let record = audit_record(admin, &glass, Event::BreakGlassCreate, cx);
        for _ in 0..MAX_COMMIT_ATTEMPTS {
            let snapshot = self.0.follower.snapshot(cx.now).await?;
            if let Err(conflict) = self.check_break_glass(&snapshot, &glass, &authority, cx).await? {
                return Err(self.record_refusal(Record { requested: Some(details), ..record }, conflict));
            }
            let (granted, reason) = (Some(details.clone()), Some(reason.to_string()));
            let aside = UnloggedWrite {
                expected: capacity_guard(&glass.grant, &snapshot, cx),
                idempotency: idempotency.clone(),
                change: StateChange::PutBreakGlass(Box::new(glass.clone())),
                record: Record { granted, reason, ..record.clone() },
            };
            let written = self.0.writer.commit_unlogged(aside).await?;
            if let Some(first) = idempotency::read_stored_response(idempotency.as_ref(), &written)? {
                return self.reload_break_glass(made(first)).await;
            }
            if matches!(written, WriteOutcome::Committed { .. }) {
                let (by, agent, until) = (admin.identity(), &glass.grant.agent, glass.grant.expires.to_rfc3339());
                tracing::warn!(grant = %id, by, %agent, until, "break-glass: a grant for an emergency was made");
                return Ok(glass);
            }
        }
        Err(self.record_refusal(Record { requested: Some(details), ..record }, ConflictError::ConcurrentUpdate))
    }

    /// What was made the first time, with what became of it since.
    async fn reload_break_glass(&self, created: BreakGlassGrant) -> Result<BreakGlassGrant, Error> {
        Ok(self.store().find_break_glass(created.grant.id).await?.unwrap_or(created))
    }

    async fn check_break_glass(
        &self,
        snapshot: &Snapshot,
        glass: &BreakGlassGrant,
        authority: &Authority,
        cx: &RequestContext,
    ) -> Result<Result<(), ConflictError>, Outage> {
        let conflict = self.check_grant(snapshot, &glass.grant, cx).await?;
        let is_accepted = snapshot.registry.accepts_break_glass(authority);
        if conflict.is_ok() && !is_accepted {
            return Ok(Err(ConflictError::Inconsistent("a resource that it is about refuses break-glass".into())));
        }
        Ok(conflict)
    }

    /// One grant for an emergency.
    pub async fn read_break_glass(&self, id: GrantId) -> Result<BreakGlassGrant, Error> {
        Ok(self.store().find_break_glass(id).await?.ok_or(ConflictError::NotFound("break-glass grant"))?)
    }

    /// Grants for an emergency, newest first.
    pub async fn list_break_glass(
        &self,
        review: Option<ReviewState>,
        page: &PageRequest,
    ) -> Result<Page<BreakGlassGrant>, Error> {
        Ok(self.store().list_break_glass(review, page).await?)
    }

    /// Signs off what was done with a grant for an emergency, once.
    pub async fn review_break_glass(
        &self,
        admin: &ApiCaller,
        id: GrantId,
        note: Reason,
        idempotency_key: Option<String>,
        cx: &RequestContext,
    ) -> Result<BreakGlassGrant, Error> {
        let idempotency =
            idempotency::build_idempotency(admin.identity(), idempotency_key, format!("review {id} {note}"), cx)
                .map(|request| IdempotentRequest { response: json!(id).to_string(), ..request });
        if self.find_stored_response::<GrantId>(idempotency.as_ref()).await?.is_some() {
            return self.read_break_glass(id).await;
        }
        let glass = self.read_break_glass(id).await?;
        let record = audit_record(admin, &glass, Event::BreakGlassReview, cx);
        let review = Review { by: admin.identity(), at: cx.now, note };
        let asked = Some(json!({"note": review.note}));
        if let Err(refusal) = glass.check_review(&review.by, cx.now) {
            return Err(
                self.record_refusal(Record { requested: asked, ..record }, ConflictError::ReviewRejected(refusal))
            );
        }
        let write = WriteSet {
            // Two admins at the same moment: one of them signs it off.
            replay_guards: vec![ReplayGuard {
                party: "break-glass review".into(),
                id: id.to_string(),
                keep_until: cx.now.saturating_add(Lifetime::hours(24)),
            }],
            idempotency: idempotency.clone(),
            state_changes: vec![StateChange::ReviewBreakGlass(id, review.clone())],
            audit_records: vec![Record { granted: asked.clone(), ..record.clone() }],
            ..WriteSet::default()
        };
        match self.0.writer.commit(write).await? {
            WriteOutcome::Committed { .. } => Ok(BreakGlassGrant { review: Some(review), ..glass }),
            WriteOutcome::Replayed => match self.find_stored_response::<GrantId>(idempotency.as_ref()).await? {
                Some(_) => self.read_break_glass(id).await,
                None => Err(self.record_refusal(
                    Record { requested: asked, ..record },
                    ConflictError::ReviewRejected(ReviewError::AlreadyReviewed),
                )),
            },
            written @ WriteOutcome::AlreadyApplied { .. } => {
                idempotency::read_stored_response::<GrantId>(idempotency.as_ref(), &written)?;
                self.read_break_glass(id).await
            }
            WriteOutcome::Conflict => {
                Err(Outage::during("review")("the store answered a question that was not asked").into())
            }
        }
    }
}

/// What the trail says of a token that is issued: its record, and one more when it rests on a grant for an emergency. Whoever
/// watches the log is told too.
pub(in crate::app) fn with_use_record(issued: Record, claims: &TaskTokenClaims) -> Vec<Record> {
    let (true, Some(grant)) = (claims.break_glass, claims.grant) else { return vec![issued] };
    let (token, client) = (claims.jti, &claims.client_id);
    tracing::warn!(%grant, %token, %client, "break-glass: a token is issued that rests on a grant for an emergency");
    let used = Record {
        event: Event::BreakGlassUse,
        resource: Some(audit_resource(grant)),
        granted: Some(json!({"grant": grant, "audience": claims.aud})),
        requested: None,
        ..issued.clone()
    };
    vec![issued, used]
}

fn audit_record(admin: &ApiCaller, glass: &BreakGlassGrant, event: Event, cx: &RequestContext) -> Record {
    let BreakGlassGrant { grant, .. } = glass;
    let resource = Some(audit_resource(grant.id));
    Record { event, resource, ..grant_record(GrantActor::Admin(admin), &grant.requester, &grant.agent, cx) }
}

/// Under which `resource` its records are found in the trail.
fn audit_resource(grant: GrantId) -> String {
    format!("break-glass/{grant}")
}
