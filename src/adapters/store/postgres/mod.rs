//! The store on Postgres.

mod commit;
mod reach;
mod read;
mod replicas;
mod sql;
mod status_lists;

use std::{fmt, str::FromStr, time::Duration};

use async_trait::async_trait;
use sqlx::{
    Connection, PgConnection, PgPool, Row,
    migrate::Migrator,
    postgres::{PgConnectOptions, PgPoolOptions},
};
use tokio::time::timeout;
use url::Url;

use reach::Server;
#[doc(hidden)]
pub use sql::STATEMENTS;

use crate::{
    adapters::store::{Database, InvalidStoreUrl, StoreOptions, schema},
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

static MIGRATOR: Migrator = sqlx::migrate!("migrations/postgres");

/// How long after its last use a connection is taken for alive. It is asked when it is given back, so what this leaves is
/// a server that went away in the meantime.
const FRESH: Duration = Duration::from_secs(1);
/// How long a connection may take to say that it is alive, before it is used and after: one that has gone silent, without
/// a word that it is gone, is closed, and another one is made.
const ALIVE: Duration = Duration::from_secs(1);
const ALIVE_AFTER: Duration = Duration::from_secs(3);

/// One commit at a time, and another connection where one was given up a moment ago.
const COMMITS: u32 = 2;

/// What may stand in the query of a URL. sqlx logs what it does not know, value and all, so it does not get to see it.
const PARAMETERS: [&str; 13] = [
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

/// The store on Postgres.
pub struct PostgresStore {
    pool: PgPool,
    /// For who commits: connections are served by the thread that made them, and that one has a thread of its own.
    commits: PgPool,
    /// For who listens: a connection of its own.
    listening: PgPoolOptions,
    server: Server,
}

impl fmt::Debug for PostgresStore {
    /// Says nothing of where it is connected: that holds the password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresStore").field("connections", &self.pool.size()).finish_non_exhaustive()
    }
}

impl PostgresStore {
    /// Takes the URL; connections are made when they are needed, so a server that is down is an outage and no more.
    pub fn new(url: &str, options: &StoreOptions) -> Result<Self, InvalidStoreUrl> {
        let connect = parse(url)?;
        let timeout = milliseconds(options.statement_timeout);
        let listening = PgPoolOptions::new().max_connections(1).idle_timeout(None).max_lifetime(None);
        let listening = listening.acquire_timeout(options.acquire_timeout);
        let pool = PgPoolOptions::new()
            .acquire_timeout(options.acquire_timeout)
            // A connection that was in use just now need not be asked whether it lives: that is a round trip.
            .test_before_acquire(false)
            .before_acquire(|connection, meta| {
                Box::pin(async move {
                    if meta.idle_for >= FRESH {
                        is_alive(connection, ALIVE).await?;
                    }
                    Ok(true)
                })
            })
            // Whoever used it may have given up waiting: then it answers late, or never.
            .after_release(|connection, _| {
                Box::pin(async move { is_alive(connection, ALIVE_AFTER).await.map(|()| true) })
            })
            .after_connect(move |connection, _| {
                let timeout = timeout.clone();
                Box::pin(async move {
                    let settings = sqlx::query(sql::SETTINGS).bind(timeout);
                    let standby: bool = settings.fetch_one(connection).await?.try_get("standby")?;
                    if standby { Err(sqlx::Error::Configuration(STANDBY.into())) } else { Ok(()) }
                })
            });
        let of = |most| pool.clone().max_connections(most).connect_lazy_with(connect.clone());
        let (pool, commits) = (of(options.max_connections), of(COMMITS));
        Ok(Self { pool, commits, listening, server: Server::new(connect) })
    }

    /// The same outage; why the server can't be reached, where that is its cause, in words that help.
    async fn explained(&self, outage: Outage) -> Outage {
        Outage { source: self.server.cause(outage.source, &self.pool).await, ..outage }
    }
}

async fn is_alive(connection: &mut PgConnection, patience: Duration) -> Result<(), sqlx::Error> {
    match timeout(patience, connection.ping()).await {
        Ok(answer) => answer,
        Err(late) => Err(sqlx::Error::Io(late.into())),
    }
}

const STANDBY: &str = "the server is a standby, and what it says may be old: the URL must lead to the primary";

fn parse(text: &str) -> Result<PgConnectOptions, InvalidStoreUrl> {
    let url = Url::parse(text).map_err(|_| InvalidStoreUrl::Malformed)?;
    if url.query_pairs().any(|(name, _)| !PARAMETERS.contains(&&*name)) {
        return Err(InvalidStoreUrl::Parameter);
    }
    // The cause is left out: it may quote the URL.
    let options = PgConnectOptions::from_str(text).map_err(|_| InvalidStoreUrl::Malformed)?;
    let named = url.query_pairs().any(|(name, _)| name == "application_name");
    Ok(if named { options } else { options.application_name("errand") })
}

fn milliseconds(duration: Duration) -> String {
    format!("{}ms", duration.as_millis())
}

#[async_trait]
impl Database for PostgresStore {
    async fn migrate(&self) -> Result<(), Outage> {
        // A connection of its own, without time limits. Closing it also gives back the lock that keeps two programs from
        // migrating at once, which sqlx does not do after an error.
        let during = "migrate the store";
        let mut connection = self.server.connect().await.map_err(Outage::during(during))?;
        let migrated = MIGRATOR.run_direct(None, &mut connection, false).await;
        let closed = connection.close().await;
        migrated.map_err(Outage::during(during))?;
        closed.map_err(Outage::during(during))
    }
}

#[async_trait]
impl Store for PostgresStore {
    async fn commit(&self, writer: Writer, batch: &[Write]) -> Result<Vec<Written>, CommitFault> {
        commit::commit(&self.commits, writer, batch).await
    }

    async fn head(&self) -> Result<Seq, Outage> {
        match read::head(&self.pool).await {
            Ok(seq) => Ok(seq),
            Err(outage) => Err(self.explained(outage).await),
        }
    }

    async fn log_after(&self, seq: Seq, now: Timestamp, limit: u32) -> Result<Vec<LogEntry>, Outage> {
        read::log_after(&self.pool, seq, now, limit).await
    }

    async fn registry(&self) -> Result<StoredRegistry, Outage> {
        read::registry(&self.pool).await
    }

    async fn tools(&self, resource: &ClientId) -> Result<Vec<ToolRecord>, Outage> {
        read::tools(&self.pool, resource).await
    }

    async fn keys(&self) -> Result<StoredKeys, Outage> {
        read::keys(&self.pool).await
    }

    async fn task(&self, id: TaskId) -> Result<Option<Task>, Outage> {
        read::task(&self.pool, id).await
    }

    async fn tasks_due(&self, now: Timestamp, limit: u32) -> Result<Vec<Task>, Outage> {
        read::tasks_due(&self.pool, now, limit).await
    }

    async fn tasks(&self, filter: &TaskFilter, page: &Page) -> Result<Paged<Task>, ListFault> {
        read::tasks(&self.pool, filter, page).await
    }

    async fn token(&self, id: TokenId) -> Result<Option<TokenRecord>, Outage> {
        read::token(&self.pool, id).await
    }

    async fn tokens(&self, filter: &TokenFilter, page: &Page) -> Result<Paged<TokenRecord>, ListFault> {
        read::tokens(&self.pool, filter, page).await
    }

    async fn listed_tokens(
        &self,
        having: &Having,
        alive_at: Timestamp,
        after: ListedAfter,
        limit: u32,
    ) -> Result<Vec<TokenRecord>, Outage> {
        status_lists::listed_tokens(&self.pool, having, alive_at, after, limit).await
    }

    async fn take_status_block(&self, shard: Shard) -> Result<u64, Outage> {
        status_lists::take_block(&self.pool, shard).await
    }

    async fn status_shards(&self, now: Timestamp) -> Result<Vec<(Shard, u64)>, Outage> {
        status_lists::shards(&self.pool, now).await
    }

    async fn tasks_without_grant(&self, limit: u32) -> Result<Vec<Task>, Outage> {
        read::tasks_without_grant(&self.pool, limit).await
    }

    async fn tasks_of_removed(&self, limit: u32) -> Result<Vec<Task>, Outage> {
        read::tasks_of_removed(&self.pool, limit).await
    }

    async fn grant(&self, id: GrantId) -> Result<Option<Grant>, Outage> {
        read::grant(&self.pool, id).await
    }

    async fn grants_between(
        &self,
        requester: &Requester,
        agent: &ClientId,
        now: Timestamp,
        limit: u32,
    ) -> Result<Vec<Grant>, Outage> {
        read::grants_between(&self.pool, requester, agent, now, limit).await
    }

    async fn break_glass(&self, id: GrantId) -> Result<Option<BreakGlass>, Outage> {
        read::break_glass(&self.pool, id).await
    }

    async fn break_glass_list(&self, review: Option<ReviewState>, page: &Page) -> Result<Paged<BreakGlass>, ListFault> {
        read::break_glass_list(&self.pool, review, page).await
    }

    async fn grants(&self, filter: &GrantFilter, page: &Page) -> Result<Paged<Grant>, ListFault> {
        read::grants(&self.pool, filter, page).await
    }

    async fn revocations(&self, page: &Page) -> Result<Paged<LogEntry>, ListFault> {
        read::revocations(&self.pool, page).await
    }

    async fn answered(&self, caller: &str, key: &str) -> Result<Option<Written>, Outage> {
        read::answered(&self.pool, caller, key).await
    }

    async fn audit(&self, filter: &AuditFilter, page: &Page) -> Result<Paged<AuditRow>, ListFault> {
        read::audit(&self.pool, filter, page).await
    }

    async fn audit_heads(&self) -> Result<Vec<(Writer, Head)>, Outage> {
        read::audit_heads(&self.pool).await
    }

    async fn audit_chain(&self, writer: Writer, n: u64, limit: u32) -> Result<Vec<AuditRow>, Outage> {
        read::audit_chain(&self.pool, writer, n, limit).await
    }

    async fn renew(&self, beat: &Beat, is_news: bool) -> Result<(), Outage> {
        replicas::renew(&self.pool, beat, is_news).await
    }

    async fn replicas(&self) -> Result<Vec<Beat>, Outage> {
        replicas::replicas(&self.pool).await
    }

    async fn remove_replica(&self, id: ReplicaId, number: u64) -> Result<bool, Outage> {
        replicas::remove(&self.pool, id, number).await
    }

    async fn listen(&self) -> Result<Box<dyn Ear>, Outage> {
        Ok(Box::new(
            replicas::Listener::new(self.listening.clone().connect_lazy_with(self.server.options().clone())).await?,
        ))
    }

    async fn sweep(&self, now: Timestamp) -> Result<Swept, Outage> {
        commit::sweep(&self.pool, now).await
    }

    async fn ping(&self) -> Result<(), Outage> {
        match read::schema_version(&self.pool).await {
            Ok(version) => schema::check(version, &MIGRATOR),
            Err(error) => Err(self.explained(Outage::during("reach the store")(error)).await),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_password_in_what_is_said() {
        for url in [
            "postgres://errand:hunter2@db.example/errand",
            "postgres://errand:hunter2@db.example:port/errand",
            "postgres://errand:hunter2@db.example/errand?sslmode=hunter2",
            "postgres://errand@db.example/errand?passwort=hunter2",
            "postgres://errand:hunter2#x@db.example/errand",
            "postgres://errand@db.example/errand?password=hunter2&port=hunter2",
        ] {
            let said = match parse(url) {
                Ok(_) => String::new(),
                Err(invalid) => format!("{invalid} {invalid:?}"),
            };
            assert!(!said.contains("hunter2"), "{said}");
        }
    }

    #[tokio::test]
    async fn a_server_that_is_not_there_is_an_outage_and_soon() {
        let options = StoreOptions { acquire_timeout: Duration::from_millis(300), ..StoreOptions::default() };
        let store = PostgresStore::new("postgres://errand:hunter2@127.0.0.1:1/errand", &options).unwrap();
        let outage = store.head().await.unwrap_err();
        let said = format!("{outage} {} {outage:?} {store:?}", outage.source);
        assert!(!said.contains("hunter2"), "{said}");
        let why = "PostgreSQL at 127.0.0.1:1, database `errand`, user `errand`: Connection refused";
        let source = outage.source.to_string();
        assert!(source.starts_with(why) && source.ends_with("in the store's URL"), "{source}");
    }
}
