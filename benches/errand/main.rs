//! Benchmark of the server:
//!
//! - `./dev bench [quick] [sqlite] [postgres]`: throughput and latency of Errand, compared with the
//!   limits of the machine;
//! - `./dev bench ab OLD NEW [sqlite|postgres] [ROUNDS]`: two builds, compared by server CPU per
//!   request;
//! - `./dev bench siege [SECONDS] [KIND...]`: three replicas under attack by hostile clients;
//! - `./dev bench profile exchange|introspect sqlite|postgres`: one load for a minute, to profile
//!   the server.
//!
//! The server is `errand serve` on one core; this program generates the load on the others. For
//! comparison, the same run measures an empty handler behind the same HTTP server, and the bare
//! cost of the signatures that a request needs. Absolute numbers depend on the machine and its
//! other load; the ratios are comparable.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::disallowed_methods,
    missing_debug_implementations,
    unreachable_pub,
    reason = "a benchmark fails by panicking, and acts as the environment, clocks included"
)]

mod ab;
mod clients;
mod empty_handler;
mod fixtures;
mod hostile;
mod load;
mod machine;
mod process;
mod raw_signatures;
mod report;
mod rounds;
mod siege;
#[expect(dead_code, reason = "tests use more of it")]
#[path = "../../tests/support/mod.rs"]
mod support;

use std::{env, time::Duration};

use report::Report;
use support::TestStore;

/// The allocator of the server, so that the empty handler is not slower without it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Extent of the measurements.
#[derive(Clone, Copy)]
pub struct Plan {
    /// Duration of a measurement.
    pub duration: Duration,
    /// Number of measurements of each kind; the median counts.
    pub repetitions: usize,
    /// Number of clients, each with one connection and one request at a time.
    pub clients: &'static [usize],
    /// Number of revocations, and of requests without load.
    pub singles: usize,
}

const FULL_PLAN: Plan = Plan { duration: Duration::from_secs(2), repetitions: 5, clients: &[1, 16, 64], singles: 300 };
const QUICK_PLAN: Plan = Plan { duration: Duration::from_millis(500), repetitions: 1, clients: &[1, 16], singles: 50 };

fn main() {
    // `cargo bench` appends `--bench`.
    let words = env::args().skip(1).filter(|word| word != "--bench").collect::<Vec<_>>();
    if words.first().is_some_and(|word| word == empty_handler::COMMAND) {
        return empty_handler::serve(&words[1..]);
    }
    if words.first().is_some_and(|word| word == hostile::COMMAND) {
        return hostile::run(&words[1..]);
    }
    if words.first().is_some_and(|word| word == "siege") {
        machine::leave_core(process::SERVER_CORE);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        return runtime.block_on(siege::run(&words[1..]));
    }
    if words.first().is_some_and(|word| word == "ab") {
        let (old, new, stores, rounds) = ab::parse(&words[1..]).unwrap_or_else(|error| {
            eprintln!("{error}");
            std::process::exit(2)
        });
        machine::leave_core(process::SERVER_CORE);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        return runtime.block_on(ab::run(&old, &new, &stores, rounds));
    }
    let known = ["quick", "sqlite", "postgres", "profile", "exchange", "introspect"];
    if let Some(word) = words.iter().find(|word| !known.contains(&word.as_str())) {
        eprintln!(
            "unknown argument `{word}`; usage: ./dev bench [quick] [profile exchange|introspect] [sqlite] [postgres]"
        );
        std::process::exit(2);
    }
    let plan = if words.iter().any(|word| word == "quick") { QUICK_PLAN } else { FULL_PLAN };
    let named = |store: &str| words.iter().any(|word| word == store);
    let both = !named("sqlite") && !named("postgres");
    if (both || named("postgres")) && env::var_os("ERRAND_TEST_POSTGRES_URL").is_none() {
        eprintln!("ERRAND_TEST_POSTGRES_URL is not set; run `./dev bench`, or set it to a durable PostgreSQL server");
        std::process::exit(2);
    }
    // Before the first thread starts, so that all threads stay off the server's core.
    machine::leave_core(process::SERVER_CORE);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        if named("profile") {
            let store = if named("sqlite") { TestStore::sqlite().await } else { TestStore::postgres().await };
            return rounds::profile(store, named("exchange")).await;
        }
        let mut report = Report::new(plan);
        if both || named("sqlite") {
            rounds::measure("sqlite", TestStore::sqlite().await, plan, &mut report).await;
            clients::measure_single_commits("sqlite", TestStore::sqlite().await, plan, &mut report).await;
        }
        if both || named("postgres") {
            rounds::measure("postgres", TestStore::postgres().await, plan, &mut report).await;
            clients::measure_single_commits("postgres", TestStore::postgres().await, plan, &mut report).await;
        }
        report.print();
        let file = report.write();
        println!("\nAll numbers are in {}.", file.display());
    });
}
