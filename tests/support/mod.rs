//! Stores for tests. Each test has its own, migrated and empty, which is removed at its end.
//!
//! A SQLite store is a file in a temporary folder. PostgreSQL is an external server (`./dev test`
//! starts one), on which each test gets a database of its own, copied from a template that is
//! migrated once.

mod log_seal;
mod sealer;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use errand::{
    adapters::store::{Database, StoreOptions, connect},
    domain::audit::WriterId,
    ports::{StateChange, StoreSealer, WriteSet},
};
use ring::digest::{SHA256, digest};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, Executor, PgConnection, postgres::PgConnectOptions};
use tempfile::TempDir;
use tokio::sync::OnceCell;
use url::Url;

pub use sealer::sealer;

/// A store that is removed on drop.
pub struct TestStore {
    url: String,
    backend: Backend,
}

enum Backend {
    File { _folder: Option<TempDir> },
    Server { server: Url, database: String },
}

impl TestStore {
    /// Creates a migrated SQLite store.
    pub async fn sqlite() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut store = Self::sqlite_in(folder.path()).await;
        store.backend = Backend::File { _folder: Some(folder) };
        store
    }

    /// Creates a SQLite store without a schema.
    #[expect(clippy::unused_async, reason = "symmetric to the one for PostgreSQL")]
    pub async fn empty_sqlite() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite://{}", folder.path().join("errand.db").display());
        Self { url, backend: Backend::File { _folder: Some(folder) } }
    }

    /// Creates a migrated SQLite store in a folder of the caller.
    pub async fn sqlite_in(folder: &std::path::Path) -> Self {
        let url = format!("sqlite://{}", folder.join("errand.db").display());
        let store = Self { url, backend: Backend::File { _folder: None } };
        store.open().await.migrate().await.unwrap();
        store
    }

    /// Creates a migrated PostgreSQL store.
    pub async fn postgres() -> Self {
        Self::database(Some(template().await)).await
    }

    /// Creates a PostgreSQL store without a schema.
    pub async fn empty_postgres() -> Self {
        Self::database(None).await
    }

    async fn database(template: Option<&str>) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let server = server();
        let database = format!("errand_test_{}_{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let mut admin = admin(&server).await;
        run(&mut admin, format!("DROP DATABASE IF EXISTS {database} WITH (FORCE)")).await;
        run(&mut admin, format!("CREATE DATABASE {database} TEMPLATE {}", template.unwrap_or("template0"))).await;
        admin.close().await.unwrap();
        Self { url: with_database(&server, &database), backend: Backend::Server { server, database } }
    }

    /// Returns the URL.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Opens the store with the keys of [`sealer`]. Every call returns a separate instance, as
    /// another replica has. Seals a new store, as the first start of a server does.
    pub async fn open(&self) -> Arc<dyn Database> {
        let store = self.open_with(sealer()).await;
        if self.is_unsealed().await {
            let write = WriteSet { state_changes: vec![StateChange::SealNewStore], ..WriteSet::default() };
            store.commit(WriterId(uuid::Uuid::nil()), &[write]).await.unwrap();
        }
        store
    }

    /// Opens the store with the keys of its server.
    pub async fn open_with(&self, sealer: Arc<dyn StoreSealer>) -> Arc<dyn Database> {
        let store = connect(&self.url, &patient_options()).await.unwrap();
        store.unlock(sealer);
        store
    }

    /// Blocks all writes, but not reads, until the returned guard is dropped.
    pub async fn lock_writes(&self) -> Box<dyn Send> {
        match &self.backend {
            Backend::File { .. } => {
                let mut connection = sqlx::SqliteConnection::connect(&self.url).await.unwrap();
                connection.execute("BEGIN IMMEDIATE").await.unwrap();
                Box::new(connection)
            }
            Backend::Server { .. } => {
                let mut connection = PgConnection::connect(&self.url).await.unwrap();
                connection.execute("BEGIN; LOCK TABLE audit, tokens IN EXCLUSIVE MODE").await.unwrap();
                Box::new(connection)
            }
        }
    }

    /// Runs SQL that the program itself never runs.
    pub async fn tamper(&self, sql: &str) -> u64 {
        let sql = AssertSqlSafe(sql.to_owned());
        let done = match &self.backend {
            Backend::File { .. } => {
                let mut connection = sqlx::SqliteConnection::connect(&self.url).await.unwrap();
                connection.execute(sql).await.map(|done| done.rows_affected())
            }
            Backend::Server { .. } => {
                let mut connection = PgConnection::connect(&self.url).await.unwrap();
                connection.execute(sql).await.map(|done| done.rows_affected())
            }
        };
        done.unwrap()
    }
}

impl Drop for TestStore {
    fn drop(&mut self) {
        let Backend::Server { server, database } = &self.backend else { return };
        let (server, database) = (server.clone(), database.clone());
        // `drop` can't await, so a thread does.
        let dropping = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let mut admin = admin(&server).await;
                run(&mut admin, format!("DROP DATABASE IF EXISTS {database} WITH (FORCE)")).await;
            });
        });
        // A leftover database is not worth hiding the failure of the test.
        let _ = dropping.join();
    }
}

/// Returns options with long timeouts, because tests share the machine.
fn patient_options() -> StoreOptions {
    let timeout = Duration::from_mins(1);
    StoreOptions {
        max_connections: 4,
        list_connections: 4,
        acquire_timeout: timeout,
        statement_timeout: timeout,
        list_timeout: timeout,
    }
}

fn server() -> Url {
    #[expect(clippy::disallowed_methods, reason = "the environment names the PostgreSQL server of the tests")]
    let url = std::env::var("ERRAND_TEST_POSTGRES_URL").unwrap_or_else(|_| {
        panic!(
            "ERRAND_TEST_POSTGRES_URL is not set; run `./dev test`, or set it to a server on which databases can be created, such as postgres://postgres@127.0.0.1:5432/postgres"
        )
    });
    Url::parse(&url).expect("ERRAND_TEST_POSTGRES_URL is a valid URL")
}

/// Returns the name of a migrated database without connections. The first caller creates it, while
/// a lock makes the others wait, in this process and in others. The name is derived from the
/// migrations, so an edited migration gets a new template.
async fn template() -> &'static str {
    static TEMPLATE: OnceCell<String> = OnceCell::const_new();
    let name = TEMPLATE.get_or_init(|| async {
        let server = server();
        let migrations = sqlx::migrate!("migrations/postgres");
        let sums = migrations.iter().flat_map(|migration| migration.checksum.iter().copied()).collect::<Vec<_>>();
        // PostgreSQL truncates names that are longer than 63 characters.
        let sum = digest(&SHA256, &sums);
        let name =
            sum.as_ref().iter().take(16).fold("errand_template_".to_owned(), |name, byte| format!("{name}{byte:02x}"));
        let mut admin = admin(&server).await;
        run(&mut admin, "SELECT pg_advisory_lock(7277)".to_owned()).await;
        let found = sqlx::query("SELECT 1 FROM pg_database WHERE datname = $1").bind(&name);
        if found.fetch_optional(&mut admin).await.unwrap().is_none() {
            let unfinished = format!("{name}_unfinished");
            run(&mut admin, format!("DROP DATABASE IF EXISTS {unfinished} WITH (FORCE)")).await;
            run(&mut admin, format!("CREATE DATABASE {unfinished} TEMPLATE template0")).await;
            let url = with_database(&server, &unfinished);
            connect(&url, &patient_options()).await.unwrap().migrate().await.unwrap();
            run(&mut admin, format!("ALTER DATABASE {unfinished} RENAME TO {name}")).await;
        }
        // The lock is released with the connection.
        admin.close().await.unwrap();
        name
    });
    name.await
}

async fn admin(server: &Url) -> PgConnection {
    server
        .as_str()
        .parse::<PgConnectOptions>()
        .unwrap()
        .connect()
        .await
        .expect("the server of ERRAND_TEST_POSTGRES_URL is reachable")
}

async fn run(connection: &mut PgConnection, sql: String) {
    connection.execute(AssertSqlSafe(sql)).await.unwrap();
}

fn with_database(server: &Url, database: &str) -> String {
    let mut url = server.clone();
    url.set_path(database);
    url.to_string()
}
