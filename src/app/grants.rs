//! Recorded grants: made and withdrawn, by admins and by the requesters themselves.
//!
//! A grant is never changed. A token that rests on one names it, so withdrawing it is one entry in the log, which also ends
//! what is being issued at that moment.

use serde_json::json;

use crate::{
    app::{
        ApiCaller, AuthFault, BadRequest, Conflict, ConsentNeeded, Cx, Failure, RequesterCaller, Service, View,
        admin::ATTEMPTS, again, authenticate::Identified, evidence::Subject, publish::Aside, revoke::all_gone,
    },
    domain::{
        audit::{Event, Outcome, Record},
        authority::Authority,
        exchange::{Ask, Denial, consent_wanted},
        grant::{ALL_GRANTS, Grant},
        id::{ClientId, GrantId},
        registry::Kind,
        revocation::{NewEntry, Target, Verb},
        task::{Act, Party, Requester},
        time::Timestamp,
    },
    ports::{Change, Expected, GrantFilter, Idempotency, Like, Outage, Page, Paged, Room, Write, Written},
};

/// Who makes or withdraws a grant.
#[derive(Clone, Copy, Debug)]
pub enum Granter<'a> {
    /// An admin, for anybody.
    Admin(&'a ApiCaller),
    /// A requester, for themselves.
    Requester(&'a RequesterCaller),
}

impl Granter<'_> {
    fn name(self) -> String {
        match self {
            Self::Admin(admin) => admin.name(),
            Self::Requester(requester) => requester.name(),
        }
    }

    /// Whether the issuer that vouched for a requester is still the one that is registered.
    fn is_still_there(self, now: &View) -> bool {
        match self {
            Self::Admin(_) => true,
            Self::Requester(caller) => {
                now.registry.was_there(Kind::Issuer, caller.requester().issuer.as_str(), caller.view().seq)
            }
        }
    }

    /// Whether a grant is theirs to see and to withdraw.
    fn may(self, grant: &Grant) -> bool {
        match self {
            Self::Admin(_) => true,
            Self::Requester(requester) => grant.requester == *requester.requester(),
        }
    }
}

/// A grant as it is asked for.
#[derive(Debug)]
pub struct GrantRequest {
    /// For whom.
    pub requester: Requester,
    /// Who.
    pub agent: ClientId,
    /// What for. A requester always says.
    pub authority: Option<Authority>,
    /// Until when.
    pub until: Timestamp,
    /// The caller's `Idempotency-Key`: the same request again gets the same answer.
    pub idempotency_key: Option<String>,
}

impl Service {
    /// Records that an agent may act for a requester.
    pub async fn put_grant(&self, by: Granter<'_>, request: GrantRequest, cx: &Cx) -> Result<Grant, Failure> {
        let GrantRequest { requester, agent, authority, until, idempotency_key } = request;
        if matches!(by, Granter::Requester(_)) && authority.is_none() {
            return Err(BadRequest::Missing("authorization_details").into());
        }
        let hash = authority.as_ref().map(Authority::hash).unwrap_or_default();
        let (issuer, subject) = (&requester.issuer, &requester.subject);
        let fingerprint = format!("grant {issuer} {subject} {agent} {} {hash}", until.unix());
        let id = GrantId::new(self.0.parts.entropy.uuid());
        let idempotency = again::request(by.name(), idempotency_key, fingerprint, cx)
            .map(|request| Idempotency { answer: json!([id, cx.now]).to_string(), ..request });
        let first = |answer: Option<(GrantId, Timestamp)>, grant: Grant| match answer {
            Some((id, at)) => Grant { id, at, ..grant },
            None => grant,
        };
        let grant = Grant { id, requester, agent, authority, until, by: by.name(), at: cx.now, break_glass: false };
        let answered = self.answered(idempotency.as_ref()).await?;
        if answered.is_some() {
            return self.if_there(by, first(answered, grant), cx).await;
        }
        let said = json!({"id": id, "until": until, "authorization_details": grant.authority});
        let record = grant_record(by, &grant.requester, &grant.agent, cx);
        for _ in 0..ATTEMPTS {
            let view = self.0.follower.current(cx.now).await?;
            if !by.is_still_there(&view) {
                return Err(AuthFault::Bearer.into());
            }
            if let Err(conflict) = self.check_grant(&view, &grant, cx).await? {
                return Err(self.refused(Record { asked: Some(said), ..record }, conflict));
            }
            let aside = Aside {
                expected: room_for(&grant, &view, cx),
                idempotency: idempotency.clone(),
                change: Change::PutGrant(Box::new(grant.clone())),
                record: Record { granted: Some(said.clone()), ..record.clone() },
            };
            let written = self.0.journal.commit_aside(aside).await?;
            if let answered @ Some(_) = again::first_answer(idempotency.as_ref(), &written)? {
                return self.if_there(by, first(answered, grant), cx).await;
            }
            if matches!(written, Written::Done { .. }) {
                return Ok(grant);
            }
        }
        Err(self.refused(Record { asked: Some(said), ..record }, Conflict::Contended))
    }

    /// A grant that was made the first time that this was asked for. Nothing rests on one that was withdrawn since, and it
    /// is not made again: who withdrew it meant it.
    async fn if_there(&self, by: Granter<'_>, grant: Grant, cx: &Cx) -> Result<Grant, Failure> {
        if self.store().grant(grant.id).await?.is_some() {
            return Ok(grant);
        }
        let asked = Some(json!({"id": grant.id, "again": true}));
        let record = Record { asked, ..grant_record(by, &grant.requester, &grant.agent, cx) };
        let gone =
            "the grant that this request made was withdrawn since: make another one, with another idempotency key";
        Err(self.refused_as_it_is(record, Conflict::Inconsistent(gone.into())).await)
    }

    /// Whether a grant can be made, by what is known now. It is made on the registry that this was found by: with an agent that
    /// is removed goes what was granted to it, and nothing may come after that.
    pub(super) async fn check_grant(
        &self,
        view: &View,
        grant: &Grant,
        cx: &Cx,
    ) -> Result<Result<(), Conflict>, Outage> {
        let registry = &view.registry;
        if registry.agent(&grant.agent).is_none() {
            return Ok(Err(Conflict::NotFound("agent")));
        }
        let offered =
            registry.catalogue(|uri| grant.authority.iter().flat_map(Authority::iter).any(|p| p.resource == *uri));
        if grant.authority.as_ref().is_some_and(|authority| !authority.within(&offered)) {
            return Ok(Err(Conflict::Inconsistent("it names a tool that no resource offers".into())));
        }
        let there = self.store().grants_between(&grant.requester, &grant.agent, cx.now, ALL_GRANTS).await?;
        let many = there.iter().filter(|other| other.break_glass == grant.break_glass).count();
        let most = grant.most();
        if u32::try_from(many).is_ok_and(|many| many < most) {
            return Ok(Ok(()));
        }
        let kind = if grant.break_glass { " for an emergency" } else { "" };
        let many = format!("there are {most} grants{kind} of this requester to this agent: withdraw some");
        Ok(Err(Conflict::Inconsistent(many)))
    }

    /// Withdraws a grant. What rests on it is dead everywhere when this returns, and its tasks are over.
    pub async fn withdraw_grant(&self, by: Granter<'_>, id: GrantId, cx: &Cx) -> Result<(), Failure> {
        match self.store().grant(id).await? {
            Some(grant) if by.may(&grant) => self.withdraw(by, vec![grant], cx).await,
            // Somebody else's can't be told from none.
            Some(_) | None => {
                let record = Record {
                    asked: Some(json!({"withdraw": id})),
                    ..Record::new(cx.now, Event::GrantChange, Outcome::Refused)
                };
                Err(self.refused_as_it_is(named(by, record, cx), Conflict::NotFound("grant")).await)
            }
        }
    }

    /// Withdraws every grant of a requester to an agent that is not over: all that were there when it began.
    pub async fn withdraw_grants(
        &self,
        admin: &ApiCaller,
        requester: &Requester,
        agent: &ClientId,
        cx: &Cx,
    ) -> Result<(), Failure> {
        let by = Granter::Admin(admin);
        let mut is_first = true;
        loop {
            let grants = self.store().grants_between(requester, agent, cx.now, ALL_GRANTS).await?;
            if is_first && grants.is_empty() {
                let record = Record { asked: Some(json!("withdraw")), ..grant_record(by, requester, agent, cx) };
                return Err(self.refused_as_it_is(record, Conflict::NotFound("grant")).await);
            }
            let is_last = u32::try_from(grants.len()).is_ok_and(|many| many < ALL_GRANTS);
            if !grants.is_empty() {
                self.withdraw(by, grants, cx).await?;
            }
            if is_last {
                return Ok(());
            }
            is_first = false;
        }
    }

    async fn withdraw(&self, by: Granter<'_>, grants: Vec<Grant>, cx: &Cx) -> Result<(), Failure> {
        let mut write = Write::default();
        for grant in grants {
            write.log.push(NewEntry {
                verb: Verb::Revoke,
                target: Target::Grant(grant.id),
                reason: "the grant was withdrawn".into(),
                by: by.name(),
                at: cx.now,
                forget_after: all_gone(cx.now),
            });
            write.changes.push(Change::RemoveGrant(grant.id));
            let asked = Some(json!({"withdraw": grant.id}));
            write.audit.push(Record { asked, ..grant_record(by, &grant.requester, &grant.agent, cx) });
        }
        self.0.journal.commit(write).await?;
        // The tokens are dead. That the tasks say so can wait for the sweeper, if it must.
        if let Err(failure) = self.end_tasks_without_grant(cx).await {
            tracing::warn!(error = %failure, "tasks of a withdrawn grant are left to the sweeper");
        }
        Ok(())
    }

    /// Brings tasks whose grant was withdrawn to their end. Any number of replicas may do this at once.
    pub(super) async fn end_tasks_without_grant(&self, cx: &Cx) -> Result<(), Failure> {
        self.end_tasks(
            |limit| self.store().tasks_without_grant(limit),
            |task| match task.grant {
                Some(grant) if !task.deadline.is_past(cx.now) => (Act::Revoke, Party::Grant(grant)),
                Some(_) | None => (Act::Expire, Party::Deadline),
            },
            cx,
        )
        .await
    }

    /// The grants that are on record between the requester and the client; of a token of ours, the one that it rests on. Whoever
    /// withdraws one after this has read it ends what comes of it all the same: the token names the grant.
    pub(super) async fn grants_of(
        &self,
        subject: &Subject,
        caller: &Identified,
        cx: &Cx,
    ) -> Result<Vec<Grant>, Failure> {
        let claims = match subject {
            Subject::User(claims, _) => claims,
            Subject::Own(claims, _) => {
                let Some(id) = claims.grant else { return Ok(Vec::new()) };
                return Ok(self.store().grant(id).await?.into_iter().collect());
            }
        };
        Ok(self.store().grants_between(&claims.requester, caller.id(), cx.now, ALL_GRANTS).await?)
    }

    /// The refusal; where consent is needed, with what to ask it for, and where.
    pub(super) fn denied(&self, denial: Denial, ask: &Ask<'_>) -> Failure {
        if denial != Denial::ConsentNeeded {
            return denial.into();
        }
        let wanted = consent_wanted(ask).unwrap_or_default();
        let uri = self.settings().consent_uri.clone();
        Failure::Consent(Box::new(ConsentNeeded { wanted, uri }))
    }

    /// Grants, newest first; a requester's own.
    pub async fn list_grants(
        &self,
        by: Granter<'_>,
        filter: GrantFilter,
        page: &Page,
    ) -> Result<Paged<Grant>, Failure> {
        let filter = match by {
            Granter::Admin(_) => filter,
            Granter::Requester(caller) => {
                let Requester { issuer, subject } = caller.requester().clone();
                GrantFilter { requester: Some((issuer, subject.into())), ..filter }
            }
        };
        Ok(self.store().grants(&filter, page).await?)
    }
}

/// What the making of a grant builds on.
pub(super) fn room_for(grant: &Grant, view: &View, cx: &Cx) -> Expected {
    let Grant { requester, agent, break_glass, .. } = grant.clone();
    let like = Like { requester, agent, break_glass };
    Expected::Room(Box::new(Room { registry: view.registry.version(), like, now: cx.now, most: grant.most() }))
}

pub(super) fn grant_record(by: Granter<'_>, requester: &Requester, agent: &ClientId, cx: &Cx) -> Record {
    let record = Record {
        requester: Some(requester.clone()),
        agents: vec![agent.to_string()],
        ..Record::new(cx.now, Event::GrantChange, Outcome::Done)
    };
    named(by, record, cx)
}

/// The record with who did it: an admin by name, a requester as such.
fn named(by: Granter<'_>, record: Record, cx: &Cx) -> Record {
    let request_id = Some(cx.request_id.clone());
    match by {
        Granter::Admin(admin) => Record { admin: Some(admin.name()), request_id, ..record },
        Granter::Requester(caller) => {
            let (requester, by) = (Some(caller.requester().clone()), Some(caller.name()));
            Record { by, request_id, requester, ..record }
        }
    }
}
