//! Policies of issuers, resources and tools.

use serde::{Deserialize, Serialize};

/// Which calls need the requester's consent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ConsentPolicy {
    /// None.
    #[default]
    None,
    /// Those of tools whose calls can't be undone.
    Destructive,
    /// All.
    Required,
}

impl ConsentPolicy {
    /// Whether a call of a tool with this effect needs it.
    #[must_use]
    pub fn is_required_for(self, effect: Effect) -> bool {
        match (self, effect) {
            (Self::None, _) | (Self::Destructive, Effect::Read | Effect::Write) => false,
            (Self::Destructive, Effect::Destructive) | (Self::Required, _) => true,
        }
    }

    /// Whether there is no demand: as it is when nobody says anything.
    #[must_use]
    pub fn is_none(&self) -> bool {
        *self == Self::None
    }
}

/// Whether a resource takes what rests on a grant for an emergency.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BreakGlassRule {
    /// It does.
    #[default]
    Allow,
    /// It takes nothing of the kind.
    Refuse,
}

impl BreakGlassRule {
    /// Whether it is as it is when nobody says anything.
    #[must_use]
    pub fn is_allow(&self) -> bool {
        *self == Self::Allow
    }
}

/// What a call of a tool may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Effect {
    /// Looks only.
    Read,
    /// Changes, and the change can be undone.
    Write,
    /// Can't be undone.
    Destructive,
}

/// How much harm a wrong call does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Risk {
    /// Little.
    #[default]
    Low,
    /// Some.
    Medium,
    /// Much.
    High,
}
