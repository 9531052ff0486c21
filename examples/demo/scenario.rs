//! The story: what is done in which order, and why it matters.

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

pub(crate) async fn run_scenario(cast: &Fixtures, teller: &mut Printer<impl Write>) -> Result<(), StepFailed> {
    teller.print(&opening_text(cast))?;
    let (errand, alices) = sign_in_user(cast, teller).await?;
    let (planners, planner) = run_first_agent(cast, teller, &errand, &alices).await?;
    let reader = run_second_agent(cast, teller, &errand, &planners).await?;
    let sessions = [planner, reader];
    suspend_and_resume(cast, teller, &errand, &planners.task, &sessions).await?;
    complete_task(cast, teller, &errand, &planners.task, &sessions).await?;
    let api = revoke_task(cast, teller, &errand, &alices).await?;
    teller
        .step(
            "And the first errand, read as a story: GET /v1/admin/tasks/{id}/trail",
            "Intent, privilege, call and outcome in one place. What the calls did is the MCP server's word.",
            async |step| show_trail(cast, step, &api, &planners.task).await,
        )
        .await
}

// ---- the story -----------------------------------------------------------------------------------------------------

/// Errand, and what a user token is good for without it: nothing.
async fn sign_in_user(
    cast: &Fixtures,
    teller: &mut Printer<impl Write>,
) -> Result<(AuthorizationServer, String), StepFailed> {
    let errand = teller
        .step(
            "The planner comes to the MCP server without a token, and is told where to get one",
            "The 401 names a document (RFC 9728), the document names Errand, and Errand's metadata (RFC 8414) names its \
             endpoints. Whether it trusts that Errand with a user's token, an agent has to know by itself.",
            async |step| find_errand(cast, step).await,
        )
        .await?;
    let alices = teller
        .step(
            "Alice signs in at her identity provider",
            "This is how it is done today, up to here: the planner's app holds a token that stands for Alice, and for all \
             that she may do, deleting included.",
            async |step| sign_in(cast, step).await,
        )
        .await?;
    teller
        .step(
            "The MCP server does not take Alice's own token",
            "If it did, nobody could say afterwards whether it was Alice or an agent that came.",
            async |step| expect_unauthorized(cast, step, &alices).await,
        )
        .await?;
    teller
        .step(
            "The reader, another agent, tries to use Alice's token at Errand",
            "The token was made for the planner's app. To hold somebody's token is not to act for somebody.",
            async |step| expect_splicing_refused(cast, step, &errand, &alices).await,
        )
        .await?;
    teller
        .step(
            "The planner asks for more than it may ever have: delete_file",
            "Alice may delete, the planner may not. What is asked is held to the ceilings of both.",
            async |step| expect_excess_refused(cast, step, &errand, &alices).await,
        )
        .await?;
    Ok((errand, alices))
}

/// What the planner gets, and what it doesn't.
async fn run_first_agent(
    cast: &Fixtures,
    teller: &mut Printer<impl Write>,
    errand: &AuthorizationServer,
    alices: &str,
) -> Result<(TaskToken, Session), StepFailed> {
    let planners = teller
        .step(
            "The planner exchanges Alice's token for a task token: one task, one server, one tool, two files",
            "`sub` is who it is done for, `act` who does it: always both. `aud` is the one place where the token is good, \
             `authorization_details` the one tool and what its arguments may be, `txn` the task that it belongs to.",
            async |step| exchange(cast, step, errand, alices, PURPOSE).await,
        )
        .await?;
    let planner = teller
        .step(
            "The planner calls read_file over MCP",
            "The MCP server asked Errand about the token first (RFC 7662), as it does for every request.",
            async |step| read_figures(cast, step, &planners.token).await,
        )
        .await?;
    teller
        .step(
            "The planner calls the same tool for another file, and is refused",
            "Not only which tool: which arguments. The token names two files, and this is neither.",
            async |step| expect_tool_refused(cast, step, &planner, "read_file", json!({"name": SALARIES})).await,
        )
        .await?;
    teller
        .step(
            "The planner tries the destructive tool, and is refused",
            "The token is good, but not for this. Whatever talked the agent into it, a prompt or a bug, the file is there.",
            async |step| expect_tool_refused(cast, step, &planner, "delete_file", json!({"name": FIGURES})).await,
        )
        .await?;
    Ok((planners, planner))
}

/// The planner has the reader do a part.
async fn run_second_agent(
    cast: &Fixtures,
    teller: &mut Printer<impl Write>,
    errand: &AuthorizationServer,
    planners: &TaskToken,
) -> Result<Session, StepFailed> {
    let handed = teller
        .step(
            "The planner hands a part to the reader: the same tool, one of the two files, for one minute",
            "What it gets for the reader is no key to anything: only the reader can use it (`may_act`), only at Errand \
             (`aud`). Stolen on the way, it opens no door.",
            async |step| delegate(cast, step, errand, planners).await,
        )
        .await?;
    let readers = teller
        .step(
            "The reader exchanges what it was handed for a token of its own",
            "`act` now tells the whole way: the reader acts, sent by the planner, for Alice. It is still the same task, and \
             this token ends no later than the one that it comes from.",
            async |step| accept_delegation(cast, step, errand, planners, &handed).await,
        )
        .await?;
    let reader = teller
        .step(
            "The reader calls read_file over MCP",
            "Two agents are at work in Alice's name now, each with a token of its own.",
            async |step| read_figures(cast, step, &readers.token).await,
        )
        .await?;
    teller
        .step(
            "The reader calls it for the other file, and is refused",
            "The planner may read the forecast; the reader was sent for the figures. Authority only shrinks on its way from \
             hand to hand.",
            async |step| expect_tool_refused(cast, step, &reader, "read_file", json!({"name": FORECAST})).await,
        )
        .await?;
    Ok(reader)
}

/// The task is held, and taken up again.
async fn suspend_and_resume(
    cast: &Fixtures,
    teller: &mut Printer<impl Write>,
    errand: &AuthorizationServer,
    task: &str,
    sessions: &[Session; 2],
) -> Result<(), StepFailed> {
    teller
        .step(
            "The planner has a question for Alice, and suspends the task: POST /v1/tasks/{id}/suspend",
            "Nobody knows how long Alice will be away, and nothing should be done in her name meanwhile.",
            async |step| transition_task(cast, step, errand, task, "suspend").await,
        )
        .await?;
    teller
        .step("Both agents are refused while it is held", "Also the reader, who knows nothing of it.", async |step| {
            expect_both_sessions(step, sessions, "401").await
        })
        .await?;
    teller
        .step(
            "Alice has answered, and the planner resumes the task",
            "A pause is no end: what was held back was not taken back.",
            async |step| transition_task(cast, step, errand, task, "resume").await,
        )
        .await?;
    teller
        .step(
            "Both agents go on, with the very tokens that they had",
            "Nobody had to exchange anything again.",
            async |step| expect_both_sessions(step, sessions, "done").await,
        )
        .await
}

/// The task is done, and everything that came of it ends with it.
async fn complete_task(
    cast: &Fixtures,
    teller: &mut Printer<impl Write>,
    errand: &AuthorizationServer,
    task: &str,
    sessions: &[Session; 2],
) -> Result<(), StepFailed> {
    teller
        .step(
            "The planner has what it came for, and completes the task",
            "Its tokens have minutes to live. Nobody needs them any more, so nobody should have them any more.",
            async |step| transition_task(cast, step, errand, task, "complete").await,
        )
        .await?;
    teller
        .step(
            "Both agents' tokens have ended with it",
            "The planner did not have to know which tokens had come of its task, or who had them.",
            async |step| expect_both_sessions(step, sessions, "401").await,
        )
        .await
}

/// A second task is taken back by somebody else, in the middle of the work.
async fn revoke_task(
    cast: &Fixtures,
    teller: &mut Printer<impl Write>,
    errand: &AuthorizationServer,
    alices: &str,
) -> Result<String, StepFailed> {
    let (task, handed, [planner, reader]) = teller
        .step(
            "A second errand: the planner gets a token for a new task, hands a part to the reader, and both begin",
            "The first task is over for good: a new piece of work is a new task, with an authority of its own.",
            async |step| {
                let planners = exchange(cast, step, errand, alices, "Sum them up again").await?;
                let handed = delegate(cast, step, errand, &planners).await?;
                let readers = accept_delegation(cast, step, errand, &planners, &handed).await?;
                let sessions =
                    [read_figures(cast, step, &planners.token).await?, read_figures(cast, step, &readers.token).await?];
                Ok((planners.task, handed, sessions))
            },
        )
        .await?;
    let api = teller
        .step(
            "The admin on call ends it: POST /v1/admin/revocations",
            "One entry in one log. From this answer on, no replica of Errand says \"active\" about any token of the task.",
            async |step| revoke(cast, step, errand, &task).await,
        )
        .await?;
    teller
        .step(
            "The planner's next call is refused",
            "Its token has minutes to live and a signature that is good. It is dead all the same.",
            async |step| expect_session_ended(cast, step, &planner).await,
        )
        .await?;
    teller
        .step(
            "The reader's next call is refused",
            "Nobody had to know that there was a reader: its token carries the task's name.",
            async |step| expect_session_ended(cast, step, &reader).await,
        )
        .await?;
    teller
        .step(
            "The reader can't get another token from what it was handed",
            "What was ended can't be begun again from anything that came of it.",
            async |step| expect_exchange_refused(cast, step, errand, &handed).await,
        )
        .await?;
    teller
        .step(
            "An auditor asks what happened in this task: GET /v1/admin/audit?task=…",
            "Each record holds the hash of the one before it, so a deleted or edited one shows.",
            async |step| show_audit(cast, step, &api, &task).await,
        )
        .await?;
    Ok(api)
}

fn opening_text(cast: &Fixtures) -> String {
    let Fixtures { provider, errand, mcp, .. } = cast;
    format!(
        "One errand, from end to end. Alice asks the planner, an agent, to sum up some figures; the planner has the reader,
another agent, look at them. Identity provider, Errand, MCP server and agents are all in this process, and talk
HTTP, OAuth and MCP to each other.

      identity provider   {provider}
      Errand              {}
      MCP server          {mcp}   (read_file, write_file, delete_file)
",
        errand.url
    )
}
