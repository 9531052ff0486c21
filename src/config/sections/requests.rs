//! `[requests]`: limits on requests.

use crate::config::node::Section;

/// `[requests]`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Requests {
    /// Maximum duration of a request.
    pub timeout_seconds: u32,
    /// Maximum queued writes (exchanges, revocations); further writes are rejected with 503.
    pub queue: u32,
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
        queue: section.number("queue", 1024, 1..=65536, "maximum queued writes"),
        subscribers: section.number("subscribers", 1000, 1..=65536, "subscribers; each keeps a connection open"),
        subscribers_per_client: section.number(
            "subscribers_per_client",
            100,
            1..=65536,
            "subscribers; one for each process of an MCP server that verifies tokens offline",
        ),
    }
}
