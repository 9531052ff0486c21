//! How much: what is asked for, and everything that it must be within.

use std::collections::BTreeSet;

use super::{
    CeilingExceeded, CeilingOwner, Denial, Evidence, ExchangeInput, Presenter, RequestedToken, TaskSelector,
    edges::EdgeUse,
};
use crate::domain::{
    authority::{Authority, MAX_DETAILS, RequestedPermissions},
    registry::{UnacceptedTool, find_definition_mismatch, issuer::SubjectScopes, tool::ToolUnavailable},
    scope::{ScopeList, ScopeToken},
    uri::ResourceUri,
};

/// Something that whatever is issued must be within.
struct Ceiling {
    owner: CeilingOwner,
    authority: Authority,
    /// Whether the presenter may know it: what is its own, and what stands in the token that it presents. Of what others
    /// have, it learns nothing but that it does not cover what was asked.
    is_disclosable: bool,
}

impl Ceiling {
    fn disclosable(holding: CeilingOwner, authority: Authority) -> Self {
        Self { owner: holding, authority, is_disclosable: true }
    }

    fn confidential(holding: CeilingOwner, authority: Authority) -> Self {
        Self { owner: holding, authority, is_disclosable: false }
    }
}

/// `requested ∩ parent ∩ requester's ∩ agent's ∩ catalogue`, where asking for more than can be had is an error that says
/// where, and whose ceiling it was, and asking for nothing is one that says how to ask.
pub(super) fn resolve_authority(ask: &ExchangeInput<'_>, along: &[EdgeUse<'_>]) -> Result<Authority, Denial> {
    let by_scope = match ask.scope {
        None => Authority::default(),
        Some(scopes) => resolve_scopes(ask, scopes)?,
    };
    if ask.scope.is_none() && ask.details.is_none() {
        return Err(Denial::NoAuthorityRequested);
    }
    let by_scope = ask
        .registry
        .bind_definitions(&by_scope)
        .map_err(|UnacceptedTool { tool, reason: why }| Denial::ScopeToolUnavailable(tool, why))?;
    let pin = |(n, wanted)| match ask.registry.bind_definition(wanted) {
        Ok(pinned) => Ok((n, pinned)),
        Err(UnacceptedTool { tool, reason: why }) => Err(Denial::DetailsToolUnavailable(tool, why)),
    };
    let by_details =
        ask.details.into_iter().flat_map(RequestedPermissions::iter).map(pin).collect::<Result<Vec<_>, _>>()?;
    // What lies elsewhere can't be exceeded here, and the catalogue may be large.
    let places = by_scope.iter().chain(by_details.iter().map(|(_, p)| p)).map(|p| &p.resource).collect::<BTreeSet<_>>();
    let ceilings = collect_ceilings(ask, along, |uri| places.contains(uri))?;
    for ceiling in &ceilings {
        // A tool that was meant otherwise is not too much: it is another tool by now.
        let other = |beyond| find_definition_mismatch(&ceiling.authority, beyond);
        if let Some(beyond) = by_scope.first_excess(&ceiling.authority) {
            return Err(match other(beyond) {
                Some(tool) => Denial::ScopeToolUnavailable(tool, ToolUnavailable::DefinitionSuperseded),
                None => Denial::ScopeExceedsCeiling(find_exceeding_scope(ask, ceiling, &ceilings)),
            });
        }
        for (n, wanted) in &by_details {
            let Some(path) = ceiling.authority.excess_path(wanted, ceiling.is_disclosable) else { continue };
            if let Some(tool) = other(wanted) {
                return Err(Denial::DetailsToolUnavailable(tool, ToolUnavailable::DefinitionSuperseded));
            }
            let place = format!("authorization_details[{n}]{path}");
            let part = std::iter::once(wanted.clone()).collect();
            return Err(Denial::DetailsExceedCeiling(ceiling_exceeded(place, &part, ceiling, &ceilings)));
        }
    }
    Ok(by_scope.iter().cloned().chain(by_details.into_iter().map(|(_, wanted)| wanted)).collect())
}

/// The tools under the scopes that are asked for, at the places that it can be about; a scope without a tool is unknown.
fn resolve_scopes(ask: &ExchangeInput<'_>, scopes: &ScopeList) -> Result<Authority, Denial> {
    let offered = ask.registry.offered_scopes(|uri| is_candidate_resource(ask, uri));
    if let Some(n) = scopes.iter().position(|scope| !offered.contains(scope)) {
        let holding = CeilingOwner::Catalogue;
        return Err(Denial::ScopeExceedsCeiling(CeilingExceeded {
            location: format!("scope[{n}]"),
            owner: holding,
            allowed: None,
        }));
    }
    Ok(ask.registry.tools_under_scopes(&scopes.to_set(), |uri| is_candidate_resource(ask, uri)))
}

fn tools_under_scope(ask: &ExchangeInput<'_>, scope: &ScopeToken) -> Authority {
    ask.registry.tools_under_scopes(&std::iter::once(scope.clone()).collect(), |uri| is_candidate_resource(ask, uri))
}

fn is_candidate_resource(ask: &ExchangeInput<'_>, uri: &ResourceUri) -> bool {
    match (ask.requested_token.resource(), ask.subject) {
        (Some(resource), _) => *uri == resource.uri,
        (None, Evidence::Own(own, _)) => own.authorization_details.iter().any(|p| p.resource == *uri),
        (None, Evidence::User(..)) => true,
    }
}

/// The first of the scopes that is not all within the ceiling.
fn find_exceeding_scope(ask: &ExchangeInput<'_>, ceiling: &Ceiling, ceilings: &[Ceiling]) -> CeilingExceeded {
    // All of it could be pinned, so each part can.
    let part = |scope| ask.registry.bind_definitions(&tools_under_scope(ask, scope)).unwrap_or_default();
    let mut seen = BTreeSet::new();
    let scopes = ask.scope.into_iter().flat_map(ScopeList::iter).enumerate().filter(|(_, scope)| seen.insert(*scope));
    let mut parts = scopes.map(|(n, scope)| (n, part(scope)));
    let first = parts.find(|(_, part)| !part.is_subset_of(&ceiling.authority));
    let (n, part) = first.unwrap_or_default();
    ceiling_exceeded(format!("scope[{n}]"), &part, ceiling, ceilings)
}

/// What is told of a part that is too much. Where the ceiling is one that the presenter may know, also how much of the part
/// all such ceilings leave.
fn ceiling_exceeded(place: String, part: &Authority, ceiling: &Ceiling, ceilings: &[Ceiling]) -> CeilingExceeded {
    let known = ceilings.iter().filter(|ceiling| ceiling.is_disclosable);
    let left = known.fold(part.clone(), |left, ceiling| left.intersect(&ceiling.authority));
    let allowed = Some(left).filter(|left| ceiling.is_disclosable && (1..=MAX_DETAILS).contains(&left.len()));
    CeilingExceeded { location: place, owner: ceiling.owner, allowed }
}

/// Everything that the asked must be within, as far as it is about such places, and whose it is.
fn collect_ceilings(
    ask: &ExchangeInput<'_>,
    along: &[EdgeUse<'_>],
    at: impl Fn(&ResourceUri) -> bool + Copy,
) -> Result<Vec<Ceiling>, Denial> {
    let registry = ask.registry;
    let mut ceilings = vec![Ceiling::confidential(CeilingOwner::Catalogue, registry.catalogue(at))];
    if let Presenter::Agent(agent) = ask.presenter {
        ceilings.push(Ceiling::disclosable(CeilingOwner::Agent, registry.ceiling(agent, at)));
    }
    if let RequestedToken::HandOver(to, _) = ask.requested_token {
        ceilings.push(Ceiling::confidential(CeilingOwner::NextAgent, registry.ceiling(to, at)));
    }
    for EdgeUse { edge, is_own } in along {
        if let Some(authority) = registry.edge_ceiling(edge, at) {
            ceilings.push(Ceiling { owner: CeilingOwner::Edge, authority, is_disclosable: *is_own });
        }
    }
    match ask.subject {
        Evidence::Own(own, _) => {
            ceilings.push(Ceiling::disclosable(CeilingOwner::Parent, own.authorization_details.clone()))
        }
        Evidence::User(user, issuer) => {
            if issuer.subject_scopes == SubjectScopes::Ceiling {
                let scope = user.scope.as_ref().ok_or(Denial::SubjectScopeMissing)?;
                ceilings.push(Ceiling::confidential(CeilingOwner::Requester, registry.tools_under_scopes(scope, at)));
            }
            if !issuer.entitlements.is_empty() {
                let rules = issuer.entitlements.iter().filter(|rule| rule.to.matches(&user.raw_claims));
                ceilings.push(Ceiling::confidential(CeilingOwner::Requester, registry.resolve_entitlements(rules, at)));
            }
        }
    }
    if let TaskSelector::Named(_, Some(task)) = ask.task {
        ceilings.push(Ceiling::disclosable(CeilingOwner::Task, task.authority.clone()));
    }
    Ok(ceilings)
}
