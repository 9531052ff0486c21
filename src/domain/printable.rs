//! Escapes of invisible characters, for texts that a person reads in a terminal or a log.
//!
//! Other parties write parts of these texts: purposes, subjects, names, errors. They must not be
//! able to move the cursor, to change the writing direction (U+202E) or to hide a part (U+200B).

use std::{
    borrow::Cow,
    fmt::{self, Write},
};

use errand_authority::characters::{is_format_character, is_ignorable};

/// Returns the text with each invisible character written as `\u` and four hexadecimal digits, or
/// as two such escapes: the escapes of JSON, so that JSON stays JSON. Spaces are kept.
#[must_use]
pub fn escape_invisible(text: &str) -> Cow<'_, str> {
    escape_where(text, is_invisible)
}

/// As [`escape_invisible`], but keeps line feeds and tabs, for a text of several lines.
#[must_use]
pub fn escape_lines(text: &str) -> Cow<'_, str> {
    escape_where(text, |c| is_invisible(c) && !matches!(c, '\n' | '\t'))
}

/// Returns whether a character is invisible and may affect others: control and formatting
/// characters, separators of lines and paragraphs, and those that renderers ignore.
fn is_invisible(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{2028}' | '\u{2029}')
        || is_format_character(c)
        || is_ignorable(c) && !c.is_whitespace()
}

fn escape_where(text: &str, is_escaped: impl Fn(char) -> bool + Copy) -> Cow<'_, str> {
    if !text.contains(is_escaped) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if is_escaped(c) {
            for unit in c.encode_utf16(&mut [0; 2]) {
                // Writing to a `String` does not fail.
                let _: fmt::Result = write!(escaped, "\\u{unit:04x}");
            }
        } else {
            escaped.push(c);
        }
    }
    Cow::Owned(escaped)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The classes are listed here again, so that a change of the tables is noticed.
    #[test]
    fn invisible_characters_are_escaped() {
        for (text, want) in [
            ("\u{1b}[2J", "\\u001b[2J"),
            ("a\u{0}b\u{7f}\u{85}\u{9b}", "a\\u0000b\\u007f\\u0085\\u009b"),
            ("\u{202a}\u{202b}\u{202c}\u{202d}\u{202e}", "\\u202a\\u202b\\u202c\\u202d\\u202e"),
            (
                "\u{2066}\u{2067}\u{2068}\u{2069}\u{200e}\u{200f}\u{61c}",
                "\\u2066\\u2067\\u2068\\u2069\\u200e\\u200f\\u061c",
            ),
            ("\u{200b}\u{200c}\u{200d}\u{2060}\u{feff}\u{ad}", "\\u200b\\u200c\\u200d\\u2060\\ufeff\\u00ad"),
            ("\u{2028}\u{2029}", "\\u2028\\u2029"),
            ("\u{34f}\u{115f}\u{1160}\u{17b4}\u{180b}\u{180e}", "\\u034f\\u115f\\u1160\\u17b4\\u180b\\u180e"),
            ("\u{3164}\u{ffa0}\u{fe0f}", "\\u3164\\uffa0\\ufe0f"),
            ("\u{e0001}\u{e0041}\u{1d173}", "\\udb40\\udc01\\udb40\\udc41\\ud834\\udd73"),
        ] {
            assert_eq!(escape_invisible(text), want);
            assert_eq!(escape_lines(text), want);
        }
        for text in ["", "zo\u{eb} \u{62a}\u{642}\u{631} \u{5831}\u{544a} \u{1f980}", "a\u{a0}b\u{3000}c", "\"\\"] {
            assert!(matches!(escape_invisible(text), Cow::Borrowed(same) if same == text));
        }
        assert_eq!(escape_invisible("a\n\tb\r"), "a\\u000a\\u0009b\\u000d");
        assert_eq!(escape_lines("a\n\tb\r"), "a\n\tb\\u000d");
    }

    #[test]
    fn escaped_json_is_the_same_json() {
        let value = serde_json::json!({"a\u{202e}": "\u{200b}\u{e0041}\u{1b}\n\\u0041"});
        let written = serde_json::to_string_pretty(&value).unwrap();
        let escaped = escape_lines(&written);
        assert!(escaped.is_ascii() && escaped != written);
        assert_eq!(serde_json::from_str::<serde_json::Value>(&escaped).unwrap(), value);
    }
}
