//! When does a value lie below a prefix? For paths a plain comparison of characters is wrong in both directions.

/// Whether `value` begins with `prefix`.
///
/// A prefix with a slash in it is one of a path: it ends where a segment ends, and what follows may not climb, by
/// whichever spelling: `/reports` has `/reports/q3.md` below it, and neither `/reports-old` nor `/reports/../etc/passwd`.
#[must_use]
pub(super) fn is_below(value: &str, prefix: &str) -> bool {
    let Some(rest) = value.strip_prefix(prefix) else { return false };
    if !prefix.contains('/') {
        return true;
    }
    let below = if prefix.ends_with('/') { Some(rest) } else { rest.strip_prefix('/') };
    match below {
        Some(below) => climbs_nowhere(below),
        None => rest.is_empty(),
    }
}

/// Whether a prefix is one that can be compared: a path in it goes straight down.
#[must_use]
pub(super) fn is_straight(prefix: &str) -> bool {
    if !prefix.contains('/') {
        return !prefix.is_empty();
    }
    // The two slashes after a scheme are the only empty segment that means something.
    let path = prefix.split_once("://").map_or(prefix, |(_, rest)| rest);
    let path = path.strip_prefix('/').unwrap_or(path);
    climbs_nowhere(path.strip_suffix('/').unwrap_or(path)) || path.is_empty()
}

/// No dot segments, no empty ones but the last, no other spelling of slash, dot or percent, no control characters.
fn climbs_nowhere(path: &str) -> bool {
    // In capitals or not: `%2E`, `%2e`.
    let is_encoded =
        |digits: &str| ["2e", "2f", "5c", "25", "00"].iter().any(|trick| trick.eq_ignore_ascii_case(digits));
    let has_encoded = path.split('%').skip(1).any(|rest| rest.get(..2).is_some_and(is_encoded));
    let spelled = |c: char| c.is_control() || matches!(c, '\\' | '\u{2215}' | '\u{2044}' | '\u{ff0f}' | '\u{ff0e}');
    if has_encoded || path.chars().any(spelled) {
        return false;
    }
    let body = path.strip_suffix('/').unwrap_or(path);
    body.is_empty() && path.is_empty() || body.split('/').all(is_plain_segment)
}

/// `..;x` and `.;x` are dot segments to servers that cut parameters off; `.. ` is one to file systems that trim.
fn is_plain_segment(segment: &str) -> bool {
    !segment.is_empty()
        && segment != "."
        && !segment.starts_with("..")
        && !segment.starts_with(".;")
        && !segment.starts_with(". ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn below_is_below() {
        for (prefix, value, want) in [
            ("/reports/", "/reports/q3.md", true),
            ("/reports/", "/reports/2026/q3.md", true),
            ("/reports/", "/reports/", true),
            ("/reports/", "/reports", false),
            ("/reports", "/reports", true),
            ("/reports", "/reports/q3.md", true),
            ("/reports", "/reports-old/q3.md", false),
            ("/reports", "/reportsq3.md", false),
            ("/reports/", "/reports/../etc/passwd", false),
            ("/reports/", "/reports/..", false),
            ("/reports/", "/reports/./q3.md", false),
            ("/reports/", "/reports//etc/passwd", false),
            ("/reports/", "/reports//", false),
            ("/reports/", "/reports/a/../../etc", false),
            ("/reports/", "/reports/%2e%2e/etc", false),
            ("/reports/", "/reports/%2E%2E/etc", false),
            ("/reports/", "/reports/..%2fetc", false),
            ("/reports/", "/reports/%252e%252e/etc", false),
            ("/reports/", "/reports/..\\etc", false),
            ("/reports/", "/reports/a%5c..%5cetc", false),
            ("/reports/", "/reports/..;/etc", false),
            ("/reports/", "/reports/.. /etc", false),
            ("/reports/", "/reports/a\0b", false),
            ("/reports/", "/reports/a%00b", false),
            ("/reports/", "/reports/\u{ff0e}\u{ff0e}/etc", false),
            ("/reports/", "/reports/..\u{2215}etc", false),
            ("/reports/", "/Reports/q3.md", false),
            ("/reports/", "/REPORTS/../etc", false),
            ("/reports/", "reports/q3.md", false),
            ("/reports/", "/reports/.hidden", true),
            ("/reports/", "/reports/50%25", false),
            ("/reports/", "/reports/q3 final.md", true),
            ("/", "/etc/passwd", true),
            ("/", "/../etc", false),
            ("https://a.example/api", "https://a.example/api/v1", true),
            ("https://a.example/api", "https://a.example/apis", false),
            ("https://a.example", "https://a.example.evil.com/", false),
            ("https://a.example", "https://a.example@evil.com/", false),
            ("INV-", "INV-2026-17", true),
            ("INV-", "inv-2026-17", false),
            ("e\u{301}", "\u{e9}", false),
        ] {
            assert_eq!(is_below(value, prefix), want, "{prefix} {value:?}");
        }
    }

    #[test]
    fn a_prefix_goes_straight_down() {
        for good in ["/", "/reports", "/reports/", "reports/2026", "https://a.example/api", "https://a.example", "INV-"]
        {
            assert!(is_straight(good), "{good}");
        }
        for bad in ["", "/reports/../etc", "/./a", "//a", "/a//b", "/a/%2e%2e", "https://a.example//b", "/a\\b"] {
            assert!(!is_straight(bad), "{bad}");
        }
    }
}
