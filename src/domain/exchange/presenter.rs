//! Who may present what, and ask for what kind of token with it.

use super::{Denial, Evidence, ExchangeInput, Presenter, RequestedToken};
use crate::domain::{
    exchange::presenter_binding::{self, AgentMatch, BindingEvidence},
    registry::{agent::Agent, issuer::TrustedIssuer, parties_are_active},
    token::{
        TaskTokenClaims, TokenKind,
        foreign_claims::{MayAct, UserClaims},
    },
    uri::ResourceUri,
};

/// Which outputs there are for whom, and that the target is not shut out.
pub(super) fn check_requested_token(ask: &ExchangeInput<'_>) -> Result<(), Denial> {
    match (ask.presenter, ask.requested_token) {
        (Presenter::Resource(_), RequestedToken::Access(_) | RequestedToken::HandOver(..)) => {
            return Err(Denial::ResourceLimitedToTxnToken);
        }
        (_, RequestedToken::Access(resource)) if resource.disabled => return Err(Denial::TargetBlocked),
        (Presenter::Agent(from), RequestedToken::HandOver(to, resource)) => {
            if resource.disabled || to.disabled {
                return Err(Denial::TargetBlocked);
            }
            if from.edge_to(&to.id).is_none() {
                return Err(Denial::DelegationNotAllowed);
            }
        }
        (Presenter::Agent(_), RequestedToken::Access(_)) | (_, RequestedToken::Txn) => {}
    }
    if ask.requested_token.resource().is_some_and(|resource| is_this_server(ask, &resource.uri)) {
        return Err(Denial::TargetIsIssuer);
    }
    match ask.subject {
        Evidence::Own(_, TokenKind::Txn) if !matches!(ask.requested_token, RequestedToken::Txn) => {
            Err(Denial::TxnTokenNotConvertible)
        }
        Evidence::Own(_, TokenKind::Api) => Err(Denial::ApiTokenNotExchangeable),
        Evidence::Own(..) | Evidence::User(..) => Ok(()),
    }
}

/// Hand-over tokens and API tokens are for us, transaction tokens for the trust domain, and none of them for a resource.
fn is_this_server(ask: &ExchangeInput<'_>, uri: &ResourceUri) -> bool {
    let named = |name: &str| name == uri.as_str() || name.parse::<ResourceUri>().is_ok_and(|name| name == *uri);
    named(ask.issuer.as_str()) || named(ask.trust_domain)
}

/// Whether the evidence points at the presenter. Returns by what right.
pub(super) fn check_presenter(ask: &ExchangeInput<'_>) -> Result<&'static str, Denial> {
    if ask.presenter.is_disabled() {
        return Err(Denial::PartyBlocked);
    }
    match (ask.subject, ask.presenter) {
        (Evidence::User(_, issuer), _) if issuer.disabled => Err(Denial::PartyBlocked),
        (Evidence::User(user, _), _) if ask.registry.is_blocked(&user.requester) => Err(Denial::RequesterBlocked),
        (Evidence::User(..), Presenter::Resource(_)) => Err(Denial::PresenterMismatch),
        (Evidence::User(user, issuer), Presenter::Agent(agent)) => {
            let basis = presenter_binding::check_binding(binding_evidence(ask, user, issuer, agent))
                .map_err(Denial::PresenterNotBound)?;
            Ok(basis.as_str())
        }
        (Evidence::Own(own, kind), presenter) => {
            check_parties_enabled(ask, own)?;
            if ask.actor_match == AgentMatch::OtherParty {
                return Err(Denial::PresenterNotBound(presenter_binding::BindingError::ActorTokenMismatch));
            }
            check_issued_token(ask, own, kind, presenter)
        }
    }
}

fn binding_evidence(
    ask: &ExchangeInput<'_>,
    user: &UserClaims,
    issuer: &TrustedIssuer,
    agent: &Agent,
) -> BindingEvidence {
    let names = agent.known_as.get(&issuer.issuer).map(Vec::as_slice).unwrap_or_default();
    let is_this_agent = |may_act: &MayAct| match may_act.iss.as_deref() {
        Some(iss) if iss == ask.issuer.as_str() => may_act.sub == agent.id.as_str(),
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
        actor_match: ask.actor_match,
        has_live_grant: super::consent::live_grants(ask).next().is_some(),
    }
}

/// A token of ours goes on from the client that holds it, from the resource it is for, or from the agent that it names.
fn check_issued_token(
    ask: &ExchangeInput<'_>,
    own: &TaskTokenClaims,
    kind: TokenKind,
    presenter: Presenter<'_>,
) -> Result<&'static str, Denial> {
    match (kind, presenter) {
        (TokenKind::Access, Presenter::Agent(agent)) if agent.id == own.client_id => Ok("holder"),
        (TokenKind::Access, Presenter::Resource(resource)) if resource.uri.as_str() == own.aud => Ok("audience"),
        (TokenKind::HandOver, Presenter::Agent(agent)) => {
            let named = own.may_act.as_ref().is_some_and(|next| next.iss == *ask.issuer && next.sub == agent.id);
            if named { Ok("hand_over") } else { Err(Denial::PresenterMismatch) }
        }
        (TokenKind::Txn, presenter) if own.req_wl.as_ref() == Some(presenter.id()) => Ok("holder"),
        _ => Err(Denial::PresenterMismatch),
    }
}

/// Nothing is derived from what somebody who is shut out took part in.
fn check_parties_enabled(ask: &ExchangeInput<'_>, own: &TaskTokenClaims) -> Result<(), Denial> {
    if parties_are_active(ask.registry, own, &own.revocation_keys()) { Ok(()) } else { Err(Denial::PartyBlocked) }
}
