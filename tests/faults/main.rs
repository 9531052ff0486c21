//! Three replicas on one PostgreSQL, killed, paused, cut off and restarted, while tens of clients issue, ask and take back.
//! Every call is written down with its start and its end, and the checker reads what came of it: see `checker.rs` for what
//! must not happen. `./dev soak` runs it for longer.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::disallowed_methods,
    unreachable_pub,
    reason = "a test: to stop is how it says no, it plays the part of the world outside, clocks included, and tells what it saw"
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
#[expect(dead_code, reason = "others need more of a key than we do")]
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

/// How long the weather is bad, unless `./dev soak` says otherwise.
const DEFAULT_DURATION: Duration = Duration::from_secs(30);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cluster_survives_faults() {
    let number = |name| env::var(name).ok().map(|text| text.parse::<u64>().unwrap_or_else(|_| panic!("{name}")));
    let seed = number("ERRAND_FAULTS_SEED").unwrap_or_else(random_seed);
    let long = number("ERRAND_FAULTS_SECONDS").map_or(DEFAULT_DURATION, Duration::from_secs);
    println!("seed {seed}: ERRAND_FAULTS_SEED={seed} throws the same dice again");
    let mut dice = SeededRng::new(seed);

    let ground = Arc::new(Cluster::prepare().await);
    for number in 0..REPLICAS {
        ground.start(number, Program::Errand);
        ground.wait_until_ready(number, Program::Errand).await;
    }
    let caller = Arc::new(Recorder::new(Arc::clone(&ground)));
    let crowd = Workload::new(Arc::clone(&caller));
    let clients = crowd.spawn_clients(&mut dice);
    let weather = Nemesis::new(Arc::clone(&ground));
    // Who has seen enough sees what was found until then; and the database is ended.
    let interrupted = tokio::spawn({
        let weather = Arc::clone(&weather);
        async move {
            tokio::signal::ctrl_c().await.unwrap();
            weather.end();
        }
    });
    let survived = weather.run(dice.split(), long).await;
    interrupted.abort();
    crowd.stop();
    clients.join_all().await;

    // The sun comes out: everything can be told now.
    for number in 0..REPLICAS {
        ground.wait_until_ready(number, Program::Errand).await;
    }
    crowd.introspect_all().await;
    let bad_until = caller.now();
    crowd.apply_final_changes(&mut dice).await;
    let calm_from = caller.now();
    crowd.revoke_all().await;
    let crashed_at = caller.now();
    ground.replicas[REPLICAS - 1].kill();
    crowd.revoke_one(0, 0).await;
    for replica in &ground.replicas {
        replica.stop().await;
    }
    let (whole, said) = ground.run_errand(&["audit", "verify"]).await;
    assert!(whole, "the trail: {said}");

    let history = caller.history();
    let tally = Summary::new(&history);
    let (bad, good) = history.iter().cloned().partition::<Vec<_>, _>(|call| call.start < bad_until);
    let good = good.into_iter().filter(|call| call.start >= calm_from).collect::<Vec<_>>();
    let (calm, crashed) = good.iter().cloned().partition::<Vec<_>, _>(|call| call.start < crashed_at);
    println!("{}in calm weather:\n{}", tally.render(seed, long, survived), Summary::new(&calm).render_times());
    println!("right after a crash:\n{}", Summary::new(&crashed).render_times());
    let offences = find_violations(&history, &read_stored_state(&ground).await);
    assert!(offences.is_empty(), "seed {seed}: {}", explain_violations(&offences, &history));
    // What never happened was never right either.
    let Summary { issued, active, inactive, ended, suspended, resumed, .. } = &tally;
    for (name, times) in [
        ("tokens issued", issued),
        ("active", active),
        ("inactive", inactive),
        ("ended", ended),
        ("suspended", suspended),
        ("resumed", resumed),
    ] {
        assert!(*times > 0, "{name}: never: there was nothing to check");
    }
    for act in [
        "end selection",
        "suspend selection",
        "resume selection",
        "withdraw grant",
        "remove key",
        "block requester",
        "unblock requester",
    ] {
        assert!(tally.done.contains_key(act), "{act}: never: there was nothing to check");
    }
    for (name, times) in [
        ("kills", survived.kills),
        ("pauses", survived.pauses),
        ("cuts", survived.cuts),
        ("blocked lines", survived.blocks),
        ("silent lines", survived.silences),
    ] {
        assert!(times > 0, "{name}: never: there was nothing to survive");
    }
    assert!(survived.swallowed > 0, "the lines that fell silent lost nothing");
    let Summary { active, ended, .. } = Summary::new(&bad);
    assert!(active > 0 && ended > 0, "{active} times active, {ended} ends while it mattered");
}

/// What the store has in the end.
async fn read_stored_state(ground: &Cluster) -> StoredState {
    let mut connection = PgConnection::connect(&ground.postgres.url()).await.unwrap();
    let tokens = sqlx::query("SELECT id::text FROM tokens").fetch_all(&mut connection).await.unwrap();
    StoredState { tokens: tokens.iter().map(|row| row.get("id")).collect(), log: read_log(ground).await }
}

async fn read_log(ground: &Cluster) -> BTreeMap<u64, (String, String, String)> {
    let mut connection = PgConnection::connect(&ground.postgres.url()).await.unwrap();
    let log = sqlx::query("SELECT seq, verb, kind, key FROM revocation_log").fetch_all(&mut connection).await.unwrap();
    let place = |row: &sqlx::postgres::PgRow| u64::try_from(row.get::<i64, _>("seq")).unwrap();
    log.iter().map(|row| (place(row), (row.get("verb"), row.get("kind"), row.get("key")))).collect()
}

/// The first few, with every call that has to do with the first one.
fn explain_violations(offences: &[Violation], history: &[Call]) -> String {
    let mut text = format!("{} offences\n", offences.len());
    for offence in offences.iter().take(10) {
        let _ = writeln!(text, "{offence:?}");
    }
    if let Some(Violation::Active { token, .. } | Violation::Inactive { token, .. }) = offences.first() {
        for call in history.iter().filter(|call| format!("{:?}", call.event).contains(token)) {
            let _ = writeln!(text, "{call:?}");
        }
    }
    text
}

fn random_seed() -> u64 {
    u64::from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().subsec_nanos())
}
