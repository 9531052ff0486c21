//! Binding of a user token to the agent that presents it. Prevents token splicing: the combination
//! of two unrelated valid tokens into a delegation.
//!
//! RFC 8693 validates subject token and actor token separately. A compromised party could therefore
//! pair one user's token with an unrelated actor, and get a well-formed chain that never existed.
//! Here, the requester's evidence must name the agent that presents it: by audience, by client, by
//! `may_act`, or by a recorded grant.

use thiserror::Error;

use super::Basis;

/// What names the presenting agent, and what names another party.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "columns of a truth table, independent of each other")]
pub struct BindingEvidence {
    /// Whether the subject token's `aud` names the agent, as that of an ID token does.
    pub audience_names_agent: bool,
    /// Whether the subject token's `client_id` or `azp` names the agent.
    pub is_issued_to_agent: bool,
    /// The subject token's `may_act`.
    pub may_act: AgentMatch,
    /// Whether the subject token is bound to a key. Errand accepts no proof of possession.
    pub is_key_bound: bool,
    /// The `actor_token` of the request.
    pub actor_match: AgentMatch,
    /// Whether a live grant of this requester to this agent is recorded.
    pub has_live_grant: bool,
}

/// Whom a part of the request names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AgentMatch {
    /// The request has no such part.
    Absent,
    /// The part names the presenting agent.
    ThisAgent,
    /// The part names another party.
    OtherParty,
}

/// Why the agent may not act for the requester.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum BindingError {
    /// Nothing in the subject token names the agent, and no live grant is recorded.
    #[error(
        "the subject token does not name this agent, and no grant is recorded; add the client that it was issued to (`client_id` or `azp`) to the agent's `known_as` for the issuer, or record a grant"
    )]
    Unrelated,
    /// The subject token names the agent, but is bound to a key, and neither `may_act` nor a grant
    /// allows another party to use it.
    #[error(
        "the subject token is bound to a key (`cnf`); another party may use it only by `may_act` or a recorded grant"
    )]
    KeyBound,
    /// `may_act` names another party, which overrides all other evidence.
    #[error("`may_act` names another party")]
    MayActMismatch,
    /// The actor token names another party.
    #[error("the actor token names another party")]
    ActorTokenMismatch,
}

/// Checks whether the agent may act for the requester, and returns the basis.
///
/// An actor token or a `may_act` that names another party overrides all other evidence. For a token
/// that is bound to a key, audience and client are not enough, since a thief of the token would
/// meet both: `may_act` or a grant must name the agent.
pub fn check_binding(evidence: BindingEvidence) -> Result<Basis, BindingError> {
    match (evidence.actor_match, evidence.may_act) {
        (AgentMatch::OtherParty, _) => Err(BindingError::ActorTokenMismatch),
        (_, AgentMatch::OtherParty) => Err(BindingError::MayActMismatch),
        (_, AgentMatch::ThisAgent) => Ok(Basis::MayAct),
        (_, AgentMatch::Absent) if evidence.is_issued_to_agent && !evidence.is_key_bound => Ok(Basis::Client),
        (_, AgentMatch::Absent) if evidence.audience_names_agent && !evidence.is_key_bound => Ok(Basis::AgentAudience),
        (_, AgentMatch::Absent) if evidence.has_live_grant => Ok(Basis::Grant),
        (_, AgentMatch::Absent) if evidence.is_issued_to_agent || evidence.audience_names_agent => {
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
                    let evidence = BindingEvidence {
                        audience_names_agent: audience,
                        is_issued_to_agent: client,
                        may_act,
                        is_key_bound: bound,
                        actor_match: actor,
                        has_live_grant: grant,
                    };
                    // The rule in another form: no other party is named, and the agent is; for a
                    // token bound to a key, explicitly.
                    let is_explicit = grant || may_act == AgentMatch::ThisAgent;
                    let want = actor != AgentMatch::OtherParty
                        && may_act != AgentMatch::OtherParty
                        && (is_explicit || (!bound && (audience || client)));
                    assert_eq!(check_binding(evidence).is_ok(), want, "{evidence:?}");
                    if want { legal += 1 } else { illegal += 1 }
                }
            }
        }
        assert_eq!((legal, illegal), (54, 90));
    }
}
