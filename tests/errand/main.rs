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
    reason = "a test: to stop is how it says no, it plays the part of the world outside, clocks included, and its tables are as long as they are"
)]

#[path = "../support/idp.rs"]
mod idp;
#[path = "../support/server.rs"]
mod server;
#[path = "../support/mod.rs"]
mod support;

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

mod answers;
mod arguments;
mod beside_the_log;
mod binary;
mod break_glass;
mod bulk;
mod bursts;
mod calls;
mod catalogue;
mod clients;
mod clocks;
mod consent;
mod delegation;
mod feed;
mod grammar;
mod group_commit;
mod heard_late;
mod hostile;
mod introspection;
mod jwks;
mod keys;
mod known_again;
mod listening;
mod namesakes;
mod one_errand;
mod outage;
mod owners;
mod portal;
mod race;
mod refusals;
mod registry;
mod replicas;
mod revocation;
mod secrecy;
mod shop;
mod shut_out;
mod silence;
mod splice;
mod status_lists;
mod strangers;
mod task_life;
mod tasks;
mod tokens;
mod trail;
mod txn;
mod types;
mod went_back;
