//! What the command line writes, and how it fails.

use std::{
    fmt,
    io::{self, Write},
};

/// Why a command failed, in the words for whoever typed it.
#[derive(Debug)]
pub(crate) struct CliFault(String);

impl fmt::Display for CliFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl CliFault {
    pub(crate) fn new(text: impl fmt::Display) -> Self {
        Self(text.to_string())
    }

    /// Says what was being done when it failed.
    pub(crate) fn during<E: fmt::Display>(what: &'static str) -> impl FnOnce(E) -> Self {
        move |cause| Self(format!("{what}: {cause}"))
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
        Self(text)
    }
}

/// Writes a line to standard output. A closed pipe ends the command as it should.
pub(crate) fn say(line: impl fmt::Display) -> Result<(), CliFault> {
    writeln!(io::stdout().lock(), "{line}").map_err(CliFault::from)
}

/// Writes why a command failed to standard error. If that is closed, nobody is there to be told.
pub(super) fn complain(fault: &CliFault) {
    let _: io::Result<()> = writeln!(io::stderr().lock(), "errand: {fault}");
}
