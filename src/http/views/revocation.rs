//! Revocations.

use serde::Serialize;

use crate::{app::RevocationReceipt, domain::revocation::LogEntry, http::views::PropagationView};

/// An entry of the revocation log.
#[derive(Serialize)]
pub(in crate::http) struct RevocationView {
    seq: u64,
    verb: &'static str,
    kind: &'static str,
    key: String,
    reason: String,
    by: String,
    at: String,
}

impl From<LogEntry> for RevocationView {
    fn from(LogEntry { seq, entry }: LogEntry) -> Self {
        Self {
            seq: seq.number(),
            verb: entry.verb.as_str(),
            kind: entry.target.kind(),
            key: entry.target.key(),
            reason: entry.reason,
            by: entry.by,
            at: entry.at.to_rfc3339(),
        }
    }
}

/// A committed revocation, and its propagation.
#[derive(Serialize)]
pub(in crate::http) struct RevocationReceiptView {
    kind: &'static str,
    key: String,
    at: String,
    #[serde(flatten)]
    propagation: PropagationView,
}

impl From<&RevocationReceipt> for RevocationReceiptView {
    fn from(RevocationReceipt { target, at, propagation, .. }: &RevocationReceipt) -> Self {
        Self { kind: target.kind(), key: target.key(), at: at.to_rfc3339(), propagation: propagation.into() }
    }
}
