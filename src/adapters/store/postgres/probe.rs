//! Why the server can't be reached, in words for whoever has to mend it. Never the password.

use std::{error::Error as StdError, time::Duration};

use sqlx::{ConnectOptions, Connection, PgConnection, PgPool, postgres::PgConnectOptions};
use thiserror::Error;
use tokio::{sync::Mutex, time::timeout};

/// How long one connection may take to be made, when it is asked for only to find out why there is none.
const PROBE_TIMEOUT: Duration = Duration::from_secs(2);

/// The server can't be worked with. Says where it was looked for, why not, and what to do.
#[derive(Debug, Error)]
#[error("PostgreSQL at {location}: {reason}{}{remedy}", if remedy.is_empty() { "" } else { ": " })]
pub(super) struct Unreachable {
    location: String,
    reason: String,
    remedy: &'static str,
}

/// Where the server is, and who is asking why it can't be reached: one at a time, so as not to crowd it.
pub(super) struct ServerProbe {
    options: PgConnectOptions,
    probe_lock: Mutex<()>,
}

impl ServerProbe {
    pub(super) fn new(options: PgConnectOptions) -> Self {
        Self { options, probe_lock: Mutex::new(()) }
    }

    /// How to connect to it.
    pub(super) fn options(&self) -> &PgConnectOptions {
        &self.options
    }

    /// Returns the name of the database. libpq: without one in the URL it is the name of the user.
    pub(super) fn database(&self) -> &str {
        self.options.get_database().unwrap_or_else(|| self.options.get_username())
    }

    /// A connection beside the pool's.
    pub(super) async fn connect(&self) -> Result<PgConnection, Unreachable> {
        self.options.connect().await.map_err(|error| self.describe(&error))
    }

    /// The cause of a failure. If it is that the pool had no connection in time, one is made to see why.
    pub(super) async fn diagnose(
        &self,
        source: Box<dyn StdError + Send + Sync>,
        pool: &PgPool,
    ) -> Box<dyn StdError + Send + Sync> {
        let error = match source.downcast::<sqlx::Error>() {
            Ok(error) => error,
            Err(other) => return other,
        };
        let waited = matches!(*error, sqlx::Error::PoolTimedOut);
        let Ok(_asking) = self.probe_lock.try_lock() else { return error };
        if !waited {
            return self.describe(&error).into();
        }
        match timeout(PROBE_TIMEOUT, self.options.connect()).await {
            Ok(Ok(connection)) => {
                // It has told what it was made for; how it ends does not matter.
                let _: Result<(), sqlx::Error> = connection.close().await;
                let reason = format!("it answers, but all {} connections are in use", pool.size());
                self.unreachable_error(reason, "raise `max_connections` in `[store]` if that goes on")
            }
            Ok(Err(error)) => self.describe(&error),
            Err(_) => self.unreachable_error("no answer".into(), CHECK_ADDRESS_REMEDY),
        }
        .into()
    }

    fn describe(&self, error: &sqlx::Error) -> Unreachable {
        match error {
            // Its message alone: the rest says where in the server's source it was written.
            sqlx::Error::Database(said) => {
                let remedy = match said.code().as_deref() {
                    Some("28P01" | "28000") => "mend the user and the password in the store's URL",
                    Some("3D000") => "create the database, or mend its name in the store's URL",
                    Some("53300") => "let the server have more connections, or lower `max_connections` in `[store]`",
                    _ => "",
                };
                self.unreachable_error(said.message().to_owned(), remedy)
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

const CHECK_ADDRESS_REMEDY: &str = "start it, or mend the host and the port in the store's URL";
