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
    let started = Registry::default().with(combine(filter, log, trace_layer)).try_init();
    started.map_err(CliError::with_context("can't start logging"))?;
    let set_level: SetLogLevel =
        Box::new(move |level: &str| handle.reload(parse_level(level)?).map_err(CliError::from));
    Ok((set_level, traces))
}

/// Combines the log with its filter, and with the export of traces.
fn combine(
    filter: reload::Layer<EnvFilter, Registry>,
    log: BoxedLayer,
    trace_layer: Option<BoxedLayer>,
) -> Vec<BoxedLayer> {
    match trace_layer {
        // A filter for all layers: after code that only asks whether an event is enabled, a filter
        // of one layer drops the next event of the same thread. The filter must enclose the log:
        // as two layers of a list, the log would receive what the filter rejects.
        None => vec![filter.and_then(log).boxed()],
        Some(trace_layer) => vec![log.with_filter(filter).boxed(), trace_layer],
    }
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
    use std::sync::{Arc, Mutex};

    use super::*;

    /// A log that tests read.
    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn log_has_the_events_of_its_level_with_and_without_traces() {
        for has_traces in [false, true] {
            let lines = Lines::default();
            let (filter, handle) = reload::Layer::new(parse_level("info").unwrap());
            let out = lines.clone();
            let log = tracing_subscriber::fmt::layer().with_ansi(false).with_writer(move || out.clone()).boxed();
            let spans = tracing_subscriber::filter::Targets::new().with_target("errand::trace", tracing::Level::TRACE);
            let traces = tracing_subscriber::fmt::layer().with_writer(io::sink).with_filter(spans).boxed();
            let layers = combine(filter, log, has_traces.then_some(traces));
            let take = || String::from_utf8(std::mem::take(&mut *lines.0.lock().unwrap())).unwrap();
            tracing::subscriber::with_default(Registry::default().with(layers), || {
                let write = || {
                    tracing::error!("one");
                    tracing::info!("two");
                    tracing::debug!("three");
                    tracing::trace!(target: "h2::codec", "four");
                };
                write();
                let text = take();
                assert_eq!(text.lines().count(), 2, "{has_traces} {text}");
                assert!(text.contains("one") && text.contains("two"), "{has_traces} {text}");
                handle.reload(parse_level("debug").unwrap()).unwrap();
                write();
                assert_eq!(take().lines().count(), 3, "{has_traces}: a reload changes the level");
                handle.reload(parse_level("error").unwrap()).unwrap();
                write();
                assert_eq!(take().lines().count(), 1, "{has_traces}");
            });
        }
    }

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
