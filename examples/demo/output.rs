//! Tells a story step by step, and holds each step to what it should be. A step that isn't ends the story.

use std::{
    error::Error,
    io::{self, Write},
};

use serde::Serialize;
use serde_json::{Map, Value, json};

/// Why a step could not be taken at all.
pub(crate) type BoxError = Box<dyn Error + Send + Sync>;

/// A step did not go as it should, and that has been told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StepFailed;

/// Whom it is told to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OutputFormat {
    /// A human, who may have a terminal with colours.
    Text { colours: bool },
    /// A program: a JSON object a line.
    Json,
}

/// One step while it is taken: what is seen, and what isn't as it should be.
#[derive(Debug, Default)]
pub(crate) struct Step {
    seen: Map<String, Value>,
    mismatches: Vec<Mismatch>,
}

#[derive(Debug, PartialEq, Serialize)]
struct Mismatch {
    what: String,
    expected: Value,
    actual: Value,
}

impl Step {
    /// Shows something that was seen.
    pub(crate) fn show(&mut self, name: &str, value: impl Into<Value>) {
        self.seen.insert(name.to_owned(), value.into());
    }

    /// Holds what came to what should have come.
    pub(crate) fn expect(&mut self, what: &str, expected: impl Into<Value>, came: impl Into<Value>) {
        let (expected, came) = (expected.into(), came.into());
        if expected != came {
            self.mismatches.push(Mismatch { what: what.to_owned(), expected, actual: came });
        }
    }
}

/// Who tells.
pub(crate) struct Printer<W> {
    out: W,
    form: OutputFormat,
    steps_run: usize,
    steps_passed: usize,
}

impl<W: Write> Printer<W> {
    pub(crate) fn new(out: W, form: OutputFormat) -> Self {
        Self { out, form, steps_run: 0, steps_passed: 0 }
    }

    /// Says something that is no step.
    pub(crate) fn print(&mut self, text: &str) -> Result<(), StepFailed> {
        match self.form {
            OutputFormat::Text { .. } => writeln!(self.out, "{text}").map_err(|_| StepFailed),
            OutputFormat::Json => Ok(()),
        }
    }

    /// Takes one step and tells it: what it is, what was seen, and why it matters.
    pub(crate) async fn step<T>(
        &mut self,
        title: &str,
        why: &str,
        act: impl AsyncFnOnce(&mut Step) -> Result<T, BoxError>,
    ) -> Result<T, StepFailed> {
        let mut step = Step::default();
        let done = act(&mut step)
            .await
            .inspect_err(|fault| step.expect("the step can be taken", Value::Null, error_text(fault)));
        self.steps_run += 1;
        let told = match self.form {
            OutputFormat::Json => self.print_json(title, &step),
            OutputFormat::Text { colours } => self.print_text(title, why, &step, Style(colours)),
        };
        match (done, told) {
            (Ok(value), Ok(())) if step.mismatches.is_empty() => {
                self.steps_passed += 1;
                Ok(value)
            }
            _ => Err(StepFailed),
        }
    }

    /// Ends the story: how many steps went as they should.
    pub(crate) fn finish(mut self, ended: Result<(), StepFailed>) -> Result<(), StepFailed> {
        let line = match ended {
            Ok(()) => format!("All {} steps went as they should.", self.steps_passed),
            Err(StepFailed) => {
                format!(
                    "{} steps went as they should; step {} did not, and the story ends there.",
                    self.steps_passed, self.steps_run
                )
            }
        };
        self.print(&line)?;
        ended
    }

    fn print_json(&mut self, title: &str, step: &Step) -> io::Result<()> {
        let mut detail = step.seen.clone();
        if !step.mismatches.is_empty() {
            detail.insert("wrong".to_owned(), json!(step.mismatches));
        }
        writeln!(
            self.out,
            "{}",
            json!({"step": self.steps_run, "title": title, "ok": step.mismatches.is_empty(), "detail": detail})
        )?;
        self.out.flush()
    }

    fn print_text(&mut self, title: &str, why: &str, step: &Step, ink: Style) -> io::Result<()> {
        let Self { out, steps_run: told, .. } = self;
        let mark = if step.mismatches.is_empty() { ink.green("ok") } else { ink.red("NOT AS IT SHOULD BE") };
        writeln!(out, "{told:>2}. {}  {mark}", ink.bold(title))?;
        for (name, value) in &step.seen {
            print_value(out, name, value)?;
        }
        for Mismatch { what, expected, actual: came } in &step.mismatches {
            writeln!(out, "      {}", ink.red(what))?;
            writeln!(out, "        expected: {}\n        came:     {}", shorten(expected), shorten(came))?;
        }
        for line in wrap_lines(why) {
            writeln!(out, "      {}", ink.dim(&line))?;
        }
        writeln!(out)?;
        out.flush()
    }
}

/// A fault with everything beneath it.
fn error_text(fault: &BoxError) -> String {
    let mut text = fault.to_string();
    let mut cause = fault.source();
    while let Some(beneath) = cause {
        text = format!("{text}: {beneath}");
        cause = beneath.source();
    }
    text
}

/// A text stands on one line; of an object or a list, each member does, if there is anything in it.
fn print_value(out: &mut impl Write, name: &str, value: &Value) -> io::Result<()> {
    let is_empty = |value: &Value| *value == json!([]) || *value == json!({});
    let texts: Vec<String> = match value {
        Value::Object(members) => {
            let full = members.iter().filter(|(_, value)| !is_empty(value));
            full.map(|(name, value)| format!("{name}: {}{}", shorten(value), summarize_members(name, members)))
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

/// How long a token lives is easier to read than when it ends.
fn summarize_members(name: &str, members: &Map<String, Value>) -> String {
    let second = |name: &str| members.get(name).and_then(Value::as_i64);
    match (name, second("iat"), second("exp")) {
        ("exp", Some(iat), Some(exp)) => format!(" ({} s later)", exp - iat),
        _ => String::new(),
    }
}

/// JSON on one line, with ids and hashes cut to what tells them apart.
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

/// The end of a UUID is what differs between two that were made in the same moment.
fn shorten_name(text: &str) -> String {
    if uuid::Uuid::try_parse(text).is_ok() {
        return format!("…{}", text.chars().skip(24).collect::<String>());
    }
    match text.strip_prefix("sha-256:") {
        Some(hash) => format!("sha-256:{}…", hash.chars().take(8).collect::<String>()),
        None => text.to_owned(),
    }
}

/// Breaks a text between words.
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

/// Colours, or none.
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

    /// Tells a story of two steps, of which the second may go wrong, and gives back what was said.
    async fn tell(form: OutputFormat, second: impl AsyncFnOnce(&mut Step) -> Result<(), BoxError>) -> (String, bool) {
        let mut out = Vec::new();
        let mut teller = Printer::new(&mut out, form);
        let ended = async {
            teller.print("Once upon a time").unwrap();
            let token = json!({"jti": "01a0b8b9-1a2b-7c3d-8e4f-0123456789ab", "aud": "files", "rctx": {}});
            let first = teller.step("Somebody knocks", "It is cold.", async |step| {
                step.show("token", token);
                step.expect("the answer", 401, 401);
                Ok(7)
            });
            assert_eq!(first.await, Ok(7));
            teller.step("Somebody opens", "It is warm.", second).await
        };
        let ended = ended.await;
        let good = teller.finish(ended).is_ok();
        (String::from_utf8(out).unwrap(), good)
    }

    #[tokio::test]
    async fn a_story_that_goes_well() {
        let (said, good) = tell(OutputFormat::Text { colours: false }, async |_| Ok(())).await;
        assert!(good && said.starts_with("Once upon a time\n 1. Somebody knocks  ok\n"), "{said}");
        assert!(said.contains("token            jti: …0123456789ab\n                       aud: files\n"), "{said}");
        assert!(said.ends_with("All 2 steps went as they should.\n") && !said.contains('\x1b'), "{said}");
        let (said, _) = tell(OutputFormat::Text { colours: true }, async |_| Ok(())).await;
        assert!(said.contains("\x1b[32mok\x1b[0m"), "{said}");
    }

    #[tokio::test]
    async fn a_step_that_is_not_as_it_should_be_ends_the_story() {
        let otherwise = async |step: &mut Step| {
            step.expect("the answer", 401, 200);
            Ok(())
        };
        let (said, good) = tell(OutputFormat::Text { colours: false }, otherwise).await;
        assert!(!good && said.contains(" 2. Somebody opens  NOT AS IT SHOULD BE\n      the answer\n"), "{said}");
        assert!(said.contains("        expected: 401\n        came:     200\n"), "{said}");
        assert!(said.ends_with("1 steps went as they should; step 2 did not, and the story ends there.\n"), "{said}");
    }

    #[tokio::test]
    async fn programs_get_a_line_of_json_a_step_and_nothing_else() {
        let otherwise = async |step: &mut Step| {
            step.show("status", 200);
            step.expect("the answer", 401, 200);
            Ok(())
        };
        let (said, good) = tell(OutputFormat::Json, otherwise).await;
        assert!(!good);
        let told: Vec<Value> = said.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(told.len(), 2);
        assert_eq!(
            (&told[0]["step"], &told[0]["ok"], &told[0]["detail"]["token"]["aud"]),
            (&json!(1), &json!(true), &json!("files"))
        );
        let wrong = json!([{"what": "the answer", "expected": 401, "came": 200}]);
        let detail = json!({"status": 200, "wrong": wrong});
        assert_eq!(told[1], json!({"step": 2, "title": "Somebody opens", "ok": false, "detail": detail}));
    }

    #[tokio::test]
    async fn a_step_that_cannot_be_taken_is_told_with_its_causes() {
        let fault = || io::Error::other(io::Error::new(io::ErrorKind::TimedOut, "no answer"));
        let (said, good) = tell(OutputFormat::Text { colours: false }, async |_| Err(BoxError::from(fault()))).await;
        assert!(!good && said.contains("the step can be taken\n") && said.contains("no answer"), "{said}");
    }
}
