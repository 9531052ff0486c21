//! One module per section of the configuration file.

pub(super) mod access;
pub(super) mod authentication;
pub(super) mod issuers;
pub(super) mod registry;
pub(super) mod secrets;
pub(super) mod server;
