//! One module per section of the configuration file.

pub(super) mod access;
pub(super) mod audit;
pub(super) mod authentication;
pub(super) mod fetch;
pub(super) mod four_eyes;
pub(super) mod issuers;
pub(super) mod keys;
pub(super) mod limits;
pub(super) mod listen;
pub(super) mod log;
pub(super) mod memory;
pub(super) mod registry;
pub(super) mod replicas;
pub(super) mod requests;
pub(super) mod retention;
pub(super) mod secrets;
pub(super) mod status_list;
pub(super) mod store;
pub(super) mod tasks;
pub(super) mod tls;
pub(super) mod tokens;
pub(super) mod tracing;
