//! Grants, and break-glass grants with their reviews.

use async_trait::async_trait;

use super::{ListError, Page, PageRequest};
use crate::{
    domain::{
        grants::{
            Grant,
            break_glass::{BreakGlassGrant, ReviewState},
        },
        id::{ClientId, GrantId},
        task::Requester,
        time::Timestamp,
        uri::IssuerUrl,
    },
    ports::Outage,
};

/// A selection of grants. All given conditions must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GrantFilter {
    /// The requester: issuer and subject.
    pub requester: Option<(IssuerUrl, String)>,
    /// The agent.
    pub agent: Option<ClientId>,
}

/// Reads grants.
#[async_trait]
pub trait GrantStore: Send + Sync {
    /// Returns one grant, expired or not.
    async fn find_grant(&self, id: GrantId) -> Result<Option<Grant>, Outage>;

    /// Lists grants, expired or not, newest first.
    async fn list_grants(&self, filter: &GrantFilter, page: &PageRequest) -> Result<Page<Grant>, ListError>;

    /// Returns the grants of a requester to an agent that have not expired at `now`, latest expiry
    /// first, at most `limit`.
    async fn list_live_grants(
        &self,
        requester: &Requester,
        agent: &ClientId,
        now: Timestamp,
        limit: u32,
    ) -> Result<Vec<Grant>, Outage>;

    /// Returns one break-glass grant, also when it has expired or was removed.
    async fn find_break_glass(&self, id: GrantId) -> Result<Option<BreakGlassGrant>, Outage>;

    /// Lists break-glass grants, newest first.
    async fn list_break_glass(
        &self,
        review: Option<ReviewState>,
        page: &PageRequest,
    ) -> Result<Page<BreakGlassGrant>, ListError>;
}
