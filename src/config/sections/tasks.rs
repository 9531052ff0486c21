//! `[tasks]` and `[break_glass]`: lifetimes of tasks and of break-glass grants.

use crate::{
    config::node::Section,
    domain::{
        grants::break_glass::BreakGlassLimits,
        settings::{BREAK_GLASS_LIFETIME_CAP, TASK_LIFETIME_CAP, TaskLimits},
    },
};

pub(in crate::config) fn read_tasks(root: &mut Section<'_>) -> TaskLimits {
    let mut section = root.section("tasks");
    let default = TaskLimits::default();
    let cap = TASK_LIFETIME_CAP.as_seconds();
    let max_lifetime =
        section.lifetime("max_lifetime", default.max_lifetime, 10..=cap, "seconds; the maximum is 24 hours");
    let default_lifetime = default.lifetime.min(max_lifetime);
    TaskLimits {
        lifetime: section.lifetime(
            "lifetime",
            default_lifetime,
            10..=max_lifetime.as_seconds(),
            "seconds; at most `max_lifetime`",
        ),
        max_lifetime,
    }
}

pub(in crate::config) fn read_break_glass(root: &mut Section<'_>) -> BreakGlassLimits {
    let mut section = root.section("break_glass");
    let default = BreakGlassLimits::default();
    let range = 10..=BREAK_GLASS_LIFETIME_CAP.as_seconds();
    BreakGlassLimits {
        max_lifetime: section.lifetime("max_lifetime", default.max_lifetime, range, "seconds; the maximum is 4 hours"),
    }
}
