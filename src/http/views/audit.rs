//! Audit records.

use serde::Serialize;
use serde_json::value::RawValue;

use crate::{domain::audit::WriterId, ports::AuditRow};

/// An audit record and its place in the hash chain: the columns for readers, the chained text
/// unchanged, and its hash.
#[derive(Serialize)]
pub(in crate::http) struct AuditView {
    writer: WriterId,
    n: u64,
    at: String,
    event: String,
    outcome: String,
    chained: Option<Box<RawValue>>,
    hash: String,
}

impl From<AuditRow> for AuditView {
    fn from(AuditRow { writer, n, body, hash, columns }: AuditRow) -> Self {
        Self {
            writer,
            n,
            at: columns.at.to_rfc3339(),
            event: columns.event,
            outcome: columns.outcome,
            chained: RawValue::from_string(body).ok(),
            hash,
        }
    }
}
