//! Errand as its clients see it: over HTTP, on both stores.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::string_slice,
    clippy::needless_pass_by_value,
    clippy::panic,
    clippy::disallowed_methods,
    unreachable_pub,
    reason = "a test fails by panicking, and acts as the environment, clocks included"
)]

/// Runs each test on both stores, as `module::sqlite::name` and `module::postgres::name`.
macro_rules! on_both_stores {
    ($($name:ident),* $(,)?) => {
        mod sqlite {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $name() {
                super::$name(crate::server::Server::start(crate::support::TestStore::sqlite().await).await).await;
            })*
        }
        mod postgres {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $name() {
                super::$name(crate::server::Server::start(crate::support::TestStore::postgres().await).await).await;
            })*
        }
    };
}

mod audit;
mod auth;
mod cli;
mod evaluation;
mod exchange;
mod grants;
#[path = "../support/idp.rs"]
mod idp;
mod introspection;
mod keys;
#[path = "../support/machine.rs"]
#[expect(dead_code, reason = "other tests use the rest")]
mod machine;
mod mcp_server;
mod providers;
mod registry;
mod replication;
mod revocation;
#[path = "../support/server.rs"]
mod server;
#[path = "../support/mod.rs"]
mod support;
mod tasks;
mod transport;
