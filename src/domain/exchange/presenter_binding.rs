//! No splice: two honest tokens that have nothing to do with each other can't be combined into a delegation.
//!
//! RFC 8693 validates subject token and actor token on their own, so a compromised party could pair one user's token
//! with an unrelated actor and get a well-formed chain that never existed. Here the requester's evidence must point at
//! the agent that presents it: by audience, by client, by `may_act`, or by a recorded grant.

use thiserror::Error;

/// How the subject token stands to the agent that presents it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "they are the columns of a truth table, each true or false on its own"
)]
pub struct BindingEvidence {
    /// Whether its `aud` names the agent (an ID token for its client).
    pub audience_names_agent: bool,
    /// Whether its `client_id` or `azp` is the agent.
    pub is_issued_to_agent: bool,
    /// What its `may_act` says.
    pub may_act: AgentMatch,
    /// Whether it is bound to a key, of which we take no proof.
    pub is_key_bound: bool,
    /// What the `actor_token`, if there is one, says.
    pub actor_match: AgentMatch,
    /// Whether a grant of this requester to this agent is on record, and not over.
    pub has_live_grant: bool,
}

/// What a part of the request says about the agent that presents it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AgentMatch {
    /// There is no such part.
    Absent,
    /// It names this agent.
    ThisAgent,
    /// It names somebody else.
    OtherParty,
}

/// By what right an agent acts for the requester. Kept in the audit record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DelegationBasis {
    /// `may_act` names it.
    MayAct,
    /// The token was issued to it.
    Client,
    /// The token is meant for it.
    Audience,
    /// A grant is on record.
    Grant,
}

impl DelegationBasis {
    /// The word for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::MayAct => "may_act",
            Self::Client => "client",
            Self::Audience => "audience",
            Self::Grant => "grant",
        }
    }
}

/// Why the agent may not act for the requester.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum BindingError {
    /// Nothing in the subject token points at it, and no grant is on record.
    #[error("the subject token does not point at this agent, and no grant is on record")]
    Unrelated,
    /// It points at it, but is bound to a key, and nobody said that another party may use it.
    #[error(
        "the subject token is bound to a key (`cnf`): only by `may_act` or a recorded grant may another party use it"
    )]
    KeyBound,
    /// `may_act` names somebody else; whatever else points at it.
    #[error("`may_act` names another party")]
    MayActMismatch,
    /// The actor token is somebody else's.
    #[error("the actor token is not this agent's")]
    ActorTokenMismatch,
}

/// Whether the agent may act for the requester. `may_act` is the issuer's last word: when it names somebody else,
/// nothing outweighs it; and an actor token that is not the agent's own is never outweighed either. A token that is
/// bound to a key is of no use by being found: somebody must have said that this agent may have it.
pub fn check_binding(pointers: BindingEvidence) -> Result<DelegationBasis, BindingError> {
    match (pointers.actor_match, pointers.may_act) {
        (AgentMatch::OtherParty, _) => Err(BindingError::ActorTokenMismatch),
        (_, AgentMatch::OtherParty) => Err(BindingError::MayActMismatch),
        (_, AgentMatch::ThisAgent) => Ok(DelegationBasis::MayAct),
        (_, AgentMatch::Absent) if pointers.is_issued_to_agent && !pointers.is_key_bound => Ok(DelegationBasis::Client),
        (_, AgentMatch::Absent) if pointers.audience_names_agent && !pointers.is_key_bound => {
            Ok(DelegationBasis::Audience)
        }
        (_, AgentMatch::Absent) if pointers.has_live_grant => Ok(DelegationBasis::Grant),
        (_, AgentMatch::Absent) if pointers.is_issued_to_agent || pointers.audience_names_agent => {
            Err(BindingError::KeyBound)
        }
        (_, AgentMatch::Absent) => Err(BindingError::Unrelated),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MATCHES: [AgentMatch; 3] = [AgentMatch::Absent, AgentMatch::ThisAgent, AgentMatch::OtherParty];

    #[test]
    fn check_binding_decides_every_combination_as_specified() {
        let (mut legal, mut illegal) = (0, 0);
        for cell in 0..16 {
            let [audience, client, bound, grant] = [1, 2, 4, 8].map(|bit| cell & bit != 0);
            for may_act in MATCHES {
                for actor in MATCHES {
                    let pointers = BindingEvidence {
                        audience_names_agent: audience,
                        is_issued_to_agent: client,
                        may_act,
                        is_key_bound: bound,
                        actor_match: actor,
                        has_live_grant: grant,
                    };
                    // Said the other way round: nobody else is named, and somebody points here, or, when a key is
                    // asked for, says so.
                    let said = grant || may_act == AgentMatch::ThisAgent;
                    let want = actor != AgentMatch::OtherParty
                        && may_act != AgentMatch::OtherParty
                        && (said || (!bound && (audience || client)));
                    assert_eq!(check_binding(pointers).is_ok(), want, "{pointers:?}");
                    if want { legal += 1 } else { illegal += 1 }
                }
            }
        }
        assert_eq!((legal, illegal), (54, 90));
    }
}
