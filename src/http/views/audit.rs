//! Audit records and checkpoints.

use serde::Serialize;
use serde_json::value::RawValue;

use crate::{
    domain::audit::{self, Record, WriterId, checkpoint::SignedCheckpoint},
    ports::AuditRow,
};

/// An audit record and its place in the hash chain: the columns for readers, the record, and the
/// texts and hashes as they are stored.
#[derive(Serialize)]
pub(in crate::http) struct AuditView {
    writer: WriterId,
    n: u64,
    at: String,
    event: String,
    outcome: String,
    /// The record; null if it was edited.
    record: Option<Record>,
    /// The hashed text.
    chained: Option<Box<RawValue>>,
    /// The personal values and their salts.
    personal: Option<Box<RawValue>>,
    hash: String,
}

impl From<AuditRow> for AuditView {
    fn from(row: AuditRow) -> Self {
        let restored = audit::read(row.writer, row.text()).ok();
        let AuditRow { writer, n, body, personal, hash, columns, .. } = row;
        Self {
            writer,
            n,
            at: columns.at.to_rfc3339(),
            event: columns.event,
            outcome: columns.outcome,
            record: restored.map(|restored| restored.record),
            chained: RawValue::from_string(body).ok(),
            personal: RawValue::from_string(personal).ok(),
            hash,
        }
    }
}

/// A checkpoint.
#[derive(Serialize)]
pub(in crate::http) struct CheckpointView {
    number: u64,
    hash: String,
    /// The signed text.
    checkpoint: String,
}

impl From<SignedCheckpoint> for CheckpointView {
    fn from(SignedCheckpoint { number, hash, text }: SignedCheckpoint) -> Self {
        Self { number, hash, checkpoint: text }
    }
}
