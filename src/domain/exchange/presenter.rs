//! Checks of the presenter: which tokens it may present, and which kinds it may request.

use super::{Basis, Denial, Evidence, ExchangeInput, Presenter, RequestedToken};
use crate::domain::{
    exchange::presenter_binding::{self, AgentMatch, BindingEvidence},
    registry::{agent::Agent, issuer::TrustedIssuer, parties_are_active},
    token::{
        TaskTokenClaims, TokenKind,
        foreign_claims::{MayAct, UserClaims},
    },
    uri::{IssuerUrl, ResourceUri},
};

/// Checks that the presenter may request this kind of token, and that the target is not blocked.
pub(super) fn check_requested_token(input: &ExchangeInput<'_>) -> Result<(), Denial> {
    match (input.presenter, input.requested_token) {
        (Presenter::Resource(_), RequestedToken::Access(_) | RequestedToken::HandOver(..)) => {
            return Err(Denial::ResourceLimitedToTxnToken);
        }
        (_, RequestedToken::Access(resource)) if resource.disabled => return Err(Denial::TargetBlocked),
        (Presenter::Agent(from), RequestedToken::HandOver(to, resource)) => {
            // Before the state of the other agent, which only its delegators learn.
            if from.edge_to(&to.id).is_none() {
                return Err(Denial::DelegationNotAllowed);
            }
            if resource.disabled || to.disabled {
                return Err(Denial::TargetBlocked);
            }
        }
        (Presenter::Agent(_), RequestedToken::Access(_)) | (_, RequestedToken::Txn) => {}
    }
    if input.requested_token.resource().is_some_and(|resource| is_this_server(input, &resource.uri)) {
        return Err(Denial::TargetIsIssuer);
    }
    match input.subject {
        Evidence::Own(_, TokenKind::Txn) if !matches!(input.requested_token, RequestedToken::Txn) => {
            Err(Denial::TxnTokenNotConvertible)
        }
        Evidence::Own(_, TokenKind::Api) => Err(Denial::ApiTokenNotExchangeable),
        Evidence::Own(..) | Evidence::User(..) => Ok(()),
    }
}

/// Returns whether a resource has the name of this server (the audience of hand-over and API
/// tokens) or of the trust domain (that of transaction tokens).
fn is_this_server(input: &ExchangeInput<'_>, uri: &ResourceUri) -> bool {
    let named = |name: &str| name == uri.as_str() || name.parse::<ResourceUri>().is_ok_and(|name| name == *uri);
    named(input.issuer.as_str()) || named(input.trust_domain)
}

/// Checks that the presenter may use the subject token, and returns the basis. Whether the
/// presenter is bound to the token comes first: others learn nothing about the state of its
/// parties.
pub(super) fn check_presenter(input: &ExchangeInput<'_>) -> Result<Basis, Denial> {
    if input.presenter.is_disabled() {
        return Err(Denial::PartyBlocked);
    }
    match (input.subject, input.presenter) {
        (Evidence::User(..), Presenter::Resource(_)) => Err(Denial::PresenterMismatch),
        (Evidence::User(user, issuer), Presenter::Agent(agent)) => {
            let evidence = binding_evidence(input, user, issuer, agent);
            let basis = presenter_binding::check_binding(evidence).map_err(Denial::PresenterNotBound)?;
            if issuer.disabled {
                return Err(Denial::PartyBlocked);
            }
            if input.registry.is_blocked(&user.requester) { Err(Denial::RequesterBlocked) } else { Ok(basis) }
        }
        (Evidence::Own(own, kind), presenter) => {
            let basis = check_holder(own, kind, presenter, input.issuer)?;
            check_parties_enabled(input, own)?;
            if input.actor_match == AgentMatch::OtherParty {
                return Err(Denial::PresenterNotBound(presenter_binding::BindingError::ActorTokenMismatch));
            }
            Ok(basis)
        }
    }
}

fn binding_evidence(
    input: &ExchangeInput<'_>,
    user: &UserClaims,
    issuer: &TrustedIssuer,
    agent: &Agent,
) -> BindingEvidence {
    let names = agent.known_as.get(&issuer.issuer).map(Vec::as_slice).unwrap_or_default();
    let is_this_agent = |may_act: &MayAct| match may_act.iss.as_deref() {
        Some(iss) if iss == input.issuer.as_str() => may_act.sub == agent.id.as_str(),
        Some(iss) => iss == issuer.issuer.as_str() && names.contains(&may_act.sub),
        None => names.contains(&may_act.sub),
    };
    BindingEvidence {
        audience_names_agent: user.audiences.iter().any(|aud| names.contains(aud)),
        is_issued_to_agent: user.client.as_ref().is_some_and(|client| names.contains(client)),
        may_act: match &user.may_act {
            None => AgentMatch::Absent,
            Some(may_act) if is_this_agent(may_act) => AgentMatch::ThisAgent,
            Some(_) => AgentMatch::OtherParty,
        },
        is_key_bound: user.is_key_bound,
        actor_match: input.actor_match,
        has_live_grant: super::consent::live_grants(input).next().is_some(),
    }
}

/// Checks that the presenter holds the token, is the resource that it is for, or is the agent that
/// it names. A stranger gets one answer for every token, live or not, so this check precedes those
/// of expiry, standing and parties.
pub fn check_holder(
    own: &TaskTokenClaims,
    kind: TokenKind,
    presenter: Presenter<'_>,
    issuer: &IssuerUrl,
) -> Result<Basis, Denial> {
    match (kind, presenter) {
        (TokenKind::Access, Presenter::Agent(agent)) if agent.id == own.client_id => Ok(Basis::Holder),
        (TokenKind::Access, Presenter::Resource(resource)) if resource.uri.as_str() == own.aud => {
            Ok(Basis::ResourceAudience)
        }
        (TokenKind::HandOver, Presenter::Agent(agent)) => {
            let named = own.may_act.as_ref().is_some_and(|next| next.iss == *issuer && next.sub == agent.id);
            if named { Ok(Basis::HandOver) } else { Err(Denial::PresenterMismatch) }
        }
        (TokenKind::Txn, presenter) if own.req_wl.as_ref() == Some(presenter.id()) => Ok(Basis::Holder),
        _ => Err(Denial::PresenterMismatch),
    }
}

/// Checks that no party to the token is blocked.
fn check_parties_enabled(input: &ExchangeInput<'_>, own: &TaskTokenClaims) -> Result<(), Denial> {
    if parties_are_active(input.registry, own, &own.revocation_keys()) { Ok(()) } else { Err(Denial::PartyBlocked) }
}
