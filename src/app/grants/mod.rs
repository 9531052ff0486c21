//! Recorded grants: created and withdrawn by admins, and by requesters for themselves.
//!
//! A grant is immutable. Every token that rests on a grant names it, so one log entry withdraws the
//! grant and ends these tokens, also a token that is being issued at that moment.

pub(super) mod break_glass;
mod consent;

use serde_json::json;

use crate::{
    app::{
        ApiCaller, AuthError, ConflictError, Error, RequestContext, RequestError, RequesterCaller, Service, Snapshot,
        commit::{
            idempotency::{Idempotent, Replay},
            retry::{Completion, Decision},
        },
        four_eyes::act_of,
        replication::propagation::UnloggedWrite,
    },
    domain::{
        audit::{Event, Outcome, Record},
        authority::Authority,
        four_eyes::grant_needs_approval,
        grants::{Grant, MAX_TOTAL_GRANTS},
        id::{ClientId, GrantId},
        registry::{ObjectKind, UnacceptedTool},
        revocation::{LogAction, NewEntry, Target, latest_possible_expiry},
        task::Requester,
        time::Timestamp,
    },
    ports::{ErrorChain, GrantCapacity, GrantFilter, GrantKey, Page, PageRequest, Precondition, StateChange, WriteSet},
};

/// The party that creates or withdraws a grant.
#[derive(Clone, Copy, Debug)]
pub enum GrantActor<'a> {
    /// An admin, for any requester.
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

    /// Returns whether the issuer of the requester's token is still the registered one.
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

    /// Returns whether the actor may see and withdraw the grant.
    fn may_manage(self, grant: &Grant) -> bool {
        match self {
            Self::Admin(_) => true,
            Self::Requester(requester) => grant.requester == *requester.requester(),
        }
    }
}

/// A request to create a grant.
#[derive(Debug)]
pub struct GrantRequest {
    /// The requester who grants.
    pub requester: Requester,
    /// The agent that may act for the requester.
    pub agent: ClientId,
    /// The granted authority. Required from a requester.
    pub authority: Option<Authority>,
    /// When the grant expires.
    pub until: Timestamp,
    /// The caller's `Idempotency-Key`: a repeated request gets the same response.
    pub idempotency_key: Option<String>,
}

impl Service {
    /// Creates a grant: the agent may act for the requester.
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
        let request = Idempotent::<(GrantId, Timestamp)>::new(by.identity(), idempotency_key, fingerprint, cx);
        let id = GrantId::new(self.inner.ports.entropy.new_uuid());
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
        let details = |grant: &Grant| json!({"id": id, "until": until, "authorization_details": grant.authority});
        let record = grant_record(by, &grant.requester, &grant.agent, cx);
        // With the pinned definitions: an approval does not cover those of later.
        let act = |grant: &Grant| {
            let asked = json!({"until": until, "authorization_details": grant.authority, "agent": grant.agent,
                "requester": grant.requester});
            act_of(&Record { requested: Some(asked), ..record.clone() }, None)
        };
        let completion = self.commit_with_retry(&request, None, |_| async {
            let snapshot = self.inner.follower.snapshot(cx.now).await?;
            if !by.is_still_authorized(&snapshot) {
                return Err(AuthError::InvalidBearer.into());
            }
            if matches!(by, GrantActor::Admin(_)) {
                check_not_refused(&snapshot, &grant)?;
            }
            let grant = pin_definitions(&snapshot, &grant)?;
            self.check_grant(&snapshot, &grant, cx).await?;
            let approval = match by {
                GrantActor::Admin(admin) if grant_needs_approval(&snapshot.registry, grant.authority.as_ref()) => {
                    self.find_approval(admin, &snapshot.registry, &act(&grant)?, cx)?
                }
                GrantActor::Admin(_) | GrantActor::Requester(_) => None,
            };
            // A grant of their own lifts the requester's refusal of the agent.
            if snapshot.is_refused(&grant.agent, &grant.requester) {
                let write = WriteSet {
                    precondition: Some(capacity_guard(&grant, &snapshot, cx)),
                    idempotency: request.storing(&(id, cx.now))?,
                    state_changes: vec![StateChange::PutGrant(Box::new(grant.clone()))],
                    log_entries: vec![delegation_entry(LogAction::Resume, &grant.agent, &grant.requester, by, cx)],
                    audit_records: vec![Record { granted: Some(details(&grant)), ..record.clone() }],
                    ..WriteSet::default()
                };
                return Ok(Decision::Write(Box::new(write), grant));
            }
            let write = UnloggedWrite::new(
                capacity_guard(&grant, &snapshot, cx),
                request.storing(&(id, cx.now))?,
                StateChange::PutGrant(Box::new(grant.clone())),
                Record { granted: Some(details(&grant)), ..record.clone() },
            )
            .with_approval(approval);
            Ok(Decision::WriteUnlogged(Box::new(write), grant))
        });
        match completion.await? {
            Completion::Done(grant, _) => Ok(grant),
            Completion::Replayed(Replay { response: (id, at), .. }) => {
                self.read_replayed_grant(by, Grant { id, at, ..grant }, cx).await
            }
            Completion::Refused(conflict) => {
                Err(self.record_refusal(Record { requested: Some(details(&grant)), ..record }, conflict).await)
            }
        }
    }

    /// Returns a grant that an earlier request with the same idempotency key created. A grant that
    /// was withdrawn since is not created again: its withdrawal was intended.
    async fn read_replayed_grant(&self, by: GrantActor<'_>, grant: Grant, cx: &RequestContext) -> Result<Grant, Error> {
        if let Some(created) = self.store().find_grant(grant.id).await? {
            return Ok(created);
        }
        let requested = Some(json!({"id": grant.id, "replayed": true}));
        let record = Record { requested, ..grant_record(by, &grant.requester, &grant.agent, cx) };
        let text = "the grant of this idempotency key was withdrawn; create another one with a new key";
        Err(self.record_refusal_after_barrier(record, ConflictError::Inconsistent(text.into())).await)
    }

    /// Checks whether the grant can be created on this registry. The write depends on the same
    /// registry version: the removal of an agent also removes the grants to it, and no grant may be
    /// created after that.
    async fn check_grant(&self, snapshot: &Snapshot, grant: &Grant, cx: &RequestContext) -> Result<(), Error> {
        let registry = &snapshot.registry;
        if registry.agent(&grant.agent).is_none() {
            return Err(ConflictError::NotFound("agent").into());
        }
        let offered =
            registry.catalogue(|uri| grant.authority.iter().flat_map(Authority::iter).any(|p| p.resource == *uri));
        if grant.authority.as_ref().is_some_and(|authority| !authority.is_subset_of(&offered)) {
            let text = "the grant names a tool that is not in the catalogue of its resource";
            return Err(ConflictError::Inconsistent(text.into()).into());
        }
        let live = self.store().list_live_grants(&grant.requester, &grant.agent, cx.now, MAX_TOTAL_GRANTS).await?;
        let count = live.iter().filter(|other| other.break_glass == grant.break_glass).count();
        let limit = grant.max_count();
        if u32::try_from(count).is_ok_and(|count| count < limit) {
            return Ok(());
        }
        let kind = if grant.break_glass { "break-glass grants" } else { "grants" };
        let text = format!("the limit of {limit} {kind} from this requester to this agent is reached; withdraw some");
        Err(ConflictError::Inconsistent(text).into())
    }

    /// Withdraws a grant. When this returns, every token that rests on the grant is revoked
    /// everywhere.
    pub async fn withdraw_grant(&self, by: GrantActor<'_>, id: GrantId, cx: &RequestContext) -> Result<(), Error> {
        match self.reserved_store().find_grant(id).await? {
            Some(grant) if by.may_manage(&grant) => self.write_withdrawal(by, vec![grant], cx).await,
            // The grant of another requester gives the same answer as a missing one.
            Some(_) | None => {
                let record = Record {
                    requested: Some(json!({"withdraw": id})),
                    ..Record::new(cx.now, Event::GrantChange, Outcome::Refused)
                };
                let record = with_grant_actor(by, record, cx);
                Err(self.record_refusal_after_barrier(record, ConflictError::NotFound("grant")).await)
            }
        }
    }

    /// Withdraws every live grant of a requester to an agent that existed when the withdrawal
    /// began.
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
            let grants = self.reserved_store().list_live_grants(requester, agent, cx.now, MAX_TOTAL_GRANTS).await?;
            if is_first && grants.is_empty() {
                let record = Record { requested: Some(json!("withdraw")), ..grant_record(by, requester, agent, cx) };
                return Err(self.record_refusal_after_barrier(record, ConflictError::NotFound("grant")).await);
            }
            let is_last = u32::try_from(grants.len()).is_ok_and(|count| count < MAX_TOTAL_GRANTS);
            if !grants.is_empty() {
                self.write_withdrawal(by, grants, cx).await?;
            }
            if is_last {
                return Ok(());
            }
            is_first = false;
        }
    }

    /// Ends everything that the agent does for the requester, and refuses it anything more until
    /// the requester makes a grant to it. Consent need not be required for this. When this
    /// returns, the tokens are revoked everywhere.
    pub async fn refuse_agent(
        &self,
        caller: &RequesterCaller,
        agent: &ClientId,
        cx: &RequestContext,
    ) -> Result<(), Error> {
        let (by, requester) = (GrantActor::Requester(caller), caller.requester());
        let record = grant_record(by, requester, agent, cx);
        let snapshot = self.inner.follower.committed_snapshot(cx.now).await?;
        if !by.is_still_authorized(&snapshot) {
            return Err(AuthError::InvalidBearer.into());
        }
        let record = Record { requested: Some(json!("refuse")), ..record };
        if snapshot.registry.agent(agent).is_none() {
            return Err(self.record_refusal_after_barrier(record, ConflictError::NotFound("agent")).await);
        }
        // A repeated refusal must find the first one applied everywhere.
        if snapshot.is_refused(agent, requester) {
            self.inner.writer.await_barrier().await?;
        } else {
            let verbs = [LogAction::Revoke, LogAction::Suspend];
            let write = WriteSet {
                log_entries: verbs.map(|verb| delegation_entry(verb, agent, requester, by, cx)).into(),
                audit_records: vec![record],
                ..WriteSet::default()
            };
            self.inner.writer.commit_and_propagate(write, None).await?;
            self.clean_up_revoked(cx).await;
        }
        loop {
            let grants = self.reserved_store().list_live_grants(requester, agent, cx.now, MAX_TOTAL_GRANTS).await?;
            let is_last = u32::try_from(grants.len()).is_ok_and(|count| count < MAX_TOTAL_GRANTS);
            if !grants.is_empty() {
                self.write_withdrawal(by, grants, cx).await?;
            }
            if is_last {
                return Ok(());
            }
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
            let requested = Some(json!({"withdraw": grant.id}));
            let record = Record { requested, ..grant_record(by, &grant.requester, &grant.agent, cx) };
            write.audit_records.push(record);
        }
        self.inner.writer.commit(write).await?;
        // The tokens are revoked. The final state of the tasks can wait for the periodic
        // maintenance.
        if let Err(error) = self.end_tasks_without_grant(cx).await {
            tracing::warn!(error = %ErrorChain(&error), "tasks of a withdrawn grant are left to the maintenance job");
        }
        Ok(())
    }

    /// Lists grants, newest first. A requester sees their own.
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

/// Returns the grant with the accepted definitions of its tools. The requester consents to a tool
/// as it is now: when its definition changes, the grant no longer covers it.
fn pin_definitions(snapshot: &Snapshot, grant: &Grant) -> Result<Grant, ConflictError> {
    let Some(authority) = &grant.authority else { return Ok(grant.clone()) };
    let pinned = snapshot.registry.bind_definitions(authority).map_err(|UnacceptedTool { tool, reason }| {
        ConflictError::Inconsistent(format!("the grant names the tool `{tool}`: {reason}"))
    })?;
    Ok(Grant { authority: Some(pinned), ..grant.clone() })
}

/// Checks that the requester has not refused the agent. Only the requester lifts that.
fn check_not_refused(snapshot: &Snapshot, grant: &Grant) -> Result<(), ConflictError> {
    if !snapshot.is_refused(&grant.agent, &grant.requester) {
        return Ok(());
    }
    let text = "the requester refused this agent; only the requester can allow it again, by a grant at `/v1/grants`";
    Err(ConflictError::Inconsistent(text.into()))
}

/// Returns the entry about an agent that acts for a requester.
fn delegation_entry(
    verb: LogAction,
    agent: &ClientId,
    requester: &Requester,
    by: GrantActor<'_>,
    cx: &RequestContext,
) -> NewEntry {
    let (reason, forget_after) = match verb {
        LogAction::Revoke => ("the requester refused the agent", latest_possible_expiry(cx.now)),
        // Kept for good: the last one counts, whenever a replica starts.
        LogAction::Suspend => ("the requester refused the agent", Timestamp::MAX),
        LogAction::Resume => ("the requester made a grant to the agent", Timestamp::MAX),
    };
    NewEntry {
        verb,
        target: Target::Delegation(agent.clone(), Box::new(requester.clone())),
        reason: reason.into(),
        by: by.identity(),
        at: cx.now,
        forget_after,
    }
}

/// Returns the precondition of a new grant: the registry is unchanged, and the limit of grants is
/// not reached.
fn capacity_guard(grant: &Grant, snapshot: &Snapshot, cx: &RequestContext) -> Precondition {
    let Grant { requester, agent, break_glass, .. } = grant.clone();
    Precondition::GrantCapacity(Box::new(GrantCapacity {
        registry_version: snapshot.registry.version(),
        key: GrantKey { requester, agent, break_glass },
        now: cx.now,
        limit: grant.max_count(),
    }))
}

fn grant_record(by: GrantActor<'_>, requester: &Requester, agent: &ClientId, cx: &RequestContext) -> Record {
    let record = Record {
        requester: Some(requester.clone()),
        agents: vec![agent.to_string()],
        ..Record::new(cx.now, Event::GrantChange, Outcome::Done)
    };
    with_grant_actor(by, record, cx)
}

/// Adds the actor to the record: an admin by name, a requester as the requester.
fn with_grant_actor(by: GrantActor<'_>, record: Record, cx: &RequestContext) -> Record {
    let record = Record { request_id: Some(cx.request_id.clone()), source: cx.source_text(), ..record };
    match by {
        GrantActor::Admin(admin) => Record { admin: Some(admin.identity()), ..record },
        GrantActor::Requester(caller) => {
            let (requester, by) = (Some(caller.requester().clone()), Some(caller.identity()));
            Record { by, requester, ..record }
        }
    }
}
