//! Limits that an operator configures, with their defaults, and fixed caps.

use serde::Deserialize;

use crate::domain::time::Lifetime;

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

/// Maximum size of a JWT (bytes).
pub const MAX_JWT_BYTES: usize = 16 * 1024;
/// Maximum size of a request body (bytes).
pub const MAX_BODY_BYTES: usize = 64 * 1024;
/// Maximum number of parameters in a form.
pub const MAX_PARAMETERS: usize = 64;
/// Maximum size of `request_details` and of `request_context` (bytes each).
pub const MAX_CONTEXT_BYTES: usize = 4 * 1024;
/// Maximum nesting depth of `request_details` and `request_context`.
pub const MAX_CONTEXT_DEPTH: usize = 8;
