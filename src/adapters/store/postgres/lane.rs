//! The lanes on PostgreSQL.

use std::{
    ops::{Deref, DerefMut},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use sqlx::{
    Connection, PgConnection, PgPool, Postgres,
    pool::PoolConnection,
    postgres::{PgConnectOptions, PgPoolOptions},
};
use tokio::time::{sleep, timeout};

use super::{
    probe::{ServerProbe, SessionSettings, configure_session},
    sql,
};
use crate::{
    adapters::store::lane::{CallError, OP_CONNECT},
    ports::Outage,
};

/// The time since its last use for which a connection counts as alive. A connection is tested when
/// it is returned to the pool, so only a server that disappears in the meantime goes unnoticed.
const PING_FRESHNESS: Duration = Duration::from_secs(1);
/// The time that the test of a connection may take, before its use and after. A silent connection
/// is closed and replaced by a new one.
const PING_TIMEOUT: Duration = Duration::from_secs(1);
const RELEASE_PING_TIMEOUT: Duration = Duration::from_secs(3);
/// The time after which a call that still waits for a connection finds out whether the server is
/// there.
const PROBE_DELAY: Duration = Duration::from_millis(150);

/// The work that a lane does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Work {
    /// The follower, the lease, readiness, and what revokes.
    Reserved,
    /// Exchanges and lookups.
    Requests,
    /// Lists and searches.
    Lists,
    /// Commits.
    Commits,
}

impl Work {
    /// Returns the remedy if all connections stay in use.
    fn remedy_if_full(self) -> &'static str {
        match self {
            Self::Requests => "raise `max_connections` in `[store]` if this persists",
            Self::Lists => "raise `list_connections` in `[store]` if this persists, or send fewer lists at once",
            Self::Reserved | Self::Commits => "look for slow statements in the server's log",
        }
    }
}

/// A pool of connections for one kind of work.
#[derive(Clone)]
pub(super) struct Lane {
    work: Work,
    pool: PgPool,
    statement_timeout: Duration,
    server: Arc<ServerProbe>,
    /// The number of pooled connections to test before they count as alive again, because another
    /// one was found broken.
    suspects: Arc<AtomicU32>,
}

impl Lane {
    /// Creates a lane. Connections are opened when they are needed.
    pub(super) fn new(
        work: Work,
        connections: u32,
        acquire_timeout: Duration,
        settings: SessionSettings,
        server: &Arc<ServerProbe>,
    ) -> Self {
        let statement_timeout = settings.statement_timeout;
        let suspects = Arc::<AtomicU32>::default();
        let tested = Arc::clone(&suspects);
        let options = PgPoolOptions::new()
            .max_connections(connections)
            .acquire_timeout(acquire_timeout)
            // A connection that was in use a moment ago is not tested, which saves a round trip.
            .test_before_acquire(false)
            .before_acquire(move |connection, meta| {
                let take = |count: u32| count.checked_sub(1);
                let is_suspect = tested.fetch_update(Ordering::SeqCst, Ordering::SeqCst, take).is_ok();
                Box::pin(async move {
                    if is_suspect || meta.idle_for >= PING_FRESHNESS {
                        check_alive(connection, PING_TIMEOUT).await?;
                    }
                    Ok(true)
                })
            })
            // The last user may have timed out, so that a response is still due, or never comes.
            .after_release(|connection, _| {
                Box::pin(async move { check_alive(connection, RELEASE_PING_TIMEOUT).await.map(|()| true) })
            })
            .after_connect(move |connection, _| {
                let settings = settings.clone();
                Box::pin(async move {
                    configure_session(connection, &settings)
                        .await?
                        .map_err(|unusable| sqlx::Error::Configuration(unusable.into()))
                })
            });
        let pool = options.connect_lazy_with(PgConnectOptions::clone(server.options()));
        Self { work, pool, statement_timeout, server: Arc::clone(server), suspects }
    }

    /// Returns the number of open connections.
    pub(super) fn size(&self) -> u32 {
        self.pool.size()
    }

    /// Takes a connection. If the server is known to be unavailable, the call fails at once; if it
    /// becomes known during the call, the call does not wait any longer.
    pub(super) async fn acquire(&self) -> Result<LaneConnection, Outage> {
        let outage = Outage::during(OP_CONNECT);
        if let Some(known) = self.server.known_outage() {
            self.server.start_watch();
            return Err(outage(known));
        }
        let mut acquired = Box::pin(self.pool.acquire());
        let result = tokio::select! {
            biased;
            result = &mut acquired => result,
            () = sleep(PROBE_DELAY) => {
                self.server.start_watch();
                tokio::select! {
                    biased;
                    result = &mut acquired => result,
                    known = self.server.wait_for_outage() => return Err(outage(known)),
                }
            }
        };
        match result {
            Ok(connection) => Ok(LaneConnection { connection, lane: self.clone() }),
            Err(error) => {
                self.server.start_watch();
                let limit = self.pool.options().get_max_connections();
                let source = self.server.diagnose(error, self.work.remedy_if_full(), (self.size(), limit)).await;
                Err(Outage { operation: OP_CONNECT, source })
            }
        }
    }
}

async fn check_alive(connection: &mut PgConnection, time_limit: Duration) -> Result<(), sqlx::Error> {
    match timeout(time_limit, connection.ping()).await {
        Ok(answer) => answer,
        Err(late) => Err(sqlx::Error::Io(late.into())),
    }
}

/// A connection of a lane.
pub(super) struct LaneConnection {
    connection: PoolConnection<Postgres>,
    lane: Lane,
}

impl LaneConnection {
    /// Returns the limit of the call.
    pub(super) fn limit(&self) -> CallLimit {
        CallLimit(self.lane.statement_timeout)
    }

    /// Ends the use of the connection. A broken one is closed, and the others are tested before
    /// their next use: the server may have ended all of them.
    pub(super) fn conclude<T, E: CallError>(mut self, result: Result<T, E>) -> Result<T, E> {
        if result.as_ref().is_err_and(|error| error.outage().is_some_and(breaks_connection)) {
            self.connection.close_on_drop();
            self.lane.suspects.store(self.lane.size(), Ordering::SeqCst);
        }
        result
    }
}

/// Returns whether an outage means that the connection can't be used any longer.
fn breaks_connection(outage: &Outage) -> bool {
    match outage.source.downcast_ref::<sqlx::Error>() {
        Some(sqlx::Error::Database(error)) => error.code().is_some_and(|code| sql::ends_session(&code)),
        Some(sqlx::Error::Io(_) | sqlx::Error::Tls(_) | sqlx::Error::Protocol(_)) => true,
        Some(_) | None => false,
    }
}

impl Deref for LaneConnection {
    type Target = PgConnection;

    fn deref(&self) -> &PgConnection {
        &self.connection
    }
}

impl DerefMut for LaneConnection {
    fn deref_mut(&mut self) -> &mut PgConnection {
        &mut self.connection
    }
}

/// The limit of one call, which the server enforces as `statement_timeout`.
pub(super) struct CallLimit(Duration);

impl CallLimit {
    /// Returns the result of the call. A statement that the server canceled took too long.
    pub(super) async fn apply<T, E: CallError>(self, call: impl Future<Output = Result<T, E>>) -> Result<T, E> {
        let result = call.await;
        let is_canceled = |outage: &Outage| match outage.source.downcast_ref::<sqlx::Error>() {
            Some(sqlx::Error::Database(error)) => error.code().is_some_and(|code| sql::is_statement_timeout(&code)),
            Some(_) | None => false,
        };
        match result {
            Err(error) if error.outage().is_some_and(is_canceled) => Err(error.or_timed_out(self.0)),
            result => result,
        }
    }
}
