//! Records of issued tokens.

use async_trait::async_trait;

use super::{ListError, Page, PageRequest};
use crate::{
    domain::{
        authority::Authority,
        id::{ClientId, GrantId, TaskId, TokenId},
        revocation::{
            LogPosition, RevocationKeys,
            evidence::{EvidenceDigest, PresentedEvidence},
        },
        settings::{MAX_CLOCK_SKEW, TOKEN_LIFETIME_CAP},
        status_list::StatusIndex,
        task::Requester,
        time::Timestamp,
        token::TokenKind,
        uri::IssuerUrl,
    },
    ports::Outage,
};

/// The record of an issued token: everything except the token itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenRecord {
    /// The `jti` claim.
    pub id: TokenId,
    /// The kind of token.
    pub kind: TokenKind,
    /// The task; API tokens have none.
    pub task: Option<TaskId>,
    /// The grant on which the token was issued.
    pub grant: Option<GrantId>,
    /// Whether that grant is a break-glass grant.
    pub break_glass: bool,
    /// The requester; API tokens have none.
    pub requester: Option<Requester>,
    /// The client to which the token was issued.
    pub client: ClientId,
    /// The acting agents of this server, the current one first.
    pub agents: Vec<ClientId>,
    /// The `aud` claim.
    pub audience: String,
    /// The tokens from which this one was derived, oldest first.
    pub lineage: Vec<TokenId>,
    /// The authority that the token carries.
    pub authority: Authority,
    /// The time of issue.
    pub issued: Timestamp,
    /// The expiry.
    pub expires: Timestamp,
    /// The log position that the issuing replica had applied.
    pub rev: LogPosition,
    /// The token's index in the status lists.
    pub status_index: Option<StatusIndex>,
    /// The user token that was exchanged; `None` for a token derived from a token of this server.
    pub evidence: Option<PresentedEvidence>,
}

impl TokenRecord {
    /// Returns the keys under which the token can be revoked, except one: the record does not hold
    /// the agent for which a hand-over token is meant. Such a token has no index in a status list.
    ///
    /// The keys serve to show a token's standing, in status lists too. Decisions of this server use
    /// the token's own claims.
    #[must_use]
    pub fn revocation_keys(&self) -> RevocationKeys {
        let (tools, may_list) = RevocationKeys::of_authority(&self.authority);
        RevocationKeys {
            token: self.id,
            lineage: self.lineage.clone(),
            task: self.task,
            grant: self.grant,
            requester: self.requester.clone(),
            agents: self.agents.iter().cloned().chain([self.client.clone()]).collect(),
            resources: self.authority.iter().map(|permission| permission.resource.clone()).collect(),
            tools,
            may_list,
            break_glass: self.break_glass,
            rev: self.rev,
        }
    }
}

/// A selection of tokens. All given conditions must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TokenFilter {
    /// The task.
    pub task: Option<TaskId>,
    /// The requester: issuer and subject.
    pub requester: Option<(IssuerUrl, String)>,
    /// The client to which the token was issued.
    pub client: Option<ClientId>,
    /// The `aud` claim.
    pub audience: Option<String>,
    /// The token has not expired at this time.
    pub unexpired_at: Option<Timestamp>,
    /// The token was issued at this time or later.
    pub issued_from: Option<Timestamp>,
}

impl TokenFilter {
    /// Returns the earliest time of issue of a token that fits. An unexpired token was issued at
    /// most one lifetime ago, so no older one needs to be read.
    pub(crate) fn earliest_issue(&self) -> Timestamp {
        let oldest = |now: Timestamp| now.saturating_sub(TOKEN_LIFETIME_CAP).saturating_sub(MAX_CLOCK_SKEW);
        let oldest_unexpired = self.unexpired_at.map_or(Timestamp::EPOCH, oldest);
        self.issued_from.unwrap_or(Timestamp::EPOCH).max(oldest_unexpired)
    }
}

/// A selection of user tokens by the tokens that were issued for them.
#[derive(Clone, Debug)]
pub enum EvidenceSelector {
    /// The user tokens with which these tasks were opened and joined.
    Tasks(Vec<TaskId>),
    /// The user tokens of a requester that were issued at this time or later.
    Requester(Requester, Timestamp),
}

/// A user token that an agent exchanged.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SeenEvidence {
    /// The agent.
    pub client: ClientId,
    /// The user token.
    pub token: EvidenceDigest,
    /// The expiry of the user token.
    pub expires: Timestamp,
}

/// Reads records of issued tokens.
#[async_trait]
pub trait TokenStore: Send + Sync {
    /// Returns the record of one token.
    async fn find_token(&self, id: TokenId) -> Result<Option<TokenRecord>, Outage>;

    /// Lists tokens, newest first.
    async fn list_tokens(&self, filter: &TokenFilter, page: &PageRequest) -> Result<Page<TokenRecord>, ListError>;

    /// Returns the selected user tokens that have not expired at `alive_at`, each once for every
    /// agent that exchanged it, in order.
    async fn list_evidence(
        &self,
        selector: &EvidenceSelector,
        alive_at: Timestamp,
    ) -> Result<Vec<SeenEvidence>, Outage>;

    /// Returns the sessions of all user tokens of a requester that were exchanged, in order.
    async fn list_sessions(&self, requester: &Requester) -> Result<Vec<EvidenceDigest>, Outage>;
}
