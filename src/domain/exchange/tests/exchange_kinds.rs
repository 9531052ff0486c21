//! One row for each legal exchange, with the resulting plan.

use serde_json::json;

use super::*;

/// Summarizes a plan: kind, basis, client, audience, actors, requester, tools, scope, task,
/// lineage.
fn summarize(plan: &TokenPlan) -> String {
    let actors = plan.chain.actors().map(|hop| format!("{}@{}", hop.sub, hop.iss.trim_start_matches("https://")));
    let tools = plan.authority.iter().map(|p| p.tool().unwrap().to_string());
    let task = match &plan.task {
        PlannedTask::Open { purpose, authority, .. } => format!("opens \"{purpose}\" with {}", authority.len()),
        PlannedTask::Existing { id, context, .. } => format!("of {} \"{}\"", id.uuid().as_u128(), context.purpose),
    };
    format!(
        "{} by {}: {} at {}, {} for {}; {}; scope [{}]; {task}; from {:?}",
        plan.kind.as_str(),
        plan.basis.as_str(),
        plan.client,
        plan.audience,
        actors.collect::<Vec<_>>().join(" < "),
        plan.requester.subject,
        tools.collect::<Vec<_>>().join(" "),
        plan.scope,
        plan.lineage.iter().map(|id| id.uuid().as_u128()).collect::<Vec<_>>(),
    )
}

type Row = (&'static str, Case, String);

#[test]
fn each_legal_exchange_yields_specified_plan() {
    for (what, case, want) in user_token_exchanges().into_iter().chain(own_token_exchanges()) {
        let plan = case.decide().unwrap();
        assert_eq!(summarize(&plan), want, "{what}");
        assert_eq!(plan.auth_context, alice().auth_context, "{what}: the authentication context is unchanged");
        assert_eq!(plan.may_act.is_some(), plan.kind == TokenKind::HandOver, "{what}");
        assert_eq!(plan.req_wl.as_ref(), (plan.kind == TokenKind::Txn).then_some(&plan.client), "{what}");
        if let PlannedTask::Existing { authority_hash, .. } = &plan.task {
            assert!(authority_hash.starts_with("sha-256:"), "{what}");
        }
    }
}

fn user_token_exchanges() -> Vec<Row> {
    let unbound = || Case::with_user_token().with_user_claims(|u| u.client = Some("some-web-app".into()));
    let join = || {
        let task = task(tools(&["read_file", "list_files", "search"]));
        Case::with_user_token().change(|c| c.task = TaskRequest::Named(task_id(7), Some(Box::new(task))))
    };
    let bob = |groups| Case::with_user_token().change(|c| c.subject = Subject::User(Box::new(bob(&groups))));
    let planned = "planner at https://files.example.com/mcp, planner@sts.example.com for alice; list_files read_file; scope [files:read]; opens \"quarterly report\" with 2; from []";
    vec![
        ("issued to its client", Case::with_user_token(), format!("access by client: {planned}")),
        (
            "its aud names the agent",
            unbound().with_user_claims(|u| u.audiences = vec!["planner-web".into()]),
            format!("access by agent_audience: {planned}"),
        ),
        (
            "may_act names the agent by its client id",
            unbound().with_user_claims(|u| u.may_act = Some(MayAct { iss: None, sub: "planner-app".into() })),
            format!("access by may_act: {planned}"),
        ),
        (
            "may_act names the agent by its client id, with the issuer",
            unbound().with_user_claims(|u| u.may_act = Some(MayAct { iss: Some(LOGIN.into()), sub: "planner-app".into() })),
            format!("access by may_act: {planned}"),
        ),
        (
            "may_act names the agent by its id here",
            unbound().with_user_claims(|u| u.may_act = Some(MayAct { iss: Some(US.into()), sub: "planner".into() })),
            format!("access by may_act: {planned}"),
        ),
        ("a grant is recorded", unbound().change(|c| c.grants = vec![grant(1, None)]), format!("access by grant: {planned}")),
        (
            "bound to a key, with a recorded grant",
            Case::with_user_token().with_user_claims(|u| u.is_key_bound = true).change(|c| c.grants = vec![grant(1, None)]),
            format!("access by grant: {planned}"),
        ),
        (
            "the actor token names the agent",
            Case::with_user_token().change(|c| c.actor_match = AgentMatch::ThisAgent),
            format!("access by client: {planned}"),
        ),
        (
            "one tool of a scope by name: the scope is not covered",
            Case::with_user_token().change(|c| (c.scope, c.details) = (None, Some(tools(&["read_file"])))),
            "access by client: planner at https://files.example.com/mcp, planner@sts.example.com for alice; read_file; scope []; opens \"quarterly report\" with 1; from []".into(),
        ),
        (
            "details at another resource too: the task gets all, the token those at its resource",
            Case::with_user_token().change(|c| c.details = Some(tools(&["search", "send"]))),
            plan_with(4),
        ),
        (
            "joins its task for another resource",
            join().change(|c| (c.requested_token, c.scope) = (TokenRequest::Access("mail"), Some("mail:read"))),
            "access by client: planner at https://mail.example.com/mcp, planner@sts.example.com for alice; search; scope [mail:read]; of 7 \"quarterly report\"; from []".into(),
        ),
        (
            "a user of the other issuer, entitled by groups",
            bob(json!(["staff", "x"])),
            "access by client: planner at https://files.example.com/mcp, planner@sts.example.com for partner:bob; list_files read_file; scope [files:read]; opens \"quarterly report\" with 2; from []".into(),
        ),
        (
            "a user of the other issuer, entitled as everyone",
            bob(json!([])).change(|c| (c.requested_token, c.scope) = (TokenRequest::Access("mail"), Some("mail:read"))),
            "access by client: planner at https://mail.example.com/mcp, planner@sts.example.com for partner:bob; search; scope [mail:read]; opens \"quarterly report\" with 1; from []".into(),
        ),
        (
            "the issuer names earlier actors",
            Case::with_user_token().with_user_claims(|u| u.chain = Some(ActorChain::new(vec![actor(LOGIN, "web"), actor(PARTNER, "planner")]).unwrap())),
            "access by client: planner at https://files.example.com/mcp, planner@sts.example.com < web@login.example.com < planner@partner.example.com for alice; list_files read_file; scope [files:read]; opens \"quarterly report\" with 2; from []".into(),
        ),
    ]
}

fn own_token_exchanges() -> Vec<Row> {
    vec![
        (
            "the holder continues with less",
            Case::with_access_token().change(|c| (c.scope, c.details) = (None, Some(tools(&["list_files"])))),
            "access by holder: planner at https://files.example.com/mcp, planner@sts.example.com for alice; list_files; scope []; of 1 \"quarterly report\"; from [1]".into(),
        ),
        (
            "the holder continues and names the task",
            Case::with_access_token().change(|c| c.task = TaskRequest::Named(task_id(1), None)),
            "access by holder: planner at https://files.example.com/mcp, planner@sts.example.com for alice; list_files read_file; scope [files:read]; of 1 \"quarterly report\"; from [1]".into(),
        ),
        (
            "A hands over to B",
            Case::with_access_token().change(|c| c.requested_token = TokenRequest::HandOver("reader", "files")),
            "hand_over by holder: planner at https://sts.example.com, planner@sts.example.com for alice; list_files read_file; scope [files:read]; of 1 \"quarterly report\"; from [1]".into(),
        ),
        (
            "B uses the hand-over token",
            Case::with_handed_over_token(),
            "access by hand_over: reader at https://files.example.com/mcp, reader@sts.example.com < planner@sts.example.com for alice; list_files read_file; scope [files:read]; of 1 \"quarterly report\"; from [1, 2]".into(),
        ),
        (
            "B hands over to C at once, with less",
            Case::with_handed_over_token().change(|c| (c.requested_token, c.scope, c.details) = (TokenRequest::HandOver("writer", "files"), None, Some(tools(&["read_file"])))),
            "hand_over by hand_over: reader at https://sts.example.com, reader@sts.example.com < planner@sts.example.com for alice; read_file; scope []; of 1 \"quarterly report\"; from [1, 2]".into(),
        ),
        (
            "C uses the hand-over token",
            Case::with_issued_token("writer", Case::with_handed_over_token().change(|c| c.requested_token = TokenRequest::HandOver("writer", "files")).issue_token(3)),
            "access by hand_over: writer at https://files.example.com/mcp, writer@sts.example.com < reader@sts.example.com < planner@sts.example.com for alice; list_files read_file; scope [files:read]; of 1 \"quarterly report\"; from [1, 2, 3]".into(),
        ),
        (
            "a user token is handed over at once, which opens the task",
            Case::with_user_token().change(|c| c.requested_token = TokenRequest::HandOver("writer", "files")),
            "hand_over by client: planner at https://sts.example.com, planner@sts.example.com for alice; list_files read_file; scope [files:read]; opens \"quarterly report\" with 2; from []".into(),
        ),
        (
            "the resource continues with a transaction token",
            Case::with_issued_token("files", Case::with_user_token().issue_token(1)).change(|c| c.requested_token = TokenRequest::Txn),
            "txn by resource_audience: files at example.com, planner@sts.example.com for alice; list_files read_file; scope [files:read]; of 1 \"quarterly report\"; from [1]".into(),
        ),
        (
            "the transaction token is replaced",
            Case::with_txn_token().change(|c| (c.scope, c.details) = (None, Some(tools(&["read_file"])))),
            "txn by holder: files at example.com, planner@sts.example.com for alice; read_file; scope []; of 1 \"quarterly report\"; from [1, 2]".into(),
        ),
        (
            "an agent continues with a transaction token",
            Case::with_access_token().change(|c| c.requested_token = TokenRequest::Txn),
            "txn by holder: planner at example.com, planner@sts.example.com for alice; list_files read_file; scope [files:read]; of 1 \"quarterly report\"; from [1]".into(),
        ),
    ]
}

fn plan_with(permissions: usize) -> String {
    format!(
        "access by client: planner at https://files.example.com/mcp, planner@sts.example.com for alice; list_files read_file; scope [files:read]; opens \"quarterly report\" with {permissions}; from []"
    )
}

#[test]
fn resource_signing_algorithm_applies_only_to_its_own_tokens() {
    let mail = || {
        Case::with_user_token()
            .change(|c| (c.requested_token, c.scope) = (TokenRequest::Access("mail"), Some("mail:read")))
    };
    let to_writer =
        |c: &mut Case| (c.requested_token, c.scope) = (TokenRequest::HandOver("writer", "mail"), Some("mail:read"));
    let access = |o: &mut Value| o["access"] = json!([{"resource": "mail", "scopes": ["mail:read"]}]);
    for (case, want) in [
        (Case::with_user_token(), None),
        (mail(), Some(crate::domain::jose::jwk::SigningAlgorithm::RS256)),
        (mail().change(to_writer).with_object("writer", access), None),
        (
            Case::with_issued_token("mail", mail().issue_token(1))
                .change(|c| (c.requested_token, c.scope) = (TokenRequest::Txn, Some("mail:read"))),
            None,
        ),
    ] {
        assert_eq!(case.decide().unwrap().algorithm, want);
    }
}

/// A reader of a transaction token's scopes may be behind any resource.
#[test]
fn shared_scope_is_included_only_for_a_single_audience() {
    let shared = |o: &mut Value| o["tools"][0]["scope"] = "files:read".into();
    let mails = |o: &mut Value| o["access"][1] = json!({"resource": "mail", "tools": ["search", "send"]});
    let case = |case: Case| case.with_object("mail", shared).with_object("planner", mails);
    let first = case(Case::with_user_token()).decide().unwrap();
    assert_eq!((first.authority.len(), first.scope.to_string().as_str()), (2, "files:read"));
    let inside = case(Case::with_issued_token("files", Case::with_user_token().issue_token(1)))
        .change(|c| c.requested_token = TokenRequest::Txn)
        .decide()
        .unwrap();
    assert_eq!((inside.authority.clone(), inside.scope.to_string().as_str()), (first.authority.clone(), ""));
    let wide = case(Case::with_user_token()).change(|c| c.requested_token = TokenRequest::Txn).decide().unwrap();
    assert_eq!((wide.authority.len(), wide.scope.to_string().as_str()), (3, "files:read"));
    let off = case(Case::with_user_token()).with_object("mail", |o| o["disabled"] = true.into());
    let narrow = off.change(|c| c.requested_token = TokenRequest::Txn).decide().unwrap();
    assert_eq!((narrow.authority, narrow.scope.to_string().as_str()), (first.authority, ""));
}
