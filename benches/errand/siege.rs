//! `./dev bench siege [SECONDS] [KIND...]`: three replicas on one PostgreSQL, attacked by one kind
//! of hostile client at a time, and by all of them at once.
//!
//! Meanwhile a victim exchanges and introspects, and an admin revokes five times a second. *Calm*
//! is the same victim while the same hostile client attacks unrelated empty handlers on the same
//! core: what is left is what the hostile client does to Errand itself, not to the machine.
//!
//! An attack without effect would be a good result for the wrong reason. So each kind names what
//! the metrics of the replicas must show of it.

use std::{
    collections::BTreeMap,
    env, fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use serde::Serialize;
use serde_json::json;
use sqlx::{Connection as _, PgConnection};
use tokio::time::{sleep, sleep_until, timeout};

use crate::{
    empty_handler,
    fixtures::{Fixtures, UserTokens, access_token_of},
    hostile::{self, Attack, Behavior, Counts},
    load::{self, Connection},
    machine,
    process::{SERVER_CORE, Server, free_address},
    report::target_folder,
    support::TestStore,
};

const REPLICAS: usize = 3;
const EXCHANGES_PER_SECOND: u32 = 10;
const INTROSPECTIONS_PER_SECOND: u32 = 50;
const REVOCATIONS_PER_SECOND: u32 = 5;
/// Descriptors of a replica and of the empty handler, since defaults differ between machines.
const SERVER_DESCRIPTORS: &str = "1024:4096";
const HOSTILE_DESCRIPTORS: &str = "8192:8192";
/// Duration of a phase.
const PHASE: Duration = Duration::from_mins(1);
/// Longer than a server waits for headers.
const MIN_PHASE: Duration = Duration::from_secs(8);
/// Time from the start of an attack to the first measured request.
const ATTACK_LEAD: Duration = Duration::from_secs(1);
const PROBE_INTERVAL: Duration = Duration::from_millis(250);
/// The name of the scenario with all kinds.
const ALL: &str = "all";
/// A request of the victim without an answer after this time has failed.
const PATIENCE: Duration = Duration::from_secs(12);

/// How much slower than calm the 99th percentile of the victim may be.
const MAX_P99_RATIO: f64 = 3.0;
const MAX_MEMORY_RATIO: f64 = 1.2;
const MEMORY_ALLOWANCE: f64 = 64.0;
/// Growth of the database in MiB per minute. The rate limits of a client bound it.
const MAX_DATABASE_GROWTH: f64 = 256.0;

/// One kind of hostile client.
struct Kind {
    name: &'static str,
    behavior: Behavior,
    /// Connections to each replica.
    connections: usize,
    /// Tasks that it opens before.
    tasks: usize,
    requests: fn(&Fixtures, &ApiTokens) -> Vec<Vec<u8>>,
    /// Each of them must show.
    signs: &'static [Sign],
}

/// What shows that an attack has an effect.
enum Sign {
    /// A counter with these labels grew by at least this number per second, over all replicas.
    Counter(&'static str, &'static [&'static str], f64),
    /// A gauge of a replica reached this value.
    Gauge(&'static str, f64),
    /// The hostile client counted at least this number per second.
    Hostile(&'static str, f64),
}

const REJECTIONS: &str = "errand_client_rejections_total";
const REQUESTS: &str = "errand_requests_total";
const CONNECTIONS_ENDED: &str = "errand_connections_ended_total";
const CONNECTIONS_REFUSED: &str = "errand_connections_refused_total";

/// API tokens of the hostile parties.
struct ApiTokens {
    agent: String,
    resource: String,
}

static KINDS: [Kind; 14] = [
    Kind {
        name: "exchanges",
        behavior: Behavior::Flood,
        connections: 2000,
        tasks: 0,
        requests: |fixtures, _| {
            (0..64).map(|n| fixtures.exchange_with_secret("mallory", &mallory_user(fixtures, n))).collect()
        },
        signs: &[Sign::Counter(REJECTIONS, &[r#"client="mallory""#, r#"code="too_many_requests""#], 1.0)],
    },
    Kind {
        name: "lists",
        behavior: Behavior::Flood,
        connections: 60,
        tasks: 1000,
        requests: |fixtures, tokens| {
            let path = "/v1/tasks?resource=https%3A%2F%2Ffiles.example.com%2Fmcp&limit=1000";
            vec![fixtures.get(path, Some(&tokens.agent))]
        },
        signs: &[
            Sign::Counter(REJECTIONS, &[r#"client="mallory""#, r#"code="too_many_"#], 1.0),
            Sign::Counter(REQUESTS, &[r#"endpoint="/v1/tasks""#, r#"status="200""#], 1.0),
        ],
    },
    Kind {
        name: "unknown tokens",
        behavior: Behavior::Flood,
        connections: 100,
        tasks: 0,
        requests: |fixtures, _| {
            (0..1000).map(|n| fixtures.introspection_of("mallory-files", &format!("made-up-{n}"))).collect()
        },
        // The victim introspects 50 times a second.
        signs: &[Sign::Counter(REQUESTS, &[r#"endpoint="/oauth2/introspect""#, r#"status="200""#], 100.0)],
    },
    Kind {
        name: "replayed assertion",
        behavior: Behavior::Flood,
        connections: 100,
        tasks: 0,
        requests: |fixtures, _| vec![fixtures.captured_exchange()],
        signs: &[Sign::Counter(REQUESTS, &[r#"endpoint="/oauth2/token""#, r#"status="401""#], 20.0)],
    },
    Kind {
        name: "forged assertions",
        behavior: Behavior::Flood,
        connections: 100,
        tasks: 0,
        requests: |fixtures, _| vec![fixtures.forged_exchange()],
        signs: &[Sign::Counter(REQUESTS, &[r#"endpoint="/oauth2/token""#, r#"status="401""#], 20.0)],
    },
    Kind {
        name: "wrong scope",
        behavior: Behavior::Flood,
        connections: 100,
        tasks: 0,
        requests: |fixtures, tokens| vec![fixtures.get("/v1/admin/agents", Some(&tokens.agent))],
        signs: &[Sign::Counter(REQUESTS, &[r#"endpoint="/v1/admin/agents""#, r#"status="403""#], 20.0)],
    },
    Kind {
        name: "feed polls",
        behavior: Behavior::Flood,
        connections: 100,
        tasks: 0,
        requests: |fixtures, tokens| vec![fixtures.get("/revocations", Some(&tokens.resource))],
        signs: &[Sign::Counter(REJECTIONS, &[r#"client="mallory-files""#, r#"code="too_many_requests""#], 1.0)],
    },
    Kind {
        name: "documents",
        behavior: Behavior::Flood,
        connections: 100,
        tasks: 0,
        requests: |fixtures, _| vec![fixtures.get("/openapi.json", None)],
        signs: &[Sign::Counter(REQUESTS, &[r#"endpoint="/openapi.json""#, r#"status="200""#], 20.0)],
    },
    Kind {
        name: "unread responses",
        behavior: Behavior::Unread,
        connections: 1100,
        tasks: 0,
        requests: |fixtures, _| vec![fixtures.get("/openapi.json", None)],
        signs: &[
            Sign::Counter(CONNECTIONS_REFUSED, &[r#"reason="per_peer""#], 1.0),
            Sign::Counter(CONNECTIONS_ENDED, &[r#"reason="unread""#], 1.0),
        ],
    },
    Kind {
        name: "zero windows",
        behavior: Behavior::ZeroWindow,
        connections: 10,
        tasks: 0,
        requests: |_, _| vec![b"/openapi.json".to_vec()],
        signs: &[Sign::Gauge("errand_unread_responses_size_bytes", 5e6)],
    },
    Kind {
        name: "idle HTTP/2",
        behavior: Behavior::Idle,
        connections: 1100,
        tasks: 0,
        requests: |_, _| Vec::new(),
        signs: &[
            Sign::Counter(CONNECTIONS_REFUSED, &[r#"reason="per_peer""#], 1.0),
            Sign::Gauge("errand_connections", 900.0),
        ],
    },
    Kind {
        name: "slow headers",
        behavior: Behavior::SlowHeaders,
        connections: 1100,
        tasks: 0,
        requests: |_, _| Vec::new(),
        signs: &[
            Sign::Counter(CONNECTIONS_REFUSED, &[r#"reason="per_peer""#], 1.0),
            Sign::Counter(CONNECTIONS_ENDED, &[r#"reason="headers""#], 1.0),
        ],
    },
    Kind {
        name: "slow bodies",
        behavior: Behavior::SlowBodies,
        connections: 150,
        tasks: 0,
        requests: |_, _| vec![b"/oauth2/token".to_vec()],
        signs: &[Sign::Counter(CONNECTIONS_ENDED, &[r#"reason="incomplete""#], 1.0)],
    },
    Kind {
        name: "connections",
        behavior: Behavior::Reconnect,
        connections: 2000,
        tasks: 0,
        requests: |_, _| Vec::new(),
        signs: &[Sign::Hostile("connected", 100.0)],
    },
];

fn mallory_user(fixtures: &Fixtures, n: usize) -> String {
    fixtures.user_token_for("mallory-client", UserTokens::Es256, 1000 + n)
}

/// What the victim and the admin saw in one phase.
#[derive(Default, Serialize)]
struct Phase {
    exchange_p99_ms: f64,
    introspection_p99_ms: f64,
    revocations: usize,
    revocation_max_ms: f64,
    /// Requests of the victim that failed, with the reason.
    refused: Vec<String>,
    /// Revocations that failed, with the reason.
    refused_revocations: Vec<String>,
    /// Probes of a replica that was not ready or had no lease.
    bad_probes: Vec<String>,
    /// The largest resident memory of a replica in MiB.
    memory_mib: f64,
    /// Growth per minute in MiB.
    database_mib_per_minute: f64,
    log_mib_per_minute: f64,
    load_average: f64,
    /// Kinds whose attack had no effect.
    without_effect: Vec<&'static str>,
    /// What each hostile client counted.
    hostile: BTreeMap<&'static str, Counts>,
}

/// The result for one kind of hostile client.
#[derive(Serialize)]
struct Scenario {
    name: &'static str,
    calm: Phase,
    siege: Phase,
    failures: Vec<String>,
}

impl Scenario {
    fn new(name: &'static str, calm: Phase, siege: Phase) -> Self {
        let mut failures = Vec::new();
        let mut check = |is_good: bool, text: String| {
            if !is_good {
                failures.push(text);
            }
        };
        for (what, calm, siege) in [
            ("exchange", calm.exchange_p99_ms, siege.exchange_p99_ms),
            ("introspection", calm.introspection_p99_ms, siege.introspection_p99_ms),
        ] {
            let ratio = siege / calm;
            check(ratio <= MAX_P99_RATIO, format!("p99 of {what} is {ratio:.1} times calm"));
        }
        let limit = 2.0 * calm.revocation_max_ms + 50.0;
        check(
            siege.revocation_max_ms <= limit,
            format!("a revocation took {:.0} ms, limit {limit:.0} ms", siege.revocation_max_ms),
        );
        let all = |what: &str, faults: &[String]| match faults {
            [] => String::new(),
            [first, ..] => format!("{} {what}, the first: {first}", faults.len()),
        };
        check(siege.refused_revocations.is_empty(), all("revocations refused", &siege.refused_revocations));
        check(siege.refused.is_empty(), all("requests of the victim refused", &siege.refused));
        check(siege.bad_probes.is_empty(), all("bad probes", &siege.bad_probes));
        let limit = MAX_MEMORY_RATIO * calm.memory_mib + MEMORY_ALLOWANCE;
        check(siege.memory_mib <= limit, format!("a replica used {:.0} MiB, limit {limit:.0} MiB", siege.memory_mib));
        check(
            siege.database_mib_per_minute <= MAX_DATABASE_GROWTH,
            format!("the database grew by {:.0} MiB per minute", siege.database_mib_per_minute),
        );
        check(siege.without_effect.is_empty(), format!("no effect: {}", siege.without_effect.join(", ")));
        Self { name, calm, siege, failures }
    }

    fn print(&self) {
        let (calm, siege) = (&self.calm, &self.siege);
        println!(
            "{:<19} {:>7.1} {:>7.1} {:>7.1} {:>7.1} {:>7.0} {:>7.0} {:>3}/{:<3} {:>6.0} {:>6.0} {:>7.1} {:>7.1} {:>5.1}  {}",
            self.name,
            calm.exchange_p99_ms,
            siege.exchange_p99_ms,
            calm.introspection_p99_ms,
            siege.introspection_p99_ms,
            calm.revocation_max_ms,
            siege.revocation_max_ms,
            siege.refused_revocations.len(),
            siege.revocations,
            calm.memory_mib,
            siege.memory_mib,
            siege.database_mib_per_minute,
            siege.log_mib_per_minute,
            siege.load_average,
            if self.failures.is_empty() { "good".to_owned() } else { self.failures.join("; ") },
        );
        for (kind, counts) in &siege.hostile {
            println!("{:<19} {kind}: {counts:?}", "");
        }
    }
}

/// Runs the scenarios and exits with 1 if a criterion is not met.
pub async fn run(words: &[String]) {
    let names = KINDS.iter().map(|kind| argument(kind.name)).chain([ALL.to_owned()]).collect::<Vec<_>>();
    let seconds = words.first().and_then(|word| word.parse().ok());
    let (duration, words) = (seconds.map_or(PHASE, Duration::from_secs), &words[usize::from(seconds.is_some())..]);
    if let Some(word) = words.iter().find(|word| !names.contains(word)) {
        eprintln!("unknown kind `{word}`; name one or more of {}, or none for all of them", names.join(", "));
        std::process::exit(2);
    }
    if duration < MIN_PHASE {
        eprintln!("use at least {} seconds", MIN_PHASE.as_secs());
        std::process::exit(2);
    }
    let is_named = |name: &str| words.contains(&argument(name));
    let is_any_named = !words.is_empty();
    println!(
        "milliseconds, calm and under siege; memory of the largest replica in MiB; database and log in MiB per minute"
    );
    println!(
        "{:<19} {:>15} {:>15} {:>15} {:>7} {:>13} {:>7} {:>7} {:>5}",
        "hostile client", "exchange p99", "introspect p99", "revocation max", "refused", "memory", "db", "log", "load"
    );
    let mut scenarios = Vec::new();
    for kind in KINDS.iter().filter(|kind| !is_any_named || is_named(kind.name)) {
        scenarios.push(besiege(kind.name, std::slice::from_ref(kind), duration).await);
    }
    if !is_any_named || is_named(ALL) {
        scenarios.push(besiege(ALL, &KINDS, duration).await);
    }
    let file = target_folder().join("bench-siege.json");
    let report = json!({
        "machine": machine::describe(), "replicas": REPLICAS, "seconds_per_phase": duration.as_secs(),
        "scenarios": scenarios,
    });
    fs::write(&file, serde_json::to_string_pretty(&report).unwrap() + "\n").unwrap();
    println!("\nAll numbers are in {}.", file.display());
    if scenarios.iter().any(|scenario| !scenario.failures.is_empty()) {
        std::process::exit(1);
    }
}

/// Returns the name of a kind as an argument.
fn argument(name: &str) -> String {
    name.replace(' ', "-").to_lowercase()
}

async fn besiege(name: &'static str, kinds: &'static [Kind], duration: Duration) -> Scenario {
    let field = Field::start(kinds, duration).await;
    let empty = field.empty.iter().map(|server| server.address).collect::<Vec<_>>();
    let calm = field.measure(&empty, 0, duration).await;
    let siege = field.measure(&field.addresses(), 1, duration).await;
    let scenario = Scenario::new(name, calm, siege);
    scenario.print();
    scenario
}

/// Three replicas on a store of their own, as many empty handlers, and what the parties send.
struct Field {
    fixtures: Fixtures,
    replicas: Vec<(Server, SocketAddr)>,
    empty: Vec<Server>,
    attacks: Vec<(&'static Kind, usize, Vec<String>)>,
    known: Vec<String>,
    /// Tokens to revoke, by phase.
    ended: [Vec<String>; 2],
    admin: String,
    folder: tempfile::TempDir,
    store: TestStore,
}

impl Field {
    async fn start(kinds: &'static [Kind], duration: Duration) -> Self {
        let store = TestStore::postgres().await;
        let folder = tempfile::tempdir().unwrap();
        let fixtures = Fixtures::new(free_address());
        fixtures.configure_siege(folder.path(), store.url());
        let mut replicas = Vec::new();
        for n in 0..REPLICAS {
            let address = if n == 0 { fixtures.address } else { free_address() };
            replicas.push(start_replica(folder.path(), n, address).await);
        }
        let mut empty = Vec::new();
        for n in 0..REPLICAS {
            empty.push(start_empty_handler(&folder.path().join(format!("empty-{n}.log"))).await);
        }
        let first = fixtures.address;
        let api_token = async |client: &str, scope: &str| {
            let request = fixtures.api_token_of(client, scope);
            access_token_of(&load::send_once(first, &request, r#"{"access_token":""#).await)
        };
        let tokens = ApiTokens {
            agent: api_token("mallory", "errand:tasks").await,
            resource: api_token("mallory-files", "errand:revocations").await,
        };
        let admin = api_token("ops", "errand:admin").await;
        let count = (duration.as_secs() as u32 * REVOCATIONS_PER_SECOND) as usize + 10;
        let mut issued = Vec::new();
        for (server, _) in &replicas {
            let requests = fixtures.exchanges(UserTokens::Es256, (2 * count + 64).div_ceil(REPLICAS) + 1);
            let outcome = load::run(server.address, &requests, 8, Duration::from_mins(1), true).await;
            issued.extend(outcome.bodies.iter().map(|body| access_token_of(body)));
        }
        let known = issued.split_off(2 * count);
        let second = issued.split_off(count);
        let tasks = kinds.iter().map(|kind| kind.tasks).max().unwrap_or_default();
        for n in 0..tasks {
            let request = fixtures.exchange_with_secret("mallory", &mallory_user(&fixtures, n % 64));
            load::send_once(replicas[n % REPLICAS].0.address, &request, r#"{"access_token":""#).await;
        }
        let attacks = kinds.iter().map(|kind| {
            let texts = (kind.requests)(&fixtures, &tokens).into_iter().map(|text| String::from_utf8(text).unwrap());
            // Together they have no more connections than one of them alone.
            (kind, (kind.connections / kinds.len()).max(10), texts.collect())
        });
        let attacks = attacks.collect();
        Self { fixtures, replicas, empty, attacks, known, ended: [issued, second], admin, folder, store }
    }

    fn addresses(&self) -> Vec<SocketAddr> {
        self.replicas.iter().map(|(server, _)| server.address).collect()
    }

    /// Measures the victim while the hostile clients attack these targets.
    async fn measure(&self, targets: &[SocketAddr], phase: usize, duration: Duration) -> Phase {
        let victims = self.addresses();
        let count = |per_second: u32| (per_second * duration.as_secs() as u32) as usize;
        let exchanges = self.fixtures.exchanges(UserTokens::Es256, count(EXCHANGES_PER_SECOND));
        let introspections = self.fixtures.introspections(&self.known, false);
        let revocations = self.fixtures.revocations(&self.ended[phase], &self.admin);
        let attackers = self.attacks.iter().enumerate().map(|(n, (kind, connections, requests))| {
            let attack = Attack {
                behavior: kind.behavior,
                connections: *connections,
                targets: targets.to_vec(),
                requests: requests.clone(),
            };
            (*kind, Attacker::start(&self.folder.path().join(format!("attack-{phase}-{n}.json")), &attack))
        });
        let (before, samples) = (self.disk().await, self.samples().await);
        let attackers = attackers.collect::<Vec<_>>();
        sleep(ATTACK_LEAD).await;
        let measured = async {
            tokio::join!(
                send_steadily(&victims, &exchanges.all, EXCHANGES_PER_SECOND, count(EXCHANGES_PER_SECOND), true),
                send_steadily(
                    &victims,
                    &introspections.all,
                    INTROSPECTIONS_PER_SECOND,
                    count(INTROSPECTIONS_PER_SECOND),
                    false
                ),
                send_steadily(&victims, &revocations.all, REVOCATIONS_PER_SECOND, count(REVOCATIONS_PER_SECOND), true),
            )
        };
        let mut probes = Probes::default();
        let (exchanged, introspected, revoked) = tokio::select! {
            measured = measured => measured,
            () = self.probe(&mut probes) => unreachable!("probes go on for ever"),
        };
        let load_average = machine::load_average().first().copied().unwrap_or_default();
        let (after, grown) = (self.disk().await, self.samples().await.since(&samples));
        let duration = duration + ATTACK_LEAD;
        let is_alone = attackers.len() == 1;
        let (mut hostile, mut without_effect) = (BTreeMap::new(), Vec::new());
        for (kind, attacker) in attackers {
            let counts = attacker.stop();
            if !kind.has_effect(is_alone, &counts, &grown, &probes.peaks, duration) {
                without_effect.push(kind.name);
            }
            hostile.insert(kind.name, counts);
        }
        let minutes = duration.as_secs_f64() / 60.0;
        let mebibytes = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        Phase {
            exchange_p99_ms: exchanged.percentile(99),
            introspection_p99_ms: introspected.percentile(99),
            revocations: revoked.latencies.len() + revoked.refused.len(),
            revocation_max_ms: revoked.percentile(100),
            refused: [exchanged.refused, introspected.refused].concat(),
            refused_revocations: revoked.refused,
            bad_probes: probes.bad,
            memory_mib: mebibytes(probes.memory),
            database_mib_per_minute: mebibytes(after.0.saturating_sub(before.0)) / minutes,
            log_mib_per_minute: mebibytes(after.1.saturating_sub(before.1)) / minutes,
            load_average,
            without_effect,
            hostile,
        }
    }

    /// Probes readiness, lease and memory of each replica until it is dropped.
    async fn probe(&self, probes: &mut Probes) {
        loop {
            for (n, (server, operations)) in self.replicas.iter().enumerate() {
                probes.memory = machine::resident_memory(server.id()).max(probes.memory);
                let ready = self.get(*operations, "/readyz").await;
                if ready.as_ref().is_none_or(|(status, _)| *status != 200) {
                    probes.bad.push(format!("replica {n} is not ready: {ready:?}"));
                }
                let metrics = self.get(*operations, "/metrics").await;
                if !metrics.as_ref().is_some_and(|(_, text)| text.contains("errand_lease_valid 1")) {
                    probes
                        .bad
                        .push(format!("replica {n} has no lease: {:?}", metrics.as_ref().map(|(status, _)| status)));
                }
                probes.peaks.raise(&Samples::parse(&metrics.unwrap_or_default().1));
            }
            sleep(PROBE_INTERVAL).await;
        }
    }

    /// Returns the metrics of all replicas together.
    async fn samples(&self) -> Samples {
        let mut sum = Samples::default();
        for (_, operations) in &self.replicas {
            let (_, text) = self.get(*operations, "/metrics").await.unwrap_or_default();
            sum.add(&Samples::parse(&text));
        }
        sum
    }

    async fn get(&self, address: SocketAddr, path: &str) -> Option<(u16, String)> {
        let request = self.fixtures.get(path, None);
        let answer = async {
            let mut connection = Connection::open(address).await.ok()?;
            let (status, body) = connection.exchange(&request).await?;
            Some((status, body.to_owned()))
        };
        timeout(PATIENCE, answer).await.ok().flatten()
    }

    /// Returns the sizes of the database and of the logs.
    async fn disk(&self) -> (u64, u64) {
        let mut connection = PgConnection::connect(self.store.url()).await.unwrap();
        let size = sqlx::query_scalar::<_, i64>("SELECT pg_database_size(current_database())");
        let database = size.fetch_one(&mut connection).await.unwrap();
        let logs = (0..REPLICAS).map(|n| fs::metadata(log_file(self.folder.path(), n)).unwrap().len()).sum();
        (database.unsigned_abs(), logs)
    }
}

/// What the probes of the replicas found.
#[derive(Default)]
struct Probes {
    bad: Vec<String>,
    /// The largest resident memory of a replica in bytes.
    memory: u64,
    /// The largest value of each metric at a replica.
    peaks: Samples,
}

/// Metrics by name with labels.
#[derive(Default)]
struct Samples(BTreeMap<String, f64>);

impl Samples {
    fn parse(text: &str) -> Self {
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        let samples = lines.filter_map(|line| {
            let (name, value) = line.rsplit_once(' ')?;
            Some((name.to_owned(), value.parse().ok()?))
        });
        Self(samples.collect())
    }

    /// Returns the sum of the samples of a metric that have these labels.
    fn sum(&self, metric: &str, labels: &[&str]) -> f64 {
        let is_wanted = |name: &str| {
            name.strip_prefix(metric).is_some_and(|rest| rest.is_empty() || rest.starts_with('{'))
                && labels.iter().all(|label| name.contains(label))
        };
        self.0.iter().filter(|(name, _)| is_wanted(name)).map(|(_, value)| value).sum()
    }

    fn add(&mut self, other: &Self) {
        for (name, value) in &other.0 {
            *self.0.entry(name.clone()).or_default() += value;
        }
    }

    fn raise(&mut self, other: &Self) {
        for (name, value) in &other.0 {
            let peak = self.0.entry(name.clone()).or_default();
            *peak = value.max(*peak);
        }
    }

    fn since(mut self, before: &Self) -> Self {
        for (name, value) in &mut self.0 {
            *value -= before.0.get(name).copied().unwrap_or_default();
        }
        self
    }
}

impl Kind {
    /// Returns whether the signs show. Together with others, a kind has too few connections to
    /// reach the limits of connections and memory; then it only has to be connected.
    fn has_effect(
        &self,
        is_alone: bool,
        hostile: &Counts,
        grown: &Samples,
        peaks: &Samples,
        duration: Duration,
    ) -> bool {
        let seconds = duration.as_secs_f64();
        let is_shown = |sign: &Sign| match sign {
            Sign::Counter(metric, labels, per_second) => grown.sum(metric, labels) >= per_second * seconds,
            Sign::Gauge(metric, least) => peaks.sum(metric, &[]) >= *least,
            Sign::Hostile(count, per_second) => hostile.get(*count).is_some_and(|n| *n as f64 >= per_second * seconds),
        };
        if is_alone || matches!(self.behavior, Behavior::Flood) {
            self.signs.iter().all(is_shown)
        } else {
            hostile.contains_key("connected")
        }
    }
}

fn log_file(folder: &Path, n: usize) -> PathBuf {
    folder.join(format!("replica-{n}.log"))
}

async fn start_replica(folder: &Path, n: usize, address: SocketAddr) -> (Server, SocketAddr) {
    let program = Path::new(env!("CARGO_BIN_EXE_errand"));
    let operations = free_address();
    let (config, name) = (folder.join("errand.toml"), format!("replica-{n}"));
    let addresses = [address.to_string(), operations.to_string()];
    let arguments = [
        "serve",
        "--config",
        config.to_str().unwrap(),
        "--listen",
        &addresses[0],
        "--operations-listen",
        &addresses[1],
        "--replica-name",
        &name,
    ];
    let server = Server::start_by(with_descriptors(program), program, &arguments, address, &log_file(folder, n)).await;
    (server, operations)
}

async fn start_empty_handler(log: &Path) -> Server {
    let (program, address) = (env::current_exe().unwrap(), free_address());
    let arguments = [empty_handler::COMMAND, &address.to_string(), "1000", "300"].map(str::to_owned);
    let arguments = arguments.each_ref().map(String::as_str);
    Server::start_by(with_descriptors(&program), &program, &arguments, address, log).await
}

/// Returns the command that runs a server on the core of the servers, with a limit of descriptors.
fn with_descriptors(program: &Path) -> Command {
    let pinned = machine::pinned(SERVER_CORE, program);
    let mut command = Command::new("prlimit");
    command.arg(format!("--nofile={SERVER_DESCRIPTORS}")).arg(pinned.get_program()).args(pinned.get_args());
    command
}

/// A hostile client in a process of its own, with a lower priority than the servers.
struct Attacker {
    child: Child,
    counts: PathBuf,
}

impl Attacker {
    fn start(file: &Path, attack: &Attack) -> Self {
        fs::write(file, serde_json::to_vec(attack).unwrap()).unwrap();
        let child = Command::new("prlimit")
            .arg(format!("--nofile={HOSTILE_DESCRIPTORS}"))
            .args(["nice", "-n", "10"])
            .arg(env::current_exe().unwrap())
            .arg(hostile::COMMAND)
            .arg(file)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn();
        Self { child: child.unwrap(), counts: file.with_extension("counts") }
    }

    fn stop(mut self) -> Counts {
        let _ = self.child.kill();
        let _ = self.child.wait();
        fs::read(&self.counts).ok().and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default()
    }
}

/// The answers to requests that were sent at a steady rate.
#[derive(Default)]
struct Steady {
    /// Sorted latencies in milliseconds, from the time at which the request was due.
    latencies: Vec<f64>,
    refused: Vec<String>,
}

impl Steady {
    fn percentile(&self, percent: usize) -> f64 {
        let last = self.latencies.len().checked_sub(1);
        last.map_or(f64::INFINITY, |last| self.latencies[(last * percent).div_ceil(100)])
    }
}

/// Sends requests at a steady rate to the servers in turn, each on a new connection, or all over
/// one connection to each server. A late answer delays the next request, whose latency counts from
/// when it was due.
async fn send_steadily(
    servers: &[SocketAddr],
    requests: &[Vec<u8>],
    per_second: u32,
    count: usize,
    is_connection_new: bool,
) -> Steady {
    let mut connections = Vec::new();
    for _ in servers {
        connections.push(None);
    }
    let (mut steady, start) = (Steady::default(), Instant::now());
    for n in 0..count {
        let due = start + n as u32 * Duration::from_secs(1) / per_second;
        sleep_until(due.into()).await;
        let at = n % servers.len();
        if is_connection_new {
            connections[at] = None;
        }
        let answer = timeout(PATIENCE, send(&mut connections[at], servers[at], &requests[n % requests.len()])).await;
        match answer.unwrap_or_else(|_| Err("no answer".to_owned())) {
            Ok(()) => steady.latencies.push(due.elapsed().as_secs_f64() * 1e3),
            Err(reason) => {
                connections[at] = None;
                steady.refused.push(reason);
            }
        }
    }
    steady.latencies.sort_by(f64::total_cmp);
    steady
}

async fn send(connection: &mut Option<Connection>, server: SocketAddr, request: &[u8]) -> Result<(), String> {
    if connection.is_none() {
        *connection = Some(Connection::open(server).await.map_err(|error| format!("not connected: {error}"))?);
    }
    let open = connection.as_mut().ok_or("not connected")?;
    match open.exchange(request).await {
        Some((200, body)) if !body.contains(r#""active":false"#) => Ok(()),
        Some((status, body)) => Err(format!("{status} {body}")),
        None => Err("the connection was closed".to_owned()),
    }
}
