//! When does a value lie below a prefix? For paths a plain comparison of characters is wrong in both directions.
//!
//! Nobody knows here what the tool will do with the value: it may decode escapes, normalise characters, cut parameters off,
//! trim names. So what could be a path to anybody is held to what climbs nowhere for everybody.

use std::borrow::Cow;

/// Whether `value` begins with `prefix`.
///
/// A prefix with a slash in it is one of a path: it ends where a segment ends, and what follows may not climb, by
/// whichever spelling: `/reports` has `/reports/q3.md` below it, and neither `/reports-old` nor `/reports/../etc/passwd`.
/// Any other prefix ends anywhere: `INV-` has `INV-17` below it, and `INV-2026/17`; but a value with a slash in it may not
/// climb either, so not `INV-/../../etc/passwd`.
#[must_use]
pub(super) fn is_below(value: &str, prefix: &str) -> bool {
    let Some(rest) = value.strip_prefix(prefix) else { return false };
    if !prefix.contains('/') {
        return is_traversal_free(value);
    }
    let below = if prefix.ends_with('/') { Some(rest) } else { rest.strip_prefix('/') };
    match below {
        Some(below) => has_only_plain_segments(below),
        None => rest.is_empty(),
    }
}

/// Whether a text climbs nowhere: it is no path, or one that goes straight down. What a prefix must be, so that what lies below it
/// can be told.
#[must_use]
pub(super) fn is_traversal_free(text: &str) -> bool {
    if !looks_like_path(text) {
        return is_plain_segment(text);
    }
    // The two slashes after a scheme are the only empty segment that means something.
    let path = text.split_once("://").filter(|(scheme, _)| is_scheme(scheme)).map_or(text, |(_, rest)| rest);
    has_only_plain_segments(path.strip_prefix('/').unwrap_or(path))
}

/// RFC 3986 §3.1
fn is_scheme(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.'))
}

/// Whether there is a slash in it, or what somebody may make one of.
fn looks_like_path(text: &str) -> bool {
    let is_escape = |rest: &str| {
        let mut next = rest.bytes();
        let first = next.next();
        matches!(first, Some(b'u' | b'U'))
            || [first, next.next()].iter().all(|b| b.is_some_and(|b| b.is_ascii_hexdigit()))
    };
    text.contains(|c| c == '/' || is_slash_confusable(c) || is_percent_confusable(c))
        || text.split('%').skip(1).any(is_escape)
}

/// No dot segments, no empty ones but the last, no other spelling of slash, dot or percent, nothing that is not seen.
fn has_only_plain_segments(path: &str) -> bool {
    let Some(path) = percent_decode(path).filter(|path| !path.contains(is_confusable)) else { return false };
    let body = path.strip_suffix('/').unwrap_or(&path);
    body.is_empty() && path.is_empty() || body.split('/').all(is_plain_segment)
}

/// The path without its escapes (RFC 3986 §2.1). `None` where something else than one stands behind a `%`, and where one hides
/// what decides about a path, or is no UTF-8.
fn percent_decode(path: &str) -> Option<Cow<'_, str>> {
    if !path.contains('%') {
        return Some(Cow::Borrowed(path));
    }
    let mut parts = path.split('%');
    let mut bytes = parts.next().unwrap_or_default().as_bytes().to_vec();
    for part in parts {
        let (escape, rest) = part.split_at_checked(2)?;
        let is_hex = escape.bytes().all(|b| b.is_ascii_hexdigit());
        let byte = u8::from_str_radix(escape, 16).ok().filter(|_| is_hex)?;
        if matches!(byte, b'.' | b'/' | b'\\' | b'%') {
            return None;
        }
        bytes.push(byte);
        bytes.extend_from_slice(rest.as_bytes());
    }
    String::from_utf8(bytes).ok().map(Cow::Owned)
}

/// Not a dot segment, and not nothing, also to who cuts parameters off (`..;x`) or trims what is not seen (`.. `).
fn is_plain_segment(segment: &str) -> bool {
    let name = segment.split(';').next().unwrap_or_default().trim_start_matches(is_ignorable);
    match name.strip_prefix('.') {
        None => !name.is_empty(),
        Some(rest) => rest.chars().next().is_some_and(|next| next != '.' && !is_ignorable(next)),
    }
}

/// What may be cut off a name or passed over in it: white space, and marks that show nothing of their own.
fn is_ignorable(c: char) -> bool {
    c.is_whitespace()
        || is_format_character(c)
        || matches!(c, '\u{34f}' | '\u{115f}'..='\u{1160}' | '\u{17b4}'..='\u{17b5}' | '\u{180b}'..='\u{180f}')
        || matches!(c, '\u{3164}' | '\u{fe00}'..='\u{fe0f}' | '\u{ffa0}' | '\u{e0000}'..='\u{e0fff}')
}

/// What has no place in a path: characters that decide in it to whoever normalises them (NFKC), looks at them, or reads them
/// in an old code page, and those that nobody sees.
fn is_confusable(c: char) -> bool {
    c.is_control()
        || is_slash_confusable(c)
        || is_percent_confusable(c)
        || is_dot_confusable(c)
        || is_format_character(c)
}

/// The slashes and backslashes beside `/`.
fn is_slash_confusable(c: char) -> bool {
    matches!(c, '\\' | '\u{2044}' | '\u{2215}' | '\u{2216}' | '\u{29f5}' | '\u{29f8}' | '\u{29f9}')
        || matches!(c, '\u{fe68}' | '\u{ff0f}' | '\u{ff3c}')
}

fn is_percent_confusable(c: char) -> bool {
    matches!(c, '\u{fe6a}' | '\u{ff05}')
}

/// What NFKC makes a dot of, or a text with one in it or with a slash; and `¥` and `₩`, which stand in some code pages where the
/// backslash is in others.
fn is_dot_confusable(c: char) -> bool {
    matches!(c, '\u{2024}'..='\u{2026}' | '\u{2100}'..='\u{2101}' | '\u{2105}'..='\u{2106}' | '\u{2488}'..='\u{249b}')
        || matches!(c, '\u{33c2}' | '\u{33c7}' | '\u{33d8}' | '\u{fe19}' | '\u{fe30}' | '\u{fe52}' | '\u{ff0e}')
        || matches!(c, '\u{1f100}' | '\u{a5}' | '\u{20a9}')
}

/// The general category Cf: joiners, marks of direction, tags.
fn is_format_character(c: char) -> bool {
    matches!(c, '\u{ad}' | '\u{600}'..='\u{605}' | '\u{61c}' | '\u{6dd}' | '\u{70f}' | '\u{890}'..='\u{891}' | '\u{8e2}')
        || matches!(c, '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}')
        || matches!(c, '\u{feff}' | '\u{fff0}'..='\u{fffb}' | '\u{110bd}' | '\u{110cd}' | '\u{13430}'..='\u{1343f}')
        || matches!(c, '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e0fff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn path_prefix_matches_only_whole_segments_without_traversal() {
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
        ] {
            assert_eq!(is_below(value, prefix), want, "{prefix} {value:?}");
        }
    }

    #[test]
    fn encoded_or_confusable_traversal_is_rejected() {
        for (prefix, value, want) in [
            ("/reports/", "/reports/\u{2025}/etc", false),
            ("/reports/", "/reports/\u{2024}\u{2024}/etc", false),
            ("/reports/", "/reports/\u{fe52}\u{fe52}/etc", false),
            ("/reports/", "/reports/\u{fe19}/etc", false),
            ("/reports/", "/reports/x\u{ff3c}..\u{ff3c}etc", false),
            ("/reports/", "/reports/x\u{fe68}..\u{fe68}etc", false),
            ("/reports/", "/reports/x\u{2216}..\u{2216}etc", false),
            ("/reports/", "/reports/x\u{a5}..\u{a5}etc", false),
            ("/reports/", "/reports/\u{ff05}2e\u{ff05}2e/etc", false),
            ("/reports/", "/reports/%\u{ff12}e%\u{ff12}e/etc", false),
            ("/reports/", "/reports/%c0%ae%c0%ae/etc", false),
            ("/reports/", "/reports/%e0%80%ae/etc", false),
            ("/reports/", "/reports/%c0%af..%c0%af/etc", false),
            ("/reports/", "/reports/%u002e%u002e/etc", false),
            ("/reports/", "/reports/%EF%BC%8E%EF%BC%8E/etc", false),
            ("/reports/", "/reports/%E2%80%A5/etc", false),
            ("/reports/", "/reports/.%20/etc", false),
            ("/reports/", "/reports/%20../etc", false),
            ("/reports/", "/reports/.%E2%80%8B./etc", false),
            ("/reports/", "/reports/.\u{200b}./etc", false),
            ("/reports/", "/reports/.\u{fe0f}./etc", false),
            ("/reports/", "/reports/ ../etc", false),
            ("/reports/", "/reports/\u{a0}../etc", false),
            ("/reports/", "/reports/.\u{a0}/etc", false),
            ("/reports/", "/reports/. ./etc", false),
            ("/reports/", "/reports/ /etc", false),
            ("/reports/", "/reports/;x/etc", false),
            ("/reports/", "/reports/.;x/etc", false),
            ("/reports/", "/reports/. ;x/etc", false),
            ("/reports/", "/reports/%0a", false),
            ("/reports/", "/reports/%+1", false),
            ("/reports/", "/reports/%2", false),
            ("/reports/", "/reports/50%", false),
            // What is harmless stays usable.
            ("/reports/", "/reports/Q3%20final%20(2).md", true),
            ("/reports/", "/reports/caf%C3%A9.md", true),
            ("/reports/", "/reports/\u{dc}bersicht \u{2013} 2026.md", true),
            ("/reports/", "/reports/\u{62a}\u{642}\u{631}\u{64a}\u{631}/\u{5831}\u{544a}.md", true),
            ("/reports/", "/reports/\u{2764}\u{fe0f}.md", true),
            ("/reports/", "/reports/a..b/v1.2...v1.3/x;y=1/~me/#1?a=b&c=d@e:f,g+h'i!", true),
            ("/reports/", "/reports/.config/.env.d/x.", true),
        ] {
            assert_eq!(is_below(value, prefix), want, "{prefix} {value:?}");
        }
    }

    /// Any prefix, as soon as there is something of a path.
    #[test]
    fn non_path_prefix_rejects_traversal_in_value() {
        for (prefix, value, want) in [
            ("INV-", "INV-2026-17", true),
            ("INV-", "inv-2026-17", false),
            ("INV-", "INV-2026/17", true),
            ("INV-", "INV-/../../etc/passwd", false),
            ("INV-", "INV-50%", true),
            ("INV-", "INV-50% off, or \u{a5}500\u{2026}", true),
            ("reports", "reports/2026/q3.md", true),
            ("reports", "reports-old/q3.md", true),
            ("reports", "reports/../../etc/passwd", false),
            ("reports", "reports/..", false),
            ("reports", "reports//etc", false),
            ("reports", "reports%2f..%2fetc", false),
            ("reports", "reports%5c..%5cetc", false),
            ("reports", "reports%c0%af..%c0%afetc", false),
            ("reports", "reports%u2215..%u2215etc", false),
            ("reports", "reports\\..\\etc", false),
            ("reports", "reports\u{ff0f}..\u{ff0f}etc", false),
            ("reports", "reports\u{ff05}2f..\u{ff05}2fetc", false),
            ("reports", "reports/\u{2025}/etc", false),
            ("agents", "agents/../main", false),
            ("agents", "agents/planner/fix-1", true),
            ("C:", "C:\\reports\\..\\Windows\\system.ini", false),
            ("C:", "C:/reports/../Windows", false),
            ("C:", "C:/reports/q3.md", true),
            (".", "../etc/passwd", false),
            (".", "..", false),
            (".h", ".hidden/x", true),
            ("ann", "ann+reports@example.com", true),
            ("https:", "https://a.example/v1", true),
            ("https:", "https://a.example/../v1", false),
            ("file:", "file:///reports/q3.md", true),
            ("urn:", "urn:uuid:01970000-0000-7000-8000-000000000001", true),
            ("e\u{301}", "\u{e9}", false),
        ] {
            assert_eq!(is_below(value, prefix), want, "{prefix} {value:?}");
        }
    }

    #[test]
    fn prefix_with_traversal_is_rejected() {
        for good in [
            "/",
            "/reports",
            "/reports/",
            "reports/2026",
            "https://a.example/api",
            "https://a.example",
            "https://",
            "INV-",
            "50%",
            "Re: ",
            ".config",
            "/caf%C3%A9",
        ] {
            assert!(is_traversal_free(good), "{good}");
        }
        for bad in [
            "",
            ".",
            "..",
            " .",
            " ",
            "/reports/../etc",
            "/./a",
            "//a",
            "/a//b",
            "/a//",
            "/a/%2e%2e",
            "https://a.example//b",
            "/a\\b",
            "C:\\reports\\",
            "a\u{ff0f}b",
            "a%2fb",
            "a%c3",
            "a%u002f",
            "../x://y",
            "://y",
            "/a/\u{2025}",
        ] {
            assert!(!is_traversal_free(bad), "{bad}");
        }
    }

    /// What `within` and `meet` rest on, for every text of up to four pieces and all that it begins with.
    #[test]
    fn is_below_is_a_partial_order() {
        let pieces = ["a", "/", ".", "%", "2f", "c3", "a9", ";", " ", "\\", ":", "://", "\u{2025}", "\u{200b}"];
        let mut texts = vec![vec![String::new()]];
        for length in 0..4 {
            let longer = |text: &String| pieces.map(|piece| format!("{text}{piece}"));
            texts.push(texts[length].iter().flat_map(longer).collect());
        }
        let (mut together, mut apart) = (0, 0);
        for value in texts.iter().flatten() {
            let starts = value.char_indices().map(|(n, _)| value.get(..n).unwrap()).chain([value.as_str()]);
            let prefixes = starts.filter(|prefix| is_traversal_free(prefix)).collect::<Vec<_>>();
            for (n, long) in prefixes.iter().enumerate() {
                assert!(is_below(long, long), "{long:?}");
                let is_below_long = is_below(value, long);
                for short in prefixes.iter().take(n) {
                    let (is_long_below, is_below_short) = (is_below(long, short), is_below(value, short));
                    let names = format_args!("{short:?} {long:?} {value:?}");
                    assert!(
                        !(is_long_below && is_below_long) || is_below_short,
                        "what is below what is below: {names}"
                    );
                    assert!(
                        !(is_below_short && is_below_long) || is_long_below,
                        "two that have one below them: {names}"
                    );
                    together += u32::from(is_below_short && is_below_long && value != long);
                    apart += u32::from(!is_long_below);
                }
            }
        }
        assert!(
            together > 10_000 && apart > 1_000,
            "{together} values below two prefixes, {apart} prefixes side by side"
        );
    }
}
