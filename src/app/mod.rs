//! The use-cases: gather facts through ports, ask the domain, act through ports.

mod audit;
mod auth;
mod commit;
mod error;
mod exchange;
mod feed;
mod grants;
mod introspection;
mod keys;
mod maintenance;
mod queries;
mod registry;
mod replication;
mod revocation;
mod status_list;
mod tasks;

use std::{fmt, sync::Arc, time::Duration};

use tokio::time::timeout;

pub use audit::{AuditReport, ExportedRecord};
pub use auth::api_token::{ApiCaller, ApiToken};
pub use auth::client::{AuthenticatedClient, Credentials, UnredeemedClient};
pub use auth::requester::{Caller, RequesterCaller};
pub use error::{AuthError, ConflictError, ConsentRequired, Error, LogicError, RequestError, TokenError};
pub use exchange::ExchangedToken;
pub use exchange::request::{ExchangeRequest, PresentedTokenType, RequestedTokenType};
pub use feed::{FeedEvent, FeedPage, KEEP_ALIVE_INTERVAL, LONG_POLL_TIMEOUT, Subscriber, SubscriberLimits};
pub use grants::break_glass::BreakGlassRequest;
pub use grants::{GrantActor, GrantRequest};
pub use introspection::Introspection;
pub use registry::catalogue::{Catalogue, ImportMode};
pub use queries::AuditPage;
pub use registry::secrets::NewSecret;
pub use replication::follower::Snapshot;
pub use replication::lease::{LeaseSettings, ReplicaStatus};
pub use revocation::bulk::{BulkReceipt, BulkTaskAction, MAX_TASKS, Selection};
pub use revocation::dry_run::DryRun;
pub use revocation::request::{AdminAction, Revocation, RevocationReceipt, RevocationTarget};
pub use status_list::StatusList;
pub use tasks::call_reports::CallReceipt;
pub use tasks::trail::{TaskTrail, TrailEntry};
pub use tasks::transition::{TransitionOutcome, TransitionRequest};
pub use tasks::tree::{TaskTree, TokenNode, TokenStanding};

use crate::{
    domain::{
        audit::{IntrospectionAuditMode, WriterId},
        grants::break_glass::BreakGlassLimits,
        id::RequestId,
        jose::jwk::SigningAlgorithm,
        keys::RotationSettings,
        replication::ReplicaId,
        secret::Pepper,
        settings::{MemoryLimits, TaskLimits, TokenLimits},
        status_list::StatusListSettings,
        time::Timestamp,
        uri::IssuerUrl,
    },
    ports::{Clock, Entropy, McpServers, Signer, Store, ThreadSpawner, TrustedKeys},
};

/// How long it may take, at the end, to write what was submitted: more than the two commits of a batch may take.
const SHUTDOWN_FLUSH_TIMEOUT: Duration = Duration::from_secs(20);

/// What an operator chose.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Our issuer identifier: `iss` of our tokens, the base of our endpoints.
    pub issuer: IssuerUrl,
    /// The `aud` of transaction tokens.
    pub trust_domain: String,
    /// Where requesters grant what agents need their consent for.
    pub consent_uri: Option<String>,
    /// The algorithm of our tokens, where a resource has no other.
    pub algorithm: SigningAlgorithm,
    /// When keys are made and dropped.
    pub rotation: RotationSettings,
    /// Lives and depths of tokens.
    pub tokens: TokenLimits,
    /// Lives of tasks.
    pub tasks: TaskLimits,
    /// Lives of grants for an emergency.
    pub break_glass: BreakGlassLimits,
    /// Which introspections go into the audit trail.
    pub introspection_audit: IntrospectionAuditMode,
    /// How many writes may wait for the store before requests are turned away.
    pub write_queue: usize,
    /// How this replica follows the log.
    pub lease: LeaseSettings,
    /// How many writes share a commit at most.
    pub write_batch: usize,
    /// How much is kept in memory.
    pub memory: MemoryLimits,
    /// How many may listen to the revocation feed.
    pub subscribers: SubscriberLimits,
    /// Status lists.
    pub status_list: StatusListSettings,
}

impl Settings {
    /// The token endpoint's URL.
    #[must_use]
    pub fn token_endpoint_url(&self) -> String {
        self.issuer.join("/oauth2/token")
    }
}

/// Everything outside, behind ports.
pub struct Ports {
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Dice.
    pub entropy: Arc<dyn Entropy>,
    /// Threads beside those of the requests.
    pub threads: Arc<dyn ThreadSpawner>,
    /// Our keys.
    pub signer: Arc<dyn Signer>,
    /// The keys of others.
    pub trusted_keys: Arc<dyn TrustedKeys>,
    /// The MCP servers.
    pub mcp_servers: Arc<dyn McpServers>,
    /// What survives.
    pub store: Arc<dyn Store>,
    /// The key of client secrets' tags.
    pub pepper: Pepper,
}

impl fmt::Debug for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Parts").finish_non_exhaustive()
    }
}

/// One request, as the use-cases see it: its name and its time. The clock is read once.
#[derive(Clone, Debug)]
pub struct RequestContext {
    /// The request's id, in logs, answers and audit records.
    pub request_id: RequestId,
    /// When it came.
    pub now: Timestamp,
}

/// Errand itself. Cheap to clone.
#[derive(Clone)]
pub struct Service {
    inner: Arc<ServiceInner>,
}

struct ServiceInner {
    settings: Settings,
    ports: Ports,
    follower: Arc<replication::follower::Follower>,
    writer: replication::propagation::PropagatingWriter,
    recently_audited: introspection::RecentlyAudited,
    auth_failures: auth::failures::AuthFailureLog,
    token_cache: introspection::cache::VerifiedTokenCache,
    feed: feed::Feed,
    index_allocator: status_list::allocator::IndexAllocator,
    status_lists: status_list::StatusLists,
}

impl fmt::Debug for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Service").field("settings", &self.inner.settings).finish_non_exhaustive()
    }
}

impl Service {
    /// Puts the service together and starts its writer. To be called inside a tokio runtime.
    #[must_use]
    pub fn new(settings: Settings, ports: Ports) -> Self {
        let audit_writer = WriterId(ports.entropy.new_uuid());
        let store = Arc::clone(&ports.store);
        let (capacity, most) = (settings.write_queue, settings.write_batch);
        let commit_queue = commit::queue::CommitQueue::start(
            &*ports.threads,
            store,
            Arc::clone(&ports.clock),
            audit_writer,
            capacity,
            most,
        );
        let replica = replication::lease::describe_replica(
            ReplicaId(ports.entropy.new_uuid()),
            &settings.lease,
            ports.clock.now(),
        );
        let lease = replication::lease::Lease::new(replica, settings.lease.clone());
        let (store, signer) = (Arc::clone(&ports.store), Arc::clone(&ports.signer));
        let follower = replication::follower::Follower::new(store, signer, Arc::clone(&ports.clock), lease);
        let writer = replication::propagation::PropagatingWriter::new(commit_queue, Arc::clone(&follower));
        let (recently_audited, auth_failures) =
            (introspection::RecentlyAudited::default(), auth::failures::AuthFailureLog::default());
        let token_cache = introspection::cache::VerifiedTokenCache::new(settings.memory);
        let feed = feed::Feed::new(settings.subscribers);
        let (index_allocator, status_lists) =
            (status_list::allocator::IndexAllocator::default(), status_list::StatusLists::default());
        let inner = ServiceInner {
            settings,
            ports,
            follower,
            writer,
            recently_audited,
            auth_failures,
            token_cache,
            feed,
            index_allocator,
            status_lists,
        };
        Self { inner: Arc::new(inner) }
    }

    /// What the operator chose.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.inner.settings
    }

    /// The clock, for the edge: to stamp a request, and to measure it.
    #[must_use]
    pub fn clock(&self) -> &dyn Clock {
        &*self.inner.ports.clock
    }

    /// A fresh request id, for a request that brings none.
    #[must_use]
    pub fn new_request_id(&self) -> Option<RequestId> {
        self.inner.ports.entropy.new_uuid().to_string().parse().ok()
    }

    /// How many writes wait for the store now.
    #[must_use]
    pub fn write_queue_depth(&self) -> usize {
        self.inner.writer.queue_depth()
    }

    /// How many audit records of introspections were dropped because the writer could not keep up.
    #[must_use]
    pub fn dropped_audit_records(&self) -> u64 {
        self.inner.writer.dropped_audit_records()
    }

    /// How many tokens that were found good are kept, and how many bytes they take at most.
    #[must_use]
    pub fn token_cache_size(&self) -> (usize, u64) {
        self.inner.token_cache.size()
    }

    /// The trusted issuers, each with whether its keys could be had the last time they were asked for.
    pub async fn issuer_health(&self, cx: &RequestContext) -> Result<Vec<(String, bool)>, Error> {
        let snapshot = self.inner.follower.snapshot(cx.now).await?;
        let unreachable = self.inner.ports.trusted_keys.unreachable_issuers();
        let names = snapshot.registry.issuers().map(|issuer| issuer.issuer.to_string());
        Ok(names
            .map(|name| {
                let up = !unreachable.contains(&name);
                (name, up)
            })
            .collect())
    }

    /// Waits until everything that was submitted is durable, and leaves the replicas; a store that does not answer keeps
    /// nobody from stopping. Called once, after the last request.
    pub async fn shutdown(&self) {
        for record in self.inner.auth_failures.drain(self.inner.ports.clock.now(), true) {
            self.inner.writer.enqueue_audit(record);
        }
        if timeout(SHUTDOWN_FLUSH_TIMEOUT, self.inner.writer.flush()).await.is_err() {
            let writes = self.inner.writer.queue_depth();
            tracing::error!(writes, "the store does not answer: what waits to be written is given up");
        }
        if let Err(outage) =
            commit::timeout::with_store_timeout("leave the replicas", self.inner.follower.deregister()).await
        {
            tracing::warn!(error = %outage, cause = %outage.source, "the replica stays listed until its lease is over");
        }
    }

    /// What to sign something with: what its resource wants, once a key for that has been published for long enough; the
    /// configured algorithm until then.
    fn select_signing_algorithm(&self, preferred: Option<SigningAlgorithm>, cx: &RequestContext) -> SigningAlgorithm {
        let active =
            |algorithm: &SigningAlgorithm| self.inner.ports.signer.active_algorithms(cx.now).contains(algorithm);
        preferred.filter(active).unwrap_or(self.settings().algorithm)
    }

    fn store(&self) -> &dyn Store {
        &*self.inner.ports.store
    }
}
