//! The `errand` binary: parses the arguments and runs a command.

mod cli;

use std::process::ExitCode;

use mimalloc::MiMalloc;

/// A request makes about a hundred small allocations, and an exchange many more.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    cli::run(cli::Arguments::from_process())
}
