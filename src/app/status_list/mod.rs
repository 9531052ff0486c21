//! Status lists (draft-ietf-oauth-status-list): the status of task tokens for verifiers that do not
//! use introspection.

pub(super) mod allocator;
pub(super) mod lists;

use std::sync::Arc;

use crate::{
    app::{ConflictError, Error, RequestContext, Service, StatusList},
    domain::{
        status_list::{ListId, StatusIndex},
        time::Timestamp,
        token::TokenKind,
    },
    ports::Outage,
};

impl Service {
    /// Returns a status list that is at most one second behind the log.
    pub async fn read_status_list(&self, id: ListId, cx: &RequestContext) -> Result<Arc<StatusList>, Error> {
        if id.shard.is_expired(cx.now) {
            return Err(ConflictError::StatusListExpired.into());
        }
        // A cached list is not served without a snapshot.
        let snapshot = self.inner.follower.snapshot(cx.now).await?;
        let list = self.inner.status_lists.read(id, &snapshot, cx.now).await?;
        list.ok_or(ConflictError::NotFound("status list").into())
    }

    /// Returns the URIs of the current status lists.
    pub async fn list_status_lists(&self, cx: &RequestContext) -> Result<Vec<String>, Error> {
        self.inner.follower.snapshot(cx.now).await?;
        Ok(self.inner.status_lists.list_uris(cx.now).await?)
    }

    /// Allocates the status list index of a token that is about to be issued, if its kind has one:
    /// a recipient may verify access tokens and transaction tokens offline, the other kinds only
    /// Errand verifies.
    pub(in crate::app) async fn allocate_status_index(
        &self,
        kind: TokenKind,
        expires: Timestamp,
    ) -> Result<Option<StatusIndex>, Outage> {
        match kind {
            TokenKind::Access | TokenKind::Txn if self.settings().status_list.enabled => {
                self.inner.index_allocator.allocate(expires).await.map(Some)
            }
            TokenKind::Access | TokenKind::Txn | TokenKind::HandOver | TokenKind::Api => Ok(None),
        }
    }
}
