//! Report: a table for people, and JSON for comparisons.

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde::Serialize;
use serde_json::json;

use crate::{Plan, fixtures, machine, raw_signatures::RawSignatureCosts};

/// An operation under load, compared with the empty handler under the same load. Medians.
#[derive(Serialize)]
pub struct Row {
    pub store: &'static str,
    pub what: &'static str,
    pub clients: usize,
    pub per_second: f64,
    pub p50_us: f64,
    pub p99_us: f64,
    /// Server CPU time per request.
    pub cpu_us: Option<f64>,
    pub empty_per_second: f64,
    pub empty_p50_us: f64,
    pub empty_p99_us: f64,
    pub empty_cpu_us: Option<f64>,
    /// Bare cost of the signatures of a request.
    pub bare_signatures_us: f64,
    /// Requests per second, divided by those of the empty handler.
    pub of_empty: f64,
    /// 99th percentile, divided by that of the empty handler.
    pub p99_of_empty: f64,
    /// Requests per second, divided by the maximum that the signatures alone allow on the server's
    /// core.
    pub of_signatures: f64,
    /// CPU time, divided by that of the empty handler plus the bare signatures.
    pub cpu_over_floor: Option<f64>,
    pub each_per_second: Vec<f64>,
}

/// Requests without load.
#[derive(Serialize)]
pub struct Singles {
    pub store: &'static str,
    pub what: &'static str,
    pub count: usize,
    pub p50_us: f64,
    pub p99_us: f64,
    pub max_us: f64,
}

/// The same load with one commit per token.
#[derive(Serialize)]
pub struct SingleCommits {
    pub store: &'static str,
    pub clients: usize,
    pub per_second: f64,
    /// Gain by group commit.
    pub gain: f64,
}

/// All measurements.
pub struct Report {
    plan: Plan,
    load_before: Vec<f64>,
    pub rows: Vec<Row>,
    pub singles: Vec<Singles>,
    pub alone: Vec<SingleCommits>,
    pub bare: Vec<RawSignatureCosts>,
    pub sync_us: Vec<f64>,
}

impl Report {
    pub fn new(plan: Plan) -> Self {
        let load_before = machine::load_average();
        let (rows, singles, alone, bare, sync_us) = Default::default();
        Self { plan, load_before, rows, singles, alone, bare, sync_us }
    }

    fn bare(&self) -> RawSignatureCosts {
        let of = |one: fn(&RawSignatureCosts) -> f64| median(self.bare.iter().map(one).collect());
        RawSignatureCosts {
            verify_es256: of(|bare| bare.verify_es256),
            verify_rs256: of(|bare| bare.verify_rs256),
            verify_issued: of(|bare| bare.verify_issued),
            sign: of(|bare| bare.sign),
        }
    }

    /// Prints the report.
    pub fn print(&self) {
        let or_dash = |number: Option<f64>, digits| number.map_or("-".into(), |number| format!("{number:.digits$}"));
        let heads = ["/s", "p50 ms", "p99 ms", "CPU us"].map(|head| format!("{head:>9}")).join(" ");
        let ratios = ["CPU / floor", "rate / empty", "p99 / empty", "rate / signatures"].join(" ");
        println!("\n{:<9} {:<18} {:>7} {heads} {ratios}", "store", "what", "clients");
        for row in &self.rows {
            println!(
                "{:<9} {:<18} {:>7} {:>9.0} {:>9.2} {:>9.2} {:>9} {:>11} {:>12.3} {:>11.2} {:>17.3}",
                row.store,
                row.what,
                row.clients,
                row.per_second,
                row.p50_us / 1e3,
                row.p99_us / 1e3,
                or_dash(row.cpu_us, 0),
                or_dash(row.cpu_over_floor, 2),
                row.of_empty,
                row.p99_of_empty,
                row.of_signatures,
            );
        }
        for SingleCommits { store, clients, per_second, gain } in &self.alone {
            println!(
                "{store:<9} exchange, RS256, {clients} clients, one commit each: {per_second:.0}/s; group commit {gain:.1} times that"
            );
        }
        println!(
            "\n{:<9} {:<46} {:>6} {:>8} {:>8} {:>8}",
            "store", "one at a time", "count", "p50 ms", "p99 ms", "max ms"
        );
        for Singles { store, what, count, p50_us, p99_us, max_us } in &self.singles {
            let [p50, p99, max] = [p50_us, p99_us, max_us].map(|us| us / 1e3);
            println!("{store:<9} {what:<46} {count:>6} {p50:>8.2} {p99:>8.2} {max:>8.2}");
        }
        let RawSignatureCosts { verify_es256, verify_rs256, verify_issued: verify_own, sign } = self.bare();
        println!(
            "\nbare: verify ES256 {verify_es256:.0} us, RS256 {verify_rs256:.0} us (josekit); verify {verify_own:.0} us, sign {sign:.0} us (ring); durable write of 4 KiB {:.0} us",
            median(self.sync_us.clone())
        );
        let loads = (&self.load_before, machine::load_average());
        println!("{} cores; load average before {:?}, after {:?}", machine::cores(), loads.0, loads.1);
        println!("floor: the CPU time of the empty handler and of the bare signatures that a request needs");
        println!("empty: the empty handler; signatures: the rate that the signatures alone would allow");
    }

    /// Writes the report into a file in the target folder.
    pub fn write(&self) -> PathBuf {
        let report = json!({
            "machine": machine::describe(),
            "load_average": {"before": self.load_before, "after": machine::load_average()},
            "settings": {
                "seconds": self.plan.duration.as_secs_f64(), "times": self.plan.repetitions, "clients": self.plan.clients,
                "server_cores": 1, "protocol": "HTTP/1.1, keep-alive, one request at a time on each connection",
                "signing": "ES256", "other_resources": fixtures::OTHER_AGENTS, "tools_of_each": fixtures::TOOLS_PER_RESOURCE, "other_agents": fixtures::OTHER_AGENTS, "log": "info, JSON, to a file", "introspection_audit": "changes",
            },
            "bare_us": self.bare(),
            "durable_write_us": median(self.sync_us.clone()),
            "load": self.rows,
            "one_at_a_time": self.singles,
            "a_commit_each": self.alone,
        });
        let file = target_folder().join("bench.json");
        fs::write(&file, serde_json::to_string_pretty(&report).unwrap() + "\n").unwrap();
        file
    }
}

/// Returns the target folder of cargo, which also contains the reports.
pub fn target_folder() -> &'static Path {
    Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap()
}

/// Returns the median.
pub fn median(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_by(f64::total_cmp);
    numbers[numbers.len() / 2]
}
