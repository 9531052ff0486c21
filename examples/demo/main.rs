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
mod cast;
mod guard;
mod idp;
mod key;
mod life;
mod mcp_server;
mod report;
mod steps;
mod story;
mod telling;

use std::{
    io::{self, IsTerminal, Write},
    process::ExitCode,
};

use cast::Cast;
use telling::{Fault, Form, Stopped, Teller};

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = std::env::args().skip(1).collect::<Vec<_>>();
    let form = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => Form::Words { colours: io::stdout().is_terminal() && errand::config::environment("NO_COLOR").is_none() },
        ["--json"] => Form::Json,
        _ => {
            complain("usage: demo [--json]");
            return ExitCode::from(2);
        }
    };
    match run(form).await {
        Ok(Ok(())) => ExitCode::SUCCESS,
        Ok(Err(Stopped)) => {
            complain("demo: not every step went as it should");
            ExitCode::FAILURE
        }
        Err(fault) => {
            complain(&format!("demo: {fault}"));
            ExitCode::FAILURE
        }
    }
}

async fn run(form: Form) -> Result<Result<(), Stopped>, Fault> {
    let cast = Cast::start().await?;
    let mut teller = Teller::new(io::stdout(), form);
    let ended = tokio::select! {
        ended = story::tell(&cast, &mut teller) => ended,
        // Interrupted, it tidies up all the same.
        _ = tokio::signal::ctrl_c() => Err(Stopped),
    };
    let ended = teller.end(ended);
    cast.stop().await?;
    Ok(ended)
}

fn complain(text: &str) {
    // Where nobody reads errors, the exit code says it.
    let _: io::Result<()> = writeln!(io::stderr(), "{text}");
}
