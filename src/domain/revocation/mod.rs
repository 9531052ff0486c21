//! Revocation log, and the standing of tokens that follows from it.
//!
//! A token carries every key under which it can be revoked, so one entry revokes an ancestor with
//! all descendants. Descendants are not walked, and a child that is being issued at the same
//! time needs no lock.

mod anchor;
pub mod evidence;
pub mod feed;
mod index;
mod keys;
mod log_entry;
mod log_position;
mod retention;
mod standing;
mod tombstones;

pub use anchor::{LinkedEntry, LogAnchor};
pub use index::{Index, SuspensionCause};
pub use keys::RevocationKeys;
pub use log_entry::{
    LogAction, LogEntry, NewEntry, SharedState, Target, UnknownEntryError, check_known, delegation_key, tool_key,
};
pub use log_position::LogPosition;
pub use retention::{RETENTION, latest_possible_expiry, retain_until};
pub use standing::Standing;
