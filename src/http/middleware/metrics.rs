//! Metrics for Prometheus, in the `OpenMetrics` text format. All labels have small closed sets of
//! values: routes, codes, statuses, trusted issuers.

use std::{
    fmt::{self, Debug},
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric, text::encode},
    metrics::{
        counter::{ConstCounter, Counter},
        family::Family,
        gauge::ConstGauge,
        histogram::{Histogram, exponential_buckets},
    },
    registry::{Registry, Unit},
};

use crate::{
    app::{IssuerStatus, Service},
    domain::replication::Propagation,
};

/// The metrics of one server.
pub struct Metrics {
    registry: Registry,
    requests: Family<RequestLabels, Counter>,
    latency: Family<RouteLabel, Histogram, fn() -> Histogram>,
    propagation: Histogram,
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
        registry.register_collector(Box::new(ServiceCollector { service, probe: Arc::clone(&probe) }));
        Self { registry, requests, latency, propagation, probe }
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

    /// Returns the metrics as text. `issuers` is the result of the store probe of this scrape: each
    /// trusted issuer with the state of its keys, or `None` if the store did not answer. In that
    /// case the issuers of the last successful probe remain.
    pub fn render(&self, issuers: Option<Vec<IssuerStatus>>) -> Result<String, fmt::Error> {
        {
            let mut probe = self.probe.lock();
            probe.store_up = issuers.is_some();
            if let Some(issuers) = issuers {
                probe.issuers = issuers;
            }
        }
        let mut text = String::new();
        encode(&mut text, &self.registry)?;
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
        let dropped = ConstCounter::new(service.dropped_audit_records());
        dropped.encode(encoder.encode_descriptor(
            "audit_records_dropped",
            "Audit records of introspections and refused clients that were dropped since the start.",
            None,
            dropped.metric_type(),
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
