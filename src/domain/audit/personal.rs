//! Personal values of audit records. The hashed text of a record holds a salted digest of each, and
//! the value with its salt is stored beside the text. A value can therefore be removed later, and
//! the hash chain still verifies.

use std::collections::BTreeMap;

use ring::digest::{self, Context};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::record::{Event, Outcome, Record};
use crate::domain::{
    decode_base64url, encode_base64url,
    encoding::jcs,
    id::{ClientId, RequestId, TaskId, TokenId},
    requester::Requester,
    time::Timestamp,
    uri::IssuerUrl,
};

/// The length of a salt in bytes. A salt keeps guessable values, such as names, from being found by
/// their digests.
pub const SALT_LEN: usize = 16;

/// The members of a record whose values may name or describe a person. `subject` is a member of
/// `requester`.
pub const PERSONAL_MEMBERS: [&str; 8] =
    ["by", "granted", "purpose", "reason", "requested", "resource", "source", "subject"];

/// A value and its salt in base64url. The value is the text itself, or canonical JSON (RFC 8785)
/// for `granted` and `requested`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct SaltedValue(String, String);

/// The personal values of a record, by member.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PersonalValues(BTreeMap<String, SaltedValue>);

impl PersonalValues {
    /// Adds a value, and returns its digest.
    fn add(&mut self, member: &str, value: &str, salt: [u8; SALT_LEN]) -> String {
        let digest = digest_of(&salt, value);
        self.0.insert(member.to_owned(), SaltedValue(encode_base64url(&salt), value.to_owned()));
        digest
    }

    /// Removes the values of these members. Returns how many there were.
    pub fn remove(&mut self, members: &[&str]) -> u64 {
        members.iter().fold(0, |removed, member| removed + u64::from(self.0.remove(*member).is_some()))
    }

    /// Takes the value with this digest. Returns `None` if the value was removed, and an error if
    /// the stored value is another one.
    fn take(&mut self, member: &str, digest: &str) -> Result<Option<String>, AlteredValueError> {
        let Some(SaltedValue(salt, value)) = self.0.remove(member) else { return Ok(None) };
        // With a salt of any length, bytes of the value could move into the salt.
        let salt = decode_base64url(&salt).filter(|salt| salt.len() == SALT_LEN).ok_or(AlteredValueError)?;
        if digest_of(&salt, &value) == digest { Ok(Some(value)) } else { Err(AlteredValueError) }
    }
}

/// A stored personal value is not the one whose digest the record holds.
pub(super) struct AlteredValueError;

/// `SHA-256(salt ‖ value)`, with the name of the algorithm.
fn digest_of(salt: &[u8], value: &str) -> String {
    let mut context = Context::new(&digest::SHA256);
    context.update(salt);
    context.update(value.as_bytes());
    format!("sha-256:{}", encode_base64url(context.finish().as_ref()))
}

/// A requester without the subject, of which only the digest is hashed.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct HashedRequester {
    issuer: IssuerUrl,
    subject: String,
}

/// A record in its hashed form: personal values are replaced by their digests.
///
/// The fields are those of [`Record`], in canonical order (RFC 8785).
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct HashedRecord {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    admin: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    agents: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    approved_by: Option<String>,
    at: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    authority_hash: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    by: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    client: Option<ClientId>,
    event: Event,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    granted: Option<String>,
    outcome: Outcome,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    purpose: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    request_id: Option<RequestId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    requested: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    requester: Option<HashedRequester>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    resource: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    source: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    task: Option<TaskId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    token: Option<TokenId>,
}

/// A record that was read back, and the number of its personal values that were removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RestoredRecord {
    /// The record. A removed value is absent; with the subject, the requester is absent.
    pub record: Record,
    /// The number of removed values.
    pub removed_values: u64,
}

impl HashedRecord {
    /// Replaces the personal values of a record by digests, each with a salt of its own.
    pub(super) fn new(record: &Record, mut salt: impl FnMut() -> [u8; SALT_LEN]) -> (Self, PersonalValues) {
        let mut personal = PersonalValues::default();
        let mut text = |member, value: Option<&str>| value.map(|value| personal.add(member, value, salt()));
        // A JSON value always has a canonical form.
        let json = |value: &Option<Value>| value.as_ref().map(|value| jcs::to_string(value).unwrap_or_default());
        let requester = record.requester.as_ref().map(|requester| HashedRequester {
            issuer: requester.issuer.clone(),
            subject: text("subject", Some(requester.subject.as_str())).unwrap_or_default(),
        });
        let hashed = Self {
            admin: record.admin.clone(),
            agents: record.agents.clone(),
            approved_by: record.approved_by.clone(),
            at: record.at,
            authority_hash: record.authority_hash.clone(),
            by: text("by", record.by.as_deref()),
            client: record.client.clone(),
            event: record.event,
            granted: text("granted", json(&record.granted).as_deref()),
            outcome: record.outcome,
            purpose: text("purpose", record.purpose.as_deref()),
            reason: text("reason", record.reason.as_deref()),
            request_id: record.request_id.clone(),
            requested: text("requested", json(&record.requested).as_deref()),
            requester,
            resource: text("resource", record.resource.as_deref()),
            source: text("source", record.source.as_deref()),
            task: record.task,
            token: record.token,
        };
        (hashed, personal)
    }

    /// Restores the record. Every given value must be one whose digest the record holds.
    pub(super) fn restore(self, mut personal: PersonalValues) -> Result<RestoredRecord, AlteredValueError> {
        let mut removed_values = 0;
        let mut text = |member, digest: Option<&String>| {
            let Some(digest) = digest else { return Ok(None) };
            let value = personal.take(member, digest)?;
            removed_values += u64::from(value.is_none());
            Ok(value)
        };
        let parse = |value: Option<String>| {
            value.map(|value| serde_json::from_str::<Value>(&value)).transpose().map_err(|_| AlteredValueError)
        };
        let subject = text("subject", self.requester.as_ref().map(|requester| &requester.subject))?;
        let requester = match (self.requester, subject) {
            (Some(requester), Some(subject)) => {
                Some(Requester { issuer: requester.issuer, subject: subject.parse().map_err(|_| AlteredValueError)? })
            }
            (Some(_) | None, None) | (None, Some(_)) => None,
        };
        let record = Record {
            admin: self.admin,
            agents: self.agents,
            approved_by: self.approved_by,
            at: self.at,
            authority_hash: self.authority_hash,
            by: text("by", self.by.as_ref())?,
            client: self.client,
            event: self.event,
            granted: parse(text("granted", self.granted.as_ref())?)?,
            outcome: self.outcome,
            purpose: text("purpose", self.purpose.as_ref())?,
            reason: text("reason", self.reason.as_ref())?,
            request_id: self.request_id,
            requested: parse(text("requested", self.requested.as_ref())?)?,
            requester,
            resource: text("resource", self.resource.as_ref())?,
            source: text("source", self.source.as_ref())?,
            task: self.task,
            token: self.token,
        };
        if personal.0.is_empty() { Ok(RestoredRecord { record, removed_values }) } else { Err(AlteredValueError) }
    }
}
