//! The demo: every step succeeds, the output is machine-readable on request, and no files remain.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    path::{Path, PathBuf},
    process::{Command, Output},
};

use serde_json::Value;

/// Runs the tests of the output module here, because cargo does not run tests of an example.
#[path = "../examples/demo/output.rs"]
mod output;

/// Returns the path of the example. This test is `target/debug/deps/demo-…`, the example is
/// `target/debug/examples/demo`. `cargo test` builds both, `cargo test --test demo` only the test.
fn example() -> PathBuf {
    let this = std::env::current_exe().unwrap();
    let example = this.ancestors().nth(2).unwrap().join("examples/demo");
    let built_at = example.metadata().and_then(|file| file.modified()).ok();
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/demo").read_dir().unwrap();
    let changed_at = sources.map(|source| source.unwrap().metadata().unwrap().modified().unwrap()).max();
    assert!(
        built_at >= changed_at,
        "{} is missing or stale; build it with `cargo build --example demo`",
        example.display()
    );
    example
}

/// Runs the demo with its own temporary directory, which must be empty afterwards.
fn run(arguments: &[&str]) -> Output {
    let folder = tempfile::tempdir().unwrap();
    let output = Command::new(example()).args(arguments).env("TMPDIR", folder.path()).output().unwrap();
    assert_eq!(folder.path().read_dir().unwrap().count(), 0, "the demo left temporary files");
    output
}

#[test]
fn every_demo_step_succeeds() {
    let output = run(&["--json"]);
    let (stdout, stderr) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    assert!(output.status.success(), "{stdout}{stderr}");
    assert_eq!(stderr, "");
    let steps: Vec<Value> = stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(steps.len(), 26);
    for (n, step) in steps.iter().enumerate() {
        let members: Vec<&String> = step.as_object().unwrap().keys().collect();
        assert_eq!(members, ["step", "title", "ok", "detail"]);
        assert_eq!((&step["step"], &step["ok"]), (&(n + 1).into(), &true.into()), "{step}");
    }
    // Every compact JWT begins with these characters: the output must not contain one.
    assert!(!stdout.contains("eyJ"), "{stdout}");
}

#[test]
fn default_output_is_readable_text() {
    let output = run(&[]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}");
    assert_eq!(text.lines().last(), Some("All 26 steps succeeded."));
    assert!(!text.contains('\x1b'), "colors without a terminal");
    assert!(!text.contains("eyJ"), "a token is shown");
}

#[test]
fn unknown_arguments_are_rejected() {
    let output = run(&["--jsno"]);
    assert_eq!((output.status.code(), output.stdout.len()), (Some(2), 0));
    assert_eq!(String::from_utf8(output.stderr).unwrap(), "usage: demo [--json]\n");
}
