//! The registry.

use std::collections::BTreeMap;

use async_trait::async_trait;

use crate::{
    domain::{
        id::ClientId,
        registry::{Block, Entry, KnownTools, RegistrationPositions, StoredSecretTag, tool::ToolRecord},
    },
    ports::Outage,
};

/// The stored registry and its version, read in one snapshot.
#[derive(Debug)]
pub struct StoredRegistry {
    /// The version. Every change increments it.
    pub version: u64,
    /// The objects.
    pub entries: Vec<Entry>,
    /// The log position at which each object was registered.
    pub registration_positions: RegistrationPositions,
    /// The tags of client secrets.
    pub secret_tags: BTreeMap<ClientId, StoredSecretTag>,
    /// The digests of tools.
    pub known_tools: KnownTools,
    /// The blocked parties.
    pub blocks: Vec<Block>,
}

/// Reads the registry.
#[async_trait]
pub trait RegistryStore: Send + Sync {
    /// Returns the current registry.
    async fn load_registry(&self) -> Result<StoredRegistry, Outage>;

    /// Returns the records of a resource's tools, by name.
    async fn list_tools(&self, resource: &ClientId) -> Result<Vec<ToolRecord>, Outage>;
}
