//! The outside: each module owns one foreign thing, and nobody else says its name.

pub mod client_assertion;
pub mod dev_idp;
pub mod fetch;
pub mod issuers;
mod jose;
pub mod keyring;
pub mod mcp;
pub mod store;
pub mod system;
