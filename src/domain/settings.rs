//! The limits that an operator sets, with the defaults of the contract.

use serde::Deserialize;

use crate::domain::time::Lifetime;

/// `[tokens]`: lives and depths of tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TokenLimits {
    /// How long a task token lives when the request does not say (seconds).
    pub lifetime: Lifetime,
    /// How long an API token lives (seconds).
    pub api_token_lifetime: Lifetime,
    /// How long the chain of agents may be.
    pub max_chain: usize,
    /// How far another clock may be off (seconds).
    pub leeway: Lifetime,
    /// How long a client assertion may live at most (seconds).
    pub max_assertion_lifetime: Lifetime,
}

/// No token lives longer than this, whatever is configured.
pub const TOKEN_LIFETIME_CAP: Lifetime = Lifetime::minutes(15);
/// How far the wall clocks of replicas may differ before something is forgotten too early.
pub const MAX_CLOCK_SKEW: Lifetime = Lifetime::hours(1);
/// No task lives longer than this, whatever is configured.
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

/// `[tasks]`: lives of tasks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TaskLimits {
    /// How long a task may take when the request does not say (seconds).
    pub lifetime: Lifetime,
    /// The longest `task_deadline` that is granted (seconds).
    pub max_lifetime: Lifetime,
}

impl Default for TaskLimits {
    fn default() -> Self {
        Self { lifetime: Lifetime::hours(1), max_lifetime: TASK_LIFETIME_CAP }
    }
}

/// How long a grant for an emergency lasts, where nothing else is configured or asked for.
pub const DEFAULT_BREAK_GLASS_LIFETIME: Lifetime = Lifetime::minutes(15);
/// No grant for an emergency lasts longer than this, whatever is configured.
pub const BREAK_GLASS_LIFETIME_CAP: Lifetime = Lifetime::hours(4);

/// `[memory]`: what is kept in memory so that it need not be worked out again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryLimits {
    /// How many tokens that were found good are kept; none, where it is 0.
    pub verified_tokens: u32,
    /// How much they may take (MiB).
    pub verified_megabytes: u32,
}

impl MemoryLimits {
    /// How much the tokens that were found good may take (bytes).
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

/// How large a JWT may be (bytes).
pub const MAX_JWT_BYTES: usize = 16 * 1024;
/// How large a request body may be (bytes).
pub const MAX_BODY_BYTES: usize = 64 * 1024;
/// How many parameters a form may have.
pub const MAX_PARAMETERS: usize = 64;
/// How large `request_details` and `request_context` may be (bytes each).
pub const MAX_CONTEXT_BYTES: usize = 4 * 1024;
/// How deep `request_details` and `request_context` may nest.
pub const MAX_CONTEXT_DEPTH: usize = 8;
