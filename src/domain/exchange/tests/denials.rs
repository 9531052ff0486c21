//! One row a rule: a legal request with one thing wrong gets the reason that is about this thing.

mod authority;
mod consent;
mod edges;

use std::collections::BTreeSet;

use serde_json::json;

use super::*;
use crate::domain::{exchange::presenter_binding::BindingError, registry::tool::ToolUnavailable, task::JoinError};

/// A number for each reason. There is no wildcard: who adds a reason adds a number here and a row below.
fn denial_number(denial: &Denial) -> usize {
    let holding = |holding: CeilingOwner| match holding {
        CeilingOwner::Catalogue => 0,
        CeilingOwner::Agent => 1,
        CeilingOwner::Requester => 2,
        CeilingOwner::Parent => 3,
        CeilingOwner::Task => 4,
        CeilingOwner::NextAgent => 5,
        CeilingOwner::Edge => 6,
    };
    let not_good = |why: &ToolUnavailable| match why {
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
        Denial::Chain(ActorChainError::Empty) => panic!("nothing is ever made of an empty chain"),
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
        Denial::ScopeExceedsCeiling(excess) => 25 + holding(excess.owner),
        Denial::DetailsExceedCeiling(excess) => 32 + holding(excess.owner),
        Denial::DelegationDepthExceeded => 39,
        Denial::BrokerWithoutPrincipal => 40,
        Denial::ConsentRequired => 52,
        Denial::ScopeToolUnavailable(_, ToolUnavailable::DigestMismatch) => panic!("a scope names no definition"),
        Denial::ScopeToolUnavailable(_, why) => 43 + not_good(why),
        Denial::DetailsToolUnavailable(_, why) => 47 + not_good(why),
    }
}
const DENIAL_COUNT: usize = 53;

type Row = (&'static str, Case, Denial);

/// What is left has tests of its own.
fn without_allowed(mut denial: Denial) -> Denial {
    if let Denial::ScopeExceedsCeiling(excess) | Denial::DetailsExceedCeiling(excess) = &mut denial {
        excess.allowed = None;
    }
    denial
}

/// `place`: which of the scopes.
fn scope_exceeds(place: &str, holding: CeilingOwner) -> Denial {
    Denial::ScopeExceedsCeiling(CeilingExceeded { location: format!("scope{place}"), owner: holding, allowed: None })
}

fn details_exceed(place: &str, holding: CeilingOwner) -> Denial {
    Denial::DetailsExceedCeiling(CeilingExceeded {
        location: format!("authorization_details{place}"),
        owner: holding,
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
    let mut seen = BTreeSet::new();
    for (what, case, want) in rows.into_iter().flatten() {
        assert_eq!(case.decide().map_err(without_allowed), Err(want.clone()), "{what}");
        let text = want.to_string();
        assert!(text.is_ascii() && !text.contains("alice") && !text.contains("planner"), "{text}");
        seen.insert(denial_number(&want));
    }
    assert_eq!(seen, (0..DENIAL_COUNT).collect(), "every reason has a row");
    // Who is shut out is who has the name, the kind and the issuer.
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
            "a resource wants an access token",
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
            "a resource called like us",
            Case::with_user_token().with_object("files", |o| o["uri"] = US.into()),
            Denial::TargetIsIssuer,
        ),
        (
            "a resource called like us, by another spelling",
            Case::with_user_token().with_object("files", |o| o["uri"] = "https://STS.example.com:443/".into()),
            Denial::TargetIsIssuer,
        ),
        (
            "no edge",
            Case::with_access_token().change(|c| c.requested_token = TokenRequest::HandOver("loner", "files")),
            Denial::DelegationNotAllowed,
        ),
        (
            "an edge that is gone when the token is redeemed",
            Case::with_handed_over_token().with_object("planner", |o| o["may_delegate_to"] = json!(["writer"])),
            Denial::DelegationNotAllowed,
        ),
        (
            "a transaction token comes out again",
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
            "issued to a client that has this name at another issuer",
            Case::with_user_token().with_user_claims(|u| u.client = Some("planner-there".into())),
            Denial::PresenterNotBound(BindingError::Unrelated),
        ),
        (
            "issued to a client that is called like our agent, which the issuer knows by another name",
            Case::with_user_token().with_user_claims(|u| u.client = Some("planner".into())),
            Denial::PresenterNotBound(BindingError::Unrelated),
        ),
        (
            "bound to a key",
            Case::with_user_token().with_user_claims(|u| u.is_key_bound = true),
            Denial::PresenterNotBound(BindingError::KeyBound),
        ),
        (
            "may_act names another, though the token was issued to this one",
            Case::with_user_token().with_user_claims(|u| u.may_act = by_reader(None, "reader-app")),
            Denial::PresenterNotBound(BindingError::MayActMismatch),
        ),
        (
            "may_act has our id in the issuer's namespace",
            Case::with_user_token().with_user_claims(|u| u.may_act = by_reader(Some(LOGIN), "planner")),
            Denial::PresenterNotBound(BindingError::MayActMismatch),
        ),
        (
            "may_act has the issuer's name in our namespace",
            Case::with_user_token().with_user_claims(|u| u.may_act = by_reader(Some(US), "planner-app")),
            Denial::PresenterNotBound(BindingError::MayActMismatch),
        ),
        (
            "may_act names it in a third namespace",
            Case::with_user_token().with_user_claims(|u| u.may_act = by_reader(Some(PARTNER), "planner-app")),
            Denial::PresenterNotBound(BindingError::MayActMismatch),
        ),
        (
            "the actor token is another's",
            Case::with_user_token().change(|c| c.actor_match = AgentMatch::OtherParty),
            Denial::PresenterNotBound(BindingError::ActorTokenMismatch),
        ),
        (
            "the actor token is another's, beside a token of ours",
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
        ("an admin shut the agent out", Case::with_user_token().with_block("agent", "planner"), Denial::PartyBlocked),
        ("an admin shut the issuer out", Case::with_user_token().with_block("issuer", LOGIN), Denial::PartyBlocked),
        (
            "an admin shut the resource out",
            Case::with_user_token().with_block("resource", "files"),
            Denial::TargetBlocked,
        ),
        (
            "an admin shut the requester out",
            Case::with_user_token().with_block("requester", "https://login.example.com alice"),
            Denial::RequesterBlocked,
        ),
        ("no scope", Case::with_user_token().with_user_claims(|u| u.scope = None), Denial::SubjectScopeMissing),
    ]
}

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
        ("who handed over goes on with it", Case::with_issued_token("planner", handed()), Denial::PresenterMismatch),
        (
            "a third agent takes what was handed over",
            Case::with_issued_token("writer", handed()),
            Denial::PresenterMismatch,
        ),
        (
            "a resource takes what was handed over",
            Case::with_issued_token("files", handed()).change(|c| c.requested_token = TokenRequest::Txn),
            Denial::PresenterMismatch,
        ),
        (
            "handed over to an agent of that name elsewhere",
            Case::with_handed_over_token()
                .with_own_claims(|own| own.may_act.as_mut().unwrap().iss = LOGIN.parse().unwrap()),
            Denial::PresenterMismatch,
        ),
        (
            "another workload replaces it",
            Case::with_txn_token().change(|c| c.presenter = "mail"),
            Denial::PresenterMismatch,
        ),
        (
            "the agent in it replaces it",
            Case::with_txn_token().change(|c| c.presenter = "planner"),
            Denial::PresenterMismatch,
        ),
        (
            "an agent of the chain is disabled",
            Case::with_handed_over_token().with_object("planner", disable),
            Denial::PartyBlocked,
        ),
        (
            "an admin shut an agent of the chain out",
            Case::with_handed_over_token().with_block("agent", "planner"),
            Denial::PartyBlocked,
        ),
        (
            "an admin shut the requester out",
            Case::with_access_token().with_block("requester", "https://login.example.com alice"),
            Denial::PartyBlocked,
        ),
        (
            "the requester's issuer is disabled",
            Case::with_access_token().with_object(LOGIN, disable),
            Denial::PartyBlocked,
        ),
        (
            "the requester's issuer is gone",
            Case::with_access_token().with_own_claims(|own| own.sub_iss = "https://gone.example.com".parse().unwrap()),
            Denial::PartyBlocked,
        ),
        (
            "an agent of the chain is gone",
            without(no_edges(Case::with_handed_over_token()), "planner"),
            Denial::PartyBlocked,
        ),
        (
            "an agent of the chain is a resource by now",
            Case::with_access_token().with_own_claims(|own| {
                own.act = ActorChain::new(vec![actor(US, "planner"), actor(US, "mail")]).unwrap();
            }),
            Denial::PartyBlocked,
        ),
        (
            "the resource that it came from is disabled",
            Case::with_txn_token().with_object("files", disable).change(|c| {
                c.presenter = "mail";
                let Subject::Own(own, _) = &mut c.subject else { panic!() };
                own.req_wl = Some("mail".parse().unwrap());
            }),
            Denial::PartyBlocked,
        ),
        (
            "derived too often",
            Case::with_access_token().with_own_claims(|own| own.lineage = (10..26).map(token_id).collect()),
            Denial::LineageTooLong,
        ),
        (
            "it ends now",
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
            "too deep for who it is handed over to",
            Case::with_access_token()
                .change(deep(1))
                .change(|c| c.requested_token = TokenRequest::HandOver("reader", "files")),
            Denial::Chain(ActorChainError::TooDeep),
        ),
        (
            "too deep by another issuer's word",
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
            "another issuer says that an agent of ours acted",
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
    let not_yours = || Denial::TaskNotJoinable(JoinError::UnknownTask);
    let ended = || Denial::TaskNotJoinable(JoinError::Ended);
    let unnamed =
        |purpose, deadline| Case::with_user_token().change(|c| c.task = TaskRequest::Unnamed { purpose, deadline });
    vec![
        (
            "another task than the token's",
            Case::with_access_token().change(|c| c.task = TaskRequest::Named(task_id(9), None)),
            Denial::TaskMismatch,
        ),
        (
            "no such task",
            Case::with_user_token().change(|c| c.task = TaskRequest::Named(task_id(7), None)),
            not_yours(),
        ),
        ("another user's task", join(|t| t.requester.subject = "carol".parse().unwrap()), not_yours()),
        (
            "the task of an equal name at another issuer",
            join(|t| t.requester.issuer = PARTNER.parse().unwrap()),
            not_yours(),
        ),
        ("another agent's task", join(|t| t.root_agent = "reader".parse().unwrap()), not_yours()),
        ("a revoked task", join(|t| t.state = TaskState::Revoked), ended()),
        ("a completed task", join(|t| t.state = TaskState::Completed), ended()),
        ("a suspended task", join(|t| t.state = TaskState::Suspended), Denial::TaskNotJoinable(JoinError::Suspended)),
        ("a task at its deadline", join(|t| t.deadline = NOW), ended()),
        ("no purpose", unnamed(None, None), Denial::PurposeRequired),
        ("a second over the limit", unnamed(Some("x"), Some(24 * 3600 + 1)), Denial::DeadlineTooLong),
        (
            "over the cap, whatever is configured",
            unnamed(Some("x"), Some(24 * 3600 + 1)).change(|c| c.tasks.max_lifetime = Lifetime::hours(48)),
            Denial::DeadlineTooLong,
        ),
        ("a task of no time", unnamed(Some("x"), Some(0)), Denial::AlreadyExpired),
        ("a token of no time", Case::with_user_token().change(|c| c.expires_in = Some(0)), Denial::AlreadyExpired),
        (
            "the user token ends now",
            Case::with_user_token().with_user_claims(|u| u.expires = NOW),
            Denial::AlreadyExpired,
        ),
    ]
}

/// Nothing of somebody else's task shows, whatever is asked for: the answer is that of a task that is not there.
#[test]
fn foreign_task_is_indistinguishable_from_unknown_task() {
    let little = || task(tools(&["read_file"]));
    let on_a_grant = || Task { grant: Some(grant_id(1)), ..little() };
    let other = |of: Task| Task { root_agent: "reader".parse().unwrap(), ..of };
    let carols = |of: Task| Task { requester: Requester { subject: "carol".parse().unwrap(), ..of.requester }, ..of };
    let theirs = [
        other(little()),
        carols(little()),
        other(on_a_grant()),
        carols(on_a_grant()),
        Task { state: TaskState::Suspended, ..other(little()) },
        Task { deadline: NOW, ..carols(little()) },
        Task { authority: Authority::default(), ..other(little()) },
    ];
    let details = |wanted: Authority| {
        move |c: &mut Case| {
            c.scope = None;
            c.details = Some(wanted);
        }
    };
    let unpointed = || Case::with_user_token().with_user_claims(|u| u.client = None);
    let demanding = || Case::with_user_token().with_object("files", |files| files["consent"] = json!("required"));
    let grants = || vec![grant(2, Some(tools(&["read_file", "list_files"])))];
    let asks = [
        ("no more than it allows", Case::with_user_token().change(details(tools(&["read_file"])))),
        ("more, by scope", Case::with_user_token()),
        ("more, by name", Case::with_user_token().change(details(tools(&["list_files"])))),
        ("more than anybody may", Case::with_user_token().change(|c| c.scope = Some("files:own"))),
        ("nothing", Case::with_user_token().change(|c| c.scope = None)),
        ("with a token that points nowhere", unpointed()),
        ("with a grant that points at it", unpointed().change(|c| c.grants = grants())),
        ("where consent is demanded", demanding()),
        ("where consent was given", demanding().change(|c| c.grants = grants())),
        ("a tool by another definition", Case::with_user_token().with_known_tool("read_file", Some("a"), Some("b"))),
        ("no time", Case::with_user_token().change(|c| c.expires_in = Some(0))),
    ];
    for (what, ask) in asks {
        let answer = |task: Option<&Task>| {
            let named = TaskRequest::Named(task_id(7), task.cloned().map(Box::new));
            ask.clone().change(|c| c.task = named).decide()
        };
        let none = answer(None);
        assert!(none.is_err(), "{what}: {none:?}");
        for task in &theirs {
            assert_eq!(answer(Some(task)), none, "{what}: {task:?}");
        }
    }
}

fn definition_rows() -> Vec<Row> {
    let read = || "read_file".parse().unwrap();
    let by_scope = |why| Denial::ScopeToolUnavailable(read(), why);
    let by_name = |why| Denial::DetailsToolUnavailable(read(), why);
    let asks = |case: Case| case.change(|c| (c.scope, c.details) = (None, Some(tools(&["read_file"]))));
    let asks_for = |text: &'static str| {
        move |c: &mut Case| {
            let plain = tools(&["read_file"]).iter().next().unwrap().clone();
            let digest = Some(definition("read_file", text).digest());
            (c.scope, c.details) = (None, Some([Permission { digest, ..plain }].into_iter().collect()));
        }
    };
    let mut rows = Vec::new();
    for (what, accepted, seen, why) in [
        ("a tool that changed", Some("a"), Some("b"), ToolUnavailable::Changed),
        ("a tool that is gone", Some("a"), None, ToolUnavailable::Gone),
        ("a tool that was never there", None, None, ToolUnavailable::Gone),
        ("a tool that nobody has looked at", None, Some("a"), ToolUnavailable::Proposed),
    ] {
        rows.push((what, Case::with_user_token().with_known_tool("read_file", accepted, seen), by_scope(why)));
        rows.push((what, asks(Case::with_user_token().with_known_tool("read_file", accepted, seen)), by_name(why)));
    }
    let good = || Case::with_user_token().with_known_tool("read_file", Some("a"), Some("a"));
    let held =
        || Case::with_issued_token("planner", good().issue_token(1)).with_known_tool("read_file", Some("b"), Some("b"));
    let join = || {
        let approved = good().decide().unwrap().authority;
        Case::with_user_token()
            .change(|c| c.task = TaskRequest::Named(task_id(7), Some(Box::new(task(approved)))))
            .with_known_tool("read_file", Some("b"), Some("b"))
    };
    rows.extend([
        ("another definition by name", good().change(asks_for("b")), by_name(ToolUnavailable::DigestMismatch)),
        // A scope can't name a definition; a parent token or a task can have been made for another one.
        ("what the parent was not made for", held(), by_scope(ToolUnavailable::DefinitionSuperseded)),
        ("what the parent was not made for, by name", asks(held()), by_name(ToolUnavailable::DefinitionSuperseded)),
        ("what the task was not made for", join(), by_scope(ToolUnavailable::DefinitionSuperseded)),
        (
            "what is not offered anyway",
            asks(Case::with_user_token().with_known_tool("own_file", None, Some("a")))
                .change(|c| c.details = Some(tools(&["own_file"]))),
            details_exceed("[0].identifier", CeilingOwner::Catalogue),
        ),
    ]);
    rows
}
