//! Taking back, by admins. Ending something is one entry in the revocation log, in one transaction with its audit record;
//! everything that was derived from it carries its name.

use std::time::Duration;

use serde_json::{Value, json};

use crate::{
    app::{
        ApiCaller, Conflict, Cx, Failure, Service,
        admin::ATTEMPTS,
        again, shut_out,
        tasks::{Turning, about_task, planned_turn, task_forgotten, turn_record},
    },
    domain::{
        audit::{Event, Outcome, Record},
        id::{ClientId, Reason, TaskId, TokenId},
        limits::{CLOCKS_MAY_DIFFER, TOKEN_LIFETIME_CAP},
        registry::Door,
        replica::Spread,
        revocation::{NewEntry, Seq, Target, Verb},
        task::{Act, Party, Requester, Turn},
        time::{Lifetime, Timestamp},
        uri::{IssuerUrl, ResourceUri},
    },
    ports::{Change, Expected, Idempotency, Outage, Write, Written},
};

/// How long the answer to an idempotency key is remembered.
pub(super) const IDEMPOTENCY: Lifetime = Lifetime::hours(24);

/// What an admin wants to take back, to hold back, or to let go on.
#[derive(Debug)]
pub struct Revocation {
    /// What.
    pub target: Wanted,
    /// What is done to it.
    pub what: What,
    /// Why.
    pub reason: Reason,
    /// The caller's `Idempotency-Key`: the same request again gets the same answer.
    pub idempotency_key: Option<String>,
}

/// What an admin does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// End what there is.
    Revoke,
    /// Hold a task or an agent back.
    Suspend,
    /// Let the same tokens work again.
    Resume,
    /// End what there is, and give nothing any more.
    Disable,
    /// Give something again.
    Enable,
}

impl What {
    /// The word for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Revoke => "revoke",
            Self::Suspend => "suspend",
            Self::Resume => "resume",
            Self::Disable => "disable",
            Self::Enable => "enable",
        }
    }
}

/// What can be taken back.
#[derive(Clone, Debug)]
pub enum Wanted {
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

impl Wanted {
    /// For the record of a refusal: the kind and the key, as they were asked for.
    pub(super) fn asked(&self) -> Value {
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
fn with_verb(mut asked: Value, what: What) -> Value {
    if what != What::Revoke
        && let Some(members) = asked.as_object_mut()
    {
        members.insert("verb".to_owned(), json!(what.as_str()));
    }
    asked
}

/// A revocation that is durable.
#[derive(Debug, PartialEq, Eq)]
pub struct Revoked {
    /// Its place in the log.
    pub seq: Seq,
    /// What was taken back: kind and key.
    pub target: Target,
    /// When.
    pub at: Timestamp,
    /// How far it got.
    pub spread: Spread,
}

impl Service {
    /// Takes back, holds back or lets go on what an admin names. Durable, with its audit record, and known everywhere before
    /// this returns.
    pub async fn revoke(&self, admin: &ApiCaller, wanted: Revocation, cx: &Cx) -> Result<Revoked, Failure> {
        self.revoke_within(admin, wanted, None, cx).await
    }

    /// The same, but waits no longer than that for all replicas to know: then it is durable, and
    /// [not yet everywhere](Spread::is_everywhere).
    pub async fn revoke_within(
        &self,
        admin: &ApiCaller,
        wanted: Revocation,
        patience: Option<Duration>,
        cx: &Cx,
    ) -> Result<Revoked, Failure> {
        for _ in 0..ATTEMPTS {
            if let Some(revoked) = self.try_to_revoke(admin, &wanted, patience, cx).await? {
                return Ok(revoked);
            }
        }
        Err(self.refused(revocation_record(admin, &wanted, cx), Conflict::Contended))
    }

    /// `None`: somebody changed the task's state, or the registry, at the same moment.
    async fn try_to_revoke(
        &self,
        admin: &ApiCaller,
        wanted: &Revocation,
        patience: Option<Duration>,
        cx: &Cx,
    ) -> Result<Option<Revoked>, Failure> {
        let refused = |conflict| self.refused(revocation_record(admin, wanted, cx), conflict);
        let asked = wanted.target.asked();
        let fingerprint = format!("{} {asked} {}", wanted.what.as_str(), wanted.reason);
        let request = again::request(admin.name(), wanted.idempotency_key.clone(), fingerprint, cx);
        if let Some(before) = self.revoked_already(request.as_ref(), patience).await? {
            return Ok(Some(before.map_err(refused)?));
        }
        let planned = self.plan_revocation(admin, wanted, cx).await;
        let planned = match planned {
            Err(Failure::Conflict(conflict)) => {
                // The same request may have done it a moment ago, and that is why it can't be done.
                return match self.revoked_already(request.as_ref(), patience).await? {
                    Some(before) => Ok(Some(before.map_err(refused)?)),
                    None => Err(self.refused_as_it_is(revocation_record(admin, wanted, cx), conflict).await),
                };
            }
            planned => planned?,
        };
        let Planned { target, log, expected, changes, about } = planned;
        let record = Record {
            admin: Some(admin.name()),
            asked: Some(with_verb(json!({"kind": target.kind(), "key": target.key()}), wanted.what)),
            reason: Some(wanted.reason.to_string()),
            request_id: Some(cx.request_id.clone()),
            ..*about
        };
        let answer = json!({"kind": target.kind(), "key": target.key(), "at": cx.now});
        let idempotency = request.clone().map(|request| Idempotency { answer: answer.to_string(), ..request });
        let write = Write { expected, idempotency, changes, log, audit: vec![record], ..Write::default() };
        match self.0.journal.publish(write, patience).await? {
            (Written::Done { .. }, Some(spread)) => Ok(Some(Revoked { seq: spread.seq, target, at: cx.now, spread })),
            (before @ Written::Before { .. }, spread) => {
                let (target, at) = revoked_before(request.as_ref(), &before).map_err(refused)?;
                let spread = spread.ok_or_else(|| Outage::during("revoke")(NO_PLACE))?;
                Ok(Some(Revoked { seq: spread.seq, target, at, spread }))
            }
            (Written::Moved, _) => Ok(None),
            (Written::Done { .. } | Written::Replayed, _) => Err(Outage::during("revoke")(NO_PLACE).into()),
        }
    }

    pub(super) async fn plan_revocation(
        &self,
        admin: &ApiCaller,
        wanted: &Revocation,
        cx: &Cx,
    ) -> Result<Planned, Failure> {
        let door = match (wanted.what, &wanted.target) {
            (What::Revoke, _) => None,
            (What::Suspend, Wanted::Task(id)) => return self.plan_turn(admin, *id, Act::Suspend, wanted, cx).await,
            (What::Resume, Wanted::Task(id)) => return self.plan_turn(admin, *id, Act::Resume, wanted, cx).await,
            (What::Suspend, _) => Some(Door::Suspend),
            (What::Resume, _) => Some(Door::Resume),
            (What::Disable, _) => Some(Door::Disable),
            (What::Enable, _) => Some(Door::Enable),
        };
        if let Some(door) = door {
            // Somebody else may have been quicker than this request's view.
            let view = self.0.follower.latest(cx.now).await?;
            return shut_out::plan(admin, &view.registry, &wanted.target, door, &wanted.reason, cx);
        }
        let registry = &admin.client().view().registry;
        let record = Record::new(cx.now, Event::Revocation, Outcome::Done);
        let all_gone = all_gone(cx.now);
        let planned = |target: Target, forget_after, about| Planned {
            log: vec![NewEntry {
                verb: Verb::Revoke,
                target: target.clone(),
                reason: wanted.reason.to_string(),
                by: admin.name(),
                at: cx.now,
                forget_after,
            }],
            target,
            expected: None,
            changes: Vec::new(),
            about: Box::new(about),
        };
        // What is not registered any more must still be possible to take back.
        Ok(match &wanted.target {
            Wanted::Token(id) => {
                let token = self.store().token(*id).await?.ok_or(Conflict::NotFound("token"))?;
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
                planned(Target::Token(*id), forgotten(token.expires, cx.now), about)
            }
            Wanted::Task(id) => {
                let task = self.store().task(*id).await?.ok_or(Conflict::NotFound("task"))?;
                let plan = planned(Target::Task(*id), task_forgotten(&task, cx.now), about_task(&task, record));
                let by = Party::Admin(admin.name());
                match task.after(Act::Revoke, &by, cx.now) {
                    Ok(state) => {
                        let reason = Some(wanted.reason.clone());
                        let turn = Turn { state, at: cx.now, by: by.to_string(), reason, outcome: None };
                        let expected = Some(Expected::Task(*id, task.turns));
                        Planned { expected, changes: vec![Change::TurnTask(*id, turn)], ..plan }
                    }
                    // It has ended, and stays what it became. To take back what is over is no mistake, and never refused.
                    Err(_) => plan,
                }
            }
            Wanted::Requester(requester) => {
                let about = Record { requester: Some(requester.clone()), ..record };
                planned(Target::requester(requester), all_gone, about)
            }
            Wanted::Agent(id) => {
                planned(Target::Agent(id.clone()), all_gone, Record { agents: vec![id.to_string()], ..record })
            }
            Wanted::Resource(id) => {
                let uri: ResourceUri = registry.resource(id).ok_or(Conflict::NotFound("resource"))?.uri.clone();
                let about = Record { resource: Some(uri.to_string()), ..record };
                planned(Target::Resource(uri), all_gone, about)
            }
            Wanted::ResourceAt(uri) => {
                let about = Record { resource: Some(uri.to_string()), ..record };
                planned(Target::Resource(uri.clone()), all_gone, about)
            }
            Wanted::Issuer(url) => planned(Target::Issuer(url.clone()), all_gone, record),
        })
    }

    /// What this request was answered, if it came before.
    async fn revoked_already(
        &self,
        request: Option<&Idempotency>,
        patience: Option<Duration>,
    ) -> Result<Option<Result<Revoked, Conflict>>, Outage> {
        let Some(asked) = request else { return Ok(None) };
        let Some(before) = self.store().answered(&asked.caller, &asked.key).await? else { return Ok(None) };
        let (target, at) = match revoked_before(request, &before) {
            Ok(answer) => answer,
            Err(conflict) => return Ok(Some(Err(conflict))),
        };
        // Who hears the first answer again may not have heard it then: it holds everywhere now as well.
        let Written::Before { seq: Some(seq), .. } = before else { return Ok(Some(Err(Conflict::KeyReused))) };
        let spread = self.0.journal.spread(seq, patience).await?;
        Ok(Some(Ok(Revoked { seq, target, at, spread })))
    }

    /// The task's own rules say what may follow on what.
    async fn plan_turn(
        &self,
        admin: &ApiCaller,
        id: TaskId,
        act: Act,
        wanted: &Revocation,
        cx: &Cx,
    ) -> Result<Planned, Failure> {
        let task = self.store().task(id).await?.ok_or(Conflict::NotFound("task"))?;
        let by = Party::Admin(admin.name());
        let state = task.after(act, &by, cx.now).map_err(Conflict::CannotTurn)?;
        let turning = Turning { act, reason: Some(wanted.reason.clone()), outcome: None };
        let (turn, entry) = planned_turn(&task, state, &by, &turning, cx);
        Ok(Planned {
            target: Target::Task(id),
            log: vec![entry],
            expected: Some(Expected::Task(id, task.turns)),
            about: Box::new(turn_record(&by, &task, &turn, cx)),
            changes: vec![Change::TurnTask(id, turn)],
        })
    }
}

pub(super) const NO_PLACE: &str = "the store gave the entry no place";

/// What this request was answered the first time.
fn revoked_before(request: Option<&Idempotency>, before: &Written) -> Result<(Target, Timestamp), Conflict> {
    let Written::Before { fingerprint, answer, seq: Some(_) } = before else { return Err(Conflict::KeyReused) };
    let answer = serde_json::from_str::<Value>(answer).unwrap_or_default();
    let text = |name| answer.get(name).and_then(Value::as_str);
    let target = text("kind").zip(text("key")).and_then(|(kind, key)| Target::parse(kind, key));
    match (target, answer.get("at").and_then(Value::as_i64)) {
        (Some(target), Some(at)) if request.is_some_and(|request| request.fingerprint == *fingerprint) => {
            Ok((target, Timestamp::from_unix(at)))
        }
        _ => Err(Conflict::KeyReused),
    }
}

/// When the entry about a token may be forgotten. Never before it is written, however long ago the token ended: where entries
/// were passed over, nothing is good that is as old.
pub(super) fn forgotten(expires: Timestamp, now: Timestamp) -> Timestamp {
    expires.max(now).after(CLOCKS_MAY_DIFFER)
}

/// Nothing that was issued until now, and nothing that is being issued, lives longer than this.
pub(super) fn all_gone(now: Timestamp) -> Timestamp {
    now.after(TOKEN_LIFETIME_CAP).after(CLOCKS_MAY_DIFFER)
}

/// What a revocation writes, but for who asked and why.
pub(super) struct Planned {
    /// What the answer names.
    pub(super) target: Target,
    /// The entries of the log.
    pub(super) log: Vec<NewEntry>,
    /// What it builds on.
    pub(super) expected: Option<Expected>,
    /// The changes that go with it.
    pub(super) changes: Vec<Change>,
    /// The audit record.
    pub(super) about: Box<Record>,
}

/// What a refused revocation leaves.
fn revocation_record(admin: &ApiCaller, wanted: &Revocation, cx: &Cx) -> Record {
    Record {
        admin: Some(admin.name()),
        asked: Some(with_verb(wanted.target.asked(), wanted.what)),
        request_id: Some(cx.request_id.clone()),
        ..Record::new(cx.now, Event::Revocation, Outcome::Done)
    }
}
