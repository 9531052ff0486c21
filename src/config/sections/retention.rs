//! `[retention]`: how long rows are kept that no decision rests on any more.

use crate::{
    config::node::Section,
    domain::{settings::Retention, time::Lifetime},
};

/// The longest retention of tokens and tasks.
const MAX_DAYS: u32 = 3650;
/// The longest retention of idempotency keys and one-time ids.
const MAX_HOURS: u32 = 720;

pub(in crate::config) fn read_retention(root: &mut Section<'_>) -> Retention {
    let mut section = root.section("retention");
    let mut days = |key, hint| {
        // Two days are the first whole number above the shortest retention.
        section.optional(key, |node| node.integer(2..=MAX_DAYS, hint)).map(|days| Lifetime::hours(days * 24))
    };
    let default = Retention::default();
    let tokens = days("tokens_days", "days after the token expired").unwrap_or(default.tokens);
    let tasks = days("tasks_days", "days after the deadline of the task").unwrap_or(default.tasks);
    let hours = |hours: u32| Lifetime::hours(hours);
    Retention {
        tokens,
        tasks,
        idempotency: hours(section.number("idempotency_hours", 24, 24..=MAX_HOURS, "hours after the request")),
        one_time_ids: hours(section.number(
            "one_time_ids_hours",
            0,
            0..=MAX_HOURS,
            "hours after the id can no longer be presented",
        )),
    }
}
