//! What was taken back, and what a token's standing is by that.
//!
//! A token carries every name under which it can be taken back, so ending an ancestor is one entry: no walk over
//! descendants, and no lock against a child that is being issued at that moment.

pub mod feed;
mod index;
mod keys;
mod log_entry;
mod log_position;
mod retention;
mod standing;
mod tombstones;

pub use index::Index;
pub use keys::RevocationKeys;
pub use log_entry::{LogAction, LogEntry, NewEntry, Target};
pub use log_position::LogPosition;
pub use retention::{RETENTION, latest_possible_expiry, retain_until};
pub use standing::Standing;
