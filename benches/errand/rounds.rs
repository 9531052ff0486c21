//! The measurements, in rounds: each round contains all measurements that are compared with each
//! other.

use std::{net::SocketAddr, path::Path, time::Duration};

use crate::{
    Plan, empty_handler,
    fixtures::{Fixtures, UserTokens, access_token_of},
    load::{self, Outcome, Requests},
    machine,
    process::{Server, free_address},
    raw_signatures,
    report::{Report, Row, Singles, median},
    support::TestStore,
};

/// Number of cached tokens.
const KNOWN_TOKENS: usize = 256;
/// Warm-up before each measurement.
const WARM_UP_DURATION: Duration = Duration::from_millis(500);

/// Starts Errand on this store and measures it.
pub async fn measure(name: &'static str, store: TestStore, plan: Plan, report: &mut Report) {
    let folder = tempfile::tempdir().unwrap();
    let fixtures = Fixtures::new(free_address());
    fixtures.configure(folder.path(), store.url());
    let config = folder.path().join("errand.toml");
    let errand = start(&config, fixtures.address, &folder.path().join("errand.log")).await;

    // Tokens for introspection, and the lengths of the responses.
    let first = load::run(
        fixtures.address,
        &fixtures.exchanges(UserTokens::Es256, KNOWN_TOKENS),
        16,
        Duration::from_mins(1),
        true,
    )
    .await;
    let known = first.bodies.iter().map(|body| access_token_of(body)).collect::<Vec<_>>();
    let response = load::send_once(fixtures.address, &fixtures.introspections(&known[..1], false).all[0], "{").await;
    let empty = empty_handler::start(&folder.path().join("empty.log"), first.bodies[0].len(), response.len()).await;

    let mut bench = Bench { name, fixtures, errand, empty, plan, fresh: Vec::new(), rate: 2_000.0 };
    let own = known[0].clone();
    for &clients in plan.clients {
        bench.run_round(clients, &known, &own, report).await;
    }
    bench.measure_singles(&known, report).await;
    bench.burst(&known, &store, report).await;
    if name == "postgres" {
        bench.replicas(folder.path(), report).await;
    }
}

/// Keeps up one load and prints the cost of a request periodically.
pub async fn profile(store: TestStore, exchange: bool) {
    let folder = tempfile::tempdir().unwrap();
    let fixtures = Fixtures::new(free_address());
    fixtures.configure(folder.path(), store.url());
    let errand = start(&folder.path().join("errand.toml"), fixtures.address, &folder.path().join("errand.log")).await;
    let first = fixtures.exchanges(UserTokens::Rs256, KNOWN_TOKENS);
    let first = load::run(fixtures.address, &first, 16, Duration::from_mins(1), true).await;
    let known = first.bodies.iter().map(|body| access_token_of(body)).collect::<Vec<_>>();
    println!("the server is process {}", errand.id());
    for _ in 0..15 {
        // Assertions are signed on another core before each interval.
        let requests = if exchange {
            fixtures.exchanges(UserTokens::Rs256, 20_000)
        } else {
            fixtures.introspections(&known, false)
        };
        let (outcome, cpu) = measure_run(&errand, &requests, 64, Duration::from_secs(4), false).await;
        let (per_second, p99) = (outcome.per_second(), outcome.percentile(99));
        println!("{per_second:.0}/s, p99 {p99:.0} µs, {:.1} µs of CPU", cpu.unwrap_or_default());
    }
}

/// Migrates the store and starts Errand with this file.
pub async fn start(config: &Path, address: SocketAddr, log: &Path) -> Server {
    start_program(Path::new(env!("CARGO_BIN_EXE_errand")), config, address, log).await
}

/// Migrates the store and starts a build of Errand with this file.
pub async fn start_program(program: &Path, config: &Path, address: SocketAddr, log: &Path) -> Server {
    let arguments = |word| [word, "--config", config.to_str().unwrap()];
    assert!(std::process::Command::new(program).args(arguments("migrate")).output().unwrap().status.success());
    Server::start(program, &arguments("serve"), address, log).await
}

/// A store and its parties.
pub struct Bench {
    pub name: &'static str,
    pub fixtures: Fixtures,
    errand: Server,
    empty: Server,
    pub plan: Plan,
    /// Issued tokens that were never introspected.
    fresh: Vec<String>,
    /// Approximate exchanges per second: the number of requests to create in advance.
    rate: f64,
}

/// A measurement of the server and the corresponding one of the empty handler.
struct Comparison {
    bare: f64,
    errand: (Outcome, Option<f64>),
    empty: (Outcome, Option<f64>),
}

impl Bench {
    async fn run_round(&mut self, clients: usize, known: &[String], own: &str, report: &mut Report) {
        let mut rows = [Vec::new(), Vec::new(), Vec::new(), Vec::new()];
        for time in 0..=self.plan.repetitions {
            let bare = raw_signatures::measure(&self.fixtures, own);
            let duration = if time == 0 { WARM_UP_DURATION } else { self.plan.duration };
            let exchange =
                self.measure_exchanges(UserTokens::Es256, clients, duration, bare.exchange(UserTokens::Es256)).await;
            let rsa =
                self.measure_exchanges(UserTokens::Rs256, clients, duration, bare.exchange(UserTokens::Rs256)).await;
            let fresh = std::mem::take(&mut self.fresh);
            let first = self.fixtures.introspections(&fresh, true);
            let first = self.measure_with_empty_handler(&first, clients, duration, bare.introspection()).await;
            self.fresh = fresh.into_iter().skip(first.errand.0.latencies.len()).collect();
            let again = self.fixtures.introspections(known, false);
            let again = self.measure_with_empty_handler(&again, clients, duration, bare.introspection()).await;
            if time > 0 {
                report.bare.push(bare);
                for (row, pair) in rows.iter_mut().zip([exchange, rsa, first, again]) {
                    row.push(pair);
                }
            }
        }
        let names = ["exchange, ES256", "exchange, RS256", "introspect, first", "introspect, again"];
        for (what, pairs) in names.into_iter().zip(rows) {
            report.rows.push(row(self.name, what, clients, &pairs));
        }
    }

    async fn measure_exchanges(
        &mut self,
        user: UserTokens,
        clients: usize,
        duration: Duration,
        bare: f64,
    ) -> Comparison {
        let count = (self.rate * duration.as_secs_f64() * 1.5) as usize + 200;
        let requests = self.fixtures.exchanges(user, count);
        let pair = self.measure_with_empty_handler(&requests, clients, duration, bare).await;
        self.fresh.extend(pair.errand.0.bodies.iter().map(|body| access_token_of(body)));
        self.rate = pair.errand.0.per_second().max(500.0);
        pair
    }

    /// Runs the same load on the empty handler, then on Errand.
    async fn measure_with_empty_handler(
        &self,
        requests: &Requests,
        clients: usize,
        duration: Duration,
        bare: f64,
    ) -> Comparison {
        let keep = requests.once;
        let nothing = Requests { once: false, expected_prefix: " ", ..requests.clone() };
        let empty = measure_run(&self.empty, &nothing, clients, duration / 2, false).await;
        let errand = measure_run(&self.errand, requests, clients, duration, keep).await;
        Comparison { bare, errand, empty }
    }

    /// Measures latencies without load: single exchanges, and revocations.
    async fn measure_singles(&mut self, known: &[String], report: &mut Report) {
        let (address, pause, count) = (self.fixtures.address, Duration::from_millis(5), self.plan.singles);
        let idle = load::run_paced(address, &self.fixtures.exchanges(UserTokens::Es256, count), pause).await;
        let api_token =
            access_token_of(&load::send_once(address, &self.fixtures.api_token(), r#"{"access_token":""#).await);
        let mut ended = Vec::new();
        while ended.len() < 2 * count {
            let requests = self.fixtures.exchanges(UserTokens::Es256, 2 * count);
            let issued = load::run(address, &requests, 16, Duration::from_mins(1), true).await;
            ended.extend(issued.bodies.iter().map(|body| access_token_of(body)));
        }
        let revocations = |tokens: &[String]| self.fixtures.revocations(tokens, &api_token);
        let unloaded = load::run_paced(address, &revocations(&ended[..count]), pause).await;
        let under_load = {
            let introspections = self.fixtures.introspections(known, false);
            let time = Duration::from_mins(10);
            let clients = load::run(address, &introspections, 16, time, false);
            let revoked = revocations(&ended[count..2 * count]);
            let sequential = load::run_paced(address, &revoked, pause);
            tokio::pin!(clients);
            // The load continues until the last token is revoked.
            tokio::select! {
                revoked = sequential => revoked,
                _ = &mut clients => panic!("the load ended too early"),
            }
        };
        let introspection = &self.fixtures.introspections(&ended[..1], false).all[0];
        load::send_once(address, introspection, r#"{"active":false}"#).await;
        for (what, outcome) in [
            ("exchange, idle server", idle),
            ("revocation, idle server", unloaded),
            ("revocation, while 16 clients introspect", under_load),
        ] {
            let [p50_us, p99_us, max_us] = [50, 99, 100].map(|percent| outcome.percentile(percent));
            report.singles.push(Singles { store: self.name, what, count, p50_us, p99_us, max_us });
        }
        report.sync_us.push(machine::sync_us());
    }
}

async fn measure_run(
    server: &Server,
    requests: &Requests,
    clients: usize,
    duration: Duration,
    keep: bool,
) -> (Outcome, Option<f64>) {
    let before = server.cpu_time();
    let outcome = load::run(server.address, requests, clients, duration, keep).await;
    let after = server.cpu_time();
    let count = outcome.latencies.len() as f64;
    (outcome, before.zip(after).map(|(before, after)| (after - before) / count))
}

fn row(store: &'static str, what: &'static str, clients: usize, pairs: &[Comparison]) -> Row {
    let all = |one: &dyn Fn(&Comparison) -> f64| median(pairs.iter().map(one).collect());
    let maybe =
        |one: &dyn Fn(&Comparison) -> Option<f64>| pairs.iter().map(one).collect::<Option<Vec<_>>>().map(median);
    Row {
        store,
        what,
        clients,
        per_second: all(&|pair| pair.errand.0.per_second()),
        p50_us: all(&|pair| pair.errand.0.percentile(50)),
        p99_us: all(&|pair| pair.errand.0.percentile(99)),
        cpu_us: maybe(&|pair| pair.errand.1),
        empty_per_second: all(&|pair| pair.empty.0.per_second()),
        empty_p50_us: all(&|pair| pair.empty.0.percentile(50)),
        empty_p99_us: all(&|pair| pair.empty.0.percentile(99)),
        empty_cpu_us: maybe(&|pair| pair.empty.1),
        bare_signatures_us: all(&|pair| pair.bare),
        of_empty: all(&|pair| pair.errand.0.per_second() / pair.empty.0.per_second()),
        p99_of_empty: all(&|pair| pair.errand.0.percentile(99) / pair.empty.0.percentile(99)),
        of_signatures: all(&|pair| pair.errand.0.per_second() * pair.bare / 1e6),
        cpu_over_floor: maybe(&|pair| pair.errand.1.zip(pair.empty.1).map(|(cpu, empty)| cpu / (empty + pair.bare))),
        each_per_second: pairs.iter().map(|pair| pair.errand.0.per_second()).collect(),
    }
}
