//! The token with which this server lists the tools of an MCP server.

use super::{
    actor_chain::{Actor, ActorChain},
    claims::{TaskContext, TaskRef, TaskTokenClaims},
};
use crate::domain::{
    authority::{Action, Authority, ListAction, Permission},
    id::{ClientId, NameError, TaskId, TokenId},
    revocation::LogPosition,
    scope::ScopeSet,
    time::{Lifetime, Timestamp},
    uri::{IssuerUrl, ResourceUri},
};

/// The client that lists tools: this server. The id is reserved, so no client has it.
pub const CATALOGUE_CLIENT_ID: &str = "errand-catalogue";
/// The lifetime of the token: longer than the listing may take.
const CATALOGUE_TOKEN_LIFETIME: Lifetime = Lifetime::seconds(60);
const PURPOSE: &str = "list the tools for the catalogue";

impl TaskTokenClaims {
    /// Builds the claims of a token that allows listing the tools of one resource and nothing else.
    /// The requester and the actor are this server itself: both names, as in every token.
    pub fn for_catalogue(
        issuer: &IssuerUrl,
        resource: &ResourceUri,
        (jti, task): (TokenId, TaskId),
        rev: LogPosition,
        now: Timestamp,
    ) -> Result<Self, NameError> {
        let client_id = CATALOGUE_CLIENT_ID.parse::<ClientId>()?;
        let authority: Authority = [Permission::listing(resource.clone(), ListAction::Tools)].into_iter().collect();
        let actor = Actor { iss: issuer.to_string(), sub: CATALOGUE_CLIENT_ID.to_owned(), sub_profile: None };
        Ok(Self {
            iss: issuer.clone(),
            aud: resource.to_string(),
            sub: CATALOGUE_CLIENT_ID.parse()?,
            sub_iss: issuer.clone(),
            client_id,
            iat: now,
            exp: now.saturating_add(CATALOGUE_TOKEN_LIFETIME),
            jti,
            txn: task,
            lineage: Vec::new(),
            rev,
            scope: ScopeSet::default(),
            act: ActorChain::from_actor(actor),
            task: TaskRef { id: task, issuer: issuer.clone(), authority_hash: authority.hash() },
            authorization_details: authority,
            tctx: TaskContext { purpose: PURPOSE.parse()?, details: None },
            rctx: serde_json::Map::new(),
            req_wl: None,
            may_act: None,
            grant: None,
            break_glass: false,
            auth_time: None,
            acr: None,
            amr: None,
            status: None,
        })
    }

    /// Returns whether this is a token of [`for_catalogue`](Self::for_catalogue): of this server
    /// for itself, and only for listing tools.
    #[must_use]
    pub fn is_for_catalogue(&self) -> bool {
        let is_own = |actor: &Actor| actor.iss == self.iss.as_str() && actor.sub == CATALOGUE_CLIENT_ID;
        let lists_tools = |permission: &Permission| permission.action == Action::List(ListAction::Tools);
        self.client_id.as_str() == CATALOGUE_CLIENT_ID
            && self.sub.as_str() == CATALOGUE_CLIENT_ID
            && self.sub_iss == self.iss
            && self.act.actors().all(is_own)
            && self.authorization_details.iter().all(lists_tools)
            && self.may_act.is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claims() -> TaskTokenClaims {
        let (issuer, resource) = ("https://sts.example.com".parse().unwrap(), "https://a.example/mcp".parse().unwrap());
        let id = "01a1fa42-2000-7c1e-9b57-4d2f6a0c8e13";
        let ids = (id.parse().unwrap(), id.parse().unwrap());
        TaskTokenClaims::for_catalogue(&issuer, &resource, ids, LogPosition::new(1), Timestamp::from_unix(5)).unwrap()
    }

    #[test]
    fn catalogue_token_lists_tools_only() {
        let token = claims();
        assert!(token.is_for_catalogue());
        let resource = "https://a.example/mcp".parse().unwrap();
        assert!(token.authorization_details.allows_listing(&resource, ListAction::Tools));
        assert!(!token.authorization_details.allows_listing(&resource, ListAction::Resources));
        assert_eq!(token.authorization_details.iter().filter_map(Permission::tool).count(), 0);
        assert_eq!(token.act.depth(), 1);
        let payload = serde_json::to_vec(&token).unwrap();
        assert_eq!(TaskTokenClaims::read(&payload).unwrap(), token, "this server can read it back");
    }

    #[test]
    fn other_tokens_are_not_catalogue_tokens() {
        let other_actor = Actor { iss: "https://sts.example.com".into(), sub: "planner".into(), sub_profile: None };
        let foreign = Actor { iss: "https://x.example".into(), sub: CATALOGUE_CLIENT_ID.into(), sub_profile: None };
        let call = Permission::unconstrained("https://a.example/mcp".parse().unwrap(), "t".parse().unwrap());
        for other in [
            TaskTokenClaims { client_id: "planner".parse().unwrap(), ..claims() },
            TaskTokenClaims { sub: "alice".parse().unwrap(), ..claims() },
            TaskTokenClaims { sub_iss: "https://login.example.com".parse().unwrap(), ..claims() },
            TaskTokenClaims { act: ActorChain::from_actor(other_actor.clone()), ..claims() },
            TaskTokenClaims { act: claims().act.with_actor(other_actor, 4).unwrap(), ..claims() },
            TaskTokenClaims { act: ActorChain::from_actor(foreign), ..claims() },
            TaskTokenClaims { authorization_details: [call].into_iter().collect(), ..claims() },
        ] {
            assert!(!other.is_for_catalogue(), "{other:?}");
        }
    }
}
