//! `[limits]` and `[quotas]`: what one caller may ask of a replica, connections, requests in
//! progress, and use of the store.

use std::time::Duration;

use crate::{
    config::node::Section,
    domain::settings::{AdmissionLimits, Quotas, RateLimit},
};

/// The largest rate: more than a replica can answer.
const MAX_RATE: u32 = 1_000_000;
/// The largest number of requests in progress, and of items under a quota.
const MAX_COUNT: u32 = 10_000_000;

/// The limits of `[limits]` that all callers share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Maximum open connections.
    pub connections: u32,
    /// Maximum open connections of one peer address.
    pub connections_per_peer: u32,
    /// How long a connection without a request stays open.
    pub keep_alive: Duration,
    /// Time limit for the headers of a request.
    pub headers: Duration,
    /// How long a client may leave a response unread without progress.
    pub unread: Duration,
    /// Maximum megabytes of unread responses.
    pub unread_megabytes: u32,
    /// Maximum megabytes of incomplete requests.
    pub incomplete_megabytes: u32,
    /// Refusals per second that are sent to one source address. Further ones are held back.
    pub refusals_per_second: u32,
    /// Maximum requests in progress, by family of endpoints.
    pub in_progress: InProgress,
}

/// The largest number of requests in progress, by family of endpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InProgress {
    /// Token requests.
    pub token: u32,
    /// Introspections.
    pub introspection: u32,
    /// Evaluations.
    pub evaluation: u32,
    /// Revocations by clients and requesters.
    pub revocation: u32,
    /// Other requests of agents, resources and requesters.
    pub self_service: u32,
    /// Revocations, suspensions, blocks and removals by admins.
    pub admin_revocation: u32,
    /// Other requests of admins.
    pub administration: u32,
    /// Public documents.
    pub documents: u32,
}

/// Reads `[limits]`: what one caller may ask, and what all callers share.
pub(in crate::config) fn read_limits(root: &mut Section<'_>) -> (AdmissionLimits, Limits) {
    let mut section = root.section("limits");
    let admission = read_admission(&mut section);
    let connections = section.number("connections", 10_000, 10..=1_000_000, "open connections of the public listener");
    let seconds = |seconds: u32| Duration::from_secs(seconds.into());
    let shared = Limits {
        connections,
        connections_per_peer: section.number(
            "connections_per_peer",
            1000.min(connections),
            1..=connections,
            "open connections of one peer address; at most `connections`",
        ),
        keep_alive: seconds(section.number(
            "keep_alive_seconds",
            75,
            5..=3600,
            "seconds; longer than a reverse proxy keeps its own connections to Errand open",
        )),
        headers: seconds(section.number("headers_seconds", 5, 1..=60, "seconds for the headers of a request")),
        unread: seconds(section.number(
            "unread_seconds",
            30,
            1..=600,
            "seconds; a client must read 16 KiB of a response in this time",
        )),
        unread_megabytes: section.number("unread_megabytes", 128, 8..=65_536, "megabytes of unread responses"),
        incomplete_megabytes: section.number(
            "incomplete_megabytes",
            64,
            8..=65_536,
            "megabytes of requests that clients have not completed",
        ),
        refusals_per_second: section.number(
            "refusals_per_second",
            200,
            1..=MAX_RATE,
            "refusals per second to one source address; further ones are held back",
        ),
        in_progress: read_in_progress(&mut section),
    };
    (admission, shared)
}

fn read_in_progress(limits: &mut Section<'_>) -> InProgress {
    let mut section = limits.section("in_progress");
    let mut number = |key, default| section.number(key, default, 1..=65_536, "requests in progress");
    InProgress {
        token: number("token", 512),
        introspection: number("introspection", 512),
        evaluation: number("evaluation", 512),
        revocation: number("revocation", 128),
        self_service: number("self_service", 128),
        admin_revocation: number("admin_revocation", 128),
        administration: number("administration", 64),
        documents: number("documents", 256),
    }
}

fn read_admission(limits: &mut Section<'_>) -> AdmissionLimits {
    let defaults = AdmissionLimits::default();
    AdmissionLimits {
        exchange: read_rate_limit(limits, "exchange", defaults.exchange),
        introspection: read_rate_limit(limits, "introspection", defaults.introspection),
        evaluation: read_rate_limit(limits, "evaluation", defaults.evaluation),
        tasks: read_rate_limit(limits, "tasks", defaults.tasks),
        requester: read_rate_limit(limits, "requester", defaults.requester),
        admin: read_rate_limit(limits, "admin", defaults.admin),
        feed: read_rate_limit(limits, "feed", defaults.feed),
    }
}

fn read_rate_limit(section: &mut Section<'_>, family: &'static str, default: RateLimit) -> RateLimit {
    let mut family = section.section(family);
    let per_second = family.number(
        "per_second",
        default.per_second.get(),
        1..=MAX_RATE,
        "requests per second of one caller, sustained",
    );
    let burst =
        family.number("burst", default.burst.get().max(per_second), 1..=MAX_RATE, "requests at once after a pause");
    let in_flight =
        family.number("in_flight", default.in_flight.get(), 1..=MAX_COUNT, "requests of one caller in progress");
    RateLimit::new(per_second, burst, in_flight)
}

pub(in crate::config) fn read_quotas(root: &mut Section<'_>) -> Quotas {
    let mut section = root.section("quotas");
    let defaults = Quotas::default();
    Quotas {
        open_tasks_per_agent: section.number(
            "open_tasks_per_agent",
            defaults.open_tasks_per_agent,
            1..=MAX_COUNT,
            "open tasks that one agent opened",
        ),
        open_tasks_per_requester: section.number(
            "open_tasks_per_requester",
            defaults.open_tasks_per_requester,
            1..=MAX_COUNT,
            "open tasks of one requester",
        ),
        live_tokens_per_task: section.number(
            "live_tokens_per_task",
            defaults.live_tokens_per_task,
            1..=MAX_COUNT,
            "tokens of one task that have not expired",
        ),
    }
}
