//! Composition root: builds a [`Service`] with its adapters from a [`Config`], and runs its
//! background tasks.
//!
//! This module names every layer and contains no rule.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use thiserror::Error;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use uuid::Uuid;

use crate::{
    adapters::{
        fetch::{FetchLimits, FetchOptions, FetchProxy},
        issuers::JwksCache,
        keyring::{Kek, KekSet, Keyring, KeyringError, generate_sealed_keys},
        mcp::McpClient,
        store::{Database, StoreOptions, connect},
        system::{DedicatedThreads, OsEntropy, SystemClock, host_name},
    },
    app::{
        ApplyError, ApplyOptions, CommitQueueLimits, Declaration, Error, FileComparison, LeaseSettings, Ports,
        ReloadableLimits, RequestContext, Service, Settings, SubscriberLimits,
    },
    config::Config,
    domain::{
        audit::WriterId,
        id::ClientId,
        keys::RotationReason,
        sealed_key::{KeyPurpose, missing_purposes},
        secret::Secret,
        time::Timestamp,
    },
    ports::{Clock, Entropy, ErrorChain, Outage, Precondition, StateChange, StoreSealer, StoredKeys, WriteSet},
};

/// The interval of maintenance: key rotation and garbage collection.
const MAINTENANCE_INTERVAL: Duration = Duration::from_secs(30);
/// The interval at which the audit trail is checked for records that need a checkpoint.
const CHECKPOINT_POLL_INTERVAL: Duration = Duration::from_secs(10);
/// The interval at which the keys of issuers are checked; they are fetched again at the age that
/// the entry of the issuer names (`key_refresh`).
const JWKS_REFRESH_INTERVAL: Duration = Duration::from_secs(10);
/// The interval at which tool catalogues are checked for being due.
const CATALOGUE_POLL_INTERVAL: Duration = Duration::from_secs(10);

/// The reason that the application can't be built. Each text says what to do.
#[derive(Debug, Error)]
pub enum StartupError {
    /// The store can't be used.
    #[error("[store] url: {}", ErrorChain(.0))]
    Store(Outage),
    /// The keys in the store can't be decrypted.
    #[error("[keys] encryption_key: {0}")]
    Keys(#[from] KeyringError),
    /// The keys are missing from a store that has been used.
    #[error(
        "[store] url: the store has been used, but has no row in its table `sealed_keys`; restore the database from a \
         backup, because without these keys no client secret and no audit record can be verified"
    )]
    MissingKeys,
    /// The system provides no randomness.
    #[error("the system provides no randomness: {}", ErrorChain(.0))]
    Entropy(Outage),
    /// The configuration file is not applied.
    #[error("{}", ErrorChain(.0))]
    File(ApplyError),
    /// The signing keys that are due can't be created.
    #[error("can't create the signing keys: {}", ErrorChain(.0))]
    Rotation(Error),
}

/// When the schema is migrated at start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MigrationPolicy {
    /// Only if the database is embedded (SQLite), so that no other program uses it.
    IfEmbedded,
    /// For every database.
    Always,
}

/// The application: the service and the adapters that background tasks need.
pub struct Application {
    /// The service.
    pub service: Service,
    /// The sealer of audit records, for another connection to the same store.
    pub store_sealer: Arc<dyn StoreSealer>,
    issuer_keys: Arc<JwksCache>,
}

impl std::fmt::Debug for Application {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Application").field("service", &self.service).finish_non_exhaustive()
    }
}

/// Connects to the configured store.
pub async fn connect_store(config: &Config) -> Result<Arc<dyn Database>, StartupError> {
    let options = StoreOptions {
        max_connections: config.store.max_connections,
        list_connections: config.store.list_connections,
        list_timeout: Duration::from_secs(u64::from(config.store.list_timeout_seconds)),
        ..StoreOptions::default()
    };
    let store = connect(config.store.url.expose(), &options).await.map_err(StartupError::Store)?;
    store.verify_server().await.map_err(StartupError::Store)?;
    Ok(store)
}

fn fetch_options(config: &Config) -> FetchOptions {
    let proxy = config.fetch.proxy.as_ref().map(|proxy| FetchProxy {
        url: proxy.url.clone(),
        bypass: proxy.no_proxy.clone(),
        credentials: proxy.credentials.as_ref().map(|secret| Arc::new(Secret::new(secret.expose().to_owned()))),
    });
    FetchOptions { limits: FetchLimits::default(), proxy, ca_pem: config.fetch.ca_pem.as_deref().map(Arc::from) }
}

impl Application {
    /// Builds the application for a command: like [`build`](Self::build), but all commands on a
    /// host write to one chain of audit records.
    pub async fn build_for_command(config: &Config, migrations: MigrationPolicy) -> Result<Self, StartupError> {
        let writer = WriterId::of_commands(&host_name());
        Self::build_with_writer(Arc::new(SystemClock::new()), config, migrations, Some(writer)).await
    }

    /// Builds the application on its store: schema, keys, adapters. Writes nothing but
    /// the schema, and the sealed keys of a new store.
    pub async fn build(config: &Config, migrations: MigrationPolicy) -> Result<Self, StartupError> {
        Self::build_with_clock(Arc::new(SystemClock::new()), config, migrations).await
    }

    /// Builds the application with a clock other than the system's.
    pub async fn build_with_clock(
        clock: Arc<dyn Clock>,
        config: &Config,
        migrations: MigrationPolicy,
    ) -> Result<Self, StartupError> {
        Self::build_with_writer(clock, config, migrations, None).await
    }

    /// Builds the application with a writer of audit records other than a new one.
    async fn build_with_writer(
        clock: Arc<dyn Clock>,
        config: &Config,
        migrations: MigrationPolicy,
        writer: Option<WriterId>,
    ) -> Result<Self, StartupError> {
        let store = connect_store(config).await?;
        if migrations == MigrationPolicy::Always || config.store.url.is_sqlite() {
            store.migrate().await.map_err(StartupError::Store)?;
        }
        store.ping().await.map_err(StartupError::Store)?;
        let entropy = Arc::new(OsEntropy::new().map_err(StartupError::Entropy)?);
        let keyring = open_keyring(&*store, config, clock.now()).await?;
        let pepper = keyring.pepper()?;
        let keyring = Arc::new(keyring);
        let store_sealer = Arc::clone(&keyring) as Arc<dyn StoreSealer>;
        store.unlock(Arc::clone(&store_sealer));
        let fetch = fetch_options(config);
        let keys = Arc::new(JwksCache::new(Arc::clone(&clock), fetch.clone()));
        let settings = Settings {
            issuer: config.issuer.clone(),
            trust_domain: config.trust_domain.clone(),
            consent_uri: config.consent_uri.as_ref().map(ToString::to_string),
            algorithm: config.keys.algorithm,
            rotation: config.keys.rotation,
            tokens: config.tokens,
            tasks: config.tasks,
            break_glass: config.break_glass,
            four_eyes: config.four_eyes,
            audit_writer: writer.unwrap_or_else(|| WriterId(entropy.new_uuid())),
            introspection_audit: config.audit.introspections,
            evaluation_audit: config.audit.evaluations,
            commit_queue: CommitQueueLimits {
                standard: queue_size(config.requests.write_queue),
                reserved: queue_size(config.requests.reserved_write_queue),
                audit: queue_size(config.requests.audit_queue),
                max_batch: queue_size(config.store.max_batch),
            },
            admission: config.admission,
            quotas: config.quotas,
            retention: config.retention,
            lists_per_client: usize::try_from(config.requests.lists_per_client).unwrap_or(usize::MAX),
            lease: LeaseSettings {
                replica_name: config.replicas.name.clone().unwrap_or_else(host_name),
                duration: Duration::from_millis(u64::from(config.replicas.lease_ms)),
                heartbeat_interval: Duration::from_millis(u64::from(config.replicas.heartbeat_ms)),
            },
            memory: config.memory,
            status_list: config.status_list,
            fetch_networks: config.fetch.networks.clone(),
            subscribers: SubscriberLimits {
                total: usize::try_from(config.requests.subscribers).unwrap_or(usize::MAX),
                per_client: usize::try_from(config.requests.subscribers_per_client).unwrap_or(usize::MAX),
            },
        };
        let tokens =
            config.catalogue_tokens.iter().map(|(id, token)| (id.clone(), Secret::new(token.expose().to_owned())));
        let ports = Ports {
            clock,
            entropy,
            threads: Arc::new(DedicatedThreads),
            audit_keys: Arc::clone(&keyring) as _,
            signer: keyring,
            trusted_keys: Arc::clone(&keys) as _,
            mcp_servers: Arc::new(McpClient::new(fetch, tokens)),
            reserved_store: store.reserved(),
            store: store as _,
            pepper,
        };
        let service = Service::new(settings, ports);
        service.describe_file(service.file_version(declaration(config)), Vec::new());
        Ok(Self { service, store_sealer, issuer_keys: keys })
    }

    /// Applies the declared objects to the store and creates the first keys. A server does this
    /// before it serves. A file that is older than the file in force, or that would end live
    /// tasks, is refused.
    pub async fn initialize(&self, config: &Config) -> Result<(), StartupError> {
        let options = ApplyOptions::for_replica(&self.service.settings().lease.replica_name);
        self.initialize_with(config, &options).await
    }

    /// Does the same as [`initialize`](Self::initialize), with what the operator accepts.
    pub async fn initialize_with(&self, config: &Config, options: &ApplyOptions) -> Result<(), StartupError> {
        let changed = self.apply_file(config, options).await?;
        let created = self.rotate_due_keys("start").await?;
        tracing::info!(registry.changes = changed.len(), keys.created = created, "registry and keys initialized");
        if let Some(problem) = self.service.find_signing_problem(&self.system_context()?) {
            tracing::warn!(problem, "no tokens can be issued");
        }
        Ok(())
    }

    /// Checks that the store belongs to the configured issuer, or to none yet.
    pub async fn check_issuer(&self) -> Result<(), StartupError> {
        self.service.check_issuer().await.map_err(StartupError::File)
    }

    /// Applies the objects and secrets that the configuration declares. Returns what has changed.
    pub async fn apply_file(&self, config: &Config, options: &ApplyOptions) -> Result<Vec<String>, StartupError> {
        let cx = self.system_context()?;
        self.service.apply_declared(declaration(config), options, &cx).await.map_err(StartupError::File)
    }

    /// Describes the configuration file of this replica, and the keys that need a restart, to the
    /// other replicas.
    pub fn describe_file(&self, config: &Config, pending_restart: Vec<String>) {
        self.service.describe_file(self.service.file_version(declaration(config)), pending_restart);
    }

    /// Uses the limits of a newly read configuration from now on.
    pub fn replace_limits(&self, config: &Config) {
        self.service.replace_limits(ReloadableLimits {
            tokens: config.tokens,
            tasks: config.tasks,
            break_glass: config.break_glass,
            four_eyes: config.four_eyes,
            admission: config.admission,
            quotas: config.quotas,
            retention: config.retention,
            consent_uri: config.consent_uri.as_ref().map(ToString::to_string),
            introspection_audit: config.audit.introspections,
            evaluation_audit: config.audit.evaluations,
            references_status_lists: config.status_list.enabled,
        });
    }

    /// Compares the objects and secrets that the configuration declares with the store.
    pub async fn compare_file(&self, config: &Config) -> Result<FileComparison, StartupError> {
        let cx = self.system_context()?;
        self.service.compare_declared(declaration(config), &cx).await.map_err(StartupError::File)
    }

    /// Creates the signing keys that are due, the first ones included. Returns their number.
    pub async fn rotate_due_keys(&self, by: &str) -> Result<usize, StartupError> {
        let created = self.service.rotate_keys(by, RotationReason::Age, &self.system_context()?).await;
        created.map(|created| created.len()).map_err(StartupError::Rotation)
    }

    /// Returns the context of an operation that no request caused.
    pub fn system_context(&self) -> Result<RequestContext, StartupError> {
        let missing = || StartupError::Entropy(Outage::during("create a request id")("no UUID"));
        system_context(&self.service).ok_or_else(missing)
    }

    /// Starts following the log of the store and renewing the lease.
    #[must_use]
    pub fn spawn_replication(&self) -> BackgroundTasks {
        let tasks = BackgroundTasks::default();
        let service = self.service.clone();
        tasks.spawn(async move { service.follow_log().await });
        tasks
    }

    /// Starts replication, maintenance, and the refresh of issuer keys and of tool catalogues.
    #[must_use]
    pub fn spawn_background_tasks(&self) -> BackgroundTasks {
        let tasks = self.spawn_replication();
        tasks.spawn(run_maintenance(self.service.clone()));
        tasks.spawn(sign_checkpoints(self.service.clone()));
        tasks.spawn(refresh_issuer_keys(self.service.clone(), Arc::clone(&self.issuer_keys)));
        tasks.spawn(poll_tool_catalogues(self.service.clone()));
        tasks
    }
}

/// Tasks that run beside the requests. Dropping the value stops them.
#[derive(Debug, Default)]
pub struct BackgroundTasks {
    tracker: TaskTracker,
    stopping: CancellationToken,
}

impl BackgroundTasks {
    /// Starts a task. It is dropped at its next await point when the tasks are stopped.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let stopping = self.stopping.clone();
        self.tracker.spawn(async move {
            // `None` means that the task was stopped.
            let _: Option<()> = stopping.run_until_cancelled(task).await;
        });
    }

    /// Stops the tasks and waits until they have ended.
    pub async fn shutdown(&self) {
        self.stopping.cancel();
        self.tracker.close();
        self.tracker.wait().await;
    }
}

impl Drop for BackgroundTasks {
    fn drop(&mut self) {
        self.stopping.cancel();
    }
}

/// Returns what a configuration declares for all replicas.
fn declaration(config: &Config) -> Declaration<'_> {
    Declaration { objects: &config.objects, secrets: &config.secrets, generation: config.generation }
}

fn queue_size(configured: u32) -> usize {
    usize::try_from(configured).unwrap_or(usize::MAX >> 4)
}

fn configured_keks(config: &Config) -> Result<KekSet, StartupError> {
    let current = Kek::new(config.keys.encryption_key.expose())?;
    let previous = config.keys.previous_encryption_keys.iter().map(|key| Kek::new(key.expose()));
    Ok(KekSet::new(current, previous.collect::<Result<_, _>>()?))
}

/// Opens the stored keys. A store that has not been used gets its sealed keys first.
async fn open_keyring(store: &dyn Database, config: &Config, now: Timestamp) -> Result<Keyring, StartupError> {
    let mut stored = store.load_keys().await.map_err(StartupError::Store)?;
    if stored.sealed_keys.is_empty() {
        stored = create_sealed_keys(store, configured_keks(config)?, stored.version, now).await?;
    }
    let keks = configured_keks(config)?;
    if let Some(purpose) = missing_purposes(&stored.sealed_keys).first() {
        return Err(KeyringError::MissingSealedKey(*purpose).into());
    }
    let has_previous = keks.has_previous();
    let keyring = Keyring::open(keks, &stored)?;
    if !keyring.is_rekeyed() {
        tracing::warn!(
            "stored keys are sealed under a previous key-encryption key; once every replica has the current one, run \
             `errand keys rekey`"
        );
    } else if has_previous {
        tracing::info!(
            "no stored key is sealed under a previous key-encryption key; remove `previous_encryption_key_files`"
        );
    }
    Ok(keyring)
}

/// Creates the sealed keys of a store that has not been used. Of two programs that do so at once,
/// one wins, and both use its keys. A store that has been used must have its keys: with new ones,
/// nothing that the missing ones authenticated would verify.
async fn create_sealed_keys(
    store: &dyn Database,
    keks: KekSet,
    version: u64,
    now: Timestamp,
) -> Result<StoredKeys, StartupError> {
    if store.is_unused().await.map_err(StartupError::Store)? {
        let keys = generate_sealed_keys(&keks, &KeyPurpose::ALL, now)?;
        store.unlock(Arc::new(Keyring::open_new(keks, keys.clone())?));
        let write = WriteSet {
            precondition: Some(Precondition::KeysVersion(version)),
            // From now on, a store without a seal is never taken for a new one.
            state_changes: keys.into_iter().map(StateChange::PutSealedKey).chain([StateChange::SealNewStore]).collect(),
            ..WriteSet::default()
        };
        // No audit record is written, so this writer has no chain.
        let committed = store.commit(WriterId(Uuid::nil()), &[write]).await;
        // Another program may have been first, and its keys are the ones of the store.
        store.lock();
        committed.map_err(|error| StartupError::Store(error.into()))?;
    }
    let stored = store.load_keys().await.map_err(StartupError::Store)?;
    if stored.sealed_keys.is_empty() { Err(StartupError::MissingKeys) } else { Ok(stored) }
}

fn system_context(service: &Service) -> Option<RequestContext> {
    Some(RequestContext::internal(service.new_request_id()?, service.clock().now()))
}

async fn run_maintenance(service: Service) {
    let mut ticks = tokio::time::interval(MAINTENANCE_INTERVAL);
    loop {
        ticks.tick().await;
        let Some(cx) = system_context(&service) else { continue };
        if let Err(error) = service.collect_garbage(&cx).await {
            tracing::warn!(error = %ErrorChain(&error), "maintenance failed, retrying later");
        }
    }
}

async fn sign_checkpoints(service: Service) {
    let mut ticks = tokio::time::interval(CHECKPOINT_POLL_INTERVAL);
    loop {
        ticks.tick().await;
        let Some(cx) = system_context(&service) else { continue };
        match service.sign_due_checkpoint(&cx).await {
            Ok(Some(signed)) => {
                tracing::info!(number = signed.number, checkpoint = signed.text, "audit checkpoint signed");
            }
            Ok(None) => {}
            Err(error) => {
                tracing::error!(error = %ErrorChain(&error), "audit checkpoint not signed, retrying later");
            }
        }
    }
}

async fn refresh_issuer_keys(service: Service, keys: Arc<JwksCache>) {
    let mut ticks = tokio::time::interval(JWKS_REFRESH_INTERVAL);
    loop {
        ticks.tick().await;
        let now = service.clock().now();
        match service.list_trusted_issuers(now).await {
            Ok(issuers) => keys.refresh(&issuers).await,
            Err(error) => {
                tracing::warn!(error = %ErrorChain(&error), "issuer keys not refreshed, retrying later");
            }
        }
    }
}

/// Requests the tools of the MCP servers whose catalogues are due, one after the other. Every
/// replica does so, which makes the set of replicas irrelevant; all replicas see what one of them
/// finds.
async fn poll_tool_catalogues(service: Service) {
    let mut ticks = tokio::time::interval(CATALOGUE_POLL_INTERVAL);
    let mut last_polled = BTreeMap::<ClientId, Duration>::new();
    loop {
        ticks.tick().await;
        let Some(cx) = system_context(&service) else { continue };
        let refreshable = match service.refreshable_catalogues(&cx).await {
            Ok(refreshable) => refreshable,
            Err(error) => {
                tracing::warn!(error = %ErrorChain(&error), "tool catalogues not checked, retrying later");
                continue;
            }
        };
        last_polled.retain(|id, _| refreshable.iter().any(|(other, _)| other == id));
        for (id, refresh_interval) in refreshable {
            let refresh_interval = Duration::from_secs(refresh_interval.as_seconds().into());
            let now = service.clock().monotonic();
            if last_polled.get(&id).is_some_and(|at| now.saturating_sub(*at) < refresh_interval) {
                continue;
            }
            last_polled.insert(id.clone(), now);
            let cx = RequestContext { now: service.clock().now(), ..cx.clone() };
            match service.refresh_catalogue(&id, &cx).await {
                Ok(true) => tracing::warn!(resource = %id, "the tools of an MCP server have changed"),
                Ok(false) => {}
                Err(error) => {
                    let error = ErrorChain(&error);
                    tracing::warn!(resource = %id, %error, "can't list the tools of an MCP server, retrying later");
                }
            }
        }
    }
}
