//! `[status_list]`: Token Status List settings.

use crate::{config::node::Section, domain::status_list::StatusListSettings};

pub(in crate::config) fn read_status_list(root: &mut Section<'_>) -> StatusListSettings {
    let mut section = root.section("status_list");
    let default = StatusListSettings::default();
    let enabled = section.optional("enabled", |node| node.boolean()).unwrap_or(default.enabled);
    let ttl = section.lifetime(
        "ttl",
        default.ttl,
        2..=300,
        "seconds; a verifier that uses status lists may accept a revoked token for up to twice as long",
    );
    StatusListSettings { enabled, ttl }
}
