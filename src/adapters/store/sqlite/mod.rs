//! The store in a file, by SQLite: for one machine. Several connections and several processes may share the file.

mod commit;
mod read;
mod replicas;
mod sql;
mod status_lists;

use std::{fmt, fs, io, path::Path, str::FromStr, time::Duration};

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
    adapters::store::{Database, StoreOptions, schema},
    domain::{
        audit::{Head, Writer},
        break_glass::{BreakGlass, ReviewState},
        grant::Grant,
        id::{ClientId, GrantId, TaskId, TokenId},
        replica::{Beat, ReplicaId},
        revocation::{LogEntry, Seq},
        status_list::Shard,
        task::{Requester, Task},
        time::Timestamp,
        tool::ToolRecord,
    },
    ports::{
        AuditFilter, AuditRow, CommitFault, Ear, GrantFilter, Having, ListFault, ListedAfter, Outage, Page, Paged,
        Store, StoredKeys, StoredRegistry, Swept, TaskFilter, TokenFilter, TokenRecord, Write, Written,
    },
};

static MIGRATOR: Migrator = sqlx::migrate!("migrations/sqlite");

/// The store in a file.
pub struct SqliteStore {
    /// One connection: writes wait for each other here, in order, and not in SQLite, which polls.
    writer: SqlitePool,
    /// Reads see the last commit and wait for nobody (write-ahead log). In memory there is one connection for all.
    readers: SqlitePool,
}

impl fmt::Debug for SqliteStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqliteStore").field("readers", &self.readers.size()).finish_non_exhaustive()
    }
}

impl SqliteStore {
    /// Opens the file, and makes it if there is none.
    pub async fn open(url: &str, options: &StoreOptions) -> Result<Self, Outage> {
        let during = "open the store's file";
        let connect = SqliteConnectOptions::from_str(url)
            .map_err(Outage::during(during))?
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .busy_timeout(options.statement_timeout);
        let pool = |connections| {
            let pool = SqlitePoolOptions::new().max_connections(connections).acquire_timeout(options.acquire_timeout);
            // A file does not hang up, and to ask costs as much as a read.
            pool.test_before_acquire(false)
        };
        if is_in_memory(url) {
            // What is in memory is gone with its connection, so that one stays.
            let only = pool(1).min_connections(1).idle_timeout(None).max_lifetime(None);
            let only = only.connect_with(connect).await.map_err(Outage::during(during))?;
            return Ok(Self { writer: only.clone(), readers: only });
        }
        keep_private(connect.get_filename()).map_err(Outage::during(during))?;
        let writer = pool(1).connect_with(connect.clone().create_if_missing(true)).await;
        let writer = writer.map_err(Outage::during(during))?;
        write_ahead(&writer, options.acquire_timeout).await.map_err(Outage::during(during))?;
        let readers = pool(options.max_connections).connect_lazy_with(connect.read_only(true));
        Ok(Self { writer, readers })
    }
}

/// Makes the file, if there is none, so that only its owner can read it. SQLite gives its other files the same rights.
fn keep_private(path: &Path) -> io::Result<()> {
    let mut options = fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    match options.open(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        Ok(_) | Err(_) => Ok(()),
    }
}

/// Turns the write-ahead log on, which a file keeps. To turn it on takes a lock that SQLite does not wait for, and
/// another program may be just about to do the same.
async fn write_ahead(writer: &SqlitePool, patience: Duration) -> Result<(), sqlx::Error> {
    let pause = Duration::from_millis(20);
    let mut left = patience;
    loop {
        match writer.execute(sql::WRITE_AHEAD).await {
            Err(error) if is_busy(&error) && left > pause => {
                tokio::time::sleep(pause).await;
                left = left.saturating_sub(pause);
            }
            done => return done.map(|_| ()),
        }
    }
}

fn is_busy(error: &sqlx::Error) -> bool {
    // SQLITE_BUSY is 5; the extended codes have it in their lowest byte.
    let code = error.as_database_error().and_then(DatabaseError::code);
    code.and_then(|code| code.parse::<i32>().ok()).is_some_and(|code| code & 0xff == 5)
}

fn is_in_memory(url: &str) -> bool {
    let (path, query) = url.split_once('?').unwrap_or((url, ""));
    path.ends_with(":memory:") || query.split('&').any(|pair| pair == "mode=memory")
}

#[async_trait]
impl Database for SqliteStore {
    async fn migrate(&self) -> Result<(), Outage> {
        // sqlx takes no lock here, so the whole of it is one transaction: of two programs one does it, the other finds it
        // done.
        let during = "migrate the store";
        let mut tx = self.writer.begin_with(sql::BEGIN).await.map_err(Outage::during(during))?;
        MIGRATOR.run_direct(None, &mut *tx, false).await.map_err(Outage::during(during))?;
        tx.commit().await.map_err(Outage::during(during))
    }
}

#[async_trait]
impl Store for SqliteStore {
    async fn commit(&self, writer: Writer, batch: &[Write]) -> Result<Vec<Written>, CommitFault> {
        commit::commit(&self.writer, writer, batch).await
    }

    async fn head(&self) -> Result<Seq, Outage> {
        read::head(&self.readers).await
    }

    async fn log_after(&self, seq: Seq, now: Timestamp, limit: u32) -> Result<Vec<LogEntry>, Outage> {
        read::log_after(&self.readers, seq, now, limit).await
    }

    async fn registry(&self) -> Result<StoredRegistry, Outage> {
        read::registry(&self.readers).await
    }

    async fn tools(&self, resource: &ClientId) -> Result<Vec<ToolRecord>, Outage> {
        read::tools(&self.readers, resource).await
    }

    async fn keys(&self) -> Result<StoredKeys, Outage> {
        read::keys(&self.readers).await
    }

    async fn task(&self, id: TaskId) -> Result<Option<Task>, Outage> {
        read::task(&self.readers, id).await
    }

    async fn tasks_due(&self, now: Timestamp, limit: u32) -> Result<Vec<Task>, Outage> {
        read::tasks_due(&self.readers, now, limit).await
    }

    async fn tasks(&self, filter: &TaskFilter, page: &Page) -> Result<Paged<Task>, ListFault> {
        read::tasks(&self.readers, filter, page).await
    }

    async fn token(&self, id: TokenId) -> Result<Option<TokenRecord>, Outage> {
        read::token(&self.readers, id).await
    }

    async fn tokens(&self, filter: &TokenFilter, page: &Page) -> Result<Paged<TokenRecord>, ListFault> {
        read::tokens(&self.readers, filter, page).await
    }

    async fn listed_tokens(
        &self,
        having: &Having,
        alive_at: Timestamp,
        after: ListedAfter,
        limit: u32,
    ) -> Result<Vec<TokenRecord>, Outage> {
        status_lists::listed_tokens(&self.readers, having, alive_at, after, limit).await
    }

    async fn take_status_block(&self, shard: Shard) -> Result<u64, Outage> {
        status_lists::take_block(&self.writer, shard).await
    }

    async fn status_shards(&self, now: Timestamp) -> Result<Vec<(Shard, u64)>, Outage> {
        status_lists::shards(&self.readers, now).await
    }

    async fn tasks_without_grant(&self, limit: u32) -> Result<Vec<Task>, Outage> {
        read::tasks_without_grant(&self.readers, limit).await
    }

    async fn tasks_of_removed(&self, limit: u32) -> Result<Vec<Task>, Outage> {
        read::tasks_of_removed(&self.readers, limit).await
    }

    async fn grant(&self, id: GrantId) -> Result<Option<Grant>, Outage> {
        read::grant(&self.readers, id).await
    }

    async fn grants_between(
        &self,
        requester: &Requester,
        agent: &ClientId,
        now: Timestamp,
        limit: u32,
    ) -> Result<Vec<Grant>, Outage> {
        read::grants_between(&self.readers, requester, agent, now, limit).await
    }

    async fn break_glass(&self, id: GrantId) -> Result<Option<BreakGlass>, Outage> {
        read::break_glass(&self.readers, id).await
    }

    async fn break_glass_list(&self, review: Option<ReviewState>, page: &Page) -> Result<Paged<BreakGlass>, ListFault> {
        read::break_glass_list(&self.readers, review, page).await
    }

    async fn grants(&self, filter: &GrantFilter, page: &Page) -> Result<Paged<Grant>, ListFault> {
        read::grants(&self.readers, filter, page).await
    }

    async fn revocations(&self, page: &Page) -> Result<Paged<LogEntry>, ListFault> {
        read::revocations(&self.readers, page).await
    }

    async fn answered(&self, caller: &str, key: &str) -> Result<Option<Written>, Outage> {
        read::answered(&self.readers, caller, key).await
    }

    async fn audit(&self, filter: &AuditFilter, page: &Page) -> Result<Paged<AuditRow>, ListFault> {
        read::audit(&self.readers, filter, page).await
    }

    async fn audit_heads(&self) -> Result<Vec<(Writer, Head)>, Outage> {
        read::audit_heads(&self.readers).await
    }

    async fn audit_chain(&self, writer: Writer, n: u64, limit: u32) -> Result<Vec<AuditRow>, Outage> {
        read::audit_chain(&self.readers, writer, n, limit).await
    }

    async fn renew(&self, beat: &Beat, _is_news: bool) -> Result<(), Outage> {
        replicas::renew(&self.writer, beat).await
    }

    async fn replicas(&self) -> Result<Vec<Beat>, Outage> {
        replicas::replicas(&self.readers).await
    }

    async fn remove_replica(&self, id: ReplicaId, number: u64) -> Result<bool, Outage> {
        replicas::remove(&self.writer, id, number).await
    }

    async fn listen(&self) -> Result<Box<dyn Ear>, Outage> {
        Ok(Box::new(replicas::Lookout::new(self.readers.clone()).await?))
    }

    async fn sweep(&self, now: Timestamp) -> Result<Swept, Outage> {
        commit::sweep(&self.writer, now).await
    }

    async fn ping(&self) -> Result<(), Outage> {
        let during = Outage::during("reach the store");
        schema::check(read::schema_version(&self.readers).await.map_err(during)?, &MIGRATOR)
    }
}
