//! The audit trail: verification, checkpoints, export, pruning, and removal of personal values.

mod checkpoints;
mod export;
mod forget;
mod prune;
mod verification;

pub use export::{ExportLine, ExportedRecord, OfflineVerification, VerifiedExport};
pub use forget::ForgetReport;
pub use prune::{PruneError, PrunePlan};
pub use verification::{AuditFinding, AuditReport};
