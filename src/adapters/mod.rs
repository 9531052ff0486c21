//! The outside. Each file owns one foreign thing, and nobody else says its name.

pub mod fetch;
pub mod issuers;
mod jose;
pub mod keyring;
pub mod system;
