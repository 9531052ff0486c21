//! The use cases: each gathers facts through ports, lets the domain decide, and acts through ports.

mod admission;
mod audit;
mod auth;
mod commit;
mod error;
mod evaluation;
mod exchange;
mod feed;
mod first_records;
mod four_eyes;
mod grants;
mod introspection;
mod issuers;
mod keys;
mod list_admission;
mod long_bodies;
mod maintenance;
mod nanos;
mod queries;
mod readiness;
mod registry;
mod replication;
mod revocation;
mod sampling;
mod shared_outage;
mod status_list;
mod tasks;

use std::{fmt, net::IpAddr, sync::Arc, time::Duration};

use ipnet::IpNet;
use parking_lot::{Mutex, RwLock};
use tokio::time::timeout;

pub use admission::Admitted;
pub use audit::{
    AuditFinding, AuditReport, ExportLine, ExportedRecord, ForgetReport, OfflineVerification, PruneError, PrunePlan,
    VerifiedExport,
};
pub use auth::api_token::{ApiCaller, ApiToken};
pub use auth::client::{AuthenticatedClient, Credentials, UnredeemedClient};
pub use auth::requester::{Caller, RequesterCaller};
pub use commit::queue::CommitQueueLimits;
pub use error::{AuthError, ConflictError, ConsentRequired, Error, LogicError, RequestError, TokenError};
pub use evaluation::{Evaluation, EvaluationRequest, ResourceCaller};
pub use exchange::ExchangedToken;
pub use exchange::request::{ExchangeRequest, PresentedTokenType, RequestedTokenType};
pub use feed::{FeedEvent, FeedPage, KEEP_ALIVE_INTERVAL, LONG_POLL_TIMEOUT, Subscriber, SubscriberLimits};
pub use four_eyes::{Actor, ApprovalReceipt, RequestedAct};
pub use grants::break_glass::BreakGlassRequest;
pub use grants::{GrantActor, GrantRequest};
pub use introspection::Introspection;
pub use issuers::{IssuerKeysChange, IssuerKeysReceipt, IssuerStatus};
pub use list_admission::ListPermit;
pub use long_bodies::LongBodyPermit;
pub use queries::AuditPage;
pub use registry::catalogue::{Catalogue, ImportMode};
pub use registry::declarative::{ApplyError, ApplyOptions, Declaration, EndedTasks, FileComparison};
pub use registry::secrets::NewSecret;
pub use replication::renewal::LeaseSettings;
pub use replication::snapshot::Snapshot;
pub use replication::status::ReplicaStatus;
pub use revocation::bulk::{BulkReceipt, BulkTaskAction, MAX_TASKS, Selection};
pub use revocation::dry_run::DryRun;
pub use revocation::request::{AdminAction, Revocation, RevocationReceipt, RevocationTarget};
pub use status_list::lists::StatusList;
pub use tasks::call_reports::CallReceipt;
pub use tasks::trail::{TaskTrail, TrailEntry};
pub use tasks::transition::{TransitionOutcome, TransitionRequest};
pub use tasks::tree::{TaskTree, TokenNode, TokenStanding};

use crate::{
    domain::{
        audit::{EvaluationAuditMode, IntrospectionAuditMode, Outcome, WriterId},
        evaluation::DenyReason,
        four_eyes::FourEyes,
        grants::break_glass::BreakGlassLimits,
        id::{ClientId, RequestId, TaskId, TokenId},
        jose::jwk::SigningAlgorithm,
        keys::RotationSettings,
        replication::ReplicaId,
        secret::Pepper,
        settings::{AdmissionLimits, MemoryLimits, Quotas, Retention, TaskLimits, TokenLimits},
        status_list::StatusListSettings,
        time::Timestamp,
        uri::IssuerUrl,
    },
    ports::{AuditKeys, Clock, Entropy, ErrorChain, LiveCounts, McpServers, Signer, Store, ThreadSpawner, TrustedKeys},
};

use commit::{queue::CommitQueue, timeout::with_store_timeout};
use replication::{
    coalesce::CoalescedRead,
    follower::{Follower, FollowerPorts},
    lease::Lease,
    peers::Peers,
    propagation::PropagatingWriter,
    renewal::{LeaseRenewal, RenewalPorts},
};
use status_list::{
    allocator::IndexAllocator,
    lists::{StatusListParameters, StatusListPorts, StatusLists},
};

/// The time limit of the write flush at shutdown: longer than the two commits of a batch can take.
const SHUTDOWN_FLUSH_TIMEOUT: Duration = Duration::from_secs(20);

/// The settings of the service.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The issuer identifier: `iss` of issued tokens, and the base URL of the endpoints.
    pub issuer: IssuerUrl,
    /// The `aud` of transaction tokens.
    pub trust_domain: String,
    /// The page at which requesters consent to what agents need.
    pub consent_uri: Option<String>,
    /// The algorithm of issued tokens whose resource prefers no other.
    pub algorithm: SigningAlgorithm,
    /// When signing keys are created and removed.
    pub rotation: RotationSettings,
    /// Lifetimes and depths of tokens.
    pub tokens: TokenLimits,
    /// Lifetimes of tasks.
    pub tasks: TaskLimits,
    /// Lifetimes of break-glass grants.
    pub break_glass: BreakGlassLimits,
    /// When acts of admins need a second person.
    pub four_eyes: FourEyes,
    /// The writer of the audit records.
    pub audit_writer: WriterId,
    /// Which introspections are recorded in the audit trail.
    pub introspection_audit: IntrospectionAuditMode,
    /// Which permitted calls are recorded in the audit trail.
    pub evaluation_audit: EvaluationAuditMode,
    /// The sizes of the queues in front of the store.
    pub commit_queue: CommitQueueLimits,
    /// The rates and the numbers of concurrent requests that each caller may have.
    pub admission: AdmissionLimits,
    /// How much of the store each party may use.
    pub quotas: Quotas,
    /// How long rows are kept that no decision rests on any more.
    pub retention: Retention,
    /// The number of lists that a client may read at the same time.
    pub lists_per_client: usize,
    /// The lease of this replica.
    pub lease: LeaseSettings,
    /// The sizes of caches.
    pub memory: MemoryLimits,
    /// The number of subscribers of the revocation feed.
    pub subscribers: SubscriberLimits,
    /// Status lists.
    pub status_list: StatusListSettings,
    /// The special networks that objects registered over REST may name.
    pub fetch_networks: Vec<IpNet>,
}

impl Settings {
    /// Returns the URL of the token endpoint.
    #[must_use]
    pub fn token_endpoint_url(&self) -> String {
        self.issuer.join("/oauth2/token")
    }
}

/// The settings that can change while the service runs.
#[derive(Clone, Debug)]
pub struct ReloadableLimits {
    /// Lifetimes and depths of tokens.
    pub tokens: TokenLimits,
    /// Lifetimes of tasks.
    pub tasks: TaskLimits,
    /// Lifetimes of break-glass grants.
    pub break_glass: BreakGlassLimits,
    /// When acts of admins need a second person.
    pub four_eyes: FourEyes,
    /// The rates and the numbers of concurrent requests that each caller may have.
    pub admission: AdmissionLimits,
    /// How much of the store each party may use.
    pub quotas: Quotas,
    /// How long rows are kept that no decision rests on any more.
    pub retention: Retention,
    /// The page at which requesters consent to what agents need.
    pub consent_uri: Option<String>,
    /// Which introspections are recorded in the audit trail.
    pub introspection_audit: IntrospectionAuditMode,
    /// Which permitted calls are recorded in the audit trail.
    pub evaluation_audit: EvaluationAuditMode,
    /// Whether new task tokens reference a status list.
    pub references_status_lists: bool,
}

/// The adapters of the service, behind their ports.
pub struct Ports {
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub entropy: Arc<dyn Entropy>,
    /// Threads besides those that serve requests.
    pub threads: Arc<dyn ThreadSpawner>,
    /// The signing keys of this server.
    pub signer: Arc<dyn Signer>,
    /// The keys of issuers and clients.
    pub trusted_keys: Arc<dyn TrustedKeys>,
    /// The MCP servers.
    pub mcp_servers: Arc<dyn McpServers>,
    /// Durable state.
    pub store: Arc<dyn Store>,
    /// The same state, on connections that no request of a client can occupy: for the follower, the
    /// lease, readiness, and what revokes.
    pub reserved_store: Arc<dyn Store>,
    /// The key of the tags of client secrets.
    pub pepper: Pepper,
    /// The keys of the audit trail.
    pub audit_keys: Arc<dyn AuditKeys>,
}

impl fmt::Debug for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ports").finish_non_exhaustive()
    }
}

/// The id, the time and the source of one request. The clock is read once.
#[derive(Clone, Debug)]
pub struct RequestContext {
    /// The request's id in logs, responses and audit records.
    pub request_id: RequestId,
    /// When the request arrived.
    pub now: Timestamp,
    /// The address that the request came from. `None` for the server's own work.
    pub source: Option<IpAddr>,
}

impl RequestContext {
    /// Returns the context of work that no client requested.
    #[must_use]
    pub fn internal(request_id: RequestId, now: Timestamp) -> Self {
        Self { request_id, now, source: None }
    }

    /// Returns the source address as it appears in audit records.
    fn source_text(&self) -> Option<String> {
        self.source.map(|address| address.to_string())
    }
}

/// The application service: every use case is a method of it. Cheap to clone.
#[derive(Clone)]
pub struct Service {
    inner: Arc<ServiceInner>,
}

struct ServiceInner {
    /// Replaced as a whole, so that a request sees one version of it.
    settings: RwLock<Arc<Settings>>,
    ports: Ports,
    follower: Arc<Follower>,
    peers: Arc<Peers>,
    renewal: Arc<LeaseRenewal>,
    writer: PropagatingWriter,
    key_rotation: keys::KeyRotation,
    recently_audited: first_records::FirstRecords<(TokenId, Outcome)>,
    recently_denied: first_records::FirstRecords<(ClientId, TaskId, DenyReason)>,
    refusals: sampling::RefusalSampler,
    replays: auth::replays::KnownReplays,
    admission: admission::Admission,
    quota_usage: exchange::quotas::QuotaUsage,
    token_cache: introspection::cache::VerifiedTokenCache,
    live: Mutex<Option<LiveCounts>>,
    feed: feed::Feed,
    index_allocator: Arc<IndexAllocator>,
    list_admission: list_admission::ListAdmission,
    long_bodies: long_bodies::LongBodies,
    store_check: CoalescedRead<()>,
    status_lists: Arc<StatusLists>,
    rule_matches: issuers::RuleMatches,
}

impl fmt::Debug for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Service").field("settings", &self.settings()).finish_non_exhaustive()
    }
}

impl Service {
    /// Builds the service and starts its writer. Must be called inside a tokio runtime.
    #[must_use]
    pub fn new(settings: Settings, ports: Ports) -> Self {
        let (store, clock) = (|| Arc::clone(&ports.store), || Arc::clone(&ports.clock));
        let reserved = || Arc::clone(&ports.reserved_store);
        let (signer, entropy) = (|| Arc::clone(&ports.signer), || Arc::clone(&ports.entropy));
        let lease = Arc::<Lease>::default();
        let follower = Follower::new(
            FollowerPorts {
                log: reserved(),
                registry: reserved(),
                keys: reserved(),
                signer: signer(),
                trusted_keys: Arc::clone(&ports.trusted_keys),
                fetch_networks: settings.fetch_networks.clone(),
                clock: clock(),
            },
            Arc::clone(&lease),
        );
        let peers = Arc::new(Peers::new(reserved(), clock()));
        let renewal = Arc::new(LeaseRenewal::new(
            ReplicaId(ports.entropy.new_uuid()),
            settings.lease.clone(),
            RenewalPorts {
                replicas: reserved(),
                clock: clock(),
                follower: Arc::clone(&follower),
                lease,
                peers: Arc::clone(&peers),
            },
        ));
        let queue =
            CommitQueue::start(&*ports.threads, store(), clock(), settings.audit_writer, settings.commit_queue, {
                let follower = Arc::clone(&follower);
                Box::new(move |write| write.token.as_ref().is_some_and(|token| follower.is_party_disabled(token)))
            });
        let writer =
            PropagatingWriter::new(queue, Arc::clone(&follower), Arc::clone(&peers), Arc::clone(&renewal), clock());
        let feed_ports = feed::FeedPorts { log: store(), clock: clock(), follower: Arc::clone(&follower) };
        let status_lists = StatusLists::new(
            StatusListPorts {
                log: store(),
                status_lists: store(),
                signer: signer(),
                clock: clock(),
                follower: Arc::clone(&follower),
            },
            StatusListParameters {
                issuer: settings.issuer.clone(),
                trust_domain: settings.trust_domain.clone(),
                algorithm: settings.algorithm,
                ttl: settings.status_list.ttl,
            },
        );
        let inner = ServiceInner {
            key_rotation: keys::KeyRotation::new(reserved(), signer(), settings.rotation, settings.algorithm),
            recently_audited: first_records::FirstRecords::default(),
            recently_denied: first_records::FirstRecords::default(),
            refusals: sampling::RefusalSampler::default(),
            replays: auth::replays::KnownReplays::default(),
            admission: admission::Admission::new(clock()),
            quota_usage: exchange::quotas::QuotaUsage::default(),
            token_cache: introspection::cache::VerifiedTokenCache::new(settings.memory),
            live: Mutex::default(),
            feed: feed::Feed::new(feed_ports, settings.subscribers),
            list_admission: list_admission::ListAdmission::new(settings.lists_per_client, clock()),
            long_bodies: long_bodies::LongBodies::default(),
            store_check: CoalescedRead::default(),
            index_allocator: IndexAllocator::new(store(), entropy(), clock()),
            status_lists,
            rule_matches: issuers::RuleMatches::default(),
            follower,
            peers,
            renewal,
            writer,
            settings: RwLock::new(Arc::new(settings)),
            ports,
        };
        Self { inner: Arc::new(inner) }
    }

    /// Returns the settings.
    #[must_use]
    pub fn settings(&self) -> Arc<Settings> {
        Arc::clone(&self.inner.settings.read())
    }

    /// Replaces the limits that requests read from the settings. Requests in progress keep the
    /// previous ones.
    pub fn replace_limits(&self, limits: ReloadableLimits) {
        let ReloadableLimits {
            tokens,
            tasks,
            break_glass,
            four_eyes,
            admission,
            quotas,
            retention,
            consent_uri,
            introspection_audit,
            evaluation_audit,
            references_status_lists,
        } = limits;
        let mut settings = self.inner.settings.write();
        let status_list = StatusListSettings { enabled: references_status_lists, ..settings.status_list };
        let current = Settings::clone(&settings);
        *settings = Arc::new(Settings {
            consent_uri,
            tokens,
            tasks,
            break_glass,
            four_eyes,
            introspection_audit,
            evaluation_audit,
            admission,
            quotas,
            retention,
            status_list,
            ..current
        });
    }

    /// Returns the clock, with which the HTTP layer stamps and measures requests.
    #[must_use]
    pub fn clock(&self) -> &dyn Clock {
        &*self.inner.ports.clock
    }

    /// Returns a new id for a request that has none.
    #[must_use]
    pub fn new_request_id(&self) -> Option<RequestId> {
        self.inner.ports.entropy.new_uuid().to_string().parse().ok()
    }

    /// Returns the number of queued writes.
    #[must_use]
    pub fn write_queue_depth(&self) -> usize {
        self.inner.writer.queue_depth()
    }

    /// Returns the number of audit records of introspections and evaluations that were dropped
    /// because the write queue was too full.
    #[must_use]
    pub fn dropped_audit_records(&self) -> u64 {
        self.inner.writer.dropped_audit_records()
    }

    /// Returns the number of cached verified tokens, and an upper bound of their size in bytes.
    #[must_use]
    pub fn token_cache_size(&self) -> (usize, u64) {
        self.inner.token_cache.size()
    }

    /// Waits until everything that was queued is durable, and removes this replica from the store.
    /// If the store does not respond, it gives up after a time limit. Called once, after the last
    /// request.
    pub async fn shutdown(&self) {
        for record in self.inner.refusals.drain(self.inner.ports.clock.now(), true) {
            self.inner.writer.enqueue_audit(record);
        }
        if timeout(SHUTDOWN_FLUSH_TIMEOUT, self.inner.writer.flush()).await.is_err() {
            let writes = self.inner.writer.queue_depth();
            tracing::error!(writes, "the store does not respond; queued writes are lost");
        }
        let deregistration = with_store_timeout("deregister the replica", self.inner.renewal.deregister());
        if let Err(outage) = deregistration.await {
            tracing::warn!(error = %ErrorChain(&outage), "the replica stays registered until its lease is over");
        }
    }

    fn store(&self) -> &dyn Store {
        &*self.inner.ports.store
    }

    /// Returns the store for what no client may delay.
    fn reserved_store(&self) -> &dyn Store {
        &*self.inner.ports.reserved_store
    }
}
