//! What issuing leaves behind: tasks, tokens, used one-time ids, answered requests.

use serde::Serialize;
use sqlx::FromRow;

use super::{Place, digest_of, signed};
use crate::{
    domain::{
        id::TaskId,
        revocation::Seq,
        status_list::{Shard, StatusPlace},
        task::{Task, Turn},
        token::TokenKind,
    },
    ports::{Idempotency, OneTimeId, Outage, TokenRecord, Written},
};

/// `tasks`
#[derive(Serialize, FromRow)]
pub(crate) struct TaskRow {
    id: String,
    requester_issuer: String,
    requester_subject: String,
    root_agent: String,
    purpose: String,
    authority: String,
    state: String,
    created: i64,
    deadline: i64,
    turns: i64,
    turned: Option<String>,
    grant_id: Option<String>,
    rev: i64,
}

/// `tasks`, how often the state of one has changed
#[derive(Debug, FromRow)]
pub(crate) struct TurnsRow {
    id: String,
    turns: i64,
}

impl TurnsRow {
    pub(crate) fn read(&self) -> Result<(TaskId, u64), Outage> {
        let place = Place { table: "tasks", row: &self.id };
        Ok((place.name("id", &self.id)?, place.number("turns", self.turns)?))
    }
}

impl TaskRow {
    pub(crate) fn of(task: &Task) -> Result<Self, Outage> {
        Ok(Self {
            id: task.id.to_string(),
            requester_issuer: task.requester.issuer.to_string(),
            requester_subject: task.requester.subject.to_string(),
            root_agent: task.root_agent.to_string(),
            purpose: task.purpose.to_string(),
            authority: serde_json::to_string(&task.authority).map_err(Outage::during("write a task"))?,
            state: task.state.as_str().to_owned(),
            created: task.created.unix(),
            deadline: task.deadline.unix(),
            turns: signed(task.turns),
            turned: task.turned.as_ref().map(turn_json).transpose()?,
            grant_id: task.grant.map(|id| id.to_string()),
            rev: signed(task.rev.number()),
        })
    }

    pub(crate) fn read(&self) -> Result<Task, Outage> {
        let place = Place { table: "tasks", row: &self.id };
        Ok(Task {
            id: place.name("id", &self.id)?,
            requester: place.requester(&self.requester_issuer, &self.requester_subject)?,
            root_agent: place.name("root_agent", &self.root_agent)?,
            purpose: place.name("purpose", &self.purpose)?,
            authority: place.json("authority", &self.authority)?,
            state: place.word("state", &self.state)?,
            created: place.time("created", self.created)?,
            deadline: place.time("deadline", self.deadline)?,
            grant: self.grant_id.as_ref().map(|id| place.name("grant_id", id)).transpose()?,
            turns: place.number("turns", self.turns)?,
            turned: self.turned.as_ref().map(|turned| place.json("turned", turned)).transpose()?,
            rev: Seq::new(place.number("rev", self.rev)?),
        })
    }
}

/// A task's last change, as it is kept.
pub(crate) fn turn_json(turn: &Turn) -> Result<String, Outage> {
    serde_json::to_string(turn).map_err(Outage::during("write a task"))
}

/// `tokens`
#[derive(Serialize, FromRow)]
pub(crate) struct TokenRow {
    id: String,
    kind: String,
    task: Option<String>,
    requester_issuer: Option<String>,
    requester_subject: Option<String>,
    client: String,
    agents: String,
    audience: String,
    lineage: String,
    authority: String,
    issued: i64,
    expires: i64,
    rev: i64,
    grant_id: Option<String>,
    break_glass: bool,
    status_shard: Option<i64>,
    status_number: Option<i64>,
}

impl TokenRow {
    pub(crate) fn of(token: &TokenRecord) -> Result<Self, Outage> {
        let during = "write a token's record";
        Ok(Self {
            id: token.id.to_string(),
            kind: token.kind.as_str().to_owned(),
            task: token.task.map(|id| id.to_string()),
            requester_issuer: token.requester.as_ref().map(|r| r.issuer.to_string()),
            requester_subject: token.requester.as_ref().map(|r| r.subject.to_string()),
            client: token.client.to_string(),
            agents: serde_json::to_string(&token.agents).map_err(Outage::during(during))?,
            audience: token.audience.clone(),
            lineage: serde_json::to_string(&token.lineage).map_err(Outage::during(during))?,
            authority: serde_json::to_string(&token.authority).map_err(Outage::during(during))?,
            issued: token.issued.unix(),
            expires: token.expires.unix(),
            rev: signed(token.rev.number()),
            grant_id: token.grant.map(|id| id.to_string()),
            break_glass: token.break_glass,
            status_shard: token.status.map(|place| place.shard.end()),
            status_number: token.status.map(|place| signed(place.number)),
        })
    }

    pub(crate) fn read(self) -> Result<TokenRecord, Outage> {
        let place = Place { table: "tokens", row: &self.id };
        let requester = match (&self.requester_issuer, &self.requester_subject) {
            (Some(issuer), Some(subject)) => Some(place.requester(issuer, subject)?),
            (None, None) => None,
            (Some(_), None) | (None, Some(_)) => return Err(place.corrupt("requester_subject")),
        };
        let status = match (self.status_shard, self.status_number) {
            (Some(end), Some(number)) => {
                let shard = Shard::ending(end).ok_or_else(|| place.corrupt("status_shard"))?;
                Some(StatusPlace { shard, number: place.number("status_number", number)? })
            }
            (None, None) => None,
            (Some(_), None) | (None, Some(_)) => return Err(place.corrupt("status_number")),
        };
        Ok(TokenRecord {
            id: place.name("id", &self.id)?,
            kind: TokenKind::parse(&self.kind).ok_or_else(|| place.corrupt("kind"))?,
            task: self.task.as_ref().map(|id| place.name("task", id)).transpose()?,
            grant: self.grant_id.as_ref().map(|id| place.name("grant_id", id)).transpose()?,
            break_glass: self.break_glass,
            requester,
            client: place.name("client", &self.client)?,
            agents: place.json("agents", &self.agents)?,
            audience: self.audience,
            lineage: place.json("lineage", &self.lineage)?,
            authority: place.json("authority", &self.authority)?,
            issued: place.time("issued", self.issued)?,
            expires: place.time("expires", self.expires)?,
            rev: Seq::new(place.number("rev", self.rev)?),
            status,
        })
    }
}

/// `one_time_ids`
#[derive(Debug, Serialize)]
pub(crate) struct OnceRow {
    pub(crate) digest: String,
    pub(crate) keep_until: i64,
}

impl OnceRow {
    pub(crate) fn of(id: &OneTimeId) -> Self {
        Self { digest: digest_of(&id.party, &id.id), keep_until: id.keep_until.unix() }
    }
}

/// `idempotency`
#[derive(Clone, Debug, Serialize, FromRow)]
pub(crate) struct AnswerRow {
    pub(crate) digest: String,
    pub(crate) fingerprint: String,
    pub(crate) answer: String,
    pub(crate) seq: Option<i64>,
    pub(crate) keep_until: i64,
}

impl AnswerRow {
    pub(crate) fn of(request: &Idempotency, seq: Option<Seq>) -> Self {
        Self {
            digest: digest_of(&request.caller, &request.key),
            fingerprint: request.fingerprint.clone(),
            answer: request.answer.clone(),
            seq: seq.map(|seq| signed(seq.number())),
            keep_until: request.keep_until.unix(),
        }
    }

    pub(crate) fn read(self) -> Result<Written, Outage> {
        let place = Place { table: "idempotency", row: &self.digest };
        let seq = self.seq.map(|seq| place.number("seq", seq)).transpose()?.map(Seq::new);
        Ok(Written::Before { fingerprint: self.fingerprint, answer: self.answer, seq })
    }
}
