//! What the command line writes, and how it fails.

use std::{
    fmt,
    io::{self, Write},
};

/// Why a command failed, in the words for whoever typed it.
#[derive(Debug)]
pub(crate) struct CliError {
    text: String,
    is_pipe_closed: bool,
}

impl fmt::Display for CliError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl CliError {
    pub(crate) fn new(text: impl fmt::Display) -> Self {
        Self { text: text.to_string(), is_pipe_closed: false }
    }

    /// Whether nobody reads standard output any more.
    pub(super) fn is_broken_pipe(&self) -> bool {
        self.is_pipe_closed
    }

    /// Says what was being done when it failed.
    pub(crate) fn with_context<E: fmt::Display>(what: &'static str) -> impl FnOnce(E) -> Self {
        move |cause| Self::new(format!("{what}: {cause}"))
    }
}

impl<E: std::error::Error> From<E> for CliError {
    fn from(error: E) -> Self {
        let mut text = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            text = format!("{text}: {cause}");
            source = cause.source();
        }
        Self::new(text)
    }
}

/// Writes a line to standard output. A closed pipe ends the command, and is no failure.
pub(crate) fn print_line(line: impl fmt::Display) -> Result<(), CliError> {
    let fault = |e: io::Error| CliError { is_pipe_closed: e.kind() == io::ErrorKind::BrokenPipe, ..CliError::from(e) };
    writeln!(io::stdout().lock(), "{line}").map_err(fault)
}

/// Writes a line for whoever started a server by hand, beside its log. If nobody reads it, nobody misses it.
pub(super) fn eprint_line(line: impl fmt::Display) {
    let _: io::Result<()> = writeln!(io::stderr().lock(), "{line}");
}

/// Writes why a command failed to standard error. If that is closed, nobody is there to be told.
pub(super) fn print_error(fault: &CliError) {
    let _: io::Result<()> = writeln!(io::stderr().lock(), "errand: {fault}");
}
