//! The registry: objects, secrets, the configuration file, tool catalogues.

pub(super) mod catalogue;
mod changes;
pub(super) mod declarative;
mod objects;
pub(super) mod secrets;
