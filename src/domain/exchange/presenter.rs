//! Checks of the presenter: which tokens it may present, and which kinds it may request.

use super::{Basis, Denial, Evidence, ExchangeInput, Presenter, RequestedToken};
use crate::domain::{
    exchange::presenter_binding::{self, AgentMatch, BindingEvidence},
    grants::break_glass,
    registry::{Registry, client::Agent, issuer::TrustedIssuer},
    revocation::RevocationKeys,
    token::{
        TaskTokenClaims, TokenKind,
        actor_chain::Actor,
        foreign_claims::{MayAct, UserClaims},
    },
    uri::ResourceUri,
};

/// Checks that the presenter may request this kind of token, and that the target is not blocked.
pub(super) fn check_requested_token(input: &ExchangeInput<'_>) -> Result<(), Denial> {
    match (input.presenter, input.requested_token) {
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

/// Checks that the presenter may use the subject token, and returns the basis.
pub(super) fn check_presenter(input: &ExchangeInput<'_>) -> Result<Basis, Denial> {
    if input.presenter.is_disabled() {
        return Err(Denial::PartyBlocked);
    }
    match (input.subject, input.presenter) {
        (Evidence::User(_, issuer), _) if issuer.disabled => Err(Denial::PartyBlocked),
        (Evidence::User(user, _), _) if input.registry.is_blocked(&user.requester) => Err(Denial::RequesterBlocked),
        (Evidence::User(..), Presenter::Resource(_)) => Err(Denial::PresenterMismatch),
        (Evidence::User(user, issuer), Presenter::Agent(agent)) => {
            let evidence = binding_evidence(input, user, issuer, agent);
            presenter_binding::check_binding(evidence).map_err(Denial::PresenterNotBound)
        }
        (Evidence::Own(own, kind), presenter) => {
            check_parties_enabled(input, own)?;
            if input.actor_match == AgentMatch::OtherParty {
                return Err(Denial::PresenterNotBound(presenter_binding::BindingError::ActorTokenMismatch));
            }
            check_issued_token(input, own, kind, presenter)
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
/// it names.
fn check_issued_token(
    input: &ExchangeInput<'_>,
    own: &TaskTokenClaims,
    kind: TokenKind,
    presenter: Presenter<'_>,
) -> Result<Basis, Denial> {
    match (kind, presenter) {
        (TokenKind::Access, Presenter::Agent(agent)) if agent.id == own.client_id => Ok(Basis::Holder),
        (TokenKind::Access, Presenter::Resource(resource)) if resource.uri.as_str() == own.aud => {
            Ok(Basis::ResourceAudience)
        }
        (TokenKind::HandOver, Presenter::Agent(agent)) => {
            let named = own.may_act.as_ref().is_some_and(|next| next.iss == *input.issuer && next.sub == agent.id);
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

/// Returns whether all parties to a token are registered and neither disabled nor blocked.
///
/// The parties are the requester and its issuer, the client, every agent of this server in the
/// chain, the agent that a hand-over token names, and the resources. A resource may also refuse
/// tokens that depend on a break-glass grant. `keys` are the token's revocation keys.
#[must_use]
pub fn parties_are_active(registry: &Registry, own: &TaskTokenClaims, keys: &RevocationKeys) -> bool {
    let issuer = registry.issuer(own.sub_iss.as_str()).is_some_and(|issuer| !issuer.disabled);
    let requester = !keys.requester.as_ref().is_some_and(|requester| registry.is_blocked(requester));
    let clients = keys.agents.iter().all(|id| registry.client(id).is_some_and(|client| !client.is_disabled()));
    // An actor whose `sub` is not a client id is not among the keys.
    let is_agent =
        |actor: &Actor| keys.agents.iter().any(|id| id.as_str() == actor.sub && registry.agent(id).is_some());
    let resources = keys.resources.iter().all(|uri| registry.resource_at(uri).is_some_and(|r| !r.disabled));
    let resources = resources && (!own.break_glass || break_glass::is_accepted(registry, &own.authorization_details));
    issuer && requester && clients && own.own_actors().all(is_agent) && resources
}
