//! Taking back, by admins. Ending something is one entry in the revocation log, in one transaction with its audit record;
//! everything that was derived from it carries its name.

use std::time::Duration;

use serde_json::{Value, json};

use crate::{
    app::{
        ApiCaller, ConflictError, Error, RequestContext, Service,
        commit::idempotency,
        registry::objects::MAX_COMMIT_ATTEMPTS,
        revocation::blocking,
        tasks::lifecycle::{
            TransitionRequest, plan_transition, retain_task_until, transition_record, with_task_fields,
        },
    },
    domain::{
        audit::{Event, Outcome, Record},
        id::{ClientId, Reason, TaskId, TokenId},
        registry::BlockAction,
        replication::Propagation,
        revocation::{LogAction, LogPosition, NewEntry, Target, latest_possible_expiry, retain_until},
        task::{Initiator, Requester, TaskAction, Transition},
        time::{Lifetime, Timestamp},
        uri::{IssuerUrl, ResourceUri},
    },
    ports::{IdempotentRequest, Outage, Precondition, StateChange, WriteOutcome, WriteSet},
};

/// How long the answer to an idempotency key is remembered.
pub(in crate::app) const IDEMPOTENCY_RETENTION: Lifetime = Lifetime::hours(24);

/// What an admin wants to take back, to hold back, or to let go on.
#[derive(Debug)]
pub struct Revocation {
    /// What.
    pub target: RevocationTarget,
    /// What is done to it.
    pub action: AdminAction,
    /// Why.
    pub reason: Reason,
    /// The caller's `Idempotency-Key`: the same request again gets the same answer.
    pub idempotency_key: Option<String>,
}

/// What an admin does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AdminAction {
    /// End what there is.
    Revoke,
    /// Hold a task or an agent back.
    Suspend,
    /// Let the same tokens work again.
    Resume,
    /// End what there is, and give nothing any more.
    Block,
    /// Give something again.
    Unblock,
}

impl AdminAction {
    /// The word for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Revoke => "revoke",
            Self::Suspend => "suspend",
            Self::Resume => "resume",
            Self::Block => "disable",
            Self::Unblock => "enable",
        }
    }
}

/// What can be taken back.
#[derive(Clone, Debug)]
pub enum RevocationTarget {
    /// One token, with all that was derived from it.
    Token(TokenId),
    /// One task, with all its tokens.
    Task(TaskId),
    /// Everything issued so far in a requester's name.
    Requester(Requester),
    /// Everything issued so far that an agent acts in.
    Agent(ClientId),
    /// Everything issued so far for a resource that is registered.
    Resource(ClientId),
    /// Everything issued so far for the resource at this URI, registered or not.
    ResourceAt(ResourceUri),
    /// Everything issued so far on the word of an identity provider.
    Issuer(IssuerUrl),
}

impl RevocationTarget {
    /// For the record of a refusal: the kind and the key, as they were asked for.
    pub(in crate::app) fn audit_details(&self) -> Value {
        let (kind, key) = match self {
            Self::Token(id) => ("token", id.to_string()),
            Self::Task(id) => ("task", id.to_string()),
            Self::Requester(requester) => ("requester", format!("{} {}", requester.issuer, requester.subject)),
            Self::Agent(id) => ("agent", id.to_string()),
            Self::Resource(id) => ("resource", id.to_string()),
            Self::ResourceAt(uri) => ("resource", uri.to_string()),
            Self::Issuer(url) => ("issuer", url.to_string()),
        };
        json!({"kind": kind, "key": key})
    }
}

/// For the record of what was done, and of what was refused: the verb too, where it is not the usual one.
fn with_verb(mut asked: Value, action: AdminAction) -> Value {
    if action != AdminAction::Revoke
        && let Some(members) = asked.as_object_mut()
    {
        members.insert("verb".to_owned(), json!(action.as_str()));
    }
    asked
}

/// A revocation that is durable.
#[derive(Debug, PartialEq, Eq)]
pub struct RevocationReceipt {
    /// Its place in the log.
    pub seq: LogPosition,
    /// What was taken back: kind and key.
    pub target: Target,
    /// When.
    pub at: Timestamp,
    /// How far it got.
    pub propagation: Propagation,
}

impl Service {
    /// Takes back, holds back or lets go on what an admin names. Durable, with its audit record, and known everywhere before
    /// this returns.
    pub async fn revoke(
        &self,
        admin: &ApiCaller,
        revocation: Revocation,
        cx: &RequestContext,
    ) -> Result<RevocationReceipt, Error> {
        self.revoke_with_wait(admin, revocation, None, cx).await
    }

    /// The same, but waits no longer than that for all replicas to know: then it is durable, and
    /// [not yet everywhere](Spread::is_everywhere).
    pub async fn revoke_with_wait(
        &self,
        admin: &ApiCaller,
        revocation: Revocation,
        max_wait: Option<Duration>,
        cx: &RequestContext,
    ) -> Result<RevocationReceipt, Error> {
        for _ in 0..MAX_COMMIT_ATTEMPTS {
            if let Some(revoked) = self.try_revoke(admin, &revocation, max_wait, cx).await? {
                return Ok(revoked);
            }
        }
        Err(self.record_refusal(revocation_record(admin, &revocation, cx), ConflictError::ConcurrentUpdate))
    }

    /// `None`: somebody changed the task's state, or the registry, at the same moment.
    async fn try_revoke(
        &self,
        admin: &ApiCaller,
        revocation: &Revocation,
        max_wait: Option<Duration>,
        cx: &RequestContext,
    ) -> Result<Option<RevocationReceipt>, Error> {
        let refused = |conflict| self.record_refusal(revocation_record(admin, revocation, cx), conflict);
        let asked = revocation.target.audit_details();
        let fingerprint = format!("{} {asked} {}", revocation.action.as_str(), revocation.reason);
        let request =
            idempotency::build_idempotency(admin.identity(), revocation.idempotency_key.clone(), fingerprint, cx);
        if let Some(before) = self.find_replayed_receipt(request.as_ref(), max_wait).await? {
            return Ok(Some(before.map_err(refused)?));
        }
        let planned = self.plan_revocation(admin, revocation, cx).await;
        let planned = match planned {
            Err(Error::Conflict(conflict)) => {
                // The same request may have done it a moment ago, and that is why it can't be done.
                return match self.find_replayed_receipt(request.as_ref(), max_wait).await? {
                    Some(before) => Ok(Some(before.map_err(refused)?)),
                    None => {
                        Err(self.record_refusal_after_barrier(revocation_record(admin, revocation, cx), conflict).await)
                    }
                };
            }
            planned => planned?,
        };
        let RevocationPlan { target, log, expected, changes, audit_record: about } = planned;
        let record = Record {
            admin: Some(admin.identity()),
            requested: Some(with_verb(json!({"kind": target.kind(), "key": target.key()}), revocation.action)),
            reason: Some(revocation.reason.to_string()),
            request_id: Some(cx.request_id.clone()),
            ..*about
        };
        let answer = json!({"kind": target.kind(), "key": target.key(), "at": cx.now});
        let idempotency = request.clone().map(|request| IdempotentRequest { response: answer.to_string(), ..request });
        let write = WriteSet {
            precondition: expected,
            idempotency,
            state_changes: changes,
            log_entries: log,
            audit_records: vec![record],
            ..WriteSet::default()
        };
        match self.0.writer.commit_and_propagate(write, max_wait).await? {
            (WriteOutcome::Committed { .. }, Some(propagation)) => {
                Ok(Some(RevocationReceipt { seq: propagation.seq, target, at: cx.now, propagation }))
            }
            (before @ WriteOutcome::AlreadyApplied { .. }, propagation) => {
                let (target, at) = parse_replayed_receipt(request.as_ref(), &before).map_err(refused)?;
                let propagation = propagation.ok_or_else(|| Outage::during("revoke")(MISSING_SEQ))?;
                Ok(Some(RevocationReceipt { seq: propagation.seq, target, at, propagation }))
            }
            (WriteOutcome::Conflict, _) => Ok(None),
            (WriteOutcome::Committed { .. } | WriteOutcome::Replayed, _) => {
                Err(Outage::during("revoke")(MISSING_SEQ).into())
            }
        }
    }

    pub(in crate::app) async fn plan_revocation(
        &self,
        admin: &ApiCaller,
        revocation: &Revocation,
        cx: &RequestContext,
    ) -> Result<RevocationPlan, Error> {
        let block_action = match (revocation.action, &revocation.target) {
            (AdminAction::Revoke, _) => None,
            (AdminAction::Suspend, RevocationTarget::Task(id)) => {
                return self.plan_task_transition(admin, *id, TaskAction::Suspend, revocation, cx).await;
            }
            (AdminAction::Resume, RevocationTarget::Task(id)) => {
                return self.plan_task_transition(admin, *id, TaskAction::Resume, revocation, cx).await;
            }
            (AdminAction::Suspend, _) => Some(BlockAction::Suspend),
            (AdminAction::Resume, _) => Some(BlockAction::Resume),
            (AdminAction::Block, _) => Some(BlockAction::Block),
            (AdminAction::Unblock, _) => Some(BlockAction::Unblock),
        };
        if let Some(block_action) = block_action {
            // Somebody else may have been quicker than this request's view.
            let snapshot = self.0.follower.committed_snapshot(cx.now).await?;
            return blocking::plan_block(
                admin,
                &snapshot.registry,
                &revocation.target,
                block_action,
                &revocation.reason,
                cx,
            );
        }
        let registry = &admin.client().snapshot().registry;
        let record = Record::new(cx.now, Event::Revocation, Outcome::Done);
        let latest_expiry = latest_possible_expiry(cx.now);
        let planned = |target: Target, forget_after, about| RevocationPlan {
            log: vec![NewEntry {
                verb: LogAction::Revoke,
                target: target.clone(),
                reason: revocation.reason.to_string(),
                by: admin.identity(),
                at: cx.now,
                forget_after,
            }],
            target,
            expected: None,
            changes: Vec::new(),
            audit_record: Box::new(about),
        };
        // What is not registered any more must still be possible to take back.
        Ok(match &revocation.target {
            RevocationTarget::Token(id) => {
                let token = self.store().find_token(*id).await?.ok_or(ConflictError::NotFound("token"))?;
                // An API token has no agents: it is its client's.
                let agents = if token.agents.is_empty() { vec![token.client] } else { token.agents };
                let about = Record {
                    token: Some(*id),
                    task: token.task,
                    requester: token.requester,
                    agents: agents.iter().map(ToString::to_string).collect(),
                    resource: Some(token.audience),
                    ..record
                };
                planned(Target::Token(*id), retain_until(token.expires, cx.now), about)
            }
            RevocationTarget::Task(id) => {
                let task = self.store().find_task(*id).await?.ok_or(ConflictError::NotFound("task"))?;
                let plan =
                    planned(Target::Task(*id), retain_task_until(&task, cx.now), with_task_fields(&task, record));
                let by = Initiator::Admin(admin.identity());
                match task.next_state(TaskAction::Revoke, &by, cx.now) {
                    Ok(state) => {
                        let reason = Some(revocation.reason.clone());
                        let turn = Transition { state, at: cx.now, by: by.to_string(), reason, outcome: None };
                        let expected = Some(Precondition::TaskVersion(*id, task.version));
                        RevocationPlan { expected, changes: vec![StateChange::TransitionTask(*id, turn)], ..plan }
                    }
                    // It has ended, and stays what it became. To take back what is over is no mistake, and never refused.
                    Err(_) => plan,
                }
            }
            RevocationTarget::Requester(requester) => {
                let about = Record { requester: Some(requester.clone()), ..record };
                planned(Target::for_requester(requester), latest_expiry, about)
            }
            RevocationTarget::Agent(id) => {
                planned(Target::Agent(id.clone()), latest_expiry, Record { agents: vec![id.to_string()], ..record })
            }
            RevocationTarget::Resource(id) => {
                let uri: ResourceUri = registry.resource(id).ok_or(ConflictError::NotFound("resource"))?.uri.clone();
                let about = Record { resource: Some(uri.to_string()), ..record };
                planned(Target::Resource(uri), latest_expiry, about)
            }
            RevocationTarget::ResourceAt(uri) => {
                let about = Record { resource: Some(uri.to_string()), ..record };
                planned(Target::Resource(uri.clone()), latest_expiry, about)
            }
            RevocationTarget::Issuer(url) => planned(Target::Issuer(url.clone()), latest_expiry, record),
        })
    }

    /// What this request was answered, if it came before.
    async fn find_replayed_receipt(
        &self,
        request: Option<&IdempotentRequest>,
        max_wait: Option<Duration>,
    ) -> Result<Option<Result<RevocationReceipt, ConflictError>>, Outage> {
        let Some(idempotency) = request else { return Ok(None) };
        let Some(before) = self.store().find_idempotent_response(&idempotency.caller, &idempotency.key).await? else {
            return Ok(None);
        };
        let (target, at) = match parse_replayed_receipt(request, &before) {
            Ok(answer) => answer,
            Err(conflict) => return Ok(Some(Err(conflict))),
        };
        // Who hears the first answer again may not have heard it then: it holds everywhere now as well.
        let WriteOutcome::AlreadyApplied { seq: Some(seq), .. } = before else {
            return Ok(Some(Err(ConflictError::IdempotencyKeyReused)));
        };
        let propagation = self.0.writer.await_propagation(seq, max_wait).await?;
        Ok(Some(Ok(RevocationReceipt { seq, target, at, propagation })))
    }

    /// The task's own rules say what may follow on what.
    async fn plan_task_transition(
        &self,
        admin: &ApiCaller,
        id: TaskId,
        act: TaskAction,
        revocation: &Revocation,
        cx: &RequestContext,
    ) -> Result<RevocationPlan, Error> {
        let task = self.store().find_task(id).await?.ok_or(ConflictError::NotFound("task"))?;
        let by = Initiator::Admin(admin.identity());
        let state = task.next_state(act, &by, cx.now).map_err(ConflictError::IllegalTransition)?;
        let requested = TransitionRequest { action: act, reason: Some(revocation.reason.clone()), outcome: None };
        let (transition, entry) = plan_transition(&task, state, &by, &requested, cx);
        Ok(RevocationPlan {
            target: Target::Task(id),
            log: vec![entry],
            expected: Some(Precondition::TaskVersion(id, task.version)),
            audit_record: Box::new(transition_record(&by, &task, &transition, cx)),
            changes: vec![StateChange::TransitionTask(id, transition)],
        })
    }
}

pub(in crate::app) const MISSING_SEQ: &str = "the store gave the entry no place";

/// What this request was answered the first time.
fn parse_replayed_receipt(
    request: Option<&IdempotentRequest>,
    before: &WriteOutcome,
) -> Result<(Target, Timestamp), ConflictError> {
    let WriteOutcome::AlreadyApplied { fingerprint, response: answer, seq: Some(_) } = before else {
        return Err(ConflictError::IdempotencyKeyReused);
    };
    let answer = serde_json::from_str::<Value>(answer).unwrap_or_default();
    let text = |name| answer.get(name).and_then(Value::as_str);
    let target = text("kind").zip(text("key")).and_then(|(kind, key)| Target::parse(kind, key));
    match (target, answer.get("at").and_then(Value::as_i64)) {
        (Some(target), Some(at)) if request.is_some_and(|request| request.fingerprint == *fingerprint) => {
            Ok((target, Timestamp::from_unix(at)))
        }
        _ => Err(ConflictError::IdempotencyKeyReused),
    }
}

/// What a revocation writes, but for who asked and why.
pub(in crate::app) struct RevocationPlan {
    /// What the answer names.
    pub(in crate::app) target: Target,
    /// The entries of the log.
    pub(in crate::app) log: Vec<NewEntry>,
    /// What it builds on.
    pub(in crate::app) expected: Option<Precondition>,
    /// The changes that go with it.
    pub(in crate::app) changes: Vec<StateChange>,
    /// The audit record.
    pub(in crate::app) audit_record: Box<Record>,
}

/// What a refused revocation leaves.
fn revocation_record(admin: &ApiCaller, revocation: &Revocation, cx: &RequestContext) -> Record {
    Record {
        admin: Some(admin.identity()),
        requested: Some(with_verb(revocation.target.audit_details(), revocation.action)),
        request_id: Some(cx.request_id.clone()),
        ..Record::new(cx.now, Event::Revocation, Outcome::Done)
    }
}
