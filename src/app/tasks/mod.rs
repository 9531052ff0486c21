//! Tasks: lifecycle, expiry, tree of tokens, audit trail, call reports.

pub(super) mod call_reports;
pub(super) mod expiry;
mod lifecycle;
pub(super) mod trail;
pub(super) mod transition;
pub(super) mod tree;
