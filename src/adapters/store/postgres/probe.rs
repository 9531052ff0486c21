//! Diagnosis of an unreachable server, with a remedy for the operator. It never contains the
//! password.

use std::{error::Error as StdError, time::Duration};

use sqlx::{ConnectOptions, Connection, PgConnection, PgPool, postgres::PgConnectOptions};
use thiserror::Error;
use tokio::{sync::Mutex, time::timeout};

/// The time that a connection may take which is opened only for diagnosis.
const PROBE_TIMEOUT: Duration = Duration::from_secs(2);

/// The server is unusable. The error names the location, the reason and the remedy.
#[derive(Debug, Error)]
#[error("PostgreSQL at {location}: {reason}{}{remedy}", if remedy.is_empty() { "" } else { "; " })]
pub(super) struct Unreachable {
    location: String,
    reason: String,
    remedy: &'static str,
}

/// Connects to the server for diagnosis, one connection at a time, so as not to add to its load.
pub(super) struct ServerProbe {
    options: PgConnectOptions,
    probe_lock: Mutex<()>,
}

impl ServerProbe {
    pub(super) fn new(options: PgConnectOptions) -> Self {
        Self { options, probe_lock: Mutex::new(()) }
    }

    /// Returns the connection options.
    pub(super) fn options(&self) -> &PgConnectOptions {
        &self.options
    }

    /// Returns the name of the database. libpq: without one in the URL it is the name of the user.
    pub(super) fn database(&self) -> &str {
        self.options.get_database().unwrap_or_else(|| self.options.get_username())
    }

    /// Opens a connection outside the pools.
    pub(super) async fn connect(&self) -> Result<PgConnection, Unreachable> {
        self.options.connect().await.map_err(|error| self.describe(&error))
    }

    /// Returns the diagnosed cause of a failure. If the pool had no connection in time, one is
    /// opened to find out why.
    pub(super) async fn diagnose(
        &self,
        source: Box<dyn StdError + Send + Sync>,
        pool: &PgPool,
    ) -> Box<dyn StdError + Send + Sync> {
        let error = match source.downcast::<sqlx::Error>() {
            Ok(error) => error,
            Err(other) => return other,
        };
        let timed_out = matches!(*error, sqlx::Error::PoolTimedOut);
        let Ok(_guard) = self.probe_lock.try_lock() else { return error };
        if !timed_out {
            return self.describe(&error).into();
        }
        match timeout(PROBE_TIMEOUT, self.options.connect()).await {
            Ok(Ok(connection)) => {
                // The connection has served its purpose; an error on close does not matter.
                let _: Result<(), sqlx::Error> = connection.close().await;
                let reason = format!("the server responds, but all {} connections of the pool are in use", pool.size());
                self.unreachable_error(reason, "raise `max_connections` in `[store]` if this persists")
            }
            Ok(Err(error)) => self.describe(&error),
            Err(_) => self.unreachable_error("no response".into(), CHECK_ADDRESS_REMEDY),
        }
        .into()
    }

    fn describe(&self, error: &sqlx::Error) -> Unreachable {
        match error {
            // Only the message: the other fields refer to the server's source code.
            sqlx::Error::Database(error) => {
                let remedy = match error.code().as_deref() {
                    Some("28P01" | "28000") => "correct the user and the password in the store's URL",
                    Some("3D000") => "create the database, or correct its name in the store's URL",
                    Some("53300") => "raise the server's connection limit, or lower `max_connections` in `[store]`",
                    _ => "",
                };
                self.unreachable_error(error.message().to_owned(), remedy)
            }
            sqlx::Error::Io(error) => self.unreachable_error(error.to_string(), CHECK_ADDRESS_REMEDY),
            sqlx::Error::Tls(error) => {
                self.unreachable_error(format!("TLS: {error}"), "see `sslmode` and `sslrootcert` in the store's URL")
            }
            other => self.unreachable_error(other.to_string(), ""),
        }
    }

    fn unreachable_error(&self, reason: String, remedy: &'static str) -> Unreachable {
        let options = &self.options;
        let host = match options.get_socket() {
            Some(folder) => folder.display().to_string(),
            None => options.get_host().to_owned(),
        };
        let (user, port, database) = (options.get_username(), options.get_port(), self.database());
        Unreachable { location: format!("{host}:{port}, database `{database}`, user `{user}`"), reason, remedy }
    }
}

const CHECK_ADDRESS_REMEDY: &str = "start the server, or correct the host and the port in the store's URL";
