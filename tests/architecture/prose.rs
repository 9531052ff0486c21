//! Phrases that have no place in the project's texts: comments, messages, documentation, names.
//!
//! They are metaphors, literal translations, or words that keep the reader guessing who does what.
//! `CONTRIBUTING.md` says how to write instead.

use std::{fs, path::Path};

/// Maximum width of a line with a comment, in characters.
const MAX_COMMENT_COLUMNS: usize = 100;

/// A phrase, in lower case, and what to write instead.
const BANNED: &[(&str, &str)] = &[
    ("anybody", "name the actor: any client, any caller"),
    ("are none", "put the negation on the verb"),
    ("as it stands", "say what it is"),
    ("by themselves", "alone, or say what does it"),
    ("can be had", "is available, can be fetched"),
    ("could be had", "was available, could be fetched"),
    ("could not be had", "was not available, could not be fetched"),
    ("dice", "randomness, entropy"),
    ("everybody", "name the actors: all clients, all replicas"),
    ("furnish", "initialize"),
    ("furnished", "initialized"),
    ("furnishes", "initializes"),
    ("good for", "valid for"),
    ("has to accept", "must accept"),
    ("house", "the system, the server, the code base"),
    ("how manieth", "number, generation"),
    ("in the works", "in progress, queued"),
    ("in vain", "without success; say that it failed"),
    ("is let in", "is unblocked"),
    ("let back in", "unblock"),
    ("lets in", "unblocks"),
    ("manieth", "number"),
    ("may be had", "is available"),
    ("mend", "fix"),
    ("mended", "fixed"),
    ("mends", "fixes"),
    ("neither here", "say what is not present"),
    ("nobody", "name the actor: no client, no replica"),
    ("point at", "name"),
    ("points at", "names"),
    ("rooms", "layers, modules"),
    ("shall not", "must not, does not"),
    ("shut out", "block"),
    ("shuts out", "blocks"),
    ("somebody", "name the actor: a client, an admin"),
    ("stands beside", "is next to"),
    ("stands here", "is here, appears here"),
    ("stands there", "is there, appears there"),
    ("stands twice", "appears twice, is a duplicate"),
    ("take back", "revoke"),
    ("taken back", "revoked"),
    ("takes back", "revokes"),
    ("takes the hold", "the suspension becomes that party's"),
    ("that is none", "put the negation on the verb"),
    ("the same again", "the same request repeated"),
    ("told", "reported, notified"),
    ("took back", "revoked"),
    ("weather", "network conditions, faults"),
    ("what there is", "the existing ones"),
    ("which is none", "put the negation on the verb"),
    ("who asks", "name the actor: a caller, a client"),
    ("who waits", "name the actor: a waiting caller"),
    ("whoever", "name the actor: the client, the caller"),
    ("with this page", "this page describes"),
];

/// Folders and files with texts of the project.
const PLACES: &[&str] = &[
    ".github",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "Cargo.toml",
    "Dockerfile",
    "README.md",
    "SECURITY.md",
    "benches",
    "clippy.toml",
    "crates",
    "deny.toml",
    "deploy",
    "dev",
    "docker-compose.yml",
    "docs",
    "errand.example.toml",
    "examples",
    "fuzz/src",
    "fuzz/targets",
    "migrations",
    "openapi",
    "src",
    "tests",
];

/// Endings of files that are texts. A file without an ending is a script.
const ENDINGS: &[&str] =
    &["css", "html", "js", "md", "mjs", "py", "rs", "sh", "sql", "toml", "ts", "txt", "yaml", "yml", "json"];

/// This list, and material that is not ours.
const EXEMPT: &[&str] = &["tests/architecture/prose.rs", "node_modules", ".venv", "package-lock.json", "/corpus/"];

/// Endings of files whose comments have a limited width, and the marks that begin a comment.
const COMMENT_MARKS: &[(&[&str], &str)] =
    &[(&["css", "js", "mjs", "rs", "ts"], "//"), (&["sql"], "--"), (&["", "py", "sh", "toml", "yaml", "yml"], "#")];

#[test]
fn texts_are_free_of_banned_phrases() {
    let check = |path: &str, text: &str| {
        banned_phrases(text)
            .into_iter()
            .map(|(line, phrase, instead)| format!("{path}:{line}: `{phrase}`: {instead}"))
            .collect()
    };
    let offenses = offenses(&check);
    assert!(offenses.is_empty(), "{} banned phrases:\n{}\n", offenses.len(), offenses.join("\n"));
}

#[test]
fn comments_are_at_most_100_columns_wide() {
    let check = |path: &str, text: &str| {
        let Some(mark) = comment_mark(path) else { return Vec::new() };
        wide_comments(text, mark).into_iter().map(|(line, width)| format!("{path}:{line}: {width} columns")).collect()
    };
    let offenses = offenses(&check);
    assert!(offenses.is_empty(), "{} wide comments; wrap them:\n{}\n", offenses.len(), offenses.join("\n"));
}

/// Returns what `check` reports about each text of the project, by its path and content.
fn offenses(check: &dyn Fn(&str, &str) -> Vec<String>) -> Vec<String> {
    let mut offenses = Vec::new();
    for place in PLACES {
        visit(&crate::root().join(place), check, &mut offenses);
    }
    offenses.sort();
    offenses
}

fn visit(path: &Path, check: &dyn Fn(&str, &str) -> Vec<String>, offenses: &mut Vec<String>) {
    let shown = path.strip_prefix(crate::root()).unwrap().to_str().expect("a path in UTF-8").replace('\\', "/");
    if EXEMPT.iter().any(|exempt| shown.contains(exempt)) {
        return;
    }
    if path.is_dir() {
        for entry in fs::read_dir(path).unwrap() {
            visit(&entry.unwrap().path(), check, offenses);
        }
    } else if path.extension().is_none_or(|end| ENDINGS.iter().any(|ending| *ending == end)) {
        let Ok(text) = fs::read_to_string(path) else { return };
        offenses.extend(check(&shown, &text));
    }
}

/// Returns the mark that begins a comment in a file.
fn comment_mark(path: &str) -> Option<&'static str> {
    let name = path.rsplit('/').next().unwrap_or_default();
    let ending = name.rsplit_once('.').map_or("", |(_, ending)| ending);
    COMMENT_MARKS.iter().find(|(endings, _)| endings.contains(&ending)).map(|(_, mark)| *mark)
}

/// Line and width of each line that is too wide because of a comment.
///
/// A comment without a blank can't be wrapped, nor can an example setting (`# key = value`).
fn wide_comments(text: &str, mark: &str) -> Vec<(usize, usize)> {
    let lines = text.lines().enumerate().map(|(at, line)| (at + 1, line.chars().count(), line));
    lines
        .filter(|(_, width, line)| *width > MAX_COMMENT_COLUMNS && has_wrappable_comment(line, mark))
        .map(|(at, width, _)| (at, width))
        .collect()
}

fn has_wrappable_comment(line: &str, mark: &str) -> bool {
    if let Some(comment) = line.trim_start().strip_prefix(mark) {
        let comment = comment.trim_start_matches(['/', '!']).trim();
        let is_attribute = mark == "#" && line.starts_with("#!");
        let is_setting = mark == "#" && comment.split_once(" = ").is_some_and(|(key, _)| !key.contains(' '));
        return comment.contains(' ') && !is_attribute && !is_setting;
    }
    // A mark inside a string literal begins no comment.
    line.rsplit_once(&format!(" {mark} ")).is_some_and(|(_, comment)| !comment.contains(['"', '\'', '`']))
}

/// Line, phrase and advice for each banned phrase, also where it spans two lines of a comment.
fn banned_phrases(text: &str) -> Vec<(usize, &'static str, &'static str)> {
    let words = words(text);
    let mut found = Vec::new();
    for (phrase, instead) in BANNED {
        let parts = phrase.split([' ', '-']).collect::<Vec<_>>();
        for window in words.windows(parts.len()) {
            if window.iter().zip(&parts).all(|((_, word), part)| word == part) {
                found.push((window[0].0, *phrase, *instead));
            }
        }
    }
    found
}

/// The words of a text in lower case, each with its line. An underscore belongs to a word; signs
/// are left out.
fn words(text: &str) -> Vec<(usize, String)> {
    let lines = text.lines().enumerate();
    lines
        .flat_map(|(at, line)| {
            let words = line.split(|sign: char| !sign.is_alphanumeric() && !matches!(sign, '_' | '\''));
            words.filter(|word| !word.is_empty()).map(move |word| (at + 1, word.to_lowercase())).collect::<Vec<_>>()
        })
        .collect()
}

#[test]
fn banned_phrase_is_found_as_whole_words_across_lines() {
    let found =
        |text: &str| banned_phrases(text).into_iter().map(|(line, phrase, _)| (line, phrase)).collect::<Vec<_>>();
    assert_eq!(found("// Mend it."), [(1, "mend")]);
    assert_eq!(found("/// Tokens are taken\n/// back by an admin."), [(1, "taken back")]);
    assert_eq!(found("fn is_told() {}\nlet told = 1;"), [(2, "told")]);
    assert_eq!(found("recommend, amend, indices, housed, a_told_b, warehouse"), []);
    assert_eq!(found("The shut-out agent"), [(1, "shut out")]);
}

#[test]
fn wide_comment_is_found_unless_it_cannot_be_wrapped() {
    let found = |start: &str, mark: &str| !wide_comments(&format!("{start}{}", "word ".repeat(20)), mark).is_empty();
    assert!(found("// ", "//"));
    assert!(found("    //! ", "//"));
    assert!(found("let x = 1; // ", "//"));
    assert!(found("    id TEXT NOT NULL, -- ", "--"));
    assert!(found("# ", "#"));
    assert!(!found("", "//"));
    assert!(!found("# keys = { ", "#"));
    let too_long = |line: &str| !wide_comments(line, "//").is_empty();
    assert!(!too_long(&format!("// https://example.com/{}", "x".repeat(100))));
    assert!(!too_long(&format!("let x = \"{} // {}\";", "word ".repeat(10), "word ".repeat(10))));
    assert!(!too_long(&format!("// {}", "é".repeat(97))));
    assert_eq!(comment_mark("dev"), Some("#"));
    assert_eq!(comment_mark("docs/index.md"), None);
}
