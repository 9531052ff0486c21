//! The store on PostgreSQL.

mod change_listener;
mod commit;
mod lane;
mod probe;
mod read;
mod sql;
mod status_lists;

use std::{fmt, str::FromStr, sync::Arc};

use async_trait::async_trait;
use sqlx::{
    ConnectOptions, Connection, PgConnection,
    migrate::Migrator,
    postgres::{PgConnectOptions, PgPoolOptions},
};
use url::Url;

use lane::{Lane, Work};
use probe::{ServerProbe, SessionSettings};
#[doc(hidden)]
pub use sql::STATEMENTS;

use crate::{
    adapters::store::{
        Database, StoreOptions, StoreUrlError,
        lane::{RESERVED_CONNECTIONS, on},
        schema::{self, AppliedMigration},
        store_sealer::SealerCell,
    },
    domain::{
        audit::{Head, SearchColumns, WriterId, checkpoint::SignedCheckpoint},
        configuration::ConfigurationHistory,
        grants::{
            Grant,
            break_glass::{BreakGlassGrant, ReviewState},
        },
        id::{ClientId, GrantId, TaskId, TokenId},
        quota::QuotaKey,
        registry::tool::ToolRecord,
        replication::{Heartbeat, ReplicaId},
        revocation::{LinkedEntry, LogAnchor, LogEntry, LogPosition, evidence::EvidenceDigest},
        settings::RetentionCutoffs,
        status_list::Shard,
        task::{Requester, Task},
        time::Timestamp,
    },
    ports::{
        AuditFilter, AuditRow, AuditState, AuditStore, ChangeListener, CommitError, ConfigurationStore,
        EvidenceSelector, GcStats, GrantFilter, GrantStore, IndexedToken, KeyStore, ListError, LiveCounts, LogStore,
        MaintenanceStore, OP_CHECK_SCHEMA, Outage, Page, PageRequest, QuotaStore, RegistryStore, ReplicaStore,
        RequesterRows, SeenEvidence, StatusListStore, Store, StoreSealer, StoredKeys, StoredRegistry, TaskFilter,
        TaskStore, TokenCursor, TokenFilter, TokenRecord, TokenSelector, TokenStore, WriteOutcome, WriteSet,
        WriteStore,
    },
};

static MIGRATOR: Migrator = sqlx::migrate!("migrations/postgres");

const OP_MIGRATE: &str = "migrate the store";

/// One connection for the current commit, and one in case the previous commit was abandoned a
/// moment ago.
const COMMIT_CONNECTIONS: u32 = 2;
/// The connections outside the lanes: one that listens, and one that diagnoses.
const OTHER_CONNECTIONS: u32 = 2;

/// The parameters that a URL may have. sqlx logs an unknown parameter with its value, so none may
/// reach it.
const ALLOWED_URL_PARAMETERS: [&str; 13] = [
    "sslmode",
    "sslrootcert",
    "sslcert",
    "sslkey",
    "statement-cache-capacity",
    "host",
    "hostaddr",
    "port",
    "dbname",
    "user",
    "password",
    "application_name",
    "options",
];

/// The store on PostgreSQL.
#[derive(Clone)]
pub struct PostgresStore {
    /// For exchanges and lookups.
    requests: Lane,
    /// For lists and searches.
    lists: Lane,
    /// For what no client may delay.
    reserved: Lane,
    /// For commits. The thread that opens a connection drives it, and commits run on a thread of
    /// their own.
    commits: Lane,
    /// Options of the pools for listeners, each of which has a connection of its own.
    listener_options: PgPoolOptions,
    server: Arc<ServerProbe>,
    sealer: SealerCell,
}

impl fmt::Debug for PostgresStore {
    /// Leaves out the connection options, which contain the password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresStore").field("connections", &self.requests.size()).finish_non_exhaustive()
    }
}

impl PostgresStore {
    /// Parses the URL. Connections are opened when they are needed, so a server that is down causes
    /// outages and nothing worse.
    pub fn new(url: &str, options: &StoreOptions) -> Result<Self, StoreUrlError> {
        let connect = parse_url(url)?;
        let listening = PgPoolOptions::new().max_connections(1).idle_timeout(None).max_lifetime(None);
        let listening = listening.acquire_timeout(options.acquire_timeout);
        let connections = [options.max_connections, options.list_connections, RESERVED_CONNECTIONS, COMMIT_CONNECTIONS];
        let connections = connections.into_iter().fold(OTHER_CONNECTIONS, u32::saturating_add);
        let server = Arc::new(ServerProbe::new(connect, connections));
        let settings = SessionSettings { statement_timeout: options.statement_timeout, plans_each_statement: false };
        let lane = |work, connections, settings: &SessionSettings| {
            Lane::new(work, connections, options.acquire_timeout, settings.clone(), &server)
        };
        let of_lists = SessionSettings { statement_timeout: options.list_timeout, plans_each_statement: true };
        Ok(Self {
            requests: lane(Work::Requests, options.max_connections, &settings),
            lists: lane(Work::Lists, options.list_connections, &of_lists),
            reserved: lane(Work::Reserved, RESERVED_CONNECTIONS, &settings),
            commits: lane(Work::Commits, COMMIT_CONNECTIONS, &settings),
            listener_options: listening,
            server,
            sealer: SealerCell::default(),
        })
    }

    async fn migrate_on(&self, connection: &mut PgConnection) -> Result<(), Outage> {
        let applied = read::read_applied_migrations(connection).await?;
        schema::check_migratable(&applied, &MIGRATOR, || self.recreate_remedy())
            .map_err(Outage::during(OP_CHECK_SCHEMA))?;
        MIGRATOR.run_direct(None, connection, false).await.map_err(Outage::during(OP_MIGRATE))
    }

    /// Returns the remedy for a schema that can't be migrated.
    fn recreate_remedy(&self) -> String {
        format!("drop the database `{}`, create it anew and run `errand migrate`", self.server.database())
    }

    async fn read_applied_migrations(&self) -> Result<Vec<AppliedMigration>, Outage> {
        on!(self.requests, read::read_applied_migrations())
    }
}

fn parse_url(text: &str) -> Result<PgConnectOptions, StoreUrlError> {
    let url = Url::parse(text).map_err(|_| StoreUrlError::Malformed)?;
    // A password with an unencoded `/`, `?` or `#` ends the authority early, and its rest would be
    // shown as the path, the port or a parameter.
    let after_authority = url.path().contains('@') || url.query().is_some_and(|query| query.contains('@'));
    if after_authority || url.fragment().is_some() {
        return Err(StoreUrlError::Malformed);
    }
    if url.query_pairs().any(|(name, _)| !ALLOWED_URL_PARAMETERS.contains(&&*name)) {
        return Err(StoreUrlError::UnknownParameter);
    }
    // The cause is left out, because it may quote the URL.
    let options = PgConnectOptions::from_str(text).map_err(|_| StoreUrlError::Malformed)?;
    // PgBouncer refuses this parameter, and no column is a floating-point number.
    let options = options.extra_float_digits(None);
    let named = url.query_pairs().any(|(name, _)| name == "application_name");
    let options = if named { options } else { options.application_name("errand") };
    // sqlx asks for each statement whether its log is enabled, which can cost the next log event.
    Ok(options.disable_statement_logging())
}

#[async_trait]
impl Database for PostgresStore {
    fn unlock(&self, sealer: Arc<dyn StoreSealer>) {
        self.sealer.set(sealer);
    }

    fn lock(&self) {
        self.sealer.clear();
    }

    async fn migrate(&self) -> Result<(), Outage> {
        // A connection of its own has no time limits. Closing it also releases the lock that keeps
        // two programs from migrating at once, which sqlx does not release after an error.
        let mut connection = self.server.connect().await.map_err(Outage::during(OP_MIGRATE))?;
        let migrated = self.migrate_on(&mut connection).await.map_err(|outage| self.server.explain(outage));
        let closed = connection.close().await;
        migrated?;
        closed.map_err(Outage::during(OP_MIGRATE))
    }

    async fn verify_server(&self) -> Result<(), Outage> {
        self.server.verify().await.map_err(Outage::during("check the server"))
    }

    fn reserved(&self) -> Arc<dyn Store> {
        Arc::new(Self { requests: self.reserved.clone(), lists: self.reserved.clone(), ..self.clone() })
    }
}

#[async_trait]
impl WriteStore for PostgresStore {
    async fn commit(&self, writer: WriterId, batch: &[WriteSet]) -> Result<Vec<WriteOutcome>, CommitError> {
        on!(self.commits, commit::commit(&self.sealer, writer, batch))
    }

    async fn find_idempotent_response(&self, caller: &str, key: &str) -> Result<Option<WriteOutcome>, Outage> {
        on!(self.requests, read::find_idempotent_response(&self.sealer, caller, key))
    }

    async fn probe_write(&self, number: u64) -> Result<(), Outage> {
        on!(self.commits, commit::probe_write(number))
    }
}

#[async_trait]
impl LogStore for PostgresStore {
    async fn read_log_head(&self) -> Result<LogPosition, Outage> {
        on!(self.requests, read::read_log_head(&self.sealer))
    }

    async fn read_log_after(&self, seq: LogPosition, now: Timestamp, limit: u32) -> Result<Vec<LogEntry>, Outage> {
        let linked = self.read_linked_log(seq, now, limit).await?;
        Ok(linked.into_iter().map(|linked| linked.entry).collect())
    }

    async fn read_linked_log(&self, seq: LogPosition, now: Timestamp, limit: u32) -> Result<Vec<LinkedEntry>, Outage> {
        on!(self.requests, read::read_linked_log(&self.sealer, seq, now, limit))
    }

    async fn load_log_anchor(&self) -> Result<LogAnchor, Outage> {
        on!(self.requests, read::load_log_anchor(&self.sealer))
    }

    async fn store_log_anchor(&self, anchor: &LogAnchor) -> Result<(), Outage> {
        on!(self.requests, read::store_log_anchor(&self.sealer, anchor))
    }

    async fn list_revocations(&self, page: &PageRequest) -> Result<Page<LogEntry>, ListError> {
        on!(self.lists, read::list_revocations(&self.sealer, page))
    }
}

#[async_trait]
impl TokenStore for PostgresStore {
    async fn find_token(&self, id: TokenId) -> Result<Option<TokenRecord>, Outage> {
        on!(self.requests, read::find_token(&self.sealer, id))
    }

    async fn list_tokens(&self, filter: &TokenFilter, page: &PageRequest) -> Result<Page<TokenRecord>, ListError> {
        on!(self.lists, read::list_tokens(&self.sealer, filter, page))
    }

    async fn list_evidence(
        &self,
        selector: &EvidenceSelector,
        alive_at: Timestamp,
    ) -> Result<Vec<SeenEvidence>, Outage> {
        on!(self.requests, read::list_evidence(selector, alive_at))
    }

    async fn list_sessions(&self, requester: &Requester) -> Result<Vec<EvidenceDigest>, Outage> {
        on!(self.requests, read::list_sessions(requester))
    }
}

#[async_trait]
impl TaskStore for PostgresStore {
    async fn find_task(&self, id: TaskId) -> Result<Option<Task>, Outage> {
        on!(self.requests, read::find_task(&self.sealer, id))
    }

    async fn list_tasks(&self, filter: &TaskFilter, page: &PageRequest) -> Result<Page<Task>, ListError> {
        on!(self.lists, read::list_tasks(&self.sealer, filter, page))
    }

    async fn list_overdue_tasks(&self, now: Timestamp, limit: u32) -> Result<Vec<Task>, Outage> {
        on!(self.requests, read::list_overdue_tasks(&self.sealer, now, limit))
    }

    async fn count_live(&self, now: Timestamp, issued_since: Timestamp, limit: u32) -> Result<LiveCounts, Outage> {
        on!(self.requests, read::count_live(now, issued_since, limit))
    }

    async fn list_tasks_without_grant(&self, limit: u32) -> Result<Vec<Task>, Outage> {
        on!(self.requests, read::list_tasks_without_grant(&self.sealer, limit))
    }

    async fn list_orphaned_tasks(&self, limit: u32) -> Result<Vec<Task>, Outage> {
        on!(self.requests, read::list_orphaned_tasks(&self.sealer, limit))
    }

    async fn is_party_revoked(&self, task: &Task) -> Result<bool, Outage> {
        on!(self.requests, read::is_party_revoked(task))
    }

    async fn list_tasks_of_revoked_parties(&self, since: Timestamp, limit: u32) -> Result<Vec<Task>, Outage> {
        on!(self.requests, read::list_tasks_of_revoked_parties(&self.sealer, since, limit))
    }
}

#[async_trait]
impl QuotaStore for PostgresStore {
    async fn count_usage(&self, key: &QuotaKey, now: Timestamp, limit: u32) -> Result<u32, Outage> {
        on!(self.requests, read::count_usage(key, now, limit))
    }
}

#[async_trait]
impl GrantStore for PostgresStore {
    async fn find_grant(&self, id: GrantId) -> Result<Option<Grant>, Outage> {
        on!(self.requests, read::find_grant(&self.sealer, id))
    }

    async fn list_grants(&self, filter: &GrantFilter, page: &PageRequest) -> Result<Page<Grant>, ListError> {
        on!(self.lists, read::list_grants(&self.sealer, filter, page))
    }

    async fn list_live_grants(
        &self,
        requester: &Requester,
        agent: &ClientId,
        now: Timestamp,
        limit: u32,
    ) -> Result<Vec<Grant>, Outage> {
        on!(self.requests, read::list_live_grants(&self.sealer, requester, agent, now, limit))
    }

    async fn find_break_glass(&self, id: GrantId) -> Result<Option<BreakGlassGrant>, Outage> {
        on!(self.requests, read::find_break_glass(&self.sealer, id))
    }

    async fn list_break_glass(
        &self,
        review: Option<ReviewState>,
        page: &PageRequest,
    ) -> Result<Page<BreakGlassGrant>, ListError> {
        on!(self.lists, read::list_break_glass(&self.sealer, review, page))
    }
}

#[async_trait]
impl ConfigurationStore for PostgresStore {
    async fn load_configuration_history(&self) -> Result<ConfigurationHistory, Outage> {
        on!(self.requests, read::load_configuration_history())
    }
}

#[async_trait]
impl RegistryStore for PostgresStore {
    async fn load_registry(&self) -> Result<StoredRegistry, Outage> {
        on!(self.requests, read::load_registry(&self.sealer))
    }

    async fn list_tools(&self, resource: &ClientId) -> Result<Vec<ToolRecord>, Outage> {
        on!(self.requests, read::list_tools(resource))
    }
}

#[async_trait]
impl KeyStore for PostgresStore {
    async fn load_keys(&self) -> Result<StoredKeys, Outage> {
        on!(self.requests, read::load_keys(&self.sealer))
    }

    async fn is_unused(&self) -> Result<bool, Outage> {
        on!(self.requests, read::is_unused())
    }
}

#[async_trait]
impl AuditStore for PostgresStore {
    async fn list_audit_records(&self, filter: &AuditFilter, page: &PageRequest) -> Result<Page<AuditRow>, ListError> {
        on!(self.lists, read::list_audit_records(filter, page))
    }

    async fn list_audit_heads(&self) -> Result<Vec<(WriterId, Head)>, Outage> {
        on!(self.lists, read::list_audit_heads())
    }

    async fn read_audit_chain(&self, writer: WriterId, n: u64, limit: u32) -> Result<Vec<AuditRow>, Outage> {
        on!(self.lists, read::read_audit_chain(writer, n, limit))
    }

    async fn read_audit_state(&self) -> Result<AuditState, Outage> {
        on!(self.lists, read::read_audit_state(&self.sealer))
    }

    async fn read_checkpoints(&self, after: u64, limit: u32) -> Result<Vec<SignedCheckpoint>, Outage> {
        on!(self.lists, read::read_checkpoints(after, limit))
    }

    async fn replace_personal_values(
        &self,
        writer: WriterId,
        n: u64,
        personal: &str,
        columns: &SearchColumns,
    ) -> Result<(), Outage> {
        on!(self.requests, commit::replace_personal_values(writer, n, personal, columns))
    }

    async fn delete_audit_records(&self, writer: WriterId, through: u64, limit: u32) -> Result<u64, Outage> {
        on!(self.requests, commit::delete_audit_records(writer, through, limit))
    }

    async fn list_checkpoints(&self, page: &PageRequest) -> Result<Page<SignedCheckpoint>, ListError> {
        on!(self.lists, read::list_checkpoints(page))
    }
}

#[async_trait]
impl ReplicaStore for PostgresStore {
    async fn record_heartbeat(&self, beat: &Heartbeat, is_news: bool) -> Result<(), Outage> {
        on!(self.requests, change_listener::record_heartbeat(beat, is_news))
    }

    async fn list_replicas(&self) -> Result<Vec<Heartbeat>, Outage> {
        on!(self.requests, change_listener::list_replicas())
    }

    async fn deregister_replica(&self, id: ReplicaId, number: u64) -> Result<bool, Outage> {
        on!(self.requests, change_listener::deregister_replica(id, number))
    }

    async fn listen(&self) -> Result<Box<dyn ChangeListener>, Outage> {
        if let Some(known) = self.server.known_outage() {
            self.server.start_watch();
            return Err(Outage::during("listen to the store")(known));
        }
        Ok(Box::new(
            change_listener::NotifyListener::new(
                self.listener_options.clone().connect_lazy_with(self.server.options().clone()),
            )
            .await?,
        ))
    }
}

#[async_trait]
impl StatusListStore for PostgresStore {
    async fn allocate_status_block(&self, shard: Shard) -> Result<u64, Outage> {
        on!(self.requests, status_lists::allocate_block(shard))
    }

    async fn list_status_shards(&self, now: Timestamp) -> Result<Vec<(Shard, u64)>, Outage> {
        on!(self.requests, status_lists::list_shards(now))
    }

    async fn list_tokens_with_status(
        &self,
        selector: &TokenSelector,
        alive_at: Timestamp,
        after: TokenCursor,
        limit: u32,
    ) -> Result<Vec<IndexedToken>, Outage> {
        on!(self.requests, status_lists::list_tokens_with_status(&self.sealer, selector, alive_at, after, limit))
    }
}

#[async_trait]
impl MaintenanceStore for PostgresStore {
    async fn collect_garbage(&self, now: Timestamp, cutoffs: &RetentionCutoffs) -> Result<GcStats, Outage> {
        commit::collect_garbage(&self.requests, &self.sealer, now, cutoffs).await
    }

    async fn delete_requester_rows(&self, requester: &Requester, cutoff: Timestamp) -> Result<RequesterRows, Outage> {
        commit::delete_requester_rows(&self.requests, requester, cutoff).await
    }

    async fn count_requester_rows(&self, requester: &Requester) -> Result<RequesterRows, Outage> {
        on!(self.requests, read::count_requester_rows(requester))
    }

    async fn ping(&self) -> Result<(), Outage> {
        let applied = self.read_applied_migrations().await.map_err(|outage| self.server.explain(outage))?;
        schema::check_current(&applied, &MIGRATOR, || self.recreate_remedy()).map_err(Outage::during(OP_CHECK_SCHEMA))
    }

    fn tampering_count(&self) -> u64 {
        self.sealer.mismatch_count()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn connection_errors_hide_password() {
        for url in [
            "postgres://errand:hunter2@db.example/errand",
            "postgres://errand:hunter2@db.example:port/errand",
            "postgres://errand:hunter2@db.example/errand?sslmode=hunter2",
            "postgres://errand@db.example/errand?passwort=hunter2",
            "postgres://errand:hunter2#x@db.example/errand",
            "postgres://errand:hunter2/x@db.example/errand",
            "postgres://errand:hunter2?x@db.example/errand",
            "postgres://errand@db.example/errand?password=hunter2&port=hunter2",
        ] {
            let text = match parse_url(url) {
                Ok(_) => String::new(),
                Err(invalid) => format!("{invalid} {invalid:?}"),
            };
            assert!(!text.contains("hunter2"), "{text}");
        }
        // A password of digits ends as a port, and its rest as the database.
        for url in [
            "postgres://errand:1234/56@db.example/errand",
            "postgres://errand:1234?56@db.example/errand",
            "postgres://errand:1234#56@db.example/errand",
            "postgres://errand:1234/@db.example/errand",
        ] {
            assert_eq!(parse_url(url).unwrap_err(), StoreUrlError::Malformed, "{url}");
        }
        assert!(parse_url("postgres://errand:1%2F2%3F3%234%40@db.example/errand?sslmode=verify-full").is_ok());
    }

    #[tokio::test]
    async fn unreachable_server_fails_fast() {
        let options = StoreOptions { acquire_timeout: Duration::from_millis(300), ..StoreOptions::default() };
        let store = PostgresStore::new("postgres://errand:hunter2@127.0.0.1:1/errand", &options).unwrap();
        let outage = store.read_log_head().await.unwrap_err();
        let text = format!("{outage} {} {outage:?} {store:?}", outage.source);
        assert!(!text.contains("hunter2"), "{text}");
        let why = "PostgreSQL at 127.0.0.1:1, database `errand`, user `errand`: Connection refused";
        let source = outage.source.to_string();
        assert!(source.starts_with(why) && source.ends_with("in the store's URL"), "{source}");
    }
}
