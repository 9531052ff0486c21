//! Revocation: by clients (RFC 7009), by admins, of blocked parties, in bulk.

mod admin;
mod blocking;
pub(super) mod bulk;
mod by_client;
pub(super) mod dry_run;
pub(super) mod evidence;
mod plan;
pub(super) mod request;
