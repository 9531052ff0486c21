//! Audit trail: one record for each event, in a hash chain that makes tampering detectable.

mod chain;
pub mod describe;
mod record;
mod search;

pub use chain::{Head, Linked, Tampering, WriterId, link, read, verify};
pub use record::{Event, IntrospectionAuditMode, Outcome, Record, wire_name};
pub use search::{SearchColumns, normalize_search_name};
