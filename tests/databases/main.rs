//! Databases as operators run them: failovers, poolers, missing rights, full disks, wrong clocks.
//! These tests start PostgreSQL servers of their own.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::disallowed_methods,
    unreachable_pub,
    reason = "a failed assumption fails the test"
)]

mod clock;
mod cluster;
mod disk;
mod failover;
#[path = "../store/fixtures.rs"]
#[expect(dead_code, reason = "the conformance suite uses the rest")]
mod fixtures;
#[path = "../support/machine.rs"]
mod machine;
mod pgbouncer;
#[path = "../support/port.rs"]
mod port;
mod rights;
#[path = "../support/sealer.rs"]
mod sealer;

use std::{sync::Arc, time::Duration};

use errand::{
    adapters::store::{Database, StoreOptions, connect},
    domain::audit::WriterId,
    ports::{Outage, StateChange, WriteSet},
};
use uuid::Uuid;

use sealer::sealer;

/// Opens the store at a URL, with limits that keep a test short.
async fn open(url: &str) -> Arc<dyn Database> {
    open_with(url, StoreOptions::default()).await
}

/// Opens a store whose calls would wait for ten minutes where they wait for a connection.
async fn open_patient(url: &str) -> Arc<dyn Database> {
    open_with(url, StoreOptions { acquire_timeout: Duration::from_mins(10), ..StoreOptions::default() }).await
}

async fn open_with(url: &str, options: StoreOptions) -> Arc<dyn Database> {
    let options = StoreOptions { max_connections: 4, list_connections: 2, ..options };
    let store = connect(url, &options).await.unwrap();
    store.unlock(sealer());
    store
}

/// Creates the schema, and seals the new store as the first start of a server does.
async fn create_schema(store: &dyn Database) {
    store.migrate().await.unwrap();
    let seal = WriteSet { state_changes: vec![StateChange::SealNewStore], ..WriteSet::default() };
    store.commit(WriterId(Uuid::nil()), &[seal]).await.unwrap();
}

/// Fails if the calls wait for a connection of a store of [`open_patient`].
async fn without_waiting<T>(calls: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_mins(2), calls)
        .await
        .unwrap_or_else(|_| panic!("a call waited for a connection"))
}

fn error_text(outage: &Outage) -> String {
    errand::ports::ErrorChain(outage).to_string()
}

/// Waits until a condition holds, with a limit.
async fn wait_until(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    for _ in 0..2400 {
        if condition().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("timed out: {what}");
}
