//! The lanes on SQLite: pools of readers, and the writer.

use std::{
    ops::{Deref, DerefMut},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use sqlx::{Sqlite, SqliteConnection, SqlitePool, pool::PoolConnection};
use tokio::time::timeout;

use super::sql;
use crate::{
    adapters::store::{
        batch::is_data_error,
        lane::{CallError, OP_CONNECT},
    },
    ports::Outage,
};

/// The number of steps of SQLite's virtual machine after which a limited statement looks whether it
/// was stopped: well below a millisecond.
const STEPS_PER_CHECK: i32 = 10_000;

/// A pool of connections for one kind of work.
#[derive(Clone)]
pub(super) struct Lane {
    pool: SqlitePool,
    /// The time that a call may take.
    time_limit: Option<Duration>,
    /// Whether a connection must not be closed, since the database ends with it.
    is_in_memory: bool,
}

impl Lane {
    pub(super) fn new(pool: SqlitePool, is_in_memory: bool) -> Self {
        Self { pool, time_limit: None, is_in_memory }
    }

    /// Limits the time that a call may take.
    pub(super) fn with_time_limit(self, time_limit: Duration) -> Self {
        Self { time_limit: Some(time_limit), ..self }
    }

    /// Returns the number of open connections.
    pub(super) fn size(&self) -> u32 {
        self.pool.size()
    }

    /// Takes a connection.
    pub(super) async fn acquire(&self) -> Result<LaneConnection, Outage> {
        let mut connection = self.pool.acquire().await.map_err(Outage::during(OP_CONNECT))?;
        let stopped = Arc::<AtomicBool>::default();
        if self.time_limit.is_some() {
            let is_stopped = Arc::clone(&stopped);
            let mut handle = connection.lock_handle().await.map_err(Outage::during(OP_CONNECT))?;
            handle.set_progress_handler(STEPS_PER_CHECK, move || !is_stopped.load(Ordering::Relaxed));
        }
        let (time_limit, is_in_memory) = (self.time_limit, self.is_in_memory);
        Ok(LaneConnection { connection, limit: CallLimit { time_limit, stopped }, is_in_memory })
    }
}

/// A connection of a lane. Dropping it stops a limited statement that is still running.
pub(super) struct LaneConnection {
    connection: PoolConnection<Sqlite>,
    limit: CallLimit,
    is_in_memory: bool,
}

impl LaneConnection {
    /// Returns the limit of the call.
    pub(super) fn limit(&self) -> CallLimit {
        self.limit.clone()
    }

    /// Ends the use of the connection. After an error of the database the connection is closed: an
    /// error such as a full disk ends the transaction without sqlx noticing, and no further
    /// transaction could begin on it.
    pub(super) fn conclude<T, E: CallError>(mut self, result: Result<T, E>) -> Result<T, E> {
        let is_suspect = |outage: &Outage| {
            let is_sqlx = outage.source.is::<sqlx::Error>();
            is_sqlx && !is_data_error(outage, sql::is_data_error_code)
        };
        if !self.is_in_memory && result.as_ref().is_err_and(|error| error.outage().is_some_and(is_suspect)) {
            self.connection.close_on_drop();
        }
        result
    }
}

impl Drop for LaneConnection {
    fn drop(&mut self) {
        self.limit.stopped.store(true, Ordering::Relaxed);
    }
}

impl Deref for LaneConnection {
    type Target = SqliteConnection;

    fn deref(&self) -> &SqliteConnection {
        &self.connection
    }
}

impl DerefMut for LaneConnection {
    fn deref_mut(&mut self) -> &mut SqliteConnection {
        &mut self.connection
    }
}

/// The limit of one call.
#[derive(Clone)]
pub(super) struct CallLimit {
    time_limit: Option<Duration>,
    /// Set when the statement must stop.
    stopped: Arc<AtomicBool>,
}

impl CallLimit {
    /// Returns the result of the call, or an outage if it takes longer than the limit. The
    /// statement then stops.
    pub(super) async fn apply<T, E: CallError>(self, call: impl Future<Output = Result<T, E>>) -> Result<T, E> {
        let Some(time_limit) = self.time_limit else { return call.await };
        match timeout(time_limit, call).await {
            Ok(result) => result,
            Err(_) => {
                self.stopped.store(true, Ordering::Relaxed);
                Err(E::timed_out(time_limit))
            }
        }
    }
}
