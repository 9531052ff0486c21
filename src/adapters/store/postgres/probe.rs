//! The server behind the URL: whether it is there, whether Errand can use it, and what an operator
//! can do about it. No text contains the password.

use std::{
    error::Error as StdError,
    io::ErrorKind,
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use sqlx::{
    ConnectOptions, Connection, PgConnection, Row, migrate::MigrateError, postgres::PgConnectOptions, query, raw_sql,
};
use thiserror::Error;
use tokio::{
    sync::{Mutex, watch},
    time::{sleep, timeout},
};

use super::sql;
use crate::ports::Outage;

/// The time that a connection may take which is opened only to find out why there is no other.
const PROBE_TIMEOUT: Duration = Duration::from_secs(2);
/// The time that the check of sessions waits for its second connection, and for each reading of a
/// session. A server that is only slow must not look like one that shares sessions.
const SESSION_CHECK_TIMEOUT: Duration = Duration::from_secs(6);
/// The time that the check of the server may take: both waits for a session, and the first
/// connection.
const VERIFY_TIMEOUT: Duration = Duration::from_secs(15);
/// The interval at which an unavailable server is tried again.
const RETRY_INTERVAL: Duration = Duration::from_millis(200);
/// The time between two tests of a server that is available.
const TEST_INTERVAL: Duration = Duration::from_millis(500);
/// The oldest supported version of PostgreSQL, as in `server_version_num`.
const MIN_SERVER_VERSION: i32 = 150_000;

/// The server can't be used. The error names the location, the reason and the remedy.
#[derive(Clone, Debug, Error)]
#[error("PostgreSQL at {location}: {reason}{}{remedy}", if remedy.is_empty() { "" } else { "; " })]
pub(super) struct Unreachable {
    location: String,
    reason: String,
    remedy: String,
}

/// Why Errand does not use a server that responds.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(super) enum UnusableServer {
    #[error("the server is a standby, whose data may be stale; use the URL of the primary")]
    Standby,
    #[error("the server is version {0}; version 15 or later is needed")]
    TooOld(String),
    #[error(
        "two statements of one connection ran in different sessions, as in the transaction or statement mode of PgBouncer, which loses notifications and session settings; set `pool_mode = session` for this database, or connect to the server directly"
    )]
    SharedSessions,
    #[error(
        "the first connection works, but a second one was not opened within six seconds; a connection pooler must allow {connections} connections for each replica (PgBouncer: `default_pool_size`)"
    )]
    SmallPool { connections: u32 },
}

/// The settings of a session, which limit its statements.
#[derive(Clone, Debug)]
pub(super) struct SessionSettings {
    /// `statement_timeout`
    pub(super) statement_timeout: Duration,
    /// Whether every statement is planned for its parameters. Planning takes a millisecond, and a
    /// plan for unknown filters may read the whole table.
    pub(super) plans_each_statement: bool,
}

/// Configures the session of a new connection, and checks that the server can be used.
pub(super) async fn configure_session(
    connection: &mut PgConnection,
    settings: &SessionSettings,
) -> Result<Result<(), UnusableServer>, sqlx::Error> {
    let plans = if settings.plans_each_statement { "force_custom_plan" } else { "auto" };
    let configure = query(sql::CONFIGURE_CONNECTION);
    let configure = configure.bind(format!("{}ms", settings.statement_timeout.as_millis())).bind(plans);
    let row = configure.fetch_one(connection).await?;
    Ok(check_server(row.try_get("version")?, row.try_get("version_name")?, row.try_get("standby")?))
}

fn check_server(version: i32, name: String, is_standby: bool) -> Result<(), UnusableServer> {
    if version < MIN_SERVER_VERSION {
        Err(UnusableServer::TooOld(name))
    } else if is_standby {
        Err(UnusableServer::Standby)
    } else {
        Ok(())
    }
}

/// A connection for diagnosis, with the id of its session.
struct ProbeConnection {
    connection: PgConnection,
    session: i32,
}

impl ProbeConnection {
    /// Returns the id of the session in which a statement runs now. A server that is reached
    /// directly gives each connection one session.
    async fn read_session(&mut self) -> Result<i32, sqlx::Error> {
        raw_sql(sql::SESSION_ID).fetch_one(&mut self.connection).await?.try_get("session")
    }

    async fn close(self) {
        // The connection has served its purpose; an error on close does not matter.
        let _: Result<(), sqlx::Error> = self.connection.close().await;
    }
}

/// Knows whether the server is available, and explains why not.
pub(super) struct ServerProbe {
    options: PgConnectOptions,
    /// The number of connections that this replica opens at most.
    connections: u32,
    /// Locked during a diagnosis: one connection at a time, so as not to add to the server's load.
    probe_lock: Mutex<()>,
    /// The reason why no connection can be opened, while that is known.
    outage: watch::Sender<Option<Unreachable>>,
    is_watching: AtomicBool,
    /// Set when a call finds a connection missing.
    is_watch_wanted: AtomicBool,
}

impl ServerProbe {
    pub(super) fn new(options: PgConnectOptions, connections: u32) -> Self {
        Self {
            options,
            connections,
            probe_lock: Mutex::new(()),
            outage: watch::Sender::default(),
            is_watching: AtomicBool::new(false),
            is_watch_wanted: AtomicBool::new(false),
        }
    }

    /// Returns the connection options.
    pub(super) fn options(&self) -> &PgConnectOptions {
        &self.options
    }

    /// Returns the name of the database. libpq: without one in the URL it is the name of the user.
    pub(super) fn database(&self) -> &str {
        self.options.get_database().unwrap_or_else(|| self.options.get_username())
    }

    /// Opens a connection outside the lanes, to a server that can be used.
    pub(super) async fn connect(&self) -> Result<PgConnection, Unreachable> {
        self.open().await.map(|probe| probe.connection)
    }

    /// Checks that the server can be used: its version, that it is a primary, and that each
    /// connection has a session of its own.
    ///
    /// The pooler of a shared session gives the session of the first connection to the second,
    /// which holds it in a transaction, and then another one to the first.
    pub(super) async fn verify(&self) -> Result<(), Unreachable> {
        let late = |_| self.unreachable("no response".into(), CHECK_ADDRESS_REMEDY.into());
        timeout(VERIFY_TIMEOUT, self.verify_sessions()).await.map_err(late)?
    }

    async fn verify_sessions(&self) -> Result<(), Unreachable> {
        let mut first = self.open().await?;
        let mut second = match timeout(SESSION_CHECK_TIMEOUT, self.open()).await {
            Ok(opened) => opened?,
            Err(_) => return Err(self.unusable(&UnusableServer::SmallPool { connections: self.connections })),
        };
        let held = async {
            raw_sql(sql::BEGIN_SNAPSHOT).execute(&mut second.connection).await?;
            second.read_session().await
        };
        let of_second = held.await.map_err(|error| self.describe(&error))?;
        let is_own = of_second == second.session && of_second != first.session;
        // If the second connection holds the only session, the first one gets no answer.
        let of_first = timeout(SESSION_CHECK_TIMEOUT, first.read_session()).await;
        let is_own = is_own && of_first.is_ok_and(|session| session.is_ok_and(|id| id == first.session));
        second.close().await;
        first.close().await;
        if is_own { Ok(()) } else { Err(self.unusable(&UnusableServer::SharedSessions)) }
    }

    /// Opens a connection by simple queries, which need no session.
    async fn open(&self) -> Result<ProbeConnection, Unreachable> {
        let describe = |error| self.describe(&error);
        let mut connection = self.options.connect().await.map_err(describe)?;
        let server = raw_sql(sql::DESCRIBE_SERVER).fetch_one(&mut connection).await.map_err(describe)?;
        let read = || Ok((server.try_get("version")?, server.try_get("version_name")?, server.try_get("standby")?));
        let (version, name, is_standby) = read().map_err(describe)?;
        check_server(version, name, is_standby).map_err(|unusable| self.unusable(&unusable))?;
        Ok(ProbeConnection { session: server.try_get("session").map_err(describe)?, connection })
    }

    /// Returns the reason why no connection can be opened, if it is known.
    pub(super) fn known_outage(&self) -> Option<Unreachable> {
        self.outage.borrow().clone()
    }

    /// Returns when it is known that no connection can be opened.
    pub(super) async fn wait_for_outage(&self) -> Unreachable {
        let mut outage = self.outage.subscribe();
        loop {
            if let Some(known) = outage.borrow_and_update().clone() {
                return known;
            }
            // The sender is a field of `self`, so it outlives this loop.
            let _: Result<(), watch::error::RecvError> = outage.changed().await;
        }
    }

    /// Finds out whether the server is available, and tries it again until it is. Any number of
    /// calls start one task.
    pub(super) fn start_watch(self: &Arc<Self>) {
        self.is_watch_wanted.store(true, Ordering::SeqCst);
        if !self.is_watching.swap(true, Ordering::SeqCst) {
            let watch = Watch(Arc::downgrade(self));
            tokio::spawn(async move { watch.run().await });
        }
    }

    /// Returns the reason why connections can't be opened now, if the server does not accept any.
    /// A server that refuses only this connection, or that is slow, is not unavailable.
    async fn find_outage(&self) -> Option<Unreachable> {
        timeout(PROBE_TIMEOUT, self.try_server()).await.unwrap_or_default()
    }

    async fn try_server(&self) -> Option<Unreachable> {
        match self.options.connect().await {
            Err(error) => Some(&error).filter(|error| is_server_down(error)).map(|error| self.describe(error)),
            Ok(mut connection) => {
                let standby = raw_sql(sql::DESCRIBE_SERVER).fetch_one(&mut connection).await;
                let standby = standby.and_then(|row| row.try_get::<bool, _>("standby"));
                // The connection has served its purpose; an error on close does not matter.
                let _: Result<(), sqlx::Error> = connection.close().await;
                standby.is_ok_and(|is_standby| is_standby).then(|| self.unusable(&UnusableServer::Standby))
            }
        }
    }

    /// Returns the cause of a failure to get a connection. If the lane had none in time, one is
    /// opened to find out why. `remedy_if_full` helps if all connections of the lane are in use.
    pub(super) async fn diagnose(
        &self,
        error: sqlx::Error,
        remedy_if_full: &str,
        (open, limit): (u32, u32),
    ) -> Box<dyn StdError + Send + Sync> {
        if !matches!(error, sqlx::Error::PoolTimedOut) {
            return self.describe(&error).into();
        }
        let Ok(_guard) = self.probe_lock.try_lock() else {
            return self.unreachable("no connection was free in time".into(), String::new()).into();
        };
        match timeout(PROBE_TIMEOUT, self.open()).await {
            Ok(Ok(probe)) => {
                probe.close().await;
                if open < limit {
                    let reason = "the server responds, but opening a further connection took too long";
                    return self.unreachable(reason.into(), String::new()).into();
                }
                let reason = format!("the server responds, but all {open} connections of the pool are in use");
                self.unreachable(reason, remedy_if_full.to_owned())
            }
            Ok(Err(unreachable)) => unreachable,
            Err(_) => self.unreachable("no response".into(), CHECK_ADDRESS_REMEDY.into()),
        }
        .into()
    }

    /// Explains the cause of an outage, if it is an error of the server.
    pub(super) fn explain(&self, outage: Outage) -> Outage {
        let cause = match outage.source.downcast_ref::<MigrateError>() {
            Some(MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _)) => Some(error),
            Some(_) => None,
            None => outage.source.downcast_ref::<sqlx::Error>(),
        };
        match cause {
            Some(error @ sqlx::Error::Database(_)) => Outage { source: self.describe(error).into(), ..outage },
            Some(_) | None => outage,
        }
    }

    fn describe(&self, error: &sqlx::Error) -> Unreachable {
        match error {
            // Only the message: the other fields refer to the server's source code.
            sqlx::Error::Database(error) => {
                let remedy = self.find_remedy(&error.code().unwrap_or_default(), error.message());
                self.unreachable(error.message().to_owned(), remedy)
            }
            sqlx::Error::Io(error) => self.unreachable(error.to_string(), CHECK_ADDRESS_REMEDY.into()),
            sqlx::Error::Tls(error) => {
                let remedy = "see `sslmode` and `sslrootcert` in the store's URL";
                self.unreachable(format!("TLS: {error}"), remedy.into())
            }
            sqlx::Error::Configuration(error) => self.unreachable(error.to_string(), String::new()),
            other => self.unreachable(other.to_string(), String::new()),
        }
    }

    /// Returns the remedy for an error of the server, by its code (PostgreSQL manual, appendix A).
    fn find_remedy(&self, code: &str, message: &str) -> String {
        let user = self.options.get_username();
        match code {
            "28P01" | "28000" => "correct the user and the password in the store's URL".into(),
            "3D000" => "create the database, or correct its name in the store's URL".into(),
            "53300" => "raise the server's connection limit, or lower `max_connections` in `[store]`".into(),
            "25006" => "the server accepts no writes; use the URL of the primary".into(),
            "53100" => "free space on the server's disk".into(),
            // The message names the object, and its kind before the name.
            "42501" if message.contains(" schema ") => {
                format!("run `GRANT USAGE, CREATE ON SCHEMA public TO \"{user}\"` as the owner of the database")
            }
            "42501" => {
                format!("run deploy/postgres/service-role.sql for the role \"{user}\" as the owner of the tables")
            }
            "08P01" if message.contains("startup parameter") => {
                "add the parameter to `ignore_startup_parameters` in PgBouncer's configuration, or remove it from the store's URL".into()
            }
            _ => String::new(),
        }
    }

    fn unusable(&self, server: &UnusableServer) -> Unreachable {
        self.unreachable(server.to_string(), String::new())
    }

    fn unreachable(&self, reason: String, remedy: String) -> Unreachable {
        let options = &self.options;
        let host = match options.get_socket() {
            Some(folder) => folder.display().to_string(),
            None => options.get_host().to_owned(),
        };
        let (user, port, database) = (options.get_username(), options.get_port(), self.database());
        Unreachable { location: format!("{host}:{port}, database `{database}`, user `{user}`"), reason, remedy }
    }
}

/// Returns whether an error means that the server accepts no connection at all: its address
/// refuses, it is starting, stopping or recovering, or it has no such database.
fn is_server_down(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(error) => matches!(
            error.kind(),
            ErrorKind::ConnectionRefused
                | ErrorKind::NotFound
                | ErrorKind::HostUnreachable
                | ErrorKind::NetworkUnreachable
        ),
        sqlx::Error::Database(error) => error.code().is_some_and(|code| ["57P03", "3D000"].contains(&&*code)),
        _ => false,
    }
}

/// The task that watches an unavailable server. Dropping it allows another one to start.
struct Watch(Weak<ServerProbe>);

impl Watch {
    async fn run(&self) {
        while let Some(server) = self.0.upgrade() {
            server.is_watch_wanted.store(false, Ordering::SeqCst);
            let found = server.find_outage().await;
            let is_available = found.is_none();
            server.outage.send_replace(found);
            drop(server);
            sleep(if is_available { TEST_INTERVAL } else { RETRY_INTERVAL }).await;
            let is_wanted = |server: Arc<ServerProbe>| server.is_watch_wanted.load(Ordering::SeqCst);
            if is_available && !self.0.upgrade().is_some_and(is_wanted) {
                return;
            }
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        if let Some(server) = self.0.upgrade() {
            server.is_watching.store(false, Ordering::SeqCst);
        }
    }
}

const CHECK_ADDRESS_REMEDY: &str = "start the server, or correct the host and the port in the store's URL";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_servers_and_standbys_are_refused_by_name() {
        let check = |version, name: &str, is_standby| {
            check_server(version, name.to_owned(), is_standby).map_err(|unusable| unusable.to_string())
        };
        for (version, name) in [(150_000, "15.0"), (150_018, "15.18"), (180_004, "18.4"), (200_000, "20beta1")] {
            assert_eq!(check(version, name, false), Ok(()), "{name}");
            assert!(check(version, name, true).unwrap_err().contains("standby"), "{name}");
        }
        for (version, name) in [(149_999, "14.99"), (140_009, "14.9 (Debian)"), (90_624, "9.6.24")] {
            for is_standby in [false, true] {
                let text = check(version, name, is_standby).unwrap_err();
                assert!(text.contains(name) && text.contains("version 15 or later"), "{text}");
            }
        }
    }

    /// Every remedy is for its own code, and none mentions the pools of Errand where no connection
    /// was ever good.
    #[test]
    fn remedies_follow_the_code() {
        let options = "postgres://service:hunter2@db/errand".parse::<PgConnectOptions>().unwrap();
        let server = ServerProbe::new(options, 22);
        for (code, message, want) in [
            ("28P01", "password authentication failed for user", "correct the user and the password"),
            ("28000", "no pg_hba.conf entry", "correct the user and the password"),
            ("3D000", "database \"x\" does not exist", "create the database"),
            ("53300", "sorry, too many clients already", "raise the server's connection limit"),
            ("53100", "could not extend file", "free space"),
            ("25006", "cannot execute INSERT in a read-only transaction", "use the URL of the primary"),
            ("42501", "permission denied for schema public", "GRANT USAGE, CREATE ON SCHEMA public TO \"service\""),
            (
                "42501",
                "permission denied for table tasks",
                "run deploy/postgres/service-role.sql for the role \"service\"",
            ),
            ("08P01", "unsupported startup parameter: options", "`ignore_startup_parameters`"),
            ("08P01", "something else", ""),
            ("XX000", "internal error", ""),
        ] {
            let remedy = server.find_remedy(code, message);
            assert!(remedy.contains(want) && (remedy.is_empty() == want.is_empty()), "{code}: {remedy}");
            assert!(!remedy.contains("hunter2"));
        }
    }
}
