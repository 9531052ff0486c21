//! `[log]`: format and level of the log.

use serde::Deserialize;

use crate::config::node::Section;

/// `[log]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    /// Output format.
    pub format: LogFormat,
    /// Filter in the syntax of `tracing`: a level, then `target=level` for exceptions.
    pub level: String,
}

/// Output format of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// One JSON object per line, for machines.
    Json,
    /// Text, for a terminal.
    Pretty,
}

pub(in crate::config) fn read_log(root: &mut Section<'_>) -> Log {
    let mut section = root.section("log");
    let level = section.optional("level", |node| {
        let text = node.string()?;
        let invalid = text.split(',').find(|directive| !is_valid_directive(directive));
        if let Some(invalid) = invalid {
            let remedy = "write off, error, warn, info, debug or trace, optionally followed by `target=level`, such as `info,errand=debug`";
            node.error(format_args!("`{}` is not a log level", invalid.escape_debug()), remedy);
        }
        invalid.is_none().then(|| text.to_owned())
    });
    Log {
        format: section.optional("format", |node| node.parse_keyword()).unwrap_or(LogFormat::Json),
        level: level.unwrap_or_else(|| "info".to_owned()),
    }
}

/// Returns whether a directive has a known level. `tracing-subscriber` takes any word for a module
/// name and logs all of that module, so a misspelled level would pass unnoticed.
fn is_valid_directive(directive: &str) -> bool {
    let (target, level) = directive.trim().split_once('=').unwrap_or(("errand", directive.trim()));
    let is_target =
        !target.is_empty() && target.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b':' | b'-'));
    is_target && ["off", "error", "warn", "info", "debug", "trace"].contains(&level)
}
