//! Puts the house together: from a [`Config`] to a [`Service`] with its adapters, and what has to be done from time to
//! time. It names every room and holds no rule.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use thiserror::Error;
use tokio::task::JoinSet;

use crate::{
    adapters::{
        fetch::FetchLimits,
        issuers::ForeignKeys,
        keyring::{Kek, Keyring},
        mcp::ToolAsker,
        store::{Database, StoreOptions, connect},
        system::{Dice, OwnThreads, SystemClock, host_name},
    },
    app::{Cx, Failure, Following, Parts, Seats, Service, Settings},
    config::Config,
    domain::{id::ClientId, keys::Occasion, secret::Secret},
    ports::{Clock, Outage},
};

/// How often keys and leftovers are looked after.
const SWEEP_EVERY: Duration = Duration::from_secs(30);
/// How often the keys of issuers are looked after; each is asked when its keys are ten minutes old.
const REFRESH_EVERY: Duration = Duration::from_mins(1);
/// How often it is looked whether a catalogue is due.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// Why the house can't be put together. Each text says what to do.
#[derive(Debug, Error)]
pub enum HouseFault {
    /// The store can't be used.
    #[error("[store] url: {}: {}", .0.during, .0.source)]
    Store(Outage),
    /// The signing keys in the store can't be opened.
    #[error("[keys] encryption_key: {0}")]
    Keys(String),
    /// No dice.
    #[error("the system has no randomness: {}", .0.source)]
    Entropy(Outage),
    /// What the file declares does not fit what is in the store.
    #[error("the objects in the file don't fit those in the store: {0}")]
    Objects(Failure),
    /// The signing keys that are due can't be made.
    #[error("the signing keys can't be made: {0}")]
    Rotation(Failure),
}

/// When the schema is brought up to date on the way in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Migrations {
    /// Only if the database is part of this program, and so nobody else's: SQLite.
    IfEmbedded,
    /// Whatever the database.
    Always,
}

/// The house, put together.
pub struct House {
    /// Errand itself.
    pub service: Service,
    keys: Arc<ForeignKeys>,
}

impl std::fmt::Debug for House {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("House").field("service", &self.service).finish_non_exhaustive()
    }
}

/// Connects to the store that the configuration names.
pub async fn store(config: &Config) -> Result<Arc<dyn Database>, HouseFault> {
    let options = StoreOptions { max_connections: config.store.max_connections, ..StoreOptions::default() };
    connect(config.store.url.expose(), &options).await.map_err(HouseFault::Store)
}

impl House {
    /// Puts the house together on its store: schema, keys, adapters. Nothing is written but the schema.
    pub async fn open(config: &Config, migrations: Migrations) -> Result<Self, HouseFault> {
        Self::open_by(Arc::new(SystemClock::new()), config, migrations).await
    }

    /// Puts it together with another clock than the machine's.
    pub async fn open_by(clock: Arc<dyn Clock>, config: &Config, migrations: Migrations) -> Result<Self, HouseFault> {
        let store = store(config).await?;
        if migrations == Migrations::Always || config.store.url.is_sqlite() {
            store.migrate().await.map_err(HouseFault::Store)?;
        }
        store.ping().await.map_err(HouseFault::Store)?;
        let entropy = Arc::new(Dice::new().map_err(HouseFault::Entropy)?);
        let kek = Kek::new(config.keys.encryption_key.expose()).map_err(|e| HouseFault::Keys(e.to_string()))?;
        let pepper = kek.pepper();
        let stored = store.keys().await.map_err(HouseFault::Store)?;
        let keyring = Keyring::open(kek, &stored).map_err(|e| HouseFault::Keys(e.to_string()))?;
        let keys = Arc::new(ForeignKeys::new(Arc::clone(&clock), FetchLimits::default()));
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
            following: Following {
                name: config.replicas.name.clone().unwrap_or_else(host_name),
                lease: Duration::from_millis(u64::from(config.replicas.lease_ms)),
                heartbeat: Duration::from_millis(u64::from(config.replicas.heartbeat_ms)),
            },
            write_batch: usize::try_from(config.store.max_batch).unwrap_or(usize::MAX >> 4),
            memory: config.memory,
            status_list: config.status_list,
            listeners: Seats {
                all: usize::try_from(config.requests.listeners).unwrap_or(usize::MAX),
                per_client: usize::try_from(config.requests.listeners_per_client).unwrap_or(usize::MAX),
            },
        };
        let tokens =
            config.catalogue_tokens.iter().map(|(id, token)| (id.clone(), Secret::new(token.expose().to_owned())));
        let parts = Parts {
            clock,
            entropy,
            threads: Arc::new(OwnThreads),
            signer: Arc::new(keyring),
            trusted: Arc::clone(&keys) as _,
            servers: Arc::new(ToolAsker::new(FetchLimits::default(), tokens)),
            store: store as _,
            pepper,
        };
        Ok(Self { service: Service::new(settings, parts), keys })
    }

    /// Brings the store to what the file declares and makes the first keys: what a server does before it serves.
    pub async fn furnish(&self, config: &Config) -> Result<(), HouseFault> {
        let cx = self.cx()?;
        let applied = self.service.apply_file(&config.objects, &config.secrets, &cx).await;
        let changed = applied.map_err(HouseFault::Objects)?;
        let made = self.make_due_keys("start").await?;
        tracing::info!(registry.changed = changed, keys.made = made, "house furnished");
        Ok(())
    }

    /// Makes the signing keys that are due, the first ones above all. Returns how many.
    pub async fn make_due_keys(&self, by: &str) -> Result<usize, HouseFault> {
        let made = self.service.rotate_keys(by, Occasion::Age, &self.cx()?).await;
        made.map(|made| made.len()).map_err(HouseFault::Rotation)
    }

    /// A name and a time for something that no request asked for.
    pub fn cx(&self) -> Result<Cx, HouseFault> {
        let missing = || HouseFault::Entropy(Outage::during("make a request id")("no UUID"));
        Ok(Cx { request_id: self.service.request_id().ok_or_else(missing)?, now: self.service.clock().now() })
    }

    /// Follows what happens at other replicas, until the set is dropped.
    #[must_use]
    pub fn follow(&self) -> JoinSet<()> {
        let mut tasks = JoinSet::new();
        tasks.spawn(follow(self.service.clone()));
        tasks
    }

    /// Looks after what has to be looked after, until the set is dropped.
    #[must_use]
    pub fn tend(&self) -> JoinSet<()> {
        let mut tasks = self.follow();
        tasks.spawn(sweep(self.service.clone()));
        tasks.spawn(refresh(self.service.clone(), Arc::clone(&self.keys)));
        tasks.spawn(look_at_catalogues(self.service.clone()));
        tasks
    }
}

async fn follow(service: Service) {
    service.follow().await;
}

async fn sweep(service: Service) {
    let mut every = tokio::time::interval(SWEEP_EVERY);
    loop {
        every.tick().await;
        let Some(request_id) = service.request_id() else { continue };
        let cx = Cx { request_id, now: service.clock().now() };
        if let Err(failure) = service.sweep(&cx).await {
            tracing::warn!(error = %failure, "sweep failed; it is tried again");
        }
    }
}

async fn refresh(service: Service, keys: Arc<ForeignKeys>) {
    let mut every = tokio::time::interval(REFRESH_EVERY);
    loop {
        every.tick().await;
        let now = service.clock().now();
        match service.trusted_issuers(now).await {
            Ok(issuers) => keys.refresh(&issuers).await,
            Err(failure) => tracing::warn!(error = %failure, "issuers not refreshed; it is tried again"),
        }
    }
}

/// Asks the servers that are to be asked from time to time, one after the other. Each replica does, so that it does not matter
/// which ones there are; what one of them finds, all know.
async fn look_at_catalogues(service: Service) {
    let mut every = tokio::time::interval(LOOK_EVERY);
    let mut asked = BTreeMap::<ClientId, Duration>::new();
    loop {
        every.tick().await;
        let Some(request_id) = service.request_id() else { continue };
        let cx = Cx { request_id, now: service.clock().now() };
        let due = match service.catalogues_to_refresh(&cx).await {
            Ok(due) => due,
            Err(failure) => {
                tracing::warn!(error = %failure, "catalogues not looked at; it is tried again");
                continue;
            }
        };
        asked.retain(|id, _| due.iter().any(|(other, _)| other == id));
        for (id, pace) in due {
            let pace = Duration::from_secs(pace.as_seconds().into());
            let now = service.clock().monotonic();
            if asked.get(&id).is_some_and(|at| now.saturating_sub(*at) < pace) {
                continue;
            }
            asked.insert(id.clone(), now);
            let cx = Cx { now: service.clock().now(), ..cx.clone() };
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
