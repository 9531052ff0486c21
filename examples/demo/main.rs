//! One errand from end to end, told step by step: `./dev demo`, or `cargo run --example demo`.
//!
//! ```text
//! main.rs        arguments and exit code
//! story.rs       what is done in which order, and why it matters
//! steps.rs       how it is done, and what should come of it
//! life.rs        the same, of the life of a task: pause, end, trail
//! telling.rs     how it is told, and that a step which goes otherwise ends it
//! cast.rs        who plays; errand.toml is Errand's configuration
//! idp.rs         the identity provider
//! agent.rs       the agents: OAuth to Errand, MCP to the server
//! mcp_server.rs  the MCP server, and
//! guard.rs       what protects it: to be copied
//! report.rs      and what tells Errand what its calls did
//! key.rs         a signing key
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
    let form = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => {
            OutputFormat::Text { colours: io::stdout().is_terminal() && errand::config::env_var("NO_COLOR").is_none() }
        }
        ["--json"] => OutputFormat::Json,
        _ => {
            print_error("usage: demo [--json]");
            return ExitCode::from(2);
        }
    };
    match run(form).await {
        Ok(Ok(())) => ExitCode::SUCCESS,
        Ok(Err(StepFailed)) => {
            print_error("demo: not every step went as it should");
            ExitCode::FAILURE
        }
        Err(fault) => {
            print_error(&format!("demo: {fault}"));
            ExitCode::FAILURE
        }
    }
}

async fn run(form: OutputFormat) -> Result<Result<(), StepFailed>, BoxError> {
    let cast = Fixtures::start().await?;
    let mut teller = Printer::new(io::stdout(), form);
    let ended = tokio::select! {
        ended = scenario::run_scenario(&cast, &mut teller) => ended,
        // Interrupted, it tidies up all the same.
        _ = tokio::signal::ctrl_c() => Err(StepFailed),
    };
    let ended = teller.finish(ended);
    cast.stop().await?;
    Ok(ended)
}

fn print_error(text: &str) {
    // Where nobody reads errors, the exit code says it.
    let _: io::Result<()> = writeln!(io::stderr(), "{text}");
}
