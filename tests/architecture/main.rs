//! Architecture tests for the rules in `docs/architecture.md`.
//!
//! They check which layer may import which, where each external crate may be named, and which words
//! may not appear in the domain. They also check for import cycles and banned phrases. The tests
//! read the sources as text, because the compiler does not enforce these rules. `#[cfg(test)]` code
//! is exempt. `main.rs` and `lib.rs` are exempt as well, because they name every layer.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::string_slice,
    reason = "a failed assumption fails the test"
)]

mod cycles;
mod prose;

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

// ---- rules -------------------------------------------------------------------------------------

/// Layers and the layers that they may import. The crate `errand-authority` is checked like
/// `domain`.
const LAYERS: &[(&str, &[&str])] = &[
    ("domain", &["domain"]),
    (AUTHORITY, &[]),
    ("ports", &["ports", "domain"]),
    ("app", &["app", "domain", "ports"]),
    ("adapters", &["adapters", "domain", "ports"]),
    ("http", &["http", "app", "domain", "ports"]),
    ("config", &["config", "domain", "ports"]),
    // The composition root and the commands name every layer.
    ("bootstrap", &["bootstrap", "config", "http", "app", "adapters", "ports", "domain"]),
    ("cli", &["cli", "bootstrap", "config", "http", "app", "adapters", "ports", "domain"]),
];

/// A file, and a module of another layer that this file alone may import (`docs/adr/0018`).
const EXCEPTIONS: &[(&str, &[&str])] = &[("config/dev", &["crate", "adapters", "dev_idp"])];

/// Paths of external crates and the places that may name them.
///
/// A place is a layer, file or folder: `adapters/jose` matches `jose.rs` and `jose/…`. A trailing
/// `*` matches any suffix. The longest matching path decides. Every dependency has a row here.
const EXTERNAL_CRATES: &[(&str, &[&str])] = &[
    // Plain values and their encodings, without side effects: allowed in every layer.
    ("base64", ANY_LAYER),
    ("errand_authority", &["domain"]),
    ("flate2", &["domain"]),
    ("ipnet", ANY_LAYER),
    ("serde", ANY_LAYER),
    ("serde_json", ANY_LAYER),
    ("serde_json_canonicalizer", ANY_LAYER),
    ("thiserror", ANY_LAYER),
    ("time", ANY_LAYER),
    ("url", ANY_LAYER),
    ("uuid", ANY_LAYER),
    ("zeroize", ANY_LAYER),
    // Asynchronous execution and observability: allowed outside the domain.
    ("async_trait", &["ports", "app", "adapters", "http"]),
    ("bytes", &["app", "adapters", "http", "cli"]),
    ("futures_util", &["app", "adapters", "http", "cli"]),
    ("parking_lot", &["app", "adapters", "http"]),
    ("percent_encoding", &["config", "app", "adapters", "http", "cli"]),
    ("tokio", &["app", "adapters", "http", "bootstrap", "cli"]),
    ("tokio_util", &["app", "adapters", "http", "bootstrap", "cli"]),
    ("tracing", &["app", "adapters", "http", "bootstrap", "cli"]),
    ("prometheus_client", &["adapters", "http"]),
    ("opentelemetry", &["adapters/telemetry"]),
    ("opentelemetry_http", &["adapters/telemetry"]),
    ("opentelemetry_otlp", &["adapters/telemetry"]),
    ("opentelemetry_sdk", &["adapters/telemetry"]),
    ("tracing_opentelemetry", &["adapters/telemetry", "cli*"]),
    // Cryptography: the domain may compute hashes, but may not use keys or randomness.
    ("sha2", &[AUTHORITY]),
    ("ring::digest", &["domain", "adapters"]),
    ("ring::hmac", &["domain", "adapters"]),
    ("ring", &["adapters/keyring", "adapters/system", "adapters/issuers", "adapters/jose", "adapters/dev_idp"]),
    ("josekit", &["adapters/jose", "adapters/keyring", "adapters/client_assertion"]),
    ("openssl", &[]),
    // Crates with one owner each.
    ("mimalloc", &["main"]),
    ("similar", &["cli"]),
    ("rustix", &["adapters/system"]),
    ("sqlx", &["adapters/store"]),
    ("reqwest", &["adapters/fetch", "adapters/issuers", "adapters/telemetry", "cli*"]),
    ("rmcp", &["adapters/mcp"]),
    ("sse_stream", &["adapters/mcp"]),
    ("serde_path_to_error", &["http"]),
    ("rustls", &["config", "adapters/fetch", "adapters/issuers", "adapters/telemetry", "http", "cli*"]),
    ("tokio_rustls", &["http"]),
    ("axum", &["http"]),
    ("http_body_util", &["http"]),
    ("hyper", &["http"]),
    ("hyper_util", &["http"]),
    ("governor", &["app/admission"]),
    (
        "quick_cache",
        &["app/admission", "app/auth/replays", "app/exchange/quotas", "app/first_records", "app/introspection"],
    ),
    ("strsim", &["config"]),
    ("toml", &["config"]),
    ("clap", &["cli*"]),
    ("tracing_subscriber", &["cli*"]),
    // The environment, through the standard library.
    ("std::env", &["config"]),
    ("std::fs", &["config", "adapters", "cli"]),
    ("std::io", &["config", "adapters", "http", "cli"]),
    ("std::process", &["cli"]),
    ("std::thread", &["adapters"]),
    ("std::time::SystemTime", &["adapters/system"]),
];
const ANY_LAYER: &[&str] = &["*"];
/// The layer of the crate `errand-authority`.
const AUTHORITY: &str = "errand-authority";
/// The folder of its sources.
const AUTHORITY_SRC: &str = "crates/errand-authority/src";

/// Words that may not appear in a layer, and the reason.
const RESTRICTED_WORDS: &[(&str, &[&str], &str)] = &[
    ("domain", &["async", "await"], "the rules are synchronous"),
    ("domain", &["print", "println", "eprint", "eprintln", "dbg"], "the rules don't log; the callers do"),
    (AUTHORITY, &["async", "await"], "the rules are synchronous"),
    (AUTHORITY, &["print", "println", "eprint", "eprintln", "dbg"], "the rules don't log; the callers do"),
];

// ---- tests -------------------------------------------------------------------------------------

#[test]
fn imports_follow_layer_order() {
    let violations: Vec<String> = sources().iter().flat_map(SourceFile::violations).collect();
    assert!(violations.is_empty(), "{} violations of the layer rules:\n{}\n", violations.len(), violations.join("\n"));
}

/// These files escape invisible characters. Anything printed elsewhere could control a terminal.
const OUTPUT_FILES: [&str; 2] = ["cli/log.rs", "cli/output.rs"];

#[test]
fn output_is_written_by_files_that_escape_it() {
    let names = ["print", "println", "eprint", "eprintln", "stdout", "stderr", "Stdout", "Stderr"];
    for source in sources().iter().filter(|source| !OUTPUT_FILES.contains(&source.path.as_str())) {
        let found = source.tokens.iter().find(|token| names.contains(&token.text.as_str()));
        let place = found.map(|token| format!("src/{}:{}: `{}`", source.path, token.line, token.text));
        assert_eq!(place, None, "use `cli/output.rs` or `tracing`");
    }
}

#[test]
fn files_do_not_import_each_other_in_a_cycle() {
    let sources = sources();
    let cycles = cycles::import_cycles(&sources);
    let texts = cycles.iter().map(|group| cycles::imports_within(&sources, group).join("\n"));
    assert!(cycles.is_empty(), "{} import cycles:\n\n{}\n", cycles.len(), texts.collect::<Vec<_>>().join("\n\n"));
}

#[test]
fn dependencies_are_used_in_their_layer() {
    let unlisted: Vec<String> = dependencies("Cargo.toml")
        .into_iter()
        .filter(|name| !EXTERNAL_CRATES.iter().any(|(path, _)| path == name))
        .collect();
    assert!(
        unlisted.is_empty(),
        "dependencies without a row; add them to EXTERNAL_CRATES in tests/architecture/main.rs: {}",
        unlisted.join(", ")
    );
}

/// A guard depends on the crate `errand-authority` alone. The crate must not depend on a runtime, a
/// store or OpenSSL.
#[test]
fn authority_crate_depends_on_plain_values_only() {
    let is_plain = |name: &str| {
        let row = EXTERNAL_CRATES.iter().find(|(path, _)| *path == name);
        row.is_some_and(|(_, places)| *places == ANY_LAYER || places.contains(&AUTHORITY))
    };
    for name in dependencies("crates/errand-authority/Cargo.toml") {
        assert!(is_plain(&name), "`{name}` is not a crate for plain values; remove it or edit EXTERNAL_CRATES");
    }
}

fn dependencies(manifest: &str) -> Vec<String> {
    let manifest: toml::Table = fs::read_to_string(root().join(manifest)).unwrap().parse().unwrap();
    manifest["dependencies"].as_table().unwrap().keys().map(|name| name.replace('-', "_")).collect()
}

// ---- source files and violations ---------------------------------------------------------------

/// A source file without its comments, string literals and tests.
struct SourceFile {
    /// Relative to `src`: `adapters/jose.rs`. Files of the crate `errand-authority` start with its
    /// name.
    path: String,
    tokens: Vec<Token>,
}

/// A path that a source names, and its line: `crate`, `domain`, `time` on line 7.
struct ImportedPath {
    path: Vec<String>,
    line: usize,
}

impl SourceFile {
    fn parse(path: &str, text: &str) -> Self {
        let mut tokens = tokens(text);
        cut_tests(&mut tokens);
        Self { path: path.to_owned(), tokens }
    }

    fn violations(&self) -> Vec<String> {
        let layer = self.layer();
        if matches!(layer, "main" | "lib") {
            return Vec::new();
        }
        let Some((_, may_import)) = LAYERS.iter().find(|(name, _)| *name == layer) else {
            return vec![format!(
                "src/{}:1: `{layer}` is not a layer; add a row to LAYERS in tests/architecture/main.rs",
                self.path
            )];
        };
        let mut violations = Vec::new();
        let file = match self.path.strip_prefix(AUTHORITY) {
            Some(path) => format!("{AUTHORITY_SRC}{path}"),
            None => format!("src/{}", self.path),
        };
        let mut add_violation = |line: usize, what: String| violations.push((line, format!("{file}:{line}: {what}")));
        for ImportedPath { path, line } in self.imported_paths() {
            if path[0] == "crate" {
                if layer == AUTHORITY {
                    continue; // an import within the crate; Cargo prevents imports of `errand`
                }
                let forbidden_layer = path.get(1).filter(|target| !may_import.contains(&target.as_str()));
                let is_exception = EXCEPTIONS.iter().any(|(file, module)| {
                    self.stem() == *file && path.iter().map(String::as_str).take(3).eq(module.iter().copied())
                });
                if forbidden_layer.is_some() && !is_exception {
                    let rule = format!("{layer} may import {} only", may_import.join(", "));
                    add_violation(line, format!("`{}`: {rule}", path.join("::")));
                }
            } else if let Some((restricted, places)) = restriction_of(&path)
                && !places.iter().any(|place| is_match(place, self.stem()))
            {
                let places = if places.is_empty() { "main.rs".to_owned() } else { places.join(", ") };
                add_violation(line, format!("`{}`: {restricted} may be named in {places} only", path.join("::")));
            }
        }
        for (_, words, why) in RESTRICTED_WORDS.iter().filter(|(of, ..)| *of == layer) {
            for token in self.tokens.iter().filter(|token| words.contains(&token.text.as_str())) {
                add_violation(token.line, format!("`{}` in {layer}: {why}", token.text));
            }
        }
        violations.sort();
        violations.into_iter().map(|(_, text)| text).collect()
    }

    fn stem(&self) -> &str {
        self.path.strip_suffix(".rs").unwrap_or(&self.path)
    }

    fn layer(&self) -> &str {
        self.stem().split('/').next().unwrap_or_default()
    }

    /// `adapters/store/mod.rs` is the module `adapters::store`.
    fn module_path(&self) -> Vec<String> {
        self.stem().split('/').filter(|part| *part != "mod").map(str::to_owned).collect()
    }

    /// Returns every path that starts at `crate`, `super` or an external crate. Use groups are
    /// expanded.
    fn imported_paths(&self) -> Vec<ImportedPath> {
        let mut named = Vec::new();
        // A local name may equal that of a crate: `use crate::domain::time`.
        let mut local_names = BTreeSet::new();
        let mut module = self.module_path();
        let mut closes = Vec::new(); // the depth at which each inline module ends
        let (mut at, mut depth) = (0, 0_usize);
        while at < self.tokens.len() {
            match self.text(at) {
                "{" => depth += 1,
                "}" => {
                    depth = depth.saturating_sub(1);
                    if closes.last() == Some(&depth) {
                        closes.pop();
                        module.pop();
                    }
                }
                "mod" if self.text(at + 2) == "{" => {
                    module.push(self.text(at + 1).to_owned());
                    closes.push(depth);
                }
                "mod" => drop(local_names.insert(self.text(at + 1).to_owned())),
                "use" if self.text(at + 1) != "<" => {
                    at += 1;
                    let mut leaves = Vec::new();
                    self.collect_use_tree(&mut at, &[], &mut leaves);
                    for (path, line, name) in leaves {
                        if path.len() > 1 {
                            local_names.insert(name);
                        }
                        named.push(ImportedPath { path: absolute_path(path, &module), line });
                    }
                    continue;
                }
                _ if self.starts_path(at) => {
                    let mut leaves = Vec::new();
                    self.collect_use_tree(&mut at, &[], &mut leaves);
                    named.extend(
                        leaves
                            .into_iter()
                            .filter(|(path, ..)| !local_names.contains(&path[0]))
                            .map(|(path, line, _)| ImportedPath { path: absolute_path(path, &module), line }),
                    );
                    continue;
                }
                _ => {}
            }
            at += 1;
        }
        named
    }

    /// Returns the name and the full path, below `crate`, of every item that this file re-exports.
    fn reexports(&self) -> Vec<(String, Vec<String>)> {
        let module = self.module_path();
        let mut found = Vec::new();
        for start in 0..self.tokens.len() {
            let is_public = self.text(start) == "pub"
                && (self.text(start + 1) == "use" || (self.text(start + 1) == "(" && self.restricted_use(start)));
            if !is_public {
                continue;
            }
            let mut at = (start..self.tokens.len()).find(|at| self.text(*at) == "use").map_or(start, |at| at + 1);
            let mut leaves = Vec::new();
            self.collect_use_tree(&mut at, &[], &mut leaves);
            for (path, _, name) in leaves {
                let full = match path[0].as_str() {
                    "crate" | "super" | "self" | "errand" => absolute_path(path, &module)[1..].to_vec(),
                    // A child module of this file.
                    _ => module.iter().cloned().chain(path).collect(),
                };
                let full = full.into_iter().filter(|part| part != "self").collect();
                found.push((name, full));
            }
        }
        found
    }

    /// Returns whether `pub(…)` at `at` is followed by `use`.
    fn restricted_use(&self, at: usize) -> bool {
        (at..self.tokens.len()).find(|at| self.text(*at) == ")").is_some_and(|close| self.text(close + 1) == "use")
    }

    fn text(&self, at: usize) -> &str {
        self.tokens.get(at).map_or("", |token| &token.text)
    }

    /// Returns whether a path starts at `at`: a name before `::` that does not continue a path.
    fn starts_path(&self, at: usize) -> bool {
        let middle = at > 1 && self.text(at - 1) == "::" && (is_name(self.text(at - 2)) || self.text(at - 2) == ">");
        is_name(self.text(at)) && self.text(at + 1) == "::" && !middle
    }

    /// Reads a path or a use tree at `at`. Its leaves are full paths, each with line and local
    /// name.
    fn collect_use_tree(&self, at: &mut usize, before: &[String], leaves: &mut Vec<(Vec<String>, usize, String)>) {
        let mut path = before.to_vec();
        let mut line = self.tokens.get(*at).map_or(0, |token| token.line);
        loop {
            match self.text(*at) {
                "{" => {
                    *at += 1;
                    while !matches!(self.text(*at), "}" | "") {
                        self.collect_use_tree(at, &path, leaves);
                        *at += usize::from(self.text(*at) == ",");
                    }
                    *at += 1;
                    return;
                }
                "::" => {}
                name if is_name(name) && name != "as" => {
                    line = self.tokens[*at].line;
                    path.push(name.to_owned());
                    if self.text(*at + 1) != "::" {
                        *at += 1;
                        break;
                    }
                }
                "*" => {
                    path.push("*".to_owned());
                    *at += 1;
                    break;
                }
                _ => break, // for example, a turbofish
            }
            *at += 1;
        }
        if path.last().is_some_and(|last| last == "self") && path.len() > 1 {
            path.pop();
        }
        let mut name = path.last().cloned().unwrap_or_default();
        if self.text(*at) == "as" {
            name = String::from(self.text(*at + 1));
            *at += 2;
        }
        if path.is_empty() {
            *at += 1; // not a path; advance, so that the caller's loop ends
        } else {
            leaves.push((path, line, name));
        }
    }
}

/// Returns the path from `crate`, for a path with `super` or `errand` in the module `module`.
///
/// `super::x` in `http::form` is `crate::http::x`. The binary names the library `errand`.
fn absolute_path(mut path: Vec<String>, module: &[String]) -> Vec<String> {
    if path[0] == "errand" {
        path[0] = String::from("crate");
    }
    let supers = path.iter().take_while(|part| *part == "super").count();
    if supers == 0 {
        return path;
    }
    let above = &module[..module.len().saturating_sub(supers)];
    ["crate".to_owned()].into_iter().chain(above.iter().cloned()).chain(path.into_iter().skip(supers)).collect()
}

/// Returns the row of `EXTERNAL_CRATES` that applies to this path: the longest match.
fn restriction_of(path: &[String]) -> Option<(&'static str, &'static [&'static str])> {
    let matches = |row: &str| row.split("::").enumerate().all(|(at, part)| path.get(at).is_some_and(|it| it == part));
    EXTERNAL_CRATES.iter().filter(|(row, _)| matches(row)).max_by_key(|(row, _)| row.len()).copied()
}

fn is_match(place: &str, stem: &str) -> bool {
    match place.strip_suffix('*') {
        Some(start) => stem.starts_with(start),
        None => stem.strip_prefix(place).is_some_and(|rest| rest.is_empty() || rest.starts_with('/')),
    }
}

// ---- parsing -----------------------------------------------------------------------------------

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Returns all source files except those that a `#[cfg(test)] mod …;` declares.
fn sources() -> Vec<SourceFile> {
    let mut texts = source_texts("src", "");
    texts.extend(source_texts(AUTHORITY_SRC, AUTHORITY));
    let exempt: Vec<String> = texts.iter().flat_map(|(path, text)| test_files(path, text)).collect();
    texts
        .iter()
        .filter(|(path, _)| !exempt.iter().any(|test| is_match(test, path.trim_end_matches(".rs"))))
        .map(|(path, text)| SourceFile::parse(path, text))
        .collect()
}

/// Returns the files below `folder` and their texts, with `prefix` before their relative paths.
fn source_texts(folder: &str, prefix: &str) -> Vec<(String, String)> {
    let folder = root().join(folder);
    let mut files = Vec::new();
    walk(&folder, &mut files);
    files.sort();
    let path = |file: &Path| {
        let path = Path::new(prefix).join(file.strip_prefix(&folder).unwrap());
        path.to_str().expect("a path in UTF-8").replace('\\', "/")
    };
    files.iter().map(|file| (path(file), fs::read_to_string(file).unwrap())).collect()
}

fn walk(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            walk(&path, files);
        } else if path.extension().is_some_and(|end| end == "rs") {
            files.push(path);
        }
    }
}

/// Returns the paths of the modules that this file declares as `#[cfg(test)] mod …;`.
fn test_files(path: &str, text: &str) -> Vec<String> {
    let stem = path.strip_suffix(".rs").unwrap_or(path);
    let folder = match stem.rsplit_once('/') {
        Some((folder, "mod" | "lib")) => folder,
        None if matches!(stem, "lib" | "main") => "",
        _ => stem,
    };
    let tokens = tokens(text);
    (0..tokens.len())
        .filter_map(|at| {
            let after = after_cfg_test(&tokens, at)?;
            let texts: Vec<&str> = tokens[after..].iter().take(3).map(|token| token.text.as_str()).collect();
            (texts.len() == 3 && texts[0] == "mod" && texts[2] == ";").then(|| format!("{folder}/{}", texts[1]))
        })
        .map(|file| file.trim_start_matches('/').to_owned())
        .collect()
}

/// A name, `::`, or one other character.
#[derive(Clone)]
struct Token {
    text: String,
    line: usize,
}

fn is_name(text: &str) -> bool {
    text.starts_with(|start: char| start.is_alphabetic() || start == '_')
}

/// Splits Rust source text into names and punctuation, without comments, string literals, character
/// literals and the quotes of lifetimes.
fn tokens(text: &str) -> Vec<Token> {
    let mut found = Vec::new();
    let (mut rest, mut line) = (text, 1);
    while let Some(next) = rest.chars().next() {
        let skip = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            block_comment(rest)
        } else if let Some(length) = quoted(rest) {
            length
        } else if next == '\'' {
            character(rest)
        } else if next.is_alphanumeric() || next == '_' {
            let raw = if rest.starts_with("r#") { 2 } else { 0 };
            let name = &rest[raw..];
            let length = name.find(|sign: char| !sign.is_alphanumeric() && sign != '_').unwrap_or(name.len());
            found.push(Token { text: name[..length].to_owned(), line });
            raw + length
        } else if rest.starts_with("::") {
            found.push(Token { text: "::".to_owned(), line });
            2
        } else {
            if !next.is_whitespace() {
                found.push(Token { text: next.to_string(), line });
            }
            next.len_utf8()
        };
        line += rest[..skip].matches('\n').count();
        rest = &rest[skip..];
    }
    found
}

/// Returns the length of the string literal that starts here: plain, raw, byte or C string.
fn quoted(rest: &str) -> Option<usize> {
    let kind = rest.find(|sign: char| !matches!(sign, 'b' | 'c' | 'r')).filter(|length| *length <= 2)?;
    let hashes = rest[kind..].find(|sign| sign != '#')?;
    let raw = rest[..kind].contains('r');
    let open = kind + hashes;
    if !rest[open..].starts_with('"') || (hashes > 0 && !raw) {
        return None;
    }
    let body = &rest[open + 1..];
    let length = if raw {
        let close = format!("\"{}", "#".repeat(hashes));
        body.find(&close).map(|at| at + close.len())
    } else {
        let mut escaped = false;
        body.char_indices().find_map(|(at, sign)| {
            let closes = sign == '"' && !escaped;
            escaped = sign == '\\' && !escaped;
            closes.then_some(at + 1)
        })
    };
    Some(open + 1 + length.unwrap_or(body.len()))
}

fn block_comment(rest: &str) -> usize {
    let (mut at, mut depth) = (0, 0);
    loop {
        if rest[at..].starts_with("/*") {
            depth += 1;
            at += 2;
        } else if rest[at..].starts_with("*/") {
            depth -= 1;
            at += 2;
        } else {
            at += rest[at..].chars().next().map_or(0, char::len_utf8);
        }
        if depth == 0 || at >= rest.len() {
            return at;
        }
    }
}

/// Returns the length of the character literal that starts here, such as `'x'` or `'\n'`.
///
/// For a lifetime such as `'a`, returns the length of the quote alone.
fn character(rest: &str) -> usize {
    let mut signs = rest.char_indices().skip(1);
    match (signs.next(), signs.next()) {
        (Some((_, '\\')), Some((after, escaped))) => {
            let from = after + escaped.len_utf8();
            from + rest[from..].find('\'').map_or(0, |close| close + 1)
        }
        (Some(_), Some((close, '\''))) => close + 1,
        _ => 1,
    }
}

/// Returns the start of the item that the `#[cfg(test)]` at `at` applies to.
fn after_cfg_test(tokens: &[Token], at: usize) -> Option<usize> {
    let is = |from: usize, wanted: &[&str]| {
        wanted.iter().enumerate().all(|(step, text)| tokens.get(from + step).is_some_and(|token| token.text == *text))
    };
    if !is(at, &["#", "[", "cfg", "(", "test", ")", "]"]) {
        return None;
    }
    let mut item = at + 7;
    while is(item, &["#", "["]) {
        item = skip_block(tokens, item + 1)?;
    }
    Some(item)
}

/// Returns the position after the bracket that closes the one at `open`.
fn skip_block(tokens: &[Token], open: usize) -> Option<usize> {
    let mut depth = 0_usize;
    for (at, token) in tokens.iter().enumerate().skip(open) {
        match token.text.as_str() {
            "(" | "[" | "{" => depth += 1,
            ")" | "]" | "}" => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth == 0 {
            return Some(at + 1);
        }
    }
    None
}

/// Removes the `#[cfg(test)]` items. Returns the number of their lines.
fn cut_tests(tokens: &mut Vec<Token>) -> usize {
    let (mut at, mut lines) = (0, 0);
    while at < tokens.len() {
        let Some(mut end) = after_cfg_test(tokens, at) else {
            at += 1;
            continue;
        };
        // The item ends with its first `;` or with its block.
        while let Some(token) = tokens.get(end) {
            let block = token.text == "{";
            let last = block || token.text == ";";
            end = if matches!(token.text.as_str(), "(" | "[" | "{") {
                skip_block(tokens, end).unwrap_or(tokens.len())
            } else {
                end + 1
            };
            if last {
                break;
            }
        }
        lines += tokens[end - 1].line - tokens[at].line + 1;
        tokens.drain(at..end);
    }
    lines
}

// ---- tests of the checks -----------------------------------------------------------------------

fn violations_in(path: &str, text: &str) -> Vec<String> {
    SourceFile::parse(path, text).violations()
}

/// Returns the only violation of this source.
fn single_violation(path: &str, text: &str) -> String {
    let all = violations_in(path, text);
    assert_eq!(all.len(), 1, "{text}: {all:?}");
    all[0].clone()
}

#[test]
fn forbidden_layer_import_is_detected() {
    assert_eq!(
        single_violation("http/token.rs", "use crate::app::Service;\n\nuse crate::adapters::postgres::Store;\n"),
        "src/http/token.rs:3: `crate::adapters::postgres::Store`: http may import http, app, domain, ports only"
    );
    assert!(
        single_violation("domain/scope.rs", "fn f() -> crate::ports::Outage {}").starts_with("src/domain/scope.rs:1:")
    );
    assert!(single_violation("app/mod.rs", "fn f(c: &crate::config::Config) {}").contains("`crate::config::Config`"));
    assert!(single_violation("adapters/mod.rs", "use crate::app;").contains("`crate::app`"));
    assert!(single_violation("ports/store.rs", "use crate::{app::Service};").contains("`crate::app::Service`"));
    assert!(single_violation("attic/junk.rs", "").contains("`attic` is not a layer"));
    assert_eq!(violations_in("config/dev.rs", "use crate::adapters::dev_idp::public_jwks;"), [""; 0]);
    assert!(single_violation("config/dev.rs", "use crate::adapters::store;").contains("`crate::adapters::store`"));
    assert!(single_violation("config/mod.rs", "use crate::adapters::dev_idp;").contains("adapters::dev_idp"));
    assert!(single_violation("app/mod.rs", "use crate::Shortcut;").contains("`crate::Shortcut`"));
    assert_eq!(violations_in("app/mod.rs", "use crate::{domain::time, ports::{Clock, Store}};"), [""; 0]);
    assert_eq!(violations_in("main.rs", "use errand::{adapters::postgres, http};"), [""; 0]);
}

#[test]
fn authority_crate_is_checked_like_domain() {
    assert_eq!(violations_in("errand-authority/uri.rs", "use crate::encoding::jcs;\nuse url::Url;"), [""; 0]);
    assert_eq!(
        single_violation("errand-authority/authority/wire.rs", "\nuse std::fs;"),
        "crates/errand-authority/src/authority/wire.rs:2: `std::fs`: std::fs may be named in config, adapters, cli only"
    );
    assert!(single_violation("errand-authority/uri.rs", "use ring::digest;").contains("ring::digest"));
    assert!(single_violation("errand-authority/uri.rs", "async fn f() {}").contains("are synchronous"));
    assert!(single_violation("app/mod.rs", "use errand_authority::uri;").contains("may be named in domain only"));
}

#[test]
fn nested_use_groups_are_checked() {
    let text = "use crate::{\n    domain::{id, scope::{self, Scope}},\n    http::{form as f, error},\n};\n";
    let all = violations_in("app/exchange.rs", text);
    assert_eq!(all.len(), 2, "{all:?}");
    assert!(all[0].starts_with("src/app/exchange.rs:3: `crate::http::error`"), "{all:?}");
    assert!(all[1].starts_with("src/app/exchange.rs:3: `crate::http::form`"), "{all:?}");
}

#[test]
fn super_paths_are_resolved() {
    assert_eq!(violations_in("http/token.rs", "use super::form;"), [""; 0]);
    assert!(single_violation("http/token.rs", "use super::super::adapters::jose;").contains("`crate::adapters::jose`"));
    assert!(single_violation("http/mod.rs", "use super::config;").contains("`crate::config`"));
    assert!(
        single_violation("http/mod.rs", "mod a { use super::form; use super::super::config; }")
            .contains("`crate::config`")
    );
    assert!(
        single_violation("http/mod.rs", "mod a { fn f() {} }\nuse super::config;").starts_with("src/http/mod.rs:2:")
    );
}

#[test]
fn misplaced_external_crate_is_detected() {
    assert_eq!(
        single_violation("app/audit.rs", "async fn f(pool: &sqlx::PgPool) {}"),
        "src/app/audit.rs:1: `sqlx::PgPool`: sqlx may be named in adapters/store only"
    );
    assert_eq!(violations_in("adapters/store/postgres/log.rs", "use sqlx::{PgPool, Row};"), [""; 0]);
    assert_eq!(violations_in("adapters/store/rows.rs", "use sqlx::Row;"), [""; 0]);
    for (path, text) in [
        ("app/mod.rs", "use josekit as j;"),
        ("app/mod.rs", "use ::josekit::jws;"),
        ("app/mod.rs", "fn f() { ::josekit::f() }"),
        ("adapters/josephine.rs", "use josekit::jws;"),
        ("http/mod.rs", "use reqwest;"),
        ("http/mod.rs", "#[derive(sqlx::FromRow)] struct Row;"),
        ("domain/mod.rs", "fn f() { tracing::info!(\"x\") }"),
        ("ports/mod.rs", "use {axum::Router};"),
        ("app/mod.rs", "use std::{collections::BTreeMap, env};"),
        ("app/mod.rs", "fn f() { std::fs::read(\"x\"); }"),
        ("cli.rs", "use openssl::x509;"),
    ] {
        single_violation(path, text);
    }
}

#[test]
fn crate_submodules_are_distinguished() {
    assert_eq!(violations_in("domain/secret.rs", "use ring::{digest, hmac};"), [""; 0]);
    assert!(single_violation("domain/secret.rs", "use ring::{digest, rand};").contains("`ring::rand`"));
    assert!(single_violation("app/mod.rs", "use ring::signature::KeyPair;").contains("ring may be named in"));
}

#[test]
fn local_names_are_not_taken_for_crates() {
    assert_eq!(violations_in("app/mod.rs", "use crate::domain::toml;\nfn f() { toml::read() }"), [""; 0]);
    assert_eq!(violations_in("app/mod.rs", "mod toml;\nfn f() { toml::read() }"), [""; 0]);
    assert_eq!(violations_in("app/mod.rs", "fn f() { domain::toml::read(); x.tokio.sqlx() }"), [""; 0]);
}

#[test]
fn restricted_words_are_detected() {
    assert!(
        single_violation("domain/task.rs", "fn f() {}\nasync fn g() {}").starts_with("src/domain/task.rs:2: `async`")
    );
    assert!(single_violation("domain/task.rs", "fn f() { x().await; }").contains("are synchronous"));
    assert!(single_violation("domain/task.rs", "fn f() { println!(\"{}\", 1) }").contains("don't log"));
    assert_eq!(violations_in("app/task.rs", "async fn g() { f().await }"), [""; 0]);
}

#[test]
fn comments_strings_and_tests_are_ignored() {
    for text in [
        "// use crate::http::x;\n/* crate::http /* nested */ async */ /// `crate::app`",
        "const A: &str = \"crate::http \\\" async\"; const B: &[u8] = b\"\\\\\"; const C: &str = r#\"async \" await\"#;",
        "const A: char = '\"'; fn f<'a>(x: &'a str) -> char { '\\'' } const B: char = '\\u{22}';",
        "#[cfg(test)]\nmod tests {\n    use crate::http::x;\n    async fn f() { println!() }\n}",
        "#[cfg(test)]\n#[expect(lint, reason = \"x\")]\nfn f(a: [u8; 2]) { sqlx::f() }\nfn g() {}",
        "#[cfg(test)]\nuse crate::http::x;\nfn g() {}",
    ] {
        assert_eq!(violations_in("domain/x.rs", text), [""; 0], "{text}");
    }
    // Code after them is checked.
    for before in [
        "const A: char = '\"';",
        "const A: &str = r#\"\"#;",
        "fn r#type<'a>() {}",
        "#[cfg(test)] mod tests { fn f() {} }",
        "#[cfg(test)] use std::fs;",
        "/* /* */ */",
    ] {
        single_violation("domain/x.rs", &format!("{before} use crate::http::x;"));
    }
}

#[test]
fn test_module_files_are_found() {
    assert_eq!(test_files("adapters/mod.rs", "#[cfg(test)]\nmod suite;\nmod jose;"), ["adapters/suite"]);
    assert_eq!(test_files("domain/exchange.rs", "#[cfg(test)] mod tests;"), ["domain/exchange/tests"]);
    assert_eq!(test_files("lib.rs", "#[cfg(test)]\nmod suite;"), ["suite"]);
    assert_eq!(test_files("lib.rs", "#[cfg(test)]\nmod tests {}"), [""; 0]);
}
