//! Implementations of the ports. Each module wraps one external system or library, which no other
//! module names.

pub mod client_assertion;
pub mod dev_idp;
pub mod fetch;
pub mod issuers;
mod jose;
pub mod keyring;
pub mod mcp;
pub mod store;
pub mod system;
pub mod telemetry;
