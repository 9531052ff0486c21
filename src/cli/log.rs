//! The log of the server, on standard error. Invisible characters are escaped.

use std::{
    borrow::Cow,
    io::{self, IsTerminal, Stderr, Write},
};

use errand::{
    config::{Config, LogFormat},
    domain::printable::escape_invisible,
};
use tracing_subscriber::{
    EnvFilter, Layer, Registry, fmt::MakeWriter, layer::SubscriberExt, reload, util::SubscriberInitExt,
};

use super::{
    CliError,
    telemetry::{BoxedLayer, Traces, start_traces},
};

/// Sets the level of the log.
pub(super) type SetLogLevel = Box<dyn Fn(&str) -> Result<(), CliError> + Send + Sync>;

/// Starts logging and, if it is configured, the export of traces. Returns a function that changes
/// the level of the log. Must be called inside the runtime.
pub(super) fn init(config: &Config) -> Result<(SetLogLevel, Traces), CliError> {
    let (filter, handle) = reload::Layer::new(parse_level(&config.log.level)?);
    let has_colors = io::stderr().is_terminal();
    let writer = EscapingWriter { out: io::stderr, has_colors };
    let log = tracing_subscriber::fmt::layer().with_ansi(has_colors).with_writer(writer);
    let log: BoxedLayer = match config.log.format {
        // A request has one span, so a list of spans would only repeat it.
        LogFormat::Json => log.json().flatten_event(true).with_span_list(false).boxed(),
        LogFormat::Pretty => log.boxed(),
    };
    let (traces, trace_layer) = start_traces(config)?;
    let layers: Vec<BoxedLayer> = match trace_layer {
        // A filter for all layers: after code that only asks whether an event is enabled, a filter
        // of one layer drops the next event of the same thread.
        None => vec![filter.boxed(), log],
        Some(trace_layer) => vec![log.with_filter(filter).boxed(), trace_layer],
    };
    let started = Registry::default().with(layers).try_init();
    started.map_err(CliError::with_context("can't start logging"))?;
    let set_level: SetLogLevel =
        Box::new(move |level: &str| handle.reload(parse_level(level)?).map_err(CliError::from));
    Ok((set_level, traces))
}

fn parse_level(level: &str) -> Result<EnvFilter, CliError> {
    EnvFilter::try_new(level).map_err(CliError::with_context("[log] level"))
}

/// Writes each event as one line without invisible characters.
struct EscapingWriter<F> {
    out: F,
    /// Whether events contain escape sequences of the formatter for colors. It removes those of
    /// others from fields and messages.
    has_colors: bool,
}

impl<'a, F: Fn() -> Stderr> MakeWriter<'a> for EscapingWriter<F> {
    type Writer = EscapedLine<Stderr>;

    fn make_writer(&'a self) -> Self::Writer {
        EscapedLine { out: (self.out)(), has_colors: self.has_colors }
    }
}

struct EscapedLine<W> {
    out: W,
    has_colors: bool,
}

impl<W: Write> Write for EscapedLine<W> {
    /// The formatter passes a whole event with its line feed.
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(event);
        let (line, end) = text.strip_suffix('\n').map_or((&*text, ""), |line| (line, "\n"));
        let escaped = if self.has_colors { escape_between_colors(line) } else { escape_invisible(line) };
        self.out.write_all(format!("{escaped}{end}").as_bytes())?;
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

fn escape_between_colors(line: &str) -> Cow<'_, str> {
    let parts = line.split('\u{1b}').map(escape_invisible).collect::<Vec<_>>();
    parts.join("\u{1b}").into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn event_is_one_line_without_invisible_characters() {
        let hostile = "INFO a\nERROR forged subject=\u{202e}x\u{200b}\u{9b}2J\r";
        for (has_colors, event, want) in [
            (false, format!("{hostile}\n"), "INFO a\\u000aERROR forged subject=\\u202ex\\u200b\\u009b2J\\u000d\n"),
            (false, "\u{1b}[2J\n".into(), "\\u001b[2J\n"),
            (true, "\u{1b}[32m INFO\u{1b}[0m a\u{2066}\n".into(), "\u{1b}[32m INFO\u{1b}[0m a\\u2066\n"),
            (false, "plain zo\u{eb}\n".into(), "plain zo\u{eb}\n"),
        ] {
            let mut line = EscapedLine { out: Vec::new(), has_colors };
            assert_eq!(line.write(event.as_bytes()).unwrap(), event.len());
            assert_eq!(String::from_utf8(line.out).unwrap(), want);
        }
    }
}
