//! The store on PostgreSQL.

mod change_listener;
mod commit;
mod probe;
mod read;
mod sql;
mod status_lists;

use std::{fmt, str::FromStr, sync::Arc, time::Duration};

use async_trait::async_trait;
use sqlx::{
    Connection, PgConnection, PgPool, Row,
    migrate::Migrator,
    postgres::{PgConnectOptions, PgPoolOptions},
};
use tokio::time::timeout;
use url::Url;

use probe::ServerProbe;
#[doc(hidden)]
pub use sql::STATEMENTS;

use crate::{
    adapters::store::{
        Database, StoreOptions, StoreUrlError,
        record_sealer::SealerCell,
        schema::{self, AppliedMigration},
    },
    domain::{
        audit::{Head, WriterId, checkpoint::SignedCheckpoint},
        configuration::ConfigurationHistory,
        grants::{
            Grant,
            break_glass::{BreakGlassGrant, ReviewState},
        },
        id::{ClientId, GrantId, TaskId, TokenId},
        quota::QuotaKey,
        registry::tool::ToolRecord,
        replication::{Heartbeat, ReplicaId},
        revocation::{LogEntry, LogPosition, evidence::EvidenceDigest},
        status_list::Shard,
        task::{Requester, Task},
        time::Timestamp,
    },
    ports::{
        AuditFilter, AuditRow, AuditState, AuditStore, ChangeListener, CommitError, ConfigurationStore,
        EvidenceSelector, GcStats, GrantFilter, GrantStore, KeyStore, ListError, LiveCounts, LogStore,
        MaintenanceStore, OP_CHECK_SCHEMA, Outage, Page, PageRequest, QuotaStore, RecordSealer, RegistryStore,
        ReplicaStore, SeenEvidence, StatusListStore, StoredKeys, StoredRegistry, TaskFilter, TaskStore, TokenCursor,
        TokenFilter, TokenRecord, TokenSelector, TokenStore, WriteOutcome, WriteSet, WriteStore,
    },
};

static MIGRATOR: Migrator = sqlx::migrate!("migrations/postgres");

const OP_MIGRATE: &str = "migrate the store";

/// The time since its last use for which a connection counts as alive. A connection is tested when
/// it is returned to the pool, so only a server that disappears in the meantime goes unnoticed.
const PING_FRESHNESS: Duration = Duration::from_secs(1);
/// The time that the test of a connection may take, before its use and after. A silent connection
/// is closed and replaced by a new one.
const PING_TIMEOUT: Duration = Duration::from_secs(1);
const RELEASE_PING_TIMEOUT: Duration = Duration::from_secs(3);

/// One connection for the current commit, and one in case the previous commit was abandoned a
/// moment ago.
const COMMIT_CONNECTIONS: u32 = 2;

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
pub struct PostgresStore {
    pool: PgPool,
    /// Connections for commits. The thread that opens a connection drives it, and commits run on a
    /// thread of their own.
    commit_pool: PgPool,
    /// Options of the pools for listeners, each of which has a connection of its own.
    listener_options: PgPoolOptions,
    probe: ServerProbe,
    sealer: SealerCell,
}

impl fmt::Debug for PostgresStore {
    /// Leaves out the connection options, which contain the password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresStore").field("connections", &self.pool.size()).finish_non_exhaustive()
    }
}

impl PostgresStore {
    /// Parses the URL. Connections are opened when they are needed, so a server that is down causes
    /// outages and nothing worse.
    pub fn new(url: &str, options: &StoreOptions) -> Result<Self, StoreUrlError> {
        let connect = parse_url(url)?;
        let timeout = format_millis(options.statement_timeout);
        let listening = PgPoolOptions::new().max_connections(1).idle_timeout(None).max_lifetime(None);
        let listening = listening.acquire_timeout(options.acquire_timeout);
        let pool = PgPoolOptions::new()
            .acquire_timeout(options.acquire_timeout)
            // A connection that was in use a moment ago is not tested, which saves a round trip.
            .test_before_acquire(false)
            .before_acquire(|connection, meta| {
                Box::pin(async move {
                    if meta.idle_for >= PING_FRESHNESS {
                        check_alive(connection, PING_TIMEOUT).await?;
                    }
                    Ok(true)
                })
            })
            // The last user may have timed out, so that a response is still due, or never comes.
            .after_release(|connection, _| {
                Box::pin(async move { check_alive(connection, RELEASE_PING_TIMEOUT).await.map(|()| true) })
            })
            .after_connect(move |connection, _| {
                let timeout = timeout.clone();
                Box::pin(async move {
                    let settings = sqlx::query(sql::CONFIGURE_CONNECTION).bind(timeout);
                    let standby: bool = settings.fetch_one(connection).await?.try_get("standby")?;
                    if standby { Err(sqlx::Error::Configuration(STANDBY_MESSAGE.into())) } else { Ok(()) }
                })
            });
        let of = |limit| pool.clone().max_connections(limit).connect_lazy_with(connect.clone());
        let (pool, commit_pool) = (of(options.max_connections), of(COMMIT_CONNECTIONS));
        let probe = ServerProbe::new(connect);
        Ok(Self { pool, commit_pool, listener_options: listening, probe, sealer: SealerCell::default() })
    }

    async fn migrate_on(&self, connection: &mut PgConnection) -> Result<(), Outage> {
        let applied = read::read_applied_migrations(connection).await.map_err(Outage::during(OP_CHECK_SCHEMA))?;
        schema::check_migratable(&applied, &MIGRATOR, || self.recreate_remedy())
            .map_err(Outage::during(OP_CHECK_SCHEMA))?;
        MIGRATOR.run_direct(None, connection, false).await.map_err(Outage::during(OP_MIGRATE))
    }

    /// Returns the remedy for a schema that can't be migrated.
    fn recreate_remedy(&self) -> String {
        format!("drop the database `{}`, create it anew and run `errand migrate`", self.probe.database())
    }

    async fn read_applied_migrations(&self) -> Result<Vec<AppliedMigration>, sqlx::Error> {
        read::read_applied_migrations(&mut *self.pool.acquire().await?).await
    }

    /// Replaces the cause of an outage by a diagnosis with a remedy if the server is unreachable.
    async fn explain(&self, outage: Outage) -> Outage {
        Outage { source: self.probe.diagnose(outage.source, &self.pool).await, ..outage }
    }
}

async fn check_alive(connection: &mut PgConnection, time_limit: Duration) -> Result<(), sqlx::Error> {
    match timeout(time_limit, connection.ping()).await {
        Ok(answer) => answer,
        Err(late) => Err(sqlx::Error::Io(late.into())),
    }
}

const STANDBY_MESSAGE: &str = "the server is a standby, whose data may be stale; use the URL of the primary";

fn parse_url(text: &str) -> Result<PgConnectOptions, StoreUrlError> {
    let url = Url::parse(text).map_err(|_| StoreUrlError::Malformed)?;
    if url.query_pairs().any(|(name, _)| !ALLOWED_URL_PARAMETERS.contains(&&*name)) {
        return Err(StoreUrlError::UnknownParameter);
    }
    // The cause is left out, because it may quote the URL.
    let options = PgConnectOptions::from_str(text).map_err(|_| StoreUrlError::Malformed)?;
    let named = url.query_pairs().any(|(name, _)| name == "application_name");
    Ok(if named { options } else { options.application_name("errand") })
}

fn format_millis(duration: Duration) -> String {
    format!("{}ms", duration.as_millis())
}

#[async_trait]
impl Database for PostgresStore {
    fn unlock(&self, sealer: Arc<dyn RecordSealer>) {
        self.sealer.set(sealer);
    }

    async fn migrate(&self) -> Result<(), Outage> {
        // A connection of its own has no time limits. Closing it also releases the lock that keeps
        // two programs from migrating at once, which sqlx does not release after an error.
        let mut connection = self.probe.connect().await.map_err(Outage::during(OP_MIGRATE))?;
        let migrated = self.migrate_on(&mut connection).await;
        let closed = connection.close().await;
        migrated?;
        closed.map_err(Outage::during(OP_MIGRATE))
    }
}

#[async_trait]
impl WriteStore for PostgresStore {
    async fn commit(&self, writer: WriterId, batch: &[WriteSet]) -> Result<Vec<WriteOutcome>, CommitError> {
        commit::commit(&self.commit_pool, &self.sealer, writer, batch).await
    }

    async fn find_idempotent_response(&self, caller: &str, key: &str) -> Result<Option<WriteOutcome>, Outage> {
        read::find_idempotent_response(&self.pool, caller, key).await
    }
}

#[async_trait]
impl LogStore for PostgresStore {
    async fn read_log_head(&self) -> Result<LogPosition, Outage> {
        match read::read_log_head(&self.pool).await {
            Ok(seq) => Ok(seq),
            Err(outage) => Err(self.explain(outage).await),
        }
    }

    async fn read_log_after(&self, seq: LogPosition, now: Timestamp, limit: u32) -> Result<Vec<LogEntry>, Outage> {
        read::read_log_after(&self.pool, seq, now, limit).await
    }

    async fn list_revocations(&self, page: &PageRequest) -> Result<Page<LogEntry>, ListError> {
        read::list_revocations(&self.pool, page).await
    }
}

#[async_trait]
impl TokenStore for PostgresStore {
    async fn find_token(&self, id: TokenId) -> Result<Option<TokenRecord>, Outage> {
        read::find_token(&self.pool, id).await
    }

    async fn list_tokens(&self, filter: &TokenFilter, page: &PageRequest) -> Result<Page<TokenRecord>, ListError> {
        read::list_tokens(&self.pool, filter, page).await
    }

    async fn list_evidence(
        &self,
        selector: &EvidenceSelector,
        alive_at: Timestamp,
    ) -> Result<Vec<SeenEvidence>, Outage> {
        read::list_evidence(&self.pool, selector, alive_at).await
    }

    async fn list_sessions(&self, requester: &Requester) -> Result<Vec<EvidenceDigest>, Outage> {
        read::list_sessions(&self.pool, requester).await
    }
}

#[async_trait]
impl TaskStore for PostgresStore {
    async fn find_task(&self, id: TaskId) -> Result<Option<Task>, Outage> {
        read::find_task(&self.pool, id).await
    }

    async fn list_tasks(&self, filter: &TaskFilter, page: &PageRequest) -> Result<Page<Task>, ListError> {
        read::list_tasks(&self.pool, filter, page).await
    }

    async fn list_overdue_tasks(&self, now: Timestamp, limit: u32) -> Result<Vec<Task>, Outage> {
        read::list_overdue_tasks(&self.pool, now, limit).await
    }

    async fn count_live(&self, now: Timestamp, issued_since: Timestamp, limit: u32) -> Result<LiveCounts, Outage> {
        read::count_live(&self.pool, now, issued_since, limit).await
    }

    async fn list_tasks_without_grant(&self, limit: u32) -> Result<Vec<Task>, Outage> {
        read::list_tasks_without_grant(&self.pool, limit).await
    }

    async fn list_orphaned_tasks(&self, limit: u32) -> Result<Vec<Task>, Outage> {
        read::list_orphaned_tasks(&self.pool, limit).await
    }

    async fn is_party_revoked(&self, task: &Task) -> Result<bool, Outage> {
        read::is_party_revoked(&self.pool, task).await
    }

    async fn list_tasks_of_revoked_parties(&self, since: Timestamp, limit: u32) -> Result<Vec<Task>, Outage> {
        read::list_tasks_of_revoked_parties(&self.pool, since, limit).await
    }
}

#[async_trait]
impl QuotaStore for PostgresStore {
    async fn count_usage(&self, key: &QuotaKey, now: Timestamp, limit: u32) -> Result<u32, Outage> {
        read::count_usage(&self.pool, key, now, limit).await
    }
}

#[async_trait]
impl GrantStore for PostgresStore {
    async fn find_grant(&self, id: GrantId) -> Result<Option<Grant>, Outage> {
        read::find_grant(&self.pool, id).await
    }

    async fn list_grants(&self, filter: &GrantFilter, page: &PageRequest) -> Result<Page<Grant>, ListError> {
        read::list_grants(&self.pool, filter, page).await
    }

    async fn list_live_grants(
        &self,
        requester: &Requester,
        agent: &ClientId,
        now: Timestamp,
        limit: u32,
    ) -> Result<Vec<Grant>, Outage> {
        read::list_live_grants(&self.pool, requester, agent, now, limit).await
    }

    async fn find_break_glass(&self, id: GrantId) -> Result<Option<BreakGlassGrant>, Outage> {
        read::find_break_glass(&self.pool, id).await
    }

    async fn list_break_glass(
        &self,
        review: Option<ReviewState>,
        page: &PageRequest,
    ) -> Result<Page<BreakGlassGrant>, ListError> {
        read::list_break_glass(&self.pool, review, page).await
    }
}

#[async_trait]
impl ConfigurationStore for PostgresStore {
    async fn load_configuration_history(&self) -> Result<ConfigurationHistory, Outage> {
        read::load_configuration_history(&self.pool).await
    }
}

#[async_trait]
impl RegistryStore for PostgresStore {
    async fn load_registry(&self) -> Result<StoredRegistry, Outage> {
        read::load_registry(&self.pool).await
    }

    async fn list_tools(&self, resource: &ClientId) -> Result<Vec<ToolRecord>, Outage> {
        read::list_tools(&self.pool, resource).await
    }
}

#[async_trait]
impl KeyStore for PostgresStore {
    async fn load_keys(&self) -> Result<StoredKeys, Outage> {
        read::load_keys(&self.pool).await
    }

    async fn is_unused(&self) -> Result<bool, Outage> {
        read::is_unused(&self.pool).await
    }
}

#[async_trait]
impl AuditStore for PostgresStore {
    async fn list_audit_records(&self, filter: &AuditFilter, page: &PageRequest) -> Result<Page<AuditRow>, ListError> {
        read::list_audit_records(&self.pool, filter, page).await
    }

    async fn list_audit_heads(&self) -> Result<Vec<(WriterId, Head)>, Outage> {
        read::list_audit_heads(&self.pool).await
    }

    async fn read_audit_chain(&self, writer: WriterId, n: u64, limit: u32) -> Result<Vec<AuditRow>, Outage> {
        read::read_audit_chain(&self.pool, writer, n, limit).await
    }

    async fn read_audit_state(&self) -> Result<AuditState, Outage> {
        read::read_audit_state(&self.pool).await
    }

    async fn read_checkpoints(&self, after: u64, limit: u32) -> Result<Vec<SignedCheckpoint>, Outage> {
        read::read_checkpoints(&self.pool, after, limit).await
    }

    async fn list_checkpoints(&self, page: &PageRequest) -> Result<Page<SignedCheckpoint>, ListError> {
        read::list_checkpoints(&self.pool, page).await
    }
}

#[async_trait]
impl ReplicaStore for PostgresStore {
    async fn record_heartbeat(&self, beat: &Heartbeat, is_news: bool) -> Result<(), Outage> {
        change_listener::record_heartbeat(&self.pool, beat, is_news).await
    }

    async fn list_replicas(&self) -> Result<Vec<Heartbeat>, Outage> {
        change_listener::list_replicas(&self.pool).await
    }

    async fn deregister_replica(&self, id: ReplicaId, number: u64) -> Result<bool, Outage> {
        change_listener::deregister_replica(&self.pool, id, number).await
    }

    async fn listen(&self) -> Result<Box<dyn ChangeListener>, Outage> {
        Ok(Box::new(
            change_listener::NotifyListener::new(
                self.listener_options.clone().connect_lazy_with(self.probe.options().clone()),
            )
            .await?,
        ))
    }
}

#[async_trait]
impl StatusListStore for PostgresStore {
    async fn allocate_status_block(&self, shard: Shard) -> Result<u64, Outage> {
        status_lists::allocate_block(&self.pool, shard).await
    }

    async fn list_status_shards(&self, now: Timestamp) -> Result<Vec<(Shard, u64)>, Outage> {
        status_lists::list_shards(&self.pool, now).await
    }

    async fn list_tokens_with_status(
        &self,
        selector: &TokenSelector,
        alive_at: Timestamp,
        after: TokenCursor,
        limit: u32,
    ) -> Result<Vec<TokenRecord>, Outage> {
        status_lists::list_tokens_with_status(&self.pool, selector, alive_at, after, limit).await
    }
}

#[async_trait]
impl MaintenanceStore for PostgresStore {
    async fn collect_garbage(&self, now: Timestamp) -> Result<GcStats, Outage> {
        commit::collect_garbage(&self.pool, now).await
    }

    async fn ping(&self) -> Result<(), Outage> {
        match self.read_applied_migrations().await {
            Ok(applied) => schema::check_current(&applied, &MIGRATOR, || self.recreate_remedy())
                .map_err(Outage::during(OP_CHECK_SCHEMA)),
            Err(error) => Err(self.explain(Outage::during("reach the store")(error)).await),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connection_errors_hide_password() {
        for url in [
            "postgres://errand:hunter2@db.example/errand",
            "postgres://errand:hunter2@db.example:port/errand",
            "postgres://errand:hunter2@db.example/errand?sslmode=hunter2",
            "postgres://errand@db.example/errand?passwort=hunter2",
            "postgres://errand:hunter2#x@db.example/errand",
            "postgres://errand@db.example/errand?password=hunter2&port=hunter2",
        ] {
            let text = match parse_url(url) {
                Ok(_) => String::new(),
                Err(invalid) => format!("{invalid} {invalid:?}"),
            };
            assert!(!text.contains("hunter2"), "{text}");
        }
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
