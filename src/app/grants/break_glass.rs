//! Break-glass: emergency grants. An admin creates one, every use raises a warning, and another
//! admin reviews it.
//!
//! An emergency grant is withdrawn like any other grant. Its audit records share one `resource`.

use serde_json::json;

use crate::{
    app::{
        ApiCaller, ConflictError, Error, RequestContext, RequestError, Service,
        commit::{
            approval::apply_approval,
            idempotency::{Idempotent, Replay},
            retry::{Completion, Decision},
        },
        four_eyes::act_of,
        grants::{GrantActor, capacity_guard, check_not_refused, grant_record, pin_definitions},
        replication::propagation::UnloggedWrite,
    },
    domain::{
        audit::{Event, Record},
        authority::Authority,
        grants::{
            Grant,
            break_glass::{BreakGlassGrant, Review, ReviewState},
        },
        id::{ClientId, GrantId, Reason},
        task::Requester,
        time::{Lifetime, Timestamp},
        token::TaskTokenClaims,
    },
    ports::{Page, PageRequest, Precondition, ReplayGuard, StateChange, WriteSet},
};

/// A request to create an emergency grant.
#[derive(Debug)]
pub struct BreakGlassRequest {
    /// The requester for whom the agent acts.
    pub requester: Requester,
    /// The agent.
    pub agent: ClientId,
    /// The granted authority.
    pub authority: Authority,
    /// What the emergency is.
    pub reason: Reason,
    /// How long the grant lasts. The configured maximum if absent.
    pub lifetime: Option<Lifetime>,
    /// The caller's `Idempotency-Key`: a repeated request gets the same response.
    pub idempotency_key: Option<String>,
}

impl Service {
    /// Creates an emergency grant.
    pub async fn create_break_glass(
        &self,
        admin: &ApiCaller,
        request: BreakGlassRequest,
        cx: &RequestContext,
    ) -> Result<BreakGlassGrant, Error> {
        let BreakGlassRequest { requester, agent, authority, reason, lifetime, idempotency_key } = request;
        let max_lifetime = self.settings().break_glass.max_lifetime;
        let lifetime = lifetime.unwrap_or(max_lifetime);
        if lifetime > max_lifetime || lifetime.as_seconds() == 0 {
            let text = "must be 1 or more seconds, and within `max_lifetime`";
            return Err(RequestError::InvalidParameter("lifetime", text).into());
        }
        let (issuer, subject, hash) = (&requester.issuer, &requester.subject, authority.hash());
        let fingerprint = format!("break glass {issuer} {subject} {agent} {} {hash} {reason}", lifetime.as_seconds());
        let request = Idempotent::<(GrantId, Timestamp)>::new(admin.identity(), idempotency_key, fingerprint, cx);
        let id = GrantId::new(self.inner.ports.entropy.new_uuid());
        let build = |id: GrantId, at: Timestamp| {
            let grant = Grant {
                id,
                requester: requester.clone(),
                agent: agent.clone(),
                authority: Some(authority.clone()),
                expires: at.saturating_add(lifetime),
                by: admin.identity(),
                at,
                break_glass: true,
            };
            BreakGlassGrant { grant, reason: reason.clone(), is_withdrawn: false, review: None }
        };
        let created = build(id, cx.now);
        let details = json!({"id": id, "until": created.grant.expires, "authorization_details": authority});
        let record = audit_record(admin, &created, Event::BreakGlassCreate, cx);
        let completion = self.commit_with_retry(&request, None, |_| async {
            let snapshot = self.inner.follower.snapshot(cx.now).await?;
            let created = BreakGlassGrant { grant: pin_definitions(&snapshot, &created.grant)?, ..created.clone() };
            self.check_grant(&snapshot, &created.grant, cx).await?;
            check_not_refused(&snapshot, &created.grant)?;
            if !snapshot.registry.accepts_break_glass(&authority) {
                let text = "a resource of the requested authority does not accept break-glass grants";
                return Ok(Decision::Refuse(ConflictError::Inconsistent(text.into())));
            }
            let (granted, reason) = (Some(details.clone()), Some(reason.to_string()));
            let write = UnloggedWrite::new(
                capacity_guard(&created.grant, &snapshot, cx),
                request.storing(&(id, cx.now))?,
                StateChange::PutBreakGlass(Box::new(created.clone())),
                Record { granted, reason, ..record.clone() },
            );
            Ok(Decision::WriteUnlogged(Box::new(write), created))
        });
        match completion.await? {
            Completion::Done(created, _) => {
                let (by, agent, until) = (admin.identity(), &created.grant.agent, created.grant.expires.to_rfc3339());
                tracing::warn!(grant = %id, by, %agent, until, "break-glass: emergency grant created");
                Ok(created)
            }
            Completion::Replayed(Replay { response: (id, at), .. }) => {
                // The grant may have been withdrawn or reviewed since.
                Ok(self.reserved_store().find_break_glass(id).await?.unwrap_or_else(|| build(id, at)))
            }
            Completion::Refused(conflict) => {
                Err(self.record_refusal(Record { requested: Some(details), ..record }, conflict).await)
            }
        }
    }

    /// Returns one emergency grant.
    pub async fn read_break_glass(&self, id: GrantId) -> Result<BreakGlassGrant, Error> {
        Ok(self.store().find_break_glass(id).await?.ok_or(ConflictError::NotFound("break-glass grant"))?)
    }

    /// Lists emergency grants, newest first.
    pub async fn list_break_glass(
        &self,
        review: Option<ReviewState>,
        page: &PageRequest,
    ) -> Result<Page<BreakGlassGrant>, Error> {
        Ok(self.store().list_break_glass(review, page).await?)
    }

    /// Reviews the use of an emergency grant, once.
    pub async fn review_break_glass(
        &self,
        admin: &ApiCaller,
        id: GrantId,
        note: Reason,
        idempotency_key: Option<String>,
        cx: &RequestContext,
    ) -> Result<BreakGlassGrant, Error> {
        let fingerprint = format!("review {id} {note}");
        let request = Idempotent::<GrantId>::new(admin.identity(), idempotency_key, fingerprint, cx);
        let grant = self.read_break_glass(id).await?;
        let record = audit_record(admin, &grant, Event::BreakGlassReview, cx);
        let review = Review { by: admin.identity(), at: cx.now, note };
        let details = Some(json!({"note": review.note}));
        let (request, known, record, review, details) = (&request, &grant, &record, &review, &details);
        let completion = self.commit_with_retry(request, None, |attempt| async move {
            let grant = if attempt == 0 { known.clone() } else { self.read_break_glass(id).await? };
            grant.check_review(&review.by, cx.now).map_err(ConflictError::ReviewRejected)?;
            let snapshot = self.inner.follower.committed_snapshot(cx.now).await?;
            let act = act_of(&Record { requested: details.clone(), ..record.clone() }, None)?;
            let approval = self.find_review_approval(admin, &snapshot.registry, &grant.grant.by, &act, cx)?;
            let mut write = WriteSet {
                // The reviewer is still an active person at the commit.
                precondition: Some(Precondition::RegistryVersion(snapshot.registry.version())),
                // Of two concurrent reviews, one is committed.
                replay_guards: vec![ReplayGuard {
                    party: "break-glass review".into(),
                    id: id.to_string(),
                    keep_until: cx.now.saturating_add(Lifetime::hours(24)),
                }],
                idempotency: request.storing(&id)?,
                state_changes: vec![StateChange::ReviewBreakGlass(id, review.clone())],
                audit_records: vec![Record { granted: details.clone(), ..record.clone() }],
                ..WriteSet::default()
            };
            apply_approval(&mut write, approval);
            Ok(Decision::Write(Box::new(write), BreakGlassGrant { review: Some(review.clone()), ..grant }))
        });
        match completion.await? {
            Completion::Done(reviewed, _) => Ok(reviewed),
            Completion::Replayed(_) => self.read_break_glass(id).await,
            Completion::Refused(conflict) => {
                Err(self.record_refusal(Record { requested: details.clone(), ..record.clone() }, conflict).await)
            }
        }
    }
}

/// Returns the audit records of an issued token: its own record, and a second one if it rests on an
/// emergency grant. The use of an emergency grant is also logged as a warning.
pub(in crate::app) fn with_use_record(issued: Record, claims: &TaskTokenClaims) -> Vec<Record> {
    let (true, Some(grant)) = (claims.break_glass, claims.grant) else { return vec![issued] };
    let (token, client) = (claims.jti, &claims.client_id);
    tracing::warn!(%grant, %token, %client, "break-glass: token issued that rests on an emergency grant");
    let used = Record {
        event: Event::BreakGlassUse,
        resource: Some(audit_resource(grant)),
        granted: Some(json!({"grant": grant, "audience": claims.aud})),
        requested: None,
        ..issued.clone()
    };
    vec![issued, used]
}

fn audit_record(admin: &ApiCaller, grant: &BreakGlassGrant, event: Event, cx: &RequestContext) -> Record {
    let Grant { id, requester, agent, .. } = &grant.grant;
    let resource = Some(audit_resource(*id));
    Record { event, resource, ..grant_record(GrantActor::Admin(admin), requester, agent, cx) }
}

/// Returns the `resource` under which the audit records of an emergency grant are found.
fn audit_resource(grant: GrantId) -> String {
    format!("break-glass/{grant}")
}
