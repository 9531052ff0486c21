//! The scenario: the steps in their order, and why each matters.

use std::io::Write;

use serde_json::json;

use crate::{
    agent::{AuthorizationServer, Session},
    fixtures::{FIGURES, FORECAST, Fixtures, SALARIES},
    output::{Printer, StepFailed},
    steps::{
        PURPOSE, TaskToken, accept_delegation, delegate, exchange, expect_excess_refused, expect_splicing_refused,
        expect_tool_refused, expect_unauthorized, find_errand, read_figures, sign_in,
    },
    task_lifecycle::{
        expect_both_sessions, expect_exchange_refused, expect_session_ended, revoke, show_audit, show_trail,
        transition_task,
    },
};

pub(crate) async fn run_scenario(fixtures: &Fixtures, printer: &mut Printer<impl Write>) -> Result<(), StepFailed> {
    printer.print(&opening_text(fixtures))?;
    let (errand, user_token) = sign_in_user(fixtures, printer).await?;
    let (planner_token, planner) = run_first_agent(fixtures, printer, &errand, &user_token).await?;
    let reader = run_second_agent(fixtures, printer, &errand, &planner_token).await?;
    let sessions = [planner, reader];
    suspend_and_resume(fixtures, printer, &errand, &planner_token.task, &sessions).await?;
    complete_task(fixtures, printer, &errand, &planner_token.task, &sessions).await?;
    let api = revoke_task(fixtures, printer, &errand, &user_token).await?;
    printer
        .step(
            "The auditor reads the trail of the first task: GET /v1/admin/tasks/{id}/trail",
            "Intent, permission, call and outcome in one place. The outcome of a call is reported by the MCP server.",
            async |step| show_trail(fixtures, step, &api, &planner_token.task).await,
        )
        .await
}

/// Signs alice in, and shows that her token alone gives no agent access.
async fn sign_in_user(
    fixtures: &Fixtures,
    printer: &mut Printer<impl Write>,
) -> Result<(AuthorizationServer, String), StepFailed> {
    let errand = printer
        .step(
            "The planner calls the MCP server without a token and discovers the authorization server",
            "The 401 refers to a document (RFC 9728) that names Errand, and Errand's metadata (RFC 8414) names its \
             endpoints. An agent must be configured with the servers to which it may send user tokens.",
            async |step| find_errand(fixtures, step).await,
        )
        .await?;
    let user_token = printer
        .step(
            "Alice signs in at her identity provider",
            "Without Errand, the planner would use this token: it represents Alice with everything that she may do, \
             deleting included.",
            async |step| sign_in(fixtures, step).await,
        )
        .await?;
    printer
        .step(
            "The MCP server refuses Alice's own token",
            "With that token, the record could not show whether Alice or an agent made the call.",
            async |step| expect_unauthorized(fixtures, step, &user_token).await,
        )
        .await?;
    printer
        .step(
            "The reader, another agent, tries to exchange Alice's token at Errand",
            "The token was issued to the planner's app. Possession of a token does not authorize another agent to use it.",
            async |step| expect_splicing_refused(fixtures, step, &errand, &user_token).await,
        )
        .await?;
    printer
        .step(
            "The planner requests more than its ceiling: delete_file",
            "Alice may delete, the planner may not. The ceilings of both limit every request.",
            async |step| expect_excess_refused(fixtures, step, &errand, &user_token).await,
        )
        .await?;
    Ok((errand, user_token))
}

/// Exchanges the user token and shows the limits of the task token.
async fn run_first_agent(
    fixtures: &Fixtures,
    printer: &mut Printer<impl Write>,
    errand: &AuthorizationServer,
    user_token: &str,
) -> Result<(TaskToken, Session), StepFailed> {
    let planner_token = printer
        .step(
            "The planner exchanges Alice's token for a task token: one task, one server, one tool, two files",
            "`sub` names the requester and `act` the agent, always both. `aud` is the only server that accepts the \
             token. `authorization_details` names the tool and constrains its arguments. `txn` is the task.",
            async |step| exchange(fixtures, step, errand, user_token, PURPOSE).await,
        )
        .await?;
    let planner = printer
        .step(
            "The planner calls read_file over MCP",
            "The MCP server introspects the token first (RFC 7662), as it does for every request.",
            async |step| read_figures(fixtures, step, &planner_token.token).await,
        )
        .await?;
    printer
        .step(
            "The planner calls the same tool for another file and is refused",
            "The token constrains the arguments too. It names two files, and this is neither of them.",
            async |step| expect_tool_refused(fixtures, step, &planner, "read_file", json!({"name": SALARIES})).await,
        )
        .await?;
    printer
        .step(
            "The planner calls the destructive tool and is refused",
            "The token is active but does not allow this tool. Whether a prompt or a bug caused the call, the file is safe.",
            async |step| expect_tool_refused(fixtures, step, &planner, "delete_file", json!({"name": FIGURES})).await,
        )
        .await?;
    Ok((planner_token, planner))
}

/// Delegates a part of the task to the reader.
async fn run_second_agent(
    fixtures: &Fixtures,
    printer: &mut Printer<impl Write>,
    errand: &AuthorizationServer,
    planner_token: &TaskToken,
) -> Result<Session, StepFailed> {
    let hand_over = printer
        .step(
            "The planner delegates to the reader: the same tool, one of the two files, for one minute",
            "The hand-over token gives no access by itself. Only the reader can use it (`may_act`), and only at Errand \
             (`aud`), so it is of no use to a thief.",
            async |step| delegate(fixtures, step, errand, planner_token).await,
        )
        .await?;
    let reader_token = printer
        .step(
            "The reader exchanges the hand-over token for its own task token",
            "`act` contains the whole chain: the reader acts, delegated by the planner, for Alice. The task is the same, \
             and this token expires no later than the planner's.",
            async |step| accept_delegation(fixtures, step, errand, planner_token, &hand_over).await,
        )
        .await?;
    let reader = printer
        .step(
            "The reader calls read_file over MCP",
            "Two agents now work for Alice, each with its own token.",
            async |step| read_figures(fixtures, step, &reader_token.token).await,
        )
        .await?;
    printer
        .step(
            "The reader calls it for the other file and is refused",
            "The planner may read the forecast, but it delegated only the figures. Authority can only shrink on \
             delegation.",
            async |step| expect_tool_refused(fixtures, step, &reader, "read_file", json!({"name": FORECAST})).await,
        )
        .await?;
    Ok(reader)
}

/// Suspends and resumes the task.
async fn suspend_and_resume(
    fixtures: &Fixtures,
    printer: &mut Printer<impl Write>,
    errand: &AuthorizationServer,
    task: &str,
    sessions: &[Session; 2],
) -> Result<(), StepFailed> {
    printer
        .step(
            "The planner has a question for Alice and suspends the task: POST /v1/tasks/{id}/suspend",
            "Alice's answer may take long, and no agent should act for her in the meantime.",
            async |step| transition_task(fixtures, step, errand, task, "suspend").await,
        )
        .await?;
    printer
        .step(
            "Both agents are refused during the suspension",
            "The reader does not need to be notified.",
            async |step| expect_both_sessions(step, sessions, "401").await,
        )
        .await?;
    printer
        .step(
            "Alice has answered, and the planner resumes the task",
            "A suspension is not a revocation: the tokens become active again.",
            async |step| transition_task(fixtures, step, errand, task, "resume").await,
        )
        .await?;
    printer
        .step("Both agents continue with their existing tokens", "No new exchange is needed.", async |step| {
            expect_both_sessions(step, sessions, "done").await
        })
        .await
}

/// Completes the task, which ends all its tokens.
async fn complete_task(
    fixtures: &Fixtures,
    printer: &mut Printer<impl Write>,
    errand: &AuthorizationServer,
    task: &str,
    sessions: &[Session; 2],
) -> Result<(), StepFailed> {
    printer
        .step(
            "The planner has its result and completes the task",
            "Its tokens would be valid for minutes, but no agent needs them any more.",
            async |step| transition_task(fixtures, step, errand, task, "complete").await,
        )
        .await?;
    printer
        .step(
            "The tokens of both agents are inactive",
            "The planner does not need to know which tokens its task has, or which agents hold them.",
            async |step| expect_both_sessions(step, sessions, "401").await,
        )
        .await
}

/// Opens a second task, which an admin revokes while both agents work.
async fn revoke_task(
    fixtures: &Fixtures,
    printer: &mut Printer<impl Write>,
    errand: &AuthorizationServer,
    user_token: &str,
) -> Result<String, StepFailed> {
    let (task, hand_over, [planner, reader]) = printer
        .step(
            "A second task: the planner gets a token, delegates to the reader, and both start to work",
            "A completed task cannot be reopened: new work is a new task, with its own authority.",
            async |step| {
                let planner_token = exchange(fixtures, step, errand, user_token, "Sum them up again").await?;
                let hand_over = delegate(fixtures, step, errand, &planner_token).await?;
                let reader_token = accept_delegation(fixtures, step, errand, &planner_token, &hand_over).await?;
                let sessions = [
                    read_figures(fixtures, step, &planner_token.token).await?,
                    read_figures(fixtures, step, &reader_token.token).await?,
                ];
                Ok((planner_token.task, hand_over, sessions))
            },
        )
        .await?;
    let api = printer
        .step(
            "The admin on call revokes it: POST /v1/admin/revocations",
            "One entry in one log. After this response, no replica of Errand answers \"active\" for a token of the task.",
            async |step| revoke(fixtures, step, errand, &task).await,
        )
        .await?;
    printer
        .step(
            "The planner's next call is refused",
            "Its token has a valid signature and has not expired, but it is revoked.",
            async |step| expect_session_ended(fixtures, step, &planner).await,
        )
        .await?;
    printer
        .step(
            "The reader's next call is refused",
            "The admin does not need to know about the reader: its token contains the task id.",
            async |step| expect_session_ended(fixtures, step, &reader).await,
        )
        .await?;
    printer
        .step(
            "The reader cannot get another token with the hand-over token",
            "A revoked task cannot be continued with any token that was derived from it.",
            async |step| expect_exchange_refused(fixtures, step, errand, &hand_over).await,
        )
        .await?;
    printer
        .step(
            "The auditor lists the audit records of this task: GET /v1/admin/audit?task=…",
            "Each record contains the hash of the previous one, so deleting or editing one is detected.",
            async |step| show_audit(fixtures, step, &api, &task).await,
        )
        .await?;
    Ok(api)
}

fn opening_text(fixtures: &Fixtures) -> String {
    let Fixtures { provider, errand, mcp, .. } = fixtures;
    format!(
        "One task from start to end. Alice asks the planner, an agent, to sum up some figures. The planner delegates
reading to another agent, the reader. Identity provider, Errand, MCP server and agents run in this process and
communicate over HTTP with OAuth and MCP.

      identity provider   {provider}
      Errand              {}
      MCP server          {mcp}   (read_file, write_file, delete_file)
",
        errand.url
    )
}
