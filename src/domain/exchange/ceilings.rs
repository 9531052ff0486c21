//! How much: what is asked for, and everything that it must be within.

use std::collections::BTreeSet;

use super::{Ask, Denial, Evidence, Holding, Output, Presenter, TaskWanted};
use crate::domain::{
    authority::Authority,
    issuer::SubjectScopes,
    registry::{Unaccepted, has_other_definition},
    scope::ScopeSet,
    tool::NotGood,
    uri::ResourceUri,
};

/// `requested ∩ parent ∩ requester's ∩ agent's ∩ catalogue`, where asking for more than can be had is an error that says
/// whose ceiling it was, and asking for nothing is one that says how to ask.
pub(super) fn authority(ask: &Ask<'_>) -> Result<Authority, Denial> {
    let by_scope = match ask.scope {
        None => Authority::default(),
        Some(scopes) => scopes_asked(ask, scopes)?,
    };
    let by_details = ask.details.cloned().unwrap_or_default();
    if ask.scope.is_none() && ask.details.is_none() {
        return Err(Denial::NothingAsked);
    }
    let by_scope =
        ask.registry.pinned(&by_scope).map_err(|Unaccepted { tool, why }| Denial::ScopeNotGood(tool, why))?;
    let by_details =
        ask.registry.pinned(&by_details).map_err(|Unaccepted { tool, why }| Denial::DetailsNotGood(tool, why))?;
    // What lies elsewhere can't be exceeded here, and the catalogue may be large.
    let places = by_scope.iter().chain(by_details.iter()).map(|p| &p.resource).collect::<BTreeSet<_>>();
    for (holding, ceiling) in ceilings(ask, |uri| places.contains(uri))? {
        // A tool that was meant otherwise is not too much: it is another tool by now.
        let other = |beyond| has_other_definition(&ceiling, beyond);
        if let Some(beyond) = by_scope.beyond(&ceiling) {
            let too_wide = Denial::ScopeTooWide(holding);
            return Err(other(beyond).map_or(too_wide, |tool| Denial::ScopeNotGood(tool, NotGood::OtherBefore)));
        }
        if let Some(beyond) = by_details.beyond(&ceiling) {
            let too_wide = Denial::DetailsTooWide(holding);
            return Err(other(beyond).map_or(too_wide, |tool| Denial::DetailsNotGood(tool, NotGood::OtherBefore)));
        }
    }
    Ok(by_scope.iter().chain(by_details.iter()).cloned().collect())
}

/// The tools under the scopes that are asked for, at the places that it can be about; a scope without a tool is unknown.
fn scopes_asked(ask: &Ask<'_>, scopes: &ScopeSet) -> Result<Authority, Denial> {
    let at = |uri: &ResourceUri| match (ask.output.resource(), ask.subject) {
        (Some(resource), _) => *uri == resource.uri,
        (None, Evidence::Own(own, _)) => own.authorization_details.iter().any(|p| p.resource == *uri),
        (None, Evidence::User(..)) => true,
    };
    let is_known = |scope| !ask.registry.under_scopes(&std::iter::once(scope).collect(), at).is_empty();
    if scopes.iter().cloned().all(is_known) {
        Ok(ask.registry.under_scopes(scopes, at))
    } else {
        Err(Denial::ScopeTooWide(Holding::Catalogue))
    }
}

/// Everything that the asked must be within, as far as it is about such places, and whose it is.
fn ceilings(ask: &Ask<'_>, at: impl Fn(&ResourceUri) -> bool + Copy) -> Result<Vec<(Holding, Authority)>, Denial> {
    let mut ceilings = vec![(Holding::Catalogue, ask.registry.catalogue(at))];
    if let Presenter::Agent(agent) = ask.presenter {
        ceilings.push((Holding::Agent, ask.registry.ceiling(agent)));
    }
    if let Output::HandOver(to, _) = ask.output {
        ceilings.push((Holding::Agent, ask.registry.ceiling(to)));
    }
    match ask.subject {
        Evidence::Own(own, _) => ceilings.push((Holding::Parent, own.authorization_details.clone())),
        Evidence::User(user, issuer) => {
            if issuer.subject_scopes == SubjectScopes::Ceiling {
                let scope = user.scope.as_ref().ok_or(Denial::SubjectWithoutScope)?;
                ceilings.push((Holding::Requester, ask.registry.under_scopes(scope, at)));
            }
            if !issuer.entitlements.is_empty() {
                let rules = issuer.entitlements.iter().filter(|rule| rule.to.covers(&user.all));
                ceilings.push((Holding::Requester, ask.registry.entitled(rules, at)));
            }
        }
    }
    if let TaskWanted::Named(_, Some(task)) = ask.task {
        ceilings.push((Holding::Task, task.authority.clone()));
    }
    Ok(ceilings)
}
