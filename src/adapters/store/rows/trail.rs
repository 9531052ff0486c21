//! What only grows: the revocation log and the audit trail.

use serde::Serialize;
use sqlx::FromRow;

use super::{Place, signed};
use crate::{
    domain::{
        audit::{self, Columns, Head, Record, Writer},
        revocation::{LogEntry, NewEntry, Seq, Target, Verb},
    },
    ports::{AuditRow, Outage},
};

/// `revocation_log`
#[derive(Serialize, FromRow)]
pub(crate) struct LogRow {
    seq: i64,
    verb: String,
    kind: String,
    key: String,
    reason: String,
    done_by: String,
    done_at: i64,
    forget_after: i64,
}

impl LogRow {
    pub(crate) fn of(entry: &NewEntry, seq: Seq) -> Self {
        Self {
            seq: signed(seq.number()),
            verb: entry.verb.as_str().to_owned(),
            kind: entry.target.kind().to_owned(),
            key: entry.target.key(),
            reason: entry.reason.clone(),
            done_by: entry.by.clone(),
            done_at: entry.at.unix(),
            forget_after: entry.forget_after.unix(),
        }
    }

    pub(crate) fn read(self) -> Result<LogEntry, Outage> {
        let place = Place { table: "revocation_log", row: &self.seq };
        let target = Target::parse(&self.kind, &self.key).ok_or_else(|| place.corrupt("key"))?;
        let entry = NewEntry {
            verb: Verb::parse(&self.verb, &target).ok_or_else(|| place.corrupt("verb"))?,
            target,
            at: place.time("done_at", self.done_at)?,
            forget_after: place.time("forget_after", self.forget_after)?,
            reason: self.reason,
            by: self.done_by,
        };
        Ok(LogEntry { seq: Seq::new(place.number("seq", self.seq)?), entry })
    }
}

/// `audit`
#[derive(Serialize, FromRow)]
pub(crate) struct RecordRow {
    writer: String,
    n: i64,
    body: String,
    hash: String,
    done_at: i64,
    event: String,
    outcome: String,
    requester_issuer: Option<String>,
    requester_subject: Option<String>,
    task: Option<String>,
    token: Option<String>,
    resource: Option<String>,
    request_id: Option<String>,
    /// Those in `audit_agents`, when it is read: a JSON list, in which the empty name stands for a row at another time.
    #[serde(skip)]
    agents: String,
}

/// `audit_agents`
#[derive(Serialize)]
pub(crate) struct ActorRow {
    writer: String,
    n: i64,
    agent: String,
    done_at: i64,
}

impl RecordRow {
    /// How much its text takes (bytes).
    pub(crate) fn size(&self) -> usize {
        self.body.len()
    }

    /// Puts records at the end of a chain, and moves the head on.
    pub(crate) fn link<'a>(
        writer: Writer,
        head: &mut Head,
        records: impl IntoIterator<Item = &'a Record>,
    ) -> (Vec<Self>, Vec<ActorRow>) {
        let mut actors = Vec::new();
        let rows = records
            .into_iter()
            .map(|record| Self::of(record, audit::link(writer, head, record), &mut actors))
            .collect();
        (rows, actors)
    }

    fn of(record: &Record, linked: audit::Linked, actors: &mut Vec<ActorRow>) -> Self {
        let columns = Columns::of(record);
        let (writer, n, done_at) = (linked.writer.0.to_string(), signed(linked.n), columns.at.unix());
        let agents = columns.agents.into_iter();
        actors.extend(agents.map(|agent| ActorRow { writer: writer.clone(), n, agent, done_at }));
        Self {
            writer,
            n,
            body: linked.body,
            hash: linked.hash,
            done_at,
            event: columns.event,
            outcome: columns.outcome,
            requester_issuer: columns.requester_issuer,
            requester_subject: columns.requester_subject,
            task: columns.task,
            token: columns.token,
            resource: columns.resource,
            request_id: columns.request_id,
            agents: String::new(),
        }
    }

    pub(crate) fn read(self) -> Result<AuditRow, Outage> {
        let row = format!("{} {}", self.writer, self.n);
        let place = Place { table: "audit", row: &row };
        Ok(AuditRow {
            writer: Writer(place.name("writer", &self.writer)?),
            n: place.number("n", self.n)?,
            body: self.body,
            hash: self.hash,
            columns: Columns {
                at: place.time("done_at", self.done_at)?,
                event: self.event,
                outcome: self.outcome,
                requester_issuer: self.requester_issuer,
                requester_subject: self.requester_subject,
                agents: place.json("agents", &self.agents)?,
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
pub(crate) struct HeadRow {
    pub(crate) writer: String,
    pub(crate) n: i64,
    pub(crate) hash: String,
}

impl HeadRow {
    pub(crate) fn read(self) -> Result<(Writer, Head), Outage> {
        let place = Place { table: "audit_writers", row: &self.writer };
        Ok((Writer(place.name("writer", &self.writer)?), Head { n: place.number("n", self.n)?, hash: self.hash }))
    }
}
