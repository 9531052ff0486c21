//! Durable state.
//!
//! Every change of state goes through [`WriteStore::commit`], in units that happen wholly or not at
//! all. No transaction handle leaves an adapter.

mod audit;
mod change_listener;
mod configuration;
mod grants;
mod keys;
mod log;
mod maintenance;
mod queries;
mod quotas;
mod registry;
mod replicas;
mod status_lists;
mod tasks;
mod tokens;
mod writes;

pub use audit::{AuditFilter, AuditRow, AuditState, AuditStore};
pub use change_listener::{ChangeListener, Notification};
pub use configuration::ConfigurationStore;
pub use grants::{GrantFilter, GrantStore};
pub use keys::{KeyStore, StoredKey, StoredKeys, sealed_key_aad, signing_key_aad};
pub use log::LogStore;
pub use maintenance::{GcStats, MaintenanceStore, RequesterRows};
pub use queries::{ListError, Page, PageRequest};
pub use quotas::QuotaStore;
pub use registry::{RegistryStore, StoredRegistry};
pub use replicas::ReplicaStore;
pub use status_lists::{IndexedToken, StatusListStore, TokenCursor, TokenSelector};
pub use tasks::{LiveCounts, TaskFilter, TaskStore};
pub use tokens::{EvidenceSelector, SeenEvidence, TokenFilter, TokenRecord, TokenStore};
pub use writes::{
    CommitError, GrantCapacity, GrantKey, IdempotentRequest, Precondition, ReplayGuard, StateChange, WriteOutcome,
    WriteSet, WriteStore,
};

/// The whole store. Two adapters implement it, and one conformance suite tests both against these
/// descriptions.
///
/// A read sees every write whose [`commit`](WriteStore::commit) returned before the read began.
/// Times come from the caller: an adapter decides nothing by the database's clock.
pub trait Store:
    WriteStore
    + LogStore
    + TokenStore
    + TaskStore
    + GrantStore
    + RegistryStore
    + ConfigurationStore
    + KeyStore
    + AuditStore
    + ReplicaStore
    + StatusListStore
    + QuotaStore
    + MaintenanceStore
{
}

impl<T> Store for T where
    T: WriteStore
        + LogStore
        + TokenStore
        + TaskStore
        + GrantStore
        + RegistryStore
        + ConfigurationStore
        + KeyStore
        + AuditStore
        + ReplicaStore
        + StatusListStore
        + QuotaStore
        + MaintenanceStore
        + ?Sized
{
}
