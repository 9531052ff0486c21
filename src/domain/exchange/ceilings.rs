//! The requested authority and the ceilings that limit it.

use std::collections::BTreeSet;

use super::{
    CeilingExceeded, CeilingOwner, Denial, EdgeUse, Evidence, ExchangeInput, Presenter, RequestedToken, TaskSelector,
};
use crate::domain::{
    authority::{Authority, MAX_DETAILS, RequestedPermissions},
    registry::{UnacceptedTool, find_definition_mismatch, issuer::SubjectScopes, tool::ToolUnavailable},
    scope::{ScopeList, ScopeToken},
    uri::ResourceUri,
};

/// A limit on the authority of the issued token.
struct Ceiling {
    owner: CeilingOwner,
    authority: Authority,
    /// Whether the presenter may know the ceiling: its own, and that of the token that it presents.
    /// Of others' ceilings, it learns only that they do not cover the request.
    is_disclosable: bool,
}

impl Ceiling {
    fn disclosable(owner: CeilingOwner, authority: Authority) -> Self {
        Self { owner, authority, is_disclosable: true }
    }

    fn confidential(owner: CeilingOwner, authority: Authority) -> Self {
        Self { owner, authority, is_disclosable: false }
    }
}

/// Returns the requested authority, if it is within all ceilings: those of the subject token, the
/// requester, the agents, the edges, the task and the catalogue.
///
/// An excess is an error that names its location and the owner of the ceiling; it is never cut
/// silently. A request for nothing is an error too.
pub(super) fn resolve_authority(input: &ExchangeInput<'_>, edges: &[EdgeUse<'_>]) -> Result<Authority, Denial> {
    let by_scope = match input.scope {
        None => Authority::default(),
        Some(scopes) => resolve_scopes(input, scopes)?,
    };
    if input.scope.is_none() && input.details.is_none() {
        return Err(Denial::NoAuthorityRequested);
    }
    check_usable_resources(input)?;
    let by_scope = input
        .registry
        .bind_definitions(&by_scope)
        .map_err(|UnacceptedTool { tool, reason }| Denial::ScopeToolUnavailable(tool, reason))?;
    let bind = |(n, permission)| match input.registry.bind_definition(permission) {
        Ok(bound) => Ok((n, bound)),
        Err(UnacceptedTool { tool, reason }) => Err(Denial::DetailsToolUnavailable(tool, reason)),
    };
    let by_details =
        input.details.into_iter().flat_map(RequestedPermissions::iter).map(bind).collect::<Result<Vec<_>, _>>()?;
    // Other resources don't matter for the comparison, and the catalogue may be large.
    let resources =
        by_scope.iter().chain(by_details.iter().map(|(_, p)| p)).map(|p| &p.resource).collect::<BTreeSet<_>>();
    let ceilings = collect_ceilings(input, edges, |uri| resources.contains(uri))?;
    for ceiling in &ceilings {
        // A tool whose definition has changed since is not an excess, but another tool.
        let superseded = |excess| find_definition_mismatch(&ceiling.authority, excess);
        if let Some(excess) = by_scope.first_excess(&ceiling.authority) {
            return Err(match superseded(excess) {
                Some(tool) => Denial::ScopeToolUnavailable(tool, ToolUnavailable::DefinitionSuperseded),
                None => Denial::ScopeExceedsCeiling(find_exceeding_scope(input, ceiling, &ceilings)),
            });
        }
        for (n, permission) in &by_details {
            let Some(path) = ceiling.authority.excess_path(permission, ceiling.is_disclosable) else { continue };
            if let Some(tool) = superseded(permission) {
                return Err(Denial::DetailsToolUnavailable(tool, ToolUnavailable::DefinitionSuperseded));
            }
            let location = format!("authorization_details[{n}]{path}");
            let part = std::iter::once(permission.clone()).collect();
            return Err(Denial::DetailsExceedCeiling(ceiling_exceeded(location, &part, ceiling, &ceilings)));
        }
    }
    Ok(by_scope.iter().cloned().chain(by_details.into_iter().map(|(_, permission)| permission)).collect())
}

/// Checks that the agent may use the resource of each detail. A resource that it may not use looks
/// like one that does not exist, whatever its catalogue contains.
fn check_usable_resources(input: &ExchangeInput<'_>) -> Result<(), Denial> {
    let Presenter::Agent(agent) = input.presenter else { return Ok(()) };
    let is_usable = |uri| {
        let resource = input.registry.resource_at(uri);
        resource.is_some_and(|resource| agent.access.iter().any(|access| access.resource == resource.id))
    };
    for (n, permission) in input.details.into_iter().flat_map(RequestedPermissions::iter) {
        if !is_usable(&permission.resource) {
            let path = Authority::default().excess_path(permission, false).unwrap_or_default();
            let location = format!("authorization_details[{n}]{path}");
            let excess = CeilingExceeded { location, owner: CeilingOwner::Agent, allowed: None };
            return Err(Denial::DetailsExceedCeiling(excess));
        }
    }
    Ok(())
}

/// Returns the tools under the requested scopes at the candidate resources. A scope without tools
/// is unknown.
fn resolve_scopes(input: &ExchangeInput<'_>, scopes: &ScopeList) -> Result<Authority, Denial> {
    let offered = input.registry.offered_scopes(|uri| is_candidate_resource(input, uri));
    if let Some(n) = scopes.iter().position(|scope| !offered.contains(scope)) {
        return Err(Denial::ScopeExceedsCeiling(CeilingExceeded {
            location: format!("scope[{n}]"),
            owner: CeilingOwner::Catalogue,
            allowed: None,
        }));
    }
    Ok(input.registry.tools_under_scopes(&scopes.to_set(), |uri| is_candidate_resource(input, uri)))
}

fn tools_under_scope(input: &ExchangeInput<'_>, scope: &ScopeToken) -> Authority {
    input
        .registry
        .tools_under_scopes(&std::iter::once(scope.clone()).collect(), |uri| is_candidate_resource(input, uri))
}

fn is_candidate_resource(input: &ExchangeInput<'_>, uri: &ResourceUri) -> bool {
    match (input.requested_token.resource(), input.subject) {
        (Some(resource), _) => *uri == resource.uri,
        (None, Evidence::Own(own, _)) => own.authorization_details.iter().any(|p| p.resource == *uri),
        (None, Evidence::User(..)) => true,
    }
}

/// Returns the first scope that exceeds the ceiling.
fn find_exceeding_scope(input: &ExchangeInput<'_>, ceiling: &Ceiling, ceilings: &[Ceiling]) -> CeilingExceeded {
    // Binding succeeded for all scopes together, so it succeeds for each.
    let part = |scope| input.registry.bind_definitions(&tools_under_scope(input, scope)).unwrap_or_default();
    let mut seen = BTreeSet::new();
    let scopes = input.scope.into_iter().flat_map(ScopeList::iter).enumerate().filter(|(_, scope)| seen.insert(*scope));
    let mut parts = scopes.map(|(n, scope)| (n, part(scope)));
    let first = parts.find(|(_, part)| !part.is_subset_of(&ceiling.authority));
    let (n, part) = first.unwrap_or_default();
    ceiling_exceeded(format!("scope[{n}]"), &part, ceiling, ceilings)
}

/// Describes a part that exceeds a ceiling. If the presenter may know the ceiling, the result
/// contains what all such ceilings leave of the part.
fn ceiling_exceeded(location: String, part: &Authority, ceiling: &Ceiling, ceilings: &[Ceiling]) -> CeilingExceeded {
    let known = ceilings.iter().filter(|ceiling| ceiling.is_disclosable);
    let left = known.fold(part.clone(), |left, ceiling| left.intersect(&ceiling.authority));
    let allowed = Some(left).filter(|left| ceiling.is_disclosable && (1..=MAX_DETAILS).contains(&left.len()));
    CeilingExceeded { location, owner: ceiling.owner, allowed }
}

/// Returns all ceilings of the request, as far as they concern the resources that match `at`.
fn collect_ceilings(
    input: &ExchangeInput<'_>,
    edges: &[EdgeUse<'_>],
    at: impl Fn(&ResourceUri) -> bool + Copy,
) -> Result<Vec<Ceiling>, Denial> {
    let registry = input.registry;
    let mut ceilings = vec![Ceiling::confidential(CeilingOwner::Catalogue, registry.catalogue(at))];
    if let Presenter::Agent(agent) = input.presenter {
        ceilings.push(Ceiling::disclosable(CeilingOwner::Agent, registry.ceiling(agent, at)));
    }
    if let RequestedToken::HandOver(to, _) = input.requested_token {
        ceilings.push(Ceiling::confidential(CeilingOwner::NextAgent, registry.ceiling(to, at)));
    }
    for EdgeUse { edge, is_own } in edges {
        if let Some(authority) = registry.edge_ceiling(edge, at) {
            ceilings.push(Ceiling { owner: CeilingOwner::Edge, authority, is_disclosable: *is_own });
        }
    }
    match input.subject {
        Evidence::Own(own, _) => {
            ceilings.push(Ceiling::disclosable(CeilingOwner::Parent, own.authorization_details.clone()));
        }
        Evidence::User(user, issuer) => {
            if issuer.subject_scopes == SubjectScopes::Ceiling {
                let scope = user.scope.as_ref().ok_or(Denial::SubjectScopeMissing)?;
                ceilings.push(Ceiling::confidential(CeilingOwner::Requester, registry.tools_under_scopes(scope, at)));
            }
            if !issuer.entitlements.is_empty() {
                let claims = &user.raw_claims;
                let rules = issuer.entitlements.iter().filter(|rule| rule.to.matches(claims));
                let is_incomplete = issuer.entitlements.iter().any(|rule| rule.to.is_claim_elsewhere(claims));
                let owner = if is_incomplete { CeilingOwner::RequesterClaimElsewhere } else { CeilingOwner::Requester };
                ceilings.push(Ceiling::confidential(owner, registry.resolve_entitlements(rules, at)));
            }
        }
    }
    if let TaskSelector::Named(_, Some(task)) = input.task {
        ceilings.push(Ceiling::disclosable(CeilingOwner::Task, task.authority.clone()));
    }
    Ok(ceilings)
}
