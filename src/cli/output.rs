//! What the command line writes, and how it fails.

use std::{
    fmt,
    io::{self, Write},
};

/// Why a command failed, in the words for whoever typed it.
#[derive(Debug)]
pub(crate) struct CliFault {
    text: String,
    closed_pipe: bool,
}

impl fmt::Display for CliFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl CliFault {
    pub(crate) fn new(text: impl fmt::Display) -> Self {
        Self { text: text.to_string(), closed_pipe: false }
    }

    /// Whether nobody reads standard output any more.
    pub(super) fn is_closed_pipe(&self) -> bool {
        self.closed_pipe
    }

    /// Says what was being done when it failed.
    pub(crate) fn during<E: fmt::Display>(what: &'static str) -> impl FnOnce(E) -> Self {
        move |cause| Self::new(format!("{what}: {cause}"))
    }
}

impl<E: std::error::Error> From<E> for CliFault {
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
pub(crate) fn say(line: impl fmt::Display) -> Result<(), CliFault> {
    let fault = |e: io::Error| CliFault { closed_pipe: e.kind() == io::ErrorKind::BrokenPipe, ..CliFault::from(e) };
    writeln!(io::stdout().lock(), "{line}").map_err(fault)
}

/// Writes a line for whoever started a server by hand, beside its log. If nobody reads it, nobody misses it.
pub(super) fn tell(line: impl fmt::Display) {
    let _: io::Result<()> = writeln!(io::stderr().lock(), "{line}");
}

/// Writes why a command failed to standard error. If that is closed, nobody is there to be told.
pub(super) fn complain(fault: &CliFault) {
    let _: io::Result<()> = writeln!(io::stderr().lock(), "errand: {fault}");
}
