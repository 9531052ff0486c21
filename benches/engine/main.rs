//! `./dev bench engine`: cost of rules and in-memory structures, in this process, on one thread,
//! without HTTP.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::cast_precision_loss,
    clippy::disallowed_methods,
    missing_debug_implementations,
    unreachable_pub,
    reason = "a benchmark fails by panicking, and acts as the environment, clocks included"
)]

mod audit_verification;
mod authority_relations;
#[expect(dead_code, reason = "the other benchmark uses more of it")]
#[path = "../errand/fixtures.rs"]
mod fixtures;
#[expect(dead_code, clippy::expect_used, reason = "the other benchmark uses more of it")]
#[path = "../errand/load.rs"]
mod load;
#[expect(dead_code, reason = "the other benchmark uses more of it")]
#[path = "../errand/machine.rs"]
mod machine;
mod revocation_index;
#[expect(dead_code, clippy::panic, clippy::expect_used, reason = "tests use more of it")]
#[path = "../../tests/support/mod.rs"]
mod support;

mod introspection;

use std::{
    fs,
    hint::black_box,
    path::Path,
    time::{Duration, Instant},
};

use serde::Serialize;
use serde_json::json;

/// A measurement.
#[derive(Serialize)]
pub struct Line {
    /// Name.
    pub name: String,
    /// Median of five runs.
    pub value: f64,
    /// Unit.
    pub unit: &'static str,
    /// Allocations per run.
    pub allocations: Option<u64>,
    /// Documented limit, if any.
    pub limit: Option<f64>,
}

fn main() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let before = machine::load_average();
    if std::env::args().any(|argument| argument == "audit") {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        for Line { name, value, unit, .. } in runtime.block_on(audit_verification::measure()) {
            println!("{name}: {value:.1} {unit}; load average before {before:?}, after {:?}", machine::load_average());
        }
        return;
    }
    let mut lines = authority_relations::measure();
    lines.extend(runtime.block_on(introspection::measure()));
    lines.extend(revocation_index::measure());
    println!("{:<64} {:>10} {:<10} {:>11} {:>8}", "one thread, medians of five", "", "", "allocations", "at most");
    for Line { name: what, value: number, unit, allocations, limit: at_most } in &lines {
        let count = allocations.map_or("-".to_owned(), |count| count.to_string());
        let limit = at_most.map_or(String::new(), |limit| format!("{limit:.1}"));
        println!("{what:<64} {number:>10.3} {unit:<10} {count:>11} {limit:>8}");
    }
    println!("load average before {before:?}, after {:?}", machine::load_average());
    let report = json!({
        "machine": machine::describe(),
        "load_average": {"before": before, "after": machine::load_average()},
        "engine": lines,
    });
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap().join("bench-engine.json");
    fs::write(&file, serde_json::to_string_pretty(&report).unwrap() + "\n").unwrap();
    println!("All numbers are in {}.", file.display());
}

/// Measures microseconds and allocations per run: the median of five runs of a fifth of a second,
/// in CPU time of this thread, so that other load on the machine matters little.
pub fn measure_one<T>(what: impl Into<String>, at_most: Option<f64>, mut one: impl FnMut() -> T) -> Line {
    let allocations = Some(count_allocations(&mut one));
    let number = median((0..5).map(|_| run_round(&mut one)).collect());
    Line { name: what.into(), value: number, unit: "us", allocations, limit: at_most }
}

/// Measures two functions in alternating rounds.
pub fn measure_both(mut one: (&str, impl FnMut()), mut other: (&str, impl FnMut())) -> (Line, Line) {
    let allocations = [count_allocations(&mut one.1), count_allocations(&mut other.1)];
    let rounds = (0..10).map(|_| (run_round(&mut one.1), run_round(&mut other.1)));
    let (ones, others) = rounds.unzip::<f64, f64, Vec<_>, Vec<_>>();
    let line = |what: &str, rounds, allocations| Line {
        name: what.into(),
        value: median(rounds),
        unit: "us",
        allocations: Some(allocations),
        limit: None,
    };
    (line(one.0, ones, allocations[0]), line(other.0, others, allocations[1]))
}

fn count_allocations<T>(one: &mut impl FnMut() -> T) -> u64 {
    black_box(one());
    allocation_counter::measure(|| drop(black_box(one()))).count_total
}

/// Measures microseconds per run over a fifth of a second.
fn run_round<T>(one: &mut impl FnMut() -> T) -> f64 {
    let (start, cpu) = (Instant::now(), machine::thread_cpu_time());
    let mut count = 0_u32;
    while start.elapsed() < Duration::from_millis(200) {
        for _ in 0..64 {
            black_box(one());
        }
        count += 64;
    }
    let used = cpu.zip(machine::thread_cpu_time()).map(|(before, after)| after - before);
    used.unwrap_or_else(|| start.elapsed().as_secs_f64() * 1e6) / f64::from(count)
}

/// Returns the median.
pub fn median(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_by(f64::total_cmp);
    numbers[numbers.len() / 2]
}
