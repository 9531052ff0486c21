//! `[requests]`: limits on requests.

use crate::config::node::Section;

/// `[requests]`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Requests {
    /// Maximum duration of a request.
    pub timeout_seconds: u32,
    /// Maximum queued writes of clients; further writes are rejected with 503.
    pub write_queue: u32,
    /// Maximum queued writes of admins and requesters, which go first.
    pub reserved_write_queue: u32,
    /// Maximum queued audit records that no request waits for; further ones are dropped and
    /// counted.
    pub audit_queue: u32,
    /// Maximum lists that a client reads at the same time; further ones are rejected with 429.
    pub lists_per_client: u32,
    /// Maximum subscribers of the revocation feed.
    pub subscribers: u32,
    /// Maximum subscribers with API tokens of the same client.
    pub subscribers_per_client: u32,
}

pub(in crate::config) fn read_requests(root: &mut Section<'_>) -> Requests {
    let mut section = root.section("requests");
    Requests {
        timeout_seconds: section.number(
            "timeout_seconds",
            10,
            1..=120,
            "seconds; most clients give up after about ten",
        ),
        write_queue: section.number("write_queue", 1024, 1..=65536, "maximum queued writes of clients"),
        reserved_write_queue: section.number(
            "reserved_write_queue",
            256,
            1..=65536,
            "maximum queued writes of admins and requesters",
        ),
        audit_queue: section.number("audit_queue", 4096, 1..=65536, "maximum queued audit records"),
        lists_per_client: section.number("lists_per_client", 2, 1..=1000, "lists of a client at the same time"),
        subscribers: section.number("subscribers", 1000, 1..=65536, "subscribers; each keeps a connection open"),
        subscribers_per_client: section.number(
            "subscribers_per_client",
            100,
            1..=65536,
            "subscribers; one for each process of an MCP server that verifies tokens offline",
        ),
    }
}
