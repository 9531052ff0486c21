//! Recorded grants: an agent's permission to act for a requester, with its authority and expiry.

pub mod break_glass;

use crate::domain::{
    authority::Authority,
    id::{ClientId, GrantId},
    requester::Requester,
    time::Timestamp,
};

/// Maximum number of unexpired grants from one requester to one agent, not counting break-glass
/// grants.
pub const MAX_GRANTS: u32 = 100;
/// Maximum number of break-glass grants. They are counted apart, so that ordinary grants can't use
/// up the quota.
pub const MAX_BREAK_GLASS_GRANTS: u32 = 20;
/// Maximum number of grants of both kinds from one requester to one agent.
pub const MAX_TOTAL_GRANTS: u32 = MAX_GRANTS + MAX_BREAK_GLASS_GRANTS;

/// A recorded grant: the agent may act for the requester until it expires. A grant is immutable; a
/// new one has a new id, and a token names the grant on which it is based.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// The id of the grant.
    pub id: GrantId,
    /// The requester who is represented.
    pub requester: Requester,
    /// The agent that may act.
    pub agent: ClientId,
    /// The authority to which the requester consents: a ceiling for everything based on the grant.
    /// It names the definitions of its tools that were accepted when the grant was made.
    /// Without it the grant names who may act but not what may be done, so it is not consent.
    pub authority: Option<Authority>,
    /// The expiry.
    pub expires: Timestamp,
    /// The creator: `admin:ID`, `requester:ISSUER SUBJECT`.
    pub by: String,
    /// The time of creation.
    pub at: Timestamp,
    /// Whether this is a [break-glass](break_glass) grant, which replaces the requester's grant.
    pub break_glass: bool,
}

impl Grant {
    /// Returns the maximum number of grants of this kind from one requester to one agent.
    #[must_use]
    pub fn max_count(&self) -> u32 {
        if self.break_glass { MAX_BREAK_GLASS_GRANTS } else { MAX_GRANTS }
    }

    /// Returns whether the requested authority may be based on this grant.
    #[must_use]
    pub fn covers(&self, requested: &Authority) -> bool {
        self.authority.as_ref().is_none_or(|authority| requested.is_subset_of(authority))
    }
}
