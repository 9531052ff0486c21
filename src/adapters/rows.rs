//! Rows: what the tables hold, between the domain and both databases. A row goes in as JSON text, many at a time, and
//! comes out as columns; its fields have the columns' names.

use std::{collections::BTreeMap, fmt::Display, str::FromStr};

use ring::digest::{self, Context};
use serde::{Serialize, de::DeserializeOwned, de::value::StrDeserializer};
use sqlx::FromRow;
use thiserror::Error;

use crate::{
    domain::{
        audit::{self, Head, Record, Writer},
        encode,
        id::ClientId,
        jwk::SigningAlgorithm,
        keys::KeyDates,
        registry::{Entry, Object, Owner},
        revocation::{LogEntry, NewEntry, Seq, Target},
        secret::SecretTag,
        task::{Requester, Task},
        time::Timestamp,
        token::TokenKind,
    },
    ports::{AuditColumns, AuditRow, Grant, Idempotency, OneTimeId, Outage, StoredKey, TokenRecord, Written},
};

/// What is stored can't be read back: somebody or something changed it. Says where, never what.
#[derive(Debug, Error)]
#[error("table `{table}`, column `{column}`, row `{row}`: what is stored there can't be read")]
pub(crate) struct Corrupt {
    table: &'static str,
    column: &'static str,
    row: String,
}

/// Rows as the one text parameter of a statement that takes many.
pub(crate) fn json<T: Serialize>(rows: &[T]) -> Result<String, Outage> {
    serde_json::to_string(rows).map_err(Outage::during("write rows"))
}

/// The name of a thing that parties name as they like: of any length, with any character, so only its digest is kept.
pub(crate) fn digest_of(party: &str, id: &str) -> String {
    let mut context = Context::new(&digest::SHA256);
    // The length first: ("ab", "c") and ("a", "bc") are different things.
    context.update(&(party.len() as u64).to_be_bytes());
    context.update(party.as_bytes());
    context.update(id.as_bytes());
    encode(context.finish().as_ref())
}

/// A column that can't hold the number holds the largest one: nothing counts that far.
pub(crate) fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// A place in a table, to be named when what stands there can't be read.
struct Place<'a> {
    table: &'static str,
    row: &'a dyn Display,
}

impl Place<'_> {
    fn corrupt(&self, column: &'static str) -> Outage {
        let source = Corrupt { table: self.table, column, row: self.row.to_string() };
        Outage { during: "read a row", source: source.into() }
    }

    fn name<T: FromStr>(&self, column: &'static str, text: &str) -> Result<T, Outage> {
        text.parse().map_err(|_| self.corrupt(column))
    }

    fn json<T: DeserializeOwned>(&self, column: &'static str, text: &str) -> Result<T, Outage> {
        serde_json::from_str(text).map_err(|_| self.corrupt(column))
    }

    /// One of an enum's words.
    fn word<T: DeserializeOwned>(&self, column: &'static str, text: &str) -> Result<T, Outage> {
        T::deserialize(StrDeserializer::<serde::de::value::Error>::new(text)).map_err(|_| self.corrupt(column))
    }

    fn number(&self, column: &'static str, number: i64) -> Result<u64, Outage> {
        u64::try_from(number).map_err(|_| self.corrupt(column))
    }

    fn time(&self, column: &'static str, seconds: i64) -> Result<Timestamp, Outage> {
        let at = Timestamp::from_unix(seconds);
        if at.unix() == seconds { Ok(at) } else { Err(self.corrupt(column)) }
    }

    fn requester(&self, issuer: &str, subject: &str) -> Result<Requester, Outage> {
        Ok(Requester {
            issuer: self.name("requester_issuer", issuer)?,
            subject: self.name("requester_subject", subject)?,
        })
    }
}

/// `objects`
#[derive(FromRow)]
pub(crate) struct ObjectRow {
    pub(crate) kind: String,
    pub(crate) id: String,
    pub(crate) body: String,
    pub(crate) owner: String,
}

impl ObjectRow {
    pub(crate) fn of(entry: &Entry) -> Result<Self, Outage> {
        let owner = match entry.owner {
            Owner::File => "file",
            Owner::Api => "api",
        };
        Ok(Self {
            kind: entry.object.kind().as_str().to_owned(),
            id: entry.object.id().to_owned(),
            body: serde_json::to_string(&entry.object).map_err(Outage::during("write an object"))?,
            owner: owner.to_owned(),
        })
    }

    pub(crate) fn read(&self) -> Result<Entry, Outage> {
        let row = format!("{}/{}", self.kind, self.id);
        let place = Place { table: "objects", row: &row };
        let object: Object = place.json("body", &self.body)?;
        // An object that stands under another one's name would be changed and removed as that one.
        if object.kind().as_str() != self.kind || object.id() != self.id {
            return Err(place.corrupt("id"));
        }
        Ok(Entry { object, owner: place.word("owner", &self.owner)? })
    }
}

/// `secrets`
#[derive(FromRow)]
pub(crate) struct SecretRow {
    client: String,
    tag: Vec<u8>,
}

impl SecretRow {
    pub(crate) fn read_all(rows: Vec<Self>) -> Result<BTreeMap<ClientId, SecretTag>, Outage> {
        rows.into_iter()
            .map(|row| {
                let client = Place { table: "secrets", row: &row.client }.name("client", &row.client)?;
                Ok((client, SecretTag::from_bytes(row.tag)))
            })
            .collect()
    }
}

/// `versions`
#[derive(Clone, Debug, FromRow)]
pub(crate) struct VersionRow {
    pub(crate) name: String,
    pub(crate) version: i64,
}

impl VersionRow {
    pub(crate) fn find(rows: &[Self], name: &'static str) -> Result<u64, Outage> {
        let place = Place { table: "versions", row: &name };
        let row = rows.iter().find(|row| row.name == name).ok_or_else(|| place.corrupt("version"))?;
        place.number("version", row.version)
    }
}

/// `signing_keys`
#[derive(FromRow)]
pub(crate) struct KeyRow {
    pub(crate) kid: String,
    pub(crate) algorithm: String,
    pub(crate) created: i64,
    pub(crate) activates: i64,
    pub(crate) retires: Option<i64>,
    pub(crate) gone: Option<i64>,
    pub(crate) public_jwk: String,
    pub(crate) sealed: Vec<u8>,
}

impl KeyRow {
    pub(crate) fn of(key: &StoredKey) -> Self {
        Self {
            kid: key.dates.kid.to_string(),
            algorithm: key.dates.algorithm.as_str().to_owned(),
            created: key.dates.created.unix(),
            activates: key.dates.activates.unix(),
            retires: key.dates.retires.map(Timestamp::unix),
            gone: key.dates.gone.map(Timestamp::unix),
            public_jwk: key.public_jwk.clone(),
            sealed: key.sealed.clone(),
        }
    }

    pub(crate) fn read(self) -> Result<StoredKey, Outage> {
        let place = Place { table: "signing_keys", row: &self.kid };
        let dates = KeyDates {
            kid: place.name("kid", &self.kid)?,
            algorithm: SigningAlgorithm::parse(&self.algorithm).ok_or_else(|| place.corrupt("algorithm"))?,
            created: place.time("created", self.created)?,
            activates: place.time("activates", self.activates)?,
            retires: self.retires.map(|at| place.time("retires", at)).transpose()?,
            gone: self.gone.map(|at| place.time("gone", at)).transpose()?,
        };
        Ok(StoredKey { dates, public_jwk: self.public_jwk, sealed: self.sealed })
    }
}

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
        })
    }
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
        })
    }

    pub(crate) fn read(self) -> Result<TokenRecord, Outage> {
        let place = Place { table: "tokens", row: &self.id };
        let requester = match (&self.requester_issuer, &self.requester_subject) {
            (Some(issuer), Some(subject)) => Some(place.requester(issuer, subject)?),
            (None, None) => None,
            (Some(_), None) | (None, Some(_)) => return Err(place.corrupt("requester_subject")),
        };
        Ok(TokenRecord {
            id: place.name("id", &self.id)?,
            kind: TokenKind::parse(&self.kind).ok_or_else(|| place.corrupt("kind"))?,
            task: self.task.as_ref().map(|id| place.name("task", id)).transpose()?,
            requester,
            client: place.name("client", &self.client)?,
            agents: place.json("agents", &self.agents)?,
            audience: self.audience,
            lineage: place.json("lineage", &self.lineage)?,
            authority: place.json("authority", &self.authority)?,
            issued: place.time("issued", self.issued)?,
            expires: place.time("expires", self.expires)?,
            rev: Seq::new(place.number("rev", self.rev)?),
        })
    }
}

/// `grants`
#[derive(FromRow)]
pub(crate) struct GrantRow {
    pub(crate) requester_issuer: String,
    pub(crate) requester_subject: String,
    pub(crate) agent: String,
    pub(crate) until: i64,
    pub(crate) done_by: String,
    pub(crate) done_at: i64,
}

impl GrantRow {
    pub(crate) fn of(grant: &Grant) -> Self {
        Self {
            requester_issuer: grant.requester.issuer.to_string(),
            requester_subject: grant.requester.subject.to_string(),
            agent: grant.agent.to_string(),
            until: grant.until.unix(),
            done_by: grant.by.clone(),
            done_at: grant.at.unix(),
        }
    }

    pub(crate) fn read(self) -> Result<Grant, Outage> {
        let row = format!("{} {} {}", self.requester_issuer, self.requester_subject, self.agent);
        let place = Place { table: "grants", row: &row };
        Ok(Grant {
            requester: place.requester(&self.requester_issuer, &self.requester_subject)?,
            agent: place.name("agent", &self.agent)?,
            until: place.time("until", self.until)?,
            by: self.done_by,
            at: place.time("done_at", self.done_at)?,
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
