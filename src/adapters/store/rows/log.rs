//! Append-only rows: the revocation log and the audit trail.

use serde::Serialize;
use sqlx::FromRow;

use super::{RowContext, Tagged, TaggedRow, to_i64};
use crate::{
    domain::{
        audit::{self, Head, Record, Seal, SearchColumns, WriterId, checkpoint::SignedCheckpoint},
        revocation::{LogAction, LogAnchor, LogEntry, LogPosition, NewEntry, Target, check_known},
        task::Task,
    },
    ports::{AuditRow, Outage, StoreSealer},
};

/// `log_head`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, FromRow)]
pub(crate) struct LogHeadRow {
    pub(crate) seq: i64,
    pub(crate) link: String,
    pub(crate) registry_version: i64,
    pub(crate) keys_version: i64,
}

impl TaggedRow for LogHeadRow {
    const TABLE: &'static str = "log_head";

    fn key(&self) -> String {
        "1".to_owned()
    }
}

impl LogHeadRow {
    /// Returns the position of the last entry.
    pub(crate) fn position(&self) -> LogPosition {
        LogPosition::new(self.seq.unsigned_abs())
    }

    /// Returns whether this is the head of a store that has not been sealed.
    pub(crate) fn is_new(head: &Tagged<Self>) -> bool {
        let Self { seq, link, registry_version, keys_version } = head.unverified();
        (*seq, *registry_version, *keys_version) == (0, 0, 0) && link.is_empty() && head.tag().is_empty()
    }
}

/// `log_anchor`
#[derive(Clone, Debug, Serialize, FromRow)]
pub(crate) struct LogAnchorRow {
    pub(crate) seq: i64,
    pub(crate) link: String,
    pub(crate) hours: String,
}

impl TaggedRow for LogAnchorRow {
    const TABLE: &'static str = "log_anchor";

    fn key(&self) -> String {
        "1".to_owned()
    }
}

impl LogAnchorRow {
    pub(crate) fn new(anchor: &LogAnchor) -> Self {
        Self { seq: to_i64(anchor.position.number()), link: anchor.tag.clone(), hours: anchor.hours_text() }
    }

    pub(crate) fn read(self) -> Result<LogAnchor, Outage> {
        let context = RowContext { table: "log_anchor", row: &1 };
        let position = LogPosition::new(context.parse_u64("seq", self.seq)?);
        LogAnchor::parse(position, self.link, &self.hours).ok_or_else(|| context.corrupt("hours"))
    }
}

/// `revocation_log`
#[derive(Clone, Debug, Serialize, FromRow)]
pub(crate) struct LogRow {
    seq: i64,
    verb: String,
    kind: String,
    key: String,
    reason: String,
    actor: String,
    occurred_at: i64,
    forget_after: i64,
    min_version: String,
    /// The tag of the entry before this one; empty at the first.
    previous: String,
}

impl TaggedRow for LogRow {
    const TABLE: &'static str = "revocation_log";

    fn key(&self) -> String {
        self.seq.to_string()
    }
}

impl LogRow {
    pub(crate) fn new(entry: &NewEntry, seq: LogPosition, previous: &str) -> Self {
        Self {
            seq: to_i64(seq.number()),
            verb: entry.verb.as_str().to_owned(),
            kind: entry.target.kind().to_owned(),
            key: entry.target.key(),
            reason: entry.reason.clone(),
            actor: entry.by.clone(),
            occurred_at: entry.at.unix(),
            forget_after: entry.forget_after.unix(),
            min_version: entry.min_version().to_string(),
            previous: previous.to_owned(),
        }
    }

    /// Returns the tag of the entry before this one.
    pub(crate) fn previous(&self) -> &str {
        &self.previous
    }

    /// Returns the position.
    pub(crate) fn seq(&self) -> i64 {
        self.seq
    }

    pub(crate) fn read(self) -> Result<LogEntry, Outage> {
        let context = RowContext { table: "revocation_log", row: &self.seq };
        check_known(context.parse_u64("seq", self.seq)?, &self.kind, &self.verb, &self.min_version)
            .map_err(Outage::during("read the revocation log"))?;
        let target = Target::parse(&self.kind, &self.key).ok_or_else(|| context.corrupt("key"))?;
        let entry = NewEntry {
            verb: LogAction::parse(&self.verb, &target).ok_or_else(|| context.corrupt("verb"))?,
            target,
            at: context.parse_time("occurred_at", self.occurred_at)?,
            forget_after: context.parse_time("forget_after", self.forget_after)?,
            reason: self.reason,
            by: self.actor,
        };
        Ok(LogEntry { seq: LogPosition::new(context.parse_u64("seq", self.seq)?), entry })
    }
}

/// Returns the keys of log entries about the parties of a task: requester, root agent, issuer, and
/// the root agent's delegation by the requester.
pub(crate) fn party_keys(task: &Task) -> [String; 4] {
    let delegation = Target::Delegation(task.root_agent.clone(), Box::new(task.requester.clone()));
    let issuer = task.requester.issuer.to_string();
    [Target::for_requester(&task.requester).key(), task.root_agent.to_string(), issuer, delegation.key()]
}

/// `audit`
#[derive(Serialize, FromRow)]
pub(crate) struct AuditRecordRow {
    writer: String,
    n: i64,
    body: String,
    personal: String,
    hash: String,
    epoch: i64,
    mac: String,
    occurred_at: i64,
    event: String,
    outcome: String,
    requester_issuer: Option<String>,
    requester_subject: Option<String>,
    task: Option<String>,
    token: Option<String>,
    resource: Option<String>,
    request_id: Option<String>,
    /// When read, the agents in `audit_agents` as a JSON list. An empty name means that the row
    /// there has a different time.
    #[serde(skip)]
    agents: String,
}

/// `audit_agents`
#[derive(Serialize)]
pub(crate) struct AuditAgentRow {
    writer: String,
    n: i64,
    agent: String,
    occurred_at: i64,
}

impl AuditRecordRow {
    /// Returns the length of the texts in bytes.
    pub(crate) fn text_len(&self) -> usize {
        self.body.len().saturating_add(self.personal.len())
    }

    /// Appends records to a chain and advances its head.
    pub(crate) fn link<'a>(
        writer: WriterId,
        head: &mut Head,
        records: impl IntoIterator<Item = &'a Record>,
        sealer: &dyn StoreSealer,
    ) -> Result<(Vec<Self>, Vec<AuditAgentRow>), Outage> {
        let mut actors = Vec::new();
        let link = |record: &Record| {
            let linked = audit::link(writer, head, record, || sealer.new_salt());
            let seal = sealer.seal(&linked.hash)?;
            Self::new(record, linked, seal, &mut actors)
        };
        let rows = records.into_iter().map(link).collect::<Result<_, _>>()?;
        Ok((rows, actors))
    }

    fn new(
        record: &Record,
        linked: audit::Linked,
        seal: Seal,
        actors: &mut Vec<AuditAgentRow>,
    ) -> Result<Self, Outage> {
        let columns = SearchColumns::from_record(record);
        let (writer, n, occurred_at) = (linked.writer.0.to_string(), to_i64(linked.n), columns.at.unix());
        let agents = columns.agents.into_iter();
        actors.extend(agents.map(|agent| AuditAgentRow { writer: writer.clone(), n, agent, occurred_at }));
        Ok(Self {
            writer,
            n,
            body: linked.body,
            personal: serde_json::to_string(&linked.personal).map_err(Outage::during("write an audit record"))?,
            hash: linked.hash,
            epoch: to_i64(seal.epoch),
            mac: seal.mac,
            occurred_at,
            event: columns.event,
            outcome: columns.outcome,
            requester_issuer: columns.requester_issuer,
            requester_subject: columns.requester_subject,
            task: columns.task,
            token: columns.token,
            resource: columns.resource,
            request_id: columns.request_id,
            agents: String::new(),
        })
    }

    pub(crate) fn read(self) -> Result<AuditRow, Outage> {
        let row = format!("{} {}", self.writer, self.n);
        let context = RowContext { table: "audit", row: &row };
        Ok(AuditRow {
            writer: WriterId(context.parse("writer", &self.writer)?),
            n: context.parse_u64("n", self.n)?,
            body: self.body,
            personal: self.personal,
            hash: self.hash,
            seal: Seal { epoch: context.parse_u64("epoch", self.epoch)?, mac: self.mac },
            columns: SearchColumns {
                at: context.parse_time("occurred_at", self.occurred_at)?,
                event: self.event,
                outcome: self.outcome,
                requester_issuer: self.requester_issuer,
                requester_subject: self.requester_subject,
                agents: context.parse_json("agents", &self.agents)?,
                task: self.task,
                token: self.token,
                resource: self.resource,
                request_id: self.request_id,
            },
        })
    }
}

/// `audit_writers`
#[derive(FromRow)]
pub(crate) struct AuditHeadRow {
    pub(crate) writer: String,
    pub(crate) n: i64,
    pub(crate) hash: String,
}

impl AuditHeadRow {
    pub(crate) fn read(self) -> Result<(WriterId, Head), Outage> {
        let context = RowContext { table: "audit_writers", row: &self.writer };
        Ok((
            WriterId(context.parse("writer", &self.writer)?),
            Head { n: context.parse_u64("n", self.n)?, hash: self.hash },
        ))
    }
}

/// `audit_checkpoints`
#[derive(FromRow)]
pub(crate) struct CheckpointRow {
    number: i64,
    jws: String,
}

impl CheckpointRow {
    pub(crate) fn read(self) -> Result<SignedCheckpoint, Outage> {
        let context = RowContext { table: "audit_checkpoints", row: &self.number };
        Ok(SignedCheckpoint::new(context.parse_u64("number", self.number)?, self.jws))
    }
}
