//! Status lists: the allocation of indexes, and the tokens that have one.

use async_trait::async_trait;

use super::TokenRecord;
use crate::{
    domain::{
        id::{ClientId, GrantId, TaskId, TokenId},
        status_list::{Shard, StatusIndex},
        time::Timestamp,
        uri::IssuerUrl,
    },
    ports::Outage,
};

/// The property by which tokens are selected whose status may have changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TokenSelector {
    /// These tokens, and the tokens of their tasks.
    Tokens(Vec<TokenId>),
    /// The tokens of these tasks.
    Tasks(Vec<TaskId>),
    /// The tokens issued on these grants.
    Grants(Vec<GrantId>),
    /// The tokens of these requesters: issuer and subject.
    Requesters(Vec<(String, String)>),
    /// The tokens of every task in which one of these agents has an unexpired token.
    Agents(Vec<ClientId>),
    /// The tokens with one of these `aud` claims.
    Audiences(Vec<String>),
    /// The tokens of all requesters of these issuers.
    Issuers(Vec<IssuerUrl>),
}

/// A position among tokens in the order of their issue. The default is before the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TokenCursor {
    /// The time of issue of the last token.
    pub issued: Timestamp,
    /// The last token.
    pub id: TokenId,
}

impl Default for TokenCursor {
    fn default() -> Self {
        Self { issued: Timestamp::EPOCH, id: TokenId::new(uuid::Uuid::nil()) }
    }
}

/// A token with a status list index.
#[derive(Clone, Debug)]
pub struct IndexedToken {
    /// The position of the token among others.
    pub cursor: TokenCursor,
    /// The index. `None` if the stored one is none.
    pub index: Option<StatusIndex>,
    /// The record. `None` if it was changed outside the program: then nothing about it is certain,
    /// the index included.
    pub record: Option<TokenRecord>,
}

/// Allocates status list indexes, and reads the tokens that have one.
#[async_trait]
pub trait StatusListStore: Send + Sync {
    /// Allocates the next block of a shard's indexes, durable before this returns. No block is
    /// allocated twice. Blocks are numbered from 0.
    async fn allocate_status_block(&self, shard: Shard) -> Result<u64, Outage>;

    /// Returns the shards that end after `now`, each with the number of its allocated blocks.
    async fn list_status_shards(&self, now: Timestamp) -> Result<Vec<(Shard, u64)>, Outage>;

    /// Returns tokens with a status list index that had not expired at `alive_at`, in the order of
    /// their issue. The result holds every token that matches `selector`, and may hold others. A
    /// record that was changed outside the program does not stop the others.
    async fn list_tokens_with_status(
        &self,
        selector: &TokenSelector,
        alive_at: Timestamp,
        after: TokenCursor,
        limit: u32,
    ) -> Result<Vec<IndexedToken>, Outage>;
}
