//! One row a rule: a legal request with one thing wrong gets the reason that is about this thing.

mod authority;
mod consent;
mod edges;

use std::collections::BTreeSet;

use serde_json::json;

use super::*;
use crate::domain::{splice::NotThisAgent, task::CannotJoin, tool::NotGood};

/// A number for each reason. There is no wildcard: who adds a reason adds a number here and a row below.
fn number(denial: &Denial) -> usize {
    let holding = |holding: Holding| match holding {
        Holding::Catalogue => 0,
        Holding::Agent => 1,
        Holding::Requester => 2,
        Holding::Parent => 3,
        Holding::Task => 4,
        Holding::NextAgent => 5,
        Holding::Edge => 6,
    };
    let not_good = |why: &NotGood| match why {
        NotGood::Changed => 0,
        NotGood::Gone => 1,
        NotGood::Proposed => 2,
        NotGood::OtherBefore => 3,
        NotGood::OtherAsked => 4,
    };
    match denial {
        Denial::OnlyTxnForResource => 0,
        Denial::TargetShutOut => 1,
        Denial::TargetIsUs => 2,
        Denial::MayNotDelegate => 3,
        Denial::TxnOnlyReplaced => 4,
        Denial::ApiToken => 5,
        Denial::Splice(NotThisAgent::Unrelated) => 6,
        Denial::Splice(NotThisAgent::BoundToAKey) => 7,
        Denial::Splice(NotThisAgent::MayActNamesAnother) => 8,
        Denial::Splice(NotThisAgent::ActorIsAnother) => 9,
        Denial::NotThePresenter => 10,
        Denial::ShutOut => 11,
        Denial::Chain(InvalidChain::TooDeep) => 12,
        Denial::Chain(InvalidChain::Repeated) => 13,
        Denial::Chain(InvalidChain::NotTheirs) => 14,
        Denial::Chain(InvalidChain::Empty) => panic!("nothing is ever made of an empty chain"),
        Denial::LineageTooLong => 15,
        Denial::NothingAsked => 16,
        Denial::SubjectWithoutScope => 17,
        Denial::NothingForTarget => 18,
        Denial::OtherTask => 19,
        Denial::CannotJoin(CannotJoin::NotYours) => 20,
        Denial::CannotJoin(CannotJoin::Ended) => 21,
        Denial::CannotJoin(CannotJoin::Suspended) => 41,
        Denial::RequesterShutOut => 42,
        Denial::PurposeMissing => 22,
        Denial::DeadlineTooLong => 23,
        Denial::NoTimeLeft => 24,
        Denial::ScopeTooWide(excess) => 25 + holding(excess.holding),
        Denial::DetailsTooWide(excess) => 32 + holding(excess.holding),
        Denial::TooFar => 39,
        Denial::BrokerAlone => 40,
        Denial::ConsentNeeded => 52,
        Denial::ScopeNotGood(_, NotGood::OtherAsked) => panic!("a scope names no definition"),
        Denial::ScopeNotGood(_, why) => 43 + not_good(why),
        Denial::DetailsNotGood(_, why) => 47 + not_good(why),
    }
}
const REASONS: usize = 53;

type Row = (&'static str, Case, Denial);

/// What is left has tests of its own.
fn without_allowed(mut denial: Denial) -> Denial {
    if let Denial::ScopeTooWide(excess) | Denial::DetailsTooWide(excess) = &mut denial {
        excess.allowed = None;
    }
    denial
}

/// `place`: which of the scopes.
fn wide(place: &str, holding: Holding) -> Denial {
    Denial::ScopeTooWide(Excess { place: format!("scope{place}"), holding, allowed: None })
}

fn much(place: &str, holding: Holding) -> Denial {
    Denial::DetailsTooWide(Excess { place: format!("authorization_details{place}"), holding, allowed: None })
}

#[test]
fn each_rule_has_its_reason() {
    let rows = [
        about_targets(),
        about_user_tokens(),
        about_our_tokens(),
        about_chains(),
        authority::about_scopes_and_tools(),
        authority::about_arguments(),
        edges::about_edges(),
        about_tasks(),
        consent::about_consent(),
        about_definitions(),
    ];
    let mut seen = BTreeSet::new();
    for (what, case, want) in rows.into_iter().flatten() {
        assert_eq!(case.decide().map_err(without_allowed), Err(want.clone()), "{what}");
        let text = want.to_string();
        assert!(text.is_ascii() && !text.contains("alice") && !text.contains("planner"), "{text}");
        seen.insert(number(&want));
    }
    assert_eq!(seen, (0..REASONS).collect(), "every reason has a row");
    // Who is shut out is who has the name, the kind and the issuer.
    for (kind, id) in [
        ("requester", "https://login.example.com alic"),
        ("requester", "https://partner.example.com alice"),
        ("agent", "writer"),
        ("admin", "planner"),
        ("resource", "planner"),
        ("agent", "files"),
    ] {
        Case::user().without(kind, id).decide().unwrap();
    }
    for legal in [Case::user(), Case::held(), Case::handed(), Case::inside()] {
        legal.decide().unwrap();
    }
}

fn about_targets() -> Vec<Row> {
    let to_reader = |c: &mut Case| c.output = Out::HandOver("reader", "files");
    let disable = |o: &mut Value| o["disabled"] = true.into();
    vec![
        ("a resource wants an access token", Case::with("files", Case::user().token(1)), Denial::OnlyTxnForResource),
        (
            "a resource hands over",
            Case::with("files", Case::user().token(1)).change(to_reader),
            Denial::OnlyTxnForResource,
        ),
        ("the resource is disabled", Case::user().object("files", disable), Denial::TargetShutOut),
        (
            "the resource of a hand-over is disabled",
            Case::user().change(to_reader).object("files", disable),
            Denial::TargetShutOut,
        ),
        (
            "the agent to hand over to is disabled",
            Case::held().change(to_reader).object("reader", disable),
            Denial::TargetShutOut,
        ),
        ("a resource called like us", Case::user().object("files", |o| o["uri"] = US.into()), Denial::TargetIsUs),
        (
            "a resource called like us, by another spelling",
            Case::user().object("files", |o| o["uri"] = "https://STS.example.com:443/".into()),
            Denial::TargetIsUs,
        ),
        ("no edge", Case::held().change(|c| c.output = Out::HandOver("loner", "files")), Denial::MayNotDelegate),
        (
            "an edge that is gone when the token is redeemed",
            Case::handed().object("planner", |o| o["may_delegate_to"] = json!(["writer"])),
            Denial::MayNotDelegate,
        ),
        (
            "a transaction token comes out again",
            Case::inside().change(|c| {
                c.presenter = "planner";
                c.output = Out::Access("files");
            }),
            Denial::TxnOnlyReplaced,
        ),
        (
            "a transaction token is handed over",
            Case::inside().change(|c| (c.presenter, c.output) = ("planner", Out::HandOver("reader", "files"))),
            Denial::TxnOnlyReplaced,
        ),
        (
            "an API token as subject",
            Case::held().change(|c| {
                if let Subject::Own(_, kind) = &mut c.subject {
                    *kind = TokenKind::Api;
                }
            }),
            Denial::ApiToken,
        ),
    ]
}

fn about_user_tokens() -> Vec<Row> {
    let disable = |o: &mut Value| o["disabled"] = true.into();
    let by_reader = |iss: Option<&str>, sub: &str| Some(MayAct { iss: iss.map(str::to_owned), sub: sub.into() });
    vec![
        (
            "issued to another client: the confused deputy",
            Case::user().change(|c| c.presenter = "reader"),
            Denial::Splice(NotThisAgent::Unrelated),
        ),
        (
            "issued to a client that has this name at another issuer",
            Case::user().user_claims(|u| u.client = Some("planner-there".into())),
            Denial::Splice(NotThisAgent::Unrelated),
        ),
        (
            "issued to a client that is called like our agent, which the issuer knows by another name",
            Case::user().user_claims(|u| u.client = Some("planner".into())),
            Denial::Splice(NotThisAgent::Unrelated),
        ),
        ("bound to a key", Case::user().user_claims(|u| u.bound = true), Denial::Splice(NotThisAgent::BoundToAKey)),
        (
            "may_act names another, though the token was issued to this one",
            Case::user().user_claims(|u| u.may_act = by_reader(None, "reader-app")),
            Denial::Splice(NotThisAgent::MayActNamesAnother),
        ),
        (
            "may_act has our id in the issuer's namespace",
            Case::user().user_claims(|u| u.may_act = by_reader(Some(LOGIN), "planner")),
            Denial::Splice(NotThisAgent::MayActNamesAnother),
        ),
        (
            "may_act has the issuer's name in our namespace",
            Case::user().user_claims(|u| u.may_act = by_reader(Some(US), "planner-app")),
            Denial::Splice(NotThisAgent::MayActNamesAnother),
        ),
        (
            "may_act names it in a third namespace",
            Case::user().user_claims(|u| u.may_act = by_reader(Some(PARTNER), "planner-app")),
            Denial::Splice(NotThisAgent::MayActNamesAnother),
        ),
        (
            "the actor token is another's",
            Case::user().change(|c| c.actor = Says::SomebodyElse),
            Denial::Splice(NotThisAgent::ActorIsAnother),
        ),
        (
            "the actor token is another's, beside a token of ours",
            Case::held().change(|c| c.actor = Says::SomebodyElse),
            Denial::Splice(NotThisAgent::ActorIsAnother),
        ),
        (
            "a resource presents a user token",
            Case::user().change(|c| (c.presenter, c.output) = ("files", Out::Txn)),
            Denial::NotThePresenter,
        ),
        ("the agent is disabled", Case::user().object("planner", disable), Denial::ShutOut),
        ("the issuer is disabled", Case::user().object(LOGIN, disable), Denial::ShutOut),
        ("an admin shut the agent out", Case::user().without("agent", "planner"), Denial::ShutOut),
        ("an admin shut the issuer out", Case::user().without("issuer", LOGIN), Denial::ShutOut),
        ("an admin shut the resource out", Case::user().without("resource", "files"), Denial::TargetShutOut),
        (
            "an admin shut the requester out",
            Case::user().without("requester", "https://login.example.com alice"),
            Denial::RequesterShutOut,
        ),
        ("no scope", Case::user().user_claims(|u| u.scope = None), Denial::SubjectWithoutScope),
    ]
}

fn about_our_tokens() -> Vec<Row> {
    let disable = |o: &mut Value| o["disabled"] = true.into();
    let without = |case: Case, id: &'static str| case.change(|c| c.objects.retain(|o| o["body"]["id"] != id));
    let no_edges = |case: Case| {
        case.object("planner", |o| o["may_delegate_to"] = json!([]))
            .object("reader", |o| o["may_delegate_to"] = json!([]))
    };
    let handed = || Case::held().change(|c| c.output = Out::HandOver("reader", "files")).token(2);
    vec![
        ("another agent's token", Case::with("reader", Case::user().token(1)), Denial::NotThePresenter),
        (
            "a token for another resource",
            Case::with("mail", Case::user().token(1)).change(|c| c.output = Out::Txn),
            Denial::NotThePresenter,
        ),
        ("who handed over goes on with it", Case::with("planner", handed()), Denial::NotThePresenter),
        ("a third agent takes what was handed over", Case::with("writer", handed()), Denial::NotThePresenter),
        (
            "a resource takes what was handed over",
            Case::with("files", handed()).change(|c| c.output = Out::Txn),
            Denial::NotThePresenter,
        ),
        (
            "handed over to an agent of that name elsewhere",
            Case::handed().own(|own| own.may_act.as_mut().unwrap().iss = LOGIN.parse().unwrap()),
            Denial::NotThePresenter,
        ),
        ("another workload replaces it", Case::inside().change(|c| c.presenter = "mail"), Denial::NotThePresenter),
        ("the agent in it replaces it", Case::inside().change(|c| c.presenter = "planner"), Denial::NotThePresenter),
        ("an agent of the chain is disabled", Case::handed().object("planner", disable), Denial::ShutOut),
        ("an admin shut an agent of the chain out", Case::handed().without("agent", "planner"), Denial::ShutOut),
        (
            "an admin shut the requester out",
            Case::held().without("requester", "https://login.example.com alice"),
            Denial::ShutOut,
        ),
        ("the requester's issuer is disabled", Case::held().object(LOGIN, disable), Denial::ShutOut),
        (
            "the requester's issuer is gone",
            Case::held().own(|own| own.sub_iss = "https://gone.example.com".parse().unwrap()),
            Denial::ShutOut,
        ),
        ("an agent of the chain is gone", without(no_edges(Case::handed()), "planner"), Denial::ShutOut),
        (
            "an agent of the chain is a resource by now",
            Case::held().own(|own| {
                own.act = Chain::new(vec![hop(US, "planner"), hop(US, "mail")]).unwrap();
            }),
            Denial::ShutOut,
        ),
        (
            "the resource that it came from is disabled",
            Case::inside().object("files", disable).change(|c| {
                c.presenter = "mail";
                let Subject::Own(own, _) = &mut c.subject else { panic!() };
                own.req_wl = Some("mail".parse().unwrap());
            }),
            Denial::ShutOut,
        ),
        (
            "derived too often",
            Case::held().own(|own| own.lineage = (10..26).map(token_id).collect()),
            Denial::LineageTooLong,
        ),
        ("it ends now", Case::held().change(|c| c.now = NOW.after(Lifetime::minutes(5))), Denial::NoTimeLeft),
    ]
}

fn about_chains() -> Vec<Row> {
    let deep = |max| move |c: &mut Case| c.tokens.max_chain = max;
    vec![
        ("too deep", Case::handed().change(deep(1)), Denial::Chain(InvalidChain::TooDeep)),
        (
            "too deep for who it is handed over to",
            Case::held().change(deep(1)).change(|c| c.output = Out::HandOver("reader", "files")),
            Denial::Chain(InvalidChain::TooDeep),
        ),
        (
            "too deep by another issuer's word",
            Case::user().change(deep(1)).user_claims(|u| u.chain = Some(Chain::of(hop(LOGIN, "web")))),
            Denial::Chain(InvalidChain::TooDeep),
        ),
        (
            "handed back",
            Case::handed().change(|c| c.output = Out::HandOver("planner", "files")),
            Denial::Chain(InvalidChain::Repeated),
        ),
        (
            "another issuer says that an agent of ours acted",
            Case::user().user_claims(|u| {
                u.chain = Some(Chain::new(vec![hop(LOGIN, "web"), hop(US, "reader")]).unwrap());
            }),
            Denial::Chain(InvalidChain::NotTheirs),
        ),
    ]
}

fn about_tasks() -> Vec<Row> {
    let join = |change: fn(&mut Task)| {
        let mut task = task(tools(&["read_file", "list_files"]));
        change(&mut task);
        Case::user().change(|c| c.task = Wanted::Named(task_id(7), Some(Box::new(task))))
    };
    let not_yours = || Denial::CannotJoin(CannotJoin::NotYours);
    let ended = || Denial::CannotJoin(CannotJoin::Ended);
    let unnamed = |purpose, deadline| Case::user().change(|c| c.task = Wanted::Unnamed { purpose, deadline });
    vec![
        (
            "another task than the token's",
            Case::held().change(|c| c.task = Wanted::Named(task_id(9), None)),
            Denial::OtherTask,
        ),
        ("no such task", Case::user().change(|c| c.task = Wanted::Named(task_id(7), None)), not_yours()),
        ("another user's task", join(|t| t.requester.subject = "carol".parse().unwrap()), not_yours()),
        (
            "the task of an equal name at another issuer",
            join(|t| t.requester.issuer = PARTNER.parse().unwrap()),
            not_yours(),
        ),
        ("another agent's task", join(|t| t.root_agent = "reader".parse().unwrap()), not_yours()),
        ("a revoked task", join(|t| t.state = TaskState::Revoked), ended()),
        ("a completed task", join(|t| t.state = TaskState::Completed), ended()),
        ("a suspended task", join(|t| t.state = TaskState::Suspended), Denial::CannotJoin(CannotJoin::Suspended)),
        ("a task at its deadline", join(|t| t.deadline = NOW), ended()),
        ("no purpose", unnamed(None, None), Denial::PurposeMissing),
        ("a second over the limit", unnamed(Some("x"), Some(24 * 3600 + 1)), Denial::DeadlineTooLong),
        (
            "over the cap, whatever is configured",
            unnamed(Some("x"), Some(24 * 3600 + 1)).change(|c| c.tasks.max_lifetime = Lifetime::hours(48)),
            Denial::DeadlineTooLong,
        ),
        ("a task of no time", unnamed(Some("x"), Some(0)), Denial::NoTimeLeft),
        ("a token of no time", Case::user().change(|c| c.expires_in = Some(0)), Denial::NoTimeLeft),
        ("the user token ends now", Case::user().user_claims(|u| u.expires = NOW), Denial::NoTimeLeft),
    ]
}

/// Nothing of somebody else's task shows, whatever is asked for: the answer is that of a task that is not there.
#[test]
fn a_task_of_others_looks_like_none() {
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
    let unpointed = || Case::user().user_claims(|u| u.client = None);
    let demanding = || Case::user().object("files", |files| files["consent"] = json!("required"));
    let grants = || vec![grant(2, Some(tools(&["read_file", "list_files"])))];
    let asks = [
        ("no more than it allows", Case::user().change(details(tools(&["read_file"])))),
        ("more, by scope", Case::user()),
        ("more, by name", Case::user().change(details(tools(&["list_files"])))),
        ("more than anybody may", Case::user().change(|c| c.scope = Some("files:own"))),
        ("nothing", Case::user().change(|c| c.scope = None)),
        ("with a token that points nowhere", unpointed()),
        ("with a grant that points at it", unpointed().change(|c| c.grants = grants())),
        ("where consent is demanded", demanding()),
        ("where consent was given", demanding().change(|c| c.grants = grants())),
        ("a tool by another definition", Case::user().known("read_file", Some("a"), Some("b"))),
        ("no time", Case::user().change(|c| c.expires_in = Some(0))),
    ];
    for (what, ask) in asks {
        let answer = |task: Option<&Task>| {
            let named = Wanted::Named(task_id(7), task.cloned().map(Box::new));
            ask.clone().change(|c| c.task = named).decide()
        };
        let none = answer(None);
        assert!(none.is_err(), "{what}: {none:?}");
        for task in &theirs {
            assert_eq!(answer(Some(task)), none, "{what}: {task:?}");
        }
    }
}

fn about_definitions() -> Vec<Row> {
    let read = || "read_file".parse().unwrap();
    let by_scope = |why| Denial::ScopeNotGood(read(), why);
    let by_name = |why| Denial::DetailsNotGood(read(), why);
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
        ("a tool that changed", Some("a"), Some("b"), NotGood::Changed),
        ("a tool that is gone", Some("a"), None, NotGood::Gone),
        ("a tool that was never there", None, None, NotGood::Gone),
        ("a tool that nobody has looked at", None, Some("a"), NotGood::Proposed),
    ] {
        rows.push((what, Case::user().known("read_file", accepted, seen), by_scope(why)));
        rows.push((what, asks(Case::user().known("read_file", accepted, seen)), by_name(why)));
    }
    let good = || Case::user().known("read_file", Some("a"), Some("a"));
    let held = || Case::with("planner", good().token(1)).known("read_file", Some("b"), Some("b"));
    let join = || {
        let approved = good().decide().unwrap().authority;
        Case::user().change(|c| c.task = Wanted::Named(task_id(7), Some(Box::new(task(approved))))).known(
            "read_file",
            Some("b"),
            Some("b"),
        )
    };
    rows.extend([
        ("another definition by name", good().change(asks_for("b")), by_name(NotGood::OtherAsked)),
        // A scope can't name a definition; a parent token or a task can have been made for another one.
        ("what the parent was not made for", held(), by_scope(NotGood::OtherBefore)),
        ("what the parent was not made for, by name", asks(held()), by_name(NotGood::OtherBefore)),
        ("what the task was not made for", join(), by_scope(NotGood::OtherBefore)),
        (
            "what is not offered anyway",
            asks(Case::user().known("own_file", None, Some("a"))).change(|c| c.details = Some(tools(&["own_file"]))),
            much("[0].identifier", Holding::Catalogue),
        ),
    ]);
    rows
}
