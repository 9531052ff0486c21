//! Row types, between the domain and both databases. Rows are written as JSON text, many at a time,
//! and read back as columns; the fields have the names of the columns.

mod configuration;
mod log;
mod registry;
mod registry_digest;
mod replicas;
mod sealed;
mod status_lists;
mod tokens;
mod tools;

use std::{fmt::Display, str::FromStr};

use ring::digest::{self, Context};
use serde::{Serialize, de::DeserializeOwned, de::value::StrDeserializer};
use thiserror::Error;

use crate::{
    domain::{encode_base64url, task::Requester, time::Timestamp},
    ports::Outage,
};

pub(crate) use configuration::AppliedFileRow;
pub(crate) use log::{AuditHeadRow, AuditRecordRow, CheckpointRow, LogAnchorRow, LogHeadRow, LogRow, party_keys};
pub(crate) use registry::{
    BlockRow, BreakGlassRow, GrantRow, KeyRow, ObjectRow, SealedKeyRow, SecretRow, StoredBreakGlassRow, VersionRow,
};
pub(crate) use registry_digest::RegistryRows;
pub(crate) use replicas::{ReplicaRow, check_recorded};
pub(crate) use sealed::{Tagged, TaggedRow, WorkScan, tag_all};
pub(crate) use status_lists::ShardRow;
pub(crate) use tokens::{
    EvidenceRow, IdempotencyRow, ReplayGuardRow, TaskResourceRow, TaskRow, TokenRow, read_endable, read_indexed_token,
    read_session,
};
pub(crate) use tools::{KnownToolRow, ToolRow};

/// A stored value can't be parsed, because it was changed outside this program. The error names the
/// place, never the value.
#[derive(Debug, Error)]
#[error("the value in table `{table}`, column `{column}`, row `{row}` can't be parsed")]
pub(crate) struct CorruptRowError {
    table: &'static str,
    column: &'static str,
    row: String,
}

/// Serializes rows as the single text parameter of a statement that takes many.
pub(crate) fn to_json<T: Serialize>(rows: &[T]) -> Result<String, Outage> {
    serde_json::to_string(rows).map_err(Outage::during("write rows"))
}

/// Returns the digest under which a caller-chosen identifier is stored. The identifier may have any
/// length and any character.
pub(crate) fn digest_of(party: &str, id: &str) -> String {
    let mut context = Context::new(&digest::SHA256);
    // The length prefix keeps ("ab", "c") and ("a", "bc") apart.
    context.update(&(party.len() as u64).to_be_bytes());
    context.update(party.as_bytes());
    context.update(id.as_bytes());
    encode_base64url(context.finish().as_ref())
}

/// Converts a number for a column, saturating at the maximum, which no counter reaches.
pub(crate) fn to_i64(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// A row, named in the error when one of its values can't be parsed.
struct RowContext<'a> {
    table: &'static str,
    row: &'a dyn Display,
}

impl RowContext<'_> {
    fn corrupt(&self, column: &'static str) -> Outage {
        let source = CorruptRowError { table: self.table, column, row: self.row.to_string() };
        Outage { operation: "read a row", source: source.into() }
    }

    fn parse<T: FromStr>(&self, column: &'static str, text: &str) -> Result<T, Outage> {
        text.parse().map_err(|_| self.corrupt(column))
    }

    fn parse_json<T: DeserializeOwned>(&self, column: &'static str, text: &str) -> Result<T, Outage> {
        serde_json::from_str(text).map_err(|_| self.corrupt(column))
    }

    /// Parses the name of an enum's variant.
    fn parse_word<T: DeserializeOwned>(&self, column: &'static str, text: &str) -> Result<T, Outage> {
        T::deserialize(StrDeserializer::<serde::de::value::Error>::new(text)).map_err(|_| self.corrupt(column))
    }

    fn parse_u64(&self, column: &'static str, number: i64) -> Result<u64, Outage> {
        u64::try_from(number).map_err(|_| self.corrupt(column))
    }

    fn parse_time(&self, column: &'static str, seconds: i64) -> Result<Timestamp, Outage> {
        let at = Timestamp::from_unix(seconds);
        if at.unix() == seconds { Ok(at) } else { Err(self.corrupt(column)) }
    }

    fn parse_requester(&self, issuer: &str, subject: &str) -> Result<Requester, Outage> {
        Ok(Requester {
            issuer: self.parse("requester_issuer", issuer)?,
            subject: self.parse("requester_subject", subject)?,
        })
    }
}
