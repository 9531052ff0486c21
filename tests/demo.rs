//! The demo, held to its word: every step goes as it should, programs can read it, and nothing of it stays behind.
#![expect(clippy::unwrap_used, reason = "a test: to stop is how it says no")]

use std::{
    path::{Path, PathBuf},
    process::{Command, Output},
};

use serde_json::Value;

/// The teller's own tests run here: cargo runs none of an example.
#[path = "../examples/demo/output.rs"]
mod output;

/// `target/debug/deps/demo-…` is this test; `target/debug/examples/demo` is the example. `cargo test` builds both, but
/// `cargo test --test demo` only the one.
fn example() -> PathBuf {
    let this = std::env::current_exe().unwrap();
    let example = this.ancestors().nth(2).unwrap().join("examples/demo");
    let made = example.metadata().and_then(|file| file.modified()).ok();
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/demo").read_dir().unwrap();
    let changed = sources.map(|source| source.unwrap().metadata().unwrap().modified().unwrap()).max();
    assert!(made >= changed, "{} is missing or stale: `cargo build --example demo` makes it", example.display());
    example
}

/// Runs it with a folder of its own for temporary files, and sees that it leaves it empty.
fn run(arguments: &[&str]) -> Output {
    let folder = tempfile::tempdir().unwrap();
    let output = Command::new(example()).args(arguments).env("TMPDIR", folder.path()).output().unwrap();
    assert_eq!(folder.path().read_dir().unwrap().count(), 0, "it tidies up");
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
    // A JWT in compact form begins so, whatever its header is: none is shown.
    assert!(!stdout.contains("eyJ"), "{stdout}");
}

#[test]
fn default_output_is_readable_text() {
    let output = run(&[]);
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{said}");
    assert_eq!(said.lines().last(), Some("All 26 steps went as they should."));
    assert!(!said.contains('\x1b'), "no colours where there is no terminal");
    assert!(!said.contains("eyJ"), "no token is shown");
}

#[test]
fn unknown_arguments_are_rejected() {
    let output = run(&["--jsno"]);
    assert_eq!((output.status.code(), output.stdout.len()), (Some(2), 0));
    assert_eq!(String::from_utf8(output.stderr).unwrap(), "usage: demo [--json]\n");
}
