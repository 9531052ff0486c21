//! Policies of issuers, resources and tools: consent, break-glass, effect and risk.

use serde::{Deserialize, Serialize};

/// Which calls need the requester's consent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ConsentPolicy {
    /// No calls.
    #[default]
    None,
    /// Calls of destructive tools.
    Destructive,
    /// All calls.
    Required,
}

impl ConsentPolicy {
    /// Returns whether a call of a tool with this effect needs consent.
    #[must_use]
    pub fn is_required_for(self, effect: Effect) -> bool {
        match (self, effect) {
            (Self::None, _) | (Self::Destructive, Effect::Read | Effect::Write) => false,
            (Self::Destructive, Effect::Destructive) | (Self::Required, _) => true,
        }
    }

    /// Returns whether no call needs consent, which is the default.
    #[must_use]
    pub fn is_none(&self) -> bool {
        *self == Self::None
    }
}

/// Whether a resource accepts tokens based on a break-glass grant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BreakGlassRule {
    /// Accepts them.
    #[default]
    Allow,
    /// Refuses them.
    Refuse,
}

impl BreakGlassRule {
    /// Returns whether such tokens are accepted, which is the default.
    #[must_use]
    pub fn is_allow(&self) -> bool {
        *self == Self::Allow
    }
}

/// What a call of a tool may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Effect {
    /// Reads only.
    Read,
    /// Makes changes that can be undone.
    Write,
    /// Makes changes that can't be undone.
    Destructive,
}

/// How much harm a wrong call does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Risk {
    /// Low.
    #[default]
    Low,
    /// Medium.
    Medium,
    /// High.
    High,
}
