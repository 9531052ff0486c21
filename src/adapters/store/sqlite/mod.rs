//! The store on SQLite, for one machine. Several connections and several processes may share the
//! file.

mod change_listener;
mod commit;
mod lane;
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
    ConnectOptions, Connection, Executor, SqliteConnection, SqlitePool,
    error::DatabaseError,
    migrate::Migrator,
    sqlite::{SqliteConnectOptions, SqlitePoolOptions, SqliteSynchronous},
};

use lane::Lane;
#[doc(hidden)]
pub use sql::STATEMENTS;

use crate::{
    adapters::store::{
        Database, StoreOptions,
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

static MIGRATOR: Migrator = sqlx::migrate!("migrations/sqlite");

/// The store on SQLite.
#[derive(Clone)]
pub struct SqliteStore {
    file: PathBuf,
    /// A single connection. Writes queue for it in order, where SQLite itself would poll for its
    /// lock. Only a bounded number of calls queue at a time: one commit, one heartbeat, one
    /// allocation of a block.
    writer: Lane,
    /// For exchanges and lookups. Reads see the last commit and never wait for a writer
    /// (write-ahead log). An in-memory store has one connection for everything.
    requests: Lane,
    /// For lists and searches.
    lists: Lane,
    /// For what no client may delay.
    reserved: Lane,
    sealer: SealerCell,
}

impl fmt::Debug for SqliteStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqliteStore").field("connections", &self.requests.size()).finish_non_exhaustive()
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
            .busy_timeout(options.statement_timeout)
            .disable_statement_logging();
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
            let only = Lane::new(only, true);
            let (writer, requests, lists) = (only.clone(), only.clone(), only.clone());
            return Ok(Self { file, writer, requests, lists, reserved: only, sealer: SealerCell::default() });
        }
        create_private_file(&file).map_err(Outage::during(operation))?;
        // The file exists. A later connection must not replace a lost one by an empty one.
        let writer = pool(1).connect_with(connect.clone()).await;
        let writer = writer.map_err(Outage::during(operation))?;
        enable_wal(&writer, options.acquire_timeout).await.map_err(Outage::during(operation))?;
        let connect = connect.read_only(true);
        let lane = |connections| Lane::new(pool(connections).connect_lazy_with(connect.clone()), false);
        Ok(Self {
            file,
            writer: Lane::new(writer, false),
            requests: lane(options.max_connections),
            lists: lane(options.list_connections).with_time_limit(options.list_timeout),
            reserved: lane(RESERVED_CONNECTIONS),
            sealer: SealerCell::default(),
        })
    }

    async fn read_applied_migrations(&self) -> Result<Vec<AppliedMigration>, Outage> {
        on!(self.requests, read::read_applied_migrations())
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
    fn unlock(&self, sealer: Arc<dyn StoreSealer>) {
        self.sealer.set(sealer);
    }

    fn lock(&self) {
        self.sealer.clear();
    }

    async fn migrate(&self) -> Result<(), Outage> {
        let recreate = || self.recreate_remedy();
        on!(self.writer, migrate(&recreate))
    }

    async fn verify_server(&self) -> Result<(), Outage> {
        Ok(())
    }

    fn reserved(&self) -> Arc<dyn Store> {
        Arc::new(Self { requests: self.reserved.clone(), lists: self.reserved.clone(), ..self.clone() })
    }
}

async fn migrate(connection: &mut SqliteConnection, recreate: &(dyn Fn() -> String + Sync)) -> Result<(), Outage> {
    // sqlx takes no lock on SQLite, so one transaction spans all of it. A second program waits and
    // finds it done.
    let operation = "migrate the store";
    let mut tx = connection.begin_with(sql::BEGIN).await.map_err(Outage::during(operation))?;
    let applied = read::read_applied_migrations(&mut tx).await?;
    schema::check_migratable(&applied, &MIGRATOR, recreate).map_err(Outage::during(OP_CHECK_SCHEMA))?;
    MIGRATOR.run_direct(None, &mut *tx, false).await.map_err(Outage::during(operation))?;
    tx.commit().await.map_err(Outage::during(operation))
}

#[async_trait]
impl WriteStore for SqliteStore {
    async fn commit(&self, writer: WriterId, batch: &[WriteSet]) -> Result<Vec<WriteOutcome>, CommitError> {
        on!(self.writer, commit::commit(&self.sealer, writer, batch))
    }

    async fn find_idempotent_response(&self, caller: &str, key: &str) -> Result<Option<WriteOutcome>, Outage> {
        on!(self.requests, read::find_idempotent_response(&self.sealer, caller, key))
    }

    async fn probe_write(&self, number: u64) -> Result<(), Outage> {
        on!(self.writer, commit::probe_write(number))
    }
}

#[async_trait]
impl LogStore for SqliteStore {
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
        on!(self.writer, read::store_log_anchor(&self.sealer, anchor))
    }

    async fn list_revocations(&self, page: &PageRequest) -> Result<Page<LogEntry>, ListError> {
        on!(self.lists, read::list_revocations(&self.sealer, page))
    }
}

#[async_trait]
impl TokenStore for SqliteStore {
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
impl TaskStore for SqliteStore {
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
impl QuotaStore for SqliteStore {
    async fn count_usage(&self, key: &QuotaKey, now: Timestamp, limit: u32) -> Result<u32, Outage> {
        on!(self.requests, read::count_usage(key, now, limit))
    }
}

#[async_trait]
impl GrantStore for SqliteStore {
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
impl ConfigurationStore for SqliteStore {
    async fn load_configuration_history(&self) -> Result<ConfigurationHistory, Outage> {
        on!(self.requests, read::load_configuration_history())
    }
}

#[async_trait]
impl RegistryStore for SqliteStore {
    async fn load_registry(&self) -> Result<StoredRegistry, Outage> {
        on!(self.requests, read::load_registry(&self.sealer))
    }

    async fn list_tools(&self, resource: &ClientId) -> Result<Vec<ToolRecord>, Outage> {
        on!(self.requests, read::list_tools(resource))
    }
}

#[async_trait]
impl KeyStore for SqliteStore {
    async fn load_keys(&self) -> Result<StoredKeys, Outage> {
        on!(self.requests, read::load_keys(&self.sealer))
    }

    async fn is_unused(&self) -> Result<bool, Outage> {
        on!(self.requests, read::is_unused())
    }
}

#[async_trait]
impl AuditStore for SqliteStore {
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
        on!(self.writer, commit::replace_personal_values(writer, n, personal, columns))
    }

    async fn delete_audit_records(&self, writer: WriterId, through: u64, limit: u32) -> Result<u64, Outage> {
        on!(self.writer, commit::delete_audit_records(writer, through, limit))
    }

    async fn list_checkpoints(&self, page: &PageRequest) -> Result<Page<SignedCheckpoint>, ListError> {
        on!(self.lists, read::list_checkpoints(page))
    }
}

#[async_trait]
impl ReplicaStore for SqliteStore {
    async fn record_heartbeat(&self, beat: &Heartbeat, _is_news: bool) -> Result<(), Outage> {
        on!(self.writer, change_listener::record_heartbeat(beat))
    }

    async fn list_replicas(&self) -> Result<Vec<Heartbeat>, Outage> {
        on!(self.requests, change_listener::list_replicas())
    }

    async fn deregister_replica(&self, id: ReplicaId, number: u64) -> Result<bool, Outage> {
        on!(self.writer, change_listener::deregister_replica(id, number))
    }

    async fn listen(&self) -> Result<Box<dyn ChangeListener>, Outage> {
        Ok(Box::new(change_listener::PollingListener::new(self.reserved.clone()).await?))
    }
}

#[async_trait]
impl StatusListStore for SqliteStore {
    async fn allocate_status_block(&self, shard: Shard) -> Result<u64, Outage> {
        on!(self.writer, status_lists::allocate_block(shard))
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
impl MaintenanceStore for SqliteStore {
    async fn collect_garbage(&self, now: Timestamp, cutoffs: &RetentionCutoffs) -> Result<GcStats, Outage> {
        commit::collect_garbage(&self.writer, &self.sealer, now, cutoffs).await
    }

    async fn delete_requester_rows(&self, requester: &Requester, cutoff: Timestamp) -> Result<RequesterRows, Outage> {
        commit::delete_requester_rows(&self.writer, requester, cutoff).await
    }

    async fn count_requester_rows(&self, requester: &Requester) -> Result<RequesterRows, Outage> {
        on!(self.requests, read::count_requester_rows(requester))
    }

    async fn ping(&self) -> Result<(), Outage> {
        let applied = self.read_applied_migrations().await?;
        schema::check_current(&applied, &MIGRATOR, || self.recreate_remedy()).map_err(Outage::during(OP_CHECK_SCHEMA))
    }

    fn tampering_count(&self) -> u64 {
        self.sealer.mismatch_count()
    }
}
