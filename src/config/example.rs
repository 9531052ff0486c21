//! Examples for error messages, taken from `errand.example.toml`, which documents every key.

const EXAMPLE: &str = include_str!("../../errand.example.toml");
/// The maximum length of the keys of a table in an example (bytes).
const MAX_TABLE_LENGTH: usize = 100;

/// Returns an example of the key at `path`, such as `algorithms = ["RS256"]` for
/// `issuers[0].algorithms[1]`. A key below one that the operator chose has the example of that
/// table.
pub(super) fn find_example(path: &str) -> Option<String> {
    let names = names_of(path);
    // All clients authenticate alike; the comments of `[agents.authentication]` explain it.
    let alike = match names.as_slice() {
        [first, "authentication", rest @ ..] if matches!(*first, "resources" | "admins") => {
            Some([&["agents", "authentication"], rest].concat())
        }
        _ => None,
    };
    let longest = (1..=names.len()).rev();
    let found = longest.filter_map(|n| names.split_at_checked(n)).find_map(|(table, below)| {
        let last = below.last().copied();
        key_example(table, last).or_else(|| if below.is_empty() { table_example(table) } else { None })
    });
    let found = found.filter(|example| names.last().is_some_and(|last| example.contains(last)));
    found.or_else(|| alike.and_then(|names| find_example(&names.join("."))))
}

/// Splits a path into its names, without indexes and without what follows a name in quotes.
fn names_of(path: &str) -> Vec<&str> {
    let path = path.split('"').next().unwrap_or_default();
    let names = path.split('.').map(|name| name.split('[').next().unwrap_or_default());
    names.filter(|name| !name.is_empty()).collect()
}

/// A line of the example with a key, and the header above it.
struct KeyLine {
    header: &'static str,
    key: &'static str,
    value: &'static str,
    /// Whether the line is a comment.
    is_comment: bool,
}

fn key_lines() -> impl Iterator<Item = KeyLine> {
    let mut header = "";
    EXAMPLE.lines().filter_map(move |line| {
        let text = line.trim_start_matches('#').trim();
        if text.starts_with('[') && text.ends_with(']') {
            header = text;
            return None;
        }
        let (key, value) = text.split_once(" = ")?;
        let is_key = |c: char| c.is_ascii_lowercase() || matches!(c, '_' | '"' | ':' | '/' | '.');
        key.chars().all(is_key).then_some(KeyLine { header, key, value, is_comment: line.starts_with('#') })
    })
}

/// Returns the line with a key, which mentions `below` if there is one.
fn key_example(path: &[&str], below: Option<&str>) -> Option<String> {
    let (key, table) = path.split_last()?;
    let table = table.join(".");
    let is_example = |line: &KeyLine| {
        let is_empty = matches!(line.value, "[]" | "{}");
        let mentions = |name: &str| line.value.contains(&format!("{name} = "));
        line.header.trim_matches(['[', ']']) == table && line.key == *key && !is_empty && below.is_none_or(mentions)
    };
    let found = key_lines().filter(is_example).min_by_key(|line| (line.is_comment, line.value.len()))?;
    Some(format!("`{} = {}`", found.key, found.value))
}

/// Returns how a table is written: on one line below another table, and by its header otherwise.
fn table_example(path: &[&str]) -> Option<String> {
    let name = path.join(".");
    let of_table = |line: &KeyLine| line.header.trim_matches(['[', ']']) == name;
    let first = key_lines().find(of_table)?;
    if path.len() == 1 {
        return Some(format!("`{}`, then keys such as `{} = {}`", first.header, first.key, first.value));
    }
    let (mut keys, mut shown) = (String::new(), Vec::new());
    // Comments are examples only where there is nothing else.
    let has_active = key_lines().any(|line| of_table(&line) && !line.is_comment);
    for line in key_lines().skip_while(|line| !of_table(line)).take_while(of_table) {
        if shown.contains(&line.key) {
            // The next table of the array begins.
            break;
        }
        let is_used = !line.is_comment || !has_active;
        if !is_used || (!keys.is_empty() && keys.len() + line.value.len() > MAX_TABLE_LENGTH) {
            continue;
        }
        if !keys.is_empty() {
            keys.push_str(", ");
        }
        for part in [line.key, " = ", line.value] {
            keys.push_str(part);
        }
        shown.push(line.key);
    }
    let (key, table) = (path.last()?, format!("{{ {keys} }}"));
    Some(if first.header.starts_with("[[") { format!("`{key} = [{table}]`") } else { format!("`{key} = {table}`") })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn example_is_of_the_key_or_of_the_table_around_it() {
        for (path, want) in [
            ("issuer", "`issuer = \"https://sts.example.com\"`"),
            ("issuers", "`[[issuers]]`, then keys such as `issuer = \"https://login.example.com\"`"),
            ("tokens", "`[tokens]`, then keys such as `lifetime = 300`"),
            ("tokens.lifetime", "`lifetime = 300`"),
            ("limits.tasks.burst", "`tasks = { per_second = 100, burst = 500, in_flight = 64 }`"),
            ("issuers[0].algorithms[1]", "`algorithms = [\"RS256\"]`"),
            ("issuers[3].keys", "`keys = \"discovery\"`"),
            ("issuers[3].keys.jwks_file", "`keys = { jwks_file = \"login.jwks.json\" }`"),
            (
                "issuers[0].entitlements[0].to.claim.name",
                "`to = { claim = { name = \"groups\", value = \"files-readers\" } }`",
            ),
            (
                "resources[0].tools[0]",
                "`tools = [{ name = \"read_file\", scope = \"files:read\", effect = \"read\", data_class = \"internal\" }]`",
            ),
            ("resources[0].authentication.algorithms", "`algorithms = [\"ES256\", \"EdDSA\", \"RS256\", \"PS256\"]`"),
            (
                "agents[0].known_as.\"https://a.example/b[0]\"[1]",
                "`known_as = { \"https://login.example.com\" = [\"planner-web\", \"planner-mobile\"] }`",
            ),
        ] {
            assert_eq!(find_example(path).as_deref(), Some(want), "{path}");
        }
        assert_eq!(find_example("tokens.livetime"), None);
        assert_eq!(find_example(""), None);
    }
}
