//! `[replicas]`: name, lease and heartbeat of this replica.

use crate::config::{Requests, node::Section, sections::secrets};

/// The environment variable that overrides `name`.
pub const REPLICA_NAME_VARIABLE: &str = "ERRAND_REPLICA_NAME";

/// Returns whether a text can be the name of a replica.
#[must_use]
pub fn is_replica_name(text: &str) -> bool {
    (1..=100).contains(&text.chars().count()) && !text.chars().any(char::is_control)
}

/// `[replicas]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replicas {
    /// Name of this replica; the host name by default.
    pub name: Option<String>,
    /// Lease duration: how long a replica answers from memory after it renewed its lease.
    pub lease_ms: u32,
    /// Interval of lease renewals.
    pub heartbeat_ms: u32,
}

pub(in crate::config) fn read_replicas(root: &mut Section<'_>, requests: Requests) -> Replicas {
    let mut section = root.section("replicas");
    let (reason, remedy) = (
        "must be 1 to 100 characters without control characters",
        "write a name, or leave it out to use the host name",
    );
    let name = section.optional("name", |node| {
        let text = node.string()?;
        let is_valid = is_replica_name(text);
        if !is_valid {
            node.error(reason, remedy);
        }
        is_valid.then(|| text.to_owned())
    });
    let document = section.location.document;
    let name = match secrets::read_variable(document, REPLICA_NAME_VARIABLE) {
        Some(text) if is_replica_name(&text) => Some(text.to_string()),
        Some(_) => {
            document.add_environment_error(REPLICA_NAME_VARIABLE, reason.to_owned(), remedy.to_owned());
            None
        }
        None => name,
    };
    // A revocation waits for the lease of a crashed replica and must be acknowledged before the
    // timeout.
    let max = requests.timeout_seconds.saturating_mul(1000).saturating_sub(250).min(30_000);
    let lease_ms = section.number(
        "lease_ms",
        2000.min(max),
        100..=max,
        "milliseconds; at least 250 ms shorter than `timeout_seconds` in `[requests]`, because a revocation waits this long for a crashed replica",
    );
    let heartbeat_ms = section.number(
        "heartbeat_ms",
        lease_ms / 4,
        20..=lease_ms / 3,
        "milliseconds; at most a third of `lease_ms`, so that one renewal may be lost",
    );
    Replicas { name, lease_ms, heartbeat_ms }
}
