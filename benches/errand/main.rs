//! `./dev bench [quick] [sqlite] [postgres]`: what Errand does in a second, beside what the machine could do at best.
//! `./dev bench ab OLD NEW [sqlite|postgres] [ROUNDS]`: two builds beside each other, by server CPU for one request.
//! `./dev bench profile exchange|introspect sqlite|postgres`: one load, kept up for a minute, for a profiler to look at the server.
//!
//! The server is the program itself (`errand serve`), on one core; the load comes from here, on the others. In the same
//! run and under the same load stands an empty handler behind the same HTTP server, and the bare cost of the signatures
//! that a request needs. Absolute numbers belong to a machine and its mood; what stays are the ratios.
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
    reason = "a benchmark: to stop is how it says no, and it plays the part of the world outside, clocks included"
)]

mod ab;
mod clients;
mod empty_handler;
mod fixtures;
mod load;
mod machine;
mod process;
mod raw_signatures;
mod report;
mod rounds;
#[expect(dead_code, reason = "tests need more of a store than we do")]
#[path = "../../tests/support/mod.rs"]
mod support;

use std::{env, time::Duration};

use report::Report;
use support::TestStore;

/// The one that the program has: the empty handler shall not be slower for the lack of it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// How much is measured.
#[derive(Clone, Copy)]
pub struct Plan {
    /// How long one measurement takes.
    pub duration: Duration,
    /// How many there are of each, of which the median counts.
    pub repetitions: usize,
    /// How many clients there are, each with one connection and one request at a time.
    pub clients: &'static [usize],
    /// How many revocations, and how many requests at leisure.
    pub singles: usize,
}

const FULL_PLAN: Plan = Plan { duration: Duration::from_secs(2), repetitions: 5, clients: &[1, 16, 64], singles: 300 };
const QUICK_PLAN: Plan = Plan { duration: Duration::from_millis(500), repetitions: 1, clients: &[1, 16], singles: 50 };

fn main() {
    // `cargo bench` puts `--bench` at the end.
    let words = env::args().skip(1).filter(|word| word != "--bench").collect::<Vec<_>>();
    if words.first().is_some_and(|word| word == empty_handler::COMMAND) {
        return empty_handler::serve(&words[1..]);
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
            "`{word}` is not known; usage: ./dev bench [quick] [profile exchange|introspect] [sqlite] [postgres]"
        );
        std::process::exit(2);
    }
    let plan = if words.iter().any(|word| word == "quick") { QUICK_PLAN } else { FULL_PLAN };
    let named = |store: &str| words.iter().any(|word| word == store);
    let both = !named("sqlite") && !named("postgres");
    if (both || named("postgres")) && env::var_os("ERRAND_TEST_POSTGRES_URL").is_none() {
        eprintln!(
            "no Postgres to measure: run `./dev bench`, or set ERRAND_TEST_POSTGRES_URL to a server that is durable"
        );
        std::process::exit(2);
    }
    // Before the first thread, so that all of them stay off the server's core.
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
        println!("\nEvery number is in {}.", file.display());
    });
}
