//! Break-glass: grants for an emergency, made by an admin, used under everybody's eyes, signed off by another admin.
//!
//! They are withdrawn like any grant. Everything about one is in the trail under its name.

use serde_json::json;

use crate::{
    app::{
        ApiCaller, BadRequest, Conflict, Cx, Failure, Service, View,
        admin::ATTEMPTS,
        again,
        grants::{Granter, grant_record, room_for},
        publish::Aside,
    },
    domain::{
        audit::{Event, Record},
        authority::Authority,
        break_glass::{self, BreakGlass, NoReview, Review, ReviewState},
        grant::Grant,
        id::{ClientId, GrantId, Reason},
        task::Requester,
        time::{Lifetime, Timestamp},
        token::TaskTokenClaims,
    },
    ports::{Change, Idempotency, OneTimeId, Outage, Page, Paged, Write, Written},
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
    pub async fn break_glass(
        &self,
        admin: &ApiCaller,
        request: BreakGlassRequest,
        cx: &Cx,
    ) -> Result<BreakGlass, Failure> {
        let BreakGlassRequest { requester, agent, authority, reason, lifetime, idempotency_key } = request;
        let longest = self.settings().break_glass.max_lifetime;
        let life = lifetime.unwrap_or(longest);
        if life > longest || life.as_seconds() == 0 {
            return Err(BadRequest::Invalid("lifetime", "must be 1 or more seconds, and within `max_lifetime`").into());
        }
        let (issuer, subject, hash) = (&requester.issuer, &requester.subject, authority.hash());
        let fingerprint = format!("break glass {issuer} {subject} {agent} {} {hash} {reason}", life.as_seconds());
        let id = GrantId::new(self.0.parts.entropy.uuid());
        let idempotency = again::request(admin.name(), idempotency_key, fingerprint, cx)
            .map(|request| Idempotency { answer: json!([id, cx.now]).to_string(), ..request });
        let made = |(id, at): (GrantId, Timestamp)| {
            let grant = Grant {
                id,
                requester: requester.clone(),
                agent: agent.clone(),
                authority: Some(authority.clone()),
                until: at.after(life),
                by: admin.name(),
                at,
                break_glass: true,
            };
            BreakGlass { grant, reason: reason.clone(), withdrawn: false, review: None }
        };
        if let Some(first) = self.answered(idempotency.as_ref()).await? {
            return self.as_it_is(made(first)).await;
        }
        let glass = made((id, cx.now));
        let said = json!({"id": id, "until": glass.grant.until, "authorization_details": authority});
        let record = record_of(admin, &glass, Event::BreakGlassMake, cx);
        for _ in 0..ATTEMPTS {
            let view = self.0.follower.current(cx.now).await?;
            if let Err(conflict) = self.check_break_glass(&view, &glass, &authority, cx).await? {
                return Err(self.refused(Record { asked: Some(said), ..record }, conflict));
            }
            let (granted, reason) = (Some(said.clone()), Some(reason.to_string()));
            let aside = Aside {
                expected: room_for(&glass.grant, &view, cx),
                idempotency: idempotency.clone(),
                change: Change::PutBreakGlass(Box::new(glass.clone())),
                record: Record { granted, reason, ..record.clone() },
            };
            let written = self.0.journal.commit_aside(aside).await?;
            if let Some(first) = again::first_answer(idempotency.as_ref(), &written)? {
                return self.as_it_is(made(first)).await;
            }
            if matches!(written, Written::Done { .. }) {
                let (by, agent, until) = (admin.name(), &glass.grant.agent, glass.grant.until.rfc3339());
                tracing::warn!(grant = %id, by, %agent, until, "break-glass: a grant for an emergency was made");
                return Ok(glass);
            }
        }
        Err(self.refused(Record { asked: Some(said), ..record }, Conflict::Contended))
    }

    /// What was made the first time, with what became of it since.
    async fn as_it_is(&self, made: BreakGlass) -> Result<BreakGlass, Failure> {
        Ok(self.store().break_glass(made.grant.id).await?.unwrap_or(made))
    }

    async fn check_break_glass(
        &self,
        view: &View,
        glass: &BreakGlass,
        authority: &Authority,
        cx: &Cx,
    ) -> Result<Result<(), Conflict>, Outage> {
        let conflict = self.check_grant(view, &glass.grant, cx).await?;
        let is_accepted = break_glass::is_accepted(&view.registry, authority);
        if conflict.is_ok() && !is_accepted {
            return Ok(Err(Conflict::Inconsistent("a resource that it is about refuses break-glass".into())));
        }
        Ok(conflict)
    }

    /// One grant for an emergency.
    pub async fn read_break_glass(&self, id: GrantId) -> Result<BreakGlass, Failure> {
        Ok(self.store().break_glass(id).await?.ok_or(Conflict::NotFound("break-glass grant"))?)
    }

    /// Grants for an emergency, newest first.
    pub async fn list_break_glass(
        &self,
        review: Option<ReviewState>,
        page: &Page,
    ) -> Result<Paged<BreakGlass>, Failure> {
        Ok(self.store().break_glass_list(review, page).await?)
    }

    /// Signs off what was done with a grant for an emergency, once.
    pub async fn review_break_glass(
        &self,
        admin: &ApiCaller,
        id: GrantId,
        note: Reason,
        idempotency_key: Option<String>,
        cx: &Cx,
    ) -> Result<BreakGlass, Failure> {
        let idempotency = again::request(admin.name(), idempotency_key, format!("review {id} {note}"), cx)
            .map(|request| Idempotency { answer: json!(id).to_string(), ..request });
        if self.answered::<GrantId>(idempotency.as_ref()).await?.is_some() {
            return self.read_break_glass(id).await;
        }
        let glass = self.read_break_glass(id).await?;
        let record = record_of(admin, &glass, Event::BreakGlassReview, cx);
        let review = Review { by: admin.name(), at: cx.now, note };
        let asked = Some(json!({"note": review.note}));
        if let Err(refusal) = glass.check_review(&review.by, cx.now) {
            return Err(self.refused(Record { asked, ..record }, Conflict::Review(refusal)));
        }
        let write = Write {
            // Two admins at the same moment: one of them signs it off.
            once: vec![OneTimeId {
                party: "break-glass review".into(),
                id: id.to_string(),
                keep_until: cx.now.after(Lifetime::hours(24)),
            }],
            idempotency: idempotency.clone(),
            changes: vec![Change::Review(id, review.clone())],
            audit: vec![Record { granted: asked.clone(), ..record.clone() }],
            ..Write::default()
        };
        match self.0.journal.commit(write).await? {
            Written::Done { .. } => Ok(BreakGlass { review: Some(review), ..glass }),
            Written::Replayed => match self.answered::<GrantId>(idempotency.as_ref()).await? {
                Some(_) => self.read_break_glass(id).await,
                None => Err(self.refused(Record { asked, ..record }, Conflict::Review(NoReview::AlreadyDone))),
            },
            written @ Written::Before { .. } => {
                again::first_answer::<GrantId>(idempotency.as_ref(), &written)?;
                self.read_break_glass(id).await
            }
            Written::Moved => Err(Outage::during("review")("the store answered a question that was not asked").into()),
        }
    }
}

/// What the trail says of a token that is issued: its record, and one more when it rests on a grant for an emergency. Whoever
/// watches the log is told too.
pub(super) fn records(issued: Record, claims: &TaskTokenClaims) -> Vec<Record> {
    let (true, Some(grant)) = (claims.break_glass, claims.grant) else { return vec![issued] };
    let (token, client) = (claims.jti, &claims.client_id);
    tracing::warn!(%grant, %token, %client, "break-glass: a token is issued that rests on a grant for an emergency");
    let used = Record {
        event: Event::BreakGlassUse,
        resource: Some(name_of(grant)),
        granted: Some(json!({"grant": grant, "audience": claims.aud})),
        asked: None,
        ..issued.clone()
    };
    vec![issued, used]
}

fn record_of(admin: &ApiCaller, glass: &BreakGlass, event: Event, cx: &Cx) -> Record {
    let BreakGlass { grant, .. } = glass;
    let resource = Some(name_of(grant.id));
    Record { event, resource, ..grant_record(Granter::Admin(admin), &grant.requester, &grant.agent, cx) }
}

/// Under which `resource` its records are found in the trail.
fn name_of(grant: GrantId) -> String {
    format!("break-glass/{grant}")
}
