//! Output of the commands, and their errors. Whatever a command prints goes through this module,
//! which escapes invisible characters.

use std::{
    error::Error,
    fmt,
    io::{self, Write},
};

use errand::{domain::printable::escape_lines, ports::ErrorChain};

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
    write_line(io::stdout().lock(), line).map_err(error)
}

/// Writes a line to standard error, next to the log of a server that was started by hand. Ignores
/// errors: a closed standard error has no reader.
pub(super) fn eprint_line(line: impl fmt::Display) {
    let _: io::Result<()> = write_line(io::stderr().lock(), line);
}

/// Writes an error to standard error. Ignores errors: the exit code reports the failure as well.
pub(super) fn print_error(error: &CliError) {
    let _: io::Result<()> = write_line(io::stderr().lock(), format_args!("errand: {error}"));
}

/// Writes a line, which may contain line feeds of its own. Other parties wrote parts of it, so
/// invisible characters are escaped.
fn write_line(mut out: impl Write, line: impl fmt::Display) -> io::Result<()> {
    writeln!(out, "{}", escape_lines(&line.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn invisible_characters_are_escaped() {
        let mut out = Vec::new();
        write_line(&mut out, format_args!("task \"{}\"\n{}", "a\u{202e}b\u{200b}", CliError::new("\u{1b}[2J")))
            .unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), "task \"a\\u202eb\\u200b\"\n\\u001b[2J\n");
    }
}
