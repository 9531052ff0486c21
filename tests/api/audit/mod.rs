//! Tests of the audit trail over HTTP.

pub(super) mod audit_trail;
pub(super) mod auth_failures;
pub(super) mod checkpoints;
pub(super) mod no_secret_leaks;
