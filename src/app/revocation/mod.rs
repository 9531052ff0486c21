//! Revocation: by clients (RFC 7009), by admins, of blocked parties, in bulk.

pub(super) mod admin;
pub(super) mod blocking;
pub(super) mod bulk;
pub(super) mod by_client;
pub(super) mod dry_run;
