//! `[limits]` and `[quotas]`: what one caller may ask of a replica, and use of the store.

use crate::{
    config::node::Section,
    domain::settings::{AdmissionLimits, Quotas, RateLimit},
};

/// The largest rate: more than a replica can answer.
const MAX_RATE: u32 = 1_000_000;
/// The largest number of requests in progress, and of items under a quota.
const MAX_COUNT: u32 = 10_000_000;

pub(in crate::config) fn read_limits(root: &mut Section<'_>) -> AdmissionLimits {
    let mut section = root.section("limits");
    let defaults = AdmissionLimits::default();
    AdmissionLimits {
        exchange: read_rate_limit(&mut section, "exchange", defaults.exchange),
        introspection: read_rate_limit(&mut section, "introspection", defaults.introspection),
        tasks: read_rate_limit(&mut section, "tasks", defaults.tasks),
        requester: read_rate_limit(&mut section, "requester", defaults.requester),
        admin: read_rate_limit(&mut section, "admin", defaults.admin),
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
