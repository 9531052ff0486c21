//! How much: what is asked for, and everything that it must be within.

use std::collections::BTreeSet;

use super::{Ask, Denial, Evidence, Excess, Holding, Output, Presenter, TaskWanted, edges::Step};
use crate::domain::{
    authority::{Authority, Details, MAX_DETAILS},
    issuer::SubjectScopes,
    registry::{Unaccepted, has_other_definition},
    scope::{ScopeList, ScopeToken},
    tool::NotGood,
    uri::ResourceUri,
};

/// Something that whatever is issued must be within.
struct Ceiling {
    holding: Holding,
    authority: Authority,
    /// Whether the presenter may know it: what is its own, and what stands in the token that it presents. Of what others
    /// have, it learns nothing but that it does not cover what was asked.
    is_known: bool,
}

impl Ceiling {
    fn known(holding: Holding, authority: Authority) -> Self {
        Self { holding, authority, is_known: true }
    }

    fn of_others(holding: Holding, authority: Authority) -> Self {
        Self { holding, authority, is_known: false }
    }
}

/// `requested ∩ parent ∩ requester's ∩ agent's ∩ catalogue`, where asking for more than can be had is an error that says
/// where, and whose ceiling it was, and asking for nothing is one that says how to ask.
pub(super) fn authority(ask: &Ask<'_>, along: &[Step<'_>]) -> Result<Authority, Denial> {
    let by_scope = match ask.scope {
        None => Authority::default(),
        Some(scopes) => scopes_asked(ask, scopes)?,
    };
    if ask.scope.is_none() && ask.details.is_none() {
        return Err(Denial::NothingAsked);
    }
    let by_scope =
        ask.registry.pinned(&by_scope).map_err(|Unaccepted { tool, why }| Denial::ScopeNotGood(tool, why))?;
    let pin = |(n, wanted)| match ask.registry.pin(wanted) {
        Ok(pinned) => Ok((n, pinned)),
        Err(Unaccepted { tool, why }) => Err(Denial::DetailsNotGood(tool, why)),
    };
    let by_details = ask.details.into_iter().flat_map(Details::iter).map(pin).collect::<Result<Vec<_>, _>>()?;
    // What lies elsewhere can't be exceeded here, and the catalogue may be large.
    let places = by_scope.iter().chain(by_details.iter().map(|(_, p)| p)).map(|p| &p.resource).collect::<BTreeSet<_>>();
    let ceilings = ceilings(ask, along, |uri| places.contains(uri))?;
    for ceiling in &ceilings {
        // A tool that was meant otherwise is not too much: it is another tool by now.
        let other = |beyond| has_other_definition(&ceiling.authority, beyond);
        if let Some(beyond) = by_scope.beyond(&ceiling.authority) {
            return Err(match other(beyond) {
                Some(tool) => Denial::ScopeNotGood(tool, NotGood::OtherBefore),
                None => Denial::ScopeTooWide(scope_excess(ask, ceiling, &ceilings)),
            });
        }
        for (n, wanted) in &by_details {
            let Some(path) = ceiling.authority.excess(wanted, ceiling.is_known) else { continue };
            if let Some(tool) = other(wanted) {
                return Err(Denial::DetailsNotGood(tool, NotGood::OtherBefore));
            }
            let place = format!("authorization_details[{n}]{path}");
            let part = std::iter::once(wanted.clone()).collect();
            return Err(Denial::DetailsTooWide(excess(place, &part, ceiling, &ceilings)));
        }
    }
    Ok(by_scope.iter().cloned().chain(by_details.into_iter().map(|(_, wanted)| wanted)).collect())
}

/// The tools under the scopes that are asked for, at the places that it can be about; a scope without a tool is unknown.
fn scopes_asked(ask: &Ask<'_>, scopes: &ScopeList) -> Result<Authority, Denial> {
    let offered = ask.registry.scopes_offered(|uri| can_be_about(ask, uri));
    if let Some(n) = scopes.iter().position(|scope| !offered.contains(scope)) {
        let holding = Holding::Catalogue;
        return Err(Denial::ScopeTooWide(Excess { place: format!("scope[{n}]"), holding, allowed: None }));
    }
    Ok(ask.registry.under_scopes(&scopes.set(), |uri| can_be_about(ask, uri)))
}

fn under(ask: &Ask<'_>, scope: &ScopeToken) -> Authority {
    ask.registry.under_scopes(&std::iter::once(scope.clone()).collect(), |uri| can_be_about(ask, uri))
}

fn can_be_about(ask: &Ask<'_>, uri: &ResourceUri) -> bool {
    match (ask.output.resource(), ask.subject) {
        (Some(resource), _) => *uri == resource.uri,
        (None, Evidence::Own(own, _)) => own.authorization_details.iter().any(|p| p.resource == *uri),
        (None, Evidence::User(..)) => true,
    }
}

/// The first of the scopes that is not all within the ceiling.
fn scope_excess(ask: &Ask<'_>, ceiling: &Ceiling, ceilings: &[Ceiling]) -> Excess {
    // All of it could be pinned, so each part can.
    let part = |scope| ask.registry.pinned(&under(ask, scope)).unwrap_or_default();
    let mut seen = BTreeSet::new();
    let scopes = ask.scope.into_iter().flat_map(ScopeList::iter).enumerate().filter(|(_, scope)| seen.insert(*scope));
    let mut parts = scopes.map(|(n, scope)| (n, part(scope)));
    let first = parts.find(|(_, part)| !part.within(&ceiling.authority));
    let (n, part) = first.unwrap_or_default();
    excess(format!("scope[{n}]"), &part, ceiling, ceilings)
}

/// What is told of a part that is too much. Where the ceiling is one that the presenter may know, also how much of the part
/// all such ceilings leave.
fn excess(place: String, part: &Authority, ceiling: &Ceiling, ceilings: &[Ceiling]) -> Excess {
    let known = ceilings.iter().filter(|ceiling| ceiling.is_known);
    let left = known.fold(part.clone(), |left, ceiling| left.meet(&ceiling.authority));
    let allowed = Some(left).filter(|left| ceiling.is_known && (1..=MAX_DETAILS).contains(&left.len()));
    Excess { place, holding: ceiling.holding, allowed }
}

/// Everything that the asked must be within, as far as it is about such places, and whose it is.
fn ceilings(
    ask: &Ask<'_>,
    along: &[Step<'_>],
    at: impl Fn(&ResourceUri) -> bool + Copy,
) -> Result<Vec<Ceiling>, Denial> {
    let registry = ask.registry;
    let mut ceilings = vec![Ceiling::of_others(Holding::Catalogue, registry.catalogue(at))];
    if let Presenter::Agent(agent) = ask.presenter {
        ceilings.push(Ceiling::known(Holding::Agent, registry.ceiling(agent, at)));
    }
    if let Output::HandOver(to, _) = ask.output {
        ceilings.push(Ceiling::of_others(Holding::NextAgent, registry.ceiling(to, at)));
    }
    for Step { edge, is_own } in along {
        if let Some(authority) = registry.let_through(edge, at) {
            ceilings.push(Ceiling { holding: Holding::Edge, authority, is_known: *is_own });
        }
    }
    match ask.subject {
        Evidence::Own(own, _) => ceilings.push(Ceiling::known(Holding::Parent, own.authorization_details.clone())),
        Evidence::User(user, issuer) => {
            if issuer.subject_scopes == SubjectScopes::Ceiling {
                let scope = user.scope.as_ref().ok_or(Denial::SubjectWithoutScope)?;
                ceilings.push(Ceiling::of_others(Holding::Requester, registry.under_scopes(scope, at)));
            }
            if !issuer.entitlements.is_empty() {
                let rules = issuer.entitlements.iter().filter(|rule| rule.to.covers(&user.all));
                ceilings.push(Ceiling::of_others(Holding::Requester, registry.entitled(rules, at)));
            }
        }
    }
    if let TaskWanted::Named(_, Some(task)) = ask.task {
        ceilings.push(Ceiling::known(Holding::Task, task.authority.clone()));
    }
    Ok(ceilings)
}
