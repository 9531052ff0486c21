//! Tests of the decision: a readable fixture, a table of denials, a table of legal exchanges, and
//! properties of generated chains.

mod break_glass;
mod chain_generator;
mod chains;
mod consent;
mod denials;
mod exchange_kinds;
mod lifetimes;
mod presenter_binding_matrix;

use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::*;
use crate::domain::{
    authority::{Authority, Permission, RequestedPermissions},
    exchange::presenter_binding::AgentMatch,
    grants::Grant,
    id::{GrantId, TaskId},
    registry::{
        Block, BlockKind, BlockSubject, Entry, KnownTools, Registry, RegistryObject, Source,
        tool::{KnownTool, ToolDefinition},
    },
    revocation::LogPosition,
    settings::{TaskLimits, TokenLimits},
    task::{Task, TaskState},
    time::Lifetime,
    token::{
        TaskRef, TaskTokenClaims,
        actor_chain::ActorChainError,
        foreign_claims::{MayAct, UserClaims},
    },
};

const US: &str = "https://sts.example.com";
const DOMAIN: &str = "example.com";
const LOGIN: &str = "https://login.example.com";
const PARTNER: &str = "https://partner.example.com";
const FILES: &str = "https://files.example.com/mcp";
const MAIL: &str = "https://mail.example.com/mcp";
const NOW: Timestamp = Timestamp::from_unix(1_795_200_000);

fn secret() -> Value {
    json!({"method": "client_secret_basic"})
}

/// The registry of the tables: two identity providers, four agents, two resources.
fn objects() -> Vec<Value> {
    let tool = |name: &str, scope: &str, effect: &str| json!({"name": name, "scope": scope, "effect": effect});
    let keys = "discovery";
    vec![
        json!({"kind": "issuer", "body": {"issuer": LOGIN, "keys": keys, "audiences": [US], "algorithms": ["RS256"],
            "token_types": ["access_token", "id_token"]}}),
        json!({"kind": "issuer", "body": {"issuer": PARTNER, "keys": keys, "audiences": [US], "algorithms": ["RS256"],
            "token_types": ["jwt"], "subject_prefix": "partner:", "subject_scopes": "ignore", "entitlements": [
                {"to": {"claim": {"name": "groups", "value": "staff"}}, "resource": "files", "scopes": ["files:read"]},
                {"to": "everyone", "tools": ["search"]}]}}),
        json!({"kind": "agent", "body": {"id": "planner", "authentication": secret(),
            "known_as": {LOGIN: ["planner-app", "planner-web"], PARTNER: ["planner-there"]},
            "access": [{"resource": "files", "scopes": ["files:read", "files:write"]},
                {"resource": "mail", "scopes": ["mail:read"], "tools": ["send"]}],
            "may_delegate_to": ["reader", "writer"]}}),
        json!({"kind": "agent", "body": {"id": "reader", "authentication": secret(), "known_as": {LOGIN: ["reader-app"]},
            "access": [{"resource": "files", "scopes": ["files:read"]}], "may_delegate_to": ["writer", "planner"]}}),
        json!({"kind": "agent", "body": {"id": "writer", "authentication": secret(),
            "access": [{"resource": "files", "scopes": ["files:read", "files:write"]}]}}),
        json!({"kind": "agent", "body": {"id": "loner", "authentication": secret(), "known_as": {LOGIN: ["loner-app"]},
            "access": [{"resource": "files", "scopes": ["files:delete"]}]}}),
        json!({"kind": "resource", "body": {"id": "files", "uri": FILES, "authentication": secret(), "tools": [
            tool("read_file", "files:read", "read"), tool("list_files", "files:read", "read"),
            tool("write_file", "files:write", "write"), tool("delete_file", "files:delete", "destructive")]}}),
        json!({"kind": "resource", "body": {"id": "mail", "uri": MAIL, "authentication": secret(),
            "signing_algorithm": "RS256",
            "tools": [tool("search", "mail:read", "read"), tool("send", "mail:send", "write")]}}),
    ]
}

fn registry(objects: Vec<Value>) -> Registry {
    let entry =
        |object| Entry { object: serde_json::from_value::<RegistryObject>(object).unwrap(), source: Source::File };
    Registry::build(1, objects.into_iter().map(entry).collect(), std::collections::BTreeMap::new()).unwrap()
}

/// An owned [`ExchangeInput`]. Each row starts from a legal one and changes one thing.
#[derive(Clone)]
struct Case {
    objects: Vec<Value>,
    /// The blocks set by admins.
    blocks: Vec<Block>,
    tokens: TokenLimits,
    tasks: TaskLimits,
    now: Timestamp,
    presenter: &'static str,
    subject: Subject,
    actor_match: AgentMatch,
    grants: Vec<Grant>,
    requested_token: TokenRequest,
    scope: Option<&'static str>,
    details: Option<Authority>,
    expires_in: Option<u32>,
    task: TaskRequest,
    known_tools: KnownTools,
}

#[derive(Clone)]
enum Subject {
    User(Box<UserClaims>),
    Own(Box<TaskTokenClaims>, TokenKind),
}

#[derive(Clone, Copy)]
enum TokenRequest {
    Access(&'static str),
    HandOver(&'static str, &'static str),
    Txn,
}

#[derive(Clone)]
enum TaskRequest {
    Unnamed { purpose: Option<&'static str>, deadline: Option<u32> },
    Named(TaskId, Option<Box<Task>>),
}

impl Case {
    /// The planner presents alice's token, which was issued to it, and requests a scope within all
    /// ceilings.
    fn with_user_token() -> Self {
        Self {
            objects: objects(),
            blocks: Vec::new(),
            tokens: TokenLimits::default(),
            tasks: TaskLimits::default(),
            now: NOW,
            presenter: "planner",
            subject: Subject::User(Box::new(alice())),
            actor_match: AgentMatch::Absent,
            grants: Vec::new(),
            requested_token: TokenRequest::Access("files"),
            scope: Some("files:read"),
            details: None,
            expires_in: None,
            task: TaskRequest::Unnamed { purpose: Some("quarterly report"), deadline: None },
            known_tools: KnownTools::new(),
        }
    }

    /// `presenter` presents the token of another case, and requests the same scope.
    fn with_issued_token(presenter: &'static str, token: (TaskTokenClaims, TokenKind)) -> Self {
        let subject = Subject::Own(Box::new(token.0), token.1);
        Self {
            presenter,
            subject,
            task: TaskRequest::Unnamed { purpose: None, deadline: None },
            ..Self::with_user_token()
        }
    }

    /// The planner's access token for files.
    fn with_access_token() -> Self {
        Self::with_issued_token("planner", Self::with_user_token().issue_token(1))
    }

    /// The reader presents the token that the planner handed over to it.
    fn with_handed_over_token() -> Self {
        Self::with_issued_token(
            "reader",
            Self::with_access_token()
                .change(|c| c.requested_token = TokenRequest::HandOver("reader", "files"))
                .issue_token(2),
        )
    }

    /// The resource presents a transaction token, which it got for the planner's access token.
    fn with_txn_token() -> Self {
        let first = Self::with_issued_token("files", Self::with_user_token().issue_token(1))
            .change(|c| c.requested_token = TokenRequest::Txn);
        Self::with_issued_token("files", first.issue_token(2)).change(|c| c.requested_token = TokenRequest::Txn)
    }

    fn change(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }

    fn with_user_claims(self, change: impl FnOnce(&mut UserClaims)) -> Self {
        self.change(|case| match &mut case.subject {
            Subject::User(user) => change(user),
            Subject::Own(..) => panic!("not a user token"),
        })
    }

    fn with_own_claims(self, change: impl FnOnce(&mut TaskTokenClaims)) -> Self {
        self.change(|case| match &mut case.subject {
            Subject::Own(own, _) => change(own),
            Subject::User(..) => panic!("not a token of this server"),
        })
    }

    /// Changes an object of the registry.
    fn with_object(self, id: &str, change: impl FnOnce(&mut Value)) -> Self {
        self.change(|case| {
            let named = |o: &&mut Value| o["body"]["id"] == id || o["body"]["issuer"] == id;
            change(&mut case.objects.iter_mut().find(named).unwrap()["body"]);
        })
    }

    /// Sets the accepted and the observed definition of a tool of `files`.
    fn with_known_tool(self, tool: &str, accepted: Option<&str>, seen: Option<&str>) -> Self {
        self.change(|case| {
            let digest = |text: Option<&str>| text.map(|text| definition(tool, text).digest());
            let known = KnownTool { accepted: digest(accepted), observed: digest(seen) };
            case.known_tools.entry("files".parse().unwrap()).or_default().insert(tool.parse().unwrap(), known);
        })
    }

    fn with_block(self, kind: &str, id: &str) -> Self {
        let (who, reason) = (BlockSubject::parse(kind, id).unwrap(), "x".parse().unwrap());
        self.change(|case| {
            case.blocks.push(Block { subject: who, kind: BlockKind::Blocked, reason, by: "admin:ops".into(), at: NOW });
        })
    }

    fn decide(&self) -> Result<TokenPlan, Denial> {
        let registry =
            registry(self.objects.clone()).with_blocks(self.blocks.clone()).with_tools(self.known_tools.clone());
        let resource = |id: &str| registry.resource(&id.parse().unwrap()).unwrap();
        let agent = |id: &str| registry.agent(&id.parse().unwrap()).unwrap();
        let scope = self.scope.map(|scope| scope.parse().unwrap());
        let details = self.details.as_ref().map(|details| details.iter().cloned().collect::<RequestedPermissions>());
        let (purpose, deadline) = match self.task {
            TaskRequest::Unnamed { purpose, deadline } => (purpose.map(|p| p.parse().unwrap()), deadline),
            TaskRequest::Named(..) => (None, None),
        };
        decide(&ExchangeInput {
            now: self.now,
            issuer: &US.parse().unwrap(),
            trust_domain: DOMAIN,
            registry: &registry,
            token_limits: &self.tokens,
            task_limits: &self.tasks,
            presenter: registry
                .agent(&self.presenter.parse().unwrap())
                .map_or_else(|| Presenter::Resource(resource(self.presenter)), Presenter::Agent),
            subject: match &self.subject {
                Subject::User(user) => Evidence::User(user, registry.issuer(user.requester.issuer.as_str()).unwrap()),
                Subject::Own(own, kind) => Evidence::Own(own, *kind),
            },
            actor_match: self.actor_match,
            grants: &self.grants,
            requested_token: match self.requested_token {
                TokenRequest::Access(to) => RequestedToken::Access(resource(to)),
                TokenRequest::HandOver(to, at) => RequestedToken::HandOver(agent(to), resource(at)),
                TokenRequest::Txn => RequestedToken::Txn,
            },
            scope: scope.as_ref(),
            details: details.as_ref(),
            expires_in: self.expires_in.map(Lifetime::seconds),
            task: match &self.task {
                TaskRequest::Unnamed { .. } => {
                    TaskSelector::Unnamed { purpose: purpose.as_ref(), deadline: deadline.map(Lifetime::seconds) }
                }
                TaskRequest::Named(id, task) => TaskSelector::Named(*id, task.as_deref()),
            },
        })
    }

    /// Issues the token as number `n`.
    fn issue_token(&self, n: u128) -> (TaskTokenClaims, TokenKind) {
        issue(&self.decide().unwrap(), self.now, n)
    }
}

fn definition(tool: &str, text: &str) -> ToolDefinition {
    ToolDefinition::new(tool, Some(text), &Map::new()).unwrap()
}

/// Builds the claims of a planned token, as the use case does. A new task gets the number of its
/// first token.
fn issue(plan: &TokenPlan, now: Timestamp, n: u128) -> (TaskTokenClaims, TokenKind) {
    let (txn, authority_hash, tctx) = match &plan.task {
        PlannedTask::Open { purpose, authority, .. } => {
            (task_id(n), authority.hash(), TaskContext { purpose: purpose.clone(), details: None })
        }
        PlannedTask::Existing { id, authority_hash, context } => (*id, authority_hash.clone(), context.clone()),
    };
    let claims = TaskTokenClaims {
        iss: US.parse().unwrap(),
        aud: plan.audience.clone(),
        sub: plan.requester.subject.clone(),
        sub_iss: plan.requester.issuer.clone(),
        client_id: plan.client.clone(),
        iat: now,
        exp: plan.expires,
        jti: token_id(n),
        txn,
        lineage: plan.lineage.clone(),
        rev: LogPosition::new(u64::try_from(n).unwrap()),
        scope: plan.scope.clone(),
        authorization_details: plan.authority.clone(),
        act: plan.chain.clone(),
        task: TaskRef { id: txn, issuer: US.parse().unwrap(), authority_hash },
        tctx,
        rctx: Map::new(),
        req_wl: plan.req_wl.clone(),
        may_act: plan.may_act.clone(),
        grant: plan.grant,
        break_glass: plan.break_glass,
        auth_time: plan.auth_context.auth_time,
        acr: plan.auth_context.acr.clone(),
        amr: plan.auth_context.amr.clone(),
        status: None,
    };
    let kind = claims.kind(plan.kind.typ()).unwrap();
    assert_eq!(kind, plan.kind, "the kind of an issued token is recognized");
    (claims, kind)
}

fn alice() -> UserClaims {
    UserClaims {
        requester: Requester { issuer: LOGIN.parse().unwrap(), subject: "alice".parse().unwrap() },
        audiences: vec![US.into()],
        issued: Some(NOW),
        expires: NOW.saturating_add(Lifetime::hours(1)),
        client: Some("planner-app".into()),
        may_act: None,
        is_key_bound: false,
        scope: Some("files:read files:write mail:read mail:send".parse().unwrap()),
        chain: None,
        auth_context: AuthenticationContext {
            auth_time: Some(Timestamp::from_unix(1_795_199_000)),
            acr: Some("loa2".into()),
            amr: Some(vec!["hwk".into()]),
        },
        raw_claims: Map::new(),
        ignored_claims: Vec::new(),
    }
}

/// Bob of the partner: no scopes, but entitlements by groups.
fn bob(groups: &Value) -> UserClaims {
    UserClaims {
        requester: Requester { issuer: PARTNER.parse().unwrap(), subject: "partner:bob".parse().unwrap() },
        client: Some("planner-there".into()),
        scope: None,
        raw_claims: [("groups".to_owned(), groups.clone())].into_iter().collect(),
        ..alice()
    }
}

/// Alice's task for the planner, approved for these tools.
fn task(authority: Authority) -> Task {
    Task {
        id: task_id(7),
        requester: alice().requester,
        root_agent: "planner".parse().unwrap(),
        purpose: "quarterly report".parse().unwrap(),
        authority,
        state: TaskState::Active,
        created_at: NOW,
        deadline: NOW.saturating_add(Lifetime::minutes(30)),
        grant: None,
        version: 0,
        last_transition: None,
        rev: LogPosition::default(),
    }
}

/// Alice's grant to the planner, for an hour. Without an authority, it only names the agent.
fn grant(n: u128, authority: Option<Authority>) -> Grant {
    Grant {
        id: grant_id(n),
        requester: alice().requester,
        agent: "planner".parse().unwrap(),
        authority,
        expires: NOW.saturating_add(Lifetime::hours(1)),
        by: "admin:ops".into(),
        at: NOW,
        break_glass: false,
    }
}

fn grant_id(n: u128) -> GrantId {
    GrantId::new(Uuid::from_u128(n))
}

fn task_id(n: u128) -> TaskId {
    TaskId::new(Uuid::from_u128(n))
}

fn token_id(n: u128) -> TokenId {
    TokenId::new(Uuid::from_u128(n))
}

/// Permissions for tools: `search` and `send` belong to mail, all others to files.
fn tools(names: &[&str]) -> Authority {
    let at = |name: &str| if matches!(name, "search" | "send") { MAIL } else { FILES };
    names.iter().map(|n| Permission::unconstrained(at(n).parse().unwrap(), n.parse().unwrap())).collect()
}

fn actor(iss: &str, sub: &str) -> Actor {
    Actor { iss: iss.into(), sub: sub.into(), sub_profile: None }
}
