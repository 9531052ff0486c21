//! Output of the demo: prints each step and compares its results with the expected ones. The first
//! mismatch ends the demo.

use std::{
    error::Error,
    io::{self, Write},
};

use serde::Serialize;
use serde_json::{Map, Value, json};

/// Why a step could not be run.
pub(crate) type BoxError = Box<dyn Error + Send + Sync>;

/// A step failed, and the failure was printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StepFailed;

/// Output format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OutputFormat {
    /// Text for people, with colors on a terminal.
    Text { colors: bool },
    /// One JSON object per step and line, for programs.
    Json,
}

/// Observations and mismatches of a running step.
#[derive(Debug, Default)]
pub(crate) struct Step {
    observations: Map<String, Value>,
    mismatches: Vec<Mismatch>,
}

#[derive(Debug, PartialEq, Serialize)]
struct Mismatch {
    what: String,
    expected: Value,
    actual: Value,
}

impl Step {
    /// Records a value to print.
    pub(crate) fn show(&mut self, name: &str, value: impl Into<Value>) {
        self.observations.insert(name.to_owned(), value.into());
    }

    /// Compares a result with the expected one.
    pub(crate) fn expect(&mut self, what: &str, expected: impl Into<Value>, actual: impl Into<Value>) {
        let (expected, actual) = (expected.into(), actual.into());
        if expected != actual {
            self.mismatches.push(Mismatch { what: what.to_owned(), expected, actual });
        }
    }
}

/// Prints the steps and counts them.
pub(crate) struct Printer<W> {
    out: W,
    format: OutputFormat,
    steps_run: usize,
    steps_passed: usize,
}

impl<W: Write> Printer<W> {
    pub(crate) fn new(out: W, format: OutputFormat) -> Self {
        Self { out, format, steps_run: 0, steps_passed: 0 }
    }

    /// Prints a text between steps, in the text format only.
    pub(crate) fn print(&mut self, text: &str) -> Result<(), StepFailed> {
        match self.format {
            OutputFormat::Text { .. } => writeln!(self.out, "{text}").map_err(|_| StepFailed),
            OutputFormat::Json => Ok(()),
        }
    }

    /// Runs a step and prints its title, its observations and why it matters.
    pub(crate) async fn step<T>(
        &mut self,
        title: &str,
        why: &str,
        run: impl AsyncFnOnce(&mut Step) -> Result<T, BoxError>,
    ) -> Result<T, StepFailed> {
        let mut step = Step::default();
        let result =
            run(&mut step).await.inspect_err(|error| step.expect("the step runs", Value::Null, error_text(error)));
        self.steps_run += 1;
        let printed = match self.format {
            OutputFormat::Json => self.print_json(title, &step),
            OutputFormat::Text { colors } => self.print_text(title, why, &step, Style(colors)),
        };
        match (result, printed) {
            (Ok(value), Ok(())) if step.mismatches.is_empty() => {
                self.steps_passed += 1;
                Ok(value)
            }
            _ => Err(StepFailed),
        }
    }

    /// Prints how many steps succeeded.
    pub(crate) fn finish(mut self, result: Result<(), StepFailed>) -> Result<(), StepFailed> {
        let line = match result {
            Ok(()) => format!("All {} steps succeeded.", self.steps_passed),
            Err(StepFailed) => {
                format!(
                    "Step {} failed; the demo stopped. Steps that succeeded: {}.",
                    self.steps_run, self.steps_passed
                )
            }
        };
        self.print(&line)?;
        result
    }

    fn print_json(&mut self, title: &str, step: &Step) -> io::Result<()> {
        let mut detail = step.observations.clone();
        if !step.mismatches.is_empty() {
            detail.insert("mismatches".to_owned(), json!(step.mismatches));
        }
        writeln!(
            self.out,
            "{}",
            json!({"step": self.steps_run, "title": title, "ok": step.mismatches.is_empty(), "detail": detail})
        )?;
        self.out.flush()
    }

    fn print_text(&mut self, title: &str, why: &str, step: &Step, style: Style) -> io::Result<()> {
        let Self { out, steps_run, .. } = self;
        let mark = if step.mismatches.is_empty() { style.green("ok") } else { style.red("FAILED") };
        writeln!(out, "{steps_run:>2}. {}  {mark}", style.bold(title))?;
        for (name, value) in &step.observations {
            print_value(out, name, value)?;
        }
        for Mismatch { what, expected, actual } in &step.mismatches {
            writeln!(out, "      {}", style.red(what))?;
            writeln!(out, "        expected: {}\n        actual:   {}", shorten(expected), shorten(actual))?;
        }
        for line in wrap_lines(why) {
            writeln!(out, "      {}", style.dim(&line))?;
        }
        writeln!(out)?;
        out.flush()
    }
}

/// Returns an error with all its causes.
fn error_text(error: &BoxError) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

/// Prints a text on one line, and an object or array with one line per member that is not empty.
fn print_value(out: &mut impl Write, name: &str, value: &Value) -> io::Result<()> {
    let is_empty = |value: &Value| *value == json!([]) || *value == json!({});
    let texts: Vec<String> = match value {
        Value::Object(members) => {
            let members_with_content = members.iter().filter(|(_, value)| !is_empty(value));
            members_with_content
                .map(|(name, value)| format!("{name}: {}{}", shorten(value), summarize_members(name, members)))
                .collect()
        }
        Value::Array(items) => items.iter().map(shorten).collect(),
        other => vec![shorten(other)],
    };
    for (n, text) in texts.iter().enumerate() {
        writeln!(out, "      {:<17}{text}", if n == 0 { name } else { "" })?;
    }
    Ok(())
}

/// Adds the lifetime to `exp`, which is easier to read than a timestamp.
fn summarize_members(name: &str, members: &Map<String, Value>) -> String {
    let seconds = |name: &str| members.get(name).and_then(Value::as_i64);
    match (name, seconds("iat"), seconds("exp")) {
        ("exp", Some(iat), Some(exp)) => format!(" ({} s later)", exp - iat),
        _ => String::new(),
    }
}

/// Formats JSON on one line, with shortened ids and hashes.
fn shorten(value: &Value) -> String {
    match value {
        Value::String(text) => shorten_name(text),
        other => truncate(other).to_string(),
    }
}

fn truncate(value: &Value) -> Value {
    match value {
        Value::String(text) => Value::String(shorten_name(text)),
        Value::Array(items) => items.iter().map(truncate).collect(),
        Value::Object(members) => members.iter().map(|(name, value)| (name.clone(), truncate(value))).collect(),
        other => other.clone(),
    }
}

/// Shortens a UUID to its end, where two of the same moment differ, and a hash to its beginning.
fn shorten_name(text: &str) -> String {
    if uuid::Uuid::try_parse(text).is_ok() {
        return format!("…{}", text.chars().skip(24).collect::<String>());
    }
    match text.strip_prefix("sha-256:") {
        Some(hash) => format!("sha-256:{}…", hash.chars().take(8).collect::<String>()),
        None => text.to_owned(),
    }
}

/// Wraps a text between words.
fn wrap_lines(text: &str) -> Vec<String> {
    const WIDTH: usize = 100;
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.len() + 1 + word.len() <= WIDTH => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

/// Text styles, if colors are on.
#[derive(Clone, Copy)]
struct Style(bool);

impl Style {
    fn bold(self, text: &str) -> String {
        self.paint("1", text)
    }

    fn dim(self, text: &str) -> String {
        self.paint("2", text)
    }

    fn red(self, text: &str) -> String {
        self.paint("1;31", text)
    }

    fn green(self, text: &str) -> String {
        self.paint("32", text)
    }

    fn paint(self, code: &str, text: &str) -> String {
        if self.0 { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs a demo of two steps, the second of which may fail. Returns the output and the result.
    async fn run_demo(
        format: OutputFormat,
        second: impl AsyncFnOnce(&mut Step) -> Result<(), BoxError>,
    ) -> (String, bool) {
        let mut out = Vec::new();
        let mut printer = Printer::new(&mut out, format);
        let result = async {
            printer.print("Introduction").unwrap();
            let token = json!({"jti": "01a0b8b9-1a2b-7c3d-8e4f-0123456789ab", "aud": "files", "rctx": {}});
            let first = printer.step("First step", "The first reason.", async |step| {
                step.show("token", token);
                step.expect("the status", 401, 401);
                Ok(7)
            });
            assert_eq!(first.await, Ok(7));
            printer.step("Second step", "The second reason.", second).await
        };
        let result = result.await;
        let success = printer.finish(result).is_ok();
        (String::from_utf8(out).unwrap(), success)
    }

    #[tokio::test]
    async fn successful_demo_counts_its_steps() {
        let (output, success) = run_demo(OutputFormat::Text { colors: false }, async |_| Ok(())).await;
        assert!(success && output.starts_with("Introduction\n 1. First step  ok\n"), "{output}");
        assert!(
            output.contains("token            jti: …0123456789ab\n                       aud: files\n"),
            "{output}"
        );
        assert!(output.ends_with("All 2 steps succeeded.\n") && !output.contains('\x1b'), "{output}");
        let (output, _) = run_demo(OutputFormat::Text { colors: true }, async |_| Ok(())).await;
        assert!(output.contains("\x1b[32mok\x1b[0m"), "{output}");
    }

    #[tokio::test]
    async fn mismatch_ends_the_demo() {
        let mismatch = async |step: &mut Step| {
            step.expect("the status", 401, 200);
            Ok(())
        };
        let (output, success) = run_demo(OutputFormat::Text { colors: false }, mismatch).await;
        assert!(!success && output.contains(" 2. Second step  FAILED\n      the status\n"), "{output}");
        assert!(output.contains("        expected: 401\n        actual:   200\n"), "{output}");
        assert!(output.ends_with("Step 2 failed; the demo stopped. Steps that succeeded: 1.\n"), "{output}");
    }

    #[tokio::test]
    async fn json_output_has_one_line_per_step() {
        let mismatch = async |step: &mut Step| {
            step.show("status", 200);
            step.expect("the status", 401, 200);
            Ok(())
        };
        let (output, success) = run_demo(OutputFormat::Json, mismatch).await;
        assert!(!success);
        let steps: Vec<Value> = output.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(steps.len(), 2);
        assert_eq!(
            (&steps[0]["step"], &steps[0]["ok"], &steps[0]["detail"]["token"]["aud"]),
            (&json!(1), &json!(true), &json!("files"))
        );
        let mismatches = json!([{"what": "the status", "expected": 401, "actual": 200}]);
        let detail = json!({"status": 200, "mismatches": mismatches});
        assert_eq!(steps[1], json!({"step": 2, "title": "Second step", "ok": false, "detail": detail}));
    }

    #[tokio::test]
    async fn failed_step_shows_its_causes() {
        let error = || io::Error::other(io::Error::new(io::ErrorKind::TimedOut, "no answer"));
        let (output, success) =
            run_demo(OutputFormat::Text { colors: false }, async |_| Err(BoxError::from(error()))).await;
        assert!(!success && output.contains("the step runs\n") && output.contains("no answer"), "{output}");
    }
}
