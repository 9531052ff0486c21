//! Token records.

use serde::Serialize;

use crate::{
    domain::{
        authority::Authority,
        id::{ClientId, GrantId, TaskId, TokenId},
        token::TokenKind,
    },
    http::views::RequesterView,
    ports::TokenRecord,
};

/// The record of a token, without the token.
#[derive(Serialize)]
pub(in crate::http) struct TokenView {
    jti: TokenId,
    kind: TokenKind,
    task: Option<TaskId>,
    grant: Option<GrantId>,
    /// Whether `grant` is a break-glass grant.
    break_glass: bool,
    requester: Option<RequesterView>,
    client: ClientId,
    agents: Vec<ClientId>,
    audience: String,
    lineage: Vec<TokenId>,
    authorization_details: Authority,
    issued: String,
    expires: String,
    rev: u64,
}

impl From<TokenRecord> for TokenView {
    fn from(token: TokenRecord) -> Self {
        Self {
            jti: token.id,
            kind: token.kind,
            task: token.task,
            grant: token.grant,
            break_glass: token.break_glass,
            requester: token.requester.as_ref().map(Into::into),
            client: token.client,
            agents: token.agents,
            audience: token.audience,
            lineage: token.lineage,
            authorization_details: token.authority,
            issued: token.issued.to_rfc3339(),
            expires: token.expires.to_rfc3339(),
            rev: token.rev.number(),
        }
    }
}
