//! Audit trail: one record for each event, in hash chains, under signed checkpoints.

mod chain;
pub mod checkpoint;
pub mod describe;
mod forget;
mod personal;
mod record;
mod search;
mod verification;

pub use chain::{ChainedText, Head, Linked, Seal, Tampering, WriterId, link, read, verify};
pub use forget::members_about;
pub use personal::{PERSONAL_MEMBERS, PersonalValues, RestoredRecord, SALT_LEN};
pub use record::{EvaluationAuditMode, Event, IntrospectionAuditMode, Outcome, Record, wire_name};
pub use search::{SearchColumns, normalize_search_name};
pub use verification::{ChainVerification, CheckpointSequence, Pins};
