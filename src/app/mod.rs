//! The use-cases: gather facts through ports, ask the domain, act through ports.

mod admin;
mod again;
mod api_token;
mod audit;
mod authenticate;
mod break_glass;
mod bulk;
mod calls;
mod catalogue;
mod dry_run;
mod evidence;
mod exchange;
mod exchange_request;
mod failure;
mod feed;
mod file;
mod follow;
mod give_back;
mod grants;
mod in_time;
mod introspect;
mod journal;
mod lease;
mod portal;
mod publish;
mod refusals;
mod revoke;
mod rotate;
mod shared;
mod shut_out;
mod status_list;
mod status_place;
mod sweep;
mod target;
mod task_tree;
mod tasks;
mod verified;

use std::{fmt, sync::Arc, time::Duration};

use tokio::time::timeout;

pub use admin::{AuditPage, NewSecret};
pub use api_token::{ApiCaller, ApiToken};
pub use audit::{Exported, Verification};
pub use authenticate::{AuthenticatedClient, Credentials, Unsettled};
pub use break_glass::BreakGlassRequest;
pub use bulk::{Bulk, MOST_TASKS, Selection, Turned};
pub use calls::{Reported, Step, TaskTrail};
pub use catalogue::{Catalogue, Importing};
pub use dry_run::DryRun;
pub use exchange::Issued;
pub use exchange_request::{ExchangeRequest, RequestedType, SubjectType};
pub use failure::{AuthFault, BadRequest, Conflict, ConsentNeeded, Failure, SubjectFault};
pub use feed::{FeedPage, HEARTBEAT, Listener, MAX_WAIT, Said, Seats};
pub use follow::View;
pub use grants::{GrantRequest, Granter};
pub use introspect::Introspection;
pub use lease::{Following, ReplicaStanding};
pub use portal::{Caller, RequesterCaller};
pub use revoke::{Revocation, Revoked, Wanted, What};
pub use status_list::StatusList;
pub use task_tree::{TaskTree, TokenNode, TokenStanding};
pub use tasks::{TurnedTask, Turning};

use crate::{
    domain::{
        audit::{Introspections, Writer},
        break_glass::BreakGlassLimits,
        id::RequestId,
        jwk::SigningAlgorithm,
        keys::Rotation,
        limits::{MemoryLimits, TaskLimits, TokenLimits},
        replica::ReplicaId,
        secret::Pepper,
        status_list::Listing,
        time::Timestamp,
        uri::IssuerUrl,
    },
    ports::{Clock, Entropy, McpServers, Signer, Store, Threads, TrustedKeys},
};

/// How long it may take, at the end, to write what was submitted: more than the two commits of a batch may take.
const FAREWELL: Duration = Duration::from_secs(20);

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
    pub rotation: Rotation,
    /// Lives and depths of tokens.
    pub tokens: TokenLimits,
    /// Lives of tasks.
    pub tasks: TaskLimits,
    /// Lives of grants for an emergency.
    pub break_glass: BreakGlassLimits,
    /// Which introspections go into the audit trail.
    pub introspection_audit: Introspections,
    /// How many writes may wait for the store before requests are turned away.
    pub write_queue: usize,
    /// How this replica follows the log.
    pub following: Following,
    /// How many writes share a commit at most.
    pub write_batch: usize,
    /// How much is kept in memory.
    pub memory: MemoryLimits,
    /// How many may listen to the revocation feed.
    pub listeners: Seats,
    /// Status lists.
    pub status_list: Listing,
}

impl Settings {
    /// The token endpoint's URL.
    #[must_use]
    pub fn token_endpoint(&self) -> String {
        self.issuer.join("/oauth2/token")
    }
}

/// Everything outside, behind ports.
pub struct Parts {
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Dice.
    pub entropy: Arc<dyn Entropy>,
    /// Threads beside those of the requests.
    pub threads: Arc<dyn Threads>,
    /// Our keys.
    pub signer: Arc<dyn Signer>,
    /// The keys of others.
    pub trusted: Arc<dyn TrustedKeys>,
    /// The MCP servers.
    pub servers: Arc<dyn McpServers>,
    /// What survives.
    pub store: Arc<dyn Store>,
    /// The key of client secrets' tags.
    pub pepper: Pepper,
}

impl fmt::Debug for Parts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Parts").finish_non_exhaustive()
    }
}

/// One request, as the use-cases see it: its name and its time. The clock is read once.
#[derive(Clone, Debug)]
pub struct Cx {
    /// The request's id, in logs, answers and audit records.
    pub request_id: RequestId,
    /// When it came.
    pub now: Timestamp,
}

/// Errand itself. Cheap to clone.
#[derive(Clone)]
pub struct Service(Arc<Inner>);

struct Inner {
    settings: Settings,
    parts: Parts,
    follower: Arc<follow::Follower>,
    journal: publish::Publisher,
    seen: introspect::Seen,
    refusals: refusals::Refusals,
    verified: verified::Verified,
    feed: feed::Feed,
    numbers: status_place::Numbers,
    status_lists: status_list::StatusLists,
}

impl fmt::Debug for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Service").field("settings", &self.0.settings).finish_non_exhaustive()
    }
}

impl Service {
    /// Puts the service together and starts its writer. To be called inside a tokio runtime.
    #[must_use]
    pub fn new(settings: Settings, parts: Parts) -> Self {
        let writer = Writer(parts.entropy.uuid());
        let store = Arc::clone(&parts.store);
        let (capacity, most) = (settings.write_queue, settings.write_batch);
        let journal = journal::Journal::start(&*parts.threads, store, Arc::clone(&parts.clock), writer, capacity, most);
        let replica = lease::replica(ReplicaId(parts.entropy.uuid()), &settings.following, parts.clock.now());
        let lease = lease::Lease::new(replica, settings.following.clone());
        let (store, signer) = (Arc::clone(&parts.store), Arc::clone(&parts.signer));
        let follower = follow::Follower::new(store, signer, Arc::clone(&parts.clock), lease);
        let journal = publish::Publisher::new(journal, Arc::clone(&follower));
        let (seen, refusals) = (introspect::Seen::default(), refusals::Refusals::default());
        let verified = verified::Verified::new(settings.memory);
        let feed = feed::Feed::new(settings.listeners);
        let (numbers, status_lists) = (status_place::Numbers::default(), status_list::StatusLists::default());
        let inner = Inner { settings, parts, follower, journal, seen, refusals, verified, feed, numbers, status_lists };
        Self(Arc::new(inner))
    }

    /// What the operator chose.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.0.settings
    }

    /// The clock, for the edge: to stamp a request, and to measure it.
    #[must_use]
    pub fn clock(&self) -> &dyn Clock {
        &*self.0.parts.clock
    }

    /// A fresh request id, for a request that brings none.
    #[must_use]
    pub fn request_id(&self) -> Option<RequestId> {
        self.0.parts.entropy.uuid().to_string().parse().ok()
    }

    /// How many writes wait for the store now.
    #[must_use]
    pub fn writes_waiting(&self) -> usize {
        self.0.journal.waiting()
    }

    /// How many audit records of introspections were dropped because the writer could not keep up.
    #[must_use]
    pub fn audit_dropped(&self) -> u64 {
        self.0.journal.dropped()
    }

    /// How many tokens that were found good are kept, and how many bytes they take at most.
    #[must_use]
    pub fn verified_tokens(&self) -> (usize, u64) {
        self.0.verified.size()
    }

    /// The trusted issuers, each with whether its keys could be had the last time they were asked for.
    pub async fn issuers(&self, cx: &Cx) -> Result<Vec<(String, bool)>, Failure> {
        let view = self.0.follower.current(cx.now).await?;
        let unreachable = self.0.parts.trusted.unreachable();
        let names = view.registry.issuers().map(|issuer| issuer.issuer.to_string());
        Ok(names
            .map(|name| {
                let up = !unreachable.contains(&name);
                (name, up)
            })
            .collect())
    }

    /// Waits until everything that was submitted is durable, and leaves the replicas; a store that does not answer keeps
    /// nobody from stopping. Called once, after the last request.
    pub async fn finish(&self) {
        for record in self.0.refusals.take(self.0.parts.clock.now(), true) {
            self.0.journal.note(record);
        }
        if timeout(FAREWELL, self.0.journal.finish()).await.is_err() {
            let writes = self.0.journal.waiting();
            tracing::error!(writes, "the store does not answer: what waits to be written is given up");
        }
        if let Err(outage) = in_time::in_time("leave the replicas", self.0.follower.leave()).await {
            tracing::warn!(error = %outage, cause = %outage.source, "the replica stays listed until its lease is over");
        }
    }

    /// What to sign something with: what its resource wants, once a key for that has been published for long enough; the
    /// configured algorithm until then.
    fn signing_algorithm(&self, wanted: Option<SigningAlgorithm>, cx: &Cx) -> SigningAlgorithm {
        let active = |algorithm: &SigningAlgorithm| self.0.parts.signer.algorithms(cx.now).contains(algorithm);
        wanted.filter(active).unwrap_or(self.settings().algorithm)
    }

    fn store(&self) -> &dyn Store {
        &*self.0.parts.store
    }
}
