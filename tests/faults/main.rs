//! Fault test: three replicas on one PostgreSQL server, under load and fault injection.
//!
//! The nemesis kills, pauses, disconnects and restarts processes, while the clients of the workload
//! issue, introspect and revoke tokens. The recorder writes every call with its start and its end
//! into the history. The checker then searches the history for violations: `checker.rs` lists them.
//! `./dev soak` runs the test for longer.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::disallowed_methods,
    unreachable_pub,
    reason = "a test fails by panic, acts as the environment, clocks included, and prints its measurements"
)]

mod admin_requests;
mod bulk_changes;
mod checker;
#[cfg(test)]
mod checker_bulk_tests;
#[cfg(test)]
mod checker_tests;
mod cluster;
mod effects;
mod frozen_clock;
mod history;
#[expect(dead_code, reason = "other tests use more of a key")]
#[path = "../support/idp.rs"]
mod idp;
mod nemesis;
mod proxy;
mod recorder;
mod report;
mod scenarios;
mod seeded_rng;
mod workload;

use std::{
    collections::BTreeMap,
    env,
    fmt::Write,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use sqlx::{Connection, PgConnection, Row};

use checker::{StoredState, Violation, find_violations};
use cluster::{Cluster, Program, REPLICAS};
use history::Call;
use nemesis::Nemesis;
use recorder::Recorder;
use report::Summary;
use seeded_rng::SeededRng;
use workload::Workload;

/// Time for which faults are injected, unless `./dev soak` sets another one.
const DEFAULT_DURATION: Duration = Duration::from_secs(30);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cluster_survives_faults() {
    let number = |name| env::var(name).ok().map(|text| text.parse::<u64>().unwrap_or_else(|_| panic!("{name}")));
    let seed = number("ERRAND_FAULTS_SEED").unwrap_or_else(random_seed);
    let duration = number("ERRAND_FAULTS_SECONDS").map_or(DEFAULT_DURATION, Duration::from_secs);
    println!("seed {seed}: set ERRAND_FAULTS_SEED={seed} to repeat the same random choices");
    let mut rng = SeededRng::new(seed);

    let cluster = Arc::new(Cluster::prepare().await);
    for number in 0..REPLICAS {
        cluster.start(number, Program::Errand);
        cluster.wait_until_ready(number, Program::Errand).await;
    }
    let recorder = Arc::new(Recorder::new(Arc::clone(&cluster)));
    let workload = Workload::new(Arc::clone(&recorder));
    let clients = workload.spawn_clients(&mut rng);
    let nemesis = Nemesis::new(Arc::clone(&cluster));
    // Ctrl-C ends the faults early: the checker still reads the history until then, and the
    // database is stopped.
    let interrupted = tokio::spawn({
        let nemesis = Arc::clone(&nemesis);
        async move {
            tokio::signal::ctrl_c().await.unwrap();
            nemesis.end();
        }
    });
    let fault_counts = nemesis.run(rng.split(), duration).await;
    interrupted.abort();
    workload.stop();
    clients.join_all().await;

    // All faults are over: every replica must answer now.
    for number in 0..REPLICAS {
        cluster.wait_until_ready(number, Program::Errand).await;
    }
    workload.introspect_all().await;
    let faults_ended = recorder.now();
    workload.apply_final_changes(&mut rng).await;
    let revocations_started = recorder.now();
    workload.revoke_all().await;
    let crashed_at = recorder.now();
    cluster.replicas[REPLICAS - 1].kill();
    workload.revoke_one(0, 0).await;
    for replica in &cluster.replicas {
        replica.stop().await;
    }
    let (is_intact, output) = cluster.run_errand(&["audit", "verify"]).await;
    assert!(is_intact, "`errand audit verify` failed: {output}");

    let history = recorder.history();
    let summary = Summary::new(&history);
    let (during_faults, after_faults) =
        history.iter().cloned().partition::<Vec<_>, _>(|call| call.start < faults_ended);
    let final_calls = after_faults.into_iter().filter(|call| call.start >= revocations_started).collect::<Vec<_>>();
    let (without_faults, after_crash) = final_calls.into_iter().partition::<Vec<_>, _>(|call| call.start < crashed_at);
    println!(
        "{}without faults:\n{}",
        summary.render(seed, duration, fault_counts),
        Summary::new(&without_faults).render_times()
    );
    println!("right after a crash:\n{}", Summary::new(&after_crash).render_times());
    let violations = find_violations(&history, &read_stored_state(&cluster).await);
    assert!(violations.is_empty(), "seed {seed}: {}", explain_violations(&violations, &history));
    // A run that lacks one of these results or changes has not checked it.
    let Summary { issued, active, inactive, ended, suspended, resumed, .. } = &summary;
    for (name, count) in [
        ("tokens issued", issued),
        ("active", active),
        ("inactive", inactive),
        ("ended", ended),
        ("suspended", suspended),
        ("resumed", resumed),
    ] {
        assert!(*count > 0, "no call of the run had the result `{name}`");
    }
    for change in [
        "end selection",
        "suspend selection",
        "resume selection",
        "revoke grant",
        "remove key",
        "block requester",
        "unblock requester",
    ] {
        assert!(summary.done.contains_key(change), "the run made no change `{change}`");
    }
    for (name, count) in [
        ("kills", fault_counts.kills),
        ("pauses", fault_counts.pauses),
        ("cuts", fault_counts.cuts),
        ("blocked links", fault_counts.blocks),
        ("half-open links", fault_counts.silences),
    ] {
        assert!(count > 0, "the run injected no {name}");
    }
    assert!(fault_counts.swallowed > 0, "the half-open links lost no data");
    let Summary { active, ended, .. } = Summary::new(&during_faults);
    assert!(active > 0 && ended > 0, "{active} times active, {ended} ends during the faults; both must be above zero");
}

/// Reads the issued tokens and the revocation log from the database, after all replicas have
/// stopped.
async fn read_stored_state(cluster: &Cluster) -> StoredState {
    let mut connection = PgConnection::connect(&cluster.postgres.url()).await.unwrap();
    let tokens = sqlx::query("SELECT id::text FROM tokens").fetch_all(&mut connection).await.unwrap();
    StoredState { tokens: tokens.iter().map(|row| row.get("id")).collect(), log: read_log(cluster).await }
}

/// Reads the revocation log: verb, kind and key by position.
async fn read_log(cluster: &Cluster) -> BTreeMap<u64, (String, String, String)> {
    let mut connection = PgConnection::connect(&cluster.postgres.url()).await.unwrap();
    let log = sqlx::query("SELECT seq, verb, kind, key FROM revocation_log").fetch_all(&mut connection).await.unwrap();
    let position = |row: &sqlx::postgres::PgRow| u64::try_from(row.get::<i64, _>("seq")).unwrap();
    log.iter().map(|row| (position(row), (row.get("verb"), row.get("kind"), row.get("key")))).collect()
}

/// Renders the first ten violations, with every call that mentions the token of the first one.
fn explain_violations(violations: &[Violation], history: &[Call]) -> String {
    let mut text = format!("{} violations\n", violations.len());
    for violation in violations.iter().take(10) {
        let _ = writeln!(text, "{violation:?}");
    }
    if let Some(Violation::Active { token, .. } | Violation::Inactive { token, .. }) = violations.first() {
        for call in history.iter().filter(|call| format!("{:?}", call.event).contains(token)) {
            let _ = writeln!(text, "{call:?}");
        }
    }
    text
}

fn random_seed() -> u64 {
    u64::from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().subsec_nanos())
}
