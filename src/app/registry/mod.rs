//! The registry: objects, secrets, the configuration file, tool catalogues.

pub(super) mod catalogue;
mod changes;
mod declarative;
mod objects;
pub(super) mod secrets;
