//! What Prometheus reads (`OpenMetrics` text). Labels come from small closed sets: routes, codes, statuses.

use std::{
    fmt,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
    },
    registry::{Registry, Unit},
};

use crate::{app::Service, domain::replication::Propagation};

/// The metrics of one server.
pub struct Metrics {
    registry: Registry,
    requests: Family<RequestLabels, Counter>,
    latency: Family<RouteLabel, Histogram, fn() -> Histogram>,
    writes_waiting: Gauge,
    audit_dropped: Counter,
    verified_tokens: Gauge,
    verified_bytes: Gauge,
    listeners: Gauge,
    store_up: Gauge,
    issuer_up: Family<IssuerLabel, Gauge>,
    lease_valid: Gauge,
    log_applied: Gauge,
    propagation: Histogram,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

/// How a request ended.
#[derive(Debug)]
pub struct RequestMetric {
    /// The route, as it is registered.
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

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("errand");
        let requests = Family::default();
        let latency = Family::new_with_constructor(duration_histogram as fn() -> Histogram);
        let (writes_waiting, audit_dropped, store_up) = (Gauge::default(), Counter::default(), Gauge::default());
        let (verified_tokens, verified_bytes) = (Gauge::default(), Gauge::default());
        let (issuer_up, listeners) = (Family::default(), Gauge::default());
        registry.register("requests", "Requests by endpoint, outcome and status", Family::clone(&requests));
        registry.register_with_unit(
            "request_duration",
            "How long requests took, by endpoint",
            Unit::Seconds,
            Family::clone(&latency),
        );
        registry.register("writes_waiting", "Writes that wait for the store", Gauge::clone(&writes_waiting));
        registry.register("listeners", "Those who listen to the revocation feed", Gauge::clone(&listeners));
        registry.register(
            "audit_records_dropped",
            "Audit records of introspections and refused clients that were dropped since the start",
            Counter::clone(&audit_dropped),
        );
        registry.register(
            "verified_tokens",
            "Tokens that were found good and are kept, so that they need not be verified again",
            Gauge::clone(&verified_tokens),
        );
        registry.register_with_unit(
            "verified_tokens_size",
            "How much they take at most",
            Unit::Bytes,
            Gauge::clone(&verified_bytes),
        );
        registry.register(
            "store_up",
            "Whether the store answered when it was last asked (1 or 0)",
            Gauge::clone(&store_up),
        );
        registry.register(
            "issuer_up",
            "Whether the keys of a trusted issuer could be had the last time they were asked for (1 or 0)",
            Family::clone(&issuer_up),
        );
        let (lease_valid, log_applied, propagation) = (Gauge::default(), Gauge::default(), duration_histogram());
        registry.register(
            "lease_valid",
            "Whether requests are answered from memory now (1), or the store is asked for each (0)",
            Gauge::clone(&lease_valid),
        );
        registry.register(
            "log_applied_seq",
            "Up to where the revocation log has been applied here",
            Gauge::clone(&log_applied),
        );
        registry.register_with_unit(
            "revocation_propagation",
            "How long it took from the commit of a revocation made here until no replica answered by an older memory",
            Unit::Seconds,
            Histogram::clone(&propagation),
        );
        Self {
            registry,
            requests,
            latency,
            writes_waiting,
            audit_dropped,
            verified_tokens,
            verified_bytes,
            listeners,
            store_up,
            issuer_up,
            lease_valid,
            log_applied,
            propagation,
        }
    }
}

impl Metrics {
    /// Counts a request that ended.
    pub fn record_request(&self, seen: &RequestMetric, took: Duration) {
        let RequestMetric { endpoint, outcome, status } = seen;
        let labels = RequestLabels { endpoint: Arc::clone(endpoint), outcome, status: *status };
        self.requests.get_or_create(&labels).inc();
        self.latency.get_or_create(&RouteLabel { endpoint: Arc::clone(endpoint) }).observe(took.as_secs_f64());
    }

    /// Takes note of how far a revocation got.
    pub fn record_propagation(&self, spread: &Propagation) {
        if spread.is_complete() {
            self.propagation.observe(spread.elapsed.as_secs_f64());
        }
    }

    /// The text that Prometheus reads, with the service's own numbers as of now.
    /// Without the issuers, which a store that is out can't tell, those of before stay.
    pub fn render(&self, service: &Service, issuers: Option<Vec<(String, bool)>>) -> Result<String, fmt::Error> {
        let number = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
        self.writes_waiting.set(number(service.write_queue_depth()));
        self.listeners.set(number(service.subscriber_count()));
        self.audit_dropped.inner().fetch_max(service.dropped_audit_records(), Ordering::Relaxed);
        self.lease_valid.set(i64::from(service.holds_lease()));
        self.log_applied.set(i64::try_from(service.applied_seq().number()).unwrap_or(i64::MAX));
        let (tokens, bytes) = service.token_cache_size();
        self.verified_tokens.set(number(tokens));
        self.verified_bytes.set(i64::try_from(bytes).unwrap_or(i64::MAX));
        self.store_up.set(i64::from(issuers.is_some()));
        if let Some(issuers) = issuers {
            self.issuer_up.clear();
            for (issuer, up) in issuers {
                self.issuer_up.get_or_create(&IssuerLabel { issuer }).set(i64::from(up));
            }
        }
        let mut text = String::new();
        encode(&mut text, &self.registry)?;
        Ok(text)
    }
}

/// 0.1 ms to about 1.6 s.
fn duration_histogram() -> Histogram {
    Histogram::new(exponential_buckets(0.000_1, 2.0, 15))
}
