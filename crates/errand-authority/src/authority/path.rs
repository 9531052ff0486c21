//! Prefix matching of values, safe for paths.
//!
//! For paths, comparing characters is wrong in both directions. The tool that gets the value is
//! unknown: it may decode escapes, normalize characters, cut parameters off or trim names. So a
//! value that any tool could read as a path must be free of traversal for every tool.

use std::borrow::Cow;

use crate::characters::{is_format_character, is_ignorable};

/// Returns whether `value` begins with `prefix`.
///
/// A prefix that contains a slash is a path. It matches whole segments only, and the rest of the
/// value must be free of traversal in every spelling. `/reports` matches `/reports/q3.md`, but
/// neither `/reports-old` nor `/reports/../etc/passwd`.
///
/// Any other prefix matches any text: `INV-` matches `INV-17` and `INV-2026/17`. But a value that
/// could be a path must be free of traversal here too: `INV-/../../etc/passwd` does not match.
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

/// Returns whether a text has no traversal: it is not a path, or it is a path of plain segments. A
/// prefix must have this property, so that [`is_below`] can decide about the values below it.
#[must_use]
pub(super) fn is_traversal_free(text: &str) -> bool {
    if !looks_like_path(text) {
        return is_plain_segment(text) && !text.split(is_separator_in_code_page).any(is_dot_segment);
    }
    // The two slashes after a scheme are the only empty segment with a meaning.
    let path = text.split_once("://").filter(|(scheme, _)| is_scheme(scheme)).map_or(text, |(_, rest)| rest);
    has_only_plain_segments(path.strip_prefix('/').unwrap_or(path))
}

/// RFC 3986 §3.1.
fn is_scheme(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.'))
}

/// Returns whether the text contains a slash, or something that a tool may turn into one.
fn looks_like_path(text: &str) -> bool {
    text.contains(|c| c == '/' || is_slash_confusable(c) || is_percent_confusable(c))
        || text.split('%').skip(1).any(begins_with_escape)
}

/// Returns whether the text after a percent sign completes an escape for some tool: two hexadecimal
/// digits, or `u`. Digits count in every script and every style, since a tool may normalize the
/// text before it decodes it, and some decoders (`Integer.parseInt` of Java) read all decimal
/// digits. Invisible characters don't count, since a tool may remove them.
fn begins_with_escape(rest: &str) -> bool {
    let mut visible = rest.chars().filter(|c| c.is_whitespace() || !is_ignorable(*c));
    match visible.next() {
        Some(c) if is_u(c) || is_digit_pair(c) => true,
        Some(c) if is_hex_digit(c) => visible.next().is_some_and(is_hex_digit),
        _ => false,
    }
}

/// Returns whether the path has no dot segments, no empty segments except the last, no other
/// spelling of slash, dot or percent, and no invisible characters.
fn has_only_plain_segments(path: &str) -> bool {
    let Some(path) = percent_decode(path).filter(|path| !path.contains(is_confusable)) else { return false };
    let body = path.strip_suffix('/').unwrap_or(&path);
    body.is_empty() && path.is_empty() || body.split('/').all(is_plain_segment)
}

/// Decodes the escapes of a path (RFC 3986 §2.1). Returns `None` if an escape is malformed, if it
/// encodes a character that structures a path, or if the result is not UTF-8.
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

/// Returns whether a segment is neither empty nor a dot segment, also for a tool that cuts
/// parameters off (`..;x`) or trims invisible characters (`.. `).
fn is_plain_segment(segment: &str) -> bool {
    let name = cut_parameters(segment).trim_start_matches(is_ignorable);
    match name.strip_prefix('.') {
        None => !name.is_empty(),
        Some(rest) => rest.chars().next().is_some_and(|next| next != '.' && !is_ignorable(next)),
    }
}

/// Returns whether a part of a text consists of dots in any spelling, with nothing visible beside
/// them.
fn is_dot_segment(part: &str) -> bool {
    let mut visible = cut_parameters(part).chars().filter(|c| !is_ignorable(*c)).peekable();
    visible.peek().is_some() && visible.all(is_dot)
}

/// Cuts off the parameters of a segment (`..;x`).
fn cut_parameters(segment: &str) -> &str {
    segment.split(is_semicolon).next().unwrap_or_default()
}

/// Characters that are rejected in a path. They become a slash, a dot or a percent sign when a tool
/// normalizes them (NFKC) or reads them in an old code page, look like one, or are invisible.
fn is_confusable(c: char) -> bool {
    c.is_control()
        || is_slash_confusable(c)
        || is_percent_confusable(c)
        || is_dot_confusable(c)
        || is_format_character(c)
}

/// Slashes and backslashes other than `/`: by NFKC or by appearance.
fn is_slash_confusable(c: char) -> bool {
    matches!(c, '\\' | '\u{2044}' | '\u{2215}' | '\u{2216}' | '\u{29f5}' | '\u{29f8}' | '\u{29f9}')
        || matches!(c, '\u{fe68}' | '\u{ff0f}' | '\u{ff3c}')
}

/// Percent signs other than `%`, by NFKC.
fn is_percent_confusable(c: char) -> bool {
    matches!(c, '\u{fe6a}' | '\u{ff05}')
}

/// Characters that NFKC turns into a dot, or into a text that contains a dot or a slash. Also `¥`
/// and `₩` (and their fullwidth forms), whose place in some code pages is that of the backslash in
/// others.
fn is_dot_confusable(c: char) -> bool {
    matches!(c, '\u{2024}'..='\u{2026}' | '\u{2100}'..='\u{2101}' | '\u{2105}'..='\u{2106}' | '\u{2488}'..='\u{249b}')
        || matches!(c, '\u{33c2}' | '\u{33c7}' | '\u{33d8}' | '\u{fe19}' | '\u{fe30}' | '\u{fe52}' | '\u{ff0e}')
        || matches!(c, '\u{1f100}' | '\u{a5}' | '\u{20a9}' | '\u{ffe5}' | '\u{ffe6}')
}

/// The characters whose place in some code pages is that of the backslash in others, and `⅟`, whose
/// NFKC form ends with a fraction slash. In a text without a slash they are ordinary, as in `¥500`.
fn is_separator_in_code_page(c: char) -> bool {
    matches!(c, '\u{a5}' | '\u{20a9}' | '\u{ffe5}' | '\u{ffe6}' | '\u{215f}')
}

/// A dot, or a character that NFKC turns into dots.
fn is_dot(c: char) -> bool {
    matches!(c, '.' | '\u{2024}'..='\u{2026}' | '\u{fe19}' | '\u{fe30}' | '\u{fe52}' | '\u{ff0e}')
}

/// A semicolon, or a character that NFKC turns into one.
fn is_semicolon(c: char) -> bool {
    matches!(c, ';' | '\u{37e}' | '\u{fe14}' | '\u{fe54}' | '\u{ff1b}')
}

/// A hexadecimal digit of ASCII, a number of any script, or a character whose NFKC form begins with
/// a hexadecimal digit. Some ranges include styled letters that are no digits.
fn is_hex_digit(c: char) -> bool {
    c.is_ascii_hexdigit()
        || c.is_numeric()
        || matches!(c, '\u{aa}' | '\u{1c4}'..='\u{1c6}' | '\u{1f1}'..='\u{1f3}' | '\u{1d2c}'..='\u{1d31}' | '\u{1d43}'..='\u{1d49}')
        || matches!(c, '\u{1d9c}'..='\u{1da0}' | '\u{1e9a}' | '\u{2090}'..='\u{2091}' | '\u{2100}'..='\u{214f}')
        || matches!(c, '\u{24b6}'..='\u{24e9}' | '\u{32c0}'..='\u{32ce}' | '\u{3358}'..='\u{33ff}' | '\u{a7f2}'..='\u{a7f3}')
        || matches!(c, '\u{fb00}'..='\u{fb04}' | '\u{ff21}'..='\u{ff26}' | '\u{ff41}'..='\u{ff46}' | '\u{1ccd6}'..='\u{1ccdb}')
        || matches!(c, '\u{1d400}'..='\u{1d6a3}' | '\u{1f12b}'..='\u{1f12d}' | '\u{1f130}'..='\u{1f135}' | '\u{1f190}')
}

/// A character whose NFKC form begins with two hexadecimal digits.
fn is_digit_pair(c: char) -> bool {
    matches!(c, '\u{213b}' | '\u{2469}'..='\u{2473}' | '\u{2491}'..='\u{249b}' | '\u{3251}'..='\u{325f}')
        || matches!(c, '\u{32b1}'..='\u{32bf}' | '\u{32c9}'..='\u{32cb}' | '\u{3362}'..='\u{3370}' | '\u{3372}')
        || matches!(c, '\u{3374}' | '\u{3388}' | '\u{33c4}'..='\u{33c5}' | '\u{33c8}' | '\u{33e9}'..='\u{33fe}')
        || matches!(c, '\u{fb00}' | '\u{fb03}'..='\u{fb04}' | '\u{1f12d}')
}

/// `u`, which begins an escape of four digits for some tools, or a character whose NFKC form begins
/// with it.
fn is_u(c: char) -> bool {
    matches!(c, 'u' | 'U' | '\u{1d41}' | '\u{1d58}' | '\u{1d64}' | '\u{24ca}' | '\u{24e4}' | '\u{ff35}' | '\u{ff55}')
        || matches!(c, '\u{1ccea}' | '\u{1f144}')
        // The styled alphabets follow each other, 26 letters each.
        || matches!(c, '\u{1d400}'..='\u{1d6a3}') && (u32::from(c) - 0x1d400) % 26 == 20
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use unicode_normalization::UnicodeNormalization;
    use unicode_properties::{GeneralCategory, UnicodeGeneralCategory};

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
            ("/reports/", "/reports/.\u{ff1b}x/etc", false),
            ("/reports/", "/reports/\u{37e}x/etc", false),
            ("/reports/", "/reports/%0a", false),
            ("/reports/", "/reports/%+1", false),
            ("/reports/", "/reports/%2", false),
            ("/reports/", "/reports/50%", false),
            // Harmless values are accepted.
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

    /// Each in front of, between and behind the dots of a dot segment.
    #[test]
    fn invisible_characters_are_trimmed() {
        for c in [
            '\u{9}',
            '\u{20}',
            '\u{a0}',
            '\u{ad}',
            '\u{34f}',
            '\u{61c}',
            '\u{115f}',
            '\u{1160}',
            '\u{17b4}',
            '\u{17b5}',
            '\u{180b}',
            '\u{180c}',
            '\u{180d}',
            '\u{180e}',
            '\u{180f}',
            '\u{200b}',
            '\u{202e}',
            '\u{2060}',
            '\u{2066}',
            '\u{3000}',
            '\u{3164}',
            '\u{fe00}',
            '\u{fe0f}',
            '\u{feff}',
            '\u{ffa0}',
            '\u{fff0}',
            '\u{fffb}',
            '\u{1bca0}',
            '\u{1d173}',
            '\u{e0000}',
            '\u{e0001}',
            '\u{e0020}',
            '\u{e0100}',
            '\u{e01ef}',
            '\u{e0fff}',
        ] {
            for value in
                [format!("/r/{c}../etc"), format!("/r/.{c}./etc"), format!("/r/..{c}/etc"), format!("/r/{c}/etc")]
            {
                assert!(!is_below(&value, "/r/"), "{}", value.escape_unicode());
            }
        }
    }

    /// A value that contains part of a path is checked below any prefix.
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
            // Escapes in other scripts and styles, or with something invisible inside.
            ("INV-", "INV-%\u{ff12}f..", false),
            ("INV-", "INV-%2\u{ff46}..%2\u{ff46}etc", false),
            ("INV-", "INV-%\u{ff12}\u{ff26}..", false),
            ("INV-", "INV-%\u{662}f..", false),
            ("INV-", "INV-%\u{1d7da}\u{1d41f}..", false),
            ("INV-", "INV-%\u{b2}\u{1da0}..", false),
            ("INV-", "INV-%\u{3255}2f..", false),
            ("INV-", "INV-%\u{200b}2f..", false),
            ("INV-", "INV-%2\u{2060}f..", false),
            ("INV-", "INV-%\u{ff55}002f..", false),
            ("INV-", "INV-%\u{200b}\u{1d42e}002f..", false),
            ("INV-", "INV-\u{a5}..\u{a5}etc", false),
            ("INV-", "INV-\u{20a9}\u{2025}\u{20a9}etc", false),
            ("INV-", "INV-\u{ffe5}.\u{200b}.", false),
            ("INV-", "INV-\u{a5}..;x\u{a5}etc", false),
            ("INV-", "INV-\u{215f}..", false),
            ("INV-", "INV-50%\u{6298}\u{6263}", true),
            ("INV-", "INV-50%\u{a0}off", true),
            ("INV-", "INV-50%\u{b2} of \u{20a9}500", true),
            ("INV-", "INV-50%\u{e4}", true),
            ("\u{ff0e}", "\u{ff0e}\u{ff0e}", false),
            ("\u{ff0e}", "\u{ff0e}\u{ff0e}\u{ff1b}x", false),
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
        for prefix in [
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
            assert!(is_traversal_free(prefix), "{prefix}");
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

    /// `is_subset_of` and `intersect` depend on this. Checked for every text of up to four pieces
    /// and each of its prefixes.
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
                    assert!(!(is_long_below && is_below_long) || is_below_short, "transitive: {names}");
                    assert!(
                        !(is_below_short && is_below_long) || is_long_below,
                        "two prefixes of one value are ordered: {names}"
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

    fn chars(predicate: impl Fn(char) -> bool) -> BTreeSet<char> {
        ('\0'..=char::MAX).filter(|c| predicate(*c)).collect()
    }

    /// Characters with a certain NFKC form, apart from those that are in that form already.
    fn chars_with_nfkc(predicate: impl Fn(&str) -> bool) -> BTreeSet<char> {
        chars(|c| {
            let normalized = c.nfkc().collect::<String>();
            normalized != c.to_string() && predicate(&normalized)
        })
    }

    fn with_chars(derived: BTreeSet<char>, others: &str) -> BTreeSet<char> {
        derived.into_iter().chain(others.chars()).collect()
    }

    #[test]
    fn confusable_tables_equal_unicode_data() {
        let backslash_or_slash = chars_with_nfkc(|text| text == "/" || text == "\\");
        let lookalikes = "\\\u{2044}\u{2215}\u{2216}\u{29f5}\u{29f8}\u{29f9}";
        assert_eq!(chars(is_slash_confusable), with_chars(backslash_or_slash, lookalikes));

        assert_eq!(chars(is_percent_confusable), chars_with_nfkc(|text| text.contains('%')));

        let dots = chars_with_nfkc(|text| text.contains('.') || text.len() > 1 && text.contains(['/', '\\']));
        assert_eq!(chars(is_dot_confusable), with_chars(dots, "\u{a5}\u{20a9}\u{ffe5}\u{ffe6}"));

        assert_eq!(chars(is_semicolon), with_chars(chars_with_nfkc(|text| text == ";"), ";"));
        assert_eq!(chars(is_dot), with_chars(chars_with_nfkc(|text| text.bytes().all(|b| b == b'.')), "."));
    }

    /// An escape is recognized in every spelling that a tool may normalize to one, and in the
    /// digits of every script.
    #[test]
    fn escape_tables_cover_unicode_data() {
        let nfkc_begins = |c: char, digits: usize| {
            let normalized = c.nfkc().collect::<String>();
            normalized.len() >= digits && normalized.chars().take(digits).all(|c| c.is_ascii_hexdigit())
        };
        assert_eq!(chars(|c| nfkc_begins(c, 1) && !is_hex_digit(c)), BTreeSet::new());
        assert_eq!(
            chars(|c| c.general_category() == GeneralCategory::DecimalNumber && !is_hex_digit(c)),
            BTreeSet::new()
        );
        assert_eq!(chars(is_digit_pair), chars(|c| nfkc_begins(c, 2)));
        assert_eq!(chars(is_u), chars(|c| c.nfkc().next().is_some_and(|c| matches!(c, 'u' | 'U'))));
        // Letters of living scripts are no digits.
        for c in
            "gGzZ\u{e4}\u{e9}\u{f1}\u{430}\u{3b1}\u{5d0}\u{639}\u{e01}\u{3042}\u{30ab}\u{4e00}\u{6298}\u{ac00}".chars()
        {
            assert!(!is_hex_digit(c) && !is_digit_pair(c) && !is_u(c), "{}", c.escape_unicode());
        }
        for value in chars(|c| nfkc_begins(c, 1) && !c.is_ascii()) {
            let value = format!("INV-%{value}f..");
            assert!(!is_below(&value, "INV-"), "{}", value.escape_unicode());
        }
    }

    /// A tool may normalize a value first: a character that NFKC turns into a rejected one is
    /// rejected too.
    #[test]
    fn nfkc_of_accepted_character_is_accepted() {
        let is_rejected = |c: char| is_confusable(c) || matches!(c, '/' | '.' | '%');
        let becomes_rejected = chars(|c| !is_rejected(c) && c.nfkc().any(is_rejected));
        // Fractions and units such as `½` and `㎧` contain a slash in appearance only.
        let is_fraction = |c: &char| c.nfkc().all(|c| !is_rejected(c) || matches!(c, '\u{2044}' | '\u{2215}'));
        assert_eq!(becomes_rejected.into_iter().filter(|c| !is_fraction(c)).collect::<BTreeSet<_>>(), BTreeSet::new());
        assert_eq!(chars(|c| !is_ignorable(c) && c.nfkc().all(is_ignorable)), BTreeSet::new());
    }

    /// White space, Cf, and the default-ignorable code points outside Cf
    /// (DerivedCoreProperties.txt).
    #[test]
    fn ignorable_character_does_not_hide_dot_segment() {
        let default_ignorable =
            "\u{34f}\u{115f}\u{1160}\u{17b4}\u{17b5}\u{180b}\u{180c}\u{180d}\u{180e}\u{180f}\u{3164}\u{ffa0}";
        let derived = chars(|c| {
            c.is_whitespace()
                || c.general_category() == GeneralCategory::Format
                || matches!(c, '\u{fe00}'..='\u{fe0f}' | '\u{fff0}'..='\u{fff8}' | '\u{e0000}'..='\u{e0fff}')
        });
        let ignorable = with_chars(derived, default_ignorable);
        for c in &ignorable {
            for segment in [format!("{c}.."), format!("{c}{c}."), format!(".{c}"), format!(".{c}."), c.to_string()] {
                let value = format!("/reports/{segment}/etc");
                assert!(!is_below(&value, "/reports/"), "{}", value.escape_unicode());
                assert!(!is_traversal_free(&value), "{}", value.escape_unicode());
                // A text without a slash is a single segment.
                assert!(!is_plain_segment(&segment), "{}", segment.escape_unicode());
            }
        }
        assert_eq!(chars(is_ignorable), with_chars(ignorable, "\u{2065}"));
    }
}
