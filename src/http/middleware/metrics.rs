//! Metrics for Prometheus. All labels have small sets of values: routes, codes, statuses, trusted
//! issuers, at most 1000 clients.

use std::{
    collections::BTreeSet,
    fmt::{self, Debug},
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use prometheus_client::{
    collector::Collector,
    encoding::{
        DescriptorEncoder, EncodeLabelSet, EncodeMetric,
        text::{encode_eof, encode_registry},
    },
    metrics::{
        counter::{ConstCounter, Counter},
        family::Family,
        gauge::{ConstGauge, Gauge},
        histogram::{Histogram, exponential_buckets},
    },
    registry::{Registry, Unit},
};

use crate::{
    app::{IssuerStatus, Service},
    domain::replication::Propagation,
    http::server::limits::ConnectionCounters,
    ports::{LiveCounts, ProcessUsage},
};

/// Maximum clients with a label of their own.
const MAX_CLIENT_LABELS: usize = 1000;
/// The labels of requests without an authenticated client, and of clients beyond the maximum.
const NO_CLIENT: &str = "none";
const OTHER_CLIENT: &str = "other";

/// The metrics of one server.
pub struct Metrics {
    registry: Registry,
    requests: Family<RequestLabels, Counter>,
    latency: Family<RouteLabel, Histogram, fn() -> Histogram>,
    propagation: Histogram,
    shed: Family<FamilyLabel, Counter>,
    evaluations: Family<EvaluationLabels, Counter>,
    rejections: Family<RejectionLabels, Counter>,
    /// The clients that have a label of their own.
    labeled_clients: Mutex<BTreeSet<String>>,
    connections: Arc<ConnectionCounters>,
    probe: Arc<Mutex<StoreProbe>>,
}

impl Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

/// The outcome of a request.
#[derive(Debug)]
pub struct RequestMetric {
    /// The route pattern, such as `/v1/tasks/{id}`.
    pub endpoint: Arc<str>,
    /// `ok`, or the error code.
    pub outcome: &'static str,
    /// The HTTP status.
    pub status: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    endpoint: Arc<str>,
    outcome: &'static str,
    status: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RouteLabel {
    endpoint: Arc<str>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct FamilyLabel {
    family: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct EvaluationLabels {
    decision: &'static str,
    /// The reason of a no, or `none`.
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RejectionLabels {
    client: String,
    code: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct VersionLabel {
    version: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabel {
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct IssuerLabel {
    issuer: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RuleLabels {
    issuer: String,
    /// The position of the rule in `entitlements`, from 0.
    rule: u32,
}

impl Metrics {
    /// Registers the metrics of a server that runs this service.
    #[must_use]
    pub fn new(service: Service) -> Self {
        let mut registry = Registry::with_prefix("errand");
        let requests = Family::default();
        let latency = Family::new_with_constructor(duration_histogram as fn() -> Histogram);
        let propagation = duration_histogram();
        let (shed, rejections) = (Family::default(), Family::<RejectionLabels, Counter>::default());
        let evaluations = Family::<EvaluationLabels, Counter>::default();
        // The metric is present before the first decision.
        drop(evaluations.get_or_create(&EvaluationLabels { decision: "true", reason: "none" }));
        let connections = Arc::<ConnectionCounters>::default();
        let probe = Arc::default();
        registry.register("requests", "Requests by endpoint, outcome and status", Family::clone(&requests));
        registry.register_with_unit(
            "request_duration",
            "Duration of requests by endpoint",
            Unit::Seconds,
            Family::clone(&latency),
        );
        registry.register_with_unit(
            "revocation_propagation",
            "Time from the commit of a revocation made on this replica until every replica applied it or lost its lease",
            Unit::Seconds,
            Histogram::clone(&propagation),
        );
        registry.register(
            "requests_shed",
            "Requests that a concurrency limit of [limits] refused, by family of endpoints",
            Family::clone(&shed),
        );
        registry.register(
            "evaluations",
            "Decisions by decision (true or false) and reason; the reason of true is none",
            Family::clone(&evaluations),
        );
        registry.register(
            "client_rejections",
            "Refused requests by client and error code; client is none without authentication, other beyond the first \
             1000 clients",
            Family::clone(&rejections),
        );
        let build = Family::<VersionLabel, Gauge>::default();
        build.get_or_create(&VersionLabel { version: env!("CARGO_PKG_VERSION") }).set(1);
        registry.register("build_info", "The version of this server; always 1", build);
        registry.register_collector(Box::new(ConnectionCollector(Arc::clone(&connections))));
        registry.register_collector(Box::new(ServiceCollector { service, probe: Arc::clone(&probe) }));
        Self {
            registry,
            requests,
            latency,
            propagation,
            shed,
            evaluations,
            rejections,
            labeled_clients: Mutex::default(),
            connections,
            probe,
        }
    }

    /// Returns the counters of connections, for the listeners of this server.
    #[must_use]
    pub fn connections(&self) -> Arc<ConnectionCounters> {
        Arc::clone(&self.connections)
    }

    /// Counts a request that was refused. `client` is the client that was authenticated.
    pub(in crate::http) fn record_rejection(&self, client: Option<&str>, code: &'static str) {
        let client = client.map_or_else(|| NO_CLIENT.to_owned(), |client| self.client_label(client));
        self.rejections.get_or_create(&RejectionLabels { client, code }).inc();
    }

    /// Returns the label of a client. The number of labels is bounded, also where clients are
    /// registered and removed for a long time.
    fn client_label(&self, client: &str) -> String {
        let mut labeled = self.labeled_clients.lock();
        let has_label =
            labeled.contains(client) || (labeled.len() < MAX_CLIENT_LABELS && labeled.insert(client.to_owned()));
        if has_label { client.to_owned() } else { OTHER_CLIENT.to_owned() }
    }

    /// Counts a request that a concurrency limit refused.
    pub(in crate::http) fn record_shed(&self, family: &'static str) {
        self.shed.get_or_create(&FamilyLabel { family }).inc();
    }

    /// Counts a decision.
    pub(in crate::http) fn record_evaluation(&self, is_permitted: bool, reason: &'static str) {
        let decision = if is_permitted { "true" } else { "false" };
        self.evaluations.get_or_create(&EvaluationLabels { decision, reason }).inc();
    }

    /// Counts a finished request.
    pub fn record_request(&self, request: &RequestMetric, duration: Duration) {
        let RequestMetric { endpoint, outcome, status } = request;
        let labels = RequestLabels { endpoint: Arc::clone(endpoint), outcome, status: *status };
        self.requests.get_or_create(&labels).inc();
        self.latency.get_or_create(&RouteLabel { endpoint: Arc::clone(endpoint) }).observe(duration.as_secs_f64());
    }

    /// Records the propagation time of a revocation that every replica has applied.
    pub fn record_propagation(&self, propagation: &Propagation) {
        if propagation.is_complete() {
            self.propagation.observe(propagation.elapsed.as_secs_f64());
        }
    }

    /// Returns the metrics as `OpenMetrics` text. `issuers` is the result of the store probe of
    /// this scrape: each trusted issuer with the state of its keys, or `None` if the store did not
    /// answer. In that case the issuers of the last successful probe remain.
    pub fn render(
        &self,
        issuers: Option<Vec<IssuerStatus>>,
        process: Option<&ProcessUsage>,
    ) -> Result<String, fmt::Error> {
        {
            let mut probe = self.probe.lock();
            probe.store_up = issuers.is_some();
            if let Some(issuers) = issuers {
                probe.issuers = issuers;
            }
        }
        let mut text = String::new();
        encode_registry(&mut text, &self.registry)?;
        if let Some(process) = process {
            // These have their usual names, without the prefix of this server.
            let mut registry = Registry::default();
            registry.register_collector(Box::new(ProcessCollector(*process)));
            encode_registry(&mut text, &registry)?;
        }
        encode_eof(&mut text)?;
        Ok(text)
    }
}

/// The last result of the store probe. A scrape runs the probe, which is asynchronous, before it
/// encodes.
#[derive(Debug, Default)]
struct StoreProbe {
    store_up: bool,
    issuers: Vec<IssuerStatus>,
}

/// Reads the counters of connections at each scrape.
#[derive(Debug)]
struct ConnectionCollector(Arc<ConnectionCounters>);

impl Collector for ConnectionCollector {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        let (counters, encoder) = (&self.0, &mut encoder);
        encode_gauge(encoder, "connections", "Open connections.", None, counters.open())?;
        encode_gauge(
            encoder,
            "unread_responses_size",
            "Responses that clients have not read.",
            Some(&Unit::Bytes),
            counters.unread_bytes(),
        )?;
        encode_gauge(
            encoder,
            "incomplete_requests_size",
            "Requests that clients have not completed.",
            Some(&Unit::Bytes),
            counters.incomplete_bytes(),
        )?;
        encode_counters(
            encoder,
            "connections_refused",
            "Connections that a limit of [limits] refused, by limit.",
            &counters.refused(),
        )?;
        encode_counters(
            encoder,
            "connections_ended",
            "Connections that the server ended, by reason: idle, headers, progress, unread, incomplete.",
            &counters.ended(),
        )?;
        let reset = ConstCounter::new(counters.reset_streams());
        let help = "HTTP/2 streams that were reset because the client did not read.";
        reset.encode(encoder.encode_descriptor("streams_reset", help, None, reset.metric_type())?)
    }
}

/// The usual metrics of a process (`process_*` of Prometheus client libraries).
#[derive(Debug)]
struct ProcessCollector(ProcessUsage);

impl Collector for ProcessCollector {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        let (usage, encoder) = (&self.0, &mut encoder);
        let cpu = ConstCounter::new(usage.cpu_seconds);
        let help = "User and system processor time.";
        cpu.encode(encoder.encode_descriptor("process_cpu", help, Some(&Unit::Seconds), cpu.metric_type())?)?;
        let start = ConstGauge::new(usage.start_seconds);
        let help = "Start of the process since 1970.";
        start.encode(encoder.encode_descriptor(
            "process_start_time",
            help,
            Some(&Unit::Seconds),
            start.metric_type(),
        )?)?;
        let bytes = Some(&Unit::Bytes);
        encode_gauge(encoder, "process_resident_memory", "Resident memory.", bytes, usage.resident_bytes)?;
        encode_gauge(encoder, "process_virtual_memory", "Virtual memory.", bytes, usage.virtual_bytes)?;
        encode_gauge(encoder, "process_open_fds", "Open file descriptors.", None, usage.open_descriptors)?;
        if let Some(limit) = usage.max_descriptors {
            encode_gauge(encoder, "process_max_fds", "Limit of open file descriptors.", None, limit)?;
        }
        encode_gauge(encoder, "process_threads", "Threads.", None, usage.threads)
    }
}

fn encode_counters(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    counts: &[(&'static str, u64)],
) -> fmt::Result {
    let kind = ConstCounter::new(0_u64).metric_type();
    let mut family = encoder.encode_descriptor(name, help, None, kind)?;
    for (reason, count) in counts {
        ConstCounter::new(*count).encode(family.encode_family(&ReasonLabel { reason })?)?;
    }
    Ok(())
}

/// Reads the state of the service at each scrape.
#[derive(Debug)]
struct ServiceCollector {
    service: Service,
    probe: Arc<Mutex<StoreProbe>>,
}

impl Collector for ServiceCollector {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        let (service, encoder) = (&self.service, &mut encoder);
        let (tokens, bytes) = service.token_cache_size();
        encode_gauge(
            encoder,
            "write_queue_length",
            "Writes waiting in the commit queue.",
            None,
            service.write_queue_depth(),
        )?;
        encode_gauge(
            encoder,
            "feed_subscribers",
            "Subscribers of the revocation feed.",
            None,
            service.subscriber_count(),
        )?;
        if let Some(LiveCounts { tasks, tokens }) = service.live_counts() {
            let help = "Tasks that are active or suspended, in the store; counted every 30 s, up to 100,000.";
            encode_gauge(encoder, "live_tasks", help, None, tasks)?;
            let help = "Tokens that are not expired, in the store; counted every 30 s, up to 100,000.";
            encode_gauge(encoder, "live_tokens", help, None, tokens)?;
        }
        let dropped = ConstCounter::new(service.dropped_audit_records());
        dropped.encode(encoder.encode_descriptor(
            "audit_records_dropped",
            "Audit records of introspections, evaluations and refused clients that were dropped since the start.",
            None,
            dropped.metric_type(),
        )?)?;
        let tamperings = ConstCounter::new(service.tampering_count());
        tamperings.encode(encoder.encode_descriptor(
            "store_tampering",
            "Rows, logs, registries and keys since the start that were read and had been changed outside the program.",
            None,
            tamperings.metric_type(),
        )?)?;
        encode_gauge(encoder, "verified_tokens", "Tokens in the cache of verified tokens.", None, tokens)?;
        encode_gauge(
            encoder,
            "verified_tokens_size",
            "Upper bound of the memory that the cache of verified tokens uses.",
            Some(&Unit::Bytes),
            bytes,
        )?;
        encode_gauge(
            encoder,
            "lease_valid",
            "1 if this replica holds its lease and answers from memory, 0 if each request reads the store.",
            None,
            u8::from(service.holds_lease()),
        )?;
        encode_gauge(
            encoder,
            "log_applied_seq",
            "Position in the revocation log up to which this replica has applied it.",
            None,
            service.applied_seq().number(),
        )?;
        let probe = self.probe.lock();
        let store_up = u8::from(probe.store_up);
        encode_gauge(encoder, "store_up", "1 if the store answered the last probe, else 0.", None, store_up)?;
        encode_issuers(encoder, &probe.issuers)
    }
}

fn encode_gauge(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    unit: Option<&Unit>,
    value: impl TryInto<i64>,
) -> fmt::Result {
    let gauge = ConstGauge::new(value.try_into().unwrap_or(i64::MAX));
    gauge.encode(encoder.encode_descriptor(name, help, unit, gauge.metric_type())?)
}

fn encode_issuers(encoder: &mut DescriptorEncoder<'_>, issuers: &[IssuerStatus]) -> fmt::Result {
    if issuers.is_empty() {
        return Ok(());
    }
    let label = |status: &IssuerStatus| IssuerLabel { issuer: status.issuer.to_string() };
    let kind = ConstGauge::new(0_i64).metric_type();
    let help = "1 if the last JWKS fetch of the issuer succeeded, else 0.";
    let mut family = encoder.encode_descriptor("issuer_up", help, None, kind)?;
    for status in issuers {
        ConstGauge::new(i64::from(status.is_reachable)).encode(family.encode_family(&label(status))?)?;
    }
    let help = "Time since the keys of the issuer were fetched.";
    let mut family = encoder.encode_descriptor("issuer_keys_age", help, Some(&Unit::Seconds), kind)?;
    for status in issuers {
        let Some(age) = status.key_age else { continue };
        ConstGauge::new(age.as_secs_f64()).encode(family.encode_family(&label(status))?)?;
    }
    let help = "User tokens that an entitlement rule of the issuer matched since the start.";
    let kind = ConstCounter::new(0_u64).metric_type();
    let mut family = encoder.encode_descriptor("entitlement_rule_matches", help, None, kind)?;
    for status in issuers {
        for (rule, count) in (0..).zip(&status.rule_matches) {
            let labels = RuleLabels { issuer: status.issuer.to_string(), rule };
            ConstCounter::new(*count).encode(family.encode_family(&labels)?)?;
        }
    }
    Ok(())
}

/// Returns a histogram with buckets from 0.1 ms to about 1.6 s.
fn duration_histogram() -> Histogram {
    Histogram::new(exponential_buckets(0.000_1, 2.0, 15))
}
