//! The configuration files that were applied.

use async_trait::async_trait;

use crate::{domain::configuration::ConfigurationHistory, ports::Outage};

/// Reads which configuration files were applied.
#[async_trait]
pub trait ConfigurationStore: Send + Sync {
    /// Returns the issuer of the store, and every application of a file.
    async fn load_configuration_history(&self) -> Result<ConfigurationHistory, Outage>;
}
