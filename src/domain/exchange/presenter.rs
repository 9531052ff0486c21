//! Who may present what, and ask for what kind of token with it.

use super::{Ask, Denial, Evidence, Output, Presenter};
use crate::domain::{
    break_glass,
    chain::Hop,
    claims::{MayAct, UserClaims},
    client::Agent,
    issuer::TrustedIssuer,
    registry::Registry,
    revocation::Names,
    splice::{self, Pointers, Says},
    token::{TaskTokenClaims, TokenKind},
    uri::ResourceUri,
};

/// Which outputs there are for whom, and that the target is not shut out.
pub(super) fn check_output(ask: &Ask<'_>) -> Result<(), Denial> {
    match (ask.presenter, ask.output) {
        (Presenter::Resource(_), Output::Access(_) | Output::HandOver(..)) => return Err(Denial::OnlyTxnForResource),
        (_, Output::Access(resource)) if resource.disabled => return Err(Denial::TargetShutOut),
        (Presenter::Agent(from), Output::HandOver(to, resource)) => {
            if resource.disabled || to.disabled {
                return Err(Denial::TargetShutOut);
            }
            if from.edge_to(&to.id).is_none() {
                return Err(Denial::MayNotDelegate);
            }
        }
        (Presenter::Agent(_), Output::Access(_)) | (_, Output::Txn) => {}
    }
    if ask.output.resource().is_some_and(|resource| is_us(ask, &resource.uri)) {
        return Err(Denial::TargetIsUs);
    }
    match ask.subject {
        Evidence::Own(_, TokenKind::Txn) if !matches!(ask.output, Output::Txn) => Err(Denial::TxnOnlyReplaced),
        Evidence::Own(_, TokenKind::Api) => Err(Denial::ApiToken),
        Evidence::Own(..) | Evidence::User(..) => Ok(()),
    }
}

/// Hand-over tokens and API tokens are for us, transaction tokens for the trust domain, and none of them for a resource.
fn is_us(ask: &Ask<'_>, uri: &ResourceUri) -> bool {
    let named = |name: &str| name == uri.as_str() || name.parse::<ResourceUri>().is_ok_and(|name| name == *uri);
    named(ask.issuer.as_str()) || named(ask.trust_domain)
}

/// Whether the evidence points at the presenter. Returns by what right.
pub(super) fn check_presenter(ask: &Ask<'_>) -> Result<&'static str, Denial> {
    if ask.presenter.is_disabled() {
        return Err(Denial::ShutOut);
    }
    match (ask.subject, ask.presenter) {
        (Evidence::User(_, issuer), _) if issuer.disabled => Err(Denial::ShutOut),
        (Evidence::User(user, _), _) if ask.registry.is_out(&user.requester) => Err(Denial::RequesterShutOut),
        (Evidence::User(..), Presenter::Resource(_)) => Err(Denial::NotThePresenter),
        (Evidence::User(user, issuer), Presenter::Agent(agent)) => {
            let basis = splice::check(pointers(ask, user, issuer, agent)).map_err(Denial::Splice)?;
            Ok(basis.as_str())
        }
        (Evidence::Own(own, kind), presenter) => {
            check_not_shut_out(ask, own)?;
            if ask.actor == Says::SomebodyElse {
                return Err(Denial::Splice(splice::NotThisAgent::ActorIsAnother));
            }
            check_own(ask, own, kind, presenter)
        }
    }
}

fn pointers(ask: &Ask<'_>, user: &UserClaims, issuer: &TrustedIssuer, agent: &Agent) -> Pointers {
    let names = agent.known_as.get(&issuer.issuer).map(Vec::as_slice).unwrap_or_default();
    let is_this_agent = |may_act: &MayAct| match may_act.iss.as_deref() {
        Some(iss) if iss == ask.issuer.as_str() => may_act.sub == agent.id.as_str(),
        Some(iss) => iss == issuer.issuer.as_str() && names.contains(&may_act.sub),
        None => names.contains(&may_act.sub),
    };
    Pointers {
        audience: user.audiences.iter().any(|aud| names.contains(aud)),
        client: user.client.as_ref().is_some_and(|client| names.contains(client)),
        may_act: match &user.may_act {
            None => Says::Nothing,
            Some(may_act) if is_this_agent(may_act) => Says::ThisAgent,
            Some(_) => Says::SomebodyElse,
        },
        bound: user.bound,
        actor: ask.actor,
        grant: super::consent::live(ask).next().is_some(),
    }
}

/// A token of ours goes on from the client that holds it, from the resource it is for, or from the agent that it names.
fn check_own(
    ask: &Ask<'_>,
    own: &TaskTokenClaims,
    kind: TokenKind,
    presenter: Presenter<'_>,
) -> Result<&'static str, Denial> {
    match (kind, presenter) {
        (TokenKind::Access, Presenter::Agent(agent)) if agent.id == own.client_id => Ok("holder"),
        (TokenKind::Access, Presenter::Resource(resource)) if resource.uri.as_str() == own.aud => Ok("audience"),
        (TokenKind::HandOver, Presenter::Agent(agent)) => {
            let named = own.may_act.as_ref().is_some_and(|next| next.iss == *ask.issuer && next.sub == agent.id);
            if named { Ok("hand_over") } else { Err(Denial::NotThePresenter) }
        }
        (TokenKind::Txn, presenter) if own.req_wl.as_ref() == Some(presenter.id()) => Ok("holder"),
        _ => Err(Denial::NotThePresenter),
    }
}

/// Nothing is derived from what somebody who is shut out took part in.
fn check_not_shut_out(ask: &Ask<'_>, own: &TaskTokenClaims) -> Result<(), Denial> {
    if admits(ask.registry, own, &own.names()) { Ok(()) } else { Err(Denial::ShutOut) }
}

/// Whether everybody who takes part in a token is still registered and not shut out: its requester and their issuer, its
/// client, every agent of ours in its chain, the one that it is to be handed to, and the resources that it is about, which
/// may take nothing that rests on a grant for an emergency.
/// `names` are the token's own.
#[must_use]
pub fn admits(registry: &Registry, own: &TaskTokenClaims, names: &Names) -> bool {
    let issuer = registry.issuer(own.sub_iss.as_str()).is_some_and(|issuer| !issuer.disabled);
    let requester = !names.requester.as_ref().is_some_and(|requester| registry.is_out(requester));
    let clients = names.agents.iter().all(|id| registry.client(id).is_some_and(|client| !client.is_disabled()));
    // What is no client id is none of the names.
    let is_agent = |hop: &Hop| names.agents.iter().any(|id| id.as_str() == hop.sub && registry.agent(id).is_some());
    let resources = names.resources.iter().all(|uri| registry.resource_at(uri).is_some_and(|r| !r.disabled));
    let resources = resources && (!own.break_glass || break_glass::is_accepted(registry, &own.authorization_details));
    issuer && requester && clients && own.our_hops().all(is_agent) && resources
}
