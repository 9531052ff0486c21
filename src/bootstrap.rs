//! Puts the house together: from a [`Config`] to a [`Service`] with its adapters, and what has to be done from time to
//! time. It names every room and holds no rule.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use thiserror::Error;
use tokio::task::JoinSet;

use crate::{
    adapters::{
        fetch::FetchLimits,
        issuers::JwksCache,
        keyring::{Kek, Keyring},
        mcp::McpClient,
        store::{Database, StoreOptions, connect},
        system::{DedicatedThreads, OsEntropy, SystemClock, host_name},
    },
    app::{Error, LeaseSettings, Ports, RequestContext, Service, Settings, SubscriberLimits},
    config::Config,
    domain::{id::ClientId, keys::RotationReason, secret::Secret},
    ports::{Clock, Outage},
};

/// How often keys and leftovers are looked after.
const MAINTENANCE_INTERVAL: Duration = Duration::from_secs(30);
/// How often the keys of issuers are looked after; each is asked when its keys are ten minutes old.
const JWKS_REFRESH_INTERVAL: Duration = Duration::from_mins(1);
/// How often it is looked whether a catalogue is due.
const CATALOGUE_POLL_INTERVAL: Duration = Duration::from_secs(10);

/// Why the house can't be put together. Each text says what to do.
#[derive(Debug, Error)]
pub enum StartupError {
    /// The store can't be used.
    #[error("[store] url: {}: {}", .0.operation, .0.source)]
    Store(Outage),
    /// The signing keys in the store can't be opened.
    #[error("[keys] encryption_key: {0}")]
    Keys(String),
    /// No dice.
    #[error("the system has no randomness: {}", .0.source)]
    Entropy(Outage),
    /// What the file declares does not fit what is in the store.
    #[error("the objects in the file don't fit those in the store: {0}")]
    Objects(Error),
    /// The signing keys that are due can't be made.
    #[error("the signing keys can't be made: {0}")]
    Rotation(Error),
}

/// When the schema is brought up to date on the way in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MigrationPolicy {
    /// Only if the database is part of this program, and so nobody else's: SQLite.
    IfEmbedded,
    /// Whatever the database.
    Always,
}

/// The house, put together.
pub struct Application {
    /// Errand itself.
    pub service: Service,
    issuer_keys: Arc<JwksCache>,
}

impl std::fmt::Debug for Application {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("House").field("service", &self.service).finish_non_exhaustive()
    }
}

/// Connects to the store that the configuration names.
pub async fn connect_store(config: &Config) -> Result<Arc<dyn Database>, StartupError> {
    let options = StoreOptions { max_connections: config.store.max_connections, ..StoreOptions::default() };
    connect(config.store.url.expose(), &options).await.map_err(StartupError::Store)
}

impl Application {
    /// Puts the house together on its store: schema, keys, adapters. Nothing is written but the schema.
    pub async fn build(config: &Config, migrations: MigrationPolicy) -> Result<Self, StartupError> {
        Self::build_with_clock(Arc::new(SystemClock::new()), config, migrations).await
    }

    /// Puts it together with another clock than the machine's.
    pub async fn build_with_clock(
        clock: Arc<dyn Clock>,
        config: &Config,
        migrations: MigrationPolicy,
    ) -> Result<Self, StartupError> {
        let store = connect_store(config).await?;
        if migrations == MigrationPolicy::Always || config.store.url.is_sqlite() {
            store.migrate().await.map_err(StartupError::Store)?;
        }
        store.ping().await.map_err(StartupError::Store)?;
        let entropy = Arc::new(OsEntropy::new().map_err(StartupError::Entropy)?);
        let kek = Kek::new(config.keys.encryption_key.expose()).map_err(|e| StartupError::Keys(e.to_string()))?;
        let pepper = kek.pepper();
        let stored = store.load_keys().await.map_err(StartupError::Store)?;
        let keyring = Keyring::open(kek, &stored).map_err(|e| StartupError::Keys(e.to_string()))?;
        let keys = Arc::new(JwksCache::new(Arc::clone(&clock), FetchLimits::default()));
        let settings = Settings {
            issuer: config.issuer.clone(),
            trust_domain: config.trust_domain.clone(),
            consent_uri: config.consent_uri.as_ref().map(ToString::to_string),
            algorithm: config.keys.algorithm,
            rotation: config.keys.rotation,
            tokens: config.tokens,
            tasks: config.tasks,
            break_glass: config.break_glass,
            introspection_audit: config.audit.introspections,
            write_queue: usize::try_from(config.requests.queue).unwrap_or(usize::MAX >> 4),
            lease: LeaseSettings {
                replica_name: config.replicas.name.clone().unwrap_or_else(host_name),
                duration: Duration::from_millis(u64::from(config.replicas.lease_ms)),
                heartbeat_interval: Duration::from_millis(u64::from(config.replicas.heartbeat_ms)),
            },
            write_batch: usize::try_from(config.store.max_batch).unwrap_or(usize::MAX >> 4),
            memory: config.memory,
            status_list: config.status_list,
            subscribers: SubscriberLimits {
                total: usize::try_from(config.requests.listeners).unwrap_or(usize::MAX),
                per_client: usize::try_from(config.requests.listeners_per_client).unwrap_or(usize::MAX),
            },
        };
        let tokens =
            config.catalogue_tokens.iter().map(|(id, token)| (id.clone(), Secret::new(token.expose().to_owned())));
        let ports = Ports {
            clock,
            entropy,
            threads: Arc::new(DedicatedThreads),
            signer: Arc::new(keyring),
            trusted_keys: Arc::clone(&keys) as _,
            mcp_servers: Arc::new(McpClient::new(FetchLimits::default(), tokens)),
            store: store as _,
            pepper,
        };
        Ok(Self { service: Service::new(settings, ports), issuer_keys: keys })
    }

    /// Brings the store to what the file declares and makes the first keys: what a server does before it serves.
    pub async fn initialize(&self, config: &Config) -> Result<(), StartupError> {
        let cx = self.system_context()?;
        let applied = self.service.apply_declared(&config.objects, &config.secrets, &cx).await;
        let changed = applied.map_err(StartupError::Objects)?;
        let made = self.rotate_due_keys("start").await?;
        tracing::info!(registry.changed = changed, keys.made = made, "house furnished");
        Ok(())
    }

    /// Makes the signing keys that are due, the first ones above all. Returns how many.
    pub async fn rotate_due_keys(&self, by: &str) -> Result<usize, StartupError> {
        let made = self.service.rotate_keys(by, RotationReason::Age, &self.system_context()?).await;
        made.map(|made| made.len()).map_err(StartupError::Rotation)
    }

    /// A name and a time for something that no request asked for.
    pub fn system_context(&self) -> Result<RequestContext, StartupError> {
        let missing = || StartupError::Entropy(Outage::during("make a request id")("no UUID"));
        Ok(RequestContext {
            request_id: self.service.new_request_id().ok_or_else(missing)?,
            now: self.service.clock().now(),
        })
    }

    /// Follows what happens at other replicas, until the set is dropped.
    #[must_use]
    pub fn spawn_replication(&self) -> JoinSet<()> {
        let mut tasks = JoinSet::new();
        tasks.spawn(run_replication(self.service.clone()));
        tasks
    }

    /// Looks after what has to be looked after, until the set is dropped.
    #[must_use]
    pub fn spawn_background_tasks(&self) -> JoinSet<()> {
        let mut tasks = self.spawn_replication();
        tasks.spawn(run_maintenance(self.service.clone()));
        tasks.spawn(refresh_issuer_keys(self.service.clone(), Arc::clone(&self.issuer_keys)));
        tasks.spawn(poll_tool_catalogues(self.service.clone()));
        tasks
    }
}

async fn run_replication(service: Service) {
    service.follow_log().await;
}

async fn run_maintenance(service: Service) {
    let mut every = tokio::time::interval(MAINTENANCE_INTERVAL);
    loop {
        every.tick().await;
        let Some(request_id) = service.new_request_id() else { continue };
        let cx = RequestContext { request_id, now: service.clock().now() };
        if let Err(failure) = service.collect_garbage(&cx).await {
            tracing::warn!(error = %failure, "sweep failed; it is tried again");
        }
    }
}

async fn refresh_issuer_keys(service: Service, keys: Arc<JwksCache>) {
    let mut every = tokio::time::interval(JWKS_REFRESH_INTERVAL);
    loop {
        every.tick().await;
        let now = service.clock().now();
        match service.list_trusted_issuers(now).await {
            Ok(issuers) => keys.refresh(&issuers).await,
            Err(failure) => tracing::warn!(error = %failure, "issuers not refreshed; it is tried again"),
        }
    }
}

/// Asks the servers that are to be asked from time to time, one after the other. Each replica does, so that it does not matter
/// which ones there are; what one of them finds, all know.
async fn poll_tool_catalogues(service: Service) {
    let mut every = tokio::time::interval(CATALOGUE_POLL_INTERVAL);
    let mut last_polled = BTreeMap::<ClientId, Duration>::new();
    loop {
        every.tick().await;
        let Some(request_id) = service.new_request_id() else { continue };
        let cx = RequestContext { request_id, now: service.clock().now() };
        let due = match service.refreshable_catalogues(&cx).await {
            Ok(due) => due,
            Err(failure) => {
                tracing::warn!(error = %failure, "catalogues not looked at; it is tried again");
                continue;
            }
        };
        last_polled.retain(|id, _| due.iter().any(|(other, _)| other == id));
        for (id, pace) in due {
            let pace = Duration::from_secs(pace.as_seconds().into());
            let now = service.clock().monotonic();
            if last_polled.get(&id).is_some_and(|at| now.saturating_sub(*at) < pace) {
                continue;
            }
            last_polled.insert(id.clone(), now);
            let cx = RequestContext { now: service.clock().now(), ..cx.clone() };
            match service.refresh_catalogue(&id, &cx).await {
                Ok(true) => tracing::warn!(resource = %id, "the tools of an MCP server changed"),
                Ok(false) => {}
                Err(failure) => {
                    tracing::warn!(resource = %id, error = %failure, "an MCP server was not asked for its tools");
                }
            }
        }
    }
}
