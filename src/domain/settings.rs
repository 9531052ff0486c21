//! Limits that an operator configures, with their defaults, and fixed caps.

use std::num::NonZeroU32;

use serde::Deserialize;

use crate::domain::time::{Lifetime, Timestamp};

/// `[tokens]`: lifetimes and depths of tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TokenLimits {
    /// The lifetime of a task token if the request names none (seconds).
    pub lifetime: Lifetime,
    /// The lifetime of an API token (seconds).
    pub api_token_lifetime: Lifetime,
    /// The maximum number of agents in a chain.
    pub max_chain: usize,
    /// The tolerance for clocks of other parties (seconds).
    pub leeway: Lifetime,
    /// The maximum lifetime of a client assertion (seconds).
    pub max_assertion_lifetime: Lifetime,
}

/// The maximum lifetime of any token, regardless of the configuration.
pub const TOKEN_LIFETIME_CAP: Lifetime = Lifetime::minutes(15);
/// The maximum difference between the wall clocks of replicas. Retention times include it.
pub const MAX_CLOCK_SKEW: Lifetime = Lifetime::hours(1);
/// The maximum lifetime of any task, regardless of the configuration.
pub const TASK_LIFETIME_CAP: Lifetime = Lifetime::hours(24);

impl Default for TokenLimits {
    fn default() -> Self {
        Self {
            lifetime: Lifetime::minutes(5),
            api_token_lifetime: Lifetime::minutes(15),
            max_chain: 4,
            leeway: Lifetime::seconds(30),
            max_assertion_lifetime: Lifetime::minutes(5),
        }
    }
}

/// `[tasks]`: lifetimes of tasks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TaskLimits {
    /// The lifetime of a task if the request names none (seconds).
    pub lifetime: Lifetime,
    /// The latest `task_deadline` that is granted (seconds from now).
    pub max_lifetime: Lifetime,
}

impl Default for TaskLimits {
    fn default() -> Self {
        Self { lifetime: Lifetime::hours(1), max_lifetime: TASK_LIFETIME_CAP }
    }
}

/// The lifetime of a break-glass grant if neither the configuration nor the request names one.
pub const DEFAULT_BREAK_GLASS_LIFETIME: Lifetime = Lifetime::minutes(15);
/// The maximum lifetime of a break-glass grant, regardless of the configuration.
pub const BREAK_GLASS_LIFETIME_CAP: Lifetime = Lifetime::hours(4);

/// `[memory]`: the cache of verified tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryLimits {
    /// The maximum number of verified tokens in the cache; 0 disables it.
    pub verified_tokens: u32,
    /// The maximum size of the cache (MiB).
    pub verified_megabytes: u32,
}

impl MemoryLimits {
    /// Returns the maximum size of the cache in bytes.
    #[must_use]
    pub fn verified_bytes(self) -> u64 {
        u64::from(self.verified_megabytes) << 20
    }
}

impl Default for MemoryLimits {
    fn default() -> Self {
        Self { verified_tokens: 32_768, verified_megabytes: 128 }
    }
}

/// What one caller may ask of one replica: a rate with a burst, and a number of requests at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RateLimit {
    /// The sustained number of requests per second.
    pub per_second: NonZeroU32,
    /// The number of requests that may come at once after a pause.
    pub burst: NonZeroU32,
    /// The number of requests that may be in progress at a time.
    pub in_flight: NonZeroU32,
}

impl RateLimit {
    /// Returns a limit. Zero means one: a limit locks no caller out.
    #[must_use]
    pub const fn new(per_second: u32, burst: u32, in_flight: u32) -> Self {
        const fn at_least_one(number: u32) -> NonZeroU32 {
            match NonZeroU32::new(number) {
                Some(number) => number,
                None => NonZeroU32::MIN,
            }
        }
        Self { per_second: at_least_one(per_second), burst: at_least_one(burst), in_flight: at_least_one(in_flight) }
    }
}

/// `[limits]`: the limits of each caller, by the family of requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AdmissionLimits {
    /// The token and revocation endpoints, for each client.
    pub exchange: RateLimit,
    /// The introspection endpoint, for each resource.
    pub introspection: RateLimit,
    /// The evaluation endpoints, for each resource.
    pub evaluation: RateLimit,
    /// The task API, for each client.
    pub tasks: RateLimit,
    /// The task and grant API, for each requester.
    pub requester: RateLimit,
    /// The admin API, for each admin client.
    pub admin: RateLimit,
    /// The revocation feed, for each client: polls, and new streams.
    pub feed: RateLimit,
}

impl Default for AdmissionLimits {
    fn default() -> Self {
        Self {
            exchange: RateLimit::new(100, 500, 64),
            introspection: RateLimit::new(5_000, 10_000, 256),
            evaluation: RateLimit::new(5_000, 10_000, 256),
            tasks: RateLimit::new(100, 500, 64),
            requester: RateLimit::new(20, 100, 16),
            admin: RateLimit::new(200, 1_000, 64),
            feed: RateLimit::new(100, 500, 200),
        }
    }
}

/// `[quotas]`: how much of the store one party may use, over all replicas.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quotas {
    /// The open tasks that an agent opened.
    pub open_tasks_per_agent: u32,
    /// The open tasks of a requester.
    pub open_tasks_per_requester: u32,
    /// The tokens of a task that have not expired.
    pub live_tokens_per_task: u32,
}

impl Default for Quotas {
    fn default() -> Self {
        Self { open_tasks_per_agent: 10_000, open_tasks_per_requester: 1_000, live_tokens_per_task: 1_000 }
    }
}

/// `[retention]`: how long rows are kept that no decision rests on any more. Blocks, revocations
/// and checkpoints are kept for good; the audit trail is pruned by command only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// How long the record of a token is kept after the token and the user token behind it have
    /// expired, and its task has ended.
    pub tokens: Lifetime,
    /// How long a task is kept after its deadline. It outlives the records of its tokens.
    pub tasks: Lifetime,
    /// How long the response to an idempotency key is kept.
    pub idempotency: Lifetime,
    /// How long the record of a one-time id is kept after the id can no longer be presented.
    pub one_time_ids: Lifetime,
}

/// The shortest retention of tokens and tasks: no task is open that long, so nothing can be derived
/// from them.
pub const MIN_RETENTION: Lifetime = TASK_LIFETIME_CAP.saturating_add(MAX_CLOCK_SKEW);
/// The shortest retention of responses to idempotency keys, which clients rely on.
pub const MIN_IDEMPOTENCY_RETENTION: Lifetime = Lifetime::hours(24);

impl Default for Retention {
    fn default() -> Self {
        Self {
            tokens: Lifetime::hours(90 * 24),
            tasks: Lifetime::hours(90 * 24),
            idempotency: MIN_IDEMPOTENCY_RETENTION,
            one_time_ids: Lifetime::seconds(0),
        }
    }
}

/// The times up to which rows are deleted, by kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetentionCutoffs {
    /// Tokens: everything about them ended by then.
    pub tokens: Timestamp,
    /// Tasks: their deadline.
    pub tasks: Timestamp,
    /// Responses to idempotency keys: the end of the shortest retention.
    pub idempotency: Timestamp,
    /// One-time ids: the time until which they could be presented.
    pub one_time_ids: Timestamp,
}

impl Retention {
    /// Returns what may be deleted. No setting goes below the shortest retention.
    #[must_use]
    pub fn cutoffs(self, now: Timestamp) -> RetentionCutoffs {
        let beyond_shortest = self.idempotency.as_seconds().saturating_sub(MIN_IDEMPOTENCY_RETENTION.as_seconds());
        RetentionCutoffs {
            tokens: now.saturating_sub(self.tokens.max(MIN_RETENTION)),
            tasks: now.saturating_sub(self.tasks.max(MIN_RETENTION)),
            idempotency: now.saturating_sub(Lifetime::seconds(beyond_shortest)),
            one_time_ids: now.saturating_sub(self.one_time_ids),
        }
    }
}

/// Maximum size of a JWT (bytes).
pub const MAX_JWT_BYTES: usize = 16 * 1024;
/// Maximum size of a request body (bytes).
pub const MAX_BODY_BYTES: usize = 64 * 1024;
/// Maximum size of the body of an evaluation (bytes).
pub const MAX_EVALUATION_BYTES: usize = 1024 * 1024;
/// Maximum nesting depth of the body of an evaluation.
pub const MAX_EVALUATION_DEPTH: usize = 64;
/// Maximum number of parameters in a form.
pub const MAX_PARAMETERS: usize = 64;
/// Maximum size of `request_details` and of `request_context` (bytes each).
pub const MAX_CONTEXT_BYTES: usize = 4 * 1024;
/// Maximum nesting depth of `request_details` and `request_context`.
pub const MAX_CONTEXT_DEPTH: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_deleted_before_its_shortest_retention() {
        let now = Timestamp::from_unix(100_000_000);
        let ago = |hours: i64| Timestamp::from_unix(now.unix() - hours * 3600);
        for (hours, tokens, tasks, idempotency, one_time_ids) in
            [(0, 25, 25, 0, 0), (24, 25, 25, 0, 24), (25, 25, 25, 1, 25), (100, 100, 100, 76, 100)]
        {
            let every = Lifetime::hours(hours);
            let retention = Retention { tokens: every, tasks: every, idempotency: every, one_time_ids: every };
            let want = RetentionCutoffs {
                tokens: ago(tokens),
                tasks: ago(tasks),
                idempotency: ago(idempotency),
                one_time_ids: ago(one_time_ids),
            };
            assert_eq!(retention.cutoffs(now), want, "{hours}");
        }
    }
}
