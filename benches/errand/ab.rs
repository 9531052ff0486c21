//! `./dev bench ab OLD NEW`: compares two builds by the CPU time that the server spends on one
//! request.
//!
//! Three servers start at once, each on a database of its own: OLD, NEW, and OLD a second time.
//! Rounds are interleaved: in each round every server gets the same load, one after the other, in
//! an order that rotates. The difference between the two copies of OLD (A/A) is the noise of the
//! machine; a difference between OLD and NEW means something only beyond it.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use serde::Serialize;
use serde_json::json;

use crate::{
    fixtures::{Fixtures, UserTokens, access_token_of},
    load::{self, Requests},
    machine,
    process::{Server, free_address},
    report::median,
    rounds::start_program,
    support::TestStore,
};

/// How many introspected tokens a server knows.
const KNOWN_TOKENS: usize = 256;
/// How many clients send requests, each over one connection.
const CLIENTS: usize = 16;
/// Default number of rounds.
pub const DEFAULT_ROUNDS: usize = 21;
/// How long one server is under one load in one round.
const SLICE: Duration = Duration::from_millis(800);
/// Exchanges prepared for one slice. A server that is faster runs out of them, which shortens its
/// slice only.
const EXCHANGES_PER_SLICE: usize = 4_000;
const OPERATIONS: [&str; 3] = ["exchange, ES256", "exchange, RS256", "introspect, again"];
const NAMES: [&str; 3] = ["OLD", "NEW", "OLD, second copy"];

/// One build under test, with its own database and its own parties.
struct Variant {
    fixtures: Fixtures,
    server: Server,
    known: Vec<String>,
    /// Server CPU and PostgreSQL CPU of one request in microseconds, by operation and round.
    samples: [Vec<(f64, f64)>; OPERATIONS.len()],
    // The folder holds the configuration and the log; the store lives as long as the server.
    folder: tempfile::TempDir,
    _store: TestStore,
}

/// What the comparison found for one operation. Microseconds of CPU for one request, medians over
/// all rounds.
#[derive(Serialize)]
struct Comparison {
    store: &'static str,
    operation: &'static str,
    rounds: usize,
    old_us: f64,
    new_us: f64,
    /// Median of the differences within a round, NEW minus OLD.
    difference_us: f64,
    /// The same for the two copies of OLD: the noise.
    noise_us: f64,
    /// Half of the rounds lie within this distance of `noise_us`.
    noise_spread_us: f64,
    old_postgres_us: f64,
    new_postgres_us: f64,
}

/// Compares two programs on one store; returns what it found as JSON.
pub async fn compare(store: &'static str, programs: [&Path; 2], rounds: usize) -> serde_json::Value {
    let [old, new] = programs;
    let mut variants = Vec::new();
    for program in [old, new, old] {
        variants.push(Variant::start(store, program).await);
    }
    for round in 0..=rounds {
        for operation in 0..OPERATIONS.len() {
            for turn in 0..variants.len() {
                let at = (turn + round) % variants.len();
                // Round 0 warms up caches and connections.
                variants[at].run_slice(operation, round > 0).await;
            }
        }
    }
    let comparisons =
        (0..OPERATIONS.len()).map(|operation| Comparison::new(store, operation, &variants)).collect::<Vec<_>>();
    print(&comparisons);
    json!(comparisons)
}

impl Variant {
    async fn start(store: &str, program: &Path) -> Self {
        // Each program creates its own schema.
        let test_store =
            if store == "sqlite" { TestStore::empty_sqlite().await } else { TestStore::empty_postgres().await };
        let folder = tempfile::tempdir().unwrap();
        let fixtures = Fixtures::new(free_address());
        fixtures.configure(folder.path(), test_store.url());
        let check = |folder: &Path| {
            let status = Command::new(program).args(["check-config", "errand.toml"]).current_dir(folder).output();
            status.unwrap().status.success()
        };
        if !check(folder.path()) {
            fixtures.configure_without_limits(folder.path(), test_store.url());
        }
        let (config, log) = (folder.path().join("errand.toml"), folder.path().join("errand.log"));
        let server = start_program(program, &config, fixtures.address, &log).await;
        let requests = fixtures.exchanges(UserTokens::Es256, KNOWN_TOKENS);
        let issued = load::run(fixtures.address, &requests, CLIENTS, Duration::from_mins(1), true).await;
        let known = issued.bodies.iter().map(|body| access_token_of(body)).collect();
        Self { fixtures, server, known, samples: Default::default(), folder, _store: test_store }
    }

    async fn run_slice(&mut self, operation: usize, is_measured: bool) {
        let requests = self.requests(operation);
        let before = (machine::cpu_time_exact(self.server.id()), machine::cpu_time_of_all("postgres"));
        let outcome = load::run(self.fixtures.address, &requests, CLIENTS, SLICE, false).await;
        let after = (machine::cpu_time_exact(self.server.id()), machine::cpu_time_of_all("postgres"));
        if is_measured {
            let count = outcome.latencies.len() as f64;
            let server = (after.0 - before.0) / count;
            self.samples[operation].push((server, (after.1 - before.1) / count));
        }
        // Logs would fill the disk in a long comparison.
        fs::write(self.folder.path().join("errand.log"), "").unwrap();
    }

    fn requests(&self, operation: usize) -> Requests {
        match OPERATIONS[operation] {
            "exchange, ES256" => self.fixtures.exchanges(UserTokens::Es256, EXCHANGES_PER_SLICE),
            "exchange, RS256" => self.fixtures.exchanges(UserTokens::Rs256, EXCHANGES_PER_SLICE),
            _ => self.fixtures.introspections(&self.known, false),
        }
    }
}

impl Comparison {
    fn new(store: &'static str, operation: usize, variants: &[Variant]) -> Self {
        let [old, new, copy] = [0, 1, 2].map(|at| &variants[at].samples[operation]);
        let differences = |of: &[(f64, f64)]| of.iter().zip(old).map(|(one, old)| one.0 - old.0).collect::<Vec<_>>();
        let noise = differences(copy);
        let noise_us = median(noise.clone());
        let server = |of: &[(f64, f64)]| median(of.iter().map(|sample| sample.0).collect());
        let postgres = |of: &[(f64, f64)]| median(of.iter().map(|sample| sample.1).collect());
        Self {
            store,
            operation: OPERATIONS[operation],
            rounds: old.len(),
            old_us: server(old),
            new_us: server(new),
            difference_us: median(differences(new)),
            noise_us,
            noise_spread_us: median(noise.iter().map(|one| (one - noise_us).abs()).collect()),
            old_postgres_us: postgres(old),
            new_postgres_us: postgres(new),
        }
    }

    /// Whether the difference is larger than what two copies of one build show.
    fn is_beyond_noise(&self) -> bool {
        self.difference_us.abs() > self.noise_us.abs() + 2.0 * self.noise_spread_us
    }
}

fn print(comparisons: &[Comparison]) {
    println!(
        "\n{:<9} {:<18} {:>9} {:>9} {:>10} {:>16} {:>10} {:>10}",
        "store", "operation", "OLD us", "NEW us", "NEW-OLD", "A/A +- spread", "OLD pg us", "NEW pg us"
    );
    for one in comparisons {
        println!(
            "{:<9} {:<18} {:>9.2} {:>9.2} {:>+10.2} {:>+8.2} +- {:>4.2} {:>10.1} {:>10.1}  {}",
            one.store,
            one.operation,
            one.old_us,
            one.new_us,
            one.difference_us,
            one.noise_us,
            one.noise_spread_us,
            one.old_postgres_us,
            one.new_postgres_us,
            if one.is_beyond_noise() { "beyond noise" } else { "within noise" },
        );
    }
}

/// `ab OLD NEW [sqlite|postgres] [ROUNDS]`: the programs, the stores and the number of rounds.
pub fn parse(words: &[String]) -> Result<(PathBuf, PathBuf, Vec<&'static str>, usize), String> {
    let usage = "usage: ./dev bench ab OLD NEW [sqlite|postgres] [ROUNDS]";
    let [old, new, rest @ ..] = words else { return Err(usage.into()) };
    let (mut stores, mut rounds) = (Vec::new(), DEFAULT_ROUNDS);
    for word in rest {
        match (word.as_str(), word.parse::<usize>()) {
            ("sqlite", _) => stores.push("sqlite"),
            ("postgres", _) => stores.push("postgres"),
            (_, Ok(count)) if count > 0 => rounds = count,
            _ => return Err(format!("unknown argument `{word}`; {usage}")),
        }
    }
    if stores.is_empty() {
        stores = vec!["sqlite", "postgres"];
    }
    Ok((old.into(), new.into(), stores, rounds))
}

/// Runs the comparison that the command line asks for.
pub async fn run(old: &Path, new: &Path, stores: &[&'static str], rounds: usize) {
    println!("OLD is {}, NEW is {}; the third server is {}", old.display(), new.display(), NAMES[2]);
    let mut all = Vec::new();
    for store in stores {
        all.push(compare(store, [old, new], rounds).await);
    }
    let file = crate::report::target_folder().join("bench-ab.json");
    let report = json!({"machine": machine::describe(), "load_average": machine::load_average(), "clients": CLIENTS, "comparisons": all});
    fs::write(&file, serde_json::to_string_pretty(&report).unwrap() + "\n").unwrap();
    println!("\nMicroseconds of server CPU for one request, medians. All numbers are in {}.", file.display());
}
