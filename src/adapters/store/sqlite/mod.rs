//! The store on SQLite, for one machine. Several connections and several processes may share the
//! file.

mod change_listener;
mod commit;
mod read;
mod sql;
mod status_lists;

use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
    str::FromStr,
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use sqlx::{
    Executor, SqlitePool,
    error::DatabaseError,
    migrate::Migrator,
    sqlite::{SqliteConnectOptions, SqlitePoolOptions, SqliteSynchronous},
};

#[doc(hidden)]
pub use sql::STATEMENTS;

use crate::{
    adapters::store::{
        Database, StoreOptions,
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

static MIGRATOR: Migrator = sqlx::migrate!("migrations/sqlite");

/// The store on SQLite.
pub struct SqliteStore {
    file: PathBuf,
    /// A single connection. Writes queue for it in order, where SQLite itself would poll for its
    /// lock.
    writer: SqlitePool,
    /// Reads see the last commit and never wait for a writer (write-ahead log). An in-memory store
    /// has one connection for everything.
    readers: SqlitePool,
    sealer: SealerCell,
}

impl fmt::Debug for SqliteStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqliteStore").field("readers", &self.readers.size()).finish_non_exhaustive()
    }
}

impl SqliteStore {
    /// Opens the file, and creates it if it does not exist.
    pub async fn open(url: &str, options: &StoreOptions) -> Result<Self, Outage> {
        let operation = "open the store's file";
        let connect = SqliteConnectOptions::from_str(url)
            .map_err(Outage::during(operation))?
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .busy_timeout(options.statement_timeout);
        let file = connect.get_filename().to_owned();
        let pool = |connections| {
            let pool = SqlitePoolOptions::new().max_connections(connections).acquire_timeout(options.acquire_timeout);
            // A file does not close connections, and a test costs as much as a read.
            pool.test_before_acquire(false)
        };
        if is_in_memory(url) {
            // An in-memory database ends with its connection, so that connection is kept.
            let only = pool(1).min_connections(1).idle_timeout(None).max_lifetime(None);
            let only = only.connect_with(connect).await.map_err(Outage::during(operation))?;
            return Ok(Self { file, writer: only.clone(), readers: only, sealer: SealerCell::default() });
        }
        create_private_file(&file).map_err(Outage::during(operation))?;
        let writer = pool(1).connect_with(connect.clone().create_if_missing(true)).await;
        let writer = writer.map_err(Outage::during(operation))?;
        enable_wal(&writer, options.acquire_timeout).await.map_err(Outage::during(operation))?;
        let readers = pool(options.max_connections).connect_lazy_with(connect.read_only(true));
        Ok(Self { file, writer, readers, sealer: SealerCell::default() })
    }

    async fn read_applied_migrations(&self) -> Result<Vec<AppliedMigration>, sqlx::Error> {
        read::read_applied_migrations(&mut *self.readers.acquire().await?).await
    }

    /// Returns the remedy for a schema that can't be migrated.
    fn recreate_remedy(&self) -> String {
        let file = self.file.display();
        format!("delete `{file}`, `{file}-wal` and `{file}-shm` and run `errand migrate`")
    }
}

/// Creates the file, unless it exists, so that only its owner can read it. SQLite gives its other
/// files the same permissions.
fn create_private_file(path: &Path) -> io::Result<()> {
    let mut options = fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    match options.open(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        Ok(_) | Err(_) => Ok(()),
    }
}

/// Enables the write-ahead log, a setting that the file keeps. Enabling takes a lock for which
/// SQLite does not wait, and another program may be enabling it at the same time.
async fn enable_wal(writer: &SqlitePool, time_limit: Duration) -> Result<(), sqlx::Error> {
    let pause = Duration::from_millis(20);
    let mut left = time_limit;
    loop {
        match writer.execute(sql::ENABLE_WAL).await {
            Err(error) if is_busy(&error) && left > pause => {
                tokio::time::sleep(pause).await;
                left = left.saturating_sub(pause);
            }
            done => return done.map(|_| ()),
        }
    }
}

fn is_busy(error: &sqlx::Error) -> bool {
    // SQLITE_BUSY is 5. Extended codes carry it in their lowest byte.
    let code = error.as_database_error().and_then(DatabaseError::code);
    code.and_then(|code| code.parse::<i32>().ok()).is_some_and(|code| code & 0xff == 5)
}

fn is_in_memory(url: &str) -> bool {
    let (path, query) = url.split_once('?').unwrap_or((url, ""));
    path.ends_with(":memory:") || query.split('&').any(|pair| pair == "mode=memory")
}

#[async_trait]
impl Database for SqliteStore {
    fn unlock(&self, sealer: Arc<dyn RecordSealer>) {
        self.sealer.set(sealer);
    }

    async fn migrate(&self) -> Result<(), Outage> {
        // sqlx takes no lock on SQLite, so one transaction spans all of it. A second program waits
        // and finds it done.
        let operation = "migrate the store";
        let mut tx = self.writer.begin_with(sql::BEGIN).await.map_err(Outage::during(operation))?;
        let applied = read::read_applied_migrations(&mut tx).await.map_err(Outage::during(OP_CHECK_SCHEMA))?;
        schema::check_migratable(&applied, &MIGRATOR, || self.recreate_remedy())
            .map_err(Outage::during(OP_CHECK_SCHEMA))?;
        MIGRATOR.run_direct(None, &mut *tx, false).await.map_err(Outage::during(operation))?;
        tx.commit().await.map_err(Outage::during(operation))
    }
}

#[async_trait]
impl WriteStore for SqliteStore {
    async fn commit(&self, writer: WriterId, batch: &[WriteSet]) -> Result<Vec<WriteOutcome>, CommitError> {
        commit::commit(&self.writer, &self.sealer, writer, batch).await
    }

    async fn find_idempotent_response(&self, caller: &str, key: &str) -> Result<Option<WriteOutcome>, Outage> {
        read::find_idempotent_response(&self.readers, caller, key).await
    }
}

#[async_trait]
impl LogStore for SqliteStore {
    async fn read_log_head(&self) -> Result<LogPosition, Outage> {
        read::read_log_head(&self.readers).await
    }

    async fn read_log_after(&self, seq: LogPosition, now: Timestamp, limit: u32) -> Result<Vec<LogEntry>, Outage> {
        read::read_log_after(&self.readers, seq, now, limit).await
    }

    async fn list_revocations(&self, page: &PageRequest) -> Result<Page<LogEntry>, ListError> {
        read::list_revocations(&self.readers, page).await
    }
}

#[async_trait]
impl TokenStore for SqliteStore {
    async fn find_token(&self, id: TokenId) -> Result<Option<TokenRecord>, Outage> {
        read::find_token(&self.readers, id).await
    }

    async fn list_tokens(&self, filter: &TokenFilter, page: &PageRequest) -> Result<Page<TokenRecord>, ListError> {
        read::list_tokens(&self.readers, filter, page).await
    }

    async fn list_evidence(
        &self,
        selector: &EvidenceSelector,
        alive_at: Timestamp,
    ) -> Result<Vec<SeenEvidence>, Outage> {
        read::list_evidence(&self.readers, selector, alive_at).await
    }

    async fn list_sessions(&self, requester: &Requester) -> Result<Vec<EvidenceDigest>, Outage> {
        read::list_sessions(&self.readers, requester).await
    }
}

#[async_trait]
impl TaskStore for SqliteStore {
    async fn find_task(&self, id: TaskId) -> Result<Option<Task>, Outage> {
        read::find_task(&self.readers, id).await
    }

    async fn list_tasks(&self, filter: &TaskFilter, page: &PageRequest) -> Result<Page<Task>, ListError> {
        read::list_tasks(&self.readers, filter, page).await
    }

    async fn list_overdue_tasks(&self, now: Timestamp, limit: u32) -> Result<Vec<Task>, Outage> {
        read::list_overdue_tasks(&self.readers, now, limit).await
    }

    async fn count_live(&self, now: Timestamp, issued_since: Timestamp, limit: u32) -> Result<LiveCounts, Outage> {
        read::count_live(&self.readers, now, issued_since, limit).await
    }

    async fn list_tasks_without_grant(&self, limit: u32) -> Result<Vec<Task>, Outage> {
        read::list_tasks_without_grant(&self.readers, limit).await
    }

    async fn list_orphaned_tasks(&self, limit: u32) -> Result<Vec<Task>, Outage> {
        read::list_orphaned_tasks(&self.readers, limit).await
    }

    async fn is_party_revoked(&self, task: &Task) -> Result<bool, Outage> {
        read::is_party_revoked(&self.readers, task).await
    }

    async fn list_tasks_of_revoked_parties(&self, since: Timestamp, limit: u32) -> Result<Vec<Task>, Outage> {
        read::list_tasks_of_revoked_parties(&self.readers, since, limit).await
    }
}

#[async_trait]
impl QuotaStore for SqliteStore {
    async fn count_usage(&self, key: &QuotaKey, now: Timestamp, limit: u32) -> Result<u32, Outage> {
        read::count_usage(&self.readers, key, now, limit).await
    }
}

#[async_trait]
impl GrantStore for SqliteStore {
    async fn find_grant(&self, id: GrantId) -> Result<Option<Grant>, Outage> {
        read::find_grant(&self.readers, id).await
    }

    async fn list_grants(&self, filter: &GrantFilter, page: &PageRequest) -> Result<Page<Grant>, ListError> {
        read::list_grants(&self.readers, filter, page).await
    }

    async fn list_live_grants(
        &self,
        requester: &Requester,
        agent: &ClientId,
        now: Timestamp,
        limit: u32,
    ) -> Result<Vec<Grant>, Outage> {
        read::list_live_grants(&self.readers, requester, agent, now, limit).await
    }

    async fn find_break_glass(&self, id: GrantId) -> Result<Option<BreakGlassGrant>, Outage> {
        read::find_break_glass(&self.readers, id).await
    }

    async fn list_break_glass(
        &self,
        review: Option<ReviewState>,
        page: &PageRequest,
    ) -> Result<Page<BreakGlassGrant>, ListError> {
        read::list_break_glass(&self.readers, review, page).await
    }
}

#[async_trait]
impl ConfigurationStore for SqliteStore {
    async fn load_configuration_history(&self) -> Result<ConfigurationHistory, Outage> {
        read::load_configuration_history(&self.readers).await
    }
}

#[async_trait]
impl RegistryStore for SqliteStore {
    async fn load_registry(&self) -> Result<StoredRegistry, Outage> {
        read::load_registry(&self.readers).await
    }

    async fn list_tools(&self, resource: &ClientId) -> Result<Vec<ToolRecord>, Outage> {
        read::list_tools(&self.readers, resource).await
    }
}

#[async_trait]
impl KeyStore for SqliteStore {
    async fn load_keys(&self) -> Result<StoredKeys, Outage> {
        read::load_keys(&self.readers).await
    }

    async fn is_unused(&self) -> Result<bool, Outage> {
        read::is_unused(&self.readers).await
    }
}

#[async_trait]
impl AuditStore for SqliteStore {
    async fn list_audit_records(&self, filter: &AuditFilter, page: &PageRequest) -> Result<Page<AuditRow>, ListError> {
        read::list_audit_records(&self.readers, filter, page).await
    }

    async fn list_audit_heads(&self) -> Result<Vec<(WriterId, Head)>, Outage> {
        read::list_audit_heads(&self.readers).await
    }

    async fn read_audit_chain(&self, writer: WriterId, n: u64, limit: u32) -> Result<Vec<AuditRow>, Outage> {
        read::read_audit_chain(&self.readers, writer, n, limit).await
    }

    async fn read_audit_state(&self) -> Result<AuditState, Outage> {
        read::read_audit_state(&self.readers).await
    }

    async fn read_checkpoints(&self, after: u64, limit: u32) -> Result<Vec<SignedCheckpoint>, Outage> {
        read::read_checkpoints(&self.readers, after, limit).await
    }

    async fn list_checkpoints(&self, page: &PageRequest) -> Result<Page<SignedCheckpoint>, ListError> {
        read::list_checkpoints(&self.readers, page).await
    }
}

#[async_trait]
impl ReplicaStore for SqliteStore {
    async fn record_heartbeat(&self, beat: &Heartbeat, _is_news: bool) -> Result<(), Outage> {
        change_listener::record_heartbeat(&self.writer, beat).await
    }

    async fn list_replicas(&self) -> Result<Vec<Heartbeat>, Outage> {
        change_listener::list_replicas(&self.readers).await
    }

    async fn deregister_replica(&self, id: ReplicaId, number: u64) -> Result<bool, Outage> {
        change_listener::deregister_replica(&self.writer, id, number).await
    }

    async fn listen(&self) -> Result<Box<dyn ChangeListener>, Outage> {
        Ok(Box::new(change_listener::PollingListener::new(self.readers.clone()).await?))
    }
}

#[async_trait]
impl StatusListStore for SqliteStore {
    async fn allocate_status_block(&self, shard: Shard) -> Result<u64, Outage> {
        status_lists::allocate_block(&self.writer, shard).await
    }

    async fn list_status_shards(&self, now: Timestamp) -> Result<Vec<(Shard, u64)>, Outage> {
        status_lists::list_shards(&self.readers, now).await
    }

    async fn list_tokens_with_status(
        &self,
        selector: &TokenSelector,
        alive_at: Timestamp,
        after: TokenCursor,
        limit: u32,
    ) -> Result<Vec<TokenRecord>, Outage> {
        status_lists::list_tokens_with_status(&self.readers, selector, alive_at, after, limit).await
    }
}

#[async_trait]
impl MaintenanceStore for SqliteStore {
    async fn collect_garbage(&self, now: Timestamp) -> Result<GcStats, Outage> {
        commit::collect_garbage(&self.writer, now).await
    }

    async fn ping(&self) -> Result<(), Outage> {
        let applied = self.read_applied_migrations().await.map_err(Outage::during("reach the store"))?;
        schema::check_current(&applied, &MIGRATOR, || self.recreate_remedy()).map_err(Outage::during(OP_CHECK_SCHEMA))
    }
}
