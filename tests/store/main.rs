//! The conformance suite of the store ports: every case runs on SQLite and on PostgreSQL.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    unreachable_pub,
    reason = "a failed assumption fails the test"
)]

/// Runs each case on a new store of each kind.
macro_rules! conformance {
    ($($case:ident),* $(,)?) => {
        mod sqlite {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                super::$case(&crate::support::TestStore::sqlite().await).await;
            })*
        }

        mod postgres {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                super::$case(&crate::support::TestStore::postgres().await).await;
            })*
        }
    };
}

mod audit;
mod break_glass;
mod commit_errors;
mod fixtures;
mod lists;
mod log;
mod log_compaction;
mod preconditions;
mod registry;
mod replicas;
mod retention;
mod schema;
mod status_lists;
#[path = "../support/mod.rs"]
mod support;
mod tampering;
mod tasks;
