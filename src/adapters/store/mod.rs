//! The store, on PostgreSQL and on SQLite. The two adapters have the same structure; the modules
//! that they share depend on neither database.

mod batch;
mod cursor;
mod lane;
mod log_scan;
#[cfg(test)]
mod plain_sealer;
mod rows;
mod schema;
mod statements;
mod store_sealer;

pub mod postgres;
pub mod sqlite;

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use thiserror::Error;

use crate::ports::{Outage, Store, StoreSealer};
use postgres::PostgresStore;
use sqlite::SqliteStore;

/// Connection settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoreOptions {
    /// The maximum number of connections for exchanges and lookups.
    pub max_connections: u32,
    /// The maximum number of connections for lists and searches.
    pub list_connections: u32,
    /// The time to wait for a connection before the call is an outage.
    pub acquire_timeout: Duration,
    /// The time that a statement may take, including its wait for locks.
    pub statement_timeout: Duration,
    /// The time that a statement of a list or a search may take.
    pub list_timeout: Duration,
}

impl Default for StoreOptions {
    fn default() -> Self {
        Self {
            max_connections: 10,
            list_connections: 4,
            acquire_timeout: Duration::from_secs(3),
            statement_timeout: Duration::from_secs(5),
            list_timeout: Duration::from_secs(5),
        }
    }
}

/// A reason why a URL does not name a store. Never quotes the URL, because it contains a password.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum StoreUrlError {
    /// The scheme is missing or unknown.
    #[error("the store's URL has no known scheme; it must begin with `postgres://`, `postgresql://` or `sqlite:`")]
    UnknownScheme,
    /// The text is not a valid URL.
    #[error(
        "the store's URL is not valid; percent-encode special characters in the user name and the password, and check the port and the values of parameters"
    )]
    Malformed,
    /// The URL has an unknown parameter.
    #[error(
        "the store's URL has an unknown parameter; known parameters are sslmode, sslrootcert, sslcert, sslkey, host, hostaddr, port, dbname, user, password, application_name, options and statement-cache-capacity"
    )]
    UnknownParameter,
}

/// A store that can migrate its schema. Only the start of the program uses it; all other code uses
/// a [`Store`].
#[async_trait]
pub trait Database: Store {
    /// Migrates the schema to the version that this program needs. Several programs may do so
    /// concurrently.
    async fn migrate(&self) -> Result<(), Outage>;

    /// Provides the sealer, whose keys are in the store itself. Before this, no audit record can be
    /// written, and no registry can be written or read.
    fn unlock(&self, sealer: Arc<dyn StoreSealer>);

    /// Forgets the sealer, because its keys may not be those of the store.
    fn lock(&self);

    /// Checks that the server of the database can be used, whatever the schema: its version, and
    /// that it is a primary whose connections keep their sessions.
    async fn verify_server(&self) -> Result<(), Outage>;

    /// Returns the same store on connections that no request of a client can occupy.
    fn reserved(&self) -> Arc<dyn Store>;
}

/// Connects to the store that a URL names. PostgreSQL need not be up yet;
/// [`ping`](crate::ports::MaintenanceStore::ping) finds out.
pub async fn connect(url: &str, options: &StoreOptions) -> Result<Arc<dyn Database>, Outage> {
    let operation = "read the store's URL";
    match url.split_once(':').map(|(scheme, _)| scheme) {
        Some("postgres" | "postgresql") => {
            Ok(Arc::new(PostgresStore::new(url, options).map_err(Outage::during(operation))?))
        }
        Some("sqlite") => Ok(Arc::new(SqliteStore::open(url, options).await?)),
        Some(_) | None => Err(Outage { operation, source: StoreUrlError::UnknownScheme.into() }),
    }
}
