//! Tasks: lifecycle, tree of tokens, call reports.

pub(super) mod call_reports;
pub(super) mod lifecycle;
pub(super) mod tree;
