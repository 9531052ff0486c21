//! The basis of an exchange: why the presenter may use the subject token.

use serde::{Deserialize, Serialize};

/// Why the presenter may use the subject token. Recorded in the audit record of the issued token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Basis {
    /// The user token's `may_act` names the agent.
    MayAct,
    /// The user token was issued to the agent: its `client_id` or `azp` names the agent.
    Client,
    /// The user token's `aud` names the agent.
    AgentAudience,
    /// Only a recorded grant of the requester names the agent.
    Grant,
    /// The presenter is the client that Errand issued the token to.
    Holder,
    /// The presenter is the resource that the access token is for.
    ResourceAudience,
    /// The hand-over token names the agent.
    HandOver,
}

impl Basis {
    /// All bases.
    pub const ALL: [Self; 7] = [
        Self::MayAct,
        Self::Client,
        Self::AgentAudience,
        Self::Grant,
        Self::Holder,
        Self::ResourceAudience,
        Self::HandOver,
    ];

    /// Returns the word in the audit record.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::MayAct => "may_act",
            Self::Client => "client",
            Self::AgentAudience => "agent_audience",
            Self::Grant => "grant",
            Self::Holder => "holder",
            Self::ResourceAudience => "resource_audience",
            Self::HandOver => "hand_over",
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn each_basis_has_its_own_word() {
        for (basis, word) in [
            (Basis::MayAct, "may_act"),
            (Basis::Client, "client"),
            (Basis::AgentAudience, "agent_audience"),
            (Basis::Grant, "grant"),
            (Basis::Holder, "holder"),
            (Basis::ResourceAudience, "resource_audience"),
            (Basis::HandOver, "hand_over"),
        ] {
            assert_eq!(basis.as_str(), word);
            assert_eq!(serde_json::to_value(basis).unwrap(), word);
            assert_eq!(serde_json::from_value::<Basis>(word.into()).unwrap(), basis);
        }
        let words = Basis::ALL.map(Basis::as_str).into_iter().collect::<BTreeSet<_>>();
        assert_eq!(words.len(), Basis::ALL.len());
    }
}
