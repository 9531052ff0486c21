//! One row for each rule: a legal request with one violation gets the denial for it.

mod authority;
mod consent;
mod edges;

use std::collections::BTreeSet;

use serde_json::json;

use super::*;
use crate::domain::{exchange::presenter_binding::BindingError, registry::tool::ToolUnavailable, task::JoinError};

/// Numbers the reasons, without a wildcard: a new reason needs a number here and a row below.
fn denial_number(denial: &Denial) -> usize {
    let owner_number = |owner: CeilingOwner| match owner {
        CeilingOwner::Catalogue => 0,
        CeilingOwner::Agent => 1,
        CeilingOwner::Requester => 2,
        CeilingOwner::Parent => 3,
        CeilingOwner::Task => 4,
        CeilingOwner::NextAgent => 5,
        CeilingOwner::Edge => 6,
        CeilingOwner::RequesterClaimElsewhere => 7,
    };
    let unavailable = |reason: &ToolUnavailable| match reason {
        ToolUnavailable::Changed => 0,
        ToolUnavailable::Gone => 1,
        ToolUnavailable::Proposed => 2,
        ToolUnavailable::DefinitionSuperseded => 3,
        ToolUnavailable::DigestMismatch => 4,
    };
    match denial {
        Denial::ResourceLimitedToTxnToken => 0,
        Denial::TargetBlocked => 1,
        Denial::TargetIsIssuer => 2,
        Denial::DelegationNotAllowed => 3,
        Denial::TxnTokenNotConvertible => 4,
        Denial::ApiTokenNotExchangeable => 5,
        Denial::PresenterNotBound(BindingError::Unrelated) => 6,
        Denial::PresenterNotBound(BindingError::KeyBound) => 7,
        Denial::PresenterNotBound(BindingError::MayActMismatch) => 8,
        Denial::PresenterNotBound(BindingError::ActorTokenMismatch) => 9,
        Denial::PresenterMismatch => 10,
        Denial::PartyBlocked => 11,
        Denial::Chain(ActorChainError::TooDeep) => 12,
        Denial::Chain(ActorChainError::DuplicateActor) => 13,
        Denial::Chain(ActorChainError::OwnAgentNamedByForeignIssuer) => 14,
        Denial::Chain(ActorChainError::Empty) => panic!("an empty chain is never extended"),
        Denial::LineageTooLong => 15,
        Denial::NoAuthorityRequested => 16,
        Denial::SubjectScopeMissing => 17,
        Denial::NoAuthorityAtTarget => 18,
        Denial::TaskMismatch => 19,
        Denial::TaskNotJoinable(JoinError::UnknownTask) => 20,
        Denial::TaskNotJoinable(JoinError::Ended) => 21,
        Denial::TaskNotJoinable(JoinError::Suspended) => 41,
        Denial::RequesterBlocked => 42,
        Denial::PurposeRequired => 22,
        Denial::DeadlineTooLong => 23,
        Denial::AlreadyExpired => 24,
        Denial::ScopeExceedsCeiling(excess) => 25 + owner_number(excess.owner),
        Denial::DetailsExceedCeiling(excess) => 32 + owner_number(excess.owner),
        Denial::DelegationDepthExceeded => 39,
        Denial::BrokerWithoutPrincipal => 40,
        Denial::ConsentRequired => 52,
        Denial::ScopeToolUnavailable(_, ToolUnavailable::DigestMismatch) => panic!("a scope names no definition"),
        Denial::ScopeToolUnavailable(_, reason) => 43 + unavailable(reason),
        Denial::DetailsToolUnavailable(_, reason) => 47 + unavailable(reason),
    }
}
const DENIAL_COUNT: usize = 53;

type Row = (&'static str, Case, Denial);

/// Removes the allowed part, which has tests of its own.
fn without_allowed(mut denial: Denial) -> Denial {
    if let Denial::ScopeExceedsCeiling(excess) | Denial::DetailsExceedCeiling(excess) = &mut denial {
        excess.allowed = None;
    }
    denial
}

fn scope_exceeds(index: &str, owner: CeilingOwner) -> Denial {
    Denial::ScopeExceedsCeiling(CeilingExceeded { location: format!("scope{index}"), owner, allowed: None })
}

fn details_exceed(path: &str, owner: CeilingOwner) -> Denial {
    Denial::DetailsExceedCeiling(CeilingExceeded {
        location: format!("authorization_details{path}"),
        owner,
        allowed: None,
    })
}

#[test]
fn each_violated_rule_is_denied_with_its_reason() {
    let rows = [
        target_rows(),
        user_token_rows(),
        own_token_rows(),
        chain_rows(),
        authority::scope_and_tool_rows(),
        authority::argument_rows(),
        edges::edge_rows(),
        task_rows(),
        consent::consent_rows(),
        definition_rows(),
    ];
    let mut covered = BTreeSet::new();
    for (what, case, want) in rows.into_iter().flatten() {
        assert_eq!(case.decide().map_err(without_allowed), Err(want.clone()), "{what}");
        let text = want.to_string();
        assert!(text.is_ascii() && !text.contains("alice") && !text.contains("planner"), "{text}");
        covered.insert(denial_number(&want));
    }
    assert_eq!(covered, (0..DENIAL_COUNT).collect(), "every reason has a row");
    // A block applies to exactly one name, kind and issuer.
    for (kind, id) in [
        ("requester", "https://login.example.com alic"),
        ("requester", "https://partner.example.com alice"),
        ("agent", "writer"),
        ("admin", "planner"),
        ("resource", "planner"),
        ("agent", "files"),
    ] {
        Case::with_user_token().with_block(kind, id).decide().unwrap();
    }
    for legal in
        [Case::with_user_token(), Case::with_access_token(), Case::with_handed_over_token(), Case::with_txn_token()]
    {
        legal.decide().unwrap();
    }
}

fn target_rows() -> Vec<Row> {
    let to_reader = |c: &mut Case| c.requested_token = TokenRequest::HandOver("reader", "files");
    let disable = |o: &mut Value| o["disabled"] = true.into();
    vec![
        (
            "a resource requests an access token",
            Case::with_issued_token("files", Case::with_user_token().issue_token(1)),
            Denial::ResourceLimitedToTxnToken,
        ),
        (
            "a resource hands over",
            Case::with_issued_token("files", Case::with_user_token().issue_token(1)).change(to_reader),
            Denial::ResourceLimitedToTxnToken,
        ),
        ("the resource is disabled", Case::with_user_token().with_object("files", disable), Denial::TargetBlocked),
        (
            "the resource of a hand-over is disabled",
            Case::with_user_token().change(to_reader).with_object("files", disable),
            Denial::TargetBlocked,
        ),
        (
            "the agent to hand over to is disabled",
            Case::with_access_token().change(to_reader).with_object("reader", disable),
            Denial::TargetBlocked,
        ),
        (
            "a resource named like this server",
            Case::with_user_token().with_object("files", |o| o["uri"] = US.into()),
            Denial::TargetIsIssuer,
        ),
        (
            "a resource named like this server, in another spelling",
            Case::with_user_token().with_object("files", |o| o["uri"] = "https://STS.example.com:443/".into()),
            Denial::TargetIsIssuer,
        ),
        (
            "no edge",
            Case::with_access_token().change(|c| c.requested_token = TokenRequest::HandOver("loner", "files")),
            Denial::DelegationNotAllowed,
        ),
        (
            "an edge removed before the token is redeemed",
            Case::with_handed_over_token().with_object("planner", |o| o["may_delegate_to"] = json!(["writer"])),
            Denial::DelegationNotAllowed,
        ),
        (
            "a transaction token is exchanged for an access token",
            Case::with_txn_token().change(|c| {
                c.presenter = "planner";
                c.requested_token = TokenRequest::Access("files");
            }),
            Denial::TxnTokenNotConvertible,
        ),
        (
            "a transaction token is handed over",
            Case::with_txn_token()
                .change(|c| (c.presenter, c.requested_token) = ("planner", TokenRequest::HandOver("reader", "files"))),
            Denial::TxnTokenNotConvertible,
        ),
        (
            "an API token as subject",
            Case::with_access_token().change(|c| {
                if let Subject::Own(_, kind) = &mut c.subject {
                    *kind = TokenKind::Api;
                }
            }),
            Denial::ApiTokenNotExchangeable,
        ),
    ]
}

fn user_token_rows() -> Vec<Row> {
    let disable = |o: &mut Value| o["disabled"] = true.into();
    let by_reader = |iss: Option<&str>, sub: &str| Some(MayAct { iss: iss.map(str::to_owned), sub: sub.into() });
    vec![
        (
            "issued to another client: the confused deputy",
            Case::with_user_token().change(|c| c.presenter = "reader"),
            Denial::PresenterNotBound(BindingError::Unrelated),
        ),
        (
            "issued to the agent's client id at another issuer",
            Case::with_user_token().with_user_claims(|u| u.client = Some("planner-there".into())),
            Denial::PresenterNotBound(BindingError::Unrelated),
        ),
        (
            "issued to a client with the agent's id, which is not its client id at the issuer",
            Case::with_user_token().with_user_claims(|u| u.client = Some("planner".into())),
            Denial::PresenterNotBound(BindingError::Unrelated),
        ),
        (
            "bound to a key",
            Case::with_user_token().with_user_claims(|u| u.is_key_bound = true),
            Denial::PresenterNotBound(BindingError::KeyBound),
        ),
        (
            "may_act names another agent, though the token was issued to this one",
            Case::with_user_token().with_user_claims(|u| u.may_act = by_reader(None, "reader-app")),
            Denial::PresenterNotBound(BindingError::MayActMismatch),
        ),
        (
            "may_act has the agent's id in the issuer's namespace",
            Case::with_user_token().with_user_claims(|u| u.may_act = by_reader(Some(LOGIN), "planner")),
            Denial::PresenterNotBound(BindingError::MayActMismatch),
        ),
        (
            "may_act has the agent's client id in the namespace of this server",
            Case::with_user_token().with_user_claims(|u| u.may_act = by_reader(Some(US), "planner-app")),
            Denial::PresenterNotBound(BindingError::MayActMismatch),
        ),
        (
            "may_act names the agent in a third namespace",
            Case::with_user_token().with_user_claims(|u| u.may_act = by_reader(Some(PARTNER), "planner-app")),
            Denial::PresenterNotBound(BindingError::MayActMismatch),
        ),
        (
            "the actor token names another agent",
            Case::with_user_token().change(|c| c.actor_match = AgentMatch::OtherParty),
            Denial::PresenterNotBound(BindingError::ActorTokenMismatch),
        ),
        (
            "the actor token names another agent, with a token of this server",
            Case::with_access_token().change(|c| c.actor_match = AgentMatch::OtherParty),
            Denial::PresenterNotBound(BindingError::ActorTokenMismatch),
        ),
        (
            "a resource presents a user token",
            Case::with_user_token().change(|c| (c.presenter, c.requested_token) = ("files", TokenRequest::Txn)),
            Denial::PresenterMismatch,
        ),
        ("the agent is disabled", Case::with_user_token().with_object("planner", disable), Denial::PartyBlocked),
        ("the issuer is disabled", Case::with_user_token().with_object(LOGIN, disable), Denial::PartyBlocked),
        ("the agent is blocked", Case::with_user_token().with_block("agent", "planner"), Denial::PartyBlocked),
        ("the issuer is blocked", Case::with_user_token().with_block("issuer", LOGIN), Denial::PartyBlocked),
        ("the resource is blocked", Case::with_user_token().with_block("resource", "files"), Denial::TargetBlocked),
        (
            "the requester is blocked",
            Case::with_user_token().with_block("requester", "https://login.example.com alice"),
            Denial::RequesterBlocked,
        ),
        ("no scope", Case::with_user_token().with_user_claims(|u| u.scope = None), Denial::SubjectScopeMissing),
    ]
}

#[expect(clippy::too_many_lines, reason = "a table")]
fn own_token_rows() -> Vec<Row> {
    let disable = |o: &mut Value| o["disabled"] = true.into();
    let without = |case: Case, id: &'static str| case.change(|c| c.objects.retain(|o| o["body"]["id"] != id));
    let no_edges = |case: Case| {
        case.with_object("planner", |o| o["may_delegate_to"] = json!([]))
            .with_object("reader", |o| o["may_delegate_to"] = json!([]))
    };
    let handed = || {
        Case::with_access_token()
            .change(|c| c.requested_token = TokenRequest::HandOver("reader", "files"))
            .issue_token(2)
    };
    vec![
        (
            "another agent's token",
            Case::with_issued_token("reader", Case::with_user_token().issue_token(1)),
            Denial::PresenterMismatch,
        ),
        (
            "a token for another resource",
            Case::with_issued_token("mail", Case::with_user_token().issue_token(1))
                .change(|c| c.requested_token = TokenRequest::Txn),
            Denial::PresenterMismatch,
        ),
        (
            "the agent that handed over presents the hand-over token",
            Case::with_issued_token("planner", handed()),
            Denial::PresenterMismatch,
        ),
        (
            "a third agent presents the hand-over token",
            Case::with_issued_token("writer", handed()),
            Denial::PresenterMismatch,
        ),
        (
            "a resource presents the hand-over token",
            Case::with_issued_token("files", handed()).change(|c| c.requested_token = TokenRequest::Txn),
            Denial::PresenterMismatch,
        ),
        (
            "handed over to an agent with this id at another issuer",
            Case::with_handed_over_token()
                .with_own_claims(|own| own.may_act.as_mut().unwrap().iss = LOGIN.parse().unwrap()),
            Denial::PresenterMismatch,
        ),
        (
            "another workload replaces the transaction token",
            Case::with_txn_token().change(|c| c.presenter = "mail"),
            Denial::PresenterMismatch,
        ),
        (
            "the agent in the transaction token replaces it",
            Case::with_txn_token().change(|c| c.presenter = "planner"),
            Denial::PresenterMismatch,
        ),
        (
            "an agent of the chain is disabled",
            Case::with_handed_over_token().with_object("planner", disable),
            Denial::PartyBlocked,
        ),
        (
            "an agent of the chain is blocked",
            Case::with_handed_over_token().with_block("agent", "planner"),
            Denial::PartyBlocked,
        ),
        (
            "the requester is blocked",
            Case::with_access_token().with_block("requester", "https://login.example.com alice"),
            Denial::PartyBlocked,
        ),
        (
            "the requester's issuer is disabled",
            Case::with_access_token().with_object(LOGIN, disable),
            Denial::PartyBlocked,
        ),
        (
            "the requester's issuer is not registered",
            Case::with_access_token().with_own_claims(|own| own.sub_iss = "https://gone.example.com".parse().unwrap()),
            Denial::PartyBlocked,
        ),
        (
            "an agent of the chain is not registered",
            without(no_edges(Case::with_handed_over_token()), "planner"),
            Denial::PartyBlocked,
        ),
        (
            "an agent of the chain has become a resource",
            Case::with_access_token().with_own_claims(|own| {
                own.act = ActorChain::new(vec![actor(US, "planner"), actor(US, "mail")]).unwrap();
            }),
            Denial::PartyBlocked,
        ),
        (
            "the resource of the access token is disabled",
            Case::with_txn_token().with_object("files", disable).change(|c| {
                c.presenter = "mail";
                let Subject::Own(own, _) = &mut c.subject else { panic!() };
                own.req_wl = Some("mail".parse().unwrap());
            }),
            Denial::PartyBlocked,
        ),
        (
            "lineage too long",
            Case::with_access_token().with_own_claims(|own| own.lineage = (10..26).map(token_id).collect()),
            Denial::LineageTooLong,
        ),
        (
            "the token expires now",
            Case::with_access_token().change(|c| c.now = NOW.saturating_add(Lifetime::minutes(5))),
            Denial::AlreadyExpired,
        ),
    ]
}

fn chain_rows() -> Vec<Row> {
    let deep = |max| move |c: &mut Case| c.tokens.max_chain = max;
    vec![
        ("too deep", Case::with_handed_over_token().change(deep(1)), Denial::Chain(ActorChainError::TooDeep)),
        (
            "too deep with the requested actor",
            Case::with_access_token()
                .change(deep(1))
                .change(|c| c.requested_token = TokenRequest::HandOver("reader", "files")),
            Denial::Chain(ActorChainError::TooDeep),
        ),
        (
            "too deep with the chain of another issuer",
            Case::with_user_token()
                .change(deep(1))
                .with_user_claims(|u| u.chain = Some(ActorChain::from_actor(actor(LOGIN, "web")))),
            Denial::Chain(ActorChainError::TooDeep),
        ),
        (
            "handed back",
            Case::with_handed_over_token().change(|c| c.requested_token = TokenRequest::HandOver("planner", "files")),
            Denial::Chain(ActorChainError::DuplicateActor),
        ),
        (
            "another issuer names an agent of this server",
            Case::with_user_token().with_user_claims(|u| {
                u.chain = Some(ActorChain::new(vec![actor(LOGIN, "web"), actor(US, "reader")]).unwrap());
            }),
            Denial::Chain(ActorChainError::OwnAgentNamedByForeignIssuer),
        ),
    ]
}

fn task_rows() -> Vec<Row> {
    let join = |change: fn(&mut Task)| {
        let mut task = task(tools(&["read_file", "list_files"]));
        change(&mut task);
        Case::with_user_token().change(|c| c.task = TaskRequest::Named(task_id(7), Some(Box::new(task))))
    };
    let unknown = || Denial::TaskNotJoinable(JoinError::UnknownTask);
    let ended = || Denial::TaskNotJoinable(JoinError::Ended);
    let unnamed =
        |purpose, deadline| Case::with_user_token().change(|c| c.task = TaskRequest::Unnamed { purpose, deadline });
    vec![
        (
            "another task than the token's",
            Case::with_access_token().change(|c| c.task = TaskRequest::Named(task_id(9), None)),
            Denial::TaskMismatch,
        ),
        ("no such task", Case::with_user_token().change(|c| c.task = TaskRequest::Named(task_id(7), None)), unknown()),
        ("another user's task", join(|t| t.requester.subject = "carol".parse().unwrap()), unknown()),
        (
            "the task of a user with this name at another issuer",
            join(|t| t.requester.issuer = PARTNER.parse().unwrap()),
            unknown(),
        ),
        ("another agent's task", join(|t| t.root_agent = "reader".parse().unwrap()), unknown()),
        ("a revoked task", join(|t| t.state = TaskState::Revoked), ended()),
        ("a completed task", join(|t| t.state = TaskState::Completed), ended()),
        ("a suspended task", join(|t| t.state = TaskState::Suspended), Denial::TaskNotJoinable(JoinError::Suspended)),
        ("a task at its deadline", join(|t| t.deadline = NOW), ended()),
        ("no purpose", unnamed(None, None), Denial::PurposeRequired),
        ("a second over the limit", unnamed(Some("x"), Some(24 * 3600 + 1)), Denial::DeadlineTooLong),
        (
            "over the hard cap",
            unnamed(Some("x"), Some(24 * 3600 + 1)).change(|c| c.tasks.max_lifetime = Lifetime::hours(48)),
            Denial::DeadlineTooLong,
        ),
        ("a task without lifetime", unnamed(Some("x"), Some(0)), Denial::AlreadyExpired),
        (
            "a token without lifetime",
            Case::with_user_token().change(|c| c.expires_in = Some(0)),
            Denial::AlreadyExpired,
        ),
        (
            "the user token expires now",
            Case::with_user_token().with_user_claims(|u| u.expires = NOW),
            Denial::AlreadyExpired,
        ),
    ]
}

/// A task of another party never influences the answer, which is that for an unknown task.
#[test]
fn foreign_task_is_indistinguishable_from_unknown_task() {
    let small = || task(tools(&["read_file"]));
    let with_grant = || Task { grant: Some(grant_id(1)), ..small() };
    let of_reader = |of: Task| Task { root_agent: "reader".parse().unwrap(), ..of };
    let of_carol = |of: Task| Task { requester: Requester { subject: "carol".parse().unwrap(), ..of.requester }, ..of };
    let foreign = [
        of_reader(small()),
        of_carol(small()),
        of_reader(with_grant()),
        of_carol(with_grant()),
        Task { state: TaskState::Suspended, ..of_reader(small()) },
        Task { deadline: NOW, ..of_carol(small()) },
        Task { authority: Authority::default(), ..of_reader(small()) },
    ];
    let details = |requested: Authority| {
        move |c: &mut Case| {
            c.scope = None;
            c.details = Some(requested);
        }
    };
    let unbound = || Case::with_user_token().with_user_claims(|u| u.client = None);
    let requiring = || Case::with_user_token().with_object("files", |files| files["consent"] = json!("required"));
    let grants = || vec![grant(2, Some(tools(&["read_file", "list_files"])))];
    let cases = [
        ("no more than it allows", Case::with_user_token().change(details(tools(&["read_file"])))),
        ("more, by scope", Case::with_user_token()),
        ("more, by name", Case::with_user_token().change(details(tools(&["list_files"])))),
        ("a scope that does not exist", Case::with_user_token().change(|c| c.scope = Some("files:own"))),
        ("nothing", Case::with_user_token().change(|c| c.scope = None)),
        ("with a token that does not name the agent", unbound()),
        ("with a grant that names the agent", unbound().change(|c| c.grants = grants())),
        ("where consent is required", requiring()),
        ("where consent is recorded", requiring().change(|c| c.grants = grants())),
        (
            "a tool with a changed definition",
            Case::with_user_token().with_known_tool("read_file", Some("a"), Some("b")),
        ),
        ("no lifetime", Case::with_user_token().change(|c| c.expires_in = Some(0))),
    ];
    for (what, case) in cases {
        let answer = |task: Option<&Task>| {
            let named = TaskRequest::Named(task_id(7), task.cloned().map(Box::new));
            case.clone().change(|c| c.task = named).decide()
        };
        let none = answer(None);
        assert!(none.is_err(), "{what}: {none:?}");
        for task in &foreign {
            assert_eq!(answer(Some(task)), none, "{what}: {task:?}");
        }
    }
}

fn definition_rows() -> Vec<Row> {
    let read = || "read_file".parse().unwrap();
    let by_scope = |reason| Denial::ScopeToolUnavailable(read(), reason);
    let by_name = |reason| Denial::DetailsToolUnavailable(read(), reason);
    let requesting = |case: Case| case.change(|c| (c.scope, c.details) = (None, Some(tools(&["read_file"]))));
    let with_digest_of = |text: &'static str| {
        move |c: &mut Case| {
            let plain = tools(&["read_file"]).iter().next().unwrap().clone();
            let digest = Some(definition("read_file", text).digest());
            (c.scope, c.details) = (None, Some([Permission { digest, ..plain }].into_iter().collect()));
        }
    };
    let mut rows = Vec::new();
    for (what, accepted, observed, reason) in [
        ("a tool that changed", Some("a"), Some("b"), ToolUnavailable::Changed),
        ("a tool that is no longer listed", Some("a"), None, ToolUnavailable::Gone),
        ("a tool that was never listed", None, None, ToolUnavailable::Gone),
        ("a tool that is not accepted yet", None, Some("a"), ToolUnavailable::Proposed),
    ] {
        rows.push((what, Case::with_user_token().with_known_tool("read_file", accepted, observed), by_scope(reason)));
        rows.push((
            what,
            requesting(Case::with_user_token().with_known_tool("read_file", accepted, observed)),
            by_name(reason),
        ));
    }
    let known = || Case::with_user_token().with_known_tool("read_file", Some("a"), Some("a"));
    let held = || {
        Case::with_issued_token("planner", known().issue_token(1)).with_known_tool("read_file", Some("b"), Some("b"))
    };
    let join = || {
        let approved = known().decide().unwrap().authority;
        Case::with_user_token()
            .change(|c| c.task = TaskRequest::Named(task_id(7), Some(Box::new(task(approved)))))
            .with_known_tool("read_file", Some("b"), Some("b"))
    };
    rows.extend([
        ("another definition by name", known().change(with_digest_of("b")), by_name(ToolUnavailable::DigestMismatch)),
        // A scope can't name a definition, but a parent token or a task may have an older one.
        ("the parent has an older definition", held(), by_scope(ToolUnavailable::DefinitionSuperseded)),
        (
            "the parent has an older definition, by name",
            requesting(held()),
            by_name(ToolUnavailable::DefinitionSuperseded),
        ),
        ("the task has an older definition", join(), by_scope(ToolUnavailable::DefinitionSuperseded)),
        (
            "a tool that is not offered",
            requesting(Case::with_user_token().with_known_tool("own_file", None, Some("a")))
                .change(|c| c.details = Some(tools(&["own_file"]))),
            details_exceed("[0].identifier", CeilingOwner::Catalogue),
        ),
    ]);
    rows
}
