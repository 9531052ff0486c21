//! A guided run of one task from start to end: `./dev demo`, or `cargo run --example demo`.
//!
//! ```text
//! main.rs            arguments and exit code
//! scenario.rs        the steps in their order, and why each matters
//! steps.rs           requests of the steps, and the expected results
//! task_lifecycle.rs  the same for suspension, completion, revocation and the trail
//! output.rs          output; the first mismatch ends the demo
//! fixtures.rs        the parties; errand.toml is Errand's configuration
//! idp.rs             the identity provider
//! agent.rs           the agents: OAuth to Errand, MCP to the server
//! mcp_server.rs      the MCP server
//! guard.rs           protects an MCP server; meant to be copied
//! report.rs          reports calls to Errand; meant to be copied
//! key.rs             a signing key
//! ```

mod agent;
mod fixtures;
mod guard;
mod idp;
mod key;
mod mcp_server;
mod output;
mod report;
mod scenario;
mod steps;
mod task_lifecycle;

use std::{
    io::{self, IsTerminal, Write},
    process::ExitCode,
};

use fixtures::Fixtures;
use output::{BoxError, OutputFormat, Printer, StepFailed};

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = std::env::args().skip(1).collect::<Vec<_>>();
    let format = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => {
            OutputFormat::Text { colors: io::stdout().is_terminal() && errand::config::env_var("NO_COLOR").is_none() }
        }
        ["--json"] => OutputFormat::Json,
        _ => {
            print_error("usage: demo [--json]");
            return ExitCode::from(2);
        }
    };
    match run(format).await {
        Ok(Ok(())) => ExitCode::SUCCESS,
        Ok(Err(StepFailed)) => {
            print_error("demo: a step failed");
            ExitCode::FAILURE
        }
        Err(error) => {
            print_error(&format!("demo: {error}"));
            ExitCode::FAILURE
        }
    }
}

async fn run(format: OutputFormat) -> Result<Result<(), StepFailed>, BoxError> {
    let fixtures = Fixtures::start().await?;
    let mut printer = Printer::new(io::stdout(), format);
    let result = tokio::select! {
        result = scenario::run_scenario(&fixtures, &mut printer) => result,
        // An interrupted demo cleans up as well.
        _ = tokio::signal::ctrl_c() => Err(StepFailed),
    };
    let result = printer.finish(result);
    fixtures.stop().await?;
    Ok(result)
}

fn print_error(text: &str) {
    // Ignores errors: the exit code reports the failure as well.
    let _: io::Result<()> = writeln!(io::stderr(), "{text}");
}
