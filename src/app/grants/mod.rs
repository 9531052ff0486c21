//! Recorded grants: made and withdrawn, by admins and by the requesters themselves.
//!
//! A grant is never changed. A token that rests on one names it, so withdrawing it is one entry in the log, which also ends
//! what is being issued at that moment.

pub(super) mod break_glass;

use serde_json::json;

use crate::{
    app::{
        ApiCaller, AuthError, ConflictError, ConsentRequired, Error, RequestContext, RequestError, RequesterCaller,
        Service, Snapshot, auth::client::IdentifiedClient, commit::idempotency, exchange::evidence::SubjectToken,
        registry::objects::MAX_COMMIT_ATTEMPTS, replication::propagation::UnloggedWrite,
    },
    domain::{
        audit::{Event, Outcome, Record},
        authority::Authority,
        exchange::{Denial, ExchangeInput, authority_requiring_consent},
        grants::{Grant, MAX_TOTAL_GRANTS},
        id::{ClientId, GrantId},
        registry::ObjectKind,
        revocation::{LogAction, NewEntry, Target, latest_possible_expiry},
        task::{Initiator, Requester, TaskAction},
        time::Timestamp,
    },
    ports::{
        GrantCapacity, GrantFilter, GrantKey, IdempotentRequest, Outage, Page, PageRequest, Precondition, StateChange,
        WriteOutcome, WriteSet,
    },
};

/// Who makes or withdraws a grant.
#[derive(Clone, Copy, Debug)]
pub enum GrantActor<'a> {
    /// An admin, for anybody.
    Admin(&'a ApiCaller),
    /// A requester, for themselves.
    Requester(&'a RequesterCaller),
}

impl GrantActor<'_> {
    fn identity(self) -> String {
        match self {
            Self::Admin(admin) => admin.identity(),
            Self::Requester(requester) => requester.identity(),
        }
    }

    /// Whether the issuer that vouched for a requester is still the one that is registered.
    fn is_still_authorized(self, snapshot: &Snapshot) -> bool {
        match self {
            Self::Admin(_) => true,
            Self::Requester(caller) => snapshot.registry.existed_at(
                ObjectKind::Issuer,
                caller.requester().issuer.as_str(),
                caller.snapshot().seq,
            ),
        }
    }

    /// Whether a grant is theirs to see and to withdraw.
    fn may_manage(self, grant: &Grant) -> bool {
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
    pub async fn create_grant(
        &self,
        by: GrantActor<'_>,
        request: GrantRequest,
        cx: &RequestContext,
    ) -> Result<Grant, Error> {
        let GrantRequest { requester, agent, authority, until, idempotency_key } = request;
        if matches!(by, GrantActor::Requester(_)) && authority.is_none() {
            return Err(RequestError::MissingParameter("authorization_details").into());
        }
        let hash = authority.as_ref().map(Authority::hash).unwrap_or_default();
        let (issuer, subject) = (&requester.issuer, &requester.subject);
        let fingerprint = format!("grant {issuer} {subject} {agent} {} {hash}", until.unix());
        let id = GrantId::new(self.0.ports.entropy.new_uuid());
        let idempotency = idempotency::build_idempotency(by.identity(), idempotency_key, fingerprint, cx)
            .map(|request| IdempotentRequest { response: json!([id, cx.now]).to_string(), ..request });
        let first = |answer: Option<(GrantId, Timestamp)>, grant: Grant| match answer {
            Some((id, at)) => Grant { id, at, ..grant },
            None => grant,
        };
        let grant = Grant {
            id,
            requester,
            agent,
            authority,
            expires: until,
            by: by.identity(),
            at: cx.now,
            break_glass: false,
        };
        let answered = self.find_stored_response(idempotency.as_ref()).await?;
        if answered.is_some() {
            return self.resolve_existing_grant(by, first(answered, grant), cx).await;
        }
        let details = json!({"id": id, "until": until, "authorization_details": grant.authority});
        let record = grant_record(by, &grant.requester, &grant.agent, cx);
        for _ in 0..MAX_COMMIT_ATTEMPTS {
            let snapshot = self.0.follower.snapshot(cx.now).await?;
            if !by.is_still_authorized(&snapshot) {
                return Err(AuthError::InvalidBearer.into());
            }
            if let Err(conflict) = self.check_grant(&snapshot, &grant, cx).await? {
                return Err(self.record_refusal(Record { requested: Some(details), ..record }, conflict));
            }
            let aside = UnloggedWrite {
                expected: capacity_guard(&grant, &snapshot, cx),
                idempotency: idempotency.clone(),
                change: StateChange::PutGrant(Box::new(grant.clone())),
                record: Record { granted: Some(details.clone()), ..record.clone() },
            };
            let written = self.0.writer.commit_unlogged(aside).await?;
            if let answered @ Some(_) = idempotency::read_stored_response(idempotency.as_ref(), &written)? {
                return self.resolve_existing_grant(by, first(answered, grant), cx).await;
            }
            if matches!(written, WriteOutcome::Committed { .. }) {
                return Ok(grant);
            }
        }
        Err(self.record_refusal(Record { requested: Some(details), ..record }, ConflictError::ConcurrentUpdate))
    }

    /// A grant that was made the first time that this was asked for. Nothing rests on one that was withdrawn since, and it
    /// is not made again: who withdrew it meant it.
    async fn resolve_existing_grant(
        &self,
        by: GrantActor<'_>,
        grant: Grant,
        cx: &RequestContext,
    ) -> Result<Grant, Error> {
        if self.store().find_grant(grant.id).await?.is_some() {
            return Ok(grant);
        }
        let asked = Some(json!({"id": grant.id, "again": true}));
        let record = Record { requested: asked, ..grant_record(by, &grant.requester, &grant.agent, cx) };
        let gone =
            "the grant that this request made was withdrawn since: make another one, with another idempotency key";
        Err(self.record_refusal_after_barrier(record, ConflictError::Inconsistent(gone.into())).await)
    }

    /// Whether a grant can be made, by what is known now. It is made on the registry that this was found by: with an agent that
    /// is removed goes what was granted to it, and nothing may come after that.
    pub(super) async fn check_grant(
        &self,
        snapshot: &Snapshot,
        grant: &Grant,
        cx: &RequestContext,
    ) -> Result<Result<(), ConflictError>, Outage> {
        let registry = &snapshot.registry;
        if registry.agent(&grant.agent).is_none() {
            return Ok(Err(ConflictError::NotFound("agent")));
        }
        let offered =
            registry.catalogue(|uri| grant.authority.iter().flat_map(Authority::iter).any(|p| p.resource == *uri));
        if grant.authority.as_ref().is_some_and(|authority| !authority.is_subset_of(&offered)) {
            return Ok(Err(ConflictError::Inconsistent("it names a tool that no resource offers".into())));
        }
        let there = self.store().list_live_grants(&grant.requester, &grant.agent, cx.now, MAX_TOTAL_GRANTS).await?;
        let many = there.iter().filter(|other| other.break_glass == grant.break_glass).count();
        let most = grant.max_count();
        if u32::try_from(many).is_ok_and(|many| many < most) {
            return Ok(Ok(()));
        }
        let kind = if grant.break_glass { " for an emergency" } else { "" };
        let many = format!("there are {most} grants{kind} of this requester to this agent: withdraw some");
        Ok(Err(ConflictError::Inconsistent(many)))
    }

    /// Withdraws a grant. What rests on it is dead everywhere when this returns, and its tasks are over.
    pub async fn withdraw_grant(&self, by: GrantActor<'_>, id: GrantId, cx: &RequestContext) -> Result<(), Error> {
        match self.store().find_grant(id).await? {
            Some(grant) if by.may_manage(&grant) => self.write_withdrawal(by, vec![grant], cx).await,
            // Somebody else's can't be told from none.
            Some(_) | None => {
                let record = Record {
                    requested: Some(json!({"withdraw": id})),
                    ..Record::new(cx.now, Event::GrantChange, Outcome::Refused)
                };
                Err(self
                    .record_refusal_after_barrier(with_grant_actor(by, record, cx), ConflictError::NotFound("grant"))
                    .await)
            }
        }
    }

    /// Withdraws every grant of a requester to an agent that is not over: all that were there when it began.
    pub async fn withdraw_grants(
        &self,
        admin: &ApiCaller,
        requester: &Requester,
        agent: &ClientId,
        cx: &RequestContext,
    ) -> Result<(), Error> {
        let by = GrantActor::Admin(admin);
        let mut is_first = true;
        loop {
            let grants = self.store().list_live_grants(requester, agent, cx.now, MAX_TOTAL_GRANTS).await?;
            if is_first && grants.is_empty() {
                let record = Record { requested: Some(json!("withdraw")), ..grant_record(by, requester, agent, cx) };
                return Err(self.record_refusal_after_barrier(record, ConflictError::NotFound("grant")).await);
            }
            let is_last = u32::try_from(grants.len()).is_ok_and(|many| many < MAX_TOTAL_GRANTS);
            if !grants.is_empty() {
                self.write_withdrawal(by, grants, cx).await?;
            }
            if is_last {
                return Ok(());
            }
            is_first = false;
        }
    }

    async fn write_withdrawal(&self, by: GrantActor<'_>, grants: Vec<Grant>, cx: &RequestContext) -> Result<(), Error> {
        let mut write = WriteSet::default();
        for grant in grants {
            write.log_entries.push(NewEntry {
                verb: LogAction::Revoke,
                target: Target::Grant(grant.id),
                reason: "the grant was withdrawn".into(),
                by: by.identity(),
                at: cx.now,
                forget_after: latest_possible_expiry(cx.now),
            });
            write.state_changes.push(StateChange::RemoveGrant(grant.id));
            let asked = Some(json!({"withdraw": grant.id}));
            write
                .audit_records
                .push(Record { requested: asked, ..grant_record(by, &grant.requester, &grant.agent, cx) });
        }
        self.0.writer.commit(write).await?;
        // The tokens are dead. That the tasks say so can wait for the sweeper, if it must.
        if let Err(failure) = self.end_tasks_without_grant(cx).await {
            tracing::warn!(error = %failure, "tasks of a withdrawn grant are left to the sweeper");
        }
        Ok(())
    }

    /// Brings tasks whose grant was withdrawn to their end. Any number of replicas may do this at once.
    pub(super) async fn end_tasks_without_grant(&self, cx: &RequestContext) -> Result<(), Error> {
        self.end_tasks(
            |limit| self.store().list_tasks_without_grant(limit),
            |task| match task.grant {
                Some(grant) if !task.deadline.has_passed(cx.now) => (TaskAction::Revoke, Initiator::Grant(grant)),
                Some(_) | None => (TaskAction::Expire, Initiator::Deadline),
            },
            cx,
        )
        .await
    }

    /// The grants that are on record between the requester and the client; of a token of ours, the one that it rests on. Whoever
    /// withdraws one after this has read it ends what comes of it all the same: the token names the grant.
    pub(super) async fn find_grants(
        &self,
        subject: &SubjectToken,
        caller: &IdentifiedClient,
        cx: &RequestContext,
    ) -> Result<Vec<Grant>, Error> {
        let claims = match subject {
            SubjectToken::User(claims, _) => claims,
            SubjectToken::Own(claims, _) => {
                let Some(id) = claims.grant else { return Ok(Vec::new()) };
                return Ok(self.store().find_grant(id).await?.into_iter().collect());
            }
        };
        Ok(self.store().list_live_grants(&claims.requester, caller.id(), cx.now, MAX_TOTAL_GRANTS).await?)
    }

    /// The refusal; where consent is needed, with what to ask it for, and where.
    pub(super) fn denial_error(&self, denial: Denial, ask: &ExchangeInput<'_>) -> Error {
        if denial != Denial::ConsentRequired {
            return denial.into();
        }
        let authority = authority_requiring_consent(ask).unwrap_or_default();
        let uri = self.settings().consent_uri.clone();
        Error::ConsentRequired(Box::new(ConsentRequired { authority, uri }))
    }

    /// Grants, newest first; a requester's own.
    pub async fn list_grants(
        &self,
        by: GrantActor<'_>,
        filter: GrantFilter,
        page: &PageRequest,
    ) -> Result<Page<Grant>, Error> {
        let filter = match by {
            GrantActor::Admin(_) => filter,
            GrantActor::Requester(caller) => {
                let Requester { issuer, subject } = caller.requester().clone();
                GrantFilter { requester: Some((issuer, subject.into())), ..filter }
            }
        };
        Ok(self.store().list_grants(&filter, page).await?)
    }
}

/// What the making of a grant builds on.
pub(super) fn capacity_guard(grant: &Grant, snapshot: &Snapshot, cx: &RequestContext) -> Precondition {
    let Grant { requester, agent, break_glass, .. } = grant.clone();
    let like = GrantKey { requester, agent, break_glass };
    Precondition::GrantCapacity(Box::new(GrantCapacity {
        registry_version: snapshot.registry.version(),
        key: like,
        now: cx.now,
        limit: grant.max_count(),
    }))
}

pub(super) fn grant_record(by: GrantActor<'_>, requester: &Requester, agent: &ClientId, cx: &RequestContext) -> Record {
    let record = Record {
        requester: Some(requester.clone()),
        agents: vec![agent.to_string()],
        ..Record::new(cx.now, Event::GrantChange, Outcome::Done)
    };
    with_grant_actor(by, record, cx)
}

/// The record with who did it: an admin by name, a requester as such.
fn with_grant_actor(by: GrantActor<'_>, record: Record, cx: &RequestContext) -> Record {
    let request_id = Some(cx.request_id.clone());
    match by {
        GrantActor::Admin(admin) => Record { admin: Some(admin.identity()), request_id, ..record },
        GrantActor::Requester(caller) => {
            let (requester, by) = (Some(caller.requester().clone()), Some(caller.identity()));
            Record { by, request_id, requester, ..record }
        }
    }
}
