//! The trail: one record for everything that happened, chained so that a touch shows.

mod chain;
pub mod describe;
mod record;
mod search;

pub use chain::{Head, Linked, Tampering, WriterId, link, read, verify};
pub use record::{Event, IntrospectionAuditMode, Outcome, Record, wire_name};
pub use search::{SearchColumns, normalize_search_name};
