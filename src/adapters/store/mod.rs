//! The store, in two adapters that can be laid side by side: Postgres and SQLite. What they share knows neither.

mod batch;
mod cursor;
mod log_scan;
mod rows;
mod schema;
mod sql;

pub mod postgres;
pub mod sqlite;

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use thiserror::Error;

use crate::ports::{Outage, Store};
use postgres::PostgresStore;
use sqlite::SqliteStore;

/// How the store is connected to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoreOptions {
    /// The most connections to it at once.
    pub max_connections: u32,
    /// How long to wait for a connection, before it is an outage.
    pub acquire_timeout: Duration,
    /// How long a statement may take, its waiting for locks included.
    pub statement_timeout: Duration,
}

impl Default for StoreOptions {
    fn default() -> Self {
        Self { max_connections: 10, acquire_timeout: Duration::from_secs(3), statement_timeout: Duration::from_secs(5) }
    }
}

/// Why a URL names no store. Never quotes the URL: there is a password in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum StoreUrlError {
    /// Another scheme, or none.
    #[error("the store's URL must begin with `postgres://`, `postgresql://` or `sqlite:`")]
    UnknownScheme,
    /// Not a URL.
    #[error(
        "the store's URL can't be read: special characters in the user name and the password must be percent-encoded, and the port and the values of parameters must be valid"
    )]
    Malformed,
    /// It has a parameter that means nothing.
    #[error(
        "the store's URL has an unknown parameter: known are sslmode, sslrootcert, sslcert, sslkey, host, hostaddr, port, dbname, user, password, application_name, options and statement-cache-capacity"
    )]
    UnknownParameter,
}

/// A store that can bring its own schema up to date. Only who starts the program holds one; all others hold a [`Store`].
#[async_trait]
pub trait Database: Store {
    /// Brings the schema to the version that this program knows. Several programs may do so at once.
    async fn migrate(&self) -> Result<(), Outage>;
}

/// Connects to the store that a URL names. A Postgres that is down does not matter yet; [`Store::ping`] tells.
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
