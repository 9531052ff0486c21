//! Grants.

use serde::Serialize;

use crate::{
    domain::{
        authority::Authority,
        grants::Grant,
        id::{ClientId, GrantId},
    },
    http::views::RequesterView,
};

/// A grant.
#[derive(Serialize)]
pub(in crate::http) struct GrantView {
    id: GrantId,
    requester: RequesterView,
    agent: ClientId,
    /// The authority that the requester consents to; null if the grant only names the agent.
    authorization_details: Option<Authority>,
    until: String,
    by: String,
    at: String,
    /// Whether this is a break-glass grant.
    break_glass: bool,
}

impl From<Grant> for GrantView {
    fn from(grant: Grant) -> Self {
        Self {
            id: grant.id,
            requester: (&grant.requester).into(),
            agent: grant.agent,
            authorization_details: grant.authority,
            until: grant.expires.to_rfc3339(),
            by: grant.by,
            at: grant.at.to_rfc3339(),
            break_glass: grant.break_glass,
        }
    }
}
