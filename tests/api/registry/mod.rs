//! Registry over HTTP.

pub(super) mod applied_files;
pub(super) mod catalogue;
pub(super) mod file_ownership;
pub(super) mod hostile_mcp_servers;
pub(super) mod objects;
pub(super) mod reregistration;
pub(super) mod sealed_registry;
pub(super) mod tampered_rows;
