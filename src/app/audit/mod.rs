//! The audit trail: verification, checkpoints and export.

mod checkpoints;
mod export;
mod verification;

pub use export::{ExportLine, ExportedRecord, OfflineVerification};
pub use verification::{AuditFinding, AuditReport};
