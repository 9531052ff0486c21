//! The trail: one record for everything that happened, chained so that a touch shows.

pub mod describe;

use std::collections::BTreeSet;

use ring::digest;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use thiserror::Error;
use uuid::Uuid;

use crate::domain::{
    encode_base64url,
    encoding::jcs,
    id::{ClientId, RequestId, TaskId, TokenId},
    task::Requester,
    time::Timestamp,
};

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Event {
    /// A token was issued, or refused.
    #[serde(rename = "token.issue")]
    TokenIssue,
    /// A client did not prove who it is, or that it may call what it called.
    #[serde(rename = "client.authenticate")]
    ClientAuthenticate,
    /// A token was introspected.
    #[serde(rename = "token.introspect")]
    TokenIntrospect,
    /// Something was taken back.
    #[serde(rename = "revocation")]
    Revocation,
    /// An object of the registry was put or removed.
    #[serde(rename = "registry.change")]
    RegistryChange,
    /// The server of a resource was asked for its tools, or what it says of them was accepted.
    #[serde(rename = "catalogue.change")]
    CatalogueChange,
    /// A client got a new secret.
    #[serde(rename = "secret.change")]
    SecretChange,
    /// A grant was recorded or withdrawn.
    #[serde(rename = "grant.change")]
    GrantChange,
    /// A grant for an emergency was made.
    #[serde(rename = "break_glass.create")]
    BreakGlassCreate,
    /// A token was issued that rests on a grant for an emergency.
    #[serde(rename = "break_glass.use")]
    BreakGlassUse,
    /// Somebody signed off what was done with a grant for an emergency.
    #[serde(rename = "break_glass.review")]
    BreakGlassReview,
    /// The state of a task changed, or did not.
    #[serde(rename = "task.transition")]
    TaskTransition,
    /// A resource reported what a call did.
    #[serde(rename = "tool.call")]
    ToolCall,
    /// A signing key was made.
    #[serde(rename = "key.rotate")]
    KeyRotate,
    /// A signing key was removed: with it, everything that it signed.
    #[serde(rename = "key.revoke")]
    KeyRevoke,
}

/// How it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Done.
    Done,
    /// Refused.
    Refused,
    /// Tried, and not done.
    Failed,
    /// The answer was "active".
    Active,
    /// The answer was "inactive".
    Inactive,
}

/// Which introspections go into the trail.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IntrospectionAuditMode {
    /// Every one.
    All,
    /// The first active answer for a token and resource, and every inactive one.
    #[default]
    Changes,
    /// None.
    Off,
}

impl IntrospectionAuditMode {
    /// The word for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Changes => "changes",
            Self::Off => "off",
        }
    }
}

/// One record: who, in whose name, for which task, what was asked, what was granted, why. Never a token, only its `jti`.
/// The members stand in their canonical order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// The admin that called.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub admin: Option<String>,
    /// The agents, the current one first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub agents: Vec<String>,
    /// What was asked.
    #[serde(default, rename = "asked", skip_serializing_if = "Option::is_none")]
    pub requested: Option<Value>,
    /// When.
    pub at: Timestamp,
    /// The hash of the authority that was approved for the task: what the intent was, whatever is said about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authority_hash: Option<String>,
    /// Who did it, if neither a client nor an admin: `requester:ISSUER SUBJECT`, `grant:ID`, `removal`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// The client that called.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<ClientId>,
    /// What.
    pub event: Event,
    /// What was granted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub granted: Option<Value>,
    /// How it ended.
    pub outcome: Outcome,
    /// What the task is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub purpose: Option<String>,
    /// Why it was refused, or why somebody did it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The request it belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<RequestId>,
    /// In whose name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requester: Option<Requester>,
    /// The resource, or what else it was about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource: Option<String>,
    /// The task.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<TaskId>,
    /// The token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<TokenId>,
}

impl Record {
    /// A record with nothing but what every record has.
    #[must_use]
    pub fn new(at: Timestamp, event: Event, outcome: Outcome) -> Self {
        Self {
            at,
            event,
            outcome,
            requester: None,
            agents: Vec::new(),
            client: None,
            admin: None,
            by: None,
            task: None,
            purpose: None,
            authority_hash: None,
            token: None,
            resource: None,
            requested: None,
            granted: None,
            reason: None,
            request_id: None,
        }
    }
}

/// What searches look at: copies of parts of a record's text, made fit for an index where strangers wrote them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SearchColumns {
    /// When.
    pub at: Timestamp,
    /// The word for what happened.
    pub event: String,
    /// The word for how it ended.
    pub outcome: String,
    /// The requester's issuer.
    pub requester_issuer: Option<String>,
    /// The requester's subject.
    pub requester_subject: Option<String>,
    /// Everybody who acted: all agents of the chain, and the client that called.
    pub agents: BTreeSet<String>,
    /// The task.
    pub task: Option<String>,
    /// The token.
    pub token: Option<String>,
    /// The resource, or what else it was about.
    pub resource: Option<String>,
    /// The request it belongs to.
    pub request_id: Option<String>,
}

impl SearchColumns {
    /// The columns of a record.
    #[must_use]
    pub fn from_record(record: &Record) -> Self {
        let client = record.client.as_ref().map(ClientId::as_str);
        // Who acts may be named by another issuer, as it likes.
        let agents = record.agents.iter().map(String::as_str).chain(client).filter(|name| !name.is_empty());
        Self {
            at: record.at,
            event: wire_name(record.event),
            outcome: wire_name(record.outcome),
            requester_issuer: record.requester.as_ref().map(|r| r.issuer.to_string()),
            requester_subject: record.requester.as_ref().map(|r| r.subject.to_string()),
            agents: agents.map(normalize_search_name).collect(),
            task: record.task.map(|id| id.to_string()),
            token: record.token.map(|id| id.to_string()),
            resource: record.resource.as_deref().map(normalize_search_name),
            request_id: record.request_id.as_ref().map(ToString::to_string),
        }
    }
}

/// A name as it stands in the search columns, and so as it must be looked for: its first 255 characters, without U+0000.
#[must_use]
pub fn normalize_search_name(name: &str) -> String {
    name.replace('\0', "\u{fffd}").chars().take(255).collect()
}

/// An [`Event`] or an [`Outcome`] as a record's text has it.
#[must_use]
pub fn wire_name<T: Serialize>(of: T) -> String {
    let word = serde_json::to_value(of).ok();
    word.as_ref().and_then(Value::as_str).unwrap_or_default().to_owned()
}

/// Who writes a chain: one start of one process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct WriterId(pub Uuid);

/// The end of a writer's chain: how many records it has, and the hash of the last one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// The number of the last record; 0 when there is none.
    pub n: u64,
    /// Its hash; the empty string when there is none.
    pub hash: String,
}

impl Head {
    /// The head of a chain without records.
    #[must_use]
    pub fn empty() -> Self {
        Self { n: 0, hash: String::new() }
    }
}

/// A record in its place. What is stored is `body`, to the letter; the hash is over its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Linked {
    /// Who wrote it.
    pub writer: WriterId,
    /// Its number in the writer's chain, from 1.
    pub n: u64,
    /// The canonical text: writer, number, the hash before, the record.
    pub body: String,
    /// SHA-256 of the body, base64url.
    pub hash: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RecordBody<T, R> {
    n: u64,
    prev: T,
    record: R,
    writer: WriterId,
}

fn parse_body(body: &str) -> Option<RecordBody<String, Record>> {
    serde_json::from_str(body).ok()
}

/// Puts a record at the end of a chain and moves the head on.
#[must_use]
pub fn link(writer: WriterId, head: &mut Head, record: &Record) -> Linked {
    let n = head.n.saturating_add(1);
    // Our own struct of strings, numbers and JSON values always has a canonical form.
    let body = jcs::to_string(&RecordBody { n, prev: &head.hash, record, writer }).unwrap_or_default();
    let hash = digest_of(&body);
    *head = Head { n, hash: hash.clone() };
    Linked { writer, n, body, hash }
}

/// What somebody did to a chain.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Tampering {
    /// A record is missing or stands elsewhere: after `after`, `found` was found.
    #[error("after record {after} comes {found}: a record was deleted or moved")]
    Gap {
        /// The last good record.
        after: u64,
        /// What stands there.
        found: u64,
    },
    /// The hash before does not fit: the record before it is another one now.
    #[error("record {0} does not follow the record before it: one of the two was replaced")]
    BrokenLink(u64),
    /// The text does not have its hash, or can't be read: it was edited.
    #[error("record {0} was edited")]
    Edited(u64),
    /// The columns that searches use say something else than the text.
    #[error("record {0}: its search columns were edited")]
    Columns(u64),
    /// The chain ends before the record that its head names.
    #[error("the chain ends at record {found}, but {expected} were written: records were deleted at its end")]
    Truncated {
        /// The number in the head.
        expected: u64,
        /// The last record that is there.
        found: u64,
    },
    /// The head itself does not name the last record.
    #[error("the head of the chain does not name its last record {0}: the head or the record was replaced")]
    Head(u64),
}

/// Checks one record against the head of what came before it, and moves the head on. Returns the record in it.
pub fn verify(writer: WriterId, head: &mut Head, n: u64, body: &str, hash: &str) -> Result<Record, Tampering> {
    if n != head.n.saturating_add(1) {
        return Err(Tampering::Gap { after: head.n, found: n });
    }
    if digest_of(body) != hash {
        return Err(Tampering::Edited(n));
    }
    let parsed = parse_body(body).ok_or(Tampering::Edited(n))?;
    if parsed.n != n || parsed.writer != writer {
        return Err(Tampering::Edited(n));
    }
    if parsed.prev != head.hash {
        return Err(Tampering::BrokenLink(n));
    }
    *head = Head { n, hash: hash.to_owned() };
    Ok(parsed.record)
}

/// Reads one record by itself: whether its text has its hash and its place. Where it stands among the others is not
/// looked at.
pub fn read(writer: WriterId, n: u64, body: &str, hash: &str) -> Result<Record, Tampering> {
    let parsed = parse_body(body).ok_or(Tampering::Edited(n))?;
    if digest_of(body) == hash && parsed.n == n && parsed.writer == writer {
        Ok(parsed.record)
    } else {
        Err(Tampering::Edited(n))
    }
}

fn digest_of(body: &str) -> String {
    encode_base64url(digest::digest(&digest::SHA256, body.as_bytes()).as_ref())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chain(length: u64) -> Vec<Linked> {
        let mut head = Head::empty();
        (0..length)
            .map(|n| {
                let at = Timestamp::from_unix(i64::try_from(n).unwrap());
                link(WriterId(Uuid::nil()), &mut head, &Record::new(at, Event::TokenIssue, Outcome::Done))
            })
            .collect()
    }

    fn check(rows: &[Linked]) -> Result<u64, Tampering> {
        let mut head = Head::empty();
        for row in rows {
            verify(row.writer, &mut head, row.n, &row.body, &row.hash)?;
        }
        Ok(head.n)
    }

    #[test]
    fn search_columns_name_every_actor() {
        let mut record = Record::new(Timestamp::EPOCH, Event::TokenIssue, Outcome::Refused);
        record.agents = vec!["reader".into(), "planner".into(), String::new(), format!("a\0{}", "🦀".repeat(300))];
        record.client = "reader".parse().ok();
        let columns = SearchColumns::from_record(&record);
        let long = format!("a\u{fffd}{}", "🦀".repeat(253));
        assert_eq!(columns.agents, BTreeSet::from([long, "planner".into(), "reader".into()]));
        assert_eq!((columns.event.as_str(), columns.outcome.as_str()), ("token.issue", "refused"));
    }

    /// So it costs nothing to put it in order.
    #[test]
    fn record_serialization_is_canonical() {
        let name = || Some("x".to_owned());
        let record = Record {
            admin: name(),
            agents: vec!["reader".into()],
            requested: Some(serde_json::json!({"a": 1})),
            authority_hash: name(),
            by: name(),
            client: "reader".parse().ok(),
            granted: Some(serde_json::json!(["b"])),
            purpose: name(),
            reason: name(),
            request_id: "r".parse().ok(),
            requester: Some(Requester {
                issuer: "https://login.example.com".parse().unwrap(),
                subject: "u".parse().unwrap(),
            }),
            resource: name(),
            task: Some(TaskId::new(Uuid::nil())),
            token: Some(TokenId::new(Uuid::nil())),
            ..Record::new(Timestamp::EPOCH, Event::TokenIssue, Outcome::Done)
        };
        let plain = serde_json::to_string(&record).unwrap();
        assert_eq!(plain.matches(':').count(), 21, "every member is there: {plain}");
        assert_eq!(plain, serde_json_canonicalizer::to_string(&record).unwrap());
    }

    #[test]
    fn tampered_chain_is_detected() {
        assert_eq!(check(&chain(5)), Ok(5));

        let mut deleted = chain(5);
        deleted.remove(2);
        assert_eq!(check(&deleted), Err(Tampering::Gap { after: 2, found: 4 }));

        let mut edited = chain(5);
        edited[2].body = edited[2].body.replace("token.issue", "revocation");
        assert_eq!(check(&edited), Err(Tampering::Edited(3)));

        let mut edited_with_its_hash = edited.clone();
        edited_with_its_hash[2].hash = digest_of(&edited[2].body);
        assert_eq!(check(&edited_with_its_hash), Err(Tampering::BrokenLink(4)));

        let mut reordered = chain(5);
        reordered.swap(1, 2);
        assert!(matches!(check(&reordered), Err(Tampering::Gap { .. })));

        let mut renumbered = chain(5);
        renumbered.swap(1, 2);
        (renumbered[1].n, renumbered[2].n) = (2, 3);
        assert_eq!(check(&renumbered), Err(Tampering::Edited(2)));
    }
}
