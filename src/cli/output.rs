//! Output of the commands, and their errors.

use std::{
    error::Error,
    fmt,
    io::{self, Write},
};

use errand::ports::ErrorChain;

/// Why a command failed, as text for the operator.
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

    /// Returns whether the reader of standard output closed it.
    pub(super) fn is_broken_pipe(&self) -> bool {
        self.is_pipe_closed
    }

    /// Prefixes an error with what failed.
    pub(crate) fn with_context<E: fmt::Display>(context: &'static str) -> impl FnOnce(E) -> Self {
        move |cause| Self::new(format!("{context}: {cause}"))
    }
}

impl<E: Error + 'static> From<E> for CliError {
    fn from(error: E) -> Self {
        Self::new(ErrorChain(&error))
    }
}

/// Writes a line to standard output. A closed pipe ends the command without an error.
pub(crate) fn print_line(line: impl fmt::Display) -> Result<(), CliError> {
    let error = |e: io::Error| CliError { is_pipe_closed: e.kind() == io::ErrorKind::BrokenPipe, ..CliError::from(e) };
    writeln!(io::stdout().lock(), "{line}").map_err(error)
}

/// Writes a line to standard error, next to the log of a server that was started by hand. Ignores
/// errors: a closed standard error has no reader.
pub(super) fn eprint_line(line: impl fmt::Display) {
    let _: io::Result<()> = writeln!(io::stderr().lock(), "{line}");
}

/// Writes an error to standard error. Ignores errors: the exit code reports the failure as well.
pub(super) fn print_error(error: &CliError) {
    let _: io::Result<()> = writeln!(io::stderr().lock(), "errand: {error}");
}
