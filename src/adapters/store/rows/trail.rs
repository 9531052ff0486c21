//! What only grows: the revocation log and the audit trail.

use serde::Serialize;
use sqlx::FromRow;

use super::{Place, signed};
use crate::{
    domain::{
        audit::{self, Head, Record, Writer},
        revocation::{LogEntry, NewEntry, Seq, Target},
    },
    ports::{AuditColumns, AuditRow, Outage},
};

/// `revocation_log`
#[derive(Serialize, FromRow)]
pub(crate) struct LogRow {
    seq: i64,
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
        let entry = NewEntry {
            target: Target::parse(&self.kind, &self.key).ok_or_else(|| place.corrupt("key"))?,
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
    requester_issuer: Option<String>,
    requester_subject: Option<String>,
    agent: Option<String>,
    client: Option<String>,
    task: Option<String>,
}

impl RecordRow {
    /// Puts records at the end of a chain, and moves the head on.
    pub(crate) fn link<'a>(
        writer: Writer,
        head: &mut Head,
        records: impl IntoIterator<Item = &'a Record>,
    ) -> Vec<Self> {
        records.into_iter().map(|record| Self::of(audit::link(writer, head, record))).collect()
    }

    fn of(linked: audit::Linked) -> Self {
        let columns = AuditColumns::of(&linked.record);
        Self {
            writer: linked.writer.0.to_string(),
            n: signed(linked.n),
            body: linked.body,
            hash: linked.hash,
            done_at: columns.at.unix(),
            requester_issuer: columns.requester_issuer,
            requester_subject: columns.requester_subject,
            agent: columns.agent,
            client: columns.client,
            task: columns.task,
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
            columns: AuditColumns {
                at: place.time("done_at", self.done_at)?,
                requester_issuer: self.requester_issuer,
                requester_subject: self.requester_subject,
                agent: self.agent,
                client: self.client,
                task: self.task,
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
