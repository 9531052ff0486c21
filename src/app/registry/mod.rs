//! The registry: objects, declared configuration, tool catalogue.

pub(super) mod catalogue;
pub(super) mod declarative;
pub(super) mod objects;
