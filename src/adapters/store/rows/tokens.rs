//! Rows that an exchange writes: tasks, tokens, replay guards, idempotency keys.

use std::collections::BTreeSet;

use serde::Serialize;
use sqlx::FromRow;

use super::{RowContext, Tagged, TaggedRow, digest_of, to_i64};
use crate::{
    domain::{
        id::TaskId,
        revocation::{
            LogPosition,
            evidence::{EvidenceDigest, PresentedEvidence},
        },
        status_list::{Shard, StatusIndex},
        task::{Task, Transition},
        token::TokenKind,
    },
    ports::{
        ErrorChain, IdempotentRequest, IndexedToken, Outage, ReplayGuard, SeenEvidence, StoreSealer, TokenCursor,
        TokenRecord, WriteOutcome,
    },
};

/// `tasks`
#[derive(Clone, Debug, Serialize, FromRow)]
pub(crate) struct TaskRow {
    pub(crate) id: String,
    requester_issuer: String,
    requester_subject: String,
    root_agent: String,
    purpose: String,
    authority: String,
    pub(crate) state: String,
    created: i64,
    deadline: i64,
    pub(crate) version: i64,
    pub(crate) last_transition: Option<String>,
    grant_id: Option<String>,
    rev: i64,
}

impl TaggedRow for TaskRow {
    const TABLE: &'static str = "tasks";

    fn key(&self) -> String {
        self.id.clone()
    }
}

impl TaskRow {
    /// Returns the id and the version.
    pub(crate) fn read_version(&self) -> Result<(TaskId, u64), Outage> {
        let context = RowContext { table: "tasks", row: &self.id };
        Ok((context.parse("id", &self.id)?, context.parse_u64("version", self.version)?))
    }

    /// Returns the row after a transition.
    pub(crate) fn after_transition(self, transition: &Transition) -> Result<Self, Outage> {
        Ok(Self {
            state: transition.state.as_str().to_owned(),
            version: self.version.saturating_add(1),
            last_transition: Some(transition_json(transition)?),
            ..self
        })
    }

    pub(crate) fn new(task: &Task) -> Result<Self, Outage> {
        Ok(Self {
            id: task.id.to_string(),
            requester_issuer: task.requester.issuer.to_string(),
            requester_subject: task.requester.subject.to_string(),
            root_agent: task.root_agent.to_string(),
            purpose: task.purpose.to_string(),
            authority: serde_json::to_string(&task.authority).map_err(Outage::during("write a task"))?,
            state: task.state.as_str().to_owned(),
            created: task.created_at.unix(),
            deadline: task.deadline.unix(),
            version: to_i64(task.version),
            last_transition: task.last_transition.as_ref().map(transition_json).transpose()?,
            grant_id: task.grant.map(|id| id.to_string()),
            rev: to_i64(task.rev.number()),
        })
    }

    pub(crate) fn read(self) -> Result<Task, Outage> {
        let context = RowContext { table: "tasks", row: &self.id };
        Ok(Task {
            id: context.parse("id", &self.id)?,
            requester: context.parse_requester(&self.requester_issuer, &self.requester_subject)?,
            root_agent: context.parse("root_agent", &self.root_agent)?,
            purpose: context.parse("purpose", &self.purpose)?,
            authority: context.parse_json("authority", &self.authority)?,
            state: context.parse_word("state", &self.state)?,
            created_at: context.parse_time("created", self.created)?,
            deadline: context.parse_time("deadline", self.deadline)?,
            grant: self.grant_id.as_ref().map(|id| context.parse("grant_id", id)).transpose()?,
            version: context.parse_u64("version", self.version)?,
            last_transition: self
                .last_transition
                .as_ref()
                .map(|json| context.parse_json("last_transition", json))
                .transpose()?,
            rev: LogPosition::new(context.parse_u64("rev", self.rev)?),
        })
    }
}

/// `task_resources`
#[derive(Serialize)]
pub(crate) struct TaskResourceRow {
    resource: String,
    opened: i64,
    task: String,
    agent: String,
    issuer: String,
    subject: String,
}

impl TaskResourceRow {
    /// Returns a row for each resource in the authority of the task.
    pub(crate) fn for_task(task: &Task) -> Vec<Self> {
        let resources = task.authority.iter().map(|permission| permission.resource.as_str()).collect::<BTreeSet<_>>();
        let row = |resource: &str| Self {
            resource: resource.to_owned(),
            opened: task.created_at.unix(),
            task: task.id.to_string(),
            agent: task.root_agent.to_string(),
            issuer: task.requester.issuer.to_string(),
            subject: task.requester.subject.to_string(),
        };
        resources.into_iter().map(row).collect()
    }
}

/// Serializes a task's last transition for its column.
fn transition_json(transition: &Transition) -> Result<String, Outage> {
    serde_json::to_string(transition).map_err(Outage::during("write a task"))
}

/// `tokens`
#[derive(Clone, Debug, Serialize, FromRow)]
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
    status_index: Option<i64>,
    evidence: Option<String>,
    evidence_issued: Option<i64>,
    evidence_expires: Option<i64>,
    session: Option<String>,
}

impl TaggedRow for TokenRow {
    const TABLE: &'static str = "tokens";

    fn key(&self) -> String {
        self.id.clone()
    }
}

impl TokenRow {
    pub(crate) fn new(token: &TokenRecord) -> Result<Self, Outage> {
        let operation = "write a token's record";
        Ok(Self {
            id: token.id.to_string(),
            kind: token.kind.as_str().to_owned(),
            task: token.task.map(|id| id.to_string()),
            requester_issuer: token.requester.as_ref().map(|r| r.issuer.to_string()),
            requester_subject: token.requester.as_ref().map(|r| r.subject.to_string()),
            client: token.client.to_string(),
            agents: serde_json::to_string(&token.agents).map_err(Outage::during(operation))?,
            audience: token.audience.clone(),
            lineage: serde_json::to_string(&token.lineage).map_err(Outage::during(operation))?,
            authority: serde_json::to_string(&token.authority).map_err(Outage::during(operation))?,
            issued: token.issued.unix(),
            expires: token.expires.unix(),
            rev: to_i64(token.rev.number()),
            grant_id: token.grant.map(|id| id.to_string()),
            break_glass: token.break_glass,
            status_shard: token.status_index.map(|index| index.shard.end()),
            status_index: token.status_index.map(|index| to_i64(index.number)),
            evidence: token.evidence.as_ref().map(|evidence| evidence.token.to_string()),
            evidence_issued: token.evidence.as_ref().map(|evidence| evidence.issued.unix()),
            evidence_expires: token.evidence.as_ref().map(|evidence| evidence.expires.unix()),
            session: token.evidence.as_ref().and_then(|evidence| Some(evidence.session.as_ref()?.to_string())),
        })
    }

    fn read_status_index(&self) -> Result<Option<StatusIndex>, Outage> {
        let context = RowContext { table: "tokens", row: &self.id };
        match (self.status_shard, self.status_index) {
            (Some(end), Some(number)) => {
                let shard = Shard::ending_at(end).ok_or_else(|| context.corrupt("status_shard"))?;
                Ok(Some(StatusIndex { shard, number: context.parse_u64("status_index", number)? }))
            }
            (None, None) => Ok(None),
            (Some(_), None) | (None, Some(_)) => Err(context.corrupt("status_index")),
        }
    }

    fn read_cursor(&self) -> Result<TokenCursor, Outage> {
        let context = RowContext { table: "tokens", row: &self.id };
        Ok(TokenCursor { issued: context.parse_time("issued", self.issued)?, id: context.parse("id", &self.id)? })
    }

    pub(crate) fn read(self) -> Result<TokenRecord, Outage> {
        let context = RowContext { table: "tokens", row: &self.id };
        let requester = match (&self.requester_issuer, &self.requester_subject) {
            (Some(issuer), Some(subject)) => Some(context.parse_requester(issuer, subject)?),
            (None, None) => None,
            (Some(_), None) | (None, Some(_)) => return Err(context.corrupt("requester_subject")),
        };
        let status = self.read_status_index()?;
        let evidence = match (&self.evidence, self.evidence_issued, self.evidence_expires) {
            (Some(token), Some(issued), Some(expires)) => Some(PresentedEvidence {
                token: context.parse("evidence", token)?,
                session: self.session.as_ref().map(|session| context.parse("session", session)).transpose()?,
                issued: context.parse_time("evidence_issued", issued)?,
                expires: context.parse_time("evidence_expires", expires)?,
            }),
            (None, None, None) if self.session.is_none() => None,
            (Some(_) | None, _, _) => return Err(context.corrupt("evidence")),
        };
        Ok(TokenRecord {
            id: context.parse("id", &self.id)?,
            kind: TokenKind::parse(&self.kind).ok_or_else(|| context.corrupt("kind"))?,
            task: self.task.as_ref().map(|id| context.parse("task", id)).transpose()?,
            grant: self.grant_id.as_ref().map(|id| context.parse("grant_id", id)).transpose()?,
            break_glass: self.break_glass,
            requester,
            client: context.parse("client", &self.client)?,
            agents: context.parse_json("agents", &self.agents)?,
            audience: self.audience,
            lineage: context.parse_json("lineage", &self.lineage)?,
            authority: context.parse_json("authority", &self.authority)?,
            issued: context.parse_time("issued", self.issued)?,
            expires: context.parse_time("expires", self.expires)?,
            rev: LogPosition::new(context.parse_u64("rev", self.rev)?),
            status_index: status,
            evidence,
        })
    }
}

/// Reads a token with a status list index. One that was tampered with is reported, and its index is
/// read without regard to the tag.
pub(crate) fn read_indexed_token(row: Tagged<TokenRow>, sealer: &dyn StoreSealer) -> Result<IndexedToken, Outage> {
    let cursor = row.unverified().read_cursor()?;
    let stored_index = row.unverified().read_status_index().ok().flatten();
    match row.verify(sealer) {
        Ok(row) => {
            let record = row.read()?;
            Ok(IndexedToken { cursor, index: record.status_index, record: Some(record) })
        }
        Err(outage) => {
            let Some(tampering) = outage.tampering() else { return Err(outage) };
            tracing::error!("the status of a token is unknown: {tampering}");
            Ok(IndexedToken { cursor, index: stored_index, record: None })
        }
    }
}

/// `replay_guards`
#[derive(Debug, Serialize)]
pub(crate) struct ReplayGuardRow {
    pub(crate) digest: String,
    pub(crate) keep_until: i64,
}

impl ReplayGuardRow {
    pub(crate) fn new(id: &ReplayGuard) -> Self {
        Self { digest: digest_of(&id.party, &id.id), keep_until: id.keep_until.unix() }
    }
}

/// `idempotency_keys`
#[derive(Clone, Debug, Serialize, FromRow)]
pub(crate) struct IdempotencyRow {
    pub(crate) digest: String,
    pub(crate) fingerprint: String,
    pub(crate) response: String,
    pub(crate) seq: Option<i64>,
    pub(crate) keep_until: i64,
}

impl TaggedRow for IdempotencyRow {
    const TABLE: &'static str = "idempotency_keys";

    fn key(&self) -> String {
        self.digest.clone()
    }
}

impl IdempotencyRow {
    pub(crate) fn new(request: &IdempotentRequest, seq: Option<LogPosition>) -> Self {
        Self {
            digest: digest_of(&request.caller, &request.key),
            fingerprint: request.fingerprint.clone(),
            response: request.response.clone(),
            seq: seq.map(|seq| to_i64(seq.number())),
            keep_until: request.keep_until.unix(),
        }
    }

    pub(crate) fn read(self) -> Result<WriteOutcome, Outage> {
        let context = RowContext { table: "idempotency_keys", row: &self.digest };
        let seq = self.seq.map(|seq| context.parse_u64("seq", seq)).transpose()?.map(LogPosition::new);
        Ok(WriteOutcome::AlreadyApplied { fingerprint: self.fingerprint, response: self.response, seq })
    }
}

/// `tokens`: a user token that was exchanged
#[derive(Debug, FromRow)]
pub(crate) struct EvidenceRow {
    client: String,
    evidence: String,
    evidence_expires: i64,
}

impl EvidenceRow {
    pub(crate) fn read(&self) -> Result<SeenEvidence, Outage> {
        let context = RowContext { table: "tokens", row: &self.evidence };
        Ok(SeenEvidence {
            client: context.parse("client", &self.client)?,
            token: context.parse("evidence", &self.evidence)?,
            expires: context.parse_time("evidence_expires", self.evidence_expires)?,
        })
    }
}

/// Reads rows that name what a revocation ends. One that can't be read was changed outside the
/// program. It is reported and left out: it must not keep an admin from the revocation.
pub(crate) fn read_endable<R, V>(rows: &[R], read: impl Fn(&R) -> Result<V, Outage>) -> Vec<V> {
    let read = |row| {
        let read = read(row);
        read.inspect_err(|outage| tracing::error!(error = %ErrorChain(outage), "a revocation leaves out a row")).ok()
    };
    rows.iter().filter_map(read).collect()
}

/// Reads the name of a session.
pub(crate) fn read_session(text: &str) -> Result<EvidenceDigest, Outage> {
    RowContext { table: "tokens", row: &text }.parse("session", text)
}
